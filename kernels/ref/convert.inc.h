/* convert.inc.h: stored numbers to float and back; see kernels.h.
 *
 * The bit arithmetic below agrees with the hardware's F16 conversion in every bit: round to
 * nearest even, subnormals kept, NaN made quiet with the upper part of its payload. Where the
 * hardware instructions are to be had, they are used.
 */
#ifndef MT_KERNELS_REF_CONVERT_INC_H
#define MT_KERNELS_REF_CONVERT_INC_H

#include "kernels/kernels.h"
#include "kernels/ref/math.inc.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

static inline float mtk_f16_to_f32(uint16_t h)
{
    uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
    uint32_t finite = mtk_bits32(mtk_float32(magnitude) * 0x1p112f);
    uint32_t quiet = (h & 0x3ff) != 0 ? 0x400000u : 0u;
    uint32_t other = magnitude | 0x7f800000u | quiet;

    return mtk_float32(((h & 0x7c00) == 0x7c00 ? other : finite) | (uint32_t)(h & 0x8000) << 16);
}

static inline uint16_t mtk_f32_to_f16(float x)
{
    uint32_t bits = mtk_bits32(x), a = bits & 0x7fffffffu;
    /* 0.5 has the spacing of the smallest subnormal half: the addition rounds for us. */
    uint32_t subnormal = mtk_bits32(mtk_float32(a) + 0.5f) - mtk_bits32(0.5f);
    uint32_t normal = (a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13;
    uint32_t nan = 0x7e00u | ((a >> 13) & 0x3ffu);
    uint32_t h = a < 0x38800000u ? subnormal : normal;

    h = a >= 0x477ff000u ? 0x7c00u : h;
    h = a > 0x7f800000u ? nan : h;
    return (uint16_t)(h | (bits >> 16 & 0x8000u));
}

static inline uint16_t mtk_f32_to_bf16(float x)
{
    uint32_t u = mtk_bits32(x);
    uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    uint32_t nan = (u >> 16) | 0x40u;

    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

static inline void mtk_f16_row_to_f32(const char *restrict s, float *restrict dst, size_t n)
{
    size_t i = 0;

#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(s + 2 * i))));
#endif
    for (; i < n; i++) {
        uint16_t h;
        memcpy(&h, s + 2 * i, 2);
        dst[i] = mtk_f16_to_f32(h);
    }
}

static inline void mtk_bf16_row_to_f32(const char *restrict s, float *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, s + 2 * i, 2);
        dst[i] = mtk_float32((uint32_t)h << 16);
    }
}

static inline void mtk_f64_row_to_f32(const char *restrict s, float *restrict dst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double d;
        memcpy(&d, s + 8 * i, 8);
        dst[i] = (float)d;
    }
}

static inline void mtk_to_f32(enum mt_dtype t, const void *src, float *dst, size_t n)
{
    switch (t) {
    case MT_F64:
        mtk_f64_row_to_f32(src, dst, n);
        break;
    case MT_F32:
        if (n > 0)
            memcpy(dst, src, n * 4);
        break;
    case MT_F16:
        mtk_f16_row_to_f32(src, dst, n);
        break;
    default:
        mtk_bf16_row_to_f32(src, dst, n);
        break;
    }
}

static inline void mtk_f32_row_to_f16(const float *restrict src, char *restrict d, size_t n)
{
    size_t i = 0;

#ifdef __F16C__
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(d + 2 * i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT));
#endif
    for (; i < n; i++) {
        uint16_t h = mtk_f32_to_f16(src[i]);
        memcpy(d + 2 * i, &h, 2);
    }
}

static inline void mtk_f32_row_to_bf16(const float *restrict src, char *restrict d, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = mtk_f32_to_bf16(src[i]);
        memcpy(d + 2 * i, &h, 2);
    }
}

static inline void mtk_f32_row_to_f64(const float *restrict src, char *restrict d, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double x = (double)src[i];
        memcpy(d + 8 * i, &x, 8);
    }
}

static inline void mtk_from_f32(enum mt_dtype t, const float *src, void *dst, size_t n)
{
    switch (t) {
    case MT_F64:
        mtk_f32_row_to_f64(src, dst, n);
        break;
    case MT_F32:
        if (n > 0)
            memcpy(dst, src, n * 4);
        break;
    case MT_F16:
        mtk_f32_row_to_f16(src, dst, n);
        break;
    default:
        mtk_f32_row_to_bf16(src, dst, n);
        break;
    }
}

/* Number of NaN and Inf among n stored values of one width, whose exponent bits are `exp`. */
static inline size_t mtk_nonfinite16(const char *s, size_t n, uint16_t exp)
{
    uint16_t any = 0;

    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, s + 2 * i, 2);
        any = (uint16_t)(any | ((h & exp) == exp ? 1 : 0));
    }
    return any;
}

static inline size_t mtk_nonfinite32(const char *s, size_t n)
{
    uint32_t any = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, s + 4 * i, 4);
        any |= (u & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
    }
    return any;
}

static inline size_t mtk_nonfinite64(const char *s, size_t n)
{
    uint64_t any = 0;

    for (size_t i = 0; i < n; i++) {
        uint64_t u;
        memcpy(&u, s + 8 * i, 8);
        any |= (u & 0x7ff0000000000000u) == 0x7ff0000000000000u ? 1u : 0u;
    }
    return any != 0;
}

static inline size_t mtk_nonfinite(enum mt_dtype t, const char *s, size_t n)
{
    switch (t) {
    case MT_F64:
        return mtk_nonfinite64(s, n);
    case MT_F32:
        return mtk_nonfinite32(s, n);
    case MT_F16:
        return mtk_nonfinite16(s, n, 0x7c00);
    default:
        return mtk_nonfinite16(s, n, 0x7f80);
    }
}

/* Blocks without a find are passed over at the speed of memory; one with a find is walked. */
static inline size_t mtk_find_nonfinite(enum mt_dtype t, const void *src, size_t n)
{
    const char *s = src;
    size_t width = t == MT_F64 ? 8 : t == MT_F32 ? 4 : 2;

    for (size_t i = 0; i < n;) {
        size_t block = n - i < 1024 ? n - i : 1024;
        if (mtk_nonfinite(t, s + i * width, block) != 0) {
            while (mtk_nonfinite(t, s + i * width, 1) == 0)
                i++;
            return i;
        }
        i += block;
    }
    return n;
}
#endif
