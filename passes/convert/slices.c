#include "passes/convert/slices.h"

#include "lib/base/mem.h"

#include <string.h>

/* A divider and its state. */
struct slices {
    const struct mt_convert_method *by;
    void *state;
};

const struct mt_convert_method *mt_divider_asked(const struct mt_convert_opts *o)
{
    switch (o->partition - 1) {
    case MT_PARTITION_COACTIVATION:
        return &mt_divider_coactivation;
    case MT_PARTITION_IMPORTANCE:
        return &mt_divider_importance;
    case MT_PARTITION_IMPORTANCE_OVERLAP:
        return &mt_divider_importance_overlap;
    default:
        return NULL;
    }
}

mt_status mt_slices_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                          const struct mt_model *src, struct mt_moe_shape *shape)
{
    struct mt_shape_ask ask = mt_convert_ask(o);

    if (strcmp(ask.shared, "auto") == 0)
        ask.shared = "0";
    return mt_moe_shape_read(ctx, &ask, src, shape);
}

float mt_slices_share(const struct mt_moe_shape *p)
{
    return (float)p->n_experts / (float)p->k;
}

int mt_slices_rounds(const struct mt_convert_at *at)
{
    const struct mt_convert_method *by = mt_divider_asked(at->o);

    return by != NULL ? by->rounds(at) : 0;
}

uint64_t mt_slices_memory(const struct mt_convert_at *at)
{
    const struct mt_convert_method *by = mt_divider_asked(at->o);
    uint64_t d = (uint64_t)at->shape->hidden, w = (uint64_t)at->shape->width,
             n = (uint64_t)at->shape->n_experts;

    /* What a clustering of rows takes, whether or not it is asked for. */
    return by != NULL ? by->memory(at) : w * d * 12 + w * n * 52 + n * d * 8 + w * 16;
}

mt_status mt_slices_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    const struct mt_convert_method *by = mt_divider_asked(at->o);
    struct slices *s;

    if (by == NULL)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "partition", &s));
    *state = s;
    s->by = by;
    return by->begin(ctx, at, &s->state);
}

mt_status mt_slices_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                            const struct mt_observation *ob)
{
    struct slices *s = state;

    return s->by->observe(ctx, at, s->state, ob);
}

void mt_slices_end(void *state)
{
    struct slices *s = state;

    if (s != NULL)
        s->by->end(s->state);
    mt_free(s);
}

static mt_status slices_divide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                               const struct slices *s, enum mt_partition_how unasked,
                               struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    const struct mt_neuron_sums none = {0};
    enum mt_partition_how how =
        at->o->partition > 0 ? (enum mt_partition_how)(at->o->partition - 1) : unasked;

    if (s != NULL)
        return s->by->decide(ctx, at, s->state, out);
    return mt_partition_ffn(ctx, how, at->dense, &none, p->n_experts, p->n_shared,
                            (uint64_t)at->layer, &out->split);
}

mt_status mt_slices_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                           enum mt_partition_how unasked, float scale,
                           struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;

    MT_TRY(slices_divide(ctx, at, state, unasked, out));
    if (at->o->scale != MT_CONVERT_SCALE_AUTO)
        scale = at->o->scale == MT_CONVERT_SCALE_UNIT ? 1 : mt_slices_share(p);
    if (scale == 1)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)p->n_experts, sizeof(*out->scale), "expert scales", &out->scale));
    for (int e = 0; e < p->n_experts; e++)
        out->scale[e] = scale;
    return MT_OK;
}
