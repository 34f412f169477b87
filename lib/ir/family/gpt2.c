/* GPT-2: learned positions, LayerNorm, plain FFNs, biases everywhere; matrices stored [in, out];
 * names with or without `transformer.`. */
#include "lib/ir/family.h"

/* Names of parts that a file holds transposed or together exist only here. */
#define GPT2_ROWS(prefix)                                                                          \
    MT_ROW(prefix "wte.weight", EMBED), MT_ROW(prefix "wpe.weight", POS_EMBED),                    \
        MT_ROW(prefix "ln_f.weight", FINAL_NORM), MT_ROW_BIAS(prefix "ln_f.bias", FINAL_NORM),     \
        MT_ROW(prefix "h.%l.ln_1.weight", ATTN_NORM),                                              \
        MT_ROW_BIAS(prefix "h.%l.ln_1.bias", ATTN_NORM),                                           \
        MT_ROW(prefix "h.%l.ln_2.weight", FFN_NORM),                                               \
        MT_ROW_BIAS(prefix "h.%l.ln_2.bias", FFN_NORM)
#define GPT2_PART(name, kind)                                                                      \
    MT_ROW("transformer.h.%l." name ".weight", kind),                                              \
        MT_ROW_BIAS("transformer.h.%l." name ".bias", kind)

static const struct mt_name_row gpt2_names[] = {
    GPT2_ROWS("transformer."),
    GPT2_ROWS(""),
    MT_ROW("lm_head.weight", LM_HEAD),
    GPT2_PART("attn.q_proj", ATTN_Q),
    GPT2_PART("attn.k_proj", ATTN_K),
    GPT2_PART("attn.v_proj", ATTN_V),
    GPT2_PART("attn.o_proj", ATTN_O),
    GPT2_PART("mlp.up_proj", FFN_UP),
    GPT2_PART("mlp.down_proj", FFN_DOWN),
    MT_ROWS_END,
};

#define GPT2_FUSED(name, ...)                                                                      \
    {name ".weight", MT_FUSED_TRANSPOSED, MT_PART_WEIGHT, MT_NAME_NO_EXPERT, {__VA_ARGS__}},       \
    {                                                                                              \
        name ".bias", MT_FUSED_TRANSPOSED, MT_PART_BIAS, MT_NAME_NO_EXPERT,                        \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define GPT2_FUSED_LAYER(prefix)                                                                   \
    GPT2_FUSED(prefix "h.%l.attn.c_attn", MT_ROLE_ATTN_Q, MT_ROLE_ATTN_K, MT_ROLE_ATTN_V),         \
        GPT2_FUSED(prefix "h.%l.attn.c_proj", MT_ROLE_ATTN_O),                                     \
        GPT2_FUSED(prefix "h.%l.mlp.c_fc", MT_ROLE_FFN_UP),                                        \
        GPT2_FUSED(prefix "h.%l.mlp.c_proj", MT_ROLE_FFN_DOWN)

static const struct mt_fused_row gpt2_fused[] = {
    GPT2_FUSED_LAYER("transformer."),
    GPT2_FUSED_LAYER(""),
    MT_FUSED_END,
};

static mt_status gpt2_read_sizes(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    int64_t layers, heads;

    MT_TRY(mt_cfg_int(ctx, cfg, "n_layer", 12, 1, MT_LAYERS_MAX, &layers));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_embd", 768, 1, MT_DIM_MAX, &hp->hidden));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_head", 12, 1, 65536, &heads));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_positions", 1024, 1, MT_DIM_MAX, &hp->max_pos));
    MT_TRY(mt_cfg_int(ctx, cfg, "vocab_size", 50257, 1, INT32_MAX, &hp->vocab));
    MT_TRY(mt_cfg_num(ctx, cfg, "layer_norm_epsilon", 1e-5, 0, 1, &hp->norm_eps));
    MT_TRY(mt_json_get_bool(ctx, cfg, "tie_word_embeddings", true, &hp->tied));
    if (hp->hidden % heads != 0 || hp->hidden / heads > 65536)
        return mt_fail(ctx, MT_E_FORMAT, "n_embd %lld does not divide into n_head = %lld heads",
                       (long long)hp->hidden, (long long)heads);
    hp->n_layers = (int)layers;
    hp->n_heads = hp->n_kv_heads = (int)heads;
    hp->head_dim = (int)(hp->hidden / heads);
    return MT_OK;
}

static mt_status gpt2_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn plain = {.in_bias = true, .out_bias = true, .act = MT_ACT_GELU_TANH};
    const struct mt_json *cfg = m->config;
    bool scaled, by_layer;

    MT_TRY(gpt2_read_sizes(ctx, m));
    MT_TRY(mt_cfg_plain(ctx, m));
    m->hp.norm = MT_NORM_LAYER;
    m->hp.norm_bias = m->hp.qkv_bias = m->hp.o_bias = m->hp.learned_pos = true;
    m->hp.rope = (struct mt_rope_params){.theta = 10000, .factor = 1, .partial = 1};
    MT_TRY(mt_json_get_bool(ctx, cfg, "scale_attn_weights", true, &scaled));
    MT_TRY(mt_json_get_bool(ctx, cfg, "scale_attn_by_inverse_layer_idx", false, &by_layer));
    if (by_layer)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "scale_attn_by_inverse_layer_idx is not known here");
    if (!scaled)
        m->hp.attn_scale = 1;
    MT_TRY(mt_cfg_int(ctx, cfg, "n_inner", 4 * m->hp.hidden, 1, MT_DIM_MAX, &plain.width));
    if (mt_json_get(cfg, "activation_function") != NULL)
        MT_TRY(mt_cfg_read_act(ctx, cfg, "activation_function", &plain.act));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *m->ffn, &m->ffn));
    for (int l = 0; l < m->hp.n_layers; l++)
        m->ffn[l] = plain;
    return MT_OK;
}

const struct mt_family mt_family_gpt2 = {
    .name = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .names = gpt2_names,
    .fused = gpt2_fused,
    .read_config = gpt2_read_config,
};
