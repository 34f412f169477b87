/* siblings.h: fine-tunes of one base, of which one model is made (mt_model.siblings).
 *
 * What stands outside the FFNs becomes the mean over all of them, or stays that of the first.
 */
#ifndef MT_PASSES_SIBLINGS_H
#define MT_PASSES_SIBLINGS_H

#include "lib/ir/model.h"

/* Refuses siblings that src cannot be put together with, naming the model and what differs: another
 * family, other sizes, a tensor of another shape or that only one of them has, another activation.
 * With `mean` also what attention is computed with but no tensor tells (RoPE, norms' epsilon). */
MT_NODISCARD mt_status mt_siblings_check(struct mt_ctx *ctx, const struct mt_model *src, bool mean);

/* In a pass's `plan`, after FFN records left: every remaining record of m whose numbers can be read
 * becomes the mean of those of src (with `own`) and its siblings, summed in double. Others stay
 * those of src. */
MT_NODISCARD mt_status mt_siblings_mean(struct mt_ctx *ctx, const struct mt_model *src, bool own,
                                        struct mt_model *m);

/* t's source becomes the mean of from[n], which have its shape. */
MT_NODISCARD mt_status mt_recipe_mean(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                      const struct mt_tensor *const *from, int n);
#endif
