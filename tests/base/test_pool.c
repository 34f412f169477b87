#include "lib/base/pool.h"

#include "tests/t.h"

#include <stdatomic.h>
#include <stdlib.h>

static mt_status pool_open(struct mt_ctx *ctx, int n)
{
    struct mt_ctx_opts o = {.n_threads = n};

    return mt_ctx_open(ctx, &o);
}

static mt_status pool_count(struct mt_ctx *ctx, int64_t i, void *arg)
{
    _Atomic int *hits = arg;

    (void)ctx;
    atomic_fetch_add(&hits[i], 1);
    return MT_OK;
}

T_TEST(every_index_runs_once)
{
    static _Atomic int hits[10000];

    for (int threads = 1; threads <= 5; threads++) {
        struct mt_ctx ctx;
        memset(hits, 0, sizeof hits);
        T_OK(t, pool_open(&ctx, threads));
        mt_status st = mt_pool_run(&ctx, 10000, pool_count, hits);
        mt_ctx_close(&ctx);
        T_EQ_INT(t, st, MT_OK);
        for (int i = 0; i < 10000; i++)
            T_EQ_INT(t, hits[i], 1);
    }
}

T_TEST(nothing_to_do_is_done)
{
    T_OK(t, mt_pool_run(&t->ctx, 0, pool_count, NULL));
}

static mt_status pool_sometimes(struct mt_ctx *ctx, int64_t i, void *arg)
{
    (void)arg;
    if (i % 10 == 7)
        return mt_fail(ctx, i == 7 ? MT_E_FORMAT : MT_E_IO, "job %lld", (long long)i);
    return MT_OK;
}

T_TEST(the_lowest_failure_wins_for_any_thread_count)
{
    for (int round = 0; round < 50; round++) {
        struct mt_ctx ctx;
        T_OK(t, pool_open(&ctx, round % 5 + 1));
        mt_status st = mt_pool_run(&ctx, 500, pool_sometimes, NULL);
        char text[32];
        snprintf(text, sizeof text, "%.30s", mt_error(&ctx));
        mt_ctx_close(&ctx);
        T_EQ_INT(t, st, MT_E_FORMAT);
        T_EQ_STR(t, text, "job 7");
    }
}

static mt_status pool_inner(struct mt_ctx *ctx, int64_t i, void *arg)
{
    int64_t *sum = arg;

    (void)ctx;
    *sum += i; /* unguarded: the inner loop must run alone */
    return MT_OK;
}

static mt_status pool_outer(struct mt_ctx *ctx, int64_t i, void *arg)
{
    int64_t *sums = arg;

    MT_TRY(mt_pool_run(ctx, 100, pool_inner, &sums[i]));
    if (i == 30)
        return mt_wrap(ctx, mt_pool_run(ctx, 20, pool_sometimes, NULL), "outer 30");
    return MT_OK;
}

T_TEST(nested_loops_run_alone_and_report)
{
    int64_t sums[64] = {0};

    T_FAILS(t, mt_pool_run(&t->ctx, 64, pool_outer, sums), MT_E_FORMAT, "outer 30: job 7");
    for (int i = 0; i < 30; i++)
        T_EQ_INT(t, sums[i], 4950);
}

static mt_status pool_worker_ok(struct mt_ctx *ctx, int64_t i, void *arg)
{
    (void)arg;
    (void)i;
    if (mt_pool_worker() < 0 || mt_pool_worker() >= mt_ctx_threads(ctx))
        return mt_fail(ctx, MT_E_LIMIT, "worker %d", mt_pool_worker());
    return MT_OK;
}

T_TEST(worker_numbers_stay_below_the_thread_count)
{
    T_EQ_INT(t, mt_pool_worker(), 0);
    T_OK(t, mt_pool_run(&t->ctx, 1000, pool_worker_ok, NULL));
}

struct pool_sums {
    const float *x;
    double part[64];
};

static mt_status pool_sum(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct pool_sums *s = arg;
    double sum = 0;

    (void)ctx;
    for (int64_t j = i * 1000; j < (i + 1) * 1000; j++)
        sum += (double)s->x[j];
    s->part[i] = sum;
    return MT_OK;
}

T_TEST(results_are_the_same_for_one_and_four_threads)
{
    static float x[64000];
    double want = 0;

    for (int i = 0; i < 64000; i++)
        x[i] = 1.0f / (float)(i * 31 % 977 + 1);
    for (int threads = 1; threads <= 4; threads += 3) {
        struct pool_sums s = {.x = x};
        struct mt_ctx ctx;
        double sum = 0;
        T_OK(t, pool_open(&ctx, threads));
        mt_status st = mt_pool_run(&ctx, 64, pool_sum, &s);
        mt_ctx_close(&ctx);
        T_EQ_INT(t, st, MT_OK);
        for (int i = 0; i < 64; i++)
            sum += s.part[i];
        if (threads == 1)
            want = sum;
        T_CHECK(t, !(sum < want) && !(sum > want));
    }
}
