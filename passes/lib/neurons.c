#include "passes/lib/neurons.h"

#include "kernels/kernels.h"
#include "lib/base/pool.h"
#include "lib/flow/profile.h"

#include <math.h>
#include <string.h>

#define NEURONS_TILE 64   /* rows per job */
#define NEURONS_CHUNK 256 /* columns per job */

mt_status mt_dense_ffn_find(struct mt_ctx *ctx, const struct mt_model *m, int layer,
                            struct mt_dense_ffn *out)
{
    char label[128];

    memset(out, 0, sizeof(*out));
    if (m->ffn[layer].gated)
        MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_GATE, layer, MT_EXPERT_NONE), &out->gate));
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_UP, layer, MT_EXPERT_NONE), &out->up));
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE), &out->down));
    if (m->ffn[layer].in_bias) {
        out->gate_bias = mt_model_bias(m, MT_ROLE_FFN_GATE, layer, MT_EXPERT_NONE);
        out->up_bias = mt_model_bias(m, MT_ROLE_FFN_UP, layer, MT_EXPERT_NONE);
    }
    if (m->ffn[layer].out_bias)
        out->down_bias = mt_model_bias(m, MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE);
    out->width = mt_tensor_rows(out->up);
    out->hidden = mt_tensor_cols(out->up);
    if (out->gate != NULL &&
        (mt_tensor_rows(out->gate) != out->width || mt_tensor_cols(out->gate) != out->hidden))
        return mt_fail(ctx, MT_E_FORMAT, "%s: shape differs from up_proj's %lld x %lld",
                       mt_tensor_label(out->gate, label, sizeof(label)), (long long)out->width,
                       (long long)out->hidden);
    if (mt_tensor_rows(out->down) != out->hidden || mt_tensor_cols(out->down) != out->width)
        return mt_fail(ctx, MT_E_FORMAT, "%s: wanted %lld x %lld, the turn of up_proj",
                       mt_tensor_label(out->down, label, sizeof(label)), (long long)out->hidden,
                       (long long)out->width);
    return MT_OK;
}

struct neurons_job {
    const struct mt_tensor *t;
    int64_t rows, cols;
    double *out;
};

static int64_t neurons_tile_rows(const struct neurons_job *j, int64_t i)
{
    int64_t left = j->rows - i * NEURONS_TILE;

    return left < NEURONS_TILE ? left : NEURONS_TILE;
}

static mt_status neurons_tile_load(struct mt_ctx *ctx, const struct neurons_job *j, int64_t i,
                                   float **x)
{
    int64_t n = neurons_tile_rows(j, i);

    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)j->cols * sizeof(**x), "weight rows", x));
    mt_status st = mt_tensor_fetch_f32(ctx, j->t, i * NEURONS_TILE, n, *x);
    if (st != MT_OK)
        mt_free(*x);
    return st;
}

static mt_status neurons_rows_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct neurons_job *j = arg;
    float *x;

    MT_TRY(neurons_tile_load(ctx, j, i, &x));
    for (int64_t r = 0; r < neurons_tile_rows(j, i); r++)
        j->out[i * NEURONS_TILE + r] = mt_kernels_get()->sumsq(x + r * j->cols, (size_t)j->cols);
    mt_free(x);
    return MT_OK;
}

mt_status mt_rows_sumsq(struct mt_ctx *ctx, const struct mt_tensor *t, double *out)
{
    struct neurons_job j = {
        .t = t, .rows = mt_tensor_rows(t), .cols = mt_tensor_cols(t), .out = out};

    return mt_pool_run(ctx, (j.rows + NEURONS_TILE - 1) / NEURONS_TILE, neurons_rows_job, &j);
}

/* Each tile has sums of its own; they are added in tile order afterwards. */
static mt_status neurons_cols_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct neurons_job *j = arg;
    double *sum = j->out + i * j->cols;
    float *x;

    MT_TRY(neurons_tile_load(ctx, j, i, &x));
    for (int64_t r = 0; r < neurons_tile_rows(j, i); r++)
        for (int64_t c = 0; c < j->cols; c++)
            sum[c] += (double)x[r * j->cols + c] * (double)x[r * j->cols + c];
    mt_free(x);
    return MT_OK;
}

mt_status mt_cols_sumsq(struct mt_ctx *ctx, const struct mt_tensor *t, double *out)
{
    struct neurons_job j = {.t = t, .rows = mt_tensor_rows(t), .cols = mt_tensor_cols(t)};
    int64_t tiles = (j.rows + NEURONS_TILE - 1) / NEURONS_TILE;

    MT_TRY(mt_alloc0(ctx, (size_t)tiles, (size_t)j.cols * sizeof(double), "column sums", &j.out));
    mt_status st = mt_pool_run(ctx, tiles, neurons_cols_job, &j);
    if (st == MT_OK) {
        memset(out, 0, (size_t)j.cols * sizeof(*out));
        for (int64_t i = 0; i < tiles; i++)
            for (int64_t c = 0; c < j.cols; c++)
                out[c] += j.out[i * j.cols + c];
    }
    mt_free(j.out);
    return st;
}

mt_status mt_neuron_weight_score(struct mt_ctx *ctx, const struct mt_dense_ffn *f, double *score)
{
    double *other;

    MT_TRY(mt_alloc(ctx, (size_t)f->width, sizeof(*other), "neuron scores", &other));
    mt_status st = mt_cols_sumsq(ctx, f->down, score);
    const struct mt_tensor *rows[2] = {f->up, f->gate};
    for (int i = 0; i < 2 && st == MT_OK; i++) {
        if (rows[i] == NULL)
            continue;
        st = mt_rows_sumsq(ctx, rows[i], other);
        for (int64_t j = 0; st == MT_OK && j < f->width; j++)
            score[j] *= other[j];
    }
    for (int64_t j = 0; st == MT_OK && j < f->width; j++)
        score[j] = sqrt(score[j]);
    mt_free(other);
    return st;
}

struct neurons_sums_job {
    struct mt_neuron_sums *s;
    int64_t m;
    const float *h;
};

static mt_status neurons_sums_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct neurons_sums_job *j = arg;
    struct mt_neuron_sums *s = j->s;
    int64_t from = i * NEURONS_CHUNK;
    int64_t to = from + NEURONS_CHUNK < s->width ? from + NEURONS_CHUNK : s->width;

    (void)ctx;
    for (int64_t t = 0; t < j->m; t++) {
        const float *h = j->h + t * s->width;
        for (int64_t c = from; c < to; c++) {
            double v = (double)h[c];
            if (s->plain != NULL)
                s->plain[c] += v;
            if (s->abs != NULL)
                s->abs[c] += fabs(v);
            if (s->square != NULL)
                s->square[c] += v * v;
        }
    }
    return MT_OK;
}

mt_status mt_neuron_sums_add(struct mt_ctx *ctx, struct mt_neuron_sums *s, int64_t m,
                             const float *h)
{
    struct neurons_sums_job j = {.s = s, .m = m, .h = h};

    s->tokens += m;
    return mt_pool_run(ctx, (s->width + NEURONS_CHUNK - 1) / NEURONS_CHUNK, neurons_sums_job, &j);
}

/* A bottom-up merge sort, because qsort has no argument for the scores and need not be stable. */
static void neurons_merge(const double *score, const int32_t *from, int64_t lo, int64_t mid,
                          int64_t hi, int32_t *to)
{
    int64_t a = lo, b = mid;

    for (int64_t i = lo; i < hi; i++) {
        bool left = b >= hi || (a < mid && score[from[a]] >= score[from[b]]);
        to[i] = left ? from[a++] : from[b++];
    }
}

bool mt_neuron_sums_has(const struct mt_model *src, unsigned which)
{
    const struct mt_profile *p = src->profile;

    for (int l = 0; p != NULL && l < src->hp.n_layers; l++) {
        if (src->ffn[l].moe)
            continue;
        if (!mt_profile_has(p, l, MT_STAT_TOKENS) ||
            ((which & MT_NEURON_PLAIN) != 0 && !mt_profile_has(p, l, MT_STAT_H_SUM)) ||
            ((which & MT_NEURON_ABS) != 0 && !mt_profile_has(p, l, MT_STAT_H_ABS)) ||
            ((which & MT_NEURON_SQUARE) != 0 && !mt_profile_has(p, l, MT_STAT_H_SQ)))
            return false;
    }
    return p != NULL;
}

mt_status mt_neuron_sums_read(struct mt_ctx *ctx, const struct mt_model *src, int layer,
                              struct mt_neuron_sums *s)
{
    const struct mt_profile *p = src->profile;
    double tokens;

    MT_TRY(mt_profile_get(ctx, p, layer, MT_STAT_TOKENS, NULL, &tokens, 1));
    if (!(tokens >= 1 && tokens < 9e15))
        return mt_fail(ctx, MT_E_FORMAT, "layer %d: the profile has seen %g tokens", layer, tokens);
    s->tokens = (int64_t)tokens;
    if (s->plain != NULL)
        MT_TRY(mt_profile_get(ctx, p, layer, MT_STAT_H_SUM, NULL, s->plain, (size_t)s->width));
    if (s->abs != NULL)
        MT_TRY(mt_profile_get(ctx, p, layer, MT_STAT_H_ABS, NULL, s->abs, (size_t)s->width));
    if (s->square != NULL)
        MT_TRY(mt_profile_get(ctx, p, layer, MT_STAT_H_SQ, NULL, s->square, (size_t)s->width));
    return MT_OK;
}

mt_status mt_rank_falling(struct mt_ctx *ctx, const double *score, int64_t n, int32_t *order)
{
    int32_t *other;

    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof(*other), "ranking", &other));
    for (int64_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    for (int64_t w = 1; w < n; w *= 2) {
        for (int64_t lo = 0; lo < n; lo += 2 * w)
            neurons_merge(score, order, lo, lo + w < n ? lo + w : n,
                          lo + 2 * w < n ? lo + 2 * w : n, other);
        memcpy(order, other, (size_t)n * sizeof(*order));
    }
    mt_free(other);
    return MT_OK;
}

struct neurons_unit_job {
    const struct mt_tensor *t;
    const int32_t *idx;
    int64_t cols;
    float *out;
};

static mt_status neurons_unit_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct neurons_unit_job *j = arg;
    float *row = j->out + i * j->cols;

    MT_TRY(mt_tensor_fetch_f32(ctx, j->t, j->idx[i], 1, row));
    for (int64_t c = 0; c < j->cols; c++) {
        if (isfinite(row[c]))
            continue;
        if (!mt_ctx_allow_nan(ctx))
            return mt_fail(ctx, MT_E_NUMERIC, "a weight of neuron %d is not finite",
                           (int)j->idx[i]);
        row[c] = 0;
    }
    double norm = sqrt(mt_kernels_get()->sumsq(row, (size_t)j->cols));
    for (int64_t c = 0; norm > 0 && c < j->cols; c++)
        row[c] = (float)((double)row[c] / norm);
    return MT_OK;
}

mt_status mt_rows_unit(struct mt_ctx *ctx, const struct mt_tensor *t, const int32_t *idx, int64_t n,
                       float *out)
{
    struct neurons_unit_job j = {.t = t, .idx = idx, .cols = mt_tensor_cols(t), .out = out};

    return mt_pool_run(ctx, n, neurons_unit_job, &j);
}
