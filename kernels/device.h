/* device.h: where the runner computes.
 *
 * A device owns buffers of its element type and a list of operations on them. The runner is
 * written once against this header; `cpu` (fp32, BLAS, our pool), `ref` (fp64 everywhere, plain
 * loops: the oracle) and `cuda` implement it. Valid C++, because device_cuda.cu includes it.
 *
 * Buffers are opaque pointers to elements of dev->elem_bytes; mt_dev_at moves within one. All
 * matrices are row-major, activations are [tokens, features]. Weights are stored [out, in] in
 * their file's dtype and are loaded as handles: the CPU borrows the host bytes (which must outlive
 * the handle) and converts tile by tile inside the product, CUDA uploads them.
 *
 * Every operation is complete when it returns as far as the caller can see (CUDA may queue, and
 * downloads wait). Operations report failures through ctx. Threads: one caller at a time; inside,
 * the CPU uses the pool. Results do not depend on the thread count.
 *
 * Memory: the CPU charges buffers, small copies of vectors, and scratch that it keeps until it is
 * closed: about 4 MiB per thread (8 n_k floats per thread when n_k passes 131,072) and at most
 * 4096 * rot_dim floats of rotary angles. CUDA's memory is the GPU's and is not charged.
 */
#ifndef MT_KERNELS_DEVICE_H
#define MT_KERNELS_DEVICE_H

#include "lib/base/dtype.h"
#include "lib/base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mt_device;
struct mt_weight; /* a loaded matrix or vector; implementation's own */

typedef void *mt_buf; /* device elements */

/* How position rotates the first rot_dim features of each head.
 * Half-split pairs feature i with i + rot_dim/2 (Llama, NeoX); else 2i with 2i+1. */
struct mt_rope {
    int rot_dim;            /* even, <= head_dim */
    bool half_split;        /* HF layout */
    const double *inv_freq; /* host, [rot_dim/2], after any scaling rule */
    double amplitude;       /* multiplies cos and sin (yarn, longrope); 1 otherwise */
};

/* Attention of one sequence. Queries are the last n_q of n_k positions; each sees itself and what
 * came before, or everything. */
struct mt_attn {
    int n_q, n_k;
    int n_heads, n_kv_heads, head_dim; /* query heads share kv heads in equal consecutive groups */
    double scale;                      /* multiplies q.k */
    double softcap;                    /* 0: none; else c*tanh(s/c) */
    int window;                        /* 0: none; else only the last `window` keys are seen */
    /* Host [n_heads] or NULL: a score per head that joins the softmax as a key without a value. */
    const double *sinks;
    bool both_ways; /* every query sees all n_k keys (encoders); window is then 0 */
};

struct mt_device_ops {
    void (*close)(struct mt_device *dev);

    mt_status (*alloc)(struct mt_ctx *ctx, struct mt_device *dev, size_t n, mt_buf *out);
    void (*release)(struct mt_device *dev, mt_buf buf); /* NULL is fine */
    mt_status (*upload)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, const float *src,
                        size_t n);
    mt_status (*download)(struct mt_ctx *ctx, struct mt_device *dev, float *dst, mt_buf src,
                          size_t n);
    mt_status (*download_f64)(struct mt_ctx *ctx, struct mt_device *dev, double *dst, mt_buf src,
                              size_t n);
    mt_status (*upload_f64)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst,
                            const double *src, size_t n);
    mt_status (*copy)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, mt_buf src, size_t n);
    mt_status (*zero)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf dst, size_t n);

    /* bytes: rows*cols elements of a plain float dtype (F64, F32, F16, BF16), contiguous, any
     * alignment, borrowed until weight_free. A vector is 1 x n. */
    mt_status (*weight_load)(struct mt_ctx *ctx, struct mt_device *dev, enum mt_dtype t,
                             int64_t rows, int64_t cols, const void *bytes, struct mt_weight **out);
    void (*weight_free)(struct mt_device *dev, struct mt_weight *w); /* NULL is fine */

    /* y[m, n] = x[m, k] * w[n, k]^T, plus y when `accumulate`. n and k are w's rows and cols. */
    mt_status (*gemm)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                      const struct mt_weight *w, bool accumulate);
    /* For e in [0, n_groups): rows [offset[e], offset[e+1]) of y = those rows of x times w[e]^T.
     * All w[e] have one shape; w[e] may be NULL where the group is empty. offset is host memory. */
    mt_status (*gemm_grouped)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                              int n_groups, const int64_t *offset,
                              const struct mt_weight *const *w);

    mt_status (*add)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n);
    mt_status (*scale)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n);
    /* y[i] cut to [lo, hi] */
    mt_status (*clamp)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double lo, double hi,
                       size_t n);
    /* y[m, n] += b[n] for every row */
    mt_status (*add_bias)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                          const struct mt_weight *b);
    /* y[i, :] *= s[i] for host s [m] */
    mt_status (*scale_rows)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                            int64_t n, const double *s);

    /* y[:, j] *= w[j] for a vector w of as many columns */
    mt_status (*scale_cols)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                            const struct mt_weight *w);

    /* Each of m rows of d: y = x / sqrt(mean(x^2)+eps) * (w + offset). y may be x. */
    mt_status (*rmsnorm)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, double offset, double eps);
    /* Each of m rows: (x - mean)/sqrt(var+eps) * w + b; b may be NULL. y may be x. */
    mt_status (*layernorm)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                           const struct mt_weight *w, const struct mt_weight *b, double eps);
    /* x[m, n_heads, head_dim] in place; pos: host [m]. Angles in fp64, cos and sin rounded once. */
    mt_status (*rope)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                      int head_dim, const int32_t *pos, const struct mt_rope *r);
    /* out[n_q, n_heads*head_dim]; q likewise; k, v [n_k, n_kv_heads*head_dim]. */
    mt_status (*attention)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf out, mt_buf q,
                           mt_buf k, mt_buf v, const struct mt_attn *a);
    /* h[i] = act(g[i]) * u[i]; u may be NULL. h may be g or u. `act` is enum mt_act. */
    mt_status (*act_mul)(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                         mt_buf u, size_t n);

    /* y[i, :] = x[idx[i], :] for host idx [n]. */
    mt_status (*gather_rows)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                             int64_t n, int64_t d, const int32_t *idx);
    /* For each token t in order, for its slots s in order: y[t, :] += w[t*k+s] * x[row[t*k+s], :].
     * row and w are host [m*k]; a negative row is skipped. Deterministic: no atomics. */
    mt_status (*combine_rows)(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                              int64_t m, int k, int64_t d, const int32_t *row, const double *w);
};

struct mt_device {
    const struct mt_device_ops *ops;
    const char *name; /* "cpu", "ref", "cuda" */
    size_t elem_bytes;
    void *self;
};

static inline mt_buf mt_dev_at(const struct mt_device *dev, mt_buf b, size_t i)
{
    return (char *)b + i * dev->elem_bytes;
}

/* Opens a device by name. "cuda" in a build without it, or without a GPU, is MT_E_DEVICE with a
 * sentence. The device is *given*; end it with mt_device_close. */
mt_status mt_device_open(struct mt_ctx *ctx, const char *name, struct mt_device **out);
void mt_device_close(struct mt_device *dev);

/* The implementations behind the names. */
mt_status mt_device_cpu_open(struct mt_ctx *ctx, struct mt_device **out);
mt_status mt_device_ref_open(struct mt_ctx *ctx, struct mt_device **out);
mt_status mt_device_cuda_open(struct mt_ctx *ctx, struct mt_device **out);

#ifdef __cplusplus
}
#endif
#endif
