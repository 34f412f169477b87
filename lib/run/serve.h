/* serve.h: what serving a MoE model costs in expert traffic, simulated on routing traces.
 *
 * Two questions of Read-ME (arXiv 2410.19123, section 4): how many different experts a batch of
 * tokens needs, by how it is put together, and how often an expert is there already when a cache
 * holds some of them.
 *
 * Batching. Tokens wait; each step takes up to `batch` of them. With MT_SERVE_QUEUED the next
 * `window` tokens in order of arrival wait, independent of each other (prompts, or a router that
 * knows before the backbone runs); with MT_SERVE_DECODE the next token of each of `window`
 * sequences waits, and its successor comes once it has been served. MT_SERVE_FIFO takes the oldest;
 * MT_SERVE_EXPERT drains the fullest expert's queue, then the next fullest one, up to the budget,
 * where a token's queue is that of its heaviest expert in layer index `by_layer`.
 *
 * Requests. Each batch asks, layer by layer, once for every expert that some token of it needs, in
 * ascending order. mt_cache_misses counts what of that has to be fetched.
 *
 * Threads: none used; results depend on the arguments alone.
 */
#ifndef MT_RUN_SERVE_H
#define MT_RUN_SERVE_H

#include "lib/run/trace.h"

enum mt_serve_order { MT_SERVE_FIFO, MT_SERVE_EXPERT };
enum mt_serve_tokens { MT_SERVE_QUEUED, MT_SERVE_DECODE };

struct mt_serve_opts {
    enum mt_serve_order order;
    enum mt_serve_tokens tokens;
    int64_t batch, window; /* window >= batch >= 1 */
    int by_layer;          /* an index of the trace's layers */
};

struct mt_serve_result {
    size_t n_batches, n_tokens;
    double unique;     /* mean number of experts per batch and layer */
    double unique_key; /* in by_layer */
    size_t wait_max;   /* most batches a token saw leave while it waited */
    uint32_t *request; /* [n_requests] layer * n_experts + expert */
    uint32_t *from;    /* [n_requests] number of the batch */
    size_t n_requests, cap_requests, cap_from;
};

/* End with mt_serve_free, also after a failure. */
MT_NODISCARD mt_status mt_serve(struct mt_ctx *ctx, const struct mt_trace *t,
                                const struct mt_serve_opts *o, struct mt_serve_result *out);
void mt_serve_free(struct mt_serve_result *r);

/* Which expert leaves when a place is needed: the one whose next use is farthest (BELADY, which
 * needs the future and is optimal for experts of one size), the least recently used, the longest
 * held, the least often used so far (then least recently), or any. Ties: the lowest number. */
enum mt_cache_policy {
    MT_CACHE_BELADY,
    MT_CACHE_LRU,
    MT_CACHE_FIFO,
    MT_CACHE_LFU,
    MT_CACHE_RANDOM,
    MT_CACHE_POLICIES,
};
/* Requests of keys below n_keys, one after another, to a cache of `places` that is empty at first.
 * batch[n], never descending, tells which come together, each key once: what is held is used before
 * anything is fetched. NULL: strictly in order, for which BELADY is optimal. */
MT_NODISCARD mt_status mt_cache_misses(struct mt_ctx *ctx, const uint32_t *request,
                                       const uint32_t *batch, size_t n, uint32_t n_keys,
                                       int64_t places, enum mt_cache_policy policy, uint64_t seed,
                                       uint64_t *misses);
#endif
