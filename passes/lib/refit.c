#include "passes/lib/refit.h"

#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

#define REFIT_BLOCK 1024 /* tokens per product */
#define REFIT_CHUNK 256  /* tokens held out together */
#define REFIT_EVERY 10   /* one chunk in so many is held out */
#define REFIT_CHECK 512  /* tokens per check */

static const double refit_lambdas[MT_REFIT_N_LAMBDAS] = MT_REFIT_LAMBDAS;

struct mt_refit {
    int64_t n, d, tokens, held_out;
    bool residual;                    /* cross is R already, without V's part */
    double *gram;                     /* [n, n]; freed by solve */
    double *cross;                    /* [n, d]; freed by solve */
    float *w[1 + MT_REFIT_N_LAMBDAS]; /* [d, n]: V, then a solution for each lambda */
    double error[1 + MT_REFIT_N_LAMBDAS], energy;
};

uint64_t mt_refit_bytes(uint64_t n, uint64_t d)
{
    return n * n * 8 + 2 * n * d * 8 + (1 + MT_REFIT_N_LAMBDAS) * n * d * 4 + REFIT_BLOCK * n * 4 +
           REFIT_CHECK * d * 4;
}

mt_status mt_refit_create(struct mt_ctx *ctx, int64_t n, int64_t d, float *prior,
                          struct mt_refit **out)
{
    struct mt_refit *r = NULL;

    *out = NULL;
    mt_status st = mt_alloc0(ctx, 1, sizeof(*r), "refit", &r);
    if (st != MT_OK) {
        mt_free(prior);
        return st;
    }
    r->n = n;
    r->d = d;
    r->w[0] = prior;
    *out = r;
    return MT_OK;
}

void mt_refit_free(struct mt_refit *r)
{
    if (r == NULL)
        return;
    mt_free(r->gram);
    mt_free(r->cross);
    for (int i = 0; i <= MT_REFIT_N_LAMBDAS; i++)
        mt_free(r->w[i]);
    mt_free(r);
}

static int64_t refit_chunk(int64_t n_tokens)
{
    int64_t chunk = n_tokens / (2 * REFIT_EVERY);

    if (chunk > REFIT_CHUNK)
        chunk = REFIT_CHUNK;
    return chunk < 1 ? 1 : chunk;
}

/* Every period of chunks ends with the one that is held out. */
int64_t mt_refit_count_held(int64_t n_tokens)
{
    int64_t chunk = refit_chunk(n_tokens), period = chunk * REFIT_EVERY;
    int64_t rest = n_tokens % period - (period - chunk);

    return n_tokens / period * chunk + (rest > 0 ? rest : 0);
}

int64_t mt_refit_held_token(int64_t i, int64_t n_tokens)
{
    int64_t chunk = refit_chunk(n_tokens);

    return (i / chunk + 1) * chunk * REFIT_EVERY - chunk + i % chunk;
}

int64_t mt_refit_fit_token(int64_t i, int64_t n_tokens)
{
    int64_t part = refit_chunk(n_tokens) * (REFIT_EVERY - 1);

    return i + i / part * (part / (REFIT_EVERY - 1));
}

bool mt_refit_held_out(int64_t t, int64_t n_tokens, int64_t *run)
{
    int64_t chunk = refit_chunk(n_tokens);

    /* A period of chunks ends with the one that is held out. */
    int64_t period = chunk * REFIT_EVERY, at = t % period, kept = period - chunk;

    *run = at < kept ? kept - at : period - at;
    return at >= kept;
}

mt_status mt_refit_add(struct mt_ctx *ctx, struct mt_refit *r, int64_t m, const float *h,
                       const float *y)
{
    size_t n = (size_t)r->n, d = (size_t)r->d;

    if (r->gram == NULL)
        MT_TRY(mt_alloc0(ctx, n, n * sizeof(double), "refit", &r->gram));
    if (r->cross == NULL)
        MT_TRY(mt_alloc0(ctx, n, d * sizeof(double), "refit", &r->cross));
    for (int64_t t = 0; t < m; t += REFIT_BLOCK) {
        int64_t b = m - t < REFIT_BLOCK ? m - t : REFIT_BLOCK;
        MT_TRY(mt_gram_add(ctx, b, r->n, h + t * r->n, r->n, r->gram));
        MT_TRY(mt_cross_add(ctx, b, r->n, r->d, h + t * r->n, r->n, y + t * r->d, r->d, r->cross));
    }
    r->tokens += m;
    return MT_OK;
}

void mt_refit_put(struct mt_refit *r, int64_t tokens, double *gram, double *residual)
{
    mt_free(r->gram);
    mt_free(r->cross);
    r->gram = gram;
    r->cross = residual;
    r->residual = true;
    r->tokens = tokens;
}

/* ---- solve ---- */

struct refit_write {
    const struct mt_refit *r;
    const double *solved; /* [n, d] */
    float *w;             /* [d, n] */
};

static mt_status refit_write_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct refit_write *j = arg;
    const struct mt_refit *r = j->r;

    (void)ctx;
    for (int64_t c = 0; c < r->n; c++)
        j->w[i * r->n + c] = (float)((double)r->w[0][i * r->n + c] + j->solved[c * r->d + i]);
    return MT_OK;
}

static mt_status refit_solve_one(struct mt_ctx *ctx, struct mt_refit *r, int which, double mean,
                                 double *work)
{
    struct refit_write j = {r, work, NULL};

    memcpy(work, r->cross, (size_t)(r->n * r->d) * sizeof(*work));
    MT_TRY(mt_ridge_solve(ctx, r->n, r->d, r->gram, refit_lambdas[which] * mean, work));
    MT_TRY(mt_alloc(ctx, (size_t)r->d, (size_t)r->n * sizeof(float), "refitted weights",
                    &r->w[1 + which]));
    j.w = r->w[1 + which];
    return mt_pool_run(ctx, r->d, refit_write_job, &j);
}

static mt_status refit_solve_all(struct mt_ctx *ctx, struct mt_refit *r, double *diagonal,
                                 double *work)
{
    double trace = 0;

    for (int64_t i = 0; i < r->n && r->gram != NULL; i++) {
        diagonal[i] = r->gram[i * r->n + i];
        trace += diagonal[i];
    }
    /* Nothing acted, or not finite: V stays. */
    if (r->gram == NULL || !(trace > 0) || !isfinite(trace))
        return MT_OK;
    if (!r->residual)
        MT_TRY(mt_normal_residual(ctx, r->n, r->n, r->d, r->gram, r->w[0], r->cross));
    for (int which = 0; which < MT_REFIT_N_LAMBDAS; which++) {
        for (int64_t i = 0; i < r->n; i++)
            r->gram[i * r->n + i] = diagonal[i];
        MT_TRY(refit_solve_one(ctx, r, which, trace / (double)r->n, work));
    }
    return MT_OK;
}

mt_status mt_refit_solve(struct mt_ctx *ctx, struct mt_refit *r)
{
    double *work = NULL, *diagonal = NULL;
    mt_status st =
        mt_alloc(ctx, (size_t)r->n, (size_t)r->d * sizeof(*work), "refitted weights", &work);

    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)r->n, sizeof(*diagonal), "refit", &diagonal);
    if (st == MT_OK)
        st = mt_wrap(ctx, refit_solve_all(ctx, r, diagonal, work), "refit");
    mt_free(work);
    mt_free(diagonal);
    mt_free(r->gram);
    mt_free(r->cross);
    r->gram = r->cross = NULL;
    return st;
}

/* ---- held-out error ---- */

struct refit_rows {
    int64_t d;
    const float *a, *b; /* [m, d]; b NULL: zeros */
    double *sum;        /* [m] */
};

static mt_status refit_rows_job(struct mt_ctx *ctx, int64_t t, void *arg)
{
    const struct refit_rows *j = arg;
    double sum = 0;

    (void)ctx;
    for (int64_t i = 0; i < j->d; i++) {
        double v = (double)j->a[t * j->d + i] - (j->b != NULL ? (double)j->b[t * j->d + i] : 0);
        sum += v * v;
    }
    j->sum[t] = sum;
    return MT_OK;
}

/* *total += sum of |a - b|^2 over m rows, added in their order. */
static mt_status refit_distance(struct mt_ctx *ctx, int64_t m, int64_t d, const float *a,
                                const float *b, double *sum, double *total)
{
    struct refit_rows j = {d, a, b, sum};

    MT_TRY(mt_pool_run(ctx, m, refit_rows_job, &j));
    for (int64_t t = 0; t < m; t++)
        *total += sum[t];
    return MT_OK;
}

static mt_status refit_check_block(struct mt_ctx *ctx, struct mt_refit *r, int64_t m,
                                   const float *h, const float *y, float *out, double *sum)
{
    MT_TRY(refit_distance(ctx, m, r->d, y, NULL, sum, &r->energy));
    for (int i = 0; i <= MT_REFIT_N_LAMBDAS; i++) {
        if (r->w[i] == NULL)
            continue;
        MT_TRY(mt_gemm_nt(ctx, m, r->d, r->n, 1, h, r->n, r->w[i], r->n, 0, out, r->d));
        MT_TRY(refit_distance(ctx, m, r->d, out, y, sum, &r->error[i]));
    }
    return MT_OK;
}

mt_status mt_refit_check(struct mt_ctx *ctx, struct mt_refit *r, int64_t m, const float *h,
                         const float *y)
{
    double *sum;

    MT_TRY(mt_alloc(ctx, REFIT_CHECK, sizeof(double) + (size_t)r->d * sizeof(float), "refit check",
                    &sum));
    float *out = (void *)(sum + REFIT_CHECK);
    mt_status st = MT_OK;
    for (int64_t t = 0; t < m && st == MT_OK; t += REFIT_CHECK) {
        int64_t b = m - t < REFIT_CHECK ? m - t : REFIT_CHECK;
        st = refit_check_block(ctx, r, b, h + t * r->n, y + t * r->d, out, sum);
    }
    mt_free(sum);
    r->held_out += m;
    return st;
}

void mt_refit_choose(struct mt_refit *r, float **down, struct mt_refit_numbers *told)
{
    int best = 0;

    /* Without tokens to judge by, the most cautious solution. */
    if (r->held_out == 0 && r->w[MT_REFIT_N_LAMBDAS] != NULL)
        best = MT_REFIT_N_LAMBDAS;
    for (int i = 1; i <= MT_REFIT_N_LAMBDAS; i++)
        if (r->w[i] != NULL && r->error[i] < r->error[best])
            best = i;
    *told = (struct mt_refit_numbers){.tokens = r->tokens,
                                      .held_out = r->held_out,
                                      .before = NAN,
                                      .after = NAN,
                                      .lambda = best > 0 ? refit_lambdas[best - 1] : NAN,
                                      .reverted = best == 0};
    if (r->energy > 0) {
        told->before = r->error[0] / r->energy;
        told->after = r->error[best] / r->energy;
    }
    *down = best > 0 ? r->w[best] : NULL;
    if (best > 0)
        r->w[best] = NULL;
}

float *mt_refit_take_prior(struct mt_refit *r)
{
    float *prior = r->w[0];

    r->w[0] = NULL;
    return prior;
}
