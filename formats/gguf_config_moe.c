/* Experts, routers and what else a family alone has, from a file's keys to those of its config. */
#include "formats/gguf_arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* How many layers of `c` a tensor of each is in the first of; -1: in none. */
static int64_t moe_first_layer(struct mt_gguf_config *c, const char *tensor)
{
    int64_t layers = 0;
    char name[96];

    (void)mt_json_integer(mt_json_get(c->out, "num_hidden_layers"), &layers);
    for (int64_t l = 0; l < layers; l++) {
        snprintf(name, sizeof name, "blk.%lld.%s", (long long)l, tensor);
        if (mt_gguf_tensor(c, name, NULL) != NULL)
            return l;
    }
    return -1;
}

/* Shared experts as a number of routed ones. */
static mt_status moe_shared(struct mt_gguf_config *c, const char *to)
{
    int64_t shared, width, shared_width;

    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_shared_count"), 0, &shared));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_feed_forward_length"), 0, &width));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_shared_feed_forward_length"), 0,
                       &shared_width));
    if (shared_width > 0 && (width <= 0 || shared_width != shared * width))
        return mt_gguf_cannot_read(c, "a shared expert of its own width");
    mt_json_set_int(c->out, to, shared);
    return MT_OK;
}

/* The router of the DeepSeek line. */
static mt_status moe_keys(struct mt_gguf_config *c)
{
    int64_t gating, dflt = strcmp(c->arch->family, "deepseek_v2") == 0 ? 1 : 2;
    bool norm;

    MT_TRY(mt_gguf_copy_int(c, "expert_count", "n_routed_experts"));
    mt_json_set_int(c->out, "n_group", 1);
    mt_json_set_int(c->out, "topk_group", 1);
    MT_TRY(mt_gguf_copy_int(c, "expert_group_count", "n_group"));
    MT_TRY(mt_gguf_copy_int(c, "expert_group_used_count", "topk_group"));
    mt_json_set_int(c->out, "first_k_dense_replace", 0);
    MT_TRY(mt_gguf_copy_int(c, "leading_dense_block_count", "first_k_dense_replace"));
    mt_json_set_num(c->out, "routed_scaling_factor", 1);
    MT_TRY(mt_gguf_copy_num(c, "expert_weights_scale", c->out, "routed_scaling_factor"));
    MT_TRY(mt_gguf_bool(c->ctx, c->g, mt_gguf_key(c, "expert_weights_norm"), false, &norm));
    mt_json_set_bool(c->out, "norm_topk_prob", norm);
    MT_TRY(moe_shared(c, "n_shared_experts"));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_gating_func"), dflt, &gating));
    if (gating == dflt)
        return MT_OK;
    return mt_gguf_cannot_read(c, dflt == 2 ? "a gating function other than sigmoid"
                                            : "a gating function other than softmax");
}

static mt_status moe_deepseek(struct mt_gguf_config *c)
{
    bool v2 = strcmp(c->arch->family, "deepseek_v2") == 0, norm = false;
    int64_t groups = 1;

    MT_TRY(moe_keys(c));
    (void)mt_json_truth(mt_json_get(c->out, "norm_topk_prob"), &norm);
    (void)mt_json_integer(mt_json_get(c->out, "n_group"), &groups);
    mt_json_set_bool(c->out, "attention_bias",
                     mt_gguf_tensor(c, "blk.0.attn_kv_a_mqa.bias", NULL) != NULL);
    if (!v2) {
        mt_json_set_bool(c->out, "rope_interleave", true);
        if (moe_first_layer(c, "exp_probs_b.bias") < 0)
            return mt_gguf_cannot_read(c, "a sigmoid router without exp_probs_b");
        return MT_OK;
    }
    if (norm)
        return mt_gguf_cannot_read(c, "a softmax router whose weights are renormalised");
    if (moe_first_layer(c, "exp_probs_b.bias") >= 0)
        return mt_gguf_cannot_read(c, "a softmax router with exp_probs_b");
    if (groups > 1)
        return mt_gguf_cannot_read(c, "groups of experts under a softmax router");
    mt_json_set_str(c->out, "topk_method", "greedy");
    return MT_OK;
}

static mt_status moe_qwen2(struct mt_gguf_config *c)
{
    mt_json_set_bool(c->out, "norm_topk_prob", false); /* fixed by the architecture */
    mt_json_set_bool(c->out, "qkv_bias", mt_gguf_tensor(c, "blk.0.attn_q.bias", NULL) != NULL);
    mt_json_set_int(c->out, "decoder_sparse_step", 1);
    MT_TRY(mt_gguf_copy_int(c, "expert_shared_feed_forward_length",
                            "shared_expert_intermediate_size"));
    return mt_gguf_copy_int(c, "expert_count", "num_experts");
}

static mt_status moe_qwen3(struct mt_gguf_config *c)
{
    mt_json_set_bool(c->out, "norm_topk_prob", true); /* fixed by the architecture */
    return mt_gguf_copy_int(c, "expert_count", "num_experts");
}

static mt_status moe_olmoe(struct mt_gguf_config *c)
{
    mt_json_set_bool(c->out, "norm_topk_prob", false); /* fixed by the architecture */
    mt_json_set_null(c->out, "clip_qkv");
    return mt_gguf_copy_int(c, "expert_count", "num_experts");
}

static mt_status moe_mixtral(struct mt_gguf_config *c)
{
    return mt_gguf_copy_int(c, "expert_count", "num_local_experts");
}

static mt_status moe_granite(struct mt_gguf_config *c)
{
    MT_TRY(mt_gguf_copy_int(c, "expert_count", "num_local_experts"));
    MT_TRY(mt_gguf_copy_int(c, "expert_shared_feed_forward_length", "shared_intermediate_size"));
    MT_TRY(mt_gguf_copy_num(c, "attention.scale", c->out, "attention_multiplier"));
    if (mt_json_get(c->out, "attention_multiplier") == NULL) {
        int64_t dim = 1;
        (void)mt_json_integer(mt_json_get(c->out, "head_dim"), &dim);
        mt_json_set_num(c->out, "attention_multiplier", 1 / sqrt((double)dim));
    }
    MT_TRY(mt_gguf_copy_num(c, "embedding_scale", c->out, "embedding_multiplier"));
    MT_TRY(mt_gguf_copy_num(c, "residual_scale", c->out, "residual_multiplier"));
    return mt_gguf_copy_num(c, "logit_scale", c->out, "logits_scaling");
}

static mt_status moe_ernie(struct mt_gguf_config *c)
{
    MT_TRY(mt_gguf_copy_int(c, "expert_count", "moe_num_experts"));
    MT_TRY(mt_gguf_copy_int(c, "expert_used_count", "moe_k"));
    mt_json_set_int(c->out, "moe_layer_start_index", 0);
    MT_TRY(mt_gguf_copy_int(c, "leading_dense_block_count", "moe_layer_start_index"));
    MT_TRY(mt_gguf_copy_int(c, "interleave_moe_layer_step", "moe_layer_interval"));
    mt_json_set_int(c->out, "moe_layer_end_index", -1);
    mt_json_set_bool(c->out, "use_bias", false);
    mt_json_set_num(c->out, "moe_norm_min", 1e-12);
    if (moe_first_layer(c, "exp_probs_b.bias") < 0)
        return mt_gguf_cannot_read(c, "a router without exp_probs_b");
    return moe_shared(c, "moe_num_shared_experts");
}

static mt_status moe_gpt_oss(struct mt_gguf_config *c)
{
    MT_TRY(mt_gguf_copy_int(c, "expert_count", "num_local_experts"));
    mt_json_set_num(c->out, "swiglu_limit", 7); /* fixed by the architecture */
    if (mt_gguf_find(c->g, mt_gguf_key(c, "rope.scaling.type")) == NULL) {
        struct mt_json *both = mt_json_set_object(c->out, "rope_parameters");
        double theta = 10000;
        (void)mt_json_number(mt_json_get(c->out, "rope_theta"), &theta);
        mt_json_set_str(both, "rope_type", "default");
        mt_json_set_num(both, "rope_theta", theta);
    }
    return mt_gguf_copy_int(c, "expert_feed_forward_length", "intermediate_size");
}

static mt_status moe_phi3(struct mt_gguf_config *c)
{
    mt_json_set_null(c->out, "sliding_window");
    return MT_OK;
}

/* The square of the scale of scores, which the architecture takes from the sizes alone. */
static mt_status moe_gemma(struct mt_gguf_config *c)
{
    int64_t dim = 1, hidden = 1, heads = 1, layers = 0, largest;
    bool two = strcmp(c->arch->name, "gemma2") == 0;

    (void)mt_json_integer(mt_json_get(c->out, "head_dim"), &dim);
    (void)mt_json_integer(mt_json_get(c->out, "hidden_size"), &hidden);
    (void)mt_json_integer(mt_json_get(c->out, "num_attention_heads"), &heads);
    (void)mt_json_integer(mt_json_get(c->out, "num_hidden_layers"), &layers);
    largest = two ? 46 : 62;
    mt_json_set_num(c->out, "query_pre_attn_scalar",
                    layers == largest ? (double)hidden / (double)heads : (double)dim);
    mt_json_set_str(c->out, "hidden_activation", "gelu_pytorch_tanh");
    mt_json_remove(c->out, "hidden_act");
    if (mt_json_get(c->out, "sliding_window") == NULL)
        mt_json_set_null(c->out, "sliding_window");
    mt_json_set_null(c->out, "attn_logit_softcapping");
    mt_json_set_null(c->out, "final_logit_softcapping");
    if (two) {
        mt_json_set_num(c->out, "attn_logit_softcapping", 50);
        mt_json_set_num(c->out, "final_logit_softcapping", 30);
        MT_TRY(mt_gguf_copy_num(c, "attn_logit_softcapping", c->out, "attn_logit_softcapping"));
    } else {
        mt_json_set_num(c->out, "rope_local_base_freq", 10000);
        MT_TRY(mt_gguf_copy_num(c, "rope.freq_base_swa", c->out, "rope_local_base_freq"));
    }
    return mt_gguf_copy_num(c, "final_logit_softcapping", c->out, "final_logit_softcapping");
}

static const struct {
    const char *family;
    mt_status (*fill)(struct mt_gguf_config *c);
} moe_fillers[] = {
    {"mixtral", moe_mixtral},
    {"qwen3_moe", moe_qwen3},
    {"qwen2_moe", moe_qwen2},
    {"glm4_moe", moe_keys},
    {"dots1", moe_keys},
    {"olmoe", moe_olmoe},
    {"granitemoe", moe_granite},
    {"granitemoeshared", moe_granite},
    {"deepseek_v2", moe_deepseek},
    {"deepseek_v3", moe_deepseek},
    {"ernie4_5_moe", moe_ernie},
    {"gpt_oss", moe_gpt_oss},
    {"phi3", moe_phi3},
    {"gemma2", moe_gemma},
    {"gemma3_text", moe_gemma},
};

mt_status mt_gguf_config_ffn(struct mt_gguf_config *c)
{
    MT_TRY(mt_gguf_copy_int(c, "feed_forward_length", "intermediate_size"));
    mt_json_set_str(c->out, "hidden_act", "silu");
    MT_TRY(mt_gguf_copy_int(c, "expert_used_count", "num_experts_per_tok"));
    MT_TRY(mt_gguf_copy_int(c, "expert_feed_forward_length", "moe_intermediate_size"));
    for (size_t i = 0; i < sizeof moe_fillers / sizeof moe_fillers[0]; i++)
        if (strcmp(moe_fillers[i].family, c->arch->family) == 0)
            return moe_fillers[i].fill(c);
    return MT_OK;
}
