/* neuron_acts.h: what single neurons of a dense FFN make of inputs, beyond the products that the
 * runner shows (mt_observation.h).
 *
 * Rows are read a tile at a time, so memory is the result and little else. Threads: one caller;
 * products run over the pool.
 */
#ifndef MT_PASSES_NEURON_ACTS_H
#define MT_PASSES_NEURON_ACTS_H

#include "lib/ir/ffn.h"
#include "passes/lib/neurons.h"

enum mt_neuron_act {
    MT_NEURON_GATE,    /* act(g_j . x), without the up row; of a plain FFN act(w_j . x) */
    MT_NEURON_SLOPE,   /* act(z) / z of that: how open the gate is; 1/2 at z = 0 for SiLU */
    MT_NEURON_PRODUCT, /* act(g_j . x) (u_j . x) */
};

/* out[m, D] of x[m, hidden]. With `unit`, rows and inputs have length 1 (CMoE) and biases are left
 * out. */
MT_NODISCARD mt_status mt_neuron_acts(struct mt_ctx *ctx, const struct mt_dense_ffn *f,
                                      enum mt_act act, enum mt_neuron_act what, bool unit,
                                      int64_t m, const float *x, float *out);
/* Bytes taken beside `out`. */
uint64_t mt_neuron_acts_bytes(int64_t hidden, int64_t m);
#endif
