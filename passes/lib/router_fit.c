#include "passes/lib/router_fit.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/run/runner.h"

#include <math.h>
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

    int64_t stride; /* every stride-th token is sampled */
    int64_t n_sample, sample_max;
    float *sample_x;     /* [sample_max, d] */
    float *sample_norms; /* [sample_max, n] */
};

void mt_top_k(const float *v, int n, int k, int32_t *idx)
{
    int have = 0;

    for (int e = 0; e < n; e++) {
        int at = have < k ? have++ : k;
        while (at > 0 && v[e] > v[idx[at - 1]]) {
            if (at < k)
                idx[at] = idx[at - 1];
            at--;
        }
        if (at < k)
            idx[at] = e;
    }
}

void mt_router_label(enum mt_router_labels kind, const float *norms, int n, int k, float *label)
{
    double mean = 0;

    if (kind == MT_LABELS_MEMBERSHIP) {
        /* Rank by counting: no scratch, and ties go to the lowest index. */
        for (int e = 0; e < n; e++) {
            int before = 0;
            for (int o = 0; o < n; o++)
                before += norms[o] > norms[e] || (o < e && norms[o] == norms[e]);
            label[e] = before < k ? 1 : 0;
        }
    } else {
        double sum = 0;
        for (int e = 0; e < n; e++)
            sum += (double)norms[e];
        double eps = 1e-3 * sum / n + 1e-30;
        for (int e = 0; e < n; e++)
            label[e] = (float)log((double)norms[e] + eps);
    }
    for (int e = 0; e < n; e++)
        mean += (double)label[e];
    mean /= n;
    for (int e = 0; e < n; e++)
        label[e] = (float)((double)label[e] - mean);
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
    size_t d = (size_t)f->d, n = (size_t)f->n, s = (size_t)f->sample_max;

    MT_TRY(mt_alloc0(ctx, d, d * sizeof(double), "router fit", &f->gram));
    MT_TRY(mt_alloc0(ctx, d, n * sizeof(double), "router fit", &f->cross));
    MT_TRY(mt_alloc(ctx, FIT_BLOCK, n * sizeof(float), "router fit", &f->label));
    MT_TRY(mt_alloc(ctx, s, d * sizeof(float), "router fit", &f->sample_x));
    return mt_alloc(ctx, s, n * sizeof(float), "router fit", &f->sample_norms);
}

mt_status mt_router_fit_create(struct mt_ctx *ctx, int64_t d, int n_experts, int k,
                               enum mt_router_labels labels, int64_t n_tokens,
                               struct mt_router_fit **out)
{
    struct mt_router_fit *f;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*f), "router fit", &f));
    f->d = d;
    f->n = n_experts;
    f->k = k;
    f->labels = labels;
    f->finite = true;
    f->stride = (n_tokens + MT_ROUTER_SAMPLE_MAX - 1) / MT_ROUTER_SAMPLE_MAX;
    if (f->stride < 1)
        f->stride = 1;
    f->sample_max = n_tokens / f->stride + 1;
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
    mt_free(f->sample_x);
    mt_free(f->sample_norms);
    mt_free(f);
}

static void fit_sample(struct mt_router_fit *f, int64_t token, const float *x, const float *norms)
{
    if (token % f->stride != 0 || f->n_sample == f->sample_max)
        return;
    memcpy(f->sample_x + f->n_sample * f->d, x, (size_t)f->d * sizeof(*x));
    memcpy(f->sample_norms + f->n_sample * f->n, norms, (size_t)f->n * sizeof(*norms));
    f->n_sample++;
}

mt_status mt_router_fit_add(struct mt_ctx *ctx, struct mt_router_fit *f, int64_t m, int64_t token0,
                            const float *x, const float *norms)
{
    for (int64_t t0 = 0; t0 < m; t0 += FIT_BLOCK) {
        int64_t b = m - t0 < FIT_BLOCK ? m - t0 : FIT_BLOCK;
        const float *xb = x + t0 * f->d, *nb = norms + t0 * f->n;

        for (int64_t i = 0; i < b * f->n; i++)
            f->finite = f->finite && isfinite(nb[i]);
        for (int64_t t = 0; t < b; t++) {
            mt_router_label(f->labels, nb + t * f->n, f->n, f->k, f->label + t * f->n);
            fit_sample(f, token0 + t0 + t, xb + t * f->d, nb + t * f->n);
        }
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

mt_status mt_router_fit_solve(struct mt_ctx *ctx, struct mt_router_fit *f, float *router)
{
    double diagonal = 0;

    for (int64_t i = 0; i < f->d; i++)
        diagonal += f->gram[i * f->d + i];
    MT_TRY(mt_wrap(ctx,
                   mt_ridge_solve(ctx, f->d, f->n, f->gram,
                                  MT_ROUTER_FIT_LAMBDA * diagonal / (double)f->d, f->cross),
                   "router fit"));
    for (int e = 0; e < f->n; e++)
        for (int64_t i = 0; i < f->d; i++)
            router[e * f->d + i] = (float)f->cross[i * f->n + e];
    return MT_OK;
}

struct fit_tally {
    double agree, oracle_energy, router_energy, weight_error;
    int64_t ties;
    int64_t *load_oracle, *load_router; /* [n] */
};

/* One sampled token: the oracle's picks against the target's own choice. */
static void fit_measure_token(const struct mt_router_fit *f, const struct mt_target *target,
                              const float *norms, const double *logits, double gap_min,
                              int32_t *picks, double *weight, struct fit_tally *y)
{
    double alpha = mt_target_alpha(target, f->n, f->k);
    int32_t *mine = picks, *oracle = picks + f->n;

    mt_router_apply(&target->rule, logits, NULL, f->n, f->k, mine, weight);
    mt_top_k(norms, f->n, f->k, oracle);
    for (int i = 0; i < f->k; i++) {
        double nm = (double)norms[mine[i]], no = (double)norms[oracle[i]];
        for (int j = 0; j < f->k; j++)
            y->agree += mine[i] == oracle[j];
        y->router_energy += nm * nm;
        y->oracle_energy += no * no;
        y->weight_error = fmax(y->weight_error, fabs(weight[i] * alpha - 1));
        y->load_router[mine[i]]++;
        y->load_oracle[oracle[i]]++;
    }
    double last = INFINITY, next = -INFINITY;
    for (int e = 0; e < f->n; e++) {
        bool picked = false;
        for (int i = 0; i < f->k; i++)
            picked = picked || mine[i] == e;
        if (picked)
            last = fmin(last, logits[e]);
        else
            next = fmax(next, logits[e]);
    }
    y->ties += f->k < f->n && last - next < gap_min;
}

static mt_status fit_measure(struct mt_ctx *ctx, const struct mt_router_fit *f,
                             const struct mt_target *target, const float *router, int64_t *load,
                             struct mt_router_quality *out)
{
    struct fit_tally y = {.load_oracle = load, .load_router = load + f->n};
    size_t n = (size_t)f->n;
    float *product = NULL;
    double *scratch = NULL;
    int32_t *picks = NULL;
    mt_status st = mt_alloc(ctx, (size_t)f->n_sample, n * sizeof(float), "router check", &product);

    if (st == MT_OK)
        st = mt_alloc(ctx, 2 * n, sizeof(double), "router check", &scratch);
    if (st == MT_OK)
        st = mt_alloc(ctx, 2 * n, sizeof(int32_t), "router check", &picks);
    if (st == MT_OK)
        st = mt_gemm_nt(ctx, f->n_sample, f->n, f->d, 1, f->sample_x, f->d, router, f->d, 0,
                        product, f->n);
    for (int64_t t = 0; st == MT_OK && t < f->n_sample; t++) {
        for (int e = 0; e < f->n; e++)
            scratch[e] = (double)product[t * f->n + e];
        /* fp32 scores near 1/2 stand 6e-8 apart, and a sigmoid's slope is 1/4. */
        fit_measure_token(f, target, f->sample_norms + t * f->n, scratch, 2.4e-7, picks,
                          scratch + f->n, &y);
    }
    if (st == MT_OK) {
        double slots = (double)f->n_sample * f->k;
        out->tokens = f->n_sample;
        out->agreement = y.agree / slots;
        out->captured = y.oracle_energy > 0 ? y.router_energy / y.oracle_energy : 1;
        out->weight_error = y.weight_error;
        out->ties = (double)y.ties / (double)f->n_sample;
        for (int e = 0; e < f->n; e++) {
            out->load_oracle_max =
                fmax(out->load_oracle_max, (double)y.load_oracle[e] * f->n / slots);
            out->load_router_max =
                fmax(out->load_router_max, (double)y.load_router[e] * f->n / slots);
        }
    }
    mt_free(product);
    mt_free(scratch);
    mt_free(picks);
    return st;
}

mt_status mt_router_fit_measure(struct mt_ctx *ctx, const struct mt_router_fit *f,
                                const struct mt_target *target, const float *router,
                                struct mt_router_quality *out)
{
    int64_t *load;

    memset(out, 0, sizeof(*out));
    if (f->n_sample == 0)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, 2 * (size_t)f->n, sizeof(*load), "router check", &load));
    mt_status st = fit_measure(ctx, f, target, router, load, out);
    mt_free(load);
    return st;
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
