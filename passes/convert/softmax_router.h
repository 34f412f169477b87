/* softmax_router.h: router makers that fit a softmax to targets by gradient steps: what pa and
 * contribution share. They differ in the scores that rank a token's experts. */
#ifndef MT_PASSES_CONVERT_SOFTMAX_ROUTER_H
#define MT_PASSES_CONVERT_SOFTMAX_ROUTER_H

#include "passes/convert/method.h"

int mt_softmax_router_rounds(const struct mt_convert_at *at);
uint64_t mt_softmax_router_memory(const struct mt_convert_at *at, bool prior);
/* prior: scores are -|FFN_e(x) - (k/E) y|^2; else ||FFN_e(x)||. */
MT_NODISCARD mt_status mt_softmax_router_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                               int64_t n_tokens, bool prior, void **state);
MT_NODISCARD mt_status mt_softmax_router_observe(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                                 void *state, const struct mt_observation *ob,
                                                 const float *norms);
MT_NODISCARD mt_status mt_softmax_router_make(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                              void *state, struct mt_convert_routing *out);
void mt_softmax_router_end(void *state);
#endif
