/* importance.h: experts chosen by what neurons are worth to each of several kinds of text, the
 * three rules of LLaMA-MoE's gradient splits (arXiv 2406.16554, section 3.1; spec dense_to_moe
 * 4.7). They take any worth[N, D] >= 0: the paper's mean |h_j dL/dh_j|, which needs a backward
 * pass, or what a forward pass knows.
 *
 *   residual   neurons that most experts would choose stand apart, always on ("inter-sharing")
 *   exclusive  every neuron goes to one expert: of all pairs left the one of the highest worth,
 *              again and again ("independent", the authors' greedy)
 *   tops       every expert takes its own best neurons, which may be others' too
 *              ("inner-sharing"); what nobody takes is left out
 *
 * Ties go to the lower expert, then to the lower neuron. Threads: pure, single-threaded.
 */
#ifndef MT_PASSES_IMPORTANCE_H
#define MT_PASSES_IMPORTANCE_H

#include "passes/lib/split.h"

/* The lists of `s` (made by mt_split_create or _sizes, n experts, D neurons) filled from
 * worth[n, D]: s->shared_width residual neurons, then as `overlap` says. Without overlap lists
 * have mt_split_capacities' sizes. */
MT_NODISCARD mt_status mt_importance_fill(struct mt_ctx *ctx, const double *worth, bool overlap,
                                          struct mt_split *s);
#endif
