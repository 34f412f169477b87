#include "tests/t.h"

#include "lib/base/pool.h"

struct seen {
    int n, whats[16], part, parts;
    uint64_t done, total;
    const char *unit;
};

static void seen_progress(void *self, const struct mt_progress_event *ev)
{
    struct seen *s = self;

    if (s->n < 16)
        s->whats[s->n] = (int)ev->what;
    s->n++;
    s->done = ev->done;
    s->total = ev->total;
    s->unit = ev->unit;
    s->part = ev->part;
    s->parts = ev->parts;
}

T_TEST(options_reach_the_context)
{
    struct mt_ctx_opts o = {
        .n_threads = 3, .memory_bytes_max = 1u << 20, .seed = 42, .allow_nan = true};
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    T_EQ_INT(t, mt_ctx_threads(&ctx), 3);
    T_EQ_INT(t, mt_ctx_seed(&ctx), 42);
    T_CHECK(t, mt_ctx_allow_nan(&ctx));
    T_EQ_INT(t, mt_mem_limit(&ctx), 1 << 20);
    mt_log(&ctx, MT_LOG_INFO, "nobody listens");
    mt_ctx_close(&ctx);
    mt_ctx_close(&ctx); /* closing twice is harmless */
}

T_TEST(no_thread_count_means_one_per_core)
{
    struct mt_ctx_opts o = {0};
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    T_CHECK(t, mt_ctx_threads(&ctx) >= 1);
    mt_ctx_close(&ctx);
}

T_TEST(children_have_texts_of_their_own)
{
    struct mt_ctx child;

    mt_ctx_child(&child, &t->ctx);
    T_EQ_INT(t, mt_fail(&child, MT_E_IO, "in the child"), MT_E_IO);
    T_EQ_STR(t, mt_error(&t->ctx), "");
    T_EQ_STR(t, mt_error(&child), "in the child");
    T_EQ_INT(t, mt_ctx_seed(&child), mt_ctx_seed(&t->ctx));
}

T_TEST(cancelling_is_seen)
{
    T_OK(t, mt_check_cancel(&t->ctx));
    t->cancel = 1;
    T_FAILS(t, mt_check_cancel(&t->ctx), MT_E_CANCELLED, "interrupted");
}

T_TEST(log_lines_reach_the_sink)
{
    mt_log(&t->ctx, MT_LOG_WARN, "%d of %d", 1, 2);
    T_EQ_STR(t, t->log, "1 of 2\n");
}

T_TEST(progress_counts_up_between_begin_and_end)
{
    struct seen s = {0};
    struct mt_ctx_opts o = {.n_threads = 1, .sink = {&s, NULL, seen_progress}};
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    mt_progress_begin(&ctx, "work", "B", 10);
    mt_progress_add(&ctx, 4);
    mt_progress_add(&ctx, 6);
    mt_progress_end(&ctx);
    mt_ctx_close(&ctx);
    T_EQ_INT(t, s.n, 4);
    T_EQ_INT(t, s.whats[0], MT_PROGRESS_BEGIN);
    T_EQ_INT(t, s.whats[3], MT_PROGRESS_END);
    T_EQ_INT(t, s.done, 10);
    T_EQ_INT(t, s.total, 10);
    T_EQ_STR(t, s.unit, "B");
}

T_TEST(regions_are_told_as_parts_until_the_end)
{
    struct seen s = {0};
    struct mt_ctx_opts o = {.n_threads = 1, .sink = {&s, NULL, seen_progress}};
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    mt_progress_part(&ctx, 2, 5);
    mt_progress_begin(&ctx, "layer", "tokens", 1);
    mt_progress_end(&ctx);
    int part = s.part, parts = s.parts;
    mt_progress_part(&ctx, 0, 0);
    mt_progress_begin(&ctx, "other", "B", 1);
    mt_progress_end(&ctx);
    mt_ctx_close(&ctx);
    T_CHECK(t, part == 2 && parts == 5);
    T_CHECK(t, s.part == 0 && s.parts == 0);
}

static mt_status ctx_add_one(struct mt_ctx *ctx, int64_t i, void *arg)
{
    (void)i;
    (void)arg;
    mt_progress_add(ctx, 1);
    return MT_OK;
}

T_TEST(progress_from_many_threads_adds_up)
{
    struct seen s = {0};
    struct mt_ctx_opts o = {.n_threads = 4, .sink = {&s, NULL, seen_progress}};
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    mt_progress_begin(&ctx, "work", "layers", 1000);
    T_OK(t, mt_pool_run(&ctx, 1000, ctx_add_one, NULL));
    mt_progress_end(&ctx);
    mt_ctx_close(&ctx);
    T_EQ_INT(t, s.done, 1000);
}
