#include "passes/lib/neuron_acts.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

#define ACTS_TILE 256      /* neurons */
#define ACTS_ROWS 64       /* tokens per job */
#define ACTS_SLOPE_AT 1e-6 /* nearer to zero the quotient is the one here */

struct acts {
    const struct mt_dense_ffn *f;
    enum mt_router_fn fn;
    bool product, slope, unit;
    int64_t m, d, j0, n; /* the tile: neurons [j0, j0 + n) */
    float *rows;         /* [ACTS_TILE, d] */
    float *gate, *up;    /* [m, ACTS_TILE] products of the tile */
    float *bias;         /* [2, ACTS_TILE]: of gate, of up */
    float *out;
};

uint64_t mt_neuron_acts_bytes(int64_t hidden, int64_t m)
{
    return (uint64_t)(ACTS_TILE * (hidden + 2 * m + 2) + m * hidden) * sizeof(float);
}

static void acts_unit_rows(float *v, int64_t rows, int64_t d)
{
    for (int64_t i = 0; i < rows; i++) {
        double s = 0;
        for (int64_t c = 0; c < d; c++)
            s += (double)v[i * d + c] * (double)v[i * d + c];
        s = s > 0 ? 1 / sqrt(s) : 0;
        for (int64_t c = 0; c < d; c++)
            v[i * d + c] = (float)((double)v[i * d + c] * s);
    }
}

static mt_status acts_side(struct mt_ctx *ctx, const struct acts *a, const struct mt_tensor *w,
                           const struct mt_tensor *bias, const float *x, float *products,
                           float *biases)
{
    memset(biases, 0, ACTS_TILE * sizeof(*biases));
    if (bias != NULL && !a->unit) {
        float *all;
        MT_TRY(mt_tensor_load_f32(ctx, bias, &all));
        memcpy(biases, all + a->j0, (size_t)a->n * sizeof(*biases));
        mt_free(all);
    }
    MT_TRY(mt_tensor_fetch_f32(ctx, w, a->j0, a->n, a->rows));
    if (a->unit)
        acts_unit_rows(a->rows, a->n, a->d);
    return mt_gemm_nt(ctx, a->m, a->n, a->d, 1, x, a->d, a->rows, a->d, 0, products, ACTS_TILE);
}

static mt_status acts_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct acts *a = arg;

    (void)ctx;
    for (int64_t t = job * ACTS_ROWS; t < a->m && t < (job + 1) * ACTS_ROWS; t++) {
        for (int64_t j = 0; j < a->n; j++) {
            double g = (double)a->gate[t * ACTS_TILE + j] + (double)a->bias[j];
            double h = mt_router_fn(a->fn, g);
            if (a->slope)
                h = fabs(g) > ACTS_SLOPE_AT ? h / g
                                            : mt_router_fn(a->fn, ACTS_SLOPE_AT) / ACTS_SLOPE_AT;
            if (a->product)
                h *= (double)a->up[t * ACTS_TILE + j] + (double)a->bias[ACTS_TILE + j];
            a->out[t * a->f->width + a->j0 + j] = (float)h;
        }
    }
    return MT_OK;
}

static mt_status acts_tiles(struct mt_ctx *ctx, struct acts *a, const float *x)
{
    const struct mt_dense_ffn *f = a->f;
    bool gated = f->gate != NULL;

    for (a->j0 = 0; a->j0 < f->width; a->j0 += ACTS_TILE) {
        a->n = f->width - a->j0 < ACTS_TILE ? f->width - a->j0 : ACTS_TILE;
        MT_TRY(acts_side(ctx, a, gated ? f->gate : f->up, gated ? f->gate_bias : f->up_bias, x,
                         a->gate, a->bias));
        if (a->product)
            MT_TRY(acts_side(ctx, a, f->up, f->up_bias, x, a->up, a->bias + ACTS_TILE));
        MT_TRY(mt_pool_run(ctx, (a->m + ACTS_ROWS - 1) / ACTS_ROWS, acts_job, a));
    }
    return MT_OK;
}

mt_status mt_neuron_acts(struct mt_ctx *ctx, const struct mt_dense_ffn *f, enum mt_act act,
                         enum mt_neuron_act what, bool unit, int64_t m, const float *x, float *out)
{
    struct acts a = {.f = f,
                     .fn = (enum mt_router_fn)((int)MT_ROUTER_FN_SILU + (int)act),
                     .product = what == MT_NEURON_PRODUCT && f->gate != NULL,
                     .slope = what == MT_NEURON_SLOPE,
                     .unit = unit,
                     .m = m,
                     .d = f->hidden,
                     .out = out};
    size_t tile = ACTS_TILE, d = (size_t)f->hidden, tokens = (size_t)m;
    float *inputs = NULL, *work;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, tile, (d + 2 * tokens + 2) * sizeof(float), "neuron tiles", &work));
    a.rows = work;
    a.gate = a.rows + tile * d;
    a.up = a.gate + tile * tokens;
    a.bias = a.up + tile * tokens;
    if (unit) {
        st = mt_alloc(ctx, tokens, d * sizeof(float), "neuron tiles", &inputs);
        if (st == MT_OK) {
            memcpy(inputs, x, tokens * d * sizeof(float));
            acts_unit_rows(inputs, m, f->hidden);
        }
    }
    if (st == MT_OK)
        st = acts_tiles(ctx, &a, unit ? inputs : x);
    mt_free(inputs);
    mt_free(work);
    return st;
}
