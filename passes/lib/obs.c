#include "passes/lib/obs.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

#define OBS_ROWS 64  /* features per job */
#define OBS_BLOCK 32 /* features that go before P and W are brought up to date */

/* Features stay where they are; gone ones are marked and skipped. P and W are as they were at the
 * start of a block; what went since is in the outer products
 *
 *   P_now = P - sum_c pu_c u_c^T,  W_now = W - sum_c u_c gone_w_c^T
 *
 * so that a step reads W once instead of writing all of P and W. Scores are kept by their own
 * recurrences, and computed anew with each block. */
struct obs {
    int64_t n, d;
    double *p;           /* [n, n] */
    double *w;           /* [n, d] */
    double *score;       /* [n] growth of the error */
    double *energy;      /* [n] |w_i|^2 now */
    double *diagonal;    /* [n] of P now */
    unsigned char *gone; /* [n] */

    int64_t n_gone;              /* in this block */
    double *u, *pu;              /* [OBS_BLOCK, n] rows of P over P_qq, and as they were */
    double *gone_w;              /* [OBS_BLOCK, d] */
    double gone_with[OBS_BLOCK]; /* products of the last gone_w with those of the block */
};

uint64_t mt_obs_bytes(uint64_t n, uint64_t d)
{
    return n * n * 8 + n * d * 8 + n * 25 + OBS_BLOCK * (2 * n + d) * 8;
}

static mt_status obs_load_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct obs *s = arg;

    (void)ctx;
    memset(s->p + i * s->n, 0, (size_t)s->n * sizeof(*s->p));
    s->p[i * s->n + i] = 1;
    return MT_OK;
}

/* What features are worth, from P and W themselves. */
static mt_status obs_score_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct obs *s = arg;

    for (int64_t i = job * OBS_ROWS; i < s->n && i < (job + 1) * OBS_ROWS; i++) {
        const double *w = s->w + i * s->d;
        s->energy[i] = mt_dot_f64(s->d, w, w);
        s->diagonal[i] = s->p[i * s->n + i];
        s->score[i] = s->energy[i] / s->diagonal[i];
    }
    return mt_check_cancel(ctx);
}

/* |w_i - u_i w_q|^2 and P_ii without feature q, the last of the block. */
static mt_status obs_drop_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct obs *s = arg;
    int64_t last = s->n_gone - 1;
    const double *u = s->u + last * s->n, *pu = s->pu + last * s->n;
    const double *wq = s->gone_w + last * s->d;

    for (int64_t i = job * OBS_ROWS; i < s->n && i < (job + 1) * OBS_ROWS; i++) {
        if (s->gone[i])
            continue;
        double with = mt_dot_f64(s->d, s->w + i * s->d, wq);
        for (int64_t c = 0; c < last; c++)
            with -= s->u[c * s->n + i] * s->gone_with[c];
        s->energy[i] = fmax(0, s->energy[i] - 2 * u[i] * with + u[i] * u[i] * s->gone_with[last]);
        s->diagonal[i] -= u[i] * pu[i];
        s->score[i] = s->energy[i] / s->diagonal[i];
    }
    return mt_check_cancel(ctx);
}

/* P and W of some rows as they are now. */
static mt_status obs_settle_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct obs *s = arg;
    int64_t i = job * OBS_ROWS, rows = s->n - i < OBS_ROWS ? s->n - i : OBS_ROWS;

    mt_sub_outer_f64(rows, s->n, s->n_gone, s->pu + i, s->n, s->u, s->n, s->p + i * s->n);
    mt_sub_outer_f64(rows, s->d, s->n_gone, s->u + i, s->n, s->gone_w, s->d, s->w + i * s->d);
    return obs_score_job(ctx, job, arg);
}

static int64_t obs_cheapest(const struct obs *s)
{
    int64_t best = -1;

    for (int64_t i = 0; i < s->n; i++)
        if (!s->gone[i] && (best < 0 || s->score[i] < s->score[best]))
            best = i;
    return best;
}

static mt_status obs_drop(struct mt_ctx *ctx, struct obs *s, int64_t q)
{
    int64_t at = s->n_gone, jobs = (s->n + OBS_ROWS - 1) / OBS_ROWS;
    double *u = s->u + at * s->n, *pu = s->pu + at * s->n, *wq = s->gone_w + at * s->d;

    memcpy(pu, s->p + q * s->n, (size_t)s->n * sizeof(*pu));
    memcpy(wq, s->w + q * s->d, (size_t)s->d * sizeof(*wq));
    for (int64_t c = 0; c < at; c++) {
        mt_axpy_f64(s->n, -s->pu[c * s->n + q], s->u + c * s->n, pu);
        mt_axpy_f64(s->d, -s->u[c * s->n + q], s->gone_w + c * s->d, wq);
    }
    for (int64_t j = 0; j < s->n; j++)
        u[j] = pu[j] / pu[q];
    for (int64_t c = 0; c <= at; c++)
        s->gone_with[c] = mt_dot_f64(s->d, s->gone_w + c * s->d, wq);
    s->gone[q] = 1;
    s->n_gone++;
    if (s->n_gone < OBS_BLOCK)
        return mt_pool_run(ctx, jobs, obs_drop_job, s);
    MT_TRY(mt_pool_run(ctx, jobs, obs_settle_job, s));
    s->n_gone = 0;
    return MT_OK;
}

static mt_status obs_run(struct mt_ctx *ctx, struct obs *s, double *gram, double lambda,
                         const float *v, int64_t keep)
{
    size_t n = (size_t)s->n, d = (size_t)s->d;

    MT_TRY(mt_alloc(ctx, n, n * sizeof(double), "inverse Gram matrix", &s->p));
    MT_TRY(mt_alloc(ctx, n, d * sizeof(double), "columns", &s->w));
    MT_TRY(mt_alloc(ctx, n, 3 * sizeof(double), "neuron scores", &s->score));
    MT_TRY(mt_alloc(ctx, OBS_BLOCK, (2 * n + d) * sizeof(double), "columns", &s->u));
    MT_TRY(mt_alloc0(ctx, n, 1, "neurons", &s->gone));
    s->energy = s->score + n;
    s->diagonal = s->energy + n;
    s->pu = s->u + OBS_BLOCK * n;
    s->gone_w = s->pu + OBS_BLOCK * n;
    MT_TRY(mt_pool_run(ctx, s->n, obs_load_job, s));
    MT_TRY(mt_ridge_solve(ctx, s->n, s->n, gram, lambda, s->p));
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t c = 0; c < s->d; c++)
            s->w[i * s->d + c] = (double)v[c * s->n + i];
    MT_TRY(mt_pool_run(ctx, (s->n + OBS_ROWS - 1) / OBS_ROWS, obs_score_job, s));
    for (int64_t left = s->n; left > keep; left--)
        MT_TRY(obs_drop(ctx, s, obs_cheapest(s)));
    return MT_OK;
}

mt_status mt_obs_keep(struct mt_ctx *ctx, int64_t n, int64_t d, double *gram, double lambda,
                      const float *v, int64_t keep, int32_t *kept)
{
    struct obs s = {.n = n, .d = d};
    int64_t at = 0;

    for (int64_t i = 0; i < n; i++)
        if (!isfinite(gram[i * n + i]))
            return mt_fail(ctx, MT_E_NUMERIC,
                           "activations are NaN or infinite, so neurons cannot be ranked by them");
    mt_status st = obs_run(ctx, &s, gram, lambda, v, keep);
    for (int64_t i = 0; st == MT_OK && i < n; i++)
        if (!s.gone[i])
            kept[at++] = (int32_t)i;
    mt_free(s.p);
    mt_free(s.w);
    mt_free(s.score);
    mt_free(s.u);
    mt_free(s.gone);
    return st;
}
