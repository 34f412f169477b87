/* tiny.h: small random models for tests, as checkpoint directories of any family.
 *
 *   const char *dir = tiny_write(t, "m", &(struct tiny){.family = "qwen3_moe", .experts = 4});
 *   struct mt_model *m = tiny_open(t, dir);     ... mt_model_free(m);
 *
 * Writer and reader are a few lines of their own, so what they say is independent of formats/.
 * Same options and seed, same bytes. Weights are normal with variance 1/columns (embedding 1),
 * norms 1 + 0.1 normal, biases 0.1 normal, so every part of the forward pass matters.
 */
#ifndef MT_TESTS_TINY_H
#define MT_TESTS_TINY_H

#include "lib/ir/family.h"
#include "tests/t.h"

/* Zero means the default in brackets. */
struct tiny {
    const char *family;                   /* [llama] */
    int layers, hidden, width;            /* [2, 32, 48]; width of dense FFNs and of experts */
    int heads, kv_heads, head_dim, vocab; /* [4, 2, 8, 64 or 260 with a tokenizer] */
    int experts, k, shared;               /* [4, 2]; shared experts of glm4_moe [0] */
    int expert_width;                     /* [width] */
    int dense_layers;                     /* leading dense layers of glm4_moe and qwen3_moe */
    enum mt_dtype dtype;                  /* MT_F32 or MT_BF16 [F32] */
    uint64_t seed;
    bool tied;
    bool biases;        /* attention biases where the family has a choice */
    bool mlp_biases;    /* llama */
    bool qk_norm;       /* glm4_moe */
    bool no_renorm;     /* norm_topk_prob false */
    int shards;         /* above 1: that many files and an index */
    bool tokenizer;     /* a byte-level tokenizer.json: id = byte, 256 = <|endoftext|> */
    const char *config; /* more members for config.json: "\"rope_theta\": 500" */
};

/* Makes the directory `name` in the test's scratch directory and returns its path (borrowed, one
 * of the last 32). A failure fails the test and returns the path all the same. */
const char *tiny_write(struct t *t, const char *name, const struct tiny *o);

/* Reads config.json and model.safetensors (one file, no shards) of a directory into a bound model,
 * trusting them. NULL after a failure, which is left in t->ctx. For tests that lie below formats/.
 */
struct mt_model *tiny_open(struct t *t, const char *dir);
/* Both at once, as "dense". */
struct mt_model *tiny_dense(struct t *t, const struct tiny *o);
#endif
