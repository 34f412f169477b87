/* method_moefication.c
 * moefication: balanced k-means on unit rows, no shared experts, weights of 1 (MoEfication, arXiv
 * 2110.01786).
 */
#include "passes/convert/slices.h"

static mt_status moefication_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                    struct mt_convert_division *out)
{
    return mt_slices_decide(ctx, at, state, MT_PARTITION_CLUSTER, 1, out);
}

const struct mt_convert_method mt_convert_method_moefication = {
    .name = "moefication",
    .summary = "balanced k-means on rows, a router of two layers",
    .help = "moefication (MoEfication, arXiv 2110.01786) groups neurons by balanced k-means on "
            "their rows, without shared experts, and routes by a small network that is fitted to "
            "activations, which only the native layout holds. It is made for ReLU, where much of "
            "an FFN is zero for a token.",
    .router = "mlp",
    .refit = "none",
    MT_SLICES_HOOKS,
    .decide = moefication_decide,
};
