#include "passes/lib/softmax_fit.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/train/adam.h"
#include "passes/lib/router_fit.h"

#include <math.h>
#include <string.h>

#define FIT_BATCH 256
#define FIT_EPOCHS 40
#define FIT_RATE 3e-3 /* of inputs scaled to a mean square of 1 */
#define FIT_BETA2 0.95

/* Weights, their moments and a batch's products. */
struct fit_run {
    struct mt_router_sample *f;
    bool teacher_first, intercept;
    float *w;         /* [n, d + 1]: the last column is b */
    double *grad;     /* likewise */
    float *x, *p, *q; /* of the batch: [FIT_BATCH, d + 1], [FIT_BATCH, n] twice */
    struct mt_adam adam;
};

uint64_t mt_softmax_fit_bytes(uint64_t d, uint64_t n)
{
    return (5 * n * (d + 1) + FIT_BATCH * (d + 1 + 2 * n)) * sizeof(float);
}

void mt_softmax_target(const float *score, int n, int k, bool soft, double temp, int32_t *best,
                       float *q)
{
    double top = -INFINITY, sum = 0;

    if (soft) {
        memcpy(q, score, (size_t)n * sizeof(*q));
    } else {
        mt_top_k(score, n, k, best);
        memset(q, 0, (size_t)n * sizeof(*q));
        for (int i = 0; i < k; i++)
            q[best[i]] = 1;
    }
    for (int e = 0; e < n; e++)
        top = fmax(top, (double)q[e]);
    for (int e = 0; e < n; e++)
        sum += exp(((double)q[e] - top) / temp);
    for (int e = 0; e < n; e++)
        q[e] = (float)(exp(((double)q[e] - top) / temp) / sum);
}

double mt_divergence(const float *p, const float *q, int64_t m, int n, bool teacher_first)
{
    double sum = 0;

    for (int64_t i = 0; i < m * n; i++) {
        double a = fmax((double)(teacher_first ? q[i] : p[i]), MT_SOFTMAX_FIT_LEAST);
        double b = fmax((double)(teacher_first ? p[i] : q[i]), MT_SOFTMAX_FIT_LEAST);
        sum += a * log(a / b);
    }
    return m > 0 ? sum / (double)m : 0;
}

static void fit_softmax(float *z, int64_t m, int n)
{
    for (int64_t t = 0; t < m; t++) {
        float *row = z + t * n;
        double top = -INFINITY, sum = 0;
        for (int e = 0; e < n; e++)
            top = fmax(top, (double)row[e]);
        for (int e = 0; e < n; e++)
            sum += exp((double)row[e] - top);
        for (int e = 0; e < n; e++)
            row[e] = (float)(exp((double)row[e] - top) / sum);
    }
}

/* p becomes the gradient of the divergence by the logits. KL(p || q): p (ln(p/q) - KL); KL(q || p):
 * p - q. */
static void fit_slope(const struct fit_run *r, int64_t m)
{
    int n = r->f->n;

    for (int64_t t = 0; t < m; t++) {
        float *p = r->p + t * n;
        const float *q = r->q + t * n;
        double kl = r->teacher_first ? 0 : mt_divergence(p, q, 1, n, false);
        for (int e = 0; e < n; e++) {
            double a = (double)p[e], b = (double)q[e];
            double g =
                r->teacher_first
                    ? a - b
                    : a * (log(fmax(a, MT_SOFTMAX_FIT_LEAST) / fmax(b, MT_SOFTMAX_FIT_LEAST)) - kl);
            p[e] = (float)(g / (double)m);
        }
    }
}

/* Inputs of the batch with a column of ones, so that b is a column of w; of zeros without b. */
static void fit_gather(struct fit_run *r, int64_t at, int64_t m)
{
    const struct mt_router_sample *f = r->f;

    for (int64_t t = 0; t < m; t++) {
        int64_t from = f->order[at + t];
        memcpy(r->x + t * (f->d + 1), f->x + from * f->d, (size_t)f->d * sizeof(float));
        r->x[t * (f->d + 1) + f->d] = r->intercept ? 1 : 0;
        memcpy(r->q + t * f->n, f->q + from * f->n, (size_t)f->n * sizeof(float));
    }
}

static mt_status fit_forward(struct mt_ctx *ctx, struct fit_run *r, int64_t m)
{
    int64_t k = r->f->d + 1;

    MT_TRY(mt_gemm_nt(ctx, m, r->f->n, k, 1, r->x, k, r->w, k, 0, r->p, r->f->n));
    fit_softmax(r->p, m, r->f->n);
    return MT_OK;
}

/* grad[n, d + 1] = p^T x */
static mt_status fit_grad(struct mt_ctx *ctx, struct fit_run *r, int64_t m)
{
    int64_t k = r->f->d + 1;

    memset(r->grad, 0, (size_t)(r->f->n * k) * sizeof(*r->grad));
    return mt_cross_add(ctx, m, r->f->n, k, r->p, r->f->n, r->x, k, r->grad);
}

static mt_status fit_all(struct mt_ctx *ctx, struct fit_run *r, double *divergence)
{
    const struct mt_router_sample *f = r->f;
    double sum = 0;

    for (int64_t at = 0; at < f->tokens; at += FIT_BATCH) {
        int64_t m = f->tokens - at < FIT_BATCH ? f->tokens - at : FIT_BATCH;
        fit_gather(r, at, m);
        MT_TRY(fit_forward(ctx, r, m));
        sum += mt_divergence(r->p, r->q, m, f->n, r->teacher_first) * (double)m;
    }
    *divergence = sum / (double)f->tokens;
    return MT_OK;
}

static mt_status fit_epochs(struct mt_ctx *ctx, struct fit_run *r)
{
    const struct mt_router_sample *f = r->f;
    struct mt_rng rng;

    mt_rng_seed(&rng, 1, 0);
    for (int epoch = 0; epoch < FIT_EPOCHS; epoch++) {
        mt_rng_shuffle_i32(&rng, f->order, (uint64_t)f->tokens);
        for (int64_t at = 0; at < f->tokens; at += FIT_BATCH) {
            int64_t m = f->tokens - at < FIT_BATCH ? f->tokens - at : FIT_BATCH;
            fit_gather(r, at, m);
            MT_TRY(fit_forward(ctx, r, m));
            fit_slope(r, m);
            MT_TRY(fit_grad(ctx, r, m));
            mt_adam_step(&r->adam, r->grad, r->w);
        }
        MT_TRY(mt_check_cancel(ctx));
    }
    return MT_OK;
}

static mt_status fit_room(struct mt_ctx *ctx, struct fit_run *r)
{
    size_t n = (size_t)r->f->n, k = (size_t)r->f->d + 1;
    float *all;

    MT_TRY(mt_alloc0(ctx, n, k * sizeof(float), "router fit", &r->w));
    MT_TRY(mt_adam_open(ctx, (int64_t)(n * k), FIT_RATE, &r->adam));
    r->adam.beta2 = FIT_BETA2;
    MT_TRY(mt_alloc(ctx, n, k * sizeof(*r->grad), "router fit", &r->grad));
    MT_TRY(mt_alloc(ctx, FIT_BATCH, (k + 2 * n) * sizeof(float), "router fit", &all));
    r->x = all;
    r->p = all + FIT_BATCH * k;
    r->q = r->p + FIT_BATCH * n;
    return MT_OK;
}

mt_status mt_softmax_fit(struct mt_ctx *ctx, struct mt_router_sample *f, bool teacher_first,
                         float *w, float *b, double *before, double *after)
{
    struct fit_run r = {.f = f, .teacher_first = teacher_first, .intercept = b != NULL};
    int64_t k = f->d + 1;

    *before = *after = 0;
    memset(w, 0, (size_t)f->n * (size_t)f->d * sizeof(*w));
    if (b != NULL)
        memset(b, 0, (size_t)f->n * sizeof(*b));
    if (f->tokens == 0)
        return MT_OK;
    float scale = mt_router_sample_scale(f);
    mt_status st = fit_room(ctx, &r);
    if (st == MT_OK)
        st = fit_all(ctx, &r, before);
    if (st == MT_OK)
        st = fit_epochs(ctx, &r);
    if (st == MT_OK)
        st = fit_all(ctx, &r, after);
    if (st == MT_OK && *after < *before) {
        for (int e = 0; e < f->n; e++) {
            for (int64_t i = 0; i < f->d; i++)
                w[e * f->d + i] = r.w[e * k + i] * scale;
            if (b != NULL)
                b[e] = r.w[e * k + f->d];
        }
    } else {
        *after = *before;
    }
    mt_free(r.w);
    mt_free(r.grad);
    mt_free(r.x);
    mt_adam_close(&r.adam);
    return st;
}
