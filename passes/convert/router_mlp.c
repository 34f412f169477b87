/* router_mlp.c
 * mlp: MoEfication's router of two layers (arXiv 2110.01786): W2 tanh(W1 x / |x|), as many features
 * as experts, from the experts' mean unit rows and the identity.
 *
 * What it learns is each expert's sum of positive activations, relative to the token's largest; of
 * a gated FFN, whose activations have both signs, the sum of |h|.
 */
#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/lib/mlp_fit.h"

#include <math.h>
#include <string.h>

struct mlp_maker {
    struct mt_router_sample sample;
    float *score; /* [E] */
};

static void mlp_form(const struct mt_convert_at *at, struct mt_router *is)
{
    is->kind = MT_ROUTER_MLP;
    is->fn = MT_ROUTER_FN_TANH;
    is->width = at->shape->n_experts;
    is->unit_input = true;
}

static int mlp_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t mlp_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, n = (uint64_t)at->shape->n_experts;

    return mt_router_sample_bytes(d, n) + mt_mlp_fit_bytes(d, n, n) +
           (uint64_t)at->shape->expert_width * d * 4;
}

static mt_status mlp_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                           void **state)
{
    struct mlp_maker *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "router fit", &s));
    *state = s;
    MT_TRY(mt_alloc(ctx, (size_t)at->shape->n_experts, sizeof(float), "router fit", &s->score));
    return mt_router_sample_open(ctx, at->shape->hidden, at->shape->n_experts, n_tokens,
                                 &s->sample);
}

static void mlp_scores(const struct mt_convert_at *at, const float *h, float *score)
{
    const struct mt_split *split = at->split;
    bool gated = at->dense->gate != NULL;
    float top = 0;

    for (int e = 0; e < split->n_experts; e++) {
        const int32_t *list = mt_split_expert(split, e);
        double sum = 0;
        for (int64_t i = 0; i < split->expert_width; i++)
            if (list[i] >= 0)
                sum += gated ? fabs((double)h[list[i]]) : fmax((double)h[list[i]], 0);
        score[e] = (float)sum;
        top = score[e] > top ? score[e] : top;
    }
    for (int e = 0; e < split->n_experts && top > 0; e++)
        score[e] /= top;
}

static mt_status mlp_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             const struct mt_observation *ob, const float *norms)
{
    struct mlp_maker *s = state;

    (void)ctx;
    (void)norms;
    for (int64_t t = 0; t < ob->m; t++) {
        if (!mt_router_sample_wants(&s->sample, ob->token0 + t))
            continue;
        mlp_scores(at, ob->h + t * at->shape->width, s->score);
        mt_router_sample_add(&s->sample, ob->x + t * at->shape->hidden, s->score);
    }
    return MT_OK;
}

/* w1: mean unit rows; w2: the identity. */
static mt_status mlp_start(struct mt_ctx *ctx, const struct mt_convert_at *at,
                           struct mt_router_form *f)
{
    const struct mt_tensor *rows = at->dense->gate != NULL ? at->dense->gate : at->dense->up;
    int64_t width = at->split->expert_width, d = at->shape->hidden;
    mt_status st = MT_OK;
    float *v;

    MT_TRY(mt_alloc(ctx, (size_t)width, (size_t)d * sizeof(*v), "router fit", &v));
    for (int e = 0; e < f->n && st == MT_OK; e++) {
        const int32_t *list = mt_split_expert(at->split, e);
        int64_t n = 0;
        while (n < width && list[n] >= 0)
            n++;
        st = mt_rows_unit(ctx, rows, list, n, v);
        for (int64_t i = 0; st == MT_OK && i < n; i++)
            for (int64_t c = 0; c < d; c++)
                f->inner[e * d + c] += v[i * d + c] / (float)n;
        f->w[e * f->n + e] = 1;
    }
    mt_free(v);
    return st;
}

static mt_status mlp_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                          struct mt_convert_routing *out)
{
    struct mt_router_form *f = &out->form;
    struct mlp_maker *s = state;
    double before, after;

    MT_TRY(mlp_start(ctx, at, f));
    MT_TRY(mt_mlp_fit(ctx, &s->sample, f->is.width, f->inner, f->w, &before, &after));
    if (!isfinite(before))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted");
    mt_log(ctx, MT_LOG_INFO, "layer %d: the router's cross entropy falls from %.4f to %.4f",
           at->layer, before, after);
    return MT_OK;
}

static void mlp_end(void *state)
{
    struct mlp_maker *s = state;

    if (s != NULL) {
        mt_router_sample_close(&s->sample);
        mt_free(s->score);
    }
    mt_free(s);
}

const struct mt_convert_router mt_convert_router_mlp = {
    .name = "mlp",
    .summary = "MoEfication's two layers, trained on activations",
    .help = "Router mlp (MoEfication, arXiv 2110.01786) is two layers with tanh between them, "
            "trained by gradient steps on each expert's share of activation; only the native "
            "layout holds it.",
    .data = true,
    .form = mlp_form,
    .rounds = mlp_rounds,
    .memory = mlp_memory,
    .begin = mlp_begin,
    .observe = mlp_observe,
    .make = mlp_make,
    .end = mlp_end,
};
