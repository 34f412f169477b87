#include "lib/ir/ffn.h"

#include <math.h>

int mt_ffn_rows(const struct mt_ffn *f)
{
    return !f->moe ? 0 : f->n_rows > 0 ? f->n_rows : f->n_experts;
}

int64_t mt_ffn_expert_width(const struct mt_ffn *f, int e)
{
    return f->widths != NULL ? f->widths[e] : f->width;
}

static int64_t ffn_routed_width(const struct mt_ffn *f)
{
    int64_t sum = 0;

    if (f->widths == NULL)
        return f->n_experts * f->width;
    for (int e = 0; e < f->n_experts; e++)
        sum += f->widths[e];
    return sum;
}

double mt_ffn_mean_active(const struct mt_ffn *f)
{
    return f->rule.cut != MT_CUT_NONE && f->rule.cut_mean > 0 ? f->rule.cut_mean : f->k;
}

int64_t mt_ffn_active_width(const struct mt_ffn *f)
{
    if (!f->moe)
        return f->width;
    if (f->rule.cut != MT_CUT_NONE && f->rule.cut_mean > 0)
        return llround(f->rule.cut_mean * (double)ffn_routed_width(f) / f->n_experts) +
               f->shared_width;
    if (f->widths == NULL)
        return f->k * f->width + f->shared_width;
    return (f->k * ffn_routed_width(f) + f->n_experts - 1) / f->n_experts + f->shared_width;
}

int64_t mt_ffn_total_width(const struct mt_ffn *f)
{
    return f->moe ? ffn_routed_width(f) + f->shared_width : f->width;
}

const char *mt_ffn_special(const struct mt_ffn *f)
{
    if (!f->moe)
        return NULL;
    for (int i = 0; i < MT_FFN_MATRICES; i++)
        if (f->factors[i].on)
            return "experts stored as factors";
    return f->widths != NULL                    ? "unequal expert widths"
           : f->map != NULL || f->n_rows > 0    ? "a table from router rows to experts"
           : f->router.kind != MT_ROUTER_LINEAR ? "a router that is not one matrix"
           : f->router.unit_input               ? "a router on unit vectors"
           : f->rule.cut != MT_CUT_NONE         ? "a threshold that drops experts by token"
           : f->rule.unit                       ? "experts of weight one whatever their score"
           : f->rule.score == MT_SCORE_LOGIT    ? "router scores that are the logits themselves"
           : f->layer_bias                      ? "an output bias of the layer"
           : f->planes.bits > 0                 ? "planes of bits"
                                                : NULL;
}

double mt_router_fn(enum mt_router_fn fn, double x)
{
    switch (fn) {
    case MT_ROUTER_FN_IDENTITY:
        return x;
    case MT_ROUTER_FN_TANH:
        return tanh(x);
    case MT_ROUTER_FN_COS:
        return cos(x);
    default:
        return mt_act_f64((enum mt_act)(fn - MT_ROUTER_FN_SILU), x);
    }
}
