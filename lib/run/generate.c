#include "lib/run/generate.h"

#include "lib/base/clock.h"
#include "lib/base/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct gen_choice {
    double p;
    int32_t id;
};

struct gen {
    struct mt_runner *r;
    struct mt_device *dev;
    const struct mt_generate_opts *opts;
    struct mt_kv_cache *kv;
    struct mt_run_layer **layers; /* [n_layers]; NULL: opened anew for each batch */
    int n_open;
    mt_buf x, n, y;
    double *logits;            /* [vocab] of the last token */
    struct gen_choice *choice; /* [vocab] */
    struct mt_rng rng;
};

/* Layers stay open when all weights that cannot be borrowed fit beside the scratch buffers. */
static bool gen_fits(struct mt_ctx *ctx, const struct gen *g, int64_t batch)
{
    uint64_t need = mt_runner_batch_bytes(g->r, batch), limit = mt_mem_limit(ctx);
    uint64_t used = mt_mem_used(ctx);

    for (int l = 0; l < mt_runner_model(g->r)->hp.n_layers; l++)
        need += mt_runner_layer_bytes(g->r, l);
    /* Experts load into half of what is free, see ffn.c. */
    return limit == UINT64_MAX || (used < limit && need < (limit - used) / 2);
}

static mt_status gen_open_layers(struct mt_ctx *ctx, struct gen *g)
{
    int n = mt_runner_model(g->r)->hp.n_layers;

    MT_TRY(mt_alloc0(ctx, (size_t)n, sizeof(void *), "layers", &g->layers));
    for (int l = 0; l < n; l++) {
        MT_TRY(mt_wrap(ctx, mt_run_layer_open(ctx, g->r, l, &g->layers[l]), "layer %d", l));
        g->n_open++;
    }
    return MT_OK;
}

static mt_status gen_open(struct mt_ctx *ctx, struct gen *g, const struct mt_model *m,
                          int64_t prompt, int64_t context)
{
    size_t vocab = (size_t)m->hp.vocab, elems;
    int64_t batch;

    MT_TRY(mt_runner_open(ctx, m, g->dev, &g->r));
    batch = mt_runner_batch_tokens(g->r);
    batch = prompt < batch ? prompt : batch;
    elems = (size_t)batch * (size_t)m->hp.hidden;
    MT_TRY(mt_kv_create(ctx, g->r, context, &g->kv));
    MT_TRY(g->dev->ops->alloc(ctx, g->dev, elems, &g->x));
    MT_TRY(g->dev->ops->alloc(ctx, g->dev, elems, &g->n));
    MT_TRY(g->dev->ops->alloc(ctx, g->dev, elems, &g->y));
    MT_TRY(mt_alloc(ctx, vocab, sizeof *g->logits, "logits", &g->logits));
    MT_TRY(mt_alloc(ctx, vocab, sizeof *g->choice, "logits", &g->choice));
    return gen_fits(ctx, g, batch) ? gen_open_layers(ctx, g) : MT_OK;
}

static void gen_close(struct gen *g)
{
    for (int l = 0; l < g->n_open; l++)
        mt_run_layer_close(g->layers[l]);
    mt_free(g->layers);
    mt_free(g->logits);
    mt_free(g->choice);
    g->dev->ops->release(g->dev, g->x);
    g->dev->ops->release(g->dev, g->n);
    g->dev->ops->release(g->dev, g->y);
    mt_kv_free(g->kv);
    mt_runner_close(g->r);
}

static mt_status gen_layer(struct mt_ctx *ctx, struct gen *g, struct mt_run_layer *l, int32_t m)
{
    struct mt_seqs seqs = {1, &m};

    MT_TRY(mt_run_attn(ctx, l, g->x, &seqs, g->kv));
    MT_TRY(mt_run_ffn_norm(ctx, l, g->x, m, g->n));
    MT_TRY(mt_run_ffn(ctx, l, g->n, m, g->y, NULL));
    return mt_run_add(ctx, g->r, g->x, g->y, m);
}

/* Ids through all layers into the cache. */
static mt_status gen_forward(struct mt_ctx *ctx, struct gen *g, const int32_t *ids, int32_t m)
{
    MT_TRY(mt_run_embed(ctx, g->r, ids, m, g->x));
    for (int i = 0; i < mt_runner_model(g->r)->hp.n_layers; i++) {
        struct mt_run_layer *l = NULL;
        mt_status st;
        MT_TRY(mt_check_cancel(ctx));
        if (g->layers != NULL) {
            MT_TRY(mt_wrap(ctx, gen_layer(ctx, g, g->layers[i], m), "layer %d", i));
            continue;
        }
        st = mt_run_layer_open(ctx, g->r, i, &l);
        if (st == MT_OK) {
            st = gen_layer(ctx, g, l, m);
            mt_run_layer_close(l);
        }
        MT_TRY(mt_wrap(ctx, st, "layer %d", i));
    }
    return MT_OK;
}

static bool gen_finite(const double *logits, int64_t vocab)
{
    for (int64_t i = 0; i < vocab; i++)
        if (!isfinite(logits[i]))
            return false;
    return true;
}

static int32_t gen_greedy(const double *logits, int64_t vocab)
{
    int32_t best = 0;

    for (int32_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[best])
            best = i;
    }
    return best;
}

/* Most probable first, ties to the lowest id, so that the order is one on every machine. */
static int gen_cmp(const void *a, const void *b)
{
    const struct gen_choice *x = a, *y = b;

    if (x->p != y->p)
        return x->p < y->p ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

static int32_t gen_sample(struct gen *g, int64_t vocab)
{
    double max = g->logits[gen_greedy(g->logits, vocab)], sum = 0, at;
    int64_t n = vocab;

    for (int32_t i = 0; i < vocab; i++) {
        double p = exp((g->logits[i] - max) / g->opts->temperature);
        g->choice[i] = (struct gen_choice){p, i};
        sum += p;
    }
    if (g->opts->top_p < 1) {
        double kept = 0, want = g->opts->top_p * sum;
        qsort(g->choice, (size_t)vocab, sizeof *g->choice, gen_cmp);
        for (n = 0; n < vocab && (n == 0 || kept < want); n++)
            kept += g->choice[n].p;
        sum = kept;
    }
    at = mt_rng_unit(&g->rng) * sum;
    for (int64_t i = 0; i < n - 1; i++) {
        at -= g->choice[i].p;
        if (at < 0)
            return g->choice[i].id;
    }
    return g->choice[n - 1].id;
}

/* The whole prompt; state of its last token is then at *last in g->x. */
static mt_status gen_prompt(struct mt_ctx *ctx, struct gen *g, const struct mt_ids *ids,
                            int32_t *last)
{
    size_t batch = (size_t)mt_runner_batch_tokens(g->r);

    for (size_t i = 0; i < ids->n; i += batch) {
        int32_t n = (int32_t)(ids->n - i < batch ? ids->n - i : batch);
        MT_TRY(gen_forward(ctx, g, ids->v + i, n));
        *last = n - 1;
    }
    return MT_OK;
}

static mt_status gen_loop(struct mt_ctx *ctx, struct gen *g, struct mt_ids *ids, int64_t context,
                          mt_status (*token)(struct mt_ctx *ctx, void *arg, int32_t id), void *arg,
                          struct mt_generate_stats *stats)
{
    const struct mt_hparams *hp = &mt_runner_model(g->r)->hp;
    double t0 = mt_clock_seconds();
    int32_t last = 0;

    stats->prompt_tokens = (int64_t)ids->n;
    MT_TRY(gen_prompt(ctx, g, ids, &last));
    stats->prompt_seconds = mt_clock_seconds() - t0;
    t0 = mt_clock_seconds();
    while (stats->new_tokens < g->opts->max_tokens && (int64_t)ids->n < context) {
        mt_buf x = mt_dev_at(g->dev, g->x, (size_t)last * (size_t)hp->hidden);
        int32_t id;
        MT_TRY(mt_run_head_f64(ctx, g->r, x, 1, g->logits));
        stats->not_finite = stats->not_finite || !gen_finite(g->logits, hp->vocab);
        if (stats->not_finite && !g->opts->allow_nan)
            break;
        id = g->opts->temperature > 0 ? gen_sample(g, hp->vocab) : gen_greedy(g->logits, hp->vocab);
        if (id == g->opts->eos_id)
            break;
        MT_TRY(mt_ids_push(ctx, ids, id));
        stats->new_tokens++;
        stats->new_seconds = mt_clock_seconds() - t0;
        if (token != NULL)
            MT_TRY(token(ctx, arg, id));
        if (stats->new_tokens < g->opts->max_tokens && (int64_t)ids->n < context)
            MT_TRY(gen_forward(ctx, g, &id, 1));
        last = 0;
    }
    stats->new_seconds = mt_clock_seconds() - t0;
    return MT_OK;
}

mt_status mt_generate(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                      const struct mt_generate_opts *opts, struct mt_ids *ids,
                      mt_status (*token)(struct mt_ctx *ctx, void *arg, int32_t id), void *arg,
                      struct mt_generate_stats *stats)
{
    struct gen g = {.dev = dev, .opts = opts};
    int64_t context = m->hp.max_pos;
    mt_status st;

    *stats = (struct mt_generate_stats){0};
    if (ids->n == 0)
        return mt_fail(ctx, MT_E_OPTION, "the prompt has no tokens");
    if (context > 0 && (int64_t)ids->n > context)
        return mt_fail(ctx, MT_E_OPTION,
                       "the prompt has %zu tokens, but the model's context is %lld", ids->n,
                       (long long)context);
    if (context <= 0 || context - (int64_t)ids->n > opts->max_tokens)
        context = (int64_t)ids->n + opts->max_tokens;
    mt_rng_seed(&g.rng, opts->seed, 0);
    st = gen_open(ctx, &g, m, (int64_t)ids->n, context);
    if (st == MT_OK)
        st = gen_loop(ctx, &g, ids, context, token, arg, stats);
    gen_close(&g);
    return st;
}
