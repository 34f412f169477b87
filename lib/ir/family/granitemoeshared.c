/* Granite-MoE with a shared expert of its own width, added without a gate. */
#include "lib/ir/family.h"

static const struct mt_name_row granitemoeshared_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_O_BIAS,
    MT_ROWS_GRANITE_FFN,
    MT_ROW_SHARED("model.layers.%l.shared_mlp.gate_proj.weight", FFN_GATE),
    MT_ROW_SHARED("model.layers.%l.shared_mlp.up_proj.weight", FFN_UP),
    MT_ROW_SHARED("model.layers.%l.shared_mlp.output_linear.weight", FFN_DOWN),
    MT_ROWS_END,
};

static const struct mt_fused_row granitemoeshared_fused[] = {
    MT_FUSED_GRANITE,
    {"model.layers.%l.shared_mlp.input_linear.weight",
     0,
     MT_PART_WEIGHT,
     MT_NAME_SHARED,
     {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP}},
    MT_FUSED_END,
};

static mt_status granitemoeshared_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {0};

    MT_TRY(mt_cfg_read_granite(ctx, m, &moe));
    MT_TRY(mt_cfg_int(ctx, m->config, "shared_intermediate_size", 0, 0, MT_DIM_MAX,
                      &moe.shared_width));
    return mt_cfg_set_moe(ctx, m, &moe, NULL);
}

static mt_status granitemoeshared_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_ffn *moe;

    return mt_cfg_hold_granite(ctx, m, &mt_family_granitemoeshared, &moe);
}

static mt_status granitemoeshared_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                               struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_granite(m, &mt_family_granitemoeshared, config);
    mt_json_set_int(config, "shared_intermediate_size", mt_model_first_moe(m)->shared_width);
    return MT_OK;
}

const struct mt_family mt_family_granitemoeshared = {
    .name = "granitemoeshared",
    .architecture = "GraniteMoeSharedForCausalLM",
    .names = granitemoeshared_names,
    .fused = granitemoeshared_fused,
    .moe = true,
    .read_config = granitemoeshared_read_config,
    .can_hold = granitemoeshared_can_hold,
    .write_config = granitemoeshared_write_config,
};
