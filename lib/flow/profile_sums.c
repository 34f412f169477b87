#include "lib/flow/profile_sums.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/flow/profile_impl.h"

#include <math.h>
#include <string.h>

#define SUMS_COLUMNS 512 /* columns of one job */
#define SUMS_FLUSH 8192  /* sums of one job */
#define SUMS_TOP_ROWS 16 /* rows of one job */
#define SUMS_TOP_MAX 16

static bool sums_is_sum(enum mt_stat s)
{
    return mt_stat_row(s)->kind == MT_STAT_SUM;
}

uint64_t sums_bytes(const struct mt_profile *p, int layer)
{
    uint64_t sum = 0, domains = (uint64_t)mt_profile_n_domains(p);

    for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
        const struct profile_shape *shape = profile_shape(p, layer, (enum mt_stat)i);
        uint64_t n = (uint64_t)(shape->rows * shape->cols);
        if (sums_is_sum((enum mt_stat)i))
            sum += n * (sizeof(double) + domains * sizeof(struct mt_exact));
        else
            sum += n * domains * sizeof(double);
    }
    return sum;
}

static mt_status sums_open_stat(struct mt_ctx *ctx, struct sums *s, enum mt_stat stat)
{
    struct sums_stat *a = &s->stats[stat];
    size_t n = (size_t)(a->rows * a->cols);
    void **at = s->pointers + (size_t)stat * (size_t)s->n_domains;
    mt_status st = MT_OK;

    if (sums_is_sum(stat)) {
        a->exact = (struct mt_exact **)at;
        st = mt_alloc0(ctx, n, sizeof *a->window, "statistics", &a->window);
    } else {
        a->plain = (double **)at;
    }
    for (int d = 0; d < s->n_domains && st == MT_OK; d++)
        st = a->exact != NULL
                 ? mt_alloc0(ctx, n, sizeof(struct mt_exact), "statistics", &a->exact[d])
                 : mt_alloc0(ctx, n, sizeof(double), "statistics", &a->plain[d]);
    return st;
}

mt_status sums_open(struct mt_ctx *ctx, const struct mt_profile *p, int layer, struct sums *s)
{
    mt_status st;

    *s = (struct sums){.n_domains = mt_profile_n_domains(p)};
    st = mt_alloc0(ctx, MT_STAT_COUNT_ALL * (size_t)s->n_domains, sizeof(void *), "statistics",
                   &s->pointers);
    for (int i = 0; i < MT_STAT_COUNT_ALL && st == MT_OK; i++) {
        mt_profile_shape(p, layer, (enum mt_stat)i, &s->stats[i].rows, &s->stats[i].cols);
        if (s->stats[i].rows > 0)
            st = sums_open_stat(ctx, s, (enum mt_stat)i);
    }
    if (st != MT_OK)
        sums_close(s);
    return st;
}

void sums_close(struct sums *s)
{
    for (int i = 0; i < MT_STAT_COUNT_ALL; i++)
        mt_free(s->stats[i].window);
    for (size_t i = 0; s->pointers != NULL && i < MT_STAT_COUNT_ALL * (size_t)s->n_domains; i++)
        mt_free(s->pointers[i]);
    mt_free(s->pointers);
    *s = (struct sums){0};
}

double *sums_at(struct sums *s, enum mt_stat stat)
{
    struct sums_stat *a = &s->stats[stat];

    return a->rows == 0 ? NULL : a->window != NULL ? a->window : a->plain[s->domain];
}

/* ---- rows ---- */

struct sums_rows {
    const struct sums_columns *to;
    const float *x;
    int64_t m, width;
};

/* Rows outside, columns inside: each column's sum is made in the order of its rows. */
static mt_status sums_columns_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct sums_rows *r = arg;
    int64_t from = i * SUMS_COLUMNS;
    int64_t n = r->width - from < SUMS_COLUMNS ? r->width - from : SUMS_COLUMNS;
    double *sum = r->to->sum, *abs = r->to->abs, *sq = r->to->sq, *max = r->to->max;

    (void)ctx;
    for (int64_t t = 0; t < r->m; t++) {
        const float *x = r->x + t * r->width + from;
        for (int64_t j = 0; sum != NULL && j < n; j++)
            sum[from + j] += (double)x[j];
        for (int64_t j = 0; abs != NULL && j < n; j++)
            abs[from + j] += (double)fabsf(x[j]);
        for (int64_t j = 0; sq != NULL && j < n; j++)
            sq[from + j] += (double)x[j] * (double)x[j];
        /* Keeps NaN: what compares false is taken. */
        for (int64_t j = 0; max != NULL && j < n; j++)
            max[from + j] =
                (double)fabsf(x[j]) <= max[from + j] ? max[from + j] : (double)fabsf(x[j]);
    }
    return MT_OK;
}

mt_status sums_add_columns(struct mt_ctx *ctx, const struct sums_columns *to, const float *x,
                           int64_t m, int64_t width)
{
    struct sums_rows r = {to, x, m, width};

    return mt_pool_run(ctx, (width + SUMS_COLUMNS - 1) / SUMS_COLUMNS, sums_columns_job, &r);
}

struct sums_top {
    const float *x;
    int64_t m, width;
    int k;
    int32_t *best; /* [m*k] */
};

/* The k largest of a row by insertion: few values pass the smallest kept one. */
static void sums_top_row(const float *x, int64_t width, int k, int32_t *best)
{
    float kept[SUMS_TOP_MAX] = {0};
    int n = 0;

    for (int64_t j = 0; j < width; j++) {
        float v = fabsf(x[j]);
        if (n == k && !(v > kept[k - 1]))
            continue;
        int at = n < k ? n++ : k - 1;
        for (; at > 0 && v > kept[at - 1]; at--) {
            kept[at] = kept[at - 1];
            best[at] = best[at - 1];
        }
        kept[at] = v;
        best[at] = (int32_t)j;
    }
}

static mt_status sums_top_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct sums_top *s = arg;

    (void)ctx;
    for (int64_t t = i * SUMS_TOP_ROWS; t < (i + 1) * SUMS_TOP_ROWS && t < s->m; t++)
        sums_top_row(s->x + t * s->width, s->width, s->k, s->best + t * s->k);
    return MT_OK;
}

mt_status sums_add_top(struct mt_ctx *ctx, double *count, const float *x, int64_t m, int64_t width,
                       int k)
{
    struct sums_top s = {.x = x, .m = m, .width = width, .k = k < width ? k : (int)width};
    mt_status st;

    mt_assert(s.k <= SUMS_TOP_MAX);
    MT_TRY(mt_alloc(ctx, (size_t)m * (size_t)s.k, sizeof *s.best, "largest neurons", &s.best));
    st = mt_pool_run(ctx, (m + SUMS_TOP_ROWS - 1) / SUMS_TOP_ROWS, sums_top_job, &s);
    for (int64_t i = 0; st == MT_OK && i < m * s.k; i++)
        count[s.best[i]]++;
    mt_free(s.best);
    return st;
}

/* ---- ends ---- */

struct sums_flush {
    struct sums_stat *a;
    int domain;
};

static mt_status sums_flush_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct sums_flush *f = arg;
    size_t n = (size_t)(f->a->rows * f->a->cols), end = ((size_t)i + 1) * SUMS_FLUSH;
    struct mt_exact *exact = f->a->exact[f->domain];
    double *window = f->a->window;

    for (size_t j = (size_t)i * SUMS_FLUSH; j < n && j < end; j++) {
        if (window[j] == 0)
            continue;
        if (!mt_exact_add(&exact[j], window[j]))
            return mt_fail(ctx, MT_E_NUMERIC,
                           "a sum of activations is %g: they are no numbers or too large to be "
                           "measured",
                           window[j]);
        window[j] = 0;
    }
    return MT_OK;
}

mt_status sums_flush(struct mt_ctx *ctx, struct sums *s, int layer)
{
    char label[64];

    for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
        struct sums_flush f = {&s->stats[i], s->domain};
        int64_t n = f.a->rows * f.a->cols;
        if (f.a->window != NULL)
            MT_TRY(mt_wrap(ctx,
                           mt_pool_run(ctx, (n + SUMS_FLUSH - 1) / SUMS_FLUSH, sums_flush_job, &f),
                           "%s", profile_label(layer, (enum mt_stat)i, label)));
    }
    return MT_OK;
}

mt_status sums_set(struct mt_ctx *ctx, struct sums *s, struct mt_profile *p, int layer,
                   enum mt_stat stat, int domain)
{
    struct sums_stat *a = &s->stats[stat];
    size_t n = (size_t)(a->rows * a->cols);
    double *v;

    if (a->plain != NULL) {
        mt_profile_set(p, layer, stat, domain, a->plain[domain], NULL, true);
        a->plain[domain] = NULL;
        return MT_OK;
    }
    MT_TRY(mt_alloc(ctx, n, sizeof *v, "statistics", &v));
    for (size_t i = 0; i < n; i++)
        v[i] = mt_exact_value(&a->exact[domain][i]);
    mt_profile_set(p, layer, stat, domain, v, a->exact[domain], true);
    a->exact[domain] = NULL;
    return MT_OK;
}
