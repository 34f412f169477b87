#include "passes/lib/obs.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

#define OBS_ROWS 32 /* features per job */

/* Features stay where they are; gone ones are marked and skipped. */
struct obs {
    int64_t n, d;
    double *p;           /* [n, n] */
    double *w;           /* [n, d] */
    double *score;       /* [n] growth of the error */
    unsigned char *gone; /* [n] */
    int64_t q;           /* the one that goes */
    double *row_p;       /* [n] its row of P over P_qq */
    double *row_w;       /* [d] */
};

uint64_t mt_obs_bytes(uint64_t n, uint64_t d)
{
    return n * n * 8 + n * d * 8 + n * 17 + d * 8;
}

static mt_status obs_load_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct obs *s = arg;

    (void)ctx;
    memset(s->p + i * s->n, 0, (size_t)s->n * sizeof(*s->p));
    s->p[i * s->n + i] = 1;
    return MT_OK;
}

static void obs_score(struct obs *s, int64_t i)
{
    const double *w = s->w + i * s->d;

    s->score[i] = mt_dot_f64(s->d, w, w) / s->p[i * s->n + i];
}

/* Row i of P and W without feature q. P of the features left is the inverse of their Gram matrix.
 */
static mt_status obs_drop_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct obs *s = arg;

    for (int64_t i = job * OBS_ROWS; i < s->n && i < (job + 1) * OBS_ROWS; i++) {
        if (s->gone[i])
            continue;
        double *p = s->p + i * s->n, *w = s->w + i * s->d, at = p[s->q];
        double share = s->row_p[i];
        mt_axpy_f64(s->n, -at, s->row_p, p);
        mt_axpy_f64(s->d, -share, s->row_w, w);
        obs_score(s, i);
    }
    return mt_check_cancel(ctx);
}

static mt_status obs_score_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    (void)ctx;
    obs_score(arg, i);
    return MT_OK;
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
    double pqq = s->p[q * s->n + q];

    s->q = q;
    s->gone[q] = 1;
    for (int64_t j = 0; j < s->n; j++)
        s->row_p[j] = s->p[q * s->n + j] / pqq;
    memcpy(s->row_w, s->w + q * s->d, (size_t)s->d * sizeof(*s->row_w));
    return mt_pool_run(ctx, (s->n + OBS_ROWS - 1) / OBS_ROWS, obs_drop_job, s);
}

static mt_status obs_run(struct mt_ctx *ctx, struct obs *s, double *gram, double lambda,
                         const float *v, int64_t keep)
{
    size_t n = (size_t)s->n, d = (size_t)s->d;

    MT_TRY(mt_alloc(ctx, n, n * sizeof(double), "inverse Gram matrix", &s->p));
    MT_TRY(mt_alloc(ctx, n, d * sizeof(double), "columns", &s->w));
    MT_TRY(mt_alloc(ctx, n, 2 * sizeof(double), "neuron scores", &s->score));
    MT_TRY(mt_alloc(ctx, d, sizeof(double), "columns", &s->row_w));
    MT_TRY(mt_alloc0(ctx, n, 1, "neurons", &s->gone));
    s->row_p = s->score + n;
    MT_TRY(mt_pool_run(ctx, s->n, obs_load_job, s));
    MT_TRY(mt_ridge_solve(ctx, s->n, s->n, gram, lambda, s->p));
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t c = 0; c < s->d; c++)
            s->w[i * s->d + c] = (double)v[c * s->n + i];
    MT_TRY(mt_pool_run(ctx, s->n, obs_score_job, s));
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
    mt_free(s.row_w);
    mt_free(s.gone);
    return st;
}
