#include "passes/lib/local_grad.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <string.h>

#define GRAD_ROWS 32 /* tokens per job */

int64_t mt_local_columns(const struct mt_local_shape *s)
{
    return s->shared + s->n_experts * s->expert_width;
}

float *mt_local_part(const struct mt_local_weights *w, enum mt_local_part part)
{
    float *const parts[MT_LOCAL_PARTS] = {w->gate, w->up, w->gate_bias, w->up_bias, w->down};

    return parts[part];
}

int64_t mt_local_part_size(const struct mt_local_shape *s, enum mt_local_part part)
{
    bool bias = part == MT_LOCAL_GATE_BIAS || part == MT_LOCAL_UP_BIAS;

    return mt_local_columns(s) * (bias ? 1 : s->hidden);
}

uint64_t mt_local_batch_bytes(const struct mt_local_shape *s, int64_t size)
{
    uint64_t n = (uint64_t)mt_local_columns(s), d = (uint64_t)s->hidden;

    return (uint64_t)size * ((2 * d + 4 * n) * 4 + (uint64_t)s->n_experts + 1) + n * d * 4;
}

mt_status mt_local_batch_open(struct mt_ctx *ctx, const struct mt_local_shape *s, int64_t size,
                              struct mt_local_batch *b)
{
    int64_t n = mt_local_columns(s), d = s->hidden;

    *b = (struct mt_local_batch){.shape = *s, .n = n, .size = size};
    MT_TRY(mt_alloc(ctx, (size_t)size, (size_t)(2 * d + 4 * n) * sizeof(float), "a batch", &b->x));
    b->y = b->x + size * d;
    b->zg = b->y + size * d;
    b->zu = b->zg + size * n;
    b->h = b->zu + size * n;
    b->dh = b->h + size * n;
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)d * sizeof(float), "gradient", &b->grad));
    return mt_alloc(ctx, (size_t)size, (size_t)s->n_experts + 1, "choices", &b->picked);
}

void mt_local_batch_close(struct mt_local_batch *b)
{
    mt_free(b->x);
    mt_free(b->grad);
    mt_free(b->picked);
    *b = (struct mt_local_batch){0};
}

struct grad_rows {
    const struct mt_local_batch *b;
    const struct mt_local_weights *w;
};

static mt_status grad_run_rows(struct mt_ctx *ctx, const struct mt_local_batch *b,
                               const struct mt_local_weights *w, mt_job_fn fn)
{
    struct grad_rows r = {b, w};

    return mt_pool_run(ctx, (b->m + GRAD_ROWS - 1) / GRAD_ROWS, fn, &r);
}

/* Zero in v[n] of token t what may not act for it. */
static void grad_mask(const struct mt_local_batch *b, int64_t t, float *v)
{
    const struct mt_local_shape *s = &b->shape;
    const unsigned char *picked = b->picked + t * s->n_experts;

    for (int e = 0; e < s->n_experts; e++)
        if (picked[e] == 0)
            memset(v + s->shared + e * s->expert_width, 0, (size_t)s->expert_width * sizeof(*v));
}

static void grad_add_bias(float *to, const float *bias, int64_t n)
{
    if (bias != NULL)
        mt_kernels_get()->axpy(to, 1, bias, (size_t)n);
}

static mt_status grad_act_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct grad_rows *r = arg;
    const struct mt_local_batch *b = r->b;
    size_t n = (size_t)b->n;

    (void)ctx;
    for (int64_t t = job * GRAD_ROWS; t < b->m && t < (job + 1) * GRAD_ROWS; t++) {
        float *zg = b->zg + t * b->n, *zu = b->zu + t * b->n, *h = b->h + t * b->n;
        grad_add_bias(zu, r->w->up_bias, b->n);
        if (b->shape.gated) {
            grad_add_bias(zg, r->w->gate_bias, b->n);
            mt_kernels_get()->act_mul(b->shape.act, h, zg, zu, n);
        } else {
            mt_kernels_get()->act_mul(b->shape.act, h, zu, NULL, n);
        }
        grad_mask(b, t, h);
    }
    return MT_OK;
}

mt_status mt_local_forward(struct mt_ctx *ctx, struct mt_local_batch *b,
                           const struct mt_local_weights *w)
{
    int64_t d = b->shape.hidden, n = b->n;

    if (b->shape.gated)
        MT_TRY(mt_gemm_nt(ctx, b->m, n, d, 1, b->x, d, w->gate, d, 0, b->zg, n));
    MT_TRY(mt_gemm_nt(ctx, b->m, n, d, 1, b->x, d, w->up, d, 0, b->zu, n));
    MT_TRY(grad_run_rows(ctx, b, w, grad_act_job));
    return mt_gemm_nt(ctx, b->m, d, n, 1, b->h, n, w->down, n, -1, b->y, d);
}

/* zg and zu become the gradients of what they were. */
static mt_status grad_back_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct grad_rows *r = arg;
    const struct mt_local_batch *b = r->b;
    size_t n = (size_t)b->n;

    (void)ctx;
    for (int64_t t = job * GRAD_ROWS; t < b->m && t < (job + 1) * GRAD_ROWS; t++) {
        float *zg = b->zg + t * b->n, *zu = b->zu + t * b->n, *dh = b->dh + t * b->n;
        grad_mask(b, t, dh);
        if (b->shape.gated)
            mt_kernels_get()->act_grad(b->shape.act, zg, zu, zg, zu, dh, n);
        else
            mt_kernels_get()->act_grad(b->shape.act, zu, NULL, zu, NULL, dh, n);
    }
    return MT_OK;
}

/* The rows of one matrix and its bias, by the gradients z[m, n] of what they give. */
static mt_status grad_rows(struct mt_ctx *ctx, struct mt_local_batch *b,
                           const struct mt_local_weights *w, enum mt_local_part part,
                           const float *z, mt_local_grad_fn fn, void *arg)
{
    enum mt_local_part bias = part + 2;
    int64_t d = b->shape.hidden, n = b->n;

    MT_TRY(mt_gemm_tn(ctx, n, d, b->m, 1, z, n, b->x, d, 0, b->grad, d));
    MT_TRY(fn(ctx, arg, part, b->grad));
    if (mt_local_part(w, bias) == NULL)
        return MT_OK;
    memset(b->grad, 0, (size_t)n * sizeof(*b->grad));
    for (int64_t t = 0; t < b->m; t++)
        mt_kernels_get()->axpy(b->grad, 1, z + t * n, (size_t)n);
    return fn(ctx, arg, bias, b->grad);
}

mt_status mt_local_backward(struct mt_ctx *ctx, struct mt_local_batch *b,
                            const struct mt_local_weights *w, double by, mt_local_grad_fn fn,
                            void *arg)
{
    int64_t d = b->shape.hidden, n = b->n;
    float f = (float)by;

    MT_TRY(mt_gemm_nn(ctx, b->m, n, d, f, b->y, d, w->down, n, 0, b->dh, n));
    MT_TRY(mt_gemm_tn(ctx, d, n, b->m, f, b->y, d, b->h, n, 0, b->grad, n));
    MT_TRY(fn(ctx, arg, MT_LOCAL_DOWN, b->grad));
    MT_TRY(grad_run_rows(ctx, b, w, grad_back_job));
    if (b->shape.gated)
        MT_TRY(grad_rows(ctx, b, w, MT_LOCAL_GATE, b->zg, fn, arg));
    return grad_rows(ctx, b, w, MT_LOCAL_UP, b->zu, fn, arg);
}
