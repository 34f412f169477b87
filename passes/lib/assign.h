/* assign.h: the cheapest assignment of points to clusters of given sizes.
 *
 * Minimises the sum of cost[i*k + to[i]] subject to cluster c receiving exactly cap[c] points.
 * Exact (successive shortest paths over a graph of the k clusters, spec dense_to_moe section 5),
 * not a heuristic. Costs are rounded to 47 bits of their range first, so that all arithmetic is in
 * integers: ties are exact and the answer does not depend on summation order. Equal costs are
 * resolved deterministically: the lowest cluster first, then the lowest point.
 *
 * Memory: about 16 bytes per entry of cost, k <= MT_ASSIGN_CLUSTERS_MAX. Time: k^2 per point that
 * must leave its cheapest cluster. Threads: pure, single-threaded.
 */
#ifndef MT_PASSES_ASSIGN_H
#define MT_PASSES_ASSIGN_H

#include "lib/base/ctx.h"

#include <stdint.h>

#define MT_ASSIGN_CLUSTERS_MAX 65536

/* cost[n*k] finite (MT_E_NUMERIC otherwise); cap[k] >= 0 sums to n. */
MT_NODISCARD mt_status mt_assign_balanced(struct mt_ctx *ctx, int64_t n, int k, const double *cost,
                                          const int64_t *cap, int32_t *to);
#endif
