#include "passes/lib/importance.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#define N 4
#define D 26

static void random_worth(uint64_t seed, double *worth)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    /* Multiples of a tenth, so that there are ties; and neurons that matter to everyone. */
    for (int i = 0; i < N * D; i++)
        worth[i] = (double)mt_rng_below(&r, 10) / 10 + (i % D < 3 ? 1 : 0);
}

static bool fill(struct t *t, const double *worth, int shared, bool overlap, struct mt_split **s)
{
    if (mt_split_create(&t->ctx, D, N, shared, s) == MT_OK &&
        mt_importance_fill(&t->ctx, worth, overlap, *s) == MT_OK)
        return true;
    t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return false;
}

static bool has(const int32_t *list, int64_t n, int j)
{
    for (int64_t i = 0; i < n; i++)
        if (list[i] == j)
            return true;
    return false;
}

/* The rule as the authors write it: of all pairs left the one of the highest worth. */
static void naive_exclusive(const double *worth, int64_t *room, const bool *residual, int *owner)
{
    for (int j = 0; j < D; j++)
        owner[j] = residual[j] ? -1 : N;
    for (;;) {
        int be = -1, bj = -1;
        for (int e = 0; e < N; e++)
            for (int j = 0; j < D; j++)
                if (room[e] > 0 && owner[j] == N &&
                    (be < 0 || worth[e * D + j] > worth[be * D + bj])) {
                    be = e;
                    bj = j;
                }
        if (be < 0)
            return;
        owner[bj] = be;
        room[be]--;
    }
}

T_TEST(exclusive_lists_are_the_greedy_ones)
{
    double worth[N * D];
    struct mt_split *s;
    int owner[D];

    for (uint64_t seed = 1; seed <= 40; seed++) {
        bool residual[D] = {false};
        int shared = seed % 2 == 0 ? 2 : 0;
        int64_t cap[N], seen = 0;
        random_worth(seed, worth);
        T_CHECK(t, fill(t, worth, shared, false, &s));
        mt_split_capacities(s, cap);
        for (int64_t i = 0; i < s->shared_width; i++)
            residual[s->idx[i]] = true;
        naive_exclusive(worth, cap, residual, owner);
        for (int e = 0; e < N; e++)
            for (int64_t i = 0; i < s->expert_width; i++)
                if (mt_split_expert(s, e)[i] >= 0) {
                    T_EQ_INT(t, owner[mt_split_expert(s, e)[i]], e);
                    seen++;
                }
        T_EQ_INT(t, seen + s->shared_width, D);
        mt_split_free(s);
    }
}

/* Every expert has its own best, whoever else has them. */
T_TEST(overlapping_lists_are_each_expert_s_best)
{
    double worth[N * D];
    struct mt_split *s;

    for (uint64_t seed = 1; seed <= 20; seed++) {
        random_worth(seed, worth);
        T_CHECK(t, fill(t, worth, 0, true, &s));
        for (int e = 0; e < N; e++) {
            const int32_t *list = mt_split_expert(s, e);
            for (int j = 0; j < D; j++) {
                int before = 0;
                for (int o = 0; o < D; o++)
                    before += worth[e * D + o] > worth[e * D + j] ||
                              (worth[e * D + o] == worth[e * D + j] && o < j);
                T_CHECK(t, has(list, s->expert_width, j) == (before < s->expert_width));
            }
        }
        /* What matters to all is in all. */
        for (int e = 0; e < N; e++)
            T_CHECK(t, has(mt_split_expert(s, e), s->expert_width, 1));
        mt_split_free(s);
    }
}

/* Residual neurons are those that most experts would choose: here planted ones that all do. */
T_TEST(what_all_would_choose_is_always_on)
{
    double worth[N * D];
    struct mt_split *s;

    for (uint64_t seed = 1; seed <= 10; seed++) {
        for (int overlap = 0; overlap < 2; overlap++) {
            random_worth(seed, worth);
            T_CHECK(t, fill(t, worth, 1, overlap == 1, &s));
            T_EQ_INT(t, s->shared_width, 6);
            for (int j = 0; j < 3; j++)
                T_CHECK(t, has(mt_split_shared(s), 6, j));
            for (int64_t i = 0; i < 6; i++)
                for (int e = 0; e < N; e++)
                    T_CHECK(t, !has(mt_split_expert(s, e), s->expert_width, s->idx[i]));
            mt_split_free(s);
        }
    }
}

/* Counts decide before sizes: neuron 0 is worth most to one expert, neuron 1 something to all. */
T_TEST(counts_come_before_worth)
{
    double worth[N * D] = {0};
    struct mt_split *s;

    for (int e = 0; e < N; e++) {
        for (int i = 0; i < 6; i++)
            worth[e * D + 2 + e * 6 + i] = 1;
        worth[e * D + 1] = 2;
    }
    worth[0] = 100;
    T_OK(t, mt_split_create_sizes(&t->ctx, D, N, 6, 1, &s));
    T_OK(t, mt_importance_fill(&t->ctx, worth, true, s));
    T_EQ_INT(t, s->idx[0], 1);
    /* Then expert 0 has neuron 0 and five of its own, each other its own six. */
    T_EQ_INT(t, mt_split_expert(s, 0)[0], 0);
    for (int e = 1; e < N; e++)
        for (int i = 0; i < 6; i++)
            T_EQ_INT(t, mt_split_expert(s, e)[i], 2 + e * 6 + i);
    mt_split_free(s);
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    double worth[N * D];
    struct mt_split *s;

    random_worth(1, worth);
    T_OK(t, mt_split_create(&t->ctx, D, N, 1, &s));
    mt_status st = MT_E_NOMEM;
    for (uint64_t n = 1; n < 50 && st == MT_E_NOMEM; n++) {
        mt_fault_alloc(n);
        st = mt_importance_fill(&t->ctx, worth, false, s);
        mt_fault_alloc(0);
    }
    T_EQ_INT(t, st, MT_OK);
    mt_split_free(s);
}
