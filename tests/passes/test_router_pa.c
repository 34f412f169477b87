/* FactorLLM's label and loss: the constants of the spec, and what the label does on planted data.
 */
#include "tests/planted.h"

#include "lib/base/rng.h"
#include "passes/lib/softmax_fit.h"

#include <stdlib.h>

/* The first k experts are the best. */
static void target_of(int n, int k, float *q)
{
    float score[8];
    int32_t best[8];

    for (int e = 0; e < n; e++)
        score[e] = (float)-e;
    mt_softmax_target(score, n, k, false, 1, best, q);
}

T_TEST(divergences_are_zero_only_between_equals)
{
    float p[6], q[6];
    struct mt_rng r;

    mt_rng_seed(&r, 1, 0);
    for (int trial = 0; trial < 200; trial++) {
        double sp = 0, sq = 0;
        for (int e = 0; e < 6; e++) {
            sp += (double)(p[e] = (float)mt_rng_unit(&r));
            sq += (double)(q[e] = (float)mt_rng_unit(&r));
        }
        for (int e = 0; e < 6; e++) {
            p[e] = (float)((double)p[e] / sp);
            q[e] = (float)((double)q[e] / sq);
        }
        for (int way = 0; way < 2; way++) {
            T_CHECK(t, mt_divergence(p, q, 1, 6, way == 1) > 0);
            T_NEAR(t, mt_divergence(p, p, 1, 6, way == 1), 0, 1e-7);
        }
        T_NEAR(t, mt_divergence(p, q, 1, 6, true), mt_divergence(q, p, 1, 6, false), 1e-12);
    }
}

/* Tokens of two kinds with fixed targets: the softmax can meet them, so the loss goes to zero. */
T_TEST(targets_that_can_be_met_are_met)
{
    enum { T = 1000, D = 8, N = 4 };
    struct mt_router_sample f;
    struct mt_rng r;

    for (int way = 0; way < 2; way++) {
        float w[N * D], b[N], x[D], q[N];
        double before, after;
        mt_rng_seed(&r, 2, 0);
        T_OK(t, mt_router_sample_open(&t->ctx, D, N, T, &f));
        for (int i = 0; i < T; i++) {
            for (int c = 0; c < D; c++)
                x[c] = (float)(0.01 * mt_rng_normal(&r));
            x[i % 2] += 30; /* inputs of any size */
            target_of(N, 2, q);
            if (i % 2 == 1) {
                float swap[2] = {q[0], q[1]};
                q[0] = q[2];
                q[1] = q[3];
                q[2] = swap[0];
                q[3] = swap[1];
            }
            T_CHECK(t, mt_router_sample_wants(&f, i));
            mt_router_sample_add(&f, x, q);
        }
        T_OK(t, mt_softmax_fit(&t->ctx, &f, way == 1, w, b, &before, &after));
        mt_router_sample_close(&f);
        T_CHECK(t, before > 0.05);
        T_CHECK(t, after < 1e-4);
        for (int kind = 0; kind < 2; kind++) /* the difference of logits is ln(e) = 1 */
            T_NEAR(t,
                   ((double)w[kind] - (double)w[3 * D + kind]) * 30 + (double)b[0] - (double)b[3],
                   kind == 0 ? 1 : -1, 0.05);
    }
}

/* One target for every input: an intercept alone gives it, and without one nothing does. */
T_TEST(without_intercept_nothing_stands_for_one)
{
    enum { T = 8000, D = 8, N = 4 };
    struct mt_router_sample f;
    struct mt_rng r;

    for (int with = 0; with < 2; with++) {
        float w[N * D], b[N] = {7, 7, 7, 7}, x[D], q[N];
        double before, after;
        mt_rng_seed(&r, 2, 0);
        T_OK(t, mt_router_sample_open(&t->ctx, D, N, T, &f));
        for (int i = 0; i < T; i++) {
            for (int c = 0; c < D; c++)
                x[c] = (float)mt_rng_normal(&r);
            target_of(N, 1, q);
            mt_router_sample_add(&f, x, q);
        }
        T_OK(t, mt_softmax_fit(&t->ctx, &f, false, w, with ? b : NULL, &before, &after));
        mt_router_sample_close(&f);
        T_CHECK(t, with ? after < 1e-3 * before : after > 0.9 * before);
        T_CHECK(t, with ? b[0] > b[1] + 0.8F : b[0] == 7); /* ln(e) = 1 */
    }
}

/* How often the expert that makes all of a token's output is among the router's k. */
static double hit_rate(struct t *t, const char *router, const char *more, int k)
{
    static const struct planted_spec spec = {.groups = 4, .per_group = 6, .noise = 0.03, .seed = 8};
    const struct mt_convert_router *maker =
        mt_convert_routers[mt_convert_name_find(mt_convert_router_names, router)];
    struct mt_convert_routing routing = {0};
    struct mt_convert_division d;
    struct planted p;
    char options[128];
    void *state = NULL;
    static float norms[PLANTED_TOKENS * 4];
    float w[4 * PLANTED_HIDDEN], bias[4] = {0};
    int hits = 0;

    memset(norms, 0, sizeof(norms));
    snprintf(options, sizeof(options),
             "partition=cluster experts=4 active=%d shared=0 arch=native%s", k, more);
    if (!planted_open(t, &spec, options, &p) || !planted_divide(t, &p, "partition", &d))
        return -1;
    if (!planted_found(&p, d.split))
        t_fail(t, __FILE__, __LINE__, "the groups were not found");
    for (int i = 0; i < PLANTED_TOKENS; i++)
        for (int e = 0; e < 4; e++)
            for (int c = 0; c < PLANTED_HIDDEN; c++) {
                double y = 0;
                for (int j = 0; j < 6; j++) {
                    int n = mt_split_expert(d.split, e)[j];
                    y += (double)((const float *)p.dense.down->src.owned)[c * 24 + n] *
                         (double)p.h[i * 24 + n];
                }
                norms[i * 4 + e] += (float)(y * y);
            }
    for (int i = 0; i < PLANTED_TOKENS * 4; i++)
        norms[i] = sqrtf(norms[i]);
    struct mt_observation ob = {
        .m = PLANTED_TOKENS, .n_tokens = PLANTED_TOKENS, .x = p.x, .h = p.h};
    routing.w = w;
    routing.bias = bias;
    mt_status st = maker->begin(&t->ctx, &p.at, PLANTED_TOKENS, &state);
    if (st == MT_OK)
        st = maker->observe(&t->ctx, &p.at, state, &ob, norms);
    if (st == MT_OK)
        st = maker->make(&t->ctx, &p.at, state, &routing);
    maker->end(state);
    if (st != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    for (int i = 0; i < PLANTED_TOKENS; i++) {
        double logit[4], mine = 0;
        int before = 0;
        for (int e = 0; e < 4; e++) {
            logit[e] = (double)bias[e];
            for (int c = 0; c < PLANTED_HIDDEN; c++)
                logit[e] += (double)w[e * PLANTED_HIDDEN + c] * (double)p.x[i * PLANTED_HIDDEN + c];
            if (p.group[mt_split_expert(d.split, e)[0]] == p.class_of[i])
                mine = logit[e];
        }
        for (int e = 0; e < 4; e++)
            before += logit[e] > mine;
        hits += before < k;
    }
    planted_division_free(&d);
    planted_close(&p);
    return (double)hits / PLANTED_TOKENS;
}

/* Alone, the expert that makes y is off by (1 - k/E)|y|, the others by k/E |y|. */
T_TEST(the_prior_approximate_label_needs_more_than_half)
{
    T_CHECK(t, hit_rate(t, "pa", "", 3) > 0.99);
    T_CHECK(t, hit_rate(t, "pa", "", 1) < 0.01);
}

T_TEST(contributions_are_right_at_any_k)
{
    for (int k = 1; k <= 3; k++)
        T_CHECK(t, hit_rate(t, "contribution", "", k) > 0.99);
}

/* The k that together come nearest: the one that makes all of y is in every good choice. */
T_TEST(all_choices_tried_are_right_at_any_k)
{
    for (int k = 1; k <= 3; k++) {
        T_CHECK(t, hit_rate(t, "pa", " pa-targets=subset", k) > 0.99);
        T_CHECK(t, hit_rate(t, "contribution", " pa-targets=subset", k) > 0.99);
    }
}

T_TEST(too_many_choices_are_refused)
{
    static const struct planted_spec spec = {.groups = 4, .per_group = 6, .noise = 0.03, .seed = 8};
    const struct mt_convert_router *maker =
        mt_convert_routers[mt_convert_name_find(mt_convert_router_names, "pa")];
    struct mt_convert_division d;
    void *state = NULL;
    struct planted p;

    if (!planted_open(t, &spec, "partition=random experts=24 active=12 shared=0 pa-targets=subset",
                      &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "partition", &d));
    T_FAILS(t, maker->begin(&t->ctx, &p.at, PLANTED_TOKENS, &state), MT_E_OPTION,
            "every choice of 12 of 24 experts");
    maker->end(state);
    planted_division_free(&d);
    planted_close(&p);
}

T_TEST(targets_are_those_of_the_spec)
{
    float q[4];

    target_of(4, 2, q);
    T_NEAR(t, q[0], 0.3655, 1e-4);
    T_NEAR(t, q[3], 0.1345, 1e-4);
    target_of(4, 1, q);
    T_NEAR(t, q[0], 0.4754, 1e-4);
    T_NEAR(t, q[3], 0.1749, 1e-4);
    /* Soft ones, at a temperature. */
    static const float score[2] = {3, 1};
    int32_t best[2];
    mt_softmax_target(score, 2, 1, true, 2, best, q);
    T_NEAR(t, q[0], 1 / (1 + exp(-1)), 1e-6);
}
