/* local_grad.h: one batch of tokens through an FFN whose neurons stand in lists, and back.
 *
 * h = act(gate x + gate_bias) * (up x + up_bias), zero where a neuron may not act, y' = down h. The
 * first `shared` neurons act for every token, then come those of each expert, which act when it is
 * chosen. Products are dense, in fp32: at the widths that experts have here that is faster than
 * taking each expert's tokens together. Zero neurons (padding) have no gradient.
 *
 * Threads: one caller; uses the pool. Same bits for any thread count.
 */
#ifndef MT_PASSES_LOCAL_GRAD_H
#define MT_PASSES_LOCAL_GRAD_H

#include "kernels/kernels.h"
#include "passes/lib/local_weights.h"

struct mt_local_shape {
    int64_t hidden;
    int64_t shared;       /* neurons that always act */
    int64_t expert_width; /* neurons of each expert */
    int n_experts;        /* 0: none */
    bool gated;
    enum mt_act act;
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
    int64_t n, size;         /* columns; tokens at most */
    int64_t m;               /* tokens at hand; the caller sets it */
    float *x, *y;            /* [m, hidden]: inputs; targets, which `forward` turns into errors */
    unsigned char *picked;   /* [m, n_experts] */
    float *zg, *zu, *h, *dh; /* [m, n] */
    float *grad;             /* of one part */
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
