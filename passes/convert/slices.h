/* slices.h: methods that cut an FFN up as --partition says: what they share. Most ways to cut do
 * not look at what the FFN does; for those that do, the hooks pass on what they need (divide.h). */
#ifndef MT_PASSES_CONVERT_SLICES_H
#define MT_PASSES_CONVERT_SLICES_H

#include "passes/convert/divide.h"
#include "passes/lib/partition.h"

/* A method's `shape`: no shared experts unless --shared asks for some. */
MT_NODISCARD mt_status mt_slices_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                       const struct mt_model *src, struct mt_moe_shape *shape);
/* E/k: makes the chosen experts' sum as large as the whole. */
float mt_slices_share(const struct mt_moe_shape *p);
/* Divides as --partition says, else as `unasked`, and multiplies outputs as --expert-scale says,
 * else by `scale`. */
MT_NODISCARD mt_status mt_slices_decide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                        void *state, enum mt_partition_how unasked, float scale,
                                        struct mt_convert_division *out);

/* The method's other hooks. */
int mt_slices_rounds(const struct mt_convert_at *at);
uint64_t mt_slices_memory(const struct mt_convert_at *at);
MT_NODISCARD mt_status mt_slices_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                       void **state);
MT_NODISCARD mt_status mt_slices_observe(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                         void *state, const struct mt_observation *ob);
void mt_slices_end(void *state);
#define MT_SLICES_HOOKS                                                                            \
    .shape = mt_slices_shape, .needs = MT_DIVIDER_NEEDS, .rounds = mt_slices_rounds,               \
    .memory = mt_slices_memory, .begin = mt_slices_begin, .observe = mt_slices_observe,            \
    .end = mt_slices_end
#endif
