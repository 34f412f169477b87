#include "lib/base/path.h"

#include "tests/t.h"

#include <sys/stat.h>
#include <unistd.h>

static int path_join_is(struct t *t, const char *a, const char *b, const char *want)
{
    char *p;
    int same;

    if (mt_path_join(&t->ctx, a, b, &p) != MT_OK)
        return 0;
    same = strcmp(p, want) == 0;
    mt_free(p);
    return same;
}

T_TEST(joining_adds_one_slash)
{
    T_CHECK(t, path_join_is(t, "a", "b", "a/b"));
    T_CHECK(t, path_join_is(t, "a/", "b", "a/b"));
    T_CHECK(t, path_join_is(t, "/", "b", "/b"));
    T_CHECK(t, path_join_is(t, "", "b", "b"));
}

T_TEST(the_base_is_the_last_component)
{
    T_EQ_STR(t, mt_path_base("a/b"), "b");
    T_EQ_STR(t, mt_path_base("b"), "b");
    T_EQ_STR(t, mt_path_base("/x/a/"), "a/");
    T_EQ_STR(t, mt_path_base("/x//y"), "y");
}

T_TEST(plain_names_stay_in_their_directory)
{
    T_CHECK(t, mt_path_plain_name("model-00001.safetensors", 23));
    T_CHECK(t, mt_path_plain_name("...", 3) && mt_path_plain_name(".x", 2));
    T_CHECK(t, !mt_path_plain_name("", 0));
    T_CHECK(t, !mt_path_plain_name(".", 1) && !mt_path_plain_name("..", 2));
    T_CHECK(t, !mt_path_plain_name("a/b", 3) && !mt_path_plain_name("/etc/passwd", 11));
    T_CHECK(t, !mt_path_plain_name("a\0b", 3));
}

T_TEST(questions_about_files)
{
    t_write_file(t, t_path(t, "f"), "", 0);
    T_CHECK(t, symlink("nowhere", t_path(t, "dangling")) == 0);
    T_CHECK(t, mt_path_is_dir(t->dir) && !mt_path_is_file(t->dir));
    T_CHECK(t, mt_path_is_file(t_path(t, "f")) && !mt_path_is_dir(t_path(t, "f")));
    T_CHECK(t, mt_path_exists(t_path(t, "dangling")) && !mt_path_is_file(t_path(t, "dangling")));
    T_CHECK(t, !mt_path_exists(t_path(t, "absent")));
}

T_TEST(lists_are_sorted_and_follow_links)
{
    char **names, name[32];
    size_t n;

    for (int i = 99; i >= 0; i--) {
        snprintf(name, sizeof name, "file-%02d", i);
        t_write_file(t, t_path(t, name), "x", 1);
    }
    T_CHECK(t, mkdir(t_path(t, "dir"), 0777) == 0);
    T_CHECK(t, symlink("file-00", t_path(t, "a-link")) == 0);
    T_CHECK(t, symlink("dir", t_path(t, "dir-link")) == 0);
    T_OK(t, mt_path_list(&t->ctx, t->dir, &names, &n));
    T_EQ_INT(t, n, 101);
    T_EQ_STR(t, names[0], "a-link");
    for (size_t i = 1; i < n; i++)
        T_CHECK(t, strcmp(names[i - 1], names[i]) < 0);
    mt_free(names);
    T_OK(t, mt_path_list(&t->ctx, t_path(t, "dir"), &names, &n));
    T_EQ_INT(t, n, 0);
    mt_free(names);
    T_FAILS(t, mt_path_list(&t->ctx, t_path(t, "absent"), &names, &n), MT_E_ABSENT, "absent");
}

T_TEST(listing_survives_every_failing_allocation)
{
    char **names;
    size_t n;

    t_write_file(t, t_path(t, "a"), "x", 1);
    t_write_file(t, t_path(t, "b"), "x", 1);
    for (uint64_t i = 1;; i++) {
        mt_fault_alloc(i);
        mt_status st = mt_path_list(&t->ctx, t->dir, &names, &n);
        mt_fault_alloc(0);
        if (st == MT_OK)
            break;
        T_EQ_INT(t, st, MT_E_NOMEM);
        T_CHECK(t, i < 100 && mt_mem_used(&t->ctx) == 0);
    }
    T_EQ_INT(t, n, 2);
    mt_free(names);
}

T_TEST(free_space_is_asked_of_the_nearest_parent)
{
    uint64_t here, below;

    T_OK(t, mt_path_free_bytes(&t->ctx, t->dir, &here));
    T_OK(t, mt_path_free_bytes(&t->ctx, t_path(t, "not/yet/there"), &below));
    T_CHECK(t, here > 0 && below > 0);
    T_OK(t, mt_path_free_bytes(&t->ctx, "not-there-relative", &below));
    T_OK(t, mt_path_free_bytes(&t->ctx, "/not-there", &below));
}

T_TEST(what_is_not_there_would_lie_where_its_parent_does)
{
    T_CHECK(t, mt_path_same_disk(t->dir, t_path(t, "not/yet/there")));
    T_CHECK(t, mt_path_same_disk("not-there", "."));
    T_CHECK(t, mt_path_same_disk("/not-there/at-all", "/"));
    if (mt_path_is_dir("/proc/self"))
        T_CHECK(t, !mt_path_same_disk("/proc/not-there", t->dir));
}

T_TEST(bytes_are_told_with_a_unit)
{
    char b[24];

    T_EQ_STR(t, mt_format_bytes(0, b, sizeof b), "0 B");
    T_EQ_STR(t, mt_format_bytes(1023, b, sizeof b), "1023 B");
    T_EQ_STR(t, mt_format_bytes(12288, b, sizeof b), "12.0 KiB");
    T_EQ_STR(t, mt_format_bytes(1024 * 1024 - 1, b, sizeof b), "1.0 MiB");
    T_EQ_STR(t, mt_format_bytes(3ull << 29, b, sizeof b), "1.5 GiB");
    T_EQ_STR(t, mt_format_bytes(UINT64_MAX, b, sizeof b), "16.0 EiB");
}

T_TEST(one_directory_is_the_same_by_any_name)
{
    T_CHECK(t, mkdir(t_path(t, "a"), 0777) == 0 && mkdir(t_path(t, "b"), 0777) == 0);
    T_CHECK(t, symlink("a", t_path(t, "link")) == 0);
    T_CHECK(t, mt_path_same(t_path(t, "a"), t_path(t, "b/../a/")));
    T_CHECK(t, mt_path_same(t_path(t, "link"), t_path(t, "a")));
    T_CHECK(t, !mt_path_same(t_path(t, "a"), t_path(t, "b")));
    T_CHECK(t, !mt_path_same(t_path(t, "none"), t_path(t, "none")));
}
