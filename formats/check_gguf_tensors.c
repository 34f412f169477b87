/* The tensors that llama.cpp asks for, by architecture: it refuses a file that lacks one, that has
 * one of another shape and that has one more. */
#include "formats/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    WANT_OUTPUT = 1 << 0,     /* output.weight also where the head is tied */
    WANT_HEAD_NORMS = 1 << 1, /* q and k norms of a head's size */
    MAY_HEAD_NORMS = 1 << 2,  /* such, or none */
    WANT_FULL_NORMS = 1 << 3, /* q and k norms of the hidden size */
    POST_NORM = 1 << 4,       /* the norm before the FFN is called post_attention_norm */
    HEADS_OF_HIDDEN = 1 << 5, /* q is [hidden, hidden], whatever key_length says */
    O_BIAS = 1 << 6,          /* attn_output may have a bias */
    FFN_BIAS = 1 << 7,        /* and so may dense FFNs */
    MOE = 1 << 8,             /* every layer has experts */
    MAY_MOE = 1 << 9,         /* so it is when expert_count says so */
    DENSE_LEAD = 1 << 10,     /* but for the first leading_dense_block_count */
    EXPERTS_OF_FF = 1 << 11,  /* experts are as wide as feed_forward_length */
    SHARED_GATED = 1 << 12,   /* a shared expert with a gate */
    SHARED_COUNT = 1 << 13,   /* expert_shared_count of them */
    SHARED_WIDTH = 1 << 14,   /* of expert_shared_feed_forward_length, when it is given */
    WANT_SELECTION = 1 << 15, /* exp_probs_b */
    MAY_SELECTION = 1 << 16,
    ROPE_FREQS = 1 << 17, /* rope_freqs.weight may be there */
    NEXTN = 1 << 18,      /* the last nextn_predict_layers predict further tokens */
    WANT_O_BIAS = 1 << 19,
    SINKS = 1 << 20,         /* a score per head that has no value */
    EXPERT_BIASES = 1 << 21, /* and one on the router */
    HEADS_OF_ROT = 1 << 22,  /* heads are as wide as what rotates */
};

static const struct tensors_arch {
    const char *name;
    unsigned flags;
} tensors_archs[] = {
    {"llama", O_BIAS | FFN_BIAS | MAY_MOE | EXPERTS_OF_FF | ROPE_FREQS},
    {"granite", O_BIAS | FFN_BIAS | ROPE_FREQS},
    {"granitemoe", O_BIAS | MOE | EXPERTS_OF_FF | SHARED_WIDTH | ROPE_FREQS},
    {"qwen2", 0},
    {"qwen3", WANT_HEAD_NORMS},
    {"qwen2moe", WANT_OUTPUT | HEADS_OF_HIDDEN | MOE | SHARED_GATED},
    {"qwen3moe", WANT_HEAD_NORMS | MOE},
    {"olmoe", WANT_OUTPUT | HEADS_OF_HIDDEN | WANT_FULL_NORMS | MOE | EXPERTS_OF_FF},
    {"glm4moe",
     MAY_HEAD_NORMS | POST_NORM | MOE | DENSE_LEAD | SHARED_COUNT | WANT_SELECTION | NEXTN},
    {"gpt-oss", WANT_OUTPUT | POST_NORM | MOE | WANT_O_BIAS | SINKS | EXPERT_BIASES | HEADS_OF_ROT},
    {"ernie4_5-moe", O_BIAS | MOE | DENSE_LEAD | SHARED_WIDTH | MAY_SELECTION},
    {"dots1", WANT_OUTPUT | WANT_HEAD_NORMS | MOE | DENSE_LEAD | SHARED_COUNT | MAY_SELECTION},
};

/* Numbers of the metadata. */
struct tensors_shape {
    int64_t layers, hidden, ff, heads, kv_heads, key, value, rot, vocab;
    int64_t experts, used, expert_ff, shared_ff, dense_lead, nextn;
};

struct tensors {
    struct mt_ctx *ctx;
    struct mt_check *c;
    const char *arch;
    unsigned flags;
    struct tensors_shape s;
    const struct mt_gguf_record **v; /* sorted by name */
    bool *seen;
    size_t n;
    enum mt_flaw_kind kind; /* that the running rule tells of */
};

/* ---- the file ---- */

static int tensors_by_name(const void *a, const void *b)
{
    const struct mt_gguf_record *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static mt_status tensors_index(struct tensors *t)
{
    struct mt_check *c = t->c;
    size_t n = 0;

    for (size_t f = 0; f < c->n_gguf; f++)
        n += c->gguf[f].n;
    MT_TRY(mt_alloc(t->ctx, n, sizeof(struct mt_gguf_record *), "names of tensors", &t->v));
    MT_TRY(mt_alloc0(t->ctx, n, sizeof *t->seen, "names of tensors", &t->seen));
    for (size_t f = 0; f < c->n_gguf; f++)
        for (size_t i = 0; i < c->gguf[f].n; i++)
            t->v[t->n++] = &c->gguf[f].v[i];
    qsort(t->v, t->n, sizeof(struct mt_gguf_record *), tensors_by_name);
    return MT_OK;
}

/* Its place in v; t->n when it is not there. */
static size_t tensors_find(const struct tensors *t, const char *name)
{
    size_t lo = 0, hi = t->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(t->v[mid]->name, name) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < t->n && strcmp(t->v[lo]->name, name) == 0 ? lo : t->n;
}

static mt_status tensors_int(struct tensors *t, const char *key, int64_t dflt, int64_t *out)
{
    char full[160];

    snprintf(full, sizeof full, "%s.%s", t->arch, key);
    return mt_gguf_int(t->ctx, &t->c->gguf[0], full, dflt, out);
}

static mt_status tensors_read_shape(struct tensors *t)
{
    const struct mt_gguf_pair *tokens = mt_gguf_find(&t->c->gguf[0], "tokenizer.ggml.tokens");
    struct tensors_shape *s = &t->s;
    int64_t shared;

    MT_TRY(tensors_int(t, "block_count", 0, &s->layers));
    MT_TRY(tensors_int(t, "embedding_length", 0, &s->hidden));
    MT_TRY(tensors_int(t, "feed_forward_length", 0, &s->ff));
    MT_TRY(tensors_int(t, "attention.head_count", 0, &s->heads));
    MT_TRY(tensors_int(t, "attention.head_count_kv", s->heads, &s->kv_heads));
    MT_TRY(
        tensors_int(t, "attention.key_length", s->heads > 0 ? s->hidden / s->heads : 0, &s->key));
    MT_TRY(tensors_int(t, "attention.value_length", s->heads > 0 ? s->hidden / s->heads : 0,
                       &s->value));
    MT_TRY(tensors_int(t, "rope.dimension_count", s->key, &s->rot));
    if ((t->flags & HEADS_OF_ROT) != 0)
        s->key = s->value = s->rot;
    MT_TRY(tensors_int(t, "expert_count", 0, &s->experts));
    MT_TRY(tensors_int(t, "expert_used_count", 0, &s->used));
    MT_TRY(tensors_int(t, "expert_feed_forward_length", s->used > 0 ? s->ff / s->used : 0,
                       &s->expert_ff));
    if ((t->flags & EXPERTS_OF_FF) != 0)
        s->expert_ff = s->ff;
    if ((t->flags & DENSE_LEAD) != 0)
        MT_TRY(tensors_int(t, "leading_dense_block_count", 0, &s->dense_lead));
    if ((t->flags & NEXTN) != 0)
        MT_TRY(tensors_int(t, "nextn_predict_layers", 0, &s->nextn));
    MT_TRY(tensors_int(t, "expert_shared_count", 0, &shared));
    MT_TRY(tensors_int(t, "expert_shared_feed_forward_length",
                       (t->flags & SHARED_GATED) != 0 ? s->ff : 0, &s->shared_ff));
    if ((t->flags & SHARED_COUNT) != 0)
        s->shared_ff = shared >= 0 && shared <= 65536 && s->expert_ff <= MT_DIM_MAX
                           ? shared * s->expert_ff
                           : 0;
    s->vocab = tokens != NULL && tokens->type == MT_GGUF_ARRAY ? (int64_t)tokens->n : -1;
    return MT_OK;
}

/* ---- what is asked for ---- */

static mt_status tensors_flaw(struct tensors *t, enum mt_flaw_kind kind, const char *name,
                              const char *what)
{
    return kind == t->kind ? mt_check_found(t->ctx, t->c, name, "%s", what) : MT_OK;
}

static mt_status tensors_shape_flaw(struct tensors *t, const struct mt_gguf_record *r, int rank,
                                    const int64_t *ne)
{
    char got[128] = "", want[128] = "", text[300];
    size_t n = 0;
    bool same = true;

    for (int i = 0; i < MT_GGUF_DIMS_MAX; i++)
        same = same && (i < r->rank ? r->ne[i] : 1) == (uint64_t)(i < rank ? ne[i] : 1);
    if (same)
        return MT_OK;
    for (int i = 0; i < r->rank; i++)
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%" PRIu64, i > 0 ? ", " : "", r->ne[i]);
    n = 0;
    for (int i = 0; i < rank; i++)
        n += (size_t)snprintf(want + n, sizeof want - n, "%s%" PRId64, i > 0 ? ", " : "", ne[i]);
    snprintf(text, sizeof text, "it is {%s}, and the metadata make it {%s}", got, want);
    return tensors_flaw(t, MT_FLAW_SHAPE, r->name, text);
}

/* Dimensions of 0 are not there; a vocabulary of -1 is not known and not compared. */
static mt_status tensors_want(struct tensors *t, const char *name, bool needed, int64_t a,
                              int64_t b, int64_t c)
{
    const int64_t ne[3] = {a, b, c};
    int rank = c > 0 ? 3 : b != 0 ? 2 : 1;
    size_t at = tensors_find(t, name);

    if (at == t->n)
        return needed ? tensors_flaw(t, MT_FLAW_MISSING, name, "it is missing") : MT_OK;
    t->seen[at] = true;
    return b < 0 ? MT_OK : tensors_shape_flaw(t, t->v[at], rank, ne);
}

static mt_status tensors_want_in(struct tensors *t, int64_t layer, const char *name, bool needed,
                                 int64_t a, int64_t b, int64_t c)
{
    char full[64];

    snprintf(full, sizeof full, "blk.%" PRId64 ".%s", layer, name);
    return tensors_want(t, full, needed, a, b, c);
}

static mt_status tensors_attention(struct tensors *t, int64_t l)
{
    const struct tensors_shape *s = &t->s;
    bool of_hidden = (t->flags & HEADS_OF_HIDDEN) != 0, full = (t->flags & WANT_FULL_NORMS) != 0;
    bool norms = (t->flags & (WANT_HEAD_NORMS | WANT_FULL_NORMS)) != 0;
    int64_t q = of_hidden ? s->hidden : s->heads * s->key, k = s->kv_heads * s->key;
    int64_t v = s->kv_heads * s->value;

    if (of_hidden && s->heads > 0)
        k = v = s->kv_heads * (s->hidden / s->heads);
    MT_TRY(tensors_want_in(t, l, "attn_norm.weight", true, s->hidden, 0, 0));
    MT_TRY(tensors_want_in(t, l, "attn_q.weight", true, s->hidden, q, 0));
    MT_TRY(tensors_want_in(t, l, "attn_k.weight", true, s->hidden, k, 0));
    MT_TRY(tensors_want_in(t, l, "attn_v.weight", true, s->hidden, v, 0));
    MT_TRY(tensors_want_in(t, l, "attn_q.bias", false, q, 0, 0));
    MT_TRY(tensors_want_in(t, l, "attn_k.bias", false, k, 0, 0));
    MT_TRY(tensors_want_in(t, l, "attn_v.bias", false, v, 0, 0));
    MT_TRY(tensors_want_in(t, l, "attn_output.weight", true, q, s->hidden, 0));
    if ((t->flags & (O_BIAS | WANT_O_BIAS)) != 0)
        MT_TRY(tensors_want_in(t, l, "attn_output.bias", (t->flags & WANT_O_BIAS) != 0, s->hidden,
                               0, 0));
    if ((t->flags & SINKS) != 0)
        MT_TRY(tensors_want_in(t, l, "attn_sinks.weight", true, s->heads, 0, 0));
    if (norms || (t->flags & MAY_HEAD_NORMS) != 0) {
        MT_TRY(tensors_want_in(t, l, "attn_q_norm.weight", norms, full ? s->hidden : s->key, 0, 0));
        MT_TRY(tensors_want_in(t, l, "attn_k_norm.weight", norms, full ? s->hidden : s->key, 0, 0));
    }
    return tensors_want_in(
        t, l, (t->flags & POST_NORM) != 0 ? "post_attention_norm.weight" : "ffn_norm.weight", true,
        s->hidden, 0, 0);
}

static mt_status tensors_expert_biases(struct tensors *t, int64_t l)
{
    const struct tensors_shape *s = &t->s;

    MT_TRY(tensors_want_in(t, l, "ffn_gate_inp.bias", true, s->experts, 0, 0));
    MT_TRY(tensors_want_in(t, l, "ffn_gate_exps.bias", true, s->expert_ff, s->experts, 0));
    MT_TRY(tensors_want_in(t, l, "ffn_up_exps.bias", true, s->expert_ff, s->experts, 0));
    return tensors_want_in(t, l, "ffn_down_exps.bias", true, s->hidden, s->experts, 0);
}

static mt_status tensors_experts(struct tensors *t, int64_t l)
{
    const struct tensors_shape *s = &t->s;
    int64_t e = s->experts;
    char pair[64];

    MT_TRY(tensors_want_in(t, l, "ffn_gate_inp.weight", true, s->hidden, e, 0));
    if ((t->flags & (WANT_SELECTION | MAY_SELECTION)) != 0)
        MT_TRY(
            tensors_want_in(t, l, "exp_probs_b.bias", (t->flags & WANT_SELECTION) != 0, e, 0, 0));
    snprintf(pair, sizeof pair, "blk.%" PRId64 ".ffn_gate_up_exps.weight", l);
    if (tensors_find(t, pair) < t->n) {
        MT_TRY(tensors_want(t, pair, true, s->hidden, 2 * s->expert_ff, e));
    } else {
        MT_TRY(tensors_want_in(t, l, "ffn_gate_exps.weight", true, s->hidden, s->expert_ff, e));
        MT_TRY(tensors_want_in(t, l, "ffn_up_exps.weight", true, s->hidden, s->expert_ff, e));
    }
    MT_TRY(tensors_want_in(t, l, "ffn_down_exps.weight", true, s->expert_ff, s->hidden, e));
    if ((t->flags & EXPERT_BIASES) != 0)
        MT_TRY(tensors_expert_biases(t, l));
    if ((t->flags & SHARED_GATED) != 0)
        MT_TRY(tensors_want_in(t, l, "ffn_gate_inp_shexp.weight", true, s->hidden, 0, 0));
    if ((t->flags & (SHARED_GATED | SHARED_COUNT | SHARED_WIDTH)) == 0 || s->shared_ff == 0)
        return MT_OK;
    MT_TRY(tensors_want_in(t, l, "ffn_gate_shexp.weight", true, s->hidden, s->shared_ff, 0));
    MT_TRY(tensors_want_in(t, l, "ffn_up_shexp.weight", true, s->hidden, s->shared_ff, 0));
    return tensors_want_in(t, l, "ffn_down_shexp.weight", true, s->shared_ff, s->hidden, 0);
}

static mt_status tensors_dense(struct tensors *t, int64_t l)
{
    const struct tensors_shape *s = &t->s;

    MT_TRY(tensors_want_in(t, l, "ffn_gate.weight", true, s->hidden, s->ff, 0));
    MT_TRY(tensors_want_in(t, l, "ffn_up.weight", true, s->hidden, s->ff, 0));
    MT_TRY(tensors_want_in(t, l, "ffn_down.weight", true, s->ff, s->hidden, 0));
    if ((t->flags & FFN_BIAS) == 0)
        return MT_OK;
    MT_TRY(tensors_want_in(t, l, "ffn_gate.bias", false, s->ff, 0, 0));
    MT_TRY(tensors_want_in(t, l, "ffn_up.bias", false, s->ff, 0, 0));
    return tensors_want_in(t, l, "ffn_down.bias", false, s->hidden, 0, 0);
}

static mt_status tensors_nextn(struct tensors *t, int64_t l)
{
    const struct tensors_shape *s = &t->s;

    MT_TRY(tensors_want_in(t, l, "nextn.eh_proj.weight", true, 2 * s->hidden, s->hidden, 0));
    MT_TRY(tensors_want_in(t, l, "nextn.enorm.weight", true, s->hidden, 0, 0));
    MT_TRY(tensors_want_in(t, l, "nextn.hnorm.weight", true, s->hidden, 0, 0));
    MT_TRY(tensors_want_in(t, l, "nextn.embed_tokens.weight", false, s->hidden, s->vocab, 0));
    MT_TRY(tensors_want_in(t, l, "nextn.shared_head_head.weight", false, s->hidden, s->vocab, 0));
    return tensors_want_in(t, l, "nextn.shared_head_norm.weight", false, s->hidden, 0, 0);
}

static mt_status tensors_layer(struct tensors *t, int64_t l)
{
    bool moe = (t->flags & MOE) != 0 || ((t->flags & MAY_MOE) != 0 && t->s.experts > 0);

    MT_TRY(tensors_attention(t, l));
    MT_TRY(moe && l >= t->s.dense_lead ? tensors_experts(t, l) : tensors_dense(t, l));
    return l >= t->s.layers - t->s.nextn ? tensors_nextn(t, l) : MT_OK;
}

/* A layer that has nothing at all is one finding, and a file that claims a million ends soon. */
static mt_status tensors_all(struct tensors *t)
{
    const struct tensors_shape *s = &t->s;

    MT_TRY(tensors_want(t, "token_embd.weight", true, s->hidden, s->vocab, 0));
    MT_TRY(tensors_want(t, "output_norm.weight", true, s->hidden, 0, 0));
    MT_TRY(tensors_want(t, "output.weight", (t->flags & WANT_OUTPUT) != 0, s->hidden, s->vocab, 0));
    if ((t->flags & ROPE_FREQS) != 0)
        MT_TRY(tensors_want(t, MT_GGUF_ROPE_FREQS, false, s->rot / 2, 0, 0));
    for (int64_t l = 0; l < s->layers && t->c->n_hits < MT_FLAWS_MAX; l++)
        MT_TRY(tensors_layer(t, l));
    for (size_t i = 0; i < t->n && t->c->n_hits < MT_FLAWS_MAX; i++)
        if (!t->seen[i])
            MT_TRY(tensors_flaw(t, MT_FLAW_SURPLUS, t->v[i]->name,
                                "it is one more than the architecture asks for"));
    return MT_OK;
}

static const struct tensors_arch *tensors_arch_of(struct mt_check *c, const char *arch)
{
    if (arch == NULL || c->n_gguf == 0)
        return NULL;
    for (size_t i = 0; i < sizeof tensors_archs / sizeof tensors_archs[0]; i++)
        if (strcmp(tensors_archs[i].name, arch) == 0)
            return &tensors_archs[i];
    return NULL;
}

/* Shapes that are not one number for all layers, and experts one by one, are read by llama.cpp and
 * not judged here. */
static mt_status tensors_run(struct mt_ctx *ctx, struct mt_check *c, enum mt_flaw_kind kind)
{
    struct tensors t = {.ctx = ctx, .c = c, .kind = kind};
    const struct tensors_arch *arch;
    mt_status st;

    MT_TRY(mt_check_gguf_text(ctx, c, "general.architecture", &t.arch));
    arch = tensors_arch_of(c, t.arch);
    if (arch == NULL)
        return MT_OK;
    t.flags = arch->flags;
    st = tensors_read_shape(&t);
    if (st == MT_OK && t.s.layers > 0 && t.s.layers <= MT_LAYERS_MAX && t.s.hidden > 0) {
        st = tensors_index(&t);
        if (st == MT_OK && tensors_find(&t, "blk.0.ffn_gate.0.weight") == t.n)
            st = tensors_all(&t);
    } else if (st == MT_E_UNSUPPORTED || st == MT_E_FORMAT) {
        st = MT_OK; /* mt_check_gguf_keys tells */
    }
    mt_free(t.v);
    mt_free(t.seen);
    return st;
}

mt_status mt_check_gguf_missing(struct mt_ctx *ctx, struct mt_check *c)
{
    return tensors_run(ctx, c, MT_FLAW_MISSING);
}

mt_status mt_check_gguf_shapes(struct mt_ctx *ctx, struct mt_check *c)
{
    return tensors_run(ctx, c, MT_FLAW_SHAPE);
}

mt_status mt_check_gguf_surplus(struct mt_ctx *ctx, struct mt_check *c)
{
    return tensors_run(ctx, c, MT_FLAW_SURPLUS);
}

bool mt_check_gguf_judged(struct mt_check *c, const char *arch)
{
    return tensors_arch_of(c, arch) != NULL;
}
