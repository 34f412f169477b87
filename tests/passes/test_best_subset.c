#include "passes/lib/best_subset.h"

#include "lib/base/rng.h"
#include "tests/t.h"

#define N 7
#define D 5

struct parts {
    double f[N][D], y[D], gram[N * N], dot[N];
};

static void random_parts(uint64_t seed, struct parts *p)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    memset(p, 0, sizeof *p);
    for (int e = 0; e < N; e++)
        for (int c = 0; c < D; c++) {
            p->f[e][c] = mt_rng_normal(&r) + (e % 2 == 0 ? 1 : -1);
            p->y[c] += p->f[e][c];
        }
    for (int a = 0; a < N; a++)
        for (int c = 0; c < D; c++) {
            p->dot[a] += p->f[a][c] * p->y[c];
            for (int b = 0; b < N; b++)
                p->gram[a * N + b] += p->f[a][c] * p->f[b][c];
        }
}

/* |y - c sum of f over the bits of `set`|^2, by loops. */
static double distance(const struct parts *p, double by, unsigned set)
{
    double sum = 0;

    for (int c = 0; c < D; c++) {
        double v = p->y[c];
        for (int e = 0; e < N; e++)
            v -= (set >> e & 1U) != 0 ? by * p->f[e][c] : 0;
        sum += v * v;
    }
    return sum;
}

static double best_of_size(const struct parts *p, double by, int k)
{
    double least = INFINITY;

    for (unsigned set = 0; set < 1U << N; set++) {
        int size = 0;
        for (int e = 0; e < N; e++)
            size += (int)(set >> e & 1U);
        if (size == k)
            least = fmin(least, distance(p, by, set));
    }
    return least;
}

T_TEST(the_best_of_all_subsets_is_found)
{
    struct parts p;
    bool in[N];

    for (uint64_t seed = 1; seed <= 20; seed++) {
        random_parts(seed, &p);
        double square = distance(&p, 1, 0);
        for (int k = 0; k <= N; k++)
            for (int scaled = 0; scaled < 2; scaled++) {
                double by = scaled == 1 && k > 0 ? (double)N / k : 1;
                double got = mt_best_subset(p.gram, p.dot, by, N, k, in) + square;
                unsigned set = 0;
                int size = 0;
                for (int e = 0; e < N; e++) {
                    set |= (in[e] ? 1U : 0U) << e;
                    size += in[e];
                }
                T_EQ_INT(t, size, k);
                T_NEAR(t, got, distance(&p, by, set), 1e-9 * (1 + square));
                T_NEAR(t, got, best_of_size(&p, by, k), 1e-9 * (1 + square));
            }
    }
}

/* Spec dense_to_moe section 6, number 9. Of exactly k the error may rise, because contributions
 * cancel; of at most k it never does. All of them are the whole. */
T_TEST(more_experts_are_never_worse_under_the_oracle)
{
    struct parts p;
    bool in[N], rises = false;

    for (uint64_t seed = 1; seed <= 50; seed++) {
        random_parts(seed, &p);
        double square = distance(&p, 1, 0), before = square, exactly = square;
        for (int k = 1; k <= N; k++) {
            double now = mt_best_subset(p.gram, p.dot, 1, N, k, in) + square;
            rises = rises || now > exactly + 1e-9;
            exactly = now;
            double at_most = fmin(now, before);
            T_CHECK(t, at_most <= before);
            double brute = INFINITY;
            for (int j = 0; j <= k; j++)
                brute = fmin(brute, best_of_size(&p, 1, j));
            T_NEAR(t, at_most, brute, 1e-9 * (1 + square));
            before = at_most;
        }
        T_NEAR(t, exactly, 0, 1e-9 * (1 + square));
    }
    T_CHECK(t, rises);
}

T_TEST(subsets_are_counted)
{
    T_EQ_INT(t, mt_subsets(4, 2), 6);
    T_EQ_INT(t, mt_subsets(16, 8), 12870);
    T_EQ_INT(t, mt_subsets(8, 0), 1);
    T_EQ_INT(t, mt_subsets(8, 8), 1);
    T_EQ_INT(t, mt_subsets(64, 32), MT_SUBSETS_MAX + 1);
}
