/* Qwen2 and 2.5: biases on q, k and v, by the code and not by the config. */
#include "lib/ir/family.h"

static const struct mt_name_row qwen2_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_END,
};

static mt_status qwen2_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_cfg_read_window(ctx, m));
    m->hp.qkv_bias = true;
    return mt_cfg_alloc_ffn(ctx, m);
}

static mt_status qwen2_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {
        .qkv_bias = true, .bias_needed = true, .window = true, .window_from = true};
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, &mt_family_qwen2, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, &mt_family_qwen2, &moe));
    if (m->ffn[0].in_bias || m->ffn[0].out_bias)
        return mt_cfg_cannot(ctx, &mt_family_qwen2, "biases in FFNs", "llama");
    return MT_OK;
}

static mt_status qwen2_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                    struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_qwen2, config);
    mt_cfg_write_window(m, config);
    return MT_OK;
}

const struct mt_family mt_family_qwen2 = {
    .name = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .names = qwen2_names,
    .read_config = qwen2_read_config,
    .can_hold = qwen2_can_hold,
    .write_config = qwen2_write_config,
};
