#include "lib/run/compare_impl.h"

#define MEMORY_SMALL ((uint64_t)1 << 20)  /* lists of records, positions, rotary angles */
#define MEMORY_WORKER ((uint64_t)1 << 20) /* a worker's scratch */

/* Weights of layer l in all models that cannot be borrowed. */
static uint64_t memory_layer(const struct cmp *c, int l, int n_stored)
{
    uint64_t sum = mt_runner_layer_bytes(c->ref.r, l);

    for (int i = n_stored; i < c->n_cand; i++)
        sum += mt_runner_layer_bytes(c->cand[i].r, l);
    return sum;
}

/* Host arrays of a mixture's routing, of all candidates at once. */
static uint64_t memory_routing(const struct mt_model *m, int64_t tokens)
{
    uint64_t most = 0;

    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        uint64_t row = f->moe ? 8 * (uint64_t)mt_ffn_rows(f) + 32 * (uint64_t)f->k : 0;
        if (row > most)
            most = row;
    }
    return most * (uint64_t)tokens;
}

uint64_t cmp_late_bytes(const struct mt_ctx *ctx, const struct cmp *c, int n_stored)
{
    const struct mt_model *ref = mt_runner_model(c->ref.r);
    int64_t m = c->batches.tokens_max;
    uint64_t layer = 0, routing = memory_routing(ref, m), one;

    for (int l = 0; l < ref->hp.n_layers; l++) {
        one = memory_layer(c, l, n_stored);
        layer = one > layer ? one : layer;
    }
    for (int i = 0; i < c->n_cand; i++)
        routing += memory_routing(mt_runner_model(c->cand[i].r), m);
    return layer + routing + (uint64_t)m * (uint64_t)c->hidden * sizeof(float) +
           (uint64_t)mt_ctx_threads(ctx) * MEMORY_WORKER +
           cmp_n_predicted(c->data) * sizeof(float) + MEMORY_SMALL;
}

/* Batches, buffers of one batch, logits and per-token results. */
static uint64_t memory_buffers(const struct cmp *c)
{
    uint64_t m = (uint64_t)c->batches.tokens_max, elems = m * (uint64_t)c->hidden;
    uint64_t models = 1 + (uint64_t)c->n_cand, three = c->n_cand > 0 ? 3 : 2;
    uint64_t sums = c->n_cand > 0 ? (uint64_t)c->n_cand : 1;
    uint64_t rows = (uint64_t)cmp_head_rows(c);

    return elems * (models + three) * c->dev->elem_bytes + elems * three * sizeof(float) +
           m * 2 * (sizeof(double) + sizeof(int32_t)) +
           rows * (sizeof(struct mt_token_metrics) + 2 * c->vocab * sizeof(float)) +
           sums * cmp_n_predicted(c->data) * sizeof(float) + c->data->n_tokens * sizeof(int32_t) +
           c->data->n_windows * (sizeof(int32_t) + sizeof(struct mt_batch));
}

static mt_status memory_sum(struct mt_ctx *ctx, const struct cmp *c, int n_stored, uint64_t *bytes)
{
    const struct mt_runner **all;
    int n = 1 + c->n_cand;

    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof(struct mt_runner *), "candidates", &all));
    all[0] = c->ref.r;
    for (int i = 0; i < c->n_cand; i++)
        all[i + 1] = c->cand[i].r;
    *bytes = mt_runner_shared_bytes(all, n, c->batches.tokens_max) + memory_buffers(c) +
             cmp_late_bytes(ctx, c, n_stored) +
             (uint64_t)n * mt_stream_least_bytes(&c->batches, c->hidden);
    mt_free(all);
    return MT_OK;
}

mt_status mt_compare_bytes(struct mt_ctx *ctx, const struct mt_model *ref,
                           const struct mt_model *const *cand, int n_cand, int n_stored,
                           struct mt_device *dev, const struct mt_dataset *data, uint64_t *bytes)
{
    struct cmp c;

    *bytes = 0;
    mt_status st = cmp_open_models(ctx, &c, ref, cand, n_cand, dev, data);
    if (st == MT_OK)
        st = memory_sum(ctx, &c, n_stored, bytes);
    cmp_close(&c);
    return st;
}
