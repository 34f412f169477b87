/* blocks.h: GGML's block types as numbers.
 *
 * A block holds a fixed count of elements (mt_dtype_block) as small integers with scales; the
 * layouts and formulas are those of ggml (spec: quantize, 2.6), products in fp32 in its order.
 * Known are the types without codebooks: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K to Q8_K, IQ4_NL,
 * IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4. Threads: pure functions.
 */
#ifndef MT_KERNELS_BLOCKS_H
#define MT_KERNELS_BLOCKS_H

#include "lib/base/dtype.h"

bool mtk_block_known(enum mt_dtype t);
/* n elements, whole blocks, of a known type. */
void mtk_block_to_f32(enum mt_dtype t, const void *src, float *dst, size_t n);

#endif
