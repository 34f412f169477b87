/* dtype.h: element types of stored tensors and their sizes.
 *
 * Plain types: the list and the spelling are those of safetensors (spec: formats, 1.3). Sizes are
 * in bits because F4 and the F6 types are narrower than a byte. Block types: GGML's quantized ones
 * (spec: formats, 4.1), whose elements come in blocks along the last dimension and do not stand
 * alone. They are carried, sliced by rows and sized, never read as numbers here; safetensors knows
 * none of them. Valid C++.
 */
#ifndef MT_BASE_DTYPE_H
#define MT_BASE_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, bits, is_float) in the descending order in which the reference writer sorts types. */
#define MT_DTYPE_LIST(X)                                                                           \
    X(BOOL, 8, 0)                                                                                  \
    X(F4, 4, 1)                                                                                    \
    X(F6_E2M3, 6, 1)                                                                               \
    X(F6_E3M2, 6, 1)                                                                               \
    X(U8, 8, 0)                                                                                    \
    X(I8, 8, 0)                                                                                    \
    X(F8_E5M2, 8, 1)                                                                               \
    X(F8_E4M3, 8, 1)                                                                               \
    X(F8_E8M0, 8, 1)                                                                               \
    X(F8_E4M3FNUZ, 8, 1)                                                                           \
    X(F8_E5M2FNUZ, 8, 1)                                                                           \
    X(I16, 16, 0)                                                                                  \
    X(U16, 16, 0)                                                                                  \
    X(F16, 16, 1)                                                                                  \
    X(BF16, 16, 1)                                                                                 \
    X(I32, 32, 0)                                                                                  \
    X(U32, 32, 0)                                                                                  \
    X(F32, 32, 1)                                                                                  \
    X(C64, 64, 1)                                                                                  \
    X(F64, 64, 1)                                                                                  \
    X(I64, 64, 0)                                                                                  \
    X(U64, 64, 0)

/* X(name, elements of a block, bytes of a block) */
#define MT_DTYPE_BLOCK_LIST(X)                                                                     \
    X(Q4_0, 32, 18)                                                                                \
    X(Q4_1, 32, 20)                                                                                \
    X(Q5_0, 32, 22)                                                                                \
    X(Q5_1, 32, 24)                                                                                \
    X(Q8_0, 32, 34)                                                                                \
    X(Q8_1, 32, 36)                                                                                \
    X(Q2_K, 256, 84)                                                                               \
    X(Q3_K, 256, 110)                                                                              \
    X(Q4_K, 256, 144)                                                                              \
    X(Q5_K, 256, 176)                                                                              \
    X(Q6_K, 256, 210)                                                                              \
    X(Q8_K, 256, 292)                                                                              \
    X(IQ2_XXS, 256, 66)                                                                            \
    X(IQ2_XS, 256, 74)                                                                             \
    X(IQ3_XXS, 256, 98)                                                                            \
    X(IQ1_S, 256, 50)                                                                              \
    X(IQ4_NL, 32, 18)                                                                              \
    X(IQ3_S, 256, 110)                                                                             \
    X(IQ2_S, 256, 82)                                                                              \
    X(IQ4_XS, 256, 136)                                                                            \
    X(IQ1_M, 256, 56)                                                                              \
    X(TQ1_0, 256, 54)                                                                              \
    X(TQ2_0, 256, 66)                                                                              \
    X(MXFP4, 32, 17)                                                                               \
    X(NVFP4, 64, 36)                                                                               \
    X(Q1_0, 128, 18)                                                                               \
    X(Q2_0, 64, 18)

enum mt_dtype {
#define MT_DTYPE_ENUM(name, bits, is_float) MT_##name,
    MT_DTYPE_LIST(MT_DTYPE_ENUM)
#undef MT_DTYPE_ENUM
#define MT_DTYPE_ENUM(name, elements, bytes) MT_##name,
        MT_DTYPE_BLOCK_LIST(MT_DTYPE_ENUM)
#undef MT_DTYPE_ENUM
            MT_DTYPE_COUNT
};
#define MT_DTYPE_PLAIN_COUNT ((int)MT_U64 + 1) /* the block types follow */

const char *mt_dtype_name(enum mt_dtype t);                          /* "BF16" */
unsigned mt_dtype_bits(enum mt_dtype t);                             /* 16; 0 for block types */
bool mt_dtype_parse(const char *name, size_t n, enum mt_dtype *out); /* plain types; exact */

bool mt_dtype_is_block(enum mt_dtype t);
unsigned mt_dtype_block(enum mt_dtype t); /* elements of a block; 1 for plain types */
/* True when each element fills whole bytes, so that single elements can be picked. */
bool mt_dtype_pickable(enum mt_dtype t);

/* True for the types that kernels convert to and from float: F64, F32, F16, BF16. */
bool mt_dtype_is_plain_float(enum mt_dtype t);

/* Bytes of n elements; false on overflow or when n elements do not fill whole bytes or blocks. */
bool mt_dtype_bytes(enum mt_dtype t, uint64_t n, uint64_t *bytes);

/* Checked a*b for sizes that come from files; false on overflow. */
bool mt_size_mul(uint64_t a, uint64_t b, uint64_t *out);

#ifdef __cplusplus
}
#endif
#endif
