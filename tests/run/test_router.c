#include "lib/run/runner.h"
#include "tests/t.h"

#include "lib/base/rng.h"

#define TOL 1e-12

/* logits whose softmax is 0.1, 0.2, 0.3, 0.4: ln 1, ln 2, ln 3, ln 4 */
static void logits_1234(double v[4])
{
    for (int i = 0; i < 4; i++)
        v[i] = log(1.0 + i);
}

/* the logit whose sigmoid is p */
static double logit_of(double p)
{
    return log(p / (1 - p));
}

T_TEST(mixtral_renormalises_the_softmax_of_the_chosen)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1};
    double logits[4], w[2];
    int32_t e[2];

    logits_1234(logits);
    mt_router_apply(&rule, logits, NULL, 4, 2, e, w);
    /* 0.4/(0.4+0.3) and 0.3/(0.4+0.3) */
    T_EQ_INT(t, e[0], 3);
    T_EQ_INT(t, e[1], 2);
    T_NEAR(t, w[0], 4.0 / 7, TOL);
    T_NEAR(t, w[1], 3.0 / 7, TOL);
}

T_TEST(qwen3_moe_without_norm_keeps_the_probabilities)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX, .scale = 1};
    double logits[4], w[3];
    int32_t e[3];

    logits_1234(logits);
    logits[0] = log(4.0); /* probabilities 4, 2, 3, 4 of 13 */
    mt_router_apply(&rule, logits, NULL, 4, 3, e, w);
    /* experts 0 and 3 tie at 4/13: the lower first; then expert 2 with 3/13 */
    T_EQ_INT(t, e[0], 0);
    T_EQ_INT(t, e[1], 3);
    T_EQ_INT(t, e[2], 2);
    T_NEAR(t, w[0], 4.0 / 13, TOL);
    T_NEAR(t, w[1], 4.0 / 13, TOL);
    T_NEAR(t, w[2], 3.0 / 13, TOL);
}

T_TEST(qwen3_moe_with_norm_and_all_experts_is_the_softmax)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1};
    double logits[4], w[4], sum = 0;
    int32_t e[4];

    logits_1234(logits);
    mt_router_apply(&rule, logits, NULL, 4, 4, e, w);
    for (int s = 0; s < 4; s++) {
        T_EQ_INT(t, e[s], 3 - s);
        T_NEAR(t, w[s], 0.4 - 0.1 * s, TOL);
        sum += w[s];
    }
    T_NEAR(t, sum, 1, TOL);
}

T_TEST(granite_takes_the_softmax_after_the_choice)
{
    /* renorm must change nothing: softmax over {ln 3, ln 4} is 3/7, 4/7 already */
    struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX_TOPK, .renorm = true, .scale = 1};
    double logits[4], w[2];
    int32_t e[2];

    logits_1234(logits);
    mt_router_apply(&rule, logits, NULL, 4, 2, e, w);
    T_EQ_INT(t, e[0], 3);
    T_EQ_INT(t, e[1], 2);
    T_NEAR(t, w[0], 4.0 / 7, TOL);
    T_NEAR(t, w[1], 3.0 / 7, TOL);
    rule.renorm = false;
    rule.scale = 3.5;
    mt_router_apply(&rule, logits, NULL, 4, 2, e, w);
    T_NEAR(t, w[0], 2.0, TOL);
    T_NEAR(t, w[1], 1.5, TOL);
}

T_TEST(deepseek_v2_scales_without_norm)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX, .scale = 16};
    double logits[4], w[1];
    int32_t e[1];

    logits_1234(logits);
    mt_router_apply(&rule, logits, NULL, 4, 1, e, w);
    T_EQ_INT(t, e[0], 3);
    T_NEAR(t, w[0], 6.4, TOL); /* 16 * 0.4 */
}

T_TEST(glm4_selects_with_the_bias_and_weighs_without_it)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SIGMOID, .scale = 1, .has_bias = true};
    double logits[4] = {0, log(3.0), -log(3.0), log(1.0 / 9)}; /* sigmoids .5 .75 .25 .1 */
    const double bias[4] = {0, -0.6, 0.4, 0.05};
    double w[2];
    int32_t e[2];

    /* selection scores .5 .15 .65 .15: experts 2 and 0; weights .25 and .5, heaviest first */
    mt_router_apply(&rule, logits, bias, 4, 2, e, w);
    T_EQ_INT(t, e[0], 0);
    T_EQ_INT(t, e[1], 2);
    T_NEAR(t, w[0], 0.5, TOL);
    T_NEAR(t, w[1], 0.25, TOL);

    /* norm: 2/3 and 1/3; factor 1.8: 1.2 and 0.6 */
    rule.renorm = true;
    rule.renorm_eps = 1e-20;
    rule.scale = 1.8;
    mt_router_apply(&rule, logits, bias, 4, 2, e, w);
    T_EQ_INT(t, e[0], 0);
    T_NEAR(t, w[0], 1.2, TOL);
    T_NEAR(t, w[1], 0.6, TOL);
}

T_TEST(the_epsilon_of_the_norm_counts_when_scores_vanish)
{
    struct mt_router_rule rule = {
        .score = MT_SCORE_SIGMOID, .renorm = true, .renorm_eps = 1e-20, .scale = 1};
    /* sigmoid(-50) = exp(-50) to 1e-22 relative; 2 exp(-50) = 3.8575e-22 */
    const double logits[2] = {-50, -50};
    double w[2], s = exp(-50.0);
    int32_t e[2];

    mt_router_apply(&rule, logits, NULL, 2, 2, e, w);
    T_NEAR(t, w[0], s / (2 * s + 1e-20), 1e-14);
    T_CHECK(t, w[0] < 0.02); /* without the epsilon it would be 0.5 */
}

T_TEST(deepseek_v3_groups_are_worth_their_two_best)
{
    struct mt_router_rule rule = {
        .score = MT_SCORE_SIGMOID, .scale = 1, .has_bias = true, .n_group = 4, .topk_group = 2};
    const double p[8] = {.9, .05, .6, .55, .8, .25, .5, .3};
    const double bias[8] = {0};
    double logits[8], w[2];
    int32_t e[2];

    for (int i = 0; i < 8; i++)
        logits[i] = logit_of(p[i]);
    /* groups .95, 1.15, 1.05, .8: groups 1 and 2 stay, and the best expert of all is out */
    mt_router_apply(&rule, logits, bias, 8, 2, e, w);
    T_EQ_INT(t, e[0], 4);
    T_EQ_INT(t, e[1], 2);
    T_NEAR(t, w[0], 0.8, TOL);
    T_NEAR(t, w[1], 0.6, TOL);
}

T_TEST(deepseek_v2_groups_are_worth_their_best)
{
    struct mt_router_rule rule = {
        .score = MT_SCORE_SOFTMAX, .scale = 1, .n_group = 4, .topk_group = 2};
    const double q[8] = {.9, .05, .6, .55, .8, .25, .5, .3}; /* sum 3.95 */
    double logits[8], w[2];
    int32_t e[2];

    for (int i = 0; i < 8; i++)
        logits[i] = log(q[i]);
    /* groups .9, .6, .8, .5: groups 0 and 2 stay */
    mt_router_apply(&rule, logits, NULL, 8, 2, e, w);
    T_EQ_INT(t, e[0], 0);
    T_EQ_INT(t, e[1], 4);
    T_NEAR(t, w[0], .9 / 3.95, TOL);
    T_NEAR(t, w[1], .8 / 3.95, TOL);
}

T_TEST(an_excluded_expert_is_not_chosen_over_a_negative_score)
{
    struct mt_router_rule rule = {
        .score = MT_SCORE_SIGMOID, .scale = 1, .has_bias = true, .n_group = 2, .topk_group = 1};
    /* all sigmoids .5; selection scores: group 0 -.5, -2.5 (sum -3), group 1 -1, -1.5 (sum -2.5) */
    const double logits[4] = {0, 0, 0, 0}, bias[4] = {-1, -3, -1.5, -2};
    double w[2];
    int32_t e[2];

    mt_router_apply(&rule, logits, bias, 4, 2, e, w);
    T_EQ_INT(t, e[0], 2); /* 0 instead of -inf for the excluded would choose 0 and 1 */
    T_EQ_INT(t, e[1], 3);
}

T_TEST(ties_go_to_the_lowest_index)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1};
    const double logits[5] = {1, 2, 2, 2, 1};
    double w[4];
    int32_t e[4];

    mt_router_apply(&rule, logits, NULL, 5, 4, e, w);
    T_EQ_INT(t, e[0], 1);
    T_EQ_INT(t, e[1], 2);
    T_EQ_INT(t, e[2], 3);
    T_EQ_INT(t, e[3], 0);
}

T_TEST(tied_groups_go_to_the_lowest_index)
{
    struct mt_router_rule rule = {
        .score = MT_SCORE_SIGMOID, .scale = 1, .has_bias = true, .n_group = 3, .topk_group = 2};
    const double logits[6] = {0, 0, 0, 0, 0, 0}, bias[6] = {0};
    double w[4];
    int32_t e[4];

    mt_router_apply(&rule, logits, bias, 6, 4, e, w);
    for (int s = 0; s < 4; s++)
        T_EQ_INT(t, e[s], s);
}

T_TEST(huge_logits_stay_finite)
{
    const enum mt_router_score scores[] = {MT_SCORE_SOFTMAX, MT_SCORE_SIGMOID,
                                           MT_SCORE_SOFTMAX_TOPK};
    const double logits[3] = {1e5, -1e5, 9.9e4};

    for (int i = 0; i < 3; i++) {
        struct mt_router_rule rule = {.score = scores[i], .renorm = true, .scale = 1};
        double w[2];
        int32_t e[2];
        mt_router_apply(&rule, logits, NULL, 3, 2, e, w);
        T_EQ_INT(t, e[0], 0);
        T_NEAR(t, w[0] + w[1], 1, TOL);
        T_CHECK(t, isfinite(w[0]) && isfinite(w[1]));
    }
}

T_TEST(nan_logits_still_choose_distinct_experts)
{
    struct mt_router_rule rule = {.score = MT_SCORE_SIGMOID, .scale = 1};
    const double logits[4] = {NAN, NAN, 1, NAN};
    double w[4];
    int32_t e[4];
    int seen = 0;

    mt_router_apply(&rule, logits, NULL, 4, 4, e, w);
    for (int s = 0; s < 4; s++)
        seen |= 1 << e[s];
    T_EQ_INT(t, seen, 15);
}

/* Against sorting everything: for random logits and bias the chosen are the k best. */
T_TEST(the_choice_is_the_k_best_of_many)
{
    struct mt_rng rng;

    mt_rng_seed(&rng, 7, 0);
    for (int round = 0; round < 300; round++) {
        int n = 1 + (int)mt_rng_below(&rng, 64), k = 1 + (int)mt_rng_below(&rng, (uint64_t)n);
        struct mt_router_rule rule = {
            .score = (enum mt_router_score)(round % 3), .scale = 1, .has_bias = true};
        double logits[64], bias[64], pick[64], w[64], z = 0;
        int32_t e[64];
        for (int i = 0; i < n; i++) {
            logits[i] = mt_rng_normal(&rng);
            bias[i] = 0.1 * mt_rng_normal(&rng);
            z += exp(logits[i]);
        }
        mt_router_apply(&rule, logits, bias, n, k, e, w);
        for (int i = 0; i < n; i++) {
            double s = rule.score == MT_SCORE_SIGMOID   ? 1 / (1 + exp(-logits[i]))
                       : rule.score == MT_SCORE_SOFTMAX ? exp(logits[i]) / z
                                                        : logits[i];
            pick[i] = s + bias[i];
        }
        for (int s = 0; s < k; s++) {
            int better = 0;
            for (int i = 0; i < n; i++)
                better += pick[i] > pick[e[s]];
            T_CHECK(t, better < k);
            T_CHECK(t, s == 0 || w[s - 1] >= w[s]);
        }
    }
}

T_TEST(rules_that_cannot_choose_k_do_not_fit)
{
    struct mt_router_rule rule = {.scale = 1, .n_group = 4, .topk_group = 1};

    T_CHECK(t, mt_router_fits(&rule, 8, 2));
    T_CHECK(t, !mt_router_fits(&rule, 8, 3)); /* one group of two */
    T_CHECK(t, !mt_router_fits(&rule, 9, 1)); /* groups of unequal size */
    rule.topk_group = 5;
    T_CHECK(t, !mt_router_fits(&rule, 8, 2));
    rule.n_group = rule.topk_group = 1;
    T_CHECK(t, mt_router_fits(&rule, 8, 8));
    T_CHECK(t, !mt_router_fits(&rule, 8, 9));
    T_CHECK(t, !mt_router_fits(&rule, 8, 0));
    T_CHECK(t, !mt_router_fits(&rule, MT_ROUTER_EXPERTS_MAX + 1, 1));
}

/* ---- what only the native layout asks for ---- */

T_TEST(unit_weights_follow_the_choice_and_not_the_score)
{
    struct mt_router_rule rule = {.score = MT_SCORE_LOGIT, .unit = true, .scale = 0.5};
    const double logits[] = {-3, 900, 2, -1}, bias[] = {0, -1000, 0, 2};
    double w[2];
    int32_t e[2];

    mt_router_apply(&rule, logits, NULL, 4, 2, e, w);
    T_CHECK(t, e[0] == 1 && e[1] == 2 && w[0] == 0.5 && w[1] == 0.5);
    mt_router_apply(&rule, logits, bias, 4, 2, e, w);
    T_CHECK(t, e[0] == 2 && e[1] == 3 && w[0] == 0.5 && w[1] == 0.5);
}

/* Weights of what a threshold leaves: renormalised among themselves; slots left over are -1. */
T_TEST(thresholds_drop_slots)
{
    static const struct {
        enum mt_router_cut cut;
        double at;
        int min, left;
    } cases[] = {
        {MT_CUT_ABOVE, 0.25, 1, 2},  {MT_CUT_ABOVE, 0.25, 3, 3}, {MT_CUT_ABOVE, 0.5, 0, 0},
        {MT_CUT_ABOVE, 0.5, 1, 1},   {MT_CUT_RATIO, 0.75, 1, 2}, {MT_CUT_RATIO, 0.76, 1, 1},
        {MT_CUT_MARGIN, 0.21, 1, 3}, {MT_CUT_MARGIN, 0, 0, 1},   {MT_CUT_NONE, 9, 0, 3},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_router_rule rule = {.score = MT_SCORE_SOFTMAX,
                                      .renorm = true,
                                      .scale = 1,
                                      .cut = cases[i].cut,
                                      .cut_at = cases[i].at,
                                      .cut_min = cases[i].min};
        double logits[4], w[3], sum = 0, of = 0;
        int32_t e[3];
        logits_1234(logits);
        mt_router_apply(&rule, logits, NULL, 4, 3, e, w);
        for (int s = 0; s < 3; s++)
            of += s < cases[i].left ? 0.4 - 0.1 * s : 0;
        for (int s = 0; s < 3; s++) {
            T_EQ_INT(t, e[s], s < cases[i].left ? 3 - s : -1);
            T_NEAR(t, w[s], s < cases[i].left ? (0.4 - 0.1 * s) / of : 0, TOL);
            sum += w[s];
        }
        T_NEAR(t, sum, cases[i].left > 0 ? 1 : 0, TOL);
    }
}

T_TEST(a_threshold_looks_at_biased_scores)
{
    struct mt_router_rule rule = {
        .score = MT_SCORE_LOGIT, .scale = 1, .has_bias = true, .cut = MT_CUT_ABOVE, .cut_at = 0};
    const double logits[] = {1, 2, 3}, bias[] = {0, 0, -4};
    double w[3];
    int32_t e[3];

    mt_router_apply(&rule, logits, bias, 3, 3, e, w);
    T_CHECK(t, e[0] == 1 && e[1] == 0 && e[2] == -1);
    T_CHECK(t, w[0] == 2 && w[1] == 1 && w[2] == 0);
}

T_TEST(rows_of_one_expert_become_one_slot)
{
    const int32_t map[] = {2, 0, 2, 1, 2};
    int32_t e[] = {0, 3, 4, 2, -1};
    double w[] = {0.3, 0.25, 0.2, 0.1, 0};

    mt_router_join(map, 5, e, w);
    T_CHECK(t, e[0] == 2 && e[1] == 1 && e[2] == -1 && e[3] == -1 && e[4] == -1);
    T_NEAR(t, w[0], 0.6, TOL);
    T_NEAR(t, w[1], 0.25, TOL);
    T_CHECK(t, w[2] == 0 && w[3] == 0);
}

/* Two rows that are light alone are heaviest together. */
T_TEST(joined_slots_stand_in_order_of_weight)
{
    const int32_t map[] = {0, 1, 1};
    int32_t e[] = {0, 1, 2};
    double w[] = {0.4, 0.3, 0.3};

    mt_router_join(map, 3, e, w);
    T_CHECK(t, e[0] == 1 && e[1] == 0 && e[2] == -1);
    T_NEAR(t, w[0], 0.6, TOL);
}
