/* kernels.h: pure arithmetic on arrays; no files, no model, no threads.
 *
 * One table of function pointers, filled with the portable reference (kernels/ref) and overridden
 * by what the CPU has (kernels/cpu). Elementwise kernels and the fixed-lane reductions below are
 * compiled without contraction, so that every variant gives the same bits; tests compare exactly.
 * Names inside are mtk_<op>_<dtype>_<isa>.
 *
 * Pointers to stored bytes may have any alignment (old safetensors files have odd headers).
 * Float arrays of our own are 4-byte aligned at least. Threads: pure functions. Valid C++.
 */
#ifndef MT_KERNELS_KERNELS_H
#define MT_KERNELS_KERNELS_H

#include "lib/base/dtype.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Activation functions of feed-forward blocks. GELU_TANH is gelu_new / gelu_pytorch_tanh;
 * QUICK_GELU is x times the logistic function of 1.702 x (CLIP, gpt-oss). */
enum mt_act {
    MT_ACT_SILU,
    MT_ACT_GELU,
    MT_ACT_GELU_TANH,
    MT_ACT_RELU,
    MT_ACT_RELU2,
    MT_ACT_QUICK_GELU
};

/* Of Adam (arXiv 1412.6980), with what makes good for moments that start at zero: m1 and m2 become
 * weighted means of g and g^2, then w -= rate m1 / (sqrt(m2 * grow2) + eps). */
struct mt_adam_step {
    float beta1, beta2;
    float rate;  /* divided by 1 - beta1^t */
    float grow2; /* 1 / (1 - beta2^t) */
    float eps;
};

struct mt_kernels {
    const char *isa; /* "ref", "avx2", "avx512" */

    /* dst[i] = (float)src[i] for F64, F32, F16, BF16. */
    void (*to_f32)(enum mt_dtype t, const void *src, float *dst, size_t n);
    /* dst[i] = src[i] rounded to nearest even; NaN stays NaN, overflow becomes Inf. */
    void (*from_f32)(enum mt_dtype t, const float *src, void *dst, size_t n);
    /* Index of the first NaN or Inf among n stored values, or n. */
    size_t (*find_nonfinite)(enum mt_dtype t, const void *src, size_t n);

    /* Sum of a[i]*b[i] in 16 fixed lanes (i mod 16), lanes added in order. */
    float (*dot)(const float *a, const float *b, size_t n);
    /* Sum of a[i]^2 in double, 8 fixed lanes. */
    double (*sumsq)(const float *a, size_t n);
    /* y[i] += s * x[i] */
    void (*axpy)(float *y, float s, const float *x, size_t n);
    /* h[i] = act(g[i]) * u[i]; u may be NULL (plain FFN: h = act(g)). h may alias g. */
    void (*act_mul)(enum mt_act act, float *h, const float *g, const float *u, size_t n);
    /* Backwards through act_mul, of dh[i] for h[i]: dg[i] = dh[i] * u[i] * act'(g[i]) and du[i] =
     * dh[i] * act(g[i]). u and du may be NULL together (plain FFN). dg may be g or dh, du may be u.
     * ReLU's slope at 0 is 0. */
    void (*act_grad)(enum mt_act act, float *dg, float *du, const float *g, const float *u,
                     const float *dh, size_t n);
    /* One step of Adam: moments m1, m2 and parameters w by the gradient g. */
    void (*adam)(const struct mt_adam_step *s, float *w, float *m1, float *m2, const float *g,
                 size_t n);
    /* One row: y = x / sqrt(mean(x^2) + eps) * (w + offset); mean in double. y may alias x. */
    void (*rmsnorm)(float *y, const float *x, const float *w, float offset, size_t d, float eps);
    /* In place over one row: exp(x - max) / sum, sum in double; returns ln(sum) + max. */
    double (*softmax)(float *x, size_t n);
    /* ln(sum exp x) in double without changing x. */
    double (*logsumexp)(const float *x, size_t n);
    /* D(softmax a || softmax b) in nats, all in double; exactly 0 for equal rows. An index that is
     * -Inf in both adds nothing; one that only b excludes makes it Inf; NaN stays. Rounding may
     * leave -1e-15. lse[0], lse[1]: what logsumexp gives for a and b. */
    double (*kl)(const float *a, const float *b, size_t n, double lse[2]);
    /* The first of the largest elements; NaN is passed over; 0 when there is nothing else. */
    size_t (*argmax)(const float *x, size_t n);
    /* y[j] = sum_i x[i] * w[j, i] for a stored matrix of n rows (decode: one token). */
    void (*gemv)(enum mt_dtype t, const void *w, size_t row_bytes, size_t n, size_t k,
                 const float *x, float *y);
};

/* The best table for this machine; the reference when MOETOOL_ISA=ref (or avx2) is set. */
const struct mt_kernels *mt_kernels_get(void);
/* A table by name for tests; NULL when the machine lacks it or it was not built. */
const struct mt_kernels *mt_kernels_named(const char *isa);

/* fp64 forms of the activations, for the reference device. */
double mt_act_f64(enum mt_act act, double x);
/* Its derivative. */
double mt_act_slope_f64(enum mt_act act, double x);
const char *mt_act_name(enum mt_act act);

#ifdef __cplusplus
}
#endif
#endif
