#include "formats/gguf.h"

#include "lib/base/mem.h"

#include <string.h>

void mt_gguf_put_raw(struct mt_gguf_out *o, const void *bytes, size_t n)
{
    if (o->st == MT_OK && o->cap - o->n < n) {
        size_t cap = o->cap * 2 + n + 4096;
        o->st = mt_realloc(o->ctx, cap, 1, "header of the output", &o->p);
        o->cap = o->st == MT_OK ? cap : o->cap;
    }
    if (o->st != MT_OK || n == 0)
        return;
    memcpy(o->p + o->n, bytes, n);
    o->n += n;
}

void mt_gguf_put_u32(struct mt_gguf_out *o, uint32_t v)
{
    unsigned char b[4];

    for (int i = 0; i < 4; i++)
        b[i] = (unsigned char)(v >> 8 * i & 255);
    mt_gguf_put_raw(o, b, sizeof b);
}

void mt_gguf_put_u16(struct mt_gguf_out *o, uint16_t v)
{
    unsigned char b[2] = {(unsigned char)(v & 255), (unsigned char)(v >> 8)};

    mt_gguf_put_raw(o, b, sizeof b);
}

void mt_gguf_put_u64(struct mt_gguf_out *o, uint64_t v)
{
    mt_gguf_put_u32(o, (uint32_t)v);
    mt_gguf_put_u32(o, (uint32_t)(v >> 32));
}

void mt_gguf_put_text(struct mt_gguf_out *o, const char *s, size_t n)
{
    mt_gguf_put_u64(o, n);
    mt_gguf_put_raw(o, s, n);
}

void mt_gguf_put_key(struct mt_gguf_out *o, const char *arch, const char *key, uint32_t type)
{
    size_t n = arch != NULL ? strlen(arch) + 1 : 0;

    mt_gguf_put_u64(o, n + strlen(key));
    if (arch != NULL) {
        mt_gguf_put_raw(o, arch, n - 1);
        mt_gguf_put_raw(o, ".", 1);
    }
    mt_gguf_put_raw(o, key, strlen(key));
    mt_gguf_put_u32(o, type);
    o->n_pairs++;
}

void mt_gguf_pair_u32(struct mt_gguf_out *o, const char *arch, const char *key, int64_t v)
{
    mt_assert(v >= 0 && v <= UINT32_MAX);
    mt_gguf_put_key(o, arch, key, MT_GGUF_U32);
    mt_gguf_put_u32(o, (uint32_t)v);
}

void mt_gguf_pair_f32(struct mt_gguf_out *o, const char *arch, const char *key, double v)
{
    float f = (float)v;
    uint32_t bits;

    memcpy(&bits, &f, sizeof bits);
    mt_gguf_put_key(o, arch, key, MT_GGUF_F32);
    mt_gguf_put_u32(o, bits);
}

void mt_gguf_pair_bool(struct mt_gguf_out *o, const char *arch, const char *key, bool v)
{
    mt_gguf_put_key(o, arch, key, MT_GGUF_BOOL);
    mt_gguf_put_raw(o, v ? "\1" : "\0", 1);
}

void mt_gguf_pair_text(struct mt_gguf_out *o, const char *arch, const char *key, const char *v)
{
    mt_gguf_put_key(o, arch, key, MT_GGUF_STRING);
    mt_gguf_put_text(o, v, strlen(v));
}

void mt_gguf_pair_array(struct mt_gguf_out *o, const char *key, uint32_t item, uint64_t n)
{
    mt_gguf_put_key(o, NULL, key, MT_GGUF_ARRAY);
    mt_gguf_put_u32(o, item);
    mt_gguf_put_u64(o, n);
}
