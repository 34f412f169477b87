/* method_uoe.c
 * uoe: the exact partition of Union-of-Experts (arXiv 2503.02495): slices as they stand whose
 * partial sums are the dense FFN, with weight 1. The paper trains from scratch, routing and all;
 * its heads as experts are attn_part.h.
 */
#include "passes/convert/slices.h"

static mt_status uoe_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                            struct mt_convert_division *out)
{
    return mt_slices_decide(ctx, at, state, MT_PARTITION_CONTIGUOUS, 1, out);
}

const struct mt_convert_method mt_convert_method_uoe = {
    .name = "uoe",
    .summary = "equal slices as they stand, plain sums, a fitted router",
    .help = "uoe (Union-of-Experts, arXiv 2503.02495) cuts the FFN into equal slices as they "
            "stand, whose sum is the FFN: with --active as many as --experts nothing changes. The "
            "paper trains such a model from scratch and converts none, so the router is ours.",
    .router = "ridge",
    .refit = "none",
    MT_SLICES_HOOKS,
    .decide = uoe_decide,
};
