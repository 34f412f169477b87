/* rows.cu: elementwise work and whole rows: conversion, activation, gather, combine. */
#include "kernels/cuda/common.cuh"
#include "kernels/kernels.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define ROWS_THREADS 256u

template <typename T> __device__ float rows_value(T v)
{
    return (float)v;
}
template <> __device__ float rows_value(__nv_bfloat16 v)
{
    return __bfloat162float(v);
}
template <> __device__ float rows_value(__half v)
{
    return __half2float(v);
}

/* dst[n] = src[n] as float */
template <typename T> __global__ void rows_convert(const T *src, float *dst, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        dst[i] = rows_value(src[i]);
}

mt_status cuda_to_f32(struct mt_ctx *ctx, struct cuda_state *st, enum mt_dtype t, const void *src,
                      float *dst, size_t n)
{
    unsigned blocks = cuda_blocks(n, ROWS_THREADS);

    if (n == 0)
        return MT_OK;
    switch (t) {
    case MT_F64:
        rows_convert<<<blocks, ROWS_THREADS, 0, st->stream>>>((const double *)src, dst, n);
        break;
    case MT_F32:
        rows_convert<<<blocks, ROWS_THREADS, 0, st->stream>>>((const float *)src, dst, n);
        break;
    case MT_F16:
        rows_convert<<<blocks, ROWS_THREADS, 0, st->stream>>>((const __half *)src, dst, n);
        break;
    case MT_BF16:
        rows_convert<<<blocks, ROWS_THREADS, 0, st->stream>>>((const __nv_bfloat16 *)src, dst, n);
        break;
    default:
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s weights are not supported on cuda",
                       mt_dtype_name(t));
    }
    return cuda_check(ctx, cudaGetLastError(), "conversion of a weight");
}

/* y[n] += x[n] */
__global__ void rows_add(float *y, const float *x, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[i] += x[i];
}

mt_status cuda_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_add<<<cuda_blocks(n, ROWS_THREADS), ROWS_THREADS, 0, cuda_of(dev)->stream>>>(
        (float *)y, (const float *)x, n);
    return cuda_check(ctx, cudaGetLastError(), "add");
}

/* y[n] *= s */
__global__ void rows_scale(float *y, float s, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        y[i] *= s;
}

mt_status cuda_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_scale<<<cuda_blocks(n, ROWS_THREADS), ROWS_THREADS, 0, cuda_of(dev)->stream>>>(
        (float *)y, (float)s, n);
    return cuda_check(ctx, cudaGetLastError(), "scale");
}

/* y[m, n] += b[n] */
__global__ void rows_add_bias(float *y, const float *b, size_t total, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += step)
        y[i] += b[i % n];
}

mt_status cuda_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                        const struct mt_weight *b)
{
    struct cuda_state *st = cuda_of(dev);
    size_t n = (size_t)(b->rows * b->cols), total = (size_t)m * n;
    const float *bias;

    if (total == 0)
        return MT_OK;
    MT_TRY(cuda_vector(ctx, st, b, 0, &bias));
    rows_add_bias<<<cuda_blocks(total, ROWS_THREADS), ROWS_THREADS, 0, st->stream>>>(
        (float *)y, bias, total, n);
    return cuda_check(ctx, cudaGetLastError(), "bias");
}

/* One activation; the same formulas as the fp64 reference. */
__device__ float rows_act(int act, float x)
{
    switch (act) {
    case MT_ACT_SILU:
        return x / (1.0f + expf(-x));
    case MT_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case MT_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case MT_ACT_RELU:
        return fmaxf(x, 0.0f);
    default:
        return x > 0.0f ? x * x : 0.0f;
    }
}

/* h[n] = act(g[n]) * u[n]; u may be NULL, h may be g */
__global__ void rows_act_mul(int act, float *h, const float *g, const float *u, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
        h[i] = rows_act(act, g[i]) * (u != NULL ? u[i] : 1.0f);
}

mt_status cuda_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                       mt_buf u, size_t n)
{
    if (n == 0)
        return MT_OK;
    rows_act_mul<<<cuda_blocks(n, ROWS_THREADS), ROWS_THREADS, 0, cuda_of(dev)->stream>>>(
        act, (float *)h, (const float *)g, (const float *)u, n);
    return cuda_check(ctx, cudaGetLastError(), "activation");
}

/* y[m, n] *= s[m] */
__global__ void rows_scale_each(float *y, const double *s, size_t total, size_t n)
{
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < total; i += step)
        y[i] *= (float)s[i / n];
}

mt_status cuda_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m, int64_t n,
                          const double *s)
{
    struct cuda_state *st = cuda_of(dev);
    size_t total = (size_t)m * (size_t)n;

    if (total == 0)
        return MT_OK;
    MT_TRY(cuda_send(ctx, st, &st->factors, s, (size_t)m * sizeof *s, "row factors"));
    rows_scale_each<<<cuda_blocks(total, ROWS_THREADS), ROWS_THREADS, 0, st->stream>>>(
        (float *)y, (const double *)st->factors.bytes, total, (size_t)n);
    return cuda_check(ctx, cudaGetLastError(), "row scaling");
}

/* y[n, d] = x[idx[n], d]; one block per row */
__global__ void rows_gather(float *y, const float *x, const int32_t *idx, int64_t d)
{
    const float *from = x + (int64_t)idx[blockIdx.x] * d;
    float *to = y + (int64_t)blockIdx.x * d;

    for (int64_t i = threadIdx.x; i < d; i += blockDim.x)
        to[i] = from[i];
}

mt_status cuda_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t n,
                           int64_t d, const int32_t *idx)
{
    struct cuda_state *st = cuda_of(dev);

    if (n == 0 || d == 0)
        return MT_OK;
    MT_TRY(cuda_send(ctx, st, &st->indices, idx, (size_t)n * sizeof *idx, "row indices"));
    rows_gather<<<(unsigned)n, ROWS_THREADS, 0, st->stream>>>(
        (float *)y, (const float *)x, (const int32_t *)st->indices.bytes, d);
    return cuda_check(ctx, cudaGetLastError(), "gather");
}

/* y[m, d] += sum over slots in order of w[m, k] * x[row[m, k], d]; one block per token, so the
 * order of additions is fixed. */
__global__ void rows_combine(float *y, const float *x, const int32_t *row, const double *w, int k,
                             int64_t d)
{
    int64_t t = blockIdx.x;

    for (int64_t i = threadIdx.x; i < d; i += blockDim.x) {
        float sum = y[t * d + i];
        for (int s = 0; s < k; s++) {
            int32_t r = row[t * k + s];
            if (r >= 0)
                sum += (float)w[t * k + s] * x[(int64_t)r * d + i];
        }
        y[t * d + i] = sum;
    }
}

mt_status cuda_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                            int64_t m, int k, int64_t d, const int32_t *row, const double *w)
{
    struct cuda_state *st = cuda_of(dev);
    size_t n = (size_t)m * (size_t)k;

    if (n == 0 || d == 0)
        return MT_OK;
    MT_TRY(cuda_send(ctx, st, &st->indices, row, n * sizeof *row, "row indices"));
    MT_TRY(cuda_send(ctx, st, &st->factors, w, n * sizeof *w, "routing weights"));
    rows_combine<<<(unsigned)m, ROWS_THREADS, 0, st->stream>>>(
        (float *)y, (const float *)x, (const int32_t *)st->indices.bytes,
        (const double *)st->factors.bytes, k, d);
    return cuda_check(ctx, cudaGetLastError(), "combine");
}
