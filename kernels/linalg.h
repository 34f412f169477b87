/* linalg.h: dense linear algebra for passes, over the pool and single-threaded BLAS.
 *
 * Work is cut into tiles that depend on shapes only, so results are the same for any thread
 * count. Matrices are row-major with a leading dimension in elements.
 *
 * OpenBLAS reads OPENBLAS_CORETYPE when it loads and picks old kernels on new CPUs, so a program
 * calls mt_blas_prepare first thing in main: it may set the variable and execute itself again.
 */
#ifndef MT_KERNELS_LINALG_H
#define MT_KERNELS_LINALG_H

#include "lib/base/ctx.h"

#include <stddef.h>
#include <stdint.h>

/* First call of main. Respects an OPENBLAS_CORETYPE that is already set; returns if nothing is to
 * be done or execution again is impossible. Pins BLAS to one thread. */
void mt_blas_prepare(int argc, char **argv);
const char *mt_blas_core(void); /* "Cooperlake"; for -v and the manifest */

/* c[m,n] (+)= alpha * a[m,k] * b[n,k]^T */
MT_NODISCARD mt_status mt_gemm_nt(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                                  const float *a, int64_t lda, const float *b, int64_t ldb,
                                  float beta, float *c, int64_t ldc);
/* c[m,n] (+)= alpha * a[m,k] * b[k,n] */
MT_NODISCARD mt_status mt_gemm_nn(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                                  const float *a, int64_t lda, const float *b, int64_t ldb,
                                  float beta, float *c, int64_t ldc);

/* c[m,n] (+)= alpha * a[k,m]^T * b[k,n] */
MT_NODISCARD mt_status mt_gemm_tn(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t k, float alpha,
                                  const float *a, int64_t lda, const float *b, int64_t ldb,
                                  float beta, float *c, int64_t ldc);

/* One of the three on the calling thread, uncut: for jobs of the pool that bring their own tiles. k
 * may be 0. */
enum mt_gemm_form { MT_GEMM_NT, MT_GEMM_NN, MT_GEMM_TN };
MT_NODISCARD mt_status mt_gemm_here(struct mt_ctx *ctx, enum mt_gemm_form form, int64_t m,
                                    int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                                    const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* g[n,n] += x[m,n]^T x[m,n], full symmetric matrix, products of a block in fp32, totals in fp64.
 * Call it once per block of tokens (m up to a few thousand). */
MT_NODISCARD mt_status mt_gram_add(struct mt_ctx *ctx, int64_t m, int64_t n, const float *x,
                                   int64_t ldx, double *g);
/* g[n,p] += x[m,n]^T y[m,p], likewise. */
MT_NODISCARD mt_status mt_cross_add(struct mt_ctx *ctx, int64_t m, int64_t n, int64_t p,
                                    const float *x, int64_t ldx, const float *y, int64_t ldy,
                                    double *g);

/* Solves (a + lambda I) w = b for symmetric positive definite a[n,n], b[n,p] -> w in b. `a` is
 * overwritten by its Cholesky factor. If the matrix is not positive definite lambda is raised
 * tenfold (a lambda of 0 starts at 1e-9 of the mean diagonal), at most six times, logged at debug;
 * then MT_E_NUMERIC. The strict upper triangle of `a` stays: with the diagonal put back it can be
 * solved again. */
MT_NODISCARD mt_status mt_ridge_solve(struct mt_ctx *ctx, int64_t n, int64_t p, double *a,
                                      double lambda, double *b);
/* R of a QR factorization of a[rows,cols], rows >= cols, into the first cols rows of `a`: upper
 * triangular, zeros below, and |R h| = |a h| for every h. What follows is overwritten. One thread.
 */
MT_NODISCARD mt_status mt_qr_triangle(struct mt_ctx *ctx, int64_t rows, int64_t cols, float *a);
/* Eigenvectors of symmetric a[n,n], as rows of a, by falling eigenvalue; w[n] gets the values. The
 * sign of a row is such that its largest element (the first of equals) is positive. One thread. */
MT_NODISCARD mt_status mt_symmetric_eigen(struct mt_ctx *ctx, int64_t n, double *a, double *w);
/* b[rows,p] -= a[rows,n] * w[p,n]^T in fp64: what a solution w leaves of normal equations. */
MT_NODISCARD mt_status mt_normal_residual(struct mt_ctx *ctx, int64_t rows, int64_t n, int64_t p,
                                          const double *a, const float *w, double *b);
/* y[n] += a x[n] and the sum of x[n] y[n], in fp64, on the calling thread. */
void mt_axpy_f64(int64_t n, double a, const double *x, double *y);
double mt_dot_f64(int64_t n, const double *x, const double *y);
/* c[m,n] -= a[k,m]^T b[k,n] in fp64, on the calling thread. */
void mt_sub_outer_f64(int64_t m, int64_t n, int64_t k, const double *a, int64_t lda,
                      const double *b, int64_t ldb, double *c);
#endif
