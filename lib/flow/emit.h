/* emit.h: evaluates records and writes them, a tile at a time over the pool.
 *
 * A tile is whole rows, about 1 MiB of output (one row at least), cut by shape only; a record that
 * lies contiguous in a mapped file is handed on as it lies, in pieces of 1 MiB. Records of a plain
 * float dtype are checked for NaN and Inf as they pass, unless --allow-nan; the failure names
 * tensor, file and index. Other dtypes are bytes. The mapped pages behind a record are given back
 * when the last record that reads them is written. Progress is added in bytes; the region is the
 * caller's. Threads: one caller; the pool inside.
 */
#ifndef MT_FLOW_EMIT_H
#define MT_FLOW_EMIT_H

#include "lib/flow/format.h"

MT_NODISCARD mt_status mt_emit(struct mt_ctx *ctx, const struct mt_format *fmt, struct mt_writer *w,
                               struct mt_tensor *const *tensors, size_t n);
/* Anonymous memory emit needs, whatever the tensors: workers x tile x 2, plus the longest row. */
uint64_t mt_emit_bytes(const struct mt_ctx *ctx, struct mt_tensor *const *tensors, size_t n);

/* Names the first of the tensors read from files that holds NaN or Inf, with its index
 * (MT_E_NUMERIC); MT_OK when there is none. For failures of computations, to tell where they come
 * from. layer -1: tensors of every layer. */
MT_NODISCARD mt_status mt_emit_blame(struct mt_ctx *ctx, struct mt_tensor *const *tensors, size_t n,
                                     int layer);
#endif
