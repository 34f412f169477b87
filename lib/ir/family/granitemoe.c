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

const struct mt_family mt_family_granitemoe = {
    .name = "granitemoe",
    .architecture = "GraniteMoeForCausalLM",
    .names = granitemoe_names,
    .fused = granitemoe_fused,
    .moe = true,
    .read_config = granitemoe_read_config,
};
