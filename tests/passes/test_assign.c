#include "lib/base/rng.h"
#include "passes/lib/assign.h"
#include "tests/t.h"

#include <stdlib.h>

#define N_MAX 220
#define K_MAX 24

/* Cheapest completion from point i on, by trying everything. */
static double brute(int n, int k, const double *cost, int64_t *left, int i)
{
    double best = INFINITY;

    if (i == n)
        return 0;
    for (int c = 0; c < k; c++) {
        if (left[c] == 0)
            continue;
        left[c]--;
        best = fmin(best, cost[i * k + c] + brute(n, k, cost, left, i + 1));
        left[c]++;
    }
    return best;
}

/* Square assignment by shortest augmenting paths with potentials, columns being cluster slots. */
static double hungarian(int n, int k, const double *cost, const int64_t *cap)
{
    static double u[N_MAX + 1], v[N_MAX + 1], least[N_MAX + 1];
    static int owner[N_MAX + 1], way[N_MAX + 1], cluster[N_MAX + 1];
    static char used[N_MAX + 1];
    int slots = 0;

    for (int c = 0; c < k; c++)
        for (int64_t i = 0; i < cap[c]; i++)
            cluster[++slots] = c;
    memset(u, 0, sizeof(u));
    memset(v, 0, sizeof(v));
    memset(owner, 0, sizeof(owner));
    for (int i = 1; i <= n; i++) {
        int j0 = 0;
        owner[0] = i;
        for (int j = 0; j <= n; j++)
            least[j] = INFINITY;
        memset(used, 0, sizeof(used));
        do {
            int i0 = owner[j0], j1 = 0;
            double delta = INFINITY;
            used[j0] = 1;
            for (int j = 1; j <= n; j++) {
                if (used[j])
                    continue;
                double r = cost[(i0 - 1) * k + cluster[j]] - u[i0] - v[j];
                if (r < least[j]) {
                    least[j] = r;
                    way[j] = j0;
                }
                if (least[j] < delta) {
                    delta = least[j];
                    j1 = j;
                }
            }
            for (int j = 0; j <= n; j++) {
                if (used[j]) {
                    u[owner[j]] += delta;
                    v[j] -= delta;
                } else {
                    least[j] -= delta;
                }
            }
            j0 = j1;
        } while (owner[j0] != 0);
        do {
            int j1 = way[j0];
            owner[j0] = owner[j1];
            j0 = j1;
        } while (j0 != 0);
    }
    double sum = 0;
    for (int j = 1; j <= n; j++)
        sum += cost[(owner[j] - 1) * k + cluster[j]];
    return sum;
}

/* Total cost of `to`; NaN when sizes are not as asked. */
static double total(int n, int k, const double *cost, const int64_t *cap, const int32_t *to)
{
    int64_t load[K_MAX] = {0};
    double sum = 0;

    for (int i = 0; i < n; i++) {
        if (to[i] < 0 || to[i] >= k)
            return NAN;
        load[to[i]]++;
        sum += cost[i * k + to[i]];
    }
    for (int c = 0; c < k; c++)
        if (load[c] != cap[c])
            return NAN;
    return sum;
}

static void random_caps(struct mt_rng *r, int n, int k, bool even, int64_t *cap)
{
    for (int c = 0; c < k; c++)
        cap[c] = even ? n / k + (c < n % k) : 0;
    for (int i = 0; i < n && !even; i++)
        cap[mt_rng_below(r, (uint64_t)k)]++;
}

/* kind 0: continuous; 1: a handful of integers, so nearly everything ties; 2: most points want
 * the same cluster. */
static void random_costs(struct mt_rng *r, int n, int k, int kind, double *cost)
{
    for (int i = 0; i < n * k; i++) {
        cost[i] = kind == 1 ? (double)mt_rng_below(r, 3) : mt_rng_unit(r);
        if (kind == 2 && i % k == 0)
            cost[i] -= 0.7;
    }
}

T_TEST(equals_brute_force_on_small_cases)
{
    struct mt_rng r;
    double cost[10 * 5];
    int64_t cap[5], left[5];
    int32_t to[10];

    mt_rng_seed(&r, 7, 0);
    for (int round = 0; round < 600; round++) {
        int n = 1 + (int)mt_rng_below(&r, 10), k = 1 + (int)mt_rng_below(&r, n > 8 ? 3 : 5);
        random_caps(&r, n, k, round % 2 == 0, cap);
        random_costs(&r, n, k, round % 3, cost);
        memcpy(left, cap, sizeof(cap));
        T_OK(t, mt_assign_balanced(&t->ctx, n, k, cost, cap, to));
        T_NEAR(t, total(n, k, cost, cap, to), brute(n, k, cost, left, 0), 1e-9);
    }
}

T_TEST(equals_hungarian_on_larger_cases)
{
    static double cost[N_MAX * K_MAX];
    struct mt_rng r;
    int64_t cap[K_MAX];
    int32_t to[N_MAX];

    mt_rng_seed(&r, 11, 0);
    for (int round = 0; round < 60; round++) {
        int n = 60 + (int)mt_rng_below(&r, 141), k = 2 + (int)mt_rng_below(&r, K_MAX - 1);
        random_caps(&r, n, k, round % 2 == 0, cap);
        random_costs(&r, n, k, round % 3, cost);
        T_OK(t, mt_assign_balanced(&t->ctx, n, k, cost, cap, to));
        T_NEAR(t, total(n, k, cost, cap, to), hungarian(n, k, cost, cap), 1e-9);
    }
}

T_TEST(points_that_fit_stay_at_their_cheapest_cluster)
{
    const double cost[] = {0, 1, 1, 0, 0, 1, 1, 0};
    const int64_t cap[] = {2, 2};
    int32_t to[4];

    T_OK(t, mt_assign_balanced(&t->ctx, 4, 2, cost, cap, to));
    T_EQ_INT(t, to[0], 0);
    T_EQ_INT(t, to[1], 1);
    T_EQ_INT(t, to[2], 0);
    T_EQ_INT(t, to[3], 1);
}

T_TEST(equal_costs_are_dealt_out_in_a_fixed_way)
{
    double cost[12 * 3] = {0};
    const int64_t cap[] = {4, 4, 4};
    int32_t a[12], b[12];

    T_OK(t, mt_assign_balanced(&t->ctx, 12, 3, cost, cap, a));
    T_OK(t, mt_assign_balanced(&t->ctx, 12, 3, cost, cap, b));
    T_CHECK(t, memcmp(a, b, sizeof(a)) == 0);
    T_NEAR(t, total(12, 3, cost, cap, a), 0, 0);
}

T_TEST(a_cost_that_is_no_number_is_refused)
{
    const double cost[] = {0, NAN};
    const int64_t cap[] = {1, 0};
    int32_t to[1];

    T_FAILS(t, mt_assign_balanced(&t->ctx, 1, 2, cost, cap, to), MT_E_NUMERIC,
            "cost of point 0 for cluster 1 is not finite");
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    static double cost[40 * 4];
    const int64_t cap[] = {10, 10, 10, 10};
    struct mt_rng r;
    int32_t to[40];
    mt_status st = MT_E_NOMEM;

    mt_rng_seed(&r, 3, 0);
    random_costs(&r, 40, 4, 2, cost);
    for (uint64_t n = 1; n < 200 && st == MT_E_NOMEM; n++) {
        mt_fault_alloc(n);
        st = mt_assign_balanced(&t->ctx, 40, 4, cost, cap, to);
        mt_fault_alloc(0);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
    }
    T_EQ_INT(t, st, MT_OK);
}
