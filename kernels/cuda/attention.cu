/* Attention: scores by cuBLAS, softmax by one block per row, outputs by cuBLAS, for as many
 * queries at a time as scratch holds. Query heads of one kv head form a batch that shares k and v.
 * Tolerance against the reference device: relative L2 max(1e-6, 3e-8 sqrt(d + n_k)). */
#include "kernels/cuda/common.cuh"

#define ATTN_SCRATCH_FLOATS ((int64_t)64 << 20)

/* Queries [q0, q0 + nq) against keys [from, from + n): s[n_heads, nq, n]. */
struct attn_part {
    int q0, nq, from, n;
};

/* Row (head, i) of s: softmax over the keys that query q0 + i sees, zero elsewhere. A sink of the
 * head takes its share first. */
static __global__ void attn_softmax(float *s, struct attn_part p, int past, int window, bool all,
                                    float softcap, const double *sinks, int64_t rows)
{
    for (int64_t r = blockIdx.x; r < rows; r += gridDim.x) {
        float *row = s + r * p.n;
        int at = past + p.q0 + (int)(r % p.nq); /* last key seen */
        int lo = window > 0 && at + 1 > window ? at + 1 - window - p.from : -p.from;
        int hi = all ? p.n : at + 1 - p.from;
        float sink = sinks != NULL ? (float)sinks[r / p.nq] : -INFINITY, max = sink;
        double sum = 0;
        lo = lo > 0 ? lo : 0;
        for (int j = lo + (int)threadIdx.x; j < hi; j += blockDim.x) {
            float v = softcap > 0.0f ? softcap * tanhf(row[j] / softcap) : row[j];
            row[j] = v;
            max = fmaxf(max, v);
        }
        max = cuda_block_max(max);
        for (int j = lo + (int)threadIdx.x; j < hi; j += blockDim.x) {
            float e = expf(row[j] - max);
            row[j] = e;
            sum += (double)e;
        }
        if (sinks != NULL && threadIdx.x == 0)
            sum += (double)expf(sink - max);
        float inverse = (float)(1.0 / cuda_block_sum(sum));
        for (int j = (int)threadIdx.x; j < p.n; j += blockDim.x)
            row[j] = j >= lo && j < hi ? row[j] * inverse : 0.0f;
    }
}

/* Both products for one kv head; s points at the scores of its first query head. */
static mt_status attn_scores(struct mt_ctx *ctx, struct cuda_device *cuda, const struct mt_attn *a,
                             struct attn_part p, const float *q, const float *k, float *s)
{
    const float scale = (float)a->scale, zero = 0.0f;
    int d = a->head_dim, group = a->n_heads / a->n_kv_heads;

    CUBLAS_TRY(ctx, "attention scores",
               cublasSgemmStridedBatched(cuda->blas, CUBLAS_OP_T, CUBLAS_OP_N, p.n, p.nq, d, &scale,
                                         k, a->n_kv_heads * d, 0, q, a->n_heads * d, d, &zero, s,
                                         p.n, (long long)p.nq * p.n, group));
    return MT_OK;
}

static mt_status attn_values(struct mt_ctx *ctx, struct cuda_device *cuda, const struct mt_attn *a,
                             struct attn_part p, const float *s, const float *v, float *out)
{
    const float one = 1.0f, zero = 0.0f;
    int d = a->head_dim, group = a->n_heads / a->n_kv_heads;

    CUBLAS_TRY(ctx, "attention values",
               cublasSgemmStridedBatched(cuda->blas, CUBLAS_OP_N, CUBLAS_OP_N, d, p.nq, p.n, &one,
                                         v, a->n_kv_heads * d, 0, s, p.n, (long long)p.nq * p.n,
                                         &zero, out, a->n_heads * d, d, group));
    return MT_OK;
}

static mt_status attn_part(struct mt_ctx *ctx, struct cuda_device *cuda, const struct mt_attn *a,
                           struct attn_part p, float *out, const float *q, const float *k,
                           const float *v, float *s, const double *sinks)
{
    int d = a->head_dim, group = a->n_heads / a->n_kv_heads;
    int64_t at = (int64_t)p.q0 * a->n_heads * d, kv_at = (int64_t)p.from * a->n_kv_heads * d;
    int64_t rows = (int64_t)a->n_heads * p.nq, head_scores = (int64_t)group * p.nq * p.n;

    for (int g = 0; g < a->n_kv_heads; g++)
        MT_TRY(attn_scores(ctx, cuda, a, p, q + at + (int64_t)g * group * d, k + kv_at + g * d,
                           s + g * head_scores));
    attn_softmax<<<cuda_row_blocks(rows), CUDA_THREADS, 0, cuda->stream>>>(
        s, p, a->n_k - a->n_q, a->window, a->both_ways, (float)a->softcap, sinks, rows);
    CUDA_LAUNCHED(ctx, "softmax");
    for (int g = 0; g < a->n_kv_heads; g++)
        MT_TRY(attn_values(ctx, cuda, a, p, s + g * head_scores, v + kv_at + g * d,
                           out + at + (int64_t)g * group * d));
    return MT_OK;
}

mt_status cuda_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q, mt_buf k,
                         mt_buf v, const struct mt_attn *a)
{
    struct cuda_device *cuda = cuda_self(dev);
    int past = a->n_k - a->n_q;
    const void *host = a->sinks, *sinks = NULL;
    size_t bytes = (size_t)a->n_heads * sizeof *a->sinks;
    void *s;

    if (a->n_q <= 0)
        return MT_OK;
    int64_t block = ATTN_SCRATCH_FLOATS / ((int64_t)a->n_heads * a->n_k);
    block = block < 1 ? 1 : cuda_min(block, a->n_q);
    MT_TRY(cuda_scratch(ctx, cuda, CUDA_FOR_SCORES,
                        (size_t)(block * a->n_heads * a->n_k) * sizeof(float), &s));
    if (host != NULL)
        MT_TRY(cuda_host_arrays(ctx, cuda, 1, &host, &bytes, &sinks));
    for (int q0 = 0; q0 < a->n_q; q0 += (int)block) {
        struct attn_part p = {q0, (int)cuda_min(block, a->n_q - q0), 0, 0};
        int to = a->both_ways ? a->n_k : past + q0 + p.nq;
        p.from = a->window > 0 && past + q0 + 1 > a->window ? past + q0 + 1 - a->window : 0;
        p.n = to - p.from;
        MT_TRY(attn_part(ctx, cuda, a, p, (float *)out, (const float *)q, (const float *)k,
                         (const float *)v, (float *)s, (const double *)sinks));
    }
    return MT_OK;
}
