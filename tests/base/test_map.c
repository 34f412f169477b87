#include "lib/base/map.h"

#include "lib/base/scratch.h"
#include "tests/t.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

T_TEST(a_map_shows_the_bytes)
{
    struct mt_map *m;

    t_write_file(t, t_path(t, "f"), "hello\0there", 11);
    T_OK(t, mt_map_open(&t->ctx, t_path(t, "f"), &m));
    T_EQ_INT(t, m->bytes, 11);
    T_CHECK(t, memcmp(m->base, "hello\0there", 11) == 0);
    T_EQ_STR(t, m->path, t_path(t, "f"));
    mt_map_drop(m, 0, 11);
    T_CHECK(t, m->base[6] == 't');
    mt_map_drop(m, 5, UINT64_MAX);
    mt_map_drop(m, 99, 1);
    mt_map_close(m);
}

T_TEST(an_empty_file_maps_to_nothing)
{
    struct mt_map *m;

    t_write_file(t, t_path(t, "f"), "", 0);
    T_OK(t, mt_map_open(&t->ctx, t_path(t, "f"), &m));
    T_CHECK(t, m->bytes == 0 && m->base == NULL);
    mt_map_drop(m, 0, 100);
    mt_map_close(m);
    mt_map_close(NULL);
}

T_TEST(what_cannot_be_mapped_is_named)
{
    struct mt_map *m;

    T_FAILS(t, mt_map_open(&t->ctx, t_path(t, "absent"), &m), MT_E_ABSENT, "absent: no such file");
    T_FAILS(t, mt_map_open(&t->ctx, t->dir, &m), MT_E_IO, "is a directory");
    T_FAILS(t, mt_map_open(&t->ctx, "/dev/null", &m), MT_E_IO, "/dev/null: is not a regular file");
    T_CHECK(t, m == NULL);
}

T_TEST(a_file_without_a_name_is_mapped_by_its_descriptor)
{
    struct mt_map *m;
    int fd;

    T_OK(t, mt_scratch_open(&t->ctx, t->dir, "tests", &fd));
    T_EQ_INT(t, mt_scratch_write(fd, "hello", 5, 3), 0);
    T_OK(t, mt_map_open_fd(&t->ctx, fd, "scratch", &m));
    close(fd);
    T_EQ_INT(t, m->bytes, 8);
    T_CHECK(t, memcmp(m->base, "\0\0\0hello", 8) == 0);
    T_EQ_STR(t, m->path, "scratch");
    mt_map_close(m);
    T_FAILS(t, mt_map_open_fd(&t->ctx, -1, "scratch", &m), MT_E_IO, "scratch: cannot read");
    T_CHECK(t, m == NULL);
}

/* Pages of this process that are resident and belong to files, in bytes. */
static long map_rss_file(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;

    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "RssFile: %ld", &kib) == 1)
            break;
    }
    if (f != NULL)
        fclose(f);
    return kib * 1024;
}

T_TEST(dropping_gives_pages_back)
{
    const size_t n = 32u << 20;
    char *zeros = calloc(1, n);
    struct mt_map *m;
    unsigned sum = 0;

    t_write_file(t, t_path(t, "f"), zeros, n);
    free(zeros);
    long before = map_rss_file();
    if (before < 0)
        T_SKIP(t, "no /proc/self/status here");
    T_OK(t, mt_map_open(&t->ctx, t_path(t, "f"), &m));
    for (size_t i = 0; i < n; i += 4096)
        sum += m->base[i];
    long touched = map_rss_file();
    mt_map_drop(m, 100, n - 200);
    long dropped = map_rss_file();
    mt_map_close(m);
    T_EQ_INT(t, sum, 0);
    T_CHECK(t, touched - before > (16l << 20));
    T_CHECK(t, dropped - before < (1l << 20));
}

T_TEST(little_endian_reads_take_any_alignment)
{
    const unsigned char b[] = {0xff, 1, 2, 3, 4, 5, 6, 7, 0x88};

    T_CHECK(t, mt_le32(b + 1) == 0x04030201);
    T_CHECK(t, mt_le64(b + 1) == 0x8807060504030201);
}

T_TEST(small_files_are_read_whole_up_to_a_limit)
{
    char *text;
    size_t n;

    t_write_file(t, t_path(t, "f"), "12345", 5);
    T_OK(t, mt_read_file(&t->ctx, t_path(t, "f"), 5, &text, &n));
    T_EQ_INT(t, n, 5);
    T_EQ_STR(t, text, "12345");
    mt_free(text);
    T_FAILS(t, mt_read_file(&t->ctx, t_path(t, "f"), 4, &text, &n), MT_E_LIMIT, "5 bytes");
    T_FAILS(t, mt_read_file(&t->ctx, t_path(t, "g"), 4, &text, &n), MT_E_ABSENT, "no such file");
    T_FAILS(t, mt_read_file(&t->ctx, t->dir, 4, &text, &n), MT_E_IO, "is a directory");
    T_FAILS(t, mt_read_file(&t->ctx, "/dev/zero", 70000, &text, &n), MT_E_LIMIT, "/dev/zero");
    T_OK(t, mt_read_file(&t->ctx, "/dev/null", 10, &text, &n));
    T_CHECK(t, n == 0 && text[0] == '\0');
    mt_free(text);
}
