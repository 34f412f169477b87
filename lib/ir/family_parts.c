/* Reading config.json: what two or three related families have in common. */
#include "lib/ir/family.h"

#include <math.h>

mt_status mt_cfg_read_granite_scales(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    double logits;
    bool bias;

    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &bias));
    hp->qkv_bias = hp->o_bias = bias;
    MT_TRY(mt_cfg_num(ctx, cfg, "embedding_multiplier", 1, -1e9, 1e9, &hp->embed_scale));
    MT_TRY(mt_cfg_num(ctx, cfg, "residual_multiplier", 1, -1e9, 1e9, &hp->residual_scale));
    MT_TRY(mt_cfg_num(ctx, cfg, "attention_multiplier", 1, 1e-30, 1e9, &hp->attn_scale));
    MT_TRY(mt_cfg_num(ctx, cfg, "logits_scaling", 1, 1e-30, 1e30, &logits));
    hp->logit_scale = 1 / logits;
    return MT_OK;
}

mt_status mt_cfg_read_granite(struct mt_ctx *ctx, struct mt_model *m, struct mt_ffn *moe)
{
    const struct mt_json *cfg = m->config;
    int64_t n, k;

    MT_TRY(mt_cfg_read_granite_scales(ctx, m));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    MT_TRY(mt_cfg_int(ctx, cfg, "intermediate_size", 11008, 1, MT_DIM_MAX, &moe->width));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_local_experts", 8, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", 2, 1, MT_EXPERTS_MAX, &k));
    moe->n_experts = (int)n;
    moe->k = (int)k;
    moe->rule = (struct mt_router_rule){
        .score = MT_SCORE_SOFTMAX_TOPK, .scale = 1, .n_group = 1, .topk_group = 1};
    return MT_OK;
}

mt_status mt_cfg_hold_granite(struct mt_ctx *ctx, const struct mt_model *m,
                              const struct mt_family *f, const struct mt_ffn **moe)
{
    const struct mt_attn_limits can = {
        .qkv_bias = true, .o_bias = true, .bias_together = true, .scales = true};
    struct mt_ffn routed;

    MT_TRY(mt_cfg_hold_attention(ctx, m, f, &can));
    MT_TRY(mt_cfg_hold_ffn(ctx, m, f, moe));
    for (int l = 0; l < m->hp.n_layers; l++)
        if (!m->ffn[l].moe)
            return mt_cfg_cannot(ctx, f, "dense layers beside sparse ones", "glm4_moe");
    if ((*moe)->shared_gated)
        return mt_cfg_cannot(ctx, f, "a gated shared expert", "qwen2_moe");
    routed = **moe;
    routed.shared_width = 0;
    return mt_cfg_hold_softmax(ctx, f, &routed, true);
}

/* The divisor that reads back as the same factor, short where there is a short one. */
static double parts_divisor(double factor)
{
    double v = 1 / factor, rounded = round(v * 1e6) / 1e6;

    return rounded != 0 && 1 / rounded == factor ? rounded : v;
}

void mt_cfg_write_granite_scales(const struct mt_model *m, struct mt_json *config)
{
    const struct mt_hparams *hp = &m->hp;

    mt_json_set_bool(config, "attention_bias", hp->qkv_bias);
    mt_json_set_num(config, "embedding_multiplier", hp->embed_scale);
    mt_json_set_num(config, "residual_multiplier", hp->residual_scale);
    /* Absent is 1, not the usual root. */
    mt_json_set_num(config, "attention_multiplier",
                    hp->attn_scale > 0 ? hp->attn_scale : 1 / sqrt((double)hp->head_dim));
    mt_json_set_num(config, "logits_scaling", parts_divisor(hp->logit_scale));
}

void mt_cfg_write_granite(const struct mt_model *m, const struct mt_family *f,
                          struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);

    mt_cfg_write_common(m, f, config);
    mt_cfg_write_granite_scales(m, config);
    mt_json_set_int(config, "intermediate_size", moe->width);
    mt_json_set_int(config, "num_local_experts", moe->n_experts);
    mt_json_set_int(config, "num_experts_per_tok", moe->k);
}

mt_status mt_cfg_read_alternate(struct mt_ctx *ctx, struct mt_model *m, int64_t dflt, int64_t every)
{
    int64_t window;
    bool found, *windowed;

    if (mt_json_kind(mt_json_get(m->config, "sliding_window")) == MT_JSON_NULL)
        return MT_OK;
    MT_TRY(mt_cfg_int(ctx, m->config, "sliding_window", dflt, 1, MT_DIM_MAX, &window));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *windowed, &windowed));
    MT_TRY(mt_cfg_layer_types(ctx, m, windowed, &found));
    for (int l = 0; !found && l < m->hp.n_layers; l++)
        windowed[l] = (l + 1) % every != 0;
    mt_cfg_set_windows(&m->hp, window, windowed);
    return MT_OK;
}

mt_status mt_cfg_read_gemma(struct mt_ctx *ctx, struct mt_model *m, int64_t every, double attn_cap,
                            double logit_cap)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    double scalar;
    bool bias;

    hp->head_dim = 256;
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "tie_word_embeddings", true, &hp->tied));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &bias));
    hp->qkv_bias = hp->o_bias = bias;
    hp->norm_offset = 1;
    hp->post_norms = true;
    hp->embed_scale = sqrt((double)hp->hidden);
    hp->embed_scale_rounded = true;
    MT_TRY(mt_cfg_num(ctx, cfg, "query_pre_attn_scalar", 256, 1e-9, 1e9, &scalar));
    hp->attn_scale = 1 / sqrt(scalar);
    /* null switches a cap off; an absent key means the default. */
    if (mt_json_kind(mt_json_get(cfg, "attn_logit_softcapping")) != MT_JSON_NULL)
        MT_TRY(mt_cfg_num(ctx, cfg, "attn_logit_softcapping", attn_cap, 0, 1e9, &hp->attn_softcap));
    if (mt_json_kind(mt_json_get(cfg, "final_logit_softcapping")) != MT_JSON_NULL)
        MT_TRY(
            mt_cfg_num(ctx, cfg, "final_logit_softcapping", logit_cap, 0, 1e9, &hp->logit_softcap));
    MT_TRY(mt_cfg_read_alternate(ctx, m, 4096, every));
    MT_TRY(mt_cfg_alloc_ffn(ctx, m));
    if (mt_json_text(mt_json_get(cfg, "hidden_activation")) == NULL)
        for (int l = 0; l < hp->n_layers; l++)
            m->ffn[l].act = MT_ACT_GELU_TANH;
    return MT_OK;
}

/* DeepSeek's own scale of scores: yarn's amplitude enters twice. */
static double parts_mla_scale(const struct mt_hparams *hp)
{
    const struct mt_rope_params *r = &hp->rope;
    double s = 1 / sqrt((double)(hp->mla.nope + hp->mla.rope));
    double mscale = r->factor > 1 ? 0.1 * r->mscale_all_dim * log(r->factor) + 1 : 1;

    return r->type != MT_ROPE_DEFAULT && r->mscale_all_dim > 0 ? s * mscale * mscale : s;
}

mt_status mt_cfg_read_mla(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    struct mt_mla a = {.eps = 1e-6};
    int64_t nope, rope, v;
    bool bias;

    MT_TRY(mt_cfg_int(ctx, cfg, "qk_rope_head_dim", 64, 2, 65536, &rope));
    MT_TRY(mt_cfg_int(ctx, cfg, "qk_nope_head_dim", 128, 1, 65536, &nope));
    MT_TRY(mt_cfg_int(ctx, cfg, "v_head_dim", 128, 1, 65536, &v));
    MT_TRY(mt_cfg_int(ctx, cfg, "kv_lora_rank", 512, 1, MT_DIM_MAX, &a.kv_rank));
    /* null: queries without a latent vector */
    if (mt_json_kind(mt_json_get(cfg, "q_lora_rank")) != MT_JSON_NULL)
        MT_TRY(mt_cfg_int(ctx, cfg, "q_lora_rank", 1536, 1, MT_DIM_MAX, &a.q_rank));
    if (rope % 2 != 0)
        return mt_fail(ctx, MT_E_FORMAT, "qk_rope_head_dim is %lld, expected an even number",
                       (long long)rope);
    hp->head_dim = (int)rope;
    MT_TRY(mt_cfg_read_common(ctx, m));
    MT_TRY(mt_json_get_bool(ctx, cfg, "attention_bias", false, &bias));
    hp->qkv_bias = hp->o_bias = bias;
    a.nope = (int)nope;
    a.rope = (int)rope;
    a.v = (int)v;
    hp->mla = a;
    hp->n_kv_heads = hp->n_heads;
    hp->head_dim = (int)(nope + rope > v ? nope + rope : v);
    hp->attn_scale = parts_mla_scale(hp);
    return MT_OK;
}

mt_status mt_cfg_hold_latent(struct mt_ctx *ctx, const struct mt_model *m,
                             const struct mt_family *f)
{
    const struct mt_attn_limits can = {.qkv_bias = true, .o_bias = true, .bias_together = true};
    struct mt_model plain = *m;

    if (m->hp.mla.kv_rank == 0)
        return mt_cfg_cannot(ctx, f, "ordinary attention", "glm4_moe");
    if (m->hp.mla.eps != 1e-6)
        return mt_cfg_cannot(ctx, f, "another epsilon in the norms of latent vectors", NULL);
    if (fabs(m->hp.attn_scale - parts_mla_scale(&m->hp)) > 1e-12)
        return mt_cfg_cannot(ctx, f, "another scale of attention scores", NULL);
    /* What is left must be what any decoder has. */
    plain.hp.mla = (struct mt_mla){0};
    plain.hp.attn_scale = 0;
    plain.hp.rope.pairs = false;
    return mt_cfg_hold_attention(ctx, &plain, f, &can);
}

void mt_cfg_write_mla(const struct mt_model *m, struct mt_json *config)
{
    const struct mt_mla *a = &m->hp.mla;

    mt_json_remove(config, "head_dim"); /* loaders take that of the rotary part */
    mt_json_set_bool(config, "attention_bias", m->hp.qkv_bias);
    if (a->q_rank > 0)
        mt_json_set_int(config, "q_lora_rank", a->q_rank);
    else
        mt_json_set_null(config, "q_lora_rank");
    mt_json_set_int(config, "kv_lora_rank", a->kv_rank);
    mt_json_set_int(config, "qk_nope_head_dim", a->nope);
    mt_json_set_int(config, "qk_rope_head_dim", a->rope);
    mt_json_set_int(config, "v_head_dim", a->v);
}

mt_status mt_cfg_read_encoder(struct mt_ctx *ctx, struct mt_model *m, const char *width_key)
{
    struct mt_ffn plain = {.in_bias = true, .out_bias = true, .act = MT_ACT_GELU};
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    double eps = hp->norm_eps > 0 ? hp->norm_eps : 1e-12;
    int64_t layers, heads;

    MT_TRY(mt_cfg_int(ctx, cfg, "num_hidden_layers", 12, 1, MT_LAYERS_MAX, &layers));
    MT_TRY(mt_cfg_int(ctx, cfg, "hidden_size", 768, 1, MT_DIM_MAX, &hp->hidden));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_attention_heads", 12, 1, 65536, &heads));
    MT_TRY(mt_cfg_num(ctx, cfg, "layer_norm_eps", eps, 0, 1, &hp->norm_eps));
    if (hp->hidden % heads != 0 || hp->hidden / heads > 65536)
        return mt_fail(ctx, MT_E_FORMAT, "hidden_size %lld does not divide into %lld heads",
                       (long long)hp->hidden, (long long)heads);
    MT_TRY(mt_cfg_plain(ctx, m));
    hp->n_layers = (int)layers;
    hp->n_heads = hp->n_kv_heads = (int)heads;
    hp->head_dim = (int)(hp->hidden / heads);
    hp->norm = MT_NORM_LAYER;
    hp->norm_bias = hp->qkv_bias = hp->o_bias = true;
    hp->both_ways = true;
    hp->rope = (struct mt_rope_params){.theta = 10000, .factor = 1, .partial = 0};
    if (width_key != NULL)
        MT_TRY(mt_cfg_int(ctx, cfg, width_key, 4 * hp->hidden, 1, MT_DIM_MAX, &plain.width));
    if (mt_json_get(cfg, "hidden_act") != NULL)
        MT_TRY(mt_cfg_read_act(ctx, cfg, "hidden_act", &plain.act));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)layers, sizeof *m->ffn, &m->ffn));
    for (int l = 0; l < hp->n_layers; l++)
        m->ffn[l] = plain;
    return MT_OK;
}

mt_status mt_cfg_read_patches(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    int64_t image, patch;

    /* Sides that differ are given as a list; then the count of patches is not told. */
    m->hp.given_input = true;
    if (mt_json_kind(mt_json_get(cfg, "image_size")) != MT_JSON_ARRAY &&
        mt_json_kind(mt_json_get(cfg, "patch_size")) != MT_JSON_ARRAY) {
        MT_TRY(mt_cfg_int(ctx, cfg, "image_size", 224, 1, 1 << 20, &image));
        MT_TRY(mt_cfg_int(ctx, cfg, "patch_size", 16, 1, image, &patch));
        m->hp.max_pos = (image / patch) * (image / patch) + 1;
    }
    return mt_json_get_bool(ctx, cfg, "qkv_bias", true, &m->hp.qkv_bias);
}
