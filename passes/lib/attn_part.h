/* attn_part.h: attention divided by heads, as Union-of-Experts has it (arXiv 2503.02495).
 *
 * The output is a sum over heads, out = sum_h A_h(x) O_h. Query heads that share a key-value head
 * cannot be told apart from it, so the unit is a key-value head with its queries: parts that hold
 * each of them once add up to the dense attention. The output bias is added once, by the part that
 * starts at 0; rows of q, k and v keep their biases, positions are those of the tokens.
 *
 * Only that sum is exact. No command drops heads or routes between them: the paper trains its
 * models from scratch and no checkpoint has been converted.
 */
#ifndef MT_PASSES_ATTN_PART_H
#define MT_PASSES_ATTN_PART_H

#include "lib/ir/model.h"

/* A plan over src, *given*, whose attention is key-value heads [first, first + n) of every layer.
 * All else is src's. MT_E_UNSUPPORTED where heads do not add up: norms over all heads or over the
 * output, latent attention. Threads: one caller. */
MT_NODISCARD mt_status mt_attn_part(struct mt_ctx *ctx, const struct mt_model *src, int first,
                                    int n, struct mt_model **out);
#endif
