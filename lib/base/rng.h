/* rng.h: random numbers that are the same on every machine and for every thread count.
 *
 * xoshiro256** seeded by splitmix64 from (seed, stream): give each layer or job a stream number
 * of its own. Threads: one per state.
 */
#ifndef MT_BASE_RNG_H
#define MT_BASE_RNG_H

#include <stdint.h>

struct mt_rng {
    uint64_t s[4];
};

void mt_rng_seed(struct mt_rng *r, uint64_t seed, uint64_t stream);
uint64_t mt_rng_u64(struct mt_rng *r);
double mt_rng_unit(struct mt_rng *r);                    /* uniform in [0, 1), 53 bits */
uint64_t mt_rng_below(struct mt_rng *r, uint64_t bound); /* unbiased; bound >= 1 */
double mt_rng_normal(struct mt_rng *r);                  /* mean 0, variance 1 */
void mt_rng_shuffle_i32(struct mt_rng *r, int32_t *v, uint64_t n);
#endif
