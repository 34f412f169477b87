#include "lib/run/run_impl.h"

#include "lib/base/pool.h"
#include "lib/ir/factors.h"

/* Evaluated at a time by one job: small enough to spread one matrix over the pool. */
#define WEIGHTS_TILE_BYTES (1u << 20)

struct weights_tile {
    const struct mt_tensor *t;
    unsigned char *dst;
    int64_t row, n;
};

static mt_status weights_check(struct mt_ctx *ctx, const struct run_want *w)
{
    int64_t rows = mt_tensor_rows(w->t), cols = mt_tensor_cols(w->t);
    char label[160];

    mt_tensor_label(w->t, label, sizeof label);
    if (!mt_dtype_reads_f32(w->t->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s is stored as %s; the forward pass reads F64, F32, F16, BF16 and "
                       "blocks without codebooks",
                       label, mt_dtype_name(w->t->dtype));
    /* A vector may be stored as [n], [1, n] or [n, 1]. */
    if (w->rows == 1 ? mt_tensor_count(w->t) != w->cols : rows != w->rows || cols != w->cols)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s is %lld x %lld, but the model's config needs %lld x %lld", label,
                       (long long)rows, (long long)cols, (long long)w->rows, (long long)w->cols);
    return MT_OK;
}

/* As the device gets it: blocks are floats by then. */
static enum mt_dtype weights_dtype(const struct mt_tensor *t)
{
    return mt_dtype_is_block(t->dtype) ? MT_F32 : t->dtype;
}

static uint64_t weights_bytes(const struct mt_tensor *t)
{
    return mt_dtype_is_block(t->dtype) ? (uint64_t)mt_tensor_count(t) * sizeof(float)
                                       : mt_tensor_bytes(t);
}

/* Whether it can be read where it lies. */
static bool weights_borrowed(const struct mt_tensor *t, const void **bytes)
{
    return !mt_dtype_is_block(t->dtype) && mt_tensor_contiguous(t, bytes);
}

uint64_t mt_run_weight_bytes(const struct mt_tensor *t)
{
    const void *bytes;

    return t == NULL || weights_borrowed(t, &bytes) ? 0 : weights_bytes(t);
}

static mt_status weights_eval_tile(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct weights_tile *tile = (struct weights_tile *)arg + i;

    MT_TRY(mt_check_cancel(ctx));
    if (mt_dtype_is_block(tile->t->dtype))
        return mt_tensor_fetch_f32(ctx, tile->t, tile->row, tile->n, (float *)(void *)tile->dst);
    return mt_tensor_fetch(ctx, tile->t, tile->row, tile->n, tile->dst);
}

static int64_t weights_tile_rows(const struct mt_tensor *t)
{
    int64_t rows = mt_tensor_rows(t);
    uint64_t row_bytes = rows > 0 ? weights_bytes(t) / (uint64_t)rows : 0;

    return row_bytes == 0 || row_bytes >= WEIGHTS_TILE_BYTES
               ? 1
               : (int64_t)(WEIGHTS_TILE_BYTES / row_bytes);
}

/* Evaluates all owned weights of the list, one pool region for the whole list. */
static mt_status weights_eval(struct mt_ctx *ctx, const struct run_want *wants, int n)
{
    struct weights_tile *tiles;
    int64_t n_tiles = 0;
    mt_status st;

    for (int i = 0; i < n; i++) {
        if (wants[i].w->owned != NULL) {
            int64_t step = weights_tile_rows(wants[i].t);
            n_tiles += (mt_tensor_rows(wants[i].t) + step - 1) / step;
        }
    }
    if (n_tiles == 0)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)n_tiles, sizeof *tiles, "weight tiles", &tiles));
    n_tiles = 0;
    for (int i = 0; i < n; i++) {
        const struct mt_tensor *t = wants[i].t;
        int64_t rows = mt_tensor_rows(t), step = weights_tile_rows(t);
        size_t row_bytes = rows > 0 ? (size_t)(weights_bytes(t) / (uint64_t)rows) : 0;
        for (int64_t row = 0; wants[i].w->owned != NULL && row < rows; row += step) {
            tiles[n_tiles++] = (struct weights_tile){
                .t = t,
                .dst = (unsigned char *)wants[i].w->owned + (size_t)row * row_bytes,
                .row = row,
                .n = rows - row < step ? rows - row : step,
            };
        }
    }
    st = mt_pool_run(ctx, n_tiles, weights_eval_tile, tiles);
    mt_free(tiles);
    return st;
}

static mt_status weights_load(struct mt_ctx *ctx, struct mt_runner *r, const struct run_want *wants,
                              int n)
{
    const void *bytes;
    char label[160];

    for (int i = 0; i < n; i++) {
        MT_TRY(weights_check(ctx, &wants[i]));
        if (!weights_borrowed(wants[i].t, &bytes))
            MT_TRY(mt_alloc(ctx, (size_t)weights_bytes(wants[i].t), 1,
                            mt_tensor_label(wants[i].t, label, sizeof label), &wants[i].w->owned));
    }
    MT_TRY(weights_eval(ctx, wants, n));
    for (int i = 0; i < n; i++) {
        const struct run_want *w = &wants[i];
        if (w->w->owned != NULL)
            bytes = w->w->owned;
        else
            mt_assert(weights_borrowed(w->t, &bytes));
        MT_TRY(mt_wrap(ctx,
                       r->dev->ops->weight_load(ctx, r->dev, weights_dtype(w->t), w->rows, w->cols,
                                                bytes, &w->w->h),
                       "%s", mt_tensor_label(w->t, label, sizeof label)));
    }
    return MT_OK;
}

mt_status mt_run_weights_load(struct mt_ctx *ctx, struct mt_runner *r, const struct run_want *wants,
                              int n)
{
    mt_status st;

    for (int i = 0; i < n; i++)
        *wants[i].w = (struct run_weight){0};
    st = weights_load(ctx, r, wants, n);
    if (st != MT_OK) {
        for (int i = 0; i < n; i++)
            mt_run_weight_free(r, wants[i].w);
    }
    return st;
}

void mt_run_weight_free(struct mt_runner *r, struct run_weight *w)
{
    if (w->h != NULL)
        r->dev->ops->weight_free(r->dev, w->h);
    mt_free(w->owned);
    *w = (struct run_weight){0};
}

static void weights_want(struct run_wants *l, const struct mt_tensor *t, int64_t rows, int64_t cols,
                         struct run_weight *w)
{
    mt_assert(l->n < RUN_WANTS_MAX);
    l->v[l->n++] = (struct run_want){.t = t, .rows = rows, .cols = cols, .w = w};
}

mt_status mt_run_want_need(struct mt_ctx *ctx, const struct mt_model *m, struct run_wants *l,
                           struct mt_role role, int64_t rows, int64_t cols, struct run_weight *w)
{
    struct mt_tensor *t;

    MT_TRY(mt_model_need(ctx, m, role, &t));
    weights_want(l, t, rows, cols, w);
    return MT_OK;
}

mt_status mt_run_want_matrix(struct mt_ctx *ctx, struct mt_runner *r, struct mt_arena *arena,
                             struct run_wants *l, struct mt_role role, int64_t rows, int64_t cols,
                             struct run_weight *w)
{
    const struct mt_tensor *t;

    MT_TRY(mt_matrix_of(ctx, r->m, arena, role, r->dev->elem_bytes == 8 ? MT_F64 : MT_F32, &t));
    weights_want(l, t, rows, cols, w);
    return MT_OK;
}

void mt_run_want_may(const struct mt_model *m, struct run_wants *l, struct mt_role role,
                     int64_t rows, int64_t cols, struct run_weight *w)
{
    const struct mt_tensor *t = mt_model_find(m, role);

    if (t != NULL)
        weights_want(l, t, rows, cols, w);
}
