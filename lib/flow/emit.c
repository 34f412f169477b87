#include "lib/flow/emit.h"

#include "kernels/kernels.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define EMIT_TILE_BYTES ((uint64_t)1 << 20)
/* How far reading runs ahead of what is copied, in tiles. */
#define EMIT_TILES_AHEAD 16
/* Slices behind recipes are read in any order, so all of one is fetched when its first reader
 * begins, up to this much. */
#define EMIT_LEAF_AHEAD_BYTES ((uint64_t)256 << 20)

struct emit_item {
    const struct mt_tensor *t;
    const unsigned char *base; /* where it lies contiguous; NULL: fetched by rows */
    uint64_t bytes, tile_bytes;
    int64_t tile_rows; /* of a fetched one */
    int64_t first_job; /* jobs of earlier items */
    size_t first_use, n_uses;
    _Atomic int64_t left; /* tiles not written yet */
};

/* One file slice, and how many of the records to be written still read it. */
struct emit_leaf {
    const struct mt_tensor *t;
    _Atomic int64_t left;
    _Atomic bool fetched;
};

struct emit {
    const struct mt_format *fmt;
    struct mt_writer *w;
    const struct mt_kernels *kernels;
    struct emit_item *items;
    size_t n_items;
    int64_t n_jobs;
    void **tiles; /* one per worker */

    const struct mt_tensor **uses; /* slices read, item by item */
    size_t n_uses, cap_uses;
    struct emit_leaf *leaves; /* sorted by address, each once */
    size_t n_leaves;
};

/* Rows of a tile. Types narrower than a byte may need several rows to fill whole bytes; eight
 * always do. */
static int64_t emit_tile_rows(const struct mt_tensor *t, uint64_t *bytes)
{
    uint64_t cols = (uint64_t)mt_tensor_cols(t), group_bytes;
    int64_t rows = mt_tensor_rows(t), group = 1, n;

    if (!mt_dtype_bytes(t->dtype, cols, &group_bytes)) {
        group = 8;
        if (!mt_dtype_bytes(t->dtype, cols * 8, &group_bytes))
            group_bytes = mt_tensor_bytes(t);
    }
    n = group_bytes == 0 || group_bytes >= EMIT_TILE_BYTES
            ? group
            : (int64_t)(EMIT_TILE_BYTES / group_bytes) * group;
    n = n > rows ? rows : n;
    *bytes = (uint64_t)(n + group - 1) / (uint64_t)group * group_bytes;
    return n;
}

uint64_t mt_emit_bytes(const struct mt_ctx *ctx, struct mt_tensor *const *tensors, size_t n)
{
    uint64_t longest = 0, tile = EMIT_TILE_BYTES, tile_bytes;
    const void *base;

    for (size_t i = 0; i < n; i++) {
        if (mt_tensor_contiguous(tensors[i], &base))
            continue;
        emit_tile_rows(tensors[i], &tile_bytes);
        if (tile_bytes > tile)
            tile = tile_bytes;
        uint64_t row = (uint64_t)mt_tensor_cols(tensors[i]) * sizeof(float);
        if (row > longest)
            longest = row;
    }
    return (uint64_t)mt_ctx_threads(ctx) * tile * 2 + longest;
}

static mt_status emit_push_use(struct mt_ctx *ctx, struct emit *e, const struct mt_tensor *t)
{
    MT_TRY(mt_grow(ctx, e->n_uses, &e->cap_uses, sizeof(struct mt_tensor *), "records to write",
                   &e->uses));
    e->uses[e->n_uses++] = t;
    return MT_OK;
}

/* The file slices behind a record, through aliases and recipes. */
static mt_status emit_collect(struct mt_ctx *ctx, struct emit *e, const struct mt_tensor *t)
{
    t = mt_tensor_origin(t);
    if (t->src.kind == MT_SRC_SLICE)
        return emit_push_use(ctx, e, t);
    if (t->src.kind == MT_SRC_RECIPE) {
        for (int i = 0; i < t->src.recipe.n_in; i++)
            MT_TRY(emit_collect(ctx, e, t->src.recipe.in[i]));
        for (size_t i = 0; i < t->src.recipe.n_more; i++)
            MT_TRY(emit_collect(ctx, e, t->src.recipe.more[i]));
    }
    return MT_OK;
}

static int emit_leaf_compare(const void *a, const void *b)
{
    const struct mt_tensor *x = ((const struct emit_leaf *)a)->t;
    const struct mt_tensor *y = ((const struct emit_leaf *)b)->t;

    return (x > y) - (x < y);
}

static struct emit_leaf *emit_leaf_of(const struct emit *e, const struct mt_tensor *t)
{
    struct emit_leaf key = {.t = t};

    return bsearch(&key, e->leaves, e->n_leaves, sizeof *e->leaves, emit_leaf_compare);
}

static mt_status emit_make_leaves(struct mt_ctx *ctx, struct emit *e)
{
    size_t n = 0;

    MT_TRY(mt_alloc0(ctx, e->n_uses, sizeof *e->leaves, "records to write", &e->leaves));
    for (size_t i = 0; i < e->n_uses; i++)
        e->leaves[i].t = e->uses[i];
    qsort(e->leaves, e->n_uses, sizeof *e->leaves, emit_leaf_compare);
    for (size_t i = 0; i < e->n_uses; i++) {
        if (n == 0 || e->leaves[n - 1].t != e->leaves[i].t)
            e->leaves[n++].t = e->leaves[i].t;
    }
    e->n_leaves = n;
    for (size_t i = 0; i < e->n_uses; i++)
        atomic_fetch_add(&emit_leaf_of(e, e->uses[i])->left, 1);
    return MT_OK;
}

static mt_status emit_plan_item(struct mt_ctx *ctx, struct emit *e, struct emit_item *it,
                                const struct mt_tensor *t)
{
    const void *base;
    int64_t jobs;
    char label[128];

    if (mt_tensor_origin(t)->src.kind == MT_SRC_PENDING)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: %s left it without a source",
                       mt_tensor_label(t, label, sizeof label),
                       t->planner != NULL ? t->planner : "the plan");
    it->t = t;
    it->bytes = mt_tensor_bytes(t);
    if (mt_tensor_contiguous(t, &base)) {
        it->base = base;
        it->tile_bytes = EMIT_TILE_BYTES;
        jobs = (int64_t)((it->bytes + EMIT_TILE_BYTES - 1) / EMIT_TILE_BYTES);
    } else {
        int64_t rows = mt_tensor_rows(t);
        it->tile_rows = emit_tile_rows(t, &it->tile_bytes);
        jobs = it->bytes == 0 ? 0 : (rows + it->tile_rows - 1) / it->tile_rows;
    }
    it->first_job = e->n_jobs;
    atomic_store(&it->left, jobs);
    e->n_jobs += jobs;
    it->first_use = e->n_uses;
    MT_TRY(emit_collect(ctx, e, t));
    it->n_uses = e->n_uses - it->first_use;
    return MT_OK;
}

static mt_status emit_plan(struct mt_ctx *ctx, struct emit *e, struct mt_tensor *const *tensors,
                           size_t n)
{
    size_t n_workers = (size_t)mt_ctx_threads(ctx);
    uint64_t tile_bytes = 0;

    MT_TRY(mt_alloc0(ctx, n, sizeof *e->items, "records to write", &e->items));
    e->n_items = n;
    for (size_t i = 0; i < n; i++) {
        MT_TRY(emit_plan_item(ctx, e, &e->items[i], tensors[i]));
        if (e->items[i].base == NULL && e->items[i].tile_bytes > tile_bytes)
            tile_bytes = e->items[i].tile_bytes;
    }
    MT_TRY(emit_make_leaves(ctx, e));
    MT_TRY(mt_alloc0(ctx, n_workers, sizeof *e->tiles, "tiles", &e->tiles));
    for (size_t i = 0; i < n_workers && tile_bytes != 0; i++)
        MT_TRY(mt_alloc(ctx, 1, tile_bytes, "tiles", &e->tiles[i]));
    return MT_OK;
}

static const char *emit_file(const struct mt_tensor *t)
{
    const struct mt_tensor *o = mt_tensor_origin(t);

    if (o->src.kind == MT_SRC_SLICE)
        return o->src.slice.map->path;
    return t->planner != NULL ? t->planner : "computed";
}

static mt_status emit_check(struct mt_ctx *ctx, const struct emit *e, const struct mt_tensor *t,
                            uint64_t offset, const void *bytes, uint64_t n)
{
    char label[128];
    uint64_t width = mt_dtype_bits(t->dtype) / 8;

    if (!mt_dtype_is_plain_float(t->dtype) || mt_ctx_allow_nan(ctx))
        return MT_OK;
    size_t at = e->kernels->find_nonfinite(t->dtype, bytes, (size_t)(n / width));
    if (at == n / width)
        return MT_OK;
    return mt_fail(ctx, MT_E_NUMERIC,
                   "%s (%s): element %llu is NaN or infinite; --allow-nan writes it as it is",
                   mt_tensor_label(t, label, sizeof label), emit_file(t),
                   (unsigned long long)offset / width + at);
}

static void emit_tile_done(struct emit *e, struct emit_item *it, uint64_t offset, uint64_t n)
{
    /* A large record gives its pages back as it goes; the rest waits for the last reader. */
    if (it->base != NULL) {
        const struct mt_tensor *o = mt_tensor_origin(it->t);
        if (o->src.kind == MT_SRC_SLICE)
            mt_map_drop(o->src.slice.map, o->src.slice.offset + offset, n);
    }
    if (atomic_fetch_sub(&it->left, 1) != 1)
        return;
    for (size_t i = 0; i < it->n_uses; i++) {
        struct emit_leaf *leaf = emit_leaf_of(e, e->uses[it->first_use + i]);
        if (atomic_fetch_sub(&leaf->left, 1) == 1)
            mt_tensor_drop(leaf->t);
    }
}

static struct emit_item *emit_item_of(struct emit *e, int64_t job)
{
    size_t lo = 0, hi = e->n_items;

    /* The last item that starts at or before the job; empty items never own one. */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (e->items[mid].first_job <= job)
            lo = mid;
        else
            hi = mid;
    }
    return &e->items[lo];
}

static void emit_ahead_recipe(struct emit *e, const struct emit_item *it)
{
    const void *base;

    for (size_t i = 0; i < it->n_uses; i++) {
        struct emit_leaf *leaf = emit_leaf_of(e, e->uses[it->first_use + i]);
        uint64_t n = mt_tensor_bytes(leaf->t);
        if (atomic_exchange(&leaf->fetched, true) || !mt_tensor_contiguous(leaf->t, &base))
            continue;
        mt_map_ahead(leaf->t->src.slice.map, leaf->t->src.slice.offset,
                     n < EMIT_LEAF_AHEAD_BYTES ? n : EMIT_LEAF_AHEAD_BYTES);
    }
}

/* Lets the disk work on what a later job reads. */
static void emit_ahead(struct emit *e, int64_t job)
{
    const struct emit_item *it;

    if (job >= e->n_jobs)
        return;
    it = emit_item_of(e, job);
    const struct mt_tensor *o = mt_tensor_origin(it->t);
    if (it->base == NULL)
        emit_ahead_recipe(e, it);
    else if (o->src.kind == MT_SRC_SLICE)
        mt_map_ahead(o->src.slice.map,
                     o->src.slice.offset + (uint64_t)(job - it->first_job) * it->tile_bytes,
                     it->tile_bytes);
}

static mt_status emit_tile(struct mt_ctx *ctx, struct emit *e, struct emit_item *it, int64_t tile)
{
    const struct mt_tensor *t = it->t;
    uint64_t offset = (uint64_t)tile * it->tile_bytes;
    uint64_t n = it->bytes - offset < it->tile_bytes ? it->bytes - offset : it->tile_bytes;
    const void *bytes;

    MT_TRY(mt_check_cancel(ctx));
    if (it->base != NULL) {
        bytes = it->base + offset;
    } else {
        int64_t row = tile * it->tile_rows, left = mt_tensor_rows(t) - row;
        void *buf = e->tiles[mt_pool_worker()];
        MT_TRY(mt_tensor_fetch(ctx, t, row, left < it->tile_rows ? left : it->tile_rows, buf));
        bytes = buf;
    }
    MT_TRY(emit_check(ctx, e, t, offset, bytes, n));
    MT_TRY(e->fmt->put(ctx, e->w, t, offset, bytes, (size_t)n));
    emit_tile_done(e, it, offset, n);
    mt_progress_add(ctx, n);
    return MT_OK;
}

static mt_status emit_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct emit *e = arg;
    struct emit_item *it = emit_item_of(e, job);
    char label[128];

    emit_ahead(e, job + EMIT_TILES_AHEAD);
    mt_status st = emit_tile(ctx, e, it, job - it->first_job);
    if (st == MT_OK || st == MT_E_CANCELLED || st == MT_E_NUMERIC || it->t->planner == NULL)
        return st;
    return mt_wrap(ctx, st, "%s (planned by %s)", mt_tensor_label(it->t, label, sizeof label),
                   it->t->planner);
}

mt_status mt_emit(struct mt_ctx *ctx, const struct mt_format *fmt, struct mt_writer *w,
                  struct mt_tensor *const *tensors, size_t n)
{
    struct emit e = {.fmt = fmt, .w = w, .kernels = mt_kernels_get()};
    mt_status st = emit_plan(ctx, &e, tensors, n);

    for (int64_t job = 0; st == MT_OK && job < EMIT_TILES_AHEAD; job++)
        emit_ahead(&e, job);
    if (st == MT_OK)
        st = mt_pool_run(ctx, e.n_jobs, emit_job, &e);
    for (int i = 0; e.tiles != NULL && i < mt_ctx_threads(ctx); i++)
        mt_free(e.tiles[i]);
    mt_free(e.tiles);
    mt_free(e.leaves);
    mt_free(e.uses);
    mt_free(e.items);
    return st;
}

mt_status mt_emit_blame(struct mt_ctx *ctx, struct mt_tensor *const *tensors, size_t n, int layer)
{
    const struct mt_kernels *k = mt_kernels_get();
    char label[128];

    for (size_t i = 0; i < n; i++) {
        const struct mt_tensor *t = tensors[i];
        size_t count = (size_t)mt_tensor_count(t), at;
        const void *bytes;
        if ((layer >= 0 && t->role.layer != layer) || !mt_dtype_is_plain_float(t->dtype) ||
            !mt_tensor_contiguous(t, &bytes))
            continue;
        MT_TRY(mt_check_cancel(ctx));
        at = k->find_nonfinite(t->dtype, bytes, count);
        mt_tensor_drop(t);
        if (at < count)
            return mt_fail(ctx, MT_E_NUMERIC, "%s (%s): element %zu is NaN or infinite",
                           mt_tensor_label(t, label, sizeof label), emit_file(t), at);
    }
    return MT_OK;
}
