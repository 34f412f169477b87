/* GLM4-MoE: the DeepSeek-V3 router (sigmoid, selection bias, groups) over ordinary attention.
 *
 * The common denominator for converted models: weights need no rescaling, any number of experts
 * and active experts, a selection bias, a shared expert, biases on q, k and v. */
#include "lib/ir/family.h"

#include <stdio.h>
#include <string.h>

static const struct mt_name_row glm4_moe_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_QK_NORM,
    MT_ROWS_DENSE_FFN,
    MT_ROWS_ROUTED_FFN,
    MT_ROW("model.layers.%l.mlp.gate.e_score_correction_bias", ROUTER_BIAS),
    MT_ROW_SHARED("model.layers.%l.mlp.shared_experts.gate_proj.weight", FFN_GATE),
    MT_ROW_SHARED("model.layers.%l.mlp.shared_experts.up_proj.weight", FFN_UP),
    MT_ROW_SHARED("model.layers.%l.mlp.shared_experts.down_proj.weight", FFN_DOWN),
    MT_ROWS_END,
};

static mt_status glm4_moe_read_router(struct mt_ctx *ctx, const struct mt_json *cfg,
                                      struct mt_ffn *moe)
{
    int64_t n, k, shared, groups, best;
    const char *count =
        mt_json_get(cfg, "n_routed_experts") != NULL ? "n_routed_experts" : "num_local_experts";

    MT_TRY(mt_cfg_int(ctx, cfg, "moe_intermediate_size", 1408, 1, MT_DIM_MAX, &moe->width));
    MT_TRY(mt_cfg_int(ctx, cfg, count, 128, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 8, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_shared_experts", 1, 0, MT_EXPERTS_MAX, &shared));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_group", 1, 1, n, &groups));
    MT_TRY(mt_cfg_int(ctx, cfg, "topk_group", 1, 1, groups, &best));
    MT_TRY(mt_json_get_bool(ctx, cfg, "norm_topk_prob", true, &moe->rule.renorm));
    MT_TRY(mt_cfg_num(ctx, cfg, "routed_scaling_factor", 1, -1e9, 1e9, &moe->rule.scale));
    moe->n_experts = (int)n;
    moe->k = (int)k;
    moe->shared_width = shared * moe->width;
    moe->rule.score = MT_SCORE_SIGMOID;
    moe->rule.renorm_eps = 1e-20;
    moe->rule.has_bias = true;
    moe->rule.n_group = (int)groups;
    moe->rule.topk_group = (int)best;
    return MT_OK;
}

static mt_status glm4_moe_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_ffn moe = {.gated = true};
    int64_t first;
    bool qk_norm, *sparse = NULL;

    m->hp.norm_eps = 1e-5;
    m->hp.rope.partial = 0.5;
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &m->hp.qkv_bias));
    MT_TRY(mt_json_get_bool(ctx, cfg, "use_qk_norm", false, &qk_norm));
    m->hp.qk_norm = qk_norm ? MT_QK_NORM_HEAD : MT_QK_NORM_NONE;
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(glm4_moe_read_router(ctx, cfg, &moe));
    MT_TRY(mt_cfg_int(ctx, cfg, "first_k_dense_replace", 1, 0, MT_LAYERS_MAX, &first));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *sparse, &sparse));
    for (int l = 0; l < m->hp.n_layers; l++)
        sparse[l] = l >= first;
    return mt_cfg_set_moe(ctx, m, &moe, sparse);
}

static mt_status glm4_moe_hold_router(struct mt_ctx *ctx, const struct mt_ffn *moe)
{
    const struct mt_family *f = &mt_family_glm4_moe;
    const struct mt_router_rule *r = &moe->rule;

    if (r->score != MT_SCORE_SIGMOID)
        return mt_cfg_cannot(ctx, f, "a softmax router", "qwen3_moe or mixtral");
    if (!r->has_bias)
        return mt_cfg_cannot(ctx, f, "a router without a selection bias (zeros where unused)",
                             NULL);
    if (r->renorm && r->renorm_eps != 1e-20)
        return mt_cfg_cannot(ctx, f, "a renormalisation without its 1e-20", NULL);
    if (moe->shared_gated)
        return mt_cfg_cannot(ctx, f, "a gated shared expert", NULL);
    if (moe->shared_width % moe->width != 0)
        return mt_cfg_cannot(
            ctx, f, "a shared expert whose width is no multiple of the routed experts'", NULL);
    /* Its code ranks groups by their best two experts, even a single group. */
    if (moe->n_experts / r->n_group < 2)
        return mt_cfg_cannot(ctx, f, "fewer than two experts in a group", "mixtral");
    return MT_OK;
}

static mt_status glm4_moe_can_hold(struct mt_ctx *ctx, const struct mt_model *m)
{
    const struct mt_attn_limits can = {.qkv_bias = true, .head_norm = true, .partial = true};
    const struct mt_family *f = &mt_family_glm4_moe;
    const struct mt_ffn *moe;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, &moe));
    for (int l = 1; l < m->hp.n_layers; l++)
        if (m->ffn[l - 1].moe && !m->ffn[l].moe)
            return mt_cfg_cannot(ctx, f, "dense layers behind sparse ones", "qwen3_moe");
    return glm4_moe_hold_router(ctx, moe);
}

/* Layers of next-token predictors that travel along behind the last layer. A declared one whose
 * tensors are gone breaks loaders. */
static int glm4_moe_predictors(const struct mt_model *m)
{
    char prefix[64];
    int n = 0;

    for (;; n++) {
        size_t len =
            (size_t)snprintf(prefix, sizeof prefix, "model.layers.%d.", m->hp.n_layers + n);
        bool found = false;

        for (size_t i = 0; i < m->n_tensors && !found; i++)
            found = m->tensors[i]->role.kind == MT_ROLE_OTHER && m->tensors[i]->name != NULL &&
                    strncmp(m->tensors[i]->name, prefix, len) == 0;
        if (!found)
            return n;
    }
}

static mt_status glm4_moe_write_config(struct mt_ctx *ctx, const struct mt_model *m,
                                       struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    int dense = 0;

    (void)ctx;
    mt_cfg_write_common(m, &mt_family_glm4_moe, config);
    while (!m->ffn[dense].moe)
        dense++;
    /* Loaders take one half when it is absent. */
    mt_json_set_num(config, "partial_rotary_factor", m->hp.rope.partial);
    mt_json_set_num(mt_json_get(config, "rope_parameters"), "partial_rotary_factor",
                    m->hp.rope.partial);
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    mt_json_set_bool(config, "use_qk_norm", m->hp.qk_norm == MT_QK_NORM_HEAD);
    mt_json_set_int(config, "moe_intermediate_size", moe->width);
    mt_json_set_int(config, "n_routed_experts", moe->n_experts);
    mt_json_set_int(config, "num_experts_per_tok", moe->k);
    mt_json_set_int(config, "n_shared_experts", moe->shared_width / moe->width);
    mt_json_set_int(config, "n_group", moe->rule.n_group);
    mt_json_set_int(config, "topk_group", moe->rule.topk_group);
    mt_json_set_bool(config, "norm_topk_prob", moe->rule.renorm);
    mt_json_set_num(config, "routed_scaling_factor", moe->rule.scale);
    mt_json_set_int(config, "first_k_dense_replace", dense);
    mt_json_set_int(config, "num_nextn_predict_layers", glm4_moe_predictors(m));
    if (mt_json_get(config, "intermediate_size") == NULL)
        mt_json_set_int(config, "intermediate_size", moe->width);
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
