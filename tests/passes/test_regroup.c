#include "lib/base/rng.h"
#include "passes/lib/regroup.h"
#include "tests/t.h"

#include <stdlib.h>

#define W 8
#define E 3
#define TOKENS 300

/* Two shared neurons, two in each expert. */
static mt_status split(struct mt_ctx *ctx, struct mt_split **out)
{
    static const int32_t owner[W] = {MT_SPLIT_SHARED, 0, 1, 2, 0, 1, 2, MT_SPLIT_SHARED};

    MT_TRY(mt_split_create(ctx, W, E, 1, out));
    mt_split_fill(*out, owner);
    return MT_OK;
}

static double earned(const float *h, const unsigned char *picked, const double *length, int j,
                     int e)
{
    double sum = 0;

    for (int t = 0; t < TOKENS; t++)
        if (picked[t * E + e] != 0)
            sum += (double)h[t * W + j] * length[j] * (double)h[t * W + j] * length[j];
    return sum;
}

/* All 90 ways to put six neurons into three pairs. */
static double best_of_all(const float *h, const unsigned char *picked, const double *length)
{
    double best = 0;

    for (int code = 0; code < 729; code++) {
        int n[E] = {0}, c = code;
        double sum = 0;
        for (int j = 1; j < 7; j++, c /= 3) {
            n[c % 3]++;
            sum += earned(h, picked, length, j, c % 3);
        }
        if (n[0] == 2 && n[1] == 2 && sum > best)
            best = sum;
    }
    return best;
}

T_TEST(neurons_move_to_where_they_earn_most)
{
    static float h[TOKENS * W];
    static unsigned char picked[TOKENS * E];
    const double length[W] = {1, 1, 2, 0.5, 1, 3, 1, 1};

    for (uint64_t seed = 0; seed < 10; seed++) {
        struct mt_regroup *g;
        struct mt_split *s;
        struct mt_rng r;
        double got = 0;
        mt_rng_seed(&r, seed, 0);
        for (int i = 0; i < TOKENS * W; i++)
            h[i] = (float)mt_rng_normal(&r);
        for (int i = 0; i < TOKENS * E; i++)
            picked[i] = mt_rng_below(&r, 2) != 0;
        T_OK(t, split(&t->ctx, &s));
        T_OK(t, mt_regroup_create(&t->ctx, W, E, length, &g));
        T_OK(t, mt_regroup_add(&t->ctx, g, 100, h, picked));
        T_OK(t, mt_regroup_add(&t->ctx, g, TOKENS - 100, h + 100 * W, picked + 100 * E));
        T_OK(t, mt_regroup_move(&t->ctx, g, s));
        T_EQ_INT(t, mt_split_shared(s)[0], 0);
        T_EQ_INT(t, mt_split_shared(s)[1], 7);
        for (int e = 0; e < E; e++)
            for (int i = 0; i < 2; i++)
                got += earned(h, picked, length, mt_split_expert(s, e)[i], e);
        T_NEAR(t, got, best_of_all(h, picked, length), 1e-3 * got);
        mt_regroup_free(g);
        mt_split_free(s);
    }
}
