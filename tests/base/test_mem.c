#include "tests/t.h"

#include "lib/base/pool.h"

#include <stdint.h>
#include <stdlib.h>

static mt_status mem_open(struct mt_ctx *ctx, uint64_t limit)
{
    struct mt_ctx_opts o = {.n_threads = 4, .memory_bytes_max = limit};

    return mt_ctx_open(ctx, &o);
}

T_TEST(blocks_are_aligned_counted_and_refunded)
{
    float *a;
    char *none;

    T_OK(t, mt_alloc(&t->ctx, 100, sizeof *a, "floats", &a));
    T_OK(t, mt_alloc(&t->ctx, 0, 8, "nothing", &none));
    T_EQ_INT(t, (uintptr_t)a % 64, 0);
    T_CHECK(t, none != NULL);
    T_CHECK(t, mt_mem_used(&t->ctx) >= 400);
    uint64_t peak = mt_mem_peak(&t->ctx);
    mt_free(a);
    mt_free(none);
    mt_free(NULL);
    T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
    T_EQ_INT(t, mt_mem_peak(&t->ctx), peak);
}

T_TEST(zeroed_means_zero)
{
    unsigned char *p, any = 0;

    T_OK(t, mt_alloc0(&t->ctx, 999, 3, "bytes", &p));
    for (int i = 0; i < 2997; i++)
        any |= p[i];
    mt_free(p);
    T_EQ_INT(t, any, 0);
}

T_TEST(growing_keeps_the_bytes_and_failing_keeps_the_block)
{
    char *p = NULL;

    T_OK(t, mt_realloc(&t->ctx, 3, 1, "text", &p));
    memcpy(p, "ab", 3);
    T_OK(t, mt_realloc(&t->ctx, 5000, 1, "text", &p));
    T_EQ_STR(t, p, "ab");
    mt_fault_alloc(1);
    T_FAILS(t, mt_realloc(&t->ctx, 9000, 1, "text", &p), MT_E_NOMEM, "out of memory for text");
    T_EQ_STR(t, p, "ab");
    mt_free(p);
}

T_TEST(the_budget_is_one_sentence)
{
    struct mt_ctx ctx;
    char *a, *b;

    T_OK(t, mem_open(&ctx, 1u << 20));
    mt_status first = mt_alloc(&ctx, 1, 600 << 10, "first", &a);
    mt_status second = mt_alloc(&ctx, 1, 600 << 10, "second", &b);
    char text[MT_ERROR_TEXT_MAX];
    memcpy(text, mt_error(&ctx), sizeof text);
    /* 600 KiB are in use. */
    T_CHECK(t, strstr(text, "raise --memory to 2M or more") != NULL);
    mt_status plan = mt_mem_fits(&ctx, 10u << 20, "the plan");
    mt_status fits = mt_mem_fits(&ctx, 100u << 10, "the plan");
    mt_free(a);
    mt_status third = mt_alloc(&ctx, 1, 600 << 10, "third", &b);
    mt_free(b);
    mt_ctx_close(&ctx);
    T_EQ_INT(t, first, MT_OK);
    T_EQ_INT(t, second, MT_E_LIMIT);
    T_CHECK(t, strstr(text, "second needs 600.1 KiB, but --memory allows 1.0 MiB") != NULL);
    T_EQ_INT(t, plan, MT_E_LIMIT);
    T_EQ_INT(t, fits, MT_OK);
    T_EQ_INT(t, third, MT_OK);
}

T_TEST(sizes_that_overflow_are_refused)
{
    char *p;

    T_FAILS(t, mt_alloc(&t->ctx, SIZE_MAX / 2, 4, "rows", &p), MT_E_LIMIT, "overflows");
    T_CHECK(t, p == NULL);
    T_FAILS(t, mt_alloc(&t->ctx, SIZE_MAX, 1, "rows", &p), MT_E_LIMIT, "overflows");
}

T_TEST(the_nth_allocation_fails_once)
{
    char *p[3] = {0};

    mt_fault_alloc(2);
    T_OK(t, mt_alloc(&t->ctx, 1, 1, "a", &p[0]));
    T_FAILS(t, mt_alloc(&t->ctx, 1, 1, "b", &p[1]), MT_E_NOMEM, "out of memory for b");
    T_OK(t, mt_alloc(&t->ctx, 1, 1, "c", &p[2]));
    mt_free(p[0]);
    mt_free(p[2]);
}

static mt_status mem_churn(struct mt_ctx *ctx, int64_t i, void *arg)
{
    char *p;

    (void)arg;
    for (int n = 0; n < 200; n++) {
        MT_TRY(mt_alloc(ctx, 1, (size_t)(i * 37 + n + 1), "churn", &p));
        mt_free(p);
    }
    return MT_OK;
}

T_TEST(counting_from_many_threads_ends_at_zero)
{
    struct mt_ctx ctx;

    T_OK(t, mem_open(&ctx, 0));
    mt_status st = mt_pool_run(&ctx, 64, mem_churn, NULL);
    uint64_t used = mt_mem_used(&ctx);
    mt_ctx_close(&ctx);
    T_EQ_INT(t, st, MT_OK);
    T_EQ_INT(t, used, 0);
}

T_TEST(an_arena_serves_many_sizes_and_ends_at_once)
{
    struct mt_arena a;
    unsigned char *p[500];
    const char *s;

    mt_arena_init(&a);
    for (size_t i = 0; i < 500; i++) {
        size_t n = i % 7 == 0 ? 9000 : i;
        T_OK(t, mt_arena_alloc(&t->ctx, &a, n, 1, &p[i]));
        T_EQ_INT(t, (uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)(i & 255), n);
    }
    for (size_t i = 1; i < 500; i++) {
        size_t n = i % 7 == 0 ? 9000 : i;
        T_CHECK(t, p[i][0] == (i & 255) && p[i][n - 1] == (i & 255));
    }
    T_OK(t, mt_arena_printf(&t->ctx, &a, &s, "layer %d", 12));
    T_EQ_STR(t, s, "layer 12");
    T_OK(t, mt_arena_strndup(&t->ctx, &a, "abcdef", 3, &s));
    T_EQ_STR(t, s, "abc");
    mt_arena_free(&a);
    T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
    T_OK(t, mt_arena_alloc(&t->ctx, &a, 1, 1, &p[0]));
    mt_arena_free(&a);
}

T_TEST(arrays_grow_by_doubling)
{
    uint64_t before = mt_mem_used(&t->ctx);
    size_t cap = 0, moves = 0;
    int *v = NULL;

    for (size_t n = 0; n < 10000; n++) {
        size_t had = cap;
        T_OK(t, mt_grow(&t->ctx, n, &cap, sizeof *v, "numbers", &v));
        T_CHECK(t, cap > n);
        moves += cap != had;
        v[n] = (int)n;
    }
    T_CHECK(t, moves < 12);
    for (int i = 0; i < 10000; i++)
        T_EQ_INT(t, v[i], i);
    mt_fault_alloc(1);
    mt_status st = mt_grow(&t->ctx, cap, &cap, sizeof *v, "numbers", &v);
    mt_fault_alloc(0);
    T_CHECK(t, st == MT_E_NOMEM && v[9999] == 9999);
    mt_free(v);
    T_CHECK(t, mt_mem_used(&t->ctx) == before);
}

static long mem_anon_kib(void)
{
    char line[128];
    long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "RssAnon: %ld kB", &kib) == 1)
            break;
    }
    if (f != NULL)
        fclose(f);
    return kib;
}

/* The first block is what teaches glibc to keep those after it. */
T_TEST(freed_blocks_go_back_to_the_system)
{
    const size_t mib = (size_t)1 << 20;
    void *block[8], *first, *pin;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    T_SKIP(t, "sanitizers hold on to memory that was freed");
#endif
    if (mem_anon_kib() == 0)
        T_SKIP(t, "this system does not tell RssAnon");
    mt_mem_return_freed();
    T_OK(t, mt_alloc0(&t->ctx, 24, mib, "block", &first));
    mt_free(first);
    long before = mem_anon_kib();
    for (int i = 0; i < 8; i++)
        T_OK(t, mt_alloc0(&t->ctx, 8, mib, "block", &block[i]));
    /* Too large for a hole: on a heap that holds the blocks it would lie above them. */
    T_OK(t, mt_alloc0(&t->ctx, 1, mib / 4, "pin", &pin));
    T_CHECK(t, mem_anon_kib() > before + 60 * 1024);
    for (int i = 0; i < 8; i++)
        mt_free(block[i]);
    T_CHECK(t, mem_anon_kib() < before + 4 * 1024);
    mt_free(pin);
}
