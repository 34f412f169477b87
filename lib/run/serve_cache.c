#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/run/serve.h"

#include <string.h>

/* What is known of a key that is held. */
struct cache_place {
    uint32_t key;
    uint64_t next;  /* when it is used again; UINT64_MAX: never */
    uint64_t used;  /* when it was used last */
    uint64_t since; /* when it came */
};

struct cache {
    struct cache_place *place; /* [n] */
    int64_t n, cap;
    int64_t *at;     /* [n_keys] place of a key; -1 */
    uint64_t *count; /* [n_keys] uses so far */
    uint64_t *next;  /* [n requests] when each one's key is used again; BELADY alone */
    bool *held;      /* [n_keys] whether each request of a batch was there when it began */
    struct mt_rng rng;
    enum mt_cache_policy policy;
};

/* True when a leaves before b. */
static bool cache_before(const struct cache *c, const struct cache_place *a,
                         const struct cache_place *b)
{
    switch (c->policy) {
    case MT_CACHE_BELADY:
        if (a->next != b->next)
            return a->next > b->next;
        break;
    case MT_CACHE_FIFO:
        if (a->since != b->since)
            return a->since < b->since;
        break;
    case MT_CACHE_LFU:
        if (c->count[a->key] != c->count[b->key])
            return c->count[a->key] < c->count[b->key];
        if (a->used != b->used)
            return a->used < b->used;
        break;
    default:
        if (a->used != b->used)
            return a->used < b->used;
        break;
    }
    return a->key < b->key;
}

static int64_t cache_victim(struct cache *c)
{
    int64_t v = 0;

    if (c->policy == MT_CACHE_RANDOM)
        return (int64_t)mt_rng_below(&c->rng, (uint64_t)c->n);
    for (int64_t i = 1; i < c->n; i++)
        if (cache_before(c, &c->place[i], &c->place[v]))
            v = i;
    return v;
}

/* True when the key was there. */
static bool cache_use(struct cache *c, uint32_t key, uint64_t now)
{
    uint64_t next = c->next != NULL ? c->next[now] : 0;
    int64_t i = c->at[key];
    bool hit = i >= 0;

    c->count[key]++;
    if (!hit) {
        if (c->n < c->cap) {
            i = c->n++;
        } else {
            i = cache_victim(c);
            c->at[c->place[i].key] = -1;
        }
        c->place[i] = (struct cache_place){.key = key, .since = now};
        c->at[key] = i;
    }
    c->place[i].next = next;
    c->place[i].used = now;
    return hit;
}

/* From the end: when each request's key comes again. `at` serves as the last place seen. */
static void cache_foresee(struct cache *c, const uint32_t *request, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        int64_t later = c->at[request[i]];
        c->next[i] = later < 0 ? UINT64_MAX : (uint64_t)later;
        c->at[request[i]] = (int64_t)i;
    }
}

/* The requests [begin, end) of one batch: what is held first, if their order is free. A key comes
 * once in a batch, so that what is fetched cannot serve it twice. */
static uint64_t cache_batch(struct cache *c, const uint32_t *request, size_t begin, size_t end)
{
    uint64_t misses = 0;

    for (size_t i = begin; i < end; i++)
        c->held[i - begin] = c->at[request[i]] >= 0;
    for (int fetch = 0; fetch < 2; fetch++)
        for (size_t i = begin; i < end; i++)
            if (c->held[i - begin] == (fetch == 0))
                misses += !cache_use(c, request[i], i);
    return misses;
}

static uint64_t cache_run(struct cache *c, const uint32_t *request, const uint32_t *batch, size_t n)
{
    uint64_t misses = 0;

    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; batch != NULL && end < n && batch[end] == batch[i];)
            end++;
        misses += cache_batch(c, request, i, end);
    }
    return misses;
}

mt_status mt_cache_misses(struct mt_ctx *ctx, const uint32_t *request, const uint32_t *batch,
                          size_t n, uint32_t n_keys, int64_t places, enum mt_cache_policy policy,
                          uint64_t seed, uint64_t *misses)
{
    struct cache c = {.cap = places, .policy = policy};
    mt_status st = mt_alloc0(ctx, (size_t)places, sizeof *c.place, "cache", &c.place);

    mt_assert(places >= 1);
    *misses = 0;
    if (st == MT_OK)
        st = mt_alloc(ctx, n_keys, sizeof *c.at, "cache", &c.at);
    if (st == MT_OK)
        st = mt_alloc0(ctx, n_keys, sizeof *c.count, "cache", &c.count);
    if (st == MT_OK)
        st = mt_alloc(ctx, n_keys, sizeof *c.held, "cache", &c.held);
    if (st == MT_OK && policy == MT_CACHE_BELADY)
        st = mt_alloc(ctx, n, sizeof *c.next, "cache", &c.next);
    if (st == MT_OK) {
        mt_rng_seed(&c.rng, seed, 0);
        memset(c.at, 0xff, n_keys * sizeof *c.at);
        if (c.next != NULL) {
            cache_foresee(&c, request, n);
            memset(c.at, 0xff, n_keys * sizeof *c.at);
        }
        *misses = cache_run(&c, request, batch, n);
    }
    mt_free(c.place);
    mt_free(c.at);
    mt_free(c.count);
    mt_free(c.next);
    mt_free(c.held);
    return st;
}
