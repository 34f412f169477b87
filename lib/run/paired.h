/* paired.h: is one candidate closer to the reference than another, on the same text?
 *
 * Tokens of a window depend on each other, so whole windows are drawn, with replacement, and the
 * difference of the means over all tokens of the draw is taken: a paired bootstrap over windows.
 * The same for every thread count and machine. Fewer than two windows have no interval: low and
 * high are then NaN.
 */
#ifndef MT_RUN_PAIRED_H
#define MT_RUN_PAIRED_H

#include "lib/run/compare.h"

#define MT_PAIRED_DRAWS 2000

struct mt_paired {
    double mean;      /* of a - b over tokens */
    double low, high; /* 95 % of the draws lie between */
};

/* a, b: values of every predicted token in data set order, as mt_compare_report.kl. */
MT_NODISCARD mt_status mt_paired(struct mt_ctx *ctx, const float *a, const float *b,
                                 const struct mt_dataset *data, uint64_t seed,
                                 struct mt_paired *out);
#endif
