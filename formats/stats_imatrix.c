#include "formats/stats_imatrix.h"

#include "formats/gguf_arch.h"
#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <string.h>

#define IMATRIX_NAME_MAX 256

const struct imatrix_row imatrix_rows[] = {
    {MT_ROLE_ATTN_Q, MT_EXPERT_NONE, MT_STAT_ATTN_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_ATTN_K, MT_EXPERT_NONE, MT_STAT_ATTN_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_ATTN_V, MT_EXPERT_NONE, MT_STAT_ATTN_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_ATTN_Q_A, MT_EXPERT_NONE, MT_STAT_ATTN_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_ATTN_KV_A, MT_EXPERT_NONE, MT_STAT_ATTN_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_ATTN_O, MT_EXPERT_NONE, MT_STAT_ATTN_O_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_GATE, MT_EXPERT_NONE, MT_STAT_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_UP, MT_EXPERT_NONE, MT_STAT_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_DOWN, MT_EXPERT_NONE, MT_STAT_H_SQ, MT_STAT_TOKENS},
    {MT_ROLE_ROUTER, MT_EXPERT_NONE, MT_STAT_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_GATE, MT_EXPERT_SHARED, MT_STAT_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_UP, MT_EXPERT_SHARED, MT_STAT_X_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_DOWN, MT_EXPERT_SHARED, MT_STAT_SHARED_H_SQ, MT_STAT_TOKENS},
    {MT_ROLE_FFN_GATE, 0, MT_STAT_EXPERT_X_SQ, MT_STAT_EXPERT_N},
    {MT_ROLE_FFN_UP, 0, MT_STAT_EXPERT_X_SQ, MT_STAT_EXPERT_N},
    {MT_ROLE_FFN_DOWN, 0, MT_STAT_EXPERT_H_SQ, MT_STAT_EXPERT_N},
};
const int imatrix_n_rows = (int)(sizeof imatrix_rows / sizeof imatrix_rows[0]);

const struct imatrix_row *imatrix_find(const struct mt_model *m, struct mt_role role)
{
    /* Queries of a latent vector: its squares are not measured. */
    if (role.kind == MT_ROLE_ATTN_Q && m->hp.mla.q_rank > 0)
        return NULL;
    for (int i = 0; i < imatrix_n_rows; i++) {
        const struct imatrix_row *r = &imatrix_rows[i];
        if (r->kind == role.kind && r->expert == role.expert && role.part == MT_PART_WEIGHT)
            return r;
    }
    return NULL;
}

/* ---- entries of either form ---- */

struct imatrix_entry {
    const char *name; /* of the matrix, not NUL-terminated */
    size_t n_name;
    const unsigned char *sums; /* [matrices * columns] F32 at any alignment */
    const unsigned char *counts;
    uint64_t columns, matrices;
    int64_t calls; /* of the older form, which has no counts; 0: counts are there */
};

struct imatrix_read {
    const struct mt_model *m;
    const char *arch;
    struct mt_profile *p;
    int taken;
};

static double imatrix_float(const unsigned char *at, uint64_t i)
{
    uint32_t bits = mt_le32(at + i * sizeof(float));
    float f;

    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

static mt_status imatrix_refuse(struct mt_ctx *ctx, const struct imatrix_read *c,
                                const struct imatrix_entry *e, int64_t rows, int64_t cols)
{
    char show[MT_SHOW_BYTES];

    return mt_fail(ctx, MT_E_FORMAT,
                   "%s: %llu matrices of %llu columns, but %s has %lld of %lld there: it was made "
                   "of another model or of another stage of it",
                   mt_show_text(e->name, e->n_name, show), (unsigned long long)e->matrices,
                   (unsigned long long)e->columns, c->m->path, (long long)rows, (long long)cols);
}

/* Takes `n` numbers for a statistic, unless another matrix with the same inputs gave it. */
static mt_status imatrix_set(struct mt_ctx *ctx, struct imatrix_read *c, int layer,
                             enum mt_stat stat, int64_t rows, int64_t cols, const unsigned char *at,
                             double value)
{
    size_t n = (size_t)(rows * cols);
    double *v;

    if (mt_profile_has(c->p, layer, stat))
        return MT_OK;
    MT_TRY(mt_alloc(ctx, n, sizeof *v, "statistics", &v));
    for (size_t i = 0; i < n; i++) {
        v[i] = at != NULL ? imatrix_float(at, i) : value;
        if (!(v[i] >= 0 && v[i] < 1e18)) {
            mt_free(v);
            return mt_fail(ctx, MT_E_NUMERIC, "holds sums that are negative or no numbers");
        }
    }
    mt_profile_declare(c->p, layer, stat, rows, cols);
    mt_profile_set(c->p, layer, stat, 0, v, NULL, true);
    return MT_OK;
}

static mt_status imatrix_take(struct mt_ctx *ctx, struct imatrix_read *c,
                              const struct imatrix_entry *e)
{
    const struct imatrix_row *row;
    char name[IMATRIX_NAME_MAX];
    struct mt_role role;
    int64_t rows, cols;
    int stacked;

    if (e->n_name >= sizeof name)
        return MT_OK;
    memcpy(name, e->name, e->n_name);
    name[e->n_name] = '\0';
    row = mt_gguf_parse_name(c->arch, name, &role, &stacked) ? imatrix_find(c->m, role) : NULL;
    if (row == NULL) {
        mt_log(ctx, MT_LOG_DEBUG, "%s: profiles hold nothing of it", name);
        return MT_OK;
    }
    if (role.layer >= c->m->hp.n_layers)
        return imatrix_refuse(ctx, c, e, 0, 0);
    mt_stat_shape(c->m, role.layer, row->sums, &rows, &cols);
    if (rows < 1 || e->matrices != (uint64_t)rows || e->columns != (uint64_t)cols)
        return imatrix_refuse(ctx, c, e, rows, cols);
    c->taken++;
    MT_TRY(imatrix_set(ctx, c, role.layer, row->sums, rows, cols, e->sums, 0));
    return imatrix_set(ctx, c, role.layer, row->counts, 1, rows, e->counts, (double)e->calls);
}

/* ---- imatrix.gguf ---- */

static bool imatrix_ends(const char *name, const char *suffix, size_t *n)
{
    size_t len = strlen(name), k = strlen(suffix);

    *n = len > k ? len - k : 0;
    return len > k && strcmp(name + len - k, suffix) == 0;
}

static const struct mt_gguf_record *imatrix_counts(const struct mt_gguf *g, const char *name,
                                                   size_t n)
{
    size_t k;

    for (size_t i = 0; i < g->n; i++) {
        if (imatrix_ends(g->v[i].name, IMATRIX_COUNTS, &k) && k == n &&
            memcmp(g->v[i].name, name, n) == 0)
            return &g->v[i];
    }
    return NULL;
}

static uint64_t imatrix_elements(const struct mt_gguf_record *r)
{
    uint64_t n = 1;

    for (int d = 0; d < r->rank; d++)
        n *= r->ne[d];
    return n;
}

static mt_status imatrix_take_record(struct mt_ctx *ctx, struct imatrix_read *c,
                                     const struct mt_gguf *g, const struct mt_gguf_record *r)
{
    struct imatrix_entry e = {.name = r->name};
    const struct mt_gguf_record *counts;
    char show[MT_SHOW_BYTES];

    if (!imatrix_ends(r->name, IMATRIX_SUMS, &e.n_name))
        return MT_OK;
    counts = imatrix_counts(g, r->name, e.n_name);
    if (counts == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "%s: no counts beside it", mt_show_name(r->name, show));
    e.matrices = imatrix_elements(counts);
    e.columns = r->rank > 0 ? r->ne[0] : 0;
    if (r->dtype != MT_F32 || counts->dtype != MT_F32 || e.columns == 0 ||
        imatrix_elements(r) / e.columns != e.matrices)
        return mt_fail(ctx, MT_E_FORMAT, "%s: not one row of F32 for each count",
                       mt_show_name(r->name, show));
    e.sums = g->map->base + g->data_offset + r->begin;
    e.counts = g->map->base + g->data_offset + counts->begin;
    return imatrix_take(ctx, c, &e);
}

static mt_status imatrix_read_gguf(struct mt_ctx *ctx, struct imatrix_read *c,
                                   const struct mt_map *map)
{
    struct mt_arena arena;
    struct mt_gguf g;
    const char *type = NULL;
    mt_status st;

    mt_arena_init(&arena);
    st = mt_gguf_header_read(ctx, map, &arena, &g);
    if (st == MT_OK)
        st = mt_gguf_str(ctx, &g, "general.type", &arena, &type);
    if (st == MT_OK && (type == NULL || strcmp(type, "imatrix") != 0 || g.headers_only))
        st = mt_fail(ctx, MT_E_FORMAT, "a GGUF file, but no imatrix");
    for (size_t i = 0; st == MT_OK && i < g.n; i++)
        st = imatrix_take_record(ctx, c, &g, &g.v[i]);
    mt_gguf_header_free(&g);
    mt_arena_free(&arena);
    return st;
}

/* ---- the older form ---- */

/* Reads an i32 within [0, max]; moves *at. */
static mt_status imatrix_i32(struct mt_ctx *ctx, const struct mt_map *map, uint64_t *at,
                             uint64_t max, uint64_t *out)
{
    if (map->bytes - *at < 4)
        return mt_fail(ctx, MT_E_FORMAT, "ends in the middle of an entry");
    *out = mt_le32(map->base + *at);
    *at += 4;
    if (*out > max)
        return mt_fail(ctx, MT_E_FORMAT,
                       "neither imatrix.gguf nor its older form, JSON or a profile");
    return MT_OK;
}

/* Matrices that share a name: stacks of experts, which this form does not tell. */
static uint64_t imatrix_stacked(const struct imatrix_read *c, const char *name, uint64_t n)
{
    char text[IMATRIX_NAME_MAX];
    struct mt_role role;
    int stacked;

    if (n >= sizeof text)
        return 1;
    memcpy(text, name, (size_t)n);
    text[n] = '\0';
    if (!mt_gguf_parse_name(c->arch, text, &role, &stacked) || stacked == 0 || role.layer < 0 ||
        role.layer >= c->m->hp.n_layers || c->m->ffn[role.layer].n_experts < 1)
        return 1;
    return (uint64_t)c->m->ffn[role.layer].n_experts;
}

static mt_status imatrix_old_entry(struct mt_ctx *ctx, struct imatrix_read *c,
                                   const struct mt_map *map, uint64_t *at)
{
    uint64_t calls = 0, values = 0, name = 0;
    struct imatrix_entry e = {0};

    MT_TRY(imatrix_i32(ctx, map, at, 4096, &name));
    if (map->bytes - *at < name)
        return mt_fail(ctx, MT_E_FORMAT, "ends in the middle of an entry");
    e.name = (const char *)map->base + *at;
    e.n_name = (size_t)name;
    *at += name;
    MT_TRY(imatrix_i32(ctx, map, at, INT32_MAX, &calls));
    MT_TRY(imatrix_i32(ctx, map, at, INT32_MAX, &values));
    if ((map->bytes - *at) / sizeof(float) < values)
        return mt_fail(ctx, MT_E_FORMAT, "ends in the middle of an entry");
    e.sums = map->base + *at;
    *at += values * sizeof(float);
    e.calls = (int64_t)(calls > 0 ? calls : 1);
    e.matrices = imatrix_stacked(c, e.name, name);
    e.columns = values / e.matrices;
    return imatrix_take(ctx, c, &e);
}

static mt_status imatrix_read_old(struct mt_ctx *ctx, struct imatrix_read *c,
                                  const struct mt_map *map)
{
    uint64_t at = 0, entries = 0;

    MT_TRY(imatrix_i32(ctx, map, &at, 1 << 20, &entries));
    for (uint64_t i = 0; i < entries; i++)
        MT_TRY(imatrix_old_entry(ctx, c, map, &at));
    return MT_OK;
}

/* ---- both ---- */

static mt_status imatrix_create(struct mt_ctx *ctx, struct imatrix_read *c,
                                const struct mt_map *map)
{
    const struct mt_profile_info info = {
        .origin = "imatrix", .n_layers = c->m->hp.n_layers, .hidden = c->m->hp.hidden};
    struct mt_profile_source source = {.domain = "imatrix"};
    struct mt_sha256 sha;

    c->arch = c->m->family != NULL ? mt_gguf_arch(c->m->family) : NULL;
    if (c->arch == NULL || c->m->hp.n_layers < 1)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: llama.cpp's names of this model's matrices are not known", c->m->path);
    mt_sha256_begin(&sha);
    mt_sha256_add(&sha, map->base, (size_t)map->bytes);
    mt_sha256_hex(&sha, source.sha256);
    return mt_profile_create(ctx, &info, &source, 1, &c->p);
}

mt_status mt_stats_import_imatrix(struct mt_ctx *ctx, const char *path, const struct mt_model *m,
                                  struct mt_profile **out)
{
    struct imatrix_read c = {.m = m};
    struct mt_map *map;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_map_open(ctx, path, &map));
    st = imatrix_create(ctx, &c, map);
    if (st == MT_OK)
        st = map->bytes >= 4 && memcmp(map->base, "GGUF", 4) == 0 ? imatrix_read_gguf(ctx, &c, map)
                                                                  : imatrix_read_old(ctx, &c, map);
    if (st == MT_OK && c.taken == 0)
        st = mt_fail(ctx, MT_E_FORMAT, "nothing in it names a matrix of %s", m->path);
    mt_map_close(map);
    if (st != MT_OK) {
        mt_profile_free(c.p);
        return mt_wrap(ctx, st, "%s", path);
    }
    *out = c.p;
    return MT_OK;
}

mt_status mt_stats_import(struct mt_ctx *ctx, const char *path, const struct mt_model *m,
                          struct mt_profile **out)
{
    struct mt_map *map;
    char first[16] = {0};
    size_t n, at = 0;

    *out = NULL;
    MT_TRY(mt_map_open(ctx, path, &map));
    n = map->bytes < sizeof first ? (size_t)map->bytes : sizeof first;
    if (n > 0)
        memcpy(first, map->base, n);
    mt_map_close(map);
    while (at < n && strchr(" \t\r\n", first[at]) != NULL && first[at] != '\0')
        at++;
    if (n > 9 && first[8] == '{' && memcmp(first, "GGUF", 4) != 0) {
        MT_TRY(mt_stats_read(ctx, path, out));
        mt_status st = mt_profile_check(ctx, *out, m, path);
        if (st != MT_OK) {
            mt_profile_free(*out);
            *out = NULL;
        }
        return st;
    }
    if (at < n && first[at] == '{')
        return mt_stats_import_json(ctx, path, m, out);
    return mt_stats_import_imatrix(ctx, path, m, out);
}
