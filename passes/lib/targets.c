#include "passes/lib/targets.h"

#include <math.h>
#include <string.h>

/* 2 * sigmoid(0) = 1 for any number of experts and any k. */
#define TARGET_SIGMOID                                                                             \
    {                                                                                              \
        .score = MT_SCORE_SIGMOID, .renorm_eps = 1e-20, .scale = 2, .has_bias = true,              \
        .n_group = 1, .topk_group = 1                                                              \
    }
/* A softmax over all experts: 1/N each, or 1/k where the chosen are renormalised. */
#define TARGET_SOFTMAX(sum_to_one)                                                                 \
    {                                                                                              \
        .score = MT_SCORE_SOFTMAX, .renorm = (sum_to_one), .scale = 1, .n_group = 1,               \
        .topk_group = 1                                                                            \
    }
#define TARGET_SOFTMAX_TOPK                                                                        \
    {                                                                                              \
        .score = MT_SCORE_SOFTMAX_TOPK, .scale = 1, .n_group = 1, .topk_group = 1                  \
    }

static const struct mt_target target_all[] = {
    {.family = "glm4_moe", .rule = TARGET_SIGMOID, .shared = true, .shared_required = true},
    {.family = "dots1", .rule = TARGET_SIGMOID, .shared = true, .shared_required = true},
    {.family = "granitemoeshared",
     .rule = TARGET_SOFTMAX_TOPK,
     .alpha = MT_ALPHA_ACTIVE,
     .shared = true},
    {.family = "granitemoe", .rule = TARGET_SOFTMAX_TOPK, .alpha = MT_ALPHA_ACTIVE},
    {.family = "mixtral", .rule = TARGET_SOFTMAX(true), .alpha = MT_ALPHA_ACTIVE},
    /* llama.cpp renormalises whatever the config says. */
    {.family = "qwen3_moe", .rule = TARGET_SOFTMAX(true), .alpha = MT_ALPHA_ACTIVE},
    /* ... and never does for these two. */
    {.family = "qwen2_moe",
     .rule = TARGET_SOFTMAX(false),
     .alpha = MT_ALPHA_EXPERTS,
     .shared = true,
     .shared_required = true,
     .shared_gated = true,
     .qkv_biased = true},
    {.family = "olmoe", .rule = TARGET_SOFTMAX(false), .alpha = MT_ALPHA_EXPERTS},
    /* Weights are 1 by rule, so nothing is flattened or folded in. */
    {.family = "moetool",
     .name = "native",
     .rule = {.score = MT_SCORE_LOGIT,
              .unit = true,
              .scale = 1,
              .has_bias = true,
              .n_group = 1,
              .topk_group = 1},
     .shared = true,
     .any_ffn = true},
};

const char *const mt_target_names[] = {"glm4_moe", "dots1",     "granitemoeshared", "granitemoe",
                                       "mixtral",  "qwen3_moe", "qwen2_moe",        "olmoe",
                                       "native",   NULL};

const char *mt_target_name(const struct mt_target *t)
{
    return t->name != NULL ? t->name : t->family;
}

const struct mt_target *mt_target_find(const char *name)
{
    for (size_t i = 0; i < sizeof(target_all) / sizeof(*target_all); i++)
        if (strcmp(mt_target_name(&target_all[i]), name) == 0)
            return &target_all[i];
    return NULL;
}

struct mt_target mt_target_for_copies(const struct mt_target *t, int granules, int k)
{
    struct mt_target use = *t;

    use.granules = granules;
    if (t->rule.unit && k != granules) {
        use.rule = (struct mt_router_rule){.score = MT_SCORE_SOFTMAX,
                                           .renorm = true,
                                           .scale = granules,
                                           .n_group = 1,
                                           .topk_group = 1};
    } else if (t->rule.score == MT_SCORE_SIGMOID) {
        use.rule.renorm = true;
        use.rule.scale = granules;
    }
    return use;
}

bool mt_target_sums(const struct mt_target *t)
{
    return t->rule.unit || t->rule.renorm || t->rule.score == MT_SCORE_SOFTMAX_TOPK;
}

double mt_target_alpha(const struct mt_target *t, int n, int k)
{
    if (t->granules > 0 && t->alpha != MT_ALPHA_ONE)
        return t->alpha == MT_ALPHA_ACTIVE ? t->granules : (double)n * t->granules / k;
    return t->alpha == MT_ALPHA_ONE ? 1 : t->alpha == MT_ALPHA_ACTIVE ? k : n;
}

double mt_target_shared_alpha(const struct mt_target *t)
{
    return t->shared_gated ? 2 : 1;
}

double mt_target_weight_bound(const struct mt_target *t, int n, int k, double l)
{
    int parts = t->alpha == MT_ALPHA_ACTIVE ? k : n;

    if (t->rule.unit || (t->granules > 0 && mt_target_sums(t)))
        return 0;
    /* 2 sigmoid(z) - 1 = tanh(z / 2). */
    if (t->alpha == MT_ALPHA_ONE)
        return tanh(l / 2);
    /* parts e^z / sum: most when one chosen logit is at l and the others at -l; the mirrored case
     * is below 1 and nearer to it. */
    return parts == 1 ? 0 : parts / (1 + (parts - 1) * exp(-2 * l)) - 1;
}

bool mt_scale_is_exact(double scale)
{
    int exponent;

    return frexp(fabs(scale), &exponent) == 0.5;
}
