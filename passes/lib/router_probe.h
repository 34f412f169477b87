/* router_probe.h: how a finished router does on a sample of tokens, against the oracle.
 *
 * The oracle ranks experts by ||V_e h_e||. Tokens and norms are sampled evenly while activations
 * are shown; the router is measured when it stands as it will be stored.
 *
 * Threads: one caller; products run over the pool. Memory: mt_router_probe_bytes.
 */
#ifndef MT_PASSES_ROUTER_PROBE_H
#define MT_PASSES_ROUTER_PROBE_H

#include "lib/base/ctx.h"
#include "passes/lib/router_form.h"
#include "passes/lib/targets.h"

#include <stdint.h>

#define MT_ROUTER_SAMPLE_MAX 4096 /* tokens a finished router is measured on */

struct mt_router_probe;

uint64_t mt_router_probe_bytes(uint64_t d, uint64_t n_experts);
/* n_tokens: of the whole data set, so that the sample is spread evenly over it. */
MT_NODISCARD mt_status mt_router_probe_create(struct mt_ctx *ctx, int64_t d, int n_experts, int k,
                                              int64_t n_tokens, struct mt_router_probe **out);
void mt_router_probe_free(struct mt_router_probe *p);
/* x[m, d], norms[m, n]; token0 is the number of the first token. */
void mt_router_probe_add(struct mt_router_probe *p, int64_t m, int64_t token0, const float *x,
                         const float *norms);

/* How a router does on the sampled tokens. */
struct mt_router_quality {
    int64_t tokens;      /* 0: nothing was sampled, the rest is 0 too */
    double active;       /* experts that act for a token */
    double agreement;    /* share of the router's picks that the oracle picks too; by threshold it
                            picks    as many of each token */
    double captured;     /* squared norm of the picked experts, relative to the oracle's picks */
    double weight_error; /* largest |weight * alpha - 1| of a picked expert; for copies, that of the
                            weights' sum, relative to G */
    double ties;         /* share of tokens whose k-th and next logit differ by less than fp32
                            scores tell apart after flattening */
    double load_oracle_max, load_router_max; /* busiest expert's share of picks, times n */
};
/* The router and its selection bias [n] (NULL: none) as they will be stored. */
MT_NODISCARD mt_status mt_router_probe_measure(struct mt_ctx *ctx, const struct mt_router_probe *p,
                                               const struct mt_target *target,
                                               const struct mt_router_form *router,
                                               const float *bias, struct mt_router_quality *out);
/* The score (logit and bias[n]; NULL: none) that k of the n experts reach on average over the
 * sample when each token's `least` best act in any case: halfway between the last that acts and the
 * next.
 */
MT_NODISCARD mt_status mt_router_probe_threshold(struct mt_ctx *ctx,
                                                 const struct mt_router_probe *p,
                                                 const struct mt_router_form *router,
                                                 const float *bias, double k, int least,
                                                 double *at);
/* Share of router a's k choices that router b makes too, by logits alone; NaN without a sample. */
MT_NODISCARD mt_status mt_router_probe_agree(struct mt_ctx *ctx, const struct mt_router_probe *p,
                                             const struct mt_router_form *a,
                                             const struct mt_router_form *b, double *share);
#endif
