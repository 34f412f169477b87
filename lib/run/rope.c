#include "lib/run/rope.h"

#include <math.h>

#define ROPE_TWO_PI 6.28318530717958647692

mt_status mt_rope_dim(struct mt_ctx *ctx, const struct mt_hparams *hp, int *rot_dim)
{
    double d = (double)hp->head_dim * hp->rope.partial;

    *rot_dim = 0;
    if (hp->learned_pos)
        return MT_OK;
    if (hp->mla.kv_rank > 0) {
        *rot_dim = hp->mla.rope;
        return MT_OK;
    }
    if (!(d >= 0 && d <= (double)hp->head_dim))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "partial_rotary_factor %g: the share of a head that rotates is in [0, 1]",
                       hp->rope.partial);
    if ((int)d % 2 != 0)
        return mt_fail(
            ctx, MT_E_UNSUPPORTED,
            "head_dim %d with partial_rotary_factor %g rotates %d features, which is odd",
            hp->head_dim, hp->rope.partial, (int)d);
    *rot_dim = (int)d;
    return MT_OK;
}

static void rope_plain(double theta, int dim, double *inv_freq)
{
    for (int i = 0; i < dim / 2; i++)
        inv_freq[i] = pow(theta, -2.0 * i / dim);
}

/* Base grows with the length, so that the slowest feature just covers it. */
static void rope_dynamic(const struct mt_hparams *hp, int64_t n, int dim, double *inv_freq)
{
    const struct mt_rope_params *p = &hp->rope;
    double base = p->theta, max = (double)hp->max_pos;

    if ((double)n > max && dim > 2)
        base *= pow(p->factor * (double)n / max - (p->factor - 1.0), dim / (double)(dim - 2));
    rope_plain(base, dim, inv_freq);
}

/* Waves longer than the old context are slowed down by `factor`, short ones kept, those between
 * blended. */
static void rope_llama3(const struct mt_hparams *hp, int dim, double *inv_freq)
{
    const struct mt_rope_params *p = &hp->rope;
    double old = p->original_max_pos > 0 ? p->original_max_pos : (double)hp->max_pos;

    rope_plain(p->theta, dim, inv_freq);
    for (int i = 0; i < dim / 2; i++) {
        double f = inv_freq[i], wave = ROPE_TWO_PI / f;
        if (wave > old / p->low_freq_factor) {
            inv_freq[i] = f / p->factor;
        } else if (wave >= old / p->high_freq_factor) {
            double s =
                (old / wave - p->low_freq_factor) / (p->high_freq_factor - p->low_freq_factor);
            inv_freq[i] = (1.0 - s) * f / p->factor + s * f;
        }
    }
}

/* Feature number at which a wave turns `rotations` times over the old context. */
static double rope_yarn_dim(double rotations, int dim, double theta, double old)
{
    return dim * log(old / (rotations * ROPE_TWO_PI)) / (2.0 * log(theta));
}

static double rope_yarn_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0;
}

static void rope_yarn(const struct mt_hparams *hp, int dim, double *inv_freq, double *amplitude)
{
    const struct mt_rope_params *p = &hp->rope;
    double old = p->original_max_pos > 0 ? p->original_max_pos : (double)hp->max_pos;
    double fast = p->beta_fast > 0 ? p->beta_fast : 32.0;
    double slow = p->beta_slow > 0 ? p->beta_slow : 1.0;
    double low = rope_yarn_dim(fast, dim, p->theta, old);
    double high = rope_yarn_dim(slow, dim, p->theta, old);

    low = fmax(p->no_truncate ? low : floor(low), 0.0);
    high = fmin(p->no_truncate ? high : ceil(high), dim - 1.0);
    if (low == high)
        high += 0.001; /* as the original: no division by zero */
    rope_plain(p->theta, dim, inv_freq);
    for (int i = 0; i < dim / 2; i++) {
        double ramp = fmin(fmax((i - low) / (high - low), 0.0), 1.0);
        inv_freq[i] = inv_freq[i] / p->factor * ramp + inv_freq[i] * (1.0 - ramp);
    }
    if (p->attention_factor != 0)
        *amplitude = p->attention_factor;
    else if (p->mscale != 0 && p->mscale_all_dim != 0)
        *amplitude =
            rope_yarn_mscale(p->factor, p->mscale) / rope_yarn_mscale(p->factor, p->mscale_all_dim);
    else
        *amplitude = rope_yarn_mscale(p->factor, 1.0);
}

/* Each frequency has a divisor of its own, one for short and one for long contexts. */
static void rope_longrope(const struct mt_hparams *hp, int64_t n, int dim, double *inv_freq,
                          double *amplitude)
{
    const struct mt_rope_params *p = &hp->rope;
    bool beyond = (double)n > p->original_max_pos;
    const double *factor = beyond ? p->long_factor : p->short_factor;

    rope_plain(p->theta, dim, inv_freq);
    for (int i = 0; i < dim / 2; i++)
        inv_freq[i] /= factor[i];
    if (p->attention_factor != 0)
        *amplitude = p->attention_factor;
    else if (p->factor > 1.0)
        *amplitude = sqrt(1.0 + log(p->factor) / log(p->original_max_pos));
}

mt_status mt_rope_frequencies(struct mt_ctx *ctx, const struct mt_hparams *hp, int64_t n_positions,
                              int rot_dim, double *inv_freq, double *amplitude)
{
    const struct mt_rope_params *p = &hp->rope;

    *amplitude = 1.0;
    switch (p->type) {
    case MT_ROPE_DEFAULT:
        rope_plain(p->theta, rot_dim, inv_freq);
        break;
    case MT_ROPE_LINEAR:
        rope_plain(p->theta, rot_dim, inv_freq);
        for (int i = 0; i < rot_dim / 2; i++)
            inv_freq[i] /= p->factor;
        break;
    case MT_ROPE_DYNAMIC:
        rope_dynamic(hp, n_positions, rot_dim, inv_freq);
        break;
    case MT_ROPE_LLAMA3:
        rope_llama3(hp, rot_dim, inv_freq);
        break;
    case MT_ROPE_YARN:
        rope_yarn(hp, rot_dim, inv_freq, amplitude);
        break;
    case MT_ROPE_LONGROPE:
        rope_longrope(hp, n_positions, rot_dim, inv_freq, amplitude);
        break;
    }
    for (int i = 0; i < rot_dim / 2; i++) {
        if (!isfinite(inv_freq[i]) || inv_freq[i] < 0)
            return mt_fail(ctx, MT_E_FORMAT,
                           "rope settings (theta %g, factor %g) give the frequency %g", p->theta,
                           p->factor, inv_freq[i]);
    }
    return MT_OK;
}
