/* method_best.c
 * best: experts of neurons that a linear router can foretell together.
 *
 * Balanced k-means on ridge-predicted contribution profiles (predict.h); shared are the neurons
 * that contribute most. Then, by turns, a router is fitted to the groups and neurons move to the
 * experts that it chooses when they matter (regroup.h). With a ridge router and down projections
 * refitted to its choices this is the recipe of best_conversion section 5, and the moves beyond it.
 *
 * Rounds: 0 for the profiles, then two for each move: 2i + 1 to fit a router, 2i + 2 to see what
 * neurons earn.
 */
#include "passes/convert/method.h"
#include "passes/lib/expert_norms.h"
#include "passes/lib/partition.h"
#include "passes/lib/pick.h"
#include "passes/lib/predict.h"
#include "passes/lib/regroup.h"
#include "passes/lib/router_fit.h"
#include "passes/lib/router_probe.h"

#include <math.h>

struct best {
    int64_t width;
    double *length;             /* [D] lengths of down columns */
    struct mt_predict *predict; /* NULL until activations are shown */
    struct mt_split *split;
    int round;       /* what the state stands for */
    bool by_weights; /* activations are no help */

    /* Moving neurons to where they are chosen. */
    struct mt_expert_norms *norms;
    struct mt_router_fit *fit;
    struct mt_regroup *regroup;
    float *router; /* [E, hidden] */

    /* By token: what the threshold is set on, and intercepts less it. */
    struct mt_router_probe *probe;
    float *bias; /* [E] */
};

static int best_rounds(const struct mt_convert_at *at)
{
    return at->shape->k < at->shape->n_experts ? 1 + 2 * (int)at->o->moves : 0;
}

static uint64_t best_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width,
             n = (uint64_t)at->shape->n_experts;

    /* The fit, then profiles and k-means beside what is left of it; or a router, then a move. */
    uint64_t group = mt_predict_bytes(d, w) + w * n * 52 + n * MT_PREDICT_SAMPLE_MAX * 4 + w * 32;
    uint64_t move = mt_router_fit_bytes(d, n) + w * d * 4 + MT_OBSERVE_TOKENS_MAX * n * 5 +
                    mt_regroup_bytes(w, n) + n * d * 4 +
                    (at->shape->by_token ? mt_router_probe_bytes(d, n) : 0);

    return group > move ? group : move;
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

static mt_status best_open_fit(struct mt_ctx *ctx, const struct mt_convert_at *at, struct best *s,
                               int64_t n_tokens)
{
    const struct mt_moe_shape *p = at->shape;

    MT_TRY(mt_router_fit_create(ctx, p->hidden, p->n_experts, p->k, at->labels, &s->fit));
    if (!p->by_token)
        return MT_OK;
    MT_TRY(mt_router_fit_keep_mean(ctx, s->fit));
    return mt_router_probe_create(ctx, p->hidden, p->n_experts, p->k, n_tokens, &s->probe);
}

/* Norms of the groups as they stand, for a router. */
static mt_status best_learn(struct mt_ctx *ctx, const struct mt_convert_at *at, struct best *s,
                            const struct mt_observation *ob)
{
    const struct mt_moe_shape *p = at->shape;
    float *norms;

    if (s->fit == NULL)
        MT_TRY(best_open_fit(ctx, at, s, ob->n_tokens));
    if (s->norms == NULL)
        MT_TRY(mt_expert_norms_create(ctx, at->dense->down, s->split, &s->norms));
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)p->n_experts * sizeof(*norms), "expert norms",
                    &norms));
    mt_status st = mt_expert_norms_run(ctx, s->norms, ob->m, ob->h, norms);
    if (st == MT_OK)
        st = mt_router_fit_add(ctx, s->fit, ob->m, ob->x, norms);
    if (st == MT_OK && s->probe != NULL)
        mt_router_probe_add(s->probe, ob->m, ob->token0, ob->x, norms);
    mt_free(norms);
    return st;
}

/* The threshold that the router made of these experts would get. */
static mt_status best_set_threshold(struct mt_ctx *ctx, const struct mt_moe_shape *p,
                                    struct best *s)
{
    const struct mt_router_form form = {.n = p->n_experts, .d = p->hidden, .w = s->router};
    const struct mt_router_rule rule = mt_moe_rule(p);
    double at;

    MT_TRY(mt_alloc(ctx, (size_t)p->n_experts, sizeof(*s->bias), "router bias", &s->bias));
    mt_router_fit_intercepts(s->fit, s->bias);
    MT_TRY(mt_router_probe_threshold(ctx, s->probe, &form, s->bias, p->k, rule.cut_min, &at));
    for (int e = 0; e < p->n_experts; e++)
        s->bias[e] = (float)((double)s->bias[e] - at);
    mt_router_probe_free(s->probe);
    s->probe = NULL;
    return MT_OK;
}

static mt_status best_solve_router(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                   struct best *s)
{
    const struct mt_moe_shape *p = at->shape;

    MT_TRY(mt_alloc(ctx, (size_t)p->n_experts, (size_t)p->hidden * sizeof(float), "router",
                    &s->router));
    MT_TRY(mt_router_fit_solve(ctx, s->fit, at->o->router_lambda, s->router));
    if (p->by_token)
        MT_TRY(best_set_threshold(ctx, p, s));
    mt_router_fit_free(s->fit);
    mt_expert_norms_free(s->norms);
    s->fit = NULL;
    s->norms = NULL;
    return mt_regroup_create(ctx, s->width, p->n_experts, s->length, &s->regroup);
}

static mt_status best_earn(struct mt_ctx *ctx, const struct mt_convert_at *at, struct best *s,
                           const struct mt_observation *ob)
{
    const struct mt_moe_shape *p = at->shape;
    const struct mt_router_rule rule = mt_moe_rule(p);
    const struct mt_pick pick = {
        .rule = &rule, .n = p->n_experts, .k = mt_moe_rows_max(p), .bias = s->bias};
    unsigned char *picked;

    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)p->n_experts, "choices", &picked));
    mt_status st = mt_pick_linear(ctx, &pick, p->hidden, s->router, ob->m, ob->x, picked);
    if (st == MT_OK)
        st = mt_regroup_add(ctx, s->regroup, ob->m, ob->h, picked);
    mt_free(picked);
    return st;
}

static mt_status best_move(struct mt_ctx *ctx, struct best *s)
{
    MT_TRY(mt_regroup_move(ctx, s->regroup, s->split));
    mt_regroup_free(s->regroup);
    mt_free(s->router);
    mt_free(s->bias);
    s->regroup = NULL;
    s->router = NULL;
    s->bias = NULL;
    return MT_OK;
}

static mt_status best_first_split(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                  struct best *s);

/* Ends what the rounds before `round` were for. */
static mt_status best_reach(struct mt_ctx *ctx, const struct mt_convert_at *at, struct best *s,
                            int round)
{
    if (s->round == round)
        return MT_OK;
    s->round = round;
    if (round == 1)
        return best_first_split(ctx, at, s);
    if (s->by_weights)
        return MT_OK;
    return round % 2 == 0 ? best_solve_router(ctx, at, s) : best_move(ctx, s);
}

static mt_status best_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                              const struct mt_observation *ob)
{
    struct best *s = state;

    if (s->predict == NULL && ob->round == 0)
        MT_TRY(mt_predict_create(ctx, at->shape->hidden, s->width, s->length, ob->n_tokens,
                                 &s->predict));
    MT_TRY(best_reach(ctx, at, s, ob->round));
    if (ob->round == 0)
        return mt_predict_add(ctx, s->predict, ob->m, ob->token0, ob->x, ob->h);
    if (s->by_weights)
        return MT_OK;
    return ob->round % 2 == 1 ? best_learn(ctx, at, s, ob) : best_earn(ctx, at, s, ob);
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

static mt_status best_by_weights(struct mt_ctx *ctx, const struct mt_convert_at *at, struct best *s)
{
    static const struct mt_neuron_sums none;

    s->by_weights = true;
    return mt_partition_ffn(ctx, MT_PARTITION_CLUSTER, at->dense, &none, at->shape->n_experts,
                            at->shape->n_shared, (uint64_t)at->layer, &s->split);
}

static mt_status best_first_split(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                  struct best *s)
{
    size_t w = (size_t)s->width;
    double *mean;

    if (!mt_predict_finite(s->predict)) {
        if (!mt_ctx_allow_nan(ctx))
            return mt_fail(ctx, MT_E_NUMERIC,
                           "activations are NaN or infinite, so neurons cannot be grouped by them; "
                           "--allow-nan goes on by weights there");
        return best_by_weights(ctx, at, s);
    }
    MT_TRY(mt_split_create(ctx, s->width, at->shape->n_experts, at->shape->n_shared, &s->split));
    MT_TRY(mt_alloc(ctx, w, sizeof(*mean) + 2 * sizeof(int32_t), "partition", &mean));
    int32_t *owner = (void *)(mean + w);
    mt_status st = best_group(ctx, at, s, s->split, owner, owner + w, mean);
    mt_free(mean);
    mt_predict_free(s->predict);
    s->predict = NULL;
    return st;
}

static mt_status best_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             struct mt_convert_division *out)
{
    struct best *s = state;

    if (at->observed && best_rounds(at) > 0)
        MT_TRY(best_reach(ctx, at, s, best_rounds(at)));
    else
        MT_TRY(best_by_weights(ctx, at, s));
    if (at->shape->n_shared > 0)
        out->shared_by = s->by_weights ? MT_SHARED_BY_WEIGHTS : MT_SHARED_BY_ACTIVATIONS;
    out->split = s->split;
    s->split = NULL;
    return MT_OK;
}

static void best_end(void *state)
{
    struct best *s = state;

    if (s == NULL)
        return;
    mt_predict_free(s->predict);
    mt_split_free(s->split);
    mt_expert_norms_free(s->norms);
    mt_router_fit_free(s->fit);
    mt_regroup_free(s->regroup);
    mt_router_probe_free(s->probe);
    mt_free(s->router);
    mt_free(s->bias);
    mt_free(s->length);
    mt_free(s);
}

const struct mt_convert_method mt_convert_method_best = {
    .name = "best",
    .summary = "experts that a linear router can foretell, with refitted outputs",
    .help = "best groups neurons by balanced k-means on how a ridge regression on the FFN's input "
            "foretells their contributions |h_j| ||v_j||. Then, --moves times, it fits a linear "
            "router to which experts contribute most and moves neurons to the experts that are "
            "chosen when they matter. Then the experts are fitted to what that router chooses "
            "(--refit all): layer by layer, each behind the converted ones before it. Many small "
            "experts "
            "do better than few large ones. Without --data it groups by weights, as partition.",
    .router = "ridge",
    .refit = "all",
    .labels = MT_LABELS_SOFT,
    .needs = MT_NEED_INPUTS | MT_NEED_HIDDEN,
    .rounds = best_rounds,
    .memory = best_memory,
    .begin = best_begin,
    .observe = best_observe,
    .decide = best_decide,
    .end = best_end,
};
