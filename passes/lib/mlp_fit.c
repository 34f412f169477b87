#include "passes/lib/mlp_fit.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/train/adam.h"

#include <math.h>
#include <string.h>

#define MLP_BATCH 512
#define MLP_EPOCHS 30
#define MLP_RATE 0.01

struct mlp {
    struct mt_router_sample *s;
    int64_t width;
    float *w1, *w2;
    float *x, *q, *a, *z, *da; /* of a batch: [MLP_BATCH, d | n | width | n | width] */
    double *g1, *g2;
    struct mt_adam adam1, adam2;
};

uint64_t mt_mlp_fit_bytes(uint64_t d, uint64_t n, uint64_t width)
{
    return MLP_BATCH * (d + 2 * n + 2 * width) * 4 + (width * d + n * width) * 20;
}

static mt_status mlp_room(struct mt_ctx *ctx, struct mlp *y)
{
    size_t d = (size_t)y->s->d, n = (size_t)y->s->n, w = (size_t)y->width;

    MT_TRY(mt_alloc(ctx, MLP_BATCH, (d + 2 * n + 2 * w) * sizeof(float), "router fit", &y->x));
    y->q = y->x + MLP_BATCH * d;
    y->z = y->q + MLP_BATCH * n;
    y->a = y->z + MLP_BATCH * n;
    y->da = y->a + MLP_BATCH * w;
    MT_TRY(mt_alloc(ctx, w * d + n * w, sizeof(*y->g1), "router fit", &y->g1));
    y->g2 = y->g1 + w * d;
    MT_TRY(mt_adam_open(ctx, (int64_t)(w * d), MLP_RATE, &y->adam1));
    return mt_adam_open(ctx, (int64_t)(n * w), MLP_RATE, &y->adam2);
}

static void mlp_gather(struct mlp *y, int64_t at, int64_t m)
{
    const struct mt_router_sample *s = y->s;

    for (int64_t t = 0; t < m; t++) {
        int64_t from = s->order[at + t];
        memcpy(y->x + t * s->d, s->x + from * s->d, (size_t)s->d * sizeof(float));
        memcpy(y->q + t * s->n, s->q + from * s->n, (size_t)s->n * sizeof(float));
    }
}

static mt_status mlp_forward(struct mt_ctx *ctx, struct mlp *y, int64_t m)
{
    int64_t d = y->s->d, n = y->s->n, w = y->width;

    MT_TRY(mt_gemm_nt(ctx, m, w, d, 1, y->x, d, y->w1, d, 0, y->a, w));
    for (int64_t i = 0; i < m * w; i++)
        y->a[i] = tanhf(y->a[i]);
    return mt_gemm_nt(ctx, m, n, w, 1, y->a, w, y->w2, w, 0, y->z, n);
}

/* Of sigmoid(z) against q: max(z, 0) - z q + ln(1 + exp(-|z|)). */
static double mlp_entropy(const struct mlp *y, int64_t m)
{
    double sum = 0;

    for (int64_t i = 0; i < m * y->s->n; i++) {
        double z = (double)y->z[i];
        sum += fmax(z, 0) - z * (double)y->q[i] + log1p(exp(-fabs(z)));
    }
    return sum;
}

static mt_status mlp_backward(struct mt_ctx *ctx, struct mlp *y, int64_t m)
{
    int64_t d = y->s->d, n = y->s->n, w = y->width;

    for (int64_t i = 0; i < m * n; i++)
        y->z[i] = (float)((1 / (1 + exp(-(double)y->z[i])) - (double)y->q[i]) / (double)(m * n));
    memset(y->g1, 0, (size_t)(w * d + n * w) * sizeof(*y->g1));
    MT_TRY(mt_cross_add(ctx, m, n, w, y->z, n, y->a, w, y->g2));
    MT_TRY(mt_gemm_nn(ctx, m, w, n, 1, y->z, n, y->w2, w, 0, y->da, w));
    for (int64_t i = 0; i < m * w; i++)
        y->da[i] *= 1 - y->a[i] * y->a[i];
    return mt_cross_add(ctx, m, w, d, y->da, w, y->x, d, y->g1);
}

static mt_status mlp_measure(struct mt_ctx *ctx, struct mlp *y, double *entropy)
{
    double sum = 0;

    for (int64_t at = 0; at < y->s->tokens; at += MLP_BATCH) {
        int64_t m = y->s->tokens - at < MLP_BATCH ? y->s->tokens - at : MLP_BATCH;
        mlp_gather(y, at, m);
        MT_TRY(mlp_forward(ctx, y, m));
        sum += mlp_entropy(y, m);
    }
    *entropy = sum / ((double)y->s->tokens * y->s->n);
    return MT_OK;
}

static mt_status mlp_train(struct mt_ctx *ctx, struct mlp *y)
{
    struct mt_rng rng;

    mt_rng_seed(&rng, 1, 0);
    for (int epoch = 0; epoch < MLP_EPOCHS; epoch++) {
        mt_rng_shuffle_i32(&rng, y->s->order, (uint64_t)y->s->tokens);
        for (int64_t at = 0; at < y->s->tokens; at += MLP_BATCH) {
            int64_t m = y->s->tokens - at < MLP_BATCH ? y->s->tokens - at : MLP_BATCH;
            mlp_gather(y, at, m);
            MT_TRY(mlp_forward(ctx, y, m));
            MT_TRY(mlp_backward(ctx, y, m));
            mt_adam_step(&y->adam1, y->g1, y->w1);
            mt_adam_step(&y->adam2, y->g2, y->w2);
        }
        MT_TRY(mt_check_cancel(ctx));
    }
    return MT_OK;
}

static mt_status mlp_fit(struct mt_ctx *ctx, struct mlp *y, double *before, double *after)
{
    size_t n1 = (size_t)(y->width * y->s->d), n2 = (size_t)(y->s->n * y->width);
    float *start;

    MT_TRY(mlp_room(ctx, y));
    MT_TRY(mlp_measure(ctx, y, before));
    MT_TRY(mt_alloc(ctx, n1 + n2, sizeof(*start), "router fit", &start));
    memcpy(start, y->w1, n1 * sizeof(*start));
    memcpy(start + n1, y->w2, n2 * sizeof(*start));
    mt_status st = mlp_train(ctx, y);
    if (st == MT_OK)
        st = mlp_measure(ctx, y, after);
    if (st != MT_OK || !(*after < *before)) {
        memcpy(y->w1, start, n1 * sizeof(*start));
        memcpy(y->w2, start + n1, n2 * sizeof(*start));
        *after = *before;
    }
    mt_free(start);
    return st;
}

mt_status mt_mlp_fit(struct mt_ctx *ctx, struct mt_router_sample *s, int64_t width, float *w1,
                     float *w2, double *before, double *after)
{
    struct mlp y = {.s = s, .width = width, .w1 = w1, .w2 = w2};

    *before = *after = 0;
    if (s->tokens == 0)
        return MT_OK;
    mt_router_sample_unit(s);
    mt_status st = mlp_fit(ctx, &y, before, after);
    mt_free(y.x);
    mt_free(y.g1);
    mt_adam_close(&y.adam1);
    mt_adam_close(&y.adam2);
    return st;
}
