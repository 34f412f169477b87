#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/lib/obs.h"
#include "tests/t.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 9
#define D 4
#define LAMBDA 0.05

static void make(uint64_t seed, double *gram, float *v)
{
    struct mt_rng r;
    double h[N];

    mt_rng_seed(&r, seed, 0);
    memset(gram, 0, N * N * sizeof(*gram));
    for (int m = 0; m < 60; m++) {
        double common = mt_rng_normal(&r);
        for (int i = 0; i < N; i++)
            h[i] = mt_rng_normal(&r) + (i % 3 == 0 ? 2 * common : 0);
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++)
                gram[i * N + j] += h[i] * h[j];
    }
    for (int i = 0; i < N * D; i++)
        v[i] = (float)mt_rng_normal(&r);
}

/* Least error sum |V h - W h|^2 + lambda |W - ...|^2 of the best W on the features in `mask`, as
 * the ridge the elimination stands for: minimise tr (V - W)(G + lambda I)(V - W)^T. */
static double loss(const double *gram, const float *v, unsigned mask)
{
    double total = 0;
    int in[N], out[N], n = 0, o = 0;

    for (int i = 0; i < N; i++) {
        if ((mask >> i & 1) != 0)
            in[n++] = i;
        else
            out[o++] = i;
    }
    for (int c = 0; c < D; c++) {
        double a[N * N], b[N], rhs[N], self = 0;
        for (int i = 0; i < n; i++) {
            b[i] = 0;
            for (int j = 0; j < n; j++)
                a[i * n + j] = gram[in[i] * N + in[j]] + (i == j ? LAMBDA : 0);
            for (int j = 0; j < o; j++)
                b[i] += gram[in[i] * N + out[j]] * (double)v[c * N + out[j]];
            rhs[i] = b[i];
        }
        for (int i = 0; i < o; i++)
            for (int j = 0; j < o; j++)
                self += (double)v[c * N + out[i]] * (double)v[c * N + out[j]] *
                        (gram[out[i] * N + out[j]] + (i == j ? LAMBDA : 0));
        for (int k = 0; k < n; k++)
            for (int i = 0; i < n; i++) {
                double f = i == k ? 0 : a[i * n + k] / a[k * n + k];
                for (int j = 0; j < n; j++)
                    a[i * n + j] -= f * a[k * n + j];
                b[i] -= f * b[k];
            }
        for (int k = 0; k < n; k++)
            self -= rhs[k] * b[k] / a[k * n + k];
        total += self;
    }
    return total;
}

static mt_status keep(struct mt_ctx *ctx, const double *gram, const float *v, int64_t n,
                      unsigned *mask)
{
    int32_t kept[N];
    double *g;

    MT_TRY(mt_alloc(ctx, N * N, sizeof(*g), "Gram matrix", &g));
    memcpy(g, gram, N * N * sizeof(*g));
    mt_status st = mt_obs_keep(ctx, N, D, g, LAMBDA, v, n, kept);
    mt_free(g);
    *mask = 0;
    for (int64_t i = 0; st == MT_OK && i < n; i++)
        *mask |= 1u << kept[i];
    return st;
}

/* Each step removes the feature whose removal leaves the least error of all, by solving anew. */
T_TEST(every_step_is_the_cheapest_one)
{
    double gram[N * N];
    float v[N * D];

    for (uint64_t seed = 0; seed < 20; seed++) {
        unsigned all = (1u << N) - 1, want = all, got;
        make(seed, gram, v);
        for (int64_t n = N; n >= 1; n--) {
            T_OK(t, keep(&t->ctx, gram, v, n, &got));
            T_EQ_INT(t, got, want);
            double best = INFINITY;
            unsigned next = 0;
            for (int i = 0; i < N; i++)
                if ((want >> i & 1) != 0 && loss(gram, v, want & ~(1u << i)) < best) {
                    next = want & ~(1u << i);
                    best = loss(gram, v, next);
                }
            want = next;
        }
    }
}

/* Against all subsets: greedy is optimal for independent features and never far off here. */
T_TEST(it_is_near_the_best_of_all_subsets)
{
    double gram[N * N], worst = 1;
    float v[N * D];

    for (uint64_t seed = 0; seed < 20; seed++) {
        bool independent = seed % 2 == 0;
        unsigned got;
        make(100 + seed, gram, v);
        for (int i = 0; independent && i < N * N; i++)
            if (i % (N + 1) != 0)
                gram[i] = 0;
        T_OK(t, keep(&t->ctx, gram, v, 5, &got));
        double mine = loss(gram, v, got), best = INFINITY;
        for (unsigned m = 0; m < 1u << N; m++)
            if (__builtin_popcount(m) == 5)
                best = fmin(best, loss(gram, v, m));
        if (independent)
            T_NEAR(t, mine / best, 1, 1e-9);
        worst = fmax(worst, mine / best);
    }
    T_CHECK(t, worst < 1.3);
}

T_TEST(of_two_equal_features_one_goes_at_no_cost)
{
    double gram[N * N];
    float v[N * D];
    unsigned got;

    make(7, gram, v);
    for (int j = 0; j < N; j++) /* feature 5 becomes feature 2 */
        gram[5 * N + j] = gram[2 * N + j];
    for (int j = 0; j < N; j++)
        gram[j * N + 5] = gram[j * N + 2];
    gram[5 * N + 5] = gram[2 * N + 2];
    T_OK(t, keep(&t->ctx, gram, v, N - 1, &got));
    T_CHECK(t, (got & (1u << 2)) == 0 || (got & (1u << 5)) == 0);
}

T_TEST(what_is_not_finite_is_refused)
{
    double gram[N * N];
    float v[N * D];
    unsigned got;

    make(8, gram, v);
    gram[3 * N + 3] = NAN;
    T_FAILS(t, keep(&t->ctx, gram, v, 4, &got), MT_E_NUMERIC, "NaN or infinite");
}

#define WIDE 150
#define WIDE_D 7

/* Step by step, P and W written out each time: more steps than are taken in one block. */
T_TEST(blocks_of_steps_choose_as_single_steps_do)
{
    static double g[WIDE * WIDE], a[WIDE * WIDE], p[WIDE * WIDE], w[WIDE * WIDE_D];
    static float v[WIDE_D * WIDE];
    int32_t kept[WIDE];
    bool gone[WIDE] = {false};
    struct mt_rng r;

    mt_rng_seed(&r, 12, 0);
    for (int m = 0; m < 400; m++) {
        double h[WIDE], common[3] = {mt_rng_normal(&r), mt_rng_normal(&r), mt_rng_normal(&r)};
        for (int i = 0; i < WIDE; i++)
            h[i] = mt_rng_normal(&r) + common[i % 3] * (i % 5);
        for (int i = 0; i < WIDE * WIDE; i++)
            g[i] += h[i / WIDE] * h[i % WIDE];
    }
    for (int i = 0; i < WIDE_D * WIDE; i++) {
        v[i] = (float)mt_rng_normal(&r);
        w[i % WIDE * WIDE_D + i / WIDE] = (double)v[i];
    }
    /* P by elimination beside the identity */
    for (int i = 0; i < WIDE * WIDE; i++) {
        a[i] = g[i] + (i % (WIDE + 1) == 0 ? LAMBDA : 0);
        p[i] = i % (WIDE + 1) == 0;
    }
    for (int k = 0; k < WIDE; k++) {
        double by = a[k * WIDE + k];
        for (int j = 0; j < WIDE; j++) {
            a[k * WIDE + j] /= by;
            p[k * WIDE + j] /= by;
        }
        for (int i = 0; i < WIDE; i++) {
            double f = i == k ? 0 : a[i * WIDE + k];
            for (int j = 0; j < WIDE && f != 0; j++) {
                a[i * WIDE + j] -= f * a[k * WIDE + j];
                p[i * WIDE + j] -= f * p[k * WIDE + j];
            }
        }
    }
    for (int left = WIDE; left > 15; left--) {
        double least = INFINITY, pq[WIDE], wq[WIDE_D];
        int q = 0;
        for (int i = 0; i < WIDE; i++) {
            double e = 0;
            for (int c = 0; c < WIDE_D; c++)
                e += w[i * WIDE_D + c] * w[i * WIDE_D + c];
            if (!gone[i] && e / p[i * WIDE + i] < least) {
                least = e / p[i * WIDE + i];
                q = i;
            }
        }
        gone[q] = true;
        memcpy(pq, p + q * WIDE, sizeof pq);
        memcpy(wq, w + q * WIDE_D, sizeof wq);
        for (int i = 0; i < WIDE; i++) {
            double f = pq[i] / pq[q];
            for (int j = 0; j < WIDE; j++)
                p[i * WIDE + j] -= f * pq[j];
            for (int c = 0; c < WIDE_D; c++)
                w[i * WIDE_D + c] -= f * wq[c];
        }
    }
    T_OK(t, mt_obs_keep(&t->ctx, WIDE, WIDE_D, g, LAMBDA, v, 15, kept));
    for (int i = 0; i < 15; i++)
        T_CHECK(t, !gone[kept[i]]);
}
