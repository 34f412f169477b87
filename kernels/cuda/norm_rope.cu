/* Norms, one block per row with sums in fp64, and rotary positions with angles in fp64. Each
 * agrees with the reference device within 1e-6 (relative L2). */
#include "kernels/cuda/common.cuh"

/* y[m, d] = x / sqrt(mean(x^2) + eps) * (w + offset); y may be x: a thread writes what it read. */
static __global__ void norm_rms(float *y, const float *x, const float *w, int64_t m, int64_t d,
                                float offset, double eps)
{
    for (int64_t i = blockIdx.x; i < m; i += gridDim.x) {
        const float *xi = x + i * d;
        double sum = 0;
        for (int64_t j = threadIdx.x; j < d; j += blockDim.x)
            sum += (double)xi[j] * (double)xi[j];
        float s = (float)(1.0 / sqrt(cuda_block_sum(sum) / (double)d + eps));
        for (int64_t j = threadIdx.x; j < d; j += blockDim.x)
            y[i * d + j] = xi[j] * s * (w[j] + offset);
    }
}

mt_status cuda_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                       const struct mt_weight *w, double offset, double eps)
{
    mt_assert(w->rows == 1);
    if (m == 0 || w->cols == 0)
        return MT_OK;
    norm_rms<<<cuda_row_blocks(m), CUDA_THREADS, 0, cuda_self(dev)->stream>>>(
        (float *)y, (const float *)x, w->f32, m, w->cols, (float)offset, eps);
    CUDA_LAUNCHED(ctx, "rmsnorm");
    return MT_OK;
}

/* y[m, d] = (x - mean) / sqrt(var + eps) * w + b */
static __global__ void norm_layer(float *y, const float *x, const float *w, const float *b,
                                  int64_t m, int64_t d, double eps)
{
    for (int64_t i = blockIdx.x; i < m; i += gridDim.x) {
        const float *xi = x + i * d;
        double sum = 0, squares = 0;
        for (int64_t j = threadIdx.x; j < d; j += blockDim.x)
            sum += (double)xi[j];
        double mean = cuda_block_sum(sum) / (double)d;
        for (int64_t j = threadIdx.x; j < d; j += blockDim.x)
            squares += ((double)xi[j] - mean) * ((double)xi[j] - mean);
        float s = (float)(1.0 / sqrt(cuda_block_sum(squares) / (double)d + eps));
        for (int64_t j = threadIdx.x; j < d; j += blockDim.x)
            y[i * d + j] = (float)((double)xi[j] - mean) * s * w[j] + (b != NULL ? b[j] : 0.0f);
    }
}

mt_status cuda_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, const struct mt_weight *b, double eps)
{
    mt_assert(w->rows == 1 && (b == NULL || b->rows == 1));
    if (m == 0 || w->cols == 0)
        return MT_OK;
    norm_layer<<<cuda_row_blocks(m), CUDA_THREADS, 0, cuda_self(dev)->stream>>>(
        (float *)y, (const float *)x, w->f32, b != NULL ? b->f32 : NULL, m, w->cols, eps);
    CUDA_LAUNCHED(ctx, "layernorm");
    return MT_OK;
}

/* One thread per token and pair of features: one angle serves all heads. */
static __global__ void rope_rotate(float *x, const int32_t *pos, const double *inv_freq, int half,
                                   bool half_split, double amplitude, int n_heads, int head_dim,
                                   size_t n)
{
    CUDA_EACH(i, n)
    {
        size_t t = i / half;
        int e = (int)(i % half);
        double s, c;
        sincos((double)pos[t] * inv_freq[e], &s, &c);
        float cf = (float)(c * amplitude), sf = (float)(s * amplitude);
        int first = half_split ? e : 2 * e, second = half_split ? e + half : 2 * e + 1;
        for (int h = 0; h < n_heads; h++) {
            float *p = x + (t * n_heads + h) * head_dim;
            float a = p[first], b = p[second];
            p[first] = a * cf - b * sf;
            p[second] = b * cf + a * sf;
        }
    }
}

mt_status cuda_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                    int head_dim, const int32_t *pos, const struct mt_rope *r)
{
    struct cuda_device *cuda = cuda_self(dev);
    int half = r->rot_dim / 2;
    size_t n = (size_t)m * (size_t)half;
    const void *host[2] = {pos, r->inv_freq}, *on_device[2];
    size_t bytes[2] = {(size_t)m * sizeof *pos, (size_t)half * sizeof *r->inv_freq};

    if (n == 0)
        return MT_OK;
    MT_TRY(cuda_host_arrays(ctx, cuda, 2, host, bytes, on_device));
    rope_rotate<<<cuda_blocks(n), CUDA_THREADS, 0, cuda->stream>>>(
        (float *)x, (const int32_t *)on_device[0], (const double *)on_device[1], half,
        r->half_split, r->amplitude, n_heads, head_dim, n);
    CUDA_LAUNCHED(ctx, "rope");
    return MT_OK;
}
