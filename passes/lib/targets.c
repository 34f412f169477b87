#include "passes/lib/targets.h"

#include <math.h>
#include <string.h>

static const struct mt_target target_all[] = {
    /* 2 * sigmoid(0) = 1 for any number of experts and any k. */
    {.family = "glm4_moe",
     .rule = {.score = MT_SCORE_SIGMOID,
              .renorm_eps = 1e-20,
              .scale = 2,
              .has_bias = true,
              .n_group = 1,
              .topk_group = 1},
     .shared = true,
     .shared_required = true},
    /* The same router; its code builds a shared expert in every MoE layer. */
    {.family = "dots1",
     .rule = {.score = MT_SCORE_SIGMOID,
              .renorm_eps = 1e-20,
              .scale = 2,
              .has_bias = true,
              .n_group = 1,
              .topk_group = 1},
     .shared = true,
     .shared_required = true},
    {.family = "mixtral",
     .rule = {.score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1, .n_group = 1, .topk_group = 1},
     .alpha_is_k = true},
    {.family = "qwen3_moe",
     .rule = {.score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1, .n_group = 1, .topk_group = 1},
     .alpha_is_k = true},
};

const char *const mt_target_names[] = {"glm4_moe", "dots1", "mixtral", "qwen3_moe", NULL};

const struct mt_target *mt_target_find(const char *family)
{
    for (size_t i = 0; i < sizeof(target_all) / sizeof(*target_all); i++)
        if (strcmp(target_all[i].family, family) == 0)
            return &target_all[i];
    return NULL;
}

double mt_target_alpha(const struct mt_target *t, int k)
{
    return t->alpha_is_k ? k : 1;
}

double mt_target_weight_bound(const struct mt_target *t, int k, double l)
{
    /* 2 sigmoid(z) - 1 = tanh(z / 2). */
    if (!t->rule.renorm)
        return tanh(l / 2);
    /* k e^z / sum: most when one chosen logit is at l and the others at -l; the mirrored case is
     * below 1 and nearer to it. */
    return k == 1 ? 0 : k / (1 + (k - 1) * exp(-2 * l)) - 1;
}

bool mt_scale_is_exact(double scale)
{
    int exponent;

    return frexp(fabs(scale), &exponent) == 0.5;
}
