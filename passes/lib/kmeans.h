/* kmeans.h: k-means with clusters of given sizes.
 *
 * Greedy k-means++ seeding (Arthur and Vassilvitskii 2007), a few free iterations, then iterations
 * whose assignment step is the exact balanced one (assign.h), until nothing moves. The answer
 * depends on data, sizes, seed and stream only, not on the thread count. Deterministic ties as in
 * assign.h.
 *
 * Memory: 12 bytes per (point, cluster), about 28 with the assignment, and k rows. Uses the pool.
 */
#ifndef MT_PASSES_KMEANS_H
#define MT_PASSES_KMEANS_H

#include "lib/base/ctx.h"

#include <stdint.h>

#define MT_KMEANS_FREE_ITERS 5
#define MT_KMEANS_BALANCED_ITERS 12

/* Points x[n, d], row-major. cap[k] sums to n, and k <= n. Cluster of each point in to[n]. */
MT_NODISCARD mt_status mt_kmeans_balanced(struct mt_ctx *ctx, int64_t n, int64_t d, const float *x,
                                          int k, const int64_t *cap, uint64_t seed, uint64_t stream,
                                          int32_t *to);
#endif
