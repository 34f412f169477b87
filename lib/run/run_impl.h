/* run_impl.h: the inside of lib/run, for its own files: what a runner and an open layer hold.
 *
 * Scratch buffers are numbered slots that grow to the largest request and are shared by attention,
 * feed-forward blocks and head, one after the other; runners side by side share them too. A slot's
 * content lives until the next function that uses the slot.
 */
#ifndef MT_RUN_RUN_IMPL_H
#define MT_RUN_RUN_IMPL_H

#include "lib/run/runner.h"
#include "lib/run/tap.h"

enum run_slot {
    RUN_SLOT_A, /* normed input of attention; head input */
    RUN_SLOT_B, /* queries; gate; logits of the head */
    RUN_SLOT_C, /* keys; up */
    RUN_SLOT_D, /* values; rows sorted by expert and their outputs; output of the shared expert */
    RUN_SLOT_E, /* attention output; router logits; shared gate */
    RUN_SLOT_F, /* latent attention: all projections side by side; outputs without padding */
    RUN_SLOT_G, /* latent attention: latent vectors; positions' vectors; inner half of a GLU */
    RUN_SLOTS
};

struct run_scratch {
    mt_buf buf[RUN_SLOTS];
    size_t n[RUN_SLOTS]; /* elements */
};

/* A weight on the device. `owned` holds its bytes when they could not be borrowed. */
struct run_weight {
    struct mt_weight *h; /* NULL: the model has no such tensor */
    void *owned;
};

struct mt_runner {
    const struct mt_model *m;
    struct mt_device *dev;
    struct run_scratch *scratch;
    bool owns_scratch;

    struct run_weight final_norm, final_norm_bias, head;
    const struct mt_tensor *embed; /* NULL: hidden states come from outside */
    bool blocks_only;              /* layers are their feed-forward blocks */
    bool embedded; /* ... for this use: the layer 0 is given what the embedding layer gives */

    struct mt_rope rope, rope_local;
    double *inv_freq_local; /* [rot_dim/2], of layers with a window where they have their own */
    double *inv_freq;       /* [rot_dim/2], for lengths up to max_pos */
    double *inv_freq_long;  /* [rot_dim/2], of one longer sequence ("dynamic") */
    int32_t *pos;           /* positions of a batch */
    size_t pos_cap;
};

/* Of routed experts stored in parts, the product is loaded. */
struct run_ffn_weights {
    struct run_weight gate, up, down, gate_bias, up_bias, down_bias;
};

struct mt_run_layer {
    struct mt_runner *r;
    int layer;
    const struct mt_ffn *ffn;

    struct run_weight attn_norm, attn_norm_bias, q, k, v, o, q_bias, k_bias, v_bias, o_bias;
    struct run_weight q_norm, k_norm, ffn_norm, ffn_norm_bias;
    struct run_weight attn_post_norm, attn_post_bias, ffn_post_norm, ffn_post_bias;
    struct run_weight attn_scale, ffn_scale;
    struct run_weight q_a, q_a_bias, q_a_norm, kv_a, kv_a_bias, kv_a_norm, kv_b; /* latent */
    double *sinks;     /* [n_heads] or NULL */
    int32_t *mla_rows; /* index lists of latent attention */
    size_t mla_cap;
    struct run_ffn_weights dense; /* of a dense layer, or the shared expert */
    struct run_weight router, router_bias, shared_gate, layer_bias;
    /* First matrix of an mlp, gate of a two-factor router; the matrix past an mlp. */
    struct run_weight router_hidden, router_hidden_bias, router_skip;

    struct run_ffn_weights *experts;  /* [n_experts]; loaded when tokens reach them */
    const struct mt_weight **grouped; /* [n_experts], argument of a grouped product */
    double *selection_bias;           /* [rows of the router] or NULL */
    struct mt_routing routing;
    int32_t *expert;       /* [cap*k], behind routing */
    double *weight;        /* [cap*k] */
    double *logits;        /* [cap*rows of the router] */
    int32_t *row_of_slot;  /* [cap*k]: row among those sorted by expert */
    int32_t *token_of_row; /* [cap*k] */
    int64_t *offset;       /* [n_experts+1]: first row of each expert */
    int64_t *from;         /* [n_experts+1]: the same from the first expert at hand on */
    int64_t cap;           /* tokens the arrays have room for */

    const struct mt_tap *tap; /* NULL: nobody looks */
    bool all_experts;         /* mt_run_ffn_all_experts is at work */
};

struct mt_kv_cache {
    struct mt_runner *r;
    int n_layers;
    int64_t max_tokens;
    mt_buf *k, *v;  /* [n_layers] of [max_tokens, n_kv_heads*head_dim] */
    int64_t *n_pos; /* [n_layers] positions filled */
};

/* Shows rows that belong to no routed expert to the tap, if there is one. */
static inline mt_status mt_run_tap(struct mt_ctx *ctx, const struct mt_run_layer *l,
                                   enum mt_tap_point point, mt_buf rows, int64_t m, int64_t width)
{
    const struct mt_tap_rows r = {.point = point, .rows = rows, .m = m, .width = width};

    return l->tap == NULL ? MT_OK : l->tap->see(ctx, l->tap->arg, &r);
}

/* A slot with room for n elements. */
MT_NODISCARD mt_status mt_run_slot(struct mt_ctx *ctx, struct mt_runner *r, enum run_slot slot,
                                   size_t n, mt_buf *out);

/* weights.c: tensors become device weights. Each want is checked against rows x cols; all are
 * loaded together, evaluating over the pool. On failure none of them is held. */
struct run_want {
    const struct mt_tensor *t;
    int64_t rows, cols;
    struct run_weight *w;
};
MT_NODISCARD mt_status mt_run_weights_load(struct mt_ctx *ctx, struct mt_runner *r,
                                           const struct run_want *wants, int n);
void mt_run_weight_free(struct mt_runner *r, struct run_weight *w);
/* Counted bytes that loading `t` takes: 0 when its bytes are borrowed. */
uint64_t mt_run_weight_bytes(const struct mt_tensor *t);

/* A list of wants being gathered. `need` fails when the model lacks the role, `may` passes over
 * it. Both follow the model's records. */
#define RUN_WANTS_MAX 32
struct run_wants {
    struct run_want v[RUN_WANTS_MAX];
    int n;
};
MT_NODISCARD mt_status mt_run_want_need(struct mt_ctx *ctx, const struct mt_model *m,
                                        struct run_wants *l, struct mt_role role, int64_t rows,
                                        int64_t cols, struct run_weight *w);
void mt_run_want_may(const struct mt_model *m, struct run_wants *l, struct mt_role role,
                     int64_t rows, int64_t cols, struct run_weight *w);
/* A matrix that may be stored in parts: `arena` keeps the record that stands for it until the wants
 * are loaded. */
MT_NODISCARD mt_status mt_run_want_matrix(struct mt_ctx *ctx, struct mt_runner *r,
                                          struct mt_arena *arena, struct run_wants *l,
                                          struct mt_role role, int64_t rows, int64_t cols,
                                          struct run_weight *w);

/* norm(x) into y by the model's rule. */
MT_NODISCARD mt_status mt_run_norm(struct mt_ctx *ctx, struct mt_runner *r, mt_buf y, mt_buf x,
                                   int64_t m, const struct run_weight *w,
                                   const struct run_weight *bias);

/* ffn.c: the wants of a layer's block that are loaded at opening; and its end. */
MT_NODISCARD mt_status mt_run_ffn_wants(struct mt_ctx *ctx, struct mt_run_layer *l,
                                        struct run_wants *wants);
MT_NODISCARD mt_status mt_run_ffn_open(struct mt_ctx *ctx, struct mt_run_layer *l);
void mt_run_ffn_close(struct mt_run_layer *l);
/* Scratch elements of slots B, C, D for m tokens of this block. */
void mt_run_ffn_slots(const struct mt_hparams *hp, const struct mt_ffn *f, int64_t m,
                      size_t need[RUN_SLOTS]);

/* route.c: likewise for the router; and the routing of m normed inputs: choices in l->routing, rows
 * sorted by expert in offset, row_of_slot and token_of_row. */
MT_NODISCARD mt_status mt_run_route_wants(struct mt_ctx *ctx, struct mt_run_layer *l,
                                          struct run_wants *wants);
MT_NODISCARD mt_status mt_run_route_open(struct mt_ctx *ctx, struct mt_run_layer *l);
MT_NODISCARD mt_status mt_run_route(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf n,
                                    int64_t m);
/* Arrays for the routing of m tokens. */
MT_NODISCARD mt_status mt_run_route_room(struct mt_ctx *ctx, struct mt_run_layer *l, int64_t m);
void mt_run_route_close(struct mt_run_layer *l);
void mt_run_route_slots(const struct mt_hparams *hp, const struct mt_ffn *f, int64_t m,
                        size_t need[RUN_SLOTS]);

/* mt_rope of a layer for one sequence that ends at position n (some scalings depend on it). */
MT_NODISCARD mt_status mt_run_rope_for(struct mt_ctx *ctx, struct mt_run_layer *l, int64_t n,
                                       struct mt_rope *out);
/* Whether they do. */
bool mt_run_rope_by_length(const struct mt_hparams *hp);

/* layer.c: a projection with its bias, if any; and a tensor with its bias to be loaded. */
MT_NODISCARD mt_status mt_run_linear(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf y, mt_buf x,
                                     int64_t m, const struct run_weight *w,
                                     const struct run_weight *bias);
MT_NODISCARD mt_status mt_run_layer_want(struct mt_ctx *ctx, struct mt_run_layer *l,
                                         struct run_wants *w, enum mt_role_kind kind, int64_t rows,
                                         int64_t cols, struct run_weight *weight, int64_t n,
                                         struct run_weight *bias);
/* Rotates q and k, [m, heads, head_dim] each, sequence by sequence where that matters. */
MT_NODISCARD mt_status mt_run_rotate(struct mt_ctx *ctx, struct mt_run_layer *l,
                                     const struct mt_seqs *seqs, int64_t past, int64_t m, mt_buf q,
                                     mt_buf k);

/* mla.c: latent attention (DeepSeek-V2, arXiv 2405.04434). Heads are laid out as
 * [rope | nope | zeros] of head_dim, and values as [v | zeros], so that everything else sees
 * ordinary heads. `x` is the normed input. */
MT_NODISCARD mt_status mt_run_mla_wants(struct mt_ctx *ctx, struct mt_run_layer *l,
                                        struct run_wants *w);
MT_NODISCARD mt_status mt_run_mla_project(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x,
                                          int64_t m, mt_buf q, mt_buf k, mt_buf v);
/* Values of all heads without their padding, [m, n_heads*v]. */
MT_NODISCARD mt_status mt_run_mla_values(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf att,
                                         int64_t m, mt_buf *out);
void mt_run_mla_close(struct mt_run_layer *l);
/* Scratch elements of slots F and G for m tokens. */
void mt_run_mla_slots(const struct mt_hparams *hp, int64_t m, size_t need[RUN_SLOTS]);
#endif
