#include "lib/base/mem.h"
#include "passes/convert/convert.h"
#include "passes/lib/router_fit.h"

mt_status convert_make_form(struct mt_ctx *ctx, struct convert *s,
                            const struct mt_convert_router *maker)
{
    MT_TRY(mt_router_form_open(ctx, &s->form, false, s->shape.n_experts, s->shape.hidden,
                               &s->routing.form));
    return maker->make(ctx, &s->at, s->router_state, &s->routing);
}

struct mt_router_form convert_stored_form(const struct convert *s)
{
    if (s->routing.w == NULL)
        return s->routing.form;
    return (struct mt_router_form){
        .n = s->shape.n_experts, .d = s->shape.hidden, .w = s->routing.w};
}

/* The labels of the fit are the k largest of what it is shown, so a router's logits stand for the
 * contribution norms. */
mt_status convert_near_show(struct mt_ctx *ctx, struct convert *s, const struct mt_observation *ob)
{
    const struct mt_moe_shape *p = &s->shape;
    float *logits;

    if (!s->near_made) {
        MT_TRY(convert_make_form(ctx, s, s->router));
        s->near_made = true;
        MT_TRY(mt_router_fit_create(ctx, p->hidden, p->n_experts, p->k, MT_LABELS_MEMBERSHIP,
                                    &s->near_fit));
    }
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)p->n_experts * sizeof(*logits), "logits", &logits));
    mt_status st = mt_router_form_run(ctx, &s->routing.form, ob->m, ob->x, logits);
    if (st == MT_OK)
        st = mt_router_fit_add(ctx, s->near_fit, ob->m, ob->x, logits);
    mt_free(logits);
    return st;
}

mt_status convert_near_solve(struct mt_ctx *ctx, struct convert *s)
{
    if (s->near_fit == NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s holds linear routers only, and the one nearest to --router %s is fitted "
                       "to its choices: give calibration text with --data, or --arch native",
                       mt_target_name(s->shape.target), s->router->name);
    if (!mt_router_fit_finite(s->near_fit))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted");
    MT_TRY(mt_router_fit_solve(ctx, s->near_fit, MT_ROUTER_FIT_LAMBDA, s->routing.w));
    const struct mt_router_form linear = convert_stored_form(s);
    return mt_router_probe_agree(ctx, s->probe, &s->routing.form, &linear,
                                 &s->numbers[s->at.layer].near);
}
