/* spill.h: solved weights put aside in a scratch file, as slices of a mapped file.
 *
 * A method that computes weights (a refit of every layer) would hold as much memory as the model
 * has such weights, because records keep their sources as long as the plan lives. These go to an
 * unlinked file (scratch.h) instead, rounded to the record's dtype, and are read back by pages; the
 * plan owns the mapping. One file for each call of mt_spill_end.
 *
 * Threads: one caller.
 */
#ifndef MT_PASSES_SPILL_H
#define MT_PASSES_SPILL_H

#include "lib/ir/model.h"

struct mt_spill;

/* *given*; ended by mt_spill_end or mt_spill_free. */
MT_NODISCARD mt_status mt_spill_begin(struct mt_ctx *ctx, struct mt_spill **out);
/* values [rows, cols] of t's shape with a leading dimension of ld floats, times scale. The record
 * gets its source in mt_spill_end. */
MT_NODISCARD mt_status mt_spill_put(struct mt_ctx *ctx, struct mt_spill *s, struct mt_tensor *t,
                                    const float *values, int64_t ld, float scale);
/* Maps what was put, gives the mapping to m and the records their sources. Ends s in any case. */
MT_NODISCARD mt_status mt_spill_end(struct mt_ctx *ctx, struct mt_spill *s, struct mt_model *m);
/* What putting all fitted weights of a plan aside takes, while they are pending: down projections,
 * and with `inner` gate and up rows and their biases. */
uint64_t mt_spill_bytes(const struct mt_model *m, bool inner);
void mt_spill_free(struct mt_spill *s); /* NULL is fine */
#endif
