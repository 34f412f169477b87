#include "lib/base/rng.h"
#include "passes/lib/kmeans.h"
#include "tests/t.h"

#include <stdlib.h>

#define K 8
#define PER 30
#define D 24
#define N (K * PER)

/* Agreement of two partitions, corrected for chance (Hubert and Arabie 1985). 1: the same. */
static double adjusted_rand(const int32_t *a, const int32_t *b, int n, int k)
{
    static double both[64][64], in_a[64], in_b[64];
    double pairs = 0, pa = 0, pb = 0, all = n * (n - 1) / 2.0;

    memset(both, 0, sizeof(both));
    memset(in_a, 0, sizeof(in_a));
    memset(in_b, 0, sizeof(in_b));
    for (int i = 0; i < n; i++) {
        both[a[i]][b[i]]++;
        in_a[a[i]]++;
        in_b[b[i]]++;
    }
    for (int i = 0; i < k; i++) {
        pa += in_a[i] * (in_a[i] - 1) / 2;
        pb += in_b[i] * (in_b[i] - 1) / 2;
        for (int j = 0; j < k; j++)
            pairs += both[i][j] * (both[i][j] - 1) / 2;
    }
    return (pairs - pa * pb / all) / ((pa + pb) / 2 - pa * pb / all);
}

/* Shuffled points around k centres; sizes[c] of each. */
static void plant(struct mt_rng *r, int n, int d, int k, const int64_t *sizes, double noise,
                  float *x, int32_t *truth)
{
    static float centre[64][64];
    int at = 0;

    for (int c = 0; c < k; c++) {
        for (int j = 0; j < d; j++)
            centre[c][j] = (float)mt_rng_normal(r);
        for (int64_t i = 0; i < sizes[c]; i++)
            truth[at++] = c;
    }
    mt_rng_shuffle_i32(r, truth, (uint64_t)n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < d; j++)
            x[i * d + j] = centre[truth[i]][j] + (float)(noise * mt_rng_normal(r));
}

T_TEST(planted_clusters_are_found_whatever_the_seed)
{
    static float x[N * D];
    int32_t truth[N], to[N];
    int64_t cap[K];
    struct mt_rng r;

    for (int c = 0; c < K; c++)
        cap[c] = PER;
    for (uint64_t seed = 0; seed < 20; seed++) {
        mt_rng_seed(&r, seed, 99);
        plant(&r, N, D, K, cap, 0.02, x, truth);
        T_OK(t, mt_kmeans_balanced(&t->ctx, N, D, x, K, cap, seed, 3, to));
        T_NEAR(t, adjusted_rand(truth, to, N, K), 1, 0);
    }
}

T_TEST(sizes_are_exact_on_data_without_clusters)
{
    static float x[N * D];
    const int64_t cap[K] = {1, 59, 30, 30, 30, 30, 30, 30};
    int64_t load[K] = {0};
    int32_t to[N];
    struct mt_rng r;

    mt_rng_seed(&r, 5, 0);
    for (int i = 0; i < N * D; i++)
        x[i] = (float)mt_rng_normal(&r);
    T_OK(t, mt_kmeans_balanced(&t->ctx, N, D, x, K, cap, 1, 0, to));
    for (int i = 0; i < N; i++)
        load[to[i]]++;
    for (int c = 0; c < K; c++)
        T_EQ_INT(t, load[c], cap[c]);
}

T_TEST(lists_are_the_same_for_any_thread_count)
{
    static float x[N * D];
    int32_t first[N], to[N];
    int64_t cap[K];
    struct mt_rng r;

    for (int c = 0; c < K; c++)
        cap[c] = PER;
    mt_rng_seed(&r, 6, 0);
    for (int i = 0; i < N * D; i++)
        x[i] = (float)mt_rng_normal(&r);
    for (int threads = 1; threads <= 4; threads *= 2) {
        struct mt_ctx ctx;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = threads}));
        mt_status st = mt_kmeans_balanced(&ctx, N, D, x, K, cap, 1, 0, threads == 1 ? first : to);
        mt_ctx_close(&ctx);
        T_EQ_INT(t, st, MT_OK);
        T_CHECK(t, threads == 1 || memcmp(first, to, sizeof(to)) == 0);
    }
}

T_TEST(equal_points_and_single_clusters_work)
{
    float x[6 * 2];
    const int64_t thirds[] = {2, 2, 2}, all[] = {6}, ones[] = {1, 1, 1, 1, 1, 1};
    int32_t to[6];
    int seen = 0;

    for (int i = 0; i < 12; i++)
        x[i] = 0.5f;
    T_OK(t, mt_kmeans_balanced(&t->ctx, 6, 2, x, 3, thirds, 1, 0, to));
    T_OK(t, mt_kmeans_balanced(&t->ctx, 6, 2, x, 1, all, 1, 0, to));
    for (int i = 0; i < 6; i++)
        T_EQ_INT(t, to[i], 0);
    T_OK(t, mt_kmeans_balanced(&t->ctx, 6, 2, x, 6, ones, 1, 0, to));
    for (int i = 0; i < 6; i++)
        seen |= 1 << to[i];
    T_EQ_INT(t, seen, 63);
}
