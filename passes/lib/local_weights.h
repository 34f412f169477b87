/* local_weights.h: the neurons of an FFN in the order of lists, as arrays that can be trained.
 *
 * Threads: one caller; gathering uses the pool.
 */
#ifndef MT_PASSES_LOCAL_WEIGHTS_H
#define MT_PASSES_LOCAL_WEIGHTS_H

#include "passes/lib/neurons.h"

/* h = act(gate x + gate_bias) * (up x + up_bias), or act(up x + up_bias) when not gated, and y =
 * down h: `gate` is NULL when not gated, biases where there are none. Each array is freed by
 * itself. */
struct mt_local_weights {
    float *gate, *up;           /* [n, hidden] */
    float *gate_bias, *up_bias; /* [n] */
    float *down;                /* [hidden, n] */
};
void mt_local_weights_free(struct mt_local_weights *w);

/* Rows and biases idx[n] of f; -1 is a neuron of zeros. `down` is left alone. What was gathered
 * before a failure stays in w. */
MT_NODISCARD mt_status mt_local_weights_gather(struct mt_ctx *ctx, const struct mt_dense_ffn *f,
                                               const int32_t *idx, int64_t n,
                                               struct mt_local_weights *w);
#endif
