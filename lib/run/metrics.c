#include "lib/run/metrics.h"

#include <math.h>
#include <stdlib.h>

static size_t metrics_argmax(const float *v, size_t n)
{
    size_t best = 0;

    for (size_t i = 1; i < n; i++) {
        if (v[i] > v[best])
            best = i;
    }
    return best;
}

double mt_metrics_nll(const float *logits, size_t n, int32_t target)
{
    double max = (double)logits[metrics_argmax(logits, n)], sum = 0;
    size_t i = 0;

    do
        sum += exp((double)logits[i] - max);
    while (++i < n);
    return log(sum) + max - (double)logits[target];
}

/* With w = exp(r - max r), Z = sum w and d = (r - max r) - (c - max c):
 * KL = sum w d / Z - ln Z_r + ln Z_c. Identical rows give exactly 0. */
void mt_metrics_pair(const float *ref, const float *cand, size_t n, int32_t target,
                     struct mt_token_metrics *out)
{
    size_t ar = metrics_argmax(ref, n), ac = metrics_argmax(cand, n);
    double mr = (double)ref[ar], mc = (double)cand[ac];
    double zr = 0, zc = 0, wd = 0, kl;
    size_t i = 0;

    do {
        double r = (double)ref[i] - mr, c = (double)cand[i] - mc;
        double w = exp(r);
        zr += w;
        zc += exp(c);
        wd += w > 0 ? w * (r - c) : 0; /* -Inf in both is no difference */
    } while (++i < n);
    kl = wd / zr - log(zr) + log(zc);
    out->kl = kl < 0 ? 0 : kl; /* rounding; NaN stays */
    out->nll_ref = log(zr) + mr - (double)ref[target];
    out->nll_cand = log(zc) + mc - (double)cand[target];
    out->top1 = ar == ac;
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
