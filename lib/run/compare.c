#include "lib/run/compare_impl.h"

#include "lib/base/clock.h"
#include "lib/base/pool.h"

/* Logits of one model on the host at a time: as many as a runner computes at a time. */
#define CMP_LOGITS_ELEMS (1u << 22)
#define CMP_LOGITS_ROWS_MIN 64

size_t cmp_n_predicted(const struct mt_dataset *d)
{
    size_t n = 0;

    for (size_t w = 0; w < d->n_windows; w++)
        n += (size_t)d->windows[w].n - 1;
    return n;
}

static mt_status cmp_check_same(struct mt_ctx *ctx, const struct mt_model *ref,
                                const struct mt_model *cand)
{
    const struct {
        const char *what;
        int64_t a, b;
    } same[] = {{"vocabulary", ref->hp.vocab, cand->hp.vocab},
                {"hidden size", ref->hp.hidden, cand->hp.hidden},
                {"layer count", ref->hp.n_layers, cand->hp.n_layers}};

    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (same[i].a != same[i].b)
            return mt_fail(ctx, MT_E_FORMAT,
                           "%s cannot be compared with the reference %s: its %s is %lld, not %lld",
                           cand->path != NULL ? cand->path : "candidate",
                           ref->path != NULL ? ref->path : "", same[i].what, (long long)same[i].b,
                           (long long)same[i].a);
    }
    return MT_OK;
}

static mt_status cmp_open_model(struct mt_ctx *ctx, struct cmp *c, const struct mt_model *m,
                                struct cmp_model *out)
{
    if (out != &c->ref)
        return mt_runner_open_with(ctx, m, c->ref.r, &out->r);
    MT_TRY(mt_runner_open(ctx, m, c->dev, &out->r));
    return mt_batches_make(ctx, c->data, mt_runner_batch_tokens(out->r), &c->batches);
}

static mt_status cmp_open_sums(struct mt_ctx *ctx, struct cmp *c, const struct mt_model *m,
                               struct cmp_sums *s)
{
    size_t n_layers = (size_t)m->hp.n_layers;

    MT_TRY(mt_alloc(ctx, cmp_n_predicted(c->data), sizeof *s->v, "per-token results", &s->v));
    MT_TRY(mt_alloc0(ctx, (size_t)c->data->n_domains, sizeof *s->domains, "results", &s->domains));
    if (c->n_cand == 0)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, n_layers, sizeof *s->layers, "results", &s->layers));
    s->n_layers = m->hp.n_layers;
    for (size_t l = 0; l < n_layers; l++) {
        if (!m->ffn[l].moe)
            continue;
        s->layers[l].n_experts = m->ffn[l].n_experts;
        MT_TRY(mt_alloc0(ctx, (size_t)m->ffn[l].n_experts, sizeof *s->layers[l].slots, "results",
                         &s->layers[l].slots));
    }
    return MT_OK;
}

static mt_status cmp_open_buffers(struct mt_ctx *ctx, struct cmp *c)
{
    size_t m = (size_t)c->batches.tokens_max, elems = m * (size_t)c->hidden;

    MT_TRY(c->dev->ops->alloc(ctx, c->dev, elems, &c->ref.x));
    for (int i = 0; i < c->n_cand; i++)
        MT_TRY(c->dev->ops->alloc(ctx, c->dev, elems, &c->cand[i].x));
    MT_TRY(c->dev->ops->alloc(ctx, c->dev, elems, &c->n));
    MT_TRY(c->dev->ops->alloc(ctx, c->dev, elems, &c->y));
    if (c->n_cand > 0)
        MT_TRY(c->dev->ops->alloc(ctx, c->dev, elems, &c->y_cand));
    MT_TRY(mt_alloc(ctx, elems, sizeof(float), "hidden states of a batch", &c->hx));
    MT_TRY(mt_alloc(ctx, elems, sizeof(float), "hidden states of a batch", &c->ht));
    if (c->n_cand > 0)
        MT_TRY(mt_alloc(ctx, elems, sizeof(float), "hidden states of a batch", &c->hy));
    MT_TRY(mt_alloc(ctx, m, sizeof(double), "results of a batch", &c->row_diff));
    MT_TRY(mt_alloc(ctx, m, sizeof(double), "results of a batch", &c->row_norm));
    MT_TRY(mt_alloc(ctx, m, sizeof(int32_t), "results of a batch", &c->target));
    return mt_alloc(ctx, m, sizeof(int32_t), "results of a batch", &c->domain);
}

int64_t cmp_head_rows(const struct cmp *c)
{
    int64_t rows = CMP_LOGITS_ELEMS / (int64_t)c->vocab;

    /* As many as the runner computes at a time. */
    if (rows < CMP_LOGITS_ROWS_MIN)
        rows = CMP_LOGITS_ROWS_MIN;
    return rows > c->batches.tokens_max ? c->batches.tokens_max : rows;
}

static mt_status cmp_open_logits(struct mt_ctx *ctx, struct cmp *c)
{
    int64_t rows = cmp_head_rows(c);
    size_t elems = (size_t)rows * c->vocab;

    c->head_rows = rows;
    MT_TRY(mt_alloc(ctx, (size_t)rows, sizeof *c->tokens, "results of a batch", &c->tokens));
    MT_TRY(mt_alloc(ctx, elems, sizeof(float), "logits", &c->logits_ref));
    return c->n_cand > 0 ? mt_alloc(ctx, elems, sizeof(float), "logits", &c->logits_cand) : MT_OK;
}

/* What comes later, and the streams still to come at the least, is held out while one stream
 * looks for memory. Experts make do with less than they would like: no more is held out than a
 * stream can spare. */
static mt_status cmp_open_stream(struct mt_ctx *ctx, struct cmp *c, struct cmp_model *m,
                                 int to_come)
{
    uint64_t limit = mt_mem_limit(ctx), used = mt_mem_used(ctx), held, free, own;
    void *reserved = NULL;

    if (limit != UINT64_MAX) {
        own = mt_stream_least_bytes(&c->batches, c->hidden);
        held = cmp_late_bytes(ctx, c, 0) + (uint64_t)to_come * own;
        free = used < limit ? limit - used : 0;
        free = free > 2 * own ? free - 2 * own : 0;
        MT_TRY(mt_alloc(ctx, 1, held < free ? held : free, "this work", &reserved));
    }
    mt_status st = mt_stream_create(ctx, &c->batches, c->hidden, c->scratch_dir, &m->stream);
    mt_free(reserved);
    return st;
}

static mt_status cmp_open_streams(struct mt_ctx *ctx, struct cmp *c)
{
    MT_TRY(mt_runner_reserve(ctx, c->ref.r, c->batches.tokens_max));
    for (int i = 0; i < c->n_cand; i++)
        MT_TRY(mt_runner_reserve(ctx, c->cand[i].r, c->batches.tokens_max));
    MT_TRY(cmp_open_stream(ctx, c, &c->ref, c->n_cand));
    for (int i = 0; i < c->n_cand; i++)
        MT_TRY(cmp_open_stream(ctx, c, &c->cand[i], c->n_cand - 1 - i));
    return MT_OK;
}

mt_status cmp_open_models(struct mt_ctx *ctx, struct cmp *c, const struct mt_model *ref,
                          const struct mt_model *const *cand, int n_cand, struct mt_device *dev,
                          const struct mt_dataset *data)
{
    *c = (struct cmp){.dev = dev, .data = data};
    c->hidden = ref->hp.hidden;
    c->vocab = (size_t)ref->hp.vocab;
    if (data->n_windows == 0)
        return mt_fail(ctx, MT_E_OPTION, "the data set has no tokens to predict");
    for (int i = 0; i < n_cand; i++)
        MT_TRY(cmp_check_same(ctx, ref, cand[i]));
    MT_TRY(mt_alloc0(ctx, (size_t)n_cand, sizeof *c->cand, "candidates", &c->cand));
    c->n_cand = n_cand;
    MT_TRY(cmp_open_model(ctx, c, ref, &c->ref));
    for (int i = 0; i < n_cand; i++)
        MT_TRY(mt_wrap(ctx, cmp_open_model(ctx, c, cand[i], &c->cand[i]), "candidate %d", i + 1));
    return MT_OK;
}

mt_status cmp_open(struct mt_ctx *ctx, struct cmp *c, const struct mt_model *ref,
                   const struct mt_model *const *cand, int n_cand, struct mt_device *dev,
                   const struct mt_dataset *data, const char *scratch_dir)
{
    size_t n_sums = n_cand > 0 ? (size_t)n_cand : 1;

    MT_TRY(cmp_open_models(ctx, c, ref, cand, n_cand, dev, data));
    c->scratch_dir = scratch_dir;
    if (data->window_len_max > ref->hp.max_pos && ref->hp.max_pos > 0)
        mt_log(ctx, MT_LOG_WARN, "windows of %d tokens are longer than the model's context of %lld",
               (int)data->window_len_max, (long long)ref->hp.max_pos);
    MT_TRY(mt_alloc0(ctx, n_sums, sizeof *c->sums, "results", &c->sums));
    for (size_t i = 0; i < n_sums; i++)
        MT_TRY(cmp_open_sums(ctx, c, n_cand > 0 ? cand[i] : ref, &c->sums[i]));
    MT_TRY(cmp_open_buffers(ctx, c));
    MT_TRY(cmp_open_logits(ctx, c));
    return cmp_open_streams(ctx, c);
}

static void cmp_close_model(struct cmp *c, struct cmp_model *m)
{
    if (m->l != NULL)
        mt_run_layer_close(m->l);
    c->dev->ops->release(c->dev, m->x);
    mt_stream_free(m->stream);
    mt_runner_close(m->r);
}

void cmp_close(struct cmp *c)
{
    size_t n_sums = c->n_cand > 0 ? (size_t)c->n_cand : 1;

    for (int i = 0; i < c->n_cand; i++)
        cmp_close_model(c, &c->cand[i]);
    cmp_close_model(c, &c->ref);
    for (size_t i = 0; c->sums != NULL && i < n_sums; i++) {
        struct cmp_sums *s = &c->sums[i];
        for (int l = 0; l < s->n_layers; l++)
            mt_free(s->layers[l].slots);
        mt_free(s->v);
        mt_free(s->domains);
        mt_free(s->layers);
    }
    c->dev->ops->release(c->dev, c->n);
    c->dev->ops->release(c->dev, c->y);
    c->dev->ops->release(c->dev, c->y_cand);
    mt_free(c->cand);
    mt_free(c->sums);
    mt_free(c->hx);
    mt_free(c->hy);
    mt_free(c->ht);
    mt_free(c->row_diff);
    mt_free(c->row_norm);
    mt_free(c->target);
    mt_free(c->tokens);
    mt_free(c->logits_ref);
    mt_free(c->logits_cand);
    mt_free(c->domain);
    mt_batches_free(&c->batches);
}

/* Progress counts tokens of the data set; layers and head share each token's worth equally. */
static void cmp_progress(struct mt_ctx *ctx, struct cmp *c, uint64_t work)
{
    uint64_t now;

    c->work_done += work;
    now = (uint64_t)((double)c->work_done / (double)c->work_total * (double)c->data->n_tokens);
    if (now > c->told) {
        mt_progress_add(ctx, now - c->told);
        c->told = now;
    }
}

static mt_status cmp_embed(struct mt_ctx *ctx, struct cmp *c, struct cmp_model *m)
{
    for (size_t i = 0; i < c->batches.n; i++) {
        const struct mt_batch *b = &c->batches.v[i];
        size_t elems = (size_t)b->tokens * (size_t)c->hidden;
        double t0 = mt_clock_seconds();
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_run_embed(ctx, m->r, b->ids, b->tokens, m->x));
        MT_TRY(c->dev->ops->download(ctx, c->dev, c->ht, m->x, elems));
        m->seconds += mt_clock_seconds() - t0;
        MT_TRY(mt_stream_put(ctx, m->stream, i, c->ht));
    }
    return MT_OK;
}

struct cmp_norm_job {
    const float *a, *b; /* rows of a - b and of b */
    int64_t d;
    double *diff, *norm;
};

static mt_status cmp_norm_row(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct cmp_norm_job *j = arg;
    double diff = 0, norm = 0;

    (void)ctx;
    for (int64_t f = i * j->d; f < (i + 1) * j->d; f++) {
        double a = (double)j->a[f], b = (double)j->b[f];
        diff += (a - b) * (a - b);
        norm += b * b;
    }
    j->diff[i] = diff;
    j->norm[i] = norm;
    return MT_OK;
}

/* Adds ||a - b||^2 and ||b||^2 over m rows, rows in order. */
static mt_status cmp_add_norms(struct mt_ctx *ctx, struct cmp *c, const float *a, const float *b,
                               int64_t m, double *diff, double *norm)
{
    struct cmp_norm_job job = {a, b, c->hidden, c->row_diff, c->row_norm};

    MT_TRY(mt_pool_run(ctx, m, cmp_norm_row, &job));
    for (int64_t i = 0; i < m; i++) {
        *diff += c->row_diff[i];
        *norm += c->row_norm[i];
    }
    return MT_OK;
}

static void cmp_add_routing(struct cmp_layer *s, const struct mt_routing *r)
{
    for (int64_t i = 0; i < r->m * r->k; i++)
        if (r->expert[i] >= 0)
            s->slots[r->expert[i]]++;
}

/* y = the model's block at the states in x. */
static mt_status cmp_block(struct mt_ctx *ctx, struct cmp *c, struct cmp_model *m, mt_buf x,
                           int64_t tokens, mt_buf y)
{
    MT_TRY(mt_run_ffn_norm(ctx, m->l, x, tokens, c->n));
    return mt_run_ffn(ctx, m->l, c->n, tokens, y, NULL);
}

/* The candidate's block on the reference's state, which its attention has passed already. */
static mt_status cmp_local(struct mt_ctx *ctx, struct cmp *c, int k, int layer, int64_t tokens)
{
    struct cmp_layer *s = &c->sums[k].layers[layer];

    MT_TRY(cmp_block(ctx, c, &c->cand[k], c->ref.x, tokens, c->y_cand));
    MT_TRY(
        c->dev->ops->download(ctx, c->dev, c->ht, c->y_cand, (size_t)tokens * (size_t)c->hidden));
    return cmp_add_norms(ctx, c, c->ht, c->hy, tokens, &s->ffn_diff, &s->ffn_norm);
}

/* The reference through the layer, stopping before the sum so that candidates see the input of
 * its block. */
static mt_status cmp_ref_layer(struct mt_ctx *ctx, struct cmp *c, size_t i, int layer)
{
    const struct mt_batch *b = &c->batches.v[i];
    size_t elems = (size_t)b->tokens * (size_t)c->hidden;
    double t0;

    MT_TRY(mt_stream_get(ctx, c->ref.stream, i, c->hx));
    t0 = mt_clock_seconds();
    MT_TRY(c->dev->ops->upload(ctx, c->dev, c->ref.x, c->hx, elems));
    MT_TRY(mt_run_attn(ctx, c->ref.l, c->ref.x, &b->seqs, NULL));
    MT_TRY(cmp_block(ctx, c, &c->ref, c->ref.x, b->tokens, c->y));
    if (c->n_cand > 0)
        MT_TRY(c->dev->ops->download(ctx, c->dev, c->hy, c->y, elems));
    c->ref.seconds += mt_clock_seconds() - t0;
    if (c->watch != NULL && mt_run_routing(c->ref.l)->m > 0)
        MT_TRY(c->watch->routing(ctx, c->watch->arg, layer, b, mt_run_routing(c->ref.l)));
    for (int k = 0; k < c->n_cand; k++)
        MT_TRY(mt_wrap(ctx, cmp_local(ctx, c, k, layer, b->tokens), "candidate %d", k + 1));
    t0 = mt_clock_seconds();
    MT_TRY(mt_run_add(ctx, c->ref.r, c->ref.x, c->y, b->tokens));
    MT_TRY(c->dev->ops->download(ctx, c->dev, c->hx, c->ref.x, elems));
    c->ref.seconds += mt_clock_seconds() - t0;
    return mt_stream_put(ctx, c->ref.stream, i, c->hx);
}

static mt_status cmp_cand_layer(struct mt_ctx *ctx, struct cmp *c, int k, size_t i, int layer)
{
    const struct mt_batch *b = &c->batches.v[i];
    size_t elems = (size_t)b->tokens * (size_t)c->hidden;
    struct cmp_layer *s = &c->sums[k].layers[layer];
    struct cmp_model *m = &c->cand[k];
    double t0;

    MT_TRY(mt_stream_get(ctx, m->stream, i, c->ht));
    t0 = mt_clock_seconds();
    MT_TRY(c->dev->ops->upload(ctx, c->dev, m->x, c->ht, elems));
    MT_TRY(mt_run_attn(ctx, m->l, m->x, &b->seqs, NULL));
    MT_TRY(cmp_block(ctx, c, m, m->x, b->tokens, c->y_cand));
    MT_TRY(mt_run_add(ctx, m->r, m->x, c->y_cand, b->tokens));
    MT_TRY(c->dev->ops->download(ctx, c->dev, c->ht, m->x, elems));
    m->seconds += mt_clock_seconds() - t0;
    if (s->slots != NULL)
        cmp_add_routing(s, mt_run_routing(m->l));
    MT_TRY(cmp_add_norms(ctx, c, c->ht, c->hx, b->tokens, &s->drift_diff, &s->drift_norm));
    return mt_stream_put(ctx, m->stream, i, c->ht);
}

static mt_status cmp_layer_batches(struct mt_ctx *ctx, struct cmp *c, int layer)
{
    for (size_t i = 0; i < c->batches.n; i++) {
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(cmp_ref_layer(ctx, c, i, layer));
        for (int k = 0; k < c->n_cand; k++)
            MT_TRY(mt_wrap(ctx, cmp_cand_layer(ctx, c, k, i, layer), "candidate %d", k + 1));
        cmp_progress(ctx, c, (uint64_t)c->batches.v[i].tokens);
    }
    return MT_OK;
}

static mt_status cmp_one_layer(struct mt_ctx *ctx, struct cmp *c, int layer)
{
    mt_status st = mt_run_layer_open(ctx, c->ref.r, layer, &c->ref.l);

    for (int k = 0; st == MT_OK && k < c->n_cand; k++)
        st = mt_wrap(ctx, mt_run_layer_open(ctx, c->cand[k].r, layer, &c->cand[k].l),
                     "candidate %d", k + 1);
    if (st == MT_OK)
        st = cmp_layer_batches(ctx, c, layer);
    for (int k = -1; k < c->n_cand; k++) {
        struct cmp_model *m = k < 0 ? &c->ref : &c->cand[k];
        if (m->l != NULL)
            mt_run_layer_close(m->l);
        m->l = NULL;
    }
    return st;
}

/* Which tokens predict, and whose they are. */
static void cmp_targets(struct cmp *c, const struct mt_batch *b)
{
    int64_t row = 0;

    for (size_t w = 0; w < b->n; w++) {
        int32_t n = b->seqs.len[w];
        for (int32_t t = 0; t < n; t++, row++) {
            c->target[row] = t + 1 < n ? b->ids[row + 1] : -1;
            c->domain[row] = c->data->windows[b->first + w].domain;
        }
    }
}

struct cmp_tokens_job {
    const float *ref, *cand; /* cand NULL: the reference alone */
    size_t vocab;
    const int32_t *target;
    struct mt_token_metrics *out;
};

static mt_status cmp_token(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct cmp_tokens_job *j = arg;
    const float *ref = j->ref + (size_t)i * j->vocab;

    (void)ctx;
    if (j->target[i] < 0)
        return MT_OK;
    if (j->cand != NULL) {
        mt_metrics_pair(ref, j->cand + (size_t)i * j->vocab, j->vocab, j->target[i], &j->out[i]);
    } else {
        double nll = mt_metrics_nll(ref, j->vocab, j->target[i]);
        j->out[i] = (struct mt_token_metrics){.kl = nll, .nll_ref = nll};
    }
    return MT_OK;
}

/* Results of rows [row, row + n) of the batch into a candidate's sums, in order. */
static mt_status cmp_tokens(struct mt_ctx *ctx, struct cmp *c, struct cmp_sums *s,
                            const float *cand, int64_t row, int64_t n)
{
    struct cmp_tokens_job job = {c->logits_ref, cand, c->vocab, c->target + row, c->tokens};

    MT_TRY(mt_pool_run(ctx, n, cmp_token, &job));
    for (int64_t i = 0; i < n; i++) {
        const struct mt_token_metrics *t = &c->tokens[i];
        struct cmp_domain *d = &s->domains[c->domain[row + i]];
        if (c->target[row + i] < 0)
            continue;
        s->v[s->n++] = (float)t->kl;
        s->v_sum += t->kl;
        s->top1 += t->top1;
        d->kl += t->kl;
        d->nll_ref += t->nll_ref;
        d->nll_cand += t->nll_cand;
        d->n++;
    }
    return MT_OK;
}

static mt_status cmp_head(struct mt_ctx *ctx, struct cmp *c, struct cmp_model *m, int64_t row,
                          int64_t n, float *logits)
{
    mt_buf x = mt_dev_at(c->dev, m->x, (size_t)row * (size_t)c->hidden);
    double t0 = mt_clock_seconds();

    MT_TRY(mt_run_head(ctx, m->r, x, n, logits));
    m->seconds += mt_clock_seconds() - t0;
    return MT_OK;
}

static mt_status cmp_load_state(struct mt_ctx *ctx, struct cmp *c, struct cmp_model *m, size_t i)
{
    size_t elems = (size_t)c->batches.v[i].tokens * (size_t)c->hidden;

    MT_TRY(mt_stream_get(ctx, m->stream, i, c->ht));
    return c->dev->ops->upload(ctx, c->dev, m->x, c->ht, elems);
}

static mt_status cmp_head_batch(struct mt_ctx *ctx, struct cmp *c, size_t i)
{
    const struct mt_batch *b = &c->batches.v[i];
    int64_t step = c->head_rows;

    MT_TRY(mt_check_cancel(ctx));
    MT_TRY(cmp_load_state(ctx, c, &c->ref, i));
    for (int k = 0; k < c->n_cand; k++)
        MT_TRY(cmp_load_state(ctx, c, &c->cand[k], i));
    cmp_targets(c, b);
    for (int64_t row = 0; row < b->tokens; row += step) {
        int64_t n = b->tokens - row < step ? b->tokens - row : step;
        MT_TRY(cmp_head(ctx, c, &c->ref, row, n, c->logits_ref));
        if (c->n_cand == 0)
            MT_TRY(cmp_tokens(ctx, c, &c->sums[0], NULL, row, n));
        for (int k = 0; k < c->n_cand; k++) {
            MT_TRY(cmp_head(ctx, c, &c->cand[k], row, n, c->logits_cand));
            MT_TRY(cmp_tokens(ctx, c, &c->sums[k], c->logits_cand, row, n));
        }
    }
    cmp_progress(ctx, c, (uint64_t)b->tokens);
    return MT_OK;
}

static mt_status cmp_heads(struct mt_ctx *ctx, struct cmp *c)
{
    for (size_t i = 0; i < c->batches.n; i++)
        MT_TRY(cmp_head_batch(ctx, c, i));
    return MT_OK;
}

static mt_status cmp_forward(struct mt_ctx *ctx, struct cmp *c)
{
    MT_TRY(cmp_embed(ctx, c, &c->ref));
    for (int k = 0; k < c->n_cand; k++)
        MT_TRY(mt_wrap(ctx, cmp_embed(ctx, c, &c->cand[k]), "candidate %d", k + 1));
    for (int l = 0; l < mt_runner_model(c->ref.r)->hp.n_layers; l++)
        MT_TRY(mt_wrap(ctx, cmp_one_layer(ctx, c, l), "layer %d", l));
    return cmp_heads(ctx, c);
}

mt_status cmp_run(struct mt_ctx *ctx, struct cmp *c)
{
    mt_status st;

    c->work_total =
        (uint64_t)c->data->n_tokens * (uint64_t)(mt_runner_model(c->ref.r)->hp.n_layers + 1);
    mt_progress_begin(ctx, "measuring", "tokens", c->data->n_tokens);
    st = cmp_forward(ctx, c);
    mt_progress_end(ctx);
    return st;
}
