#include "passes/lib/moe_plan.h"

#include "lib/base/mem.h"

/* The part of a matrix or of a bias that an expert gets; none where the source has none. */
static mt_status plan_part(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *from,
                           int expert, int rank, const int64_t *shape)
{
    struct mt_role role;
    struct mt_tensor *t;

    if (from == NULL)
        return MT_OK;
    role = from->role;
    role.expert = expert;
    return mt_model_add(ctx, m, role, from->dtype, rank, shape, &t);
}

static mt_status plan_expert(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                             const struct mt_dense_ffn *f, struct mt_model *m, int expert,
                             int64_t width)
{
    const int64_t in[2] = {width, s->hidden}, out[2] = {s->hidden, width};

    MT_TRY(plan_part(ctx, m, f->gate, expert, 2, in));
    MT_TRY(plan_part(ctx, m, f->gate_bias, expert, 1, in));
    MT_TRY(plan_part(ctx, m, f->up, expert, 2, in));
    MT_TRY(plan_part(ctx, m, f->up_bias, expert, 1, in));
    if (s->expert_bias)
        MT_TRY(plan_part(ctx, m, f->down_bias, expert, 1, out));
    return plan_part(ctx, m, f->down, expert, 2, out);
}

static void plan_unlist(struct mt_model *m, struct mt_tensor *t)
{
    if (t != NULL)
        mt_model_remove(m, t);
}

/* They add nothing, and are part of the attention from the start. */
static mt_status plan_zero_biases(struct mt_ctx *ctx, struct mt_model *m, int layer)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_ATTN_Q, MT_ROLE_ATTN_K, MT_ROLE_ATTN_V};
    struct mt_tensor *w, *t;

    for (int i = 0; i < 3; i++) {
        struct mt_role role = mt_role(kinds[i], layer, MT_EXPERT_NONE);
        MT_TRY(mt_model_need(ctx, m, role, &w));
        role.part = MT_PART_BIAS;
        MT_TRY(mt_model_add(ctx, m, role, w->dtype, 1, w->shape, &t));
        MT_TRY(mt_recipe_fill(ctx, m, t, 0));
    }
    m->hp.qkv_bias = true;
    return MT_OK;
}

mt_status mt_moe_plan_dense(struct mt_ctx *ctx, const struct mt_moe_shape *s, struct mt_model *m,
                            int layer)
{
    return s->zero_biases ? plan_zero_biases(ctx, m, layer) : MT_OK;
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
    if (s->use.rule.has_bias)
        MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_ROUTER_BIAS, layer, MT_EXPERT_NONE), MT_F32, 1,
                            router, &t));
    for (int e = 0; e < s->n_experts; e++)
        MT_TRY(plan_expert(ctx, s, f, m, e, s->expert_width));
    if (s->shared_width > 0)
        MT_TRY(plan_expert(ctx, s, f, m, MT_EXPERT_SHARED, s->shared_width));
    /* F16 has nothing as small as the gate's values. */
    if (s->shared_width > 0 && to->shared_gated)
        MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_SHARED_GATE, layer, MT_EXPERT_NONE), MT_F32, 2,
                            gate, &t));
    plan_unlist(m, f->gate);
    plan_unlist(m, f->gate_bias);
    plan_unlist(m, f->up);
    plan_unlist(m, f->up_bias);
    plan_unlist(m, f->down);
    if (s->expert_bias)
        plan_unlist(m, f->down_bias);
    if (s->zero_biases)
        MT_TRY(plan_zero_biases(ctx, m, layer));
    ffn->moe = true;
    /* It belongs to the layer and stays where it is: parts would add it as often as they act. */
    ffn->layer_bias = ffn->out_bias && !s->expert_bias;
    ffn->out_bias = ffn->out_bias && s->expert_bias;
    ffn->width = s->expert_width;
    ffn->n_experts = s->n_experts;
    ffn->k = mt_moe_rows_max(s);
    ffn->shared_width = s->shared_width;
    ffn->shared_gated = s->shared_width > 0 && to->shared_gated;
    ffn->rule = mt_moe_rule(s);
    return MT_OK;
}

/* Rows of a matrix or elements of a bias. */
static mt_status plan_gather(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *from,
                             int expert, const int32_t *idx, int64_t n)
{
    struct mt_role role;
    struct mt_tensor *t;

    if (from == NULL)
        return MT_OK;
    role = from->role;
    role.expert = expert;
    MT_TRY(mt_model_need(ctx, m, role, &t));
    if (role.part == MT_PART_BIAS)
        return mt_recipe_gather_cols(ctx, m, t, from, idx, n, 1);
    return mt_recipe_gather_rows(ctx, m, t, from, idx, n, 1);
}

mt_status mt_moe_set_inner(struct mt_ctx *ctx, const struct mt_dense_ffn *f, struct mt_model *m,
                           int expert, const int32_t *idx, int64_t n)
{
    MT_TRY(plan_gather(ctx, m, f->gate, expert, idx, n));
    MT_TRY(plan_gather(ctx, m, f->gate_bias, expert, idx, n));
    MT_TRY(plan_gather(ctx, m, f->up, expert, idx, n));
    return plan_gather(ctx, m, f->up_bias, expert, idx, n);
}

mt_status mt_moe_set_bias(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                          const struct mt_dense_ffn *f, struct mt_model *m, int expert)
{
    struct mt_role role;
    struct mt_tensor *t;
    int32_t *all;

    if (!s->expert_bias || f->down_bias == NULL)
        return MT_OK;
    role = f->down_bias->role;
    role.expert = expert;
    MT_TRY(mt_model_need(ctx, m, role, &t));
    MT_TRY(mt_alloc(ctx, (size_t)s->hidden, sizeof(*all), "output bias", &all));
    for (int64_t i = 0; i < s->hidden; i++)
        all[i] = (int32_t)i;
    mt_status st =
        mt_recipe_gather_cols(ctx, m, t, f->down_bias, all, s->hidden, 1.0F / (float)s->granules);
    mt_free(all);
    return st;
}

mt_status mt_moe_set_expert(struct mt_ctx *ctx, const struct mt_moe_shape *s,
                            const struct mt_dense_ffn *f, struct mt_model *m, int layer, int expert,
                            const int32_t *idx, int64_t n)
{
    double scale = expert == MT_EXPERT_SHARED ? mt_target_shared_alpha(&s->use)
                                              : mt_target_alpha(&s->use, s->n_experts, s->k);
    struct mt_tensor *down;

    MT_TRY(mt_moe_set_inner(ctx, f, m, expert, idx, n));
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_DOWN, layer, expert), &down));
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

    if (s->use.rule.has_bias)
        MT_TRY(plan_fill(ctx, m, mt_role(MT_ROLE_ROUTER_BIAS, layer, MT_EXPERT_NONE), 0));
    if (s->shared_width > 0 && s->target->shared_gated)
        MT_TRY(plan_fill(ctx, m, mt_role(MT_ROLE_SHARED_GATE, layer, MT_EXPERT_NONE),
                         MT_SHARED_GATE_VALUE));
    for (int i = 0; i < 3 && s->n_shared == 0 && s->shared_width > 0; i++)
        MT_TRY(plan_fill(ctx, m, mt_role(kinds[i], layer, MT_EXPERT_SHARED), 0));
    return MT_OK;
}
