/* sets.h: data sets of given or random ids for tests, without a tokenizer. */
#ifndef MT_TESTS_RUN_SETS_H
#define MT_TESTS_RUN_SETS_H

#include "lib/base/rng.h"
#include "lib/text/dataset.h"

#define SET_WINDOWS_MAX 1000
#define SET_IDS_MAX 60000

/* n windows of random lengths in [2, len_max], domains in turn of two. One set at a time: the next
 * one takes its place. */
static inline struct mt_dataset set_make(uint64_t seed, int64_t vocab, size_t n, int len_max)
{
    static char even[] = "even", odd[] = "odd", *names[] = {even, odd};
    static struct mt_window windows[SET_WINDOWS_MAX];
    static int32_t ids[SET_IDS_MAX];
    struct mt_dataset d = {.windows = windows, .domains = names, .n_domains = 2, .storage = ids};
    int32_t *at = ids;
    struct mt_rng rng;

    mt_rng_seed(&rng, seed, 0);
    for (; d.n_windows < n && d.n_windows < SET_WINDOWS_MAX; d.n_windows++) {
        int32_t len = 2 + (int32_t)mt_rng_below(&rng, (uint64_t)len_max - 1);
        if (at + len > ids + SET_IDS_MAX)
            break;
        windows[d.n_windows] = (struct mt_window){at, len, (int32_t)(d.n_windows % 2)};
        for (int32_t i = 0; i < len; i++)
            *at++ = (int32_t)mt_rng_below(&rng, (uint64_t)vocab);
        d.n_tokens += (size_t)len;
        d.window_len_max = len > d.window_len_max ? len : d.window_len_max;
    }
    return d;
}
#endif
