#include "passes/convert/copies.h"

#include "lib/base/mem.h"
#include "passes/convert/divide.h"
#include "passes/lib/partition.h"
#include "passes/lib/siblings.h"

#include <stdio.h>
#include <string.h>

#define COPIES_AUTO 8

/* Models that become experts. */
static int copies_models(const struct mt_convert_opts *o, const struct mt_model *src)
{
    return src->n_siblings + !o->without_base;
}

const char *mt_convert_copy_name(const struct mt_model *src, const struct mt_convert_opts *o, int c)
{
    int i = c - !o->without_base;

    return i < 0 ? "base" : src->siblings[i].name;
}

mt_status mt_convert_copy_ffn(struct mt_ctx *ctx, const struct mt_convert_at *at, int c,
                              struct mt_dense_ffn *own, const struct mt_dense_ffn **out)
{
    int i = c - !at->o->without_base;

    *out = at->dense;
    if (at->src->n_siblings == 0 || i < 0)
        return MT_OK;
    *out = own;
    return mt_dense_ffn_find(ctx, at->src->siblings[i].m, at->layer, own);
}

static mt_status copies_of_models(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                  const struct mt_model *src, struct mt_shape_ask *ask)
{
    int n = copies_models(o, src);

    MT_TRY(mt_siblings_check(ctx, src, o->attention == 0));
    if ((o->copies > 0 && o->copies != n) ||
        (o->experts > 0 && o->experts != (int64_t)n * ask->granules))
        return mt_fail(ctx, MT_E_OPTION,
                       "%s %lld: every model is one copy, which makes %d here: leave it out",
                       o->copies > 0 ? "--copies" : "--experts",
                       (long long)(o->copies > 0 ? o->copies : o->experts), n);
    ask->copies = n;
    ask->expert_bias = true;
    return MT_OK;
}

static mt_status copies_count(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                              struct mt_shape_ask *ask)
{
    int64_t g = ask->granules;

    if (o->experts > 0 && (o->experts % g != 0 || (o->copies > 0 && o->experts / g != o->copies)))
        return mt_fail(ctx, MT_E_OPTION,
                       "--experts %lld: copies times granularity, which is %lld here, makes the "
                       "number of experts: leave --experts out",
                       (long long)o->experts, (long long)(o->copies > 0 ? o->copies * g : g));
    ask->copies = (int)(o->copies > 0 ? o->copies : o->experts > 0 ? o->experts / g : COPIES_AUTO);
    if (ask->copies * g > MT_SHAPE_EXPERTS_MAX)
        return mt_fail(ctx, MT_E_OPTION, "--copies %d of %lld slices make more than %d experts",
                       ask->copies, (long long)g, MT_SHAPE_EXPERTS_MAX);
    return MT_OK;
}

/* Parts of a conversion that have nothing to do here, or would undo it. */
static mt_status copies_refuse(struct mt_ctx *ctx, const struct mt_convert_opts *o, int64_t g)
{
    const char *router = mt_convert_router_names[o->router];
    bool ties = o->router == 0 || strcmp(router, "tied") == 0 || strcmp(router, "zero") == 0 ||
                strcmp(router, "domain") == 0;

    if (strcmp(o->shared, "auto") != 0 && strcmp(o->shared, "0") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--shared %s: every expert is a copy or a slice of one, and none is shared",
                       o->shared);
    if (g > 1 && !ties)
        return mt_fail(
            ctx, MT_E_OPTION,
            "--router %s: the slices of a copy must have one row, or copies would not be "
            "chosen as a whole; leave it out, or use --granularity 1",
            router);
    if (o->router > 0 && mt_convert_routers[o->router]->norms)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router %s learns which experts contribute most, and copies contribute "
                       "alike: leave it out",
                       router);
    if (o->refit > 0 && strcmp(mt_convert_refit_names[o->refit], "none") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--refit %s: whole copies act, so there is nothing to make good for",
                       mt_convert_refit_names[o->refit]);
    if (o->scale == MT_CONVERT_SCALE_SHARE)
        return mt_fail(ctx, MT_E_OPTION,
                       "--expert-scale E/k: outputs of copies are those of the source as they are");
    return MT_OK;
}

/* Ways to cut a copy that tell nothing about it, or differ between models. */
static mt_status copies_check_partition(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                        const struct mt_model *src)
{
    if (mt_divider_asked(o) != NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "--partition %s looks for neurons that act together, and slices of a copy "
                       "always do: use contiguous, random or cluster",
                       mt_divider_asked(o)->name);
    if (src->n_siblings > 0 && o->partition - 1 > MT_PARTITION_RANDOM)
        return mt_fail(ctx, MT_E_OPTION,
                       "--partition cluster: neurons of several models are cut by one list; use "
                       "contiguous or random");
    return MT_OK;
}

mt_status copies_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                       const struct mt_model *src, int64_t granules, int64_t active,
                       struct mt_moe_shape *shape)
{
    struct mt_shape_ask ask = mt_convert_ask(o);
    char text[24];

    MT_TRY(copies_refuse(ctx, o, granules));
    MT_TRY(copies_check_partition(ctx, o, src));
    ask.granules = (int)granules;
    ask.expert_bias = o->out_bias == 1;
    MT_TRY(src->n_siblings > 0 ? copies_of_models(ctx, o, src, &ask) : copies_count(ctx, o, &ask));
    int64_t n = (active < ask.copies ? active : ask.copies) * granules;
    /* A share of the width says nothing here: what acts is whole copies. */
    if (strcmp(o->active, "auto") == 0) {
        snprintf(text, sizeof text, "%lld", (long long)n);
        ask.active = text;
    } else if (strchr(o->active, '%') != NULL) {
        return mt_fail(ctx, MT_E_OPTION,
                       "--active %s: whole copies act; give a number of experts, %lld or more",
                       o->active, (long long)granules);
    }
    MT_TRY(mt_moe_shape_read(ctx, &ask, src, shape));
    if (shape->k % granules != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--active %d: %lld slices make a copy, so it must be a multiple of that",
                       shape->k, (long long)granules);
    return MT_OK;
}

uint64_t copies_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width,
             g = (uint64_t)at->shape->granules;

    return at->o->partition - 1 >= MT_PARTITION_CLUSTER
               ? w * d * 12 + w * g * 52 + g * d * 8 + w * 8
               : w * 16;
}

mt_status copies_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                        struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    const struct mt_neuron_sums none = {0};
    struct mt_split *one;

    (void)state;
    MT_TRY(mt_partition_ffn(ctx,
                            at->o->partition > 0 ? (enum mt_partition_how)(at->o->partition - 1)
                                                 : MT_PARTITION_CONTIGUOUS,
                            at->dense, &none, p->granules, 0, (uint64_t)at->layer, &one));
    mt_status st = mt_split_repeat(ctx, one, p->copies, &out->split);
    mt_split_free(one);
    return st;
}
