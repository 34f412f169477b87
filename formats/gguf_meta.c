/* What a model is, in the keys of its architecture. */
#include "formats/gguf.h"

#include <string.h>

static mt_status meta_cannot(struct mt_ctx *ctx, const char *arch, const char *what)
{
    return mt_fail(ctx, MT_E_UNSUPPORTED,
                   "GGUF architecture %s does not hold %s; write safetensors instead", arch, what);
}

/* What the graph of the architecture would leave out or compute otherwise. */
static mt_status meta_check_attention(struct mt_ctx *ctx, const struct mt_model *m,
                                      const char *arch)
{
    const struct mt_hparams *hp = &m->hp;
    bool llama = strcmp(arch, "llama") == 0;

    if (mt_hp_has_window(hp))
        return meta_cannot(ctx, arch, "a sliding window");
    if (hp->rope.type != MT_ROPE_DEFAULT && hp->rope.type != MT_ROPE_LINEAR &&
        hp->rope.type != MT_ROPE_YARN && !(hp->rope.type == MT_ROPE_LLAMA3 && llama))
        return meta_cannot(ctx, arch,
                           hp->rope.type == MT_ROPE_DYNAMIC  ? "dynamic rope scaling"
                           : hp->rope.type == MT_ROPE_LLAMA3 ? "llama3 rope scaling"
                                                             : "this rope scaling");
    if (hp->rope.type == MT_ROPE_YARN &&
        (hp->rope.attention_factor > 0 || hp->rope.mscale > 0 || hp->rope.mscale_all_dim > 0))
        return meta_cannot(ctx, arch, "yarn with an attention factor of its own");
    if (hp->rope.partial < 1 && strcmp(arch, "glm4moe") != 0)
        return meta_cannot(ctx, arch, "rotary positions on a part of each head");
    if (hp->o_bias && !llama)
        return meta_cannot(ctx, arch, "a bias on o_proj");
    if (hp->qkv_bias && (strcmp(arch, "qwen3") == 0 || strcmp(arch, "qwen3moe") == 0))
        return meta_cannot(ctx, arch, "biases on q, k and v");
    if (hp->n_heads * hp->head_dim % 2 != 0 || hp->head_dim % 2 != 0)
        return meta_cannot(ctx, arch, "heads of odd size");
    return MT_OK;
}

static mt_status meta_check_ffn(struct mt_ctx *ctx, const struct mt_model *m, const char *arch)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);

    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        if (f->act != MT_ACT_SILU || !f->gated)
            return meta_cannot(ctx, arch, "activations other than gated silu");
        if ((f->in_bias || f->out_bias) && strcmp(arch, "llama") != 0)
            return meta_cannot(ctx, arch, "biases in FFNs");
        if (moe == NULL || f->moe)
            continue;
        if (strcmp(arch, "glm4moe") != 0)
            return meta_cannot(ctx, arch, "dense layers beside sparse ones");
    }
    if (moe == NULL)
        return MT_OK;
    if (strcmp(arch, "glm4moe") == 0 && moe->shared_width == 0)
        return meta_cannot(ctx, arch, "layers without a shared expert");
    if (strcmp(arch, "glm4moe") != 0 && !moe->rule.renorm &&
        moe->rule.score != MT_SCORE_SOFTMAX_TOPK)
        return meta_cannot(ctx, arch, "a router whose weights do not sum to one");
    return MT_OK;
}

static void meta_attention(const struct mt_model *m, const char *arch, struct mt_gguf_out *o)
{
    const struct mt_hparams *hp = &m->hp;
    const struct mt_rope_params *r = &hp->rope;

    mt_gguf_pair_u32(o, arch, "attention.head_count", hp->n_heads);
    mt_gguf_pair_u32(o, arch, "attention.head_count_kv", hp->n_kv_heads);
    mt_gguf_pair_u32(o, arch, "attention.key_length", hp->head_dim);
    mt_gguf_pair_u32(o, arch, "attention.value_length", hp->head_dim);
    mt_gguf_pair_f32(o, arch, "attention.layer_norm_rms_epsilon", hp->norm_eps);
    mt_gguf_pair_f32(o, arch, "rope.freq_base", r->theta);
    mt_gguf_pair_u32(o, arch, "rope.dimension_count", (int64_t)(hp->head_dim * r->partial));
    if (r->type == MT_ROPE_LLAMA3) {
        /* For ourselves: engines take the factors of each frequency from a tensor. */
        mt_gguf_pair_f32(o, "moetool", "rope.factor", r->factor);
        mt_gguf_pair_f32(o, "moetool", "rope.low_freq_factor", r->low_freq_factor);
        mt_gguf_pair_f32(o, "moetool", "rope.high_freq_factor", r->high_freq_factor);
        mt_gguf_pair_u32(o, "moetool", "rope.original_context_length",
                         (int64_t)r->original_max_pos);
    }
    if (r->type == MT_ROPE_DEFAULT || r->type == MT_ROPE_LLAMA3)
        return;
    mt_gguf_pair_text(o, arch, "rope.scaling.type", r->type == MT_ROPE_YARN ? "yarn" : "linear");
    mt_gguf_pair_f32(o, arch, "rope.scaling.factor", r->factor);
    if (r->type != MT_ROPE_YARN)
        return;
    mt_gguf_pair_u32(o, arch, "rope.scaling.original_context_length", (int64_t)r->original_max_pos);
    mt_gguf_pair_f32(o, arch, "rope.scaling.yarn_beta_fast", r->beta_fast);
    mt_gguf_pair_f32(o, arch, "rope.scaling.yarn_beta_slow", r->beta_slow);
}

static void meta_moe(const struct mt_model *m, const char *arch, struct mt_gguf_out *o)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    int dense = 0;

    if (moe == NULL)
        return;
    while (!m->ffn[dense].moe)
        dense++;
    mt_gguf_pair_u32(o, arch, "expert_count", moe->n_experts);
    mt_gguf_pair_u32(o, arch, "expert_used_count", moe->k);
    if (strcmp(arch, "llama") == 0)
        return;
    mt_gguf_pair_u32(o, arch, "expert_feed_forward_length", moe->width);
    if (strcmp(arch, "glm4moe") != 0)
        return;
    mt_gguf_pair_u32(o, arch, "leading_dense_block_count", dense);
    mt_gguf_pair_u32(o, arch, "expert_shared_count", moe->shared_width / moe->width);
    mt_gguf_pair_f32(o, arch, "expert_weights_scale", moe->rule.scale);
    mt_gguf_pair_bool(o, arch, "expert_weights_norm", moe->rule.renorm);
    mt_gguf_pair_u32(o, arch, "expert_gating_func", 2);
    mt_gguf_pair_u32(o, arch, "expert_group_count", moe->rule.n_group);
    mt_gguf_pair_u32(o, arch, "expert_group_used_count", moe->rule.topk_group);
    mt_gguf_pair_u32(o, arch, "nextn_predict_layers", 0);
}

/* Dense width; where all layers are sparse, what the config says of it or an expert's. */
static int64_t meta_width(const struct mt_model *m, const char *arch)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    int64_t v;

    for (int l = 0; l < m->hp.n_layers; l++)
        if (!m->ffn[l].moe)
            return m->ffn[l].width;
    if (strcmp(arch, "llama") != 0 &&
        mt_json_integer(mt_json_get(m->config, "intermediate_size"), &v) && v > 0 &&
        v <= MT_DIM_MAX)
        return v;
    return moe->width;
}

/* llama.cpp's number of the type that most bytes have. */
static int meta_file_type(const struct mt_model *m)
{
    uint64_t bytes[MT_DTYPE_COUNT] = {0};
    enum mt_dtype most = MT_F32;

    for (size_t i = 0; i < m->n_tensors; i++)
        bytes[m->tensors[i]->dtype] += mt_tensor_bytes(m->tensors[i]);
    for (int d = 0; d < MT_DTYPE_COUNT; d++)
        if (bytes[d] > bytes[most])
            most = (enum mt_dtype)d;
    return most == MT_F32 ? 0 : most == MT_F16 ? 1 : most == MT_BF16 ? 32 : 1024; /* guessed */
}

mt_status mt_gguf_holds(struct mt_ctx *ctx, const struct mt_model *m)
{
    const char *arch = m->family != NULL ? mt_gguf_arch(m->family) : NULL;

    if (arch == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: no GGUF architecture is known for it; write safetensors instead",
                       m->model_type != NULL ? m->model_type : m->path);
    MT_TRY(meta_check_attention(ctx, m, arch));
    return meta_check_ffn(ctx, m, arch);
}

mt_status mt_gguf_put_model(struct mt_ctx *ctx, const struct mt_model *m, struct mt_gguf_out *o)
{
    const char *arch;

    MT_TRY(mt_gguf_holds(ctx, m));
    arch = mt_gguf_arch(m->family);
    mt_gguf_pair_text(o, NULL, "general.architecture", arch);
    mt_gguf_pair_text(o, NULL, "general.type", "model");
    mt_gguf_pair_u32(o, NULL, "general.file_type", meta_file_type(m));
    if (meta_file_type(m) == 1024)
        mt_gguf_pair_u32(o, NULL, "general.quantization_version", 2);
    mt_gguf_pair_u32(o, arch, "block_count", m->hp.n_layers);
    mt_gguf_pair_u32(o, arch, "context_length", m->hp.max_pos);
    mt_gguf_pair_u32(o, arch, "embedding_length", m->hp.hidden);
    mt_gguf_pair_u32(o, arch, "feed_forward_length", meta_width(m, arch));
    mt_gguf_pair_u32(o, arch, "vocab_size", m->hp.vocab);
    meta_attention(m, arch, o);
    meta_moe(m, arch, o);
    return o->st;
}
