/* local_grad.h: one batch of tokens through an FFN whose neurons stand in lists, and back.
 *
 * h = act(gate x + gate_bias) * (up x + up_bias), zero where a neuron may not act, y' = down h. The
 * first `shared` neurons act for every token, then come those of each expert, which act when it is
 * chosen. Products are in fp32, of all tokens with all neurons where experts are narrow, which is
 * faster there, else of each expert with the tokens that chose it. Zero neurons (padding) have no
 * gradient.
 *
 * Threads: one caller; uses the pool. Same bits for any thread count.
 */
#ifndef MT_PASSES_LOCAL_GRAD_H
#define MT_PASSES_LOCAL_GRAD_H

#include "kernels/kernels.h"
#include "passes/lib/local_weights.h"

enum mt_local_way {
    MT_LOCAL_AUTO, /* by the experts' width and how many are chosen */
    MT_LOCAL_MASKED,
    MT_LOCAL_GATHERED
};

struct mt_local_shape {
    int64_t hidden;
    int64_t shared;       /* neurons that always act */
    int64_t expert_width; /* neurons of each expert */
    int n_experts;        /* 0: none */
    bool gated;
    enum mt_act act;
    double glu_limit;      /* of local_act.h; 0: none */
    enum mt_local_way way; /* that products are made */
};
int64_t mt_local_columns(const struct mt_local_shape *s); /* n, of all lists */

/* The arrays of mt_local_weights. Order: a bias stands two behind its matrix. */
enum mt_local_part {
    MT_LOCAL_GATE,
    MT_LOCAL_UP,
    MT_LOCAL_GATE_BIAS,
    MT_LOCAL_UP_BIAS,
    MT_LOCAL_DOWN,
    MT_LOCAL_PARTS
};
float *mt_local_part(const struct mt_local_weights *w, enum mt_local_part part); /* NULL: none */
int64_t mt_local_part_size(const struct mt_local_shape *s, enum mt_local_part part);

struct mt_local_batch {
    struct mt_local_shape shape;
    int64_t n, size;       /* columns; tokens at most */
    int64_t m;             /* tokens at hand; the caller sets it */
    float *x, *y;          /* [m, hidden]: inputs; targets, which `forward` turns into errors */
    unsigned char *picked; /* [m, n_experts] */
    /* [m, n]; gathered: [m, shared], then [tokens of it, width] of each expert. On the way back h
     * becomes its own gradient. */
    float *zg, *zu, *h;
    float *grad;   /* of one part */
    bool gathered; /* the batch at hand; `forward` decides */
    float *room;   /* where jobs work then: that of one, [n_slots] times */
    int n_slots;
    /* Gathered: tokens that chose expert e are rows[first[e]] and so on, rising. */
    int64_t *first; /* [n_experts + 1] */
    int32_t *rows;  /* [m * n_experts] at most */
};

uint64_t mt_local_batch_bytes(const struct mt_local_shape *s, int64_t size);
/* End it with mt_local_batch_close, also after a failure. */
MT_NODISCARD mt_status mt_local_batch_open(struct mt_ctx *ctx, const struct mt_local_shape *s,
                                           int64_t size, struct mt_local_batch *b);
void mt_local_batch_close(struct mt_local_batch *b);

/* y = y' - y */
MT_NODISCARD mt_status mt_local_forward(struct mt_ctx *ctx, struct mt_local_batch *b,
                                        const struct mt_local_weights *w);

/* Given one part's gradient, after which that part may be changed. */
typedef mt_status (*mt_local_grad_fn)(struct mt_ctx *ctx, void *arg, enum mt_local_part part,
                                      const float *grad);
/* After forward: gradients of by / 2 times the sum of squared errors, part by part, down first. */
MT_NODISCARD mt_status mt_local_backward(struct mt_ctx *ctx, struct mt_local_batch *b,
                                         const struct mt_local_weights *w, double by,
                                         mt_local_grad_fn fn, void *arg);
#endif
