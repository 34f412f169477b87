#include "lib/flow/exact.h"

#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>

static struct mt_exact sum_of(const double *v, const int *order, int n)
{
    struct mt_exact s = {0};

    for (int i = 0; i < n; i++)
        if (!mt_exact_add(&s, v[order[i]]))
            abort();
    return s;
}

/* Terms over 40 orders of magnitude, so that plain doubles lose most of them in some orders. */
T_TEST(any_order_and_grouping_gives_the_same_bits)
{
    enum { N = 500 };
    struct mt_rng rng;
    double v[N];
    int order[N];
    struct mt_exact first;
    bool plain_differs = false;
    double plain0 = 0;

    mt_rng_seed(&rng, 7, 0);
    for (int i = 0; i < N; i++) {
        v[i] = mt_rng_normal(&rng) * pow(10, (double)mt_rng_below(&rng, 36) - 18);
        order[i] = i;
        plain0 += v[i];
    }
    first = sum_of(v, order, N);
    for (int round = 0; round < 50; round++) {
        struct mt_exact a, b;
        double plain = 0;
        for (int i = N - 1; i > 0; i--) {
            int j = (int)mt_rng_below(&rng, (uint64_t)i + 1), k = order[i];
            order[i] = order[j];
            order[j] = k;
        }
        int cut = (int)mt_rng_below(&rng, N);
        a = sum_of(v, order, cut);
        b = sum_of(v, order + cut, N - cut);
        T_CHECK(t, mt_exact_merge(&a, &b));
        T_CHECK(t, a.lo == first.lo && a.hi == first.hi);
        for (int i = 0; i < N; i++)
            plain += v[order[i]];
        plain_differs = plain_differs || plain != plain0;
    }
    T_CHECK(t, plain_differs); /* or this test could not fail */
}

T_TEST(values_are_those_of_doubles_where_they_fit)
{
    const double v[] = {0,
                        1,
                        -1,
                        0.5,
                        1e15 + 0.5,
                        -3.25e-10,
                        1e18,
                        -9e18,
                        0x1p-64,
                        -0x1p-64,
                        0x1.fffffffffffffp+10,
                        123456.789};

    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        struct mt_exact s = {0};
        T_CHECK(t, mt_exact_add(&s, v[i]));
        T_NEAR(t, mt_exact_value(&s), v[i], 0x1p-65);
        if (fabs(v[i]) >= 1)
            T_CHECK(t, mt_exact_value(&s) == v[i]);
    }
}

T_TEST(a_term_is_rounded_by_itself)
{
    struct mt_exact s = {0};

    for (int i = 0; i < 1000; i++)
        T_CHECK(t, mt_exact_add(&s, 0x1p-66)); /* each rounds to nothing */
    T_CHECK(t, s.lo == 0 && s.hi == 0);
    T_CHECK(t, mt_exact_add(&s, 0x1.8p-64)); /* ties to even: two units */
    T_EQ_INT(t, s.lo, 2);
    T_CHECK(t, mt_exact_add(&s, -0x1p-63));
    T_CHECK(t, s.lo == 0 && s.hi == 0);
}

/* The sum of many is rounded once, not at every step. */
T_TEST(small_terms_are_not_lost_beside_large_ones)
{
    struct mt_exact s = {0};

    T_CHECK(t, mt_exact_add(&s, 1e15));
    for (int i = 0; i < 1000; i++)
        T_CHECK(t, mt_exact_add(&s, 0x1p-10));
    T_CHECK(t, mt_exact_add(&s, -1e15));
    T_CHECK(t, mt_exact_value(&s) == 1000 * 0x1p-10);
}

T_TEST(what_does_not_fit_is_told_and_changes_nothing)
{
    struct mt_exact s = {0}, other = {0};

    T_CHECK(t, !mt_exact_add(&s, NAN));
    T_CHECK(t, !mt_exact_add(&s, INFINITY));
    T_CHECK(t, !mt_exact_add(&s, -INFINITY));
    T_CHECK(t, !mt_exact_add(&s, 0x1p63));
    T_CHECK(t, s.lo == 0 && s.hi == 0);
    T_CHECK(t, mt_exact_add(&s, 9e18));
    T_CHECK(t, !mt_exact_add(&s, 9e18));
    T_CHECK(t, mt_exact_value(&s) == 9e18);
    T_CHECK(t, mt_exact_add(&other, 9e18));
    T_CHECK(t, !mt_exact_merge(&s, &other));
    T_CHECK(t, mt_exact_value(&s) == 9e18);
}
