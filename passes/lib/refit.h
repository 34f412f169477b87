/* refit.h: a linear map fitted again to what is left of its inputs, with a guard against overfit.
 *
 * y = V g was computed from n features g; now only h, some of them masked out, is there for a
 * token. The best W for y ~ W h near V solves (G + lambda I)(W - V)^T = R with G = sum h h^T and
 * R = sum h (y - V h)^T: shrunk towards V, so that features that never acted keep their column.
 * (best_conversion section 5, step 5.) Several lambdas are solved for; whichever of them, or V
 * itself, has the smallest error on tokens that were held out is taken.
 *
 * Use: `add` for blocks of tokens to fit to; `solve`; `check` for blocks that were held out;
 * `choose`. Held out is every tenth chunk of consecutive tokens, because neighbours are alike.
 *
 * Threads: one caller; products run over the pool. Memory: mt_refit_bytes. Sums in fp64.
 */
#ifndef MT_PASSES_REFIT_H
#define MT_PASSES_REFIT_H

#include "lib/base/ctx.h"
#include "passes/lib/layer_numbers.h"

#include <stdint.h>

struct mt_refit;

/* Lambdas tried, times the mean diagonal of G. */
#define MT_REFIT_LAMBDAS                                                                           \
    {                                                                                              \
        1e-4, 1e-2, 1e-1                                                                           \
    }
#define MT_REFIT_N_LAMBDAS 3

uint64_t mt_refit_bytes(uint64_t n, uint64_t d);
/* prior[d, n]: V; taken, also on failure. */
MT_NODISCARD mt_status mt_refit_create(struct mt_ctx *ctx, int64_t n, int64_t d, float *prior,
                                       struct mt_refit **out);
void mt_refit_free(struct mt_refit *r);

/* True when token t of n_tokens belongs to the tenth that is held out. A run of tokens that share
 * an answer: *run of them from t on. */
bool mt_refit_held_out(int64_t t, int64_t n_tokens, int64_t *run);

/* How many of n_tokens are held out, and the number of the i-th that is, or that is not. */
int64_t mt_refit_count_held(int64_t n_tokens);
int64_t mt_refit_held_token(int64_t i, int64_t n_tokens);
int64_t mt_refit_fit_token(int64_t i, int64_t n_tokens);

/* h[m, n], y[m, d] */
MT_NODISCARD mt_status mt_refit_add(struct mt_ctx *ctx, struct mt_refit *r, int64_t m,
                                    const float *h, const float *y);
/* Instead of `add`: G[n, n] and R[n, d] made elsewhere from so many tokens; taken. */
void mt_refit_put(struct mt_refit *r, int64_t tokens, double *gram, double *residual);
MT_NODISCARD mt_status mt_refit_solve(struct mt_ctx *ctx, struct mt_refit *r);
MT_NODISCARD mt_status mt_refit_check(struct mt_ctx *ctx, struct mt_refit *r, int64_t m,
                                      const float *h, const float *y);
/* down[d, n]: the winner, *given*; NULL when V did best or numbers were not finite. */
void mt_refit_choose(struct mt_refit *r, float **down, struct mt_refit_numbers *told);
/* V, *given*, once; after choose. */
float *mt_refit_take_prior(struct mt_refit *r);
#endif
