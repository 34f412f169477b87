/* Belady against brute force and the other policies; batching against counting by hand. */
#include "lib/base/rng.h"
#include "lib/run/serve.h"
#include "tests/t.h"

#include <stdlib.h>
#include <string.h>

#define SMALL_KEYS 4
#define SMALL_REQUESTS 12

/* Fewest misses over every choice of whom to evict; held: bits. */
static uint64_t fewest(const uint32_t *request, size_t n, unsigned held, int n_held, int places)
{
    uint64_t best = UINT64_MAX;

    if (n == 0)
        return 0;
    unsigned bit = 1u << request[0];
    if ((held & bit) != 0)
        return fewest(request + 1, n - 1, held, n_held, places);
    if (n_held < places)
        return 1 + fewest(request + 1, n - 1, held | bit, n_held + 1, places);
    for (unsigned v = 1; v <= held; v <<= 1) {
        if ((held & v) == 0)
            continue;
        uint64_t m = 1 + fewest(request + 1, n - 1, (held & ~v) | bit, n_held, places);
        best = m < best ? m : best;
    }
    return best;
}

static uint64_t misses(struct t *t, const uint32_t *request, const uint32_t *batch, size_t n,
                       uint32_t keys, int64_t places, enum mt_cache_policy policy)
{
    uint64_t m = UINT64_MAX;

    if (mt_cache_misses(&t->ctx, request, batch, n, keys, places, policy, 1, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

T_TEST(belady_is_the_best_of_all_evictions)
{
    uint32_t request[SMALL_REQUESTS];
    struct mt_rng rng;

    mt_rng_seed(&rng, 5, 0);
    for (int trial = 0; trial < 300; trial++) {
        size_t n = 1 + (size_t)mt_rng_below(&rng, SMALL_REQUESTS);
        for (size_t i = 0; i < n; i++)
            request[i] = (uint32_t)mt_rng_below(&rng, SMALL_KEYS);
        for (int places = 1; places <= SMALL_KEYS; places++)
            T_EQ_INT(t, misses(t, request, NULL, n, SMALL_KEYS, places, MT_CACHE_BELADY),
                     fewest(request, n, 0, 0, places));
    }
}

T_TEST(no_policy_beats_belady)
{
    enum { N = 3000, KEYS = 24 };
    static uint32_t request[N];
    struct mt_rng rng;

    mt_rng_seed(&rng, 6, 0);
    for (int trial = 0; trial < 4; trial++) {
        /* Skewed, with runs: what caches are for. */
        for (size_t i = 0; i < N; i++)
            request[i] = i > 0 && mt_rng_unit(&rng) < 0.2 * trial
                             ? request[i - 1]
                             : (uint32_t)(mt_rng_unit(&rng) * mt_rng_unit(&rng) * KEYS);
        for (int64_t places = 1; places <= KEYS; places += 5) {
            uint64_t best = misses(t, request, NULL, N, KEYS, places, MT_CACHE_BELADY);
            for (int p = 0; p < MT_CACHE_POLICIES; p++)
                T_CHECK(t,
                        misses(t, request, NULL, N, KEYS, places, (enum mt_cache_policy)p) >= best);
        }
    }
}

T_TEST(policies_evict_whom_they_name)
{
    /* 0 is used often and long ago; 1 came second; 2 third. Two places. */
    static const uint32_t lru[] = {0, 1, 0, 2, 0}, fifo[] = {0, 1, 0, 2, 0, 1},
                          lfu[] = {0, 0, 1, 2, 0};

    T_EQ_INT(t, misses(t, lru, NULL, 5, 3, 2, MT_CACHE_LRU), 3);   /* 2 evicts 1 */
    T_EQ_INT(t, misses(t, fifo, NULL, 6, 3, 2, MT_CACHE_FIFO), 5); /* 2 evicts 0, 0 evicts 1 */
    T_EQ_INT(t, misses(t, lfu, NULL, 5, 3, 2, MT_CACHE_LFU), 3);   /* 2 evicts 1 */
    for (int p = 0; p < MT_CACHE_POLICIES; p++) /* everything fits: each key is fetched once */
        T_EQ_INT(t, misses(t, fifo, NULL, 6, 3, 3, (enum mt_cache_policy)p), 3);
}

/* A batch that needs more than is held runs what is there first: of 0 1 2 over and over with two
 * places LRU hits nothing in order, and two thirds of the places otherwise. */
T_TEST(what_is_held_comes_first_in_a_batch)
{
    enum { ROUNDS = 10 };
    uint32_t request[3 * ROUNDS], batch[3 * ROUNDS];

    for (uint32_t i = 0; i < 3 * ROUNDS; i++) {
        request[i] = i % 3;
        batch[i] = i / 3;
    }
    T_EQ_INT(t, misses(t, request, NULL, 3 * ROUNDS, 3, 2, MT_CACHE_LRU), 3 * ROUNDS);
    T_EQ_INT(t, misses(t, request, batch, 3 * ROUNDS, 3, 2, MT_CACHE_LRU), 3 + (ROUNDS - 1));
}

/* Two sequences of four tokens, top-1, one layer: experts 0 1 0 1 and 1 1 0 0. */
static uint16_t small_experts[] = {0, 1, 0, 1, 1, 1, 0, 0};
static size_t small_first[] = {0, 4, 8};
static int small_layer[] = {0};
static const struct mt_trace small = {.n_layers = 1,
                                      .k = 1,
                                      .n_experts = 2,
                                      .n_seqs = 2,
                                      .first = small_first,
                                      .expert = small_experts,
                                      .layer = small_layer};

static struct mt_serve_result serve(struct t *t, enum mt_serve_order order,
                                    enum mt_serve_tokens tokens, int64_t batch, int64_t window)
{
    struct mt_serve_opts o = {.order = order, .tokens = tokens, .batch = batch, .window = window};
    struct mt_serve_result r = {0};

    if (mt_serve(&t->ctx, &small, &o, &r) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return r;
}

T_TEST(batches_by_arrival_and_by_expert)
{
    struct mt_serve_result r = serve(t, MT_SERVE_FIFO, MT_SERVE_QUEUED, 2, 8);
    static const uint32_t want[] = {0, 1, 0, 1, 1, 0}; /* 01 01 11 00 */

    T_EQ_INT(t, r.n_batches, 4);
    T_EQ_INT(t, r.n_tokens, 8);
    T_EQ_INT(t, r.n_requests, 6);
    T_CHECK(t, memcmp(r.request, want, sizeof want) == 0);
    T_CHECK(t, r.unique == 1.5 && r.unique_key == 1.5 && r.wait_max == 3);
    mt_serve_free(&r);

    /* All eight wait: four of each, so every batch needs one expert. */
    r = serve(t, MT_SERVE_EXPERT, MT_SERVE_QUEUED, 2, 8);
    T_EQ_INT(t, r.n_batches, 4);
    T_EQ_INT(t, r.n_requests, 4);
    T_CHECK(t, r.unique == 1);
    mt_serve_free(&r);
}

T_TEST(decoding_keeps_the_order_of_a_sequence)
{
    /* One token of each sequence waits: 0 with 1, 1 with 1, 0 with 0, 1 with 0. */
    struct mt_serve_result r = serve(t, MT_SERVE_FIFO, MT_SERVE_DECODE, 2, 2);
    static const uint32_t want[] = {0, 1, 1, 0, 0, 1};

    T_EQ_INT(t, r.n_batches, 4);
    T_EQ_INT(t, r.n_requests, 6);
    T_CHECK(t, memcmp(r.request, want, sizeof want) == 0);
    mt_serve_free(&r);

    /* One place: all of both sequences all the same. */
    r = serve(t, MT_SERVE_EXPERT, MT_SERVE_DECODE, 1, 2);
    T_EQ_INT(t, r.n_batches, 8);
    T_EQ_INT(t, r.n_tokens, 8);
    mt_serve_free(&r);
}

T_TEST(every_token_is_served_once_however)
{
    for (int order = 0; order < 2; order++) {
        for (int tokens = 0; tokens < 2; tokens++) {
            for (int64_t batch = 1; batch <= 9; batch++) {
                struct mt_serve_result r = serve(t, (enum mt_serve_order)order,
                                                 (enum mt_serve_tokens)tokens, batch, batch + 1);
                T_EQ_INT(t, r.n_tokens, 8);
                mt_serve_free(&r);
            }
        }
    }
}
