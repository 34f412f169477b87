/* ERNIE 4.5 MoE: softmax router, selection with a bias, features that turn in consecutive pairs. */
#include "lib/ir/family.h"

static const struct mt_name_row ernie4_5_moe_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_ROUTED_FFN,
    MT_ROW("model.layers.%l.mlp.moe_statics.e_score_correction_bias", ROUTER_BIAS),
    MT_ROW("model.layers.%l.mlp.gate.moe_statics.e_score_correction_bias", ROUTER_BIAS),
    MT_ROWS_SHARED_FFN,
    MT_ROWS_END,
};

static mt_status ernie4_5_moe_sparse(struct mt_ctx *ctx, struct mt_model *m, bool **out)
{
    const struct mt_json *cfg = m->config;
    int64_t first, last, interval;
    bool *sparse;

    MT_TRY(mt_cfg_int(ctx, cfg, "moe_layer_start_index", 1, 0, MT_LAYERS_MAX, &first));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_layer_end_index", -1, -1, MT_LAYERS_MAX, &last));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_layer_interval", 1, 1, MT_LAYERS_MAX, &interval));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *sparse, &sparse));
    for (int l = 0; l < m->hp.n_layers; l++)
        sparse[l] = (l + 1) % interval == 0 && l >= first && (last < 0 || l <= last);
    *out = sparse;
    return MT_OK;
}

static mt_status ernie4_5_moe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {.rule = {.score = MT_SCORE_SOFTMAX,
                                  .renorm = true,
                                  .scale = 1,
                                  .has_bias = true,
                                  .n_group = 1,
                                  .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    int64_t n, k, shared;
    bool bias, *sparse = NULL;

    m->hp.norm_eps = 1e-5;
    m->hp.rope.theta = 500000;
    MT_TRY(mt_cfg_read_common(ctx, m));
    m->hp.rope.pairs = true;
    MT_TRY(mt_json_get_bool(ctx, cfg, "tie_word_embeddings", true, &m->hp.tied));
    MT_TRY(mt_json_get_bool(ctx, cfg, "use_bias", false, &bias));
    if (bias)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "use_bias is not known here");
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_intermediate_size", 1536, 1, MT_DIM_MAX, &moe.width));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_num_experts", 64, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_k", 6, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_cfg_int(ctx, cfg, "moe_num_shared_experts", 2, 0, MT_EXPERTS_MAX, &shared));
    MT_TRY(mt_cfg_num(ctx, cfg, "moe_norm_min", 1e-12, 0, 1, &moe.rule.renorm_min));
    MT_TRY(ernie4_5_moe_sparse(ctx, m, &sparse));
    moe.n_experts = (int)n;
    moe.k = (int)k;
    moe.shared_width = shared * moe.width;
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

const struct mt_family mt_family_ernie4_5_moe = {
    .name = "ernie4_5_moe",
    .architecture = "Ernie4_5_MoeForCausalLM",
    .names = ernie4_5_moe_names,
    .moe = true,
    .read_config = ernie4_5_moe_read_config,
};
