/* DeepSeek-V3 and R1: latent attention; sigmoid router with a selection bias, over groups. */
#include "lib/ir/family.h"

static const struct mt_name_row deepseek_v3_names[] = {
    MT_ROWS_MLA,        MT_ROWS_DENSE_FFN,
    MT_ROWS_ROUTED_FFN, MT_ROW("model.layers.%l.mlp.gate.e_score_correction_bias", ROUTER_BIAS),
    MT_ROWS_SHARED_FFN, MT_ROWS_END,
};

static mt_status deepseek_v3_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_ffn dflt = {
        .width = 2048,
        .n_experts = 256,
        .k = 8,
        .shared_width = 1,
        .rule = {.renorm = true, .scale = 2.5, .n_group = 8, .topk_group = 4}};
    struct mt_ffn moe = {.gated = true};
    bool *sparse = NULL;

    MT_TRY(mt_cfg_read_mla(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, m->config, "rope_interleave", true, &m->hp.rope.pairs));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_read_sigmoid_router(ctx, m->config, &dflt, &moe));
    MT_TRY(mt_cfg_first_dense(ctx, m, 3, &sparse));
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status deepseek_v3_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_family *f = &mt_family_deepseek_v3;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_latent(ctx, m, f));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    return mt_cfg_hold_sigmoid(ctx, m, f, moe);
}

static mt_status deepseek_v3_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                          struct mt_json *config)
{
    (void)ctx;
    mt_cfg_write_common(m, &mt_family_deepseek_v3, config);
    mt_cfg_write_mla(m, config);
    mt_json_set_bool(config, "rope_interleave", m->hp.rope.pairs);
    mt_cfg_write_sigmoid_router(m, config);
    return MT_OK;
}

const struct mt_family mt_family_deepseek_v3 = {
    .name = "deepseek_v3",
    .architecture = "DeepseekV3ForCausalLM",
    .names = deepseek_v3_names,
    .moe = true,
    .read_config = deepseek_v3_read_config,
    .can_hold = deepseek_v3_can_hold,
    .write_config = deepseek_v3_write_config,
};
