/* Llama 3's frequencies in GGUF: the file holds what each is divided by, not why. */
#include "formats/gguf.h"

#include "lib/base/mem.h"
#include "lib/run/rope.h"

#include <math.h>
#include <string.h>

mt_status mt_gguf_rope_factors(struct mt_ctx *ctx, const struct mt_hparams *hp, float *out)
{
    struct mt_hparams plain = *hp;
    double *a, *b, amplitude;
    int dim = hp->head_dim;
    mt_status st;

    plain.rope.type = MT_ROPE_DEFAULT;
    MT_TRY(mt_alloc0(ctx, (size_t)dim, sizeof *a, "rotary frequencies", &a));
    b = a + dim / 2;
    st = mt_rope_frequencies(ctx, &plain, 1, dim, a, &amplitude);
    if (st == MT_OK)
        st = mt_rope_frequencies(ctx, hp, 1, dim, b, &amplitude);
    for (int i = 0; st == MT_OK && i < dim / 2; i++)
        out[i] = (float)(a[i] / b[i]);
    mt_free(a);
    return st;
}

double mt_gguf_rope_amplitude(const struct mt_rope_params *r)
{
    if (r->attention_factor > 0)
        return r->attention_factor;
    return r->factor > 1 ? sqrt(1 + log(r->factor) / log(r->original_max_pos)) : 1;
}

/* The settings as our own writer notes them, else those that Llama 3.1 to 3.3 have in common. */
static mt_status rope_settings(struct mt_ctx *ctx, const struct mt_gguf *g, const float *factors,
                               int n, struct mt_rope_params *r)
{
    double most = 1;

    for (int i = 0; i < n; i++)
        most = fmax(most, (double)factors[i]);
    r->type = MT_ROPE_LLAMA3;
    MT_TRY(mt_gguf_num(ctx, g, "moetool.rope.factor", most, &r->factor));
    MT_TRY(mt_gguf_num(ctx, g, "moetool.rope.low_freq_factor", 1, &r->low_freq_factor));
    MT_TRY(mt_gguf_num(ctx, g, "moetool.rope.high_freq_factor", 4, &r->high_freq_factor));
    MT_TRY(mt_gguf_num(ctx, g, "moetool.rope.original_context_length", 8192, &r->original_max_pos));
    if (r->factor < 1 || r->low_freq_factor <= 0 || r->high_freq_factor <= r->low_freq_factor ||
        r->original_max_pos < 1)
        return mt_fail(ctx, MT_E_FORMAT, "rope_freqs.weight: settings out of range");
    return MT_OK;
}

static mt_status rope_check(struct mt_ctx *ctx, const struct mt_hparams *hp, const float *have)
{
    float *want;
    mt_status st;

    MT_TRY(mt_alloc(ctx, (size_t)hp->head_dim, sizeof *want, "rotary frequencies", &want));
    st = mt_gguf_rope_factors(ctx, hp, want);
    for (int i = 0; st == MT_OK && i < hp->head_dim / 2; i++)
        if (!(fabs((double)have[i] - (double)want[i]) <= 1e-4 * (double)want[i]))
            st = mt_fail(ctx, MT_E_UNSUPPORTED,
                         "rope_freqs.weight: frequencies other than Llama 3's are not known here");
    mt_free(want);
    return st;
}

mt_status mt_gguf_rope_guess(struct mt_ctx *ctx, const struct mt_gguf *g,
                             const struct mt_gguf *file, const struct mt_gguf_record *r,
                             struct mt_hparams *hp)
{
    int n = hp->head_dim / 2;
    float *have;
    mt_status st;

    if (file->headers_only || r->dtype != MT_F32 || r->rank != 1 || r->ne[0] != (uint64_t)n ||
        hp->head_dim % 2 != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "rope_freqs.weight does not fit heads of %d",
                       hp->head_dim);
    MT_TRY(mt_alloc(ctx, (size_t)n + 1, sizeof *have, "rotary frequencies", &have));
    for (int i = 0; i < n; i++) {
        uint32_t bits = mt_le32(file->map->base + file->data_offset + r->begin + 4 * (size_t)i);
        memcpy(&have[i], &bits, sizeof bits);
    }
    st = rope_settings(ctx, g, have, n, &hp->rope);
    if (st == MT_OK)
        st = rope_check(ctx, hp, have);
    mt_free(have);
    return st;
}
