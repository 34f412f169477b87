#include "passes/lib/graph_cut.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#include <math.h>
#include <string.h>

/* Groups of `size`: ties of `in` inside and `out` between them, both times 0.5 .. 1.5; vertices
 * shuffled. */
static void planted_blocks(int groups, int size, double in, double out, uint64_t seed,
                           int32_t *truth, double *w)
{
    int n = groups * size;
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int i = 0; i < n; i++)
        truth[i] = i / size;
    mt_rng_shuffle_i32(&r, truth, (uint64_t)n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j <= i; j++)
            w[i * n + j] = w[j * n + i] =
                (truth[i] == truth[j] ? in : out) * (0.5 + mt_rng_unit(&r));
}

static void even(int n, int k, int64_t *cap)
{
    for (int c = 0; c < k; c++)
        cap[c] = n / k + (c < n % k);
}

static double cut_weight(const double *w, int n, const int32_t *to)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            sum += to[i] != to[j] ? w[i * n + j] : 0;
    return sum;
}

/* Relabelled: vertices are together exactly when the truth has them together. */
static bool same_groups(const int32_t *a, const int32_t *b, int n)
{
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++)
            if ((a[i] == a[j]) != (b[i] == b[j]))
                return false;
    return true;
}

T_TEST(edges_are_the_strongest_of_either_end)
{
    enum { N = 23, DEGREE = 3 };
    double w[N * N];
    int32_t truth[N];
    struct mt_graph g;
    int64_t edges = 0;

    planted_blocks(1, N, 1, 0, 3, truth, w);
    w[4 * N + 9] = w[9 * N + 4] = 0; /* nothing there: no edge however few there are */
    T_OK(t, mt_graph_strongest(&t->ctx, N, w, DEGREE, &g));
    for (int i = 0; i < N; i++) {
        bool seen[N] = {false};
        for (int64_t e = g.first[i]; e < g.first[i + 1]; e++) {
            T_CHECK(t, !seen[g.to[e]] && g.to[e] != i);
            T_CHECK(t, g.w[e] == w[i * N + g.to[e]]);
            seen[g.to[e]] = true;
        }
        for (int j = 0; j < N; j++) {
            int mine = 0, its = 0; /* stronger ties of i, and of j, than the one between them */
            for (int o = 0; o < N; o++) {
                mine += o != i && w[i * N + o] > w[i * N + j];
                its += o != j && w[j * N + o] > w[i * N + j];
            }
            bool want = i != j && w[i * N + j] > 0 && (mine < DEGREE || its < DEGREE);
            T_CHECK(t, seen[j] == want);
            edges += want;
        }
    }
    T_EQ_INT(t, g.first[N], edges);
    mt_graph_free(&g);
    w[5] = NAN;
    T_FAILS(t, mt_graph_strongest(&t->ctx, N, w, DEGREE, &g), MT_E_NUMERIC, "NaN");
    mt_graph_free(&g);
}

T_TEST(planted_groups_are_found_whatever_the_seed)
{
    static const struct {
        int groups, size, degree;
        double out;
    } cases[] = {
        {2, 20, 39, 0.5}, {4, 16, 63, 0.4}, {8, 32, 24, 0.3}, {16, 12, 12, 0.3}, {80, 4, 6, 0.1}};
    enum { N = 320 };
    static double w[N * N];
    int32_t truth[N], to[N];
    int64_t cap[80];
    struct mt_graph g;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (uint64_t seed = 1; seed <= 4; seed++) {
            int n = cases[i].groups * cases[i].size;
            planted_blocks(cases[i].groups, cases[i].size, 1, cases[i].out, seed, truth, w);
            even(n, cases[i].groups, cap);
            T_OK(t, mt_graph_strongest(&t->ctx, n, w, cases[i].degree, &g));
            T_OK(t, mt_graph_cut(&t->ctx, &g, cases[i].groups, cap, seed, 0, to));
            mt_graph_free(&g);
            if (!same_groups(to, truth, n))
                t_fail(t, __FILE__, __LINE__, "case %zu, seed %d: other groups", i, (int)seed);
        }
    }
}

/* All ways to deal n vertices out to parts of the given sizes. */
static void try_all(const double *w, int n, int k, int at, int64_t *room, int32_t *to, double *best)
{
    if (at == n) {
        *best = fmin(*best, cut_weight(w, n, to));
        return;
    }
    for (int c = 0; c < k; c++) {
        if (room[c] == 0)
            continue;
        room[c]--;
        to[at] = c;
        try_all(w, n, k, at + 1, room, to, best);
        room[c]++;
    }
}

/* Without structure to find: seldom more than the least, never much, and never an exchange away
 * from something better. */
T_TEST(cuts_are_near_the_least_of_all)
{
    enum { N = 10, CASES = 60 };
    double w[N * N], worst = 0;
    int32_t truth[N], to[N], other[N];
    int64_t cap[3];
    struct mt_graph g;
    int least = 0;

    for (int i = 0; i < CASES; i++) {
        int n = 7 + i % 4, k = 2 + i % 2;
        double best = INFINITY;
        planted_blocks(1, n, 1, 1, (uint64_t)i + 10, truth, w);
        even(n, k, cap);
        T_OK(t, mt_graph_strongest(&t->ctx, n, w, n, &g));
        T_OK(t, mt_graph_cut(&t->ctx, &g, k, cap, 1, 0, to));
        mt_graph_free(&g);
        double have = cut_weight(w, n, to);
        for (int a = 0; a < n; a++)
            cap[to[a]]--;
        for (int c = 0; c < k; c++)
            T_EQ_INT(t, cap[c], 0);
        for (int a = 0; a < n; a++)
            for (int b = 0; b < a; b++) {
                memcpy(other, to, sizeof other);
                other[a] = to[b];
                other[b] = to[a];
                T_CHECK(t, cut_weight(w, n, other) > have - 1e-9);
            }
        even(n, k, cap);
        try_all(w, n, k, 0, cap, other, &best);
        T_CHECK(t, have > best - 1e-9);
        least += have < best + 1e-9;
        worst = fmax(worst, have / best - 1);
    }
    T_CHECK(t, least >= 50);
    T_CHECK(t, worst < 0.02);
}

T_TEST(odd_graphs_are_cut_too)
{
    enum { N = 12 };
    double w[N * N] = {0};
    int32_t to[N];
    int64_t cap[N];
    struct mt_graph g;

    for (int k = 1; k <= N; k++) { /* no edge at all, one part, a part for each vertex */
        int count[N] = {0};
        even(N, k, cap);
        T_OK(t, mt_graph_strongest(&t->ctx, N, w, 4, &g));
        T_EQ_INT(t, g.first[N], 0);
        T_OK(t, mt_graph_cut(&t->ctx, &g, k, cap, 1, 0, to));
        T_NEAR(t, mt_graph_inside(&g, to), 1, 0);
        mt_graph_free(&g);
        for (int i = 0; i < N; i++)
            count[to[i]]++;
        for (int c = 0; c < k; c++)
            T_EQ_INT(t, count[c], cap[c]);
    }
    /* Two pairs and loners. */
    w[0 * N + 7] = w[7 * N + 0] = w[3 * N + 4] = w[4 * N + 3] = 1;
    even(N, 6, cap);
    T_OK(t, mt_graph_strongest(&t->ctx, N, w, 4, &g));
    T_OK(t, mt_graph_cut(&t->ctx, &g, 6, cap, 1, 0, to));
    T_CHECK(t, to[0] == to[7] && to[3] == to[4]);
    to[7] = (to[0] + 1) % 6;
    T_NEAR(t, mt_graph_inside(&g, to), 0.5, 1e-12);
    mt_graph_free(&g);
}

T_TEST(parts_are_the_same_for_any_thread_count)
{
    enum { N = 96, K = 8 };
    static double w[N * N];
    int32_t truth[N], one[N], many[N];
    int64_t cap[K];
    struct mt_graph g;

    planted_blocks(K, N / K, 1, 0.8, 5, truth, w);
    even(N, K, cap);
    T_OK(t, mt_graph_strongest(&t->ctx, N, w, 16, &g));
    for (int threads = 1; threads <= 4; threads *= 2) {
        struct mt_ctx ctx;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = threads}));
        mt_status st = mt_graph_cut(&ctx, &g, K, cap, 1, 0, threads == 1 ? one : many);
        mt_ctx_close(&ctx);
        T_EQ_INT(t, st, MT_OK);
        T_CHECK(t, threads == 1 || memcmp(one, many, sizeof(many)) == 0);
    }
    mt_graph_free(&g);
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    enum { N = 24, K = 3 };
    static double w[N * N];
    mt_status st = MT_E_NOMEM;
    int32_t truth[N], to[N];
    int64_t cap[K];

    planted_blocks(K, N / K, 1, 0.8, 5, truth, w);
    even(N, K, cap);
    for (uint64_t n = 1; n < 200 && st == MT_E_NOMEM; n++) {
        struct mt_graph g;
        mt_fault_alloc(n);
        st = mt_graph_strongest(&t->ctx, N, w, 5, &g);
        if (st == MT_OK)
            st = mt_graph_cut(&t->ctx, &g, K, cap, 1, 0, to);
        mt_fault_alloc(0);
        mt_graph_free(&g);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
    }
    T_EQ_INT(t, st, MT_OK);
}

/* Hubs that everybody is tied to most: hardly two are in each other's list, so there are as many
 * edges as can be. */
T_TEST(a_graph_takes_no_more_than_it_says)
{
    enum { N = 600, HUBS = 3 };
    struct mt_graph g;
    struct mt_ctx ctx;
    double *w;

    T_OK(t, mt_alloc(&t->ctx, (size_t)N * N, sizeof(*w), "matrix", &w));
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            w[i * N + j] = i < HUBS || j < HUBS ? 2 : 1;
    T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 1}));
    mt_status st = mt_graph_strongest(&ctx, N, w, HUBS, &g);
    uint64_t peak = mt_mem_peak(&ctx), said = mt_graph_bytes(N, HUBS);
    mt_graph_free(&g);
    mt_ctx_close(&ctx);
    mt_free(w);
    T_OK(t, st);
    /* A head in front of each of five blocks, and what the hubs' own lists spare. */
    T_CHECK(t, peak <= said + 5 * 128);
    T_CHECK(t, peak + HUBS * HUBS * 24 >= said);
}
