/* router_centroid.c
 * centroid: a router row is the mean gate row of its expert (ExpertWeaver, arXiv 2602.15521). */
#include "passes/convert/method.h"
#include "passes/lib/router_fit.h"

static mt_status centroid_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               struct mt_convert_routing *out)
{
    (void)state;
    return mt_router_centroids(ctx, at->dense->gate != NULL ? at->dense->gate : at->dense->up,
                               at->split, out->w);
}

const struct mt_convert_router mt_convert_router_centroid = {
    .name = "centroid",
    .summary = "mean gate row of each expert",
    .help = "Router centroid takes the mean gate row of an expert (ExpertWeaver, arXiv "
            "2602.15521) and needs no data.",
    .make = centroid_make,
};
