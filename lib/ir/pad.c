#include "lib/ir/pad.h"

#include "lib/ir/family.h"

#include <math.h>
#include <string.h>

/* Below the least live bias by this much, or by this share of it where fp32 would lose that. */
#define PAD_BELOW 2.0
#define PAD_SHARE 0x1p-20

static void pad_range(const struct mt_model *m, int *least, int *most)
{
    *least = *most = 0;
    for (int l = 0; l < m->hp.n_layers; l++) {
        int n = m->ffn[l].n_experts;
        if (!m->ffn[l].moe)
            continue;
        *most = n > *most ? n : *most;
        *least = *least == 0 || n < *least ? n : *least;
    }
}

bool mt_model_uneven(const struct mt_model *m)
{
    int least, most;

    pad_range(m, &least, &most);
    return least != most;
}

/* One row: live biases, then what keeps the dead ones out. */
static mt_status pad_eval_bias(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                               int64_t n, void *dst)
{
    const struct mt_tensor *live = t->src.recipe.in[0];
    int64_t have = mt_tensor_count(live), all = mt_tensor_count(t);
    float *to = dst, least;

    if (n == 0 || row != 0)
        return MT_OK;
    MT_TRY(mt_tensor_fetch_f32(ctx, live, 0, 1, to));
    least = to[0];
    for (int64_t e = 1; e < have; e++)
        least = fminf(least, to[e]);
    for (int64_t e = have; e < all; e++)
        to[e] = (float)((double)least - fmax(PAD_BELOW, fabs((double)least) * PAD_SHARE));
    return MT_OK;
}

static mt_status pad_bias(struct mt_ctx *ctx, struct mt_model *plan, int layer, int64_t total)
{
    struct mt_tensor *live, *t;

    MT_TRY(mt_model_need(ctx, plan, mt_role(MT_ROLE_ROUTER_BIAS, layer, MT_EXPERT_NONE), &live));
    mt_model_remove(plan, live);
    MT_TRY(mt_model_add(ctx, plan, live->role, MT_F32, 1, &total, &t));
    t->planner = live->planner;
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = pad_eval_bias;
    t->src.recipe.name = "pad-bias";
    t->src.recipe.in[0] = live;
    t->src.recipe.n_in = 1;
    return MT_OK;
}

static mt_status pad_router(struct mt_ctx *ctx, struct mt_model *plan, int layer, int64_t total)
{
    struct mt_tensor *live, *t;
    mt_status st;
    int32_t *idx;

    MT_TRY(mt_model_need(ctx, plan, mt_role(MT_ROLE_ROUTER, layer, MT_EXPERT_NONE), &live));
    const int64_t have = live->shape[0], shape[2] = {total, live->shape[1]};
    mt_model_remove(plan, live);
    MT_TRY(mt_model_add(ctx, plan, live->role, live->dtype, 2, shape, &t));
    t->planner = live->planner;
    MT_TRY(mt_alloc(ctx, (size_t)total, sizeof *idx, "list of experts", &idx));
    for (int64_t e = 0; e < total; e++)
        idx[e] = e < have ? (int32_t)e : -1;
    st = mt_recipe_gather_rows(ctx, plan, t, live, idx, total, 1);
    mt_free(idx);
    return st;
}

static mt_status pad_expert(struct mt_ctx *ctx, struct mt_model *plan, int layer, int expert)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    struct mt_tensor *like, *t;

    for (int i = plan->ffn[layer].gated ? 0 : 1; i < 3; i++) {
        MT_TRY(mt_model_need(ctx, plan, mt_role(kinds[i], layer, 0), &like));
        MT_TRY(mt_model_add(ctx, plan, mt_role(kinds[i], layer, expert), like->dtype, like->rank,
                            like->shape, &t));
        t->planner = like->planner;
        MT_TRY(mt_recipe_fill(ctx, plan, t, 0));
    }
    return MT_OK;
}

static mt_status pad_check(struct mt_ctx *ctx, const struct mt_model *m, int least, int total)
{
    const char *name = m->family != NULL ? m->family->name : "this model";

    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        if (!f->moe)
            continue;
        if (f->rule.score != MT_SCORE_SIGMOID || !f->rule.has_bias || f->in_bias || f->out_bias ||
            f->router_bias)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s cannot hold layers with %d to %d experts: without a sigmoid router "
                           "and its selection bias, experts that fill up a layer would take part; "
                           "keep as many in every layer, or write the native layout",
                           name, least, total);
        if (f->rule.n_group > 1)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s cannot hold layers with %d to %d experts in groups: filling up "
                           "layers would change the groups; keep as many in every layer",
                           name, least, total);
        if (f->k > least)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%d experts act for a token, but there is a layer that has only %d: "
                           "%s wants the same number in every layer; let fewer act, or keep more",
                           f->k, least, name);
    }
    return MT_OK;
}

mt_status mt_model_pad_experts(struct mt_ctx *ctx, struct mt_model *plan, int total)
{
    int least, most, *live;

    pad_range(plan, &least, &most);
    total = total > most ? total : most;
    if (least == total)
        return MT_OK;
    MT_TRY(pad_check(ctx, plan, least, total));
    MT_TRY(mt_arena_alloc(ctx, &plan->arena, (size_t)plan->hp.n_layers, sizeof *live, &live));
    for (int l = 0; l < plan->hp.n_layers; l++) {
        struct mt_ffn *f = &plan->ffn[l];
        live[l] = f->moe ? f->n_experts : 0;
        if (!f->moe || f->n_experts == total)
            continue;
        MT_TRY(pad_router(ctx, plan, l, total));
        MT_TRY(pad_bias(ctx, plan, l, total));
        for (int e = f->n_experts; e < total; e++)
            MT_TRY(pad_expert(ctx, plan, l, e));
        f->n_experts = total;
    }
    plan->live_experts = live;
    return MT_OK;
}
