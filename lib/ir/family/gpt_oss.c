/* gpt-oss: attention with sinks, every second layer with a window; a router with a bias; experts
 * with biases and a cut GLU, stored as transposed stacks in which gate and up take turns. */
#include "lib/ir/family.h"

static const struct mt_name_row gpt_oss_names[] = {
    MT_ROWS_FRAME,
    MT_ROWS_QKV_BIAS,
    MT_ROWS_O_BIAS,
    MT_ROW("model.layers.%l.self_attn.sinks", ATTN_SINKS),
    MT_ROW("model.layers.%l.mlp.router.weight", ROUTER),
    MT_ROW_BIAS("model.layers.%l.mlp.router.bias", ROUTER),
    MT_ROW_EXPERT("model.layers.%l.mlp.experts.%e.gate_proj.weight", FFN_GATE),
    MT_ROW_EXPERT("model.layers.%l.mlp.experts.%e.up_proj.weight", FFN_UP),
    MT_ROW_EXPERT("model.layers.%l.mlp.experts.%e.down_proj.weight", FFN_DOWN),
    MT_ROW_EXPERT_BIAS("model.layers.%l.mlp.experts.%e.gate_proj.bias", FFN_GATE),
    MT_ROW_EXPERT_BIAS("model.layers.%l.mlp.experts.%e.up_proj.bias", FFN_UP),
    MT_ROW_EXPERT_BIAS("model.layers.%l.mlp.experts.%e.down_proj.bias", FFN_DOWN),
    MT_ROWS_END,
};

#define GPT_OSS_IN (MT_FUSED_STACK | MT_FUSED_TRANSPOSED | MT_FUSED_INTERLEAVED)
#define GPT_OSS_OUT (MT_FUSED_STACK | MT_FUSED_TRANSPOSED)
#define GPT_OSS_FUSED(name, flags, part, ...)                                                      \
    {                                                                                              \
        "model.layers.%l.mlp.experts." name, flags, part, MT_NAME_ROUTED,                          \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const struct mt_fused_row gpt_oss_fused[] = {
    GPT_OSS_FUSED("gate_up_proj", GPT_OSS_IN, MT_PART_WEIGHT, MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP),
    GPT_OSS_FUSED("gate_up_proj_bias", GPT_OSS_IN, MT_PART_BIAS, MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP),
    GPT_OSS_FUSED("down_proj", GPT_OSS_OUT, MT_PART_WEIGHT, MT_ROLE_FFN_DOWN),
    GPT_OSS_FUSED("down_proj_bias", GPT_OSS_OUT, MT_PART_BIAS, MT_ROLE_FFN_DOWN),
    GPT_OSS_FUSED("gate_up_proj_blocks", MT_FUSED_MXFP4, MT_PART_WEIGHT, MT_ROLE_FFN_GATE,
                  MT_ROLE_FFN_UP),
    GPT_OSS_FUSED("down_proj_blocks", MT_FUSED_MXFP4, MT_PART_WEIGHT, MT_ROLE_FFN_DOWN),
    MT_FUSED_END,
};

static mt_status gpt_oss_read_attention(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    bool bias;

    hp->norm_eps = 1e-5;
    hp->head_dim = 64;
    hp->rope.theta = 150000;
    MT_TRY(mt_cfg_read_common(ctx, m));
    if (mt_json_kind(mt_json_get(cfg, "rope_parameters")) != MT_JSON_OBJECT &&
        mt_json_kind(mt_json_get(cfg, "rope_scaling")) != MT_JSON_OBJECT) {
        hp->rope.type = MT_ROPE_YARN;
        hp->rope.factor = 32;
        hp->rope.beta_fast = 32;
        hp->rope.beta_slow = 1;
        hp->rope.no_truncate = true;
        hp->rope.original_max_pos = 4096;
    }
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", true, &bias));
    hp->qkv_bias = hp->o_bias = bias;
    hp->sinks = true;
    return mt_cfg_read_alternate(ctx, m, 128, 2);
}

static mt_status gpt_oss_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn moe = {
        .in_bias = true,
        .out_bias = true,
        .router_bias = true,
        .rule = {.score = MT_SCORE_SOFTMAX_TOPK, .scale = 1, .n_group = 1, .topk_group = 1}};
    const struct mt_json *cfg = m->config;
    double alpha;
    int64_t n, k;

    MT_TRY(gpt_oss_read_attention(ctx, m));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "intermediate_size", 2880, 1, MT_DIM_MAX, &moe.width));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_local_experts", 128, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 4, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(mt_cfg_num(ctx, cfg, "swiglu_alpha", 1.702, 0, 1e6, &alpha));
    MT_TRY(mt_cfg_num(ctx, cfg, "swiglu_limit", 7, 1e-6, 1e30, &moe.glu_limit));
    if (alpha != 1.702)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "swiglu_alpha %g is not known here, only 1.702",
                       alpha);
    for (int l = 0; l < m->hp.n_layers; l++)
        m->ffn[l].act = MT_ACT_QUICK_GELU;
    moe.n_experts = (int)n;
    moe.k = (int)k;
    return mt_cfg_set_moe(ctx, m, &moe, NULL);
}

const struct mt_family mt_family_gpt_oss = {
    .name = "gpt_oss",
    .architecture = "GptOssForCausalLM",
    .names = gpt_oss_names,
    .fused = gpt_oss_fused,
    .moe = true,
    .read_config = gpt_oss_read_config,
};
