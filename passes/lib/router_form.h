/* router_form.h: a router's weights on the host, and what it says of tokens.
 *
 * The kinds of lib/ir/ffn.h: linear ones that every format holds, and those of the native layout.
 * Passes make a form, ask it for logits while they fit what depends on its choices, and store it.
 * The same arithmetic as the runner's, products in fp32.
 *
 * Ownership: the form owns its arrays; mt_router_form_free ends them. Threads: one caller; products
 * run over the pool.
 */
#ifndef MT_PASSES_ROUTER_FORM_H
#define MT_PASSES_ROUTER_FORM_H

#include "lib/base/ctx.h"
#include "lib/ir/model.h"

struct mt_router_form {
    struct mt_router is; /* kind, fn, width, gated, biases, skip */
    bool has_bias;       /* `bias` is added to the logits (mt_ffn.router_bias) */
    int n;               /* logits */
    int64_t d;
    float *w;          /* ROUTER: [n, d]; mlp [n, width]; spectral [n width, d] */
    float *inner;      /* ROUTER_HIDDEN [width, d] of an mlp, else ROUTER_GATE as w; NULL: none */
    float *inner_bias; /* [rows of inner] when is.hidden_bias */
    float *skip;       /* ROUTER_SKIP [n, d] when is.skip */
    float *bias;       /* [n] when has_bias */
};

/* Arrays of zeros for the kind; n rows of d. */
MT_NODISCARD mt_status mt_router_form_open(struct mt_ctx *ctx, const struct mt_router *is,
                                           bool has_bias, int n, int64_t d,
                                           struct mt_router_form *out);
void mt_router_form_free(struct mt_router_form *f);
uint64_t mt_router_form_bytes(const struct mt_router *is, int64_t n, int64_t d);

/* logits[m, n] of x[m, d]. */
MT_NODISCARD mt_status mt_router_form_run(struct mt_ctx *ctx, const struct mt_router_form *f,
                                          int64_t m, const float *x, float *logits);

/* In a pass's `plan`, when the layer's linear ROUTER is listed: lists the records of the kind in
 * its place (F32, pending) and sets m->ffn[layer].router. */
MT_NODISCARD mt_status mt_router_form_plan(struct mt_ctx *ctx, const struct mt_router *is,
                                           bool has_bias, struct mt_model *m, int layer);
/* In its `layer`: their values. */
MT_NODISCARD mt_status mt_router_form_store(struct mt_ctx *ctx, const struct mt_router_form *f,
                                            struct mt_model *m, int layer);
#endif
