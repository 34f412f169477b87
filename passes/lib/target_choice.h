/* target_choice.h: --arch auto.
 *
 * Goes through the targets in an order of preference and takes the first whose family computes what
 * the source does (mt_family.can_hold), whose file format has a place for it (mt_format.holds), and
 * whose factors in down_proj are powers of two, so that no weight is rounded (spec formats, 3.4).
 * When factors round everywhere, the first that holds the rest. The order: qwen3_moe for a Qwen3
 * source when no shared experts are asked for, then those with shared experts and free counts; for
 * copies of whole FFNs (moe_shape.h) those that need no shared expert and sum weights to one. The
 * native layout comes last: it holds everything, but only moetool loads it.
 *
 * With a directory most sources become glm4_moe; in a GGUF file llama3's frequencies leave
 * granitemoe and mixtral (there `llama`).
 */
#ifndef MT_PASSES_TARGET_CHOICE_H
#define MT_PASSES_TARGET_CHOICE_H

#include "passes/lib/moe_shape.h"

/* The shape for the chosen target; out->why tells in one line what was chosen and which preferred
 * ones were not, and why. MT_E_UNSUPPORTED lists the reasons when no target holds the source. */
MT_NODISCARD mt_status mt_target_choose(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                                        const struct mt_model *src, struct mt_moe_shape *out);

/* Whether the target, and the format, can hold the source cut into this shape. */
MT_NODISCARD mt_status mt_target_holds(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                                       const struct mt_model *src, const struct mt_format *format);

/* True when no factor of the target rounds: they are powers of two. */
bool mt_target_exact(const struct mt_moe_shape *s);
#endif
