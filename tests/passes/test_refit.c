#include "tests/t.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/lib/refit.h"

#include <stdlib.h>

#define N 5
#define D 3
#define TOKENS 400

static void fill(uint64_t seed, float *v, int64_t n)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)mt_rng_normal(&r);
}

/* y = w h + noise */
static void answers(const float *w, const float *h, int64_t tokens, float noise, float *y)
{
    float *extra = malloc((size_t)(tokens * D) * sizeof(*extra));

    fill(99, extra, tokens * D);
    for (int64_t t = 0; t < tokens; t++)
        for (int i = 0; i < D; i++) {
            double sum = 0;
            for (int c = 0; c < N; c++)
                sum += (double)w[i * N + c] * (double)h[t * N + c];
            y[t * D + i] = (float)sum + noise * extra[t * D + i];
        }
    free(extra);
}

/* All of it: sums over what is not held out, solution, choice on what is. *down is given. */
static mt_status refit(struct mt_ctx *ctx, const float *prior, const float *h, const float *y,
                       int64_t tokens, float **down, struct mt_refit_numbers *told)
{
    struct mt_refit *r;
    float *v;
    int64_t run;

    MT_TRY(mt_alloc(ctx, N * D, sizeof(*v), "prior", &v));
    memcpy(v, prior, N * D * sizeof(*v));
    MT_TRY(mt_refit_create(ctx, N, D, v, &r));
    mt_status st = MT_OK;
    for (int round = 0; round < 2 && st == MT_OK; round++) {
        if (round == 1)
            st = mt_refit_solve(ctx, r);
        for (int64_t t = 0; t < tokens && st == MT_OK; t += run) {
            bool held_out = mt_refit_held_out(t, tokens, &run);
            run = run < tokens - t ? run : tokens - t;
            if (held_out == (round == 1))
                st = round == 0 ? mt_refit_add(ctx, r, run, h + t * N, y + t * D)
                                : mt_refit_check(ctx, r, run, h + t * N, y + t * D);
        }
    }
    if (st == MT_OK)
        mt_refit_choose(r, down, told);
    mt_refit_free(r);
    return st;
}

/* Gauss elimination of a[n, n] x = b[n], fp64. */
static void solve(int n, double *a, double *b)
{
    for (int k = 0; k < n; k++)
        for (int i = 0; i < n; i++) {
            double f = i == k ? 0 : a[i * n + k] / a[k * n + k];
            for (int j = 0; j < n; j++)
                a[i * n + j] -= f * a[k * n + j];
            b[i] -= f * b[k];
        }
    for (int k = 0; k < n; k++)
        b[k] /= a[k * n + k];
}

/* The normal equations by hand: (G + lambda I)(w - v) = sum h (y - v h), row by row. */
T_TEST(a_refit_equals_the_normal_equations)
{
    static float h[TOKENS * N], y[TOKENS * D];
    float w[D * N], v[D * N], *down;
    struct mt_refit_numbers told;
    int64_t run;

    fill(1, h, TOKENS * N);
    fill(2, w, D * N);
    fill(3, v, D * N);
    answers(w, h, TOKENS, 0.5f, y);
    T_OK(t, refit(&t->ctx, v, h, y, TOKENS, &down, &told));
    T_CHECK(t, down != NULL && !told.reverted);
    T_EQ_INT(t, told.tokens + told.held_out, TOKENS);
    T_EQ_INT(t, told.held_out, TOKENS / 10);
    for (int i = 0; i < D; i++) {
        double g[N * N] = {0}, b[N] = {0}, mean = 0;
        for (int64_t k = 0; k < TOKENS; k++) {
            double left = (double)y[k * D + i];
            if (mt_refit_held_out(k, TOKENS, &run))
                continue;
            for (int c = 0; c < N; c++)
                left -= (double)v[i * N + c] * (double)h[k * N + c];
            for (int c = 0; c < N; c++) {
                b[c] += left * (double)h[k * N + c];
                for (int o = 0; o < N; o++)
                    g[c * N + o] += (double)h[k * N + c] * (double)h[k * N + o];
            }
        }
        for (int c = 0; c < N; c++)
            mean += g[c * N + c] / N;
        for (int c = 0; c < N; c++)
            g[c * N + c] += told.lambda * mean;
        solve(N, g, b);
        for (int c = 0; c < N; c++)
            T_NEAR(t, down[i * N + c], (double)v[i * N + c] + b[c], 2e-5);
    }
    mt_free(down);
}

T_TEST(a_planted_map_is_found_and_errors_never_rise)
{
    static float h[TOKENS * N], y[TOKENS * D];
    float w[D * N], v[D * N] = {0}, *down;
    struct mt_refit_numbers told;

    fill(4, h, TOKENS * N);
    fill(5, w, D * N);
    for (int k = 0; k < 4; k++) {
        answers(w, h, TOKENS, 0.3f * (float)k, y);
        T_OK(t, refit(&t->ctx, v, h, y, TOKENS, &down, &told));
        T_CHECK(t, down != NULL && told.after < told.before);
        /* Without noise the least shrunk solution is all but exact. */
        for (int i = 0; k == 0 && i < D * N; i++)
            T_NEAR(t, down[i], w[i], 1e-3);
        if (k == 0)
            T_NEAR(t, told.lambda, 1e-4, 0);
        mt_free(down);
    }
}

/* Nothing is to be learnt from noise, so what was there stays, though the sums fit it. */
T_TEST(overfit_is_reverted)
{
    float h[24 * N], y[24 * D], v[D * N] = {0}, *down;
    struct mt_refit_numbers told;
    int reverted = 0;

    for (uint64_t seed = 0; seed < 10; seed++) {
        fill(10 + seed, h, 24 * N);
        fill(30 + seed, y, 24 * D);
        T_OK(t, refit(&t->ctx, v, h, y, 24, &down, &told));
        T_CHECK(t, told.after <= told.before);
        T_EQ_INT(t, down == NULL, told.reverted);
        reverted += told.reverted;
        mt_free(down);
    }
    T_CHECK(t, reverted >= 6);
}

/* A feature that never acts keeps its column: routing may reach it later. */
T_TEST(columns_that_never_acted_stay)
{
    static float h[TOKENS * N], y[TOKENS * D];
    float w[D * N], v[D * N], *down;
    struct mt_refit_numbers told;

    fill(6, h, TOKENS * N);
    fill(7, w, D * N);
    fill(8, v, D * N);
    for (int k = 0; k < TOKENS; k++)
        h[k * N + 2] = 0;
    answers(w, h, TOKENS, 0, y);
    T_OK(t, refit(&t->ctx, v, h, y, TOKENS, &down, &told));
    T_CHECK(t, down != NULL);
    for (int i = 0; i < D; i++) {
        T_NEAR(t, down[i * N + 2], v[i * N + 2], 0);
        T_NEAR(t, down[i * N], w[i * N], 1e-3);
    }
    mt_free(down);
}

T_TEST(what_is_not_finite_changes_nothing)
{
    static float h[TOKENS * N], y[TOKENS * D];
    float v[D * N], *down;
    struct mt_refit_numbers told;

    fill(6, h, TOKENS * N);
    fill(7, y, TOKENS * D);
    fill(8, v, D * N);
    h[17] = NAN;
    T_OK(t, refit(&t->ctx, v, h, y, TOKENS, &down, &told));
    T_CHECK(t, down == NULL && told.reverted);
}

/* Sums made elsewhere are as good as those made here. */
T_TEST(sums_from_elsewhere_give_the_same)
{
    static float h[64 * N], y[64 * D];
    float v[D * N], *down[2], *prior;
    double *gram, *left;
    struct mt_refit_numbers told;

    fill(9, h, 64 * N);
    fill(10, y, 64 * D);
    fill(11, v, D * N);
    for (int k = 0; k < 2; k++) {
        struct mt_refit *r;
        T_OK(t, mt_alloc(&t->ctx, N * D, sizeof(*prior), "prior", &prior));
        memcpy(prior, v, sizeof(v));
        T_OK(t, mt_refit_create(&t->ctx, N, D, prior, &r));
        if (k == 0) {
            T_OK(t, mt_refit_add(&t->ctx, r, 64, h, y));
        } else {
            T_OK(t, mt_alloc0(&t->ctx, N * N, sizeof(*gram), "sums", &gram));
            T_OK(t, mt_alloc0(&t->ctx, N * D, sizeof(*left), "sums", &left));
            for (int m = 0; m < 64; m++)
                for (int a = 0; a < N; a++) {
                    for (int b = 0; b < N; b++)
                        gram[a * N + b] += (double)h[m * N + a] * (double)h[m * N + b];
                    for (int i = 0; i < D; i++) {
                        double e = (double)y[m * D + i];
                        for (int b = 0; b < N; b++)
                            e -= (double)v[i * N + b] * (double)h[m * N + b];
                        left[a * D + i] += e * (double)h[m * N + a];
                    }
                }
            mt_refit_put(r, 64, gram, left);
        }
        T_OK(t, mt_refit_solve(&t->ctx, r));
        mt_refit_choose(r, &down[k], &told);
        T_CHECK(t, down[k] != NULL && isnan(told.after));
        mt_refit_free(r);
    }
    for (int i = 0; i < N * D; i++)
        T_NEAR(t, down[1][i], down[0][i], 1e-5);
    mt_free(down[0]);
    mt_free(down[1]);
}

T_TEST(a_tenth_is_held_out_in_stretches)
{
    static const int64_t sizes[] = {1, 7, 40, 399, 5120, 40960};

    for (int i = 0; i < 6; i++) {
        int64_t out = 0, run, expected = 0;
        bool last = false;
        for (int64_t k = 0; k < sizes[i]; k++) {
            bool h = mt_refit_held_out(k, sizes[i], &run);
            T_CHECK(t, run >= 1);
            if (expected > 0)
                T_CHECK(t, h == last && run == expected);
            expected = run - 1;
            last = h;
            out += h;
        }
        T_EQ_INT(t, mt_refit_count_held(sizes[i]), out);
        T_CHECK(t, (double)out <= 0.1 * (double)sizes[i]);
        T_CHECK(t, sizes[i] < 40 || (double)out >= 0.05 * (double)sizes[i]);
    }
}

T_TEST(any_number_of_threads_gives_the_same_bits)
{
    static float h[TOKENS * N], y[TOKENS * D];
    float v[D * N], w[2][D * N];

    fill(12, h, TOKENS * N);
    fill(13, y, TOKENS * D);
    fill(14, v, D * N);
    for (int k = 0; k < 2; k++) {
        struct mt_refit_numbers told;
        struct mt_ctx ctx;
        float *down = NULL;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = k == 0 ? 1 : 4}));
        mt_status st = refit(&ctx, v, h, y, TOKENS, &down, &told);
        if (down != NULL)
            memcpy(w[k], down, sizeof(w[k]));
        T_CHECK(t, st == MT_OK && down != NULL);
        mt_free(down);
        mt_ctx_close(&ctx);
    }
    for (int i = 0; i < D * N; i++)
        T_NEAR(t, w[1][i], w[0][i], 0);
}
