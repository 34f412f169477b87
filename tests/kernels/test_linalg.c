#include "kernels/linalg.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>

static float *floats(uint64_t seed, int64_t n)
{
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)mt_rng_normal(&r);
    return x;
}

static double tolerance(int64_t k)
{
    return fmax(1e-6, 3e-8 * sqrt((double)k));
}

enum product { NT, NN, TN, PRODUCTS };

/* c = beta c + alpha op(a) op(b) by the definition. */
static void plain_gemm(enum product p, int64_t m, int64_t n, int64_t k, double alpha,
                       const float *a, int64_t lda, const float *b, int64_t ldb, double beta,
                       float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0;
            for (int64_t e = 0; e < k; e++)
                s += (double)(p == TN ? a[e * lda + i] : a[i * lda + e]) *
                     (double)(p == NT ? b[j * ldb + e] : b[e * ldb + j]);
            c[i * ldc + j] = (float)(alpha * s + (beta != 0 ? beta * (double)c[i * ldc + j] : 0));
        }
}

T_TEST(products_agree_with_plain_loops)
{
    static const int64_t shapes[][3] = {{0, 4, 4},      {1, 1, 1},      {3, 5, 7},
                                        {33, 65, 17},   {130, 70, 1},   {257, 97, 64},
                                        {600, 30, 129}, {20, 1100, 33}, {6, 9, 0}};

    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
        for (int form = 0; form < 2 * PRODUCTS; form++) {
            int64_t m = shapes[s][0], n = shapes[s][1], k = shapes[s][2];
            enum product p = (enum product)(form % PRODUCTS);
            bool plain = form < PRODUCTS;
            float alpha = plain ? 1.0f : -0.5f, beta = plain ? 0.0f : 2.0f;
            int64_t lda = (p == TN ? m : k) + 3, ldb = (p == NT ? k : n) + 1, ldc = n + 2;
            float *a = floats(s, (p == TN ? k : m) * lda);
            float *b = floats(s + 50, (p == NT ? n : k) * ldb);
            float *c = floats(s + 99, m * ldc), *want = floats(s + 99, m * ldc);
            plain_gemm(p, m, n, k, (double)alpha, a, lda, b, ldb, (double)beta, want, ldc);
            if (plain && m > 0)
                c[0] = NAN; /* beta 0 must not read c */
            T_OK(t,
                 (p == NT   ? mt_gemm_nt
                  : p == NN ? mt_gemm_nn
                            : mt_gemm_tn)(&t->ctx, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc));
            T_NEAR(t, t_rel_l2(c, want, (size_t)(m * ldc)), 0, tolerance(k));
            /* Once more on top, on this thread alone. */
            static const enum mt_gemm_form forms[PRODUCTS] = {MT_GEMM_NT, MT_GEMM_NN, MT_GEMM_TN};
            plain_gemm(p, m, n, k, 0.75, a, lda, b, ldb, (double)beta, want, ldc);
            T_OK(t, mt_gemm_here(&t->ctx, forms[p], m, n, k, 0.75f, a, lda, b, ldb, beta, c, ldc));
            T_NEAR(t, t_rel_l2(c, want, (size_t)(m * ldc)), 0, tolerance(k));
            free(a);
            free(b);
            free(c);
            free(want);
        }
}

T_TEST(gram_and_cross_agree_with_plain_loops)
{
    static const int64_t shapes[][3] = {{1, 1, 1},    {5, 3, 2},      {0, 4, 4},
                                        {70, 300, 9}, {2500, 20, 33}, {90, 520, 270}};

    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        int64_t m = shapes[s][0], n = shapes[s][1], p = shapes[s][2], ldx = n + 1, ldy = p + 2;
        float *x = floats(s, m * ldx), *y = floats(s + 9, m * ldy);
        double *g = calloc((size_t)(n * n), sizeof *g), *h = calloc((size_t)(n * p), sizeof *h);
        double *gw = calloc((size_t)(n * n), sizeof *g), *hw = calloc((size_t)(n * p), sizeof *h);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t j = 0; j < n; j++)
                for (int64_t e = 0; e < 2 * m; e++)
                    gw[i * n + j] += (double)x[e % m * ldx + i] * (double)x[e % m * ldx + j];
            for (int64_t j = 0; j < p; j++)
                for (int64_t e = 0; e < m; e++)
                    hw[i * p + j] += (double)x[e * ldx + i] * (double)y[e * ldy + j];
        }
        mt_status st = mt_gram_add(&t->ctx, m, n, x, ldx, g);
        if (st == MT_OK)
            st = mt_gram_add(&t->ctx, m, n, x, ldx, g);
        if (st == MT_OK)
            st = mt_cross_add(&t->ctx, m, n, p, x, ldx, y, ldy, h);
        double g_off = t_rel_l2_f64(g, gw, (size_t)(n * n));
        double h_off = t_rel_l2_f64(h, hw, (size_t)(n * p));
        bool symmetric = true;
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                symmetric &= !(g[i * n + j] < g[j * n + i]) && !(g[i * n + j] > g[j * n + i]);
        free(x);
        free(y);
        free(g);
        free(gw);
        free(h);
        free(hw);
        T_OK(t, st);
        T_NEAR(t, g_off, 0, tolerance(1024));
        T_NEAR(t, h_off, 0, tolerance(1024));
        T_CHECK(t, symmetric);
    }
}

/* a = z^T z / m + shift I (n x n, rank min(m, n) without the shift). */
static double *spd(uint64_t seed, int64_t m, int64_t n, double shift)
{
    float *z = floats(seed, m * n);
    double *a = calloc((size_t)(n * n), sizeof *a);

    for (int64_t e = 0; e < m; e++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++)
                a[i * n + j] += (double)z[e * n + i] * (double)z[e * n + j] / (double)m;
    for (int64_t i = 0; i < n; i++)
        a[i * n + i] += shift;
    free(z);
    return a;
}

/* Sizes on both sides of the blocks of the factorization. */
T_TEST(ridge_solves_a_planted_system)
{
    static const int64_t np[][2] = {{1, 1},   {2, 3},    {7, 1},  {100, 65},
                                    {255, 2}, {257, 70}, {600, 5}};

    for (size_t s = 0; s < sizeof np / sizeof np[0]; s++) {
        int64_t n = np[s][0], p = np[s][1];
        double *a = spd(s, n < 40 ? 2 * n : 60, n, 0.1), lambda = 0.3;
        float *w = floats(s + 7, n * p);
        double *b = calloc((size_t)(n * p), sizeof *b), *want = malloc((size_t)(n * p) * sizeof *b);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < p; j++) {
                want[i * p + j] = (double)w[i * p + j];
                for (int64_t e = 0; e < n; e++)
                    b[i * p + j] += (a[i * n + e] + (i == e ? lambda : 0)) * (double)w[e * p + j];
            }
        mt_status st = mt_ridge_solve(&t->ctx, n, p, a, lambda, b);
        double off = t_rel_l2_f64(b, want, (size_t)(n * p));
        free(a);
        free(w);
        free(b);
        free(want);
        T_OK(t, st);
        T_NEAR(t, off, 0, 1e-11);
    }
    T_CHECK(t, strstr(t->log, "positive definite") == NULL);
}

/* Ones everywhere: rank one. Without a ridge only the raised one makes it solvable. */
T_TEST(ridge_is_raised_on_a_singular_matrix)
{
    enum { N = 300 };
    double *a = malloc(N * N * sizeof *a), *b = malloc(N * sizeof *b);

    for (int i = 0; i < N * N; i++)
        a[i] = 1;
    for (int i = 0; i < N; i++)
        b[i] = 1;
    T_OK(t, mt_ridge_solve(&t->ctx, N, 1, a, 0.0, b));
    T_CHECK(t, strstr(t->log, "ridge raised") != NULL);
    for (int i = 0; i < N; i++)
        T_NEAR(t, b[i], 1.0 / N, 1e-3 / N); /* the solution of least norm, nearly */
    free(a);
    free(b);
}

T_TEST(ridge_gives_up_on_a_negative_matrix_and_on_nan)
{
    double a[9] = {-1, 0, 0, 0, -1, 0, 0, 0, -1}, b[3] = {1, 2, 3};

    T_CHECK(t, mt_ridge_solve(&t->ctx, 3, 1, a, 1e-9, b) == MT_E_NUMERIC);
    T_CHECK(t, strstr(mt_error(&t->ctx), "size 3 is not positive definite") != NULL);
    memcpy(a, (double[]){1, 0, 0, 0, NAN, 0, 0, 0, 1}, sizeof a);
    T_CHECK(t, mt_ridge_solve(&t->ctx, 3, 1, a, 0.1, b) == MT_E_NUMERIC);
    T_OK(t, mt_ridge_solve(&t->ctx, 0, 1, a, 0.1, b));
}

/* A tenfold ridge exactly when the given one does not do: eigenvalue -0.05. */
T_TEST(ridge_is_raised_tenfold)
{
    double a[4] = {1, 0, 0, -0.05}, b[2] = {1, 1};

    T_OK(t, mt_ridge_solve(&t->ctx, 2, 1, a, 0.01, b));
    T_NEAR(t, b[0], 1 / 1.1, 1e-14);
    T_NEAR(t, b[1], 1 / 0.05, 1e-11);
}

/* Everything once with this many threads; returns a checksum's worth of bytes. */
static double *with_threads(struct t *t, int n_threads, size_t *n_out)
{
    enum { M = 700, N = 610, P = 130 };
    struct mt_ctx_opts o = {.n_threads = n_threads};
    struct mt_ctx ctx;
    float *x = floats(1, M * N), *y = floats(2, M * P), *c = floats(3, N * P);
    double *out = calloc(N * N + N * P + M * P, sizeof *out), *rest = out + N * N;

    if (mt_ctx_open(&ctx, &o) != MT_OK)
        return NULL;
    mt_status st = mt_gram_add(&ctx, M, N, x, N, out);
    if (st == MT_OK)
        st = mt_cross_add(&ctx, M, N, P, x, N, y, P, rest);
    if (st == MT_OK)
        st = mt_ridge_solve(&ctx, N, P, out, 0.5, rest);
    if (st == MT_OK)
        st = mt_gemm_nn(&ctx, M, P, N, 1.0f, x, N, c, P, 1.0f, y, P);
    for (int i = 0; i < M * P; i++)
        rest[N * P + i] = (double)y[i];
    if (st != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&ctx));
    mt_ctx_close(&ctx);
    free(x);
    free(y);
    free(c);
    *n_out = (N * N + N * P + M * P) * sizeof *out;
    return out;
}

T_TEST(threads_change_no_bit)
{
    size_t n = 0;
    double *one = with_threads(t, 1, &n), *two = with_threads(t, 2, &n),
           *four = with_threads(t, 4, &n);

    T_CHECK(t, memcmp(one, two, n) == 0);
    T_CHECK(t, memcmp(one, four, n) == 0);
    free(one);
    free(two);
    free(four);
}

T_TEST(eigenvectors_rebuild_the_matrix)
{
    enum { N = 37 };
    static double a[N * N], v[N * N], w[N];
    struct mt_rng r;

    mt_rng_seed(&r, 5, 0);
    for (int i = 0; i < N; i++)
        for (int j = 0; j <= i; j++)
            a[i * N + j] = a[j * N + i] = mt_rng_normal(&r);
    memcpy(v, a, sizeof(a));
    T_OK(t, mt_symmetric_eigen(&t->ctx, N, v, w));
    for (int i = 0; i < N; i++) {
        int top = 0;
        if (i > 0)
            T_CHECK(t, w[i] <= w[i - 1]);
        for (int j = 0; j < N; j++) {
            double dot = 0, sum = 0;
            for (int k = 0; k < N; k++) {
                dot += v[i * N + k] * v[j * N + k];
                sum += v[k * N + i] * w[k] * v[k * N + j];
            }
            T_NEAR(t, dot, i == j ? 1 : 0, 1e-12);
            T_NEAR(t, sum, a[i * N + j], 1e-11);
            top = fabs(v[i * N + j]) > fabs(v[i * N + top]) ? j : top;
        }
        T_CHECK(t, v[i * N + top] > 0);
    }
    v[3] = NAN;
    T_FAILS(t, mt_symmetric_eigen(&t->ctx, N, v, w), MT_E_NUMERIC, "NaN");
}

T_TEST(the_triangle_keeps_lengths)
{
    enum { R = 70, C = 33 };
    static float a[R * C], q[R * C], h[C];
    struct mt_rng rng;

    mt_rng_seed(&rng, 21, 0);
    for (int i = 0; i < R * C; i++)
        a[i] = q[i] = i % C == 7 ? 0 : (float)mt_rng_normal(&rng); /* a column of zeros is fine */
    T_OK(t, mt_qr_triangle(&t->ctx, R, C, q));
    for (int round = 0; round < 20; round++) {
        double want = 0, got = 0;
        for (int c = 0; c < C; c++)
            h[c] = (float)mt_rng_normal(&rng);
        for (int r = 0; r < R; r++) {
            double x = 0, y = 0;
            for (int c = 0; c < C; c++) {
                x += (double)a[r * C + c] * (double)h[c];
                y += r < C ? (double)q[r * C + c] * (double)h[c] : 0;
                T_CHECK(t, r >= C || c >= r || q[r * C + c] == 0);
            }
            want += x * x;
            got += y * y;
        }
        T_NEAR(t, sqrt(got), sqrt(want), 2e-6 * sqrt(want));
    }
}
