#include "tests/t.h"
#include "lib/base/rng.h"
#include "passes/lib/neurons.h"
#include "passes/lib/router_fit.h"

#include <stdlib.h>

#define D 12
#define N 6
#define K 2

T_TEST(the_k_largest_come_in_order_and_ties_go_to_the_lowest_index)
{
    const float v[] = {1, 5, 3, 5, 0, 3};
    int32_t idx[6];

    mt_top_k(v, 6, 4, idx);
    T_EQ_INT(t, idx[0], 1);
    T_EQ_INT(t, idx[1], 3);
    T_EQ_INT(t, idx[2], 2);
    T_EQ_INT(t, idx[3], 5);
    mt_top_k(v, 6, 6, idx);
    T_EQ_INT(t, idx[4], 0);
    T_EQ_INT(t, idx[5], 4);
    mt_top_k(v, 6, 1, idx);
    T_EQ_INT(t, idx[0], 1);
}

T_TEST(labels_are_membership_less_their_mean)
{
    const float norms[] = {2, 7, 7, 1};
    float label[4];

    mt_router_label(MT_LABELS_MEMBERSHIP, norms, 4, 1, label);
    T_NEAR(t, label[0], -0.25, 0);
    T_NEAR(t, label[1], 0.75, 0);
    T_NEAR(t, label[2], -0.25, 0);
    mt_router_label(MT_LABELS_MEMBERSHIP, norms, 4, 2, label);
    T_NEAR(t, label[2], 0.5, 0);
    T_NEAR(t, label[3], -0.5, 0);
}

T_TEST(log_labels_are_centred_logarithms)
{
    const float norms[] = {1, 4, 16, 0};
    const double eps = 1e-3 * 21 / 4;
    double want[4], mean = 0;
    float label[4];

    mt_router_label(MT_LABELS_LOGNORM, norms, 4, 1, label);
    for (int e = 0; e < 4; e++) {
        want[e] = log((double)norms[e] + eps);
        mean += want[e] / 4;
    }
    for (int e = 0; e < 4; e++)
        T_NEAR(t, label[e], want[e] - mean, 1e-6);
}

static double logistic_of_cubes(double norm, double cut)
{
    return 1 / (1 + pow(cut / norm, 3));
}

/* Between 4 and 1 the cut is at 2: far from it labels are membership, near it they are not. */
T_TEST(soft_labels_are_logistic_about_the_cut)
{
    const float norms[] = {1, 4, 16, 0};
    double want[4] = {logistic_of_cubes(1, 2), logistic_of_cubes(4, 2), logistic_of_cubes(16, 2),
                      0};
    double mean = (want[0] + want[1] + want[2]) / 4;
    float label[4];

    mt_router_label(MT_LABELS_SOFT, norms, 4, 2, label);
    for (int e = 0; e < 4; e++)
        T_NEAR(t, label[e], want[e] - mean, 1e-6);
}

/* A ReLU may silence all experts of a token, or all but fewer than k. */
T_TEST(soft_labels_of_silent_experts_are_membership)
{
    static const float cases[][4] = {{0, 0, 0, 0}, {0, 3, 0, 0}, {2, 3, 0, 0}, {1, 3, 2, 7}};
    static const int in[] = {0, 1, 2, 4}, k[] = {2, 2, 2, 4};
    float label[4];

    for (size_t i = 0; i < 4; i++) {
        mt_router_label(MT_LABELS_SOFT, cases[i], 4, k[i], label);
        for (int e = 0; e < 4; e++)
            T_NEAR(t, label[e], (cases[i][e] > 0 ? 1 : 0) - in[i] / 4.0, 1e-6);
    }
}

/* One feature, two experts, three tokens: everything by hand. Labels of expert 0 are 1/2, 1/2,
 * -1/2; X'X = 1 + 4 + 1; X'L = 1/2 + 1 + 1/2; lambda = 6e-3. */
T_TEST(a_tiny_ridge_equals_the_hand_computed_one)
{
    const float x[] = {1, 2, -1}, norms[] = {2, 1, 3, 1, 0, 1};
    struct mt_router_fit *f;
    float router[2];

    T_OK(t, mt_router_fit_create(&t->ctx, 1, 2, 1, MT_LABELS_MEMBERSHIP, &f));
    T_OK(t, mt_router_fit_add(&t->ctx, f, 3, x, norms));
    T_OK(t, mt_router_fit_solve(&t->ctx, f, 1e-3, router));
    T_NEAR(t, router[0], 2 / 6.006, 1e-7);
    T_NEAR(t, router[1], -2 / 6.006, 1e-7);
    mt_router_fit_free(f);
}

/* Logs of norms that are linear in x, around inputs that do not have mean 0. */
T_TEST(a_fit_that_keeps_means_has_intercepts)
{
    enum { TOKENS = 64, DIMS = 3, ROWS = 4 };
    static const double w[ROWS][DIMS] = {{1, 0, -1}, {0.5, 0.5, 0}, {0, -1, 1}, {0.25, 1, 0}};
    static const double b[ROWS] = {2, -1, 0.5, 0};
    float x[TOKENS * DIMS], norms[TOKENS * ROWS], router[ROWS * DIMS], bias[ROWS];
    struct mt_router_fit *f;
    struct mt_rng rng;

    mt_rng_seed(&rng, 3, 1);
    T_OK(t, mt_router_fit_create(&t->ctx, DIMS, ROWS, 2, MT_LABELS_LOGNORM, &f));
    T_OK(t, mt_router_fit_keep_mean(&t->ctx, f));
    for (int i = 0; i < TOKENS; i++) {
        for (int j = 0; j < DIMS; j++)
            x[i * DIMS + j] = (float)(1 + mt_rng_normal(&rng) / 2);
        for (int e = 0; e < ROWS; e++) {
            double z = b[e];
            for (int j = 0; j < DIMS; j++)
                z += w[e][j] * (double)x[i * DIMS + j];
            norms[i * ROWS + e] = (float)exp(z);
        }
    }
    T_OK(t, mt_router_fit_add(&t->ctx, f, TOKENS / 2, x, norms));
    T_OK(t, mt_router_fit_add(&t->ctx, f, TOKENS / 2, x + TOKENS / 2 * DIMS,
                              norms + TOKENS / 2 * ROWS));
    T_OK(t, mt_router_fit_solve(&t->ctx, f, 1e-3, router));
    mt_router_fit_intercepts(f, bias);
    /* The ridge and what is added to norms pull a little. */
    for (int e = 0; e < ROWS; e++) {
        T_NEAR(t, bias[e], b[e], 0.03);
        for (int j = 0; j < DIMS; j++)
            T_NEAR(t, router[e * DIMS + j], w[e][j], 0.02);
    }
    mt_router_fit_free(f);
}

/* lambda = 0.5 of the mean square, which is X'X of the one feature: 6 + 3 under the same 2. */
T_TEST(a_larger_lambda_shrinks_the_router)
{
    const float x[] = {1, 2, -1}, norms[] = {2, 1, 3, 1, 0, 1};
    struct mt_router_fit *f;
    float router[2];

    T_OK(t, mt_router_fit_create(&t->ctx, 1, 2, 1, MT_LABELS_MEMBERSHIP, &f));
    T_OK(t, mt_router_fit_add(&t->ctx, f, 3, x, norms));
    T_OK(t, mt_router_fit_solve(&t->ctx, f, 0.5, router));
    T_NEAR(t, router[0], 2 / 9.0, 1e-7);
    T_NEAR(t, router[1], -2 / 9.0, 1e-7);
    mt_router_fit_free(f);
}

/* With one norm for all tokens a loud token has both of its experts in and a quiet one none: that
 * makes the labels 1 1, 0 1, 0 0 here, where each by itself would have one. By hand: x is 1, 0, -1
 * around its mean, so both slopes are 1 over 2 times 1 + lambda, and intercepts the labels' means.
 */
T_TEST(one_norm_for_all_tokens_tells_loud_from_quiet)
{
    const float x[] = {1, 0, -1}, norms[] = {9, 8, 1, 7, 2, 3};
    struct mt_router_fit *f;
    float router[2], bias[2];

    T_OK(t, mt_router_fit_create(&t->ctx, 1, 2, 1, MT_LABELS_MEMBERSHIP, &f));
    T_OK(t, mt_router_fit_keep_mean(&t->ctx, f));
    T_OK(t, mt_router_fit_add(&t->ctx, f, 3, x, norms));
    T_OK(t, mt_router_fit_solve(&t->ctx, f, 1e-3, router));
    mt_router_fit_intercepts(f, bias);
    T_NEAR(t, router[0], 1 / 2.002, 1e-6);
    T_NEAR(t, router[1], 1 / 2.002, 1e-6);
    T_NEAR(t, bias[0], 1.0 / 3, 1e-6);
    T_NEAR(t, bias[1], 2.0 / 3, 1e-6);
    mt_router_fit_free(f);
}

/* Of NaN, infinity and sums beyond all range nothing can be learnt; the caller is told. */
T_TEST(a_fit_tells_when_it_is_not_finite)
{
    static const struct {
        float x, norm;
        bool finite;
    } cases[] = {
        {2, 3, true}, {NAN, 3, false}, {INFINITY, 3, false}, {2, NAN, false}, {2, INFINITY, false}};
    struct mt_router_fit *f;

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const float x[] = {1, cases[i].x, -1}, norms[] = {2, 1, cases[i].norm, 1, 0, 1};
        T_OK(t, mt_router_fit_create(&t->ctx, 1, 2, 1, MT_LABELS_MEMBERSHIP, &f));
        T_OK(t, mt_router_fit_add(&t->ctx, f, 3, x, norms));
        T_EQ_INT(t, mt_router_fit_finite(f), cases[i].finite);
        mt_router_fit_free(f);
    }
}

/* Rows 0 and 1 belong to expert 0, rows 2 and 3 to expert 1. */
T_TEST(centroids_are_finite_whatever_the_gate)
{
    static float gate[] = {1, NAN, 3, 4, INFINITY, 2, -INFINITY, 6};
    const float want[] = {2, 2, 0, 4};
    const int32_t owner[] = {0, 0, 1, 1}, pool[] = {2, 0};
    float router[4], unit[4];
    struct mt_tensor m = {.rank = 2, .shape = {4, 2}, .dtype = MT_F32};
    struct mt_split *split;

    m.src.kind = MT_SRC_OWNED;
    m.src.owned = gate;
    T_OK(t, mt_split_create(&t->ctx, 4, 2, 0, &split));
    mt_split_fill(split, owner);
    T_OK(t, mt_router_centroids(&t->ctx, &m, split, router));
    for (int i = 0; i < 4; i++)
        T_NEAR(t, router[i], want[i], 0);
    T_FAILS(t, mt_rows_unit(&t->ctx, &m, pool, 2, unit), MT_E_NUMERIC, "neuron 2 is not finite");
    mt_split_free(split);
}

T_TEST(no_input_passes_the_logit_bound)
{
    float router[3 * D], gamma[D];
    struct mt_rng r;

    mt_rng_seed(&r, 29, 0);
    for (int i = 0; i < 3 * D; i++)
        router[i] = (float)mt_rng_normal(&r);
    for (int i = 0; i < D; i++)
        gamma[i] = (float)mt_rng_normal(&r);
    double bound = mt_router_logit_bound(router, 3, gamma, D), top = 0;
    for (int token = 0; token < 2000; token++) {
        double u[D], norm = 0;
        for (int i = 0; i < D; i++) {
            /* The first is the worst case: along row 0. */
            u[i] = token == 0 ? (double)router[i] * (double)gamma[i] : mt_rng_normal(&r);
            norm += u[i] * u[i];
        }
        for (int e = 0; e < 3; e++) {
            double z = 0;
            for (int i = 0; i < D; i++)
                z += (double)router[e * D + i] * (double)gamma[i] * u[i] / sqrt(norm / D);
            T_CHECK(t, fabs(z) <= bound * (1 + 1e-12));
            top = fmax(top, fabs(z));
        }
    }
    T_CHECK(t, top > 0.5 * bound);
}
