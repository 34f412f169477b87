/* A model in several GGUF files. */
#include "formats/gguf.h"
#include "formats/table.h"
#include "lib/base/outdir.h"
#include "lib/base/path.h"
#include "lib/flow/walk.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"
#include "tests/write_kit.h"

#include <stdlib.h>

static mt_status write_parts(struct t *t, const struct mt_model *src, const char *out,
                             unsigned flags, uint64_t max, char **written)
{
    return write_format(t, src, "gguf", out, flags, max, written);
}

static bool there(const char *path)
{
    FILE *f = fopen(path, "rb");

    if (f != NULL)
        fclose(f);
    return f != NULL;
}

/* Files beside `out`; `count` of its parts are there. */
static int parts_there(const char *dir, int count)
{
    char path[600];
    int n = 0;

    for (int i = 1; i <= count; i++) {
        snprintf(path, sizeof path, "%s/x-%05d-of-%05d.gguf", dir, i, count);
        n += there(path);
    }
    return n;
}

static const struct tiny parts_model = {.family = "glm4_moe", .shared = 1, .seed = 21};

static int count_of(const char *written)
{
    const char *of = strstr(written, "-00001-of-");

    return of == NULL ? 0 : (int)strtol(of + strlen("-00001-of-"), NULL, 10);
}

T_TEST(parts_hold_the_same_model_and_keep_their_limit)
{
    const uint64_t max = 12000;
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model)), *m;
    char out[512], path[600], *written, *again;
    struct mt_arena a;
    struct mt_gguf g;
    struct mt_map *map;
    int64_t total = 0, all, no;
    double d;

    T_CHECK(t, src != NULL);
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    T_OK(t, write_parts(t, src, out, 0, max, &written));
    int n = count_of(written);
    T_CHECK(t, n > 3);
    T_CHECK(t, !there(out));
    T_EQ_INT(t, parts_there(t_path(t, ""), n), n);
    m = open_model(t, written);
    T_CHECK(t, m != NULL);
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, 1e-10);
    mt_model_free(m);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/x-%05d-of-%05d.gguf", t_path(t, ""), i + 1, n);
        T_OK(t, gguf_header(t, path, &a, &map, &g));
        T_CHECK(t, map->bytes <= max || g.n == 1);
        T_OK(t, mt_gguf_int(&t->ctx, &g, "split.no", -1, &no));
        T_OK(t, mt_gguf_int(&t->ctx, &g, "split.tensors.count", -1, &all));
        T_EQ_INT(t, no, i);
        T_EQ_INT(t, mt_gguf_find(&g, "split.no")->type, MT_GGUF_U16);
        T_EQ_INT(t, mt_gguf_find(&g, "split.tensors.count")->type, MT_GGUF_I32);
        T_CHECK(t, (mt_gguf_find(&g, "general.architecture") != NULL) == (i == 0));
        total += (int64_t)g.n;
        mt_gguf_header_free(&g);
        mt_arena_free(&a);
        mt_map_close(map);
    }
    T_EQ_INT(t, total, all);
    T_FAILS(t, write_parts(t, src, out, 0, max, &again), MT_E_IO, "-00001-of-");
    mt_free(written);
    mt_model_free(src);
}

T_TEST(a_model_below_the_limit_is_one_file)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model));
    char *written;

    T_CHECK(t, src != NULL);
    T_OK(t, write_parts(t, src, t_path(t, "x.gguf"), 0, 1 << 24, &written));
    T_EQ_STR(t, written, t_path(t, "x.gguf"));
    T_CHECK(t, there(written));
    mt_free(written);
    mt_model_free(src);
}

T_TEST(parts_appear_whole_or_not_at_all_and_replace_what_was_there)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model));
    char out[512], work[512], dir[512], *written = NULL;
    int n = 0, count = 0;

    T_CHECK(t, src != NULL);
    snprintf(dir, sizeof dir, "%s", t_path(t, ""));
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    snprintf(work, sizeof work, "%s", t_path(t, "x.gguf.partial"));
    for (mt_status st = MT_E_IO; st != MT_OK; n++) {
        T_CHECK(t, n < 1000);
        mt_fault_write((uint64_t)n + 1);
        st = write_parts(t, src, out, 0, 12000, &written);
        mt_fault_write(0);
        if (st == MT_OK)
            count = count_of(written);
        else
            for (int c = 2; c < 12; c++)
                T_EQ_INT(t, parts_there(dir, c), 0);
        T_CHECK(t, !there(work));
    }
    T_EQ_INT(t, parts_there(dir, count), count);
    mt_free(written);
    /* One file, then parts in its place, then other parts beside. */
    T_OK(t, write_parts(t, src, out, MT_OUT_FORCE, 0, &written));
    T_CHECK(t, there(out));
    mt_free(written);
    T_OK(t, write_parts(t, src, out, MT_OUT_FORCE, 12000, &written));
    T_CHECK(t, !there(out));
    T_EQ_INT(t, parts_there(dir, count), count);
    T_CHECK(t, !there(work));
    mt_free(written);
    mt_model_free(src);
}

static bool same_parts(const char *a, const char *b, int count)
{
    char path[600];

    for (int i = 1; i <= count; i++) {
        size_t n, m;
        snprintf(path, sizeof path, "%s/x-%05d-of-%05d.gguf", a, i, count);
        char *p = t_read_file(path, &n);
        snprintf(path, sizeof path, "%s/y-%05d-of-%05d.gguf", b, i, count);
        char *q = t_read_file(path, &m);
        bool same = p != NULL && q != NULL && n == m && memcmp(p, q, n) == 0;
        free(p);
        free(q);
        if (!same)
            return false;
    }
    return true;
}

T_TEST(an_interrupted_run_goes_on_in_its_parts)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model));
    char dir[512], *written;
    int resumed = 0;

    T_CHECK(t, src != NULL);
    snprintf(dir, sizeof dir, "%s", t_path(t, ""));
    T_OK(t, write_parts(t, src, t_path(t, "x.gguf"), 0, 12000, &written));
    int count = count_of(written);
    mt_free(written);
    for (uint64_t n = 1; n < 400; n += 7) {
        struct mt_walk_opts o = {.source = src,
                                 .format = mt_format_writer("gguf"),
                                 .formats = mt_formats,
                                 .out_path = t_path(t, "y.gguf"),
                                 .out_flags = MT_OUT_FORCE,
                                 .write = {.shard_bytes_max = 12000},
                                 .keep_on_failure = true};
        struct mt_walk_result r;
        char out[512];
        snprintf(out, sizeof out, "%s", o.out_path);
        o.out_path = out;
        mt_fault_write(n);
        mt_status st = mt_walk_run(&t->ctx, &o, &r);
        mt_fault_write(0);
        if (st != MT_OK && mt_path_is_dir(t_path(t, "y.gguf.partial"))) {
            o.out_flags |= MT_OUT_RESUME;
            st = mt_walk_run(&t->ctx, &o, &r);
            resumed++;
        }
        if (st != MT_OK)
            continue;
        mt_walk_result_free(&r);
        T_CHECK(t, same_parts(dir, dir, count));
    }
    T_CHECK(t, resumed > 3);
    mt_model_free(src);
}

T_TEST(a_forced_run_does_not_replace_the_parts_it_reads)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model)), *m;
    char out[512], *written, *again;

    T_CHECK(t, src != NULL);
    snprintf(out, sizeof out, "%s", t_path(t, "x.gguf"));
    T_OK(t, write_parts(t, src, out, 0, 12000, &written));
    m = open_model(t, written);
    T_CHECK(t, m != NULL);
    T_FAILS(t, write_parts(t, m, out, MT_OUT_FORCE, 12000, &again), MT_E_OPTION,
            "part of the model that is read");
    mt_model_free(m);
    mt_free(written);
    mt_model_free(src);
}

static void break_parts(struct t *t, const char *dir, int n, int which, int as, const char *part)
{
    char from[600], to[600];
    struct mt_model *m;

    snprintf(from, sizeof from, "%s/x-%05d-of-%05d.gguf", dir, which, n);
    snprintf(to, sizeof to, "%s/x-%05d-of-%05d.gguf", dir, as, n);
    if (as > 0) {
        size_t bytes;
        char *text = t_read_file(from, &bytes);
        FILE *f = fopen(to, "wb");
        T_CHECK(t, text != NULL && f != NULL);
        T_EQ_INT(t, fwrite(text, 1, bytes, f), bytes);
        fclose(f);
        free(text);
    } else {
        T_EQ_INT(t, remove(from), 0);
    }
    snprintf(from, sizeof from, "%s/x-00001-of-%05d.gguf", dir, n);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, from, &m),
            part[0] == 'i' ? MT_E_ABSENT : MT_E_FORMAT, part);
}

T_TEST(sets_that_are_not_whole_are_refused)
{
    struct mt_model *src = open_model(t, tiny_write(t, "src", &parts_model)), *m;
    char dir[512], path[600], *written;

    T_CHECK(t, src != NULL);
    snprintf(dir, sizeof dir, "%s", t_path(t, ""));
    T_OK(t, write_parts(t, src, t_path(t, "x.gguf"), 0, 12000, &written));
    int n = count_of(written);
    snprintf(path, sizeof path, "%s/x-00002-of-%05d.gguf", dir, n);
    T_FAILS(t, mt_model_open(&t->ctx, mt_formats, path, &m), MT_E_FORMAT, "name its first part");
    break_parts(t, dir, n, 2, 3, "says it is part 1 of");
    break_parts(t, dir, n, 3, 0, "is missing");
    mt_free(written);
    mt_model_free(src);
}
