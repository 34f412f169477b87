/* copies.h: what methods dino and upcycle have in common: experts that are copies of the whole FFN,
 * so the result computes what the source does and has more to learn with.
 *
 * Every copy is cut into G slices, the same in all copies; G = 1 is whole copies. The weights of
 * the chosen experts must sum to G (targets.h). With siblings (fine-tunes of one base) every model
 * is a copy, as in mergekit's mixtures.
 */
#ifndef MT_PASSES_COPIES_H
#define MT_PASSES_COPIES_H

#include "passes/convert/method.h"

/* Copies of `granules` slices, of which `active` copies act unasked. */
MT_NODISCARD mt_status copies_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                    const struct mt_model *src, int64_t granules, int64_t active,
                                    struct mt_moe_shape *shape);
/* Hooks of both. */
uint64_t copies_memory(const struct mt_convert_at *at);
MT_NODISCARD mt_status copies_decide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                     void *state, struct mt_convert_division *out);
#endif
