/* Every instruction set gives the bits of the reference. */
#include "kernels/kernels.h"
#include "kernels/ref/math.inc.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>

enum { MAX = 700 };

static const size_t sizes[] = {0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 250, 699};
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

/* Normal numbers among which lie what rounds, overflows, and is no number. */
static void fill(float *x, size_t n, uint64_t seed, bool hostile)
{
    static const float odd[] = {NAN,   INFINITY, -INFINITY, 1e-40f, -1e-45f, 0.0f,   -0.0f,
                                3e38f, 65520.0f, -65519.9f, 6e-8f,  1e-7f,   -5e-5f, 88.9f};
    struct mt_rng r;

    mt_rng_seed(&r, seed, 1);
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)(3 * mt_rng_normal(&r));
        if (hostile && mt_rng_below(&r, 4) == 0)
            x[i] = odd[mt_rng_below(&r, sizeof odd / sizeof odd[0])];
    }
}

/* The same bits, or both NaN: arithmetic on two NaNs keeps either payload. */
static bool same(const void *a, const void *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x, y;
        memcpy(&x, (const char *)a + 4 * i, 4);
        memcpy(&y, (const char *)b + 4 * i, 4);
        if (mtk_bits32(x) != mtk_bits32(y) && !(isnan(x) && isnan(y)))
            return false;
    }
    return true;
}

static bool same_d(double a, double b)
{
    return mtk_bits64(a) == mtk_bits64(b) || (isnan(a) && isnan(b));
}

/* Calls fn for each other instruction set; skips when the machine has none. */
static void each_isa(struct t *t, void (*fn)(struct t *t, const struct mt_kernels *ref,
                                             const struct mt_kernels *k, size_t n, bool hostile))
{
    static const char *const isas[] = {"avx2", "avx512"};
    int found = 0;

    for (size_t i = 0; i < 2; i++) {
        const struct mt_kernels *k = mt_kernels_named(isas[i]);
        found += k != NULL;
        for (size_t s = 0; k != NULL && s < N_SIZES; s++) {
            fn(t, mt_kernels_named("ref"), k, sizes[s], false);
            fn(t, mt_kernels_named("ref"), k, sizes[s], true);
        }
    }
    if (found == 0)
        T_SKIP(t, "this machine has only the reference kernels");
}

static void isa_convert(struct t *t, const struct mt_kernels *ref, const struct mt_kernels *k,
                        size_t n, bool hostile)
{
    static const enum mt_dtype types[] = {MT_F64, MT_F32, MT_F16, MT_BF16};
    float x[MAX], fa[MAX], fb[MAX];
    char a[MAX * 8 + 1] = {0}, b[MAX * 8 + 1] = {0};

    fill(x, n, n, hostile);
    for (size_t i = 0; i < 4; i++) {
        ref->from_f32(types[i], x, a + 1, n);
        k->from_f32(types[i], x, b + 1, n);
        T_CHECK(t, memcmp(a, b, sizeof a) == 0);
        ref->to_f32(types[i], a + 1, fa, n);
        k->to_f32(types[i], a + 1, fb, n);
        T_CHECK(t, n == 0 || memcmp(fa, fb, n * sizeof *fa) == 0);
        T_CHECK(t,
                ref->find_nonfinite(types[i], a + 1, n) == k->find_nonfinite(types[i], a + 1, n));
    }
}

T_TEST(conversions_have_the_same_bits)
{
    each_isa(t, isa_convert);
}

static void isa_training(struct t *t, const struct mt_kernels *ref, const struct mt_kernels *k,
                         size_t n, bool hostile)
{
    const struct mt_adam_step s = {
        .beta1 = 0.9f, .beta2 = 0.99f, .rate = 0.02f, .grow2 = 7, .eps = 1e-8f};
    float g[MAX], u[MAX], dh[MAX], a[4][MAX], b[4][MAX];

    fill(g, n, n + 5, hostile);
    fill(u, n, n + 6, hostile);
    fill(dh, n, n + 7, hostile);
    for (int act = MT_ACT_SILU; act <= MT_ACT_QUICK_GELU; act++) {
        ref->act_grad((enum mt_act)act, a[0], a[1], g, u, dh, n);
        memcpy(b[0], g, sizeof g);
        memcpy(b[1], u, sizeof u);
        k->act_grad((enum mt_act)act, b[0], b[1], b[0], b[1], dh, n);
        T_CHECK(t, same(a[0], b[0], n) && same(a[1], b[1], n));
        ref->act_grad((enum mt_act)act, a[0], NULL, g, NULL, dh, n);
        k->act_grad((enum mt_act)act, b[0], NULL, g, NULL, dh, n);
        T_CHECK(t, same(a[0], b[0], n));
    }
    for (int i = 0; i < 3; i++) {
        fill(a[i], n, n + 8 + (size_t)i, false);
        for (size_t j = 0; i == 2 && j < n; j++)
            a[i][j] = fabsf(a[i][j]);
        memcpy(b[i], a[i], sizeof a[i]);
    }
    ref->adam(&s, a[0], a[1], a[2], g, n);
    k->adam(&s, b[0], b[1], b[2], g, n);
    for (int i = 0; i < 3; i++)
        T_CHECK(t, same(a[i], b[i], n));
}

static void isa_elements(struct t *t, const struct mt_kernels *ref, const struct mt_kernels *k,
                         size_t n, bool hostile)
{
    float x[MAX], u[MAX], a[MAX], b[MAX];

    fill(x, n, n, hostile);
    fill(u, n, n + 1, hostile);
    for (int act = MT_ACT_SILU; act <= MT_ACT_QUICK_GELU; act++) {
        ref->act_mul((enum mt_act)act, a, x, u, n);
        k->act_mul((enum mt_act)act, b, x, u, n);
        T_CHECK(t, same(a, b, n));
        memcpy(b, x, sizeof b);
        k->act_mul((enum mt_act)act, b, b, u, n);
        T_CHECK(t, same(a, b, n));
        ref->act_mul((enum mt_act)act, a, x, NULL, n);
        k->act_mul((enum mt_act)act, b, x, NULL, n);
        T_CHECK(t, same(a, b, n));
    }
    memcpy(a, u, sizeof a);
    memcpy(b, u, sizeof b);
    ref->axpy(a, 1.7f, x, n);
    k->axpy(b, 1.7f, x, n);
    T_CHECK(t, same(a, b, n));
}

T_TEST(elementwise_kernels_have_the_same_bits)
{
    each_isa(t, isa_elements);
}

T_TEST(training_kernels_have_the_same_bits)
{
    each_isa(t, isa_training);
}

static void isa_reduce(struct t *t, const struct mt_kernels *ref, const struct mt_kernels *k,
                       size_t n, bool hostile)
{
    float x[MAX], u[MAX], a[MAX], b[MAX];

    fill(x, n, n, hostile);
    fill(u, n, n + 1, hostile);
    a[0] = ref->dot(x, u, n);
    b[0] = k->dot(x, u, n);
    T_CHECK(t, same(a, b, 1));
    T_CHECK(t, same_d(ref->sumsq(x, n), k->sumsq(x, n)));
    T_CHECK(t, same_d(ref->logsumexp(x, n), k->logsumexp(x, n)));
    ref->rmsnorm(a, x, u, 1.0f, n, 1e-6f);
    k->rmsnorm(b, x, u, 1.0f, n, 1e-6f);
    T_CHECK(t, same(a, b, n));
    memcpy(b, x, sizeof b);
    k->rmsnorm(b, b, u, 1.0f, n, 1e-6f);
    T_CHECK(t, same(a, b, n));
    memcpy(a, x, sizeof a);
    memcpy(b, x, sizeof b);
    T_CHECK(t, same_d(ref->softmax(a, n), k->softmax(b, n)));
    T_CHECK(t, same(a, b, n));
}

static void isa_kl(struct t *t, const struct mt_kernels *ref, const struct mt_kernels *k, size_t n,
                   bool hostile)
{
    float x[MAX], u[MAX];
    double a[2], b[2];

    fill(x, n, n, hostile);
    fill(u, n, n + 1, hostile);
    T_CHECK(t, same_d(ref->kl(x, u, n, a), k->kl(x, u, n, b)));
    T_CHECK(t, same_d(a[0], b[0]) && same_d(a[1], b[1]));
    T_CHECK(t, same_d(a[0], k->logsumexp(x, n)) && same_d(a[1], k->logsumexp(u, n)));
    T_CHECK(t, hostile || n == 0 || k->kl(x, x, n, b) == 0);
    T_EQ_INT(t, ref->argmax(x, n), k->argmax(x, n));
}

T_TEST(divergences_have_the_same_bits)
{
    each_isa(t, isa_kl);
}

T_TEST(reductions_have_the_same_bits)
{
    each_isa(t, isa_reduce);
}

static void isa_gemv(struct t *t, const struct mt_kernels *ref, const struct mt_kernels *k,
                     size_t n, bool hostile)
{
    static const enum mt_dtype types[] = {MT_F64, MT_F32, MT_F16, MT_BF16};
    static char stored[9 * MAX * 8 + 1];
    static float w[9 * MAX];
    float x[MAX], a[9], b[9];

    fill(w, 9 * n, n + 2, hostile);
    fill(x, n, n, false);
    for (size_t i = 0; i < 4; i++) {
        size_t row = n * (mt_dtype_bits(types[i]) / 8);
        ref->from_f32(types[i], w, stored + 1, 9 * n);
        for (size_t rows = 0; rows <= 9; rows++) {
            memset(a, 0, sizeof a);
            memset(b, 0, sizeof b);
            ref->gemv(types[i], stored + 1, row, rows, n, x, a);
            k->gemv(types[i], stored + 1, row, rows, n, x, b);
            T_CHECK(t, same(a, b, 9));
        }
        for (size_t r = 0; r < 9; r++) { /* and a row is what dot gives for it */
            float f[MAX], d;
            ref->to_f32(types[i], stored + 1 + r * row, f, n);
            d = ref->dot(f, x, n);
            T_CHECK(t, same(&d, &b[r], 1));
        }
    }
}

T_TEST(matrix_times_vector_has_the_same_bits)
{
    each_isa(t, isa_gemv);
}

T_TEST(tables_are_found_by_name)
{
    const char *wish = getenv("MOETOOL_ISA");

    T_CHECK(t, mt_kernels_get() != NULL);
    T_CHECK(t, mt_kernels_named("ref") != NULL);
    T_CHECK(t, strcmp(mt_kernels_named("ref")->isa, "ref") == 0);
    T_CHECK(t, mt_kernels_named("sparc") == NULL);
    if (wish != NULL && mt_kernels_named(wish) != NULL)
        T_CHECK(t, strcmp(mt_kernels_get()->isa, wish) == 0);
}
