/* math.inc.h: scalar functions that compilers turn into vectors of any width with the same bits.
 *
 * No branches, no contraction, no libm. Largest relative errors measured against libm's double
 * forms: mtk_exp32 8.7e-8 (every seventh float whose result is a normal number), mtk_exp64_neg
 * below 1e-15; mtk_silu 1.5e-7; mtk_gelu and mtk_gelu_tanh 2e-6 of values that are themselves tiny
 * (x near -5 and -3), elsewhere below 3e-7.
 */
#ifndef MT_KERNELS_REF_MATH_INC_H
#define MT_KERNELS_REF_MATH_INC_H

#include <stdint.h>
#include <string.h>

static inline uint32_t mtk_bits32(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}

static inline float mtk_float32(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

static inline uint64_t mtk_bits64(double x)
{
    uint64_t u;
    memcpy(&u, &x, 8);
    return u;
}

static inline double mtk_float64(uint64_t u)
{
    double x;
    memcpy(&x, &u, 8);
    return x;
}

/* e^x. x = n ln 2 + r; the Taylor series of degree 7 is within 6e-9 for |r| <= ln(2)/2. Adding
 * 1.5 * 2^23 rounds to an integer and leaves it in the low bits. 2^n is applied in two halves, so
 * that results reach Inf and subnormals with one rounding. NaN passes through. */
static inline float mtk_exp32(float x)
{
    const float magic = 12582912.0f;

    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float z = x * 1.44269504f + magic;
    float n = z - magic;
    float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    p = p + 1.0f;
    int32_t e = (int32_t)(mtk_bits32(z) - mtk_bits32(magic));
    int32_t half = e >> 1;
    return p * mtk_float32((uint32_t)(half + 127) << 23) *
           mtk_float32((uint32_t)(e - half + 127) << 23);
}

/* e^x for x <= 0; below -700 the result stays at e^-700, which no sum that holds a 1 can see. */
static inline double mtk_exp64_neg(double x)
{
    const double magic = 6755399441055744.0;

    x = x < -700.0 ? -700.0 : x;
    double z = x * 1.4426950408889634 + magic;
    double n = z - magic;
    double r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    double p = 1.6059043836821613e-10;
    p = p * r + 2.08767569878681e-9;
    p = p * r + 2.505210838544172e-8;
    p = p * r + 2.755731922398589e-7;
    p = p * r + 2.7557319223985893e-6;
    p = p * r + 2.48015873015873e-5;
    p = p * r + 1.984126984126984e-4;
    p = p * r + 1.388888888888889e-3;
    p = p * r + 8.333333333333333e-3;
    p = p * r + 4.1666666666666664e-2;
    p = p * r + 1.6666666666666666e-1;
    p = p * r + 0.5;
    p = p * (r * r) + r;
    p = p + 1.0;
    return p * mtk_float64((mtk_bits64(z) - mtk_bits64(magic) + 1023) << 52);
}

static inline float mtk_silu(float x)
{
    return x / (1.0f + mtk_exp32(-x));
}

static inline float mtk_quick_gelu(float x)
{
    return x / (1.0f + mtk_exp32(-1.702f * x));
}

/* tanh form: 0.5 (1 + tanh z) is the logistic function of 2z. */
static inline float mtk_gelu_tanh(float x)
{
    float z = 1.59576912f * (x + 0.044715f * x * x * x);

    return x / (1.0f + mtk_exp32(-z));
}

/* Phi(x), the normal distribution. With t = |x|/sqrt 2 and u = 1/(1 + 0.3 t), e^(t^2) erfc(t) is u
 * times a polynomial of degree 8 (interpolated at Chebyshev nodes for t in [0, 10], error 2.5e-8).
 */
static inline float mtk_phi(float x)
{
    float t = x < 0.0f ? -x : x;
    t = t * 0.707106781f;
    float u = 1.0f / (1.0f + 0.3f * t);
    float p = -0.130770877f;
    p = p * u + 0.491934271f;
    p = p * u + -0.526151663f;
    p = p * u + 0.564514242f;
    p = p * u + -0.106983363f;
    p = p * u + 0.220539169f;
    p = p * u + 0.146796022f;
    p = p * u + 0.17094912f;
    p = p * u + 0.169173058f;
    float tail = 0.5f * (p * u) * mtk_exp32(-(t * t));
    return x < 0.0f ? tail : 1.0f - tail;
}

static inline float mtk_gelu(float x)
{
    return x * mtk_phi(x);
}

static inline float mtk_relu(float x)
{
    return x < 0.0f ? 0.0f : x;
}

static inline float mtk_relu2(float x)
{
    float r = mtk_relu(x);

    return r * r;
}

/* ---- slopes ---- */

static inline float mtk_silu_slope(float x)
{
    float s = 1.0f / (1.0f + mtk_exp32(-x));

    return s * (1.0f + x * (1.0f - s));
}

static inline float mtk_quick_gelu_slope(float x)
{
    float s = 1.0f / (1.0f + mtk_exp32(-1.702f * x));

    return s * (1.0f + 1.702f * x * (1.0f - s));
}

/* Flat beyond 10, where x^3 would grow without end. */
static inline float mtk_gelu_tanh_slope(float x)
{
    x = x < -10.0f ? -10.0f : x;
    x = x > 10.0f ? 10.0f : x;
    float z = 1.59576912f * (x + 0.044715f * x * x * x);
    float s = 1.0f / (1.0f + mtk_exp32(-z));
    return s * (1.0f + x * (1.0f - s) * (1.59576912f * (1.0f + 0.134145f * x * x)));
}

static inline float mtk_gelu_slope(float x)
{
    return mtk_phi(x) + x * (0.398942280f * mtk_exp32(-0.5f * x * x));
}

static inline float mtk_relu_slope(float x)
{
    return x > 0.0f ? 1.0f : 0.0f;
}

static inline float mtk_relu2_slope(float x)
{
    return 2.0f * mtk_relu(x);
}
#endif
