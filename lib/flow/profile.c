#include "lib/flow/profile_impl.h"

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/flow/walk.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct mt_stat_row profile_rows[] = {
#define MT_STAT_ROW(id, role_, name_, kind_, rows_, cols_)                                         \
    {role_, name_, MT_STAT_##kind_, MT_DIM_##rows_, MT_DIM_##cols_},
    MT_STAT_LIST(MT_STAT_ROW)
#undef MT_STAT_ROW
};

const struct mt_stat_row *mt_stat_row(enum mt_stat s)
{
    return &profile_rows[s];
}

static int64_t profile_dim(const struct mt_model *m, const struct mt_ffn *f, enum mt_stat_dim d)
{
    const struct mt_hparams *hp = &m->hp;

    switch (d) {
    case MT_DIM_1:
        return 1;
    case MT_DIM_d:
        return hp->hidden;
    case MT_DIM_Q:
        return hp->n_heads * (int64_t)(hp->mla.kv_rank > 0 ? hp->mla.v : hp->head_dim);
    case MT_DIM_D:
        return f->moe ? 0 : f->width;
    case MT_DIM_E:
        return f->moe ? f->n_experts : 0;
    case MT_DIM_I:
        return f->moe && f->widths == NULL ? f->width : 0;
    case MT_DIM_S:
        return f->moe ? f->shared_width : 0;
    case MT_DIM_R:
        return mt_ffn_rows(f);
    }
    return 0;
}

void mt_stat_shape(const struct mt_model *m, int layer, enum mt_stat s, int64_t *rows,
                   int64_t *cols)
{
    *rows = profile_dim(m, &m->ffn[layer], profile_rows[s].rows);
    *cols = profile_dim(m, &m->ffn[layer], profile_rows[s].cols);
    if (*rows == 0 || *cols == 0)
        *rows = *cols = 0;
}

const char *profile_label(int layer, enum mt_stat s, char buf[64])
{
    snprintf(buf, 64, "layers.%d.%s.%s", layer, profile_rows[s].role, profile_rows[s].name);
    return buf;
}

struct profile_shape *profile_shape(const struct mt_profile *p, int layer, enum mt_stat s)
{
    return &p->shapes[(size_t)layer * MT_STAT_COUNT_ALL + (size_t)s];
}

struct profile_cell *profile_cell(const struct mt_profile *p, int layer, enum mt_stat s, int domain)
{
    return &p->cells[((size_t)layer * MT_STAT_COUNT_ALL + (size_t)s) * (size_t)p->n_domains +
                     (size_t)domain];
}

int profile_find_domain(const struct mt_profile *p, const char *name)
{
    for (int i = 0; i < p->n_domains; i++) {
        if (strcmp(p->domains[i], name) == 0)
            return i;
    }
    return -1;
}

/* ---- making and ending ---- */

static int profile_source_compare(const void *a, const void *b)
{
    const struct mt_profile_source *x = a, *y = b;
    int c = strcmp(x->domain, y->domain);

    if (c == 0)
        c = strcmp(x->sha256, y->sha256);
    return c != 0 ? c : strcmp(x->ids_sha256, y->ids_sha256);
}

static mt_status profile_copy_sources(struct mt_ctx *ctx, struct mt_profile *p,
                                      const struct mt_profile_source *sources, int n)
{
    MT_TRY(mt_arena_alloc(ctx, &p->arena, (size_t)n, sizeof *p->sources, &p->sources));
    MT_TRY(mt_arena_alloc(ctx, &p->arena, (size_t)n, sizeof *p->domains, &p->domains));
    for (int i = 0; i < n; i++) {
        p->sources[i] = sources[i];
        MT_TRY(mt_arena_strndup(ctx, &p->arena, sources[i].domain, strlen(sources[i].domain),
                                &p->sources[i].domain));
    }
    qsort(p->sources, (size_t)n, sizeof *p->sources, profile_source_compare);
    p->n_sources = n;
    for (int i = 0; i < n; i++) {
        if (p->n_domains == 0 || strcmp(p->domains[p->n_domains - 1], p->sources[i].domain) != 0)
            p->domains[p->n_domains++] = p->sources[i].domain;
    }
    return MT_OK;
}

static mt_status profile_init(struct mt_ctx *ctx, struct mt_profile *p,
                              const struct mt_profile_info *info,
                              const struct mt_profile_source *sources, int n_sources)
{
    size_t slots = (size_t)info->n_layers * MT_STAT_COUNT_ALL;

    p->info = *info;
    MT_TRY(mt_arena_strndup(ctx, &p->arena, info->origin, strlen(info->origin), &p->info.origin));
    MT_TRY(profile_copy_sources(ctx, p, sources, n_sources));
    MT_TRY(mt_alloc0(ctx, slots, sizeof *p->shapes, "profile", &p->shapes));
    return mt_alloc0(ctx, slots, sizeof *p->cells * (size_t)p->n_domains, "profile", &p->cells);
}

mt_status mt_profile_create(struct mt_ctx *ctx, const struct mt_profile_info *info,
                            const struct mt_profile_source *sources, int n_sources,
                            struct mt_profile **out)
{
    struct mt_profile *p;
    mt_status st;

    mt_assert(info->n_layers > 0 && n_sources > 0);
    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *p, "profile", &p));
    mt_arena_init(&p->arena);
    st = profile_init(ctx, p, info, sources, n_sources);
    if (st != MT_OK) {
        mt_profile_free(p);
        return st;
    }
    *out = p;
    return MT_OK;
}

static void profile_end_cell(struct profile_cell *c)
{
    if (c->owned) {
        mt_free((void *)c->part.v);
        mt_free((void *)c->part.exact);
    }
    *c = (struct profile_cell){0};
}

void mt_profile_free(struct mt_profile *p)
{
    if (p == NULL)
        return;
    if (p->cells != NULL) {
        size_t n = (size_t)p->info.n_layers * MT_STAT_COUNT_ALL * (size_t)p->n_domains;
        for (size_t i = 0; i < n; i++)
            profile_end_cell(&p->cells[i]);
    }
    mt_free(p->cells);
    mt_free(p->shapes);
    mt_map_close(p->map);
    mt_arena_free(&p->arena);
    mt_free(p);
}

void mt_profile_declare(struct mt_profile *p, int layer, enum mt_stat s, int64_t rows, int64_t cols)
{
    *profile_shape(p, layer, s) = (struct profile_shape){rows, cols};
}

void mt_profile_set(struct mt_profile *p, int layer, enum mt_stat s, int domain, const double *v,
                    const struct mt_exact *exact, bool owned)
{
    struct profile_cell *c = profile_cell(p, layer, s, domain);

    mt_assert(profile_shape(p, layer, s)->rows > 0);
    profile_end_cell(c);
    c->part = (struct mt_profile_part){v, exact};
    c->owned = owned;
}

struct mt_profile_part mt_profile_part(const struct mt_profile *p, int layer, enum mt_stat s,
                                       int domain)
{
    return profile_cell(p, layer, s, domain)->part;
}

void mt_profile_drop(struct mt_profile *p, int layer, enum mt_stat s, int domain)
{
    profile_end_cell(profile_cell(p, layer, s, domain));
}

void mt_profile_own_map(struct mt_profile *p, struct mt_map *map)
{
    mt_assert(p->map == NULL);
    p->map = map;
}

/* ---- looking ---- */

const struct mt_profile_info *mt_profile_info(const struct mt_profile *p)
{
    return &p->info;
}

int mt_profile_n_domains(const struct mt_profile *p)
{
    return p->n_domains;
}

const char *mt_profile_domain(const struct mt_profile *p, int i)
{
    return p->domains[i];
}

int mt_profile_n_sources(const struct mt_profile *p)
{
    return p->n_sources;
}

const struct mt_profile_source *mt_profile_source(const struct mt_profile *p, int i)
{
    return &p->sources[i];
}

void mt_profile_identity(const struct mt_profile *p, char hex[65])
{
    const struct mt_profile_info *i = &p->info;
    const int64_t sizes[3] = {i->seq_len, i->n_layers, i->hidden};
    struct mt_sha256 s;

    mt_sha256_begin(&s);
    mt_sha256_add(&s, i->model, strlen(i->model) + 1);
    mt_sha256_add(&s, i->tokenizer, strlen(i->tokenizer) + 1);
    mt_sha256_add(&s, i->origin, strlen(i->origin) + 1);
    mt_sha256_add(&s, sizes, sizeof sizes);
    for (int k = 0; k < p->n_sources; k++) {
        const struct mt_profile_source *o = &p->sources[k];
        const int64_t seen[2] = {o->windows, o->tokens};
        mt_sha256_add(&s, o->domain, strlen(o->domain) + 1);
        mt_sha256_add(&s, o->sha256, strlen(o->sha256) + 1);
        mt_sha256_add(&s, o->ids_sha256, strlen(o->ids_sha256) + 1);
        mt_sha256_add(&s, seen, sizeof seen);
    }
    mt_sha256_add(&s, p->shapes, (size_t)i->n_layers * MT_STAT_COUNT_ALL * sizeof *p->shapes);
    mt_sha256_hex(&s, hex);
}

bool mt_profile_has(const struct mt_profile *p, int layer, enum mt_stat s)
{
    return layer >= 0 && layer < p->info.n_layers && profile_shape(p, layer, s)->rows > 0;
}

void mt_profile_shape(const struct mt_profile *p, int layer, enum mt_stat s, int64_t *rows,
                      int64_t *cols)
{
    const struct profile_shape *shape = profile_shape(p, layer, s);

    *rows = shape->rows;
    *cols = shape->cols;
}

static mt_status profile_overflow(struct mt_ctx *ctx, int layer, enum mt_stat s)
{
    char label[64];

    return mt_fail(ctx, MT_E_NUMERIC, "%s: a sum passes 9.2e18", profile_label(layer, s, label));
}

/* Over all domains; exact sums stay exact until the end. */
static mt_status profile_total(struct mt_ctx *ctx, const struct mt_profile *p, int layer,
                               enum mt_stat s, double *out, size_t n)
{
    bool exact = profile_rows[s].kind == MT_STAT_SUM;

    for (int d = 0; d < p->n_domains; d++)
        exact = exact && profile_cell(p, layer, s, d)->part.exact != NULL;
    for (size_t i = 0; i < n; i++) {
        struct mt_exact sum = {0};
        double total = 0;
        for (int d = 0; d < p->n_domains; d++) {
            const struct mt_profile_part *part = &profile_cell(p, layer, s, d)->part;
            if (exact && !mt_exact_merge(&sum, &part->exact[i]))
                return profile_overflow(ctx, layer, s);
            if (profile_rows[s].kind == MT_STAT_MAX)
                total = part->v[i] > total ? part->v[i] : total;
            else
                total += part->v[i];
        }
        out[i] = exact ? mt_exact_value(&sum) : total;
    }
    return MT_OK;
}

static const char *profile_remedy(enum mt_stat s)
{
    if (s == MT_STAT_X_GRAM)
        return "make the profile with --gram x";
    if (s == MT_STAT_H_GRAM)
        return "make the profile with --gram h";
    if (s == MT_STAT_A_SUM)
        return "make the profile with --gates";
    if (s == MT_STAT_EXPERT_F_ALL)
        return "make the profile with --all-experts";
    if (profile_rows[s].kind == MT_STAT_GIVEN)
        return "only scores imported from JSON have it";
    return "make a profile of this model with `moetool profile`";
}

mt_status mt_profile_get(struct mt_ctx *ctx, const struct mt_profile *p, int layer, enum mt_stat s,
                         const char *domain, double *out, size_t n)
{
    int d = domain != NULL ? profile_find_domain(p, domain) : 0;
    const struct profile_shape *shape;
    char label[64];

    if (!mt_profile_has(p, layer, s))
        return mt_fail(ctx, MT_E_ABSENT, "the profile has no %s: %s",
                       profile_label(layer, s, label), profile_remedy(s));
    if (d < 0)
        return mt_fail(ctx, MT_E_ABSENT, "the profile has no domain \"%s\"; its first is \"%s\"",
                       domain, p->domains[0]);
    shape = profile_shape(p, layer, s);
    if ((uint64_t)n != (uint64_t)shape->rows * (uint64_t)shape->cols)
        return mt_fail(
            ctx, MT_E_FORMAT, "the profile's %s has %lld x %lld values, but %zu are wanted",
            profile_label(layer, s, label), (long long)shape->rows, (long long)shape->cols, n);
    for (int i = 0; i < p->n_domains; i++)
        mt_assert(profile_cell(p, layer, s, i)->part.v != NULL);
    if (domain == NULL)
        MT_TRY(profile_total(ctx, p, layer, s, out, n));
    else
        memcpy(out, profile_cell(p, layer, s, d)->part.v, n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(out[i]))
            return mt_fail(ctx, MT_E_NUMERIC, "the profile's %s holds values that are no numbers",
                           profile_label(layer, s, label));
    }
    return MT_OK;
}

/* ---- is it of this model ---- */

static mt_status profile_check_shapes(struct mt_ctx *ctx, const struct mt_profile *p,
                                      const struct mt_model *m, const char *name)
{
    char label[64];
    int64_t rows, cols;

    for (int l = 0; l < p->info.n_layers; l++) {
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat s = (enum mt_stat)i;
            const struct profile_shape *have = profile_shape(p, l, s);
            if (have->rows == 0)
                continue;
            mt_stat_shape(m, l, s, &rows, &cols);
            if (rows != have->rows || cols != have->cols)
                return mt_fail(ctx, MT_E_FORMAT,
                               "%s: %s is %lld x %lld, but %s has %lld x %lld there: it was made "
                               "of another model or of another stage of it",
                               name, profile_label(l, s, label), (long long)have->rows,
                               (long long)have->cols, m->path, (long long)rows, (long long)cols);
        }
    }
    return MT_OK;
}

mt_status mt_profile_check(struct mt_ctx *ctx, const struct mt_profile *p, const struct mt_model *m,
                           const char *name)
{
    char hex[65];

    if (p->info.model[0] != '\0') {
        MT_TRY(mt_model_identity(ctx, m, hex));
        if (strcmp(hex, p->info.model) != 0)
            return mt_fail(ctx, MT_E_OPTION,
                           "%s: measured on model %.12s, but %s is %.12s: another model, or "
                           "another stage of it; make a profile of this one",
                           name, p->info.model, m->path, hex);
    }
    if (p->info.n_layers != m->hp.n_layers || p->info.hidden != m->hp.hidden)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s: of a model of %d layers and %lld features, but %s has %d and %lld",
                       name, p->info.n_layers, (long long)p->info.hidden, m->path, m->hp.n_layers,
                       (long long)m->hp.hidden);
    return profile_check_shapes(ctx, p, m, name);
}
