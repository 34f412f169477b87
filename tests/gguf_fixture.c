#include "tests/gguf_fixture.h"

#include <stdlib.h>

void gg_raw(struct gg *g, const void *bytes, size_t n)
{
    if (n > sizeof g->bytes - g->n)
        abort();
    memcpy(g->bytes + g->n, bytes, n);
    g->n += n;
}

void gg_u32(struct gg *g, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        gg_raw(g, &(unsigned char){(unsigned char)(v >> 8 * i & 255)}, 1);
}

void gg_u64(struct gg *g, uint64_t v)
{
    gg_u32(g, (uint32_t)v);
    gg_u32(g, (uint32_t)(v >> 32));
}

void gg_f32(struct gg *g, float v)
{
    uint32_t bits;

    memcpy(&bits, &v, sizeof bits);
    gg_u32(g, bits);
}

void gg_begin(struct gg *g, uint64_t n_tensors, uint64_t n_pairs)
{
    g->n = 0;
    gg_raw(g, "GGUF", 4);
    gg_u32(g, 3);
    gg_u64(g, n_tensors);
    gg_u64(g, n_pairs);
}

void gg_text(struct gg *g, const char *s)
{
    gg_u64(g, strlen(s));
    gg_raw(g, s, strlen(s));
}

void gg_key(struct gg *g, const char *key, uint32_t type)
{
    gg_text(g, key);
    gg_u32(g, type);
}

void gg_kv_u32(struct gg *g, const char *key, uint32_t v)
{
    gg_key(g, key, 4);
    gg_u32(g, v);
}

void gg_kv_f32(struct gg *g, const char *key, float v)
{
    gg_key(g, key, 6);
    gg_f32(g, v);
}

void gg_kv_text(struct gg *g, const char *key, const char *v)
{
    gg_key(g, key, 8);
    gg_text(g, v);
}

void gg_tensor(struct gg *g, const char *name, uint32_t rank, const uint64_t *ne, uint32_t type,
               uint64_t offset)
{
    gg_text(g, name);
    gg_u32(g, rank);
    for (uint32_t i = 0; i < rank; i++)
        gg_u64(g, ne[i]);
    gg_u32(g, type);
    gg_u64(g, offset);
}

void gg_pad(struct gg *g, size_t alignment)
{
    while (g->n % alignment != 0)
        gg_raw(g, "", 1);
}

void gg_data(struct gg *g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gg_raw(g, &(unsigned char){(unsigned char)(i * 31 + 7)}, 1);
}

const char *gg_file(struct t *t, struct gg *g, const char *name)
{
    const char *path = t_path(t, name);

    t_write_file(t, path, g->bytes, g->n);
    g->n = 0;
    return path;
}
