/* predict.h: when each neuron acts, as a linear function of the FFN's input foretells it.
 *
 * The contribution of neuron j to token t is c_j(t) = |h_j(t)| ||v_j||. A ridge regression with
 * intercept on the input x gives c_j ~ beta_j . x + b_j; its values over a sample of tokens are the
 * neuron's predicted profile. Neurons with like profiles can be chosen together by a linear router,
 * which is what groups should be made of (best_conversion section 5, step 3).
 *
 * Threads: one caller; products run over the pool. Memory: mt_predict_bytes.
 */
#ifndef MT_PASSES_PREDICT_H
#define MT_PASSES_PREDICT_H

#include "lib/base/ctx.h"

#include <stdint.h>

#define MT_PREDICT_SAMPLE_MAX 3072 /* tokens of a profile */
#define MT_PREDICT_LAMBDA 1e-3     /* times the mean diagonal of the centred X^T X */

struct mt_predict;

/* Highest use over its life, with `points` for profiles of all neurons. */
uint64_t mt_predict_bytes(uint64_t d, uint64_t width);
/* length[width]: ||v_j||, copied. n_tokens: of the whole data set. */
MT_NODISCARD mt_status mt_predict_create(struct mt_ctx *ctx, int64_t d, int64_t width,
                                         const double *length, int64_t n_tokens,
                                         struct mt_predict **out);
void mt_predict_free(struct mt_predict *p);
/* x[m, d], h[m, width]; token0 is the number of the first token. */
MT_NODISCARD mt_status mt_predict_add(struct mt_ctx *ctx, struct mt_predict *p, int64_t m,
                                      int64_t token0, const float *x, const float *h);
/* mean[width] of c_j */
void mt_predict_means(const struct mt_predict *p, double *mean);
/* Tokens in the sample: the length of a profile. */
int64_t mt_predict_tokens(const struct mt_predict *p);
/* False once an activation was NaN or infinite: nothing can be learnt then. */
bool mt_predict_finite(const struct mt_predict *p);
/* Solves the regression; uses the sums up: once. */
MT_NODISCARD mt_status mt_predict_solve(struct mt_ctx *ctx, struct mt_predict *p);
/* points[n, tokens]: unit-length predicted profiles of neurons idx[n]. After solve. */
MT_NODISCARD mt_status mt_predict_profiles(struct mt_ctx *ctx, const struct mt_predict *p,
                                           const int32_t *idx, int64_t n, float *points);
#endif
