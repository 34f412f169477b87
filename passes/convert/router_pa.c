/* router_pa.c
 * pa: FactorLLM's Prior-Approximate router (arXiv 2408.11855). Its label asks which expert alone
 * resembles k/E of the output: err_e = |FFN_e(x) - (k/E) y|^2 / d; z is the indicator of the k
 * smallest, q = softmax(z / T) the target, and the loss KL(p || q) of p = softmax(W x + b).
 *
 * As released, the authors' router never receives a gradient (the term is left out of what the
 * training step returns); this is the loss as written, on the FFN's real inputs.
 */
#include "passes/convert/softmax_router.h"

static uint64_t pa_memory(const struct mt_convert_at *at)
{
    return mt_softmax_router_memory(at, true);
}

static mt_status pa_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                          void **state)
{
    return mt_softmax_router_begin(ctx, at, n_tokens, true, state);
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
    .rounds = mt_softmax_router_rounds,
    .memory = pa_memory,
    .begin = pa_begin,
    .observe = mt_softmax_router_observe,
    .make = mt_softmax_router_make,
    .end = mt_softmax_router_end,
};
