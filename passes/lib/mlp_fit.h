/* mlp_fit.h: MoEfication's router of two layers, fitted by gradient steps (arXiv 2110.01786, 4.3).
 *
 * z = W2 tanh(W1 x / |x|), trained so that sigmoid(z) is near q within 0 .. 1 by binary cross
 * entropy: Adam 0.01, 30 epochs, batches of 512, as published. The caller gives the start (experts'
 * centroids and the identity). The same for any thread count.
 *
 * Memory beside the sample: mt_mlp_fit_bytes. Threads: one caller; products run over the pool.
 */
#ifndef MT_PASSES_MLP_FIT_H
#define MT_PASSES_MLP_FIT_H

#include "passes/lib/router_sample.h"

uint64_t mt_mlp_fit_bytes(uint64_t d, uint64_t n, uint64_t width);

/* w1[width, d], w2[n, width], in and out. The sample's inputs become unit vectors and its order is
 * shuffled. *before, *after: mean cross entropy per expert; weights that end up worse, or are not
 * numbers, are left as they were. */
MT_NODISCARD mt_status mt_mlp_fit(struct mt_ctx *ctx, struct mt_router_sample *s, int64_t width,
                                  float *w1, float *w2, double *before, double *after);
#endif
