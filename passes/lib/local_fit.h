/* local_fit.h: gate, up and down weights of one FFN trained together to give the layer's output.
 *
 * Layer-local distillation (the idea of m2mKD, arXiv 2402.16918, without its meta modules): the
 * dense FFN's output y is known for every token, and so is which neurons may act; Adam minimises
 * sum |y' - y|^2 over gate, up and down rows at once, where a refit of down columns alone (refit.h)
 * can only weigh what the neurons give. Choices stay as they are.
 *
 * Neurons stand in lists (local_grad.h); zero ones stay exactly zero. Tokens come from a scratch
 * file (local_tokens.h). After each epoch the error on what is held out is compared, and the best
 * state stays, which may be the one before the first. If none was better, a half, a quarter and an
 * eighth of the way that training went are tried.
 *
 * Threads: one caller; uses the pool. Same bits for any thread count: batches are drawn by seed,
 * products are cut by shapes. Memory: mt_local_fit_bytes.
 */
#ifndef MT_PASSES_LOCAL_FIT_H
#define MT_PASSES_LOCAL_FIT_H

#include "passes/lib/layer_numbers.h"
#include "passes/lib/local_grad.h"
#include "passes/lib/local_tokens.h"

struct mt_local_told {
    double before, after; /* held-out error, as in layer_numbers.h; NaN: nothing to judge by was
                             held out, and nothing was trained */
    int epoch;            /* whose state was taken; 0: that before the first */
};

/* Most counted bytes: weights, their best state, two moments and a batch. */
uint64_t mt_local_fit_bytes(const struct mt_local_shape *s);
/* Trains w in place for so many epochs; `stream` seeds the order of tokens. Without tokens to learn
 * from or to judge by, w stays. */
MT_NODISCARD mt_status mt_local_fit(struct mt_ctx *ctx, const struct mt_local_shape *s,
                                    struct mt_local_tokens *tokens, int epochs, uint64_t stream,
                                    struct mt_local_weights *w, struct mt_local_told *told);
/* Into the numbers that the refit of down columns left, which the training began with; nothing when
 * nothing was trained. */
void mt_local_tell(const struct mt_local_told *told, struct mt_refit_numbers *out);
#endif
