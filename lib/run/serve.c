#include "lib/run/serve.h"

#include "lib/base/mem.h"

#include <string.h>

void mt_serve_free(struct mt_serve_result *r)
{
    mt_free(r->request);
    mt_free(r->from);
    *r = (struct mt_serve_result){0};
}

/* A token that waits. */
struct serve_slot {
    size_t token, seq;
    size_t since; /* batches that had left when it came */
    bool taken;
};

struct serve {
    const struct mt_trace *t;
    const struct mt_serve_opts *o;
    struct mt_serve_result *out;
    struct serve_slot *wait; /* [window], oldest first */
    int64_t n_wait;
    int64_t *queue; /* [n_experts + 1] tokens that wait for each; the last: for none */
    bool *asked;    /* [n_experts] by the batch, in the layer at hand */
    size_t next_token, next_seq;
    size_t *batch;           /* [batch] tokens */
    struct serve_slot *next; /* [batch] served tokens that have a successor */
    int64_t n_batch;
    uint64_t unique, unique_key;
};

static int serve_key(const struct serve *s, size_t token)
{
    uint16_t e = *mt_trace_at(s->t, token, s->o->by_layer);

    return e == MT_TRACE_NONE ? s->t->n_experts : e;
}

/* ---- who waits ---- */

static void serve_push(struct serve *s, size_t token, size_t seq)
{
    s->wait[s->n_wait++] =
        (struct serve_slot){.token = token, .seq = seq, .since = s->out->n_batches};
    s->queue[serve_key(s, token)]++;
}

static void serve_arrive(struct serve *s)
{
    const size_t *first = s->t->first, all = first[s->t->n_seqs];

    while (s->n_wait < s->o->window) {
        if (s->o->tokens == MT_SERVE_QUEUED) {
            if (s->next_token == all)
                return;
            serve_push(s, s->next_token++, 0);
            continue;
        }
        while (s->next_seq < s->t->n_seqs && first[s->next_seq] == first[s->next_seq + 1])
            s->next_seq++;
        if (s->next_seq == s->t->n_seqs)
            return;
        serve_push(s, first[s->next_seq], s->next_seq);
        s->next_seq++;
    }
}

/* Takes the served tokens out; what follows a decoded one waits behind all others. */
static void serve_leave(struct serve *s)
{
    int64_t n = 0, n_next = 0;

    for (int64_t i = 0; i < s->n_wait; i++) {
        struct serve_slot w = s->wait[i];
        if (!w.taken) {
            s->wait[n++] = w;
            continue;
        }
        size_t waited = s->out->n_batches - 1 - w.since;
        if (waited > s->out->wait_max)
            s->out->wait_max = waited;
        if (s->o->tokens == MT_SERVE_DECODE && w.token + 1 < s->t->first[w.seq + 1])
            s->next[n_next++] = w;
    }
    s->n_wait = n;
    for (int64_t i = 0; i < n_next; i++)
        serve_push(s, s->next[i].token + 1, s->next[i].seq);
}

/* ---- what is taken ---- */

static void serve_take(struct serve *s, int64_t i)
{
    s->wait[i].taken = true;
    s->queue[serve_key(s, s->wait[i].token)]--;
    s->batch[s->n_batch++] = s->wait[i].token;
}

static void serve_choose(struct serve *s)
{
    int64_t budget = s->n_wait < s->o->batch ? s->n_wait : s->o->batch;

    s->n_batch = 0;
    if (s->o->order == MT_SERVE_FIFO) {
        for (int64_t i = 0; i < budget; i++)
            serve_take(s, i);
        return;
    }
    while (s->n_batch < budget) {
        int fullest = 0;
        for (int e = 1; e <= s->t->n_experts; e++)
            if (s->queue[e] > s->queue[fullest])
                fullest = e;
        for (int64_t i = 0; i < s->n_wait && s->n_batch < budget; i++)
            if (!s->wait[i].taken && serve_key(s, s->wait[i].token) == fullest)
                serve_take(s, i);
    }
}

/* ---- what it asks for ---- */

static mt_status serve_ask_layer(struct mt_ctx *ctx, struct serve *s, int l)
{
    struct mt_serve_result *r = s->out;
    int k = s->t->k, n = s->t->n_experts;

    memset(s->asked, 0, (size_t)n * sizeof *s->asked);
    for (int64_t i = 0; i < s->n_batch; i++) {
        const uint16_t *e = mt_trace_at(s->t, s->batch[i], l);
        for (int j = 0; j < k; j++)
            if (e[j] != MT_TRACE_NONE)
                s->asked[e[j]] = true;
    }
    for (int e = 0; e < n; e++) {
        if (!s->asked[e])
            continue;
        MT_TRY(mt_grow(ctx, r->n_requests, &r->cap_requests, sizeof *r->request, "requests",
                       &r->request));
        MT_TRY(mt_grow(ctx, r->n_requests, &r->cap_from, sizeof *r->from, "requests", &r->from));
        r->from[r->n_requests] = (uint32_t)r->n_batches;
        r->request[r->n_requests++] = (uint32_t)l * (uint32_t)n + (uint32_t)e;
        s->unique++;
        s->unique_key += l == s->o->by_layer;
    }
    return MT_OK;
}

static mt_status serve_run(struct mt_ctx *ctx, struct serve *s)
{
    for (;;) {
        serve_arrive(s);
        if (s->n_wait == 0)
            return MT_OK;
        serve_choose(s);
        for (int l = 0; l < s->t->n_layers; l++)
            MT_TRY(serve_ask_layer(ctx, s, l));
        s->out->n_batches++;
        s->out->n_tokens += (size_t)s->n_batch;
        serve_leave(s);
        MT_TRY(mt_check_cancel(ctx));
    }
}

mt_status mt_serve(struct mt_ctx *ctx, const struct mt_trace *t, const struct mt_serve_opts *o,
                   struct mt_serve_result *out)
{
    struct serve s = {.t = t, .o = o, .out = out};
    mt_status st;

    mt_assert(o->batch >= 1 && o->window >= o->batch && o->by_layer < t->n_layers);
    *out = (struct mt_serve_result){0};
    st = mt_alloc(ctx, (size_t)o->window, sizeof *s.wait, "waiting tokens", &s.wait);
    if (st == MT_OK)
        st = mt_alloc0(ctx, (size_t)t->n_experts + 1, sizeof *s.queue, "queues", &s.queue);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)t->n_experts + 1, sizeof *s.asked, "queues", &s.asked);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)o->batch, sizeof *s.batch, "batch", &s.batch);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)o->batch, sizeof *s.next, "batch", &s.next);
    if (st == MT_OK)
        st = serve_run(ctx, &s);
    if (out->n_batches > 0) {
        out->unique = (double)s.unique / ((double)out->n_batches * t->n_layers);
        out->unique_key = (double)s.unique_key / (double)out->n_batches;
    }
    mt_free(s.wait);
    mt_free(s.queue);
    mt_free(s.asked);
    mt_free(s.batch);
    mt_free(s.next);
    return st;
}
