/* reduce.inc.h: sums over arrays in a fixed number of lanes; see kernels.h.
 *
 * Element i belongs to lane i mod 16 (8 for doubles) and lanes are added in order, so the bits do
 * not depend on how wide the machine's registers are. A row that ends within a block is padded
 * with zeros in a local copy.
 */
#ifndef MT_KERNELS_REF_REDUCE_INC_H
#define MT_KERNELS_REF_REDUCE_INC_H

#include "kernels/kernels.h"
#include "kernels/ref/convert.inc.h"
#include "kernels/ref/elementwise.inc.h"

#include <math.h>

/* Vectors never leave this translation unit, so how ISAs pass them does not matter. */
#pragma GCC diagnostic ignored "-Wpsabi"
typedef float mtk_v16 __attribute__((vector_size(64)));
typedef int32_t mtk_v16i __attribute__((vector_size(64)));
typedef float mtk_v8 __attribute__((vector_size(32)));
typedef double mtk_v8d __attribute__((vector_size(64)));

static inline mtk_v16 mtk_load16(const float *p)
{
    mtk_v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The last n < 16 elements, the rest zero. */
static inline mtk_v16 mtk_load_tail(const float *p, size_t n)
{
    mtk_v16 v = {0};
    memcpy(&v, p, n * sizeof *p);
    return v;
}

static inline float mtk_lanes_sum(const mtk_v16 *v)
{
    float s = (*v)[0];

    for (int l = 1; l < 16; l++)
        s += (*v)[l];
    return s;
}

static inline double mtk_lanes_sum_d(const mtk_v8d *v)
{
    double s = (*v)[0];

    for (int l = 1; l < 8; l++)
        s += (*v)[l];
    return s;
}

static inline mtk_v8d mtk_load8d(const float *p)
{
    mtk_v8 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, mtk_v8d);
}

static inline mtk_v8d mtk_load_tail_d(const float *p, size_t n)
{
    mtk_v8 v = {0};
    memcpy(&v, p, n * sizeof *p);
    return __builtin_convertvector(v, mtk_v8d);
}

static inline float mtk_dot(const float *a, const float *b, size_t n)
{
    mtk_v16 sum = {0};
    size_t i = 0;

    for (; i + 16 <= n; i += 16)
        sum += mtk_load16(a + i) * mtk_load16(b + i);
    if (i < n)
        sum += mtk_load_tail(a + i, n - i) * mtk_load_tail(b + i, n - i);
    return mtk_lanes_sum(&sum);
}

static inline double mtk_sumsq(const float *a, size_t n)
{
    mtk_v8d sum = {0};
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        mtk_v8d v = mtk_load8d(a + i);
        sum += v * v;
    }
    if (i < n) {
        mtk_v8d v = mtk_load_tail_d(a + i, n - i);
        sum += v * v;
    }
    return mtk_lanes_sum_d(&sum);
}

static inline double mtk_sum(const float *a, size_t n)
{
    mtk_v8d sum = {0};
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        sum += mtk_load8d(a + i);
    if (i < n)
        sum += mtk_load_tail_d(a + i, n - i);
    return mtk_lanes_sum_d(&sum);
}

static inline void mtk_max16(mtk_v16 *m, const float *p)
{
    mtk_v16 x = mtk_load16(p);
    mtk_v16i keep = x > *m;

    *m = (mtk_v16)(((mtk_v16i)x & keep) | ((mtk_v16i)*m & ~keep));
}

/* The largest element that is not NaN; -Inf when there is none. */
static inline float mtk_max(const float *a, size_t n)
{
    mtk_v16 m;
    size_t i = 0;

    for (int l = 0; l < 16; l++)
        m[l] = -INFINITY;
    for (; i + 16 <= n; i += 16)
        mtk_max16(&m, a + i);
    float max = m[0];
    for (int l = 1; l < 16; l++)
        max = m[l] > max ? m[l] : max;
    for (; i < n; i++)
        max = a[i] > max ? a[i] : max;
    return max;
}

static inline void mtk_rmsnorm(float *y, const float *x, const float *w, float offset, size_t d,
                               float eps)
{
    float a[MTK_BLOCK] = {0}, b[MTK_BLOCK] = {0};
    float scale = (float)(1.0 / sqrt(mtk_sumsq(x, d) / (double)d + (double)eps));

    for (size_t i = 0; i < d; i += MTK_BLOCK) {
        size_t left = d - i < MTK_BLOCK ? d - i : MTK_BLOCK;
        memcpy(a, x + i, left * sizeof *a);
        memcpy(b, w + i, left * sizeof *b);
        for (size_t j = 0; j < MTK_BLOCK; j++)
            a[j] = (a[j] * scale) * (b[j] + offset);
        memcpy(y + i, a, left * sizeof *a);
    }
}

static inline double mtk_softmax(float *x, size_t n)
{
    float max = mtk_max(x, n);

    mtk_exp_minus(x, max, n);
    double sum = mtk_sum(x, n);
    float inverse = (float)(1.0 / sum);
    for (size_t i = 0; i < n; i++)
        x[i] *= inverse;
    return log(sum) + (double)max;
}

static inline double mtk_logsumexp(const float *x, size_t n)
{
    double lane[8] = {0};
    float max = mtk_max(x, n);
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += mtk_exp64_neg((double)x[i + (size_t)l] - (double)max);
    for (int l = 0; i < n; i++, l++)
        lane[l] += mtk_exp64_neg((double)x[i] - (double)max);
    for (int l = 1; l < 8; l++)
        lane[0] += lane[l];
    return log(lane[0]) + (double)max;
}

static inline mtk_v16 mtk_stored16(enum mt_dtype t, const char *p)
{
    float a[16];

    mtk_to_f32(t, p, a, 16);
    return mtk_load16(a);
}

static inline mtk_v16 mtk_stored_tail(enum mt_dtype t, const char *p, size_t n)
{
    float a[16] = {0};

    mtk_to_f32(t, p, a, n);
    return mtk_load16(a);
}

/* Four rows at a time hide the latency of addition and read x once for all of them. */
static inline void mtk_gemv_rows(enum mt_dtype t, size_t width, const char *w, size_t row_bytes,
                                 size_t n, size_t k, const float *x, float *y)
{
    size_t j = 0;

    for (; j + 4 <= n; j += 4) {
        const char *p = w + j * row_bytes;
        mtk_v16 s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        size_t i = 0;
        for (; i + 16 <= k; i += 16) {
            mtk_v16 v = mtk_load16(x + i);
            const char *q = p + i * width;
            s0 += mtk_stored16(t, q) * v;
            s1 += mtk_stored16(t, q + row_bytes) * v;
            s2 += mtk_stored16(t, q + 2 * row_bytes) * v;
            s3 += mtk_stored16(t, q + 3 * row_bytes) * v;
        }
        if (i < k) {
            mtk_v16 v = mtk_load_tail(x + i, k - i);
            const char *q = p + i * width;
            s0 += mtk_stored_tail(t, q, k - i) * v;
            s1 += mtk_stored_tail(t, q + row_bytes, k - i) * v;
            s2 += mtk_stored_tail(t, q + 2 * row_bytes, k - i) * v;
            s3 += mtk_stored_tail(t, q + 3 * row_bytes, k - i) * v;
        }
        y[j] = mtk_lanes_sum(&s0);
        y[j + 1] = mtk_lanes_sum(&s1);
        y[j + 2] = mtk_lanes_sum(&s2);
        y[j + 3] = mtk_lanes_sum(&s3);
    }
    for (; j < n; j++) {
        const char *p = w + j * row_bytes;
        mtk_v16 s = {0};
        size_t i = 0;
        for (; i + 16 <= k; i += 16)
            s += mtk_stored16(t, p + i * width) * mtk_load16(x + i);
        if (i < k)
            s += mtk_stored_tail(t, p + i * width, k - i) * mtk_load_tail(x + i, k - i);
        y[j] = mtk_lanes_sum(&s);
    }
}

/* The type is a constant in each branch, so that the compiler makes one loop per type. */
static inline void mtk_gemv(enum mt_dtype t, const void *w, size_t row_bytes, size_t n, size_t k,
                            const float *x, float *y)
{
    switch (t) {
    case MT_F64:
        mtk_gemv_rows(MT_F64, 8, w, row_bytes, n, k, x, y);
        break;
    case MT_F32:
        mtk_gemv_rows(MT_F32, 4, w, row_bytes, n, k, x, y);
        break;
    case MT_F16:
        mtk_gemv_rows(MT_F16, 2, w, row_bytes, n, k, x, y);
        break;
    default:
        mtk_gemv_rows(MT_BF16, 2, w, row_bytes, n, k, x, y);
        break;
    }
}
#endif
