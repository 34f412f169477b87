#include "passes/lib/local_weights.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <string.h>

#define WEIGHTS_ROWS 32 /* per job */

void mt_local_weights_free(struct mt_local_weights *w)
{
    mt_free(w->gate);
    mt_free(w->up);
    mt_free(w->gate_bias);
    mt_free(w->up_bias);
    mt_free(w->down);
    *w = (struct mt_local_weights){0};
}

struct weights_rows {
    const struct mt_tensor *from;
    const int32_t *idx;
    int64_t n, cols;
    float *to;
};

static mt_status weights_rows_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct weights_rows *g = arg;

    for (int64_t i = job * WEIGHTS_ROWS; i < g->n && i < (job + 1) * WEIGHTS_ROWS; i++) {
        float *to = g->to + i * g->cols;
        if (g->idx[i] < 0)
            memset(to, 0, (size_t)g->cols * sizeof(*to));
        else
            MT_TRY(mt_tensor_fetch_f32(ctx, g->from, g->idx[i], 1, to));
    }
    return MT_OK;
}

static mt_status weights_rows(struct mt_ctx *ctx, const struct mt_tensor *from, const int32_t *idx,
                              int64_t n, float **out)
{
    struct weights_rows g = {.from = from, .idx = idx, .n = n};

    if (from == NULL)
        return MT_OK;
    g.cols = mt_tensor_cols(from);
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)g.cols * sizeof(float), "rows of neurons", out));
    g.to = *out;
    return mt_pool_run(ctx, (n + WEIGHTS_ROWS - 1) / WEIGHTS_ROWS, weights_rows_job, &g);
}

static mt_status weights_bias(struct mt_ctx *ctx, const struct mt_tensor *from, const int32_t *idx,
                              int64_t n, float **out)
{
    float *all;

    if (from == NULL)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof(float), "biases of neurons", out));
    MT_TRY(mt_tensor_load_f32(ctx, from, &all));
    for (int64_t i = 0; i < n; i++)
        (*out)[i] = idx[i] < 0 ? 0 : all[idx[i]];
    mt_free(all);
    return MT_OK;
}

mt_status mt_local_weights_gather(struct mt_ctx *ctx, const struct mt_dense_ffn *f,
                                  const int32_t *idx, int64_t n, struct mt_local_weights *w)
{
    MT_TRY(weights_rows(ctx, f->gate, idx, n, &w->gate));
    MT_TRY(weights_rows(ctx, f->up, idx, n, &w->up));
    MT_TRY(weights_bias(ctx, f->gate_bias, idx, n, &w->gate_bias));
    return weights_bias(ctx, f->up_bias, idx, n, &w->up_bias);
}
