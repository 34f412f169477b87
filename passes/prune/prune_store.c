#include "lib/base/mem.h"
#include "passes/lib/spill.h"
#include "passes/prune/prune.h"

#include <math.h>

/* ---- plan ---- */

/* A new record in the place of an old one that stays behind as its ancestor. */
static mt_status store_replace(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *old,
                               int64_t rows, int64_t cols)
{
    const int64_t shape[2] = {old->rank == 1 ? cols : rows, cols};
    struct mt_tensor *t;

    mt_model_remove(m, old);
    return mt_model_add(ctx, m, old->role, old->dtype, old->rank, shape, &t);
}

static mt_status store_add_bias(struct mt_ctx *ctx, struct mt_model *m, enum mt_role_kind kind,
                                int layer, enum mt_dtype dtype, int64_t n)
{
    struct mt_role role = mt_role(kind, layer, MT_EXPERT_NONE);
    struct mt_tensor *t;

    role.part = MT_PART_BIAS;
    return mt_model_add(ctx, m, role, dtype, 1, &n, &t);
}

static mt_status store_plan_bias(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                                 int layer)
{
    struct prune_layer *p = &s->layers[layer];

    p->bias_gate = mt_model_bias(m, MT_ROLE_FFN_GATE, layer, MT_EXPERT_NONE);
    p->bias_up = mt_model_bias(m, MT_ROLE_FFN_UP, layer, MT_EXPERT_NONE);
    p->bias_down = mt_model_bias(m, MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE);
    if (p->bias_gate != NULL)
        MT_TRY(store_replace(ctx, m, p->bias_gate, 1, s->keep));
    if (p->bias_up != NULL)
        MT_TRY(store_replace(ctx, m, p->bias_up, 1, s->keep));
    if (!prune_adds_bias(s))
        return MT_OK;
    /* Families with an output bias have the other two as well (mlp_bias): zero ones here. */
    if (p->bias_gate == NULL && p->dense.gate != NULL)
        MT_TRY(store_add_bias(ctx, m, MT_ROLE_FFN_GATE, layer, p->dense.gate->dtype, s->keep));
    if (p->bias_up == NULL)
        MT_TRY(store_add_bias(ctx, m, MT_ROLE_FFN_UP, layer, p->dense.up->dtype, s->keep));
    if (p->bias_down != NULL)
        mt_model_remove(m, p->bias_down);
    MT_TRY(store_add_bias(ctx, m, MT_ROLE_FFN_DOWN, layer, MT_F32, s->hidden));
    m->ffn[layer].in_bias = true;
    m->ffn[layer].out_bias = true;
    return MT_OK;
}

mt_status prune_plan(struct mt_ctx *ctx, struct prune *s, struct mt_model *m)
{
    for (int l = 0; l < s->n_layers; l++) {
        struct mt_dense_ffn *f = &s->layers[l].dense;
        if (m->ffn[l].moe || m->ffn[l].width != s->width)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "prune-ffn must come before passes that change FFNs: run them in a "
                           "second command");
        MT_TRY(mt_dense_ffn_find(ctx, m, l, f));
        MT_TRY(store_plan_bias(ctx, s, m, l));
        if (f->gate != NULL)
            MT_TRY(store_replace(ctx, m, f->gate, s->keep, s->hidden));
        MT_TRY(store_replace(ctx, m, f->up, s->keep, s->hidden));
        MT_TRY(store_replace(ctx, m, f->down, s->hidden, s->keep));
        m->ffn[l].width = s->keep;
    }
    return MT_OK;
}

/* ---- sources ---- */

/* bias[hidden] = what the dropped neurons add on average, sum of mean(h_j) v_j. */
static mt_status store_mean_output(struct mt_ctx *ctx, const struct prune *s,
                                   const struct prune_layer *p, float *bias)
{
    size_t w = (size_t)s->width;
    double *mean;

    MT_TRY(mt_alloc(ctx, w, sizeof(*mean) + sizeof(float), "mean output", &mean));
    float *row = (void *)(mean + w);
    for (int64_t j = 0; j < s->width; j++)
        mean[j] = s->sums.plain[j] / (double)s->sums.tokens;
    for (int64_t i = 0; i < s->keep; i++)
        mean[s->kept[i]] = 0;
    mt_status st = MT_OK;
    for (int64_t r = 0; r < s->hidden && st == MT_OK; r++) {
        double sum = 0;
        st = mt_tensor_fetch_f32(ctx, p->dense.down, r, 1, row);
        for (int64_t j = 0; j < s->width && st == MT_OK; j++)
            sum += mean[j] * (double)row[j];
        bias[r] = (float)sum;
    }
    mt_free(mean);
    return st;
}

static mt_status store_set_output_bias(struct mt_ctx *ctx, const struct prune *s,
                                       struct mt_model *m, struct prune_layer *p, int layer)
{
    float *bias, *old = NULL;
    double sum = 0;

    MT_TRY(mt_alloc(ctx, (size_t)s->hidden, sizeof(*bias), "output bias", &bias));
    mt_status st = MT_OK;
    if (s->o.refit == PRUNE_REFIT_BIAS)
        for (int64_t i = 0; i < s->hidden; i++)
            bias[i] = s->down != NULL ? s->down[i * s->columns + s->keep] : 0;
    else
        st = store_mean_output(ctx, s, p, bias);
    for (int64_t i = 0; st == MT_OK && i < s->hidden; i++)
        sum += (double)bias[i] * (double)bias[i];
    p->compensation = sqrt(sum);
    if (st == MT_OK && p->bias_down != NULL) {
        st = mt_tensor_load_f32(ctx, p->bias_down, &old);
        for (int64_t i = 0; st == MT_OK && i < s->hidden; i++)
            bias[i] += old[i];
    }
    if (st == MT_OK)
        st = mt_source_floats(ctx, m, mt_model_bias(m, MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE),
                              bias);
    mt_free(old);
    mt_free(bias);
    return st;
}

static mt_status store_set_input_bias(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                                      enum mt_role_kind kind, int layer,
                                      const struct mt_tensor *old)
{
    struct mt_tensor *t = mt_model_bias(m, kind, layer, MT_EXPERT_NONE);

    if (t == NULL)
        return MT_OK;
    if (old == NULL)
        return mt_recipe_fill(ctx, m, t, 0);
    return mt_recipe_gather_cols(ctx, m, t, old, s->kept, s->keep, 1);
}

/* Refitted down columns, the last column of a refit with bias being the bias; trained rows. */
static mt_status store_spill(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                             const struct prune_layer *p, struct mt_spill *spill)
{
    const struct mt_dense_ffn *f = &p->dense;
    const struct {
        const struct mt_tensor *from;
        const float *values;
        int64_t ld;
    } parts[] = {{f->down, s->down, s->columns},
                 {f->gate, s->inner.gate, s->hidden},
                 {f->up, s->inner.up, s->hidden},
                 {p->bias_gate, s->inner.gate_bias, s->keep},
                 {p->bias_up, s->inner.up_bias, s->keep}};
    struct mt_tensor *t;

    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        if (parts[i].from == NULL || parts[i].values == NULL)
            continue;
        MT_TRY(mt_model_need(ctx, m, parts[i].from->role, &t));
        MT_TRY(mt_spill_put(ctx, spill, t, parts[i].values, parts[i].ld, 1));
    }
    return MT_OK;
}

static mt_status store_fitted(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                              const struct prune_layer *p)
{
    struct mt_spill *spill;

    MT_TRY(mt_spill_begin(ctx, &spill));
    mt_status st = store_spill(ctx, s, m, p, spill);
    if (st == MT_OK)
        return mt_spill_end(ctx, spill, m);
    mt_spill_free(spill);
    return st;
}

/* Rows and their biases as the source has them. */
static mt_status store_rows(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                            const struct prune_layer *p, int layer)
{
    struct mt_tensor *t;

    if (p->dense.gate != NULL) {
        MT_TRY(mt_model_need(ctx, m, p->dense.gate->role, &t));
        MT_TRY(mt_recipe_gather_rows(ctx, m, t, p->dense.gate, s->kept, s->keep, 1));
    }
    MT_TRY(mt_model_need(ctx, m, p->dense.up->role, &t));
    MT_TRY(mt_recipe_gather_rows(ctx, m, t, p->dense.up, s->kept, s->keep, 1));
    MT_TRY(store_set_input_bias(ctx, s, m, MT_ROLE_FFN_GATE, layer, p->bias_gate));
    return store_set_input_bias(ctx, s, m, MT_ROLE_FFN_UP, layer, p->bias_up);
}

mt_status prune_store(struct mt_ctx *ctx, struct prune *s, struct mt_model *m, int layer)
{
    struct prune_layer *p = &s->layers[layer];
    struct mt_tensor *t;

    if (s->inner.up == NULL)
        MT_TRY(store_rows(ctx, s, m, p, layer));
    MT_TRY(mt_model_need(ctx, m, p->dense.down->role, &t));
    if (s->down != NULL)
        MT_TRY(store_fitted(ctx, s, m, p));
    else
        MT_TRY(mt_recipe_gather_cols(ctx, m, t, p->dense.down, s->kept, s->keep, 1));
    if (prune_adds_bias(s))
        MT_TRY(store_set_output_bias(ctx, s, m, p, layer));
    return MT_OK;
}
