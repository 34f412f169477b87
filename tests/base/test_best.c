/* The k largest, against the plain scan for one after the other. */
#include "tests/t.h"
#include "lib/base/best.h"
#include "lib/base/rng.h"

#include <math.h>
#include <string.h>

#define N 300

static int plain_best(const double *v, const unsigned char *taken, int n)
{
    int best = -1;

    for (int i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || v[i] > v[best] || (isnan(v[best]) && !isnan(v[i]))))
            best = i;
    return best;
}

/* Few different values, so that many are equal; with all that is not an ordinary number. */
static double draw(struct mt_rng *rng)
{
    static const double odd[] = {NAN, INFINITY, -INFINITY, 0.0, -0.0, -5e-324, 1e300, -1e300};
    uint64_t i = mt_rng_below(rng, 30);

    if (i < 8)
        return odd[i];
    return i < 20 ? (double)mt_rng_below(rng, 9) - 4 : mt_rng_normal(rng);
}

T_TEST(the_best_are_those_of_a_scan)
{
    static double v[N];
    static unsigned char out[N], taken[N];
    static int32_t got[N];
    struct mt_rng rng;

    mt_rng_seed(&rng, 3, 0);
    for (int round = 0; round < 2000; round++) {
        int n = 1 + (int)mt_rng_below(&rng, round % 10 == 0 ? N : 40), left = n;
        for (int i = 0; i < n; i++) {
            v[i] = draw(&rng);
            taken[i] = out[i] = round % 3 == 0 && left > 1 && mt_rng_below(&rng, 4) == 0;
            left -= out[i];
        }
        int k = 1 + (int)mt_rng_below(&rng, (uint64_t)left);
        mt_best_f64(v, round % 3 == 0 ? out : NULL, n, k, got);
        for (int s = 0; s < k; s++) {
            int want = plain_best(v, taken, n);
            T_EQ_INT(t, got[s], want);
            taken[want] = 1;
        }
    }
}

T_TEST(floats_are_ordered_as_doubles)
{
    static double v[N];
    static float f[N];
    static int32_t a[N], b[N];
    struct mt_rng rng;

    mt_rng_seed(&rng, 4, 0);
    for (int k = 1; k <= N; k++) {
        for (int i = 0; i < N; i++)
            v[i] = f[i] = (float)draw(&rng);
        mt_best_f64(v, NULL, N, k, a);
        mt_best_f32(f, N, k, b);
        T_CHECK(t, memcmp(a, b, (size_t)k * sizeof(*a)) == 0);
    }
}
