/* Qwen3-MoE: softmax router, renormalised by flag, q/k norms, no shared expert. */
#include "lib/ir/family.h"

static const struct mt_name_row qwen3_moe_names[] = {
    MT_ROWS_FRAME,     MT_ROWS_QKV_BIAS,   MT_ROWS_O_BIAS, MT_ROWS_QK_NORM,
    MT_ROWS_DENSE_FFN, MT_ROWS_ROUTED_FFN, MT_ROWS_END,
};

static mt_status qwen3_moe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {
        .rule = {.score = MT_SCORE_SOFTMAX, .scale = 1, .n_group = 1, .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    const char *count =
        mt_json_get(cfg, "num_experts") != NULL ? "num_experts" : "num_local_experts";
    int64_t n, k;
    bool bias, *sparse = NULL;

    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "use_sliding_window", false, &bias));
    if (bias && mt_json_kind(mt_json_get(cfg, "sliding_window")) != MT_JSON_NULL)
        MT_TRY(mt_cfg_int(ctx, cfg, "sliding_window", 4096, 1, MT_DIM_MAX, &hp->sliding_window));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &bias));
    hp->qkv_bias = hp->o_bias = bias;
    hp->qk_norm = MT_QK_NORM_HEAD;
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_intermediate_size", 768, 1, MT_DIM_MAX, &moe.width));
    MT_TRY(mt_cfg_int(ctx, cfg, count, 128, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 8, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_json_get_bool(ctx, cfg, "norm_topk_prob", false, &moe.rule.renorm));
    MT_TRY(mt_cfg_read_sparse(ctx, m, &sparse));
    moe.n_experts = (int)n;
    moe.k = (int)k;
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status qwen3_moe_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true,
                                       .o_bias = true,
                                       .bias_together = true,
                                       .head_norm = true,
                                       .head_norm_needed = true,
                                       .window = true};
    const struct mt_family *f = &mt_family_qwen3_moe;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    return mt_cfg_hold_softmax(ctx, f, moe, false);
}

static mt_status qwen3_moe_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                        struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_qwen3_moe, config);
    mt_cfg_write_window(m, config);
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    mt_cfg_write_qwen_moe(m, mt_model_first_moe(m), config);
    return MT_OK;
}

const struct mt_family mt_family_qwen3_moe = {
    .name = "qwen3_moe",
    .architecture = "Qwen3MoeForCausalLM",
    .names = qwen3_moe_names,
    .moe = true,
    .read_config = qwen3_moe_read_config,
    .can_hold = qwen3_moe_can_hold,
    .write_config = qwen3_moe_write_config,
};
