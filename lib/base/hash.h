/* hash.h: SHA-256 (FIPS 180-4), for the identity of sources and data; and a fast 64-bit checksum of
 * bytes at places, for what lies on a disk. Threads: one per SHA-256 state; a mt_sum may be shared
 * once it is made.
 */
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

/* Bytes at offsets of a file, summed so that neither the order of the writes nor how they cut the
 * bytes matters: the sum of all parts is the sum of the whole. Words of 4 bytes are multiplied by
 * keys that follow from the place (multilinear hashing, modulo 2^64). Any change within one word is
 * noticed, other changes but for one in about 2^32; it is no defence against who wants to forge.
 * Bytes of 0 add nothing. */
#define MT_SUM_BLOCK 4096
struct mt_sum {
    uint32_t key[MT_SUM_BLOCK / 4];
};
void mt_sum_make(struct mt_sum *s);
uint64_t mt_sum_at(const struct mt_sum *s, uint64_t offset, const void *data, size_t n);
#endif
