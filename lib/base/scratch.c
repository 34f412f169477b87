#include "lib/base/scratch.h"

#include "lib/base/path.h"
#include "lib/base/sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const char *mt_scratch_dir(void)
{
    const char *dir = getenv("TMPDIR");

    if (dir != NULL && dir[0] != '\0')
        return dir;
    return mt_path_is_dir("/var/tmp") ? "/var/tmp" : "/tmp";
}

mt_status mt_scratch_open(struct mt_ctx *ctx, const char *dir, const char *what, int *fd)
{
    char path[4096];

    *fd = -1;
    int n = snprintf(path, sizeof path, "%s/moetool-scratch-XXXXXX", dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return mt_fail(ctx, MT_E_OPTION, "%s: path too long for a scratch file", dir);
    *fd = mt_sys_mkstemp(path);
    if (*fd < 0)
        return mt_fail_errno(
            ctx, errno, "%s: cannot create a scratch file for %s; TMPDIR may name another place",
            dir, what);
    /* Without a name it goes away with the process, however that ends. */
    if (mt_sys_unlink(path) == 0)
        return MT_OK;
    mt_status st = mt_fail_errno(ctx, errno, "%s: cannot remove", path);
    (void)unlink(path);
    return st;
}

/* Writes `from`, or reads into `to`; the other is NULL. */
static int scratch_move(int fd, const char *from, char *to, size_t n, uint64_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t moved;
        if (from != NULL)
            moved = mt_sys_pwrite(fd, &from[done], n - done, at + done);
        else
            moved = mt_sys_pread(fd, &to[done], n - done, at + done);
        if (moved < 0 && errno == EINTR)
            continue;
        if (moved <= 0)
            return moved < 0 ? errno : EIO;
        done += (size_t)moved;
    }
    return 0;
}

int mt_scratch_write(int fd, const void *bytes, size_t n, uint64_t at)
{
    return scratch_move(fd, bytes, NULL, n, at);
}

int mt_scratch_read(int fd, void *to, size_t n, uint64_t at)
{
    return scratch_move(fd, NULL, to, n, at);
}
