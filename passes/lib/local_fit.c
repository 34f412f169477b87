#include "passes/lib/local_fit.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/base/rng.h"
#include "lib/train/adam.h"
#include "passes/lib/local_tokens.h"

#include <math.h>
#include <string.h>

#define FIT_RATE 0.02     /* of the first steps, times the standard deviation of each matrix */
#define FIT_RATE_END 0.01 /* of the last step, times that */
#define FIT_BETA2 0.99    /* a run is a few hundred steps */
#define FIT_STEPS_MIN 32  /* of an epoch: batches are smaller where there are few tokens */
#define FIT_BATCH 512
#define FIT_BATCH_MIN 32
#define FIT_ROWS 32 /* tokens per job */

/* One array that is trained. */
struct fit_part {
    float *w, *best; /* best: a copy of the best state so far */
    double rate;
    struct mt_adam adam;
};
enum { FIT_GATE, FIT_UP, FIT_GATE_BIAS, FIT_UP_BIAS, FIT_DOWN, FIT_PARTS };

struct fit {
    struct mt_local_shape shape;
    int64_t n, batch;
    const struct mt_local_tokens *tokens;
    struct fit_part part[FIT_PARTS]; /* w NULL: not there */
    double energy;                   /* mean |y|^2 of what is trained on */
    float *grad;                     /* [n, hidden] of one matrix */
    float *room;                     /* what the next ones are cut from */

    /* The batch at hand: x, y [m, hidden]; zg, zu, h, dh [m, n]. y becomes the error. */
    int64_t m;
    float *x, *y, *zg, *zu, *h, *dh;
    unsigned char *picked;
};

static float *fit_w(const struct fit *f, int part)
{
    return f->part[part].w;
}

uint64_t mt_local_fit_bytes(const struct mt_local_shape *s)
{
    uint64_t n = (uint64_t)mt_local_columns(s), d = (uint64_t)s->hidden;

    /* Weights, best state, moments, a gradient; a batch. */
    return (s->gated ? 3 : 2) * n * d * 16 + n * d * 4 + n * 40 +
           FIT_BATCH * ((2 * d + 4 * n) * 4 + (uint64_t)s->n_experts);
}

/* ---- forward ---- */

/* Zero in v[n] of one token what may not act for it. */
static void fit_mask(const struct fit *f, const unsigned char *picked, float *v)
{
    const struct mt_local_shape *s = &f->shape;

    for (int e = 0; e < s->n_experts; e++)
        if (picked[e] == 0)
            memset(v + s->shared + e * s->expert_width, 0, (size_t)s->expert_width * sizeof(*v));
}

static void fit_add_row(float *to, const float *bias, int64_t n)
{
    if (bias != NULL)
        mt_kernels_get()->axpy(to, 1, bias, (size_t)n);
}

static mt_status fit_act_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct fit *f = arg;
    size_t n = (size_t)f->n;

    (void)ctx;
    for (int64_t t = job * FIT_ROWS; t < f->m && t < (job + 1) * FIT_ROWS; t++) {
        float *zg = f->zg + t * f->n, *zu = f->zu + t * f->n, *h = f->h + t * f->n;
        fit_add_row(zu, fit_w(f, FIT_UP_BIAS), f->n);
        if (f->shape.gated) {
            fit_add_row(zg, fit_w(f, FIT_GATE_BIAS), f->n);
            mt_kernels_get()->act_mul(f->shape.act, h, zg, zu, n);
        } else {
            mt_kernels_get()->act_mul(f->shape.act, h, zu, NULL, n);
        }
        fit_mask(f, f->picked + t * f->shape.n_experts, h);
    }
    return MT_OK;
}

static int64_t fit_jobs(const struct fit *f)
{
    return (f->m + FIT_ROWS - 1) / FIT_ROWS;
}

/* y = (what the neurons give) - y */
static mt_status fit_forward(struct mt_ctx *ctx, struct fit *f)
{
    int64_t d = f->shape.hidden;

    if (f->shape.gated)
        MT_TRY(mt_gemm_nt(ctx, f->m, f->n, d, 1, f->x, d, fit_w(f, FIT_GATE), d, 0, f->zg, f->n));
    MT_TRY(mt_gemm_nt(ctx, f->m, f->n, d, 1, f->x, d, fit_w(f, FIT_UP), d, 0, f->zu, f->n));
    MT_TRY(mt_pool_run(ctx, fit_jobs(f), fit_act_job, f));
    return mt_gemm_nt(ctx, f->m, d, f->n, 1, f->h, f->n, fit_w(f, FIT_DOWN), f->n, -1, f->y, d);
}

static double fit_square(const struct fit *f, const float *v)
{
    return mt_kernels_get()->sumsq(v, (size_t)(f->m * f->shape.hidden));
}

/* |y' - y|^2 / |y|^2 of the tokens that are held out. */
static mt_status fit_check(struct mt_ctx *ctx, struct fit *f, double *error)
{
    const struct mt_local_tokens *k = f->tokens;
    double sum = 0, all = 0;

    for (int64_t at = 0; at < k->n_held; at += f->batch) {
        f->m = k->n_held - at < f->batch ? k->n_held - at : f->batch;
        MT_TRY(mt_local_tokens_get(ctx, k, true, at, f->m, f->x, f->y, f->picked));
        all += fit_square(f, f->y);
        MT_TRY(fit_forward(ctx, f));
        sum += fit_square(f, f->y);
        MT_TRY(mt_check_cancel(ctx));
    }
    *error = all > 0 ? sum / all : NAN;
    return MT_OK;
}

/* ---- backward ---- */

static mt_status fit_back_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct fit *f = arg;
    size_t n = (size_t)f->n;

    (void)ctx;
    for (int64_t t = job * FIT_ROWS; t < f->m && t < (job + 1) * FIT_ROWS; t++) {
        float *zg = f->zg + t * f->n, *zu = f->zu + t * f->n, *dh = f->dh + t * f->n;
        fit_mask(f, f->picked + t * f->shape.n_experts, dh);
        if (f->shape.gated)
            mt_kernels_get()->act_grad(f->shape.act, zg, zu, zg, zu, dh, n);
        else
            mt_kernels_get()->act_grad(f->shape.act, zu, NULL, zu, NULL, dh, n);
    }
    return MT_OK;
}

struct fit_step {
    struct fit_part *p;
    const float *g;
    struct mt_adam_step by;
};

#define FIT_STEP_BLOCK 16384 /* parameters per job */

static mt_status fit_step_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct fit_step *s = arg;
    const struct mt_adam *a = &s->p->adam;
    int64_t from = job * FIT_STEP_BLOCK;
    int64_t n = a->n - from < FIT_STEP_BLOCK ? a->n - from : FIT_STEP_BLOCK;

    (void)ctx;
    mt_kernels_get()->adam(&s->by, s->p->w + from, a->m1 + from, a->m2 + from, s->g + from,
                           (size_t)n);
    return MT_OK;
}

static mt_status fit_step(struct mt_ctx *ctx, struct fit *f, int part, double fade)
{
    struct fit_step s = {.p = &f->part[part], .g = f->grad};

    s.p->adam.rate = s.p->rate * fade;
    s.by = mt_adam_next(&s.p->adam);
    return mt_pool_run(ctx, (s.p->adam.n + FIT_STEP_BLOCK - 1) / FIT_STEP_BLOCK, fit_step_job, &s);
}

/* grad[n] = sum over tokens of z[m, n] */
static void fit_sum_rows(struct fit *f, const float *z)
{
    memset(f->grad, 0, (size_t)f->n * sizeof(*f->grad));
    for (int64_t t = 0; t < f->m; t++)
        mt_kernels_get()->axpy(f->grad, 1, z + t * f->n, (size_t)f->n);
}

/* The rows of one matrix and its bias, by the gradients z[m, n] of what they give. */
static mt_status fit_step_rows(struct mt_ctx *ctx, struct fit *f, int matrix, int bias,
                               const float *z, double fade)
{
    int64_t d = f->shape.hidden;

    if (fit_w(f, matrix) == NULL)
        return MT_OK;
    MT_TRY(mt_gemm_tn(ctx, f->n, d, f->m, 1, z, f->n, f->x, d, 0, f->grad, d));
    MT_TRY(fit_step(ctx, f, matrix, fade));
    if (fit_w(f, bias) == NULL)
        return MT_OK;
    fit_sum_rows(f, z);
    return fit_step(ctx, f, bias, fade);
}

/* One batch, whose error is in y: of the loss sum |y' - y|^2 / (m energy). */
static mt_status fit_backward(struct mt_ctx *ctx, struct fit *f, double fade)
{
    float by = (float)(2 / ((double)f->m * f->energy));
    int64_t d = f->shape.hidden;

    MT_TRY(mt_gemm_nn(ctx, f->m, f->n, d, by, f->y, d, fit_w(f, FIT_DOWN), f->n, 0, f->dh, f->n));
    MT_TRY(mt_gemm_tn(ctx, d, f->n, f->m, by, f->y, d, f->h, f->n, 0, f->grad, f->n));
    MT_TRY(fit_step(ctx, f, FIT_DOWN, fade));
    MT_TRY(mt_pool_run(ctx, fit_jobs(f), fit_back_job, f));
    MT_TRY(fit_step_rows(ctx, f, FIT_GATE, FIT_GATE_BIAS, f->zg, fade));
    return fit_step_rows(ctx, f, FIT_UP, FIT_UP_BIAS, f->zu, fade);
}

/* ---- run ---- */

static void fit_keep(struct fit *f)
{
    for (int i = 0; i < FIT_PARTS; i++)
        if (f->part[i].w != NULL)
            memcpy(f->part[i].best, f->part[i].w,
                   (size_t)f->part[i].adam.n * sizeof(*f->part[i].w));
}

static void fit_put_back(struct fit *f)
{
    for (int i = 0; i < FIT_PARTS; i++)
        if (f->part[i].w != NULL)
            memcpy(f->part[i].w, f->part[i].best,
                   (size_t)f->part[i].adam.n * sizeof(*f->part[i].w));
}

static mt_status fit_epoch(struct mt_ctx *ctx, struct fit *f, int epoch, int epochs)
{
    const struct mt_local_tokens *k = f->tokens;
    double done, pi = 3.14159265358979323846;

    for (int64_t at = 0; at < k->n_fit; at += f->batch) {
        f->m = k->n_fit - at < f->batch ? k->n_fit - at : f->batch;
        done = (epoch + (double)at / (double)k->n_fit) / epochs;
        MT_TRY(mt_local_tokens_get(ctx, k, false, at, f->m, f->x, f->y, f->picked));
        MT_TRY(fit_forward(ctx, f));
        MT_TRY(fit_backward(ctx, f, fmax(FIT_RATE_END, 0.5 * (1 + cos(pi * done)))));
        mt_progress_add(ctx, (uint64_t)f->m);
        MT_TRY(mt_check_cancel(ctx));
    }
    return MT_OK;
}

static mt_status fit_epochs(struct mt_ctx *ctx, struct fit *f, struct mt_local_tokens *k,
                            int epochs, uint64_t stream, struct mt_local_told *told)
{
    struct mt_rng rng;
    double error;

    mt_rng_seed(&rng, mt_ctx_seed(ctx), stream);
    MT_TRY(fit_check(ctx, f, &told->before));
    told->after = told->before;
    fit_keep(f);
    for (int epoch = 0; epoch < epochs; epoch++) {
        k->order = mt_rng_u64(&rng);
        MT_TRY(fit_epoch(ctx, f, epoch, epochs));
        MT_TRY(fit_check(ctx, f, &error));
        if (!(error < told->after))
            continue;
        told->after = error;
        told->epoch = epoch + 1;
        fit_keep(f);
    }
    if (told->epoch != epochs)
        fit_put_back(f);
    return MT_OK;
}

static double fit_deviation(const float *w, int64_t n)
{
    double sum = mt_kernels_get()->sumsq(w, (size_t)n);

    return n > 0 ? sqrt(sum / (double)n) : 0;
}

static mt_status fit_open(struct mt_ctx *ctx, struct fit *f, const struct mt_local_weights *w)
{
    int64_t d = f->shape.hidden, n = f->n;
    float *const arrays[FIT_PARTS] = {w->gate, w->up, w->gate_bias, w->up_bias, w->down};
    size_t b = (size_t)f->batch;

    for (int i = 0; i < FIT_PARTS; i++) {
        struct fit_part *p = &f->part[i];
        bool bias = i == FIT_GATE_BIAS || i == FIT_UP_BIAS;
        if (arrays[i] == NULL)
            continue;
        p->w = arrays[i];
        /* A bias moves as the weights beside it do. */
        p->rate = bias ? f->part[i - FIT_GATE_BIAS].rate : FIT_RATE * fit_deviation(p->w, n * d);
        MT_TRY(mt_adam_open(ctx, bias ? n : n * d, p->rate, &p->adam));
        p->adam.beta2 = FIT_BETA2;
        MT_TRY(mt_alloc(ctx, (size_t)p->adam.n, sizeof(float), "best weights", &p->best));
    }
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)d * sizeof(float), "gradient", &f->grad));
    MT_TRY(mt_alloc(ctx, b, (size_t)(2 * d + 4 * n) * sizeof(float), "a batch", &f->room));
    f->x = f->room;
    f->y = f->x + (int64_t)b * d;
    f->zg = f->y + (int64_t)b * d;
    f->zu = f->zg + (int64_t)b * n;
    f->h = f->zu + (int64_t)b * n;
    f->dh = f->h + (int64_t)b * n;
    return mt_alloc(ctx, b, (size_t)f->shape.n_experts + 1, "choices", &f->picked);
}

static void fit_close(struct fit *f)
{
    for (int i = 0; i < FIT_PARTS; i++) {
        mt_adam_close(&f->part[i].adam);
        mt_free(f->part[i].best);
    }
    mt_free(f->grad);
    mt_free(f->room);
    mt_free(f->picked);
}

mt_status mt_local_fit(struct mt_ctx *ctx, const struct mt_local_shape *s,
                       struct mt_local_tokens *k, int epochs, uint64_t stream,
                       struct mt_local_weights *w, struct mt_local_told *told)
{
    struct fit f = {.shape = *s, .n = mt_local_columns(s), .tokens = k, .batch = FIT_BATCH};

    *told = (struct mt_local_told){
        .tokens = k->n_fit, .held_out = k->n_held, .before = NAN, .after = NAN};
    /* Nothing to learn from, or nothing to judge by. */
    if (k->n_fit == 0 || k->n_held == 0 || k->put < k->n_tokens || !(k->energy > 0) ||
        !isfinite(k->energy))
        return MT_OK;
    f.energy = k->energy / (double)k->n_fit;
    while (f.batch > FIT_BATCH_MIN && k->n_fit / f.batch < FIT_STEPS_MIN)
        f.batch /= 2;
    mt_status st = fit_open(ctx, &f, w);
    if (st == MT_OK) {
        mt_progress_begin(ctx, "refit", "tokens", (uint64_t)k->n_fit * (uint64_t)epochs);
        st = fit_epochs(ctx, &f, k, epochs, stream, told);
        mt_progress_end(ctx);
    }
    fit_close(&f);
    return st;
}

int64_t mt_local_columns(const struct mt_local_shape *s)
{
    return s->shared + s->n_experts * s->expert_width;
}

void mt_local_tell(const struct mt_local_told *told, struct mt_refit_numbers *out)
{
    out->trained = true;
    out->down = out->after;
    out->epoch = told->epoch;
    if (told->epoch == 0)
        return;
    out->after = told->after;
    out->reverted = false;
}
