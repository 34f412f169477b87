/* common.cuh: the inside of the CUDA device, for the files of kernels/cuda.
 *
 * Everything runs on one stream in the order of the calls, so a block that was released may be
 * handed out again at once. Arithmetic is fp32 without TF32; sums of norms and softmax are fp64.
 * Nothing uses atomics: two runs give the same bits. Host arrays are copied before an operation
 * returns. Kernel faults surface at the next call that reports errors, at the latest at a download.
 */
#ifndef MT_KERNELS_CUDA_COMMON_CUH
#define MT_KERNELS_CUDA_COMMON_CUH

#include "kernels/device.h"
#include "kernels/kernels.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

/* Device memory is kept when released and handed out again by size: layers look alike. */
struct cuda_block {
    void *p;
    size_t bytes;
    bool used;
    struct cuda_block *next;
};

/* One growing block per purpose. */
enum cuda_scratch_use { CUDA_FOR_WEIGHTS, CUDA_FOR_HOST_ARRAYS, CUDA_FOR_SCORES, CUDA_SCRATCHES };

struct cuda_scratch {
    char *p;
    size_t bytes;
};

struct cuda_device {
    cudaStream_t stream;
    cublasHandle_t blas;
    struct cuda_block *blocks;
    struct cuda_scratch scratch[CUDA_SCRATCHES];
};

struct mt_weight {
    enum mt_dtype t;
    int64_t rows, cols;
    void *stored; /* device copy as in the file */
    float *f32;   /* the same as floats where at hand: F32 matrices, every vector; else NULL */
};

static inline struct cuda_device *cuda_self(const struct mt_device *dev)
{
    return (struct cuda_device *)dev->self;
}

static inline int64_t cuda_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

mt_status cuda_failed(struct mt_ctx *ctx, cudaError_t e, const char *what);
mt_status cublas_failed(struct mt_ctx *ctx, cublasStatus_t s, const char *what);

#define CUDA_TRY(ctx, what, expr)                                                                  \
    do {                                                                                           \
        cudaError_t cuda_try_e_ = (expr);                                                          \
        if (cuda_try_e_ != cudaSuccess)                                                            \
            return cuda_failed(ctx, cuda_try_e_, what);                                            \
    } while (0)
#define CUBLAS_TRY(ctx, what, expr)                                                                \
    do {                                                                                           \
        cublasStatus_t cublas_try_s_ = (expr);                                                     \
        if (cublas_try_s_ != CUBLAS_STATUS_SUCCESS)                                                \
            return cublas_failed(ctx, cublas_try_s_, what);                                        \
    } while (0)
/* After a launch: was it accepted? */
#define CUDA_LAUNCHED(ctx, what) CUDA_TRY(ctx, what, cudaGetLastError())

/* At least `bytes` of one scratch block; what it held before is lost when it grows. */
mt_status cuda_scratch(struct mt_ctx *ctx, struct cuda_device *cuda, enum cuda_scratch_use use,
                       size_t bytes, void **out);
/* Copies host arrays one behind the other into CUDA_FOR_HOST_ARRAYS; out[i] are their places. */
mt_status cuda_host_arrays(struct mt_ctx *ctx, struct cuda_device *cuda, int n,
                           const void *const *host, const size_t *bytes, const void **out);

/* Floats from stored numbers, and elements to and from doubles (all on the device). */
mt_status cuda_to_f32(struct mt_ctx *ctx, struct cuda_device *cuda, enum mt_dtype t,
                      const void *src, float *dst, size_t n);
mt_status cuda_to_f64(struct mt_ctx *ctx, struct cuda_device *cuda, const float *src, double *dst,
                      size_t n);

/* The operations of device.h by the same names, each in the file of its topic. */
mt_status cuda_gemm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                    const struct mt_weight *w, bool accumulate);
mt_status cuda_gemm_grouped(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                            int n_groups, const int64_t *offset, const struct mt_weight *const *w);
mt_status cuda_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n);
mt_status cuda_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n);
mt_status cuda_clamp(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double lo, double hi,
                     size_t n);
mt_status cuda_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                        const struct mt_weight *b);
mt_status cuda_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m, int64_t n,
                          const double *s);
mt_status cuda_scale_cols(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                          const struct mt_weight *w);
mt_status cuda_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                       const struct mt_weight *w, double offset, double eps);
mt_status cuda_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, const struct mt_weight *b, double eps);
mt_status cuda_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                    int head_dim, const int32_t *pos, const struct mt_rope *r);
mt_status cuda_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q, mt_buf k,
                         mt_buf v, const struct mt_attn *a);
mt_status cuda_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                       mt_buf u, size_t n);
mt_status cuda_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t n,
                           int64_t d, const int32_t *idx);
mt_status cuda_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                            int64_t m, int k, int64_t d, const int32_t *row, const double *w);

/* Launch shapes. Grids stride: any n is covered whatever the grid. */
#define CUDA_THREADS 256
#define CUDA_BLOCKS_MAX ((size_t)1 << 16)

static inline unsigned cuda_blocks(size_t n)
{
    size_t b = (n + CUDA_THREADS - 1) / CUDA_THREADS;

    return (unsigned)(b < CUDA_BLOCKS_MAX ? b : CUDA_BLOCKS_MAX);
}

/* One block per row. */
static inline unsigned cuda_row_blocks(int64_t rows)
{
    return (unsigned)cuda_min(rows, (int64_t)CUDA_BLOCKS_MAX);
}

/* for (i = own; i < n; i += all) in a kernel over elements */
#define CUDA_EACH(i, n)                                                                            \
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < (size_t)(n);                \
         i += (size_t)gridDim.x * blockDim.x)

#ifdef __CUDACC__
/* Sum over a block of CUDA_THREADS threads in a fixed tree; every thread gets it. */
static __device__ inline double cuda_block_sum(double v)
{
    __shared__ double part[CUDA_THREADS / 32];

    for (int d = 16; d > 0; d /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, d);
    __syncthreads(); /* the last call's readers are done with part */
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < CUDA_THREADS / 32; i++)
        v += part[i];
    return v;
}

static __device__ inline float cuda_block_max(float v)
{
    __shared__ float part[CUDA_THREADS / 32];

    for (int d = 16; d > 0; d /= 2)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, d));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[0];
    for (int i = 1; i < CUDA_THREADS / 32; i++)
        v = fmaxf(v, part[i]);
    return v;
}
#endif

#endif
