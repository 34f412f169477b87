/* best.h: the k largest of n numbers, best first.
 *
 * Of equals the lowest index leads; NaN comes behind every number, and both zeros are one. Scans
 * for one after the other where k is small, and one merge sort otherwise. No allocation: n is at
 * most MT_BEST_MAX, of which the stack holds 128 KiB. Any thread.
 */
#ifndef MT_BASE_BEST_H
#define MT_BASE_BEST_H

#include <stdint.h>

#define MT_BEST_MAX 4096

/* out[k] gets indices. `left_out` NULL, or 1 where an entry is not to be chosen; k entries at the
 * least must be left. */
void mt_best_f64(const double *v, const unsigned char *left_out, int n, int k, int32_t *out);
void mt_best_f32(const float *v, int n, int k, int32_t *out);
#endif
