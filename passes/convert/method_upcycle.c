/* method_upcycle.c
 * upcycle: whole copies of the FFN (Sparse Upcycling, arXiv 2212.05055), or the FFNs of several
 * fine-tunes. */
#include "passes/convert/copies.h"

#define UPCYCLE_ACTIVE_AUTO 2 /* copies that act for a token */

static mt_status upcycle_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                               const struct mt_model *src, struct mt_moe_shape *shape)
{
    return copies_shape(ctx, o, src, o->granularity > 0 ? o->granularity : 1, UPCYCLE_ACTIVE_AUTO,
                        shape);
}

const struct mt_convert_method mt_convert_method_upcycle = {
    .name = "upcycle",
    .summary = "whole copies of the FFN, random routers",
    .help =
        "upcycle (Sparse Upcycling, arXiv 2212.05055) makes every expert a copy of the whole FFN "
        "and leaves routers random for the training that follows; --active of them act, with "
        "weights that sum to one, so the result computes what the source does. --granularity "
        "above 1 cuts copies as dino does. With --from MODEL the experts are several fine-tunes of "
        "one base instead, MODEL itself the first of them, and everything else is their mean "
        "(--attention).",
    .router = "tied",
    .refit = "none",
    .shape = upcycle_shape,
    .memory = copies_memory,
    .decide = copies_decide,
};
