#include "passes/lib/attn_part.h"

#include "lib/base/mem.h"

struct part {
    const struct mt_model *src;
    struct mt_model *m;
    int32_t *list; /* numbers of rows or columns, a run */
};

static mt_status part_check(struct mt_ctx *ctx, const struct mt_model *src, int first, int n)
{
    const struct mt_hparams *hp = &src->hp;
    const char *why = NULL;

    if (hp->n_kv_heads < 1 || hp->n_heads % hp->n_kv_heads != 0)
        why = "its query heads are not divided evenly among its key-value heads";
    else if (hp->mla.kv_rank > 0)
        why = "its keys and values are made of one latent vector";
    else if (hp->qk_norm == MT_QK_NORM_FULL)
        why = "a norm goes over all heads";
    else if (hp->norm_sums)
        why = "a norm goes over the sum of all heads";
    for (int l = 0; l < hp->n_layers && why == NULL; l++)
        if (mt_model_find(src, mt_role(MT_ROLE_ATTN_POST_NORM, l, MT_EXPERT_NONE)) != NULL)
            why = "a norm goes over the sum of all heads";
    if (why != NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "attention of %s does not divide by heads: %s",
                       src->model_type != NULL ? src->model_type : "this model", why);
    if (first < 0 || n < 1 || n > hp->n_kv_heads - first)
        return mt_fail(ctx, MT_E_OPTION, "key-value heads %d to %d: there are %d", first,
                       first + n - 1, hp->n_kv_heads);
    return MT_OK;
}

/* `count` rows, or columns, of a record from `from` on; a record that is not there is left so. */
static mt_status part_cut(struct mt_ctx *ctx, struct part *p, struct mt_role role, bool cols,
                          int64_t from, int64_t count)
{
    struct mt_tensor *whole = mt_model_find(p->src, role), *t = mt_model_find(p->m, role);

    if (whole == NULL)
        return MT_OK;
    for (int64_t i = 0; i < count; i++)
        p->list[i] = (int32_t)(from + i);
    t->shape[cols ? t->rank - 1 : 0] = count;
    return cols ? mt_recipe_gather_cols(ctx, p->m, t, whole, p->list, count, 1)
                : mt_recipe_gather_rows(ctx, p->m, t, whole, p->list, count, 1);
}

/* A projection's rows and its bias's elements. */
static mt_status part_rows(struct mt_ctx *ctx, struct part *p, enum mt_role_kind kind, int layer,
                           int64_t from, int64_t count)
{
    struct mt_role role = mt_role(kind, layer, MT_EXPERT_NONE);

    MT_TRY(part_cut(ctx, p, role, false, from, count));
    role.part = MT_PART_BIAS;
    return part_cut(ctx, p, role, true, from, count);
}

static mt_status part_layer(struct mt_ctx *ctx, struct part *p, int layer, int first, int n)
{
    const struct mt_hparams *hp = &p->src->hp;
    int64_t queries = hp->n_heads / hp->n_kv_heads, d = hp->head_dim;
    struct mt_role out = mt_role(MT_ROLE_ATTN_O, layer, MT_EXPERT_NONE);

    MT_TRY(part_rows(ctx, p, MT_ROLE_ATTN_Q, layer, first * queries * d, n * queries * d));
    MT_TRY(part_rows(ctx, p, MT_ROLE_ATTN_K, layer, first * d, n * d));
    MT_TRY(part_rows(ctx, p, MT_ROLE_ATTN_V, layer, first * d, n * d));
    MT_TRY(part_cut(ctx, p, mt_role(MT_ROLE_ATTN_SINKS, layer, MT_EXPERT_NONE), true,
                    first * queries, n * queries));
    MT_TRY(part_cut(ctx, p, out, true, first * queries * d, n * queries * d));
    out.part = MT_PART_BIAS;
    struct mt_tensor *bias = mt_model_find(p->m, out);
    if (bias != NULL && first > 0)
        mt_model_remove(p->m, bias);
    return MT_OK;
}

mt_status mt_attn_part(struct mt_ctx *ctx, const struct mt_model *src, int first, int n,
                       struct mt_model **out)
{
    const struct mt_hparams *hp = &src->hp;
    struct part p = {.src = src};

    *out = NULL;
    MT_TRY(part_check(ctx, src, first, n));
    MT_TRY(mt_alloc(ctx, (size_t)hp->n_heads, (size_t)hp->head_dim * sizeof(*p.list), "heads",
                    &p.list));
    mt_status st = mt_model_plan(ctx, src, &p.m);
    for (int l = 0; st == MT_OK && l < hp->n_layers; l++)
        st = part_layer(ctx, &p, l, first, n);
    mt_free(p.list);
    if (st != MT_OK) {
        mt_model_free(p.m);
        return st;
    }
    p.m->hp.n_heads = hp->n_heads / hp->n_kv_heads * n;
    p.m->hp.n_kv_heads = n;
    p.m->hp.o_bias = hp->o_bias && first == 0;
    *out = p.m;
    return MT_OK;
}
