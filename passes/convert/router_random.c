/* router_random.c
 * random: normal rows, each expert as likely as any other. The floor of every comparison. */
#include "lib/base/rng.h"
#include "passes/convert/method.h"

#include <math.h>

#define RANDOM_STREAM ((uint64_t)1 << 40) /* apart from the streams of partitions */

static mt_status random_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             struct mt_convert_routing *out)
{
    const struct mt_moe_shape *p = at->shape;
    struct mt_rng rng;

    (void)state;
    mt_rng_seed(&rng, mt_ctx_seed(ctx), RANDOM_STREAM + (uint64_t)at->layer);
    for (int64_t i = 0; i < p->n_experts * p->hidden; i++)
        out->w[i] = (float)(mt_rng_normal(&rng) / sqrt((double)p->hidden));
    return MT_OK;
}

const struct mt_convert_router mt_convert_router_random = {
    .name = "random",
    .summary = "normal random rows",
    .make = random_make,
};
