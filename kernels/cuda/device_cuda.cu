/* device_cuda.cu: the runner's operations on an NVIDIA GPU. fp32 throughout; products by cuBLAS in
 * plain fp32 (no TF32), weights kept in their file's dtype and converted a tile at a time. */
#include "kernels/cuda/common.cuh"

#include <new>
#include <vector>

/* Floats of a converted weight tile: 64 MiB. */
#define CUDA_TILE_FLOATS ((size_t)16 << 20)

mt_status cuda_check(struct mt_ctx *ctx, cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return MT_OK;
    return mt_fail(ctx, e == cudaErrorMemoryAllocation ? MT_E_NOMEM : MT_E_DEVICE, "cuda: %s: %s",
                   what, cudaGetErrorString(e));
}

mt_status cuda_check_blas(struct mt_ctx *ctx, cublasStatus_t e, const char *what)
{
    if (e == CUBLAS_STATUS_SUCCESS)
        return MT_OK;
    return mt_fail(ctx, MT_E_DEVICE, "cuda: %s: %s", what, cublasGetStatusString(e));
}

mt_status cuda_reserve(struct mt_ctx *ctx, struct cuda_scratch *s, size_t n_bytes, const char *what)
{
    if (n_bytes <= s->n_bytes)
        return MT_OK;
    /* cudaFree waits for work in flight, so nothing still reads the old block. */
    cudaFree(s->bytes);
    *s = {NULL, 0};
    MT_TRY(cuda_check(ctx, cudaMalloc(&s->bytes, n_bytes), what));
    s->n_bytes = n_bytes;
    return MT_OK;
}

mt_status cuda_send(struct mt_ctx *ctx, struct cuda_state *st, struct cuda_scratch *s,
                    const void *host, size_t n_bytes, const char *what)
{
    MT_TRY(cuda_reserve(ctx, s, n_bytes, what));
    /* From pageable memory the copy has read the host bytes before it returns. */
    return cuda_check(ctx,
                      cudaMemcpyAsync(s->bytes, host, n_bytes, cudaMemcpyHostToDevice, st->stream),
                      what);
}

mt_status cuda_vector(struct mt_ctx *ctx, struct cuda_state *st, const struct mt_weight *w,
                      int slot, const float **out)
{
    size_t n = (size_t)(w->rows * w->cols);

    if (w->dtype == MT_F32) {
        *out = (const float *)w->bytes;
        return MT_OK;
    }
    MT_TRY(cuda_reserve(ctx, &st->vectors[slot], n * sizeof(float), "a vector"));
    *out = (const float *)st->vectors[slot].bytes;
    return cuda_to_f32(ctx, st, w->dtype, w->bytes, (float *)st->vectors[slot].bytes, n);
}

static void cuda_close(struct mt_device *dev)
{
    struct cuda_state *st = cuda_of(dev);

    if (st->stream != NULL)
        cudaStreamSynchronize(st->stream);
    cudaFree(st->converted.bytes);
    cudaFree(st->indices.bytes);
    cudaFree(st->factors.bytes);
    cudaFree(st->vectors[0].bytes);
    cudaFree(st->vectors[1].bytes);
    if (st->blas != NULL)
        cublasDestroy(st->blas);
    if (st->stream != NULL)
        cudaStreamDestroy(st->stream);
    delete st;
    delete dev;
}

static mt_status cuda_alloc(struct mt_ctx *ctx, struct mt_device *, size_t n, mt_buf *out)
{
    *out = NULL;
    return cuda_check(ctx, cudaMalloc(out, (n > 0 ? n : 1) * sizeof(float)), "allocation");
}

static void cuda_release(struct mt_device *, mt_buf buf)
{
    cudaFree(buf);
}

static mt_status cuda_upload(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                             const float *src, size_t n)
{
    return cuda_check(ctx,
                      cudaMemcpyAsync(dst, src, n * sizeof(float), cudaMemcpyHostToDevice,
                                      cuda_of(dev)->stream),
                      "upload");
}

static mt_status cuda_download(struct mt_ctx *ctx, struct mt_device *dev, float *dst, mt_buf src,
                               size_t n)
{
    cudaStream_t stream = cuda_of(dev)->stream;

    MT_TRY(cuda_check(
        ctx, cudaMemcpyAsync(dst, src, n * sizeof(float), cudaMemcpyDeviceToHost, stream),
        "download"));
    return cuda_check(ctx, cudaStreamSynchronize(stream), "download");
}

static mt_status cuda_download_f64(struct mt_ctx *ctx, struct mt_device *dev, double *dst,
                                   mt_buf src, size_t n)
{
    std::vector<float> host(n);

    MT_TRY(cuda_download(ctx, dev, host.data(), src, n));
    for (size_t i = 0; i < n; i++)
        dst[i] = (double)host[i];
    return MT_OK;
}

static mt_status cuda_upload_f64(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                                 const double *src, size_t n)
{
    std::vector<float> host(n);

    for (size_t i = 0; i < n; i++)
        host[i] = (float)src[i];
    return cuda_upload(ctx, dev, dst, host.data(), n);
}

static mt_status cuda_copy(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, mt_buf src,
                           size_t n)
{
    return cuda_check(ctx,
                      cudaMemcpyAsync(dst, src, n * sizeof(float), cudaMemcpyDeviceToDevice,
                                      cuda_of(dev)->stream),
                      "copy");
}

static mt_status cuda_zero(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, size_t n)
{
    return cuda_check(ctx, cudaMemsetAsync(dst, 0, n * sizeof(float), cuda_of(dev)->stream),
                      "zero");
}

static void cuda_weight_free(struct mt_device *, struct mt_weight *w)
{
    if (w == NULL)
        return;
    cudaFree(w->bytes);
    delete w;
}

static mt_status cuda_weight_load(struct mt_ctx *ctx, struct mt_device *dev, enum mt_dtype t,
                                  int64_t rows, int64_t cols, const void *bytes,
                                  struct mt_weight **out)
{
    uint64_t n_bytes;
    struct mt_weight *w;
    mt_status st;

    *out = NULL;
    if (!mt_dtype_is_plain_float(t) ||
        !mt_dtype_bytes(t, (uint64_t)rows * (uint64_t)cols, &n_bytes))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s weights are not supported on cuda",
                       mt_dtype_name(t));
    w = new (std::nothrow) mt_weight{t, rows, cols, NULL};
    if (w == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a weight");
    st = cuda_check(ctx, cudaMalloc(&w->bytes, n_bytes > 0 ? n_bytes : 1), "a weight");
    if (st == MT_OK)
        st = cuda_check(ctx,
                        cudaMemcpyAsync(w->bytes, bytes, n_bytes, cudaMemcpyHostToDevice,
                                        cuda_of(dev)->stream),
                        "upload of a weight");
    if (st != MT_OK) {
        cuda_weight_free(dev, w);
        return st;
    }
    *out = w;
    return MT_OK;
}

/* Row-major y[m, n] is column-major n x m: y^T = w x^T, w^T given as k x n. A weight that is not
 * F32 goes through in tiles of rows. */
static mt_status cuda_gemm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                           const struct mt_weight *w, bool accumulate)
{
    struct cuda_state *st = cuda_of(dev);
    const int64_t n = w->rows, k = w->cols;
    const float one = 1.0f, beta = accumulate ? 1.0f : 0.0f;
    int64_t step = n;

    if (m == 0 || n == 0)
        return MT_OK;
    if (k == 0)
        return accumulate ? MT_OK : cuda_zero(ctx, dev, y, (size_t)(m * n));
    if (w->dtype != MT_F32) {
        step = (int64_t)CUDA_TILE_FLOATS / k;
        step = step < 1 ? 1 : step > n ? n : step;
        MT_TRY(cuda_reserve(ctx, &st->converted, (size_t)(step * k) * sizeof(float), "a tile"));
    }
    for (int64_t row = 0; row < n; row += step) {
        const int64_t rows = n - row < step ? n - row : step;
        const float *tile = (const float *)w->bytes;
        if (w->dtype != MT_F32) {
            const char *from =
                (const char *)w->bytes + (size_t)(row * k) * (mt_dtype_bits(w->dtype) / 8);
            tile = (const float *)st->converted.bytes;
            MT_TRY(cuda_to_f32(ctx, st, w->dtype, from, (float *)st->converted.bytes,
                               (size_t)(rows * k)));
        }
        MT_TRY(cuda_check_blas(ctx,
                               cublasSgemm(st->blas, CUBLAS_OP_T, CUBLAS_OP_N, (int)rows, (int)m,
                                           (int)k, &one, tile, (int)k, (const float *)x, (int)k,
                                           &beta, (float *)y + row, (int)n),
                               "matrix product"));
    }
    return MT_OK;
}

static mt_status cuda_gemm_grouped(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                                   int n_groups, const int64_t *offset,
                                   const struct mt_weight *const *w)
{
    for (int e = 0; e < n_groups; e++) {
        const int64_t m = offset[e + 1] - offset[e];
        if (m == 0)
            continue;
        MT_TRY(cuda_gemm(ctx, dev, mt_dev_at(dev, y, (size_t)(offset[e] * w[e]->rows)),
                         mt_dev_at(dev, x, (size_t)(offset[e] * w[e]->cols)), m, w[e], false));
    }
    return MT_OK;
}

/* In the order of struct mt_device_ops: C++17 has no designated initializers. */
static const struct mt_device_ops cuda_ops = {
    cuda_close,        cuda_alloc,        cuda_release,     cuda_upload,
    cuda_download,     cuda_download_f64, cuda_upload_f64,  cuda_copy,
    cuda_zero,         cuda_weight_load,  cuda_weight_free, cuda_gemm,
    cuda_gemm_grouped, cuda_add,          cuda_scale,       cuda_add_bias,
    cuda_scale_rows,   cuda_rmsnorm,      cuda_layernorm,   cuda_rope,
    cuda_attention,    cuda_act_mul,      cuda_gather_rows, cuda_combine_rows,
};

mt_status mt_device_cuda_open(struct mt_ctx *ctx, struct mt_device **out)
{
    int count = 0;
    cudaError_t e = cudaGetDeviceCount(&count);
    mt_status status;

    *out = NULL;
    if (e != cudaSuccess || count == 0)
        return mt_fail(ctx, MT_E_DEVICE, "no CUDA device: %s; use --device cpu",
                       e != cudaSuccess ? cudaGetErrorString(e) : "none found");
    struct cuda_state *st = new (std::nothrow) cuda_state();
    struct mt_device *dev = new (std::nothrow) mt_device{&cuda_ops, "cuda", sizeof(float), st};
    if (st == NULL || dev == NULL) {
        delete st;
        delete dev;
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for the cuda device");
    }
    status = cuda_check(ctx, cudaStreamCreate(&st->stream), "stream");
    if (status == MT_OK)
        status = cuda_check_blas(ctx, cublasCreate(&st->blas), "cuBLAS");
    if (status == MT_OK)
        status = cuda_check_blas(ctx, cublasSetStream(st->blas, st->stream), "cuBLAS stream");
    if (status == MT_OK)
        status = cuda_check_blas(ctx, cublasSetMathMode(st->blas, CUBLAS_PEDANTIC_MATH),
                                 "cuBLAS math mode");
    if (status != MT_OK) {
        cuda_close(dev);
        return status;
    }
    *out = dev;
    return MT_OK;
}
