/* family.h: what a model family calls its tensors, reads from its config and can hold.
 *
 * One file per family under lib/ir/family/, one line in family.def. A family is data: rows that
 * map names to roles both ways, and three functions. The same row parses a name and prints it.
 *
 * Experts may also stand in one tensor per layer and projection (transformers 5 in memory, and on
 * disk when asked), and some families store q, k, v or gate and up in one: mt_model_bind cuts these
 * into one record per role, slices of the same bytes under the family's own names. Nothing above
 * this file knows that they were one.
 *
 * Pattern letters: %l layer number, %e expert number. Both match decimal digits without leading
 * zeros. Which tensors must be there is not said by rows but follows from hyper-parameters and FFN
 * shapes (mt_model_verify).
 *
 * Config values are claims of a file: what is out of range is MT_E_FORMAT naming the key, never an
 * assertion.
 */
#ifndef MT_IR_FAMILY_H
#define MT_IR_FAMILY_H

#include "lib/ir/model.h"

enum mt_name_expert { MT_NAME_NO_EXPERT, MT_NAME_ROUTED, MT_NAME_SHARED };

struct mt_name_row {
    const char *pattern;
    enum mt_role_kind kind;
    enum mt_part part;
    enum mt_name_expert expert;
};

/* A stored tensor that holds several roles. Its rows are those of `kinds` one after the other (or
 * taking turns); each becomes a record under the family's names, a slice of the same bytes. Row
 * counts follow from the hyper-parameters. */
enum {
    MT_FUSED_STACK = 1,       /* the first dimension counts experts */
    MT_FUSED_TRANSPOSED = 2,  /* stored [in, out] (GPT-2's Conv1D) */
    MT_FUSED_INTERLEAVED = 4, /* rows take turns (gpt-oss) */
    MT_FUSED_MXFP4 = 8,       /* blocks [E, rows, groups, 16]; `_scales` beside `_blocks` */
};
#define MT_FUSED_MAX 3
struct mt_fused_row {
    const char *pattern;
    unsigned flags;
    enum mt_part part; /* BIAS: a vector per role */
    enum mt_name_expert expert;
    enum mt_role_kind kinds[MT_FUSED_MAX]; /* up to the first OTHER */
};

struct mt_family {
    const char *name;                 /* config.model_type: "glm4_moe" */
    const char *architecture;         /* config.architectures[0]: "Glm4MoeForCausalLM" */
    const struct mt_name_row *names;  /* ended by pattern NULL; the first matching row prints */
    const struct mt_fused_row *fused; /* ended by pattern NULL; NULL: none */
    bool moe;
    bool wraps;       /* the native layout: what has no row here has the names of m->base */
    bool inside;      /* a model within another (text_config): only in copies that binding makes */
    bool only_blocks; /* nothing but feed-forward blocks is known (blocks.h): no forward pass */

    /* Fills m->hp and m->ffn (allocates [n_layers] in the arena) from m->config. Missing keys take
     * the family's documented defaults; nonsense is MT_E_FORMAT naming the key. */
    mt_status (*read_config)(struct mt_ctx *ctx, struct mt_model *m);

    /* For families that can be written. Checks that this family's modeling code computes what
     * m->hp (attention, norms, RoPE) and m->ffn say; MT_E_UNSUPPORTED tells the one thing it
     * cannot hold and a family that can. NULL: cannot be written. */
    mt_status (*can_hold)(struct mt_ctx *ctx, const struct mt_model *m);
    /* Writes every key this family's loaders need into `config`, which starts as a copy of the
     * source's; keys that would mislead a loader are removed. Both RoPE spellings. */
    mt_status (*write_config)(struct mt_ctx *ctx, const struct mt_model *m, struct mt_json *config);
};

/* The families of family.def: mt_family_llama and so on. */
#define MT_FAMILY(name) extern const struct mt_family mt_family_##name;
#include "lib/ir/family.def"
#undef MT_FAMILY

/* By model_type; NULL when unknown. Names of all, NULL-ended, for messages and help. */
const struct mt_family *mt_family_find(const char *model_type);
const struct mt_family *const *mt_family_all(void); /* NULL-ended */

/* Name -> role. False when no row matches. */
bool mt_family_parse(const struct mt_family *f, const char *name, struct mt_role *role);
/* Role -> name in the arena of m. MT_E_UNSUPPORTED when the family has no such row. */
MT_NODISCARD mt_status mt_family_print(struct mt_ctx *ctx, const struct mt_family *f,
                                       struct mt_model *m, struct mt_role role, const char **name);

/* Binds names of all records to roles, reads the config, verifies. Unknown model_type: family
 * stays NULL, records stay `other`, no failure. Called by formats after listing records. */
MT_NODISCARD mt_status mt_model_bind(struct mt_ctx *ctx, struct mt_model *m);

/* Makes a plan's records carry the names of `f` (sets m->family, t->name). `other` records keep
 * their own. */
MT_NODISCARD mt_status mt_model_rename(struct mt_ctx *ctx, struct mt_model *m,
                                       const struct mt_family *f);

/* Published blocks of small numbers are read as numbers: FP8 with `weight_scale_inv` and MXFP4 of
 * gpt-oss become BF16 records. A plan of the former is written as BF16; a copy of the latter keeps
 * its blocks. */

/* A record of a plan that stands for MXFP4 blocks as GGML keeps them: *out is a new record of
 * dtype MXFP4, listed in the plan; `t` itself where it is anything else. */
MT_NODISCARD mt_status mt_model_keep_mx(struct mt_ctx *ctx, struct mt_model *plan,
                                        struct mt_tensor *t, struct mt_tensor **out);

/* For a plan whose family cannot be written but is copied: lists the tensors that binding cut in
 * place of their parts, which must be untouched or cast alike; MT_E_UNSUPPORTED names one that is
 * not. The plan can then be written, and no longer run. */
MT_NODISCARD mt_status mt_model_restack(struct mt_ctx *ctx, struct mt_model *plan);

/* Where a record lies in a stored tensor of its family that holds several (`fused` rows). */
struct mt_fused_place {
    const char *name; /* of the whole, in the arena of m */
    int rank;
    int64_t shape[3];
    int64_t at; /* elements from its start; the record lies there contiguous */
};
/* For writers, after mt_model_rename. *fused false: the record is stored by itself. Only families
 * whose tensors are stacks and rows one after the other can be written. `stack`: experts that the
 * family names one by one are stored as transformers 5 holds them, gate and up of all in one tensor
 * and down in another. */
MT_NODISCARD mt_status mt_family_fused_place(struct mt_ctx *ctx, struct mt_model *m,
                                             const struct mt_tensor *t, bool stack,
                                             struct mt_fused_place *place, bool *fused);
/* The name of a record that is stored by itself beside such stacks: Mixtral's router has another.
 */
MT_NODISCARD mt_status mt_family_stacked_name(struct mt_ctx *ctx, struct mt_model *m,
                                              const struct mt_tensor *t, const char **name);

/* The records of a plan as its family stores them: those that share a tensor give way to it, a
 * recipe that reads them (MXFP4 blocks of GGML become gpt-oss's), the others stay. Every part must
 * be there, of one dtype. The plan itself keeps its records and can be run. *out [*n] is *given*;
 * the new records live in the plan's arena. */
MT_NODISCARD mt_status mt_model_stored(struct mt_ctx *ctx, struct mt_model *plan,
                                       struct mt_tensor ***out, size_t *n);

/* Shared pieces for family files (family_util.c). */

#define MT_LAYERS_MAX 10000
#define MT_EXPERTS_MAX 65536
#define MT_DIM_MAX ((int64_t)1 << 31) /* hidden, vocabulary, widths, positions */

/* Names that all decoders in the Llama line share; MT_ROWS_END closes a table. */
#define MT_ROW(pattern, kind)                                                                      \
    {                                                                                              \
        pattern, MT_ROLE_##kind, MT_PART_WEIGHT, MT_NAME_NO_EXPERT                                 \
    }
#define MT_ROW_BIAS(pattern, kind)                                                                 \
    {                                                                                              \
        pattern, MT_ROLE_##kind, MT_PART_BIAS, MT_NAME_NO_EXPERT                                   \
    }
#define MT_ROW_EXPERT(pattern, kind)                                                               \
    {                                                                                              \
        pattern, MT_ROLE_##kind, MT_PART_WEIGHT, MT_NAME_ROUTED                                    \
    }
#define MT_ROW_EXPERT_BIAS(pattern, kind)                                                          \
    {                                                                                              \
        pattern, MT_ROLE_##kind, MT_PART_BIAS, MT_NAME_ROUTED                                      \
    }
#define MT_ROW_SHARED(pattern, kind)                                                               \
    {                                                                                              \
        pattern, MT_ROLE_##kind, MT_PART_WEIGHT, MT_NAME_SHARED                                    \
    }
/* A matrix with its bias, or a layer norm with its own. */
#define MT_ROWS_LINEAR(name, kind) MT_ROW(name ".weight", kind), MT_ROW_BIAS(name ".bias", kind)
#define MT_ROWS_END                                                                                \
    {                                                                                              \
        NULL, MT_ROLE_OTHER, MT_PART_WEIGHT, MT_NAME_NO_EXPERT                                     \
    }
#define MT_FUSED_END                                                                               \
    {                                                                                              \
        .pattern = NULL                                                                            \
    }
#define MT_ROWS_FRAME                                                                              \
    MT_ROW("model.embed_tokens.weight", EMBED), MT_ROW("model.norm.weight", FINAL_NORM),           \
        MT_ROW("lm_head.weight", LM_HEAD),                                                         \
        MT_ROW("model.layers.%l.input_layernorm.weight", ATTN_NORM),                               \
        MT_ROW("model.layers.%l.post_attention_layernorm.weight", FFN_NORM),                       \
        MT_ROW("model.layers.%l.self_attn.q_proj.weight", ATTN_Q),                                 \
        MT_ROW("model.layers.%l.self_attn.k_proj.weight", ATTN_K),                                 \
        MT_ROW("model.layers.%l.self_attn.v_proj.weight", ATTN_V),                                 \
        MT_ROW("model.layers.%l.self_attn.o_proj.weight", ATTN_O)
#define MT_ROWS_QKV_BIAS                                                                           \
    MT_ROW_BIAS("model.layers.%l.self_attn.q_proj.bias", ATTN_Q),                                  \
        MT_ROW_BIAS("model.layers.%l.self_attn.k_proj.bias", ATTN_K),                              \
        MT_ROW_BIAS("model.layers.%l.self_attn.v_proj.bias", ATTN_V)
#define MT_ROWS_O_BIAS MT_ROW_BIAS("model.layers.%l.self_attn.o_proj.bias", ATTN_O)
#define MT_ROWS_QK_NORM                                                                            \
    MT_ROW("model.layers.%l.self_attn.q_norm.weight", Q_NORM),                                     \
        MT_ROW("model.layers.%l.self_attn.k_norm.weight", K_NORM)
#define MT_ROWS_DENSE_FFN                                                                          \
    MT_ROW("model.layers.%l.mlp.gate_proj.weight", FFN_GATE),                                      \
        MT_ROW("model.layers.%l.mlp.up_proj.weight", FFN_UP),                                      \
        MT_ROW("model.layers.%l.mlp.down_proj.weight", FFN_DOWN)
#define MT_ROWS_SHARED_FFN                                                                         \
    MT_ROW_SHARED("model.layers.%l.mlp.shared_experts.gate_proj.weight", FFN_GATE),                \
        MT_ROW_SHARED("model.layers.%l.mlp.shared_experts.up_proj.weight", FFN_UP),                \
        MT_ROW_SHARED("model.layers.%l.mlp.shared_experts.down_proj.weight", FFN_DOWN)
/* Gemma: the names of Llama for norms behind attention mean something else. */
#define MT_ROWS_GEMMA                                                                              \
    MT_ROW("model.embed_tokens.weight", EMBED), MT_ROW("model.norm.weight", FINAL_NORM),           \
        MT_ROW("lm_head.weight", LM_HEAD),                                                         \
        MT_ROW("model.layers.%l.input_layernorm.weight", ATTN_NORM),                               \
        MT_ROW("model.layers.%l.post_attention_layernorm.weight", ATTN_POST_NORM),                 \
        MT_ROW("model.layers.%l.pre_feedforward_layernorm.weight", FFN_NORM),                      \
        MT_ROW("model.layers.%l.post_feedforward_layernorm.weight", FFN_POST_NORM),                \
        MT_ROW("model.layers.%l.self_attn.q_proj.weight", ATTN_Q),                                 \
        MT_ROW("model.layers.%l.self_attn.k_proj.weight", ATTN_K),                                 \
        MT_ROW("model.layers.%l.self_attn.v_proj.weight", ATTN_V),                                 \
        MT_ROW("model.layers.%l.self_attn.o_proj.weight", ATTN_O)
/* Latent attention; queries without a latent vector have the second name of theirs. */
#define MT_ROWS_MLA                                                                                \
    MT_ROW("model.embed_tokens.weight", EMBED), MT_ROW("model.norm.weight", FINAL_NORM),           \
        MT_ROW("lm_head.weight", LM_HEAD),                                                         \
        MT_ROW("model.layers.%l.input_layernorm.weight", ATTN_NORM),                               \
        MT_ROW("model.layers.%l.post_attention_layernorm.weight", FFN_NORM),                       \
        MT_ROW("model.layers.%l.self_attn.q_a_proj.weight", ATTN_Q_A),                             \
        MT_ROW_BIAS("model.layers.%l.self_attn.q_a_proj.bias", ATTN_Q_A),                          \
        MT_ROW("model.layers.%l.self_attn.q_a_layernorm.weight", Q_A_NORM),                        \
        MT_ROW("model.layers.%l.self_attn.q_b_proj.weight", ATTN_Q),                               \
        MT_ROW("model.layers.%l.self_attn.q_proj.weight", ATTN_Q),                                 \
        MT_ROW("model.layers.%l.self_attn.kv_a_proj_with_mqa.weight", ATTN_KV_A),                  \
        MT_ROW_BIAS("model.layers.%l.self_attn.kv_a_proj_with_mqa.bias", ATTN_KV_A),               \
        MT_ROW("model.layers.%l.self_attn.kv_a_layernorm.weight", KV_A_NORM),                      \
        MT_ROW("model.layers.%l.self_attn.kv_b_proj.weight", ATTN_KV_B),                           \
        MT_ROW("model.layers.%l.self_attn.o_proj.weight", ATTN_O), MT_ROWS_O_BIAS
/* Experts are stored as stacks; their single names exist only here. */
#define MT_ROWS_GRANITE_FFN                                                                        \
    MT_ROW("model.layers.%l.block_sparse_moe.router.layer.weight", ROUTER),                        \
        MT_ROW_EXPERT("model.layers.%l.block_sparse_moe.experts.%e.gate_proj.weight", FFN_GATE),   \
        MT_ROW_EXPERT("model.layers.%l.block_sparse_moe.experts.%e.up_proj.weight", FFN_UP),       \
        MT_ROW_EXPERT("model.layers.%l.block_sparse_moe.experts.%e.down_proj.weight", FFN_DOWN)
#define MT_FUSED_GRANITE                                                                           \
    {"model.layers.%l.block_sparse_moe.input_linear.weight",                                       \
     MT_FUSED_STACK,                                                                               \
     MT_PART_WEIGHT,                                                                               \
     MT_NAME_ROUTED,                                                                               \
     {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP}},                                                          \
    {                                                                                              \
        "model.layers.%l.block_sparse_moe.output_linear.weight", MT_FUSED_STACK, MT_PART_WEIGHT,   \
            MT_NAME_ROUTED,                                                                        \
        {                                                                                          \
            MT_ROLE_FFN_DOWN                                                                       \
        }                                                                                          \
    }
#define MT_ROWS_ROUTED_FFN                                                                         \
    MT_ROW("model.layers.%l.mlp.gate.weight", ROUTER),                                             \
        MT_ROW_EXPERT("model.layers.%l.mlp.experts.%e.gate_proj.weight", FFN_GATE),                \
        MT_ROW_EXPERT("model.layers.%l.mlp.experts.%e.up_proj.weight", FFN_UP),                    \
        MT_ROW_EXPERT("model.layers.%l.mlp.experts.%e.down_proj.weight", FFN_DOWN)

/* config[key] as an integer within [lo, hi]; absent or null gives dflt, and MT_E_FORMAT when dflt
 * is out of range itself (a required key). */
MT_NODISCARD mt_status mt_cfg_int(struct mt_ctx *ctx, const struct mt_json *cfg, const char *key,
                                  int64_t dflt, int64_t lo, int64_t hi, int64_t *out);
/* A finite number. */
MT_NODISCARD mt_status mt_cfg_num(struct mt_ctx *ctx, const struct mt_json *cfg, const char *key,
                                  double dflt, double lo, double hi, double *out);

/* hidden_size, num_hidden_layers, heads, head_dim, vocab_size, max_position_embeddings,
 * rms_norm_eps, tie_word_embeddings, RoPE, token ids. What a family sets in m->hp beforehand
 * (sizes, head_dim, norm_eps, rope.theta, rope.partial) is its default; sizes are required else.
 * Other fields are those of a plain decoder: no biases, no qk-norm, no window, all scales 1. */
MT_NODISCARD mt_status mt_cfg_read_common(struct mt_ctx *ctx, struct mt_model *m);
/* The fields of a plain decoder and the token ids, for a family that reads its sizes itself;
 * hp->vocab is set before. Ids of another type than numbers or lists fail with MT_E_FORMAT; one
 * outside the vocabulary is told in a warning and becomes -1. */
MT_NODISCARD mt_status mt_cfg_plain(struct mt_ctx *ctx, struct mt_model *m);
/* Both spellings; hp->max_pos and hp->head_dim are set before. Types without a forward pass are
 * MT_E_UNSUPPORTED. Parameters by layer type (full_attention, sliding_attention) fill hp->rope and
 * hp->rope_local. longrope's lists are read by mt_cfg_read_common. */
MT_NODISCARD mt_status mt_cfg_read_rope(struct mt_ctx *ctx, const struct mt_json *cfg,
                                        struct mt_hparams *hp);
/* Qwen's use_sliding_window, sliding_window, max_window_layers, layer_types. */
MT_NODISCARD mt_status mt_cfg_read_window(struct mt_ctx *ctx, struct mt_model *m);
/* layer_types, when there are any: whether each of n_layers has a window. */
MT_NODISCARD mt_status mt_cfg_layer_types(struct mt_ctx *ctx, struct mt_model *m, bool *windowed,
                                          bool *found);
/* windowed [n_layers] in the model's arena. hp.windowed stays NULL where a first layer tells all.
 */
void mt_cfg_set_windows(struct mt_hparams *hp, int64_t window, const bool *windowed);
/* Keys that tell which layers are sparse, as a list [n_layers] in the arena: Qwen's mlp_only_layers
 * and decoder_sparse_step; DeepSeek's first_k_dense_replace. */
MT_NODISCARD mt_status mt_cfg_read_sparse(struct mt_ctx *ctx, struct mt_model *m, bool **out);
MT_NODISCARD mt_status mt_cfg_first_dense(struct mt_ctx *ctx, struct mt_model *m, int64_t dflt,
                                          bool **out);
/* Experts and router of the DeepSeek-V3 line. `dflt` holds the family's defaults, its shared_width
 * their number of shared experts; 0 for experts and k makes the keys required. */
MT_NODISCARD mt_status mt_cfg_read_sigmoid_router(struct mt_ctx *ctx, const struct mt_json *cfg,
                                                  const struct mt_ffn *dflt, struct mt_ffn *moe);
MT_NODISCARD mt_status mt_cfg_read_act(struct mt_ctx *ctx, const struct mt_json *cfg,
                                       const char *key, enum mt_act *act);
/* m->ffn[hp.n_layers], each a gated dense FFN of `intermediate_size` and `hidden_act` (or
 * `hidden_activation`). */
MT_NODISCARD mt_status mt_cfg_alloc_ffn(struct mt_ctx *ctx, struct mt_model *m);
/* num_experts and the like: checks ranges, k <= n, groups, and makes layer l of m->ffn sparse
 * where sparse[l] (NULL: everywhere). `moe` holds everything but act and gated. */
MT_NODISCARD mt_status mt_cfg_set_moe(struct mt_ctx *ctx, struct mt_model *m,
                                      const struct mt_ffn *moe, const bool *sparse);

/* Pieces of related families (family_parts.c); each begins with mt_cfg_read_common. */

/* Granite: what mt_cfg_read_common reads, attention_bias and the four multipliers; with dense
 * blocks, experts and router too (not the shared expert). */
MT_NODISCARD mt_status mt_cfg_read_granite_scales(struct mt_ctx *ctx, struct mt_model *m);
MT_NODISCARD mt_status mt_cfg_read_granite(struct mt_ctx *ctx, struct mt_model *m,
                                           struct mt_ffn *moe);
/* The keys of mt_cfg_read_granite, and what its code can hold; a shared expert is the caller's. */
MT_NODISCARD mt_status mt_cfg_hold_granite(struct mt_ctx *ctx, const struct mt_model *m,
                                           const struct mt_family *f, const struct mt_ffn **moe);
void mt_cfg_write_granite_scales(const struct mt_model *m, struct mt_json *config);
void mt_cfg_write_granite(const struct mt_model *m, const struct mt_family *f,
                          struct mt_json *config);
/* sliding_window (default dflt; null is none) on all but every `every`th layer, unless layer_types
 * says otherwise. Read_common comes before. */
MT_NODISCARD mt_status mt_cfg_read_alternate(struct mt_ctx *ctx, struct mt_model *m, int64_t dflt,
                                             int64_t every);
/* All of Gemma but q/k norms and the rotation of layers with a window; default soft-caps. */
MT_NODISCARD mt_status mt_cfg_read_gemma(struct mt_ctx *ctx, struct mt_model *m, int64_t every,
                                         double attn_cap, double logit_cap);
/* DeepSeek's latent attention. */
MT_NODISCARD mt_status mt_cfg_read_mla(struct mt_ctx *ctx, struct mt_model *m);

/* Encoders in BERT's words: sizes, heads, layer_norm_eps (what hp holds before is the default, or
 * 1e-12), biases everywhere, plain FFNs of config[width_key] (NULL: the family sets widths). */
MT_NODISCARD mt_status mt_cfg_read_encoder(struct mt_ctx *ctx, struct mt_model *m,
                                           const char *width_key);
/* Encoders of images, from given hidden states; qkv_bias. Read_encoder comes before. */
MT_NODISCARD mt_status mt_cfg_read_patches(struct mt_ctx *ctx, struct mt_model *m);

/* What a family's attention takes beyond plain q, k, v, o. */
struct mt_attn_limits {
    bool qkv_bias, o_bias; /* can be there */
    bool bias_needed;      /* q/k/v biases must be there */
    bool bias_together;    /* o_proj has one exactly when q/k/v have */
    bool head_norm;        /* per-head q/k norm can be there */
    bool head_norm_needed;
    bool full_norm;   /* q/k norms over all heads, and no others */
    bool clip;        /* clip_qkv */
    bool partial;     /* rotary positions on a part of each head */
    bool window;      /* a sliding window */
    bool window_from; /* ... from some layer on */
    bool narrow;      /* heads together are as wide as the hidden state */
    bool scales;      /* factors on embeddings, residuals, attention scores and logits */
};
MT_NODISCARD mt_status mt_cfg_hold_attention(struct mt_ctx *ctx, const struct mt_model *m,
                                             const struct mt_family *f,
                                             const struct mt_attn_limits *can);
/* DeepSeek's latent attention and nothing beside it; biases on all that may have one, or none. */
MT_NODISCARD mt_status mt_cfg_hold_latent(struct mt_ctx *ctx, const struct mt_model *m,
                                          const struct mt_family *f);
/* Blocks: dense in a dense family, at least one MoE layer in a MoE family; gated; one dense width;
 * all MoE layers alike. MoE families also refuse biases in FFNs and activations but SiLU. *moe is
 * set to the first MoE layer's FFN (NULL when all are dense). */
MT_NODISCARD mt_status mt_cfg_hold_ffn(struct mt_ctx *ctx, const struct mt_model *m,
                                       const struct mt_family *f, const struct mt_ffn **moe);
/* A softmax router and nothing more: no selection bias, scale, groups or shared expert; with
 * `renorm`, weights that sum to one. */
MT_NODISCARD mt_status mt_cfg_hold_softmax(struct mt_ctx *ctx, const struct mt_family *f,
                                           const struct mt_ffn *moe, bool renorm);
/* Dense layers first; whole shared experts without a gate. */
MT_NODISCARD mt_status mt_cfg_hold_shared(struct mt_ctx *ctx, const struct mt_model *m,
                                          const struct mt_family *f, const struct mt_ffn *moe);
/* That, and the DeepSeek-V3 router with its selection bias. */
MT_NODISCARD mt_status mt_cfg_hold_sigmoid(struct mt_ctx *ctx, const struct mt_model *m,
                                           const struct mt_family *f, const struct mt_ffn *moe);
/* MT_E_UNSUPPORTED "<family> cannot hold <what>; <other> can" (other NULL: no known one). */
MT_NODISCARD mt_status mt_cfg_cannot(struct mt_ctx *ctx, const struct mt_family *f,
                                     const char *what, const char *other);

/* Architecture, model_type, sizes, heads, explicit head_dim, norm, tied head, activation, dense
 * width, dtype of the embedding (both spellings), RoPE. Keys that describe attention or experts in
 * the words of other families are removed first; the family adds its own afterwards. Token ids
 * stay as the source has them. */
void mt_cfg_write_common(const struct mt_model *m, const struct mt_family *f,
                         struct mt_json *config);
/* The name of config.json for an activation; and the embedding's dtype under both its keys. */
const char *mt_cfg_act_name(enum mt_act act);
void mt_cfg_write_dtype(const struct mt_model *m, struct mt_json *config);
/* dtype and torch_dtype: that of the embedding. */
void mt_cfg_write_dtype(const struct mt_model *m, struct mt_json *config);
/* rope_theta + rope_scaling + partial_rotary_factor (absent when 1), and rope_parameters. */
void mt_cfg_write_rope(const struct mt_model *m, struct mt_json *config);
/* The keys of mt_cfg_read_sigmoid_router and mt_cfg_first_dense, and those of predictor layers. */
void mt_cfg_write_sigmoid_router(const struct mt_model *m, struct mt_json *config);
/* The keys of mt_cfg_read_mla. */
void mt_cfg_write_mla(const struct mt_model *m, struct mt_json *config);
/* Experts, router and sparse layers in Qwen's words. */
void mt_cfg_write_qwen_moe(const struct mt_model *m, const struct mt_ffn *moe,
                           struct mt_json *config);
/* The window in Qwen's words. */
void mt_cfg_write_window(const struct mt_model *m, struct mt_json *config);
/* True when some layer's attention is really cut short: a window that is shorter than the longest
 * context. */
bool mt_hp_has_window(const struct mt_hparams *hp);
int64_t mt_hp_layer_window(const struct mt_hparams *hp, int layer); /* 0: it sees everything */
const struct mt_ffn *mt_model_first_moe(const struct mt_model *m);  /* NULL: all layers dense */
#endif
