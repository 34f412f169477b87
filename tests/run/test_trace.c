#include "lib/run/trace.h"
#include "tests/t.h"
#include "tests/toy.h"

#include <stdlib.h>
#include <string.h>

static const char *trace_file(struct t *t, const char *text)
{
    static char path[300];

    snprintf(path, sizeof path, "%s/trace.jsonl", t->dir);
    t_write_file(t, path, text, strlen(text));
    return path;
}

T_TEST(lines_in_any_order_make_a_trace)
{
    const char *path = trace_file(t, "{\"moetool_trace\": 1, \"n_experts\": 9}\n"
                                     "{\"seq\": 4, \"layer\": 7, \"experts\": [[5, 1]]}\n\n"
                                     "{\"seq\": 2, \"layer\": 7, \"experts\": [[0], 3, null]}\n"
                                     "{\"layer\": 3, \"seq\": 2, \"experts\": [[], -1, [2, 8]]}\r\n"
                                     "{\"seq\": 4, \"layer\": 3, \"experts\": [[4]]}");
    struct mt_trace r;

    T_OK(t, mt_trace_read(&t->ctx, path, &r));
    T_CHECK(t, r.n_layers == 2 && r.k == 2 && r.n_experts == 9 && r.n_seqs == 2);
    T_CHECK(t, r.layer[0] == 3 && r.layer[1] == 7);
    T_CHECK(t, r.first[0] == 0 && r.first[1] == 3 && r.first[2] == 4);
    T_CHECK(t, mt_trace_at(&r, 0, 0)[0] == MT_TRACE_NONE && mt_trace_at(&r, 0, 1)[0] == 0);
    T_CHECK(t, mt_trace_at(&r, 1, 0)[0] == MT_TRACE_NONE && mt_trace_at(&r, 1, 1)[0] == 3);
    T_CHECK(t, mt_trace_at(&r, 2, 0)[0] == 2 && mt_trace_at(&r, 2, 0)[1] == 8);
    T_CHECK(t, mt_trace_at(&r, 2, 1)[0] == MT_TRACE_NONE);
    T_CHECK(t, mt_trace_at(&r, 3, 0)[0] == 4 && mt_trace_at(&r, 3, 0)[1] == MT_TRACE_NONE);
    T_CHECK(t, mt_trace_at(&r, 3, 1)[0] == 5 && mt_trace_at(&r, 3, 1)[1] == 1);
    mt_trace_free(&r);
}

T_TEST(a_trace_that_makes_no_sense_is_refused_by_line)
{
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"", "no routing"},
        {"{\"seq\": 1}\n", "no routing"},
        {"{\"experts\": [[1]]\n", "line 1"},
        {"{\"experts\": [[1]]}\n{\"experts\": [[1.5]]}\n", "line 2"},
        {"{\"experts\": [[-2]]}\n", "-1 or null"},
        {"{\"experts\": [[99999]]}\n", "beyond"},
        {"{\"seq\":0,\"experts\":[1]}\n{\"seq\":0,\"experts\":[2]}\n", "lines 1 and 2"},
        {"{\"seq\":0,\"layer\":1,\"experts\":[1]}\n{\"seq\":0,\"layer\":2,\"experts\":[1, 2]}\n",
         "another number of tokens"},
        {"{\"seq\":0,\"layer\":1,\"experts\":[1]}\n{\"seq\":1,\"layer\":2,\"experts\":[1]}\n",
         "other layers"},
        {"{\"seq\":0,\"layer\":1,\"experts\":[1]}\n{\"seq\":0,\"layer\":2,\"experts\":[1]}\n"
         "{\"seq\":1,\"layer\":1,\"experts\":[1]}\n",
         "lacks layers"},
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct mt_trace r;
        const char *path = trace_file(t, bad[i].text);
        mt_status st = mt_trace_read(&t->ctx, path, &r);
        mt_trace_free(&r);
        if (st != MT_E_FORMAT || strstr(mt_error(&t->ctx), bad[i].why) == NULL)
            T_FAIL(t, "%s gave \"%s\"", bad[i].text, mt_error(&t->ctx));
    }
}

/* [4 = 2 batches of 2 layers, 2 sequences, 3 tokens]; the second batch has one sequence. */
T_TEST(a_tensor_of_choices_is_a_trace)
{
    static const float v[4][2][3] = {{{0, 1, 2}, {3, 0, 1}},
                                     {{1, 1, 1}, {2, 2, 2}},
                                     {{3, 3, 0}, {-1, -1, -1}},
                                     {{0, 0, -1}, {-1, -1, -1}}};
    struct mt_tensor x = {.dtype = MT_F32, .rank = 3, .shape = {4, 2, 3}, .name = "trace"};
    struct mt_trace r;

    x.src.kind = MT_SRC_OWNED;
    x.src.owned = v;
    T_OK(t, mt_trace_from_tensor(&t->ctx, &x, 2, &r));
    T_CHECK(t, r.n_layers == 2 && r.k == 1 && r.n_experts == 4 && r.n_seqs == 3);
    T_CHECK(t, r.first[3] == 9);
    T_CHECK(t, mt_trace_at(&r, 0, 0)[0] == 0 && mt_trace_at(&r, 0, 1)[0] == 1);
    T_CHECK(t, mt_trace_at(&r, 3, 0)[0] == 3 && mt_trace_at(&r, 3, 1)[0] == 2);
    T_CHECK(t, mt_trace_at(&r, 8, 0)[0] == 0 && mt_trace_at(&r, 8, 1)[0] == MT_TRACE_NONE);
    mt_trace_free(&r);

    T_FAILS(t, mt_trace_from_tensor(&t->ctx, &x, 3, &r), MT_E_FORMAT, "--layers");
    mt_trace_free(&r);
    static const float half[1][1][1] = {{{0.5f}}};
    x.shape[0] = x.shape[1] = x.shape[2] = 1;
    x.src.owned = half;
    T_FAILS(t, mt_trace_from_tensor(&t->ctx, &x, 1, &r), MT_E_FORMAT, "not an expert's number");
    mt_trace_free(&r);
}
