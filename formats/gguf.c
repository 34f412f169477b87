#include "formats/gguf_arch.h"

#include "formats/check.h"
#include "formats/gguf_vocab.h"
#include "formats/safetensors.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Keys and values of latent attention wait for each other. */
struct gguf_kv {
    int32_t layer;
    struct mt_tensor *part[2]; /* attn_k_b, attn_v_b */
};

/* Headers of all splits while a model is opened. */
struct gguf {
    struct mt_model *m;
    struct mt_gguf_set set;
    const struct mt_gguf **list;
    const char *arch; /* as the file says it */
    const struct mt_gguf_arch *a;
    struct gguf_kv *kv;
    size_t n_kv, cap_kv;
};

static void gguf_free(struct gguf *o)
{
    mt_gguf_set_free(&o->set);
    mt_free(o->list);
    mt_free(o->kv);
}

/* ---- records ---- */

static void gguf_slice(struct mt_tensor *t, const struct mt_map *map, uint64_t offset)
{
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_SLICE;
    t->src.slice.map = map;
    t->src.slice.offset = offset;
    mt_st_strides(t, t->src.slice.stride);
}

/* Rows back from pairs to halves, as the family has them. */
static mt_status gguf_unpermute(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t)
{
    int heads = t->role.kind == MT_ROLE_ATTN_Q ? m->hp.n_heads : m->hp.n_kv_heads;
    int64_t n = t->rank == 1 ? t->shape[0] : mt_tensor_rows(t);
    struct mt_tensor *raw;
    mt_status st = MT_OK;
    int32_t *idx;

    if (heads <= 0 || n % heads != 0 || n / heads % 2 != 0)
        return mt_fail(ctx, MT_E_FORMAT, "%s: %" PRId64 " rows do not divide into %d heads",
                       t->name, n, heads);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *raw, &raw));
    *raw = *t;
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof *idx, "order of rows", &idx));
    for (int64_t i = 0; i < n; i++)
        idx[i] = (int32_t)mt_gguf_permute(i, n, heads);
    st = t->rank == 1 ? mt_recipe_gather_cols(ctx, m, t, raw, idx, n, 1.0f)
                      : mt_recipe_gather_rows(ctx, m, t, raw, idx, n, 1.0f);
    mt_free(idx);
    return st;
}

/* A record for a part of a tensor: `shape` from element `at` on. */
static mt_status gguf_add_part(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                               const struct mt_gguf_record *r, struct mt_role role, int rank,
                               const int64_t *shape, uint64_t at)
{
    struct mt_tensor *t;
    uint64_t skip = 0;

    bool whole = mt_dtype_bytes((enum mt_dtype)r->dtype, at, &skip);
    mt_assert(whole); /* rows fill blocks */
    MT_TRY(mt_model_add(ctx, o->m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE),
                        (enum mt_dtype)r->dtype, rank, shape, &t));
    MT_TRY(mt_family_print(ctx, o->m->family, o->m, role, &t->name));
    gguf_slice(t, g->map, g->data_offset + r->begin + skip);
    return MT_OK;
}

/* Experts one after the other, of matrices or of vectors; gate and up in one where `pair`. */
static mt_status gguf_add_stack(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                                const struct mt_gguf_record *r, struct mt_role role, bool pair)
{
    int rank = r->rank - 1;
    uint64_t last = r->ne[rank - 1], cols = rank > 1 ? r->ne[0] : 1;
    int64_t shape[2] = {(int64_t)last, (int64_t)cols};

    if (rank < 1 || rank > 2 || r->ne[rank] > MT_EXPERTS_MAX || (pair && last % 2 != 0) ||
        (rank == 1) != (role.part == MT_PART_BIAS))
        return mt_fail(ctx, MT_E_FORMAT, "%s: no stack of experts", r->name);
    for (uint64_t e = 0; e < r->ne[rank]; e++) {
        struct mt_role up = role;
        uint64_t at = e * last * cols;
        role.expert = up.expert = (int32_t)e;
        up.kind = MT_ROLE_FFN_UP;
        if (!pair) {
            MT_TRY(gguf_add_part(ctx, o, g, r, role, rank, shape, at));
            continue;
        }
        shape[0] = (int64_t)last / 2;
        MT_TRY(gguf_add_part(ctx, o, g, r, role, rank, shape, at));
        MT_TRY(gguf_add_part(ctx, o, g, r, up, rank, shape, at + last / 2 * cols));
    }
    return MT_OK;
}

/* q, k and v, or gate and up, one after the other. */
static mt_status gguf_add_fused(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                                const struct mt_gguf_record *r, struct mt_role role,
                                const enum mt_role_kind *kinds, int n)
{
    const struct mt_hparams *hp = &o->m->hp;
    uint64_t last = r->rank > 0 ? r->ne[r->rank - 1] : 0, cols = r->rank > 1 ? r->ne[0] : 1;
    uint64_t rows[MT_FUSED_MAX] = {last / 2, last / 2, 0}, at = 0;

    mt_assert(n >= 1 && n <= MT_FUSED_MAX);
    if (n == 3) {
        rows[0] = (uint64_t)hp->n_heads * (uint64_t)hp->head_dim;
        rows[1] = rows[2] = (uint64_t)hp->n_kv_heads * (uint64_t)hp->head_dim;
    }
    if (r->rank < 1 || r->rank > 2 || rows[0] + rows[1] + rows[2] != last)
        return mt_fail(ctx, MT_E_FORMAT, "%s: %" PRIu64 " rows do not divide into its %d parts",
                       r->name, last, n);
    for (int i = 0; i < n; at += rows[i++]) {
        int64_t shape[2] = {(int64_t)rows[i], (int64_t)cols};
        role.kind = kinds[i];
        MT_TRY(gguf_add_part(ctx, o, g, r, role, r->rank, shape, at * cols));
    }
    return MT_OK;
}

/* A tensor that is not listed: what a record's recipe reads. */
static mt_status gguf_detached(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                               const struct mt_gguf_record *r, struct mt_tensor **out)
{
    struct mt_tensor *t;

    MT_TRY(mt_arena_alloc(ctx, &o->m->arena, 1, sizeof *t, &t));
    memset(t, 0, sizeof *t);
    t->role = mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE);
    t->dtype = (enum mt_dtype)r->dtype;
    t->rank = r->rank;
    for (int d = 0; d < r->rank; d++)
        t->shape[d] = (int64_t)r->ne[r->rank - 1 - d];
    t->name = r->name;
    gguf_slice(t, g->map, g->data_offset + r->begin);
    *out = t;
    return MT_OK;
}

static mt_status gguf_note_kv(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                              const struct mt_gguf_record *r, struct mt_role role)
{
    size_t i = 0;

    while (i < o->n_kv && o->kv[i].layer != role.layer)
        i++;
    if (i == o->n_kv) {
        MT_TRY(mt_grow(ctx, o->n_kv, &o->cap_kv, sizeof *o->kv, "latent attention", &o->kv));
        o->kv[o->n_kv++] = (struct gguf_kv){.layer = role.layer};
    }
    return gguf_detached(ctx, o, g, r, &o->kv[i].part[role.kind == MT_ROLE_ATTN_V_B]);
}

static mt_status gguf_join_kv(struct mt_ctx *ctx, struct gguf *o)
{
    struct mt_tensor *t;

    for (size_t i = 0; i < o->n_kv; i++) {
        const struct gguf_kv *kv = &o->kv[i];
        const struct mt_tensor *k = kv->part[0], *v = kv->part[1];
        if (k == NULL || v == NULL)
            return mt_fail(ctx, MT_E_FORMAT, "blk.%d: attn_k_b without attn_v_b, or the reverse",
                           (int)kv->layer);
        MT_TRY(mt_gguf_join_kv(ctx, o->m, k, v, &t));
        MT_TRY(mt_family_print(ctx, o->m->family, o->m,
                               mt_role(MT_ROLE_ATTN_KV_B, kv->layer, MT_EXPERT_NONE), &t->name));
    }
    return MT_OK;
}

/* A tensor that is one record: as it is, in another order, or without the one of its norm. */
static mt_status gguf_add_one(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                              const struct mt_gguf_record *r, const struct mt_role *role)
{
    struct mt_role other = mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE);
    int64_t shape[MT_GGUF_DIMS_MAX];
    struct mt_tensor *t, *raw;
    mt_status st = MT_OK;
    int rank = r->rank;

    for (int d = 0; d < r->rank; d++)
        shape[d] = (int64_t)r->ne[r->rank - 1 - d];
    /* The gate of a shared expert is one row to its family. */
    if (role != NULL && role->kind == MT_ROLE_SHARED_GATE && rank == 1) {
        shape[1] = shape[0];
        shape[0] = 1;
        rank = 2;
    }
    MT_TRY(mt_model_add(ctx, o->m, other, (enum mt_dtype)r->dtype, rank, shape, &t));
    t->name = r->name;
    gguf_slice(t, g->map, g->data_offset + r->begin);
    if (role == NULL)
        return MT_OK;
    MT_TRY(mt_family_print(ctx, o->m->family, o->m, *role, &t->name));
    if (mt_gguf_norm_has_one(o->a, *role)) {
        MT_TRY(gguf_detached(ctx, o, g, r, &raw));
        return mt_gguf_add(ctx, o->m, t, raw, -1);
    }
    t->role = *role; /* for a moment, so that messages name it */
    if (mt_gguf_permuted(o->a, *role))
        st = gguf_unpermute(ctx, o->m, t);
    t->role = other;
    return st;
}

/* A tensor as the records it is; of an architecture that is not known, under its own name. */
static mt_status gguf_add_record(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                                 const struct mt_gguf_record *r)
{
    static const char *const in_config[] = {MT_GGUF_ROPE_FREQS, MT_GGUF_ROPE_LONG,
                                            MT_GGUF_ROPE_SHORT};
    enum mt_role_kind kinds[MT_FUSED_MAX];
    struct mt_role role;
    int stacked = 0, n;

    if (o->m->family == NULL)
        return gguf_add_one(ctx, o, g, r, NULL);
    for (size_t i = 0; i < sizeof in_config / sizeof in_config[0]; i++)
        if (strcmp(r->name, in_config[i]) == 0)
            return MT_OK;
    if (!mt_gguf_parse_name(o->arch, r->name, &role, &stacked))
        return gguf_add_one(ctx, o, g, r, NULL);
    if (stacked > 0)
        return gguf_add_stack(ctx, o, g, r, role, stacked == 2);
    if (role.kind == MT_ROLE_ATTN_K_B || role.kind == MT_ROLE_ATTN_V_B)
        return gguf_note_kv(ctx, o, g, r, role);
    n = mt_gguf_kinds(o->arch, r->name, kinds);
    if (n > 1)
        return gguf_add_fused(ctx, o, g, r, role, kinds, n);
    return gguf_add_one(ctx, o, g, r, &role);
}

static mt_status gguf_add_records(struct mt_ctx *ctx, struct gguf *o)
{
    for (size_t f = 0; f < o->set.n; f++)
        for (size_t i = 0; i < o->set.v[f].n; i++)
            MT_TRY(gguf_add_record(ctx, o, &o->set.v[f], &o->set.v[f].v[i]));
    return gguf_join_kv(ctx, o);
}

/* ---- the model ---- */

/* Heads are needed before the config is bound: q, k and v are cut, put in order and named by them.
 */
static mt_status gguf_heads(struct mt_ctx *ctx, struct mt_model *m)
{
    bool gpt2 = strcmp(m->family->name, "gpt2") == 0;
    int64_t heads, kv, dim, hidden;

    MT_TRY(
        mt_cfg_int(ctx, m->config, gpt2 ? "n_head" : "num_attention_heads", -1, 1, 65536, &heads));
    MT_TRY(mt_cfg_int(ctx, m->config, gpt2 ? "n_embd" : "hidden_size", -1, 1, MT_DIM_MAX, &hidden));
    MT_TRY(mt_cfg_int(ctx, m->config, "num_key_value_heads", heads, 1, 65536, &kv));
    dim = hidden / heads < 1 ? 1 : hidden / heads > 65536 ? 65536 : hidden / heads;
    MT_TRY(mt_cfg_int(ctx, m->config, "head_dim", dim, 1, 65536, &dim));
    MT_TRY(mt_cfg_int(ctx, m->config, "kv_lora_rank", 0, 0, MT_DIM_MAX, &m->hp.mla.kv_rank));
    MT_TRY(mt_cfg_int(ctx, m->config, "q_lora_rank", 0, 0, MT_DIM_MAX, &m->hp.mla.q_rank));
    m->hp.n_heads = (int)heads;
    m->hp.n_kv_heads = (int)kv;
    m->hp.head_dim = (int)dim;
    return MT_OK;
}

static mt_status gguf_bind(struct mt_ctx *ctx, struct gguf *o)
{
    struct mt_model *m = o->m;

    MT_TRY(mt_wrap(ctx, mt_gguf_config(ctx, o->list, o->set.n, &o->a, &m->config), "%s", m->path));
    m->family = mt_family_find(mt_json_text(mt_json_get(m->config, "model_type")));
    mt_assert(m->family != NULL);
    MT_TRY(gguf_heads(ctx, m));
    MT_TRY(mt_wrap(ctx, gguf_add_records(ctx, o), "%s", m->path));
    MT_TRY(mt_model_bind(ctx, m));
    m->model_type = m->family->name; /* the config's own word is written anew */
    return m->family->write_config != NULL ? m->family->write_config(ctx, m, m->config) : MT_OK;
}

/* Directories get files of what this one carries, unless such files lie beside it. */
static void gguf_make_tokenizer(struct mt_model *m, const struct mt_gguf *g)
{
    static const struct mt_made made[] = {
        {"tokenizer.json", mt_gguf_tokenizer_json},
        {"tokenizer_config.json", mt_gguf_tokenizer_config},
    };

    if (mt_gguf_find(g, "tokenizer.ggml.tokens") == NULL &&
        mt_gguf_find(g, "tokenizer.huggingface.json") == NULL)
        return;
    for (size_t i = 0; i < m->n_sidecars; i++)
        if (strcmp(m->sidecars[i].name, made[0].name) == 0 ||
            strcmp(m->sidecars[i].name, made[1].name) == 0)
            return;
    m->made = made;
    m->n_made = sizeof made / sizeof *made;
}

static mt_status gguf_fill(struct mt_ctx *ctx, struct gguf *o, const char *path, bool bind)
{
    size_t n_records = 0, dir_n = (size_t)(mt_path_base(path) - path);
    struct mt_model *m = o->m;
    const char *dir = ".";

    m->format = "gguf";
    MT_TRY(mt_arena_strndup(ctx, &m->arena, path, strlen(path), &m->path));
    MT_TRY(mt_gguf_set_read(ctx, m, path, &o->set));
    MT_TRY(mt_alloc(ctx, o->set.n, sizeof(struct mt_gguf *), "list of files", &o->list));
    for (size_t i = 0; i < o->set.n; i++) {
        o->list[i] = &o->set.v[i];
        n_records += o->set.v[i].n;
    }
    MT_TRY(mt_wrap(ctx, mt_gguf_str(ctx, o->list[0], "general.architecture", &m->arena, &o->arch),
                   "%s", path));
    m->model_type = o->arch;
    if (dir_n > 0)
        MT_TRY(mt_arena_strndup(ctx, &m->arena, path, dir_n, &dir));
    MT_TRY(mt_hf_read_tokenizer(ctx, m, dir)); /* files that lie beside the weights */
    gguf_make_tokenizer(m, o->list[0]);
    if (bind && n_records > 0 && o->arch != NULL)
        MT_TRY(gguf_bind(ctx, o));
    else
        MT_TRY(gguf_add_records(ctx, o));
    for (size_t i = 0; i < o->set.n; i++)
        if (o->set.v[i].headers_only)
            mt_log(ctx, MT_LOG_WARN, "%s: ends before its data begin; only the header can be read",
                   o->set.v[i].map->path);
    return MT_OK;
}

static mt_status gguf_try(struct mt_ctx *ctx, const char *path, bool bind, struct mt_model **out)
{
    struct gguf o = {0};
    mt_status st;

    *out = NULL;
    MT_TRY(mt_model_create(ctx, &o.m));
    st = gguf_fill(ctx, &o, path, bind);
    gguf_free(&o);
    if (st == MT_OK)
        *out = o.m;
    else
        mt_model_free(o.m);
    return st;
}

/* What the architecture makes of the file is a second question: a file that answers it wrongly can
 * still be looked at, under the names it has. */
static mt_status gguf_open(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    char why[MT_ERROR_TEXT_MAX];
    mt_status st = gguf_try(ctx, path, true, out);

    if (st == MT_OK || (st != MT_E_FORMAT && st != MT_E_UNSUPPORTED && st != MT_E_ABSENT))
        return st;
    snprintf(why, sizeof why, "%s", mt_error(ctx));
    MT_TRY(gguf_try(ctx, path, false, out));
    MT_TRY(mt_arena_strndup(ctx, &(*out)->arena, why, strlen(why), &(*out)->flaw));
    mt_log(ctx, MT_LOG_WARN, "%s; its tensors are listed as they are", why);
    return MT_OK;
}

static bool gguf_probe(const char *path)
{
    char head[4];
    FILE *f;

    if (!mt_path_is_file(path))
        return false;
    if (mt_name_ends(path, MT_GGUF_SUFFIX))
        return true;
    f = fopen(path, "rb");
    size_t n = f != NULL ? fread(head, 1, sizeof head, f) : 0;
    if (f != NULL)
        fclose(f);
    return n == sizeof head && memcmp(head, "GGUF", 4) == 0;
}

const struct mt_format mt_format_gguf = {
    .name = "gguf",
    .summary = "a .gguf file, or the first of its parts",
    .probe = gguf_probe,
    .open = gguf_open,
    .check = mt_check_written,
    .one_file = true,
    .holds = mt_gguf_holds,
    .prepare = mt_gguf_prepare,
    .tensor_bytes = mt_gguf_tensor_bytes,
    .plan = mt_gguf_plan,
    .put = mt_gguf_put,
    .sync = mt_gguf_sync,
    .end = mt_gguf_end,
    .place = mt_gguf_where,
    .free = mt_gguf_writer_free,
};
