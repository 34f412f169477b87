/* Granite-MoE: top-k of the logits, then softmax; scaled embeddings, residuals, attention and
 * logits; experts stored as stacks. */
#include "lib/ir/family.h"

static const struct mt_name_row granitemoe_names[] = {
    MT_ROWS_FRAME, MT_ROWS_QKV_BIAS, MT_ROWS_O_BIAS, MT_ROWS_GRANITE_FFN, MT_ROWS_END,
};

static const struct mt_fused_row granitemoe_fused[] = {
    MT_FUSED_GRANITE,
    MT_FUSED_END,
};

static mt_status granitemoe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {0};

    MT_TRY(mt_cfg_read_granite(ctx, m, &moe));
    return mt_cfg_set_moe(ctx, m, &moe, NULL);
}

static mt_status granitemoe_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_family *f = &mt_family_granitemoe;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_granite(ctx, m, f, &moe));
    if (moe->shared_width > 0)
        return mt_cfg_cannot(ctx, f, "a shared expert", "granitemoeshared");
    return MT_OK;
}

static mt_status granitemoe_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                         struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_granite(m, &mt_family_granitemoe, config);
    return MT_OK;
}

const struct mt_family mt_family_granitemoe = {
    .name = "granitemoe",
    .architecture = "GraniteMoeForCausalLM",
    .names = granitemoe_names,
    .fused = granitemoe_fused,
    .moe = true,
    .read_config = granitemoe_read_config,
    .can_hold = granitemoe_can_hold,
    .write_config = granitemoe_write_config,
};
