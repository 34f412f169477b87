/* role.h: what a tensor is for. Passes select by role, never by name.
 *
 * A role is (kind, layer, expert, part). Layer is -1 outside layers. Expert is the routed expert's
 * number, MT_EXPERT_NONE for tensors that belong to no expert (a dense FFN, attention), or
 * MT_EXPERT_SHARED. k_b_proj and v_b_proj are kv_b_proj as GGUF keeps it, and are met in its files
 * alone. Part tells weight from bias, and from the parts of matrices that are stored as
 * factors or as planes of bits (ffn.h).
 */
#ifndef MT_IR_ROLE_H
#define MT_IR_ROLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(KIND, "label") */
#define MT_ROLE_LIST(X)                                                                            \
    X(OTHER, "other")                                                                              \
    X(EMBED, "embed_tokens")                                                                       \
    X(POS_EMBED, "embed_positions")                                                                \
    X(TYPE_EMBED, "embed_types")                                                                   \
    X(EMBED_NORM, "embed_norm")                                                                    \
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
    X(ATTN_K_B, "k_b_proj")                                                                        \
    X(ATTN_V_B, "v_b_proj")                                                                        \
    X(ATTN_SINKS, "attn_sinks")                                                                    \
    X(ATTN_POST_NORM, "attn_post_norm")                                                            \
    X(FFN_POST_NORM, "ffn_post_norm")                                                              \
    X(ATTN_SCALE, "attn_scale")                                                                    \
    X(FFN_SCALE, "ffn_scale")                                                                      \
    X(Q_NORM, "q_norm")                                                                            \
    X(K_NORM, "k_norm")                                                                            \
    X(FFN_NORM, "ffn_norm")                                                                        \
    X(FFN_GATE, "gate_proj")                                                                       \
    X(FFN_UP, "up_proj")                                                                           \
    X(FFN_DOWN, "down_proj")                                                                       \
    X(ROUTER, "router")                                                                            \
    X(ROUTER_BIAS, "router_selection_bias")                                                        \
    X(SHARED_GATE, "shared_expert_gate")                                                           \
    X(ROUTER_HIDDEN, "router_hidden")                                                              \
    X(ROUTER_GATE, "router_gate")                                                                  \
    X(ROUTER_SKIP, "router_skip")

enum mt_role_kind {
#define MT_ROLE_ENUM(name, label) MT_ROLE_##name,
    MT_ROLE_LIST(MT_ROLE_ENUM)
#undef MT_ROLE_ENUM
        MT_ROLE_COUNT
};

/* X(PART, "label") */
#define MT_PART_LIST(X)                                                                            \
    X(WEIGHT, "weight")                                                                            \
    X(BIAS, "bias")                                                                                \
    X(LEFT, "left")                                                                                \
    X(RIGHT, "right")                                                                              \
    X(SPARSE, "sparse")                                                                            \
    X(SPARSE_ROWS, "sparse_rows")                                                                  \
    X(CODES, "codes")                                                                              \
    X(SCALE, "scale")                                                                              \
    X(ZERO, "zero")                                                                                \
    X(PLANES, "planes")                                                                            \
    X(PLANE_SCALE, "plane_scale")

enum mt_part {
#define MT_PART_ENUM(name, label) MT_PART_##name,
    MT_PART_LIST(MT_PART_ENUM)
#undef MT_PART_ENUM
        MT_PART_COUNT
};

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

static inline struct mt_role mt_role_part(struct mt_role role, enum mt_part part)
{
    role.part = part;
    return role;
}

const char *mt_role_label(enum mt_role_kind kind); /* "gate_proj" */
const char *mt_part_label(enum mt_part part);      /* "bias" */
/* Routers, what chooses experts and the gate of the shared one (whose values may be too small for
 * F16): never rounded. */
bool mt_role_is_routing(enum mt_role_kind kind);
/* "layers.3.experts.7.up_proj", "layers.0.q_proj.bias", "embed_tokens"; into buf; returns buf. */
const char *mt_role_print(struct mt_role role, char *buf, size_t n);
#endif
