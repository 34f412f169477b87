/* refit_down.h: the refit of down projections, for refits that begin with it.
 *
 * Hooks are those of method.h, on a state of refit_down.c.
 */
#ifndef MT_PASSES_CONVERT_REFIT_DOWN_H
#define MT_PASSES_CONVERT_REFIT_DOWN_H

#include "passes/convert/method.h"

#define REFIT_DOWN_BLOCK 1024 /* tokens at a time */

int64_t refit_down_columns(const struct mt_moe_shape *p); /* of all lists */
int refit_down_rounds(const struct mt_convert_at *at);
uint64_t refit_down_memory(const struct mt_convert_at *at);
const char *refit_down_spare(const struct mt_convert_at *at);
MT_NODISCARD mt_status refit_down_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                        int64_t n_tokens, void **state);
MT_NODISCARD mt_status refit_down_observe(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                          void *state, const struct mt_observation *ob,
                                          const unsigned char *picked);
MT_NODISCARD mt_status refit_down_solve(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                        void *state, struct mt_convert_down *out);
void refit_down_end(void *state);

/* What experts together should give for tokens t to t + m of a block, m <= REFIT_DOWN_BLOCK: the
 * dense output without its bias, and a part of the drift. *y [m, hidden] is the observation's or
 * the state's, until the next call. */
MT_NODISCARD mt_status refit_down_target(struct mt_ctx *ctx, void *state,
                                         const struct mt_observation *ob, int64_t t, int64_t m,
                                         const float **y);
/* [hidden, columns]: the source's columns in the order of the lists; *given*, once. After solve. */
float *refit_down_take_prior(void *state);
#endif
