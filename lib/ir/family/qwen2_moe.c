/* Qwen2-MoE: softmax router that is seldom renormalised, a shared expert behind a sigmoid gate,
 * biases on q, k and v. */
#include "lib/ir/family.h"

static const struct mt_name_row qwen2_moe_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_ROUTED_FFN,
    MT_ROW_SHARED("model.layers.%l.mlp.shared_expert.gate_proj.weight", FFN_GATE),
    MT_ROW_SHARED("model.layers.%l.mlp.shared_expert.up_proj.weight", FFN_UP),
    MT_ROW_SHARED("model.layers.%l.mlp.shared_expert.down_proj.weight", FFN_DOWN),
    MT_ROW("model.layers.%l.mlp.shared_expert_gate.weight", SHARED_GATE),
    MT_ROWS_END,
};

/* Without layer_types, every second layer below max_window_layers has the window. */
static mt_status qwen2_moe_read_window(struct mt_ctx *ctx, struct mt_model *m)
{
    int64_t window, below;
    bool use, found, *windowed;

    MT_TRY(mt_json_get_bool(ctx, m->config, "use_sliding_window", false, &use));
    if (!use || mt_json_kind(mt_json_get(m->config, "sliding_window")) == MT_JSON_NULL)
        return MT_OK;
    MT_TRY(mt_cfg_int(ctx, m->config, "sliding_window", 4096, 1, MT_DIM_MAX, &window));
    MT_TRY(mt_cfg_int(ctx, m->config, "max_window_layers", 28, 0, MT_LAYERS_MAX, &below));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *windowed, &windowed));
    MT_TRY(mt_cfg_layer_types(ctx, m, windowed, &found));
    for (int l = 0; !found && l < m->hp.n_layers; l++)
        windowed[l] = l % 2 == 0 && l < below;
    mt_cfg_set_windows(&m->hp, window, windowed);
    return MT_OK;
}

static mt_status qwen2_moe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {
        .shared_gated = true,
        .rule = {.score = MT_SCORE_SOFTMAX, .scale = 1, .n_group = 1, .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    int64_t n, k;
    bool *sparse = NULL;

    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(qwen2_moe_read_window(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "qkv_bias", true, &m->hp.qkv_bias));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_intermediate_size", 1408, 1, MT_DIM_MAX, &moe.width));
    MT_TRY(mt_cfg_int(ctx, cfg, "shared_expert_intermediate_size", 5632, 1, MT_DIM_MAX,
                      &moe.shared_width));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts", 60, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 4, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_json_get_bool(ctx, cfg, "norm_topk_prob", false, &moe.rule.renorm));
    MT_TRY(mt_cfg_read_sparse(ctx, m, &sparse));
    moe.n_experts = (int)n;
    moe.k = (int)k;
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status qwen2_moe_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true, .narrow = true};
    const struct mt_family *f = &mt_family_qwen2_moe;
    const struct mt_ffn *moe;
    struct mt_ffn routed;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    if (moe->shared_width == 0)
        return mt_cfg_cannot(ctx, f, "MoE layers without a shared expert", "qwen3_moe");
    if (!moe->shared_gated)
        return mt_cfg_cannot(ctx, f, "a shared expert without its gate", "glm4_moe");
    routed = *moe;
    routed.shared_width = 0;
    return mt_cfg_hold_softmax(ctx, f, &routed, false);
}

static mt_status qwen2_moe_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                        struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);

    (void)ctx;
    mt_cfg_write_common(m, &mt_family_qwen2_moe, config);
    mt_cfg_write_window(m, config);
    mt_json_set_bool(config, "qkv_bias", m->hp.qkv_bias);
    mt_json_set_int(config, "shared_expert_intermediate_size", moe->shared_width);
    mt_cfg_write_qwen_moe(m, moe, config);
    return MT_OK;
}

const struct mt_family mt_family_qwen2_moe = {
    .name = "qwen2_moe",
    .architecture = "Qwen2MoeForCausalLM",
    .names = qwen2_moe_names,
    .moe = true,
    .read_config = qwen2_moe_read_config,
    .can_hold = qwen2_moe_can_hold,
    .write_config = qwen2_moe_write_config,
};
