/* convert_setup.c
 * What options and source make of a conversion before any layer is looked at: the target and its
 * shape, dense layers, whether a threshold is set, which parts there are.
 */
#include "lib/base/mem.h"
#include "lib/flow/profile.h"
#include "passes/convert/convert.h"
#include "passes/lib/layer_list.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mt_status setup_read_flatten(struct mt_ctx *ctx, struct convert *s)
{
    char *end;

    s->flatten = -1;
    if (strcmp(s->o.flatten, "auto") == 0)
        return MT_OK;
    s->flatten = strtol(s->o.flatten, &end, 10);
    if (end == s->o.flatten || *end != '\0' || s->flatten < 0 || s->flatten > CONVERT_FLATTEN_MAX)
        return mt_fail(ctx, MT_E_OPTION, "--flatten %s: expected auto or a number from 0 to %d",
                       s->o.flatten, CONVERT_FLATTEN_MAX);
    return MT_OK;
}

/* Layers that stay dense: o.dense, which the shape's arch and its layers follow. */
static mt_status setup_read_dense(struct mt_ctx *ctx, struct convert *s, const struct mt_model *src)
{
    mt_free(s->dense_layers);
    s->dense_layers = NULL;
    s->o.dense = NULL;
    s->n_dense = 0;
    if (strcmp(s->o.dense_layers, "none") == 0 || src->hp.n_layers == 0)
        return MT_OK;
    if (src->n_siblings > 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--dense-layers with --from: a dense layer would be that of one model");
    MT_TRY(mt_alloc(ctx, (size_t)src->hp.n_layers, sizeof(bool), "layers", &s->dense_layers));
    MT_TRY(mt_layer_list_read(ctx, "dense-layers", s->o.dense_layers, src->hp.n_layers,
                              s->dense_layers, &s->n_dense));
    if (s->n_dense == src->hp.n_layers)
        return mt_fail(ctx, MT_E_OPTION, "--dense-layers %s: no layer is left to convert",
                       s->o.dense_layers);
    s->o.dense = s->dense_layers;
    return MT_OK;
}

bool convert_stays_dense(const struct convert *s, int layer)
{
    return s->dense_layers != NULL && s->dense_layers[layer];
}

int convert_part_rounds(int (*rounds)(const struct mt_convert_at *), const struct mt_convert_at *at)
{
    return rounds != NULL ? rounds(at) : 0;
}

static bool setup_knows(const struct mt_profile *p, const char *domain)
{
    for (int i = 0; i < mt_profile_n_domains(p); i++)
        if (strcmp(mt_profile_domain(p, i), domain) == 0)
            return true;
    return false;
}

/* Whether each of several models has text of its own. */
static bool setup_has_domains(const struct convert *s)
{
    const struct mt_model *src = s->at.src;
    bool all = src->profile != NULL && src->n_siblings > 0;

    for (int c = 0; all && c < s->shape.copies; c++)
        all = setup_knows(src->profile, mt_convert_copy_name(src, &s->o, c));
    return all;
}

/* The parts, and how often each wants to see a layer. With all experts acting there is nothing to
 * choose and nothing to make good for. */
static void setup_choose_parts(struct convert *s)
{
    bool all = s->shape.k >= s->shape.n_experts;
    int router = s->o.router, refit = s->o.refit;

    if (router == 0)
        router = mt_convert_name_find(mt_convert_router_names, setup_has_domains(s) ? "domain"
                                                               : all                ? "zero"
                                                                     : s->method->router);
    if (refit == 0)
        refit = mt_convert_name_find(mt_convert_refit_names, all ? "none" : s->method->refit);
    mt_assert(router > 0 && refit > 0);
    s->router = mt_convert_routers[router];
    s->refit = mt_convert_refits[refit];
    s->has_form = s->router->form != NULL;
    if (s->has_form) {
        s->form = (struct mt_router){0};
        s->router->form(&s->at, &s->form);
    }
    s->near = s->has_form && strcmp(mt_target_name(s->shape.target), "native") != 0;
    s->rounds[CONVERT_METHOD] = convert_part_rounds(s->method->rounds, &s->at);
    s->rounds[CONVERT_ROUTER] = convert_part_rounds(s->router->rounds, &s->at);
    s->rounds[CONVERT_REFIT] = convert_part_rounds(s->refit->rounds, &s->at);
    s->rounds[CONVERT_ROUTER] += s->near;
    /* Contribution norms also judge a router that was not fitted to them. */
    if (!all && s->rounds[CONVERT_ROUTER] == 0)
        s->rounds[CONVERT_ROUTER] = 1;
}

/* Nothing but the native layout holds a router that is not linear, or a threshold. */
static bool setup_aim_at_form(struct convert *s)
{
    int router = s->o.router;

    if (router == 0)
        router = mt_convert_name_find(mt_convert_router_names, s->method->router);
    /* A format without a place for that layout may have one for the nearest linear router. */
    bool form = mt_convert_routers[router]->form != NULL && s->o.format == NULL;
    if (s->o.arch != 0 || (!form && s->o.dynamic_k != MT_SWITCH_ON))
        return false;
    s->o.arch = mt_convert_name_find(mt_convert_arch_names, "native");
    s->aimed = true;
    return true;
}

/* Whether a threshold says how many experts act. Unasked where it is known to be closer. */
static mt_status setup_set_by_token(struct mt_ctx *ctx, struct convert *s)
{
    struct mt_moe_shape *p = &s->shape;
    bool asked = s->o.dynamic_k == MT_SWITCH_ON;
    bool fixed = p->use.rule.score != MT_SCORE_LOGIT || !p->use.rule.unit;

    p->by_token = false;
    if (s->o.dynamic_k == MT_SWITCH_OFF || p->k >= p->n_experts)
        return MT_OK;
    if (!asked) {
        p->by_token = s->o.text && strcmp(s->method->name, "best") == 0 && p->copies == 0 && !fixed;
        return MT_OK;
    }
    if (p->copies > 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--dynamic-k: experts that are copies act in a fixed number");
    if (fixed)
        return mt_fail(ctx, MT_E_OPTION,
                       "--dynamic-k: %s gives every token the same number of experts; --arch "
                       "native does not",
                       mt_target_name(p->target));
    p->by_token = true;
    return MT_OK;
}

mt_status convert_setup(struct mt_ctx *ctx, struct convert *s, const struct mt_model *src)
{
    struct mt_moe_shape *p = &s->shape;

    s->at = (struct mt_convert_at){.o = &s->o, .src = src, .shape = p};
    s->method = mt_convert_method_asked(&s->o);
    int labels = s->o.dynamic_k == MT_SWITCH_ON ? MT_LABELS_SOFT : s->method->labels;
    s->at.labels = (enum mt_router_labels)(s->o.labels > 0 ? s->o.labels - 1 : labels);
    if (src->n_siblings > 0 && strcmp(s->method->name, "upcycle") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--from: only --method upcycle makes experts of several models");
    if (s->o.without_base && src->n_siblings == 0)
        return mt_fail(ctx, MT_E_OPTION, "--without-base needs --from: models to be experts");
    bool form = setup_aim_at_form(s);
    MT_TRY(setup_read_dense(ctx, s, src));
    const struct mt_shape_ask ask = mt_convert_ask(&s->o);
    MT_TRY(setup_read_flatten(ctx, s));
    MT_TRY(s->method->shape != NULL ? s->method->shape(ctx, &s->o, src, p)
                                    : mt_moe_shape_read(ctx, &ask, src, p));
    MT_TRY(setup_set_by_token(ctx, s));
    s->norm_offset = src->hp.norm_offset;
    setup_choose_parts(s);
    if (form && !s->has_form)
        snprintf(p->why, sizeof p->why,
                 "architecture native lets a threshold say how many experts act for a token");
    else if (form)
        snprintf(p->why, sizeof p->why,
                 "architecture native holds router %s, which is not linear; --arch takes another "
                 "with the nearest linear one",
                 s->router->name);
    /* Of copies any choice is as good. */
    if (strcmp(s->router->name, "zero") == 0 && p->k < p->n_experts && p->copies == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router zero chooses the same %d of %d experts for every token: use "
                       "ridge or centroid, or --active %d",
                       p->k, p->n_experts, p->n_experts);
    MT_TRY(mt_alloc0(ctx, (size_t)p->n_layers, sizeof(*s->dense), "layers", &s->dense));
    MT_TRY(mt_alloc0(ctx, (size_t)p->n_layers, sizeof(*s->acting), "layers", &s->acting));
    return mt_alloc0(ctx, (size_t)p->n_layers, sizeof(*s->numbers), "layers", &s->numbers);
}
