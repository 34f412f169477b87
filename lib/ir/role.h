/* role.h: what a tensor is for. Passes select by role, never by name.
 *
 * A role is (kind, layer, expert, part). Layer is -1 outside layers. Expert is the routed expert's
 * number, MT_EXPERT_NONE for tensors that belong to no expert (a dense FFN, attention), or
 * MT_EXPERT_SHARED. Part tells weight from bias and, later, from the parts of quantized tensors.
 */
#ifndef MT_IR_ROLE_H
#define MT_IR_ROLE_H

#include <stddef.h>
#include <stdint.h>

/* X(KIND, "label") */
#define MT_ROLE_LIST(X)                                                                            \
    X(OTHER, "other")                                                                              \
    X(EMBED, "embed_tokens")                                                                       \
    X(POS_EMBED, "embed_positions")                                                                \
    X(FINAL_NORM, "final_norm")                                                                    \
    X(LM_HEAD, "lm_head")                                                                          \
    X(ATTN_NORM, "attn_norm")                                                                      \
    X(ATTN_Q, "q_proj")                                                                            \
    X(ATTN_K, "k_proj")                                                                            \
    X(ATTN_V, "v_proj")                                                                            \
    X(ATTN_O, "o_proj")                                                                            \
    X(ATTN_Q_A, "q_a_proj")                                                                        \
    X(Q_A_NORM, "q_a_norm")                                                                        \
    X(ATTN_KV_A, "kv_a_proj")                                                                      \
    X(KV_A_NORM, "kv_a_norm")                                                                      \
    X(ATTN_KV_B, "kv_b_proj")                                                                      \
    X(ATTN_SINKS, "attn_sinks")                                                                    \
    X(ATTN_POST_NORM, "attn_post_norm")                                                            \
    X(FFN_POST_NORM, "ffn_post_norm")                                                              \
    X(Q_NORM, "q_norm")                                                                            \
    X(K_NORM, "k_norm")                                                                            \
    X(FFN_NORM, "ffn_norm")                                                                        \
    X(FFN_GATE, "gate_proj")                                                                       \
    X(FFN_UP, "up_proj")                                                                           \
    X(FFN_DOWN, "down_proj")                                                                       \
    X(ROUTER, "router")                                                                            \
    X(ROUTER_BIAS, "router_selection_bias")                                                        \
    X(SHARED_GATE, "shared_expert_gate")

enum mt_role_kind {
#define MT_ROLE_ENUM(name, label) MT_ROLE_##name,
    MT_ROLE_LIST(MT_ROLE_ENUM)
#undef MT_ROLE_ENUM
        MT_ROLE_COUNT
};

enum mt_part { MT_PART_WEIGHT, MT_PART_BIAS };

#define MT_EXPERT_NONE (-1)
#define MT_EXPERT_SHARED (-2)

struct mt_role {
    enum mt_role_kind kind;
    int32_t layer;
    int32_t expert;
    enum mt_part part;
};

static inline struct mt_role mt_role(enum mt_role_kind kind, int layer, int expert)
{
    return (struct mt_role){.kind = kind, .layer = layer, .expert = expert};
}

const char *mt_role_label(enum mt_role_kind kind); /* "gate_proj" */
/* "layers.3.experts.7.up_proj", "layers.0.q_proj.bias", "embed_tokens"; into buf; returns buf. */
const char *mt_role_print(struct mt_role role, char *buf, size_t n);
#endif
