/* OLMoE: q and k are normed over all heads at once, then cut to +-clip_qkv; every layer sparse. */
#include "lib/ir/family.h"

static const struct mt_name_row olmoe_names[] = {
    MT_ROWS_FRAME,   MT_ROWS_QKV_BIAS,   MT_ROWS_O_BIAS,
    MT_ROWS_QK_NORM, MT_ROWS_ROUTED_FFN, MT_ROWS_END,
};

static mt_status olmoe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {
        .rule = {.score = MT_SCORE_SOFTMAX, .scale = 1, .n_group = 1, .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    int64_t n, k;
    bool bias;

    m->hp.norm_eps = 1e-5;
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &bias));
    MT_TRY(mt_cfg_num(ctx, cfg, "clip_qkv", 0, 0, 1e30, &m->hp.clip_qkv));
    m->hp.qkv_bias = m->hp.o_bias = bias;
    m->hp.qk_norm = MT_QK_NORM_FULL;
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "intermediate_size", 2048, 1, MT_DIM_MAX, &moe.width));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts", 64, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 8, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_json_get_bool(ctx, cfg, "norm_topk_prob", false, &moe.rule.renorm));
    moe.n_experts = (int)n;
    moe.k = (int)k;
    return mt_cfg_set_moe(ctx, m, &moe, NULL);
}

static mt_status olmoe_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true,
                                       .o_bias = true,
                                       .bias_together = true,
                                       .full_norm = true,
                                       .clip = true,
                                       .narrow = true};
    const struct mt_family *f = &mt_family_olmoe;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    for (int l = 0; l < m->hp.n_layers; l++)
        if (!m->ffn[l].moe)
            return mt_cfg_cannot(ctx, f, "dense layers beside sparse ones", NULL);
    return mt_cfg_hold_softmax(ctx, f, moe, false);
}

static mt_status olmoe_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                    struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);

    (void)ctx;
    mt_cfg_write_common(m, &mt_family_olmoe, config);
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    if (m->hp.clip_qkv > 0)
        mt_json_set_num(config, "clip_qkv", m->hp.clip_qkv);
    else
        mt_json_set_null(config, "clip_qkv");
    mt_json_set_int(config, "intermediate_size", moe->width);
    mt_json_set_int(config, "num_experts", moe->n_experts);
    mt_json_set_int(config, "num_experts_per_tok", moe->k);
    mt_json_set_bool(config, "norm_topk_prob",
                     moe->rule.renorm || moe->rule.score == MT_SCORE_SOFTMAX_TOPK);
    return MT_OK;
}

const struct mt_family mt_family_olmoe = {
    .name = "olmoe",
    .architecture = "OlmoeForCausalLM",
    .names = olmoe_names,
    .moe = true,
    .read_config = olmoe_read_config,
    .can_hold = olmoe_can_hold,
    .write_config = olmoe_write_config,
};
