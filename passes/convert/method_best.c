/* method_best.c
 * best: experts of neurons that a linear router can foretell together.
 *
 * Balanced k-means on ridge-predicted contribution profiles (predict.h); shared are the neurons
 * that contribute most. With a ridge router and down projections refitted to its choices this is
 * the recipe of best_conversion section 5.
 */
#include "passes/convert/method.h"
#include "passes/lib/partition.h"
#include "passes/lib/predict.h"

#include <math.h>

struct best {
    int64_t width;
    double *length;             /* [D] lengths of down columns */
    struct mt_predict *predict; /* NULL until activations are shown */
};

static int best_rounds(const struct mt_convert_at *at)
{
    return at->shape->k < at->shape->n_experts ? 1 : 0;
}

static uint64_t best_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width,
             n = (uint64_t)at->shape->n_experts;

    /* The fit, then profiles and k-means beside what is left of it. */
    return mt_predict_bytes(d, w) + w * n * 52 + n * MT_PREDICT_SAMPLE_MAX * 4 + w * 32;
}

static mt_status best_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    struct best *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "neuron profiles", &s));
    *state = s;
    s->width = at->shape->width;
    MT_TRY(mt_alloc(ctx, (size_t)s->width, sizeof(*s->length), "neuron lengths", &s->length));
    MT_TRY(mt_cols_sumsq(ctx, at->dense->down, s->length));
    for (int64_t j = 0; j < s->width; j++)
        s->length[j] = sqrt(s->length[j]);
    return MT_OK;
}

static mt_status best_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                              const struct mt_observation *ob)
{
    struct best *s = state;

    if (s->predict == NULL)
        MT_TRY(mt_predict_create(ctx, at->shape->hidden, s->width, s->length, ob->n_tokens,
                                 &s->predict));
    return mt_predict_add(ctx, s->predict, ob->m, ob->token0, ob->x, ob->h);
}

static mt_status best_group(struct mt_ctx *ctx, const struct mt_convert_at *at, struct best *s,
                            struct mt_split *split, int32_t *owner, int32_t *pool, double *mean)
{
    int64_t n = s->width - mt_split_shared_width(split);
    float *points;

    mt_predict_means(s->predict, mean);
    MT_TRY(mt_predict_solve(ctx, s->predict));
    MT_TRY(mt_split_share_best(ctx, split, mean, owner, pool));
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)mt_predict_tokens(s->predict) * sizeof(*points),
                    "neuron profiles", &points));
    mt_status st = mt_predict_profiles(ctx, s->predict, pool, n, points);
    if (st == MT_OK)
        st = mt_split_cluster(ctx, split, pool, points, mt_predict_tokens(s->predict),
                              (uint64_t)at->layer, owner);
    mt_free(points);
    if (st == MT_OK)
        mt_split_fill(split, owner);
    return st;
}

static mt_status best_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             struct mt_convert_division *out)
{
    static const struct mt_neuron_sums none;
    struct best *s = state;
    size_t w = (size_t)s->width;
    double *mean;

    if (at->shape->n_shared > 0)
        out->shared_by = s->predict != NULL ? MT_SHARED_BY_ACTIVATIONS : MT_SHARED_BY_WEIGHTS;
    /* Without data: by weights. */
    if (s->predict == NULL)
        return mt_partition_ffn(ctx, MT_PARTITION_CLUSTER, at->dense, &none, at->shape->n_experts,
                                at->shape->n_shared, (uint64_t)at->layer, &out->split);
    MT_TRY(mt_split_create(ctx, s->width, at->shape->n_experts, at->shape->n_shared, &out->split));
    MT_TRY(mt_alloc(ctx, w, sizeof(*mean) + 2 * sizeof(int32_t), "partition", &mean));
    int32_t *owner = (void *)(mean + w);
    mt_status st = best_group(ctx, at, s, out->split, owner, owner + w, mean);
    mt_free(mean);
    return st;
}

static void best_end(void *state)
{
    struct best *s = state;

    if (s == NULL)
        return;
    mt_predict_free(s->predict);
    mt_free(s->length);
    mt_free(s);
}

const struct mt_convert_method mt_convert_method_best = {
    .name = "best",
    .summary = "experts that a linear router can foretell, with refitted outputs",
    .help = "best groups neurons by balanced k-means on how a ridge regression on the FFN's input "
            "foretells their contributions |h_j| ||v_j||, fits a linear router to which experts "
            "contribute most, and refits down projections, in closed form, to what that router "
            "chooses: layer by layer, each behind the converted ones before it. Many small experts "
            "do better than few large ones. Without --data it groups by weights, as partition.",
    .router = "ridge",
    .refit = "down",
    .needs = MT_NEED_INPUTS | MT_NEED_HIDDEN,
    .rounds = best_rounds,
    .memory = best_memory,
    .begin = best_begin,
    .observe = best_observe,
    .decide = best_decide,
    .end = best_end,
};
