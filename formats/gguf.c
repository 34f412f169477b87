#include "formats/gguf.h"

#include "formats/check.h"
#include "formats/safetensors.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GGUF_SPLITS_MAX 65535

/* Headers of all splits while a model is opened. */
struct gguf {
    struct mt_model *m;
    struct mt_gguf *files;
    const struct mt_gguf **list;
    size_t n;
    const char *arch;
};

static void gguf_free(struct gguf *o)
{
    for (size_t i = 0; i < o->n; i++)
        mt_gguf_header_free(&o->files[i]);
    mt_free(o->files);
    mt_free(o->list);
}

/* ---- files ---- */

static mt_status gguf_add_file(struct mt_ctx *ctx, struct gguf *o, const char *path)
{
    struct mt_map *map;

    MT_TRY(mt_realloc(ctx, o->n + 1, sizeof *o->files, "list of files", &o->files));
    MT_TRY(mt_map_open(ctx, path, &map));
    MT_TRY(mt_model_own_map(ctx, o->m, map));
    return mt_gguf_header_read(ctx, map, &o->m->arena, &o->files[o->n++]);
}

/* "NAME-00001-of-00003.gguf": the bytes of NAME; 0 when the path is not of that form. */
static size_t gguf_split_stem(const char *path, int64_t count)
{
    size_t n = strlen(path);
    char end[64];

    snprintf(end, sizeof end, "-00001-of-%05d" MT_GGUF_SUFFIX, (int)count);
    return n > strlen(end) && mt_name_ends(path, end) ? n - strlen(end) : 0;
}

static mt_status gguf_split_value(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                                  int64_t dflt, int64_t *out)
{
    return mt_wrap(ctx, mt_gguf_int(ctx, g, key, dflt, out), "%s", g->map->path);
}

static mt_status gguf_check_split(struct mt_ctx *ctx, const struct mt_gguf *g, int64_t want,
                                  int64_t count)
{
    int64_t no, n;

    MT_TRY(gguf_split_value(ctx, g, "split.no", -1, &no));
    MT_TRY(gguf_split_value(ctx, g, "split.count", -1, &n));
    if (no != want || n != count)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: says it is part %" PRId64 " of %" PRId64 ", expected %" PRId64
                       " of %" PRId64,
                       g->map->path, no, n, want, count);
    return MT_OK;
}

struct gguf_owner {
    const char *name, *path;
};

static int gguf_by_name(const void *a, const void *b)
{
    return strcmp(((const struct gguf_owner *)a)->name, ((const struct gguf_owner *)b)->name);
}

/* Within a file names are unique; between parts they must be too. */
static mt_status gguf_check_twice(struct mt_ctx *ctx, const struct gguf *o, size_t n)
{
    char show[MT_SHOW_BYTES];
    struct gguf_owner *v;
    mt_status st = MT_OK;
    size_t at = 0;

    MT_TRY(mt_alloc(ctx, n, sizeof *v, "names of tensors", &v));
    for (size_t f = 0; f < o->n; f++)
        for (size_t i = 0; i < o->files[f].n; i++)
            v[at++] = (struct gguf_owner){o->files[f].v[i].name, o->files[f].map->path};
    if (n > 1)
        qsort(v, n, sizeof *v, gguf_by_name);
    for (size_t i = 1; i < n && st == MT_OK; i++)
        if (strcmp(v[i - 1].name, v[i].name) == 0)
            st = mt_fail(ctx, MT_E_FORMAT, "%s: tensor %s is in %s too", v[i].path,
                         mt_show_name(v[i].name, show), v[i - 1].path);
    mt_free(v);
    return st;
}

static mt_status gguf_check_total(struct mt_ctx *ctx, const struct gguf *o)
{
    int64_t total, have = 0;

    for (size_t i = 0; i < o->n; i++)
        have += (int64_t)o->files[i].n;
    MT_TRY(gguf_split_value(ctx, &o->files[0], "split.tensors.count", have, &total));
    if (total != have)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: %" PRId64 " tensors are announced, the parts hold %" PRId64, o->m->path,
                       total, have);
    return gguf_check_twice(ctx, o, (size_t)have);
}

static mt_status gguf_add_files(struct mt_ctx *ctx, struct gguf *o, const char *path)
{
    const char *part;
    int64_t count, no;
    size_t stem;

    MT_TRY(gguf_add_file(ctx, o, path));
    MT_TRY(gguf_split_value(ctx, &o->files[0], "split.count", 1, &count));
    MT_TRY(gguf_split_value(ctx, &o->files[0], "split.no", 0, &no));
    if (count < 0 || count > GGUF_SPLITS_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "%s: split.count is %" PRId64, path, count);
    if (count <= 1)
        return MT_OK;
    stem = gguf_split_stem(path, count);
    if (no != 0 || stem == 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: part %" PRId64 " of a model in %" PRId64
                       " parts; name its first part, NAME-00001-of-%05" PRId64 MT_GGUF_SUFFIX,
                       path, no + 1, count, count);
    for (int64_t i = 1; i < count; i++) {
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_arena_printf(ctx, &o->m->arena, &part, "%.*s-%05d-of-%05d" MT_GGUF_SUFFIX,
                               (int)stem, path, (int)i + 1, (int)count));
        MT_TRY(gguf_add_file(ctx, o, part));
        MT_TRY(gguf_check_split(ctx, &o->files[i], i, count));
    }
    return gguf_check_total(ctx, o);
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

/* One record of a stack: rows [first, first + rows) of expert e. */
static mt_status gguf_add_slice(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                                const struct mt_gguf_record *r, struct mt_role role, int64_t first,
                                int64_t rows)
{
    int64_t shape[2] = {rows, (int64_t)r->ne[0]}, at;
    struct mt_tensor *t;
    uint64_t skip = 0;

    at = (role.expert * (int64_t)r->ne[1] + first) * shape[1];
    bool whole = mt_dtype_bytes((enum mt_dtype)r->dtype, (uint64_t)at, &skip);
    mt_assert(whole); /* rows fill blocks */
    MT_TRY(mt_model_add(ctx, o->m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE),
                        (enum mt_dtype)r->dtype, 2, shape, &t));
    MT_TRY(mt_family_print(ctx, o->m->family, o->m, role, &t->name));
    gguf_slice(t, g->map, g->data_offset + r->begin + skip);
    return MT_OK;
}

static mt_status gguf_add_stack(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                                const struct mt_gguf_record *r, struct mt_role role, bool pair)
{
    int64_t rows = (int64_t)r->ne[1];

    for (uint64_t e = 0; e < r->ne[2]; e++) {
        struct mt_role up = role;
        role.expert = up.expert = (int32_t)e;
        up.kind = MT_ROLE_FFN_UP;
        if (!pair) {
            MT_TRY(gguf_add_slice(ctx, o, g, r, role, 0, rows));
            continue;
        }
        MT_TRY(gguf_add_slice(ctx, o, g, r, role, 0, rows / 2));
        MT_TRY(gguf_add_slice(ctx, o, g, r, up, rows / 2, rows / 2));
    }
    return MT_OK;
}

/* A tensor as the record it is; of an architecture that is not known, under its own name. */
static mt_status gguf_add_record(struct mt_ctx *ctx, struct gguf *o, const struct mt_gguf *g,
                                 const struct mt_gguf_record *r)
{
    struct mt_role role, other = mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE);
    bool known = o->m->family != NULL;
    int64_t shape[MT_GGUF_DIMS_MAX];
    struct mt_tensor *t;
    int stacked = 0;

    if (known && strcmp(r->name, MT_GGUF_ROPE_FREQS) == 0)
        return MT_OK; /* the config says it */
    known = known && mt_gguf_parse_name(o->arch, r->name, &role, &stacked);
    if (known && stacked > 0) {
        if (r->rank != 3 || r->ne[2] > MT_EXPERTS_MAX || (stacked == 2 && r->ne[1] % 2 != 0))
            return mt_fail(ctx, MT_E_FORMAT, "%s: no stack of experts", r->name);
        return gguf_add_stack(ctx, o, g, r, role, stacked == 2);
    }
    for (int d = 0; d < r->rank; d++)
        shape[d] = (int64_t)r->ne[r->rank - 1 - d];
    /* The gate of a shared expert is one row to its family. */
    int rank = r->rank;
    if (known && role.kind == MT_ROLE_SHARED_GATE && rank == 1) {
        shape[1] = shape[0];
        shape[0] = 1;
        rank = 2;
    }
    MT_TRY(mt_model_add(ctx, o->m, other, (enum mt_dtype)r->dtype, rank, shape, &t));
    t->name = r->name;
    gguf_slice(t, g->map, g->data_offset + r->begin);
    if (!known)
        return MT_OK;
    MT_TRY(mt_family_print(ctx, o->m->family, o->m, role, &t->name));
    t->role = role; /* for a moment, so that messages name it */
    mt_status st = mt_gguf_permuted(o->arch, role) ? gguf_unpermute(ctx, o->m, t) : MT_OK;
    t->role = other;
    return st;
}

static mt_status gguf_add_records(struct mt_ctx *ctx, struct gguf *o)
{
    for (size_t f = 0; f < o->n; f++)
        for (size_t i = 0; i < o->files[f].n; i++)
            MT_TRY(gguf_add_record(ctx, o, &o->files[f], &o->files[f].v[i]));
    return MT_OK;
}

/* ---- the model ---- */

/* Heads are needed before the config is bound: q and k are put in order by them. */
static mt_status gguf_bind(struct mt_ctx *ctx, struct gguf *o)
{
    struct mt_model *m = o->m;
    int64_t heads, kv;

    MT_TRY(mt_wrap(ctx, mt_gguf_config(ctx, o->list, o->n, &m->config), "%s", m->path));
    m->family = mt_family_find(mt_json_text(mt_json_get(m->config, "model_type")));
    MT_TRY(mt_cfg_int(ctx, m->config, "num_attention_heads", -1, 1, 65536, &heads));
    MT_TRY(mt_cfg_int(ctx, m->config, "num_key_value_heads", heads, 1, 65536, &kv));
    m->hp.n_heads = (int)heads;
    m->hp.n_kv_heads = (int)kv;
    MT_TRY(mt_wrap(ctx, gguf_add_records(ctx, o), "%s", m->path));
    MT_TRY(mt_model_bind(ctx, m));
    m->model_type = m->family->name; /* the config's own word is written anew */
    return m->family->write_config != NULL ? m->family->write_config(ctx, m, m->config) : MT_OK;
}

static const char *const gguf_beside[] = {"tokenizer.json",          "tokenizer_config.json",
                                          "special_tokens_map.json", "generation_config.json",
                                          "chat_template.jinja",     NULL};

/* Tokenizer files that lie beside the weights. */
static mt_status gguf_sidecars(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    int dir_n = (int)(mt_path_base(path) - path);

    MT_TRY(mt_arena_alloc(ctx, &m->arena, sizeof gguf_beside / sizeof gguf_beside[0],
                          sizeof *m->sidecars, &m->sidecars));
    for (size_t i = 0; gguf_beside[i] != NULL; i++) {
        struct mt_sidecar *s = &m->sidecars[m->n_sidecars];
        MT_TRY(mt_arena_printf(ctx, &m->arena, &s->path, "%.*s%s", dir_n, path, gguf_beside[i]));
        s->name = gguf_beside[i];
        m->n_sidecars += mt_path_is_file(s->path);
    }
    return MT_OK;
}

static mt_status gguf_fill(struct mt_ctx *ctx, struct gguf *o, const char *path, bool bind)
{
    struct mt_model *m = o->m;
    size_t n_records = 0;

    m->format = "gguf";
    MT_TRY(mt_arena_strndup(ctx, &m->arena, path, strlen(path), &m->path));
    MT_TRY(gguf_add_files(ctx, o, path));
    MT_TRY(mt_alloc(ctx, o->n, sizeof(struct mt_gguf *), "list of files", &o->list));
    for (size_t i = 0; i < o->n; i++) {
        o->list[i] = &o->files[i];
        n_records += o->files[i].n;
    }
    MT_TRY(mt_wrap(ctx, mt_gguf_str(ctx, o->list[0], "general.architecture", &m->arena, &o->arch),
                   "%s", path));
    m->model_type = o->arch;
    MT_TRY(gguf_sidecars(ctx, m, path));
    if (bind && n_records > 0 && o->arch != NULL)
        MT_TRY(gguf_bind(ctx, o));
    else
        MT_TRY(gguf_add_records(ctx, o));
    for (size_t i = 0; i < o->n; i++)
        if (o->files[i].headers_only)
            mt_log(ctx, MT_LOG_WARN, "%s: ends before its data begin; only the header can be read",
                   o->files[i].map->path);
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
    .plan = mt_gguf_plan,
    .put = mt_gguf_put,
    .sync = mt_gguf_sync,
    .end = mt_gguf_end,
    .place = mt_gguf_where,
    .free = mt_gguf_writer_free,
};
