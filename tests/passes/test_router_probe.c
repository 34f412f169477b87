#include "lib/base/rng.h"
#include "passes/lib/router_fit.h"
#include "passes/lib/router_probe.h"
#include "tests/t.h"

#include <stdlib.h>

#define D 12
#define N 6
#define K 2
#define LINEAR(n_, d_, w_) (&(struct mt_router_form){.n = (n_), .d = (d_), .w = (w_)})

/* One feature, two experts, three tokens: everything by hand. */
T_TEST(three_tokens_equal_the_hand_computed_figures)
{
    const float x[] = {1, 2, -1}, norms[] = {2, 1, 3, 1, 0, 1};
    struct mt_router_quality q;
    struct mt_router_probe *p;
    float router[2] = {0.333f, -0.333f};

    T_OK(t, mt_router_probe_create(&t->ctx, 1, 2, 1, 3, &p));
    mt_router_probe_add(p, 3, 0, x, norms);
    T_OK(t, mt_router_probe_measure(&t->ctx, p, mt_target_find("glm4_moe"), LINEAR(2, 1, router),
                                    NULL, &q));
    T_EQ_INT(t, q.tokens, 3);
    T_NEAR(t, q.agreement, 1, 0);
    T_NEAR(t, q.captured, 1, 1e-12);
    T_NEAR(t, q.ties, 0, 0);
    T_NEAR(t, q.load_oracle_max, 4 / 3.0, 1e-12);
    /* Token 2 has the largest logit. */
    T_NEAR(t, q.weight_error, tanh(2 * (double)router[0] / 2), 1e-6);
    /* The router turned round picks the other expert every time. */
    router[0] = -router[0];
    router[1] = -router[1];
    T_OK(t, mt_router_probe_measure(&t->ctx, p, mt_target_find("glm4_moe"), LINEAR(2, 1, router),
                                    NULL, &q));
    T_NEAR(t, q.agreement, 0, 0);
    T_NEAR(t, q.captured, (1.0 + 1 + 0) / (4 + 9 + 1), 1e-12);
    /* A router of zeros ties everywhere. */
    router[0] = router[1] = 0;
    T_OK(t, mt_router_probe_measure(&t->ctx, p, mt_target_find("glm4_moe"), LINEAR(2, 1, router),
                                    NULL, &q));
    T_NEAR(t, q.ties, 1, 0);
    /* A selection bias turns the choice round where logits do not outweigh it. */
    float bias[2] = {-1, 1};
    router[0] = 0.5f;
    router[1] = -0.5f;
    T_OK(t, mt_router_probe_measure(&t->ctx, p, mt_target_find("glm4_moe"), LINEAR(2, 1, router),
                                    bias, &q));
    T_NEAR(t, q.agreement, 1 / 3.0, 1e-12);
    mt_router_probe_free(p);
}

/* Norms are a monotone function of orthogonal directions of x; for such data the regression's
 * rows are those directions, so the router must rank as the oracle does. */
static mt_status fit_planted(struct mt_ctx *ctx, enum mt_router_labels labels, int64_t tokens,
                             struct mt_router_quality *q)
{
    struct mt_router_fit *f;
    struct mt_router_probe *p = NULL;
    struct mt_rng r;
    float *x = malloc((size_t)tokens * D * sizeof(*x));
    float *norms = malloc((size_t)tokens * N * sizeof(*norms));
    float router[N * D];

    mt_rng_seed(&r, 23, 0);
    for (int64_t i = 0; i < tokens * D; i++)
        x[i] = (float)mt_rng_normal(&r);
    /* Expert e looks at features 2e and 2e + 1. */
    for (int64_t i = 0; i < tokens; i++)
        for (int e = 0; e < N; e++)
            norms[i * N + e] = (float)exp(0.3 * (double)(x[i * D + 2 * e] + x[i * D + 2 * e + 1]));
    mt_status st = mt_router_fit_create(ctx, D, N, K, labels, &f);
    if (st == MT_OK)
        st = mt_router_probe_create(ctx, D, N, K, tokens, &p);
    for (int64_t at = 0; st == MT_OK && at < tokens; at += 1500) {
        int64_t m = tokens - at < 1500 ? tokens - at : 1500;
        st = mt_router_fit_add(ctx, f, m, x + at * D, norms + at * N);
        if (st == MT_OK)
            mt_router_probe_add(p, m, at, x + at * D, norms + at * N);
    }
    if (st == MT_OK)
        st = mt_router_fit_solve(ctx, f, MT_ROUTER_FIT_LAMBDA, router);
    if (st == MT_OK)
        st = mt_router_probe_measure(ctx, p, mt_target_find("mixtral"), LINEAR(N, D, router), NULL,
                                     q);
    mt_router_fit_free(f);
    mt_router_probe_free(p);
    free(x);
    free(norms);
    return st;
}

T_TEST(planted_directions_are_recovered)
{
    struct mt_router_quality q;

    T_OK(t, fit_planted(&t->ctx, MT_LABELS_MEMBERSHIP, 20000, &q));
    T_CHECK(t, q.agreement > 0.97);
    T_CHECK(t, q.captured > 0.99);
    /* Every fifth token is sampled. */
    T_EQ_INT(t, q.tokens, 4000);
    T_OK(t, fit_planted(&t->ctx, MT_LABELS_LOGNORM, 20000, &q));
    T_CHECK(t, q.agreement > 0.99);
}

T_TEST(a_probe_without_tokens_measures_nothing)
{
    struct mt_router_quality q;
    struct mt_router_probe *p;
    float router[N * D] = {0};

    T_OK(t, mt_router_probe_create(&t->ctx, D, N, K, 0, &p));
    T_OK(t, mt_router_probe_measure(&t->ctx, p, mt_target_find("mixtral"), LINEAR(N, D, router),
                                    NULL, &q));
    T_EQ_INT(t, q.tokens, 0);
    mt_router_probe_free(p);
}

/* Counted one by one: with the threshold k act on average, each token's best few among them. */
T_TEST(a_threshold_leaves_k_on_average)
{
    enum { TOKENS = 500, ROWS = 12, DIMS = 5 };
    static float x[TOKENS * DIMS], norms[TOKENS * ROWS];
    float router[ROWS * DIMS], bias[ROWS];
    const double ks[] = {1, 2.5, 6, 11.9, 12};
    struct mt_router_probe *p;
    struct mt_rng rng;

    mt_rng_seed(&rng, 5, 2);
    for (int i = 0; i < TOKENS * DIMS; i++)
        x[i] = (float)mt_rng_normal(&rng);
    for (int i = 0; i < ROWS * DIMS; i++)
        router[i] = (float)mt_rng_normal(&rng);
    for (int e = 0; e < ROWS; e++)
        bias[e] = (float)mt_rng_normal(&rng);
    T_OK(t, mt_router_probe_create(&t->ctx, DIMS, ROWS, 3, TOKENS, &p));
    mt_router_probe_add(p, TOKENS, 0, x, norms);
    for (size_t i = 0; i < sizeof ks / sizeof ks[0]; i++) {
        const float *b = i % 2 == 0 ? bias : NULL;
        const int least = i < 2 ? 1 : (int)i;
        int64_t act = 0;
        double at;
        T_OK(t, mt_router_probe_threshold(&t->ctx, p, LINEAR(ROWS, DIMS, router), b, ks[i], least,
                                          &at));
        for (int r = 0; r < TOKENS; r++) {
            int here = 0;
            for (int e = 0; e < ROWS; e++) {
                double z = b != NULL ? (double)b[e] : 0;
                for (int j = 0; j < DIMS; j++)
                    z += (double)router[e * DIMS + j] * (double)x[r * DIMS + j];
                here += z >= at;
            }
            act += here > least ? here : least;
        }
        T_NEAR(t, (double)act / TOKENS, ks[i], 1.5 / TOKENS);
    }
    mt_router_probe_free(p);
}
