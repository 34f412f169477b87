#include "passes/convert/convert.h"

#include <math.h>
#include <stdio.h>

/* Share of tokens with undecided choices that is worth a warning. */
#define TOLD_TIES_MAX 0.05

struct told_sums {
    double bound, error, agreement, captured, ties, before, down, after, near;
    int64_t flatten;
    int measured, refitted, reverted, trained;
};

static struct told_sums told_add_up(const struct convert *s)
{
    struct told_sums y = {0};

    for (int l = 0; l < s->shape.n_layers; l++) {
        const struct mt_layer_numbers *n = &s->numbers[l];
        y.flatten = n->flatten > y.flatten ? n->flatten : y.flatten;
        y.bound = fmax(y.bound, n->weight_bound);
        y.error = fmax(y.error, n->fit.weight_error);
        y.agreement += n->fit.agreement;
        y.captured += n->fit.captured;
        y.ties = fmax(y.ties, n->fit.ties);
        y.near += n->near;
        y.measured += n->fit.tokens > 0;
        y.refitted += n->refit.tokens > 0;
        y.reverted += n->refit.reverted;
        y.before += n->refit.tokens > 0 ? n->refit.before : 0;
        y.trained += n->refit.trained;
        y.down += n->refit.trained ? n->refit.down : 0;
        y.after += n->refit.tokens > 0 ? n->refit.after : 0;
    }
    return y;
}

void convert_tell_copies(struct mt_ctx *ctx, const struct convert *s)
{
    const struct mt_moe_shape *p = &s->shape;

    if (p->copies == 0)
        return;
    if (s->o.noise > 0)
        mt_log(ctx, MT_LOG_WARN,
               "--noise parts the slices of a copy, so the result does not start as the source");
    if (!mt_target_sums(&p->use))
        mt_log(ctx, MT_LOG_WARN,
               "%s takes expert weights from a softmax over all experts, so the result is the "
               "source only about as nearly as routers are flat; mixtral, qwen3_moe, granitemoe, "
               "glm4_moe and native hold copies exactly",
               mt_target_name(p->target));
}

/* Experts that are alike cannot be told apart by an oracle: only weights say something. */
static void told_copies(struct mt_ctx *ctx, const struct convert *s, const struct told_sums *y,
                        struct mt_json *out)
{
    const struct mt_moe_shape *p = &s->shape;

    mt_json_set_int(out, "copies", p->copies);
    mt_json_set_int(out, "granularity", p->granules);
    if (y->measured > 0) {
        mt_json_set_num(out, "weight_error_max", y->error);
        mt_json_set_num(out, "ties_max", y->ties);
    }
    if (s->at.src->n_siblings > 0) {
        mt_json_set_int(out, "models", p->copies);
        mt_log(ctx, MT_LOG_INFO, "experts are the FFNs of %d models; all else is %s", p->copies,
               s->o.attention == 0 ? "their mean" : "that of the first");
        return;
    }
    if (!mt_target_sums(&p->use) || s->o.noise > 0)
        return;
    mt_log(ctx, MT_LOG_INFO,
           "%d copies%s: the result computes what the source does, until it is trained", p->copies,
           p->granules > 1 ? ", whose slices are chosen together" : "");
}

static void told_fits(struct mt_ctx *ctx, const struct told_sums *y, struct mt_json *out)
{
    char weights[48] = "", down[48] = "";

    if (y->refitted > 0) {
        mt_json_set_int(out, "refits", y->refitted - y->reverted);
        mt_json_set_int(out, "refits_reverted", y->reverted);
        mt_json_set_num(out, "refit_error_before_mean", y->before / y->refitted);
        if (y->trained == y->refitted) {
            mt_json_set_num(out, "refit_error_down_mean", y->down / y->refitted);
            snprintf(down, sizeof down, ", by down projections alone to %.3g",
                     y->down / y->refitted);
        }
        mt_json_set_num(out, "refit_error_after_mean", y->after / y->refitted);
        if (isnan(y->before))
            mt_log(ctx, MT_LOG_WARN,
                   "refits: too few tokens to hold some out, so that nothing tells whether they "
                   "help");
        else
            mt_log(ctx, MT_LOG_INFO,
                   "refits: on held-out tokens the layers' error falls from %.3g to %.3g on "
                   "average%s%s",
                   y->before / y->refitted, y->after / y->refitted, down,
                   y->reverted > 0 ? ", reverted where it did not" : "");
    }
    if (y->measured == 0)
        return;
    mt_json_set_num(out, "weight_error_max", y->error);
    mt_json_set_num(out, "agreement_mean", y->agreement / y->measured);
    mt_json_set_num(out, "captured_mean", y->captured / y->measured);
    mt_json_set_num(out, "ties_max", y->ties);
    if (y->error > 0)
        snprintf(weights, sizeof weights, "by at most %.2g; ", y->error);
    mt_log(ctx, MT_LOG_INFO,
           "measured: %srouters pick %.0f %% of the oracle's experts, %.0f %% of their squared "
           "norm",
           weights, 100 * y->agreement / y->measured, 100 * y->captured / y->measured);
    if (y->ties > TOLD_TIES_MAX)
        mt_log(ctx, MT_LOG_WARN,
               "for up to %.1f %% of a layer's tokens the last chosen expert and the next are "
               "closer than fp32 scores tell apart, so engines may choose differently: lower "
               "--flatten",
               100 * y->ties);
}

static void told_shape(struct mt_ctx *ctx, const struct convert *s, double active)
{
    const struct mt_moe_shape *p = &s->shape;
    const char *plural = p->expert_width == 1 ? "" : "s";

    if (p->own_widths)
        mt_log(ctx, MT_LOG_INFO,
               "%d of %d experts, each at most %lld neuron%s wide, and %lld shared neurons act for "
               "a token (%.1f %% of %lld on average)",
               p->k, p->n_experts, (long long)p->expert_width, plural,
               (long long)(p->n_shared > 0 ? p->shared_width : 0), 100 * active / (double)p->width,
               (long long)p->width);
    else if (p->own_active)
        mt_log(ctx, MT_LOG_INFO,
               "%d to %d of %d experts by layer and %d shared, each %lld neuron%s wide, act for a "
               "token (%.1f %% of %lld on average)",
               s->least, s->most, p->n_experts, p->n_shared, (long long)p->expert_width, plural,
               100 * active / (double)p->width, (long long)p->width);
    else
        mt_log(ctx, MT_LOG_INFO,
               "%d of %d experts and %d shared, each %lld neuron%s wide, act for a token (%.1f %% "
               "of %lld%s)",
               p->k, p->n_experts, p->n_shared, (long long)p->expert_width, plural,
               100 * active / (double)p->width, (long long)p->width,
               p->by_token ? " on average" : "");
}

/* With numbers by layer: what they are, and their mean. */
static void told_acting(const struct convert *s, struct mt_json *out)
{
    struct mt_json *list;
    int64_t sum = 0;

    if (!s->shape.own_active)
        return;
    list = mt_json_set_array(out, "active_by_layer");
    for (int l = 0; l < s->shape.n_layers; l++) {
        mt_json_add_int(list, s->acting[l]);
        sum += s->acting[l];
    }
    mt_json_set_num(out, "active_mean", (double)sum / (s->shape.n_layers - s->n_dense));
}

/* Neurons that were left out, or are there several times. */
static void told_coverage(struct mt_ctx *ctx, const struct convert *s, struct mt_json *out)
{
    double all = (double)s->shape.width * s->shape.n_layers;
    int64_t dropped = 0, copies = 0;

    for (int l = 0; l < s->shape.n_layers; l++) {
        dropped += s->numbers[l].dropped;
        copies += s->numbers[l].copies;
    }
    if (dropped > 0) {
        mt_json_set_num(out, "dropped_share", (double)dropped / all);
        mt_log(ctx, MT_LOG_INFO, "%.1f %% of the neurons are in no expert",
               100 * (double)dropped / all);
    }
    if (copies > 0) {
        mt_json_set_num(out, "copied_share", (double)copies / all);
        mt_log(ctx, MT_LOG_INFO,
               "experts overlap: %.1f %% more neurons than there are, beside those dropped",
               100 * (double)copies / all);
    }
}

mt_status convert_tell(struct mt_ctx *ctx, const struct convert *s, struct mt_json *out)
{
    const struct mt_moe_shape *p = &s->shape;
    double active = (double)s->active / p->n_layers;
    const struct told_sums y = told_add_up(s);

    mt_json_set_str(out, "method", s->method->name);
    mt_json_set_str(out, "refit", s->refit->name);
    mt_json_set_str(out, "architecture", p->target->family);
    if (p->why[0] != 0)
        mt_json_set_str(out, "architecture_why", p->why);
    mt_json_set_int(out, "experts", p->n_experts);
    mt_json_set_int(out, "active", p->k);
    told_acting(s, out);
    mt_json_set_int(out, "shared", p->n_shared);
    mt_json_set_int(out, "expert_width", p->expert_width);
    if (p->own_widths)
        mt_json_set_int(out, "shared_width", p->n_shared > 0 ? p->shared_width : 0);
    mt_json_set_int(out, "zero_shared_width", p->n_shared == 0 ? p->shared_width : 0);
    mt_json_set_num(out, "active_share", active / (double)p->width);
    if (s->n_dense > 0) {
        mt_json_set_int(out, "dense_layers", s->n_dense);
        mt_log(ctx, MT_LOG_INFO, "%d of %d layers stay dense: %s", s->n_dense, p->n_layers,
               s->o.dense_layers);
    }
    mt_json_set_int(out, "flatten_max", y.flatten);
    mt_json_set_num(out, "alpha", mt_target_alpha(&p->use, p->n_experts, p->k));
    mt_json_set_num(out, "weight_bound_max", y.bound);
    told_shape(ctx, s, active);
    if (p->copies == 0)
        told_coverage(ctx, s, out);
    if (y.near > 0) {
        double share = y.near / (p->n_layers - s->n_dense);
        mt_json_set_num(out, "nearest_linear_agreement_mean", share);
        mt_log(ctx, MT_LOG_WARN,
               "%s holds linear routers only: instead of router %s stands the linear one nearest "
               "to it, which makes %.0f %% of its choices; --arch native keeps it",
               mt_target_name(p->target), s->router->name, 100 * share);
    }
    if (p->k < p->n_experts && y.bound > 0 && (p->copies == 0 || !mt_target_sums(&p->use)))
        mt_log(ctx, MT_LOG_INFO, "expert weights differ from 1 by at most %.2g", y.bound);
    if (p->copies > 0)
        told_copies(ctx, s, &y, out);
    else
        told_fits(ctx, &y, out);
    return MT_OK;
}
