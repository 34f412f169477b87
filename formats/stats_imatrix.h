/* stats_imatrix.h: which statistic an imatrix holds for which matrix; for stats_imatrix*.c alone.
 *
 * imatrix.gguf (llama.cpp): for each matrix NAME, "NAME.in_sum2" F32 [matrices, columns] = sums of
 * squares of its inputs, and "NAME.counts" F32 [matrices, 1] = tokens behind them; general.type =
 * "imatrix", imatrix.datasets, imatrix.chunk_count, imatrix.chunk_size. Stacks of experts have a
 * row and a count each. The older binary form: i32 entries; each i32 length, name, i32 calls, i32
 * values, F32 values of which value / calls is the mean square; at the end i32 calls and the name
 * of the text.
 */
#ifndef MT_FORMATS_STATS_IMATRIX_H
#define MT_FORMATS_STATS_IMATRIX_H

#include "formats/stats.h"

#define IMATRIX_SUMS ".in_sum2"
#define IMATRIX_COUNTS ".counts"

struct imatrix_row {
    enum mt_role_kind kind;
    int expert; /* MT_EXPERT_NONE, MT_EXPERT_SHARED, or 0 for stacks */
    enum mt_stat sums, counts;
};
extern const struct imatrix_row imatrix_rows[];
extern const int imatrix_n_rows;
/* The row of a matrix of m; NULL when profiles do not hold its statistic. */
const struct imatrix_row *imatrix_find(const struct mt_model *m, struct mt_role role);

#endif
