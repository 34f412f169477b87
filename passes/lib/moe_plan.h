/* moe_plan.h: the records of a converted layer, as its target wants them.
 *
 * What a pass that cuts dense FFNs does with the target in mind and with nothing else: which
 * records a layer gets, the factors that go into down_proj, and the records whose values follow
 * from the target alone. Which neurons go where, and routers, are the pass's own.
 */
#ifndef MT_PASSES_MOE_PLAN_H
#define MT_PASSES_MOE_PLAN_H

#include "passes/lib/moe_shape.h"
#include "passes/lib/neurons.h"

/* In a pass's `plan`: takes the layer's dense records, found in `f`, out of m, lists those of the
 * shape and sets m->ffn[layer]. Their sources are pending. */
MT_NODISCARD mt_status mt_moe_plan_layer(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                                         const struct mt_dense_ffn *f, struct mt_model *m,
                                         int layer);

/* ... a layer that stays dense: all it gets is what the target wants of attention. */
MT_NODISCARD mt_status mt_moe_plan_dense(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                                         struct mt_model *m, int layer);

/* In its `layer`: the neurons idx[0..n) of the dense FFN become an expert (or MT_EXPERT_SHARED),
 * alpha in its down_proj. */
MT_NODISCARD mt_status mt_moe_set_expert(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                                         const struct mt_dense_ffn *f, struct mt_model *m,
                                         int layer, int expert, const int32_t *idx, int64_t n);

/* With expert_bias: the expert's part of the output bias. */
MT_NODISCARD mt_status mt_moe_set_bias(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                                       const struct mt_dense_ffn *f, struct mt_model *m,
                                       int expert);

/* That, but for its down_proj: gate and up rows and their biases. */
MT_NODISCARD mt_status mt_moe_set_inner(struct mt_ctx *ctx, const struct mt_dense_ffn *f,
                                        struct mt_model *m, int expert, const int32_t *idx,
                                        int64_t n);

/* ... and the records that no choice of the pass enters: a selection bias of zeros, the gate of the
 * shared expert, a shared expert of zeros where the target wants one and none was asked for. */
MT_NODISCARD mt_status mt_moe_set_constants(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                                            struct mt_model *m, int layer);
#endif
