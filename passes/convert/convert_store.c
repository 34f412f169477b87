#include "lib/base/mem.h"
#include "passes/convert/convert.h"
#include "passes/lib/siblings.h"
#include "passes/lib/spill.h"

#include <string.h>

/* ---- plan ---- */

bool convert_all_act(const struct mt_moe_shape *here)
{
    return here->own_active && here->k >= here->n_experts;
}

mt_status convert_layer_shape(struct mt_ctx *ctx, const struct convert *s, int layer,
                              struct mt_moe_shape *out)
{
    const struct mt_shape_ask ask = mt_convert_ask(&s->o);

    *out = s->shape;
    MT_TRY(mt_moe_shape_layer(ctx, &ask, layer, out));
    if (s->method->layer_shape == NULL)
        return MT_OK;
    return s->method->layer_shape(ctx, &s->o, s->at.src, layer, out);
}

static mt_status store_plan_layer(struct mt_ctx *ctx, struct convert *s, struct mt_model *m,
                                  int layer)
{
    struct mt_moe_shape here;

    if (convert_stays_dense(s, layer)) {
        s->active += m->ffn[layer].width;
        return mt_moe_plan_dense(ctx, &s->shape, m, layer);
    }
    if (m->ffn[layer].moe || m->ffn[layer].width != s->shape.width)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "convert-ffn must come before passes that change FFNs: run them in a "
                       "second command");
    MT_TRY(mt_dense_ffn_find(ctx, m, layer, &s->dense[layer]));
    MT_TRY(convert_layer_shape(ctx, s, layer, &here));
    MT_TRY(mt_moe_plan_layer(ctx, &here, &s->dense[layer], m, layer));
    s->active += here.k * here.expert_width + (here.n_shared > 0 ? here.shared_width : 0);
    s->acting[layer] = here.k;
    s->least = s->least == 0 || here.k < s->least ? here.k : s->least;
    s->most = here.k > s->most ? here.k : s->most;
    return s->has_form && !s->near && !convert_all_act(&here)
               ? mt_router_form_plan(ctx, &s->form, false, m, layer)
               : MT_OK;
}

mt_status convert_plan(struct mt_ctx *ctx, struct convert *s, struct mt_model *m)
{
    const struct mt_shape_ask ask = mt_convert_ask(&s->o);
    double alpha = mt_target_alpha(&s->shape.use, s->shape.n_experts, s->shape.k);
    int first = 0;

    m->family = mt_family_find(s->shape.target->family);
    if (m->family == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "family %s is not known", s->shape.target->family);
    s->active = s->least = s->most = 0;
    while (convert_stays_dense(s, first))
        first++;
    for (int l = 0; l < s->shape.n_layers; l++)
        MT_TRY(mt_wrap(ctx, store_plan_layer(ctx, s, m, l), "layer %d", l));
    if (s->at.src->n_siblings > 0 && s->o.attention == 0)
        MT_TRY(mt_siblings_mean(ctx, s->at.src, !s->o.without_base, m));
    /* Refused as soon as later, so that warnings are about what will be written. */
    if (m->family->can_hold != NULL)
        MT_TRY(m->family->can_hold(ctx, m));
    if (s->o.format != NULL)
        MT_TRY(s->o.format->holds(ctx, m));
    mt_moe_shape_tell(ctx, &ask, &s->shape);
    convert_tell_copies(ctx, s);
    enum mt_dtype dtype = s->dense[first].down->dtype;
    if (!mt_scale_is_exact(alpha) && (dtype == MT_BF16 || dtype == MT_F16))
        mt_log(ctx, MT_LOG_WARN,
               "%s gives weights that are not 1, so down_proj is multiplied by %d, which rounds in "
               "%s: inexact; --%s with a power of two%s is exact",
               s->shape.target->family, (int)alpha, mt_dtype_name(dtype),
               s->shape.copies > 0                          ? "granularity"
               : s->shape.target->alpha == MT_ALPHA_EXPERTS ? "experts"
                                                            : "active",
               s->shape.why[0] == 0 ? ", or --arch auto where another architecture fits," : "");
    return MT_OK;
}

/* ---- sources ---- */

/* Fitted columns of one list, which stand from column `first` on. */
static mt_status store_fitted(struct mt_ctx *ctx, const struct convert *s, struct mt_spill *spill,
                              struct mt_tensor *down, int64_t first, float scale)
{
    return mt_spill_put(ctx, spill, down, s->down.down + first, mt_split_entries(s->division.split),
                        scale);
}

/* Fitted rows of the same list, or elements of a bias, in place of those that `from` has. */
static mt_status store_fitted_rows(struct mt_ctx *ctx, struct mt_model *m, struct mt_spill *spill,
                                   const struct mt_tensor *from, int expert, const float *rows,
                                   int64_t first)
{
    struct mt_tensor *t;

    if (from == NULL)
        return MT_OK;
    struct mt_role role = from->role;
    role.expert = expert;
    MT_TRY(mt_model_need(ctx, m, role, &t));
    int64_t cols = role.part == MT_PART_BIAS ? 1 : mt_tensor_cols(t);
    return mt_spill_put(ctx, spill, t, rows + first * cols, mt_tensor_cols(t), 1);
}

static mt_status store_fitted_inner(struct mt_ctx *ctx, const struct convert *s, struct mt_model *m,
                                    struct mt_spill *spill, int expert, int64_t first)
{
    const struct mt_dense_ffn *f = &s->dense[s->at.layer];
    const struct mt_local_weights *w = &s->down.inner;

    MT_TRY(store_fitted_rows(ctx, m, spill, f->gate, expert, w->gate, first));
    MT_TRY(store_fitted_rows(ctx, m, spill, f->gate_bias, expert, w->gate_bias, first));
    MT_TRY(store_fitted_rows(ctx, m, spill, f->up, expert, w->up, first));
    return store_fitted_rows(ctx, m, spill, f->up_bias, expert, w->up_bias, first);
}

static mt_status store_expert(struct mt_ctx *ctx, const struct convert *s, struct mt_model *m,
                              struct mt_spill *spill, int expert, const int32_t *idx, int64_t n,
                              float scale)
{
    const struct mt_dense_ffn *f = &s->dense[s->at.layer];
    struct mt_dense_ffn own;
    struct mt_tensor *down;

    if (s->shape.copies > 0)
        MT_TRY(mt_convert_copy_ffn(ctx, &s->at, expert / s->shape.granules, &own, &f));
    MT_TRY(mt_moe_set_bias(ctx, &s->here, f, m, expert));

    if (spill != NULL && s->down.inner.up != NULL)
        MT_TRY(store_fitted_inner(ctx, s, m, spill, expert, idx - s->division.split->idx));
    else
        MT_TRY(mt_moe_set_inner(ctx, f, m, expert, idx, n));
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_DOWN, s->at.layer, expert), &down));
    if (spill != NULL)
        return store_fitted(ctx, s, spill, down, idx - s->division.split->idx, scale);
    return mt_recipe_gather_cols(ctx, m, down, f->down, idx, n, scale);
}

static mt_status store_experts(struct mt_ctx *ctx, struct convert *s, struct mt_model *m,
                               struct mt_spill *spill)
{
    const struct mt_split *split = s->division.split;
    float alpha = (float)mt_target_alpha(&s->here.use, s->here.n_experts, s->here.k);

    for (int e = 0; e < s->shape.n_experts; e++) {
        float scale = alpha;
        /* Fitted columns are what the expert should give in the end. */
        if (s->division.scale != NULL && spill == NULL)
            scale *= s->division.scale[e];
        if (s->down.gain != NULL)
            scale *= s->down.gain[e];
        MT_TRY(store_expert(ctx, s, m, spill, e, mt_split_expert(split, e), split->expert_width,
                            scale));
    }
    if (split->shared_width > 0)
        return store_expert(ctx, s, m, spill, MT_EXPERT_SHARED, mt_split_shared(split),
                            split->shared_width, (float)mt_target_shared_alpha(s->shape.target));
    return MT_OK;
}

static mt_status store_router(struct mt_ctx *ctx, const struct convert *s, struct mt_model *m)
{
    struct mt_tensor *t;

    const struct mt_router_form form = convert_stored_form(s);
    MT_TRY(mt_router_form_store(ctx, &form, m, s->at.layer));
    MT_TRY(mt_moe_set_constants(ctx, &s->here, m, s->at.layer));
    if (!s->routing.has_bias)
        return MT_OK;
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_ROUTER_BIAS, s->at.layer, MT_EXPERT_NONE), &t));
    return mt_source_floats(ctx, m, t, s->routing.bias);
}

/* The source's columns times the weights of their entries, as a refit would give them. */
static mt_status store_weighted(struct mt_ctx *ctx, struct convert *s)
{
    const struct mt_split *split = s->division.split;
    const struct mt_dense_ffn *f = &s->dense[s->at.layer];
    int64_t n = mt_split_entries(split);
    float *row;

    MT_TRY(mt_alloc(ctx, (size_t)f->hidden, (size_t)n * sizeof(float), "down_proj", &s->down.down));
    MT_TRY(mt_alloc(ctx, (size_t)f->width, sizeof(*row), "a row of down_proj", &row));
    mt_status st = MT_OK;
    for (int64_t r = 0; r < f->hidden && st == MT_OK; r++) {
        st = mt_tensor_fetch_f32(ctx, f->down, r, 1, row);
        for (int64_t c = 0; c < n && st == MT_OK; c++) {
            float by = s->division.weight[c];
            if (s->division.scale != NULL && c >= split->shared_width)
                by *= s->division.scale[(c - split->shared_width) / split->expert_width];
            s->down.down[r * n + c] = split->idx[c] >= 0 ? by * row[split->idx[c]] : 0;
        }
    }
    mt_free(row);
    return st;
}

mt_status convert_store(struct mt_ctx *ctx, struct convert *s, struct mt_model *m)
{
    struct mt_spill *spill = NULL;

    MT_TRY(store_router(ctx, s, m));
    if (s->down.down == NULL && s->division.weight != NULL)
        MT_TRY(store_weighted(ctx, s));
    if (s->down.down == NULL)
        return store_experts(ctx, s, m, NULL);
    MT_TRY(mt_spill_begin(ctx, &spill));
    mt_status st = store_experts(ctx, s, m, spill);
    if (st == MT_OK)
        return mt_spill_end(ctx, spill, m);
    mt_spill_free(spill);
    return st;
}
