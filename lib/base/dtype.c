#include "lib/base/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    unsigned bits; /* of an element; 0: blocks */
    unsigned block, block_bytes;
} dtype_rows[] = {
#define DTYPE_ROW(name, bits, is_float) {#name, bits, 1, 0},
    MT_DTYPE_LIST(DTYPE_ROW)
#undef DTYPE_ROW
#define DTYPE_ROW(name, elements, bytes) {#name, 0, elements, bytes},
        MT_DTYPE_BLOCK_LIST(DTYPE_ROW)
#undef DTYPE_ROW
};

const char *mt_dtype_name(enum mt_dtype t)
{
    return dtype_rows[t].name;
}

unsigned mt_dtype_bits(enum mt_dtype t)
{
    return dtype_rows[t].bits;
}

bool mt_dtype_is_block(enum mt_dtype t)
{
    return dtype_rows[t].block > 1;
}

unsigned mt_dtype_block(enum mt_dtype t)
{
    return dtype_rows[t].block;
}

bool mt_dtype_pickable(enum mt_dtype t)
{
    return dtype_rows[t].bits != 0 && dtype_rows[t].bits % 8 == 0;
}

bool mt_dtype_parse(const char *name, size_t n, enum mt_dtype *out)
{
    for (int i = 0; i < MT_DTYPE_PLAIN_COUNT; i++) {
        if (strlen(dtype_rows[i].name) == n && memcmp(dtype_rows[i].name, name, n) == 0) {
            *out = (enum mt_dtype)i;
            return true;
        }
    }
    return false;
}

bool mt_dtype_is_plain_float(enum mt_dtype t)
{
    return t == MT_F64 || t == MT_F32 || t == MT_F16 || t == MT_BF16;
}

bool mt_size_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

bool mt_dtype_bytes(enum mt_dtype t, uint64_t n, uint64_t *bytes)
{
    uint64_t bits;

    if (mt_dtype_is_block(t))
        return n % dtype_rows[t].block == 0 &&
               mt_size_mul(n / dtype_rows[t].block, dtype_rows[t].block_bytes, bytes);
    if (!mt_size_mul(n, mt_dtype_bits(t), &bits) || bits % 8 != 0)
        return false;
    *bytes = bits / 8;
    return true;
}
