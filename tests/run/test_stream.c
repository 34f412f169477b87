#include "lib/run/stream.h"

#include "lib/base/sys.h"
#include "tests/run/sets.h"
#include "tests/t.h"

#include <dirent.h>
#include <errno.h>

T_TEST(batches_are_consecutive_windows)
{
    struct mt_dataset d = set_make(1, 100, 50, 40);
    struct mt_batches b;
    size_t window = 0, token = 0;

    T_OK(t, mt_batches_make(&t->ctx, &d, 64, &b));
    for (size_t i = 0; i < b.n; i++) {
        const struct mt_batch *v = &b.v[i];
        int64_t tokens = 0;
        T_EQ_INT(t, v->first, window);
        T_EQ_INT(t, v->token0, token);
        T_EQ_INT(t, v->seqs.n, v->n);
        for (size_t w = 0; w < v->n; w++, window++) {
            const struct mt_window *win = &d.windows[window];
            T_EQ_INT(t, v->seqs.len[w], win->n);
            T_CHECK(t, memcmp(v->ids + tokens, win->ids, (size_t)win->n * sizeof *win->ids) == 0);
            tokens += win->n;
        }
        T_EQ_INT(t, v->tokens, tokens);
        T_CHECK(t, tokens <= 64 && tokens <= b.tokens_max);
        /* full: the next window would not have fitted */
        T_CHECK(t, window == d.n_windows || tokens + d.windows[window].n > 64);
        token += (size_t)tokens;
    }
    T_EQ_INT(t, window, d.n_windows);
    T_EQ_INT(t, token, d.n_tokens);
    mt_batches_free(&b);
}

T_TEST(a_window_longer_than_a_batch_is_one_batch)
{
    struct mt_dataset d = set_make(2, 100, 9, 40);
    struct mt_batches b;

    T_OK(t, mt_batches_make(&t->ctx, &d, 1, &b));
    T_EQ_INT(t, b.n, 9);
    T_EQ_INT(t, b.tokens_max, d.window_len_max);
    mt_batches_free(&b);
}

static void fill(float *x, size_t n, size_t salt)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (float)sin((double)(i * 31 + salt * 7919)) * (i % 5 == 0 ? 1e-20f : 1e3f);
}

/* Everything put comes back, chunks rewritten in any order. */
static void round_trip(struct t *t, struct mt_ctx *ctx, const char *dir, bool expect_file)
{
    struct mt_dataset d = set_make(3, 100, 60, 30);
    const int64_t hidden = 33;
    struct mt_batches b;
    struct mt_stream *s;
    static float x[60 * 33], y[60 * 33];
    uint64_t before;

    T_OK(t, mt_batches_make(ctx, &d, 60, &b));
    T_CHECK(t, b.tokens_max <= 60);
    before = mt_mem_used(ctx);
    if (mt_stream_create(ctx, &b, hidden, dir, &s) != MT_OK)
        T_FAIL(t, "%s", mt_error(ctx));
    T_CHECK(t, expect_file == (mt_mem_used(ctx) - before < d.n_tokens * (size_t)hidden * 4));
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < b.n; i++) {
            size_t chunk = round == 1 ? b.n - 1 - i : i;
            size_t n = (size_t)(b.v[chunk].tokens * hidden);
            if (round > 0) {
                fill(x, n, chunk + 1000 * (size_t)(round - 1));
                T_CHECK(t, mt_stream_get(ctx, s, chunk, y) == MT_OK);
                T_CHECK(t, memcmp(x, y, n * sizeof *x) == 0);
            }
            fill(x, n, chunk + 1000 * (size_t)round);
            T_CHECK(t, mt_stream_put(ctx, s, chunk, x) == MT_OK);
        }
    }
    mt_stream_free(s);
    mt_batches_free(&b);
}

T_TEST(what_is_put_comes_back_from_memory)
{
    round_trip(t, &t->ctx, t->dir, false);
}

T_TEST(what_is_put_comes_back_from_the_scratch_file)
{
    struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 100000};
    struct mt_ctx ctx;
    struct dirent *e;
    DIR *d;
    int left = 0;

    T_OK(t, mt_ctx_open(&ctx, &o));
    round_trip(t, &ctx, t->dir, true);
    T_EQ_INT(t, mt_mem_used(&ctx), 0);
    mt_ctx_close(&ctx);
    d = opendir(t->dir);
    while ((e = readdir(d)) != NULL)
        left += e->d_name[0] != '.';
    closedir(d);
    T_EQ_INT(t, left, 0); /* the scratch file has no name */
}

T_TEST(a_scratch_directory_that_is_not_there_is_named)
{
    struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 100000};
    struct mt_dataset d = set_make(3, 100, 60, 30);
    struct mt_batches b;
    struct mt_stream *s;
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    T_CHECK(t, mt_batches_make(&ctx, &d, 60, &b) == MT_OK);
    T_CHECK(t, mt_stream_create(&ctx, &b, 33, "/nowhere/at/all", &s) == MT_E_IO);
    T_CHECK(t, strstr(mt_error(&ctx), "/nowhere/at/all") != NULL);
    mt_batches_free(&b);
    T_EQ_INT(t, mt_mem_used(&ctx), 0);
    mt_ctx_close(&ctx);
}

/* Every call on the scratch file fails once: said in one sentence, and nothing stays open. */
T_TEST(a_scratch_file_may_fail_at_any_call)
{
    const struct mt_ctx_opts small = {.n_threads = 1, .memory_bytes_max = 100000};
    struct mt_dataset d = set_make(3, 100, 60, 30);
    static float x[60 * 33];
    int n_failed = 0;

    for (uint64_t n = 1;; n++) {
        struct mt_stream *s = NULL;
        struct mt_batches b;
        struct mt_ctx ctx;
        mt_status st;
        T_OK(t, mt_ctx_open(&ctx, &small));
        T_OK(t, mt_batches_make(&ctx, &d, 60, &b));
        mt_fault_io(n, n % 2 == 0 ? ENOSPC : EIO);
        st = mt_stream_create(&ctx, &b, 33, t->dir, &s);
        for (int round = 0; round < 2; round++) {
            for (size_t i = 0; i < b.n && st == MT_OK; i++)
                st = mt_stream_put(&ctx, s, i, x);
            for (size_t i = 0; i < b.n && st == MT_OK; i++)
                st = mt_stream_get(&ctx, s, i, x);
        }
        bool waits = mt_fault_io_waits();
        mt_fault_io(0, 0);
        T_CHECK(t, (st == MT_OK) == waits);
        T_CHECK(t, st == MT_OK || (st == MT_E_IO && strstr(mt_error(&ctx), t->dir) != NULL));
        mt_stream_free(s);
        mt_batches_free(&b);
        T_EQ_INT(t, mt_mem_used(&ctx), 0);
        mt_ctx_close(&ctx);
        if (waits)
            break;
        n_failed++;
    }
    T_CHECK(t, n_failed > 20);
}
