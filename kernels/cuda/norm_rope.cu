/* norm_rope.cu: RMSNorm, LayerNorm and rotary positions. One block per row; sums in double over a
 * fixed tree, so results do not depend on scheduling. */
#include "kernels/cuda/common.cuh"

#include <math.h>
#include <vector>

#define NORM_THREADS 256

/* Sum of one value per thread; every thread gets it. */
__device__ double norm_sum(double v)
{
    __shared__ double part[NORM_THREADS];

    part[threadIdx.x] = v;
    __syncthreads();
    for (int half = NORM_THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    v = part[0];
    __syncthreads();
    return v;
}

/* y[m, d] = x / sqrt(mean(x^2) + eps) * (w[d] + offset) */
__global__ void norm_rms(float *y, const float *x, const float *w, int64_t d, double offset,
                         double eps)
{
    const float *row = x + (int64_t)blockIdx.x * d;
    float *out = y + (int64_t)blockIdx.x * d;
    double sum = 0;

    for (int64_t i = threadIdx.x; i < d; i += NORM_THREADS)
        sum += (double)row[i] * (double)row[i];
    float scale = (float)(1.0 / sqrt(norm_sum(sum) / (double)d + eps));
    for (int64_t i = threadIdx.x; i < d; i += NORM_THREADS)
        out[i] = row[i] * scale * (w[i] + (float)offset);
}

mt_status cuda_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                       const struct mt_weight *w, double offset, double eps)
{
    struct cuda_state *st = cuda_of(dev);
    const float *weight;

    if (m == 0)
        return MT_OK;
    MT_TRY(cuda_vector(ctx, st, w, 0, &weight));
    norm_rms<<<(unsigned)m, NORM_THREADS, 0, st->stream>>>((float *)y, (const float *)x, weight,
                                                           w->rows * w->cols, offset, eps);
    return cuda_check(ctx, cudaGetLastError(), "rmsnorm");
}

/* y[m, d] = (x - mean) / sqrt(var + eps) * w[d] (+ b[d]) */
__global__ void norm_layer(float *y, const float *x, const float *w, const float *b, int64_t d,
                           double eps)
{
    const float *row = x + (int64_t)blockIdx.x * d;
    float *out = y + (int64_t)blockIdx.x * d;
    double sum = 0, square = 0;

    for (int64_t i = threadIdx.x; i < d; i += NORM_THREADS)
        sum += (double)row[i];
    double mean = norm_sum(sum) / (double)d;
    for (int64_t i = threadIdx.x; i < d; i += NORM_THREADS)
        square += ((double)row[i] - mean) * ((double)row[i] - mean);
    double scale = 1.0 / sqrt(norm_sum(square) / (double)d + eps);
    for (int64_t i = threadIdx.x; i < d; i += NORM_THREADS)
        out[i] = (float)(((double)row[i] - mean) * scale) * w[i] + (b != NULL ? b[i] : 0.0f);
}

mt_status cuda_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, const struct mt_weight *b, double eps)
{
    struct cuda_state *st = cuda_of(dev);
    const float *weight, *bias = NULL;

    if (m == 0)
        return MT_OK;
    MT_TRY(cuda_vector(ctx, st, w, 0, &weight));
    if (b != NULL)
        MT_TRY(cuda_vector(ctx, st, b, 1, &bias));
    norm_layer<<<(unsigned)m, NORM_THREADS, 0, st->stream>>>((float *)y, (const float *)x, weight,
                                                             bias, w->rows * w->cols, eps);
    return cuda_check(ctx, cudaGetLastError(), "layernorm");
}

/* x[m, n_heads, head_dim] in place; turn[m, 2, half]: cos then sin; one block per token */
__global__ void rope_turn(float *x, const float *turn, int n_heads, int head_dim, int half,
                          bool half_split)
{
    float *token = x + (int64_t)blockIdx.x * n_heads * head_dim;
    const float *c = turn + (int64_t)blockIdx.x * 2 * half, *s = c + half;

    for (int i = (int)threadIdx.x; i < n_heads * half; i += (int)blockDim.x) {
        int pair = i % half;
        float *head = token + (i / half) * head_dim;
        float *a = half_split ? head + pair : head + 2 * pair;
        float *b = half_split ? head + pair + half : head + 2 * pair + 1;
        float va = *a, vb = *b;
        *a = va * c[pair] - vb * s[pair];
        *b = vb * c[pair] + va * s[pair];
    }
}

mt_status cuda_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                    int head_dim, const int32_t *pos, const struct mt_rope *r)
{
    struct cuda_state *st = cuda_of(dev);
    size_t half = (size_t)r->rot_dim / 2;

    if (m == 0 || half == 0)
        return MT_OK;
    std::vector<float> turn((size_t)m * 2 * half);
    for (size_t t = 0; t < (size_t)m; t++) {
        for (size_t i = 0; i < half; i++) {
            double angle = (double)pos[t] * r->inv_freq[i];
            turn[t * 2 * half + i] = (float)(cos(angle) * r->amplitude);
            turn[t * 2 * half + half + i] = (float)(sin(angle) * r->amplitude);
        }
    }
    MT_TRY(cuda_send(ctx, st, &st->factors, turn.data(), turn.size() * sizeof(float),
                     "rotary table"));
    rope_turn<<<(unsigned)m, NORM_THREADS, 0, st->stream>>>(
        (float *)x, (const float *)st->factors.bytes, n_heads, head_dim, (int)half, r->half_split);
    return cuda_check(ctx, cudaGetLastError(), "rope");
}
