/* Products with stored weights. A job owns a tile of y: some tokens by some rows of w. It converts
 * its rows of w block by block along k, so that a block stays in cache, and leaves the rest to
 * BLAS. One or a few tokens are a matter of memory speed: they read w as it is stored. */
#include "kernels/cpu/device_cpu.h"

#include "lib/base/pool.h"

#include <cblas.h>
#include <limits.h>
#include <string.h>

enum {
    GEMM_FEW = 4,       /* tokens for which w is better read as stored */
    GEMM_TOKENS = 1024, /* most tokens of a tile */
    GEMM_BLOCK_K = 768, /* depth of a converted block */
    GEMM_ROWS = 384,    /* most rows of w of a tile */
    GEMM_ROWS_MIN = 96,
    GEMM_TILES = 12, /* as many tiles as that, if they need not be smaller than the above */
    GEMM_FEW_BYTES = 1 << 18
};

/* Tiles of one product: tokens by rows of w. */
struct gemm_cut {
    int64_t tokens, rows;
    int64_t n_tiles_rows, n_tiles;
};

struct gemm_job {
    struct cpu_device *cpu;
    float *y;
    const float *x;
    int64_t m;
    const struct mt_weight *w;
    bool accumulate;
    struct gemm_cut cut;
};

static struct gemm_cut gemm_cut(int64_t m, const struct mt_weight *w)
{
    struct gemm_cut c = {.tokens = GEMM_TOKENS, .rows = GEMM_ROWS};

    if (m <= GEMM_FEW) {
        c.rows = GEMM_FEW_BYTES / (int64_t)(w->row_bytes + 1);
        c.rows = c.rows < 16 ? 16 : cpu_min(c.rows, GEMM_ROWS) & ~(int64_t)15;
    }
    while (m > GEMM_FEW && c.rows / 2 >= GEMM_ROWS_MIN &&
           cpu_tiles(m, c.tokens) * cpu_tiles(w->rows, c.rows) < GEMM_TILES)
        c.rows /= 2;
    c.n_tiles_rows = cpu_tiles(w->rows, c.rows);
    c.n_tiles = cpu_tiles(m, c.tokens) * c.n_tiles_rows;
    return c;
}

/* At most GEMM_FEW tokens by at most GEMM_ROWS rows. */
static void gemm_few(const struct gemm_job *g, int64_t m, const float *x, int64_t row, int64_t rows,
                     float *y)
{
    const struct mt_weight *w = g->w;
    float part[GEMM_ROWS] = {0};

    for (int64_t i = 0; i < m; i++) {
        float *yi = y + i * w->rows + row;
        g->cpu->k->gemv(w->t, w->bytes + (size_t)row * w->row_bytes, w->row_bytes, (size_t)rows,
                        (size_t)w->cols, x + i * w->cols, g->accumulate ? part : yi);
        for (int64_t j = 0; g->accumulate && j < rows; j++)
            yi[j] += part[j];
    }
}

static mt_status gemm_many(struct mt_ctx *ctx, const struct gemm_job *g, int64_t m, const float *x,
                           int64_t row, int64_t rows, float *y)
{
    const struct mt_weight *w = g->w;
    int64_t k = w->cols, depth = cpu_min(k, GEMM_BLOCK_K);
    size_t width = mt_dtype_bits(w->t) / 8;
    float *block;

    if (w->direct != NULL) {
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)rows, (int)k, 1.0f, x,
                    (int)k, w->direct + row * k, (int)k, g->accumulate ? 1.0f : 0.0f, y + row,
                    (int)w->rows);
        return MT_OK;
    }
    MT_TRY(mt_cpu_scratch(ctx, g->cpu, (size_t)(rows * depth), &block));
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
        int64_t deep = cpu_min(depth, k - k0);
        for (int64_t r = 0; r < rows; r++)
            g->cpu->k->to_f32(w->t,
                              w->bytes + (size_t)(row + r) * w->row_bytes + (size_t)k0 * width,
                              block + r * deep, (size_t)deep);
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)m, (int)rows, (int)deep, 1.0f,
                    x + k0, (int)k, block, (int)deep, g->accumulate || k0 > 0 ? 1.0f : 0.0f,
                    y + row, (int)w->rows);
    }
    return MT_OK;
}

static mt_status gemm_tile(struct mt_ctx *ctx, const struct gemm_job *g, int64_t i)
{
    int64_t row = i % g->cut.n_tiles_rows * g->cut.rows;
    int64_t token = i / g->cut.n_tiles_rows * g->cut.tokens;
    int64_t rows = cpu_min(g->cut.rows, g->w->rows - row);
    int64_t tokens = cpu_min(g->cut.tokens, g->m - token);
    const float *x = g->x + token * g->w->cols;
    float *y = g->y + token * g->w->rows;

    if (g->m <= GEMM_FEW) {
        gemm_few(g, tokens, x, row, rows, y);
        return MT_OK;
    }
    return gemm_many(ctx, g, tokens, x, row, rows, y);
}

static mt_status gemm_run_tile(struct mt_ctx *ctx, int64_t i, void *arg)
{
    return gemm_tile(ctx, arg, i);
}

mt_status mt_cpu_gemm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                      const struct mt_weight *w, bool accumulate)
{
    struct gemm_job g = {.cpu = cpu_self(dev),
                         .y = y,
                         .x = x,
                         .m = m,
                         .w = w,
                         .accumulate = accumulate,
                         .cut = gemm_cut(m, w)};

    mt_assert(w->rows <= INT_MAX && w->cols <= INT_MAX);
    return mt_pool_run(ctx, g.cut.n_tiles, gemm_run_tile, &g);
}

struct gemm_groups {
    struct mt_device *dev;
    float *y;
    const float *x;
    int n_groups;
    const int64_t *offset;
    const struct mt_weight *const *w;
};

static struct gemm_job gemm_group(const struct gemm_groups *a, int e)
{
    const struct mt_weight *w = a->w[e];
    int64_t m = a->offset[e + 1] - a->offset[e];

    return (struct gemm_job){.cpu = cpu_self(a->dev),
                             .y = a->y + a->offset[e] * w->rows,
                             .x = a->x + a->offset[e] * w->cols,
                             .m = m,
                             .w = w,
                             .cut = gemm_cut(m, w)};
}

/* Job i counts through the tiles of all groups, one group after the other. */
static mt_status gemm_run_group_tile(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct gemm_groups *a = arg;

    for (int e = 0; e < a->n_groups; e++) {
        if (a->offset[e + 1] == a->offset[e])
            continue;
        struct gemm_job g = gemm_group(a, e);
        if (i < g.cut.n_tiles)
            return gemm_tile(ctx, &g, i);
        i -= g.cut.n_tiles;
    }
    return MT_OK;
}

mt_status mt_cpu_gemm_grouped(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                              int n_groups, const int64_t *offset, const struct mt_weight *const *w)
{
    struct gemm_groups a = {
        .dev = dev, .y = y, .x = x, .n_groups = n_groups, .offset = offset, .w = w};
    int64_t n_tiles = 0;

    for (int e = 0; e < n_groups; e++)
        if (offset[e + 1] > offset[e])
            n_tiles += gemm_group(&a, e).cut.n_tiles;
    return mt_pool_run(ctx, n_tiles, gemm_run_group_tile, &a);
}
