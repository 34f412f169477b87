/* method_factorllm.c
 * factorllm and llama-moe: the FFN cut into slices without looking at what it does.
 *
 * FactorLLM (arXiv 2408.11855) cuts it as it stands; the paper speaks of a permutation, which
 * --partition random gives. LLaMA-MoE (v1) cuts by lot, which won after its training; --partition
 * cluster is its clustering. Both multiply the chosen experts' sum by E/k, so that its size is that
 * of the whole (--expert-scale), have no shared experts of their own, and train their routers.
 */
#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/lib/partition.h"

#include <string.h>

static mt_status slices_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                              const struct mt_model *src, struct mt_moe_shape *shape)
{
    struct mt_shape_ask ask = mt_convert_ask(o);

    if (strcmp(ask.shared, "auto") == 0)
        ask.shared = "0";
    return mt_moe_shape_read(ctx, &ask, src, shape);
}

static mt_status slices_decide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                               enum mt_partition_how unasked, struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    const struct mt_neuron_sums none = {0};
    enum mt_partition_how how =
        at->o->partition > 0 ? (enum mt_partition_how)(at->o->partition - 1) : unasked;

    MT_TRY(mt_partition_ffn(ctx, how, at->dense, &none, p->n_experts, p->n_shared,
                            (uint64_t)at->layer, &out->split));
    if (at->o->scale == MT_CONVERT_SCALE_UNIT)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)p->n_experts, sizeof(*out->scale), "expert scales", &out->scale));
    for (int e = 0; e < p->n_experts; e++)
        out->scale[e] = (float)p->n_experts / (float)p->k;
    return MT_OK;
}

static mt_status factorllm_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  struct mt_convert_division *out)
{
    (void)state;
    return slices_decide(ctx, at, MT_PARTITION_CONTIGUOUS, out);
}

static mt_status llama_moe_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  struct mt_convert_division *out)
{
    (void)state;
    return slices_decide(ctx, at, MT_PARTITION_RANDOM, out);
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
    .shape = slices_shape,
    .decide = factorllm_decide,
};

const struct mt_convert_method mt_convert_method_llama_moe = {
    .name = "llama-moe",
    .summary = "slices by lot, random routers, outputs times E/k",
    .help = "llama-moe (LLaMA-MoE v1) divides neurons by lot, or by k-means with --partition "
            "cluster, multiplies the chosen experts by E/k and leaves routers random for the "
            "training that follows: without it, use another --router.",
    .router = "random",
    .refit = "none",
    .shape = slices_shape,
    .decide = llama_moe_decide,
};
