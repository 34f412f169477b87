#include "passes/lib/best_subset.h"

#include "lib/base/ctx.h"

#include <math.h>
#include <string.h>

int64_t mt_subsets(int n, int k)
{
    double ways = 1;

    for (int i = 1; i <= k; i++)
        ways = ways * (n - k + i) / i;
    return ways > MT_SUBSETS_MAX ? MT_SUBSETS_MAX + 1 : llround(ways);
}

/* What taking e adds, to those that are taken. */
static double subset_step(const double *gram, const double *dot, double c, int n, int e,
                          const int *taken, int have)
{
    double pairs = gram[e * n + e];

    for (int i = 0; i < have; i++)
        pairs += 2 * gram[e * n + taken[i]];
    return c * c * pairs - 2 * c * dot[e];
}

double mt_best_subset(const double *gram, const double *dot, double c, int n, int k, bool *in)
{
    int taken[MT_SUBSET_EXPERTS_MAX] = {0}, best[MT_SUBSET_EXPERTS_MAX] = {0};
    double sum[MT_SUBSET_EXPERTS_MAX + 1] = {0}, least = INFINITY;
    int have = 0, next = 0;

    mt_assert(k >= 0 && k <= n && n <= MT_SUBSET_EXPERTS_MAX);
    for (;;) {
        /* Down to a whole subset; there must be enough left to complete it. */
        while (have < k && next <= n - (k - have)) {
            sum[have + 1] = sum[have] + subset_step(gram, dot, c, n, next, taken, have);
            taken[have++] = next++;
        }
        if (have == k && sum[k] < least) {
            least = sum[k];
            memcpy(best, taken, sizeof(best));
        }
        if (have == 0)
            break;
        next = taken[--have] + 1;
    }
    memset(in, 0, (size_t)n * sizeof(*in));
    for (int i = 0; i < k; i++)
        in[best[i]] = true;
    return least;
}
