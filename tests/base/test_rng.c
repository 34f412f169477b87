#include "lib/base/rng.h"

#include "tests/t.h"

#include <stdlib.h>

T_TEST(the_generator_is_xoshiro256starstar)
{
    /* First outputs from state {1, 2, 3, 4}, from the definition. */
    struct mt_rng r = {{1, 2, 3, 4}};

    T_CHECK(t, mt_rng_u64(&r) == 11520);
    T_CHECK(t, mt_rng_u64(&r) == 0);
    T_CHECK(t, mt_rng_u64(&r) == 1509978240);
    T_CHECK(t, mt_rng_u64(&r) == 1215971899390074240u);
}

T_TEST(seeds_and_streams_differ_and_repeat)
{
    struct mt_rng a, b;
    int same = 0;

    mt_rng_seed(&a, 7, 3);
    mt_rng_seed(&b, 7, 3);
    for (int i = 0; i < 100; i++)
        T_CHECK(t, mt_rng_u64(&a) == mt_rng_u64(&b));
    for (uint64_t seed = 0; seed < 20; seed++) {
        for (uint64_t stream = 0; stream < 20; stream++) {
            mt_rng_seed(&b, seed, stream);
            mt_rng_seed(&a, stream, seed);
            same += seed != stream && mt_rng_u64(&a) == mt_rng_u64(&b);
        }
    }
    T_EQ_INT(t, same, 0);
}

T_TEST(unit_numbers_fill_the_interval)
{
    struct mt_rng r;
    double sum = 0;

    mt_rng_seed(&r, 1, 0);
    for (int i = 0; i < 100000; i++) {
        double u = mt_rng_unit(&r);
        T_CHECK(t, u >= 0 && u < 1);
        sum += u;
    }
    T_NEAR(t, sum / 100000, 0.5, 0.005);
}

T_TEST(bounded_numbers_are_even)
{
    struct mt_rng r;
    int n[7] = {0};

    mt_rng_seed(&r, 2, 0);
    for (int i = 0; i < 70000; i++)
        n[mt_rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++)
        T_NEAR(t, n[i], 10000, 400);
    T_CHECK(t, mt_rng_below(&r, 1) == 0);
    T_CHECK(t, mt_rng_below(&r, UINT64_MAX) < UINT64_MAX);
}

T_TEST(normal_numbers_have_the_moments)
{
    struct mt_rng r;
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    const int n = 200000;

    mt_rng_seed(&r, 3, 0);
    for (int i = 0; i < n; i++) {
        double x = mt_rng_normal(&r);
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
    }
    T_NEAR(t, m1 / n, 0, 0.01);
    T_NEAR(t, m2 / n, 1, 0.015);
    T_NEAR(t, m3 / n, 0, 0.03);
    T_NEAR(t, m4 / n, 3, 0.1);
}

T_TEST(a_normal_number_matches_the_formula)
{
    struct mt_rng r, copy;

    mt_rng_seed(&r, 4, 0);
    for (int i = 0; i < 1000; i++) {
        double u, v, s;
        copy = r;
        do {
            u = 2 * mt_rng_unit(&copy) - 1;
            v = 2 * mt_rng_unit(&copy) - 1;
            s = u * u + v * v;
        } while (s >= 1 || s <= 0);
        double want = u * sqrt(-2 * log(s) / s);
        T_NEAR(t, mt_rng_normal(&r), want, 1e-14 * (1 + fabs(want)));
    }
}

T_TEST(shuffling_permutes_evenly)
{
    struct mt_rng r;
    int first[5] = {0};

    mt_rng_seed(&r, 5, 0);
    for (int round = 0; round < 20000; round++) {
        int32_t v[5] = {0, 1, 2, 3, 4};
        int seen = 0;
        mt_rng_shuffle_i32(&r, v, 5);
        for (int i = 0; i < 5; i++)
            seen |= 1 << v[i];
        T_EQ_INT(t, seen, 31);
        first[v[0]]++;
    }
    for (int i = 0; i < 5; i++)
        T_NEAR(t, first[i], 4000, 300);
}
