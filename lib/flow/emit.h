/* emit.h: evaluates records and writes them, a tile at a time over the pool.
 *
 * A tile is whole rows, about 1 MiB of output (one row at least), cut by shape only. Float
 * tensors are checked for NaN and Inf as they pass, unless --allow-nan; the failure names tensor,
 * file and index. Mapped source pages are given back afterwards.
 */
#ifndef MT_FLOW_EMIT_H
#define MT_FLOW_EMIT_H

#include "lib/flow/format.h"

MT_NODISCARD mt_status mt_emit(struct mt_ctx *ctx, const struct mt_format *fmt,
                               struct mt_writer *w, struct mt_tensor *const *tensors, size_t n);
/* Anonymous memory emit needs, whatever the tensors: workers x tile x 2, plus the longest row. */
uint64_t mt_emit_bytes(const struct mt_ctx *ctx, struct mt_tensor *const *tensors, size_t n);
#endif
