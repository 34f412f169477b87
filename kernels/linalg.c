#include "kernels/linalg.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <cblas.h>
#include <lapacke.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One C for all three products: jobs are tiles of c. First what the caller gives, in its order. */
struct linalg_gemm {
    int64_t m, n, k;
    float alpha;
    const float *a;
    int64_t lda;
    const float *b;
    int64_t ldb;
    float beta;
    float *c;
    int64_t ldc;
    bool a_transposed, b_transposed;
    int64_t tile_m, tile_n, n_tiles_n;
};

static int64_t linalg_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t linalg_tiles(int64_t n, int64_t tile)
{
    return (n + tile - 1) / tile;
}

static mt_status linalg_check_sizes(struct mt_ctx *ctx, int64_t a, int64_t b, int64_t c)
{
    if (a > INT_MAX || b > INT_MAX || c > INT_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "a matrix of %lld x %lld x %lld is beyond BLAS",
                       (long long)a, (long long)b, (long long)c);
    return MT_OK;
}

static mt_status linalg_gemm_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct linalg_gemm *g = arg;
    int64_t m0 = i / g->n_tiles_n * g->tile_m, n0 = i % g->n_tiles_n * g->tile_n;
    int64_t rows = linalg_min(g->tile_m, g->m - m0), cols = linalg_min(g->tile_n, g->n - n0);
    const float *b = g->b_transposed ? g->b + n0 * g->ldb : g->b + n0;

    const float *a = g->a_transposed ? g->a + m0 : g->a + m0 * g->lda;

    (void)ctx;
    cblas_sgemm(CblasRowMajor, g->a_transposed ? CblasTrans : CblasNoTrans,
                g->b_transposed ? CblasTrans : CblasNoTrans, (int)rows, (int)cols, (int)g->k,
                g->alpha, a, (int)g->lda, b, (int)g->ldb, g->beta, g->c + m0 * g->ldc + n0,
                (int)g->ldc);
    return MT_OK;
}

enum { GEMM_SMALL = 1 << 21 /* products */ };

/* Wide tiles pack little per product; at least about a dozen of them keep the pool busy. What is
 * done in microseconds is not worth cutting. */
static mt_status linalg_gemm_run(struct mt_ctx *ctx, struct linalg_gemm *g)
{
    if (g->m <= 0 || g->n <= 0)
        return MT_OK;
    MT_TRY(linalg_check_sizes(ctx, g->lda, g->ldb, g->ldc));
    bool small = g->m * g->n <= GEMM_SMALL / (g->k > 0 ? g->k : 1);
    g->tile_m = small ? g->m : linalg_min(g->m, 512);
    g->tile_n = small ? g->n : 512;
    while (!small && g->tile_n > 96 &&
           linalg_tiles(g->m, g->tile_m) * linalg_tiles(g->n, g->tile_n) < 12)
        g->tile_n /= 2;
    while (!small && g->tile_m > 96 &&
           linalg_tiles(g->m, g->tile_m) * linalg_tiles(g->n, g->tile_n) < 12)
        g->tile_m /= 2;
    g->n_tiles_n = linalg_tiles(g->n, g->tile_n);
    return mt_pool_run(ctx, linalg_tiles(g->m, g->tile_m) * g->n_tiles_n, linalg_gemm_job, g);
}

mt_status mt_gemm_nt(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc)
{
    struct linalg_gemm g = {m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, .b_transposed = true};

    return linalg_gemm_run(ctx, &g);
}

mt_status mt_gemm_nn(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc)
{
    struct linalg_gemm g = {m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, .b_transposed = false};

    return linalg_gemm_run(ctx, &g);
}

mt_status mt_gemm_tn(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                     const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                     int64_t ldc)
{
    struct linalg_gemm g = {m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, .a_transposed = true};

    return linalg_gemm_run(ctx, &g);
}

mt_status mt_gemm_here(struct mt_ctx *ctx, enum mt_gemm_form form, int64_t m, int64_t n, int64_t k,
                       float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
                       float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return MT_OK;
    MT_TRY(linalg_check_sizes(ctx, lda, ldb, ldc));
    MT_TRY(linalg_check_sizes(ctx, m, n, k));
    cblas_sgemm(CblasRowMajor, form == MT_GEMM_TN ? CblasTrans : CblasNoTrans,
                form == MT_GEMM_NT ? CblasTrans : CblasNoTrans, (int)m, (int)n, (int)k, alpha, a,
                (int)lda, b, (int)ldb, beta, c, (int)ldc);
    return MT_OK;
}

enum { GRAM_TILE = 256, GRAM_TOKENS = 1024 };

/* x^T y in tiles of g; `symmetric` makes only the tiles on and above the diagonal. */
struct linalg_gram {
    int64_t m, n, p, ldx, ldy, n_tiles_p;
    const float *x, *y;
    double *g;
    float *scratch; /* [threads][GRAM_TILE * GRAM_TILE] */
    bool symmetric;
};

/* What lies below the diagonal, from a tile on or above it. In squares of whole cache lines: rows
 * are often a power of two apart, which caches map to the same few places. */
static void linalg_mirror(const struct linalg_gram *g, int64_t i0, int64_t j0, int64_t rows,
                          int64_t cols)
{
    for (int64_t r0 = 0; r0 < rows; r0 += 8)
        for (int64_t c0 = 0; c0 < cols; c0 += 8)
            for (int64_t c = c0; c < c0 + 8 && c < cols; c++)
                for (int64_t r = r0; r < r0 + 8 && r < rows; r++)
                    if (i0 + r < j0 + c)
                        g->g[(j0 + c) * g->n + i0 + r] = g->g[(i0 + r) * g->n + j0 + c];
}

static mt_status linalg_gram_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct linalg_gram *g = arg;
    int64_t i0 = i / g->n_tiles_p * GRAM_TILE, j0 = i % g->n_tiles_p * GRAM_TILE;
    int64_t rows = linalg_min(GRAM_TILE, g->n - i0), cols = linalg_min(GRAM_TILE, g->p - j0);
    float *part = g->scratch + (size_t)mt_pool_worker() * GRAM_TILE * GRAM_TILE;

    if (g->symmetric && j0 < i0)
        return MT_OK;
    for (int64_t t = 0; t < g->m; t += GRAM_TOKENS) {
        int64_t tokens = linalg_min(GRAM_TOKENS, g->m - t);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)rows, (int)cols, (int)tokens,
                    1.0f, g->x + t * g->ldx + i0, (int)g->ldx, g->y + t * g->ldy + j0, (int)g->ldy,
                    0.0f, part, GRAM_TILE);
        for (int64_t r = 0; r < rows; r++) {
            double *row = g->g + (i0 + r) * g->p + j0;
            int64_t from = g->symmetric && i0 == j0 ? r : 0;
            for (int64_t c = from; c < cols; c++)
                row[c] += (double)part[r * GRAM_TILE + c];
        }
    }
    if (g->symmetric)
        linalg_mirror(g, i0, j0, rows, cols);
    return mt_check_cancel(ctx);
}

static mt_status linalg_gram_run(struct mt_ctx *ctx, struct linalg_gram *g)
{
    if (g->m <= 0 || g->n <= 0 || g->p <= 0)
        return MT_OK;
    MT_TRY(linalg_check_sizes(ctx, g->ldx, g->ldy, g->p));
    MT_TRY(mt_alloc(ctx, (size_t)mt_ctx_threads(ctx) * GRAM_TILE * GRAM_TILE, sizeof(float),
                    "tiles of a Gram matrix", &g->scratch));
    g->n_tiles_p = linalg_tiles(g->p, GRAM_TILE);
    mt_status st =
        mt_pool_run(ctx, linalg_tiles(g->n, GRAM_TILE) * g->n_tiles_p, linalg_gram_job, g);
    mt_free(g->scratch);
    return st;
}

mt_status mt_gram_add(struct mt_ctx *ctx, int64_t m, int64_t n, const float *x, int64_t ldx,
                      double *g)
{
    struct linalg_gram job = {
        .m = m, .n = n, .p = n, .ldx = ldx, .ldy = ldx, .x = x, .y = x, .g = g, .symmetric = true};

    return linalg_gram_run(ctx, &job);
}

mt_status mt_cross_add(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t p, const float *x,
                       int64_t ldx, const float *y, int64_t ldy, double *g)
{
    struct linalg_gram job = {
        .m = m, .n = n, .p = p, .ldx = ldx, .ldy = ldy, .x = x, .y = y, .g = g};

    return linalg_gram_run(ctx, &job);
}

enum { CHOL_BLOCK = 256, CHOL_RHS = 64 };

/* Blocked right-looking Cholesky of the lower triangle (row-major), then two substitutions. */
struct linalg_chol {
    int64_t n, p;
    double *a, *b;
    int64_t k0, nb;  /* the panel: rows and columns [k0, k0 + nb) */
    int64_t n_below; /* row tiles under the panel */
};

static mt_status linalg_chol_panel(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct linalg_chol *c = arg;
    int64_t r0 = c->k0 + c->nb + i * CHOL_BLOCK;

    cblas_dtrsm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit,
                (int)linalg_min(CHOL_BLOCK, c->n - r0), (int)c->nb, 1.0,
                c->a + c->k0 * c->n + c->k0, (int)c->n, c->a + r0 * c->n + c->k0, (int)c->n);
    return mt_check_cancel(ctx);
}

/* Tile i of the lower triangle of tiles, counted row by row. The strict upper triangle of the
 * whole matrix stays as it was: it is what a retry starts from. */
static mt_status linalg_chol_update(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct linalg_chol *c = arg;
    int64_t row = (int64_t)((sqrt(8.0 * (double)i + 1.0) - 1.0) / 2.0);

    while (row * (row + 1) / 2 > i)
        row--;
    while ((row + 1) * (row + 2) / 2 <= i)
        row++;
    int64_t start = c->k0 + c->nb, col = i - row * (row + 1) / 2;
    int64_t r0 = start + row * CHOL_BLOCK, c0 = start + col * CHOL_BLOCK;
    int rows = (int)linalg_min(CHOL_BLOCK, c->n - r0),
        cols = (int)linalg_min(CHOL_BLOCK, c->n - c0);
    const double *lr = c->a + r0 * c->n + c->k0, *lc = c->a + c0 * c->n + c->k0;
    double *out = c->a + r0 * c->n + c0;

    if (row == col)
        cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, rows, (int)c->nb, -1.0, lr, (int)c->n,
                    1.0, out, (int)c->n);
    else
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, cols, (int)c->nb, -1.0, lr,
                    (int)c->n, lc, (int)c->n, 1.0, out, (int)c->n);
    return mt_check_cancel(ctx);
}

/* *good: the matrix was positive definite. Row-major lower is column-major upper to LAPACK. */
static mt_status linalg_chol_factor(struct mt_ctx *ctx, struct linalg_chol *c, bool *good)
{
    *good = false;
    for (c->k0 = 0; c->k0 < c->n; c->k0 += c->nb) {
        double *akk = c->a + c->k0 * c->n + c->k0;
        c->nb = linalg_min(CHOL_BLOCK, c->n - c->k0);
        if (LAPACKE_dpotrf_work(LAPACK_COL_MAJOR, 'U', (int)c->nb, akk, (int)c->n) != 0)
            return MT_OK;
        for (int64_t i = 0; i < c->nb; i++)
            if (!(akk[i * c->n + i] > 0.0) || !isfinite(akk[i * c->n + i]))
                return MT_OK;
        c->n_below = linalg_tiles(c->n - c->k0 - c->nb, CHOL_BLOCK);
        MT_TRY(mt_pool_run(ctx, c->n_below, linalg_chol_panel, c));
        MT_TRY(mt_pool_run(ctx, c->n_below * (c->n_below + 1) / 2, linalg_chol_update, c));
    }
    *good = true;
    return MT_OK;
}

static mt_status linalg_chol_solve(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct linalg_chol *c = arg;
    int cols = (int)linalg_min(CHOL_RHS, c->p - i * CHOL_RHS);
    double *b = c->b + i * CHOL_RHS;

    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, (int)c->n, cols,
                1.0, c->a, (int)c->n, b, (int)c->p);
    cblas_dtrsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, (int)c->n, cols,
                1.0, c->a, (int)c->n, b, (int)c->p);
    return mt_check_cancel(ctx);
}

/* The lower triangle again from the upper one, and the diagonal with lambda. */
static void linalg_restore(const struct linalg_chol *c, const double *diagonal, double lambda)
{
    for (int64_t i = 0; i < c->n; i++) {
        for (int64_t j = 0; j < i; j++)
            c->a[i * c->n + j] = c->a[j * c->n + i];
        c->a[i * c->n + i] = diagonal[i] + lambda;
    }
}

mt_status mt_ridge_solve(struct mt_ctx *ctx, int64_t n, int64_t p, double *a, double lambda,
                         double *b)
{
    struct linalg_chol c = {.n = n, .p = p, .a = a, .b = b};
    double *diagonal = NULL, trace = 0;
    bool good = false;

    if (n <= 0 || p <= 0)
        return MT_OK;
    MT_TRY(linalg_check_sizes(ctx, n, p, 0));
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof *diagonal, "diagonal of a normal matrix", &diagonal));
    for (int64_t i = 0; i < n; i++) {
        diagonal[i] = a[i * n + i];
        trace += fabs(diagonal[i]);
    }
    mt_status st = MT_OK;
    for (int attempt = 0; attempt < 7 && st == MT_OK && !good; attempt++) {
        if (attempt > 0) {
            lambda = lambda > 0.0 ? 10.0 * lambda : 1e-9 * trace / (double)n;
            mt_log(ctx, MT_LOG_DEBUG,
                   "a normal matrix of size %lld is not positive definite; ridge raised to %g",
                   (long long)n, lambda);
        }
        linalg_restore(&c, diagonal, lambda);
        st = linalg_chol_factor(ctx, &c, &good);
    }
    mt_free(diagonal);
    if (st != MT_OK)
        return st;
    if (!good)
        return mt_fail(ctx, MT_E_NUMERIC,
                       "a normal matrix of size %lld is not positive definite, even with a ridge "
                       "of %g; use more or other calibration data, or a larger ridge",
                       (long long)n, lambda);
    return mt_pool_run(ctx, linalg_tiles(p, CHOL_RHS), linalg_chol_solve, &c);
}

enum { RESIDUAL_COLS = 32, RESIDUAL_ROWS = 512 };

struct linalg_residual {
    int64_t rows, n, p, tiles;
    const double *a;
    const float *w;
    double *b;
};

/* A tile of b: 512 rows, 32 columns. */
static mt_status linalg_residual_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct linalg_residual *r = arg;
    int64_t row = i / r->tiles * RESIDUAL_ROWS, col = i % r->tiles * RESIDUAL_COLS;
    int64_t rows = linalg_min(RESIDUAL_ROWS, r->rows - row);
    int64_t cols = linalg_min(RESIDUAL_COLS, r->p - col);
    double *w;

    MT_TRY(mt_alloc(ctx, (size_t)cols, (size_t)r->n * sizeof *w, "columns of a residual", &w));
    for (int64_t c = 0; c < cols * r->n; c++)
        w[c] = (double)r->w[col * r->n + c];
    cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)cols, (int)r->n, -1.0,
                r->a + row * r->n, (int)r->n, w, (int)r->n, 1.0, r->b + row * r->p + col,
                (int)r->p);
    mt_free(w);
    return mt_check_cancel(ctx);
}

mt_status mt_normal_residual(struct mt_ctx *ctx, int64_t rows, int64_t n, int64_t p,
                             const double *a, const float *w, double *b)
{
    struct linalg_residual r = {rows, n, p, linalg_tiles(p, RESIDUAL_COLS), a, w, b};

    if (rows <= 0 || n <= 0 || p <= 0)
        return MT_OK;
    MT_TRY(linalg_check_sizes(ctx, rows, n, p));
    return mt_pool_run(ctx, linalg_tiles(rows, RESIDUAL_ROWS) * r.tiles, linalg_residual_job, &r);
}

void mt_axpy_f64(int64_t n, double a, const double *x, double *y)
{
    cblas_daxpy((int)n, a, x, 1, y, 1);
}

double mt_dot_f64(int64_t n, const double *x, const double *y)
{
    return cblas_ddot((int)n, x, 1, y, 1);
}

void mt_sub_outer_f64(int64_t m, int64_t n, int64_t k, const double *a, int64_t lda,
                      const double *b, int64_t ldb, double *c)
{
    cblas_dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)m, (int)n, (int)k, -1.0, a, (int)lda,
                b, (int)ldb, 1.0, c, (int)n);
}

mt_status mt_qr_triangle(struct mt_ctx *ctx, int64_t rows, int64_t cols, float *a)
{
    int64_t lwork = 64 * cols;
    float *work;

    mt_assert(rows >= cols);
    MT_TRY(linalg_check_sizes(ctx, rows, lwork, 0));
    MT_TRY(mt_alloc(ctx, (size_t)(cols + lwork), sizeof(*work), "QR factorization", &work));
    /* Row-major a is column-major a^T = L Q, so that a = Q^T L^T. */
    int info = LAPACKE_sgelqf_work(LAPACK_COL_MAJOR, (int)cols, (int)rows, a, (int)cols, work,
                                   work + cols, (int)lwork);
    mt_assert(info == 0); /* it fails on arguments only */
    mt_free(work);
    for (int64_t r = 1; r < cols; r++)
        memset(a + r * cols, 0, (size_t)r * sizeof(*a));
    return MT_OK;
}

/* LAPACK gives ascending values and vectors as columns of a column-major matrix, which are rows of
 * ours. */
static void eigen_order(int64_t n, double *a, double *w)
{
    for (int64_t i = 0; i < n / 2; i++) {
        double value = w[i];
        w[i] = w[n - 1 - i];
        w[n - 1 - i] = value;
        for (int64_t c = 0; c < n; c++) {
            double x = a[i * n + c];
            a[i * n + c] = a[(n - 1 - i) * n + c];
            a[(n - 1 - i) * n + c] = x;
        }
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t top = 0;
        for (int64_t c = 1; c < n; c++)
            if (fabs(a[i * n + c]) > fabs(a[i * n + top]))
                top = c;
        for (int64_t c = 0; a[i * n + top] < 0 && c < n; c++)
            if (c != top)
                a[i * n + c] = -a[i * n + c];
        a[i * n + top] = fabs(a[i * n + top]);
    }
}

mt_status mt_symmetric_eigen(struct mt_ctx *ctx, int64_t n, double *a, double *w)
{
    /* Sizes as dsyevd wants them; its own query returns them as floating-point numbers. */
    int64_t lwork = 1 + 6 * n + 2 * n * n, liwork = 3 + 5 * n;
    double *work;
    int *iwork = NULL;

    for (int64_t i = 0; i < n * n; i++)
        if (!isfinite(a[i]))
            return mt_fail(ctx, MT_E_NUMERIC,
                           "a matrix for eigenvectors has NaN or infinity in it");
    if (lwork > INT_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "a matrix of %lld rows is too large for eigenvectors",
                       (long long)n);
    MT_TRY(mt_alloc(ctx, (size_t)lwork, sizeof(*work), "eigenvectors", &work));
    mt_status st = mt_alloc(ctx, (size_t)liwork, sizeof(*iwork), "eigenvectors", &iwork);
    if (st == MT_OK && LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'L', (int)n, a, (int)n, w, work,
                                           (int)lwork, iwork, (int)liwork) != 0)
        st = mt_fail(ctx, MT_E_NUMERIC, "eigenvectors did not converge");
    if (st == MT_OK)
        eigen_order(n, a, w);
    mt_free(work);
    mt_free(iwork);
    return st;
}
