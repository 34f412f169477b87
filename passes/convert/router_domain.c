/* router_domain.c
 * domain: an expert's row is the mean of what goes into the FFN on the texts of its own domain, of
 * length 1.
 *
 * For experts that were fine-tuned on different texts. mergekit's "hidden" mode takes means of the
 * residual stream; engines multiply the router with the FFN's input, which has gone through the
 * norm, so that is what is averaged here, over text of the domain and without padding.
 */
#include "lib/base/mem.h"
#include "lib/flow/profile.h"
#include "passes/convert/method.h"

#include <math.h>

static mt_status domain_row(struct mt_ctx *ctx, const struct mt_convert_at *at, const char *name,
                            double *sum, float *row)
{
    const struct mt_profile *p = at->src->profile;
    size_t d = (size_t)at->shape->hidden;
    double sq = 0;

    MT_TRY(mt_wrap(ctx, mt_profile_get(ctx, p, at->layer, MT_STAT_X_SUM, name, sum, d),
                   "--router domain"));
    for (size_t i = 0; i < d; i++)
        sq += sum[i] * sum[i];
    if (!(sq > 0) || !isfinite(sq))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "--router domain: inputs of domain %s are zero, NaN or infinite", name);
    for (size_t i = 0; i < d; i++)
        row[i] = (float)(sum[i] / sqrt(sq));
    return MT_OK;
}

static mt_status domain_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             struct mt_convert_routing *out)
{
    int64_t d = at->shape->hidden;
    int g = at->shape->granules;
    mt_status st = MT_OK;
    double *sum;

    (void)state;
    if (at->src->profile == NULL || at->src->n_siblings == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router domain makes a row of each model's own text: give models with "
                       "--from NAME=MODEL, and text with --data NAME=FILE for each of them");
    MT_TRY(mt_alloc(ctx, (size_t)d, sizeof(*sum), "router rows", &sum));
    for (int c = 0; c < at->shape->copies && st == MT_OK; c++) {
        float *row = out->w + (int64_t)c * g * d;
        st = domain_row(ctx, at, mt_convert_copy_name(at->src, at->o, c), sum, row);
        for (int64_t i = d; st == MT_OK && i < g * d; i++)
            row[i] = row[i - d];
    }
    mt_free(sum);
    return st;
}

const struct mt_convert_router mt_convert_router_domain = {
    .name = "domain",
    .summary = "what goes into the FFN on each model's own text",
    .help =
        "Router domain is for --method upcycle with several models: an expert's row is the mean "
        "FFN input on the text whose domain has the model's name (--from NAME=MODEL and --data "
        "NAME=FILE; that of MODEL itself is called base), made 1 long. It is what auto takes "
        "when every expert has such a text.",
    .make = domain_make,
};
