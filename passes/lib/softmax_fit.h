/* softmax_fit.h: a linear softmax router fitted to target distributions by gradient steps.
 *
 * Of tokens and targets in a sample (router_sample.h): W, b minimise the mean divergence of
 * p = softmax(W x + b) and the targets q, by Adam on shuffled batches from W = 0. FactorLLM's
 * Prior-Approximate loss is KL(p || q), the student first (spec dense_to_moe 4.1, step 4); the
 * other direction is the usual distillation. The same for any thread count.
 *
 * Memory beside the sample: mt_softmax_fit_bytes. Threads: one caller; products run over the pool.
 */
#ifndef MT_PASSES_SOFTMAX_FIT_H
#define MT_PASSES_SOFTMAX_FIT_H

#include "passes/lib/router_sample.h"

/* Probabilities are taken for no less, as the authors do. */
#define MT_SOFTMAX_FIT_LEAST 1e-7

uint64_t mt_softmax_fit_bytes(uint64_t d, uint64_t n);

/* w[n, d] and b[n], or without intercept when b is NULL; the sample's inputs are scaled and its
 * order is shuffled. *before and *after: the mean divergence with zeros and in the end; a fit that
 * is no better than zeros gives zeros. `teacher_first`: KL(q || p). */
MT_NODISCARD mt_status mt_softmax_fit(struct mt_ctx *ctx, struct mt_router_sample *f,
                                      bool teacher_first, float *w, float *b, double *before,
                                      double *after);

/* A token's target from its scores: softmax((indicator of the k best) / temp), ties to the lowest
 * index; `soft`: of the scores themselves. best[n] is scratch. */
void mt_softmax_target(const float *score, int n, int k, bool soft, double temp, int32_t *best,
                       float *q);

/* Mean of sum p ln(p / q), or of sum q ln(q / p), over m rows of n. */
double mt_divergence(const float *p, const float *q, int64_t m, int n, bool teacher_first);
#endif
