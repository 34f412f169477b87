/* gguf_arch.h: what the architectures of GGUF files are to families, for the formats room alone.
 *
 * One table (gguf_arch.c) tells what the graph of each architecture in llama.cpp takes or does;
 * reading, writing and refusals follow from it. A new architecture is a line there, its names in
 * gguf_names.c, and where it has keys of its own a function in gguf_config_moe.c. Threads: the
 * functions are pure but for the trees they fill.
 */
#ifndef MT_FORMATS_GGUF_ARCH_H
#define MT_FORMATS_GGUF_ARCH_H

#include "formats/gguf.h"

/* ---- gguf_config_moe.c ---- */

/* The keys of a config that tell experts, router and whatever else is the family's own. `key` asks
 * for "ARCH.name". */
struct mt_gguf_config {
    struct mt_ctx *ctx;
    const struct mt_gguf *g; /* the file with the metadata */
    const struct mt_gguf *const *files;
    size_t n_files;
    const char *name; /* general.architecture */
    const struct mt_gguf_arch *arch;
    struct mt_json *out;
    char key[160];
};
const char *mt_gguf_key(struct mt_gguf_config *c, const char *name);
/* Copies an integer or a number under another name; without the key nothing is set. */
MT_NODISCARD mt_status mt_gguf_copy_int(struct mt_gguf_config *c, const char *from, const char *to);
MT_NODISCARD mt_status mt_gguf_copy_num(struct mt_gguf_config *c, const char *from,
                                        struct mt_json *obj, const char *to);
MT_NODISCARD mt_status mt_gguf_cannot_read(struct mt_gguf_config *c, const char *what);
/* The tensor and its file; NULL when there is none. */
const struct mt_gguf_record *mt_gguf_tensor(const struct mt_gguf_config *c, const char *name,
                                            const struct mt_gguf **file);
MT_NODISCARD mt_status mt_gguf_config_ffn(struct mt_gguf_config *c);

/* ---- gguf_arch.c ---- */

/* What the graph of an architecture takes or does beyond plain Llama. */
enum mt_gguf_does {
    MT_GGUF_PERMUTED = 1u << 0, /* q and k rows stand in pairs that turn together; families: halves
                                 */
    MT_GGUF_PAIRS = 1u << 1,    /* pairs turn, in the family too */
    MT_GGUF_NORM_ONE = 1u << 2, /* norms hold 1 + w */
    MT_GGUF_FREQS = 1u << 3,    /* a factor per frequency (rope_freqs) */
    MT_GGUF_LONGROPE = 1u << 4, /* two, for short and long contexts */
    MT_GGUF_PARTIAL = 1u << 5,  /* positions on a part of each head */
    MT_GGUF_QKV_BIAS = 1u << 6,
    MT_GGUF_O_BIAS = 1u << 7,
    MT_GGUF_FFN_BIAS = 1u << 8,
    MT_GGUF_LEAD = 1u << 9,         /* dense layers before the sparse ones */
    MT_GGUF_SHARED = 1u << 10,      /* a shared expert can be there */
    MT_GGUF_SHARED_ALL = 1u << 11,  /* and must */
    MT_GGUF_SCALES = 1u << 12,      /* factors on embeddings, residuals, scores, logits */
    MT_GGUF_SOFTCAP = 1u << 13,     /* of scores and logits */
    MT_GGUF_NARROW = 1u << 15,      /* heads are hidden / heads wide */
    MT_GGUF_ROUTER_KEYS = 1u << 16, /* scale, renormalisation, gating and groups are keys */
    MT_GGUF_ALL_HEADS = 1u << 17,   /* as many heads of keys and values as of queries */
    MT_GGUF_LATENT = 1u << 18,      /* DeepSeek's attention */
    MT_GGUF_GPT2 = 1u << 19,        /* LayerNorm, learned positions, plain FFNs */
    MT_GGUF_SINKS = 1u << 20,       /* gpt-oss: sinks, its own activation, yarn that is not cut */
    MT_GGUF_NO_YARN = 1u << 21,
    MT_GGUF_HEAD = 1u << 22, /* output.weight must be there, also where the head is tied */
};
enum mt_gguf_weights { MT_GGUF_SUM_ONE, MT_GGUF_SUM_FREE, MT_GGUF_SUM_KEY };

struct mt_gguf_arch {
    const char *name;   /* general.architecture */
    const char *family; /* whose tensors it holds */
    bool experts;
    enum mt_gguf_weights weights; /* of chosen experts: sum to one, do not, or a key tells */
    int window_every;             /* all layers but each n-th have a window; 0: none has */
    unsigned does;                /* enum mt_gguf_does */
};

/* Of a file: several families share some names, so experts and other keys decide. NULL: none. */
const struct mt_gguf_arch *mt_gguf_arch_of_file(const char *name, bool experts, bool sigmoid,
                                                bool shared);
const struct mt_gguf_arch *mt_gguf_arch_of_family(const struct mt_family *f);
/* The name alone; NULL when there is none. */
const char *mt_gguf_arch(const struct mt_family *f);
/* Refuses what the architecture's code in llama.cpp would compute otherwise (spec: formats, 4.3).
 * Looks at family, hyper-parameters and FFN shapes alone. */
MT_NODISCARD mt_status mt_gguf_holds(struct mt_ctx *ctx, const struct mt_model *m);

/* ---- gguf_layout.c ---- */

/* mt_format.tensor_bytes. */
void mt_gguf_tensor_bytes(const struct mt_model *plan, struct mt_tensor *const *stored, size_t n,
                          uint64_t bytes[MT_DTYPE_COUNT]);

/* ---- gguf_shape.c ---- */

/* The records of a plan as a GGUF file keeps them; see mt_format.prepare. */
/* Of a plan's records as they are stored, with what no record stands for: mt_format.tensor_bytes.
 */
void mt_gguf_tensor_bytes(const struct mt_model *plan, struct mt_tensor *const *stored, size_t n,
                          uint64_t bytes[MT_DTYPE_COUNT]);
MT_NODISCARD mt_status mt_gguf_prepare(struct mt_ctx *ctx, struct mt_model *plan,
                                       struct mt_tensor ***out, size_t *n);
/* Whether a file of the architecture has 1 + w where the family has w. */
bool mt_gguf_norm_has_one(const struct mt_gguf_arch *a, struct mt_role role);
/* `t` becomes `raw` with `value` added, in F32. */
MT_NODISCARD mt_status mt_gguf_add(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                   const struct mt_tensor *raw, float value);
/* A new record, kv_b [heads (nope + v), rank], of keys [heads, rank, nope] and values [heads, v,
 * rank]. Of one plain type it keeps it, else it is F32. */
MT_NODISCARD mt_status mt_gguf_join_kv(struct mt_ctx *ctx, struct mt_model *m,
                                       const struct mt_tensor *k, const struct mt_tensor *v,
                                       struct mt_tensor **out);

#endif
