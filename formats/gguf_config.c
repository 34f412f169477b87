/* Metadata of a GGUF file as the config.json of the same model. */
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *arch, *family;
    bool experts;
} config_archs[] = {
    {"llama", "llama", false},     {"llama", "mistral", false}, {"llama", "mixtral", true},
    {"qwen2", "qwen2", false},     {"qwen3", "qwen3", false},   {"qwen3moe", "qwen3_moe", true},
    {"glm4moe", "glm4_moe", true},
};
#define CONFIG_ARCHS (sizeof config_archs / sizeof config_archs[0])

const char *mt_gguf_family(const char *arch, bool experts)
{
    for (size_t i = 0; i < CONFIG_ARCHS; i++)
        if (strcmp(config_archs[i].arch, arch) == 0 && config_archs[i].experts == experts)
            return config_archs[i].family;
    return NULL;
}

const char *mt_gguf_arch(const struct mt_family *f)
{
    for (size_t i = 0; i < CONFIG_ARCHS; i++)
        if (strcmp(config_archs[i].family, f->name) == 0)
            return config_archs[i].arch;
    return NULL;
}

struct config {
    struct mt_ctx *ctx;
    const struct mt_gguf *g; /* the file with the metadata */
    const struct mt_gguf *const *files;
    size_t n_files;
    const char *arch, *family;
    struct mt_json *out;
    char key[160];
};

static const char *config_key(struct config *c, const char *name)
{
    snprintf(c->key, sizeof c->key, "%s.%s", c->arch, name);
    return c->key;
}

static const struct mt_gguf_record *config_tensor(const struct config *c, const char *name)
{
    for (size_t f = 0; f < c->n_files; f++)
        for (size_t i = 0; i < c->files[f]->n; i++)
            if (strcmp(c->files[f]->v[i].name, name) == 0)
                return &c->files[f]->v[i];
    return NULL;
}

/* Copies an integer (number) under another name; without the key nothing is set. */
static mt_status config_int(struct config *c, const char *from, const char *to)
{
    int64_t v;

    if (mt_gguf_find(c->g, config_key(c, from)) == NULL)
        return MT_OK;
    MT_TRY(mt_gguf_int(c->ctx, c->g, c->key, 0, &v));
    mt_json_set_int(c->out, to, v);
    return MT_OK;
}

static mt_status config_num(struct config *c, const char *from, struct mt_json *obj, const char *to)
{
    double v;

    if (mt_gguf_find(c->g, config_key(c, from)) == NULL)
        return MT_OK;
    MT_TRY(mt_gguf_num(c->ctx, c->g, c->key, 0, &v));
    mt_json_set_num(obj, to, v);
    return MT_OK;
}

static mt_status config_cannot(struct config *c, const char *what)
{
    return mt_fail(c->ctx, MT_E_UNSUPPORTED, "%s: %s is not known here", c->arch, what);
}

/* Frequencies that are given one by one: Llama 3's. */
static mt_status config_freqs(struct config *c, size_t file, const struct mt_gguf_record *r)
{
    struct mt_hparams hp = {.rope = {.partial = 1}};
    struct mt_json *s;
    int64_t dim = 0;

    (void)mt_json_integer(mt_json_get(c->out, "head_dim"), &dim);
    (void)mt_json_number(mt_json_get(c->out, "rope_theta"), &hp.rope.theta);
    if (dim < 2 || dim > 65536 || !(hp.rope.theta >= 1) || strcmp(c->arch, "llama") != 0)
        return config_cannot(c, MT_GGUF_ROPE_FREQS);
    hp.head_dim = (int)dim;
    MT_TRY(mt_gguf_rope_guess(c->ctx, c->g, c->files[file], r, &hp));
    s = mt_json_set_object(c->out, "rope_scaling");
    mt_json_set_str(s, "rope_type", "llama3");
    mt_json_set_num(s, "factor", hp.rope.factor);
    mt_json_set_num(s, "low_freq_factor", hp.rope.low_freq_factor);
    mt_json_set_num(s, "high_freq_factor", hp.rope.high_freq_factor);
    mt_json_set_int(s, "original_max_position_embeddings", (int64_t)hp.rope.original_max_pos);
    return MT_OK;
}

static mt_status config_scaling(struct config *c, struct mt_arena *a)
{
    const char *type = NULL;
    struct mt_json *s;

    for (size_t f = 0; f < c->n_files; f++)
        for (size_t i = 0; i < c->files[f]->n; i++)
            if (strcmp(c->files[f]->v[i].name, MT_GGUF_ROPE_FREQS) == 0)
                return config_freqs(c, f, &c->files[f]->v[i]);
    MT_TRY(mt_gguf_str(c->ctx, c->g, config_key(c, "rope.scaling.type"), a, &type));
    if (type == NULL || strcmp(type, "none") == 0)
        return MT_OK;
    s = mt_json_set_object(c->out, "rope_scaling");
    mt_json_set_str(s, "rope_type", type);
    MT_TRY(config_num(c, "rope.scaling.factor", s, "factor"));
    if (strcmp(type, "yarn") != 0)
        return MT_OK;
    MT_TRY(config_num(c, "rope.scaling.original_context_length", s,
                      "original_max_position_embeddings"));
    MT_TRY(config_num(c, "rope.scaling.yarn_beta_fast", s, "beta_fast"));
    return config_num(c, "rope.scaling.yarn_beta_slow", s, "beta_slow");
}

static mt_status config_attention(struct config *c, struct mt_arena *a)
{
    int64_t hidden, heads, dim, value, rotary, window;

    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "embedding_length"), 0, &hidden));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "attention.head_count"), 0, &heads));
    if (hidden <= 0 || heads <= 0)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s.%s is missing", c->arch,
                       hidden <= 0 ? "embedding_length" : "attention.head_count");
    mt_json_set_int(c->out, "hidden_size", hidden);
    mt_json_set_int(c->out, "num_attention_heads", heads);
    MT_TRY(config_int(c, "attention.head_count_kv", "num_key_value_heads"));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "attention.key_length"), hidden / heads, &dim));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "attention.value_length"), dim, &value));
    if (value != dim)
        return config_cannot(c, "a value length other than the key length");
    mt_json_set_int(c->out, "head_dim", dim);
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "attention.sliding_window"), 0, &window));
    if (window > 0) {
        mt_json_set_int(c->out, "sliding_window", window);
        mt_json_set_bool(c->out, "use_sliding_window", true);
        mt_json_set_int(c->out, "max_window_layers", 0);
    }
    MT_TRY(config_num(c, "attention.layer_norm_rms_epsilon", c->out, "rms_norm_eps"));
    mt_json_set_num(c->out, "rope_theta", 10000);
    MT_TRY(config_num(c, "rope.freq_base", c->out, "rope_theta"));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "rope.dimension_count"), dim, &rotary));
    if (rotary <= 0 || rotary > dim)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s is %" PRId64 ", expected 1 to %" PRId64, c->key,
                       rotary, dim);
    mt_json_set_num(c->out, "partial_rotary_factor", (double)rotary / (double)dim);
    return config_scaling(c, a);
}

static mt_status config_glm4(struct config *c)
{
    int64_t gating, shared, shared_width, width;
    bool norm;

    MT_TRY(config_int(c, "expert_count", "n_routed_experts"));
    MT_TRY(config_int(c, "expert_group_count", "n_group"));
    MT_TRY(config_int(c, "expert_group_used_count", "topk_group"));
    MT_TRY(config_int(c, "leading_dense_block_count", "first_k_dense_replace"));
    MT_TRY(config_num(c, "expert_weights_scale", c->out, "routed_scaling_factor"));
    MT_TRY(mt_gguf_bool(c->ctx, c->g, config_key(c, "expert_weights_norm"), false, &norm));
    mt_json_set_bool(c->out, "norm_topk_prob", norm);
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "expert_shared_count"), 0, &shared));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "expert_feed_forward_length"), 0, &width));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "expert_shared_feed_forward_length"), 0,
                       &shared_width));
    if (shared_width > 0 && (width <= 0 || shared_width != shared * width))
        return config_cannot(c, "a shared expert of its own width");
    mt_json_set_int(c->out, "n_shared_experts", shared);
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "expert_gating_func"), 2, &gating));
    if (gating != 2)
        return config_cannot(c, "a gating function other than sigmoid");
    return MT_OK;
}

static mt_status config_ffn(struct config *c)
{
    MT_TRY(config_int(c, "feed_forward_length", "intermediate_size"));
    mt_json_set_str(c->out, "hidden_act", "silu");
    MT_TRY(config_int(c, "expert_used_count", "num_experts_per_tok"));
    MT_TRY(config_int(c, "expert_feed_forward_length", "moe_intermediate_size"));
    if (strcmp(c->family, "mixtral") == 0)
        return config_int(c, "expert_count", "num_local_experts");
    if (strcmp(c->family, "glm4_moe") == 0)
        return config_glm4(c);
    if (strcmp(c->family, "qwen3_moe") == 0) {
        mt_json_set_bool(c->out, "norm_topk_prob", true); /* fixed by the architecture */
        return config_int(c, "expert_count", "num_experts");
    }
    return MT_OK;
}

static mt_status config_fill(struct config *c, struct mt_arena *a)
{
    const struct mt_gguf_record *embed = config_tensor(c, "token_embd.weight");
    int64_t layers, predictors;

    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "nextn_predict_layers"), 0, &predictors));
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "block_count"), 0, &layers));
    if (predictors < 0 || layers <= 0 || predictors >= layers)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s.block_count is missing or out of range", c->arch);
    mt_json_set_int(c->out, "num_hidden_layers", layers - predictors);
    mt_json_set_int(c->out, "num_nextn_predict_layers", predictors);
    MT_TRY(config_int(c, "context_length", "max_position_embeddings"));
    if (embed == NULL || embed->rank != 2 || embed->ne[1] > INT32_MAX)
        return mt_fail(c->ctx, MT_E_FORMAT, "token_embd.weight is missing or no matrix");
    mt_json_set_int(c->out, "vocab_size", (int64_t)embed->ne[1]);
    mt_json_set_bool(c->out, "tie_word_embeddings", config_tensor(c, "output.weight") == NULL);
    mt_json_set_bool(c->out, "attention_bias", config_tensor(c, "blk.0.attn_q.bias") != NULL);
    mt_json_set_bool(c->out, "mlp_bias", config_tensor(c, "blk.0.ffn_up.bias") != NULL);
    mt_json_set_bool(c->out, "use_qk_norm", config_tensor(c, "blk.0.attn_q_norm.weight") != NULL);
    MT_TRY(config_attention(c, a));
    MT_TRY(config_ffn(c));
    snprintf(c->key, sizeof c->key, "tokenizer.ggml.bos_token_id");
    if (mt_gguf_find(c->g, c->key) != NULL) {
        MT_TRY(mt_gguf_int(c->ctx, c->g, c->key, -1, &layers));
        mt_json_set_int(c->out, "bos_token_id", layers);
    }
    snprintf(c->key, sizeof c->key, "tokenizer.ggml.eos_token_id");
    if (mt_gguf_find(c->g, c->key) != NULL) {
        MT_TRY(mt_gguf_int(c->ctx, c->g, c->key, -1, &layers));
        mt_json_set_int(c->out, "eos_token_id", layers);
    }
    return MT_OK;
}

static mt_status config_family(struct config *c, struct mt_arena *a, const struct mt_family **f)
{
    int64_t experts;

    MT_TRY(mt_gguf_str(c->ctx, c->g, "general.architecture", a, &c->arch));
    if (c->arch == NULL || strlen(c->arch) > 64)
        return mt_fail(c->ctx, MT_E_FORMAT, "general.architecture is missing");
    MT_TRY(mt_gguf_int(c->ctx, c->g, config_key(c, "expert_count"), 0, &experts));
    c->family = mt_gguf_family(c->arch, experts > 0);
    *f = c->family != NULL ? mt_family_find(c->family) : NULL;
    if (*f == NULL)
        return mt_fail(c->ctx, MT_E_UNSUPPORTED, "architecture %s is not known here", c->arch);
    return MT_OK;
}

static mt_status config_make(struct config *c, struct mt_arena *a)
{
    const struct mt_family *f = NULL;

    MT_TRY(config_family(c, a, &f));
    if (f == NULL || (c->out = mt_json_new_object()) == NULL)
        return mt_fail(c->ctx, MT_E_NOMEM, "out of memory for a config");
    mt_json_add_str(mt_json_set_array(c->out, "architectures"), f->architecture);
    mt_json_set_str(c->out, "model_type", f->name);
    return config_fill(c, a);
}

mt_status mt_gguf_config(struct mt_ctx *ctx, const struct mt_gguf *const *files, size_t n_files,
                         struct mt_json **out)
{
    struct config c = {.ctx = ctx, .g = files[0], .files = files, .n_files = n_files};
    struct mt_arena a;
    mt_status st;

    *out = NULL;
    mt_arena_init(&a);
    st = config_make(&c, &a);
    mt_arena_free(&a);
    if (st != MT_OK) {
        mt_json_free(c.out);
        return st;
    }
    *out = c.out;
    return MT_OK;
}
