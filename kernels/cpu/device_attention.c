/* Attention. A job is one head and one block of queries: its scores are one product, its
 * output another, and between them lies one row of weights per query. A block is narrowed when
 * the context is long, so that scratch stays near 4 MiB per worker. */
#include "kernels/cpu/device_cpu.h"

#include "lib/base/pool.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

enum { ATTN_QUERIES = 64, ATTN_QUERIES_MIN = 8, ATTN_SCORES = 1 << 20, ATTN_FEW = 2 };

struct attn_job {
    struct cpu_device *cpu;
    float *out;
    const float *q, *k, *v;
    const struct mt_attn *a;
    int block, n_blocks;
};

/* Keys [*from, *to) that the query at position `at` sees. */
static void attn_seen(const struct mt_attn *a, int at, int *from, int *to)
{
    *to = a->both_ways ? a->n_k : at + 1;
    *from = a->window > 0 && at + 1 > a->window ? at + 1 - a->window : 0;
}

/* Softmax of one row; a sink takes its share and is gone. */
static void attn_weights(const struct attn_job *j, int head, float *s, size_t n)
{
    const struct mt_attn *a = j->a;

    if (a->softcap > 0.0)
        for (size_t i = 0; i < n; i++)
            s[i] = (float)(a->softcap * tanh((double)s[i] / a->softcap));
    double lse = j->cpu->k->softmax(s, n);
    if (a->sinks != NULL) {
        float rest = (float)(1.0 / (1.0 + exp(a->sinks[head] - lse)));
        for (size_t i = 0; i < n; i++)
            s[i] *= rest;
    }
}

/* A query or two: dot products beat packing the whole cache for a matrix product. */
static void attn_one(const struct attn_job *j, int head, int query, float *s)
{
    const struct mt_attn *a = j->a;
    int d = a->head_dim, kv = head / (a->n_heads / a->n_kv_heads), from, to;
    int64_t stride = (int64_t)a->n_kv_heads * d, at = ((int64_t)query * a->n_heads + head) * d;

    attn_seen(a, a->n_k - a->n_q + query, &from, &to);
    for (int i = from; i < to; i++)
        s[i - from] =
            (float)a->scale * j->cpu->k->dot(j->q + at, j->k + i * stride + kv * d, (size_t)d);
    attn_weights(j, head, s, (size_t)(to - from));
    memset(j->out + at, 0, (size_t)d * sizeof(float));
    for (int i = from; i < to; i++)
        j->cpu->k->axpy(j->out + at, s[i - from], j->v + i * stride + kv * d, (size_t)d);
}

static void attn_block(const struct attn_job *j, int head, int q0, int nq, float *s)
{
    const struct mt_attn *a = j->a;
    int d = a->head_dim, kv = head / (a->n_heads / a->n_kv_heads), past = a->n_k - a->n_q;
    int stride = a->n_kv_heads * d, q_stride = a->n_heads * d, from, to, ignore;
    int64_t at = (int64_t)q0 * q_stride + head * d;

    attn_seen(a, past + q0, &from, &ignore);
    attn_seen(a, past + q0 + nq - 1, &ignore, &to);
    int n = to - from;
    const float *k = j->k + (int64_t)from * stride + kv * d;
    const float *v = j->v + (int64_t)from * stride + kv * d;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, nq, n, d, (float)a->scale, j->q + at,
                q_stride, k, stride, 0.0f, s, n);
    for (int i = 0; i < nq; i++) {
        float *row = s + (int64_t)i * n;
        int lo, hi;
        attn_seen(a, past + q0 + i, &lo, &hi);
        memset(row, 0, (size_t)(lo - from) * sizeof *row);
        attn_weights(j, head, row + (lo - from), (size_t)(hi - lo));
        memset(row + (hi - from), 0, (size_t)(to - hi) * sizeof *row);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, nq, d, n, 1.0f, s, n, v, stride, 0.0f,
                j->out + at, q_stride);
}

static mt_status attn_run(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct attn_job *j = arg;
    int head = (int)(i / j->n_blocks), q0 = (int)(i % j->n_blocks) * j->block;
    int nq = (int)cpu_min(j->block, j->a->n_q - q0);
    float *s;

    MT_TRY(mt_cpu_scratch(ctx, j->cpu, (size_t)j->block * (size_t)j->a->n_k, &s));
    if (j->a->n_q > ATTN_FEW)
        attn_block(j, head, q0, nq, s);
    else
        for (int q = q0; q < q0 + nq; q++)
            attn_one(j, head, q, s);
    return MT_OK;
}

mt_status mt_cpu_attention(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q,
                           mt_buf k, mt_buf v, const struct mt_attn *a)
{
    struct attn_job j = {.cpu = cpu_self(dev), .out = out, .q = q, .k = k, .v = v, .a = a};

    if (a->n_q <= 0)
        return MT_OK;
    j.block = ATTN_QUERIES;
    while (j.block > ATTN_QUERIES_MIN && (int64_t)j.block * a->n_k > ATTN_SCORES)
        j.block /= 2;
    j.block = (int)cpu_min(j.block, a->n_q);
    j.n_blocks = (int)cpu_tiles(a->n_q, j.block);
    return mt_pool_run(ctx, (int64_t)a->n_heads * j.n_blocks, attn_run, &j);
}
