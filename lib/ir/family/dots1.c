/* dots.llm1: the DeepSeek-V3 router over ordinary attention with q/k norms. */
#include "lib/ir/family.h"

static const struct mt_name_row dots1_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_O_BIAS,
    MT_ROWS_QK_NORM,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_ROUTED_FFN,
    MT_ROW("model.layers.%l.mlp.gate.e_score_correction_bias", ROUTER_BIAS),
    MT_ROWS_SHARED_FFN,
    MT_ROWS_END,
};

static mt_status dots1_read_window(struct mt_ctx *ctx, struct mt_model *m)
{
    int64_t window, first;
    bool found, *windowed;

    if (mt_json_kind(mt_json_get(m->config, "sliding_window")) == MT_JSON_NULL)
        return MT_OK;
    MT_TRY(mt_cfg_int(ctx, m->config, "sliding_window", 4096, 1, MT_DIM_MAX, &window));
    MT_TRY(mt_cfg_int(ctx, m->config, "max_window_layers", 62, 0, MT_LAYERS_MAX, &first));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *windowed, &windowed));
    MT_TRY(mt_cfg_layer_types(ctx, m, windowed, &found));
    for (int l = 0; !found && l < m->hp.n_layers; l++)
        windowed[l] = l >= first;
    mt_cfg_set_windows(&m->hp, window, windowed);
    return MT_OK;
}

static mt_status dots1_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_ffn dflt = {.width = 1408, .rule = {.scale = 1, .n_group = 1, .topk_group = 1}};
    struct mt_ffn moe = {.gated = true};
    bool bias, *sparse = NULL;

    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(dots1_read_window(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, m->config, "attention_bias", false, &bias));
    m->hp.qkv_bias = m->hp.o_bias = bias;
    m->hp.qk_norm = MT_QK_NORM_HEAD;
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_read_sigmoid_router(ctx, m->config, &dflt, &moe));
    MT_TRY(mt_cfg_first_dense(ctx, m, 0, &sparse));
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status dots1_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true,
                                       .o_bias = true,
                                       .bias_together = true,
                                       .head_norm = true,
                                       .head_norm_needed = true,
                                       .window = true,
                                       .window_from = true};
    const struct mt_family *f = &mt_family_dots1;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    return mt_cfg_hold_sigmoid(ctx, m, f, moe);
}

static mt_status dots1_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                    struct mt_json *config)
{
    bool window = mt_hp_has_window(&m->hp);

    (void)ctx;
    mt_cfg_write_common(m, &mt_family_dots1, config);
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    mt_json_set_int(config, "max_window_layers",
                    window ? m->hp.window_first_layer : m->hp.n_layers);
    if (window)
        mt_json_set_int(config, "sliding_window", m->hp.sliding_window);
    else
        mt_json_set_null(config, "sliding_window");
    mt_cfg_write_sigmoid_router(m, config);
    return MT_OK;
}

const struct mt_family mt_family_dots1 = {
    .name = "dots1",
    .architecture = "Dots1ForCausalLM",
    .names = dots1_names,
    .moe = true,
    .read_config = dots1_read_config,
    .can_hold = dots1_can_hold,
    .write_config = dots1_write_config,
};
