#include "passes/lib/local_fit.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/base/rng.h"
#include "lib/train/adam.h"

#include <math.h>
#include <string.h>

#define FIT_RATE 0.02     /* of the first steps, times the deviation of each matrix */
#define FIT_RATE_END 0.01 /* of the last step, times that */
#define FIT_BETA2 0.99    /* a run is a few hundred steps */
#define FIT_BATCH 512
#define FIT_BATCH_MIN 32
#define FIT_STEPS_MIN 32 /* of an epoch: batches are smaller where there are few tokens */
#define FIT_HALVINGS 3   /* of the way that was no good as a whole */
#define FIT_BLOCK 16384  /* parameters per job */

/* One array that is trained. */
struct fit_part {
    float *w, *best; /* w NULL: not there; best: a copy of the best state so far */
    double rate;
    struct mt_adam adam;
};

struct fit {
    const struct mt_local_weights *w;
    struct mt_local_tokens *tokens;
    struct mt_local_batch batch;
    struct fit_part part[MT_LOCAL_PARTS];
    double energy; /* mean |y|^2 of what is trained on */
    double fade;   /* of rates, at the step at hand */
};

uint64_t mt_local_fit_bytes(const struct mt_local_shape *s)
{
    uint64_t n = (uint64_t)mt_local_columns(s), d = (uint64_t)s->hidden;

    /* Weights, best state, moments. */
    return (s->gated ? 3 : 2) * n * d * 16 + n * 32 + mt_local_batch_bytes(s, FIT_BATCH);
}

/* ---- errors ---- */

static double fit_square(const struct mt_local_batch *b)
{
    return mt_kernels_get()->sumsq(b->y, (size_t)(b->m * b->shape.hidden));
}

static mt_status fit_load(struct mt_ctx *ctx, struct fit *f, bool held, int64_t at, int64_t total)
{
    struct mt_local_batch *b = &f->batch;

    MT_TRY(mt_check_cancel(ctx));
    b->m = total - at < b->size ? total - at : b->size;
    return mt_local_tokens_get(ctx, f->tokens, held, at, b->m, b->x, b->y, b->picked);
}

/* |y' - y|^2 / |y|^2 of the tokens that are held out. */
static mt_status fit_check(struct mt_ctx *ctx, struct fit *f, double *error)
{
    int64_t n = f->tokens->n_held;
    double sum = 0, all = 0;

    for (int64_t at = 0; at < n; at += f->batch.size) {
        MT_TRY(fit_load(ctx, f, true, at, n));
        all += fit_square(&f->batch);
        MT_TRY(mt_local_forward(ctx, &f->batch, f->w));
        sum += fit_square(&f->batch);
    }
    *error = all > 0 ? sum / all : NAN;
    return MT_OK;
}

/* ---- steps ---- */

struct fit_step {
    struct fit_part *p;
    const float *grad;
    struct mt_adam_step by;
};

static mt_status fit_step_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct fit_step *s = arg;
    const struct mt_adam *a = &s->p->adam;
    int64_t from = job * FIT_BLOCK;
    int64_t n = a->n - from < FIT_BLOCK ? a->n - from : FIT_BLOCK;

    (void)ctx;
    mt_kernels_get()->adam(&s->by, s->p->w + from, a->m1 + from, a->m2 + from, s->grad + from,
                           (size_t)n);
    return MT_OK;
}

static mt_status fit_step(struct mt_ctx *ctx, void *arg, enum mt_local_part part, const float *grad)
{
    struct fit *f = arg;
    struct fit_step s = {.p = &f->part[part], .grad = grad};

    s.p->adam.rate = s.p->rate * f->fade;
    s.by = mt_adam_next(&s.p->adam);
    return mt_pool_run(ctx, (s.p->adam.n + FIT_BLOCK - 1) / FIT_BLOCK, fit_step_job, &s);
}

static mt_status fit_epoch(struct mt_ctx *ctx, struct fit *f, int epoch, int epochs)
{
    const double pi = 3.14159265358979323846;
    int64_t n = f->tokens->n_fit;

    for (int64_t at = 0; at < n; at += f->batch.size) {
        double done = (epoch + (double)at / (double)n) / epochs;
        f->fade = fmax(FIT_RATE_END, 0.5 * (1 + cos(pi * done)));
        MT_TRY(fit_load(ctx, f, false, at, n));
        MT_TRY(mt_local_forward(ctx, &f->batch, f->w));
        /* Errors are measured by what there is to give, so that eps is small beside gradients. */
        MT_TRY(mt_local_backward(ctx, &f->batch, f->w, 2 / ((double)f->batch.m * f->energy),
                                 fit_step, f));
        mt_progress_add(ctx, (uint64_t)f->batch.m);
    }
    return MT_OK;
}

/* ---- states ---- */

static void fit_keep(struct fit *f)
{
    for (int i = 0; i < MT_LOCAL_PARTS; i++)
        if (f->part[i].w != NULL)
            memcpy(f->part[i].best, f->part[i].w,
                   (size_t)f->part[i].adam.n * sizeof(*f->part[i].w));
}

static void fit_put_back(struct fit *f)
{
    for (int i = 0; i < MT_LOCAL_PARTS; i++)
        if (f->part[i].w != NULL)
            memcpy(f->part[i].w, f->part[i].best,
                   (size_t)f->part[i].adam.n * sizeof(*f->part[i].w));
}

/* Half of the way back to the best state. */
static void fit_halve(struct fit *f)
{
    for (int i = 0; i < MT_LOCAL_PARTS; i++)
        for (int64_t k = 0; f->part[i].w != NULL && k < f->part[i].adam.n; k++)
            f->part[i].w[k] = 0.5F * (f->part[i].w[k] + f->part[i].best[k]);
}

/* Takes the state when it is the best so far. */
static mt_status fit_judge(struct mt_ctx *ctx, struct fit *f, int epoch, struct mt_local_told *told)
{
    double error;

    MT_TRY(fit_check(ctx, f, &error));
    if (!(error < told->after))
        return MT_OK;
    told->after = error;
    told->epoch = epoch;
    fit_keep(f);
    return MT_OK;
}

static mt_status fit_run(struct mt_ctx *ctx, struct fit *f, int epochs, uint64_t stream,
                         struct mt_local_told *told)
{
    struct mt_rng rng;

    mt_rng_seed(&rng, mt_ctx_seed(ctx), stream);
    MT_TRY(fit_check(ctx, f, &told->before));
    told->after = told->before;
    if (isnan(told->before))
        return MT_OK;
    fit_keep(f);
    for (int epoch = 0; epoch < epochs; epoch++) {
        f->tokens->order = mt_rng_u64(&rng);
        MT_TRY(fit_epoch(ctx, f, epoch, epochs));
        MT_TRY(fit_judge(ctx, f, epoch + 1, told));
    }
    /* Few tokens lead too far: a part of the way may still be good. */
    for (int i = 0; i < FIT_HALVINGS && told->epoch == 0 && epochs > 0; i++) {
        fit_halve(f);
        MT_TRY(fit_judge(ctx, f, epochs, told));
    }
    fit_put_back(f);
    return MT_OK;
}

static mt_status fit_open(struct mt_ctx *ctx, struct fit *f, const struct mt_local_shape *s)
{
    int64_t size = FIT_BATCH;

    while (size > FIT_BATCH_MIN && f->tokens->n_fit / size < FIT_STEPS_MIN)
        size /= 2;
    for (int i = 0; i < MT_LOCAL_PARTS; i++) {
        struct fit_part *p = &f->part[i];
        int64_t n = mt_local_part_size(s, i);
        p->w = mt_local_part(f->w, i);
        if (p->w == NULL)
            continue;
        /* A bias moves as the weights beside it do. */
        if (i == MT_LOCAL_GATE_BIAS || i == MT_LOCAL_UP_BIAS)
            p->rate = f->part[i - 2].rate;
        else
            p->rate = FIT_RATE * sqrt(mt_kernels_get()->sumsq(p->w, (size_t)n) / (double)n);
        MT_TRY(mt_adam_open(ctx, n, p->rate, &p->adam));
        p->adam.beta2 = FIT_BETA2;
        MT_TRY(mt_alloc(ctx, (size_t)n, sizeof(float), "best weights", &p->best));
    }
    return mt_local_batch_open(ctx, s, size, &f->batch);
}

static void fit_close(struct fit *f)
{
    for (int i = 0; i < MT_LOCAL_PARTS; i++) {
        mt_adam_close(&f->part[i].adam);
        mt_free(f->part[i].best);
    }
    mt_local_batch_close(&f->batch);
}

mt_status mt_local_fit(struct mt_ctx *ctx, const struct mt_local_shape *s,
                       struct mt_local_tokens *tokens, int epochs, uint64_t stream,
                       struct mt_local_weights *w, struct mt_local_told *told)
{
    struct fit f = {.w = w, .tokens = tokens};

    *told = (struct mt_local_told){.before = NAN, .after = NAN};
    /* Nothing to learn from, or nothing to judge by. */
    if (tokens->put < tokens->n_tokens || tokens->n_fit == 0 || tokens->n_held == 0 ||
        !(tokens->energy > 0) || !isfinite(tokens->energy))
        return MT_OK;
    f.energy = tokens->energy / (double)tokens->n_fit;
    mt_status st = fit_open(ctx, &f, s);
    if (st == MT_OK) {
        mt_progress_begin(ctx, "refit", "tokens", (uint64_t)tokens->n_fit * (uint64_t)epochs);
        st = fit_run(ctx, &f, epochs, stream, told);
        mt_progress_end(ctx);
    }
    fit_close(&f);
    return st;
}

void mt_local_tell(const struct mt_local_told *told, struct mt_refit_numbers *out)
{
    if (isnan(told->before))
        return;
    out->trained = true;
    out->down = out->after;
    out->epoch = told->epoch;
    if (told->epoch == 0)
        return;
    out->after = told->after;
    out->reverted = false;
}
