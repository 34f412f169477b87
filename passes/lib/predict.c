#include "passes/lib/predict.h"

#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

#define PREDICT_BLOCK 1024 /* tokens per product */
#define PREDICT_ROWS 64    /* tokens, or neurons, per job */

struct mt_predict {
    int64_t d, width, tokens;
    double *length; /* [width] */
    double *gram;   /* [d, d] */
    double *cross;  /* [d, width]; the solution after solve */
    double *sum_x;  /* [d] */
    double *sum_c;  /* [width] */
    float *block;   /* [PREDICT_BLOCK, width] contributions */

    int64_t stride, n_sample, sample_max;
    float *sample_x; /* [sample_max, d] */
};

uint64_t mt_predict_bytes(uint64_t d, uint64_t width)
{
    return d * d * 8 + d * width * (8 + 4) + width * (24 + PREDICT_BLOCK * 4) +
           MT_PREDICT_SAMPLE_MAX * (d + width) * 4;
}

static mt_status predict_alloc(struct mt_ctx *ctx, struct mt_predict *p)
{
    size_t d = (size_t)p->d, w = (size_t)p->width;

    MT_TRY(mt_alloc0(ctx, d, d * sizeof(double), "profile fit", &p->gram));
    MT_TRY(mt_alloc0(ctx, d, w * sizeof(double), "profile fit", &p->cross));
    MT_TRY(mt_alloc0(ctx, d, sizeof(double), "profile fit", &p->sum_x));
    MT_TRY(mt_alloc0(ctx, w, sizeof(double), "profile fit", &p->sum_c));
    MT_TRY(mt_alloc(ctx, w, sizeof(double), "profile fit", &p->length));
    MT_TRY(mt_alloc(ctx, PREDICT_BLOCK, w * sizeof(float), "profile fit", &p->block));
    return mt_alloc(ctx, (size_t)p->sample_max, d * sizeof(float), "profile sample", &p->sample_x);
}

mt_status mt_predict_create(struct mt_ctx *ctx, int64_t d, int64_t width, const double *length,
                            int64_t n_tokens, struct mt_predict **out)
{
    struct mt_predict *p;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*p), "profile fit", &p));
    p->d = d;
    p->width = width;
    p->stride = (n_tokens + MT_PREDICT_SAMPLE_MAX - 1) / MT_PREDICT_SAMPLE_MAX;
    if (p->stride < 1)
        p->stride = 1;
    p->sample_max = n_tokens < MT_PREDICT_SAMPLE_MAX ? n_tokens : MT_PREDICT_SAMPLE_MAX;
    mt_status st = predict_alloc(ctx, p);
    if (st != MT_OK) {
        mt_predict_free(p);
        return st;
    }
    memcpy(p->length, length, (size_t)width * sizeof(*length));
    *out = p;
    return MT_OK;
}

void mt_predict_free(struct mt_predict *p)
{
    if (p == NULL)
        return;
    mt_free(p->length);
    mt_free(p->gram);
    mt_free(p->cross);
    mt_free(p->sum_x);
    mt_free(p->sum_c);
    mt_free(p->block);
    mt_free(p->sample_x);
    mt_free(p);
}

struct predict_block {
    struct mt_predict *p;
    int64_t m;
    const float *x, *h;
};

static mt_status predict_rows_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct predict_block *b = arg;
    const struct mt_predict *p = b->p;

    (void)ctx;
    for (int64_t t = job * PREDICT_ROWS; t < b->m && t < (job + 1) * PREDICT_ROWS; t++)
        for (int64_t j = 0; j < p->width; j++)
            p->block[t * p->width + j] =
                (float)(fabs((double)b->h[t * p->width + j]) * p->length[j]);
    return MT_OK;
}

/* Sums of columns of a[m, n], a job for each stretch of them. */
struct predict_sums {
    int64_t m, n;
    const float *a;
    double *sum;
};

static mt_status predict_sums_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct predict_sums *s = arg;

    (void)ctx;
    for (int64_t t = 0; t < s->m; t++)
        for (int64_t j = job * PREDICT_ROWS; j < s->n && j < (job + 1) * PREDICT_ROWS; j++)
            s->sum[j] += (double)s->a[t * s->n + j];
    return MT_OK;
}

static mt_status predict_sum(struct mt_ctx *ctx, int64_t m, int64_t n, const float *a, double *sum)
{
    struct predict_sums s = {m, n, a, sum};

    return mt_pool_run(ctx, (n + PREDICT_ROWS - 1) / PREDICT_ROWS, predict_sums_job, &s);
}

mt_status mt_predict_add(struct mt_ctx *ctx, struct mt_predict *p, int64_t m, int64_t token0,
                         const float *x, const float *h)
{
    for (int64_t t = 0; t < m; t++) {
        if ((token0 + t) % p->stride != 0 || p->n_sample == p->sample_max)
            continue;
        memcpy(p->sample_x + p->n_sample++ * p->d, x + t * p->d, (size_t)p->d * sizeof(*x));
    }
    for (int64_t t = 0; t < m; t += PREDICT_BLOCK) {
        int64_t n = m - t < PREDICT_BLOCK ? m - t : PREDICT_BLOCK;
        struct predict_block b = {p, n, x + t * p->d, h + t * p->width};
        MT_TRY(mt_pool_run(ctx, (n + PREDICT_ROWS - 1) / PREDICT_ROWS, predict_rows_job, &b));
        MT_TRY(predict_sum(ctx, n, p->d, b.x, p->sum_x));
        MT_TRY(predict_sum(ctx, n, p->width, p->block, p->sum_c));
        MT_TRY(mt_gram_add(ctx, n, p->d, b.x, p->d, p->gram));
        MT_TRY(mt_cross_add(ctx, n, p->d, p->width, b.x, p->d, p->block, p->width, p->cross));
    }
    p->tokens += m;
    return MT_OK;
}

void mt_predict_means(const struct mt_predict *p, double *mean)
{
    for (int64_t j = 0; j < p->width; j++)
        mean[j] = p->tokens > 0 ? p->sum_c[j] / (double)p->tokens : 0;
}

int64_t mt_predict_tokens(const struct mt_predict *p)
{
    return p->n_sample;
}

/* Sums about the means, so that the intercept is left out of the ridge. */
static mt_status predict_centre_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct mt_predict *p = arg;
    double mean = p->sum_x[i] / (double)p->tokens;

    (void)ctx;
    for (int64_t j = 0; j < p->d; j++)
        p->gram[i * p->d + j] -= mean * p->sum_x[j];
    for (int64_t j = 0; j < p->width; j++)
        p->cross[i * p->width + j] -= mean * p->sum_c[j];
    return MT_OK;
}

bool mt_predict_finite(const struct mt_predict *p)
{
    double all = 0;

    for (int64_t j = 0; j < p->width; j++)
        all += p->sum_c[j];
    for (int64_t i = 0; i < p->d; i++)
        all += p->sum_x[i];
    return isfinite(all);
}

mt_status mt_predict_solve(struct mt_ctx *ctx, struct mt_predict *p)
{
    double diagonal = 0;

    MT_TRY(mt_pool_run(ctx, p->d, predict_centre_job, p));
    for (int64_t i = 0; i < p->d; i++)
        diagonal += p->gram[i * p->d + i];
    return mt_wrap(ctx,
                   mt_ridge_solve(ctx, p->d, p->width, p->gram,
                                  MT_PREDICT_LAMBDA * diagonal / (double)p->d, p->cross),
                   "profile fit");
}

struct predict_profiles {
    const struct mt_predict *p;
    const int32_t *idx;
    int64_t n;
    float *beta;   /* [n, d] */
    float *points; /* [n, tokens] */
};

static mt_status predict_beta_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct predict_profiles *r = arg;
    const struct mt_predict *p = r->p;

    (void)ctx;
    for (int64_t i = job * PREDICT_ROWS; i < r->n && i < (job + 1) * PREDICT_ROWS; i++)
        for (int64_t f = 0; f < p->d; f++)
            r->beta[i * p->d + f] = (float)p->cross[f * p->width + r->idx[i]];
    return MT_OK;
}

static mt_status predict_unit_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct predict_profiles *r = arg;
    const struct mt_predict *p = r->p;
    float *row = r->points + i * p->n_sample;
    double b = p->sum_c[r->idx[i]];

    (void)ctx;
    for (int64_t f = 0; f < p->d; f++)
        b -= p->cross[f * p->width + r->idx[i]] * p->sum_x[f];
    b /= (double)p->tokens;
    for (int64_t t = 0; t < p->n_sample; t++)
        row[t] = (float)((double)row[t] + b);
    double norm = sqrt(mt_kernels_get()->sumsq(row, (size_t)p->n_sample));
    for (int64_t t = 0; norm > 0 && t < p->n_sample; t++)
        row[t] = (float)((double)row[t] / norm);
    return MT_OK;
}

mt_status mt_predict_profiles(struct mt_ctx *ctx, const struct mt_predict *p, const int32_t *idx,
                              int64_t n, float *points)
{
    struct predict_profiles r = {.p = p, .idx = idx, .n = n, .points = points};

    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)p->d * sizeof(float), "profile fit", &r.beta));
    mt_status st = mt_pool_run(ctx, (n + PREDICT_ROWS - 1) / PREDICT_ROWS, predict_beta_job, &r);
    if (st == MT_OK)
        st = mt_gemm_nt(ctx, n, p->n_sample, p->d, 1, r.beta, p->d, p->sample_x, p->d, 0, points,
                        p->n_sample);
    mt_free(r.beta);
    if (st != MT_OK)
        return st;
    return mt_pool_run(ctx, n, predict_unit_job, &r);
}
