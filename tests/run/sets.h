/* sets.h: data sets of given or random ids for tests, without a tokenizer. */
#ifndef MT_TESTS_RUN_SETS_H
#define MT_TESTS_RUN_SETS_H

#include "lib/base/rng.h"
#include "lib/text/dataset.h"

#include <stdlib.h>

/* n windows of random lengths in [2, len_max], domains in turn of two; end with set_free. */
static inline struct mt_dataset set_make(uint64_t seed, int64_t vocab, size_t n, int len_max)
{
    static char even[] = "even", odd[] = "odd", *names[] = {even, odd};
    struct mt_dataset d = {.n_windows = n, .domains = names, .n_domains = 2};
    int32_t *ids = malloc(n * (size_t)len_max * sizeof *ids), *at = ids;
    struct mt_rng rng;

    mt_rng_seed(&rng, seed, 0);
    d.storage = ids;
    d.windows = malloc(n * sizeof *d.windows);
    for (size_t w = 0; w < n; w++) {
        int32_t len = 2 + (int32_t)mt_rng_below(&rng, (uint64_t)len_max - 1);
        d.windows[w] = (struct mt_window){at, len, (int32_t)(w % 2)};
        for (int32_t i = 0; i < len; i++)
            *at++ = (int32_t)mt_rng_below(&rng, (uint64_t)vocab);
        d.n_tokens += (size_t)len;
        d.window_len_max = len > d.window_len_max ? len : d.window_len_max;
    }
    return d;
}

static inline void set_free(struct mt_dataset *d)
{
    free(d->storage);
    free(d->windows);
}
#endif
