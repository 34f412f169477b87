#include "lib/base/hash.h"

#include <string.h>

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t hash_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t hash_rot(uint32_t x, unsigned n)
{
    return x >> n | x << (32 - n);
}

static void hash_block(uint32_t h[8], const unsigned char *p)
{
    uint32_t w[64], v[8];

    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
    for (int i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (hash_rot(a, 7) ^ hash_rot(a, 18) ^ a >> 3) + w[i - 7] +
               (hash_rot(b, 17) ^ hash_rot(b, 19) ^ b >> 10);
    }
    memcpy(v, h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = hash_rot(v[4], 6) ^ hash_rot(v[4], 11) ^ hash_rot(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + hash_k[i] + w[i];
        uint32_t s0 = hash_rot(v[0], 2) ^ hash_rot(v[0], 13) ^ hash_rot(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof v[0]);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        h[i] += v[i];
}

void mt_sha256_begin(struct mt_sha256 *s)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(s->h, start, sizeof start);
    s->n_bytes = 0;
}

void mt_sha256_add(struct mt_sha256 *s, const void *data, size_t n)
{
    const unsigned char *p = data;
    size_t have = (size_t)(s->n_bytes % 64);

    s->n_bytes += n;
    if (have > 0) {
        size_t take = n < 64 - have ? n : 64 - have;
        if (take > 0)
            memcpy(s->block + have, p, take);
        if (have + take < 64)
            return;
        hash_block(s->h, s->block);
        p += take;
        n -= take;
    }
    for (; n >= 64; p += 64, n -= 64)
        hash_block(s->h, p);
    if (n > 0)
        memcpy(s->block, p, n);
}

void mt_sha256_hex(struct mt_sha256 *s, char hex[65])
{
    static const char digits[] = "0123456789abcdef";
    unsigned char tail[72] = {0x80};
    uint64_t bits = s->n_bytes * 8;
    size_t pad = 64 - (size_t)((s->n_bytes + 8) % 64);

    for (int i = 0; i < 8; i++)
        tail[pad + (size_t)i] = (unsigned char)(bits >> (56 - 8 * i));
    mt_sha256_add(s, tail, pad + 8);
    for (int i = 0; i < 64; i++)
        hex[i] = digits[s->h[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = '\0';
}

/* ---- sums of bytes at places ---- */

/* Sebastiano Vigna's splitmix64: every output once. */
static uint64_t sum_mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Odd, so that no word's change is multiplied away. */
void mt_sum_make(struct mt_sum *s)
{
    for (size_t i = 0; i < MT_SUM_BLOCK / 4; i++)
        s->key[i] = (uint32_t)sum_mix(i) | 1;
}

static uint64_t sum_words(const unsigned char *p, size_t n, const uint32_t *key)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t w;
        memcpy(&w, p + 4 * i, 4);
        sum += (uint64_t)w * key[i];
    }
    return sum;
}

/* Fewer than 4 bytes, from byte `at` of a word on. */
static uint64_t sum_part(const unsigned char *p, size_t n, size_t at, uint32_t key)
{
    unsigned char word[4] = {0};

    memcpy(word + at, p, n);
    return sum_words(word, 1, &key);
}

/* Bytes of one block, from byte `at` of it on. */
static uint64_t sum_block(const struct mt_sum *s, size_t at, const unsigned char *p, size_t n)
{
    size_t head = at % 4 == 0 ? 0 : 4 - at % 4;
    uint64_t sum = 0;

    if (n == MT_SUM_BLOCK)
        return sum_words(p, MT_SUM_BLOCK / 4, s->key);
    head = head > n ? n : head;
    if (head > 0)
        sum += sum_part(p, head, at % 4, s->key[at / 4]);
    p += head, at += head, n -= head;
    sum += sum_words(p, n / 4, s->key + at / 4);
    p += n / 4 * 4, at += n / 4 * 4;
    return n % 4 == 0 ? sum : sum + sum_part(p, n % 4, 0, s->key[at / 4]);
}

uint64_t mt_sum_at(const struct mt_sum *s, uint64_t offset, const void *data, size_t n)
{
    const unsigned char *p = data;
    uint64_t sum = 0;

    while (n > 0) {
        size_t at = (size_t)(offset % MT_SUM_BLOCK);
        size_t part = MT_SUM_BLOCK - at < n ? MT_SUM_BLOCK - at : n;
        sum += sum_block(s, at, p, part) * (sum_mix(~(offset / MT_SUM_BLOCK)) | 1);
        p += part, offset += part, n -= part;
    }
    return sum;
}
