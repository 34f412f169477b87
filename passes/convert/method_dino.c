/* method_dino.c
 * dino: copies of the FFN in slices (Dynamic-DINO, arXiv 2507.17436; virtual groups of NVIDIA,
 * arXiv 2410.07524).
 *
 * The slices of a copy have one router row, so that they are chosen together until training parts
 * them; then many more combinations can be chosen for the same active parameters.
 */
#include "passes/convert/copies.h"

static mt_status dino_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                            const struct mt_model *src, struct mt_moe_shape *shape)
{
    return copies_shape(ctx, o, src, o->granularity > 0 ? o->granularity : 2, 1, shape);
}

const struct mt_convert_method mt_convert_method_dino = {
    .name = "dino",
    .summary = "copies of the FFN in slices that are chosen together at first",
    .help =
        "dino (Dynamic-DINO, arXiv 2507.17436; virtual groups, arXiv 2410.07524) makes --copies "
        "copies of the FFN, each cut into --granularity slices. The slices of a copy have the "
        "same router row, so whole copies are chosen and the result computes what the source "
        "does; training then parts them. It needs training to be of use: parameters grow, and "
        "what acts for a token stays.",
    .router = "tied",
    .refit = "none",
    .shape = dino_shape,
    .memory = copies_memory,
    .decide = copies_decide,
};
