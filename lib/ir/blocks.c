#include "lib/ir/blocks.h"

#include "lib/ir/blocks_impl.h"
#include "lib/ir/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCKS_NAMES 3 /* names of tensors in a message */
#define BLOCKS_LOOK 64 /* tensors of blocks whose neighbours are looked at */

struct blocks_found {
    struct mt_tensor *t;
    struct blocks_key key;
    enum blocks_part part;
    bool bias;
};

/* One layer's tensors. */
struct blocks_one {
    struct mt_tensor *w[BLOCKS_PARTS], *b[BLOCKS_PARTS];
};

struct blocks_bind {
    struct mt_model *m;
    const struct mt_blocks_ask *ask;
    struct blocks_pattern pattern;
    struct blocks_found *found;
    size_t n_found, cap_found;
    int n_layers;
    int64_t hidden;
    bool told, told_both; /* guesses, once */
};

bool mt_model_only_blocks(const struct mt_model *m)
{
    return m->base != NULL && m->base->only_blocks;
}

/* ---- finding ---- */

static mt_status blocks_none(struct mt_ctx *ctx, const struct blocks_bind *b)
{
    char names[400] = "";
    size_t at = 0;
    int told = 0;

    for (size_t i = 0; i < b->m->n_tensors && told < BLOCKS_NAMES; i++) {
        const struct mt_tensor *t = b->m->tensors[i];
        if (t->rank != 2 || t->name == NULL || strlen(t->name) > 100)
            continue;
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", told++ > 0 ? ", " : "",
                               t->name);
    }
    return mt_fail(ctx, MT_E_OPTION,
                   "--ffn '%s': no tensor has such a name; matrices here are called %s%s (moetool "
                   "inspect --tensors lists all)",
                   b->ask->pattern, told > 0 ? names : "nothing",
                   told == BLOCKS_NAMES ? " ..." : "");
}

static int blocks_by_key(const void *a, const void *b)
{
    return blocks_key_compare(&((const struct blocks_found *)a)->key,
                              &((const struct blocks_found *)b)->key);
}

static mt_status blocks_find(struct mt_ctx *ctx, struct blocks_bind *b)
{
    for (size_t i = 0; i < b->m->n_tensors; i++) {
        struct blocks_found f = {.t = b->m->tensors[i]};
        if (f.t->name == NULL ||
            !blocks_pattern_match(&b->pattern, f.t->name, &f.part, &f.bias, &f.key))
            continue;
        MT_TRY(mt_grow(ctx, b->n_found, &b->cap_found, sizeof *b->found, "list of tensors",
                       &b->found));
        b->found[b->n_found++] = f;
    }
    if (b->n_found == 0)
        return blocks_none(ctx, b);
    qsort(b->found, b->n_found, sizeof *b->found, blocks_by_key);
    b->n_layers = 1;
    for (size_t i = 1; i < b->n_found; i++)
        b->n_layers += blocks_by_key(&b->found[i - 1], &b->found[i]) != 0;
    if (b->n_layers > MT_LAYERS_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "--ffn: more than %d blocks", MT_LAYERS_MAX);
    return MT_OK;
}

/* The tensors of the block that begins at *at, which moves behind them. */
static mt_status blocks_gather(struct mt_ctx *ctx, const struct blocks_bind *b, size_t *at,
                               struct blocks_one *one)
{
    const struct blocks_found *first = &b->found[*at];
    const char *lacks;

    *one = (struct blocks_one){0};
    for (; *at < b->n_found && blocks_by_key(first, &b->found[*at]) == 0; ++*at) {
        const struct blocks_found *f = &b->found[*at];
        struct mt_tensor **slot = f->bias ? &one->b[f->part] : &one->w[f->part];
        if (*slot != NULL)
            return mt_fail(ctx, MT_E_OPTION, "--ffn '%s': %s and %s are the same part of a block",
                           b->ask->pattern, (*slot)->name, f->t->name);
        *slot = f->t;
    }
    lacks = one->w[BLOCKS_DOWN] == NULL ? "the matrix that leads out (down)"
            : one->w[BLOCKS_GATE_UP] == NULL && one->w[BLOCKS_UP_GATE] == NULL &&
                    one->w[BLOCKS_UP] == NULL
                ? "the matrix that leads in (up)"
                : NULL;
    if (lacks != NULL)
        return mt_fail(ctx, MT_E_OPTION, "--ffn '%s': the block of %s lacks %s", b->ask->pattern,
                       first->t->name, lacks);
    if ((one->w[BLOCKS_GATE_UP] != NULL || one->w[BLOCKS_UP_GATE] != NULL) &&
        (one->w[BLOCKS_UP] != NULL || one->w[BLOCKS_GATE] != NULL ||
         (one->w[BLOCKS_GATE_UP] != NULL && one->w[BLOCKS_UP_GATE] != NULL)))
        return mt_fail(ctx, MT_E_OPTION,
                       "--ffn '%s': the block of %s has gate and up both together and apart",
                       b->ask->pattern, first->t->name);
    return MT_OK;
}

/* ---- layout ---- */

/* A block's matrices by meaning. */
struct blocks_shape {
    struct mt_tensor *in; /* the one that leads in: up, or gate and up together */
    enum blocks_part in_part;
    bool transposed, both; /* stored [in, out]; gate and up in one */
    int64_t hidden, width;
};

/* Sizes if stored that way; false when the shapes contradict. */
static bool blocks_sizes(const struct mt_tensor *in, const struct mt_tensor *down, bool transposed,
                         bool both, int64_t *hidden, int64_t *width)
{
    int64_t rows = in->shape[transposed ? 1 : 0];

    *hidden = in->shape[transposed ? 0 : 1];
    *width = both ? rows / 2 : rows;
    return (!both || rows % 2 == 0) && down->shape[transposed ? 1 : 0] == *hidden &&
           down->shape[transposed ? 0 : 1] == *width;
}

static bool blocks_length_is(const struct mt_tensor *t, int64_t n)
{
    return t == NULL || mt_tensor_count(t) == n;
}

static mt_status blocks_contradict(struct mt_ctx *ctx, const struct mt_tensor *in,
                                   const struct mt_tensor *down)
{
    return mt_fail(ctx, MT_E_OPTION,
                   "--ffn: %s [%lld, %lld] and %s [%lld, %lld] are not the matrices of one block",
                   in->name, (long long)in->shape[0], (long long)in->shape[1], down->name,
                   (long long)down->shape[0], (long long)down->shape[1]);
}

/* The ways a block can be stored that fit its shapes, its biases and what was asked for. */
static int blocks_ways(const struct blocks_bind *b, const struct blocks_one *one,
                       const struct blocks_shape *s, struct blocks_shape way[2])
{
    const struct mt_tensor *down = one->w[BLOCKS_DOWN];
    int n = 0;

    for (int transposed = 0; transposed < 2; transposed++) {
        struct blocks_shape w = *s;
        w.transposed = transposed != 0;
        if ((b->ask->layout == MT_BLOCKS_OUT_IN && transposed) ||
            (b->ask->layout == MT_BLOCKS_IN_OUT && !transposed) ||
            !blocks_sizes(s->in, down, w.transposed, s->both, &w.hidden, &w.width) ||
            !blocks_length_is(one->b[s->in_part], s->both ? 2 * w.width : w.width) ||
            !blocks_length_is(one->b[BLOCKS_DOWN], w.hidden) ||
            (b->hidden > 0 && w.hidden != b->hidden))
            continue;
        way[n++] = w;
    }
    return n;
}

/* Two tensors of which one is twice as long as the other says: gate and up in one. */
static int blocks_ways_both(struct mt_ctx *ctx, struct blocks_bind *b, struct blocks_one *one,
                            struct blocks_shape *s, struct blocks_shape way[2])
{
    int n;

    one->w[BLOCKS_GATE_UP] = one->w[BLOCKS_UP];
    one->b[BLOCKS_GATE_UP] = one->b[BLOCKS_UP];
    one->w[BLOCKS_UP] = one->b[BLOCKS_UP] = NULL;
    s->in_part = BLOCKS_GATE_UP;
    s->both = true;
    n = blocks_ways(b, one, s, way);
    if (n > 0 && !b->told_both)
        mt_log(
            ctx, MT_LOG_INFO,
            "--ffn: %s is taken for gate and up, gate's half first; {up+gate=...} says otherwise",
            s->in->name);
    b->told_both |= n > 0;
    return n;
}

/* Whether the shapes are those of a block, whatever goes into it. */
static bool blocks_fit_alone(const struct mt_tensor *in, const struct mt_tensor *down, bool both)
{
    int64_t hidden, width;

    return blocks_sizes(in, down, false, both, &hidden, &width) ||
           blocks_sizes(in, down, true, both, &hidden, &width);
}

/* Where several ways are left, the one whose FFN is wider than its input. */
static mt_status blocks_layout(struct mt_ctx *ctx, struct blocks_bind *b, struct blocks_one *one,
                               struct blocks_shape *s)
{
    const struct mt_tensor *down = one->w[BLOCKS_DOWN];
    struct blocks_shape way[2];
    bool both = s->both;
    int n = blocks_ways(b, one, s, way);

    if (n == 0 && !s->both && one->w[BLOCKS_GATE] == NULL)
        n = blocks_ways_both(ctx, b, one, s, way);
    if (n == 0 && b->hidden > 0 && blocks_fit_alone(s->in, down, both))
        return mt_fail(ctx, MT_E_OPTION,
                       "--ffn: %s [%lld, %lld] and %s [%lld, %lld] are no block over %lld inputs, "
                       "which is how wide the matrices of --hidden are; is it of this model?",
                       s->in->name, (long long)s->in->shape[0], (long long)s->in->shape[1],
                       down->name, (long long)down->shape[0], (long long)down->shape[1],
                       (long long)b->hidden);
    if (n == 0)
        return blocks_contradict(ctx, s->in, down);
    if (n == 2 && way[0].hidden == way[0].width)
        return mt_fail(ctx, MT_E_OPTION,
                       "--ffn: %s is square, so its layout does not show: say --ffn-layout out-in "
                       "(torch's Linear) or in-out",
                       s->in->name);
    *s = n == 2 && way[0].width < way[0].hidden ? way[1] : way[0];
    if (n == 2 && !b->told)
        mt_log(ctx, MT_LOG_INFO,
               "--ffn: %s is taken as stored [%s], the FFN %lld wide over %lld; --ffn-layout says "
               "otherwise",
               s->in->name, s->transposed ? "in, out" : "out, in", (long long)s->width,
               (long long)s->hidden);
    b->told |= n == 2;
    return MT_OK;
}

static mt_status blocks_shape_of(struct mt_ctx *ctx, struct blocks_bind *b, struct blocks_one *one,
                                 struct blocks_shape *s)
{
    const struct mt_tensor *gate = one->w[BLOCKS_GATE];

    s->in_part = one->w[BLOCKS_UP] != NULL        ? BLOCKS_UP
                 : one->w[BLOCKS_GATE_UP] != NULL ? BLOCKS_GATE_UP
                                                  : BLOCKS_UP_GATE;
    s->in = one->w[s->in_part];
    s->both = s->in_part != BLOCKS_UP;
    for (int p = 0; p < BLOCKS_PARTS; p++) {
        if (one->w[p] != NULL && (one->w[p]->rank != 2 || mt_tensor_count(one->w[p]) == 0))
            return mt_fail(ctx, MT_E_OPTION, "--ffn: %s is no matrix (%d dimensions)",
                           one->w[p]->name, one->w[p]->rank);
        if (one->b[p] != NULL && (one->w[p] == NULL || one->b[p]->rank != 1))
            return mt_fail(ctx, MT_E_OPTION, "--ffn: %s is %s", one->b[p]->name,
                           one->w[p] == NULL ? "a bias without its matrix" : "no vector");
    }
    MT_TRY(blocks_layout(ctx, b, one, s));
    if (gate != NULL && (gate->shape[0] != s->in->shape[0] || gate->shape[1] != s->in->shape[1] ||
                         !blocks_length_is(one->b[BLOCKS_GATE], s->width) ||
                         (one->b[BLOCKS_GATE] == NULL) != (one->b[BLOCKS_UP] == NULL)))
        return mt_fail(ctx, MT_E_OPTION, "--ffn: %s and %s are not alike, as gate and up are",
                       gate->name, s->in->name);
    if (b->hidden > 0 && s->hidden != b->hidden)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "--ffn: %s takes %lld features, the blocks before it %lld", s->in->name,
                       (long long)s->hidden, (long long)b->hidden);
    b->hidden = s->hidden;
    return MT_OK;
}

/* ---- records ---- */

struct blocks_slice {
    struct mt_role role;
    const char *suffix;        /* of the name; NULL: the whole's own */
    int64_t first, rows, cols; /* of the matrix as [out, in]; cols 0: a vector */
    bool transposed;
};

static mt_status blocks_slice(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *t,
                              const struct blocks_slice *s, struct mt_tensor **out)
{
    const int64_t shape[2] = {s->rows, s->cols}, *stride = t->src.slice.stride;
    int64_t row = s->cols > 0 && s->transposed ? stride[1] : stride[0];

    if (t->src.kind != MT_SRC_SLICE || !mt_dtype_pickable(t->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "--ffn: %s holds %s, which cannot be cut", t->name,
                       mt_dtype_name(t->dtype));
    MT_TRY(mt_model_add(ctx, m, s->role, t->dtype, s->cols > 0 ? 2 : 1, shape, out));
    (*out)->name = t->name;
    if (s->suffix != NULL)
        MT_TRY(mt_arena_printf(ctx, &m->arena, &(*out)->name, "%s[%s]", t->name, s->suffix));
    (*out)->src.kind = MT_SRC_SLICE;
    (*out)->src.slice.map = t->src.slice.map;
    (*out)->src.slice.offset =
        t->src.slice.offset + (uint64_t)(s->first * row) * (mt_dtype_bits(t->dtype) / 8);
    (*out)->src.slice.stride[0] = row;
    (*out)->src.slice.stride[1] = s->transposed ? stride[0] : stride[1];
    return MT_OK;
}

/* The whole gives way to its parts, and is remembered for copies. */
static mt_status blocks_cut(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *whole,
                            const struct blocks_slice *slices, int n)
{
    struct mt_cut *cut;

    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *cut, &cut));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)n, sizeof(struct mt_tensor *), &cut->parts));
    cut->whole = whole;
    cut->n = (size_t)n;
    for (int i = 0; i < n; i++)
        MT_TRY(blocks_slice(ctx, m, whole, &slices[i], &cut->parts[i]));
    cut->next = m->cuts;
    m->cuts = cut;
    mt_model_remove(m, whole);
    return MT_OK;
}

/* One tensor becomes the records of its roles. */
static mt_status blocks_record(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                               int layer, enum blocks_part part, bool bias,
                               const struct blocks_shape *s)
{
    static const enum mt_role_kind kinds[] = {[BLOCKS_GATE] = MT_ROLE_FFN_GATE,
                                              [BLOCKS_UP] = MT_ROLE_FFN_UP,
                                              [BLOCKS_DOWN] = MT_ROLE_FFN_DOWN};
    int64_t rows = part == BLOCKS_DOWN ? s->hidden : s->width;
    int64_t cols = bias ? 0 : part == BLOCKS_DOWN ? s->width : s->hidden;
    bool both = part == BLOCKS_GATE_UP || part == BLOCKS_UP_GATE;
    struct mt_role role = mt_role(both ? MT_ROLE_FFN_GATE : kinds[part], layer, MT_EXPERT_NONE);
    struct blocks_slice v[2];

    role.part = bias ? MT_PART_BIAS : MT_PART_WEIGHT;
    if (!both && (bias || !s->transposed))
        return mt_model_set_role(ctx, m, t, role);
    v[0] = (struct blocks_slice){role, NULL, 0, rows, cols, s->transposed};
    if (!both)
        return blocks_cut(ctx, m, t, v, 1);
    v[1] = v[0];
    v[1].role.kind = MT_ROLE_FFN_UP;
    v[0].suffix = "gate";
    v[1].suffix = "up";
    v[part == BLOCKS_GATE_UP].first = rows;
    return blocks_cut(ctx, m, t, v, 2);
}

static mt_status blocks_layer(struct mt_ctx *ctx, struct blocks_bind *b, int layer,
                              struct blocks_one *one)
{
    struct mt_ffn *f = &b->m->ffn[layer];
    struct blocks_shape s = {0};

    MT_TRY(blocks_shape_of(ctx, b, one, &s));
    for (int p = 0; p < BLOCKS_PARTS; p++) {
        if (one->w[p] != NULL)
            MT_TRY(blocks_record(ctx, b->m, one->w[p], layer, (enum blocks_part)p, false, &s));
        if (one->b[p] != NULL)
            MT_TRY(blocks_record(ctx, b->m, one->b[p], layer, (enum blocks_part)p, true, &s));
    }
    f->gated = s.both || one->w[BLOCKS_GATE] != NULL;
    f->width = s.width;
    f->in_bias = one->b[s.in_part] != NULL;
    f->out_bias = one->b[BLOCKS_DOWN] != NULL;
    return MT_OK;
}

/* Length of a name up to and with its last separator. */
static size_t blocks_folder(const char *name)
{
    const char *dot = strrchr(name, '.'), *slash = strrchr(name, '/');
    const char *last = slash != NULL && (dot == NULL || slash > dot) ? slash : dot;

    return last != NULL ? (size_t)(last - name) + 1 : 0;
}

/* A bias that is left out would change the model without a word: vectors beside a block's matrix as
 * long as its outputs are told. Beside both matrices that says something of the inner ones only. */
static bool blocks_looks_missed(const struct blocks_bind *b, const struct mt_tensor *t,
                                const struct blocks_found *f)
{
    size_t n = blocks_folder(t->name);

    if (f->bias || n == 0 || blocks_folder(f->t->name) != n || memcmp(f->t->name, t->name, n) != 0)
        return false;
    if (mt_tensor_count(t) == b->m->ffn[0].width)
        return true;
    if (f->part != BLOCKS_DOWN || mt_tensor_count(t) != b->hidden)
        return false;
    for (size_t k = 0; k < b->n_found; k++) /* a norm may stand beside both */
        if (b->found[k].part != BLOCKS_DOWN && blocks_folder(b->found[k].t->name) == n &&
            memcmp(b->found[k].t->name, t->name, n) == 0)
            return false;
    return true;
}

static void blocks_look_around(struct mt_ctx *ctx, const struct blocks_bind *b)
{
    size_t most = b->n_found < BLOCKS_LOOK ? b->n_found : BLOCKS_LOOK;

    for (size_t i = 0; i < b->m->n_tensors; i++) {
        const struct mt_tensor *t = b->m->tensors[i];
        if (t->role.kind != MT_ROLE_OTHER || t->rank != 1 || t->name == NULL)
            continue;
        for (size_t k = 0; k < most; k++) {
            if (!blocks_looks_missed(b, t, &b->found[k]))
                continue;
            mt_log(ctx, MT_LOG_WARN,
                   "--ffn: %s looks like a bias of %s, but the pattern does not name it, so it is "
                   "no part of the block",
                   t->name, b->found[k].t->name);
            return;
        }
    }
}

/* ---- the model ---- */

static mt_status blocks_read_act(struct mt_ctx *ctx, struct blocks_bind *b, enum mt_act *act)
{
    static const char *const keys[] = {"hidden_act", "hidden_activation", "activation_function",
                                       "activation", "act"};
    struct mt_json *told;
    mt_status st;

    if (b->ask->act != NULL) {
        told = mt_json_new_object();
        mt_json_set_str(told, "--act", b->ask->act);
        st = mt_cfg_read_act(ctx, told, "--act", act);
        mt_json_free(told);
        return st;
    }
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (mt_json_text(mt_json_get(b->m->config, keys[i])) != NULL)
            return mt_cfg_read_act(ctx, b->m->config, keys[i], act);
    if (!b->ask->assume_act)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s: nothing tells the activation of the blocks: say it with --act "
                       "(silu, gelu, gelu_new, relu, relu2, quick_gelu)",
                       b->m->path);
    mt_log(ctx, MT_LOG_WARN,
           "nothing tells the activation of the blocks; gelu is shown: see --act");
    *act = MT_ACT_GELU;
    return MT_OK;
}

/* The config that stands for what is known now. */
static mt_status blocks_config(struct mt_ctx *ctx, struct blocks_bind *b)
{
    struct mt_json *own = mt_json_new_object();
    struct mt_model *m = b->m;

    if (own == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for config.json");
    mt_json_set_str(own, "model_type", mt_family_ffn_only.name);
    mt_json_set_int(own, "num_hidden_layers", b->n_layers);
    mt_json_set_int(own, "hidden_size", b->hidden);
    mt_json_set_str(own, "ffn", b->ask->pattern);
    if (m->config != NULL)
        mt_json_set(own, "config", m->config);
    m->config = own;
    return MT_OK;
}

/* Sizes first come from the blocks: the family reads them back from the config. */
static mt_status blocks_bind(struct mt_ctx *ctx, struct blocks_bind *b)
{
    struct mt_model *m = b->m;
    enum mt_act act;
    size_t at = 0;

    MT_TRY(blocks_find(ctx, b));
    MT_TRY(blocks_read_act(ctx, b, &act));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)b->n_layers, sizeof *m->ffn, &m->ffn));
    for (int l = 0; l < b->n_layers; l++) {
        struct blocks_one one;
        MT_TRY(blocks_gather(ctx, b, &at, &one));
        MT_TRY(blocks_layer(ctx, b, l, &one));
        m->ffn[l].act = act;
    }
    blocks_look_around(ctx, b);
    MT_TRY(blocks_config(ctx, b));
    struct mt_ffn *ffn = m->ffn;
    MT_TRY(mt_family_ffn_only.read_config(ctx, m));
    m->ffn = ffn;
    m->family = m->base = &mt_family_ffn_only;
    m->flaw = NULL;
    return mt_model_verify(ctx, m);
}

mt_status mt_blocks_bind(struct mt_ctx *ctx, struct mt_model *m, const struct mt_blocks_ask *ask)
{
    struct blocks_bind b = {.m = m, .ask = ask, .hidden = ask->hidden};
    mt_status st;

    if (m->family != NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s: its FFNs are known, for it is of family %s: --ffn is for other models",
                       m->path, m->family->name);
    MT_TRY(blocks_pattern_parse(ctx, ask->pattern, &b.pattern));
    memset(&m->hp, 0, sizeof m->hp);
    st = blocks_bind(ctx, &b);
    blocks_pattern_free(&b.pattern);
    mt_free(b.found);
    return st;
}
