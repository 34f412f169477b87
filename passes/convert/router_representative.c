/* router_representative.c
 * representative: an expert's score is |h| of one of its neurons, rows of length 1 (CMoE, arXiv
 * 2502.04416, step 5).
 *
 * The method names the neurons; where it does not, each expert's is the member whose gate row is
 * nearest to the mean of all members', rows of length 1.
 */
#include "lib/base/mem.h"
#include "passes/convert/method.h"

#include <math.h>
#include <string.h>

static void representative_form(const struct mt_convert_at *at, struct mt_router *is)
{
    const struct mt_ffn *ffn = &at->src->ffn[0];

    is->kind = MT_ROUTER_REPRESENTATIVE;
    is->fn = (enum mt_router_fn)((int)MT_ROUTER_FN_SILU + (int)ffn->act);
    is->gated = ffn->gated;
}

/* Which of n unit rows v[n, d] is nearest to their mean: the one with the largest product. */
static int64_t representative_nearest(const float *v, int64_t n, int64_t d, float *mean)
{
    double best = -INFINITY;
    int64_t who = 0;

    memset(mean, 0, (size_t)d * sizeof(*mean));
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < d; c++)
            mean[c] += v[i * d + c];
    for (int64_t i = 0; i < n; i++) {
        double dot = 0;
        for (int64_t c = 0; c < d; c++)
            dot += (double)v[i * d + c] * (double)mean[c];
        if (dot > best) {
            best = dot;
            who = i;
        }
    }
    return who;
}

static mt_status representative_choose(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                       int32_t *who)
{
    const struct mt_tensor *rows = at->dense->gate != NULL ? at->dense->gate : at->dense->up;
    int64_t width = at->split->expert_width, d = at->shape->hidden;
    float *v;

    MT_TRY(mt_alloc(ctx, (size_t)width + 1, (size_t)d * sizeof(*v), "representatives", &v));
    mt_status st = MT_OK;
    for (int e = 0; e < at->shape->n_experts && st == MT_OK; e++) {
        const int32_t *list = mt_split_expert(at->split, e);
        int64_t n = 0;
        while (n < width && list[n] >= 0)
            n++;
        st = mt_rows_unit(ctx, rows, list, n, v);
        if (st == MT_OK)
            who[e] = list[representative_nearest(v, n, d, v + width * d)];
    }
    mt_free(v);
    return st;
}

static mt_status representative_make(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                     void *state, struct mt_convert_routing *out)
{
    struct mt_router_form *f = &out->form;
    const int32_t *who = at->representative;
    int32_t *own = NULL;
    mt_status st = MT_OK;

    (void)state;
    if (who == NULL) {
        MT_TRY(mt_alloc(ctx, (size_t)f->n, sizeof(*own), "representatives", &own));
        st = representative_choose(ctx, at, own);
        who = own;
    }
    if (st == MT_OK)
        st = mt_rows_unit(ctx, at->dense->up, who, f->n, f->w);
    if (st == MT_OK && f->inner != NULL)
        st = mt_rows_unit(ctx, at->dense->gate, who, f->n, f->inner);
    mt_free(own);
    return st;
}

const struct mt_convert_router mt_convert_router_representative = {
    .name = "representative",
    .summary = "|h| of one neuron of each expert",
    .help =
        "Router representative (CMoE) scores an expert by the activation of one of its neurons, "
        "the one nearest to the others; it is not linear, so only the native layout holds it.",
    .form = representative_form,
    .make = representative_make,
};
