/* pick.h: which experts a router's logits choose for tokens, as an engine would.
 *
 * Threads: one caller; runs over the pool. Memory: n floats for each token of a call.
 */
#ifndef MT_PASSES_PICK_H
#define MT_PASSES_PICK_H

#include "lib/base/ctx.h"
#include "lib/ir/ffn.h"

struct mt_pick {
    const struct mt_router_rule *rule;
    int n, k;
    const float *bias; /* [n], selection only; NULL: none */
};

/* picked[m, n] = 1 where the rule chooses the expert by logits[m, n], else 0. */
MT_NODISCARD mt_status mt_pick_experts(struct mt_ctx *ctx, const struct mt_pick *p, int64_t m,
                                       const float *logits, unsigned char *picked);
/* The same by the linear router w[n, d] for inputs x[m, d]. */
MT_NODISCARD mt_status mt_pick_linear(struct mt_ctx *ctx, const struct mt_pick *p, int64_t d,
                                      const float *w, int64_t m, const float *x,
                                      unsigned char *picked);
#endif
