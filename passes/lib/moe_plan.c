#include "passes/lib/moe_plan.h"

static mt_status plan_expert(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                             const struct mt_dense_ffn *f, struct mt_model *m, int layer,
                             int expert, int64_t width)
{
    const int64_t in[2] = {width, s->hidden}, out[2] = {s->hidden, width};
    struct mt_tensor *t;

    MT_TRY(
        mt_model_add(ctx, m, mt_role(MT_ROLE_FFN_GATE, layer, expert), f->gate->dtype, 2, in, &t));
    MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_FFN_UP, layer, expert), f->up->dtype, 2, in, &t));
    return mt_model_add(ctx, m, mt_role(MT_ROLE_FFN_DOWN, layer, expert), f->down->dtype, 2, out,
                        &t);
}

mt_status mt_moe_plan_layer(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                            const struct mt_dense_ffn *f, struct mt_model *m, int layer)
{
    const int64_t router[2] = {s->n_experts, s->hidden}, gate[2] = {1, s->hidden};
    const struct mt_target *to = s->target;
    struct mt_ffn *ffn = &m->ffn[layer];
    struct mt_tensor *t;

    MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_ROUTER, layer, MT_EXPERT_NONE), MT_F32, 2, router,
                        &t));
    if (to->rule.has_bias)
        MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_ROUTER_BIAS, layer, MT_EXPERT_NONE), MT_F32, 1,
                            router, &t));
    for (int e = 0; e < s->n_experts; e++)
        MT_TRY(plan_expert(ctx, s, f, m, layer, e, s->expert_width));
    if (s->shared_width > 0)
        MT_TRY(plan_expert(ctx, s, f, m, layer, MT_EXPERT_SHARED, s->shared_width));
    /* F16 has nothing as small as the gate's values. */
    if (s->shared_width > 0 && to->shared_gated)
        MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_SHARED_GATE, layer, MT_EXPERT_NONE), MT_F32, 2,
                            gate, &t));
    mt_model_remove(m, f->gate);
    mt_model_remove(m, f->up);
    mt_model_remove(m, f->down);
    ffn->moe = true;
    ffn->width = s->expert_width;
    ffn->n_experts = s->n_experts;
    ffn->k = s->k;
    ffn->shared_width = s->shared_width;
    ffn->shared_gated = s->shared_width > 0 && to->shared_gated;
    ffn->rule = to->rule;
    return MT_OK;
}

mt_status mt_moe_set_expert(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                            const struct mt_dense_ffn *f, struct mt_model *m, int layer, int expert,
                            const int32_t *idx, int64_t n)
{
    double scale = expert == MT_EXPERT_SHARED ? mt_target_shared_alpha(s->target)
                                              : mt_target_alpha(s->target, s->n_experts, s->k);
    struct mt_tensor *gate, *up, *down;

    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_GATE, layer, expert), &gate));
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_UP, layer, expert), &up));
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_DOWN, layer, expert), &down));
    MT_TRY(mt_recipe_gather_rows(ctx, m, gate, f->gate, idx, n, 1));
    MT_TRY(mt_recipe_gather_rows(ctx, m, up, f->up, idx, n, 1));
    return mt_recipe_gather_cols(ctx, m, down, f->down, idx, n, (float)scale);
}

static mt_status plan_fill(struct mt_ctx *ctx, struct mt_model *m, struct mt_role role, float value)
{
    struct mt_tensor *t;

    MT_TRY(mt_model_need(ctx, m, role, &t));
    return mt_recipe_fill(ctx, m, t, value);
}

mt_status mt_moe_set_constants(struct mt_ctx *ctx, const struct mt_moe_shape *s, struct mt_model *m,
                               int layer)
{
    const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};

    if (s->target->rule.has_bias)
        MT_TRY(plan_fill(ctx, m, mt_role(MT_ROLE_ROUTER_BIAS, layer, MT_EXPERT_NONE), 0));
    if (s->shared_width > 0 && s->target->shared_gated)
        MT_TRY(plan_fill(ctx, m, mt_role(MT_ROLE_SHARED_GATE, layer, MT_EXPERT_NONE),
                         MT_SHARED_GATE_VALUE));
    for (int i = 0; i < 3 && s->n_shared == 0 && s->shared_width > 0; i++)
        MT_TRY(plan_fill(ctx, m, mt_role(kinds[i], layer, MT_EXPERT_SHARED), 0));
    return MT_OK;
}
