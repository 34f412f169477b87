#include "lib/run/metrics.h"

#include "kernels/kernels.h"

#include <math.h>
#include <stdlib.h>

double mt_metrics_nll(const float *logits, size_t n, int32_t target)
{
    return mt_kernels_get()->logsumexp(logits, n) - (double)logits[target];
}

void mt_metrics_pair(const float *ref, const float *cand, size_t n, int32_t target,
                     struct mt_token_metrics *out)
{
    const struct mt_kernels *k = mt_kernels_get();
    double lse[2], kl = k->kl(ref, cand, n, lse);

    out->kl = kl < 0 ? 0 : kl; /* rounding; NaN stays */
    out->nll_ref = lse[0] - (double)ref[target];
    out->nll_cand = lse[1] - (double)cand[target];
    out->top1 = k->argmax(ref, n) == k->argmax(cand, n);
}

void mt_metrics_mean(const float *v, size_t n, double *mean, double *stderr_of_mean)
{
    double sum = 0, sq = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)v[i];
    *mean = n > 0 ? sum / (double)n : 0;
    for (size_t i = 0; i < n; i++)
        sq += ((double)v[i] - *mean) * ((double)v[i] - *mean);
    *stderr_of_mean = n > 1 ? sqrt(sq / (double)(n - 1) / (double)n) : 0;
}

/* NaN last, so that it shows in the maximum. */
static int metrics_cmp(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    if (isnan(x) || isnan(y))
        return isnan(x) - isnan(y);
    return (x > y) - (x < y);
}

void mt_metrics_sort(float *v, size_t n)
{
    if (n > 0)
        qsort(v, n, sizeof *v, metrics_cmp);
}

double mt_metrics_quantile(const float *sorted, size_t n, double q)
{
    double at, low;
    size_t i;

    if (n == 0)
        return NAN;
    at = q * (double)(n - 1);
    low = floor(at);
    i = (size_t)low;
    if (i + 1 >= n)
        return (double)sorted[n - 1];
    return (double)sorted[i] + (at - low) * ((double)sorted[i + 1] - (double)sorted[i]);
}

double mt_metrics_entropy(const double *share, int n)
{
    double h = 0;

    if (n == 1)
        return 1;
    for (int i = 0; i < n; i++) {
        if (share[i] > 0)
            h -= share[i] * log(share[i]);
    }
    return h / log((double)n);
}
