#include "lib/base/mem.h"
#include "passes/convert/convert.h"
#include "passes/lib/pick.h"
#include "passes/lib/router_fit.h"

#include <math.h>

/* --flatten auto: weights of chosen experts differ from 1 by less than this, whatever the text. */
#define ROUTE_WEIGHT_ERROR_MAX 0x1p-7

/* ---- norms ---- */

mt_status convert_show_router(struct mt_ctx *ctx, struct convert *s,
                              const struct mt_observation *ob)
{
    const struct mt_moe_shape *p = &s->here;
    struct mt_observation mine = *ob;
    float *norms;

    mine.round -= s->rounds[CONVERT_METHOD];
    if (s->probe == NULL)
        MT_TRY(mt_router_probe_create(ctx, p->hidden, p->n_experts, p->k, ob->n_tokens, &s->probe));
    if (s->norms == NULL)
        MT_TRY(
            mt_expert_norms_create(ctx, s->dense[s->at.layer].down, s->division.split, &s->norms));
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)p->n_experts * sizeof(*norms), "expert norms",
                    &norms));
    mt_status st = mt_expert_norms_run(ctx, s->norms, ob->m, ob->h, norms);
    if (st == MT_OK && mine.round == 0)
        mt_router_probe_add(s->probe, ob->m, ob->token0, ob->x, norms);
    if (st == MT_OK && s->near && mine.round == s->rounds[CONVERT_ROUTER] - 1)
        st = convert_near_show(ctx, s, &mine);
    else if (st == MT_OK && s->router->observe != NULL)
        st = s->router->observe(ctx, &s->at, s->router_state, &mine, norms);
    mt_free(norms);
    return st;
}

/* ---- flattening ---- */

/* The largest |logit| the router can give on any text; NaN where no norm bounds its input. */
static mt_status route_bound_logits(struct mt_ctx *ctx, const struct convert *s, double *l)
{
    struct mt_tensor *norm =
        mt_model_find(s->plan, mt_role(MT_ROLE_FFN_NORM, s->at.layer, MT_EXPERT_NONE));
    bool finite = true;
    float *gamma;

    *l = NAN;
    if (norm == NULL || mt_tensor_count(norm) != s->shape.hidden)
        return MT_OK;
    MT_TRY(mt_tensor_load_f32(ctx, norm, &gamma));
    for (int64_t i = 0; i < s->shape.hidden; i++) {
        gamma[i] += (float)s->norm_offset;
        finite = finite && isfinite(gamma[i]);
    }
    if (finite)
        *l = mt_router_logit_bound(s->routing.w, s->shape.n_experts, gamma, s->shape.hidden);
    mt_free(gamma);
    return MT_OK;
}

/* Scales the router, and says what is known about the weights the target's rule will give. */
static mt_status route_flatten(struct mt_ctx *ctx, struct convert *s, struct mt_layer_numbers *out)
{
    const struct mt_moe_shape *p = &s->here;
    /* Where weights sum to the same for any logits, logits say how copies are mixed. */
    bool sums = p->copies > 0 && mt_target_sums(&p->use);
    bool chosen = s->flatten < 0 && !s->routing.keep_scale && !sums;
    int shift = s->flatten >= 0 ? (int)s->flatten : 0;
    double l;

    MT_TRY(route_bound_logits(ctx, s, &l));
    if (chosen && isnan(l))
        shift = CONVERT_FLATTEN_MAX / 2;
    while (chosen && !isnan(l) && shift < CONVERT_FLATTEN_MAX &&
           mt_target_weight_bound(&p->use, p->n_experts, p->k, ldexp(l, -shift)) >
               ROUTE_WEIGHT_ERROR_MAX)
        shift++;
    for (int64_t i = 0; i < p->n_experts * p->hidden; i++)
        s->routing.w[i] = ldexpf(s->routing.w[i], -shift);
    /* The slope of a sigmoid at 0 is 1/4: there a bias of b / 4 orders experts as logits with
     * intercept b do. Beside logits it is the intercept itself. */
    for (int e = 0; s->routing.has_bias && e < p->n_experts; e++)
        s->routing.bias[e] =
            ldexpf(s->routing.bias[e], -shift - (p->use.rule.score == MT_SCORE_SIGMOID ? 2 : 0));
    out->flatten = shift;
    out->weight_bound = mt_target_weight_bound(&p->use, p->n_experts, p->k, ldexp(l, -shift));
    return MT_OK;
}

/* ---- a threshold ---- */

/* The experts' biases take up the threshold that leaves k of them on average. */
static mt_status route_set_threshold(struct mt_ctx *ctx, struct convert *s)
{
    const struct mt_router_form form = convert_stored_form(s);
    double at;

    if (s->probe == NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "--dynamic-k is set by text: give some with --data, or --hidden");
    MT_TRY(mt_router_probe_threshold(ctx, s->probe, &form,
                                     s->routing.has_bias ? s->routing.bias : NULL, s->here.k,
                                     mt_moe_rule(&s->here).cut_min, &at));
    s->routing.has_bias = true;
    for (int e = 0; e < s->shape.n_experts; e++)
        s->routing.bias[e] = (float)((double)s->routing.bias[e] - at);
    return MT_OK;
}

/* ---- making ---- */

static mt_status route_choose_maker(struct mt_ctx *ctx, struct convert *s,
                                    const struct mt_convert_router **maker)
{
    *maker = s->router;
    if (s->all_act) {
        *maker = mt_convert_routers[mt_convert_name_find(mt_convert_router_names, "zero")];
        return MT_OK;
    }
    if (!s->router->data || s->at.observed)
        return MT_OK;
    if (s->o.router == 0) {
        *maker = mt_convert_routers[mt_convert_name_find(mt_convert_router_names, "centroid")];
        return MT_OK;
    }
    return mt_fail(ctx, MT_E_OPTION,
                   "--router %s is fitted to activations: give calibration text with --data, or "
                   "use --router centroid",
                   s->router->name);
}

mt_status convert_make_router(struct mt_ctx *ctx, struct convert *s)
{
    struct mt_layer_numbers *out = &s->numbers[s->at.layer];
    const struct mt_convert_router *maker;
    size_t n = (size_t)s->shape.n_experts, d = (size_t)s->shape.hidden;

    MT_TRY(route_choose_maker(ctx, s, &maker));
    if (maker->form == NULL || s->near)
        MT_TRY(mt_alloc0(ctx, n, d * sizeof(float), "router", &s->routing.w));
    MT_TRY(mt_alloc0(ctx, n, sizeof(float), "router bias", &s->routing.bias));
    if (maker->form == NULL) {
        MT_TRY(maker->make(ctx, &s->at, s->router_state, &s->routing));
    } else if (!s->near_made) {
        MT_TRY(convert_make_form(ctx, s, maker));
    }
    if (maker->form != NULL && s->near) {
        MT_TRY(convert_near_solve(ctx, s));
    }
    out->router = mt_convert_name_find(mt_convert_router_names,
                                       s->routing.made != NULL ? s->routing.made : maker->name);
    if (out->facts == NULL) {
        out->facts = s->routing.facts;
        s->routing.facts = NULL;
    }
    s->routing.has_bias = s->routing.has_bias && s->shape.use.rule.has_bias;
    if (s->routing.w != NULL)
        MT_TRY(route_flatten(ctx, s, out));
    if (s->here.by_token)
        MT_TRY(route_set_threshold(ctx, s));
    s->at.router = s->routing.w;
    s->at.router_bias = s->routing.has_bias ? s->routing.bias : NULL;
    if (s->probe == NULL)
        return MT_OK;
    const struct mt_router_form form = convert_stored_form(s);
    struct mt_target use = s->here.use;
    use.rule = mt_moe_rule(&s->here);
    return mt_router_probe_measure(ctx, s->probe, &use, &form, s->at.router_bias, &out->fit);
}

mt_status convert_pick(struct mt_ctx *ctx, const struct convert *s, int64_t m, const float *x,
                       unsigned char *picked)
{
    const struct mt_router_rule rule = mt_moe_rule(&s->here);
    const struct mt_pick p = {.rule = &rule,
                              .n = s->shape.n_experts,
                              .k = mt_moe_rows_max(&s->here),
                              .bias = s->at.router_bias};
    const struct mt_router_form form = convert_stored_form(s);
    float *logits;

    MT_TRY(mt_alloc(ctx, (size_t)m, (size_t)p.n * sizeof(*logits), "logits", &logits));
    mt_status st = mt_router_form_run(ctx, &form, m, x, logits);
    if (st == MT_OK)
        st = mt_pick_experts(ctx, &p, m, logits, picked);
    mt_free(logits);
    return st;
}
