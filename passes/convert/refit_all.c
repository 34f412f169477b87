/* refit_all.c
 * all: gate, up and down weights of all experts together, trained on what the router chooses.
 *
 * It begins with the refit of down projections (refit_down.c), in its rounds, and puts the tokens
 * aside as they are shown. Then all rows are trained on them (local_fit.h).
 */
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/convert/refit_down.h"

#include <math.h>
#include <string.h>

#define ALL_ROWS 32                    /* gathered per job */
#define ALL_STREAM (UINT64_C(1) << 40) /* seeds of layers stand apart from those of other uses */

struct all {
    void *down;
    struct mt_local_shape shape;
    struct mt_local_tokens *tokens;
};

static struct mt_local_shape all_shape(const struct mt_convert_at *at)
{
    const struct mt_moe_shape *p = at->shape;
    const struct mt_ffn *ffn = &at->src->ffn[at->layer];

    return (struct mt_local_shape){.hidden = p->hidden,
                                   .shared = p->n_shared > 0 ? p->shared_width : 0,
                                   .expert_width = p->expert_width,
                                   .n_experts = p->n_experts,
                                   .gated = ffn->gated,
                                   .act = ffn->act};
}

static uint64_t all_memory(const struct mt_convert_at *at)
{
    const struct mt_local_shape shape = all_shape(at);
    uint64_t fit = mt_local_fit_bytes(&shape), down = refit_down_memory(at);

    return (fit > down ? fit : down) + mt_local_tokens_bytes(shape.hidden, shape.n_experts);
}

static void all_end(void *state)
{
    struct all *s = state;

    if (s == NULL)
        return;
    refit_down_end(s->down);
    mt_local_tokens_close(s->tokens);
    mt_free(s);
}

static mt_status all_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                           void **state)
{
    struct all *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "refit", &s));
    *state = s;
    s->shape = all_shape(at);
    MT_TRY(mt_local_tokens_open(ctx, s->shape.hidden, s->shape.n_experts, n_tokens, &s->tokens));
    return refit_down_begin(ctx, at, n_tokens, &s->down);
}

static mt_status all_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             const struct mt_observation *ob, const unsigned char *picked)
{
    struct all *s = state;
    int64_t d = s->shape.hidden, m;
    const float *y;

    for (int64_t t = 0; ob->round == 0 && t < ob->m; t += m) {
        m = ob->m - t < REFIT_DOWN_BLOCK ? ob->m - t : REFIT_DOWN_BLOCK;
        MT_TRY(refit_down_target(ctx, s->down, ob, t, m, &y));
        MT_TRY(mt_local_tokens_put(ctx, s->tokens, ob->token0 + t, m, ob->x + t * d, y,
                                   picked + t * s->shape.n_experts));
    }
    return refit_down_observe(ctx, at, s->down, ob, picked);
}

/* ---- the source's rows by the lists ---- */

struct all_gather {
    const struct mt_tensor *from;
    const int32_t *idx;
    int64_t n, cols;
    float *to;
};

static mt_status all_gather_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct all_gather *g = arg;

    for (int64_t i = job * ALL_ROWS; i < g->n && i < (job + 1) * ALL_ROWS; i++) {
        float *to = g->to + i * g->cols;
        if (g->idx[i] < 0)
            memset(to, 0, (size_t)g->cols * sizeof(*to));
        else
            MT_TRY(mt_tensor_fetch_f32(ctx, g->from, g->idx[i], 1, to));
    }
    return MT_OK;
}

static mt_status all_gather_rows(struct mt_ctx *ctx, const struct mt_tensor *from,
                                 const struct mt_split *split, float **out)
{
    struct all_gather g = {.from = from, .idx = split->idx, .n = mt_split_entries(split)};

    if (from == NULL)
        return MT_OK;
    g.cols = mt_tensor_cols(from);
    MT_TRY(mt_alloc(ctx, (size_t)g.n, (size_t)g.cols * sizeof(float), "rows of experts", out));
    g.to = *out;
    return mt_pool_run(ctx, (g.n + ALL_ROWS - 1) / ALL_ROWS, all_gather_job, &g);
}

static mt_status all_gather_bias(struct mt_ctx *ctx, const struct mt_tensor *from,
                                 const struct mt_split *split, float **out)
{
    int64_t n = mt_split_entries(split);
    float *all;

    if (from == NULL)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof(float), "biases of experts", out));
    MT_TRY(mt_tensor_load_f32(ctx, from, &all));
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = split->idx[i] < 0 ? 0 : all[split->idx[i]];
    mt_free(all);
    return MT_OK;
}

static mt_status all_gather_inner(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                  struct mt_local_weights *w)
{
    const struct mt_dense_ffn *f = at->dense;

    MT_TRY(all_gather_rows(ctx, f->gate, at->split, &w->gate));
    MT_TRY(all_gather_rows(ctx, f->up, at->split, &w->up));
    MT_TRY(all_gather_bias(ctx, f->gate_bias, at->split, &w->gate_bias));
    return all_gather_bias(ctx, f->up_bias, at->split, &w->up_bias);
}

/* ---- solve ---- */

static mt_status all_train(struct mt_ctx *ctx, const struct mt_convert_at *at, struct all *s,
                           struct mt_local_weights *w, struct mt_local_told *told)
{
    MT_TRY(all_gather_inner(ctx, at, w));
    return mt_local_fit(ctx, &s->shape, s->tokens, (int)at->o->refit_epochs,
                        ALL_STREAM + (uint64_t)at->layer, w, told);
}

static mt_status all_solve(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                           struct mt_convert_down *out)
{
    struct all *s = state;
    struct mt_local_told told = {0};
    struct mt_local_weights w = {0};

    MT_TRY(refit_down_solve(ctx, at, s->down, out));
    bool fitted = out->down != NULL;
    w.down = fitted ? out->down : refit_down_take_prior(s->down);
    out->down = NULL;
    refit_down_end(s->down);
    s->down = NULL;
    mt_status st = all_train(ctx, at, s, &w, &told);
    if (st != MT_OK) {
        mt_local_weights_free(&w);
        return st;
    }
    out->told.trained = true;
    out->told.down = out->told.after;
    out->told.epoch = told.epoch;
    if (fitted || told.epoch > 0) {
        out->down = w.down;
        w.down = NULL;
    }
    if (told.epoch > 0) {
        out->told.after = told.after;
        out->told.reverted = false;
        out->inner = w;
        return MT_OK;
    }
    mt_local_weights_free(&w);
    return MT_OK;
}

const struct mt_convert_refit mt_convert_refit_all = {
    .name = "all",
    .summary = "gate, up and down projections together, to the router's choices",
    .help = "Refit all begins with refit down and then trains the gate, up and down projections of "
            "all experts together, to give what the dense FFN gives where the router chooses them: "
            "Adam on the layer's squared error, --refit-epochs times through the text in mixed "
            "order. The held-out tenth decides after each time whether it was any good; the best "
            "state stays. Tokens are put aside in a scratch file in $TMPDIR, 8 bytes for each of a "
            "token's input features.",
    .needs = MT_NEED_INPUTS | MT_NEED_HIDDEN | MT_NEED_OUTPUT,
    .rounds = refit_down_rounds,
    .memory = all_memory,
    .begin = all_begin,
    .observe = all_observe,
    .solve = all_solve,
    .end = all_end,
};
