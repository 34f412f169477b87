/* router_ridge.c
 * ridge: regression of labels made from contribution norms on the FFN's input, in closed form
 * (best_conversion section 5, step 4; router_fit.h). */
#include "passes/convert/method.h"
#include "passes/lib/router_fit.h"

#include <math.h>

static int ridge_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t ridge_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, n = (uint64_t)at->shape->n_experts;

    return mt_router_fit_bytes(d, n);
}

static mt_status ridge_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                             void **state)
{
    struct mt_router_fit *f;

    (void)n_tokens;
    MT_TRY(mt_router_fit_create(ctx, at->shape->hidden, at->shape->n_experts, at->shape->k,
                                at->labels, &f));
    *state = f;
    return at->shape->by_token ? mt_router_fit_keep_mean(ctx, f) : MT_OK;
}

static mt_status ridge_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               const struct mt_observation *ob, const float *norms)
{
    (void)at;
    return mt_router_fit_add(ctx, state, ob->m, ob->x, norms);
}

/* Nothing can be learnt from activations that are not finite, and --allow-nan wants a router all
 * the same. */
static mt_status ridge_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                            struct mt_convert_routing *out)
{
    bool finite = mt_router_fit_finite(state);

    if (finite)
        MT_TRY(mt_router_fit_solve(ctx, state, at->o->router_lambda, out->w));
    for (int64_t i = 0; finite && i < at->shape->n_experts * at->shape->hidden; i++)
        finite = isfinite(out->w[i]);
    if (finite && at->shape->by_token) {
        mt_router_fit_intercepts(state, out->bias);
        out->has_bias = true;
    }
    if (finite)
        return MT_OK;
    if (!mt_ctx_allow_nan(ctx))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted; --allow-nan "
                       "goes on with --router centroid there");
    mt_log(ctx, MT_LOG_WARN,
           "layer %d: activations are NaN or infinite, so its router is made of gate rows, as "
           "--router centroid does",
           at->layer);
    out->made = "centroid";
    return mt_router_centroids(ctx, at->dense->gate, at->split, out->w);
}

static void ridge_end(void *state)
{
    mt_router_fit_free(state);
}

const struct mt_convert_router mt_convert_router_ridge = {
    .name = "ridge",
    .summary = "regression on which experts contribute most",
    .help = "Router ridge fits, in closed form, which experts contribute most: labels are made "
            "from ||V_e h_e||.",
    .data = true,
    .norms = true,
    .rounds = ridge_rounds,
    .memory = ridge_memory,
    .begin = ridge_begin,
    .observe = ridge_observe,
    .make = ridge_make,
    .end = ridge_end,
};
