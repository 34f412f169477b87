/* DeepSeek-V2: latent attention; softmax router over groups whose worth is their best expert. The
 * weights are never renormalised: its code reads norm_topk_prob and ignores it. */
#include "lib/ir/family.h"

#include <string.h>

static const struct mt_name_row deepseek_v2_names[] = {
    MT_ROWS_MLA, MT_ROWS_DENSE_FFN, MT_ROWS_ROUTED_FFN, MT_ROWS_SHARED_FFN, MT_ROWS_END,
};

static mt_status deepseek_v2_read_router(struct mt_ctx *ctx, const struct mt_json *cfg,
                                         struct mt_ffn *moe)
{
    struct mt_router_rule *r = &moe->rule;
    int64_t n, k, shared, groups, best;
    const char *method;

    MT_TRY(mt_cfg_int(ctx, cfg, "moe_intermediate_size", 1407, 1, MT_DIM_MAX, &moe->width));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_routed_experts", 64, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 0, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_shared_experts", 2, 0, MT_EXPERTS_MAX, &shared));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_group", 1, 1, n, &groups));
    MT_TRY(mt_cfg_int(ctx, cfg, "topk_group", groups, 1, groups, &best));
    MT_TRY(mt_cfg_num(ctx, cfg, "routed_scaling_factor", 1, -1e9, 1e9, &r->scale));
    MT_TRY(mt_json_get_str(ctx, cfg, "topk_method", "greedy", &method));
    if (strcmp(method, "greedy") == 0)
        groups = best = 1;
    else if (strcmp(method, "group_limited_greedy") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "topk_method \"%s\" is not known here", method);
    moe->n_experts = (int)n;
    moe->k = (int)k;
    moe->shared_width = shared * moe->width;
    r->score = MT_SCORE_SOFTMAX;
    r->n_group = (int)groups;
    r->topk_group = (int)best;
    return MT_OK;
}

static mt_status deepseek_v2_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {.gated = true};
    bool bias, *sparse = NULL;

    MT_TRY(mt_cfg_read_mla(ctx, m));
    m->hp.rope.pairs = true;
    MT_TRY(mt_json_get_bool(ctx, m->config, "mlp_bias", false, &bias));
    if (bias)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "mlp_bias is not known here");
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(deepseek_v2_read_router(ctx, m->config, &moe));
    MT_TRY(mt_cfg_first_dense(ctx, m, 0, &sparse));
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status deepseek_v2_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_family *f = &mt_family_deepseek_v2;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_latent(ctx, m, f));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    if (!m->hp.rope.pairs)
        return mt_cfg_cannot(ctx, f, "features that turn half by half", "deepseek_v3");
    if (moe->rule.score != MT_SCORE_SOFTMAX || moe->rule.has_bias)
        return mt_cfg_cannot(ctx, f, "a sigmoid router or a selection bias", "deepseek_v3");
    if (moe->rule.renorm)
        return mt_cfg_cannot(ctx, f, "renormalised router weights", NULL);
    return mt_cfg_hold_shared(ctx, m, f, moe);
}

static mt_status deepseek_v2_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                          struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);

    (void)ctx;
    mt_cfg_write_common(m, &mt_family_deepseek_v2, config);
    mt_cfg_write_mla(m, config);
    mt_cfg_write_sigmoid_router(m, config);
    mt_json_set_str(config, "topk_method",
                    moe->rule.n_group > 1 ? "group_limited_greedy" : "greedy");
    mt_json_set_bool(config, "mlp_bias", false);
    return MT_OK;
}

const struct mt_family mt_family_deepseek_v2 = {
    .name = "deepseek_v2",
    .architecture = "DeepseekV2ForCausalLM",
    .names = deepseek_v2_names,
    .moe = true,
    .read_config = deepseek_v2_read_config,
    .can_hold = deepseek_v2_can_hold,
    .write_config = deepseek_v2_write_config,
};
