/* manifest.h: moetool.json, what an output was made from and how.
 *
 * Holds nothing that differs between two runs with the same inputs: no time, no path, no thread
 * count, no memory limit.
 *
 *   moetool   version
 *   source    identity, model_type, format, sizes; `history`: what the source's own manifest says
 *   siblings  [{name, identity, model_type, format, sizes}], of further models; absent without
 *   passes    name and every option value; `report` of each
 *   seed, blas (only when activations were computed), device
 *   data      sha256, windows, tokens, domains; absent when nothing was calibrated
 *   profile   identity, origin and sources of the statistics handed in; absent without
 *   target    model_type, architecture, format, sizes, feed-forward shape
 *   layers    [{"layer": l, "<pass>": {...}}], only of passes that report by layer
 */
#ifndef MT_FLOW_MANIFEST_H
#define MT_FLOW_MANIFEST_H

#include "lib/flow/walk.h"

struct mt_manifest_in {
    const struct mt_walk_opts *opts;
    const struct mt_model *plan;
    const char *identity;
    bool data_used;
};
/* All but reports and layers; *given*. */
MT_NODISCARD mt_status mt_manifest_new(struct mt_ctx *ctx, const struct mt_manifest_in *in,
                                       struct mt_json **out);
#endif
