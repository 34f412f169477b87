/* router_pa.c
 * pa: FactorLLM's Prior-Approximate router (arXiv 2408.11855); contribution: the same fit to better
 * labels.
 *
 * The Prior-Approximate label asks which expert alone resembles k/E of the output:
 * err_e = |FFN_e(x) - (k/E) y|^2 / d; z is the indicator of the k smallest, q = softmax(z / T) the
 * target, and the loss KL(p || q) of p = softmax(W x + b). contribution takes the k largest
 * ||FFN_e(x)|| instead. Since |FFN_e - s y|^2 = |FFN_e|^2 - 2 s <FFN_e, y> + s^2 |y|^2, the norms
 * and one product y^T V per neuron suffice, and the last term is the same for all experts.
 *
 * As released, the authors' router never receives a gradient (the term is left out of what the
 * training step returns); this is the loss as written, on the FFN's real inputs.
 */
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/lib/softmax_fit.h"

#include <math.h>
#include <string.h>

struct pa {
    bool prior; /* Prior-Approximate labels; else contributions */
    struct mt_softmax_fit *fit;
    float *down;   /* [hidden, D], prior only */
    float *y, *vy; /* of a block: [MT_OBSERVE_TOKENS_MAX, hidden | D], prior only */
    float *score;  /* [E] the higher the better */
    float *target; /* [E] */
    int32_t *best; /* [E] */
};

static int pa_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t contribution_memory(const struct mt_convert_at *at)
{
    return mt_softmax_fit_bytes((uint64_t)at->shape->hidden, (uint64_t)at->shape->n_experts);
}

static uint64_t pa_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width;

    return contribution_memory(at) + (w * d + MT_OBSERVE_TOKENS_MAX * (w + d)) * sizeof(float);
}

static mt_status pa_open(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                         bool prior, void **state)
{
    size_t d = (size_t)at->shape->hidden, n = (size_t)at->shape->n_experts;
    struct pa *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "router fit", &s));
    *state = s;
    s->prior = prior;
    MT_TRY(mt_softmax_fit_create(ctx, at->shape->hidden, at->shape->n_experts, n_tokens, &s->fit));
    MT_TRY(mt_alloc(ctx, n, sizeof(float), "router fit", &s->score));
    MT_TRY(mt_alloc(ctx, n, sizeof(float), "router fit", &s->target));
    MT_TRY(mt_alloc(ctx, n, sizeof(int32_t), "router fit", &s->best));
    if (!prior)
        return MT_OK;
    MT_TRY(mt_tensor_load_f32(ctx, at->dense->down, &s->down));
    MT_TRY(mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, d * sizeof(float), "router fit", &s->y));
    return mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, (size_t)at->shape->width * sizeof(float),
                    "router fit", &s->vy);
}

static mt_status pa_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                          void **state)
{
    return pa_open(ctx, at, n_tokens, true, state);
}

static mt_status contribution_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                    int64_t n_tokens, void **state)
{
    return pa_open(ctx, at, n_tokens, false, state);
}

/* ---- targets ---- */

/* score[e] = -err_e d, less what all experts share; or the norm. */
static void pa_scores(const struct pa *s, const struct mt_convert_at *at, const float *h,
                      const float *vy, const float *norms)
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

static mt_status pa_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                            const struct mt_observation *ob, const float *norms)
{
    int64_t d = at->shape->hidden, w = at->shape->width;
    int n = at->shape->n_experts;
    struct pa *s = state;

    if (s->prior) {
        MT_TRY(mt_gemm_nt(ctx, ob->m, d, w, 1, ob->h, w, s->down, w, 0, s->y, d));
        MT_TRY(mt_gemm_nn(ctx, ob->m, w, d, 1, s->y, d, s->down, w, 0, s->vy, w));
    }
    for (int64_t t = 0; t < ob->m; t++) {
        if (!mt_softmax_fit_wants(s->fit, ob->token0 + t))
            continue;
        pa_scores(s, at, ob->h + t * w, s->prior ? s->vy + t * w : NULL, norms + t * n);
        mt_softmax_target(s->score, n, at->shape->k, at->o->pa_targets == 1, at->o->pa_temp,
                          s->best, s->target);
        mt_softmax_fit_add(s->fit, ob->x + t * d, s->target);
    }
    return MT_OK;
}

static mt_status pa_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                         struct mt_convert_routing *out)
{
    struct pa *s = state;
    double before, after;

    MT_TRY(
        mt_softmax_fit_solve(ctx, s->fit, at->o->pa_kl == 1, out->w, out->bias, &before, &after));
    if (!isfinite(before) || !isfinite(after))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted");
    out->has_bias = true;
    mt_log(ctx, MT_LOG_INFO, "layer %d: the router's divergence falls from %.4f to %.4f", at->layer,
           before, after);
    return MT_OK;
}

static void pa_end(void *state)
{
    struct pa *s = state;

    if (s != NULL) {
        mt_softmax_fit_free(s->fit);
        mt_free(s->down);
        mt_free(s->y);
        mt_free(s->vy);
        mt_free(s->score);
        mt_free(s->target);
        mt_free(s->best);
    }
    mt_free(s);
}

const struct mt_convert_router mt_convert_router_pa = {
    .name = "pa",
    .summary = "FactorLLM's Prior-Approximate router, for parity",
    .help = "Router pa (FactorLLM, arXiv 2408.11855) learns by gradient steps which experts alone "
            "resemble k/E of the output. Where k/E is at most a half that prefers the wrong ones: "
            "an expert that makes all of the output is off by 1 - k/E of it, one that makes none "
            "by k/E. Kept for parity; contribution has the same fit and better labels.",
    .data = true,
    .norms = true,
    .rounds = pa_rounds,
    .memory = pa_memory,
    .begin = pa_begin,
    .observe = pa_observe,
    .make = pa_make,
    .end = pa_end,
};

const struct mt_convert_router mt_convert_router_contribution = {
    .name = "contribution",
    .summary = "softmax fit to the experts that contribute most",
    .help = "Router contribution fits a softmax by gradient steps to which experts contribute "
            "most, ||V_e h_e||: what ridge does in closed form.",
    .data = true,
    .norms = true,
    .rounds = pa_rounds,
    .memory = contribution_memory,
    .begin = contribution_begin,
    .observe = pa_observe,
    .make = pa_make,
    .end = pa_end,
};
