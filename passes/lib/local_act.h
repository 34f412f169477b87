/* local_act.h: neurons of one token through the activation of an FFN, and back.
 *
 * h = act(g) u, or act(u) when not gated; with a limit c (gpt-oss) h = act(min(g, c)) (1 + clamp(u,
 * -c, c)). At a limit, as beyond it, the slope is 0. Threads: pure functions.
 */
#ifndef MT_PASSES_LOCAL_ACT_H
#define MT_PASSES_LOCAL_ACT_H

#include "passes/lib/local_grad.h"

/* Adds the biases of neurons `from` and so on to what the rows gave, zg[n] (gated only) and zu[n],
 * and makes h[n] of them. What is left in zg and zu is for the way back. */
void mt_local_act(const struct mt_local_shape *s, const struct mt_local_weights *w, int64_t from,
                  int64_t n, float *zg, float *zu, float *h);
/* zg and zu become the gradients of what they were, by that of h. */
void mt_local_act_back(const struct mt_local_shape *s, int64_t n, float *zg, float *zu,
                       const float *dh);
#endif
