/* Metadata of a GGUF file as the config.json of the same model. */
#include "formats/gguf_arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *mt_gguf_key(struct mt_gguf_config *c, const char *name)
{
    snprintf(c->key, sizeof c->key, "%s.%s", c->name, name);
    return c->key;
}

const struct mt_gguf_record *mt_gguf_tensor(const struct mt_gguf_config *c, const char *name,
                                            const struct mt_gguf **file)
{
    for (size_t f = 0; f < c->n_files; f++)
        for (size_t i = 0; i < c->files[f]->n; i++)
            if (strcmp(c->files[f]->v[i].name, name) == 0) {
                if (file != NULL)
                    *file = c->files[f];
                return &c->files[f]->v[i];
            }
    return NULL;
}

mt_status mt_gguf_copy_int(struct mt_gguf_config *c, const char *from, const char *to)
{
    int64_t v;

    if (mt_gguf_find(c->g, mt_gguf_key(c, from)) == NULL)
        return MT_OK;
    MT_TRY(mt_gguf_int(c->ctx, c->g, c->key, 0, &v));
    mt_json_set_int(c->out, to, v);
    return MT_OK;
}

mt_status mt_gguf_copy_num(struct mt_gguf_config *c, const char *from, struct mt_json *obj,
                           const char *to)
{
    double v;

    if (mt_gguf_find(c->g, mt_gguf_key(c, from)) == NULL)
        return MT_OK;
    MT_TRY(mt_gguf_num(c->ctx, c->g, c->key, 0, &v));
    mt_json_set_num(obj, to, v);
    return MT_OK;
}

mt_status mt_gguf_cannot_read(struct mt_gguf_config *c, const char *what)
{
    return mt_fail(c->ctx, MT_E_UNSUPPORTED, "%s: %s is not known here", c->arch->name, what);
}

/* ---- positions ---- */

/* Frequencies that are given one by one: Llama 3's. */
static mt_status config_freqs(struct mt_gguf_config *c, const struct mt_gguf *file,
                              const struct mt_gguf_record *r)
{
    struct mt_hparams hp = {.rope = {.partial = 1}};
    struct mt_json *s;
    int64_t dim = 0;

    (void)mt_json_integer(mt_json_get(c->out, "head_dim"), &dim);
    (void)mt_json_number(mt_json_get(c->out, "rope_theta"), &hp.rope.theta);
    if (dim < 2 || dim > 65536 || !(hp.rope.theta >= 1) || (c->arch->does & MT_GGUF_FREQS) == 0)
        return mt_gguf_cannot_read(c, MT_GGUF_ROPE_FREQS);
    hp.head_dim = (int)dim;
    MT_TRY(mt_gguf_rope_guess(c->ctx, c->g, file, r, &hp));
    s = mt_json_set_object(c->out, "rope_scaling");
    mt_json_set_str(s, "rope_type", "llama3");
    mt_json_set_num(s, "factor", hp.rope.factor);
    mt_json_set_num(s, "low_freq_factor", hp.rope.low_freq_factor);
    mt_json_set_num(s, "high_freq_factor", hp.rope.high_freq_factor);
    mt_json_set_int(s, "original_max_position_embeddings", (int64_t)hp.rope.original_max_pos);
    return MT_OK;
}

static mt_status config_factors(struct mt_gguf_config *c, const char *name, struct mt_json *list)
{
    const struct mt_gguf *file = NULL;
    const struct mt_gguf_record *r = mt_gguf_tensor(c, name, &file);

    if (r == NULL || file->headers_only || r->dtype != MT_F32 || r->rank != 1 || r->ne[0] > 65536)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s is missing or no list of 32-bit floats", name);
    for (uint64_t i = 0; i < r->ne[0]; i++)
        mt_json_add_num(list, mt_gguf_f32(file->map->base + file->data_offset + r->begin + 4 * i));
    return MT_OK;
}

/* One that follows from the lengths is left to who reads the config: it was rounded here. */
static mt_status config_amplitude(struct mt_gguf_config *c, struct mt_json *s, int64_t original)
{
    struct mt_rope_params r = {.original_max_pos = (double)original};
    double stored;
    int64_t context = 0;

    MT_TRY(mt_gguf_num(c->ctx, c->g, mt_gguf_key(c, "rope.scaling.attn_factor"), 1, &stored));
    (void)mt_json_integer(mt_json_get(c->out, "max_position_embeddings"), &context);
    r.factor = (double)context / (double)original;
    if (fabs(stored - mt_gguf_rope_amplitude(&r)) > 1e-6 * stored)
        mt_json_set_num(s, "attention_factor", stored);
    return MT_OK;
}

/* Two lists of factors: Phi's. */
static mt_status config_longrope(struct mt_gguf_config *c)
{
    struct mt_json *s = mt_json_set_object(c->out, "rope_scaling");
    int64_t original;

    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "rope.scaling.original_context_length"), 0,
                       &original));
    if (original < 1)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s is missing", c->key);
    mt_json_set_str(s, "rope_type", "longrope");
    MT_TRY(config_factors(c, MT_GGUF_ROPE_LONG, mt_json_set_array(s, "long_factor")));
    MT_TRY(config_factors(c, MT_GGUF_ROPE_SHORT, mt_json_set_array(s, "short_factor")));
    mt_json_set_int(s, "original_max_position_embeddings", original);
    mt_json_set_int(c->out, "original_max_position_embeddings", original);
    return config_amplitude(c, s, original);
}

/* DeepSeek's amplitude is told by a tenth of its mscale, which stands for both of its keys. */
static mt_status config_mscale(struct mt_gguf_config *c, struct mt_json *s)
{
    double mul;

    MT_TRY(mt_gguf_num(c->ctx, c->g, mt_gguf_key(c, "rope.scaling.yarn_log_multiplier"), 0, &mul));
    if (mul > 0) {
        mt_json_set_num(s, "mscale", mul * 10);
        mt_json_set_num(s, "mscale_all_dim", mul * 10);
    }
    return MT_OK;
}

static mt_status config_scaling(struct mt_gguf_config *c, struct mt_arena *a)
{
    const struct mt_gguf *file = NULL;
    const struct mt_gguf_record *freqs = mt_gguf_tensor(c, MT_GGUF_ROPE_FREQS, &file);
    const char *type = NULL;
    struct mt_json *s;

    if (freqs != NULL)
        return config_freqs(c, file, freqs);
    if ((c->arch->does & MT_GGUF_LONGROPE) != 0 &&
        mt_gguf_tensor(c, MT_GGUF_ROPE_LONG, NULL) != NULL)
        return config_longrope(c);
    MT_TRY(mt_gguf_str(c->ctx, c->g, mt_gguf_key(c, "rope.scaling.type"), a, &type));
    if (type == NULL || strcmp(type, "none") == 0)
        return MT_OK;
    s = mt_json_set_object(c->out, "rope_scaling");
    mt_json_set_str(s, "rope_type", type);
    MT_TRY(mt_gguf_copy_num(c, "rope.scaling.factor", s, "factor"));
    if (strcmp(type, "yarn") != 0)
        return MT_OK;
    MT_TRY(mt_gguf_copy_num(c, "rope.scaling.original_context_length", s,
                            "original_max_position_embeddings"));
    MT_TRY(mt_gguf_copy_num(c, "rope.scaling.yarn_beta_fast", s, "beta_fast"));
    MT_TRY(mt_gguf_copy_num(c, "rope.scaling.yarn_beta_slow", s, "beta_slow"));
    if ((c->arch->does & MT_GGUF_SINKS) != 0)
        mt_json_set_bool(s, "truncate", false);
    return (c->arch->does & MT_GGUF_LATENT) != 0 ? config_mscale(c, s) : MT_OK;
}

/* ---- attention ---- */

static mt_status config_sizes(struct mt_gguf_config *c, int64_t *hidden, int64_t *heads)
{
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "embedding_length"), 0, hidden));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "attention.head_count"), 0, heads));
    if (*hidden <= 0 || *heads <= 0)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s.%s is missing", c->arch->name,
                       *hidden <= 0 ? "embedding_length" : "attention.head_count");
    mt_json_set_int(c->out, "hidden_size", *hidden);
    mt_json_set_int(c->out, "num_attention_heads", *heads);
    mt_json_set_num(c->out, "rope_theta", 10000);
    MT_TRY(mt_gguf_copy_num(c, "rope.freq_base", c->out, "rope_theta"));
    return mt_gguf_copy_num(c, "attention.layer_norm_rms_epsilon", c->out, "rms_norm_eps");
}

/* Qwen's keys, Gemma's and gpt-oss's list. */
static mt_status config_window(struct mt_gguf_config *c)
{
    struct mt_json *types;
    int64_t window, layers = 0, every;

    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "attention.sliding_window"), 0, &window));
    if (window <= 0 || (c->arch->does & MT_GGUF_LONGROPE) != 0) /* Phi's is not used */
        return MT_OK;
    mt_json_set_int(c->out, "sliding_window", window);
    mt_json_set_bool(c->out, "use_sliding_window", true);
    mt_json_set_int(c->out, "max_window_layers", 0);
    if (c->arch->window_every == 0)
        return MT_OK;
    every = c->arch->window_every;
    if (mt_gguf_find(c->g, mt_gguf_key(c, "attention.sliding_window_pattern")) != NULL)
        MT_TRY(mt_gguf_int(c->ctx, c->g, c->key, every, &every));
    if (every < 1)
        return mt_gguf_cannot_read(c, "this pattern of windows");
    (void)mt_json_integer(mt_json_get(c->out, "num_hidden_layers"), &layers);
    types = mt_json_set_array(c->out, "layer_types");
    for (int64_t l = 0; l < layers; l++)
        mt_json_add_str(types, (l + 1) % every != 0 ? "sliding_attention" : "full_attention");
    return MT_OK;
}

static mt_status config_attention(struct mt_gguf_config *c, struct mt_arena *a)
{
    int64_t hidden, heads, dim, value, rotary;

    MT_TRY(config_sizes(c, &hidden, &heads));
    MT_TRY(mt_gguf_copy_int(c, "attention.head_count_kv", "num_key_value_heads"));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "attention.key_length"), hidden / heads, &dim));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "attention.value_length"), dim, &value));
    if (value != dim)
        return mt_gguf_cannot_read(c, "a value length other than the key length");
    mt_json_set_int(c->out, "head_dim", dim);
    MT_TRY(config_window(c));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "rope.dimension_count"), dim, &rotary));
    if (rotary <= 0 || rotary > dim)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s is %" PRId64 ", expected 1 to %" PRId64, c->key,
                       rotary, dim);
    mt_json_set_num(c->out, "partial_rotary_factor", (double)rotary / (double)dim);
    return config_scaling(c, a);
}

/* Both layouts: with key_length_mla keys are as wide as the latent vector and the rotary part; in
 * files that keep kv_b whole the other two are a head's own. */
static mt_status config_latent(struct mt_gguf_config *c, struct mt_arena *a)
{
    int64_t hidden, heads, rank, rotary, key, value;
    bool split;

    MT_TRY(config_sizes(c, &hidden, &heads));
    mt_json_set_int(c->out, "num_key_value_heads", heads);
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "attention.kv_lora_rank"), 0, &rank));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "rope.dimension_count"), 0, &rotary));
    split = mt_gguf_find(c->g, mt_gguf_key(c, "attention.key_length_mla")) != NULL;
    MT_TRY(mt_gguf_int(c->ctx, c->g,
                       mt_gguf_key(c, split ? "attention.key_length_mla" : "attention.key_length"),
                       0, &key));
    MT_TRY(
        mt_gguf_int(c->ctx, c->g,
                    mt_gguf_key(c, split ? "attention.value_length_mla" : "attention.value_length"),
                    0, &value));
    if (rank <= 0 || rotary <= 0 || key <= rotary || value <= 0)
        return mt_fail(c->ctx, MT_E_FORMAT,
                       "deepseek2: kv_lora_rank %" PRId64 ", rotary part %" PRId64
                       ", keys of %" PRId64 " and values of %" PRId64 " make no latent attention",
                       rank, rotary, key, value);
    mt_json_set_int(c->out, "kv_lora_rank", rank);
    mt_json_set_null(c->out, "q_lora_rank");
    MT_TRY(mt_gguf_copy_int(c, "attention.q_lora_rank", "q_lora_rank"));
    mt_json_set_int(c->out, "qk_rope_head_dim", rotary);
    mt_json_set_int(c->out, "qk_nope_head_dim", key - rotary);
    mt_json_set_int(c->out, "v_head_dim", value);
    return config_scaling(c, a);
}

static mt_status config_gpt2(struct mt_gguf_config *c)
{
    int64_t hidden, heads, layers = 0, context = 0;

    MT_TRY(config_sizes(c, &hidden, &heads));
    (void)mt_json_integer(mt_json_get(c->out, "num_hidden_layers"), &layers);
    (void)mt_json_integer(mt_json_get(c->out, "max_position_embeddings"), &context);
    mt_json_set_int(c->out, "n_layer", layers);
    mt_json_set_int(c->out, "n_embd", hidden);
    mt_json_set_int(c->out, "n_head", heads);
    mt_json_set_int(c->out, "n_positions", context);
    mt_json_set_int(c->out, "n_ctx", context);
    mt_json_set_str(c->out, "activation_function", "gelu_new");
    MT_TRY(mt_gguf_copy_int(c, "feed_forward_length", "n_inner"));
    for (const char *const *k =
             (const char *const[]){"hidden_size", "num_attention_heads", "num_hidden_layers",
                                   "rope_theta", "max_position_embeddings", NULL};
         *k != NULL; k++)
        mt_json_remove(c->out, *k);
    return mt_gguf_copy_num(c, "attention.layer_norm_epsilon", c->out, "layer_norm_epsilon");
}

static mt_status config_id(struct mt_gguf_config *c, const char *key, const char *name)
{
    int64_t id;

    if (mt_gguf_find(c->g, key) == NULL)
        return MT_OK;
    MT_TRY(mt_gguf_int(c->ctx, c->g, key, -1, &id));
    mt_json_set_int(c->out, name, id);
    return MT_OK;
}

static void config_dtype(struct mt_gguf_config *c, enum mt_dtype t)
{
    const char *name = t == MT_F16 ? "float16" : t == MT_F32 ? "float32" : "bfloat16";

    mt_json_set_str(c->out, "torch_dtype", name);
    mt_json_set_str(c->out, "dtype", name);
}

static mt_status config_fill(struct mt_gguf_config *c, struct mt_arena *a)
{
    const struct mt_gguf_record *embed = mt_gguf_tensor(c, "token_embd.weight", NULL);
    int64_t layers, predictors;

    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "nextn_predict_layers"), 0, &predictors));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "block_count"), 0, &layers));
    if (predictors < 0 || layers <= 0 || predictors >= layers)
        return mt_fail(c->ctx, MT_E_FORMAT, "%s.block_count is missing or out of range",
                       c->arch->name);
    mt_json_set_int(c->out, "num_hidden_layers", layers - predictors);
    mt_json_set_int(c->out, "num_nextn_predict_layers", predictors);
    MT_TRY(mt_gguf_copy_int(c, "context_length", "max_position_embeddings"));
    if (embed == NULL || embed->rank != 2 || embed->ne[1] > INT32_MAX)
        return mt_fail(c->ctx, MT_E_FORMAT, "token_embd.weight is missing or no matrix");
    config_dtype(c, (enum mt_dtype)embed->dtype);
    mt_json_set_int(c->out, "vocab_size", (int64_t)embed->ne[1]);
    mt_json_set_bool(c->out, "tie_word_embeddings",
                     mt_gguf_tensor(c, "output.weight", NULL) == NULL);
    mt_json_set_bool(c->out, "attention_bias",
                     mt_gguf_tensor(c, "blk.0.attn_q.bias", NULL) != NULL);
    mt_json_set_bool(c->out, "mlp_bias", mt_gguf_tensor(c, "blk.0.ffn_up.bias", NULL) != NULL);
    mt_json_set_bool(c->out, "use_qk_norm",
                     mt_gguf_tensor(c, "blk.0.attn_q_norm.weight", NULL) != NULL);
    MT_TRY((c->arch->does & MT_GGUF_LATENT) != 0 ? config_latent(c, a)
           : (c->arch->does & MT_GGUF_GPT2) != 0 ? config_gpt2(c)
                                                 : config_attention(c, a));
    if ((c->arch->does & MT_GGUF_GPT2) == 0)
        MT_TRY(mt_gguf_config_ffn(c));
    MT_TRY(config_id(c, "tokenizer.ggml.bos_token_id", "bos_token_id"));
    return config_id(c, "tokenizer.ggml.eos_token_id", "eos_token_id");
}

static mt_status config_arch(struct mt_gguf_config *c, struct mt_arena *a)
{
    int64_t experts, shared, gating;

    MT_TRY(mt_gguf_str(c->ctx, c->g, "general.architecture", a, &c->name));
    if (c->name == NULL || strlen(c->name) > 64)
        return mt_fail(c->ctx, MT_E_FORMAT, "general.architecture is missing");
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_count"), 0, &experts));
    MT_TRY(mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_gating_func"), 1, &gating));
    MT_TRY(
        mt_gguf_int(c->ctx, c->g, mt_gguf_key(c, "expert_shared_feed_forward_length"), 0, &shared));
    c->arch = mt_gguf_arch_of_file(c->name, experts > 0, gating == 2, shared > 0);
    if (c->arch == NULL)
        return mt_fail(c->ctx, MT_E_UNSUPPORTED, "architecture %s is not known here", c->name);
    return MT_OK;
}

static mt_status config_make(struct mt_gguf_config *c, struct mt_arena *a)
{
    const struct mt_family *f;

    MT_TRY(config_arch(c, a));
    mt_assert(c->arch != NULL);
    f = mt_family_find(c->arch->family);
    if (f == NULL || (c->out = mt_json_new_object()) == NULL)
        return mt_fail(c->ctx, MT_E_NOMEM, "out of memory for a config");
    mt_json_add_str(mt_json_set_array(c->out, "architectures"), f->architecture);
    mt_json_set_str(c->out, "model_type", f->name);
    return config_fill(c, a);
}

mt_status mt_gguf_config(struct mt_ctx *ctx, const struct mt_gguf *const *files, size_t n_files,
                         const struct mt_gguf_arch **arch, struct mt_json **out)
{
    struct mt_gguf_config c = {.ctx = ctx, .g = files[0], .files = files, .n_files = n_files};
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
    *arch = c.arch;
    *out = c.out;
    return MT_OK;
}
