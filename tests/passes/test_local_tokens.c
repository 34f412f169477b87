#include "passes/lib/local_tokens.h"

#include "lib/base/sys.h"
#include "passes/lib/refit.h"
#include "tests/t.h"

#include <errno.h>
#include <stdlib.h>

#define D 3
#define EXPERTS 11
#define TOKENS 5000

static float x[TOKENS * D], y[TOKENS * D];
static unsigned char picked[TOKENS * EXPERTS];

static void fill(void)
{
    for (int i = 0; i < TOKENS * D; i++) {
        x[i] = (float)i;
        y[i] = 0.5f - (float)i;
    }
    for (int i = 0; i < TOKENS * EXPERTS; i++)
        picked[i] = i % 7 == 1 || i % 3 == 0;
}

static mt_status open_all(struct mt_ctx *ctx, int64_t n, struct mt_local_tokens **out)
{
    MT_TRY(mt_local_tokens_open(ctx, D, EXPERTS, n, out));
    mt_status st = MT_OK;
    for (int64_t t = 0, m; t < n && st == MT_OK; t += m) {
        m = n - t < 700 ? n - t : 700;
        st = mt_local_tokens_put(ctx, *out, t, m, x + t * D, y + t * D, picked + t * EXPERTS);
    }
    if (st != MT_OK)
        mt_local_tokens_close(*out);
    return st;
}

/* Every token comes once, as it was put, on the side where refits have it. */
T_TEST(tokens_come_back_mixed_and_whole)
{
    static float bx[TOKENS * D], by[TOKENS * D];
    static unsigned char bp[TOKENS * EXPERTS];
    static int seen[TOKENS];
    const int64_t sizes[] = {1, 19, 20, 33, 300, TOKENS};
    struct mt_local_tokens *k;
    int64_t run;

    fill();
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        T_OK(t, open_all(&t->ctx, sizes[s], &k));
        T_EQ_INT(t, k->n_fit + k->n_held, sizes[s]);
        k->order = 17 + s;
        memset(seen, 0, sizeof seen);
        for (int held = 0; held < 2; held++) {
            int64_t n = held ? k->n_held : k->n_fit;
            T_OK(t, mt_local_tokens_get(&t->ctx, k, held, 0, n, bx, by, bp));
            for (int64_t i = 0; i < n; i++) {
                int64_t token = (int64_t)bx[i * D] / D;
                T_CHECK(t, token >= 0 && token < sizes[s]);
                T_CHECK(t, mt_refit_held_out(token, sizes[s], &run) == (held == 1));
                for (int64_t c = 0; c < D; c++) {
                    T_CHECK(t, bx[i * D + c] == x[token * D + c]);
                    T_CHECK(t, by[i * D + c] == y[token * D + c]);
                }
                T_CHECK(t, memcmp(bp + i * EXPERTS, picked + token * EXPERTS, EXPERTS) == 0);
                seen[token]++;
            }
        }
        for (int64_t i = 0; i < sizes[s]; i++)
            T_EQ_INT(t, seen[i], 1);
        mt_local_tokens_close(k);
    }
}

/* Of 512 tokens drawn from 4,500 a tenth of the text has some 57, or 28 where half is held out. */
T_TEST(a_batch_is_drawn_from_the_whole_text)
{
    struct mt_local_tokens *k;
    int64_t first[512];

    fill();
    T_OK(t, open_all(&t->ctx, TOKENS, &k));
    for (uint64_t order = 0; order < 20; order++) {
        int part[10] = {0}, same = 0;
        k->order = order;
        for (int i = 0; i < 512; i++) {
            int64_t token = mt_local_tokens_drawn(k, i);
            part[token * 10 / TOKENS]++;
            same += order > 0 && first[i] == token;
            first[i] = token;
        }
        for (int i = 0; i < 10; i++)
            T_CHECK(t, part[i] > 8 && part[i] < 90);
        T_CHECK(t, same < 5);
    }
    mt_local_tokens_close(k);
}

T_TEST(a_full_disk_is_one_clear_line)
{
    struct mt_local_tokens *k;

    fill();
    mt_fault_io(4, ENOSPC);
    T_FAILS(t, open_all(&t->ctx, TOKENS, &k), MT_E_IO, "--refit down needs none");
    T_CHECK(t, strstr(mt_error(&t->ctx), "TMPDIR") != NULL);
    mt_fault_io(0, 0);
    setenv("TMPDIR", "/nonexistent", 1);
    T_FAILS(t, open_all(&t->ctx, TOKENS, &k), MT_E_IO, "/nonexistent");
    unsetenv("TMPDIR");
}

/* What cannot be read is no zeros. */
T_TEST(a_failing_read_is_told)
{
    static float b[2 * TOKENS * D];
    static unsigned char bp[TOKENS * EXPERTS];
    struct mt_local_tokens *k;

    fill();
    T_OK(t, open_all(&t->ctx, 400, &k));
    mt_fault_io(3, EIO);
    T_FAILS(t, mt_local_tokens_get(&t->ctx, k, false, 0, 40, b, b + TOKENS * D, bp), MT_E_IO,
            "scratch file");
    mt_fault_io(0, 0);
    mt_local_tokens_close(k);
}
