/* GLM4-MoE: the DeepSeek-V3 router (sigmoid, selection bias, groups) over ordinary attention.
 *
 * The common denominator for converted models: weights need no rescaling, any number of experts
 * and active experts, a selection bias, a shared expert, biases on q, k and v. */
#include "lib/ir/family.h"

static const struct mt_name_row glm4_moe_names[] = {
    MT_ROWS_FRAME,      MT_ROWS_QKV_BIAS,
    MT_ROWS_QK_NORM,    MT_ROWS_DENSE_FFN,
    MT_ROWS_ROUTED_FFN, MT_ROW("model.layers.%l.mlp.gate.e_score_correction_bias", ROUTER_BIAS),
    MT_ROWS_SHARED_FFN, MT_ROWS_END,
};

static mt_status glm4_moe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_ffn dflt = {
        .width = 1408,
        .n_experts = 128,
        .k = 8,
        .shared_width = 1,
        .rule = {.renorm = true, .scale = 1, .n_group = 1, .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    struct mt_ffn moe = {.gated = true};
    bool qk_norm, *sparse = NULL;

    m->hp.norm_eps = 1e-5;
    m->hp.rope.partial = 0.5;
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &m->hp.qkv_bias));
    MT_TRY(mt_json_get_bool(ctx, cfg, "use_qk_norm", false, &qk_norm));
    m->hp.qk_norm = qk_norm ? MT_QK_NORM_HEAD : MT_QK_NORM_NONE;
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_read_sigmoid_router(ctx, cfg, &dflt, &moe));
    MT_TRY(mt_cfg_first_dense(ctx, m, 1, &sparse));
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status glm4_moe_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true, .head_norm = true, .partial = true};
    const struct mt_family *f = &mt_family_glm4_moe;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    return mt_cfg_hold_sigmoid(ctx, m, f, moe);
}

static mt_status glm4_moe_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                       struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_glm4_moe, config);
    /* Loaders take one half when it is absent. */
    mt_json_set_num(config, "partial_rotary_factor", m->hp.rope.partial);
    mt_json_set_num(mt_json_get(config, "rope_parameters"), "partial_rotary_factor",
                    m->hp.rope.partial);
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    mt_json_set_bool(config, "use_qk_norm", m->hp.qk_norm == MT_QK_NORM_HEAD);
    mt_cfg_write_sigmoid_router(m, config);
    return MT_OK;
}

const struct mt_family mt_family_glm4_moe = {
    .name = "glm4_moe",
    .architecture = "Glm4MoeForCausalLM",
    .names = glm4_moe_names,
    .moe = true,
    .read_config = glm4_moe_read_config,
    .can_hold = glm4_moe_can_hold,
    .write_config = glm4_moe_write_config,
};
