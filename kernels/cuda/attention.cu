/* attention.cu: causal attention with a running softmax.
 *
 * One block per (query, head). Keys pass in tiles of ATTN_TILE: each thread scores one key, the
 * tile's maximum rescales what was summed before, then each thread adds its output features over
 * the tile's keys in order. Memory per block is one tile, so any key count fits. Sums in fp32 in a
 * fixed order. Tolerance against the fp64 reference: relative L2 1e-5.
 */
#include "kernels/cuda/common.cuh"

#define ATTN_TILE 128
#define ATTN_DIM_MAX 512

struct attn_shape {
    int n_q, n_k, n_heads, n_kv_heads, head_dim, window;
    float scale, softcap;
};

/* Maximum (or sum) of one value per thread of a tile; every thread gets it. */
__device__ float attn_reduce(float *part, float v, bool max)
{
    part[threadIdx.x] = v;
    __syncthreads();
    for (int half = ATTN_TILE / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) {
            float a = part[threadIdx.x], b = part[threadIdx.x + half];
            part[threadIdx.x] = max ? fmaxf(a, b) : a + b;
        }
        __syncthreads();
    }
    v = part[0];
    __syncthreads();
    return v;
}

/* out, q [n_q, n_heads, head_dim]; k, v [n_k, n_kv_heads, head_dim] */
__global__ void attn_one(float *out, const float *q, const float *k, const float *v,
                         struct attn_shape a)
{
    __shared__ float query[ATTN_DIM_MAX], prob[ATTN_TILE], part[ATTN_TILE];
    const int t = (int)blockIdx.x, head = (int)blockIdx.y, tid = (int)threadIdx.x;
    const int kv = head / (a.n_heads / a.n_kv_heads);
    const int last = a.n_k - a.n_q + t; /* the query's own position */
    const int first = a.window > 0 && last >= a.window ? last - a.window + 1 : 0;
    const int64_t kv_row = (int64_t)a.n_kv_heads * a.head_dim;
    float sum[ATTN_DIM_MAX / ATTN_TILE] = {0}, top = -INFINITY, total = 0;

    q += ((int64_t)t * a.n_heads + head) * a.head_dim;
    for (int i = tid; i < a.head_dim; i += ATTN_TILE)
        query[i] = q[i];
    __syncthreads();
    for (int base = first; base <= last; base += ATTN_TILE) {
        const int key = base + tid, n = min(ATTN_TILE, last - base + 1);
        float score = -INFINITY;
        if (key <= last) {
            const float *row = k + key * kv_row + (int64_t)kv * a.head_dim;
            score = 0;
            for (int i = 0; i < a.head_dim; i++)
                score += query[i] * row[i];
            score *= a.scale;
            if (a.softcap > 0)
                score = a.softcap * tanhf(score / a.softcap);
        }
        float higher = fmaxf(top, attn_reduce(part, score, true));
        float shrink = top == -INFINITY ? 0.0f : expf(top - higher);
        float p = key <= last ? expf(score - higher) : 0.0f;
        prob[tid] = p;
        total = total * shrink + attn_reduce(part, p, false);
        top = higher;
        for (int i = tid, s = 0; i < a.head_dim; i += ATTN_TILE, s++) {
            const float *col = v + base * kv_row + (int64_t)kv * a.head_dim + i;
            float acc = sum[s] * shrink;
            for (int j = 0; j < n; j++)
                acc += prob[j] * col[j * kv_row];
            sum[s] = acc;
        }
        __syncthreads();
    }
    out += ((int64_t)t * a.n_heads + head) * a.head_dim;
    for (int i = tid, s = 0; i < a.head_dim; i += ATTN_TILE, s++)
        out[i] = sum[s] / total;
}

mt_status cuda_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q, mt_buf k,
                         mt_buf v, const struct mt_attn *a)
{
    struct attn_shape s = {a->n_q,      a->n_k,    a->n_heads,      a->n_kv_heads,
                           a->head_dim, a->window, (float)a->scale, (float)a->softcap};

    if (a->n_q == 0)
        return MT_OK;
    if (a->head_dim > ATTN_DIM_MAX)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "cuda attention takes heads up to %d wide, not %d",
                       ATTN_DIM_MAX, a->head_dim);
    attn_one<<<dim3((unsigned)a->n_q, (unsigned)a->n_heads), ATTN_TILE, 0, cuda_of(dev)->stream>>>(
        (float *)out, (const float *)q, (const float *)k, (const float *)v, s);
    return cuda_check(ctx, cudaGetLastError(), "attention");
}
