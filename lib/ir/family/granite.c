/* Granite 3: a Llama with factors on embeddings, residuals, attention scores and logits. */
#include "lib/ir/family.h"

static const struct mt_name_row granite_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_O_BIAS,
    MT_ROWS_DENSE_FFN,
    MT_ROW_BIAS("model.layers.%l.mlp.gate_proj.bias", FFN_GATE),
    MT_ROW_BIAS("model.layers.%l.mlp.up_proj.bias", FFN_UP),
    MT_ROW_BIAS("model.layers.%l.mlp.down_proj.bias", FFN_DOWN),
    MT_ROWS_END,
};

static mt_status granite_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    bool bias;

    MT_TRY(mt_cfg_read_granite_scales(ctx, m));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, m->config, "mlp_bias", false, &bias));
    for (int l = 0; l < m->hp.n_layers; l++)
        m->ffn[l].in_bias = m->ffn[l].out_bias = bias;
    return MT_OK;
}

static mt_status granite_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {
        .qkv_bias = true, .o_bias = true, .bias_together = true, .scales = true};
    const struct mt_family *f = &mt_family_granite;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    if (m->ffn[0].in_bias != m->ffn[0].out_bias)
        return mt_cfg_cannot(ctx, f, "biases on only a part of the FFN", NULL);
    return MT_OK;
}

static mt_status granite_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                      struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_granite, config);
    mt_cfg_write_granite_scales(m, config);
    mt_json_set_bool(config, "mlp_bias", m->ffn[0].in_bias);
    return MT_OK;
}

const struct mt_family mt_family_granite = {
    .name = "granite",
    .architecture = "GraniteForCausalLM",
    .names = granite_names,
    .read_config = granite_read_config,
    .can_hold = granite_can_hold,
    .write_config = granite_write_config,
};
