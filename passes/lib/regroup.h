/* regroup.h: neurons moved to the experts that are chosen when they matter.
 *
 * Given which experts a router chose for each token, neuron j earns in expert e what it would have
 * contributed while e was chosen, sum over tokens of picked_te c_j(t)^2 with c_j = |h_j| ||v_j||.
 * The balanced assignment that earns most is exact (assign.h). Fitting the router to the new groups
 * and moving again is coordinate ascent on the contributions that are kept.
 *
 * Threads: one caller; products run over the pool. Memory: mt_regroup_bytes.
 */
#ifndef MT_PASSES_REGROUP_H
#define MT_PASSES_REGROUP_H

#include "passes/lib/split.h"

struct mt_regroup;

uint64_t mt_regroup_bytes(uint64_t width, uint64_t n_experts);
/* length[width]: ||v_j||, copied. */
MT_NODISCARD mt_status mt_regroup_create(struct mt_ctx *ctx, int64_t width, int n_experts,
                                         const double *length, struct mt_regroup **out);
void mt_regroup_free(struct mt_regroup *g);
/* h[m, width], picked[m, n_experts] */
MT_NODISCARD mt_status mt_regroup_add(struct mt_ctx *ctx, struct mt_regroup *g, int64_t m,
                                      const float *h, const unsigned char *picked);
/* Fills the routed lists anew; shared neurons stay where they are. */
MT_NODISCARD mt_status mt_regroup_move(struct mt_ctx *ctx, const struct mt_regroup *g,
                                       struct mt_split *split);
#endif
