/* Writing config.json: what a family can hold, and the keys families have in common. */
#include "lib/ir/blocks.h"
#include "lib/ir/family.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

mt_status mt_cfg_cannot(struct mt_ctx *ctx, const struct mt_family *f, const char *what,
                        const char *other)
{
    if (other == NULL && f->moe && !f->wraps)
        other = "only the native layout";
    if (other == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s cannot hold %s, and no other architecture known here can", f->name,
                       what);
    return mt_fail(ctx, MT_E_UNSUPPORTED, "%s cannot hold %s; %s can", f->name, what, other);
}

/* A family of the same kind (dense, MoE) for the model's attention, to name in refusals. */
static const char *write_other(const struct mt_model *m, const struct mt_family *f)
{
    const struct mt_hparams *hp = &m->hp;
    bool norm = hp->qk_norm == MT_QK_NORM_HEAD, window = mt_hp_has_window(hp);

    if (hp->qk_norm == MT_QK_NORM_FULL)
        return NULL;
    if (f->moe) {
        if (hp->o_bias || window)
            return norm && hp->o_bias == hp->qkv_bias && hp->rope.partial >= 1 ? "qwen3_moe"
                   : !hp->o_bias && !hp->qkv_bias && !norm                     ? "mixtral"
                   : hp->o_bias && hp->qkv_bias && !norm && !window            ? "granitemoeshared"
                                                                               : NULL;
        return "glm4_moe";
    }
    if (hp->rope.partial < 1)
        return NULL;
    if (norm)
        return hp->o_bias == hp->qkv_bias ? "qwen3" : NULL;
    if (window)
        return hp->o_bias ? NULL : hp->qkv_bias ? "qwen2" : "mistral";
    return hp->o_bias == hp->qkv_bias ? "llama" : hp->qkv_bias ? "qwen2" : NULL;
}

/* What stands around blocks must be known to be written under other names. */
static mt_status write_not_blocks(struct mt_ctx *ctx, const struct mt_model *m,
                                  const struct mt_family *f)
{
    if (mt_model_only_blocks(m))
        return mt_cfg_cannot(ctx, f, "a model of which only the FFNs are known", "native");
    if (m->base != NULL && m->base->inside)
        return mt_cfg_cannot(ctx, f, "a text model inside another (text_config)", "native");
    return MT_OK;
}

mt_status mt_cfg_hold_attention(struct mt_ctx *ctx, const struct mt_model *m,
                                const struct mt_family *f, const struct mt_attn_limits *can)
{
    const struct mt_hparams *hp = &m->hp;
    const char *other = write_other(m, f);

    MT_TRY(write_not_blocks(ctx, m, f));
    if (hp->norm != MT_NORM_RMS || hp->norm_offset != 0)
        return mt_cfg_cannot(ctx, f, "these norms (plain RMSNorm only)", NULL);
    if (!can->scales && (hp->embed_scale != 1 || hp->logit_scale != 1 || hp->residual_scale != 1 ||
                         hp->attn_scale != 0))
        return mt_cfg_cannot(ctx, f, "scaled embeddings, residuals, attention or logits",
                             f->moe ? "granitemoeshared" : NULL);
    if (hp->embed_scale_rounded)
        return mt_cfg_cannot(ctx, f, "embeddings scaled by a rounded factor", NULL);
    if (hp->attn_softcap != 0 || hp->logit_softcap != 0 || (hp->clip_qkv != 0 && !can->clip) ||
        hp->sinks)
        return mt_cfg_cannot(ctx, f, "soft-capped, clipped or sunk attention", NULL);
    if (hp->post_norms || hp->norm_bias)
        return mt_cfg_cannot(ctx, f, "norms behind its blocks", NULL);
    if (hp->learned_pos || hp->local_rope || hp->rope.pairs)
        return mt_cfg_cannot(ctx, f, "its positions (rotary, half by half, only)", NULL);
    if (hp->mla.kv_rank > 0)
        return mt_cfg_cannot(ctx, f, "latent attention", NULL);
    if (can->narrow && (int64_t)hp->n_heads * hp->head_dim != hp->hidden)
        return mt_cfg_cannot(ctx, f, "heads that together are not as wide as the hidden state",
                             hp->qk_norm != MT_QK_NORM_FULL ? other : NULL);
    if (hp->windowed != NULL && mt_hp_has_window(hp))
        return mt_cfg_cannot(ctx, f, "windows in every few layers", NULL);
    if (hp->qk_norm == MT_QK_NORM_FULL && !can->full_norm)
        return mt_cfg_cannot(ctx, f, "q/k norms over all heads at once", f->moe ? "olmoe" : NULL);
    if (hp->qk_norm != MT_QK_NORM_FULL && can->full_norm)
        return mt_cfg_cannot(ctx, f, "attention without q/k norms over all heads", other);
    if (hp->qk_norm == MT_QK_NORM_HEAD && !can->head_norm)
        return mt_cfg_cannot(ctx, f, "q/k norms", other);
    if (hp->qk_norm == MT_QK_NORM_NONE && can->head_norm_needed)
        return mt_cfg_cannot(ctx, f, "attention without q/k norms", other);
    if (hp->qkv_bias && !can->qkv_bias)
        return mt_cfg_cannot(ctx, f, "biases on q, k and v", other);
    if (!hp->qkv_bias && can->bias_needed)
        return mt_cfg_cannot(ctx, f, "attention without biases on q, k and v", other);
    if (hp->o_bias && !can->o_bias)
        return mt_cfg_cannot(ctx, f, "a bias on o_proj", other);
    if (hp->o_bias != hp->qkv_bias && can->bias_together)
        return mt_cfg_cannot(ctx, f, "biases on only some of q, k, v and o", other);
    if (hp->rope.partial < 1 && !can->partial)
        return mt_cfg_cannot(ctx, f, "rotary positions on a part of each head", other);
    if (mt_hp_has_window(hp) && !can->window)
        return mt_cfg_cannot(ctx, f, "sliding-window attention", other);
    if (mt_hp_has_window(hp) && hp->window_first_layer > 0 && !can->window_from)
        return mt_cfg_cannot(ctx, f, "a sliding window in some layers only", f->moe ? NULL : other);
    return MT_OK;
}

static bool write_same_rule(const struct mt_router_rule *a, const struct mt_router_rule *b)
{
    return a->score == b->score && a->renorm == b->renorm && a->renorm_eps == b->renorm_eps &&
           a->scale == b->scale && a->has_bias == b->has_bias && a->n_group == b->n_group &&
           a->topk_group == b->topk_group;
}

/* The first way in which a MoE layer differs from the first one; NULL when it does not. */
static const char *write_difference(const struct mt_ffn *a, const struct mt_ffn *b)
{
    return a->n_experts != b->n_experts           ? "expert counts that differ between layers"
           : a->k != b->k                         ? "different numbers of active experts by layer"
           : a->width != b->width                 ? "expert widths that differ between layers"
           : a->shared_width != b->shared_width   ? "shared experts that differ between layers"
           : a->shared_gated != b->shared_gated   ? "shared experts that differ between layers"
           : a->act != b->act                     ? "activations that differ between layers"
           : !write_same_rule(&a->rule, &b->rule) ? "router rules that differ between layers"
                                                  : NULL;
}

mt_status mt_cfg_hold_ffn(struct mt_ctx *ctx, const struct mt_model *m, const struct mt_family *f,
                          const struct mt_ffn **moe)
{
    const struct mt_ffn *first = mt_model_first_moe(m), *dense = NULL;

    *moe = first;
    MT_TRY(write_not_blocks(ctx, m, f));
    if (f->moe && first == NULL)
        return mt_cfg_cannot(ctx, f, "a model without experts", "its own dense architecture");
    if (!f->moe && first != NULL)
        return mt_cfg_cannot(ctx, f, "experts", "glm4_moe");
    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *x = &m->ffn[l];

        if (!x->gated)
            return mt_cfg_cannot(ctx, f, "FFNs without a gate", NULL);
        if (x->glu_limit > 0)
            return mt_cfg_cannot(ctx, f, "FFNs that clamp their gate", NULL);
        if (mt_ffn_special(x) != NULL)
            return mt_cfg_cannot(ctx, f, mt_ffn_special(x), NULL);
        if (f->moe && (x->in_bias || x->out_bias))
            return mt_cfg_cannot(ctx, f, "biases in FFNs", NULL);
        if (f->moe && x->act != MT_ACT_SILU) {
            char what[64];

            snprintf(what, sizeof what, "%s experts (SiLU only)", mt_act_name(x->act));
            return mt_cfg_cannot(ctx, f, what, NULL);
        }
        if (first != NULL && x->moe && write_difference(first, x) != NULL)
            return mt_cfg_cannot(ctx, f, write_difference(first, x), NULL);
        if (!x->moe && dense == NULL)
            dense = x;
        if (!x->moe && x->width != dense->width)
            return mt_cfg_cannot(ctx, f, "FFN widths that differ between layers", NULL);
        if (!x->moe && (x->act != dense->act || x->in_bias != dense->in_bias ||
                        x->out_bias != dense->out_bias))
            return mt_cfg_cannot(ctx, f, "FFNs that differ between layers", NULL);
    }
    return MT_OK;
}

mt_status mt_cfg_hold_softmax(struct mt_ctx *ctx, const struct mt_family *f,
                              const struct mt_ffn *moe, bool renorm)
{
    const struct mt_router_rule *r = &moe->rule;

    if (moe->shared_width > 0)
        return mt_cfg_cannot(ctx, f, "a shared expert", "glm4_moe");
    if (r->score == MT_SCORE_SIGMOID)
        return mt_cfg_cannot(ctx, f, "a sigmoid router", "glm4_moe");
    if (r->has_bias)
        return mt_cfg_cannot(ctx, f, "a selection bias in the router", "glm4_moe");
    if (r->scale != 1)
        return mt_cfg_cannot(ctx, f, "scaled router weights", "glm4_moe");
    if (r->n_group > 1)
        return mt_cfg_cannot(ctx, f, "groups of experts", "glm4_moe");
    if (renorm && r->score == MT_SCORE_SOFTMAX && !r->renorm)
        return mt_cfg_cannot(ctx, f, "router weights that are not renormalised", "qwen3_moe");
    if ((r->renorm || r->score == MT_SCORE_SOFTMAX_TOPK) && r->renorm_eps != 0)
        return mt_cfg_cannot(ctx, f, "an epsilon in the renormalisation", NULL);
    return MT_OK;
}

mt_status mt_cfg_hold_shared(struct mt_ctx *ctx, const struct mt_model *m,
                             const struct mt_family *f, const struct mt_ffn *moe)
{
    for (int l = 1; l < m->hp.n_layers; l++)
        if (m->ffn[l - 1].moe && !m->ffn[l].moe)
            return mt_cfg_cannot(ctx, f, "dense layers behind sparse ones", "qwen3_moe");
    if (moe->shared_gated)
        return mt_cfg_cannot(ctx, f, "a gated shared expert", NULL);
    if (moe->shared_width % moe->width != 0)
        return mt_cfg_cannot(
            ctx, f, "a shared expert whose width is no multiple of the routed experts'", NULL);
    return MT_OK;
}

mt_status mt_cfg_hold_sigmoid(struct mt_ctx *ctx, const struct mt_model *m,
                              const struct mt_family *f, const struct mt_ffn *moe)
{
    const struct mt_router_rule *r = &moe->rule;

    MT_TRY(mt_cfg_hold_shared(ctx, m, f, moe));
    if (r->score != MT_SCORE_SIGMOID)
        return mt_cfg_cannot(ctx, f, "a softmax router", "qwen3_moe or mixtral");
    if (!r->has_bias)
        return mt_cfg_cannot(ctx, f, "a router without a selection bias (zeros where unused)",
                             NULL);
    if (r->renorm && r->renorm_eps != 1e-20)
        return mt_cfg_cannot(ctx, f, "a renormalisation without its 1e-20", NULL);
    /* Its code ranks groups by their best two experts, even a single group. */
    if (moe->n_experts / r->n_group < 2)
        return mt_cfg_cannot(ctx, f, "fewer than two experts in a group", "mixtral");
    return MT_OK;
}

/* Whole numbers without a fraction: loaders check some of these for being integers. */
static void write_whole(struct mt_json *to, const char *key, double v)
{
    if (v == (double)(int64_t)v)
        mt_json_set_int(to, key, (int64_t)v);
    else
        mt_json_set_num(to, key, v);
}

static void write_rope_factors(const struct mt_rope_params *r, int n_freq, struct mt_json *to)
{
    struct mt_json *s = mt_json_set_array(to, "short_factor");
    struct mt_json *l = mt_json_set_array(to, "long_factor");

    for (int i = 0; i < n_freq; i++) {
        mt_json_add_num(s, r->short_factor[i]);
        mt_json_add_num(l, r->long_factor[i]);
    }
    if (r->attention_factor > 0)
        mt_json_set_num(to, "attention_factor", r->attention_factor);
}

/* n_freq: frequencies, half the features that rotate. */
static void write_rope_scaling(const struct mt_rope_params *r, int n_freq, struct mt_json *to)
{
    static const char *const names[] = {"default", "linear", "dynamic",
                                        "llama3",  "yarn",   "longrope"};

    mt_json_set_str(to, "rope_type", names[r->type]);
    if (r->type == MT_ROPE_DEFAULT)
        return;
    mt_json_set_num(to, "factor", r->factor);
    if (r->type >= MT_ROPE_LLAMA3)
        write_whole(to, "original_max_position_embeddings", r->original_max_pos);
    if (r->type == MT_ROPE_LLAMA3) {
        mt_json_set_num(to, "low_freq_factor", r->low_freq_factor);
        mt_json_set_num(to, "high_freq_factor", r->high_freq_factor);
    }
    if (r->type == MT_ROPE_LONGROPE)
        write_rope_factors(r, n_freq, to);
    if (r->type != MT_ROPE_YARN)
        return;
    if (r->no_truncate)
        mt_json_set_bool(to, "truncate", false);
    mt_json_set_num(to, "beta_fast", r->beta_fast);
    mt_json_set_num(to, "beta_slow", r->beta_slow);
    /* Zero means that the loader's formula decides: say nothing. */
    if (r->attention_factor > 0)
        mt_json_set_num(to, "attention_factor", r->attention_factor);
    if (r->mscale > 0)
        mt_json_set_num(to, "mscale", r->mscale);
    if (r->mscale_all_dim > 0)
        mt_json_set_num(to, "mscale_all_dim", r->mscale_all_dim);
}

void mt_cfg_write_rope(const struct mt_model *m, struct mt_json *config)
{
    const struct mt_rope_params *r = &m->hp.rope;
    int n_freq = (int)(m->hp.head_dim * r->partial) / 2;
    struct mt_json *both;

    mt_json_set_num(config, "rope_theta", r->theta);
    mt_json_remove(config, "rope_scaling");
    mt_json_remove(config, "partial_rotary_factor");
    if (r->type != MT_ROPE_DEFAULT)
        write_rope_scaling(r, n_freq, mt_json_set_object(config, "rope_scaling"));
    if (r->partial < 1)
        mt_json_set_num(config, "partial_rotary_factor", r->partial);
    mt_json_remove(config, "rope_parameters");
    both = mt_json_set_object(config, "rope_parameters");
    write_rope_scaling(r, n_freq, both);
    mt_json_set_num(both, "rope_theta", r->theta);
    if (r->partial < 1)
        mt_json_set_num(both, "partial_rotary_factor", r->partial);
}

void mt_cfg_write_dtype(const struct mt_model *m, struct mt_json *config)
{
    static const struct {
        enum mt_dtype dtype;
        const char *name;
    } names[] = {
        {MT_F64, "float64"}, {MT_F32, "float32"}, {MT_F16, "float16"}, {MT_BF16, "bfloat16"}};
    const struct mt_tensor *t = mt_model_find(m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE));

    for (size_t i = 0; t != NULL && i < sizeof names / sizeof names[0]; i++)
        if (names[i].dtype == t->dtype) {
            mt_json_set_str(config, "torch_dtype", names[i].name);
            mt_json_set_str(config, "dtype", names[i].name);
        }
}

const char *mt_cfg_act_name(enum mt_act act)
{
    static const char *const names[] = {"silu", "gelu",  "gelu_pytorch_tanh",
                                        "relu", "relu2", "quick_gelu"};

    return names[act];
}

/* Keys of one family that another would misread, or that describe what may have changed. */
static const char *const write_stale[] = {
    "attention_bias",
    "mlp_bias",
    "use_qk_norm",
    "use_sliding_window",
    "sliding_window",
    "max_window_layers",
    "layer_types",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_shared_experts",
    "shared_expert_intermediate_size",
    "shared_intermediate_size",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "logits_scaling",
    "qkv_bias",
    "clip_qkv",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
    "first_k_dense_replace",
    "routed_scaling_factor",
    "n_group",
    "topk_group",
    "scoring_func",
    "topk_method",
    "moe_layer_freq",
    "num_nextn_predict_layers",
    "num_mtp_layers",
    "router_jitter_noise",
    "pretraining_tp",
    "original_max_position_embeddings",
};

void mt_cfg_write_common(const struct mt_model *m, const struct mt_family *f,
                         struct mt_json *config)
{
    const struct mt_hparams *hp = &m->hp;
    const char *type = mt_json_text(mt_json_get(config, "model_type"));
    const struct mt_ffn *dense = NULL;
    struct mt_json *arch;

    for (size_t i = 0; i < sizeof write_stale / sizeof write_stale[0]; i++)
        mt_json_remove(config, write_stale[i]);
    if (type == NULL || strcmp(type, f->name) != 0)
        mt_json_remove(config, "auto_map"); /* names classes of the source's own code */
    arch = mt_json_set_array(config, "architectures");
    mt_json_add_str(arch, f->architecture);
    mt_json_set_str(config, "model_type", f->name);
    mt_json_set_int(config, "hidden_size", hp->hidden);
    mt_json_set_int(config, "num_hidden_layers", hp->n_layers);
    mt_json_set_int(config, "num_attention_heads", hp->n_heads);
    mt_json_set_int(config, "num_key_value_heads", hp->n_kv_heads);
    mt_json_set_int(config, "head_dim", hp->head_dim);
    mt_json_set_int(config, "vocab_size", hp->vocab);
    mt_json_set_int(config, "max_position_embeddings", hp->max_pos);
    mt_json_set_num(config, "rms_norm_eps", hp->norm_eps);
    mt_json_set_bool(config, "tie_word_embeddings", hp->tied);
    for (int l = 0; l < hp->n_layers && dense == NULL; l++)
        if (!m->ffn[l].moe)
            dense = &m->ffn[l];
    if (dense != NULL)
        mt_json_set_int(config, "intermediate_size", dense->width);
    mt_json_set_str(config, "hidden_act", mt_cfg_act_name(m->ffn[0].act));
    mt_cfg_write_dtype(m, config);
    mt_cfg_write_rope(m, config);
}

void mt_cfg_write_window(const struct mt_model *m, struct mt_json *config)
{
    bool use = mt_hp_has_window(&m->hp);

    mt_json_set_bool(config, "use_sliding_window", use);
    if (use) {
        mt_json_set_int(config, "sliding_window", m->hp.sliding_window);
        mt_json_set_int(config, "max_window_layers", m->hp.window_first_layer);
    } else {
        mt_json_set_null(config, "sliding_window");
    }
}

/* Layers of next-token predictors that travel along behind the last layer. A declared one whose
 * tensors are gone breaks loaders. */
static int write_predictors(const struct mt_model *m)
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

void mt_cfg_write_sigmoid_router(const struct mt_model *m, struct mt_json *config)
{
    const struct mt_ffn *moe = mt_model_first_moe(m);
    int dense = 0;

    while (!m->ffn[dense].moe)
        dense++;
    mt_json_set_int(config, "moe_intermediate_size", moe->width);
    mt_json_set_int(config, "n_routed_experts", moe->n_experts);
    mt_json_set_int(config, "num_experts_per_tok", moe->k);
    mt_json_set_int(config, "n_shared_experts", moe->shared_width / moe->width);
    mt_json_set_int(config, "n_group", moe->rule.n_group);
    mt_json_set_int(config, "topk_group", moe->rule.topk_group);
    mt_json_set_bool(config, "norm_topk_prob", moe->rule.renorm);
    mt_json_set_num(config, "routed_scaling_factor", moe->rule.scale);
    mt_json_set_int(config, "first_k_dense_replace", dense);
    mt_json_set_int(config, "num_nextn_predict_layers", write_predictors(m));
    if (mt_json_get(config, "intermediate_size") == NULL)
        mt_json_set_int(config, "intermediate_size", moe->width);
}

void mt_cfg_write_qwen_moe(const struct mt_model *m, const struct mt_ffn *moe,
                           struct mt_json *config)
{
    struct mt_json *only;

    mt_json_set_int(config, "moe_intermediate_size", moe->width);
    mt_json_set_int(config, "num_experts", moe->n_experts);
    mt_json_set_int(config, "num_experts_per_tok", moe->k);
    mt_json_set_bool(config, "norm_topk_prob",
                     moe->rule.renorm || moe->rule.score == MT_SCORE_SOFTMAX_TOPK);
    mt_json_set_int(config, "decoder_sparse_step", 1);
    only = mt_json_set_array(config, "mlp_only_layers");
    for (int l = 0; l < m->hp.n_layers; l++)
        if (!m->ffn[l].moe)
            mt_json_add_int(only, l);
    /* Loaders build their dense layers' width from it even where there is none. */
    if (mt_json_get(config, "intermediate_size") == NULL)
        mt_json_set_int(config, "intermediate_size", moe->width);
}
