/* dtype.h: element types of stored tensors and their sizes.
 *
 * The list and the spelling are those of safetensors (spec: formats, 1.3). Sizes are in bits
 * because F4 and the F6 types are narrower than a byte. Valid C++.
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

enum mt_dtype {
#define MT_DTYPE_ENUM(name, bits, is_float) MT_##name,
    MT_DTYPE_LIST(MT_DTYPE_ENUM)
#undef MT_DTYPE_ENUM
        MT_DTYPE_COUNT
};

const char *mt_dtype_name(enum mt_dtype t);                          /* "BF16" */
unsigned mt_dtype_bits(enum mt_dtype t);                             /* 16 */
bool mt_dtype_parse(const char *name, size_t n, enum mt_dtype *out); /* exact, case matters */

/* True for the types that kernels convert to and from float: F64, F32, F16, BF16. */
bool mt_dtype_is_plain_float(enum mt_dtype t);

/* Bytes of n elements; false on overflow or when n elements do not fill whole bytes. */
bool mt_dtype_bytes(enum mt_dtype t, uint64_t n, uint64_t *bytes);

/* Checked a*b for sizes that come from files; false on overflow. */
bool mt_size_mul(uint64_t a, uint64_t b, uint64_t *out);

#ifdef __cplusplus
}
#endif
#endif
