/* local_gather.h: the batch of local_grad.h with each expert's tokens taken together.
 *
 * Products of an expert are made of the tokens that chose it alone; those of shared neurons stay
 * dense. What is summed is the same as with masks, in another order. For local_grad.c.
 *
 * Threads: one caller; uses the pool. Same bits for any thread count: jobs are cut by shapes and by
 * choices, and a token's experts are added in their order.
 */
#ifndef MT_PASSES_LOCAL_GATHER_H
#define MT_PASSES_LOCAL_GATHER_H

#include "passes/lib/local_grad.h"

/* Floats that one job works in. */
int64_t mt_local_gather_room(const struct mt_local_shape *s, int64_t size);
/* first and rows of b, by what was picked. */
void mt_local_gather_list(struct mt_local_batch *b);

/* What mt_local_forward and the parts of mt_local_backward are: a part's gradient, and what comes
 * between that of `down` and the others: zg and zu become gradients, and h is spent. */
MT_NODISCARD mt_status mt_local_gather_forward(struct mt_ctx *ctx, struct mt_local_batch *b,
                                               const struct mt_local_weights *w);
MT_NODISCARD mt_status mt_local_gather_back(struct mt_ctx *ctx, struct mt_local_batch *b,
                                            const struct mt_local_weights *w, float by);
MT_NODISCARD mt_status mt_local_gather_grad(struct mt_ctx *ctx, struct mt_local_batch *b,
                                            enum mt_local_part part, float by);
#endif
