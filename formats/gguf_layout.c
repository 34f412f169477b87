#include "formats/gguf_layout.h"

#include "formats/safetensors.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int gguf_by_ptr(const void *a, const void *b)
{
    const struct mt_tensor *x = (*(const struct gguf_place *const *)a)->t;
    const struct mt_tensor *y = (*(const struct gguf_place *const *)b)->t;

    return (x > y) - (x < y);
}

/* Vectors, routers, gates of shared experts and learned positions are kept in F32, as every loader
 * expects. */
static enum mt_dtype layout_dtype(const struct mt_tensor *t)
{
    bool small = t->rank <= 1 || t->role.kind == MT_ROLE_ROUTER ||
                 t->role.kind == MT_ROLE_ROUTER_BIAS || t->role.kind == MT_ROLE_SHARED_GATE ||
                 t->role.kind == MT_ROLE_POS_EMBED;

    return small && mt_dtype_is_plain_float(t->dtype) ? MT_F32 : t->dtype;
}

/* Buffers that can be computed (GPT-2's are causal masks), and next-token predictors, which are
 * declared absent. */
static bool layout_leaves_out(const struct mt_gguf_arch *arch, const struct mt_model *m,
                              const struct mt_tensor *t)
{
    static const char *const buffers[] = {"rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias"};
    static const char layers[] = "model.layers.";
    size_t l = sizeof layers - 1;

    if (t->role.kind != MT_ROLE_OTHER)
        return false;
    for (size_t i = 0; i < ((arch->does & MT_GGUF_GPT2) != 0 ? 3u : 1u); i++)
        if (mt_name_ends(t->name, buffers[i]))
            return true;
    return strncmp(t->name, layers, l) == 0 && strtol(t->name + l, NULL, 10) >= m->hp.n_layers;
}

static mt_status layout_new_slot(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                                 struct gguf_slot *s)
{
    bool flat = t->role.kind == MT_ROLE_SHARED_GATE || t->role.kind == MT_ROLE_ROUTER_BIAS;
    char show[MT_SHOW_BYTES];

    if (!mt_gguf_print_name(w->arch->name, w->m, t->role, s->name, sizeof s->name))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: GGUF architecture %s has no place for it; write safetensors instead",
                       mt_show_name(t->name, show), w->arch->name);
    s->dtype = layout_dtype(t);
    if (s->dtype != MT_F32 && s->dtype != MT_F16 && s->dtype != MT_BF16 &&
        !mt_dtype_is_block(s->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: %s is not stored in GGUF files; choose another type with --dtype",
                       mt_show_name(t->name, show), mt_dtype_name(s->dtype));
    s->rank = flat ? 1 : t->rank;
    mt_assert(s->rank <= 3);
    for (int d = 0; d < s->rank; d++)
        s->ne[d] = (uint64_t)t->shape[t->rank - 1 - d];
    if (t->role.expert >= 0) {
        mt_assert(s->rank <= 2);
        s->ne[s->rank++] = (uint64_t)w->m->ffn[t->role.layer].n_experts;
    }
    return MT_OK;
}

/* Rows of a second role behind those of the first: q, k and v; gate and up. */
static bool layout_append(struct gguf_slot *have, const struct gguf_slot *s)
{
    int last = s->rank - 1;

    if (have->dtype != s->dtype || have->rank != s->rank ||
        (last > 0 && memcmp(have->ne, s->ne, (size_t)last * sizeof s->ne[0]) != 0))
        return false;
    have->ne[last] += s->ne[last];
    return true;
}

static uint64_t layout_count(const struct gguf_slot *s)
{
    uint64_t n = 1;

    for (int d = 0; d < s->rank; d++)
        n *= s->ne[d];
    return n;
}

/* The slot of a record and where in it: a new one, or that of the expert or role before it. */
static mt_status layout_slot(struct mt_ctx *ctx, struct mt_writer *w, struct gguf_place *p)
{
    struct gguf_slot s = {.dtype = MT_F32};
    const struct mt_tensor *t = p->t;
    char show[MT_SHOW_BYTES];

    MT_TRY(layout_new_slot(ctx, w, t, &s));
    p->first = t->role.expert >= 0 ? (uint64_t)(t->role.expert * mt_tensor_count(t)) : 0;
    /* What shares a tensor stands together, so it is among the last slots. */
    for (size_t i = w->n_slots; i > 0 && i + 8 > w->n_slots; i--) {
        struct gguf_slot *have = &w->slots[i - 1];
        bool stack = t->role.expert >= 0;
        if (strcmp(have->name, s.name) != 0)
            continue;
        if (!stack)
            p->first = layout_count(have);
        if (stack ? have->dtype != s.dtype || memcmp(have->ne, s.ne, sizeof s.ne) != 0
                  : !layout_append(have, &s))
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s: %s of different types or shapes do not make one tensor; choose one "
                           "type with --dtype",
                           mt_show_name(t->name, show), stack ? "experts" : "parts");
        p->slot = i - 1;
        return MT_OK;
    }
    p->slot = w->n_slots;
    w->slots[w->n_slots++] = s;
    return MT_OK;
}

static int layout_expert_order(const void *a, const void *b)
{
    const struct mt_role x = (*(const struct mt_tensor *const *)a)->role;
    const struct mt_role y = (*(const struct mt_tensor *const *)b)->role;

    if (x.layer != y.layer)
        return x.layer < y.layer ? -1 : 1;
    if ((x.expert >= 0) != (y.expert >= 0))
        return x.expert >= 0 ? 1 : -1;
    if (x.kind != y.kind)
        return x.kind < y.kind ? -1 : 1;
    if (x.part != y.part)
        return x.part < y.part ? -1 : 1;
    return (x.expert > y.expert) - (x.expert < y.expert);
}

/* Tensors that no record stands for: factors of rotary frequencies. */
static const char *const *layout_factors(const struct mt_model *m)
{
    static const char *const llama3[] = {MT_GGUF_ROPE_FREQS, NULL};
    static const char *const longrope[] = {MT_GGUF_ROPE_LONG, MT_GGUF_ROPE_SHORT, NULL};

    return m->hp.rope.type == MT_ROPE_LLAMA3     ? llama3
           : m->hp.rope.type == MT_ROPE_LONGROPE ? longrope
                                                 : llama3 + 1;
}

static uint64_t layout_factor_count(const struct mt_model *m)
{
    return (uint64_t)(m->hp.head_dim * m->hp.rope.partial) / 2;
}

void mt_gguf_tensor_bytes(const struct mt_model *plan, struct mt_tensor *const *stored, size_t n,
                          uint64_t bytes[MT_DTYPE_COUNT])
{
    const struct mt_gguf_arch *arch = mt_gguf_arch_of_family(plan->family);

    mt_assert(arch != NULL); /* mt_gguf_prepare */
    for (size_t i = 0; i < n; i++) {
        enum mt_dtype type = layout_dtype(stored[i]);
        if (!layout_leaves_out(arch, plan, stored[i]))
            bytes[type] += type == stored[i]->dtype ? mt_tensor_bytes(stored[i])
                                                    : (uint64_t)mt_tensor_count(stored[i]) * 4;
    }
    for (const char *const *name = layout_factors(plan); *name != NULL; name++)
        bytes[MT_F32] += layout_factor_count(plan) * 4;
}

static mt_status layout_places(struct mt_ctx *ctx, struct mt_writer *w)
{
    const struct mt_tensor **sorted;
    char show[MT_SHOW_BYTES] = "";
    mt_status st = MT_OK;
    size_t n_out = 0;

    MT_TRY(mt_alloc(ctx, w->n, sizeof(struct mt_tensor *), "layout of the output", &sorted));
    for (size_t i = 0; i < w->n; i++)
        sorted[i] = w->m->tensors[i];
    if (w->n > 1)
        qsort(sorted, w->n, sizeof(struct mt_tensor *), layout_expert_order);
    for (size_t i = 0; i < w->n && st == MT_OK; i++) {
        const struct mt_tensor *t = sorted[i];
        struct gguf_place *p = &w->places[i];
        p->t = t;
        p->dtype = layout_dtype(t);
        p->slot = SIZE_MAX;
        if (layout_leaves_out(w->arch, w->m, t)) {
            if (n_out++ == 0)
                mt_show_name(t->name, show);
            continue;
        }
        st = layout_slot(ctx, w, p);
        if (mt_gguf_permuted(w->arch, t->role))
            p->heads = t->role.kind == MT_ROLE_ATTN_Q ? w->m->hp.n_heads : w->m->hp.n_kv_heads;
    }
    mt_free(sorted);
    if (n_out > 0)
        mt_log(ctx, MT_LOG_WARN, "%s%s left out: GGUF has no place for %s", show,
               n_out == 1 ? " is" : " and others like it are", n_out == 1 ? "it" : "them");
    w->n_records = w->n_slots;
    for (const char *const *name = layout_factors(w->m); st == MT_OK && *name != NULL; name++) {
        struct gguf_slot *s = &w->slots[w->n_slots++];
        *s = (struct gguf_slot){.dtype = MT_F32, .rank = 1, .ne = {layout_factor_count(w->m)}};
        snprintf(s->name, sizeof s->name, "%s", *name);
    }
    return st;
}

static uint64_t layout_pad(uint64_t v)
{
    return (v + MT_GGUF_ALIGNMENT - 1) / MT_GGUF_ALIGNMENT * MT_GGUF_ALIGNMENT;
}

/* Bytes of a slot's line in the header. */
static uint64_t layout_info_bytes(const struct gguf_slot *s)
{
    return 8 + strlen(s->name) + 4 + 8 * (uint64_t)s->rank + 4 + 8;
}

/* Magic, version and counts; and the pairs that tell the part: their keys, lengths and types, two
 * numbers of 16 bits and one of 32. */
#define LAYOUT_HEAD_BYTES 24u
#define LAYOUT_SPLIT_BYTES                                                                         \
    (3 * 12u + sizeof "split.nosplit.countsplit.tensors.count" - 1 + 2 + 2 + 4)

/* Puts slots into shards in order: as many as stay below `max` together with the header, but one
 * at least. */
static mt_status layout_shards(struct mt_ctx *ctx, struct mt_writer *w, uint64_t pairs,
                               uint64_t max)
{
    uint64_t least = LAYOUT_HEAD_BYTES + LAYOUT_SPLIT_BYTES + MT_GGUF_ALIGNMENT, at = least + pairs;

    MT_TRY(mt_alloc0(ctx, w->n_slots, sizeof *w->shards, "layout of the output", &w->shards));
    w->n_shards = 1;
    for (size_t i = 0; i < w->n_slots; i++) {
        struct gguf_slot *s = &w->slots[i];
        struct gguf_shard *sh = &w->shards[w->n_shards - 1];
        bool whole = mt_dtype_bytes(s->dtype, layout_count(s), &s->bytes);
        uint64_t more = layout_pad(s->bytes) + layout_info_bytes(s);
        mt_assert(whole); /* the records were whole */
        if (max > 0 && sh->n > 0 && (more > max || at > max - more)) {
            sh = &w->shards[w->n_shards++];
            sh->first = i;
            at = least;
        }
        s->shard = w->n_shards - 1;
        s->begin = sh->data_bytes;
        sh->data_bytes = layout_pad(sh->data_bytes + s->bytes);
        sh->n++;
        at += more;
    }
    if (w->n_shards > MT_GGUF_SPLITS_MAX)
        return mt_fail(ctx, MT_E_OPTION,
                       "--max-shard-size makes %zu parts; a GGUF model has 65535 at most",
                       w->n_shards);
    return MT_OK;
}

static void layout_records(struct mt_writer *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct gguf_place *p = &w->places[i];
        uint64_t rows = (uint64_t)(p->t->rank == 1 ? p->t->shape[0] : mt_tensor_rows(p->t));
        uint64_t bytes, skip = 0;
        if (p->slot == SIZE_MAX)
            continue;
        bool whole = mt_dtype_bytes(p->dtype, (uint64_t)mt_tensor_count(p->t), &bytes) &&
                     mt_dtype_bytes(p->dtype, p->first, &skip);
        mt_assert(whole);
        p->begin = w->slots[p->slot].begin + skip;
        p->row_bytes = rows > 0 ? bytes / rows : 0;
    }
}

static void layout_split_pairs(const struct mt_writer *w, size_t no, struct mt_gguf_out *o)
{
    mt_gguf_put_key(o, NULL, "split.no", MT_GGUF_U16);
    mt_gguf_put_u16(o, (uint16_t)no);
    mt_gguf_put_key(o, NULL, "split.count", MT_GGUF_U16);
    mt_gguf_put_u16(o, (uint16_t)w->n_shards);
    mt_gguf_put_key(o, NULL, "split.tensors.count", MT_GGUF_I32);
    mt_gguf_put_u32(o, (uint32_t)w->n_slots);
}

/* The first file carries what the model is, the others which part they are. */
static mt_status layout_head(struct mt_ctx *ctx, struct mt_writer *w, size_t no,
                             const struct mt_gguf_out *model)
{
    struct gguf_shard *sh = &w->shards[no];
    struct mt_gguf_out split = {.ctx = ctx}, *o = &sh->head;

    o->ctx = ctx;
    if (w->n_shards > 1)
        layout_split_pairs(w, no, &split);
    mt_gguf_put_raw(o, "GGUF", 4);
    mt_gguf_put_u32(o, 3);
    mt_gguf_put_u64(o, sh->n);
    mt_gguf_put_u64(o, split.n_pairs + (no == 0 ? model->n_pairs : 0));
    if (no == 0)
        mt_gguf_put_raw(o, model->p, model->n);
    mt_gguf_put_raw(o, split.p, split.n);
    mt_free(split.p);
    MT_TRY(split.st);
    for (size_t i = sh->first; i < sh->first + sh->n; i++) {
        const struct gguf_slot *s = &w->slots[i];
        mt_gguf_put_text(o, s->name, strlen(s->name));
        mt_gguf_put_u32(o, (uint32_t)s->rank);
        for (int d = 0; d < s->rank; d++)
            mt_gguf_put_u64(o, s->ne[d]);
        mt_gguf_put_u32(o, (uint32_t)mt_gguf_type_of(s->dtype));
        mt_gguf_put_u64(o, s->begin);
    }
    while (o->st == MT_OK && o->n % MT_GGUF_ALIGNMENT != 0)
        mt_gguf_put_raw(o, "", 1);
    return o->st;
}

/* A forced run must not take the parts away that it reads. */
static mt_status layout_not_source(struct mt_ctx *ctx, const struct mt_writer *w, const char *name)
{
    const struct mt_model *src = w->m->source != NULL ? w->m->source : w->m;
    const char *work = mt_outdir_work_path(w->out);
    char path[4096];

    snprintf(path, sizeof path, "%.*s%s", (int)(mt_path_base(work) - work), work, name);
    for (size_t i = 0; i < src->n_maps; i++)
        if (mt_path_same(src->maps[i]->path, path))
            return mt_fail(ctx, MT_E_OPTION,
                           "%s is a part of the model that is read; write to "
                           "another name",
                           path);
    return MT_OK;
}

static mt_status layout_files(struct mt_ctx *ctx, struct mt_writer *w)
{
    const char *out = mt_outdir_name(w->out);
    char name[300];

    for (size_t i = 0; i < w->n_shards && w->n_shards > 1; i++) {
        mt_gguf_part_name(out, i, w->n_shards, name, sizeof name);
        MT_TRY(layout_not_source(ctx, w, name));
        MT_TRY(mt_outdir_part(ctx, w->out, name));
    }
    for (size_t i = 0; i < w->n_shards; i++) {
        struct gguf_shard *sh = &w->shards[i];
        snprintf(name, sizeof name, "%s", out);
        if (w->n_shards > 1)
            mt_gguf_part_name(out, i, w->n_shards, name, sizeof name);
        MT_TRY(mt_outdir_file(ctx, w->out, name, sh->head.n + sh->data_bytes, &sh->file));
    }
    return MT_OK;
}

static mt_status layout_heads(struct mt_ctx *ctx, struct mt_writer *w, uint64_t max)
{
    struct mt_gguf_out pairs = {.ctx = ctx};
    mt_status st = mt_gguf_put_model(ctx, w->m, &pairs);

    if (st == MT_OK)
        st = mt_gguf_put_vocab(ctx, w->m, &pairs);
    if (st == MT_OK)
        st = layout_shards(ctx, w, pairs.n, max);
    for (size_t i = 0; st == MT_OK && i < w->n_shards; i++)
        st = layout_head(ctx, w, i, &pairs);
    mt_free(pairs.p);
    return st;
}

mt_status gguf_layout(struct mt_ctx *ctx, struct mt_writer *w, uint64_t max)
{
    w->arch = mt_gguf_arch_of_family(w->m->family);
    w->n = w->m->n_tensors;
    mt_assert(w->arch != NULL); /* mt_gguf_prepare */
    MT_TRY(mt_alloc0(ctx, w->n + 2, sizeof *w->slots, "layout of the output", &w->slots));
    MT_TRY(mt_alloc0(ctx, w->n, sizeof *w->places, "layout of the output", &w->places));
    MT_TRY(mt_alloc0(ctx, w->n, sizeof(struct gguf_place *), "layout of the output", &w->by_ptr));
    MT_TRY(layout_places(ctx, w));
    MT_TRY(layout_heads(ctx, w, max));
    layout_records(w);
    for (size_t i = 0; i < w->n; i++)
        w->by_ptr[i] = &w->places[i];
    if (w->n > 1)
        qsort(w->by_ptr, w->n, sizeof(struct gguf_place *), gguf_by_ptr);
    return layout_files(ctx, w);
}
