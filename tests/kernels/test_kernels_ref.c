#include "kernels/kernels.h"
#include "kernels/ref/math.inc.h"
#include "tests/t.h"

#include <stdlib.h>

static const char *const isas[] = {"ref", "avx2", "avx512"};

/* What a 16-bit pattern means, by the definition of the format: no code shared with the kernels. */
static double value_of(uint16_t h, int exp_bits)
{
    int man_bits = 15 - exp_bits, bias = (1 << (exp_bits - 1)) - 1;
    int exp = h >> man_bits & ((1 << exp_bits) - 1), man = h & ((1 << man_bits) - 1);
    double sign = (h & 0x8000) != 0 ? -1.0 : 1.0;

    if (exp == (1 << exp_bits) - 1)
        return man != 0 ? NAN : sign * INFINITY;
    if (exp == 0)
        return sign * ldexp(man, 1 - bias - man_bits);
    return sign * ldexp(man + (1 << man_bits), exp - bias - man_bits);
}

/* All 65536 patterns to float and back, in one array, so that vector loops and tails both see
 * them; `from` shifts the array within it. */
static void check_all_patterns(struct t *t, const struct mt_kernels *k, enum mt_dtype type,
                               size_t from)
{
    int exp_bits = type == MT_F16 ? 5 : 8;
    uint16_t man = type == MT_F16 ? 0x3ff : 0x7f, quiet = type == MT_F16 ? 0x200 : 0x40;
    size_t n = 65536 - from;
    uint16_t *h = malloc(65536 * 2), *back = malloc(65536 * 2 + 1);
    float *f = malloc(65536 * 4);
    char *odd = (char *)back + 1; /* stored bytes may lie anywhere */

    for (size_t i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    memcpy(odd, h + from, n * 2);
    k->to_f32(type, odd, f, n);
    k->from_f32(type, f, odd, n);
    for (size_t i = 0; i < n && !t->failed; i++) {
        uint16_t was = (uint16_t)(i + from), got;
        double want = value_of(was, exp_bits);
        memcpy(&got, odd + 2 * i, 2);
        if (isnan(want) ? !isnan(f[i])
                        : (double)f[i] != want || (signbit(f[i]) != 0) != (was >> 15))
            t_fail(t, __FILE__, __LINE__, "%s %s 0x%04x became %g", k->isa, mt_dtype_name(type),
                   was, (double)f[i]);
        if (got != (isnan(want) ? (was | quiet) : was) || (isnan(want) && (got & man) == 0))
            t_fail(t, __FILE__, __LINE__, "%s %s 0x%04x came back as 0x%04x", k->isa,
                   mt_dtype_name(type), was, got);
    }
    free(h);
    free(back);
    free(f);
}

T_TEST(every_16_bit_pattern_survives)
{
    for (size_t i = 0; i < 3; i++) {
        const struct mt_kernels *k = mt_kernels_named(isas[i]);
        for (size_t from = 0; k != NULL && from < 20; from += 3) {
            check_all_patterns(t, k, MT_F16, from);
            check_all_patterns(t, k, MT_BF16, from);
        }
    }
}

/* The floats at and beside the middle of two neighbours go to the right one; ties to even. */
static void check_midpoints(struct t *t, const struct mt_kernels *k, enum mt_dtype type)
{
    uint16_t inf = type == MT_F16 ? 0x7c00 : 0x7f80;
    size_t n = (size_t)inf * 3;
    float *f = malloc(n * 2 * sizeof *f);
    uint16_t *h = malloc(n * 2 * sizeof *h);

    for (uint16_t i = 0; i < inf; i++) {
        double a = value_of(i, type == MT_F16 ? 5 : 8);
        double b = i + 1 < inf ? value_of((uint16_t)(i + 1), type == MT_F16 ? 5 : 8)
                               : (type == MT_F16 ? 65536.0 : 0x1p128);
        float mid = (float)((a + b) / 2);
        f[3 * i] = nextafterf(mid, 0.0f);
        f[3 * i + 1] = mid;
        f[3 * i + 2] = nextafterf(mid, INFINITY);
    }
    for (size_t i = 0; i < n; i++)
        f[n + i] = -f[i];
    k->from_f32(type, f, h, 2 * n);
    for (size_t i = 0; i < 2 * n && !t->failed; i++) {
        size_t a = i % n / 3;
        size_t want = i % 3 == 0 ? a : i % 3 == 2 ? a + 1 : a + (a & 1);
        want |= i >= n ? 0x8000u : 0u;
        if (h[i] != want)
            t_fail(t, __FILE__, __LINE__, "%s %s: %a became 0x%04x, not 0x%04x", k->isa,
                   mt_dtype_name(type), (double)f[i], h[i], (unsigned)want);
    }
    free(f);
    free(h);
}

T_TEST(floats_near_every_midpoint_round_to_nearest_even)
{
    for (size_t i = 0; i < 3; i++) {
        const struct mt_kernels *k = mt_kernels_named(isas[i]);
        if (k == NULL)
            continue;
        check_midpoints(t, k, MT_F16);
        check_midpoints(t, k, MT_BF16);
    }
}

T_TEST(nan_payloads_are_quieted_and_kept)
{
    static const uint32_t nans[] = {0x7f800001u, 0x7fc00000u, 0xff812345u, 0x7fffffffu,
                                    0xffabcdefu, 0x7f802000u, 0x7f801fffu, 0xff800001u};

    for (size_t i = 0; i < 3; i++) {
        const struct mt_kernels *k = mt_kernels_named(isas[i]);
        uint16_t f16[24], bf16[24];
        float f[24];
        if (k == NULL)
            continue;
        for (size_t j = 0; j < 24; j++)
            memcpy(&f[j], &nans[j % 8], 4);
        k->from_f32(MT_F16, f, f16, 23);
        k->from_f32(MT_BF16, f, bf16, 23);
        for (size_t j = 0; j < 23; j++) {
            uint32_t u = nans[j % 8], sign = u >> 16 & 0x8000u;
            T_CHECK(t, f16[j] == (sign | 0x7e00u | (u >> 13 & 0x3ffu)));
            T_CHECK(t, bf16[j] == (u >> 16 | 0x40u));
        }
    }
}

T_TEST(doubles_and_floats_convert_by_the_language)
{
    double d[37];
    float f[37];
    char bytes[37 * 8 + 3];

    for (int i = 0; i < 37; i++)
        d[i] = ldexp(1.0 / 3 + i, 9 * i - 180) * (i % 2 == 0 ? 1 : -1);
    d[5] = 1e300;
    d[6] = -1e-310;
    d[7] = NAN;
    for (size_t i = 0; i < 3; i++) {
        const struct mt_kernels *k = mt_kernels_named(isas[i]);
        if (k == NULL)
            continue;
        memcpy(bytes + 3, d, sizeof d);
        k->to_f32(MT_F64, bytes + 3, f, 37);
        for (int j = 0; j < 37; j++) {
            float want = (float)d[j];
            T_CHECK(t, mtk_bits32(want) == mtk_bits32(f[j]) || (isnan(want) && isnan(f[j])));
        }
        k->from_f32(MT_F64, f, bytes + 3, 37);
        for (int j = 0; j < 37; j++) {
            double got, want = (double)f[j];
            memcpy(&got, bytes + 3 + 8 * j, 8);
            T_CHECK(t, mtk_bits64(want) == mtk_bits64(got) || isnan(want));
        }
        k->from_f32(MT_F32, f, bytes + 3, 37);
        T_CHECK(t, memcmp(bytes + 3, (const void *)f, sizeof f) == 0);
        k->to_f32(MT_F32, bytes + 3, f, 37);
        T_CHECK(t, memcmp(bytes + 3, (const void *)f, sizeof f) == 0);
    }
}

static size_t store(enum mt_dtype type, char *dst, size_t i, float v)
{
    size_t width = mt_dtype_bits(type) / 8;

    mt_kernels_named("ref")->from_f32(type, &v, dst + i * width, 1);
    return width;
}

T_TEST(the_first_nonfinite_value_is_found)
{
    static const enum mt_dtype types[] = {MT_F64, MT_F32, MT_F16, MT_BF16};
    static const size_t places[] = {0, 1, 15, 16, 63, 1023, 1024, 1025, 2999};
    static char raw[3001 * 8 + 1];

    for (size_t i = 0; i < 3; i++) {
        const struct mt_kernels *k = mt_kernels_named(isas[i]);
        for (size_t y = 0; k != NULL && y < 4; y++) {
            char *b = raw + 1;
            for (size_t j = 0; j < 3000; j++)
                store(types[y], b, j, j % 2 == 0 ? 60000.0f : -1e-7f);
            T_CHECK(t, k->find_nonfinite(types[y], b, 3000) == 3000);
            T_CHECK(t, k->find_nonfinite(types[y], b, 0) == 0);
            store(types[y], b, 2999, -INFINITY);
            for (size_t p = sizeof places / sizeof places[0]; p-- > 0;) {
                store(types[y], b, places[p], p % 2 == 0 ? NAN : INFINITY);
                T_CHECK(t, k->find_nonfinite(types[y], b, 3000) == places[p]);
                T_CHECK(t, k->find_nonfinite(types[y], b, places[p]) == places[p]);
            }
        }
    }
}

T_TEST(exp_is_within_its_stated_error)
{
    double worst = 0, worst64 = 0;

    for (uint64_t u = 0; u < 0x100000000u; u += 2003) {
        float x = mtk_float32((uint32_t)u);
        if (x > -87.3f && x < 88.7f)
            worst = fmax(worst, fabs((double)mtk_exp32(x) / exp((double)x) - 1));
    }
    for (int i = 0; i < 186000; i++) {
        double x = -0.0037 * i;
        worst64 = fmax(worst64, fabs(mtk_exp64_neg(x) / exp(x) - 1));
    }
    T_NEAR(t, worst, 0, 1e-7);
    T_NEAR(t, worst64, 0, 1e-15);
    T_CHECK(t, mtk_exp32(-INFINITY) == 0.0f && mtk_exp32(-200.0f) == 0.0f);
    T_CHECK(t, isinf(mtk_exp32(INFINITY)) && isinf(mtk_exp32(88.8f)));
    T_CHECK(t, isnan(mtk_exp32(NAN)) && isnan(mtk_exp64_neg(NAN)));
    T_CHECK(t, mtk_exp32(0.0f) == 1.0f && mtk_exp64_neg(0.0) == 1.0);
    T_NEAR(t, mtk_exp32(-95.0f), exp(-95.0), 1.5e-45);
}

T_TEST(activations_follow_their_formulas)
{
    const struct mt_kernels *k = mt_kernels_named("ref");

    for (int act = MT_ACT_SILU; act <= MT_ACT_QUICK_GELU; act++)
        for (int i = -2200; i < 2200; i++) {
            float h, x = 0.0137f * (float)i;
            double want = mt_act_f64((enum mt_act)act, (double)x);
            k->act_mul((enum mt_act)act, &h, &x, NULL, 1);
            /* Quick GELU rounds 1.702 x before it is raised to e: up to 51 times 6e-8. */
            double rel = act == MT_ACT_QUICK_GELU ? 4e-6 : x < 0 ? 2e-6 : 3e-7;
            T_NEAR(t, h, want, rel * fabs(want) + 5e-11);
        }
    T_CHECK(t, strcmp(mt_act_name(MT_ACT_GELU_TANH), "gelu_tanh") == 0);
}

T_TEST(slopes_are_those_of_the_activations)
{
    const struct mt_kernels *k = mt_kernels_named("ref");

    for (int act = MT_ACT_SILU; act <= MT_ACT_QUICK_GELU; act++)
        for (int i = -2200; i < 2200; i++) {
            enum mt_act a = (enum mt_act)act;
            float x = 0.0137f * (float)i + 0.001f, u = 1.5f, dh = -0.75f, dg, du;
            double e = 1e-5, at = (double)x;
            double slope = (mt_act_f64(a, at + e) - mt_act_f64(a, at - e)) / (2 * e);
            T_NEAR(t, mt_act_slope_f64(a, at), slope, 1e-7 * (1 + fabs(slope)));
            k->act_grad(a, &dg, NULL, &x, NULL, &dh, 1);
            T_NEAR(t, dg, mt_act_slope_f64(a, at) * -0.75, 2e-6 + 1e-6 * fabs(at));
            k->act_grad(a, &dg, &du, &x, &u, &dh, 1);
            T_NEAR(t, dg, mt_act_slope_f64(a, at) * -0.75 * 1.5, 3e-6 + 2e-6 * fabs(at));
            T_NEAR(t, du, mt_act_f64(a, at) * -0.75, 4e-6 * fabs(mt_act_f64(a, at)) + 5e-11);
        }
    for (int act = MT_ACT_SILU; act <= MT_ACT_QUICK_GELU; act++) {
        float x[] = {-1e4f, 1e4f, 0}, one[] = {1, 1, 1}, dg[3];
        k->act_grad((enum mt_act)act, dg, NULL, x, NULL, one, 3);
        T_NEAR(t, dg[0], 0, 1e-6);
        T_NEAR(t, dg[1], act == MT_ACT_RELU2 ? 2e4 : 1, 1e-6);
        T_NEAR(t, dg[2], act == MT_ACT_RELU || act == MT_ACT_RELU2 ? 0 : 0.5, 1e-7);
    }
}

T_TEST(adam_steps_by_its_formula)
{
    const struct mt_kernels *k = mt_kernels_named("ref");
    const struct mt_adam_step s = {
        .beta1 = 0.9f, .beta2 = 0.99f, .rate = 0.02f, .grow2 = 50, .eps = 1e-3f};
    float w[] = {1, -2, 0, 5}, m1[] = {0.5f, 0, 0, -1}, m2[] = {0.04f, 0, 0, 9};
    const float g[] = {-3, 0.25f, 0, 1};

    for (int i = 0; i < 4; i++) {
        float got = w[i], a = m1[i], b = m2[i];
        double want1 = 0.9 * (double)a + 0.1 * (double)g[i];
        double want2 = 0.99 * (double)b + 0.01 * (double)g[i] * (double)g[i];
        k->adam(&s, &got, &a, &b, &g[i], 1);
        T_NEAR(t, a, want1, 1e-6);
        T_NEAR(t, b, want2, 1e-6);
        T_NEAR(t, got, (double)w[i] - 0.02 * want1 / (sqrt(50 * want2) + 1e-3), 1e-6);
        if (i == 2)
            T_CHECK(t, got == 0 && a == 0 && b == 0);
    }
}

T_TEST(activations_in_fp64_are_the_textbooks)
{
    T_NEAR(t, mt_act_f64(MT_ACT_SILU, 1.5), 1.5 / (1 + exp(-1.5)), 1e-15);
    T_NEAR(t, mt_act_f64(MT_ACT_GELU, 1.0), 0.84134474606854293, 1e-15); /* Phi(1) */
    T_NEAR(t, mt_act_f64(MT_ACT_GELU, -1.0), -0.15865525393145707, 1e-15);
    T_NEAR(t, mt_act_f64(MT_ACT_GELU_TANH, 1.0), 0.84119199060827676, 1e-12);
    T_NEAR(t, mt_act_f64(MT_ACT_RELU, -2.0), 0, 0);
    T_NEAR(t, mt_act_f64(MT_ACT_RELU2, 3.0), 9, 0);
}

/* Sums against plain double loops. */
T_TEST(reductions_agree_with_plain_loops)
{
    enum { N = 1037 };
    static float a[N], b[N], y[N];
    const struct mt_kernels *k = mt_kernels_named("ref");

    for (size_t n = 1; n <= N; n += n < 40 ? 1 : 83) {
        double dot = 0, size = 0, sq = 0, sum = 0, max = -INFINITY, lse = 0;
        for (size_t i = 0; i < n; i++) {
            a[i] = sinf((float)(i * n)) * 4;
            b[i] = cosf((float)i) + 0.1f;
            dot += (double)a[i] * (double)b[i];
            size += fabs((double)a[i] * (double)b[i]);
            sq += (double)a[i] * (double)a[i];
            max = fmax(max, (double)a[i]);
        }
        for (size_t i = 0; i < n; i++)
            lse += exp((double)a[i] - max);
        T_NEAR(t, k->dot(a, b, n), dot, 1e-6 * size);
        T_NEAR(t, k->sumsq(a, n), sq, 1e-14 * sq + 1e-300);
        T_NEAR(t, k->logsumexp(a, n), log(lse) + max, 1e-13);
        memcpy(y, a, sizeof y);
        T_NEAR(t, k->softmax(y, n), log(lse) + max, 2e-7);
        for (size_t i = 0; i < n; i++) {
            sum += (double)y[i];
            T_NEAR(t, y[i], exp((double)a[i] - max) / lse, 1e-6 * exp((double)a[i] - max) / lse);
        }
        T_NEAR(t, sum, 1, 1e-6);
        memcpy(y, b, sizeof y);
        k->axpy(y, 0.5f, a, n);
        T_CHECK(t, y[n - 1] == b[n - 1] + 0.5f * a[n - 1] && (n == N || y[n] == b[n]));
        k->rmsnorm(y, a, b, 1.0f, n, 1e-5f);
        for (size_t i = 0; i < n; i++)
            T_NEAR(t, y[i], (double)a[i] / sqrt(sq / (double)n + 1e-5) * ((double)b[i] + 1), 3e-6);
    }
}

/* sum p (ln p - ln q), every term by itself in long double. */
static double kl_plain(const float *a, const float *b, size_t n)
{
    long double za = 0, zb = 0, kl = 0;

    for (size_t i = 0; i < n; i++) {
        za += expl((long double)a[i]);
        zb += expl((long double)b[i]);
    }
    for (size_t i = 0; i < n; i++) {
        long double lp = (long double)a[i] - logl(za), lq = (long double)b[i] - logl(zb);
        kl += expl(lp) * (lp - lq);
    }
    return (double)kl;
}

T_TEST(kl_is_that_of_the_definition)
{
    enum { N = 4133 };
    static float a[N], b[N];
    const struct mt_kernels *k = mt_kernels_named("ref");
    double lse[2];

    for (size_t n = 1; n <= N; n = 2 * n + 1) {
        for (int power = 0; power < 8; power++) {
            double eps = pow(7, -power);
            for (size_t i = 0; i < n; i++) {
                a[i] = sinf((float)(i * n)) * 9 - 20;
                b[i] = a[i] + (float)eps * cosf((float)i) + 11;
            }
            double want = kl_plain(a, b, n);
            T_NEAR(t, k->kl(a, b, n, lse), want, 1e-14 + 1e-12 * want);
            T_NEAR(t, lse[0], k->logsumexp(a, n), 0);
            T_NEAR(t, lse[1], k->logsumexp(b, n), 0);
            T_CHECK(t, k->kl(a, a, n, lse) == 0);
        }
    }
}

T_TEST(kl_stands_extreme_rows)
{
    const struct mt_kernels *k = mt_kernels_get();
    const float low = -INFINITY, a[4] = {0, low, -5000, 3}, one[4] = {low, low, low, 7};
    const float b[4] = {1, 2, -9000, low}, nan_row[4] = {0, NAN, 1, 2};
    double lse[2];

    T_CHECK(t, k->kl(a, a, 4, lse) == 0 && k->kl(one, one, 4, lse) == 0);
    T_NEAR(t, k->kl(one, a, 4, lse), log1p(exp(-3)), 1e-14);
    T_CHECK(t, isinf(k->kl(a, b, 4, lse)));
    T_CHECK(t, isnan(k->kl(a, nan_row, 4, lse)) && isnan(k->kl(nan_row, a, 4, lse)));
}

T_TEST(the_first_of_the_largest_is_found)
{
    const struct mt_kernels *k = mt_kernels_named("ref");
    float x[70];

    for (size_t at = 0; at < 70; at++) {
        for (size_t i = 0; i < 70; i++)
            x[i] = i >= at && (i - at) % 3 == 0 ? 2 : -(float)i;
        T_EQ_INT(t, k->argmax(x, 70), at);
        T_EQ_INT(t, k->argmax(x, at + 1), at);
        x[0] = at > 0 ? NAN : x[0];
        T_EQ_INT(t, k->argmax(x, 70), at);
    }
    x[0] = NAN;
    T_EQ_INT(t, k->argmax(x, 1), 0);
    T_EQ_INT(t, k->argmax(x, 0), 0);
}

T_TEST(softmax_stands_extreme_rows)
{
    float x[5] = {-INFINITY, 1e30f, -1e30f, 1e30f, 0};
    float one = -1e38f;

    mt_kernels_get()->softmax(x, 5);
    T_CHECK(t, x[0] == 0 && x[1] == 0.5f && x[2] == 0 && x[3] == 0.5f && x[4] == 0);
    T_NEAR(t, mt_kernels_get()->softmax(&one, 1), -1e38, 1e31);
    T_CHECK(t, one == 1.0f);
}
