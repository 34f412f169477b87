#include "lib/base/rng.h"

#include <math.h>

static uint64_t rng_split(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void mt_rng_seed(struct mt_rng *r, uint64_t seed, uint64_t stream)
{
    uint64_t state = seed, by_stream = stream ^ 0x5851f42d4c957f2du;

    /* Both words pass the mixer, so that neighbouring streams share nothing. */
    state = rng_split(&state) ^ rng_split(&by_stream);
    for (int i = 0; i < 4; i++)
        r->s[i] = rng_split(&state);
}

static uint64_t rng_rotl(uint64_t x, unsigned n)
{
    return x << n | x >> (64 - n);
}

/* xoshiro256**, Blackman and Vigna 2018. */
uint64_t mt_rng_u64(struct mt_rng *r)
{
    uint64_t *s = r->s, result = rng_rotl(s[1] * 5, 7) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rng_rotl(s[3], 45);
    return result;
}

double mt_rng_unit(struct mt_rng *r)
{
    return (double)(mt_rng_u64(r) >> 11) * 0x1p-53;
}

uint64_t mt_rng_below(struct mt_rng *r, uint64_t bound)
{
    uint64_t skip = (0 - bound) % bound, x; /* 2^64 mod bound values would be favoured */

    do {
        x = mt_rng_u64(r);
    } while (x < skip);
    return x % bound;
}

/* ln(x) from exact operations only: the C library's log differs in the last bit between machines,
 * and seeds must not. Error below 1e-15 relative to max(1, |ln x|). */
static double rng_log(double x)
{
    int e;
    double m = frexp(x, &e), z, z2, sum = 0;

    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    z = (m - 1) / (m + 1);
    z2 = z * z;
    for (int k = 23; k >= 1; k -= 2)
        sum = sum * z2 + 1.0 / k;
    return 2 * z * sum + e * 0.69314718055994530942;
}

/* Marsaglia's polar method; the second value is given up so that the state stays four words. */
double mt_rng_normal(struct mt_rng *r)
{
    double u, v, s;

    do {
        u = 2 * mt_rng_unit(r) - 1;
        v = 2 * mt_rng_unit(r) - 1;
        s = u * u + v * v;
    } while (s >= 1 || s <= 0);
    return u * sqrt(-2 * rng_log(s) / s);
}

void mt_rng_shuffle_i32(struct mt_rng *r, int32_t *v, uint64_t n)
{
    for (uint64_t i = n; i > 1; i--) {
        uint64_t j = mt_rng_below(r, i);
        int32_t t = v[i - 1];
        v[i - 1] = v[j];
        v[j] = t;
    }
}
