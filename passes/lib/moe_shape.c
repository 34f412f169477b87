#include "passes/lib/moe_shape.h"

#include "lib/ir/family.h"
#include "passes/lib/split.h"
#include "passes/lib/target_choice.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mt_status shape_read_shared(struct mt_ctx *ctx, const struct mt_shape_ask *o,
                                   const struct mt_target *t, int *shared)
{
    char *end;

    if (strcmp(o->shared, "auto") == 0) {
        *shared = t->shared;
        return MT_OK;
    }
    errno = 0;
    long v = strtol(o->shared, &end, 10);
    if (errno != 0 || end == o->shared || *end != 0 || v < 0 || v > MT_SHAPE_EXPERTS_MAX)
        return mt_fail(ctx, MT_E_OPTION, "--shared %s: expected auto or an integer from 0 to %d",
                       o->shared, MT_SHAPE_EXPERTS_MAX);
    *shared = (int)v;
    return MT_OK;
}

/* One entry of `all`, which ends at a comma or with it. */
static mt_status shape_read_active(struct mt_ctx *ctx, const char *all, const char *text,
                                   const struct mt_moe_shape *s, int *active)
{
    char *end;

    errno = 0;
    double v = strtod(text, &end);
    bool percent = end != text && *end == '%';
    end += percent;
    if (errno != 0 || end == text || (*end != '\0' && *end != ',') || !(v > 0) ||
        (percent ? v > 100 : v != floor(v)))
        return mt_fail(
            ctx, MT_E_OPTION,
            "--active %s: expected experts per token (4) or a share of the width (50%%), "
            "or one for each layer (60%%,50%%,40%%)",
            all);
    if (percent) {
        double k = round(v / 100 * (double)s->width / (double)s->expert_width) - s->n_shared;
        /* Padding must not make all of the width less than all experts. */
        v = v >= 100 ? s->n_experts : fmin(fmax(k, 1), s->n_experts);
    }
    if (v > s->n_experts)
        return mt_fail(ctx, MT_E_OPTION, "--active %s: there are only %d routed experts", all,
                       s->n_experts);
    *active = (int)v;
    return MT_OK;
}

static bool shape_is_list(const char *active)
{
    return strchr(active, ',') != NULL;
}

/* Of a list as long as there are layers. */
static const char *shape_entry(const char *list, int layer)
{
    for (; layer > 0; layer--)
        list = strchr(list, ',') + 1;
    return list;
}

/* An entry stands where a layer is converted, and a dash where it stays dense. */
static mt_status shape_check_entry(struct mt_ctx *ctx, const char *list, int layer, bool dense)
{
    const char *entry = shape_entry(list, layer);
    bool dash = entry[0] == '-' && (entry[1] == '\0' || entry[1] == ',');

    if (dense == dash)
        return MT_OK;
    return mt_fail(ctx, MT_E_OPTION,
                   dense ? "--active %s: layer %d stays dense by --dense-layers: its entry is -"
                         : "--active %s: layer %d has no number; --dense-layers leaves it dense",
                   list, layer);
}

static mt_status shape_read_list(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                                 struct mt_moe_shape *s)
{
    int n = 1, least = s->n_experts, most = 0, converted = 0, k = 0;
    int64_t sum = 0;

    for (const char *p = ask->active; *p != '\0'; p++)
        n += *p == ',';
    if (n != s->n_layers)
        return mt_fail(ctx, MT_E_OPTION,
                       "--active %s: %d entries, but there are %d layers; give one for all, or one "
                       "for each, with - for those that stay dense",
                       ask->active, n, s->n_layers);
    for (int l = 0; l < n; l++) {
        bool dense = s->dense != NULL && s->dense[l];
        MT_TRY(shape_check_entry(ctx, ask->active, l, dense));
        if (dense)
            continue;
        MT_TRY(mt_wrap(ctx, shape_read_active(ctx, ask->active, shape_entry(ask->active, l), s, &k),
                       "layer %d", l));
        least = k < least ? k : least;
        most = k > most ? k : most;
        sum += k;
        converted++;
    }
    if (converted == 0)
        return mt_fail(ctx, MT_E_OPTION, "--active %s: no layer is left to convert", ask->active);
    s->own_active = least < most;
    s->k = (int)((sum + converted / 2) / converted);
    /* Not all act, and that is what decides about routers. */
    if (s->own_active && s->k == s->n_experts)
        s->k--;
    return MT_OK;
}

mt_status mt_moe_shape_layer(struct mt_ctx *ctx, const struct mt_shape_ask *ask, int layer,
                             struct mt_moe_shape *s)
{
    if (!s->own_active)
        return MT_OK;
    MT_TRY(mt_wrap(ctx,
                   shape_read_active(ctx, ask->active, shape_entry(ask->active, layer), s, &s->k),
                   "layer %d", layer));
    s->by_token = s->by_token && s->k < s->n_experts;
    return MT_OK;
}

mt_status mt_moe_refuse_list(struct mt_ctx *ctx, const char *active, const char *who)
{
    if (!shape_is_list(active))
        return MT_OK;
    return mt_fail(ctx, MT_E_OPTION,
                   "--active %s: %s lets as many experts act in every layer; give one number",
                   active, who);
}

static mt_status shape_check_block(struct mt_ctx *ctx, const struct mt_ffn *f, int l)
{
    if (!f->gated)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "layer %d: an FFN without gate fits no standard MoE family; --arch native "
                       "holds it",
                       l);
    if (f->in_bias || f->out_bias)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "layer %d: FFN biases (mlp_bias) fit no standard MoE family; --arch native "
                       "holds them",
                       l);
    return MT_OK;
}

static mt_status shape_check_source(struct mt_ctx *ctx, const struct mt_model *src)
{
    if (src->family == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "model_type %s is not known, so its FFNs are not: --ffn PATTERN tells where "
                       "they are",
                       src->model_type != NULL ? src->model_type : "(none)");
    for (int l = 0; l < src->hp.n_layers; l++) {
        const struct mt_ffn *f = &src->ffn[l];
        if (f->moe)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "layer %d is a mixture of %d experts already; only dense layers can be "
                           "converted",
                           l, f->n_experts);
        if (f->width != src->ffn[0].width)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "layer %d is %lld neurons wide, layer 0 %lld: MoE families have one "
                           "expert width",
                           l, (long long)f->width, (long long)src->ffn[0].width);
    }
    if (src->hp.n_layers == 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "the model has no layers");
    return MT_OK;
}

/* An expert count near `n` that gives a width of whole quantization blocks without padding; 0 when
 * there is none. */
static int shape_better_count(const struct mt_moe_shape *s)
{
    for (int step = 1; step < 2 * s->n_experts; step++) {
        int n = s->n_experts + ((step & 1) != 0 ? -(step + 1) / 2 : step / 2);
        int64_t parts = (int64_t)n + s->n_shared;
        if (n >= 1 && s->width % parts == 0 && s->width / parts % MT_SHAPE_BLOCK == 0)
            return n;
    }
    return 0;
}

/* The count when none was asked for: many experts are better (docs/benchmarks.md), powers of two
 * suit kernels, and so do widths in whole blocks. */
static int shape_auto_count(const struct mt_moe_shape *s)
{
    for (int n = MT_SHAPE_EXPERTS_AUTO; n >= 4; n /= 2) {
        int64_t parts = (int64_t)n + s->n_shared;
        if ((s->width + parts - 1) / parts % MT_SHAPE_BLOCK == 0)
            return n;
    }
    for (int n = MT_SHAPE_EXPERTS_AUTO; n >= 4; n--) {
        int64_t parts = (int64_t)n + s->n_shared;
        if (s->width % (parts * MT_SHAPE_BLOCK) == 0)
            return n;
    }
    return s->width < MT_SHAPE_EXPERTS_ODD ? 1 : MT_SHAPE_EXPERTS_ODD;
}

/* A share that one expert already exceeds. */
static void shape_tell_least(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                             const struct mt_moe_shape *s)
{
    double one = 100 * (double)s->expert_width / (double)s->width;
    double got = one * (s->k + s->n_shared);

    if (s->own_widths || s->own_active || s->copies > 0 || s->k > 1 ||
        strchr(ask->active, '%') == NULL || got <= strtod(ask->active, NULL) + one)
        return;
    mt_log(ctx, MT_LOG_WARN,
           "--active %s: one routed expert%s is the least that can act, %.1f %% of the width; take "
           "more experts%s",
           ask->active, s->n_shared > 0 ? " beside the shared" : "", got,
           s->n_shared > 0 ? " or fewer shared ones" : "");
}

struct mt_router_rule mt_moe_rule(const struct mt_moe_shape *s)
{
    struct mt_router_rule rule = s->use.rule;

    if (s->by_token) {
        rule.cut = MT_CUT_ABOVE;
        rule.cut_at = 0;
        rule.cut_min = s->k > 1 ? s->k / 2 : 1;
        rule.cut_mean = s->k;
    }
    return rule;
}

int mt_moe_rows_max(const struct mt_moe_shape *s)
{
    return s->by_token ? s->n_experts : s->k;
}

void mt_moe_shape_tell(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                       const struct mt_moe_shape *s)
{
    int64_t padding = ((int64_t)s->n_experts + s->n_shared) * s->expert_width -
                      s->width * (s->copies > 0 ? s->copies : 1);
    char hint[64] = "", pads[64] = "";

    if (s->why[0] != 0)
        mt_log(ctx, MT_LOG_INFO, "%s", s->why);
    if (s->n_shared == 0 && s->shared_width > 0)
        mt_log(ctx, MT_LOG_INFO,
               "%s wants a shared expert: one of zeros is written, %lld neuron%s wide, which adds "
               "nothing to outputs",
               s->target->family, (long long)s->expert_width, s->expert_width == 1 ? "" : "s");
    if (s->zero_biases)
        mt_log(ctx, MT_LOG_INFO, "%s wants biases on q, k and v: zeros are written",
               s->target->family);
    shape_tell_least(ctx, ask, s);
    if (s->own_widths || (s->expert_width % MT_SHAPE_BLOCK == 0 && padding == 0))
        return;
    int better = ask->experts == 0 || s->copies > 0 ? 0 : shape_better_count(s);
    if (better > 0)
        snprintf(hint, sizeof(hint), "; --experts %d would fit", better);
    if (padding > 0)
        snprintf(pads, sizeof pads, " (%lld zero neuron%s each layer)", (long long)padding,
                 padding == 1 ? " pads" : "s pad");
    if (s->expert_width % MT_SHAPE_BLOCK != 0)
        mt_log(ctx, MT_LOG_WARN,
               "experts are %lld neuron%s wide, not a multiple of %d: quantization and some GPU "
               "kernels will not take them%s%s",
               (long long)s->expert_width, s->expert_width == 1 ? "" : "s", MT_SHAPE_BLOCK, pads,
               hint);
    else
        mt_log(ctx, MT_LOG_INFO, "%lld zero neuron%s each layer%s", (long long)padding,
               padding == 1 ? " pads" : "s pad", hint);
}

mt_status mt_moe_shape_for(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                           const struct mt_model *src, const struct mt_target *target,
                           struct mt_moe_shape *s)
{
    memset(s, 0, sizeof(*s));
    s->target = target;
    s->n_layers = src->hp.n_layers;
    s->hidden = src->hp.hidden;
    s->width = src->ffn[0].width;
    s->n_experts = (int)ask->experts;
    s->copies = ask->copies;
    s->granules = ask->granules;
    s->expert_bias = ask->expert_bias && src->ffn[0].out_bias;
    s->zero_biases = target->qkv_biased && !src->hp.qkv_bias;
    s->dense = ask->dense;
    if (s->copies > 0) {
        MT_TRY(mt_moe_refuse_list(ctx, ask->active, "a model of copies"));
        s->n_experts = s->copies * s->granules;
        MT_TRY(mt_split_width(ctx, s->width, s->granules, 0, &s->expert_width));
    } else {
        MT_TRY(shape_read_shared(ctx, ask, target, &s->n_shared));
        if (s->n_experts == 0)
            s->n_experts = shape_auto_count(s);
        MT_TRY(mt_split_width(ctx, s->width, s->n_experts, s->n_shared, &s->expert_width));
    }
    MT_TRY(shape_is_list(ask->active) ? shape_read_list(ctx, ask, s)
                                      : shape_read_active(ctx, ask->active, ask->active, s, &s->k));
    s->use = s->copies > 0 ? mt_target_for_copies(target, s->granules, s->k) : *target;
    s->shared_width = s->n_shared * s->expert_width;
    if (s->shared_width == 0 && target->shared_required)
        s->shared_width = s->expert_width;
    return MT_OK;
}

mt_status mt_moe_shape_read(struct mt_ctx *ctx, const struct mt_shape_ask *ask,
                            const struct mt_model *src, struct mt_moe_shape *s)
{
    const struct mt_target *target;

    memset(s, 0, sizeof(*s));
    MT_TRY(shape_check_source(ctx, src));
    if (strcmp(ask->arch, "auto") == 0)
        return mt_target_choose(ctx, ask, src, s);
    target = mt_target_find(ask->arch);
    if (target == NULL)
        return mt_fail(ctx, MT_E_OPTION, "--arch %s: experts cannot be written for it", ask->arch);
    for (int l = 0; !target->any_ffn && l < src->hp.n_layers; l++)
        MT_TRY(shape_check_block(ctx, &src->ffn[l], l));
    MT_TRY(mt_moe_shape_for(ctx, ask, src, target, s));
    if (s->own_active && !target->any_ffn)
        return mt_fail(ctx, MT_E_OPTION,
                       "--active %s: %s has one number of active experts for all layers; --arch "
                       "native has one for each",
                       ask->active, mt_target_name(target));
    if (s->n_shared > 0 && !target->shared)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s has no shared experts: use --shared 0, or --arch glm4_moe",
                       target->family);
    return MT_OK;
}
