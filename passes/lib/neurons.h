/* neurons.h: what the neurons of one dense FFN are worth.
 *
 * A neuron j is the triple (gate row g_j, up row u_j, down column v_j); h_j = act(g_j.x)(u_j.x)
 * and the FFN's output is the sum of v_j h_j. Scores here rank neurons for being kept or shared.
 * All sums are in double and in a fixed order. Uses the pool.
 */
#ifndef MT_PASSES_NEURONS_H
#define MT_PASSES_NEURONS_H

#include "lib/ir/model.h"

/* The records of a dense FFN. `gate` is NULL for a plain one, biases where there are none. */
struct mt_dense_ffn {
    struct mt_tensor *gate, *up, *down;
    struct mt_tensor *gate_bias, *up_bias, *down_bias;
    int64_t width, hidden;
};

/* Finds the records of layer l in m and checks their shapes against each other. */
MT_NODISCARD mt_status mt_dense_ffn_find(struct mt_ctx *ctx, const struct mt_model *m, int layer,
                                         struct mt_dense_ffn *out);

/* Squared lengths of the rows, out[rows], and of the columns, out[cols], of a matrix. */
MT_NODISCARD mt_status mt_rows_sumsq(struct mt_ctx *ctx, const struct mt_tensor *t, double *out);
MT_NODISCARD mt_status mt_cols_sumsq(struct mt_ctx *ctx, const struct mt_tensor *t, double *out);

/* score[width] = ||g_j|| ||u_j|| ||v_j||: no activations needed. */
MT_NODISCARD mt_status mt_neuron_weight_score(struct mt_ctx *ctx, const struct mt_dense_ffn *f,
                                              double *score);

/* Sums over tokens of h_j, |h_j| and h_j^2; any of the three may be NULL. */
struct mt_neuron_sums {
    int64_t width, tokens;
    double *plain, *abs, *square; /* [width] each */
};
MT_NODISCARD mt_status mt_neuron_sums_add(struct mt_ctx *ctx, struct mt_neuron_sums *s, int64_t m,
                                          const float *h);

/* The same sums from statistics measured before (mt_model.profile). `has`: the profile of src has,
 * for every dense layer, those of them that are asked for; false without a profile. */
enum mt_neuron_sum { MT_NEURON_PLAIN = 1u, MT_NEURON_ABS = 2u, MT_NEURON_SQUARE = 4u };
bool mt_neuron_sums_has(const struct mt_model *src, unsigned which);
/* Fills tokens and what is not NULL for layer l. */
MT_NODISCARD mt_status mt_neuron_sums_read(struct mt_ctx *ctx, const struct mt_model *src,
                                           int layer, struct mt_neuron_sums *s);

/* order[n] = indices by falling score; equal scores by rising index. */
MT_NODISCARD mt_status mt_rank_falling(struct mt_ctx *ctx, const double *score, int64_t n,
                                       int32_t *order);
/* L2-normalised rows of t[rows, cols] listed in idx[n], as floats: out[n, cols]. A zero row stays
 * zero. Elements that are NaN or infinite fail with MT_E_NUMERIC, and count as 0 with --allow-nan.
 */
MT_NODISCARD mt_status mt_rows_unit(struct mt_ctx *ctx, const struct mt_tensor *t,
                                    const int32_t *idx, int64_t n, float *out);
#endif
