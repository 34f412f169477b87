/* best_subset.h: which experts together come nearest to a vector, by trying all (FactorLLM's
 * exhaustive labeller, spec dense_to_moe 4.1, step 4; and the oracle that others are measured by).
 *
 * With f_e what expert e gives, |y - c sum_S f_e|^2 = |y|^2 - 2 c sum_S <f_e, y> + c^2 sum_S,S
 * <f_a, f_b>: products of experts suffice. Threads: pure.
 */
#ifndef MT_PASSES_BEST_SUBSET_H
#define MT_PASSES_BEST_SUBSET_H

#include <stdbool.h>
#include <stdint.h>

#define MT_SUBSETS_MAX 20000 /* more are not tried */
#define MT_SUBSET_EXPERTS_MAX 64

/* How many subsets of exactly k of n there are; MT_SUBSETS_MAX + 1 if more than that. */
int64_t mt_subsets(int n, int k);

/* The subset of exactly k of n <= MT_SUBSET_EXPERTS_MAX experts, in `in`, whose sum times c is
 * nearest to y: gram[n, n] = <f_a, f_b>, dot[n] = <f_e, y>. Of equal ones the first in
 * lexicographic order. Returns the squared distance less |y|^2. */
double mt_best_subset(const double *gram, const double *dot, double c, int n, int k, bool *in);
#endif
