#include "lib/run/metrics.h"
#include "tests/t.h"

T_TEST(kl_of_two_known_distributions)
{
    /* p = 1/2 1/4 1/4, q = 1/4 1/4 1/2: KL = 1/2 ln 2 + 0 - 1/4 ln 2 = ln(2)/4 */
    const float p[3] = {(float)log(0.5) + 3, (float)log(0.25) + 3, (float)log(0.25) + 3};
    const float q[3] = {(float)log(0.25) - 7, (float)log(0.25) - 7, (float)log(0.5) - 7};
    struct mt_token_metrics m;

    mt_metrics_pair(p, q, 3, 1, &m);
    T_NEAR(t, m.kl, log(2) / 4, 1e-6);
    T_NEAR(t, m.nll_ref, log(4), 1e-6);
    T_NEAR(t, m.nll_cand, log(4), 1e-6);
    T_CHECK(t, !m.top1);
    T_NEAR(t, mt_metrics_nll(q, 3, 2), log(2), 1e-6);
}

T_TEST(equal_rows_have_no_kl_at_all)
{
    float v[1000];
    struct mt_token_metrics m;

    for (int i = 0; i < 1000; i++)
        v[i] = (float)(7 * sin(i * i));
    mt_metrics_pair(v, v, 1000, 5, &m);
    T_CHECK(t, m.kl == 0);
    T_CHECK(t, m.top1);
    T_CHECK(t, m.nll_ref == m.nll_cand);
}

/* A shift of all logits is no difference; a tiny change gives a tiny KL, not noise: for a change
 * of d in one logit of probability p, KL = p (1 - p) d^2 / 2. */
T_TEST(small_kl_is_exact)
{
    float a[4] = {1, 2, 3, 4}, b[4] = {1, 2, 3, 4};
    double z = exp(-3.0) + exp(-2.0) + exp(-1.0) + 1, p = exp(-1.0) / z, d = 1.0 / 4096;
    struct mt_token_metrics m;

    b[2] += (float)d;
    mt_metrics_pair(a, b, 4, 0, &m);
    T_NEAR(t, m.kl / (p * (1 - p) * d * d / 2), 1, 1e-3);
}

T_TEST(impossible_tokens_do_not_spoil_the_sum)
{
    const float a[3] = {0, -INFINITY, 1}, b[3] = {0.5f, -INFINITY, 1};
    struct mt_token_metrics m;

    mt_metrics_pair(a, b, 3, 2, &m);
    T_CHECK(t, isfinite(m.kl) && m.kl > 0);
    const float nan_row[3] = {0, NAN, 1};
    mt_metrics_pair(a, nan_row, 3, 2, &m);
    T_CHECK(t, isnan(m.kl)); /* a broken candidate must show */
}

T_TEST(ties_of_the_argmax_go_to_the_lowest_index)
{
    const float a[3] = {2, 2, 1}, b[3] = {2, 1, 2}, c[3] = {1, 2, 2};
    struct mt_token_metrics m;

    mt_metrics_pair(a, b, 3, 0, &m);
    T_CHECK(t, m.top1);
    mt_metrics_pair(a, c, 3, 0, &m);
    T_CHECK(t, !m.top1);
}

T_TEST(mean_and_its_error)
{
    const float v[4] = {1, 2, 3, 6}; /* mean 3, squares 4 1 0 9: s^2 = 14/3; error sqrt(14/12) */
    double mean, err;

    mt_metrics_mean(v, 4, &mean, &err);
    T_NEAR(t, mean, 3, 1e-15);
    T_NEAR(t, err, sqrt(14.0 / 12), 1e-15);
    mt_metrics_mean(v, 1, &mean, &err);
    T_NEAR(t, err, 0, 0);
}

T_TEST(quantiles_interpolate)
{
    float v[5] = {5, 1, 4, 2, 3};

    mt_metrics_sort(v, 5);
    T_NEAR(t, mt_metrics_quantile(v, 5, 0), 1, 0);
    T_NEAR(t, mt_metrics_quantile(v, 5, 0.5), 3, 0);
    T_NEAR(t, mt_metrics_quantile(v, 5, 1), 5, 0);
    T_NEAR(t, mt_metrics_quantile(v, 5, 0.99), 4.96, 1e-12); /* 0.99 * 4 = 3.96 */
    T_NEAR(t, mt_metrics_quantile(v, 4, 0.5), 2.5, 0);
    T_CHECK(t, isnan(mt_metrics_quantile(v, 0, 0.5)));
    float with_nan[3] = {NAN, 1, 2};
    mt_metrics_sort(with_nan, 3);
    T_CHECK(t, isnan(mt_metrics_quantile(with_nan, 3, 1)));
}

T_TEST(entropy_of_shares)
{
    const double even[4] = {0.25, 0.25, 0.25, 0.25}, one[4] = {0, 1, 0, 0};
    const double half[4] = {0.5, 0.5, 0, 0};

    T_NEAR(t, mt_metrics_entropy(even, 4), 1, 1e-15);
    T_NEAR(t, mt_metrics_entropy(one, 4), 0, 0);
    T_NEAR(t, mt_metrics_entropy(half, 4), 0.5, 1e-15);
    T_NEAR(t, mt_metrics_entropy(one + 1, 1), 1, 0);
}
