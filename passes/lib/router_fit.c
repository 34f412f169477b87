#include "passes/lib/router_fit.h"

#include "kernels/linalg.h"
#include "lib/base/best.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FIT_BLOCK 1024 /* tokens per product */

struct mt_router_fit {
    int64_t d;
    int n, k;
    bool finite; /* every norm so far */
    enum mt_router_labels labels;
    double *gram;  /* [d, d] */
    double *cross; /* [d, n] */
    float *label;  /* [FIT_BLOCK, n] */
    double cut;    /* the norm that k experts reach on average; 0: each token has its own */
    double *sum_x, *sum_label; /* [d], [n] over all tokens, of a fit with an intercept; else NULL */
    int64_t tokens;
};

uint64_t mt_router_fit_bytes(uint64_t d, uint64_t n_experts)
{
    return d * d * 8 + d * n_experts * 8 + FIT_BLOCK * n_experts * 4;
}

void mt_top_k(const float *v, int n, int k, int32_t *idx)
{
    mt_best_f32(v, n, k, idx);
}

static void fit_label_members(const float *norms, int n, int k, float *label)
{
    int32_t best[MT_BEST_MAX];

    mt_best_f32(norms, n, k, best);
    memset(label, 0, (size_t)n * sizeof(*label));
    for (int i = 0; i < k; i++)
        label[best[i]] = 1;
}

static void fit_label_logs(const float *norms, int n, float *label)
{
    double sum = 0;

    for (int e = 0; e < n; e++)
        sum += (double)norms[e];
    double eps = 1e-3 * sum / n + 1e-30;
    for (int e = 0; e < n; e++)
        label[e] = (float)log((double)norms[e] + eps);
}

/* Halfway, by ratio, between the k-th norm and the next: all are in, or the rest are zero, and then
 * whatever is not zero is in. */
static double fit_cut(const float *norms, int n, int k)
{
    int32_t best[MT_BEST_MAX];

    mt_best_f32(norms, n, k < n ? k + 1 : k, best);
    double in = (double)norms[best[k - 1]], out = k < n ? (double)norms[best[k]] : 0;
    return sqrt(in * out) + 1e-30;
}

static void fit_label_soft(const float *norms, int n, double cut, float *label)
{
    for (int e = 0; e < n; e++) {
        double ratio = (double)norms[e] > 0 ? cut / (double)norms[e] : INFINITY;
        label[e] = (float)(1 / (1 + ratio * ratio * ratio));
    }
}

/* cut 0: what is best is told by each token's own k-th norm, and labels are taken around their
 * mean; above 0: by that norm, and the mean stays. */
static void fit_label(enum mt_router_labels kind, const float *norms, int n, int k, double cut,
                      float *label)
{
    double mean = 0;

    if (kind == MT_LABELS_LOGNORM)
        fit_label_logs(norms, n, label);
    else if (kind == MT_LABELS_SOFT)
        fit_label_soft(norms, n, cut > 0 ? cut : fit_cut(norms, n, k), label);
    else if (cut > 0)
        for (int e = 0; e < n; e++)
            label[e] = (double)norms[e] >= cut ? 1 : 0;
    else
        fit_label_members(norms, n, k, label);
    if (cut > 0)
        return;
    for (int e = 0; e < n; e++)
        mean += (double)label[e];
    mean /= n;
    for (int e = 0; e < n; e++)
        label[e] = (float)((double)label[e] - mean);
}

void mt_router_label(enum mt_router_labels kind, const float *norms, int n, int k, float *label)
{
    fit_label(kind, norms, n, k, 0, label);
}

struct fit_centroids {
    const struct mt_tensor *gate;
    const struct mt_split *split;
    int64_t d;
    float *router;
};

static mt_status fit_centroid(struct mt_ctx *ctx, const struct fit_centroids *c, int e, double *sum,
                              float *gate)
{
    const int32_t *idx = mt_split_expert(c->split, e);
    int64_t n = 0;

    for (; n < c->split->expert_width && idx[n] >= 0; n++) {
        MT_TRY(mt_tensor_fetch_f32(ctx, c->gate, idx[n], 1, gate));
        for (int64_t i = 0; i < c->d; i++)
            sum[i] += isfinite(gate[i]) ? (double)gate[i] : 0;
    }
    for (int64_t i = 0; i < c->d; i++)
        c->router[e * c->d + i] = (float)(sum[i] / (double)n);
    return MT_OK;
}

static mt_status fit_centroid_job(struct mt_ctx *ctx, int64_t e, void *arg)
{
    struct fit_centroids *c = arg;
    double *sum;

    MT_TRY(mt_alloc0(ctx, (size_t)c->d, sizeof(double) + sizeof(float), "router row", &sum));
    mt_status st = fit_centroid(ctx, c, (int)e, sum, (void *)(sum + c->d));
    mt_free(sum);
    return st;
}

mt_status mt_router_centroids(struct mt_ctx *ctx, const struct mt_tensor *gate,
                              const struct mt_split *split, float *router)
{
    struct fit_centroids c = {
        .gate = gate, .split = split, .d = mt_tensor_cols(gate), .router = router};

    return mt_pool_run(ctx, split->n_experts, fit_centroid_job, &c);
}

static mt_status fit_alloc(struct mt_ctx *ctx, struct mt_router_fit *f)
{
    size_t d = (size_t)f->d, n = (size_t)f->n;

    MT_TRY(mt_alloc0(ctx, d, d * sizeof(double), "router fit", &f->gram));
    MT_TRY(mt_alloc0(ctx, d, n * sizeof(double), "router fit", &f->cross));
    return mt_alloc(ctx, FIT_BLOCK, n * sizeof(float), "router fit", &f->label);
}

mt_status mt_router_fit_create(struct mt_ctx *ctx, int64_t d, int n_experts, int k,
                               enum mt_router_labels labels, struct mt_router_fit **out)
{
    struct mt_router_fit *f;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*f), "router fit", &f));
    f->d = d;
    f->n = n_experts;
    f->k = k;
    f->labels = labels;
    f->finite = true;
    mt_status st = fit_alloc(ctx, f);
    if (st != MT_OK) {
        mt_router_fit_free(f);
        return st;
    }
    *out = f;
    return MT_OK;
}

void mt_router_fit_free(struct mt_router_fit *f)
{
    if (f == NULL)
        return;
    mt_free(f->gram);
    mt_free(f->cross);
    mt_free(f->label);
    mt_free(f->sum_x);
    mt_free(f->sum_label);
    mt_free(f);
}

mt_status mt_router_fit_keep_mean(struct mt_ctx *ctx, struct mt_router_fit *f)
{
    MT_TRY(mt_alloc0(ctx, (size_t)f->d, sizeof(double), "router fit", &f->sum_x));
    return mt_alloc0(ctx, (size_t)f->n, sizeof(double), "router fit", &f->sum_label);
}

static int fit_falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

static mt_status fit_set_cut(struct mt_ctx *ctx, struct mt_router_fit *f, int64_t m,
                             const float *norms)
{
    size_t n = (size_t)m * (size_t)f->n, at = (size_t)m * (size_t)f->k;
    float *v;

    MT_TRY(mt_alloc(ctx, n, sizeof(*v), "router fit", &v));
    memcpy(v, norms, n * sizeof(*v));
    qsort(v, n, sizeof(*v), fit_falling);
    f->cut = fmax((double)v[at - 1], 1e-30);
    mt_free(v);
    return MT_OK;
}

/* b tokens whose labels stand in f->label. */
static void fit_add_sums(struct mt_router_fit *f, int64_t b, const float *x)
{
    for (int64_t t = 0; t < b; t++) {
        for (int64_t i = 0; i < f->d; i++)
            f->sum_x[i] += (double)x[t * f->d + i];
        for (int e = 0; e < f->n; e++)
            f->sum_label[e] += (double)f->label[t * f->n + e];
    }
    f->tokens += b;
}

mt_status mt_router_fit_add(struct mt_ctx *ctx, struct mt_router_fit *f, int64_t m, const float *x,
                            const float *norms)
{
    if (f->sum_x != NULL && f->cut == 0 && m > 0)
        MT_TRY(fit_set_cut(ctx, f, m, norms));
    for (int64_t t0 = 0; t0 < m; t0 += FIT_BLOCK) {
        int64_t b = m - t0 < FIT_BLOCK ? m - t0 : FIT_BLOCK;
        const float *xb = x + t0 * f->d, *nb = norms + t0 * f->n;

        for (int64_t i = 0; i < b * f->n; i++)
            f->finite = f->finite && isfinite(nb[i]);
        for (int64_t t = 0; t < b; t++)
            fit_label(f->labels, nb + t * f->n, f->n, f->k, f->cut, f->label + t * f->n);
        if (f->sum_x != NULL)
            fit_add_sums(f, b, xb);
        MT_TRY(mt_gram_add(ctx, b, f->d, xb, f->d, f->gram));
        MT_TRY(mt_cross_add(ctx, b, f->d, f->n, xb, f->d, f->label, f->n, f->cross));
    }
    return MT_OK;
}

bool mt_router_fit_finite(const struct mt_router_fit *f)
{
    bool finite = f->finite;

    for (int64_t i = 0; finite && i < f->d * f->d; i++)
        finite = isfinite(f->gram[i]);
    for (int64_t i = 0; finite && i < f->d * f->n; i++)
        finite = isfinite(f->cross[i]);
    return finite;
}

/* Around the means an intercept is 0. */
static void fit_centre(struct mt_router_fit *f)
{
    double n = f->tokens > 0 ? (double)f->tokens : 1;

    for (int64_t i = 0; i < f->d; i++) {
        for (int64_t j = 0; j < f->d; j++)
            f->gram[i * f->d + j] -= f->sum_x[i] * f->sum_x[j] / n;
        for (int e = 0; e < f->n; e++)
            f->cross[i * f->n + e] -= f->sum_x[i] * f->sum_label[e] / n;
    }
}

mt_status mt_router_fit_solve(struct mt_ctx *ctx, struct mt_router_fit *f, double lambda,
                              float *router)
{
    double diagonal = 0;

    if (f->sum_x != NULL)
        fit_centre(f);

    for (int64_t i = 0; i < f->d; i++)
        diagonal += f->gram[i * f->d + i];
    MT_TRY(mt_wrap(
        ctx, mt_ridge_solve(ctx, f->d, f->n, f->gram, lambda * diagonal / (double)f->d, f->cross),
        "router fit"));
    for (int e = 0; e < f->n; e++)
        for (int64_t i = 0; i < f->d; i++)
            router[e * f->d + i] = (float)f->cross[i * f->n + e];
    return MT_OK;
}

void mt_router_fit_intercepts(const struct mt_router_fit *f, float *bias)
{
    double n = f->tokens > 0 ? (double)f->tokens : 1;

    for (int e = 0; e < f->n; e++) {
        double at_mean = 0;
        for (int64_t i = 0; i < f->d; i++)
            at_mean += f->cross[i * f->n + e] * f->sum_x[i];
        bias[e] = (float)((f->sum_label[e] - at_mean) / n);
    }
}

double mt_router_logit_bound(const float *router, int n, const float *gamma, int64_t d)
{
    double bound = 0;

    for (int e = 0; e < n; e++) {
        double sum = 0;
        for (int64_t i = 0; i < d; i++) {
            double v = (double)router[e * d + i] * (double)gamma[i];
            sum += v * v;
        }
        bound = fmax(bound, sqrt(sum) * sqrt((double)d));
    }
    return bound;
}
