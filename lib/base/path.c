#include "lib/base/path.h"

#include "lib/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

mt_status mt_path_join(struct mt_ctx *ctx, const char *dir, const char *name, char **out)
{
    size_t d = strlen(dir), n = strlen(name);
    bool slash = d > 0 && dir[d - 1] != '/';

    MT_TRY(mt_alloc(ctx, d + slash + n + 1, 1, "a path", out));
    memcpy(*out, dir, d);
    if (slash)
        (*out)[d] = '/';
    memcpy(*out + d + slash, name, n + 1);
    return MT_OK;
}

const char *mt_path_base(const char *path)
{
    const char *base = path;

    for (const char *p = path; *p != '\0'; p++) {
        if (*p == '/' && p[1] != '/' && p[1] != '\0')
            base = p + 1;
    }
    return base;
}

bool mt_path_is_dir(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool mt_path_is_file(const char *path)
{
    struct stat sb;

    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode);
}

bool mt_path_changed(const char *path, uint64_t *bytes, int64_t *ns)
{
    struct stat sb;

    if (stat(path, &sb) != 0)
        return false;
    *bytes = (uint64_t)sb.st_size;
    *ns = (int64_t)sb.st_mtim.tv_sec * 1000000000 + sb.st_mtim.tv_nsec;
    return true;
}

bool mt_path_exists(const char *path)
{
    struct stat sb;

    return lstat(path, &sb) == 0;
}

bool mt_path_same(const char *a, const char *b)
{
    struct stat x, y;

    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

bool mt_path_plain_name(const char *name, size_t n)
{
    if (n == 0 || memchr(name, '/', n) != NULL || memchr(name, '\0', n) != NULL)
        return false;
    return !(n == 1 && name[0] == '.') && !(n == 2 && name[0] == '.' && name[1] == '.');
}

static int path_by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

struct path_names {
    char *text; /* names one after another, each with its NUL */
    size_t bytes, cap, n;
};

static mt_status path_collect(struct mt_ctx *ctx, const char *dir, DIR *d, struct path_names *v)
{
    struct dirent *e;

    while (errno = 0, (e = readdir(d)) != NULL) {
        size_t len = strlen(e->d_name) + 1;
        bool regular;
        char *full;

        MT_TRY(mt_path_join(ctx, dir, e->d_name, &full));
        regular = mt_path_is_file(full);
        mt_free(full);
        if (!regular)
            continue;
        if (v->cap - v->bytes < len) {
            v->cap = 2 * v->cap + len + 512;
            MT_TRY(mt_realloc(ctx, v->cap, 1, dir, &v->text));
        }
        memcpy(v->text + v->bytes, e->d_name, len);
        v->bytes += len;
        v->n++;
    }
    if (errno != 0)
        return mt_fail_errno(ctx, errno, "%s: cannot list", dir);
    return MT_OK;
}

mt_status mt_path_list(struct mt_ctx *ctx, const char *dir, char ***names, size_t *n)
{
    struct path_names v = {0};
    DIR *d = opendir(dir);
    mt_status st;

    *names = NULL;
    *n = 0;
    if (d == NULL && (errno == ENOENT || errno == ENOTDIR))
        return mt_fail(ctx, MT_E_ABSENT, "%s: no such directory", dir);
    if (d == NULL)
        return mt_fail_errno(ctx, errno, "%s: cannot list", dir);
    st = path_collect(ctx, dir, d, &v);
    closedir(d);
    if (st == MT_OK)
        st = mt_alloc(ctx, 1, v.n * sizeof **names + v.bytes, dir, names);
    if (st == MT_OK) {
        char *p = (char *)(*names + v.n);
        if (v.bytes > 0)
            memcpy(p, v.text, v.bytes);
        for (size_t i = 0; i < v.n; i++, p += strlen(p) + 1)
            (*names)[i] = p;
        qsort(*names, v.n, sizeof **names, path_by_name);
        *n = v.n;
    }
    mt_free(v.text);
    return st;
}

/* p, of which at least two bytes may be written, becomes what it lies in, since errno says that it
 * is not there; false: errno says something else, or there is nothing further up. */
static bool path_up(char *p)
{
    char *cut = strrchr(p, '/');

    if ((errno != ENOENT && errno != ENOTDIR) || strcmp(p, ".") == 0 || strcmp(p, "/") == 0)
        return false;
    if (cut == NULL)
        memcpy(p, ".", 2);
    else if (cut == p)
        p[1] = '\0';
    else
        *cut = '\0';
    return true;
}

static bool path_disk(const char *path, dev_t *disk)
{
    char p[4096];
    size_t n = strlen(path);
    struct stat sb;

    if (n + 2 > sizeof p)
        return false;
    memcpy(p, path, n + 1);
    while (stat(p, &sb) != 0)
        if (!path_up(p))
            return false;
    *disk = sb.st_dev;
    return true;
}

bool mt_path_same_disk(const char *a, const char *b)
{
    dev_t disk[2];

    return path_disk(a, &disk[0]) && path_disk(b, &disk[1]) && disk[0] == disk[1];
}

mt_status mt_path_free_bytes(struct mt_ctx *ctx, const char *path, uint64_t *bytes)
{
    size_t n = strlen(path);
    struct statvfs fs;
    char *p;

    MT_TRY(mt_alloc(ctx, n + 2, 1, "a path", &p));
    memcpy(p, path, n + 1);
    while (statvfs(p, &fs) != 0) {
        int err = errno;
        if (path_up(p))
            continue;
        mt_free(p);
        return mt_fail_errno(ctx, err, "%s: cannot ask for free space", path);
    }
    mt_free(p);
    *bytes = (uint64_t)fs.f_bavail * (uint64_t)fs.f_frsize;
    return MT_OK;
}

char *mt_format_bytes(uint64_t bytes, char *buf, size_t n)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes / 1024;
    size_t u = 0;

    if (bytes < 1024) {
        snprintf(buf, n, "%u B", (unsigned)bytes);
        return buf;
    }
    while (v >= 1023.95 && u + 1 < sizeof units / sizeof units[0]) {
        v /= 1024;
        u++;
    }
    snprintf(buf, n, "%.1f %s", v, units[u]);
    return buf;
}
