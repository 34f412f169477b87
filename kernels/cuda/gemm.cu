/* Products with stored weights.
 *
 * A few tokens: one warp per row of w reads it as stored; memory speed is all that counts. More:
 * rows of w become floats in scratch, a bounded number at a time, and cuBLAS multiplies in fp32.
 * Tolerance against the reference device: relative L2 max(1e-6, 3e-8 sqrt(k)).
 */
#include "kernels/cuda/common.cuh"

#include "kernels/cuda/stored.cuh"

#include <limits.h>

#define GEMM_FEW 4
#define GEMM_SCRATCH_FLOATS ((int64_t)64 << 20)

/* y[m, n] (+)= x[m, k] w[n, k]^T for m <= GEMM_FEW. Warp j of the grid makes column j of y. */
template <typename T>
static __global__ void gemm_few(float *y, const float *x, const T *w, int m, int64_t n, int64_t k,
                                bool accumulate)
{
    int64_t j = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / 32;
    int lane = threadIdx.x % 32;
    float sum[GEMM_FEW] = {0.0f, 0.0f, 0.0f, 0.0f};

    if (j >= n) /* whole warps leave together */
        return;
#pragma unroll 4
    for (int64_t i = lane; i < k; i += 32) {
        float v = cuda_float(w[j * k + i]);
#pragma unroll
        for (int t = 0; t < GEMM_FEW; t++)
            if (t < m)
                sum[t] += v * x[t * k + i];
    }
#pragma unroll
    for (int t = 0; t < GEMM_FEW; t++) {
        float s = sum[t];
        for (int d = 16; d > 0; d /= 2)
            s += __shfl_xor_sync(0xffffffffu, s, d);
        if (lane == 0 && t < m)
            y[t * n + j] = accumulate ? y[t * n + j] + s : s;
    }
}

static mt_status gemm_run_few(struct mt_ctx *ctx, struct cuda_device *cuda, float *y,
                              const float *x, int m, const struct mt_weight *w, bool accumulate)
{
    int64_t n = w->rows, k = w->cols, warps = CUDA_THREADS / 32;
    unsigned blocks = (unsigned)((n + warps - 1) / warps);

    switch (w->t) {
    case MT_F64:
        gemm_few<<<blocks, CUDA_THREADS, 0, cuda->stream>>>(y, x, (const double *)w->stored, m, n,
                                                            k, accumulate);
        break;
    case MT_F32:
        gemm_few<<<blocks, CUDA_THREADS, 0, cuda->stream>>>(y, x, (const float *)w->stored, m, n, k,
                                                            accumulate);
        break;
    case MT_F16:
        gemm_few<<<blocks, CUDA_THREADS, 0, cuda->stream>>>(y, x, (const __half *)w->stored, m, n,
                                                            k, accumulate);
        break;
    default:
        gemm_few<<<blocks, CUDA_THREADS, 0, cuda->stream>>>(y, x, (const __nv_bfloat16 *)w->stored,
                                                            m, n, k, accumulate);
        break;
    }
    CUDA_LAUNCHED(ctx, "multiplying a few rows");
    return MT_OK;
}

/* Row-major y = x w^T is column-major y^T = w x^T, and a row-major matrix is a transposed
 * column-major one: hence (T, N). */
static mt_status gemm_run_blas(struct mt_ctx *ctx, struct cuda_device *cuda, float *y,
                               const float *x, int64_t m, const float *w, int64_t rows, int64_t k,
                               int64_t ldy, bool accumulate)
{
    const float one = 1.0f, beta = accumulate ? 1.0f : 0.0f;

    CUBLAS_TRY(ctx, "multiplying by a weight",
               cublasSgemm(cuda->blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)rows, (int)m, (int)k, &one, w,
                           (int)k, x, (int)k, &beta, y, (int)ldy));
    return MT_OK;
}

static mt_status gemm_one(struct mt_ctx *ctx, struct cuda_device *cuda, float *y, const float *x,
                          int64_t m, const struct mt_weight *w, bool accumulate)
{
    int64_t n = w->rows, k = w->cols;
    size_t width = mt_dtype_bits(w->t) / 8;
    void *scratch;

    if (m == 0 || n == 0 || k == 0)
        return MT_OK;
    mt_assert(m <= INT_MAX && n <= INT_MAX && k <= INT_MAX);
    if (m <= GEMM_FEW)
        return gemm_run_few(ctx, cuda, y, x, (int)m, w, accumulate);
    if (w->f32 != NULL)
        return gemm_run_blas(ctx, cuda, y, x, m, w->f32, n, k, n, accumulate);
    int64_t rows = cuda_min(n, GEMM_SCRATCH_FLOATS / k);
    rows = rows < 1 ? 1 : rows;
    MT_TRY(cuda_scratch(ctx, cuda, CUDA_FOR_WEIGHTS, (size_t)rows * (size_t)k * sizeof(float),
                        &scratch));
    for (int64_t j = 0; j < n; j += rows) {
        int64_t part = cuda_min(rows, n - j);
        const char *stored = (const char *)w->stored + (size_t)j * (size_t)k * width;
        MT_TRY(cuda_to_f32(ctx, cuda, w->t, stored, (float *)scratch, (size_t)part * (size_t)k));
        MT_TRY(
            gemm_run_blas(ctx, cuda, y + j, x, m, (const float *)scratch, part, k, n, accumulate));
    }
    return MT_OK;
}

mt_status cuda_gemm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                    const struct mt_weight *w, bool accumulate)
{
    return gemm_one(ctx, cuda_self(dev), (float *)y, (const float *)x, m, w, accumulate);
}

mt_status cuda_gemm_grouped(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                            int n_groups, const int64_t *offset, const struct mt_weight *const *w)
{
    for (int e = 0; e < n_groups; e++) {
        int64_t m = offset[e + 1] - offset[e];
        if (m == 0)
            continue;
        MT_TRY(gemm_one(ctx, cuda_self(dev), (float *)y + offset[e] * w[e]->rows,
                        (const float *)x + offset[e] * w[e]->cols, m, w[e], false));
    }
    return MT_OK;
}
