#include "passes/lib/local_gather.h"

#include "kernels/linalg.h"
#include "lib/base/pool.h"
#include "passes/lib/local_act.h"

#include <stdatomic.h>
#include <string.h>

#define GATHER_TOKENS 128 /* of an expert per job, where a job has all of its neurons */
#define GATHER_DEEP 512   /* input features that are multiplied at a time there */
#define GATHER_WIDE 128   /* input features per job, where a job has all tokens of an expert */

/* Items are made in any order; each writes what no other does. */
struct gather {
    const struct mt_local_batch *b;
    const struct mt_local_weights *w;
    float by;
    const float *z;
    mt_status (*fn)(struct mt_ctx *ctx, const struct gather *g, int64_t item, float *room);
    int64_t n_items;
    atomic_llong next;
};

static int64_t gather_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t mt_local_gather_room(const struct mt_local_shape *s, int64_t size)
{
    int64_t tokens = gather_min(size, GATHER_TOKENS), deep = gather_min(s->hidden, GATHER_DEEP);
    int64_t tile = tokens * (deep + s->expert_width), strip = size * GATHER_WIDE;

    return tile > strip ? tile : strip;
}

void mt_local_gather_list(struct mt_local_batch *b)
{
    int64_t n = 0;

    for (int e = 0; e < b->shape.n_experts; e++) {
        b->first[e] = n;
        for (int64_t t = 0; t < b->m; t++)
            if (b->picked[t * b->shape.n_experts + e] != 0)
                b->rows[n++] = (int32_t)t;
    }
    b->first[b->shape.n_experts] = n;
}

/* ---- places ---- */

static int64_t gather_count(const struct mt_local_batch *b, int e)
{
    return b->first[e + 1] - b->first[e];
}

/* Neurons before those of expert e, in weights. */
static int64_t gather_column(const struct mt_local_batch *b, int e)
{
    return b->shape.shared + e * b->shape.expert_width;
}

/* Where zg, zu and h of expert e begin. */
static int64_t gather_place(const struct mt_local_batch *b, int e)
{
    return b->m * b->shape.shared + b->first[e] * b->shape.expert_width;
}

static int64_t gather_tiles(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

/* Columns `from` and so on of the rows of v[m, hidden] that are listed, n of them in rows. */
static void gather_rows(const struct mt_local_batch *b, const float *v, const int32_t *rows,
                        int64_t n, int64_t from, int64_t cols, float *to)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * cols, v + rows[i] * b->shape.hidden + from, (size_t)cols * sizeof(*to));
}

/* ---- jobs ---- */

static mt_status gather_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct gather *g = arg;
    float *room = g->b->room + job * mt_local_gather_room(&g->b->shape, g->b->size);

    for (;;) {
        int64_t item = atomic_fetch_add(&g->next, 1);
        if (item >= g->n_items)
            return MT_OK;
        MT_TRY(g->fn(ctx, g, item, room));
    }
}

static mt_status gather_run(struct mt_ctx *ctx, struct gather *g)
{
    atomic_store(&g->next, 0);
    return mt_pool_run(ctx, gather_min(g->b->n_slots, g->n_items), gather_job, g);
}

/* Of item i, counted through the tiles of tokens of all experts: its expert and, beginning in its
 * list, its tokens. */
struct gather_tile {
    int e;
    int64_t at, m;
};

static struct gather_tile gather_find(const struct mt_local_batch *b, int64_t item)
{
    int e = 0;

    for (; item >= gather_tiles(gather_count(b, e), GATHER_TOKENS); e++)
        item -= gather_tiles(gather_count(b, e), GATHER_TOKENS);
    return (struct gather_tile){
        .e = e,
        .at = item * GATHER_TOKENS,
        .m = gather_min(GATHER_TOKENS, gather_count(b, e) - item * GATHER_TOKENS)};
}

static int64_t gather_all_tiles(const struct mt_local_batch *b)
{
    int64_t n = 0;

    for (int e = 0; e < b->shape.n_experts; e++)
        n += gather_tiles(gather_count(b, e), GATHER_TOKENS);
    return n;
}

/* ---- forward ---- */

static mt_status gather_act_item(struct mt_ctx *ctx, const struct gather *g, int64_t item,
                                 float *room)
{
    const struct mt_local_batch *b = g->b;
    const struct gather_tile t = gather_find(b, item);
    const int32_t *rows = b->rows + b->first[t.e] + t.at;
    int64_t d = b->shape.hidden, w = b->shape.expert_width, col = gather_column(b, t.e);
    int64_t place = gather_place(b, t.e) + t.at * w;

    for (int64_t at = 0; at < d; at += GATHER_DEEP) {
        int64_t k = gather_min(GATHER_DEEP, d - at);
        float beta = at > 0 ? 1 : 0;
        gather_rows(b, b->x, rows, t.m, at, k, room);
        if (b->shape.gated)
            MT_TRY(mt_gemm_here(ctx, MT_GEMM_NT, t.m, w, k, 1, room, k, g->w->gate + col * d + at,
                                d, beta, b->zg + place, w));
        MT_TRY(mt_gemm_here(ctx, MT_GEMM_NT, t.m, w, k, 1, room, k, g->w->up + col * d + at, d,
                            beta, b->zu + place, w));
    }
    for (int64_t i = place; i < place + t.m * w; i += w)
        mt_local_act(&b->shape, g->w, col, w, b->zg + i, b->zu + i, b->h + i);
    return MT_OK;
}

/* Some features of y: a token's experts are added in their order. */
static mt_status gather_sum_item(struct mt_ctx *ctx, const struct gather *g, int64_t item,
                                 float *room)
{
    const struct mt_local_batch *b = g->b;
    int64_t d = b->shape.hidden, w = b->shape.expert_width, from = item * GATHER_WIDE;
    int64_t cols = gather_min(GATHER_WIDE, d - from);

    for (int64_t t = 0; b->shape.shared == 0 && t < b->m; t++)
        for (int64_t i = from; i < from + cols; i++)
            b->y[t * d + i] = -b->y[t * d + i];
    for (int e = 0; e < b->shape.n_experts; e++) {
        const int32_t *rows = b->rows + b->first[e];
        int64_t m = gather_count(b, e);
        MT_TRY(mt_gemm_here(ctx, MT_GEMM_NT, m, cols, w, 1, b->h + gather_place(b, e), w,
                            g->w->down + from * b->n + gather_column(b, e), b->n, 0, room, cols));
        for (int64_t i = 0; i < m; i++)
            mt_kernels_get()->axpy(b->y + rows[i] * d + from, 1, room + i * cols, (size_t)cols);
    }
    return MT_OK;
}

static mt_status gather_shared_act(struct mt_ctx *ctx, int64_t t, void *arg)
{
    const struct gather *g = arg;
    int64_t n = g->b->shape.shared;

    (void)ctx;
    mt_local_act(&g->b->shape, g->w, 0, n, g->b->zg + t * n, g->b->zu + t * n, g->b->h + t * n);
    return MT_OK;
}

static mt_status gather_shared_forward(struct mt_ctx *ctx, struct gather *g)
{
    const struct mt_local_batch *b = g->b;
    int64_t d = b->shape.hidden, n = b->shape.shared;

    if (n == 0)
        return MT_OK;
    if (b->shape.gated)
        MT_TRY(mt_gemm_nt(ctx, b->m, n, d, 1, b->x, d, g->w->gate, d, 0, b->zg, n));
    MT_TRY(mt_gemm_nt(ctx, b->m, n, d, 1, b->x, d, g->w->up, d, 0, b->zu, n));
    MT_TRY(mt_pool_run(ctx, b->m, gather_shared_act, g));
    return mt_gemm_nt(ctx, b->m, d, n, 1, b->h, n, g->w->down, b->n, -1, b->y, d);
}

mt_status mt_local_gather_forward(struct mt_ctx *ctx, struct mt_local_batch *b,
                                  const struct mt_local_weights *w)
{
    struct gather g = {.b = b, .w = w};

    mt_local_gather_list(b);
    MT_TRY(gather_shared_forward(ctx, &g));
    g.fn = gather_act_item;
    g.n_items = gather_all_tiles(b);
    MT_TRY(gather_run(ctx, &g));
    g.fn = gather_sum_item;
    g.n_items = gather_tiles(b->shape.hidden, GATHER_WIDE);
    return gather_run(ctx, &g);
}

/* ---- back ---- */

static mt_status gather_back_item(struct mt_ctx *ctx, const struct gather *g, int64_t item,
                                  float *room)
{
    const struct mt_local_batch *b = g->b;
    const struct gather_tile t = gather_find(b, item);
    const int32_t *rows = b->rows + b->first[t.e] + t.at;
    int64_t d = b->shape.hidden, w = b->shape.expert_width, col = gather_column(b, t.e);
    int64_t place = gather_place(b, t.e) + t.at * w;
    float *dh = room + t.m * gather_min(GATHER_DEEP, d);

    for (int64_t at = 0; at < d; at += GATHER_DEEP) {
        int64_t k = gather_min(GATHER_DEEP, d - at);
        gather_rows(b, b->y, rows, t.m, at, k, room);
        MT_TRY(mt_gemm_here(ctx, MT_GEMM_NN, t.m, w, k, g->by, room, k,
                            g->w->down + at * b->n + col, b->n, at > 0 ? 1 : 0, dh, w));
    }
    for (int64_t i = 0; i < t.m; i++)
        mt_local_act_back(&b->shape, w, b->zg + place + i * w, b->zu + place + i * w, dh + i * w);
    return MT_OK;
}

static mt_status gather_shared_back(struct mt_ctx *ctx, int64_t t, void *arg)
{
    const struct gather *g = arg;
    int64_t n = g->b->shape.shared;

    (void)ctx;
    mt_local_act_back(&g->b->shape, n, g->b->zg + t * n, g->b->zu + t * n, g->b->h + t * n);
    return MT_OK;
}

mt_status mt_local_gather_back(struct mt_ctx *ctx, struct mt_local_batch *b,
                               const struct mt_local_weights *w, float by)
{
    struct gather g = {.b = b, .w = w, .by = by, .fn = gather_back_item};
    int64_t d = b->shape.hidden, n = b->shape.shared;

    if (n > 0) {
        MT_TRY(mt_gemm_nn(ctx, b->m, n, d, by, b->y, d, w->down, b->n, 0, b->h, n));
        MT_TRY(mt_pool_run(ctx, b->m, gather_shared_back, &g));
    }
    g.n_items = gather_all_tiles(b);
    return gather_run(ctx, &g);
}

/* ---- gradients ---- */

/* Items: strips of features of each expert. */
static mt_status gather_down_item(struct mt_ctx *ctx, const struct gather *g, int64_t item,
                                  float *room)
{
    const struct mt_local_batch *b = g->b;
    int64_t d = b->shape.hidden, w = b->shape.expert_width, strips = gather_tiles(d, GATHER_WIDE);
    int e = (int)(item / strips);
    int64_t from = item % strips * GATHER_WIDE, cols = gather_min(GATHER_WIDE, d - from);
    int64_t m = gather_count(b, e);
    float *to = b->grad + from * b->n + gather_column(b, e);

    for (int64_t i = 0; m == 0 && i < cols; i++)
        memset(to + i * b->n, 0, (size_t)w * sizeof(*to));
    if (m == 0)
        return MT_OK;
    gather_rows(b, b->y, b->rows + b->first[e], m, from, cols, room);
    return mt_gemm_here(ctx, MT_GEMM_TN, cols, w, m, g->by, room, cols, b->h + gather_place(b, e),
                        w, 0, to, b->n);
}

static mt_status gather_rows_item(struct mt_ctx *ctx, const struct gather *g, int64_t item,
                                  float *room)
{
    const struct mt_local_batch *b = g->b;
    int64_t d = b->shape.hidden, w = b->shape.expert_width, strips = gather_tiles(d, GATHER_WIDE);
    int e = (int)(item / strips);
    int64_t from = item % strips * GATHER_WIDE, cols = gather_min(GATHER_WIDE, d - from);
    int64_t m = gather_count(b, e);
    float *to = b->grad + gather_column(b, e) * d + from;

    for (int64_t i = 0; m == 0 && i < w; i++)
        memset(to + i * d, 0, (size_t)cols * sizeof(*to));
    if (m == 0)
        return MT_OK;
    gather_rows(b, b->x, b->rows + b->first[e], m, from, cols, room);
    return mt_gemm_here(ctx, MT_GEMM_TN, w, cols, m, 1, g->z + gather_place(b, e), w, room, cols, 0,
                        to, d);
}

static void gather_bias(const struct mt_local_batch *b, const float *z)
{
    int64_t n = b->shape.shared, w = b->shape.expert_width;

    memset(b->grad, 0, (size_t)b->n * sizeof(*b->grad));
    for (int64_t t = 0; t < b->m; t++)
        mt_kernels_get()->axpy(b->grad, 1, z + t * n, (size_t)n);
    for (int e = 0; e < b->shape.n_experts; e++)
        for (int64_t i = 0; i < gather_count(b, e); i++)
            mt_kernels_get()->axpy(b->grad + gather_column(b, e), 1, z + gather_place(b, e) + i * w,
                                   (size_t)w);
}

mt_status mt_local_gather_grad(struct mt_ctx *ctx, struct mt_local_batch *b,
                               enum mt_local_part part, float by)
{
    bool gate = part == MT_LOCAL_GATE || part == MT_LOCAL_GATE_BIAS;
    struct gather g = {.b = b, .by = by, .z = gate ? b->zg : b->zu};
    int64_t d = b->shape.hidden, n = b->shape.shared;

    if (part == MT_LOCAL_GATE_BIAS || part == MT_LOCAL_UP_BIAS) {
        gather_bias(b, g.z);
        return MT_OK;
    }
    g.n_items = b->shape.n_experts * gather_tiles(d, GATHER_WIDE);
    if (part == MT_LOCAL_DOWN) {
        g.fn = gather_down_item;
        MT_TRY(mt_gemm_tn(ctx, d, n, b->m, by, b->y, d, b->h, n, 0, b->grad, b->n));
        return gather_run(ctx, &g);
    }
    g.fn = gather_rows_item;
    MT_TRY(mt_gemm_tn(ctx, n, d, b->m, 1, g.z, n, b->x, d, 0, b->grad, d));
    return gather_run(ctx, &g);
}
