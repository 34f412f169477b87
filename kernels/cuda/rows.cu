/* Operations on elements and rows, among them what a mixture of experts needs: gathering tokens
 * by expert and adding weighted results back, slot by slot in order. Each agrees with the
 * reference device within 1e-6 (relative L2). */
#include "kernels/cuda/common.cuh"

static __global__ void rows_add(float *y, const float *x, size_t n)
{
    CUDA_EACH(i, n) y[i] += x[i];
}

mt_status cuda_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_add<<<cuda_blocks(n), CUDA_THREADS, 0, cuda_self(dev)->stream>>>((float *)y,
                                                                          (const float *)x, n);
    CUDA_LAUNCHED(ctx, "add");
    return MT_OK;
}

static __global__ void rows_scale(float *y, float s, size_t n)
{
    CUDA_EACH(i, n) y[i] *= s;
}

mt_status cuda_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_scale<<<cuda_blocks(n), CUDA_THREADS, 0, cuda_self(dev)->stream>>>((float *)y, (float)s,
                                                                            n);
    CUDA_LAUNCHED(ctx, "scale");
    return MT_OK;
}

static __global__ void rows_clamp(float *y, float lo, float hi, size_t n)
{
    CUDA_EACH(i, n) y[i] = y[i] < lo ? lo : y[i] > hi ? hi : y[i];
}

mt_status cuda_clamp(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double lo, double hi,
                     size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_clamp<<<cuda_blocks(n), CUDA_THREADS, 0, cuda_self(dev)->stream>>>((float *)y, (float)lo,
                                                                            (float)hi, n);
    CUDA_LAUNCHED(ctx, "clamp");
    return MT_OK;
}

static __global__ void rows_add_bias(float *y, const float *b, size_t d, size_t n)
{
    CUDA_EACH(i, n) y[i] += b[i % d];
}

mt_status cuda_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                        const struct mt_weight *b)
{
    size_t d = (size_t)b->cols, n = (size_t)m * d;

    mt_assert(b->rows == 1);
    if (n == 0)
        return MT_OK;
    rows_add_bias<<<cuda_blocks(n), CUDA_THREADS, 0, cuda_self(dev)->stream>>>((float *)y, b->f32,
                                                                               d, n);
    CUDA_LAUNCHED(ctx, "bias");
    return MT_OK;
}

static __global__ void rows_scale_rows(float *y, const double *s, size_t d, size_t n)
{
    CUDA_EACH(i, n) y[i] *= (float)s[i / d];
}

mt_status cuda_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m, int64_t n,
                          const double *s)
{
    struct cuda_device *cuda = cuda_self(dev);
    size_t all = (size_t)m * (size_t)n, bytes = (size_t)m * sizeof *s;
    const void *host = s, *on_device;

    if (all == 0)
        return MT_OK;
    MT_TRY(cuda_host_arrays(ctx, cuda, 1, &host, &bytes, &on_device));
    rows_scale_rows<<<cuda_blocks(all), CUDA_THREADS, 0, cuda->stream>>>(
        (float *)y, (const double *)on_device, (size_t)n, all);
    CUDA_LAUNCHED(ctx, "scaling rows");
    return MT_OK;
}

static __global__ void rows_scale_cols(float *y, const float *w, size_t d, size_t n)
{
    CUDA_EACH(i, n) y[i] *= w[i % d];
}

mt_status cuda_scale_cols(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                          const struct mt_weight *w)
{
    size_t d = (size_t)w->cols, n = (size_t)m * d;

    mt_assert(w->rows == 1);
    if (n == 0)
        return MT_OK;
    rows_scale_cols<<<cuda_blocks(n), CUDA_THREADS, 0, cuda_self(dev)->stream>>>((float *)y, w->f32,
                                                                                 d, n);
    CUDA_LAUNCHED(ctx, "scaling columns");
    return MT_OK;
}

static __device__ float rows_act(int act, float x)
{
    switch (act) {
    case MT_ACT_SILU:
        return x / (1.0f + expf(-x));
    case MT_ACT_GELU:
        return 0.5f * x * erfcf(-x * 0.707106781f);
    case MT_ACT_GELU_TANH: /* 0.5 (1 + tanh z) is the logistic function of 2z */
        return x / (1.0f + expf(-1.59576912f * (x + 0.044715f * x * x * x)));
    case MT_ACT_RELU:
        return x < 0.0f ? 0.0f : x;
    case MT_ACT_QUICK_GELU:
        return x / (1.0f + expf(-1.702f * x));
    default:
        return x < 0.0f ? 0.0f : x * x;
    }
}

static __global__ void rows_act_mul(int act, float *h, const float *g, const float *u, size_t n)
{
    CUDA_EACH(i, n) h[i] = rows_act(act, g[i]) * (u != NULL ? u[i] : 1.0f);
}

mt_status cuda_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                       mt_buf u, size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_act_mul<<<cuda_blocks(n), CUDA_THREADS, 0, cuda_self(dev)->stream>>>(
        act, (float *)h, (const float *)g, (const float *)u, n);
    CUDA_LAUNCHED(ctx, "activation");
    return MT_OK;
}

static __global__ void rows_gather(float *y, const float *x, const int32_t *idx, size_t d, size_t n)
{
    CUDA_EACH(i, n) y[i] = x[(size_t)idx[i / d] * d + i % d];
}

mt_status cuda_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t n,
                           int64_t d, const int32_t *idx)
{
    struct cuda_device *cuda = cuda_self(dev);
    size_t all = (size_t)n * (size_t)d, bytes = (size_t)n * sizeof *idx;
    const void *host = idx, *on_device;

    if (all == 0)
        return MT_OK;
    MT_TRY(cuda_host_arrays(ctx, cuda, 1, &host, &bytes, &on_device));
    rows_gather<<<cuda_blocks(all), CUDA_THREADS, 0, cuda->stream>>>(
        (float *)y, (const float *)x, (const int32_t *)on_device, (size_t)d, all);
    CUDA_LAUNCHED(ctx, "gathering rows");
    return MT_OK;
}

/* One thread per element of y; its slots are added in order. */
static __global__ void rows_combine(float *y, const float *x, const int32_t *row, const double *w,
                                    int k, size_t d, size_t n)
{
    CUDA_EACH(i, n)
    {
        size_t t = i / d, e = i % d;
        float sum = y[i];
        for (int s = 0; s < k; s++) {
            int32_t r = row[t * k + s];
            if (r >= 0)
                sum += (float)w[t * k + s] * x[(size_t)r * d + e];
        }
        y[i] = sum;
    }
}

mt_status cuda_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                            int64_t m, int k, int64_t d, const int32_t *row, const double *w)
{
    struct cuda_device *cuda = cuda_self(dev);
    size_t slots = (size_t)m * (size_t)k, all = (size_t)m * (size_t)d;
    const void *host[2] = {row, w}, *on_device[2];
    size_t bytes[2] = {slots * sizeof *row, slots * sizeof *w};

    if (all == 0 || k == 0)
        return MT_OK;
    MT_TRY(cuda_host_arrays(ctx, cuda, 2, host, bytes, on_device));
    rows_combine<<<cuda_blocks(all), CUDA_THREADS, 0, cuda->stream>>>(
        (float *)y, (const float *)x, (const int32_t *)on_device[0], (const double *)on_device[1],
        k, (size_t)d, all);
    CUDA_LAUNCHED(ctx, "combining rows");
    return MT_OK;
}
