/* method_factorllm.c
 * factorllm: the FFN cut as it stands (FactorLLM, arXiv 2408.11855); the paper speaks of a
 * permutation, which --partition random gives. The sum of the chosen is multiplied by E/k.
 */
#include "passes/convert/slices.h"

static mt_status factorllm_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  struct mt_convert_division *out)
{
    return mt_slices_decide(ctx, at, state, MT_PARTITION_CONTIGUOUS, mt_slices_share(at->shape),
                            out);
}

const struct mt_convert_method mt_convert_method_factorllm = {
    .name = "factorllm",
    .summary = "slices as they stand, a fitted router, outputs times E/k",
    .help = "factorllm (FactorLLM, arXiv 2408.11855) cuts the FFN into slices as it stands, or by "
            "lot with --partition random, multiplies the chosen ones by E/k and fits a linear "
            "router with the Prior-Approximate loss; \"1R4E2K\" of the paper is --experts 4 "
            "--active 2. It is the start of a training.",
    .router = "pa",
    .refit = "none",
    MT_SLICES_HOOKS,
    .decide = factorllm_decide,
};
