#include "formats/st_header.h"
#include "formats/stats.h"
#include "lib/base/json.h"
#include "lib/base/show.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STATS_SOURCES_MAX 4096
#define STATS_CELLS_MAX (1 << 18) /* layers times sources */

struct stats_file {
    const char *path;
    struct mt_map *map;
    struct mt_arena arena;
    struct mt_st_header h;
    struct mt_json *sources;
};

static const char *stats_meta(const struct stats_file *f, const char *key)
{
    for (size_t i = 0; i < f->h.n_meta; i++) {
        if (strcmp(f->h.meta[i].key, key) == 0)
            return f->h.meta[i].value;
    }
    return NULL;
}

static mt_status stats_meta_int(struct mt_ctx *ctx, const struct stats_file *f, const char *key,
                                int64_t min, int64_t max, int64_t *out)
{
    const char *text = stats_meta(f, key);
    char *end = NULL;
    long long v;

    errno = 0;
    v = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0 || v < min || v > max)
        return mt_fail(ctx, MT_E_FORMAT, "metadata \"%s\" is missing or no number in its range",
                       key);
    *out = v;
    return MT_OK;
}

/* 64 hexadecimal digits, or nothing. */
static mt_status stats_hash(struct mt_ctx *ctx, const char *text, const char *key, char hex[65])
{
    size_t n = text != NULL ? strlen(text) : 1;

    if ((n != 64 && n != 0) || (n == 64 && strspn(text, "0123456789abcdef") != 64))
        return mt_fail(ctx, MT_E_FORMAT, "metadata \"%s\" is missing or no SHA-256", key);
    memcpy(hex, text, n + 1);
    return MT_OK;
}

static mt_status stats_kind(struct mt_ctx *ctx, const struct stats_file *f)
{
    const char *kind = stats_meta(f, "format"), *version = stats_meta(f, "version");

    if (kind == NULL || strcmp(kind, MT_STATS_KIND) != 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "holds tensors, but is no profile; `moetool profile` makes one");
    if (version == NULL || strcmp(version, MT_STATS_VERSION) != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "a profile of version %.20s; this program reads version %s",
                       version != NULL ? version : "(none)", MT_STATS_VERSION);
    return MT_OK;
}

static mt_status stats_source(struct mt_ctx *ctx, const struct mt_json *j,
                              struct mt_profile_source *out)
{
    const char *text;

    MT_TRY(mt_json_get_str(ctx, j, "domain", NULL, &out->domain));
    if (out->domain == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "a source without \"domain\"");
    MT_TRY(mt_json_get_str(ctx, j, "sha256", NULL, &text));
    MT_TRY(stats_hash(ctx, text, "sha256", out->sha256));
    MT_TRY(mt_json_get_str(ctx, j, "ids_sha256", "", &text));
    MT_TRY(stats_hash(ctx, text, "ids_sha256", out->ids_sha256));
    MT_TRY(mt_json_get_int(ctx, j, "windows", 0, &out->windows));
    return mt_json_get_int(ctx, j, "tokens", 0, &out->tokens);
}

static mt_status stats_sources(struct mt_ctx *ctx, struct stats_file *f,
                               struct mt_profile_source **out, int *n)
{
    const char *text = stats_meta(f, "sources");
    size_t count;

    if (text == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "metadata \"sources\" is missing");
    MT_TRY(mt_json_parse(ctx, text, strlen(text), "sources", &f->sources));
    count = mt_json_count(f->sources);
    if (mt_json_kind(f->sources) != MT_JSON_ARRAY || count < 1 || count > STATS_SOURCES_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "metadata \"sources\" is no list of 1 to %d texts",
                       STATS_SOURCES_MAX);
    MT_TRY(mt_arena_alloc(ctx, &f->arena, count, sizeof **out, out));
    *n = 0;
    for (const struct mt_json *j = mt_json_first(f->sources); j != NULL; j = mt_json_next(j))
        MT_TRY(stats_source(ctx, j, &(*out)[(*n)++]));
    return MT_OK;
}

static mt_status stats_create(struct mt_ctx *ctx, struct stats_file *f, struct mt_profile **out)
{
    struct mt_profile_info info = {.origin = stats_meta(f, "origin")};
    struct mt_profile_source *sources = NULL;
    int64_t n_layers = 0;
    int n = 0;

    MT_TRY(stats_kind(ctx, f));
    MT_TRY(stats_hash(ctx, stats_meta(f, "model_sha256"), "model_sha256", info.model));
    MT_TRY(stats_hash(ctx, stats_meta(f, "tokenizer_sha256"), "tokenizer_sha256", info.tokenizer));
    MT_TRY(stats_meta_int(ctx, f, "n_layers", 1, 1 << 16, &n_layers));
    MT_TRY(stats_meta_int(ctx, f, "hidden_size", 1, INT64_C(1) << 32, &info.hidden));
    MT_TRY(stats_meta_int(ctx, f, "seq_len", 0, INT64_C(1) << 32, &info.seq_len));
    MT_TRY(stats_sources(ctx, f, &sources, &n));
    if (n_layers * n > STATS_CELLS_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "%lld layers and %d sources are too many",
                       (long long)n_layers, n);
    info.n_layers = (int)n_layers;
    info.origin = info.origin != NULL ? info.origin : "";
    return mt_profile_create(ctx, &info, sources, n, out);
}

/* ---- tensors ---- */

struct stats_name {
    int layer, domain;
    enum mt_stat stat;
    bool exact;
};

/* False for names of statistics that this version knows nothing of. */
static bool stats_parse(const struct mt_profile *p, const char *name, struct stats_name *out)
{
    static const char exact[] = "exact.", layers[] = "layers.";
    size_t role, stat;
    char *end;

    *out = (struct stats_name){.domain = -1};
    out->exact = strncmp(name, exact, sizeof exact - 1) == 0;
    name += out->exact ? sizeof exact - 1 : 0;
    if (strncmp(name, layers, sizeof layers - 1) != 0)
        return false;
    name += sizeof layers - 1;
    errno = 0;
    long layer = strtol(name, &end, 10);
    if (end == name || *end != '.' || errno != 0 || layer < 0 ||
        layer >= mt_profile_info(p)->n_layers)
        return false;
    out->layer = (int)layer;
    name = end + 1;
    role = strcspn(name, ".");
    stat = name[role] == '.' ? strcspn(name + role + 1, ".") : 0;
    if (stat == 0 || name[role + 1 + stat] != '.')
        return false;
    for (int d = 0; d < mt_profile_n_domains(p); d++)
        if (strcmp(mt_profile_domain(p, d), name + role + stat + 2) == 0)
            out->domain = d;
    for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
        const struct mt_stat_row *row = mt_stat_row((enum mt_stat)i);
        if (strlen(row->role) == role && strncmp(row->role, name, role) == 0 &&
            strlen(row->name) == stat && strncmp(row->name, name + role + 1, stat) == 0) {
            out->stat = (enum mt_stat)i;
            return out->domain >= 0;
        }
    }
    return false;
}

/* Rows and columns of a tensor, and whether it can be what its name says. */
static bool stats_shape(const struct mt_st_record *r, const struct stats_name *n, int64_t *rows,
                        int64_t *cols)
{
    const struct mt_stat_row *row = mt_stat_row(n->stat);
    int rank = r->rank - (n->exact ? 1 : 0);

    if (r->dtype != (n->exact ? MT_I64 : MT_F64) || rank != (row->rows == MT_DIM_1 ? 1 : 2))
        return false;
    if (n->exact && (r->shape[rank] != 2 || row->kind != MT_STAT_SUM))
        return false;
    if (r->begin % sizeof(double) != 0) /* they are read in place */
        return false;
    *rows = rank == 2 ? (int64_t)r->shape[0] : 1;
    *cols = (int64_t)r->shape[rank - 1];
    return *rows > 0 && *cols > 0;
}

/* Declares what the values' tensors hold. */
static mt_status stats_declare(struct mt_ctx *ctx, const struct stats_file *f, struct mt_profile *p)
{
    int64_t rows, cols, known_rows, known_cols;
    char show[MT_SHOW_BYTES];
    struct stats_name n;

    for (size_t i = 0; i < f->h.n; i++) {
        if (!stats_parse(p, f->h.v[i].name, &n))
            continue;
        mt_profile_shape(p, n.layer, n.stat, &known_rows, &known_cols);
        if (!stats_shape(&f->h.v[i], &n, &rows, &cols) ||
            (known_rows > 0 && (known_rows != rows || known_cols != cols)))
            return mt_fail(ctx, MT_E_FORMAT, "tensor %s has a wrong shape, type or place",
                           mt_show_name(f->h.v[i].name, show));
        mt_profile_declare(p, n.layer, n.stat, rows, cols);
    }
    return MT_OK;
}

static void stats_set(const struct stats_file *f, struct mt_profile *p)
{
    struct stats_name n;

    for (size_t i = 0; i < f->h.n; i++) {
        if (!stats_parse(p, f->h.v[i].name, &n))
            continue;
        const void *at = f->map->base + f->h.data_offset + f->h.v[i].begin;
        struct mt_profile_part part = mt_profile_part(p, n.layer, n.stat, n.domain);
        if (n.exact)
            part.exact = at;
        else
            part.v = at;
        mt_profile_set(p, n.layer, n.stat, n.domain, part.v, part.exact, false);
    }
}

static mt_status stats_complete(struct mt_ctx *ctx, const struct mt_profile *p)
{
    for (int l = 0; l < mt_profile_info(p)->n_layers; l++) {
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat s = (enum mt_stat)i;
            for (int d = 0; mt_profile_has(p, l, s) && d < mt_profile_n_domains(p); d++) {
                struct mt_profile_part part = mt_profile_part(p, l, s, d);
                if (part.v == NULL || (mt_stat_row(s)->kind == MT_STAT_SUM && part.exact == NULL))
                    return mt_fail(ctx, MT_E_FORMAT, "layers.%d.%s.%s is missing for domain \"%s\"",
                                   l, mt_stat_row(s)->role, mt_stat_row(s)->name,
                                   mt_profile_domain(p, d));
            }
        }
    }
    return MT_OK;
}

static mt_status stats_fill(struct mt_ctx *ctx, struct stats_file *f, struct mt_profile *p)
{
    /* Headers of other writers need not be padded. */
    if (f->h.data_offset % sizeof(double) != 0)
        return mt_fail(ctx, MT_E_FORMAT, "its numbers do not lie at multiples of 8 bytes");
    MT_TRY(stats_declare(ctx, f, p));
    stats_set(f, p);
    mt_profile_own_map(p, f->map);
    f->map = NULL;
    return stats_complete(ctx, p);
}

mt_status mt_stats_read(struct mt_ctx *ctx, const char *path, struct mt_profile **out)
{
    struct stats_file f = {.path = path};
    mt_status st;

    *out = NULL;
    mt_arena_init(&f.arena);
    st = mt_map_open(ctx, path, &f.map);
    if (st == MT_OK) {
        st = mt_st_header_read(ctx, f.map, &f.arena, &f.h);
        if (st == MT_OK) {
            st = stats_create(ctx, &f, out);
            if (st == MT_OK)
                st = stats_fill(ctx, &f, *out);
            st = mt_wrap(ctx, st, "%s", path);
        }
        mt_st_header_free(&f.h);
    }
    if (st != MT_OK) {
        mt_profile_free(*out);
        *out = NULL;
    }
    mt_json_free(f.sources);
    mt_map_close(f.map);
    mt_arena_free(&f.arena);
    return st;
}
