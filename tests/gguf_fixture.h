/* gguf_fixture.h: GGUF files made by tests, byte by byte, honest and hostile.
 *
 * Numbers are written as given; nothing is checked or corrected. gg_file puts what was made so far
 * into the scratch directory (or hands out the bytes) and begins anew.
 */
#ifndef MT_TESTS_GGUF_FIXTURE_H
#define MT_TESTS_GGUF_FIXTURE_H

#include "tests/t.h"

struct gg {
    unsigned char bytes[1 << 18];
    size_t n;
};

void gg_begin(struct gg *g, uint64_t n_tensors, uint64_t n_pairs); /* version 3 */
void gg_raw(struct gg *g, const void *bytes, size_t n);
void gg_u32(struct gg *g, uint32_t v);
void gg_u64(struct gg *g, uint64_t v);
void gg_f32(struct gg *g, float v);
void gg_text(struct gg *g, const char *s); /* length and bytes */
void gg_key(struct gg *g, const char *key, uint32_t type);
void gg_kv_u32(struct gg *g, const char *key, uint32_t v);
void gg_kv_f32(struct gg *g, const char *key, float v);
void gg_kv_text(struct gg *g, const char *key, const char *v);
void gg_tensor(struct gg *g, const char *name, uint32_t rank, const uint64_t *ne, uint32_t type,
               uint64_t offset);
void gg_pad(struct gg *g, size_t alignment);
/* n bytes of data, byte i being i * 31 + 7. */
void gg_data(struct gg *g, size_t n);
const char *gg_file(struct t *t, struct gg *g, const char *name); /* static path, as t_path */
#endif
