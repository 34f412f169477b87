#include "lib/base/scratch.h"
#include "lib/base/sys.h"
#include "tests/t.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

T_TEST(a_file_without_a_name_holds_what_is_written)
{
    char in[1000], out[1000] = {0};
    struct dirent *e;
    int fd, left = 0;

    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (char)(i * 7);
    T_OK(t, mt_scratch_open(&t->ctx, t->dir, "tests", &fd));
    T_EQ_INT(t, mt_scratch_write(fd, in, sizeof in, 5000), 0);
    T_EQ_INT(t, mt_scratch_read(fd, out, sizeof out, 5000), 0);
    T_CHECK(t, memcmp(in, out, sizeof in) == 0);
    T_EQ_INT(t, mt_scratch_read(fd, out, sizeof out, 5001), EIO);
    DIR *d = opendir(t->dir);
    while ((e = readdir(d)) != NULL)
        left += e->d_name[0] != '.';
    closedir(d);
    T_EQ_INT(t, left, 0);
    close(fd);
}

T_TEST(failures_are_told)
{
    char bytes[8] = {0};
    int fd;

    T_FAILS(t, mt_scratch_open(&t->ctx, "/nowhere/at/all", "tests", &fd), MT_E_IO,
            "/nowhere/at/all: cannot create a scratch file for tests");
    T_EQ_INT(t, fd, -1);
    T_OK(t, mt_scratch_open(&t->ctx, t->dir, "tests", &fd));
    mt_fault_io(1, ENOSPC);
    T_EQ_INT(t, mt_scratch_write(fd, bytes, sizeof bytes, 0), ENOSPC);
    mt_fault_io(1, EIO);
    T_EQ_INT(t, mt_scratch_read(fd, bytes, sizeof bytes, 0), EIO);
    mt_fault_io(0, 0);
    close(fd);
}

T_TEST(the_directory_may_be_named)
{
    const char *was = getenv("TMPDIR");
    char kept[4096] = "";

    if (was != NULL)
        snprintf(kept, sizeof kept, "%s", was);
    setenv("TMPDIR", t->dir, 1);
    T_EQ_STR(t, mt_scratch_dir(), t->dir);
    setenv("TMPDIR", "", 1);
    T_CHECK(t, strcmp(mt_scratch_dir(), "/var/tmp") == 0 || strcmp(mt_scratch_dir(), "/tmp") == 0);
    if (was != NULL)
        setenv("TMPDIR", kept, 1);
    else
        unsetenv("TMPDIR");
}
