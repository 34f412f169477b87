/* refit_down.c
 * down: the down projections of all experts together, fitted to what the router chooses.
 *
 * The hidden vector of a token, zero outside the experts that were chosen for it, is mapped to the
 * dense FFN's output (refit.h). Columns stand in the order of the lists, so neurons that several
 * experts hold are fitted in each of them.
 */
#include "passes/convert/refit_down.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/lib/refit.h"

#include <string.h>

#define DOWN_ROWS 32 /* of the down projection, or tokens, per job */

struct down {
    const struct mt_convert_at *at;
    int64_t n, n_tokens; /* columns; of the data set */
    struct mt_refit *refit;
    bool solved;
    float *h;    /* [REFIT_DOWN_BLOCK, n] */
    float *y;    /* [REFIT_DOWN_BLOCK, hidden] */
    float *bias; /* [hidden] of the dense output, which stays as it is; NULL: none */
    float *v;    /* [hidden, D]; NULL: outputs are shown as the block gives them */

    /* The block at hand. */
    int64_t m;
    const float *dense;          /* [m, D] */
    const unsigned char *picked; /* [m, E] */
    float *prior;                /* [hidden, n] while it is gathered */
};

int64_t refit_down_columns(const struct mt_moe_shape *p)
{
    return (p->n_shared > 0 ? p->shared_width : 0) + p->n_experts * p->expert_width;
}

/* Where a norm or a scale comes behind the FFN, what is shown is not what down_proj gives. */
static bool down_output_is_bare(const struct mt_model *src)
{
    return !src->hp.post_norms && !src->hp.layer_scale;
}

int refit_down_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 2;
}

uint64_t refit_down_memory(const struct mt_convert_at *at)
{
    uint64_t n = (uint64_t)refit_down_columns(at->shape);

    uint64_t own = down_output_is_bare(at->src) ? 1 : (uint64_t)at->shape->width;

    return mt_refit_bytes(n, (uint64_t)at->shape->hidden) + own * (uint64_t)at->shape->hidden * 4 +
           REFIT_DOWN_BLOCK * (n + (uint64_t)at->shape->hidden) * 4 +
           DOWN_ROWS * (uint64_t)at->shape->width * 4;
}

const char *refit_down_spare(const struct mt_convert_at *at)
{
    (void)at;
    return "--refit none";
}

void refit_down_end(void *state)
{
    struct down *s = state;

    if (s == NULL)
        return;
    mt_refit_free(s->refit);
    mt_free(s->h);
    mt_free(s->y);
    mt_free(s->bias);
    mt_free(s->v);
    mt_free(s);
}

static mt_status down_prior_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct down *s = arg;
    const struct mt_dense_ffn *f = s->at->dense;
    int64_t from = job * DOWN_ROWS;
    int64_t n = f->hidden - from < DOWN_ROWS ? f->hidden - from : DOWN_ROWS;
    const int32_t *idx = s->at->split->idx;
    const float *weight = s->at->weight;
    float *rows;

    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)f->width * sizeof(*rows), "down_proj rows", &rows));
    mt_status st = mt_tensor_fetch_f32(ctx, f->down, from, n, rows);
    for (int64_t r = 0; st == MT_OK && r < n; r++)
        for (int64_t c = 0; c < s->n; c++)
            s->prior[(from + r) * s->n + c] =
                idx[c] >= 0 ? rows[r * f->width + idx[c]] * (weight != NULL ? weight[c] : 1) : 0;
    mt_free(rows);
    return st;
}

static mt_status down_open_target(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                  struct down *s)
{
    if (!down_output_is_bare(at->src))
        return mt_tensor_load_f32(ctx, at->dense->down, &s->v);
    if (at->dense->down_bias != NULL)
        return mt_tensor_load_f32(ctx, at->dense->down_bias, &s->bias);
    return MT_OK;
}

mt_status refit_down_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                           void **state)
{
    struct down *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "refit", &s));
    *state = s;
    s->at = at;
    s->n = refit_down_columns(at->shape);
    s->n_tokens = n_tokens;
    MT_TRY(
        mt_alloc(ctx, REFIT_DOWN_BLOCK, (size_t)s->n * sizeof(float), "masked activations", &s->h));
    MT_TRY(mt_alloc(ctx, REFIT_DOWN_BLOCK, (size_t)at->shape->hidden * sizeof(float), "targets",
                    &s->y));
    MT_TRY(down_open_target(ctx, at, s));
    MT_TRY(mt_alloc(ctx, (size_t)at->shape->hidden, (size_t)s->n * sizeof(float), "down_proj",
                    &s->prior));
    mt_status st =
        mt_pool_run(ctx, (at->shape->hidden + DOWN_ROWS - 1) / DOWN_ROWS, down_prior_job, s);
    if (st != MT_OK) {
        mt_free(s->prior);
        return st;
    }
    return mt_refit_create(ctx, s->n, at->shape->hidden, s->prior, &s->refit);
}

/* h = the tokens' hidden vectors by the lists, zero where the router did not choose. */
static mt_status down_mask_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct down *s = arg;
    const struct mt_split *split = s->at->split;
    int64_t shared = mt_split_shared_width(split), width = split->expert_width;

    (void)ctx;
    for (int64_t t = job * DOWN_ROWS; t < s->m && t < (job + 1) * DOWN_ROWS; t++) {
        const float *from = s->dense + t * split->width;
        float *to = s->h + t * s->n;
        memset(to, 0, (size_t)s->n * sizeof(*to));
        for (int64_t c = 0; c < shared; c++)
            to[c] = split->idx[c] >= 0 ? from[split->idx[c]] : 0;
        for (int e = 0; e < split->n_experts; e++) {
            const int32_t *idx = mt_split_expert(split, e);
            if (s->picked[t * split->n_experts + e] == 0)
                continue;
            for (int64_t i = 0; i < width; i++)
                to[idx - split->idx + i] = idx[i] >= 0 ? from[idx[i]] : 0;
        }
    }
    return MT_OK;
}

/* What the experts together should give: the dense output without its bias, and a part of the
 * drift. *y is the caller's or s->y. */
static mt_status down_target(struct mt_ctx *ctx, struct down *s, int64_t m, const float *h,
                             const float *shown, const float *drift, const float **y)
{
    int64_t d = s->at->shape->hidden, width = s->at->shape->width;
    float by = (float)s->at->o->drift;

    if (s->v != NULL) {
        *y = s->y;
        return mt_gemm_nt(ctx, m, d, width, 1, h, width, s->v, width, 0, s->y, d);
    }
    if (s->bias == NULL && drift == NULL)
        return MT_OK;
    for (int64_t i = 0; i < m * d; i++)
        s->y[i] =
            shown[i] - (s->bias != NULL ? s->bias[i % d] : 0) + (drift != NULL ? by * drift[i] : 0);
    *y = s->y;
    return MT_OK;
}

mt_status refit_down_target(struct mt_ctx *ctx, void *state, const struct mt_observation *ob,
                            int64_t t, int64_t m, const float **y)
{
    struct down *s = state;
    int64_t d = s->at->shape->hidden;

    mt_assert(m <= REFIT_DOWN_BLOCK);
    *y = ob->y + t * d;
    return down_target(ctx, s, m, ob->h + t * s->at->shape->width, *y,
                       ob->drift != NULL ? ob->drift + t * d : NULL, y);
}

float *refit_down_take_prior(void *state)
{
    struct down *s = state;

    return mt_refit_take_prior(s->refit);
}

static mt_status down_block(struct mt_ctx *ctx, struct down *s, const struct mt_observation *ob,
                            const unsigned char *picked, int64_t t, int64_t m, bool held_out)
{
    const struct mt_moe_shape *p = s->at->shape;

    s->m = m;
    s->dense = ob->h + t * p->width;
    s->picked = picked + t * p->n_experts;
    MT_TRY(mt_pool_run(ctx, (m + DOWN_ROWS - 1) / DOWN_ROWS, down_mask_job, s));
    const float *y = ob->y + t * p->hidden;
    MT_TRY(down_target(ctx, s, m, s->dense, y, ob->drift != NULL ? ob->drift + t * p->hidden : NULL,
                       &y));
    return held_out ? mt_refit_check(ctx, s->refit, m, s->h, y)
                    : mt_refit_add(ctx, s->refit, m, s->h, y);
}

mt_status refit_down_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             const struct mt_observation *ob, const unsigned char *picked)
{
    struct down *s = state;
    int64_t run;

    (void)at;
    if (ob->round == 1 && !s->solved) {
        MT_TRY(mt_refit_solve(ctx, s->refit));
        s->solved = true;
    }
    for (int64_t t = 0; t < ob->m; t += run) {
        bool held_out = mt_refit_held_out(ob->token0 + t, s->n_tokens, &run);
        if (run > ob->m - t)
            run = ob->m - t;
        if (run > REFIT_DOWN_BLOCK)
            run = REFIT_DOWN_BLOCK;
        if (held_out == (ob->round == 1))
            MT_TRY(down_block(ctx, s, ob, picked, t, run, held_out));
    }
    return MT_OK;
}

mt_status refit_down_solve(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                           struct mt_convert_down *out)
{
    struct down *s = state;

    (void)ctx;
    (void)at;
    mt_refit_choose(s->refit, &out->down, &out->told);
    return MT_OK;
}

const struct mt_convert_refit mt_convert_refit_down = {
    .name = "down",
    .summary = "all down projections together, to the router's choices",
    .help = "Refit down fits the down projections of all experts, in closed form, to the router's "
            "own choices. A tenth of the tokens is held out: it chooses how far to shrink towards "
            "the original columns, which stay if they do better.",
    .needs = MT_NEED_HIDDEN | MT_NEED_OUTPUT,
    .rounds = refit_down_rounds,
    .memory = refit_down_memory,
    .spare = refit_down_spare,
    .begin = refit_down_begin,
    .observe = refit_down_observe,
    .solve = refit_down_solve,
    .end = refit_down_end,
};
