/* metrics.h: what logits say about a prediction, and statistics over tokens.
 *
 * Logits are fp32; everything computed from them is fp64, summed in an order that is the same on
 * every machine (see kernels.h).
 * A vocabulary has at least one token. Threads: pure functions.
 */
#ifndef MT_RUN_METRICS_H
#define MT_RUN_METRICS_H

#include "lib/base/ctx.h"

#include <stddef.h>

/* -ln softmax(logits)[target], in nats. */
double mt_metrics_nll(const float *logits, size_t n, int32_t target);

struct mt_token_metrics {
    double kl; /* D(ref || cand), nats; never negative */
    double nll_ref, nll_cand;
    bool top1; /* same argmax, ties to the lowest index */
};
void mt_metrics_pair(const float *ref, const float *cand, size_t n, int32_t target,
                     struct mt_token_metrics *out);

/* Mean, and its standard error s/sqrt(n) with s from n-1; 0 for fewer than two values. */
void mt_metrics_mean(const float *v, size_t n, double *mean, double *stderr_of_mean);

/* Sorts v; then quantiles by linear interpolation between order statistics: q = 0.5 is the
 * median. NaN when n is 0. */
void mt_metrics_sort(float *v, size_t n);
double mt_metrics_quantile(const float *sorted, size_t n, double q);

/* Entropy of shares in nats, divided by ln(n): 1 is perfectly even (also for n = 1). */
double mt_metrics_entropy(const double *share, int n);
#endif
