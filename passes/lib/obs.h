/* obs.h: which features of a linear map can go, the others making good for them.
 *
 * Backward elimination after the optimal brain surgeon (Hassibi and Stork 1993): y = W h, and
 * P = (sum h h^T + lambda I)^-1. Without feature q the least squares error grows by
 * |w_q|^2 / P_qq; the one where it grows least goes (ties: the lowest index), W and P are updated
 * exactly, and so on. Time: (n - keep) n (n + d) operations, in blocks of steps: a step reads W,
 * and P is written once in a block.
 *
 * Threads: one caller; runs over the pool, with the same answer for any number of threads. Memory:
 * mt_obs_bytes.
 */
#ifndef MT_PASSES_OBS_H
#define MT_PASSES_OBS_H

#include "lib/base/ctx.h"

#include <stdint.h>

uint64_t mt_obs_bytes(uint64_t n, uint64_t d);
/* gram[n, n] is used up; v[d, n]; lambda as it is. kept[keep]: rising. MT_E_NUMERIC when the Gram
 * matrix is not finite. */
MT_NODISCARD mt_status mt_obs_keep(struct mt_ctx *ctx, int64_t n, int64_t d, double *gram,
                                   double lambda, const float *v, int64_t keep, int32_t *kept);
#endif
