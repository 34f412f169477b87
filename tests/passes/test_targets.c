#include "lib/base/rng.h"
#include "lib/run/runner.h"
#include "passes/lib/targets.h"
#include "tests/t.h"

#define N 16
#define K 4
#define D 32

/* Routes random logits of standard deviation 4 flattened by 2^-m. Gives the largest error of a
 * weight, the largest error of the sum of K random expert outputs relative to the plain sum, and
 * the largest |logit|. */
static void simulate(const struct mt_target *target, int m, double *weight_error, double *sum_error,
                     double *logit_max)
{
    struct mt_rng r;
    double logits[N], weight[K], y[K][D];
    int32_t expert[K];

    mt_rng_seed(&r, 17, (uint64_t)m);
    *weight_error = *sum_error = *logit_max = 0;
    for (int token = 0; token < 500; token++) {
        double diff = 0, norm = 0;
        for (int e = 0; e < N; e++) {
            logits[e] = ldexp(4 * mt_rng_normal(&r), -m);
            *logit_max = fmax(*logit_max, fabs(logits[e]));
        }
        mt_router_apply(&target->rule, logits, NULL, N, K, expert, weight);
        for (int i = 0; i < K; i++) {
            weight[i] *= mt_target_alpha(target, N, K);
            *weight_error = fmax(*weight_error, fabs(weight[i] - 1));
            for (int j = 0; j < D; j++)
                y[i][j] = mt_rng_normal(&r);
        }
        for (int j = 0; j < D; j++) {
            double want = 0, got = 0;
            for (int i = 0; i < K; i++) {
                want += y[i][j];
                got += weight[i] * y[i][j];
            }
            diff += (got - want) * (got - want);
            norm += want * want;
        }
        *sum_error = fmax(*sum_error, sqrt(diff / norm));
    }
}

T_TEST(flattened_routing_times_alpha_is_near_one)
{
    /* Errors of the FFN's sum that flattening is known to leave with logits of deviation 4. */
    static const struct {
        int m;
        double sum_error;
    } known[] = {{8, 5.2e-2}, {10, 1.1e-2}, {12, 2.3e-3}, {14, 7.3e-4}};

    for (int i = 0; mt_target_names[i] != NULL; i++) {
        const struct mt_target *target = mt_target_find(mt_target_names[i]);
        T_CHECK(t, target != NULL);
        for (size_t j = 0; j < sizeof(known) / sizeof(*known); j++) {
            double weight_error, sum_error, logit_max;
            simulate(target, known[j].m, &weight_error, &sum_error, &logit_max);
            /* Where the scores of all N count and not of K, the worst of 500 tokens varies more. */
            double room = target->alpha == MT_ALPHA_EXPERTS ? 1.3 : 1;
            T_CHECK(t, target->rule.unit == (sum_error <= 0));
            T_CHECK(t, sum_error <= room * known[j].sum_error);
            T_CHECK(t,
                    weight_error <= mt_target_weight_bound(target, N, K, logit_max) * (1 + 1e-9));
        }
    }
}

T_TEST(even_logits_give_weight_one_exactly)
{
    double logits[N] = {0}, weight[N];
    int32_t expert[N];

    for (int i = 0; mt_target_names[i] != NULL; i++) {
        const struct mt_target *target = mt_target_find(mt_target_names[i]);
        for (int k = 1; k <= N; k++) {
            mt_router_apply(&target->rule, logits, NULL, N, k, expert, weight);
            for (int s = 0; s < k; s++)
                T_NEAR(t, weight[s] * mt_target_alpha(target, N, k), 1, 1e-15);
            T_NEAR(t, mt_target_weight_bound(target, N, k, 0), 0, 0);
        }
    }
}

T_TEST(the_bound_is_reached_and_not_passed)
{
    for (int i = 0; mt_target_names[i] != NULL; i++) {
        const struct mt_target *target = mt_target_find(mt_target_names[i]);
        double l = 1e-4;
        for (int step = 0; step < 10; step++, l *= 3) {
            /* One chosen logit at the top, the others at the bottom: the worst there is. */
            double logits[K] = {l, -l, -l, -l}, weight[K], worst = 0;
            int32_t expert[K];
            mt_router_apply(&target->rule, logits, NULL, K, K, expert, weight);
            for (int s = 0; s < K; s++)
                worst = fmax(worst, fabs(weight[s] * mt_target_alpha(target, K, K) - 1));
            T_NEAR(t, mt_target_weight_bound(target, K, K, l), worst, 1e-12);
        }
    }
}

/* Copies: routed random logits, as they are for rules that sum to G whatever they are; slices of a
 * copy tie. What comes out of complete copies is the sum of G weights times alpha. */
static double copies_error(const struct mt_target *use, int copies, int granules, int k,
                           double size)
{
    int n = copies * granules;
    double logits[N], weight[N], worst = 0;
    int32_t expert[N];
    struct mt_rng r;

    mt_rng_seed(&r, 18, (uint64_t)n + (uint64_t)k);
    for (int token = 0; token < 500; token++) {
        double sum = 0;
        int slices[N] = {0};
        for (int c = 0; c < copies; c++) {
            logits[c * granules] = size * mt_rng_normal(&r);
            for (int i = 1; i < granules; i++)
                logits[c * granules + i] = logits[c * granules];
        }
        mt_router_apply(&use->rule, logits, NULL, n, k, expert, weight);
        for (int i = 0; i < k; i++) {
            sum += weight[i] * mt_target_alpha(use, n, k);
            slices[expert[i] / granules]++;
        }
        for (int c = 0; c < copies; c++)
            worst = slices[c] == 0 || slices[c] == granules ? worst : INFINITY;
        worst = fmax(worst, fabs(sum / granules - 1));
    }
    return worst;
}

T_TEST(weights_of_copies_sum_to_their_slices)
{
    static const struct {
        int copies, granules, k;
    } shapes[] = {{4, 1, 1}, {4, 1, 2}, {4, 1, 4}, {8, 2, 2},
                  {8, 2, 6}, {5, 3, 3}, {5, 3, 9}, {4, 4, 4}};

    for (int i = 0; mt_target_names[i] != NULL; i++) {
        for (size_t j = 0; j < sizeof shapes / sizeof *shapes; j++) {
            int copies = shapes[j].copies, g = shapes[j].granules, k = shapes[j].k;
            const struct mt_target use =
                mt_target_for_copies(mt_target_find(mt_target_names[i]), g, k);
            if (mt_target_sums(&use)) {
                T_CHECK(t, copies_error(&use, copies, g, k, 4) < 1e-12);
                T_NEAR(t, mt_target_weight_bound(&use, copies * g, k, 50), 0, 0);
                continue;
            }
            /* A softmax over all, flattened; nothing is left out where all act. */
            T_CHECK(t, copies_error(&use, copies, g, k, ldexp(4, -12)) < 1e-2);
            T_CHECK(t, (copies_error(&use, copies, g, k, 4) > 0.5) == (k < copies * g));
        }
    }
}

T_TEST(one_renormalised_expert_has_no_error)
{
    T_NEAR(t, mt_target_weight_bound(mt_target_find("mixtral"), N, 1, 5), 0, 0);
}

T_TEST(powers_of_two_are_exact_scales)
{
    T_CHECK(t, mt_scale_is_exact(1));
    T_CHECK(t, mt_scale_is_exact(0.25));
    T_CHECK(t, mt_scale_is_exact(64));
    T_CHECK(t, !mt_scale_is_exact(3));
    T_CHECK(t, !mt_scale_is_exact(0));
}

T_TEST(an_unknown_target_is_none)
{
    T_CHECK(t, mt_target_find("llama") == NULL);
}
