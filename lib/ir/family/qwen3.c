/* Qwen3, dense: per-head RMSNorm of q and k before RoPE. */
#include "lib/ir/family.h"

static const struct mt_name_row qwen3_names[] = {
    MT_ROWS_FRAME,   MT_ROWS_QKV_BIAS,  MT_ROWS_O_BIAS,
    MT_ROWS_QK_NORM, MT_ROWS_DENSE_FFN, MT_ROWS_END,
};

static mt_status qwen3_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    bool bias;

    m->hp.head_dim = 128;
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_cfg_read_window(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, m->config, "attention_bias", false, &bias));
    m->hp.qkv_bias = m->hp.o_bias = bias;
    m->hp.qk_norm = MT_QK_NORM_HEAD;
    return mt_cfg_alloc_ffn(ctx, m);
}

static mt_status qwen3_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true,
                                       .o_bias = true,
                                       .bias_together = true,
                                       .head_norm = true,
                                       .head_norm_needed = true,
                                       .window = true,
                                       .window_from = true};
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, &mt_family_qwen3, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, &mt_family_qwen3, &moe));
    if (m->ffn[0].in_bias || m->ffn[0].out_bias)
        return mt_cfg_cannot(ctx, &mt_family_qwen3, "biases in FFNs", NULL);
    return MT_OK;
}

static mt_status qwen3_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                    struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_qwen3, config);
    mt_cfg_write_window(m, config);
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    return MT_OK;
}

const struct mt_family mt_family_qwen3 = {
    .name = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .names = qwen3_names,
    .read_config = qwen3_read_config,
    .can_hold = qwen3_can_hold,
    .write_config = qwen3_write_config,
};
