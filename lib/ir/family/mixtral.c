/* Mixtral: softmax over all experts, the chosen always renormalised, every layer sparse. */
#include "lib/ir/family.h"

static const struct mt_name_row mixtral_names[] = {
    MT_ROWS_FRAME,
    MT_ROW("model.layers.%l.block_sparse_moe.gate.weight", ROUTER),
    MT_ROW_EXPERT("model.layers.%l.block_sparse_moe.experts.%e.w1.weight", FFN_GATE),
    MT_ROW_EXPERT("model.layers.%l.block_sparse_moe.experts.%e.w3.weight", FFN_UP),
    MT_ROW_EXPERT("model.layers.%l.block_sparse_moe.experts.%e.w2.weight", FFN_DOWN),
    /* transformers 5 calls the block mlp when it saves its own form. */
    MT_ROW("model.layers.%l.mlp.gate.weight", ROUTER),
    MT_ROWS_END,
};

static mt_status mixtral_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {
        .rule = {
            .score = MT_SCORE_SOFTMAX, .renorm = true, .scale = 1, .n_group = 1, .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    int64_t n, k;

    m->hp.norm_eps = 1e-5;
    m->hp.rope.theta = 1e6;
    MT_TRY(mt_cfg_read_common(ctx, m));
    if (mt_json_kind(mt_json_get(cfg, "sliding_window")) == MT_JSON_NUMBER)
        MT_TRY(mt_cfg_int(ctx, cfg, "sliding_window", 0, 1, MT_DIM_MAX, &m->hp.sliding_window));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "intermediate_size", -1, 1, MT_DIM_MAX, &moe.width));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_local_experts", 8, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 2, 1, MT_EXPERTS_MAX, &k));
    moe.n_experts = (int)n;
    moe.k = (int)k;
    return mt_cfg_set_moe(ctx, m, &moe, NULL);
}

static mt_status mixtral_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.window = true};
    const struct mt_family *f = &mt_family_mixtral;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    for (int l = 0; l < m->hp.n_layers; l++)
        if (!m->ffn[l].moe)
            return mt_cfg_cannot(ctx, f, "dense layers beside sparse ones", "glm4_moe");
    return mt_cfg_hold_softmax(ctx, f, moe, true);
}

static mt_status mixtral_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                      struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);

    (void)ctx;
    mt_cfg_write_common(m, &mt_family_mixtral, config);
    if (mt_hp_has_window(&m->hp))
        mt_json_set_int(config, "sliding_window", m->hp.sliding_window);
    else
        mt_json_set_null(config, "sliding_window");
    mt_json_set_int(config, "intermediate_size", moe->width);
    mt_json_set_int(config, "num_local_experts", moe->n_experts);
    mt_json_set_int(config, "num_experts_per_tok", moe->k);
    return MT_OK;
}

const struct mt_family mt_family_mixtral = {
    .name = "mixtral",
    .architecture = "MixtralForCausalLM",
    .names = mixtral_names,
    .moe = true,
    .read_config = mixtral_read_config,
    .can_hold = mixtral_can_hold,
    .write_config = mixtral_write_config,
};
