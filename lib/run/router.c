#include "lib/run/runner.h"

#include "lib/base/best.h"

#include <math.h>
#include <string.h>

/* Scores of all rows; for softmax-after-top-k the logits themselves, because the softmax keeps
 * their order. */
static void router_scores(const struct mt_router_rule *rule, const double *logits, int n,
                          double *score)
{
    double max = logits[0], sum = 0;

    switch (rule->score) {
    case MT_SCORE_SIGMOID:
        for (int i = 0; i < n; i++)
            score[i] = 1.0 / (1.0 + exp(-logits[i]));
        return;
    case MT_SCORE_SOFTMAX_TOPK:
    case MT_SCORE_LOGIT:
        memcpy(score, logits, (size_t)n * sizeof *score);
        return;
    case MT_SCORE_SOFTMAX:
        break;
    }
    for (int i = 1; i < n; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int i = 0; i < n; i++)
        sum += score[i] = exp(logits[i] - max);
    for (int i = 0; i < n; i++)
        score[i] /= sum;
}

/* What a group is worth: the sum of its two best scores where the selection is biased or by
 * sigmoid (DeepSeek-V3), its best score otherwise (DeepSeek-V2). */
static double router_group_score(const struct mt_router_rule *rule, const double *pick, int size)
{
    double first = -INFINITY, second = -INFINITY;

    for (int i = 0; i < size; i++) {
        if (pick[i] > first) {
            second = first;
            first = pick[i];
        } else if (pick[i] > second) {
            second = pick[i];
        }
    }
    if (rule->score == MT_SCORE_SOFTMAX && !rule->has_bias)
        return first;
    return size > 1 ? first + second : first;
}

/* Marks the experts outside the best groups as taken. */
static void router_exclude_groups(const struct mt_router_rule *rule, const double *pick, int n,
                                  unsigned char *taken)
{
    double worth[MT_ROUTER_GROUPS_MAX];
    unsigned char kept[MT_ROUTER_GROUPS_MAX] = {0};
    int32_t best[MT_ROUTER_GROUPS_MAX];
    int size = n / rule->n_group;

    for (int g = 0; g < rule->n_group; g++)
        worth[g] = router_group_score(rule, pick + g * size, size);
    mt_best_f64(worth, NULL, rule->n_group, rule->topk_group, best);
    for (int j = 0; j < rule->topk_group; j++)
        kept[best[j]] = 1;
    for (int i = 0; i < n; i++)
        taken[i] = !kept[i / size];
}

static void router_weights(const struct mt_router_rule *rule, int k, double *weight)
{
    double sum = 0, max = weight[0];

    if (rule->score == MT_SCORE_SOFTMAX_TOPK) {
        for (int s = 1; s < k; s++)
            max = weight[s] > max ? weight[s] : max;
        for (int s = 0; s < k; s++)
            weight[s] = exp(weight[s] - max);
    }
    for (int s = 0; s < k; s++)
        sum += weight[s];
    for (int s = 0; s < k; s++) {
        if (rule->score == MT_SCORE_SOFTMAX_TOPK)
            weight[s] /= sum;
        else if (rule->renorm)
            weight[s] /= fmax(sum + rule->renorm_eps, rule->renorm_min);
        weight[s] *= rule->scale;
    }
}

/* How many of the k chosen, best first, the rule's threshold leaves. A NaN never passes one. */
static int router_cut(const struct mt_router_rule *rule, const double *pick, int k,
                      const int32_t *expert)
{
    double at = rule->cut_at;
    int n = 0;

    if (rule->cut == MT_CUT_NONE)
        return k;
    if (rule->cut == MT_CUT_RATIO)
        at *= pick[expert[0]];
    if (rule->cut == MT_CUT_MARGIN)
        at = pick[expert[0]] - at;
    while (n < k && pick[expert[n]] >= at)
        n++;
    return n < rule->cut_min ? (rule->cut_min < k ? rule->cut_min : k) : n;
}

/* Heaviest first, ties to the lowest index; k is small. */
static void router_sort(int k, int32_t *expert, double *weight)
{
    for (int s = 1; s < k; s++) {
        int32_t e = expert[s];
        double w = weight[s];
        int j = s;
        for (; j > 0 && (weight[j - 1] < w || (weight[j - 1] == w && expert[j - 1] > e)); j--) {
            expert[j] = expert[j - 1];
            weight[j] = weight[j - 1];
        }
        expert[j] = e;
        weight[j] = w;
    }
}

void mt_router_apply(const struct mt_router_rule *rule, const double *logits, const double *bias,
                     int n, int k, int32_t *expert, double *weight)
{
    double score[MT_ROUTER_EXPERTS_MAX], biased[MT_ROUTER_EXPERTS_MAX];
    unsigned char taken[MT_ROUTER_EXPERTS_MAX];
    const double *pick = score;

    mt_assert(mt_router_fits(rule, n, k));
    memset(taken, 0, (size_t)n);
    memset(score, 0, (size_t)n * sizeof *score);
    router_scores(rule, logits, n, score);
    if (bias != NULL) {
        for (int i = 0; i < n; i++)
            biased[i] = score[i] + bias[i];
        pick = biased;
    }
    if (rule->n_group > 1 && rule->topk_group < rule->n_group)
        router_exclude_groups(rule, pick, n, taken);
    mt_best_f64(pick, taken, n, k, expert);
    for (int s = 0; s < k; s++)
        weight[s] = score[expert[s]];
    n = router_cut(rule, pick, k, expert);
    for (int s = n; s < k; s++) {
        expert[s] = -1;
        weight[s] = 0;
    }
    if (rule->unit)
        for (int s = 0; s < n; s++)
            weight[s] = rule->scale;
    else if (n > 0)
        router_weights(rule, n, weight);
    router_sort(n, expert, weight);
}

void mt_router_join(const int32_t *map, int k, int32_t *expert, double *weight)
{
    int n = 0;

    for (int s = 0; s < k && expert[s] >= 0; s++) {
        int32_t e = map[expert[s]];
        double w = weight[s];
        int j = 0;
        while (j < n && expert[j] != e)
            j++;
        if (j == n) {
            expert[n] = e;
            weight[n++] = w;
        } else {
            weight[j] += w;
        }
    }
    for (int s = n; s < k; s++) {
        expert[s] = -1;
        weight[s] = 0;
    }
    router_sort(n, expert, weight);
}

bool mt_router_fits(const struct mt_router_rule *rule, int n, int k)
{
    if (n < 1 || n > MT_ROUTER_EXPERTS_MAX || k < 1 || k > n)
        return false;
    if (rule->n_group <= 1)
        return true;
    return rule->n_group <= MT_ROUTER_GROUPS_MAX && n % rule->n_group == 0 &&
           rule->topk_group >= 1 && rule->topk_group <= rule->n_group &&
           k <= rule->topk_group * (n / rule->n_group);
}
