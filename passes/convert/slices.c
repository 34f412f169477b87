#include "passes/convert/slices.h"

#include "lib/base/mem.h"

#include <string.h>

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

mt_status mt_slices_decide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                           enum mt_partition_how unasked, float scale,
                           struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    const struct mt_neuron_sums none = {0};
    enum mt_partition_how how =
        at->o->partition > 0 ? (enum mt_partition_how)(at->o->partition - 1) : unasked;

    MT_TRY(mt_partition_ffn(ctx, how, at->dense, &none, p->n_experts, p->n_shared,
                            (uint64_t)at->layer, &out->split));
    if (at->o->scale != MT_CONVERT_SCALE_AUTO)
        scale = at->o->scale == MT_CONVERT_SCALE_UNIT ? 1 : mt_slices_share(p);
    if (scale == 1)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)p->n_experts, sizeof(*out->scale), "expert scales", &out->scale));
    for (int e = 0; e < p->n_experts; e++)
        out->scale[e] = scale;
    return MT_OK;
}
