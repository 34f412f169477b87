/* router_contribution.c
 * contribution: the fit of router pa to better labels, the experts of the largest ||FFN_e(x)||. */
#include "passes/convert/softmax_router.h"

static uint64_t contribution_memory(const struct mt_convert_at *at)
{
    return mt_softmax_router_memory(at, false);
}

static mt_status contribution_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                    int64_t n_tokens, void **state)
{
    return mt_softmax_router_begin(ctx, at, n_tokens, false, state);
}

const struct mt_convert_router mt_convert_router_contribution = {
    .name = "contribution",
    .summary = "softmax fit to the experts that contribute most",
    .help = "Router contribution fits a softmax by gradient steps to which experts contribute "
            "most, ||V_e h_e||: what ridge does in closed form.",
    .data = true,
    .norms = true,
    .rounds = mt_softmax_router_rounds,
    .memory = contribution_memory,
    .begin = contribution_begin,
    .observe = mt_softmax_router_observe,
    .make = mt_softmax_router_make,
    .end = mt_softmax_router_end,
};
