#include "lib/base/mem.h"
#include "lib/run/paired.h"
#include "tests/run/sets.h"
#include "tests/t.h"

#define TOKENS_MAX 6000

/* Every token of window w is off by about w % 3 - 1, so that windows differ more than tokens. */
static size_t values_make(const struct mt_dataset *d, double shift, float *a, float *b)
{
    struct mt_rng rng;
    size_t n = 0;

    mt_rng_seed(&rng, 7, 0);
    for (size_t w = 0; w < d->n_windows; w++) {
        for (int32_t i = 1; i < d->windows[w].n; i++, n++) {
            b[n] = (float)mt_rng_unit(&rng);
            a[n] = b[n] + (float)(shift + (double)(w % 3) - 1 + 0.1 * mt_rng_normal(&rng));
        }
    }
    return n;
}

T_TEST(interval_is_that_of_a_mean_of_windows)
{
    static float a[TOKENS_MAX], b[TOKENS_MAX];
    struct mt_dataset d = set_make(3, 50, 150, 30);
    struct mt_paired p, same;
    double sum = 0, square = 0, mean, sd;
    size_t n = values_make(&d, 0.5, a, b), at = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] - (double)b[i];
    mean = sum / (double)n;
    T_OK(t, mt_paired(&t->ctx, a, b, &d, 0, &p));
    T_NEAR(t, p.mean, mean, 1e-12);
    /* The ratio estimator's standard error, by its linearisation. */
    for (size_t w = 0; w < d.n_windows; w++) {
        double s = 0;
        for (int32_t i = 1; i < d.windows[w].n; i++, at++)
            s += (double)a[at] - (double)b[at] - mean;
        square += s * s;
    }
    sd = sqrt(square) / (double)n;
    T_NEAR(t, (p.high - p.low) / (2 * 1.96 * sd), 1, 0.1);
    T_NEAR(t, (p.high + p.low) / 2, mean, 0.2 * sd);
    T_OK(t, mt_paired(&t->ctx, a, b, &d, 0, &same));
    T_CHECK(t, same.low == p.low && same.high == p.high);
    T_OK(t, mt_paired(&t->ctx, b, a, &d, 0, &same));
    T_NEAR(t, same.low, -p.high, 0.2 * sd);
}

T_TEST(equal_values_differ_by_nothing)
{
    static float a[TOKENS_MAX], b[TOKENS_MAX];
    struct mt_dataset d = set_make(4, 50, 20, 9);
    struct mt_paired p;

    values_make(&d, 0, a, b);
    T_OK(t, mt_paired(&t->ctx, b, b, &d, 1, &p));
    T_CHECK(t, p.mean == 0 && p.low == 0 && p.high == 0);
}

T_TEST(one_window_has_no_interval)
{
    static float a[TOKENS_MAX], b[TOKENS_MAX];
    struct mt_dataset d = set_make(4, 50, 1, 9);
    struct mt_paired p;

    values_make(&d, 0, a, b);
    T_OK(t, mt_paired(&t->ctx, a, b, &d, 1, &p));
    T_CHECK(t, isfinite(p.mean) && isnan(p.low) && isnan(p.high));
}
