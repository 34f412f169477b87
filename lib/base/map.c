#include "lib/base/map.h"

#include "lib/base/mem.h"
#include "lib/base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_AHEAD_BYTES ((uint64_t)128 << 10)

uint32_t mt_le32(const void *p)
{
    const unsigned char *b = p;

    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

uint64_t mt_le64(const void *p)
{
    const unsigned char *b = p;

    return (uint64_t)mt_le32(b) | (uint64_t)mt_le32(b + 4) << 32;
}

static mt_status map_fail(struct mt_ctx *ctx, int err, const char *path)
{
    if (err == ENOENT || err == ENOTDIR)
        return mt_fail(ctx, MT_E_ABSENT, "%s: no such file", path);
    return mt_fail_errno(ctx, err, "%s: cannot read", path);
}

static mt_status map_stat(struct mt_ctx *ctx, const char *path, int fd, struct stat *sb)
{
    if (fstat(fd, sb) != 0)
        return map_fail(ctx, errno, path);
    if (S_ISDIR(sb->st_mode))
        return mt_fail(ctx, MT_E_IO, "%s: is a directory, expected a file", path);
    return MT_OK;
}

/* Opens for reading; refuses directories, which open() would accept. */
static mt_status map_open_path(struct mt_ctx *ctx, const char *path, int *fd, struct stat *sb)
{
    *fd = mt_sys_open(path, O_RDONLY);
    if (*fd < 0)
        return map_fail(ctx, errno, path);
    mt_status st = map_stat(ctx, path, *fd, sb);
    if (st != MT_OK)
        close(*fd);
    return st;
}

static mt_status map_fill(struct mt_ctx *ctx, const char *path, int fd, const struct stat *sb,
                          struct mt_map *m)
{
    void *base;

    if (!S_ISREG(sb->st_mode))
        return mt_fail(ctx, MT_E_IO, "%s: is not a regular file and cannot be mapped", path);
    m->bytes = (uint64_t)sb->st_size;
    if (m->bytes == 0)
        return MT_OK;
    if (m->bytes > SIZE_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "%s: too large for this machine's addresses", path);
    base = mt_sys_map(fd, (size_t)m->bytes);
    if (base == NULL)
        return mt_fail_errno(ctx, errno, "%s: cannot map", path);
    m->base = base;
    return MT_OK;
}

static mt_status map_new(struct mt_ctx *ctx, const char *path, int fd, const struct stat *sb,
                         struct mt_map **out)
{
    size_t n = strlen(path) + 1;
    struct mt_map *m;

    MT_TRY(mt_alloc0(ctx, 1, sizeof *m + n, path, &m));
    m->path = (char *)(m + 1);
    memcpy(m->path, path, n);
    mt_status st = map_fill(ctx, path, fd, sb, m);
    if (st != MT_OK) {
        mt_free(m);
        return st;
    }
    *out = m;
    return MT_OK;
}

mt_status mt_map_open_fd(struct mt_ctx *ctx, int fd, const char *path, struct mt_map **out)
{
    struct stat sb = {0};

    *out = NULL;
    MT_TRY(map_stat(ctx, path, fd, &sb));
    return map_new(ctx, path, fd, &sb, out);
}

mt_status mt_map_open(struct mt_ctx *ctx, const char *path, struct mt_map **out)
{
    struct stat sb = {0};
    int fd = -1;

    *out = NULL;
    MT_TRY(map_open_path(ctx, path, &fd, &sb));
    mt_status st = map_new(ctx, path, fd, &sb, out);
    close(fd);
    return st;
}

void mt_map_close(struct mt_map *map)
{
    if (map == NULL)
        return;
    if (map->base != NULL)
        munmap((void *)map->base, (size_t)map->bytes);
    mt_free(map);
}

void mt_map_drop(const struct mt_map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first, end;

    if (map->base == NULL || offset >= map->bytes)
        return;
    if (bytes > map->bytes - offset)
        bytes = map->bytes - offset;
    first = (offset + page - 1) / page * page;
    /* The last page of a file is partial; nothing else can live in it. */
    end = offset + bytes == map->bytes ? map->bytes : (offset + bytes) / page * page;
    if (first < end)
        (void)madvise((void *)(map->base + first), (size_t)(end - first), MADV_DONTNEED);
}

void mt_map_ahead(const struct mt_map *map, uint64_t offset, uint64_t bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (map->base == NULL || offset >= map->bytes)
        return;
    if (bytes > map->bytes - offset)
        bytes = map->bytes - offset;
    bytes += offset % page;
    offset -= offset % page;
    /* One call fetches no more than the device takes in one request. */
    for (uint64_t n; bytes > 0; offset += n, bytes -= n) {
        n = bytes < MAP_AHEAD_BYTES ? bytes : MAP_AHEAD_BYTES;
        (void)madvise((void *)(map->base + offset), (size_t)n, MADV_WILLNEED);
    }
}

static mt_status map_read_all(struct mt_ctx *ctx, const char *path, int fd, size_t cap,
                              size_t max_bytes, char **text, size_t *n)
{
    *n = 0;
    for (;;) {
        ssize_t got;
        if (*n == cap) {
            cap = cap > max_bytes / 2 ? max_bytes + 1 : cap * 2;
            MT_TRY(mt_realloc(ctx, cap + 1, 1, path, text));
        }
        got = mt_sys_read(fd, *text + *n, cap - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return mt_fail_errno(ctx, errno, "%s: cannot read", path);
        if (got == 0)
            break;
        *n += (size_t)got;
        if (*n > max_bytes)
            return mt_fail(ctx, MT_E_LIMIT, "%s: larger than the %zu bytes allowed here", path,
                           max_bytes);
    }
    (*text)[*n] = '\0';
    return MT_OK;
}

mt_status mt_read_file(struct mt_ctx *ctx, const char *path, size_t max_bytes, char **text,
                       size_t *n)
{
    struct stat sb = {0};
    mt_status st;
    size_t cap;
    int fd = -1;

    *text = NULL;
    *n = 0;
    MT_TRY(map_open_path(ctx, path, &fd, &sb));
    if (S_ISREG(sb.st_mode) && (uint64_t)sb.st_size > max_bytes) {
        close(fd);
        return mt_fail(ctx, MT_E_LIMIT, "%s: %llu bytes, more than the %zu allowed here", path,
                       (unsigned long long)sb.st_size, max_bytes);
    }
    /* One byte more than the size, so that the end shows without another allocation. */
    cap = S_ISREG(sb.st_mode) && sb.st_size > 0 ? (size_t)sb.st_size + 1 : 4096;
    st = mt_alloc(ctx, cap + 1, 1, path, text);
    if (st == MT_OK)
        st = map_read_all(ctx, path, fd, cap, max_bytes, text, n);
    close(fd);
    if (st != MT_OK) {
        mt_free(*text);
        *text = NULL;
    }
    return st;
}
