/* slices.h: methods that cut an FFN up without looking at what it does: what they share. */
#ifndef MT_PASSES_CONVERT_SLICES_H
#define MT_PASSES_CONVERT_SLICES_H

#include "passes/convert/method.h"
#include "passes/lib/partition.h"

/* A method's `shape`: no shared experts unless --shared asks for some. */
MT_NODISCARD mt_status mt_slices_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                       const struct mt_model *src, struct mt_moe_shape *shape);
/* E/k: makes the chosen experts' sum as large as the whole. */
float mt_slices_share(const struct mt_moe_shape *p);
/* Divides as --partition says, else as `unasked`, and multiplies outputs as --expert-scale says,
 * else by `scale`. */
MT_NODISCARD mt_status mt_slices_decide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                        enum mt_partition_how unasked, float scale,
                                        struct mt_convert_division *out);
#endif
