/* targets.h: what a dense FFN cut into experts needs from the architecture it is written as.
 *
 * A converted FFN wants every chosen expert with weight 1. Architectures weigh experts by their
 * router score, so alpha goes into the routed down_proj and the router is flattened by 2^-m until
 * the remaining weights are even; then weight * alpha is 1 but for an error that the bound below
 * holds (spec dense_to_moe section 3, formats 3.4). Alpha is exact when it is a power of two.
 *
 * Experts may also be copies of the whole FFN, each copy cut into G slices (upcycling): then chosen
 * are whole copies, and all weights have to sum to G whatever the logits. mt_target_for_copies
 * gives a target the rule and the alpha for that. Rules that normalise the chosen weights do it
 * exactly, a softmax over all experts only where it is flat.
 */
#ifndef MT_PASSES_TARGETS_H
#define MT_PASSES_TARGETS_H

#include "lib/ir/ffn.h"

/* What even weights leave to alpha: nothing, 1/k (they sum to one; G for copies) or 1/N (a softmax
 * over all; G N / k for copies). */
enum mt_alpha { MT_ALPHA_ONE, MT_ALPHA_ACTIVE, MT_ALPHA_EXPERTS };

/* A gate of the shared expert that decides nothing: sigmoid(1e-20 sum(x)) is one half in fp32, and
 * alpha of the shared down_proj 2. Exact zeros are NaN in llama.cpp, which divides by the logit,
 * and so are subnormal ones where they are flushed (formats 3.4, trap 1). */
#define MT_SHARED_GATE_VALUE 1e-20f

struct mt_target {
    const char *family; /* name for mt_family_find */
    const char *name;   /* what --arch calls it; NULL: as the family */
    struct mt_router_rule rule;
    enum mt_alpha alpha;
    bool shared;          /* can hold a shared expert */
    bool shared_required; /* its code, or llama.cpp's loader, wants one (formats 3.4, trap 2) */
    bool shared_gated;    /* ... times the sigmoid of a gate */
    bool qkv_biased; /* vLLM's code asks for biases on q, k and v: zeros where there are none */
    bool any_ffn;    /* plain FFNs and biases too; the others want gates and none */
    int granules;    /* G, of a target for copies; 0: of parts */
};

/* By what --arch calls it; NULL when the name is not a target. Names of all, NULL-ended. */
const struct mt_target *mt_target_find(const char *name);
const char *mt_target_name(const struct mt_target *t);
extern const char *const mt_target_names[];

/* The target as experts that are copies want it; G of the k chosen make one copy. */
struct mt_target mt_target_for_copies(const struct mt_target *t, int granules, int k);
/* Whether the weights of such a target sum to G for any logits. */
bool mt_target_sums(const struct mt_target *t);

/* Of the routed experts' down_proj, for k of n of them; and of the shared expert's. */
double mt_target_alpha(const struct mt_target *t, int n, int k);
double mt_target_shared_alpha(const struct mt_target *t);

/* Largest |weight * alpha - 1| when every logit lies within [-l, l] (l after flattening); for
 * copies of the mean weight. */
double mt_target_weight_bound(const struct mt_target *t, int n, int k, double l);

/* True when multiplying by `scale` is exact in binary floating point (a power of two). */
bool mt_scale_is_exact(double scale);
#endif
