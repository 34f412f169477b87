#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/lib/obs.h"
#include "passes/lib/refit.h"
#include "passes/prune/prune.h"

#include <math.h>
#include <string.h>

#define FIT_OBS_LAMBDA 1e-4 /* times the mean diagonal of the Gram matrix */
#define FIT_BLOCK 512       /* tokens per check */

struct prune_fit {
    double *gram;      /* [width, width] */
    double *diagonal;  /* [width] of it: eliminations overwrite all but the strict upper triangle */
    double *sum;       /* [width] of h */
    double *drift;     /* [width, hidden] of h with the drift; NULL: none was shown */
    double *sum_drift; /* [hidden] */
    int64_t tokens;
    float *v;                      /* [hidden, width] */
    struct mt_refit *refit;        /* after solve */
    struct mt_local_tokens *aside; /* of refit all */
};

static struct mt_local_shape fit_shape(const struct prune *s)
{
    const struct mt_ffn *ffn = &s->src->ffn[0];

    return (struct mt_local_shape){.hidden = s->hidden,
                                   .shared = s->keep,
                                   .gated = ffn->gated,
                                   .act = ffn->act,
                                   .glu_limit = ffn->glu_limit};
}

static int64_t fit_columns(const struct prune *s)
{
    return s->keep + (s->o.refit == PRUNE_REFIT_BIAS ? 1 : 0);
}

/* What one step or another takes, beside none of the others. */
struct fit_needs {
    uint64_t sums; /* with the larger of obs and refit */
    uint64_t obs, refit, train;
};

static struct fit_needs fit_needs(const struct prune *s)
{
    uint64_t w = (uint64_t)s->width, d = (uint64_t)s->hidden, n = (uint64_t)fit_columns(s);
    const struct mt_local_shape shape = fit_shape(s);
    struct fit_needs v = {0};

    if (s->o.select == PRUNE_OBS)
        v.obs = mt_obs_bytes(w, d);
    if (prune_refits(s))
        v.refit =
            n * w * 8 + n * d * 8 + w * d * 4 + mt_refit_bytes(n, d) + FIT_BLOCK * (n + d) * 4;
    if (s->o.refit == PRUNE_REFIT_ALL)
        v.train = mt_local_fit_bytes(&shape);
    v.sums = w * w * 8 + w * 16 + w * d * (s->o.drift > 0 ? 12 : 4) +
             (v.obs > v.refit ? v.obs : v.refit);
    return v;
}

uint64_t prune_fit_bytes(const struct prune *s)
{
    const struct fit_needs v = fit_needs(s);

    return (v.train > v.sums ? v.train : v.sums) +
           (s->o.refit == PRUNE_REFIT_ALL ? mt_local_tokens_bytes(s->hidden, 0) : 0);
}

const char *prune_fit_spare(const struct prune *s)
{
    const struct fit_needs v = fit_needs(s);

    if (v.train > v.sums)
        return "--refit down";
    return v.refit > v.obs ? "--refit none" : NULL;
}

static mt_status fit_create(struct mt_ctx *ctx, const struct prune *s, struct prune_fit **out)
{
    size_t w = (size_t)s->width;
    struct prune_fit *f;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*f), "pruning fit", &f));
    *out = f;
    MT_TRY(mt_alloc0(ctx, w, sizeof(double), "pruning fit", &f->diagonal));
    MT_TRY(mt_alloc0(ctx, w, sizeof(double), "pruning fit", &f->sum));
    return mt_alloc0(ctx, w, w * sizeof(double), "Gram matrix of neurons", &f->gram);
}

void prune_fit_free(struct prune_fit *f)
{
    if (f == NULL)
        return;
    mt_free(f->gram);
    mt_free(f->diagonal);
    mt_free(f->sum);
    mt_free(f->drift);
    mt_free(f->sum_drift);
    mt_free(f->v);
    mt_refit_free(f->refit);
    mt_local_tokens_close(f->aside);
    mt_free(f);
}

static mt_status fit_add_drift(struct mt_ctx *ctx, struct prune *s, int64_t m, const float *h,
                               const float *drift)
{
    size_t w = (size_t)s->width, d = (size_t)s->hidden;
    struct prune_fit *f = s->fit;

    if (f->drift == NULL)
        MT_TRY(mt_alloc0(ctx, w, d * sizeof(double), "drift", &f->drift));
    if (f->sum_drift == NULL)
        MT_TRY(mt_alloc0(ctx, d, sizeof(double), "drift", &f->sum_drift));
    struct mt_neuron_sums sums = {.width = s->hidden, .plain = f->sum_drift};
    MT_TRY(mt_neuron_sums_add(ctx, &sums, m, drift));
    return mt_cross_add(ctx, m, s->width, s->hidden, h, s->width, drift, s->hidden, f->drift);
}

mt_status prune_fit_add(struct mt_ctx *ctx, struct prune *s, const struct mt_observation *ob)
{
    int64_t run;

    if (s->fit == NULL)
        MT_TRY(fit_create(ctx, s, &s->fit));
    for (int64_t t = 0; t < ob->m; t += run) {
        bool held_out = mt_refit_held_out(ob->token0 + t, ob->n_tokens, &run);
        run = run < ob->m - t ? run : ob->m - t;
        if (held_out)
            continue;
        struct mt_neuron_sums sums = {.width = s->width, .plain = s->fit->sum};
        MT_TRY(mt_neuron_sums_add(ctx, &sums, run, ob->h + t * s->width));
        MT_TRY(mt_gram_add(ctx, run, s->width, ob->h + t * s->width, s->width, s->fit->gram));
        if (ob->drift != NULL)
            MT_TRY(fit_add_drift(ctx, s, run, ob->h + t * s->width, ob->drift + t * s->hidden));
        s->fit->tokens += run;
    }
    return MT_OK;
}

/* The down projection, and the Gram matrix's diagonal before anything overwrites it. */
static mt_status fit_ready(struct mt_ctx *ctx, struct prune *s, const struct mt_dense_ffn *f)
{
    if (s->fit->v != NULL)
        return MT_OK;
    for (int64_t i = 0; i < s->width; i++)
        s->fit->diagonal[i] = s->fit->gram[i * s->width + i];
    return mt_tensor_load_f32(ctx, f->down, &s->fit->v);
}

mt_status prune_fit_choose(struct mt_ctx *ctx, struct prune *s, const struct mt_dense_ffn *f,
                           int32_t *kept)
{
    double trace = 0;

    MT_TRY(fit_ready(ctx, s, f));
    for (int64_t i = 0; i < s->width; i++)
        trace += s->fit->diagonal[i];
    return mt_obs_keep(ctx, s->width, s->hidden, s->fit->gram,
                       FIT_OBS_LAMBDA * trace / (double)s->width, s->fit->v, s->keep, kept);
}

/* ---- refit ---- */

static double fit_pair(const struct prune_fit *f, int64_t width, int64_t i, int64_t j)
{
    if (i == j)
        return f->diagonal[i];
    return i < j ? f->gram[i * width + j] : f->gram[j * width + i];
}

struct fit_build {
    const struct prune *s;
    int64_t n;
    double *rows; /* [n, width]: pairs of kept features (and the constant one) with all neurons */
    double *gram; /* [n, n] */
};

static mt_status fit_build_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct fit_build *b = arg;
    const struct prune *s = b->s;
    const struct prune_fit *f = s->fit;

    (void)ctx;
    for (int64_t j = 0; j < s->width; j++)
        b->rows[i * s->width + j] = i < s->keep ? fit_pair(f, s->width, s->kept[i], j) : f->sum[j];
    for (int64_t j = 0; j < b->n; j++)
        b->gram[i * b->n + j] = j < s->keep   ? b->rows[i * s->width + s->kept[j]]
                                : i < s->keep ? f->sum[s->kept[i]]
                                              : (double)f->tokens;
    return MT_OK;
}

/* other[hidden, width] = the columns of dropped neurons, negated, and zeros; prior[hidden, n] =
 * those of the kept ones. */
static void fit_columns_apart(const struct prune *s, int64_t n, float *other, float *prior)
{
    for (int64_t r = 0; r < s->hidden; r++) {
        const float *v = s->fit->v + r * s->width;
        for (int64_t j = 0; j < s->width; j++)
            other[r * s->width + j] = -v[j];
        for (int64_t i = 0; i < n; i++)
            prior[r * n + i] = i < s->keep ? v[s->kept[i]] : 0;
        for (int64_t i = 0; i < s->keep; i++)
            other[r * s->width + s->kept[i]] = 0;
    }
}

/* What kept features leave of the dense output is what the dropped ones gave; and the drift. */
static mt_status fit_build(struct mt_ctx *ctx, struct prune *s, struct fit_build *b, float *other,
                           double *residual)
{
    const struct prune_fit *f = s->fit;

    MT_TRY(mt_pool_run(ctx, b->n, fit_build_job, b));
    for (int64_t i = 0; f->drift != NULL && i < b->n; i++) {
        const double *drift = i < s->keep ? f->drift + s->kept[i] * s->hidden : f->sum_drift;
        for (int64_t c = 0; c < s->hidden; c++)
            residual[i * s->hidden + c] = s->o.drift * drift[c];
    }
    return mt_normal_residual(ctx, b->n, s->width, s->hidden, b->rows, other, residual);
}

mt_status prune_fit_solve(struct mt_ctx *ctx, struct prune *s, const struct mt_dense_ffn *f)
{
    size_t n = (size_t)fit_columns(s), w = (size_t)s->width, d = (size_t)s->hidden;
    struct fit_build b = {.s = s, .n = (int64_t)n};
    float *other = NULL, *prior = NULL;
    double *residual = NULL;

    MT_TRY(fit_ready(ctx, s, f));
    mt_status st = mt_alloc(ctx, n, w * sizeof(double), "pruning fit", &b.rows);
    if (st == MT_OK)
        st = mt_alloc(ctx, n, n * sizeof(double), "pruning fit", &b.gram);
    if (st == MT_OK)
        st = mt_alloc0(ctx, n, d * sizeof(double), "pruning fit", &residual);
    if (st == MT_OK)
        st = mt_alloc(ctx, d, w * sizeof(float), "dropped columns", &other);
    if (st == MT_OK)
        st = mt_alloc(ctx, d, n * sizeof(float), "kept columns", &prior);
    if (st == MT_OK) {
        fit_columns_apart(s, (int64_t)n, other, prior);
        st = fit_build(ctx, s, &b, other, residual);
    }
    mt_free(b.rows);
    mt_free(other);
    if (st == MT_OK) {
        st = mt_refit_create(ctx, (int64_t)n, s->hidden, prior, &s->fit->refit);
        prior = NULL;
    }
    if (st == MT_OK) {
        mt_refit_put(s->fit->refit, s->fit->tokens, b.gram, residual);
        b.gram = residual = NULL;
        mt_free(s->fit->gram);
        s->fit->gram = NULL;
        st = mt_refit_solve(ctx, s->fit->refit);
    }
    mt_free(b.gram);
    mt_free(residual);
    mt_free(prior);
    return st;
}

/* y[m, hidden] of all neurons without any bias, and the drift. */
static mt_status fit_target(struct mt_ctx *ctx, const struct prune *s, int64_t m, const float *all,
                            const float *drift, float *y)
{
    MT_TRY(mt_gemm_nt(ctx, m, s->hidden, s->width, 1, all, s->width, s->fit->v, s->width, 0, y,
                      s->hidden));
    for (int64_t i = 0; drift != NULL && i < m * s->hidden; i++)
        y[i] += (float)s->o.drift * drift[i];
    return MT_OK;
}

/* h[m, columns] of the kept features. */
static mt_status fit_check_block(struct mt_ctx *ctx, struct prune *s, int64_t m, const float *all,
                                 const float *y, float *h)
{
    int64_t n = fit_columns(s);

    for (int64_t t = 0; t < m; t++)
        for (int64_t i = 0; i < n; i++)
            h[t * n + i] = i < s->keep ? all[t * s->width + s->kept[i]] : 1;
    return mt_refit_check(ctx, s->fit->refit, m, h, y);
}

static mt_status fit_show(struct mt_ctx *ctx, struct prune *s, const struct mt_observation *ob,
                          int64_t t, int64_t m, bool held_out, float *y, float *h)
{
    const float *all = ob->h + t * s->width;

    if (!held_out && s->fit->aside == NULL)
        return MT_OK;
    MT_TRY(fit_target(ctx, s, m, all, ob->drift != NULL ? ob->drift + t * s->hidden : NULL, y));
    if (s->fit->aside != NULL)
        MT_TRY(mt_local_tokens_put(ctx, s->fit->aside, ob->token0 + t, m, ob->x + t * s->hidden, y,
                                   NULL));
    return held_out ? fit_check_block(ctx, s, m, all, y, h) : MT_OK;
}

mt_status prune_fit_check(struct mt_ctx *ctx, struct prune *s, const struct mt_observation *ob)
{
    int64_t n = fit_columns(s), run;
    mt_status st = MT_OK;
    float *y;

    if (s->o.refit == PRUNE_REFIT_ALL && s->fit->aside == NULL)
        MT_TRY(mt_local_tokens_open(ctx, s->hidden, 0, ob->n_tokens, &s->fit->aside));
    MT_TRY(mt_alloc(ctx, FIT_BLOCK, (size_t)(n + s->hidden) * sizeof(*y), "held-out tokens", &y));
    for (int64_t t = 0; t < ob->m && st == MT_OK; t += run) {
        bool held_out = mt_refit_held_out(ob->token0 + t, ob->n_tokens, &run);
        run = run < ob->m - t ? run : ob->m - t;
        run = run < FIT_BLOCK ? run : FIT_BLOCK;
        st = fit_show(ctx, s, ob, t, run, held_out, y, y + FIT_BLOCK * s->hidden);
    }
    mt_free(y);
    return st;
}

/* ---- what is taken ---- */

/* Trains what is kept; `down` is what the refit left, or NULL. */
static mt_status fit_train(struct mt_ctx *ctx, struct prune *s, int layer)
{
    struct mt_local_tokens *tokens = s->fit->aside;
    struct prune_layer *p = &s->layers[layer];
    const struct mt_local_shape shape = fit_shape(s);
    struct mt_local_weights w = {.down = s->down};
    struct mt_local_told told = {0};
    bool fitted = s->down != NULL;

    if (!fitted)
        w.down = mt_refit_take_prior(s->fit->refit);
    s->fit->aside = NULL;
    s->down = NULL;
    prune_fit_free(s->fit);
    s->fit = NULL;
    mt_status st = mt_local_weights_gather(ctx, &p->dense, s->kept, s->keep, &w);
    if (st == MT_OK)
        st = mt_local_fit(ctx, &shape, tokens, (int)s->o.refit_epochs, (uint64_t)layer, &w, &told);
    mt_local_tokens_close(tokens);
    if (st == MT_OK) {
        mt_local_tell(&told, &p->refit);
        if (fitted || told.epoch > 0) {
            s->down = w.down;
            w.down = NULL;
        }
        if (told.epoch > 0) {
            s->inner = w;
            return MT_OK;
        }
    }
    mt_local_weights_free(&w);
    return st;
}

mt_status prune_fit_take(struct mt_ctx *ctx, struct prune *s, int layer)
{
    s->columns = fit_columns(s);
    if (s->fit == NULL || s->fit->refit == NULL)
        return MT_OK;
    mt_refit_choose(s->fit->refit, &s->down, &s->layers[layer].refit);
    return s->fit->aside != NULL ? fit_train(ctx, s, layer) : MT_OK;
}
