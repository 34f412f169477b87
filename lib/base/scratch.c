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
        return mt_fail_errno(ctx, errno, "%s: cannot create a scratch file for %s", dir, what);
    /* Without a name it goes away with the process, however that ends. */
    if (mt_sys_unlink(path) == 0)
        return MT_OK;
    mt_status st = mt_fail_errno(ctx, errno, "%s: cannot remove", path);
    (void)unlink(path);
    return st;
}

int mt_scratch_write(int fd, const void *bytes, size_t n, uint64_t at)
{
    const char *p = bytes;

    while (n > 0) {
        ssize_t done = mt_sys_pwrite(fd, p, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        p += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

int mt_scratch_read(int fd, void *to, size_t n, uint64_t at)
{
    char *p = to;

    while (n > 0) {
        ssize_t done = mt_sys_pread(fd, p, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        p += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}
