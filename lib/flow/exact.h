/* exact.h: sums that do not depend on order.
 *
 * Adding doubles is not associative, so two halves of a sum do not add up to the bits of the whole.
 * Here a sum is a 128-bit integer in units of 2^-64: a term is rounded to that grid by itself,
 * whatever came before it, and integers add exactly. So any order and any grouping of the same
 * terms gives the same bits. A grid of 5.4e-20 and a range of +-9.2e18 hold the statistics of
 * activations; a term or total outside it, or one that is no number, is told, not wrapped.
 *
 * Threads: one per sum.
 */
#ifndef MT_FLOW_EXACT_H
#define MT_FLOW_EXACT_H

#include <stdbool.h>
#include <stdint.h>

/* Two's complement: value = (hi * 2^64 + lo) * 2^-64. Stored in files in this order. */
struct mt_exact {
    uint64_t lo;
    int64_t hi;
};

/* False, and *sum as it was, when the term or the total lies outside the range. */
bool mt_exact_add(struct mt_exact *sum, double term);
bool mt_exact_merge(struct mt_exact *sum, const struct mt_exact *other);
/* The nearest double; ties to even. */
double mt_exact_value(const struct mt_exact *sum);

#endif
