/* What a model is, in the keys of its architecture. */
#include "formats/gguf_arch.h"

#include <math.h>
#include <string.h>

static void meta_yarn(const struct mt_model *m, const struct mt_gguf_arch *a, struct mt_gguf_out *o)
{
    const struct mt_rope_params *r = &m->hp.rope;

    mt_gguf_pair_u32(o, a->name, "rope.scaling.original_context_length",
                     (int64_t)r->original_max_pos);
    mt_gguf_pair_f32(o, a->name, "rope.scaling.yarn_beta_fast", r->beta_fast);
    mt_gguf_pair_f32(o, a->name, "rope.scaling.yarn_beta_slow", r->beta_slow);
    if ((a->does & MT_GGUF_LATENT) != 0 && r->mscale_all_dim > 0)
        mt_gguf_pair_f32(o, a->name, "rope.scaling.yarn_log_multiplier", r->mscale_all_dim / 10);
}

static void meta_rope(const struct mt_model *m, const struct mt_gguf_arch *a, struct mt_gguf_out *o)
{
    const struct mt_rope_params *r = &m->hp.rope;
    int64_t dim = m->hp.mla.kv_rank > 0 ? m->hp.mla.rope : (int64_t)(m->hp.head_dim * r->partial);

    mt_gguf_pair_f32(o, a->name, "rope.freq_base", r->theta);
    mt_gguf_pair_u32(o, a->name, "rope.dimension_count", dim);
    if (m->hp.local_rope)
        mt_gguf_pair_f32(o, a->name, "rope.freq_base_swa", m->hp.rope_local.theta);
    if (r->type == MT_ROPE_LLAMA3) {
        /* For ourselves: engines take the factors of each frequency from a tensor. */
        mt_gguf_pair_f32(o, "moetool", "rope.factor", r->factor);
        mt_gguf_pair_f32(o, "moetool", "rope.low_freq_factor", r->low_freq_factor);
        mt_gguf_pair_f32(o, "moetool", "rope.high_freq_factor", r->high_freq_factor);
        mt_gguf_pair_u32(o, "moetool", "rope.original_context_length",
                         (int64_t)r->original_max_pos);
    }
    if (r->type == MT_ROPE_LONGROPE) {
        mt_gguf_pair_u32(o, a->name, "rope.scaling.original_context_length",
                         (int64_t)r->original_max_pos);
        mt_gguf_pair_f32(o, a->name, "rope.scaling.attn_factor", mt_gguf_rope_amplitude(r));
    }
    if (r->type != MT_ROPE_LINEAR && r->type != MT_ROPE_YARN)
        return;
    mt_gguf_pair_text(o, a->name, "rope.scaling.type", r->type == MT_ROPE_YARN ? "yarn" : "linear");
    mt_gguf_pair_f32(o, a->name, "rope.scaling.factor", r->factor);
    if (r->type == MT_ROPE_YARN)
        meta_yarn(m, a, o);
}

/* The older keys of latent attention tell one wide head, as its graph computes it. */
static void meta_latent(const struct mt_model *m, const char *arch, struct mt_gguf_out *o)
{
    const struct mt_mla *l = &m->hp.mla;

    mt_gguf_pair_u32(o, arch, "attention.head_count_kv", 1);
    if (l->q_rank > 0)
        mt_gguf_pair_u32(o, arch, "attention.q_lora_rank", l->q_rank);
    mt_gguf_pair_u32(o, arch, "attention.kv_lora_rank", l->kv_rank);
    mt_gguf_pair_u32(o, arch, "attention.key_length", l->kv_rank + l->rope);
    mt_gguf_pair_u32(o, arch, "attention.value_length", l->kv_rank);
    mt_gguf_pair_u32(o, arch, "attention.key_length_mla", l->nope + l->rope);
    mt_gguf_pair_u32(o, arch, "attention.value_length_mla", l->v);
}

static void meta_factors(const struct mt_model *m, const struct mt_gguf_arch *a,
                         struct mt_gguf_out *o)
{
    const struct mt_hparams *hp = &m->hp;

    if ((a->does & MT_GGUF_SCALES) != 0) {
        mt_gguf_pair_f32(o, a->name, "attention.scale",
                         hp->attn_scale > 0 ? hp->attn_scale : 1 / sqrt((double)hp->head_dim));
        mt_gguf_pair_f32(o, a->name, "embedding_scale", hp->embed_scale);
        mt_gguf_pair_f32(o, a->name, "residual_scale", hp->residual_scale);
        mt_gguf_pair_f32(o, a->name, "logit_scale", 1 / hp->logit_scale);
    }
    if (hp->attn_softcap > 0)
        mt_gguf_pair_f32(o, a->name, "attn_logit_softcapping", hp->attn_softcap);
    if (hp->logit_softcap > 0)
        mt_gguf_pair_f32(o, a->name, "final_logit_softcapping", hp->logit_softcap);
    if (a->window_every > 0)
        mt_gguf_pair_u32(o, a->name, "attention.sliding_window",
                         hp->sliding_window > 0 ? hp->sliding_window : hp->max_pos);
    else if ((a->does & MT_GGUF_LONGROPE) != 0)
        mt_gguf_pair_u32(o, a->name, "attention.sliding_window", 0);
}

static void meta_attention(const struct mt_model *m, const struct mt_gguf_arch *a,
                           struct mt_gguf_out *o)
{
    const struct mt_hparams *hp = &m->hp;

    mt_gguf_pair_u32(o, a->name, "attention.head_count", hp->n_heads);
    if ((a->does & MT_GGUF_LATENT) != 0) {
        meta_latent(m, a->name, o);
    } else {
        mt_gguf_pair_u32(o, a->name, "attention.head_count_kv", hp->n_kv_heads);
        mt_gguf_pair_u32(o, a->name, "attention.key_length", hp->head_dim);
        mt_gguf_pair_u32(o, a->name, "attention.value_length", hp->head_dim);
    }
    mt_gguf_pair_f32(o, a->name,
                     hp->norm == MT_NORM_LAYER ? "attention.layer_norm_epsilon"
                                               : "attention.layer_norm_rms_epsilon",
                     hp->norm_eps);
    meta_factors(m, a, o);
    if (!hp->learned_pos)
        meta_rope(m, a, o);
}

static void meta_router(const struct mt_ffn *moe, const char *arch, struct mt_gguf_out *o)
{
    const struct mt_router_rule *r = &moe->rule;

    mt_gguf_pair_f32(o, arch, "expert_weights_scale", r->scale);
    mt_gguf_pair_bool(o, arch, "expert_weights_norm", r->renorm);
    mt_gguf_pair_u32(o, arch, "expert_gating_func", r->score == MT_SCORE_SIGMOID ? 2 : 1);
    mt_gguf_pair_u32(o, arch, "expert_group_count", r->n_group);
    mt_gguf_pair_u32(o, arch, "expert_group_used_count", r->topk_group);
}

static void meta_moe(const struct mt_model *m, const struct mt_gguf_arch *a, struct mt_gguf_out *o)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    int dense = 0;

    if (moe == NULL)
        return;
    while (!m->ffn[dense].moe)
        dense++;
    mt_gguf_pair_u32(o, a->name, "expert_count", moe->n_experts);
    mt_gguf_pair_u32(o, a->name, "expert_used_count", moe->k);
    if (strcmp(a->name, "llama") == 0)
        return;
    mt_gguf_pair_u32(o, a->name, "expert_feed_forward_length", moe->width);
    if ((a->does & MT_GGUF_LEAD) != 0) {
        mt_gguf_pair_u32(o, a->name, "leading_dense_block_count", dense);
        mt_gguf_pair_u32(o, a->name, "expert_shared_count", moe->shared_width / moe->width);
    }
    if (moe->shared_width > 0)
        mt_gguf_pair_u32(o, a->name, "expert_shared_feed_forward_length", moe->shared_width);
    if ((a->does & MT_GGUF_ROUTER_KEYS) != 0)
        meta_router(moe, a->name, o);
    if (strcmp(a->name, "ernie4_5-moe") == 0)
        mt_gguf_pair_u32(o, a->name, "interleave_moe_layer_step", 1);
    if (strcmp(a->name, "glm4moe") == 0)
        mt_gguf_pair_u32(o, a->name, "nextn_predict_layers", 0);
}

/* Dense width; where all layers are sparse, what the config says of it or an expert's. */
static int64_t meta_width(const struct mt_model *m, const char *arch)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    int64_t v;

    for (int l = 0; l < m->hp.n_layers; l++)
        if (!m->ffn[l].moe)
            return m->ffn[l].width;
    if (strcmp(arch, "llama") != 0 && strcmp(arch, "granitemoe") != 0 &&
        strcmp(arch, "olmoe") != 0 && strcmp(arch, "gpt-oss") != 0 &&
        mt_json_integer(mt_json_get(m->config, "intermediate_size"), &v) && v > 0 &&
        v <= MT_DIM_MAX)
        return v;
    return moe->width;
}

/* llama.cpp's number of the type that most bytes have; 1024: guessed. */
static int meta_file_type(const struct mt_model *m)
{
    static const struct {
        enum mt_dtype dtype;
        int number;
    } types[] = {{MT_F32, 0},   {MT_F16, 1},   {MT_BF16, 32}, {MT_Q4_0, 2},   {MT_Q4_1, 3},
                 {MT_Q5_0, 8},  {MT_Q5_1, 9},  {MT_Q8_0, 7},  {MT_Q2_K, 10},  {MT_Q3_K, 12},
                 {MT_Q4_K, 15}, {MT_Q5_K, 17}, {MT_Q6_K, 18}, {MT_MXFP4, 38}, {MT_NVFP4, 39}};
    uint64_t bytes[MT_DTYPE_COUNT] = {0};
    enum mt_dtype most = MT_F32;

    for (size_t i = 0; i < m->n_tensors; i++)
        bytes[m->tensors[i]->dtype] += mt_tensor_bytes(m->tensors[i]);
    for (int d = 0; d < MT_DTYPE_COUNT; d++)
        if (bytes[d] > bytes[most])
            most = (enum mt_dtype)d;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].dtype == most)
            return types[i].number;
    return 1024;
}

mt_status mt_gguf_put_model(struct mt_ctx *ctx, const struct mt_model *m, struct mt_gguf_out *o)
{
    const struct mt_gguf_arch *a = mt_gguf_arch_of_family(m->family);

    (void)ctx;
    mt_assert(a != NULL); /* mt_gguf_prepare */
    mt_gguf_pair_text(o, NULL, "general.architecture", a->name);
    mt_gguf_pair_text(o, NULL, "general.type", "model");
    mt_gguf_pair_u32(o, NULL, "general.file_type", meta_file_type(m));
    if (meta_file_type(m) > 1 && meta_file_type(m) != 32)
        mt_gguf_pair_u32(o, NULL, "general.quantization_version", 2);
    mt_gguf_pair_u32(o, a->name, "block_count", m->hp.n_layers);
    mt_gguf_pair_u32(o, a->name, "context_length", m->hp.max_pos);
    mt_gguf_pair_u32(o, a->name, "embedding_length", m->hp.hidden);
    mt_gguf_pair_u32(o, a->name, "feed_forward_length", meta_width(m, a->name));
    mt_gguf_pair_u32(o, a->name, "vocab_size", m->hp.vocab);
    meta_attention(m, a, o);
    meta_moe(m, a, o);
    return o->st;
}
