#include "tests/t.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/lib/predict.h"

#include <stdlib.h>

#define D 3
#define W 7
#define TOKENS 500

static float x[TOKENS * D], h[TOKENS * W];
static const double length[W] = {1, 2, 0.5, 3, 1, 0, 1};

static void make(uint64_t seed)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int t = 0; t < TOKENS; t++) {
        for (int i = 0; i < D; i++)
            x[t * D + i] = (float)mt_rng_normal(&r) + 0.3f;
        for (int j = 0; j < W; j++)
            h[t * W + j] = x[t * D + j % D] * (float)(j + 1) + (float)mt_rng_normal(&r);
    }
}

static mt_status run(struct mt_ctx *ctx, float *points, double *mean, int64_t *tokens)
{
    static const int32_t idx[W] = {6, 0, 1, 2, 3, 4, 5};
    struct mt_predict *p;

    MT_TRY(mt_predict_create(ctx, D, W, length, TOKENS, &p));
    mt_status st = MT_OK;
    for (int64_t t = 0; t < TOKENS && st == MT_OK; t += 130)
        st = mt_predict_add(ctx, p, TOKENS - t < 130 ? TOKENS - t : 130, t, x + t * D, h + t * W);
    mt_predict_means(p, mean);
    *tokens = mt_predict_tokens(p);
    if (st == MT_OK)
        st = mt_predict_solve(ctx, p);
    if (st == MT_OK)
        st = mt_predict_profiles(ctx, p, idx, W, points);
    mt_predict_free(p);
    return st;
}

/* One neuron by hand: centred normal equations, then the prediction at every token. */
static void by_hand(int j, double *profile)
{
    double mx[D] = {0}, mc = 0, g[D * D] = {0}, b[D] = {0}, diagonal = 0, norm = 0;

    for (int t = 0; t < TOKENS; t++) {
        mc += fabs((double)h[t * W + j]) * length[j] / TOKENS;
        for (int i = 0; i < D; i++)
            mx[i] += (double)x[t * D + i] / TOKENS;
    }
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < D; i++) {
            b[i] += ((double)x[t * D + i] - mx[i]) * (fabs((double)h[t * W + j]) * length[j] - mc);
            for (int k = 0; k < D; k++)
                g[i * D + k] += ((double)x[t * D + i] - mx[i]) * ((double)x[t * D + k] - mx[k]);
        }
    for (int i = 0; i < D; i++)
        diagonal += g[i * D + i] / D;
    for (int i = 0; i < D; i++)
        g[i * D + i] += MT_PREDICT_LAMBDA * diagonal;
    for (int k = 0; k < D; k++)
        for (int i = 0; i < D; i++) {
            double f = i == k ? 0 : g[i * D + k] / g[k * D + k];
            for (int c = 0; c < D; c++)
                g[i * D + c] -= f * g[k * D + c];
            b[i] -= f * b[k];
        }
    for (int t = 0; t < TOKENS; t++) {
        profile[t] = mc;
        for (int i = 0; i < D; i++)
            profile[t] += b[i] / g[i * D + i] * ((double)x[t * D + i] - mx[i]);
        norm += profile[t] * profile[t];
    }
    for (int t = 0; norm > 0 && t < TOKENS; t++)
        profile[t] /= sqrt(norm);
}

T_TEST(profiles_are_the_regression_s_predictions)
{
    static const int order[W] = {6, 0, 1, 2, 3, 4, 5};
    static float points[W * TOKENS];
    static double want[TOKENS];
    double mean[W];
    int64_t tokens;

    make(1);
    T_OK(t, run(&t->ctx, points, mean, &tokens));
    T_EQ_INT(t, tokens, TOKENS);
    for (int i = 0; i < W; i++) {
        double m = 0;
        by_hand(order[i], want);
        for (int k = 0; k < TOKENS; k++) {
            T_NEAR(t, points[i * TOKENS + k], want[k], 2e-6);
            m += fabs((double)h[k * W + i]) * length[i] / TOKENS;
        }
        T_NEAR(t, mean[i], m, 1e-5 * (1 + m));
    }
}

T_TEST(any_number_of_threads_gives_the_same_profiles)
{
    static float points[2][W * TOKENS];
    double mean[W];
    int64_t tokens;

    make(2);
    for (int k = 0; k < 2; k++) {
        struct mt_ctx ctx;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = k == 0 ? 1 : 4}));
        mt_status st = run(&ctx, points[k], mean, &tokens);
        mt_ctx_close(&ctx);
        T_EQ_INT(t, st, MT_OK);
    }
    for (int i = 0; i < W * TOKENS; i++)
        T_NEAR(t, points[1][i], points[0][i], 0);
}

T_TEST(it_tells_when_activations_are_not_finite)
{
    struct mt_predict *p;

    make(3);
    T_OK(t, mt_predict_create(&t->ctx, D, W, length, TOKENS, &p));
    T_OK(t, mt_predict_add(&t->ctx, p, 100, 0, x, h));
    T_CHECK(t, mt_predict_finite(p));
    h[100 * W] = INFINITY;
    T_OK(t, mt_predict_add(&t->ctx, p, 100, 100, x + 100 * D, h + 100 * W));
    T_CHECK(t, !mt_predict_finite(p));
    mt_predict_free(p);
}
