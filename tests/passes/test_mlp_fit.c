#include "tests/t.h"
#include "lib/base/rng.h"
#include "passes/lib/mlp_fit.h"

#define D 6
#define N 4
#define TOKENS 8000

static mt_status sample(struct mt_ctx *ctx, struct mt_router_sample *s)
{
    float x[D], q[N];
    struct mt_rng r;

    mt_rng_seed(&r, 3, 0);
    MT_TRY(mt_router_sample_open(ctx, D, N, TOKENS, s));
    for (int i = 0; i < TOKENS; i++) {
        for (int c = 0; c < D; c++)
            x[c] = (float)mt_rng_normal(&r);
        /* Labels no linear router gives: the sign of an input, turned round where the next one is
         * larger. (Odd, as two layers without biases are.) */
        for (int e = 0; e < N; e++)
            q[e] = (x[e] > 0) != (fabsf(x[e + 1]) > 1.5f * fabsf(x[e])) ? 0.9f : 0.1f;
        mt_router_sample_add(s, x, q);
    }
    return MT_OK;
}

T_TEST(labels_that_are_not_linear_are_learnt)
{
    enum { WIDTH = 24 };
    static float w1[WIDTH * D], w2[N * WIDTH];
    struct mt_router_sample s;
    double before, after;
    struct mt_rng r;

    mt_rng_seed(&r, 4, 0);
    for (int i = 0; i < WIDTH * D; i++)
        w1[i] = (float)mt_rng_normal(&r);
    T_OK(t, sample(&t->ctx, &s));
    T_OK(t, mt_mlp_fit(&t->ctx, &s, WIDTH, w1, w2, &before, &after));
    mt_router_sample_close(&s);
    T_NEAR(t, before, log(2), 1e-6);   /* W2 is zero: every p is one half */
    T_CHECK(t, after < 0.65 * before); /* the labels' own entropy is 0.325 */
}

T_TEST(what_gets_no_better_is_left_alone)
{
    float w1[N * D] = {0}, w2[N * N] = {0};
    struct mt_router_sample s;
    double before, after;
    float x[D] = {1, NAN}, q[N] = {0};

    T_OK(t, mt_router_sample_open(&t->ctx, D, N, 1, &s));
    mt_router_sample_add(&s, x, q);
    T_OK(t, mt_mlp_fit(&t->ctx, &s, N, w1, w2, &before, &after));
    mt_router_sample_close(&s);
    for (int i = 0; i < N * D; i++)
        T_NEAR(t, w1[i], 0, 0);
}

/* One in `stride`, from the first on, and no more than fit. */
T_TEST(samples_are_spread_over_the_data)
{
    struct mt_router_sample s;
    const int64_t all = 3 * MT_ROUTER_SAMPLE_TOKENS - 5;
    float x[D] = {3, 4}, q[N] = {0};

    T_OK(t, mt_router_sample_open(&t->ctx, D, N, all, &s));
    for (int64_t i = 0; i < all; i++) {
        T_CHECK(t, mt_router_sample_wants(&s, i) == (i % 3 == 0));
        if (i % 3 == 0)
            mt_router_sample_add(&s, x, q);
    }
    T_EQ_INT(t, s.tokens, MT_ROUTER_SAMPLE_TOKENS - 1);
    T_NEAR(t, mt_router_sample_scale(&s), 1 / sqrt(25.0 / D), 1e-6);
    mt_router_sample_unit(&s);
    T_NEAR(t, s.x[0], 0.6, 1e-6);
    T_NEAR(t, s.x[D + 1], 0.8, 1e-6);
    mt_router_sample_close(&s);
}
