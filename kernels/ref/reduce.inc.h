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

typedef float mtk_v8 __attribute__((vector_size(32)));
typedef int32_t mtk_v8i __attribute__((vector_size(32)));
typedef float mtk_v4 __attribute__((vector_size(16)));
typedef double mtk_v4d __attribute__((vector_size(32)));

/* Lanes 0-7 and 8-15. No vector is wider than what AVX2 holds: compilers split wider ones badly. */
struct mtk_lanes {
    mtk_v8 a, b;
};

/* Double lanes 0-3 and 4-7. */
struct mtk_lanes_d {
    mtk_v4d a, b;
};

static inline mtk_v8 mtk_load8(const float *p)
{
    mtk_v8 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline mtk_v4d mtk_load4d(const float *p)
{
    mtk_v4 v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, mtk_v4d);
}

static inline float mtk_lanes_sum(const struct mtk_lanes *v)
{
    float s = v->a[0];

    for (int l = 1; l < 8; l++)
        s += v->a[l];
    for (int l = 0; l < 8; l++)
        s += v->b[l];
    return s;
}

static inline double mtk_lanes_sum_d(const struct mtk_lanes_d *v)
{
    return ((((((v->a[0] + v->a[1]) + v->a[2]) + v->a[3]) + v->b[0]) + v->b[1]) + v->b[2]) +
           v->b[3];
}

static inline void mtk_dot16(struct mtk_lanes *sum, const float *a, const float *b)
{
    sum->a += mtk_load8(a) * mtk_load8(b);
    sum->b += mtk_load8(a + 8) * mtk_load8(b + 8);
}

static inline float mtk_dot(const float *a, const float *b, size_t n)
{
    struct mtk_lanes sum = {{0}, {0}};
    float at[16] = {0}, bt[16] = {0};
    size_t i = 0;

    for (; i + 16 <= n; i += 16)
        mtk_dot16(&sum, a + i, b + i);
    if (i < n) {
        memcpy(at, a + i, (n - i) * sizeof *a);
        memcpy(bt, b + i, (n - i) * sizeof *b);
        mtk_dot16(&sum, at, bt);
    }
    return mtk_lanes_sum(&sum);
}

static inline void mtk_sumsq8(struct mtk_lanes_d *sum, const float *a)
{
    mtk_v4d lo = mtk_load4d(a), hi = mtk_load4d(a + 4);

    sum->a += lo * lo;
    sum->b += hi * hi;
}

static inline double mtk_sumsq(const float *a, size_t n)
{
    struct mtk_lanes_d sum = {{0}, {0}};
    float tail[8] = {0};
    size_t i = 0;

    for (; i + 8 <= n; i += 8)
        mtk_sumsq8(&sum, a + i);
    if (i < n) {
        memcpy(tail, a + i, (n - i) * sizeof *a);
        mtk_sumsq8(&sum, tail);
    }
    return mtk_lanes_sum_d(&sum);
}

static inline double mtk_sum(const float *a, size_t n)
{
    struct mtk_lanes_d sum = {{0}, {0}};
    float tail[8] = {0};
    size_t i = 0;

    for (; i + 8 <= n; i += 8) {
        sum.a += mtk_load4d(a + i);
        sum.b += mtk_load4d(a + i + 4);
    }
    if (i < n) {
        memcpy(tail, a + i, (n - i) * sizeof *a);
        sum.a += mtk_load4d(tail);
        sum.b += mtk_load4d(tail + 4);
    }
    return mtk_lanes_sum_d(&sum);
}

static inline void mtk_max8(mtk_v8 *m, const float *p)
{
    mtk_v8 x = mtk_load8(p);
    mtk_v8i keep = x > *m;

    *m = (mtk_v8)(((mtk_v8i)x & keep) | ((mtk_v8i)*m & ~keep));
}

/* The largest element that is not NaN; -Inf when there is none. */
static inline float mtk_max(const float *a, size_t n)
{
    const float low = -INFINITY;
    mtk_v8 m = {low, low, low, low, low, low, low, low}, m2 = m;
    float max = low;
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        mtk_max8(&m, a + i);
        mtk_max8(&m2, a + i + 8);
    }
    for (int l = 0; l < 8; l++) {
        max = m[l] > max ? m[l] : max;
        max = m2[l] > max ? m2[l] : max;
    }
    for (; i < n; i++)
        max = a[i] > max ? a[i] : max;
    return max;
}

static inline size_t mtk_argmax(const float *a, size_t n)
{
    float max = mtk_max(a, n);
    size_t i = 0;

    for (; i + 16 <= n; i += 16) {
        int32_t hit = 0;
        for (int j = 0; j < 16; j++)
            hit |= a[i + (size_t)j] == max;
        if (hit != 0)
            break;
    }
    for (; i < n; i++) {
        if (a[i] == max)
            return i;
    }
    return 0;
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

static inline void mtk_exp_sum(double lane[8], const float *x, double max)
{
    double e[MTK_BLOCK];

    for (int j = 0; j < MTK_BLOCK; j++)
        e[j] = mtk_exp64_neg((double)x[j] - max);
    for (int j = 0; j < MTK_BLOCK; j += 8)
        for (int l = 0; l < 8; l++)
            lane[l] += e[j + l];
}

static inline double mtk_logsumexp(const float *x, size_t n)
{
    double lane[8] = {0};
    float max = mtk_max(x, n);
    size_t i = 0;

    for (; i + MTK_BLOCK <= n; i += MTK_BLOCK)
        mtk_exp_sum(lane, x + i, (double)max);
    for (; i < n; i++)
        lane[i % 8] += mtk_exp64_neg((double)x[i] - (double)max);
    for (int l = 1; l < 8; l++)
        lane[0] += lane[l];
    return log(lane[0]) + (double)max;
}

/* Lanes of sum w, sum exp(b - max b) and sum w ((a - max a) - (b - max b)), w = exp(a - max a). */
struct mtk_kl_lanes {
    double a[8], b[8], d[8];
};

static inline void mtk_kl_block(struct mtk_kl_lanes *lane, const float *a, const float *b,
                                double max_a, double max_b)
{
    double wa[MTK_BLOCK], wb[MTK_BLOCK], wd[MTK_BLOCK];

    for (int j = 0; j < MTK_BLOCK; j++) {
        double r = (double)a[j] - max_a, c = (double)b[j] - max_b;
        wa[j] = mtk_exp64_neg(r);
        wb[j] = mtk_exp64_neg(c);
        wd[j] = r < -700.0 ? 0.0 : wa[j] * (r - c); /* -Inf in both is no difference */
    }
    for (int j = 0; j < MTK_BLOCK; j += 8) {
        for (int l = 0; l < 8; l++) {
            lane->a[l] += wa[j + l];
            lane->b[l] += wb[j + l];
            lane->d[l] += wd[j + l];
        }
    }
}

/* KL = (sum w d) / Z_a - ln Z_a + ln Z_b: sums of one pass, behind that for the maxima. */
static inline double mtk_kl(const float *a, const float *b, size_t n, double lse[2])
{
    double max_a = (double)mtk_max(a, n), max_b = (double)mtk_max(b, n);
    struct mtk_kl_lanes lane = {{0}, {0}, {0}};
    float at[MTK_BLOCK], bt[MTK_BLOCK];
    size_t i = 0;

    for (; i + MTK_BLOCK <= n; i += MTK_BLOCK)
        mtk_kl_block(&lane, a + i, b + i, max_a, max_b);
    if (i < n) {
        for (size_t j = 0; j < MTK_BLOCK; j++) {
            at[j] = i + j < n ? a[i + j] : -INFINITY;
            bt[j] = i + j < n ? b[i + j] : -INFINITY;
        }
        mtk_kl_block(&lane, at, bt, max_a, max_b);
    }
    for (int l = 1; l < 8; l++) {
        lane.a[0] += lane.a[l];
        lane.b[0] += lane.b[l];
        lane.d[0] += lane.d[l];
    }
    double log_a = log(lane.a[0]), log_b = log(lane.b[0]);
    lse[0] = log_a + max_a;
    lse[1] = log_b + max_b;
    return lane.d[0] / lane.a[0] - log_a + log_b;
}

/* Eight stored numbers as floats. */
static inline mtk_v8 mtk_stored8(enum mt_dtype t, const char *p)
{
#ifdef __AVX2__
    if (t == MT_BF16)
        return (mtk_v8)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)),
                                         16);
#endif
#ifdef __F16C__
    if (t == MT_F16)
        return (mtk_v8)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#endif
    float a[8];
    mtk_to_f32(t, p, a, 8);
    return mtk_load8(a);
}

static inline void mtk_dot16_stored(struct mtk_lanes *sum, enum mt_dtype t, size_t width,
                                    const char *w, const float *x)
{
    sum->a += mtk_stored8(t, w) * mtk_load8(x);
    sum->b += mtk_stored8(t, w + 8 * width) * mtk_load8(x + 8);
}

/* The end of a row: n < 16 elements, then zeros. */
static inline void mtk_dot_stored_tail(struct mtk_lanes *sum, enum mt_dtype t, const char *w,
                                       const float *x, size_t n)
{
    float wt[16] = {0}, xt[16] = {0};

    if (n == 0)
        return;
    mtk_to_f32(t, w, wt, n);
    memcpy(xt, x, n * sizeof *x);
    mtk_dot16(sum, wt, xt);
}

/* Four rows at a time hide the latency of addition and read x once for all of them. */
static inline void mtk_gemv_rows(enum mt_dtype t, size_t width, const char *w, size_t row_bytes,
                                 size_t n, size_t k, const float *x, float *y)
{
    size_t whole = k & ~(size_t)15, j = 0;

    for (; j + 4 <= n; j += 4) {
        struct mtk_lanes s0 = {{0}, {0}}, s1 = s0, s2 = s0, s3 = s0;
        const char *p = w + j * row_bytes;
        for (size_t i = 0; i < whole; i += 16) {
            const char *q = p + i * width;
            mtk_dot16_stored(&s0, t, width, q, x + i);
            mtk_dot16_stored(&s1, t, width, q + row_bytes, x + i);
            mtk_dot16_stored(&s2, t, width, q + 2 * row_bytes, x + i);
            mtk_dot16_stored(&s3, t, width, q + 3 * row_bytes, x + i);
        }
        p += whole * width;
        mtk_dot_stored_tail(&s0, t, p, x + whole, k - whole);
        mtk_dot_stored_tail(&s1, t, p + row_bytes, x + whole, k - whole);
        mtk_dot_stored_tail(&s2, t, p + 2 * row_bytes, x + whole, k - whole);
        mtk_dot_stored_tail(&s3, t, p + 3 * row_bytes, x + whole, k - whole);
        y[j] = mtk_lanes_sum(&s0);
        y[j + 1] = mtk_lanes_sum(&s1);
        y[j + 2] = mtk_lanes_sum(&s2);
        y[j + 3] = mtk_lanes_sum(&s3);
    }
    for (; j < n; j++) {
        struct mtk_lanes s = {{0}, {0}};
        const char *p = w + j * row_bytes;
        for (size_t i = 0; i < whole; i += 16)
            mtk_dot16_stored(&s, t, width, p + i * width, x + i);
        mtk_dot_stored_tail(&s, t, p + whole * width, x + whole, k - whole);
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
