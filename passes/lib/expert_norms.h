/* expert_norms.h: what each expert of a split FFN contributes to a token, ||V_e h_e||.
 *
 * The oracle that routers are fitted to. Holds the down projection as floats, grouped by expert;
 * norms are those of the triangles of its QR factorizations, which cost I^2 for a token and an
 * expert instead of I hidden.
 * Threads: one caller; runs over the pool. Memory: hidden * D floats and a block per worker.
 */
#ifndef MT_PASSES_EXPERT_NORMS_H
#define MT_PASSES_EXPERT_NORMS_H

#include "lib/ir/tensor.h"
#include "passes/lib/split.h"

struct mt_expert_norms;

/* down[hidden, D]; the split is borrowed and must be filled. */
MT_NODISCARD mt_status mt_expert_norms_create(struct mt_ctx *ctx, const struct mt_tensor *down,
                                              const struct mt_split *split,
                                              struct mt_expert_norms **out);
void mt_expert_norms_free(struct mt_expert_norms *n);
/* h[m, D] -> norms[m, N] */
MT_NODISCARD mt_status mt_expert_norms_run(struct mt_ctx *ctx, const struct mt_expert_norms *n,
                                           int64_t m, const float *h, float *norms);
#endif
