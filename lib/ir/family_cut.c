/* Tensors that hold several roles: cut at binding into one record per role, slices of the same
 * bytes. */
#include "lib/ir/family.h"
#include "lib/ir/family_impl.h"

#include <inttypes.h>
#include <string.h>

/* Stacks of experts: [E, 2I, H] with gate rows first, and [E, H, I]. The block is called mlp here
 * even in families whose own names call it otherwise. */
static const struct mt_fused_row cut_stacks[] = {
    {"model.layers.%l.mlp.experts.gate_up_proj",
     MT_FUSED_STACK,
     MT_PART_WEIGHT,
     MT_NAME_ROUTED,
     {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP}},
    {"model.layers.%l.mlp.experts.down_proj",
     MT_FUSED_STACK,
     MT_PART_WEIGHT,
     MT_NAME_ROUTED,
     {MT_ROLE_FFN_DOWN}},
    {.pattern = NULL},
};

static int64_t cut_rows_of(const struct mt_model *m, enum mt_role_kind kind, int layer,
                           enum mt_name_expert expert)
{
    const struct mt_hparams *hp = &m->hp;
    const struct mt_ffn *f = &m->ffn[layer];

    switch (kind) {
    case MT_ROLE_ATTN_Q:
        return (int64_t)hp->n_heads * hp->head_dim;
    case MT_ROLE_ATTN_K:
    case MT_ROLE_ATTN_V:
        return (int64_t)hp->n_kv_heads * hp->head_dim;
    case MT_ROLE_FFN_GATE:
    case MT_ROLE_FFN_UP:
        return expert == MT_NAME_SHARED ? f->shared_width : f->width;
    default:
        return hp->hidden;
    }
}

/* What one record covers: dimensions of the whole tensor by meaning, in elements. */
struct cut_view {
    int64_t rows, cols; /* cols 0: a vector */
    int64_t row_stride, col_stride, stack_stride;
    int64_t experts;
};

static bool cut_view_of(const struct mt_fused_row *row, const struct mt_tensor *t,
                        struct cut_view *v)
{
    int stack = (row->flags & MT_FUSED_STACK) != 0, vector = row->part == MT_PART_BIAS;
    int first = stack + ((row->flags & MT_FUSED_TRANSPOSED) != 0 && !vector);
    const int64_t *stride = t->src.slice.stride;

    if (t->rank != stack + (vector ? 1 : 2) || t->src.kind != MT_SRC_SLICE ||
        !mt_dtype_pickable(t->dtype))
        return false;
    *v = (struct cut_view){.rows = t->shape[first], .row_stride = stride[first], .experts = 1};
    if (!vector) {
        int other = 2 * stack + 1 - first;
        v->cols = t->shape[other];
        v->col_stride = stride[other];
    }
    if (stack) {
        v->experts = t->shape[0];
        v->stack_stride = stride[0];
    }
    return true;
}

static mt_status cut_piece(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *t,
                           const struct cut_view *v, struct mt_role role, int64_t first,
                           int64_t step, int64_t rows)
{
    const int64_t shape[2] = {rows, v->cols};
    int64_t at = (role.expert >= 0 ? role.expert : 0) * v->stack_stride + first * v->row_stride;
    struct mt_tensor *one;

    MT_TRY(mt_model_add(ctx, m, role, t->dtype, v->cols > 0 ? 2 : 1, shape, &one));
    MT_TRY(mt_family_print(ctx, m->family, m, role, &one->name));
    one->src.kind = MT_SRC_SLICE;
    one->src.slice.map = t->src.slice.map;
    one->src.slice.offset = t->src.slice.offset + (uint64_t)at * (mt_dtype_bits(t->dtype) / 8);
    one->src.slice.stride[0] = v->row_stride * step;
    one->src.slice.stride[1] = v->col_stride;
    return MT_OK;
}

/* Rows of all kinds, one after the other or taking turns. */
static mt_status cut_rows(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *t,
                          const struct mt_fused_row *row, const struct cut_view *v,
                          struct mt_role role)
{
    bool turns = (row->flags & MT_FUSED_INTERLEAVED) != 0;
    int64_t at = 0;
    int n = 0;

    while (n < MT_FUSED_MAX && row->kinds[n] != MT_ROLE_OTHER)
        n++;
    for (int i = 0; i < n; i++) {
        int64_t rows = cut_rows_of(m, row->kinds[i], role.layer, row->expert);
        role.kind = row->kinds[i];
        MT_TRY(cut_piece(ctx, m, t, v, role, turns ? i : at, turns ? n : 1, rows));
        at += rows;
    }
    return MT_OK;
}

static bool cut_fits(const struct mt_model *m, const struct mt_fused_row *row,
                     const struct cut_view *v, int layer)
{
    const struct mt_ffn *f = &m->ffn[layer];
    int64_t sum = 0;

    for (int i = 0; i < MT_FUSED_MAX && row->kinds[i] != MT_ROLE_OTHER; i++)
        sum += cut_rows_of(m, row->kinds[i], layer, row->expert);
    if (row->expert == MT_NAME_ROUTED && (!f->moe || v->experts != f->n_experts))
        return false;
    return sum == v->rows;
}

static mt_status cut_whole(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                           const struct mt_fused_row *row, const struct cut_view *v,
                           struct mt_role role)
{
    size_t before = m->n_tensors;
    struct mt_cut *cut;

    if ((row->flags & MT_FUSED_STACK) == 0)
        MT_TRY(cut_rows(ctx, m, t, row, v, role));
    for (int64_t e = 0; (row->flags & MT_FUSED_STACK) != 0 && e < v->experts; e++) {
        role.expert = (int32_t)e;
        MT_TRY(cut_rows(ctx, m, t, row, v, role));
    }
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *cut, &cut));
    cut->whole = t;
    cut->n = m->n_tensors - before;
    MT_TRY(mt_arena_alloc(ctx, &m->arena, cut->n, sizeof(struct mt_tensor *), &cut->parts));
    memcpy(cut->parts, m->tensors + before, cut->n * sizeof(struct mt_tensor *));
    cut->next = m->cuts;
    m->cuts = cut;
    mt_model_remove(m, t);
    return MT_OK;
}

mt_status family_cut(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t, bool *cut)
{
    const struct mt_fused_row *const tables[] = {m->family->fused, cut_stacks};
    char buf[FAMILY_NAME_MAX];
    const char *inner = family_inner_name(m, t->name, buf);

    *cut = false;
    for (int i = 0; i < 2; i++) {
        for (const struct mt_fused_row *row = tables[i]; row != NULL && row->pattern != NULL;
             row++) {
            struct mt_name_row name = {row->pattern, row->kinds[0], row->part, row->expert};
            struct mt_role role;
            struct cut_view v;

            if (!family_match(&name, inner, &role))
                continue;
            if ((row->flags & MT_FUSED_MXFP4) != 0)
                return family_cut_mx(ctx, m, t, row, role, cut);
            if (role.layer < 0 || role.layer >= m->hp.n_layers || !cut_view_of(row, t, &v) ||
                !cut_fits(m, row, &v, role.layer) || (i == 1 && !m->family->moe))
                continue;
            MT_TRY(cut_whole(ctx, m, t, row, &v, role));
            m->cuts->by_choice = i == 1;
            *cut = true;
            return MT_OK;
        }
    }
    return MT_OK;
}

static enum mt_name_expert cut_expert_of(struct mt_role role)
{
    return role.expert == MT_EXPERT_SHARED ? MT_NAME_SHARED
           : role.expert >= 0              ? MT_NAME_ROUTED
                                           : MT_NAME_NO_EXPERT;
}

/* The row of a table that holds the record: *first is where its rows begin among the *rows. */
static const struct mt_fused_row *cut_row_of(const struct mt_model *m,
                                             const struct mt_fused_row *row,
                                             const struct mt_tensor *t, int64_t *first,
                                             int64_t *rows)
{
    for (; row != NULL && row->pattern != NULL; row++) {
        *first = -1;
        *rows = 0;
        if (t->role.kind == MT_ROLE_OTHER || t->role.layer < 0 || row->part != t->role.part ||
            row->expert != cut_expert_of(t->role))
            continue;
        for (int i = 0; i < MT_FUSED_MAX && row->kinds[i] != MT_ROLE_OTHER; i++) {
            if (row->kinds[i] == t->role.kind)
                *first = *rows;
            *rows += cut_rows_of(m, row->kinds[i], t->role.layer, row->expert);
        }
        if (*first >= 0)
            return row;
    }
    return NULL;
}

mt_status mt_family_fused_place(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *t,
                                bool stack, struct mt_fused_place *p, bool *fused)
{
    const struct mt_fused_row *row = NULL;
    int64_t rows = 0, first = -1;

    *fused = false;
    if (m->family != NULL)
        row = cut_row_of(m, m->family->fused, t, &first, &rows);
    if (row == NULL && stack && m->family != NULL && m->family->moe && !m->family->wraps)
        row = cut_row_of(m, cut_stacks, t, &first, &rows);
    if (row == NULL)
        return MT_OK;
    mt_assert((row->flags & ~(unsigned)MT_FUSED_STACK) == 0);
    int64_t cols = row->part == MT_PART_BIAS ? 1 : t->shape[t->rank - 1];
    *fused = true;
    *p = (struct mt_fused_place){.at = first * cols};
    if ((row->flags & MT_FUSED_STACK) != 0) {
        p->shape[p->rank++] = m->ffn[t->role.layer].n_experts;
        p->at += t->role.expert * rows * cols;
    }
    p->shape[p->rank++] = rows;
    if (row->part != MT_PART_BIAS)
        p->shape[p->rank++] = cols;
    return family_print_pattern(ctx, m, row->pattern, t->role, &p->name);
}

mt_status mt_family_stacked_name(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *t,
                                 const char **name)
{
    static const char in_mlp[] = "model.layers.%l.mlp.gate.weight";

    *name = t->name;
    if (m->family == NULL || t->role.kind != MT_ROLE_ROUTER || t->role.part != MT_PART_WEIGHT)
        return MT_OK;
    for (const struct mt_name_row *row = m->family->names; row->pattern != NULL; row++)
        if (row->kind == MT_ROLE_ROUTER && strcmp(row->pattern, in_mlp) == 0)
            return family_print_pattern(ctx, m, in_mlp, t->role, name);
    return MT_OK;
}

/* Whether the plan's record is `part` itself or only another dtype of it. */
static bool cut_untouched(const struct mt_tensor *planned, const struct mt_tensor *part)
{
    const struct mt_source *s = &planned->src;

    if (s->kind == MT_SRC_ALIAS)
        return s->alias == part;
    return s->kind == MT_SRC_RECIPE && strcmp(s->recipe.name, "cast") == 0 &&
           s->recipe.in[0] == part;
}

static void cut_alias(struct mt_tensor *t, const struct mt_tensor *of)
{
    t->src.kind = MT_SRC_ALIAS;
    t->src.alias = of;
}

static mt_status cut_restack(struct mt_ctx *ctx, struct mt_model *plan, const struct mt_cut *cut)
{
    struct mt_tensor *whole, *first = mt_model_find(plan, cut->parts[0]->role);
    char label[128];

    for (size_t i = 0; i < cut->n; i++) {
        struct mt_tensor *t = mt_model_find(plan, cut->parts[i]->role);

        if (t == NULL || first == NULL || !cut_untouched(t, cut->parts[i]) ||
            t->dtype != first->dtype)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s is a part of %s, which models of family %s keep whole: it cannot be "
                           "changed",
                           mt_tensor_label(cut->parts[i], label, sizeof label), cut->whole->name,
                           plan->family->name);
    }
    if (cut->also != NULL && first->src.kind != MT_SRC_ALIAS)
        return MT_OK; /* numbers: mt_model_stored puts them together */
    MT_TRY(mt_model_add(ctx, plan, cut->whole->role,
                        cut->also != NULL ? cut->whole->dtype : first->dtype, cut->whole->rank,
                        cut->whole->shape, &whole));
    whole->name = cut->whole->name;
    whole->planner = first->planner;
    if (whole->dtype == cut->whole->dtype)
        cut_alias(whole, cut->whole);
    else
        MT_TRY(mt_recipe_cast(ctx, plan, whole, cut->whole));
    if (cut->also != NULL) {
        MT_TRY(mt_model_add(ctx, plan, cut->also->role, cut->also->dtype, cut->also->rank,
                            cut->also->shape, &whole));
        whole->name = cut->also->name;
        cut_alias(whole, cut->also);
    }
    for (size_t i = 0; i < cut->n; i++)
        mt_model_remove(plan, mt_model_find(plan, cut->parts[i]->role));
    return MT_OK;
}

mt_status mt_model_restack(struct mt_ctx *ctx, struct mt_model *plan)
{
    for (const struct mt_cut *cut = plan->source->cuts; cut != NULL; cut = cut->next)
        if (!cut->by_choice)
            MT_TRY(cut_restack(ctx, plan, cut));
    return MT_OK;
}
