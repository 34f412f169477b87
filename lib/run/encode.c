#include "lib/run/encode.h"

#include "lib/ir/family.h"
#include "lib/run/stream.h"

#include <math.h>

struct encode_bufs {
    mt_buf x, n, y;
};

/* Sequences [first, *end) that run together, and their tokens: as many as fit a batch, at least
 * one. */
static int64_t encode_batch(const struct mt_runner *r, const struct mt_seqs *seqs, int first,
                            int *end)
{
    int64_t most = mt_runner_batch_tokens(r), m = seqs->len[first];

    for (*end = first + 1; *end < seqs->n && m + seqs->len[*end] <= most; ++*end)
        m += seqs->len[*end];
    return m;
}

static int64_t encode_tokens_max(const struct mt_runner *r, const struct mt_seqs *seqs)
{
    int64_t most = 0;

    for (int first = 0, end; first < seqs->n; first = end) {
        int64_t m = encode_batch(r, seqs, first, &end);
        most = m > most ? m : most;
    }
    return most;
}

uint64_t mt_encode_bytes(const struct mt_runner *r, const struct mt_seqs *seqs)
{
    int64_t m = encode_tokens_max(r, seqs);
    uint64_t states = (uint64_t)m * (uint64_t)mt_runner_model(r)->hp.hidden;

    return mt_runner_batch_bytes(r, m) + 3 * states * mt_runner_device(r)->elem_bytes;
}

static mt_status encode_layer(struct mt_ctx *ctx, struct mt_runner *r, int layer,
                              const struct mt_seqs *seqs, int64_t m, const struct encode_bufs *b)
{
    struct mt_run_layer *l;
    mt_status st;

    MT_TRY(mt_check_cancel(ctx));
    MT_TRY(mt_run_layer_open(ctx, r, layer, &l));
    st = mt_run_attn(ctx, l, b->x, seqs, NULL);
    if (st == MT_OK)
        st = mt_run_ffn_norm(ctx, l, b->x, m, b->n);
    if (st == MT_OK)
        st = mt_run_ffn(ctx, l, b->n, m, b->y, NULL);
    if (st == MT_OK)
        st = mt_run_add(ctx, r, b->x, b->y, m);
    mt_run_layer_close(l);
    return mt_wrap(ctx, st, "layer %d", layer);
}

static mt_status encode_batches(struct mt_ctx *ctx, struct mt_runner *r,
                                const struct mt_encode_in *in, const struct encode_bufs *b,
                                float *f32, double *f64)
{
    const struct mt_device_ops *ops = mt_runner_device(r)->ops;
    struct mt_device *dev = mt_runner_device(r);
    const struct mt_hparams *hp = &mt_runner_model(r)->hp;
    size_t at = 0;

    for (int first = 0, end; first < in->seqs.n; first = end) {
        int64_t m = encode_batch(r, &in->seqs, first, &end);
        struct mt_seqs seqs = {end - first, in->seqs.len + first};
        size_t from = at * (size_t)hp->hidden, n = (size_t)m * (size_t)hp->hidden;

        if (in->ids != NULL)
            MT_TRY(mt_run_embed(ctx, r, in->ids + at, m, b->x));
        else
            MT_TRY(ops->upload(ctx, dev, b->x, in->x + from, n));
        for (int l = 0; l < hp->n_layers; l++)
            MT_TRY(encode_layer(ctx, r, l, &seqs, m, b));
        MT_TRY(mt_run_final(ctx, r, b->x, m, b->x));
        if (f32 != NULL)
            MT_TRY(ops->download(ctx, dev, f32 + from, b->x, n));
        else
            MT_TRY(ops->download_f64(ctx, dev, f64 + from, b->x, n));
        at += (size_t)m;
        mt_progress_add(ctx, (uint64_t)m);
    }
    return MT_OK;
}

static mt_status encode(struct mt_ctx *ctx, struct mt_runner *r, const struct mt_encode_in *in,
                        float *f32, double *f64)
{
    const struct mt_model *m = mt_runner_model(r);
    struct mt_device *dev = mt_runner_device(r);
    struct encode_bufs b = {NULL, NULL, NULL};
    size_t n = (size_t)encode_tokens_max(r, &in->seqs) * (size_t)m->hp.hidden;
    mt_status st;

    if (!m->hp.both_ways)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s is no encoder: its models give logits (moetool eval, generate)",
                       m->family->name);
    mt_runner_set_embedded(r, in->ids == NULL);
    st = dev->ops->alloc(ctx, dev, n, &b.x);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, n, &b.n);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, n, &b.y);
    if (st == MT_OK)
        st = encode_batches(ctx, r, in, &b, f32, f64);
    dev->ops->release(dev, b.x);
    dev->ops->release(dev, b.n);
    dev->ops->release(dev, b.y);
    return st;
}

mt_status mt_encode(struct mt_ctx *ctx, struct mt_runner *r, const struct mt_encode_in *in,
                    float *last)
{
    return encode(ctx, r, in, last, NULL);
}

mt_status mt_encode_f64(struct mt_ctx *ctx, struct mt_runner *r, const struct mt_encode_in *in,
                        double *last)
{
    return encode(ctx, r, in, NULL, last);
}

struct encode_pair {
    struct mt_runner *ref, *cand;
    struct mt_batches batches;
    float *a, *b; /* last hidden states of a batch */
    double off, all;
};

static mt_status encode_pair_run(struct mt_ctx *ctx, struct encode_pair *p)
{
    int64_t hidden = mt_runner_model(p->ref)->hp.hidden;

    for (size_t i = 0; i < p->batches.n; i++) {
        const struct mt_batch *b = &p->batches.v[i];
        const struct mt_encode_in in = {b->seqs, b->ids, NULL};

        MT_TRY(mt_encode(ctx, p->ref, &in, p->a));
        MT_TRY(mt_encode(ctx, p->cand, &in, p->b));
        for (int64_t j = 0; j < b->tokens * hidden; j++) {
            double y = (double)p->a[j], d = (double)p->b[j] - y;
            p->off += d * d;
            p->all += y * y;
        }
    }
    return MT_OK;
}

mt_status mt_encode_compare(struct mt_ctx *ctx, const struct mt_model *ref,
                            const struct mt_model *cand, struct mt_device *dev,
                            const struct mt_dataset *data, double *error)
{
    struct encode_pair p = {0};
    size_t n = 0;
    mt_status st = mt_runner_open(ctx, ref, dev, &p.ref);

    if (st == MT_OK)
        st = mt_runner_open_with(ctx, cand, p.ref, &p.cand);
    if (st == MT_OK)
        st = mt_batches_make(ctx, data, mt_runner_batch_tokens(p.ref), &p.batches);
    if (st == MT_OK) {
        n = (size_t)(p.batches.tokens_max * ref->hp.hidden);
        st = mt_alloc(ctx, n, sizeof *p.a, "hidden states", &p.a);
    }
    if (st == MT_OK)
        st = mt_alloc(ctx, n, sizeof *p.b, "hidden states", &p.b);
    if (st == MT_OK)
        st = encode_pair_run(ctx, &p);
    *error = p.all > 0 ? sqrt(p.off / p.all) : p.off > 0 ? INFINITY : 0;
    mt_free(p.a);
    mt_free(p.b);
    mt_batches_free(&p.batches);
    mt_runner_close(p.cand);
    mt_runner_close(p.ref);
    return st;
}
