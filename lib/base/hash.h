/* hash.h: SHA-256 (FIPS 180-4), for the identity of sources and data. Threads: one per state. */
#ifndef MT_BASE_HASH_H
#define MT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct mt_sha256 {
    uint32_t h[8];
    uint64_t n_bytes;
    unsigned char block[64];
};

void mt_sha256_begin(struct mt_sha256 *s);
void mt_sha256_add(struct mt_sha256 *s, const void *data, size_t n);
void mt_sha256_hex(struct mt_sha256 *s, char hex[65]); /* ends the state; NUL-terminated */
#endif
