/* refit_all.c
 * all: gate, up and down weights of all experts together, trained on what the router chooses.
 *
 * It begins with the refit of down projections (refit_down.c), in its rounds, and puts the tokens
 * aside as they are shown. Then all rows are trained on them (local_fit.h).
 */
#include "lib/base/mem.h"
#include "passes/convert/refit_down.h"

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
                                   .act = ffn->act,
                                   .glu_limit = ffn->glu_limit};
}

static uint64_t all_memory(const struct mt_convert_at *at)
{
    const struct mt_local_shape shape = all_shape(at);
    uint64_t fit = mt_local_fit_bytes(&shape), down = refit_down_memory(at);

    return (fit > down ? fit : down) + mt_local_tokens_bytes(shape.hidden, shape.n_experts);
}

/* The refit of down columns, which comes first, may need as much or more. */
static const char *all_spare(const struct mt_convert_at *at)
{
    const struct mt_local_shape shape = all_shape(at);

    return mt_local_fit_bytes(&shape) > refit_down_memory(at) ? "--refit down"
                                                              : refit_down_spare(at);
}

static uint64_t all_scratch(const struct mt_convert_at *at, int64_t n_tokens)
{
    return mt_local_tokens_file_bytes(at->shape->hidden, at->shape->n_experts, n_tokens);
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

/* ---- solve ---- */

static mt_status all_train(struct mt_ctx *ctx, const struct mt_convert_at *at, struct all *s,
                           struct mt_local_weights *w, struct mt_local_told *told)
{
    MT_TRY(mt_local_weights_gather(ctx, at->dense, at->split->idx, mt_split_entries(at->split), w));
    return mt_local_fit(ctx, &s->shape, s->tokens, (int)at->o->refit_epochs, (uint64_t)at->layer, w,
                        told);
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
    mt_local_tell(&told, &out->told);
    if (fitted || told.epoch > 0) {
        out->down = w.down;
        w.down = NULL;
    }
    if (told.epoch > 0) {
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
    .inner = true,
    .needs = MT_NEED_INPUTS | MT_NEED_HIDDEN | MT_NEED_OUTPUT,
    .rounds = refit_down_rounds,
    .memory = all_memory,
    .spare = all_spare,
    .scratch = all_scratch,
    .begin = all_begin,
    .observe = all_observe,
    .solve = all_solve,
    .end = all_end,
};
