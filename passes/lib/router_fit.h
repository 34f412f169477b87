/* router_fit.h: linear routers for experts that were cut from one FFN.
 *
 * The oracle of a token ranks experts by the norm of what each would contribute,
 * n_e = ||V_e h_e||. A ridge regression without intercept maps the FFN's input x to labels made
 * from those norms; its rows are the router's (spec dense_to_moe section 5, best_conversion
 * section 5 step 4). The closed form needs X^T X and X^T L only, so tokens arrive in batches.
 *
 * Threads: one caller; products run over the pool. Memory: mt_router_fit_bytes.
 */
#ifndef MT_PASSES_ROUTER_FIT_H
#define MT_PASSES_ROUTER_FIT_H

#include "lib/base/ctx.h"
#include "lib/ir/tensor.h"
#include "passes/lib/split.h"

#include <stdint.h>

enum mt_router_labels {
    MT_LABELS_MEMBERSHIP, /* 1 for the k largest norms, else 0 */
    MT_LABELS_LOGNORM,    /* log(norm + 1e-3 * the token's mean norm) */
    MT_LABELS_SOFT,       /* the logistic function of 3 log(norm / cut), where cut is the geometric
                             mean of the last norm that is in and the first that is out: membership
                             that tells clear cases from close ones, and norms of zero are harmless */
};

#define MT_ROUTER_FIT_LAMBDA 1e-3 /* of best_conversion; times the mean diagonal of X^T X */

/* The k largest of v[n], largest first; ties to the lowest index. */
void mt_top_k(const float *v, int n, int k, int32_t *idx);

/* Labels of one token from its norms[n], less their mean. */
void mt_router_label(enum mt_router_labels kind, const float *norms, int n, int k, float *label);

/* router[n, d]: row e is the mean of the gate rows of expert e (ExpertWeaver, arXiv 2602.15521).
 * Elements that are NaN or infinite count as 0, so that the router is finite whatever the gate. */
MT_NODISCARD mt_status mt_router_centroids(struct mt_ctx *ctx, const struct mt_tensor *gate,
                                           const struct mt_split *split, float *router);

struct mt_router_fit;

uint64_t mt_router_fit_bytes(uint64_t d, uint64_t n_experts);
MT_NODISCARD mt_status mt_router_fit_create(struct mt_ctx *ctx, int64_t d, int n_experts, int k,
                                            enum mt_router_labels labels,
                                            struct mt_router_fit **out);
void mt_router_fit_free(struct mt_router_fit *f);
/* Before the first tokens, for routers whose experts act by a threshold rather than by rank: labels
 * keep the token's mean, which says how much there is to contribute at all, and the fit has an
 * intercept. What is best is told by one norm for all tokens, which k experts of the first tokens
 * shown reach on average, instead of by each token's own k-th. */
MT_NODISCARD mt_status mt_router_fit_keep_mean(struct mt_ctx *ctx, struct mt_router_fit *f);
/* x[m, d], norms[m, n] */
MT_NODISCARD mt_status mt_router_fit_add(struct mt_ctx *ctx, struct mt_router_fit *f, int64_t m,
                                         const float *x, const float *norms);
/* False once an input or a norm was NaN or infinite, or sums overflowed: there is no fit then. */
bool mt_router_fit_finite(const struct mt_router_fit *f);
/* router[n, d], not flattened; lambda times the mean diagonal of X^T X shrinks it. Uses the
 * accumulated matrices up: call once. */
MT_NODISCARD mt_status mt_router_fit_solve(struct mt_ctx *ctx, struct mt_router_fit *f,
                                           double lambda, float *router);
/* bias[n] of a solved fit that keeps means. */
void mt_router_fit_intercepts(const struct mt_router_fit *f, float *bias);

/* The rigorous bound on any |logit| of router[n, d] for inputs that left an RMS norm with gains
 * gamma[d]: such an input is gamma times a vector of length <= sqrt(d). */
double mt_router_logit_bound(const float *router, int n, const float *gamma, int64_t d);
#endif
