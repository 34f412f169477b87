#include "lib/base/mem.h"
#include "lib/flow/walk_state.h"

#include <string.h>

/* Elements of one observed activation matrix: 64 MiB of floats. Wide layers are shown in blocks of
 * fewer tokens. Shapes only, so that sums come out the same whatever the memory limit. */
#define STREAM_BLOCK_ELEMENTS ((int64_t)16 << 20)
#define STREAM_BLOCK_MIN 256

static int64_t stream_dense_width_max(const struct mt_model *m)
{
    int64_t widest = 0;

    for (int l = 0; l < m->hp.n_layers; l++) {
        if (!m->ffn[l].moe && m->ffn[l].width > widest)
            widest = m->ffn[l].width;
    }
    return widest;
}

static int64_t stream_block(const struct mt_model *m)
{
    int64_t widest = stream_dense_width_max(m), n;

    if (widest < m->hp.hidden)
        widest = m->hp.hidden;
    n = STREAM_BLOCK_ELEMENTS / (widest > 0 ? widest : 1) / STREAM_BLOCK_MIN * STREAM_BLOCK_MIN;
    if (n < STREAM_BLOCK_MIN)
        return STREAM_BLOCK_MIN;
    return n < MT_OBSERVE_TOKENS_MAX ? n : MT_OBSERVE_TOKENS_MAX;
}

static void stream_gather_wants(struct mt_walk *w)
{
    const unsigned data = MT_NEED_INPUTS | MT_NEED_HIDDEN | MT_NEED_OUTPUT;

    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        if (p->rounds == 0)
            continue;
        struct walk_side *side = (p->needs & MT_NEED_STUDENT) != 0 ? &w->s.student : &w->s.teacher;
        side->want |= p->needs & data;
        if (p->rounds > side->rounds)
            side->rounds = p->rounds;
        if ((p->needs & MT_NEED_DRIFT) != 0 && side == &w->s.student && w->o->hidden == NULL) {
            w->s.drift = true;
            side->want |= MT_NEED_OUTPUT;
        }
    }
    /* The teacher walks along to be compared with, though nobody looks at it. */
    if (w->s.drift && w->s.teacher.rounds == 0)
        w->s.teacher.rounds = 1;
}

/* Most bytes of one layer's records; what a plan that cannot be read back holds evaluated. */
static uint64_t stream_layer_bytes_max(const struct mt_walk *w)
{
    uint64_t most = 0;

    for (int u = 1; u < w->n_units; u++) {
        if (w->unit_bytes[u] > most)
            most = w->unit_bytes[u];
    }
    return most;
}

/* Counted bytes of the forward pass: scratch of the runners, who share it, weights that cannot be
 * borrowed, our own buffers on the device and on the host, and the embeddings of a batch. */
static uint64_t stream_work_bytes(const struct mt_walk *w)
{
    const struct walk_streams *s = &w->s;
    uint64_t rows = (uint64_t)s->batches.tokens_max, hidden = (uint64_t)s->hidden;
    uint64_t block = rows < (uint64_t)s->block ? rows : (uint64_t)s->block;
    uint64_t per = s->dev->elem_bytes + sizeof(float), weights = 0, edited, scratch;

    scratch = mt_runner_batch_bytes(s->source, (int64_t)rows);
    for (int l = 0; l < w->n_layers; l++) {
        uint64_t n = mt_runner_layer_bytes(s->source, l);
        weights = n > weights ? n : weights;
    }
    if (s->edited != NULL) {
        edited = mt_runner_batch_bytes(s->edited, (int64_t)rows);
        scratch = edited > scratch ? edited : scratch;
        if (w->o->format == NULL || w->o->format->reread == NULL) {
            edited = stream_layer_bytes_max(w);
            weights = edited > weights ? edited : weights;
        }
    }
    return scratch + weights + rows * hidden * (per + sizeof(float)) + 2 * block * hidden * per +
           block * (uint64_t)s->width_max * per +
           (s->drift ? (rows + block) * hidden * sizeof(float) : 0);
}

/* Inputs of blocks come from a file: no streams, and blocks run alone. */
static mt_status stream_plan_hidden(struct mt_ctx *ctx, struct mt_walk *w, uint64_t *bytes,
                                    uint64_t *stream_bytes)
{
    const struct mt_model *src = w->o->source;
    struct walk_streams *s = &w->s;

    MT_TRY(mt_runner_open_blocks(ctx, src, s->dev, &s->source));
    s->block = stream_block(src);
    s->batches.tokens_max = s->block;
    if (((s->teacher.want | s->student.want) & MT_NEED_HIDDEN) != 0)
        s->width_max = stream_dense_width_max(src);
    *bytes = stream_work_bytes(w);
    *stream_bytes = 0;
    return MT_OK;
}

mt_status walk_streams_plan(struct mt_ctx *ctx, struct mt_walk *w, uint64_t *bytes,
                            uint64_t *stream_bytes)
{
    const struct mt_model *src = w->o->source;
    struct walk_streams *s = &w->s;
    uint64_t n_streams;
    int64_t tokens;

    s->dev = w->o->dev;
    s->hidden = src->hp.hidden;
    s->n_tokens = (int64_t)w->o->data->n_tokens;
    stream_gather_wants(w);
    if (w->o->hidden != NULL)
        return stream_plan_hidden(ctx, w, bytes, stream_bytes);
    MT_TRY(mt_runner_open(ctx, src, s->dev, &s->source));
    if (s->student.rounds > 0)
        MT_TRY(mt_runner_open_with(ctx, w->plan, s->source, &s->edited));
    s->block = stream_block(src);
    tokens = mt_runner_batch_tokens(s->source);
    if (tokens < s->block)
        s->block = tokens;
    MT_TRY(mt_batches_make(ctx, w->o->data, s->block, &s->batches));
    if (((s->teacher.want | s->student.want) & MT_NEED_HIDDEN) != 0)
        s->width_max = stream_dense_width_max(src);
    *bytes = stream_work_bytes(w);
    n_streams = (s->teacher.rounds > 0 ? 1u : 0u) + (s->student.rounds > 0 ? 1u : 0u);
    *stream_bytes = n_streams * mt_stream_least_bytes(&s->batches, s->hidden);
    return MT_OK;
}

static mt_status stream_alloc(struct mt_ctx *ctx, struct walk_streams *s, size_t n, mt_buf *dev,
                              float **host)
{
    MT_TRY(s->dev->ops->alloc(ctx, s->dev, n, dev));
    return mt_alloc(ctx, n, sizeof(float), "activations", host);
}

static mt_status stream_embed(struct mt_ctx *ctx, struct mt_walk *w, struct mt_runner *r,
                              struct mt_stream *to)
{
    struct walk_streams *s = &w->s;

    for (size_t b = 0; b < s->batches.n; b++) {
        const struct mt_batch *batch = &s->batches.v[b];
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_run_embed(ctx, r, batch->ids, batch->tokens, s->x));
        MT_TRY(s->dev->ops->download(ctx, s->dev, s->host_x, s->x,
                                     (size_t)(batch->tokens * s->hidden)));
        MT_TRY(mt_stream_put(ctx, to, b, s->host_x));
    }
    return MT_OK;
}

/* Streams keep what fits of the memory that is left. What the work itself will need, and the next
 * stream at the least, is held out while one looks, so that it is there when its turn comes. */
static mt_status stream_create(struct mt_ctx *ctx, struct mt_walk *w, const char *scratch_dir,
                               uint64_t others, struct mt_stream **out)
{
    void *reserved = NULL;

    if (mt_mem_limit(ctx) != UINT64_MAX)
        MT_TRY(mt_alloc(ctx, 1, w->work_bytes + others, "this work", &reserved));
    mt_status st = mt_stream_create(ctx, &w->s.batches, w->s.hidden, scratch_dir, out);
    mt_free(reserved);
    return st;
}

mt_status walk_streams_begin(struct mt_ctx *ctx, struct mt_walk *w, const char *scratch_dir)
{
    struct walk_streams *s = &w->s;
    size_t rows = (size_t)s->batches.tokens_max, hidden = (size_t)s->hidden;
    size_t block = rows < (size_t)s->block ? rows : (size_t)s->block;

    if (s->teacher.rounds > 0 && w->o->hidden == NULL)
        MT_TRY(
            stream_create(ctx, w, scratch_dir,
                          s->student.rounds > 0 ? mt_stream_least_bytes(&s->batches, s->hidden) : 0,
                          &s->teacher.x));
    if (s->student.rounds > 0 && w->o->hidden == NULL)
        MT_TRY(stream_create(ctx, w, scratch_dir, 0, &s->student.x));
    MT_TRY(stream_alloc(ctx, s, rows * hidden, &s->x, &s->host_x));
    MT_TRY(stream_alloc(ctx, s, block * hidden, &s->norm, &s->host_norm));
    MT_TRY(stream_alloc(ctx, s, block * hidden, &s->y, &s->host_y));
    if (s->width_max > 0)
        MT_TRY(stream_alloc(ctx, s, block * (size_t)s->width_max, &s->h, &s->host_h));
    if (s->drift) {
        MT_TRY(mt_alloc(ctx, rows, hidden * sizeof(float), "activations", &s->host_dense));
        MT_TRY(mt_alloc(ctx, block, hidden * sizeof(float), "activations", &s->host_drift));
    }
    walk_keep_open(ctx, &s->teacher.keep, w->work_bytes);
    walk_keep_open(ctx, &s->student.keep, w->work_bytes);
    if (s->teacher.x != NULL)
        MT_TRY(stream_embed(ctx, w, s->source, s->teacher.x));
    if (s->student.x != NULL)
        MT_TRY(stream_embed(ctx, w, s->edited, s->student.x));
    return MT_OK;
}

void walk_streams_free(struct mt_walk *w)
{
    struct walk_streams *s = &w->s;

    if (s->dev != NULL) {
        s->dev->ops->release(s->dev, s->x);
        s->dev->ops->release(s->dev, s->norm);
        s->dev->ops->release(s->dev, s->y);
        s->dev->ops->release(s->dev, s->h);
    }
    mt_free(s->host_x);
    mt_free(s->host_norm);
    mt_free(s->host_y);
    mt_free(s->host_h);
    mt_free(s->host_dense);
    mt_free(s->host_drift);
    walk_keep_drop(&s->teacher.keep);
    walk_keep_drop(&s->student.keep);
    mt_stream_free(s->teacher.x);
    mt_stream_free(s->student.x);
    mt_runner_close(s->edited);
    mt_runner_close(s->source);
    mt_batches_free(&s->batches);
    memset(s, 0, sizeof *s);
}

/* True when the plan's layer computes its attention from the source's own records, so that the
 * student's attention can be computed before passes edit the layer. */
static bool stream_attention_kept(const struct mt_walk *w, int layer)
{
    for (size_t i = w->unit_first[layer + 1]; i < w->unit_first[layer + 2]; i++) {
        const struct mt_tensor *t = w->records[i];
        if (t->role.kind < MT_ROLE_ATTN_NORM || t->role.kind > MT_ROLE_K_NORM)
            continue;
        if (t->src.kind != MT_SRC_ALIAS || t->src.alias->dtype != t->dtype ||
            t->src.alias != mt_model_find(w->o->source, t->role))
            return false;
    }
    return true;
}

static bool stream_asks(const struct walk_pass *p, int layer)
{
    return p->rounds > 0 && (p->pass->asks == NULL || p->pass->asks(p->state, layer));
}

bool walk_streams_asked(const struct mt_walk *w, int layer)
{
    for (int i = 0; i < w->passes->n; i++)
        if (stream_asks(&w->passes->v[i], layer))
            return true;
    return false;
}

/* Hands one block to every pass that observes this side in this round and asks for the layer. */
static mt_status stream_show(struct mt_ctx *ctx, struct mt_walk *w, bool student,
                             struct mt_observation *all)
{
    for (int i = 0; i < w->passes->n; i++) {
        const struct walk_pass *p = &w->passes->v[i];
        struct mt_observation ob = *all;
        if (all->round >= p->rounds || ((p->needs & MT_NEED_STUDENT) != 0) != student ||
            !stream_asks(p, all->layer))
            continue;
        if ((p->needs & MT_NEED_INPUTS) == 0)
            ob.x = NULL;
        if ((p->needs & MT_NEED_HIDDEN) == 0)
            ob.h = NULL;
        if ((p->needs & MT_NEED_OUTPUT) == 0)
            ob.y = NULL;
        if ((p->needs & MT_NEED_DRIFT) == 0)
            ob.drift = NULL;
        MT_TRY(mt_wrap(ctx, p->pass->observe(ctx, p->state, &ob), "%s: layer %d", p->pass->name,
                       all->layer));
    }
    return MT_OK;
}

struct stream_step {
    struct mt_run_layer *rl;
    int layer, round;
    bool student, show, add; /* add: x += ffn(norm(x)) */
    unsigned want;
    bool again; /* later rounds want the same once more */
};

static struct walk_kept_shape stream_shape(const struct mt_walk *w, const struct stream_step *k)
{
    const struct mt_ffn *f = &w->o->source->ffn[k->layer];
    int64_t hidden = w->s.hidden;

    return (struct walk_kept_shape){
        .x = (k->want & MT_NEED_INPUTS) != 0 ? hidden : 0,
        .h = (k->want & MT_NEED_HIDDEN) != 0 && !f->moe ? f->width : 0,
        .y = (k->want & MT_NEED_OUTPUT) != 0 ? hidden : 0,
        .drift = k->student && w->s.drift ? hidden : 0,
    };
}

/* Rows from `row` on of what is kept, or our own buffers. */
static struct walk_kept stream_place(const struct mt_walk *w, const struct stream_step *k,
                                     const struct walk_kept *kept, int64_t row)
{
    const struct walk_streams *s = &w->s;
    const struct walk_kept_shape n = stream_shape(w, k);

    if (kept == NULL)
        return (struct walk_kept){s->host_norm, s->host_h, s->host_y, s->host_drift};
    return (struct walk_kept){kept->x + row * n.x, kept->h + row * n.h, kept->y + row * n.y,
                              kept->drift + row * n.drift};
}

/* Shows the block that lies at `at`. */
static mt_status stream_show_at(struct mt_ctx *ctx, struct mt_walk *w, const struct stream_step *k,
                                const struct walk_kept *at, struct mt_observation *ob)
{
    const struct walk_kept_shape n = stream_shape(w, k);

    ob->x = n.x > 0 ? at->x : NULL;
    ob->h = n.h > 0 ? at->h : NULL;
    ob->y = n.y > 0 ? at->y : NULL;
    ob->drift = n.drift > 0 ? at->drift : NULL;
    return stream_show(ctx, w, k->student, ob);
}

/* The block at m inputs in s->norm, and what observers asked for, which goes to `at`; the drift is
 * there already, without the output's part. */
static mt_status stream_block_show(struct mt_ctx *ctx, struct mt_walk *w,
                                   const struct stream_step *k, const struct walk_kept *at,
                                   struct mt_observation *ob)
{
    struct walk_streams *s = &w->s;
    const struct mt_device_ops *ops = s->dev->ops;
    const struct walk_kept_shape shape = stream_shape(w, k);
    bool hidden = k->show && shape.h > 0;
    size_t n = (size_t)(ob->m * s->hidden);

    if (k->add || hidden || (k->show && shape.y > 0))
        MT_TRY(mt_run_ffn(ctx, k->rl, s->norm, ob->m, s->y, hidden ? s->h : NULL));
    if (!k->show)
        return MT_OK;
    if (shape.x > 0)
        MT_TRY(ops->download(ctx, s->dev, at->x, s->norm, n));
    if (hidden)
        MT_TRY(ops->download(ctx, s->dev, at->h, s->h, (size_t)(ob->m * shape.h)));
    if (shape.y > 0)
        MT_TRY(ops->download(ctx, s->dev, at->y, s->y, n));
    if (shape.drift > 0) {
        float scale = (float)(1 / w->o->source->hp.residual_scale);
        for (size_t i = 0; i < n; i++)
            at->drift[i] = at->drift[i] * scale - at->y[i];
    }
    return stream_show_at(ctx, w, k, at, ob);
}

/* Rows [row, row + m) of the batch in s->x through norm and FFN of the source's layer. */
static mt_status stream_block_step(struct mt_ctx *ctx, struct mt_walk *w,
                                   const struct stream_step *k, const struct walk_kept *kept,
                                   struct mt_observation *ob, int64_t row)
{
    struct walk_streams *s = &w->s;
    mt_buf x = mt_dev_at(s->dev, s->x, (size_t)(row * s->hidden));
    const struct walk_kept at = stream_place(w, k, kept, row);

    if (k->student && s->drift) {
        const float *dense = s->host_dense + row * s->hidden;
        size_t n = (size_t)(ob->m * s->hidden);
        MT_TRY(s->dev->ops->download(ctx, s->dev, at.drift, x, n));
        for (size_t i = 0; i < n; i++)
            at.drift[i] = dense[i] - at.drift[i];
    }
    MT_TRY(mt_run_ffn_norm(ctx, k->rl, x, ob->m, s->norm));
    MT_TRY(stream_block_show(ctx, w, k, &at, ob));
    return k->add ? mt_run_add(ctx, s->source, x, s->y, ob->m) : MT_OK;
}

static mt_status stream_load(struct mt_ctx *ctx, struct walk_streams *s, struct mt_stream *from,
                             size_t b)
{
    MT_TRY(mt_check_cancel(ctx));
    MT_TRY(mt_stream_get(ctx, from, b, s->host_x));
    return s->dev->ops->upload(ctx, s->dev, s->x, s->host_x,
                               (size_t)(s->batches.v[b].tokens * s->hidden));
}

static mt_status stream_store(struct mt_ctx *ctx, struct walk_streams *s, struct mt_stream *to,
                              size_t b)
{
    MT_TRY(s->dev->ops->download(ctx, s->dev, s->host_x, s->x,
                                 (size_t)(s->batches.v[b].tokens * s->hidden)));
    return mt_stream_put(ctx, to, b, s->host_x);
}

/* A batch that is kept is shown as it was; nothing is computed. */
static mt_status stream_batch_blocks(struct mt_ctx *ctx, struct mt_walk *w,
                                     const struct stream_step *k, const struct walk_kept *kept,
                                     const struct mt_batch *batch, bool compute)
{
    struct walk_streams *s = &w->s;

    for (int64_t row = 0; row < batch->tokens && (k->show || k->add); row += s->block) {
        struct mt_observation ob = {.layer = k->layer,
                                    .round = k->round,
                                    .m = batch->tokens - row,
                                    .token0 = batch->token0 + row,
                                    .n_tokens = s->n_tokens};
        ob.m = ob.m < s->block ? ob.m : s->block;
        if (compute) {
            MT_TRY(stream_block_step(ctx, w, k, kept, &ob, row));
            continue;
        }
        const struct walk_kept at = stream_place(w, k, kept, row);
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(stream_show_at(ctx, w, k, &at, &ob));
    }
    mt_progress_add(ctx, (uint64_t)batch->tokens);
    return MT_OK;
}

/* One batch of one side in one round. `attend`: the stream stands before attention; `store`: what
 * comes out replaces it. */
static mt_status stream_batch_step(struct mt_ctx *ctx, struct mt_walk *w, struct walk_side *side,
                                   const struct stream_step *k, size_t b, bool attend, bool store)
{
    struct walk_streams *s = &w->s;
    const struct mt_batch *batch = &s->batches.v[b];
    const struct walk_kept *kept = k->round > 0 ? walk_keep_find(&side->keep, b) : NULL;

    if (kept != NULL && !k->add)
        return stream_batch_blocks(ctx, w, k, kept, batch, false);
    kept = NULL;
    if (k->round == 0 && k->again) {
        const struct walk_kept_shape shape = stream_shape(w, k);
        MT_TRY(walk_keep_add(ctx, &side->keep, b, batch->tokens, &shape, &kept));
    }
    MT_TRY(stream_load(ctx, s, side->x, b));
    if (k->student && s->drift)
        MT_TRY(mt_stream_get(ctx, s->teacher.x, b, s->host_dense));
    if (attend)
        MT_TRY(mt_run_attn(ctx, k->rl, s->x, &batch->seqs, NULL));
    MT_TRY(stream_batch_blocks(ctx, w, k, kept, batch, true));
    return store ? stream_store(ctx, s, side->x, b) : MT_OK;
}

/* The teacher: attention in the first round, its FFN's output added in the last. */
static mt_status stream_teacher(struct mt_ctx *ctx, struct mt_walk *w, struct mt_run_layer *rl,
                                int layer, bool quiet)
{
    struct walk_side *side = &w->s.teacher;
    int rounds = quiet ? 1 : side->rounds;
    bool onward = layer + 1 < w->n_layers || w->s.drift;

    for (int r = 0; r < rounds; r++) {
        bool last = r + 1 == rounds;
        struct stream_step k = {rl, layer, r, false, !quiet, last && onward, side->want, false};
        k.again = !quiet && (onward ? rounds > 2 : rounds > 1);
        for (size_t b = 0; b < w->s.batches.n; b++)
            MT_TRY(stream_batch_step(ctx, w, side, &k, b, r == 0, last ? onward : r == 0));
    }
    return MT_OK;
}

/* The student: what observers see lies after attention, which is computed once when the plan keeps
 * it, and otherwise with the source's weights, for observers only. */
static mt_status stream_student(struct mt_ctx *ctx, struct mt_walk *w, struct mt_run_layer *rl,
                                int layer)
{
    struct walk_side *side = &w->s.student;
    bool kept = stream_attention_kept(w, layer);

    for (int r = 0; r < side->rounds; r++) {
        struct stream_step k = {rl, layer, r, true, true, false, side->want, side->rounds > 1};
        for (size_t b = 0; b < w->s.batches.n; b++)
            MT_TRY(stream_batch_step(ctx, w, side, &k, b, r == 0 || !kept, kept && r == 0));
    }
    w->s.student_at_ffn = kept;
    return MT_OK;
}

/* One round of a layer whose inputs come from a file; both kinds of observers see the same. */
static mt_status stream_hidden_round(struct mt_ctx *ctx, struct mt_walk *w, struct stream_step *k)
{
    const struct mt_hidden *h = w->o->hidden;
    struct walk_streams *s = &w->s;
    int64_t n = h->n_fit[k->layer], m;

    for (int64_t row = 0; row < n; row += m) {
        m = n - row < s->block ? n - row : s->block;
        struct mt_observation ob = {.layer = k->layer, .round = k->round, .m = m};
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_hidden_rows(ctx, h, k->layer, row, m, s->host_norm));
        MT_TRY(s->dev->ops->upload(ctx, s->dev, s->norm, s->host_norm, (size_t)(m * s->hidden)));
        ob.token0 = row;
        ob.n_tokens = n;
        const struct walk_kept at = stream_place(w, k, NULL, 0);
        for (int student = 0; student < 2; student++) {
            const struct walk_side *side = student ? &s->student : &s->teacher;
            k->student = student != 0;
            k->want = side->want;
            if (k->round < side->rounds)
                MT_TRY(stream_block_show(ctx, w, k, &at, &ob));
        }
        mt_progress_add(ctx, (uint64_t)m);
    }
    return MT_OK;
}

static mt_status stream_observe_hidden(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    int rounds =
        w->s.teacher.rounds > w->s.student.rounds ? w->s.teacher.rounds : w->s.student.rounds;
    struct mt_run_layer *rl;
    mt_status st = MT_OK;

    MT_TRY(mt_run_layer_open(ctx, w->s.source, layer, &rl));
    for (int r = 0; r < rounds && st == MT_OK; r++) {
        struct stream_step k = {rl, layer, r, false, true, false, 0, false};
        st = stream_hidden_round(ctx, w, &k);
    }
    mt_run_layer_close(rl);
    return st;
}

mt_status walk_streams_observe(struct mt_ctx *ctx, struct mt_walk *w, int layer, bool quiet)
{
    struct walk_streams *s = &w->s;
    struct mt_run_layer *rl;
    bool teacher = s->teacher.rounds > 0 && (!quiet || layer + 1 < w->n_layers);
    bool student = s->student.rounds > 0 && !quiet;
    mt_status st = MT_OK;

    s->student_at_ffn = false;
    if (w->o->hidden != NULL)
        return quiet ? MT_OK : stream_observe_hidden(ctx, w, layer);
    if (!teacher && !student)
        return MT_OK;
    MT_TRY(mt_run_layer_open(ctx, s->source, layer, &rl));
    if (teacher)
        st = stream_teacher(ctx, w, rl, layer, quiet);
    if (st == MT_OK && student)
        st = stream_student(ctx, w, rl, layer);
    mt_run_layer_close(rl);
    walk_keep_drop(&s->teacher.keep);
    walk_keep_drop(&s->student.keep);
    return st;
}

bool walk_streams_want_layer(const struct mt_walk *w, int layer)
{
    return w->o->hidden == NULL && w->s.student.rounds > 0 && layer + 1 < w->n_layers;
}

/* The student's batch through the plan's layer. */
static mt_status stream_advance_batch(struct mt_ctx *ctx, struct mt_walk *w,
                                      struct mt_run_layer *rl, size_t b)
{
    struct walk_streams *s = &w->s;
    const struct mt_batch *batch = &s->batches.v[b];

    MT_TRY(stream_load(ctx, s, s->student.x, b));
    if (!s->student_at_ffn)
        MT_TRY(mt_run_attn(ctx, rl, s->x, &batch->seqs, NULL));
    for (int64_t row = 0; row < batch->tokens; row += s->block) {
        int64_t m = batch->tokens - row < s->block ? batch->tokens - row : s->block;
        mt_buf x = mt_dev_at(s->dev, s->x, (size_t)(row * s->hidden));
        MT_TRY(mt_run_ffn_norm(ctx, rl, x, m, s->norm));
        MT_TRY(mt_run_ffn(ctx, rl, s->norm, m, s->y, NULL));
        MT_TRY(mt_run_add(ctx, s->edited, x, s->y, m));
    }
    mt_progress_add(ctx, (uint64_t)batch->tokens);
    return stream_store(ctx, s, s->student.x, b);
}

mt_status walk_streams_advance(struct mt_ctx *ctx, struct mt_walk *w, int layer)
{
    struct mt_run_layer *rl;
    mt_status st = MT_OK;

    if (!walk_streams_want_layer(w, layer))
        return MT_OK;
    if (w->s.student_at_ffn && w->o->format == NULL && !stream_attention_kept(w, layer))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "layer %d: a pass edited the attention after activations were shown", layer);
    MT_TRY(mt_run_layer_open(ctx, w->s.edited, layer, &rl));
    for (size_t b = 0; b < w->s.batches.n && st == MT_OK; b++)
        st = stream_advance_batch(ctx, w, rl, b);
    mt_run_layer_close(rl);
    return st;
}
