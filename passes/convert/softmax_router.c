#include "passes/convert/softmax_router.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "passes/convert/subset_labels.h"
#include "passes/lib/softmax_fit.h"

#include <math.h>

enum softmax_targets { SOFTMAX_K_HOT, SOFTMAX_SOFT, SOFTMAX_SUBSET }; /* --pa-targets */

struct softmax_router {
    bool prior; /* Prior-Approximate labels; else contributions */
    struct mt_router_sample sample;
    float *down;   /* [hidden, D], prior only */
    float *y, *vy; /* of a block: [MT_OBSERVE_TOKENS_MAX, hidden | D], prior only */
    float *score;  /* [E] the higher the better */
    float *target; /* [E] */
    int32_t *best; /* [E] */

    struct mt_subset_labels subset; /* SOFTMAX_SUBSET alone, as the rest */
    int64_t row[MT_SUBSET_TOKENS];  /* tokens of the block that wait for their labels */
    int64_t waiting;
    float *labels; /* [MT_SUBSET_TOKENS, E] */
};

int mt_softmax_router_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

uint64_t mt_softmax_router_memory(const struct mt_convert_at *at, bool prior)
{
    uint64_t d = (uint64_t)at->shape->hidden, n = (uint64_t)at->shape->n_experts,
             w = (uint64_t)at->shape->width;
    uint64_t fit = mt_softmax_fit_bytes(d, n) + mt_router_sample_bytes(d, n);

    if (at->o->pa_targets == SOFTMAX_SUBSET)
        return fit + mt_subset_labels_bytes(at);
    return fit + (prior ? (w * d + MT_OBSERVE_TOKENS_MAX * (w + d)) * sizeof(float) : 0);
}

mt_status mt_softmax_router_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                  int64_t n_tokens, bool prior, void **state)
{
    size_t d = (size_t)at->shape->hidden, n = (size_t)at->shape->n_experts;
    struct softmax_router *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "router fit", &s));
    *state = s;
    s->prior = prior && at->o->pa_targets != SOFTMAX_SUBSET;
    MT_TRY(
        mt_router_sample_open(ctx, at->shape->hidden, at->shape->n_experts, n_tokens, &s->sample));
    MT_TRY(mt_alloc(ctx, n, sizeof(float), "router fit", &s->score));
    MT_TRY(mt_alloc(ctx, n, sizeof(float), "router fit", &s->target));
    MT_TRY(mt_alloc(ctx, n, sizeof(int32_t), "router fit", &s->best));
    if (at->o->pa_targets == SOFTMAX_SUBSET) {
        MT_TRY(mt_alloc(ctx, MT_SUBSET_TOKENS, n * sizeof(float), "router fit", &s->labels));
        return mt_subset_labels_open(ctx, at, &s->subset);
    }
    if (!s->prior)
        return MT_OK;
    MT_TRY(mt_tensor_load_f32(ctx, at->dense->down, &s->down));
    MT_TRY(mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, d * sizeof(float), "router fit", &s->y));
    return mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, (size_t)at->shape->width * sizeof(float),
                    "router fit", &s->vy);
}

/* |FFN_e - s y|^2 = |FFN_e|^2 - 2 s <FFN_e, y> + s^2 |y|^2: the norms and one product y^T V per
 * neuron suffice, and the last term is the same for all experts. */
static void softmax_router_scores(const struct softmax_router *s, const struct mt_convert_at *at,
                                  const float *h, const float *vy, const float *norms)
{
    const struct mt_split *split = at->split;
    double share = (double)at->shape->k / at->shape->n_experts;

    for (int e = 0; e < split->n_experts; e++) {
        const int32_t *list = mt_split_expert(split, e);
        double dot = 0, norm = (double)norms[e];
        if (!s->prior) {
            s->score[e] = (float)norm;
            continue;
        }
        for (int64_t i = 0; i < split->expert_width; i++)
            if (list[i] >= 0)
                dot += (double)h[list[i]] * (double)vy[list[i]];
        s->score[e] = (float)(2 * share * dot - norm * norm);
    }
}

static void softmax_router_add(struct softmax_router *s, const struct mt_convert_at *at,
                               const float *score, const float *x)
{
    mt_softmax_target(score, at->shape->n_experts, at->shape->k, at->o->pa_targets == SOFTMAX_SOFT,
                      at->o->pa_temp, s->best, s->target);
    mt_router_sample_add(&s->sample, x, s->target);
}

/* Labels of the tokens that wait. */
static mt_status softmax_router_flush(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                      struct softmax_router *s, const struct mt_observation *ob)
{
    int64_t m = s->waiting, n = at->shape->n_experts;

    s->waiting = 0;
    MT_TRY(mt_subset_labels_run(ctx, at, &s->subset, ob->h, s->row, m, s->labels));
    for (int64_t i = 0; i < m; i++)
        softmax_router_add(s, at, s->labels + i * n, ob->x + s->row[i] * at->shape->hidden);
    return MT_OK;
}

static mt_status softmax_router_subsets(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                        struct softmax_router *s, const struct mt_observation *ob)
{
    for (int64_t t = 0; t < ob->m; t++) {
        if (!mt_router_sample_wants(&s->sample, ob->token0 + t))
            continue;
        s->row[s->waiting++] = t;
        if (s->waiting == MT_SUBSET_TOKENS)
            MT_TRY(softmax_router_flush(ctx, at, s, ob));
    }
    return s->waiting > 0 ? softmax_router_flush(ctx, at, s, ob) : MT_OK;
}

mt_status mt_softmax_router_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                    const struct mt_observation *ob, const float *norms)
{
    int64_t d = at->shape->hidden, w = at->shape->width;
    int n = at->shape->n_experts;
    struct softmax_router *s = state;

    if (s->labels != NULL)
        return softmax_router_subsets(ctx, at, s, ob);
    if (s->prior) {
        MT_TRY(mt_gemm_nt(ctx, ob->m, d, w, 1, ob->h, w, s->down, w, 0, s->y, d));
        MT_TRY(mt_gemm_nn(ctx, ob->m, w, d, 1, s->y, d, s->down, w, 0, s->vy, w));
    }
    for (int64_t t = 0; t < ob->m; t++) {
        if (!mt_router_sample_wants(&s->sample, ob->token0 + t))
            continue;
        softmax_router_scores(s, at, ob->h + t * w, s->prior ? s->vy + t * w : NULL, norms + t * n);
        softmax_router_add(s, at, s->score, ob->x + t * d);
    }
    return MT_OK;
}

mt_status mt_softmax_router_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                 struct mt_convert_routing *out)
{
    struct softmax_router *s = state;
    /* Where the target has no place for intercepts, weights must do without. */
    bool bias = at->shape->use.rule.has_bias;
    double before, after;

    MT_TRY(mt_softmax_fit(ctx, &s->sample, at->o->pa_kl == 1, out->w, bias ? out->bias : NULL,
                          &before, &after));
    if (!isfinite(before) || !isfinite(after))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted");
    out->has_bias = bias;
    mt_log(ctx, MT_LOG_INFO, "layer %d: the router's divergence falls from %.4f to %.4f", at->layer,
           before, after);
    return MT_OK;
}

void mt_softmax_router_end(void *state)
{
    struct softmax_router *s = state;

    if (s != NULL) {
        mt_router_sample_close(&s->sample);
        mt_free(s->down);
        mt_free(s->y);
        mt_free(s->vy);
        mt_free(s->score);
        mt_free(s->target);
        mt_free(s->best);
        mt_subset_labels_close(&s->subset);
        mt_free(s->labels);
    }
    mt_free(s);
}
