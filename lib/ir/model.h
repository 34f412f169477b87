/* model.h: a checkpoint as records; no bytes.
 *
 * A model is opened by a format (formats/), bound to a family (names become roles), and verified.
 * A pass edits a *plan*: a second model whose records start as aliases of the source's. Records
 * live in the model's arena until mt_model_free; removing one from the model only unlists it, so
 * recipes may go on using it.
 *
 * Ownership: a model owns its arena, its maps, its config tree and its owned buffers. A plan
 * borrows everything of the model it was made from, which must outlive it. Threads: reading is
 * safe from any thread; editing is single-threaded.
 */
#ifndef MT_IR_MODEL_H
#define MT_IR_MODEL_H

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/ir/ffn.h"
#include "lib/ir/tensor.h"

struct mt_family;
struct mt_profile;

enum mt_norm { MT_NORM_RMS, MT_NORM_LAYER };
enum mt_qk_norm { MT_QK_NORM_NONE, MT_QK_NORM_HEAD, MT_QK_NORM_FULL };

enum mt_rope_type {
    MT_ROPE_DEFAULT,
    MT_ROPE_LINEAR,
    MT_ROPE_DYNAMIC,
    MT_ROPE_LLAMA3,
    MT_ROPE_YARN,
    MT_ROPE_LONGROPE
};
/* As in config.json, both spellings (rope_theta + rope_scaling; rope_parameters). */
struct mt_rope_params {
    enum mt_rope_type type;
    double theta, factor, low_freq_factor, high_freq_factor, original_max_pos;
    double beta_fast, beta_slow, attention_factor; /* yarn; attention_factor 0: by formula */
    double mscale, mscale_all_dim;
    bool no_truncate; /* yarn: the ramp's ends stay fractions */
    double partial;   /* share of head_dim that rotates; 1 = all */
    bool pairs;       /* features 2i and 2i+1 turn together; else i and i + half */
    /* longrope: divisors of the frequencies, [rotating features / 2], for contexts up to
     * original_max_pos and beyond; in the model's arena. */
    const double *short_factor, *long_factor;
};

/* Multi-head latent attention (DeepSeek-V2): queries and keys of a head are `nope` features without
 * position and `rope` with; keys and values are made of a latent vector of kv_rank. hp.head_dim is
 * then the larger of nope + rope and v, n_kv_heads is n_heads. */
struct mt_mla {
    int64_t q_rank;    /* 0: queries come straight from the hidden states */
    int64_t kv_rank;   /* 0: ordinary attention */
    int nope, rope, v; /* features of a head */
    double eps;        /* of the latent vectors' norms */
};

struct mt_hparams {
    int n_layers;
    int64_t hidden, vocab, max_pos;
    int n_heads, n_kv_heads, head_dim;
    enum mt_norm norm;
    double norm_eps, norm_offset; /* offset 1 for (1 + w) norms */
    enum mt_qk_norm qk_norm;
    bool qkv_bias, o_bias;
    bool tied;              /* lm_head is embed_tokens */
    int64_t sliding_window; /* 0: off */
    int window_first_layer; /* layers from here on use the window (Qwen's max_window_layers) */
    const bool *windowed;   /* [n_layers], in the arena: which do instead, where they alternate */
    double attn_scale;      /* 0: head_dim^-1/2 */
    double embed_scale, logit_scale, residual_scale; /* 1 unless the family says otherwise */
    bool embed_scale_rounded;           /* embed_scale is rounded to the embedding's dtype first */
    double attn_softcap, logit_softcap; /* 0: none; else c tanh(s / c) */
    double clip_qkv;                    /* 0: none; else q, k and v are cut to +-clip_qkv */
    bool norm_bias;                     /* biases on the norms of layers and the final one */
    bool post_norms;  /* norms behind attention and FFN too, before they are added */
    bool sinks;       /* a score per head that takes part in the softmax and has no value */
    bool learned_pos; /* a learned vector per position instead of rotation */
    /* Encoders. */
    bool both_ways; /* attention sees all of a sequence; there are last hidden states, no logits */
    bool given_input; /* no token embeddings: hidden states come from outside (images) */
    bool norm_sums; /* BERT: x = norm(x + block(x)); ATTN_NORM and FINAL_NORM do not exist, FFN_NORM
                       stands behind attention and FFN_POST_NORM behind the FFN */
    bool layer_scale; /* DINOv2: outputs of both blocks are multiplied feature by feature */
    int n_types;      /* rows of TYPE_EMBED, added to embeddings (row 0); 0: none */
    struct mt_mla mla;
    struct mt_rope_params rope;
    bool local_rope; /* layers with a window rotate by rope_local */
    struct mt_rope_params rope_local;
    int64_t bos_id, eos_id; /* -1: none; the first where the config has a list */
};

/* A file that travels along unread: tokenizer.json, generation_config.json, LICENSE, *.py ... */
struct mt_sidecar {
    const char *name, *path;
};

/* A file that would travel along if the source had it as one: made of what the source holds, when
 * it is wanted. `make` gives NUL-ended text by mt_alloc; what it cannot make (MT_E_ABSENT, _FORMAT,
 * _UNSUPPORTED) is left out with a warning. */
struct mt_made {
    const char *name;
    mt_status (*make)(struct mt_ctx *ctx, const char *path, char **text, size_t *n);
};

/* What a file says besides tensors ("epoch", "3"), for people; one line each. */
struct mt_note {
    const char *name, *text;
};

/* A stored tensor that was cut into the records of several roles (family.h). */
struct mt_cut {
    struct mt_tensor *whole;  /* unlisted */
    struct mt_tensor *also;   /* unlisted too: the exponents of MXFP4 blocks; or NULL */
    struct mt_tensor **parts; /* [n], listed in its place */
    bool by_choice;           /* its family can store the parts by themselves, too */
    size_t n;
    struct mt_cut *next;
};

/* What verification found about a tensor; kept by models that are opened leniently. */
enum mt_flaw_kind { MT_FLAW_MISSING, MT_FLAW_SHAPE, MT_FLAW_SURPLUS };
struct mt_flaw {
    enum mt_flaw_kind kind;
    const char *subject; /* the tensor's name, or its label when it is missing */
    const char *what;    /* a sentence */
};
#define MT_FLAWS_MAX 256
struct mt_flaws {
    struct mt_arena *arena;
    size_t n;
    struct mt_flaw v[MT_FLAWS_MAX]; /* the first; more end the verification */
};

/* Another model handed to passes beside the source: a fine-tune of the same base. */
struct mt_sibling {
    const char *name; /* by which texts and messages know it */
    const struct mt_model *m;
};

struct mt_model {
    struct mt_arena arena;
    const char *path;               /* as the user gave it */
    const char *format;             /* "safetensors" */
    const struct mt_family *family; /* NULL: unknown; every record is MT_ROLE_OTHER */
    const struct mt_family *base;   /* whose config and names hold for all but FFNs: that of the
                                       native layout's source; else `family` */
    const char *model_type;         /* config's own word, also when unknown */
    struct mt_hparams hp;
    struct mt_ffn *ffn;            /* [hp.n_layers] */
    const int *live_experts;       /* [hp.n_layers], in the arena: experts that are no padding
                                      (pad.h); NULL: all */
    struct mt_json *config;        /* the source's config.json; NULL when there is none */
    const struct mt_model *source; /* of a plan; NULL otherwise. A plan's config and sidecars are
                                      borrowed from it */

    /* Statistics the caller hands to passes beside the weights (lib/flow/profile.h), checked to be
     * of this model; borrowed. NULL: none, also in plans, whose source has them. */
    const struct mt_profile *profile;
    /* More models the caller hands to passes that make one of several; borrowed. None in plans. */
    const struct mt_sibling *siblings;
    int n_siblings;
    /* For who tells what is wrong with a model: set by mt_model_be_lenient before binding, which
     * then lists flaws instead of failing. */
    struct mt_flaws *flaws;
    /* Of such a model: why it is not whole; NULL when it is. When the config is to blame, family is
     * NULL. */
    const char *flaw;
    mt_status flaw_status; /* MT_E_FORMAT: nonsense; MT_E_UNSUPPORTED: not known here */

    struct mt_cut *cuts; /* in the arena; of a plan: NULL */
    bool unblocked;      /* FP8 blocks are read as BF16; quantization_config no longer holds */
    struct mt_tensor **tensors; /* listed records in output order */
    size_t n_tensors, cap_tensors;
    struct mt_role_index *index; /* by role; kept by model.c */

    struct mt_map **maps; /* owned; closed by mt_model_free */
    size_t n_maps, cap_maps;
    void **owned; /* buffers of owned sources; mt_free'd by mt_model_free */
    size_t n_owned, cap_owned;
    struct mt_sidecar *sidecars;
    size_t n_sidecars;
    const struct mt_made *made; /* of this model's path; static */
    size_t n_made;
    struct mt_note *notes;
    size_t n_notes;
};

MT_NODISCARD mt_status mt_model_create(struct mt_ctx *ctx, struct mt_model **out); /* empty */
void mt_model_free(struct mt_model *m); /* NULL is fine */
/* Binding keeps a model that does not verify: m->flaw and m->flaws say what is wrong. */
MT_NODISCARD mt_status mt_model_be_lenient(struct mt_ctx *ctx, struct mt_model *m);

/* A plan over `src`: same family, hyper-parameters (copied) and records (new records that alias
 * the source's, so editing the plan leaves the source alone). */
MT_NODISCARD mt_status mt_model_plan(struct mt_ctx *ctx, const struct mt_model *src,
                                     struct mt_model **out);

/* A new record, listed at the end: zeroed but for its role, dtype and shape; source pending. */
MT_NODISCARD mt_status mt_model_add(struct mt_ctx *ctx, struct mt_model *m, struct mt_role role,
                                    enum mt_dtype dtype, int rank, const int64_t *shape,
                                    struct mt_tensor **out);
/* Unlists; the record lives on. */
void mt_model_remove(struct mt_model *m, struct mt_tensor *t);
/* Gives a listed record another role (t->role is never written directly: the index would not
 * know). */
MT_NODISCARD mt_status mt_model_set_role(struct mt_ctx *ctx, struct mt_model *m,
                                         struct mt_tensor *t, struct mt_role role);

/* The listed record of a role, or NULL. */
struct mt_tensor *mt_model_find(const struct mt_model *m, struct mt_role role);
struct mt_tensor *mt_model_bias(const struct mt_model *m, enum mt_role_kind kind, int layer,
                                int expert);
/* As find, but MT_E_ABSENT with the role's label and the model's path. */
MT_NODISCARD mt_status mt_model_need(struct mt_ctx *ctx, const struct mt_model *m,
                                     struct mt_role role, struct mt_tensor **out);

MT_NODISCARD mt_status mt_model_own_map(struct mt_ctx *ctx, struct mt_model *m,
                                        struct mt_map *map /* taken, also on failure */);
MT_NODISCARD mt_status mt_model_own_buffer(struct mt_ctx *ctx, struct mt_model *m,
                                           void *buf /* taken, also on failure */);

/* The record that stands behind aliases. */
const struct mt_tensor *mt_tensor_origin(const struct mt_tensor *t);

/* Parameters, and those that act for one token (embedding rows counted whole). Tied heads count
 * once. Records of role other count in total only. The ffn figures are gate, up and down of dense
 * blocks, experts and shared experts, without routers; `bytes` is what all listed records take
 * when each is stored. */
struct mt_model_size {
    uint64_t params_total, params_active, bytes;
    uint64_t ffn_params_total, ffn_params_active;
};
void mt_model_measure(const struct mt_model *m, struct mt_model_size *out);
/* Routed experts that act for a token, over all MoE layers on average; 0 where there is none. */
double mt_model_mean_active(const struct mt_model *m);

/* Checks invariants after opening and after each pass: every role the family needs is there with
 * the shape the hyper-parameters give, once; experts are complete; biases come where declared.
 * Names tensor and expectation. */
MT_NODISCARD mt_status mt_model_verify(struct mt_ctx *ctx, const struct mt_model *m);
#endif
