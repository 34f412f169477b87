#include "lib/flow/profile_run.h"

#include "lib/base/hash.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/flow/profile_see.h"
#include "lib/flow/walk.h"
#include "lib/run/stream.h"

#include <string.h>

/* Floats of one matrix of activations: 16 MiB. Shapes alone decide, so that Gram matrices, whose
 * blocks these are, come out the same whatever the memory limit. */
#define RUN_BLOCK_ELEMENTS ((int64_t)4 << 20)
#define RUN_BLOCK_MIN 64

struct profile_run {
    const struct mt_profile_opts *o;
    struct mt_profile *p;
    mt_profile_put_fn put;
    void *arg;
    struct mt_batches batches;
    struct mt_runner *r;
    struct mt_stream *stream;
    int64_t hidden, block;
    mt_buf x, norm, y;
    float *host; /* [tokens of a window, hidden] */
    struct profile_see see;
};

/* ---- what will be measured ---- */

static bool run_wants(const struct mt_profile_opts *o, enum mt_stat s)
{
    if (s == MT_STAT_X_GRAM)
        return o->x_gram;
    if (s == MT_STAT_H_GRAM)
        return o->h_gram;
    if (s == MT_STAT_A_SUM)
        return o->gates;
    if (s == MT_STAT_EXPERT_F_ALL)
        return o->all_experts;
    return mt_stat_row(s)->kind != MT_STAT_GIVEN;
}

/* SHA-256 of the file tokenizer.json beside the model; "" without one. */
static mt_status run_tokenizer_hash(struct mt_ctx *ctx, const struct mt_model *m, char hex[65])
{
    struct mt_sha256 sha;
    struct mt_map *map;

    hex[0] = '\0';
    for (size_t i = 0; i < m->n_sidecars; i++) {
        if (strcmp(m->sidecars[i].name, "tokenizer.json") != 0)
            continue;
        MT_TRY(mt_map_open(ctx, m->sidecars[i].path, &map));
        mt_sha256_begin(&sha);
        mt_sha256_add(&sha, map->base, (size_t)map->bytes);
        mt_sha256_hex(&sha, hex);
        mt_map_close(map);
    }
    return MT_OK;
}

mt_status mt_profile_plan(struct mt_ctx *ctx, const struct mt_profile_opts *o,
                          struct mt_profile **out)
{
    const struct mt_model *m = o->model;
    struct mt_profile_info info = {
        .seq_len = o->seq_len,
        .origin = "moetool",
        .n_layers = m->hp.n_layers,
        .hidden = m->hp.hidden,
    };
    int64_t rows, cols;

    *out = NULL;
    if (m->hp.n_layers < 1)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: no layers are known, so nothing can be measured",
                       m->path);
    MT_TRY(mt_model_identity(ctx, m, info.model));
    MT_TRY(run_tokenizer_hash(ctx, m, info.tokenizer));
    MT_TRY(mt_profile_create(ctx, &info, o->text->sources, o->text->n_sources, out));
    mt_assert(mt_profile_n_domains(*out) == o->text->windows.n_domains);
    for (int l = 0; l < m->hp.n_layers; l++) {
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            mt_stat_shape(m, l, (enum mt_stat)i, &rows, &cols);
            if (rows > 0 && run_wants(o, (enum mt_stat)i))
                mt_profile_declare(*out, l, (enum mt_stat)i, rows, cols);
        }
    }
    return MT_OK;
}

/* ---- memory ---- */

static int64_t run_widest(const struct mt_model *m)
{
    int64_t widest = m->hp.hidden;

    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        int64_t rows = f->moe ? f->k : 1, w = f->width > m->hp.hidden ? f->width : m->hp.hidden;
        widest = rows * w > widest ? rows * w : widest;
        widest = f->shared_width > widest ? f->shared_width : widest;
    }
    return widest;
}

/* Tokens of a window that go through an FFN together. */
static int64_t run_block(const struct mt_model *m, int64_t window)
{
    int64_t n = RUN_BLOCK_ELEMENTS / run_widest(m) / RUN_BLOCK_MIN * RUN_BLOCK_MIN;

    n = n < RUN_BLOCK_MIN ? RUN_BLOCK_MIN : n;
    return n < window ? n : window;
}

static uint64_t run_work_bytes(const struct profile_run *c)
{
    uint64_t rows = (uint64_t)c->batches.tokens_max, hidden = (uint64_t)c->hidden;
    uint64_t block = (uint64_t)c->block, elem = c->o->dev->elem_bytes, sums = 0, weights = 0, part;
    const struct mt_model *m = c->o->model;

    for (int l = 0; l < m->hp.n_layers; l++) {
        uint64_t n = profile_see_bytes(c->p, l), w = mt_runner_layer_bytes(c->r, l);
        sums = n > sums ? n : sums;
        weights = w > weights ? w : weights;
    }
    part = mt_runner_batch_bytes(c->r, (int64_t)rows) + rows * hidden * (elem + sizeof(float)) +
           2 * block * hidden * elem;
    return part + sums + weights + profile_see_stage_bytes(m, c->block);
}

static mt_status run_open(struct mt_ctx *ctx, struct profile_run *c)
{
    c->hidden = c->o->model->hp.hidden;
    MT_TRY(mt_batches_make(ctx, &c->o->text->windows, 1, &c->batches));
    c->block = run_block(c->o->model, c->batches.tokens_max);
    return mt_runner_open(ctx, c->o->model, c->o->dev, &c->r);
}

static void run_close(struct profile_run *c)
{
    struct mt_device *dev = c->o->dev;

    dev->ops->release(dev, c->x);
    dev->ops->release(dev, c->norm);
    dev->ops->release(dev, c->y);
    mt_free(c->host);
    mt_stream_free(c->stream);
    mt_runner_close(c->r);
    mt_batches_free(&c->batches);
}

mt_status mt_profile_bytes(struct mt_ctx *ctx, const struct mt_profile_opts *o,
                           struct mt_profile *p, uint64_t *bytes)
{
    struct profile_run c = {.o = o, .p = p};
    uint64_t before = mt_mem_used(ctx);
    mt_status st = run_open(ctx, &c);

    if (st == MT_OK)
        *bytes = mt_mem_used(ctx) - before + run_work_bytes(&c) +
                 mt_stream_least_bytes(&c.batches, c.hidden);
    run_close(&c);
    return st;
}

/* The stream takes of what is left; what the work needs is held out while it looks. */
static mt_status run_reserve(struct mt_ctx *ctx, struct profile_run *c)
{
    size_t window = (size_t)(c->batches.tokens_max * c->hidden);
    size_t block = (size_t)(c->block * c->hidden);
    const struct mt_device_ops *ops = c->o->dev->ops;
    uint64_t work = run_work_bytes(c);
    void *held = NULL;
    mt_status st;

    MT_TRY(mt_mem_fits(ctx, work + mt_stream_least_bytes(&c->batches, c->hidden), "this profile"));
    if (mt_mem_limit(ctx) != UINT64_MAX)
        MT_TRY(mt_alloc(ctx, 1, work, "this profile", &held));
    st = mt_stream_create(ctx, &c->batches, c->hidden, c->o->scratch_dir, &c->stream);
    mt_free(held);
    MT_TRY(st);
    MT_TRY(ops->alloc(ctx, c->o->dev, window, &c->x));
    MT_TRY(ops->alloc(ctx, c->o->dev, block, &c->norm));
    MT_TRY(ops->alloc(ctx, c->o->dev, block, &c->y));
    return mt_alloc(ctx, window, sizeof *c->host, "activations", &c->host);
}

/* ---- the walk ---- */

static mt_status run_store(struct mt_ctx *ctx, struct profile_run *c, size_t b)
{
    struct mt_device *dev = c->o->dev;

    MT_TRY(
        dev->ops->download(ctx, dev, c->host, c->x, (size_t)(c->batches.v[b].tokens * c->hidden)));
    return mt_stream_put(ctx, c->stream, b, c->host);
}

static mt_status run_embed(struct mt_ctx *ctx, struct profile_run *c)
{
    for (size_t b = 0; b < c->batches.n; b++) {
        const struct mt_batch *batch = &c->batches.v[b];
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_run_embed(ctx, c->r, batch->ids, batch->tokens, c->x));
        MT_TRY(run_store(ctx, c, b));
    }
    return MT_OK;
}

static mt_status run_block_step(struct mt_ctx *ctx, struct profile_run *c, struct mt_run_layer *rl,
                                int64_t row, int64_t m)
{
    mt_buf x = mt_dev_at(c->o->dev, c->x, (size_t)(row * c->hidden));

    MT_TRY(mt_run_ffn_norm(ctx, rl, x, m, c->norm));
    MT_TRY(profile_see_inputs(ctx, &c->see, c->norm, m));
    MT_TRY(mt_run_ffn(ctx, rl, c->norm, m, c->y, NULL));
    MT_TRY(profile_see_outputs(ctx, &c->see, c->y, m));
    if (c->see.all_experts)
        MT_TRY(mt_run_ffn_all_experts(ctx, rl, c->norm, m));
    return mt_run_add(ctx, c->r, x, c->y, m);
}

static mt_status run_window(struct mt_ctx *ctx, struct profile_run *c, struct mt_run_layer *rl,
                            size_t b)
{
    const struct mt_batch *batch = &c->batches.v[b];
    struct mt_device *dev = c->o->dev;

    MT_TRY(mt_check_cancel(ctx));
    MT_TRY(mt_stream_get(ctx, c->stream, b, c->host));
    MT_TRY(dev->ops->upload(ctx, dev, c->x, c->host, (size_t)(batch->tokens * c->hidden)));
    profile_see_begin(&c->see, c->o->text->windows.windows[b].domain);
    MT_TRY(mt_run_attn(ctx, rl, c->x, &batch->seqs, NULL));
    for (int64_t row = 0; row < batch->tokens; row += c->block)
        MT_TRY(run_block_step(ctx, c, rl, row,
                              batch->tokens - row < c->block ? batch->tokens - row : c->block));
    MT_TRY(profile_see_end(ctx, &c->see));
    mt_progress_add(ctx, (uint64_t)batch->tokens);
    return run_store(ctx, c, b);
}

static mt_status run_hand_on(struct mt_ctx *ctx, struct profile_run *c, int layer)
{
    for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
        enum mt_stat s = (enum mt_stat)i;
        for (int d = 0; mt_profile_has(c->p, layer, s) && d < mt_profile_n_domains(c->p); d++) {
            MT_TRY(profile_see_set(ctx, &c->see, c->p, s, d));
            if (c->put == NULL)
                continue;
            MT_TRY(c->put(ctx, c->arg, c->p, layer, s, d));
            mt_profile_drop(c->p, layer, s, d);
        }
    }
    return MT_OK;
}

static mt_status run_layer(struct mt_ctx *ctx, struct profile_run *c, int layer)
{
    const struct mt_tap tap = {&c->see, profile_see_rows};
    struct mt_run_layer *rl;
    mt_status st;

    MT_TRY(mt_run_layer_open(ctx, c->r, layer, &rl));
    st = profile_see_open(ctx, &c->see, c->o->model, c->o->dev, c->p, layer, rl, c->block);
    if (st == MT_OK) {
        mt_run_layer_tap(rl, &tap);
        for (size_t b = 0; b < c->batches.n && st == MT_OK; b++)
            st = run_window(ctx, c, rl, b);
    }
    mt_run_layer_close(rl);
    if (st == MT_OK)
        st = run_hand_on(ctx, c, layer);
    profile_see_close(&c->see);
    return st;
}

mt_status mt_profile_run(struct mt_ctx *ctx, const struct mt_profile_opts *o, struct mt_profile *p,
                         mt_profile_put_fn put, void *arg)
{
    struct profile_run c = {.o = o, .p = p, .put = put, .arg = arg};
    int n_layers = o->model->hp.n_layers;
    mt_status st;

    st = run_open(ctx, &c);
    if (st == MT_OK)
        st = run_reserve(ctx, &c);
    if (st == MT_OK) {
        mt_progress_begin(ctx, "profile", "tokens",
                          (uint64_t)n_layers * (uint64_t)o->text->windows.n_tokens);
        st = run_embed(ctx, &c);
        for (int l = 0; l < n_layers && st == MT_OK; l++)
            st = run_layer(ctx, &c, l);
        mt_progress_end(ctx);
    }
    run_close(&c);
    return st;
}
