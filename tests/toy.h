/* toy.h: small random models made in memory, with any mix of features, also those no family has.
 *
 * For tests that compare computations; tiny.h makes checkpoint directories of real families.
 * Weights are normal numbers scaled so that states stay near unit size; norms are near 1, biases
 * and router logits large enough to matter. The same spec and seed give the same model.
 */
#ifndef MT_TESTS_TOY_H
#define MT_TESTS_TOY_H

#include "lib/ir/family.h"

struct toy {
    const char *family;                    /* default "llama", or "glm4_moe" with experts */
    int layers, heads, kv_heads, head_dim; /* defaults 2, 4, 2, 8 */
    int64_t hidden, vocab, width;          /* defaults 32, 61, 48 */
    int experts, k;                        /* 0: dense */
    int first_dense;                       /* dense layers before the first MoE one */
    int64_t shared_width;
    bool shared_gated, qkv_bias, o_bias, in_bias, out_bias, tied, ungated;
    enum mt_qk_norm qk_norm;
    struct mt_router_rule rule; /* scale 0 is read as 1 */
    enum mt_dtype dtype;        /* MT_BOOL (0): F32 */
    uint64_t seed;
};

MT_NODISCARD mt_status toy_model(struct mt_ctx *ctx, const struct toy *spec, struct mt_model **out);

/* n ids below vocab. */
void toy_ids(uint64_t seed, int64_t vocab, int32_t *ids, int n);
#endif
