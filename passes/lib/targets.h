/* targets.h: what a dense FFN cut into experts needs from the format it is written in.
 *
 * A converted FFN wants every chosen expert with weight 1. Formats weigh experts by their router
 * score, so alpha goes into the routed down_proj and the router is flattened by 2^-m until the
 * remaining weights are even; then weight * alpha is 1 but for an error that the bound below
 * holds (spec dense_to_moe section 3, formats 3.4).
 */
#ifndef MT_PASSES_TARGETS_H
#define MT_PASSES_TARGETS_H

#include "lib/ir/ffn.h"

struct mt_target {
    const char *family; /* name for mt_family_find */
    struct mt_router_rule rule;
    bool alpha_is_k;      /* alpha is k, else 1 */
    bool shared;          /* can hold a shared expert */
    bool shared_required; /* llama.cpp's loader wants one (formats 3.4, trap 2) */
};

/* NULL when the name is not a target. Names of all, NULL-ended. */
const struct mt_target *mt_target_find(const char *family);
extern const char *const mt_target_names[];

double mt_target_alpha(const struct mt_target *t, int k);

/* Largest |weight * alpha - 1| when every logit lies within [-l, l] (l after flattening). */
double mt_target_weight_bound(const struct mt_target *t, int k, double l);

/* True when multiplying by `scale` is exact in binary floating point (a power of two). */
bool mt_scale_is_exact(double scale);
#endif
