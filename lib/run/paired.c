#include "lib/run/paired.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/run/metrics.h"

#include <math.h>

/* What a window adds: its tokens and the sum of their differences. */
struct paired_window {
    double sum, n;
};

static void paired_windows(const float *a, const float *b, const struct mt_dataset *data,
                           struct paired_window *out)
{
    size_t at = 0;

    for (size_t w = 0; w < data->n_windows; w++) {
        out[w] = (struct paired_window){.n = data->windows[w].n - 1};
        for (int32_t i = 1; i < data->windows[w].n; i++, at++)
            out[w].sum += (double)a[at] - (double)b[at];
    }
}

static double paired_draw(const struct paired_window *v, size_t n, struct mt_rng *rng)
{
    struct paired_window all = {0};

    for (size_t i = 0; i < n; i++) {
        const struct paired_window *w = &v[mt_rng_below(rng, n)];
        all.sum += w->sum;
        all.n += w->n;
    }
    return all.sum / all.n;
}

mt_status mt_paired(struct mt_ctx *ctx, const float *a, const float *b,
                    const struct mt_dataset *data, uint64_t seed, struct mt_paired *out)
{
    size_t n = data->n_windows;
    struct paired_window *v, all = {0};
    float draws[MT_PAIRED_DRAWS];
    struct mt_rng rng;

    MT_TRY(mt_alloc(ctx, n, sizeof *v, "windows to draw", &v));
    paired_windows(a, b, data, v);
    for (size_t w = 0; w < n; w++) {
        all.sum += v[w].sum;
        all.n += v[w].n;
    }
    *out = (struct mt_paired){.mean = all.sum / all.n, .low = NAN, .high = NAN};
    if (n >= 2) {
        mt_rng_seed(&rng, seed, 0);
        for (int i = 0; i < MT_PAIRED_DRAWS; i++)
            draws[i] = (float)paired_draw(v, n, &rng);
        mt_metrics_sort(draws, MT_PAIRED_DRAWS);
        out->low = mt_metrics_quantile(draws, MT_PAIRED_DRAWS, 0.025);
        out->high = mt_metrics_quantile(draws, MT_PAIRED_DRAWS, 0.975);
    }
    mt_free(v);
    return MT_OK;
}
