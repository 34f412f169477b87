/* elementwise.inc.h: y[i] from x[i]; see kernels.h.
 *
 * Work goes through small local blocks: results may alias arguments, and a tail runs through the
 * very same arithmetic as the rest.
 */
#ifndef MT_KERNELS_REF_ELEMENTWISE_INC_H
#define MT_KERNELS_REF_ELEMENTWISE_INC_H

#include "kernels/kernels.h"
#include "kernels/ref/math.inc.h"

#include <math.h>

#define MTK_BLOCK 64

static inline void mtk_axpy(float *restrict y, float s, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += s * x[i];
}

#define MTK_ACT_BLOCK(fn)                                                                          \
    do {                                                                                           \
        for (size_t mtk_j_ = 0; mtk_j_ < MTK_BLOCK; mtk_j_++)                                      \
            a[mtk_j_] = fn(a[mtk_j_]);                                                             \
    } while (0)

static inline void mtk_act_block(enum mt_act act, float *a)
{
    switch (act) {
    case MT_ACT_SILU:
        MTK_ACT_BLOCK(mtk_silu);
        break;
    case MT_ACT_GELU:
        MTK_ACT_BLOCK(mtk_gelu);
        break;
    case MT_ACT_GELU_TANH:
        MTK_ACT_BLOCK(mtk_gelu_tanh);
        break;
    case MT_ACT_RELU:
        MTK_ACT_BLOCK(mtk_relu);
        break;
    case MT_ACT_RELU2:
        MTK_ACT_BLOCK(mtk_relu2);
        break;
    case MT_ACT_QUICK_GELU:
        MTK_ACT_BLOCK(mtk_quick_gelu);
        break;
    }
}

static inline void mtk_act_mul(enum mt_act act, float *h, const float *g, const float *u, size_t n)
{
    float a[MTK_BLOCK] = {0}, b[MTK_BLOCK] = {0};

    for (size_t i = 0; i < n; i += MTK_BLOCK) {
        size_t left = n - i < MTK_BLOCK ? n - i : MTK_BLOCK;
        memcpy(a, g + i, left * sizeof *a);
        mtk_act_block(act, a);
        if (u != NULL) {
            memcpy(b, u + i, left * sizeof *b);
            for (size_t j = 0; j < MTK_BLOCK; j++)
                a[j] *= b[j];
        }
        memcpy(h + i, a, left * sizeof *a);
    }
}

static inline void mtk_slope_block(enum mt_act act, float *a)
{
    switch (act) {
    case MT_ACT_SILU:
        MTK_ACT_BLOCK(mtk_silu_slope);
        break;
    case MT_ACT_GELU:
        MTK_ACT_BLOCK(mtk_gelu_slope);
        break;
    case MT_ACT_GELU_TANH:
        MTK_ACT_BLOCK(mtk_gelu_tanh_slope);
        break;
    case MT_ACT_RELU:
        MTK_ACT_BLOCK(mtk_relu_slope);
        break;
    case MT_ACT_RELU2:
        MTK_ACT_BLOCK(mtk_relu2_slope);
        break;
    case MT_ACT_QUICK_GELU:
        MTK_ACT_BLOCK(mtk_quick_gelu_slope);
        break;
    }
}

static inline void mtk_act_grad(enum mt_act act, float *dg, float *du, const float *g,
                                const float *u, const float *dh, size_t n)
{
    float a[MTK_BLOCK] = {0}, s[MTK_BLOCK] = {0}, b[MTK_BLOCK] = {0}, d[MTK_BLOCK] = {0};

    for (size_t i = 0; i < n; i += MTK_BLOCK) {
        size_t left = n - i < MTK_BLOCK ? n - i : MTK_BLOCK;
        memcpy(a, g + i, left * sizeof *a);
        memcpy(s, g + i, left * sizeof *s);
        memcpy(d, dh + i, left * sizeof *d);
        mtk_slope_block(act, s);
        for (size_t j = 0; j < MTK_BLOCK; j++)
            s[j] *= d[j];
        if (u != NULL) {
            memcpy(b, u + i, left * sizeof *b);
            mtk_act_block(act, a);
            for (size_t j = 0; j < MTK_BLOCK; j++) {
                s[j] *= b[j];
                a[j] *= d[j];
            }
            memcpy(du + i, a, left * sizeof *a);
        }
        memcpy(dg + i, s, left * sizeof *s);
    }
}

static inline void mtk_adam(const struct mt_adam_step *s, float *restrict w, float *restrict m1,
                            float *restrict m2, const float *restrict g, size_t n)
{
    const float b1 = s->beta1, b2 = s->beta2, c1 = 1.0f - s->beta1, c2 = 1.0f - s->beta2;
    const float rate = s->rate, grow = s->grow2, eps = s->eps;

    for (size_t i = 0; i < n; i++) {
        m1[i] = b1 * m1[i] + c1 * g[i];
        m2[i] = b2 * m2[i] + c2 * (g[i] * g[i]);
        w[i] -= rate * m1[i] / (sqrtf(m2[i] * grow) + eps);
    }
}

static inline void mtk_exp_minus(float *x, float max, size_t n)
{
    float a[MTK_BLOCK] = {0};

    for (size_t i = 0; i < n; i += MTK_BLOCK) {
        size_t left = n - i < MTK_BLOCK ? n - i : MTK_BLOCK;
        memcpy(a, x + i, left * sizeof *a);
        for (size_t j = 0; j < MTK_BLOCK; j++)
            a[j] = mtk_exp32(a[j] - max);
        memcpy(x + i, a, left * sizeof *a);
    }
}
#endif
