/* Opening and closing, memory, transfers and weights; the operations are in the other files. */
#include "kernels/cuda/common.cuh"

#include <stdlib.h>

mt_status cuda_failed(struct mt_ctx *ctx, cudaError_t e, const char *what)
{
    (void)cudaGetLastError(); /* or the next launch would be blamed for it */
    return mt_fail(ctx, e == cudaErrorMemoryAllocation ? MT_E_NOMEM : MT_E_DEVICE, "CUDA: %s: %s",
                   what, cudaGetErrorString(e));
}

mt_status cublas_failed(struct mt_ctx *ctx, cublasStatus_t s, const char *what)
{
    return mt_fail(ctx, s == CUBLAS_STATUS_ALLOC_FAILED ? MT_E_NOMEM : MT_E_DEVICE,
                   "cuBLAS: %s: %s", what, cublasGetStatusString(s));
}

static void cuda_blocks_drop_unused(struct cuda_device *cuda)
{
    for (struct cuda_block **at = &cuda->blocks; *at != NULL;) {
        struct cuda_block *b = *at;
        if (b->used) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        cudaFree(b->p);
        free(b);
    }
}

static mt_status cuda_take(struct mt_ctx *ctx, struct cuda_device *cuda, size_t bytes,
                           const char *what, void **out)
{
    struct cuda_block *b;

    *out = NULL;
    bytes = (bytes + 511) / 512 * 512 + (bytes == 0 ? 512 : 0);
    for (b = cuda->blocks; b != NULL; b = b->next) {
        if (!b->used && b->bytes == bytes) {
            b->used = true;
            *out = b->p;
            return MT_OK;
        }
    }
    b = (struct cuda_block *)calloc(1, sizeof *b);
    if (b == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a device block");
    cudaError_t e = cudaMalloc(&b->p, bytes);
    if (e == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        cuda_blocks_drop_unused(cuda);
        e = cudaMalloc(&b->p, bytes);
    }
    if (e != cudaSuccess) {
        free(b);
        (void)cudaGetLastError();
        return mt_fail(ctx, e == cudaErrorMemoryAllocation ? MT_E_NOMEM : MT_E_DEVICE,
                       "CUDA: %.1f MiB for %s: %s", (double)bytes / 1048576.0, what,
                       cudaGetErrorString(e));
    }
    b->bytes = bytes;
    b->used = true;
    b->next = cuda->blocks;
    cuda->blocks = b;
    *out = b->p;
    return MT_OK;
}

static void cuda_give(struct cuda_device *cuda, const void *p)
{
    for (struct cuda_block *b = cuda->blocks; p != NULL && b != NULL; b = b->next)
        if (b->p == p)
            b->used = false;
}

mt_status cuda_scratch(struct mt_ctx *ctx, struct cuda_device *cuda, enum cuda_scratch_use use,
                       size_t bytes, void **out)
{
    struct cuda_scratch *s = &cuda->scratch[use];

    if (s->bytes < bytes) {
        cuda_give(cuda, s->p);
        s->p = NULL;
        s->bytes = 0;
        void *p;
        MT_TRY(cuda_take(ctx, cuda, bytes, "scratch", &p));
        s->p = (char *)p;
        s->bytes = bytes;
    }
    *out = s->p;
    return MT_OK;
}

mt_status cuda_host_arrays(struct mt_ctx *ctx, struct cuda_device *cuda, int n,
                           const void *const *host, const size_t *bytes, const void **out)
{
    size_t total = 0;
    void *p;

    for (int i = 0; i < n; i++)
        total += (bytes[i] + 15) / 16 * 16;
    MT_TRY(cuda_scratch(ctx, cuda, CUDA_FOR_HOST_ARRAYS, total, &p));
    char *at = (char *)p;
    for (int i = 0; i < n; i++) {
        CUDA_TRY(ctx, "copying an index to the device",
                 cudaMemcpyAsync(at, host[i], bytes[i], cudaMemcpyHostToDevice, cuda->stream));
        out[i] = at;
        at += (bytes[i] + 15) / 16 * 16;
    }
    /* The caller may free the arrays; whether the copy has read them by now is up to the driver. */
    CUDA_TRY(ctx, "copying an index to the device", cudaStreamSynchronize(cuda->stream));
    return MT_OK;
}

static void cuda_close(struct mt_device *dev)
{
    struct cuda_device *cuda = cuda_self(dev);

    if (cuda->stream != NULL)
        cudaStreamSynchronize(cuda->stream);
    for (struct cuda_block *b = cuda->blocks; b != NULL; b = b->next)
        b->used = false;
    cuda_blocks_drop_unused(cuda);
    if (cuda->blas != NULL)
        cublasDestroy(cuda->blas);
    if (cuda->stream != NULL)
        cudaStreamDestroy(cuda->stream);
    free(cuda);
    free(dev);
}

static mt_status cuda_alloc(struct mt_ctx *ctx, struct mt_device *dev, size_t n, mt_buf *out)
{
    uint64_t bytes;

    *out = NULL;
    if (!mt_size_mul(n, sizeof(float), &bytes))
        return mt_fail(ctx, MT_E_LIMIT, "%zu activations are too many", n);
    return cuda_take(ctx, cuda_self(dev), bytes, "activations", out);
}

static void cuda_release(struct mt_device *dev, mt_buf buf)
{
    cuda_give(cuda_self(dev), buf);
}

static mt_status cuda_upload(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                             const float *src, size_t n)
{
    if (n == 0)
        return MT_OK;
    CUDA_TRY(
        ctx, "upload",
        cudaMemcpyAsync(dst, src, n * sizeof *src, cudaMemcpyHostToDevice, cuda_self(dev)->stream));
    CUDA_TRY(ctx, "upload", cudaStreamSynchronize(cuda_self(dev)->stream));
    return MT_OK;
}

static mt_status cuda_download(struct mt_ctx *ctx, struct mt_device *dev, float *dst, mt_buf src,
                               size_t n)
{
    if (n == 0)
        return MT_OK;
    CUDA_TRY(
        ctx, "download",
        cudaMemcpyAsync(dst, src, n * sizeof *dst, cudaMemcpyDeviceToHost, cuda_self(dev)->stream));
    CUDA_TRY(ctx, "download", cudaStreamSynchronize(cuda_self(dev)->stream));
    return MT_OK;
}

/* Elements that pass through scratch at a time. */
#define CUDA_F64_CHUNK ((size_t)1 << 22)

static mt_status cuda_download_f64(struct mt_ctx *ctx, struct mt_device *dev, double *dst,
                                   mt_buf src, size_t n)
{
    struct cuda_device *cuda = cuda_self(dev);
    const float *s = (const float *)src;
    void *wide;

    for (size_t i = 0; i < n; i += CUDA_F64_CHUNK) {
        size_t part = n - i < CUDA_F64_CHUNK ? n - i : CUDA_F64_CHUNK;
        MT_TRY(cuda_scratch(ctx, cuda, CUDA_FOR_WEIGHTS, part * sizeof(double), &wide));
        MT_TRY(cuda_to_f64(ctx, cuda, s + i, (double *)wide, part));
        CUDA_TRY(ctx, "download",
                 cudaMemcpyAsync(dst + i, wide, part * sizeof(double), cudaMemcpyDeviceToHost,
                                 cuda->stream));
        CUDA_TRY(ctx, "download", cudaStreamSynchronize(cuda->stream));
    }
    return MT_OK;
}

static mt_status cuda_upload_f64(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                                 const double *src, size_t n)
{
    struct cuda_device *cuda = cuda_self(dev);
    float *d = (float *)dst;
    void *wide;

    for (size_t i = 0; i < n; i += CUDA_F64_CHUNK) {
        size_t part = n - i < CUDA_F64_CHUNK ? n - i : CUDA_F64_CHUNK;
        MT_TRY(cuda_scratch(ctx, cuda, CUDA_FOR_WEIGHTS, part * sizeof(double), &wide));
        CUDA_TRY(ctx, "upload",
                 cudaMemcpyAsync(wide, src + i, part * sizeof(double), cudaMemcpyHostToDevice,
                                 cuda->stream));
        MT_TRY(cuda_to_f32(ctx, cuda, MT_F64, wide, d + i, part));
        CUDA_TRY(ctx, "upload", cudaStreamSynchronize(cuda->stream));
    }
    return MT_OK;
}

static mt_status cuda_copy(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, mt_buf src,
                           size_t n)
{
    if (n > 0)
        CUDA_TRY(ctx, "copy",
                 cudaMemcpyAsync(dst, src, n * sizeof(float), cudaMemcpyDeviceToDevice,
                                 cuda_self(dev)->stream));
    return MT_OK;
}

static mt_status cuda_zero(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, size_t n)
{
    if (n > 0)
        CUDA_TRY(ctx, "zero", cudaMemsetAsync(dst, 0, n * sizeof(float), cuda_self(dev)->stream));
    return MT_OK;
}

static void cuda_weight_free(struct mt_device *dev, struct mt_weight *w)
{
    if (w == NULL)
        return;
    cuda_give(cuda_self(dev), w->stored);
    if (w->f32 != w->stored)
        cuda_give(cuda_self(dev), w->f32);
    free(w);
}

static mt_status cuda_weight_upload(struct mt_ctx *ctx, struct cuda_device *cuda,
                                    struct mt_weight *w, const void *bytes)
{
    size_t n = (size_t)w->rows * (size_t)w->cols, size = n * (mt_dtype_bits(w->t) / 8);
    void *p;

    MT_TRY(cuda_take(ctx, cuda, size, "a weight", &w->stored));
    if (size > 0)
        CUDA_TRY(ctx, "uploading a weight",
                 cudaMemcpyAsync(w->stored, bytes, size, cudaMemcpyHostToDevice, cuda->stream));
    CUDA_TRY(ctx, "uploading a weight", cudaStreamSynchronize(cuda->stream));
    if (w->t == MT_F32) {
        w->f32 = (float *)w->stored;
    } else if (w->rows == 1) {
        MT_TRY(cuda_take(ctx, cuda, n * sizeof(float), "a vector", &p));
        w->f32 = (float *)p;
        MT_TRY(cuda_to_f32(ctx, cuda, w->t, w->stored, w->f32, n));
    }
    return MT_OK;
}

static mt_status cuda_weight_load(struct mt_ctx *ctx, struct mt_device *dev, enum mt_dtype t,
                                  int64_t rows, int64_t cols, const void *bytes,
                                  struct mt_weight **out)
{
    struct mt_weight *w;

    *out = NULL;
    if (!mt_dtype_is_plain_float(t))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "the device computes with F64, F32, F16 and BF16, not %s; dequantize first",
                       mt_dtype_name(t));
    w = (struct mt_weight *)calloc(1, sizeof *w);
    if (w == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a weight");
    w->t = t;
    w->rows = rows;
    w->cols = cols;
    mt_status st = cuda_weight_upload(ctx, cuda_self(dev), w, bytes);
    if (st != MT_OK) {
        cuda_weight_free(dev, w);
        return st;
    }
    *out = w;
    return MT_OK;
}

/* In the order of struct mt_device_ops: C++17 has no designated initializers. */
static const struct mt_device_ops cuda_ops = {
    cuda_close,        cuda_alloc,      cuda_release,      cuda_upload,      cuda_download,
    cuda_download_f64, cuda_upload_f64, cuda_copy,         cuda_zero,        cuda_weight_load,
    cuda_weight_free,  cuda_gemm,       cuda_gemm_grouped, cuda_add,         cuda_scale,
    cuda_clamp,        cuda_add_bias,   cuda_scale_rows,   cuda_scale_cols, cuda_rmsnorm,     cuda_layernorm,
    cuda_rope,         cuda_attention,  cuda_act_mul,      cuda_gather_rows, cuda_combine_rows,
};

static mt_status cuda_setup(struct mt_ctx *ctx, struct cuda_device *cuda)
{
    CUDA_TRY(ctx, "making a stream",
             cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking));
    CUBLAS_TRY(ctx, "starting", cublasCreate(&cuda->blas));
    CUBLAS_TRY(ctx, "setting the stream", cublasSetStream(cuda->blas, cuda->stream));
    /* fp32 is fp32: no TF32, no emulation from narrower types. */
    CUBLAS_TRY(ctx, "setting fp32 arithmetic", cublasSetMathMode(cuda->blas, CUBLAS_PEDANTIC_MATH));
    CUBLAS_TRY(ctx, "forbidding atomics",
               cublasSetAtomicsMode(cuda->blas, CUBLAS_ATOMICS_NOT_ALLOWED));
    return MT_OK;
}

mt_status mt_device_cuda_open(struct mt_ctx *ctx, struct mt_device **out)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);

    *out = NULL;
    if (e != cudaSuccess || n == 0) {
        (void)cudaGetLastError();
        return mt_fail(ctx, MT_E_DEVICE, "no CUDA device: %s; use --device cpu",
                       e != cudaSuccess ? cudaGetErrorString(e) : "none is visible");
    }
    struct mt_device *dev = (struct mt_device *)calloc(1, sizeof *dev);
    struct cuda_device *cuda = (struct cuda_device *)calloc(1, sizeof *cuda);
    if (dev == NULL || cuda == NULL) {
        free(dev);
        free(cuda);
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a device");
    }
    *dev = (struct mt_device){&cuda_ops, "cuda", sizeof(float), cuda};
    mt_status st = cuda_setup(ctx, cuda);
    if (st != MT_OK) {
        cuda_close(dev);
        return st;
    }
    *out = dev;
    return MT_OK;
}
