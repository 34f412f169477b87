#include "passes/lib/assign.h"

#include "lib/base/mem.h"

#include <math.h>
#include <string.h>

/* Differences of two costs stay below 2^47, and a path of k <= 2^16 edges below 2^63. */
#define ASSIGN_RANGE 70368744177664.0 /* 2^46 */
#define ASSIGN_NONE INT64_MAX

struct assign_entry {
    int64_t delta; /* cost of moving `point` along the heap's edge */
    int32_t point;
};

/* Min-heap of one edge a -> b. Entries of points that have left a are dropped when they surface. */
struct assign_heap {
    struct assign_entry *v;
    int64_t n, cap;
};

struct assign {
    int64_t n;
    int k;
    int64_t *cost; /* [n*k], integer */
    int32_t *to;   /* [n] */
    int64_t *load; /* [k] */
    const int64_t *cap;
    struct assign_heap *heap;     /* [k*k] */
    int64_t *edge;                /* [k*k] cheapest move a -> b, or ASSIGN_NONE */
    int64_t *dist;                /* [k] */
    int32_t *prev, *path, *mover; /* [k] */
};

static bool assign_less(const struct assign_entry *a, const struct assign_entry *b)
{
    return a->delta < b->delta || (a->delta == b->delta && a->point < b->point);
}

static mt_status assign_push(struct mt_ctx *ctx, struct assign_heap *h, struct assign_entry e)
{
    int64_t i = h->n;

    if (h->n == h->cap) {
        int64_t cap = h->cap > 0 ? h->cap * 2 : 16;
        MT_TRY(mt_realloc(ctx, (size_t)cap, sizeof(*h->v), "balanced assignment", &h->v));
        h->cap = cap;
    }
    h->n++;
    for (; i > 0 && assign_less(&e, &h->v[(i - 1) / 2]); i = (i - 1) / 2)
        h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = e;
    return MT_OK;
}

static void assign_pop(struct assign_heap *h)
{
    struct assign_entry last = h->v[--h->n];
    int64_t i = 0;

    for (;;) {
        int64_t c = 2 * i + 1;
        if (c >= h->n)
            break;
        if (c + 1 < h->n && assign_less(&h->v[c + 1], &h->v[c]))
            c++;
        if (!assign_less(&h->v[c], &last))
            break;
        h->v[i] = h->v[c];
        i = c;
    }
    h->v[i] = last;
}

static void assign_refresh_edge(struct assign *s, int a, int b)
{
    struct assign_heap *h = &s->heap[(int64_t)a * s->k + b];

    while (h->n > 0 && s->to[h->v[0].point] != a)
        assign_pop(h);
    s->edge[(int64_t)a * s->k + b] = h->n > 0 ? h->v[0].delta : ASSIGN_NONE;
}

/* Lists point i, now in cluster a, on every edge out of a. */
static mt_status assign_enter(struct mt_ctx *ctx, struct assign *s, int32_t i, int a)
{
    const int64_t *c = s->cost + (int64_t)i * s->k;

    s->to[i] = a;
    for (int b = 0; b < s->k; b++) {
        if (b == a)
            continue;
        struct assign_entry e = {.delta = c[b] - c[a], .point = i};
        MT_TRY(assign_push(ctx, &s->heap[(int64_t)a * s->k + b], e));
    }
    return MT_OK;
}

static mt_status assign_quantize(struct mt_ctx *ctx, struct assign *s, const double *cost)
{
    double lo = INFINITY, hi = -INFINITY;

    for (int64_t i = 0; i < s->n * s->k; i++) {
        if (!isfinite(cost[i]))
            return mt_fail(ctx, MT_E_NUMERIC, "cost of point %lld for cluster %lld is not finite",
                           (long long)(i / s->k), (long long)(i % s->k));
        lo = fmin(lo, cost[i]);
        hi = fmax(hi, cost[i]);
    }
    /* A power of two keeps differences of equal costs equal, and integers integers. */
    double scale = hi > lo ? ldexp(1.0, (int)floor(log2(ASSIGN_RANGE / (hi - lo)))) : 1;
    for (int64_t i = 0; i < s->n * s->k; i++)
        s->cost[i] = (int64_t)llround((cost[i] - lo) * scale);
    return MT_OK;
}

static mt_status assign_start(struct mt_ctx *ctx, struct assign *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        const int64_t *c = s->cost + i * s->k;
        int best = 0;

        for (int b = 1; b < s->k; b++)
            if (c[b] < c[best])
                best = b;
        s->load[best]++;
        MT_TRY(assign_enter(ctx, s, (int32_t)i, best));
    }
    for (int a = 0; a < s->k; a++)
        for (int b = 0; b < s->k; b++)
            assign_refresh_edge(s, a, b);
    return MT_OK;
}

/* Bellman-Ford from all over-full clusters; returns the nearest under-full one, -1 when none is
 * left over-full. The start has no negative edge and shortest-path moves create no negative cycle,
 * so the loop ends. */
static int assign_search(struct assign *s)
{
    bool over = false, changed = true;
    int end = -1;

    for (int a = 0; a < s->k; a++) {
        bool source = s->load[a] > s->cap[a];
        s->dist[a] = source ? 0 : ASSIGN_NONE;
        s->prev[a] = -1;
        over = over || source;
    }
    if (!over)
        return -1;
    while (changed) {
        changed = false;
        for (int a = 0; a < s->k; a++) {
            if (s->dist[a] == ASSIGN_NONE)
                continue;
            const int64_t *edge = s->edge + (int64_t)a * s->k;
            for (int b = 0; b < s->k; b++) {
                if (edge[b] == ASSIGN_NONE || s->dist[a] + edge[b] >= s->dist[b])
                    continue;
                s->dist[b] = s->dist[a] + edge[b];
                s->prev[b] = a;
                changed = true;
            }
        }
    }
    for (int b = 0; b < s->k; b++)
        if (s->load[b] < s->cap[b] && (end < 0 || s->dist[b] < s->dist[end]))
            end = b;
    mt_assert(end >= 0 && s->dist[end] != ASSIGN_NONE);
    return end;
}

/* Moves one point along every edge of the path to `end`. */
static mt_status assign_augment(struct mt_ctx *ctx, struct assign *s, int end)
{
    int len = 0;

    for (int b = end; b >= 0; b = s->prev[b])
        s->path[len++] = b;
    for (int i = len - 1; i > 0; i--) {
        int64_t e = (int64_t)s->path[i] * s->k + s->path[i - 1];
        s->mover[i] = s->heap[e].v[0].point;
    }
    s->load[s->path[len - 1]]--;
    s->load[end]++;
    for (int i = len - 1; i > 0; i--)
        MT_TRY(assign_enter(ctx, s, s->mover[i], s->path[i - 1]));
    for (int i = 0; i < len; i++)
        for (int b = 0; b < s->k; b++)
            assign_refresh_edge(s, s->path[i], b);
    return MT_OK;
}

static mt_status assign_solve(struct mt_ctx *ctx, struct assign *s, const double *cost)
{
    size_t n = (size_t)s->n, k = (size_t)s->k;

    MT_TRY(mt_alloc(ctx, n, k * sizeof(*s->cost), "balanced assignment", &s->cost));
    MT_TRY(mt_alloc0(ctx, k, sizeof(*s->load), "balanced assignment", &s->load));
    MT_TRY(mt_alloc0(ctx, k, k * sizeof(*s->heap), "balanced assignment", &s->heap));
    MT_TRY(mt_alloc(ctx, k, k * sizeof(*s->edge), "balanced assignment", &s->edge));
    MT_TRY(mt_alloc(ctx, k, sizeof(*s->dist), "balanced assignment", &s->dist));
    MT_TRY(mt_alloc(ctx, 3 * k, sizeof(*s->prev), "balanced assignment", &s->prev));
    s->path = s->prev + k;
    s->mover = s->path + k;
    MT_TRY(assign_quantize(ctx, s, cost));
    MT_TRY(assign_start(ctx, s));
    for (int end = assign_search(s); end >= 0; end = assign_search(s)) {
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(assign_augment(ctx, s, end));
    }
    return MT_OK;
}

mt_status mt_assign_balanced(struct mt_ctx *ctx, int64_t n, int k, const double *cost,
                             const int64_t *cap, int32_t *to)
{
    struct assign s = {.n = n, .k = k, .cap = cap, .to = to};
    int64_t sum = 0;

    mt_assert(n >= 0 && n <= INT32_MAX && k >= 1 && k <= MT_ASSIGN_CLUSTERS_MAX);
    for (int c = 0; c < k; c++) {
        mt_assert(cap[c] >= 0);
        sum += cap[c];
    }
    mt_assert(sum == n);
    mt_status st = assign_solve(ctx, &s, cost);
    for (int64_t i = 0; s.heap != NULL && i < (int64_t)k * k; i++)
        mt_free(s.heap[i].v);
    mt_free(s.cost);
    mt_free(s.load);
    mt_free(s.heap);
    mt_free(s.edge);
    mt_free(s.dist);
    mt_free(s.prev);
    return st;
}
