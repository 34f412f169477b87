/* method_llama_moe.c
 * llama-moe: neurons by lot, which won after training in LLaMA-MoE (v1); --partition cluster is its
 * clustering. The sum of the chosen is multiplied by E/k, routers are for a training to find.
 */
#include "passes/convert/slices.h"

static mt_status llama_moe_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  struct mt_convert_division *out)
{
    return mt_slices_decide(ctx, at, state, MT_PARTITION_RANDOM, mt_slices_share(at->shape), out);
}

const struct mt_convert_method mt_convert_method_llama_moe = {
    .name = "llama-moe",
    .summary = "slices by lot, random routers, outputs times E/k",
    .help = "llama-moe (LLaMA-MoE v1) divides neurons by lot, or by k-means with --partition "
            "cluster, multiplies the chosen experts by E/k and leaves routers random for the "
            "training that follows: without it, use another --router.",
    .router = "random",
    .refit = "none",
    MT_SLICES_HOOKS,
    .decide = llama_moe_decide,
};
