/* common.cuh: what the CUDA sources share: error handling, scratch, the device's own state.
 *
 * All work goes to one stream, so operations run in order and a download waits for what came
 * before. Element type is float. Reductions have a fixed shape and there are no atomics: two runs
 * give the same bits. Memory is plain cudaMalloc.
 */
#ifndef MT_KERNELS_CUDA_COMMON_CUH
#define MT_KERNELS_CUDA_COMMON_CUH

#include "kernels/device.h"

#include <cublas_v2.h>
#include <cuda_runtime.h>

struct mt_weight {
    enum mt_dtype dtype;
    int64_t rows, cols;
    void *bytes; /* device memory, the file's dtype */
};

/* Device memory that grows and is reused between calls. */
struct cuda_scratch {
    void *bytes;
    size_t n_bytes;
};

struct cuda_state {
    cudaStream_t stream;
    cublasHandle_t blas;
    struct cuda_scratch converted;        /* a tile of a weight as float */
    struct cuda_scratch indices, factors; /* host lists of one call */
    struct cuda_scratch vectors[2];       /* norm weights and biases as float */
};

mt_status cuda_check(struct mt_ctx *ctx, cudaError_t e, const char *what);
mt_status cuda_check_blas(struct mt_ctx *ctx, cublasStatus_t e, const char *what);
mt_status cuda_reserve(struct mt_ctx *ctx, struct cuda_scratch *s, size_t n_bytes,
                       const char *what);
/* Copies a host list into scratch on the device's stream. */
mt_status cuda_send(struct mt_ctx *ctx, struct cuda_state *st, struct cuda_scratch *s,
                    const void *host, size_t n_bytes, const char *what);

/* dst[i] = (float)src[i] for n stored elements. */
mt_status cuda_to_f32(struct mt_ctx *ctx, struct cuda_state *st, enum mt_dtype t, const void *src,
                      float *dst, size_t n);
/* A weight vector as floats: the weight itself when it is F32, else converted into `slot`. */
mt_status cuda_vector(struct mt_ctx *ctx, struct cuda_state *st, const struct mt_weight *w,
                      int slot, const float **out);

static inline struct cuda_state *cuda_of(struct mt_device *dev)
{
    return (struct cuda_state *)dev->self;
}

/* Blocks of a grid-stride loop over n elements. */
static inline unsigned cuda_blocks(size_t n, unsigned per_block)
{
    size_t b = (n + per_block - 1) / per_block;

    return (unsigned)(b < 1 ? 1 : b > 65536 ? 65536 : b);
}

/* Operations by file; device_cuda.cu puts them into the table. */
mt_status cuda_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n);
mt_status cuda_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n);
mt_status cuda_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                        const struct mt_weight *b);
mt_status cuda_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                       mt_buf u, size_t n);
mt_status cuda_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m, int64_t n,
                          const double *s);
mt_status cuda_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t n,
                           int64_t d, const int32_t *idx);
mt_status cuda_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                            int64_t m, int k, int64_t d, const int32_t *row, const double *w);
mt_status cuda_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                       const struct mt_weight *w, double offset, double eps);
mt_status cuda_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, const struct mt_weight *b, double eps);
mt_status cuda_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                    int head_dim, const int32_t *pos, const struct mt_rope *r);
mt_status cuda_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q, mt_buf k,
                         mt_buf v, const struct mt_attn *a);

#endif
