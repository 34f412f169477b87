#include "lib/base/outdir_files.h"

#include "lib/base/fault.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

#define OUTDIR_COPY_BYTES (1u << 20)
/* Writes of at least this go to the disk while later ones are computed. */
#define OUTDIR_EARLY_BYTES ((size_t)256 << 10)

static mt_fault outdir_fault; /* counts down to the failing write */

void mt_fault_write(uint64_t n)
{
    atomic_store(&outdir_fault, n);
}

struct mt_outfile *outdir_find(const struct mt_outdir *o, const char *name)
{
    struct mt_outfile *f = o->files;

    while (f != NULL && strcmp(f->name, name) != 0)
        f = f->next;
    return f;
}

/* A run killed inside commit had taken suffixes away; a resumed one puts them back. */
static mt_status outdir_unfinish(struct mt_ctx *ctx, const struct mt_outdir *o,
                                 const struct mt_outfile *f)
{
    mt_status st = MT_OK;
    char *done;

    MT_TRY(mt_path_join(ctx, o->work, f->name, &done));
    if (mt_path_exists(done) && mt_sys_rename(done, f->path) != 0)
        st = outdir_fail(ctx, errno, done);
    mt_free(done);
    return st;
}

/* FNV-1a of the name, made odd. */
static uint64_t outfile_salt(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    return h | 1;
}

/* The entry of `name`, new or known. */
static mt_status outdir_entry(struct mt_ctx *ctx, struct mt_outdir *o, const char *name,
                              struct mt_outfile **file)
{
    size_t n = strlen(name), total = strlen(o->work) + n + sizeof "/" OUTDIR_SUFFIX;
    struct mt_outfile *f = outdir_find(o, name);

    *file = f;
    if (f != NULL && !f->settled)
        return MT_OK;
    if (f != NULL) {
        f->settled = false;
        return outdir_unfinish(ctx, o, f);
    }
    if (!mt_path_plain_name(name, n) || outdir_has_suffix(name) || strcmp(name, OUTDIR_LOCK) == 0)
        return mt_fail(ctx, MT_E_FORMAT, "\"%s\" cannot be the name of a file in %s", name,
                       o->path);
    MT_TRY(mt_alloc0(ctx, 1, sizeof *f + n + 1 + total, name, &f));
    f->name = (char *)(f + 1);
    memcpy(f->name, name, n + 1);
    f->path = f->name + n + 1;
    snprintf(f->name + n + 1, total, "%s/%s" OUTDIR_SUFFIX, o->work, name);
    f->fd = -1;
    f->dir = o;
    f->salt = outfile_salt(name);
    f->next = o->files;
    o->files = f;
    *file = f;
    return outdir_unfinish(ctx, o, f);
}

void mt_outdir_expect(struct mt_outdir *out, bool there)
{
    out->expect = there;
}

static mt_status outdir_expect_file(struct mt_ctx *ctx, const char *path, uint64_t bytes)
{
    struct stat sb;

    if (stat(path, &sb) == 0 && S_ISREG(sb.st_mode) && (uint64_t)sb.st_size == bytes)
        return MT_OK;
    return mt_fail(ctx, MT_E_FORMAT,
                   "%s: is gone or has another length, but the journal says that layers stand in "
                   "it; start over with --force",
                   path);
}

mt_status mt_outdir_file(struct mt_ctx *ctx, struct mt_outdir *out, const char *name,
                         uint64_t bytes, struct mt_outfile **file)
{
    MT_TRY(outdir_entry(ctx, out, name, file));
    mt_assert(*file != NULL);
    if (out->expect)
        MT_TRY(outdir_expect_file(ctx, (*file)->path, bytes));
    if ((*file)->fd < 0)
        (*file)->fd = mt_sys_open((*file)->path, O_RDWR | O_CREAT);
    if ((*file)->fd < 0 || mt_sys_truncate((*file)->fd, bytes) != 0)
        return outdir_fail(ctx, errno, (*file)->path);
    return MT_OK;
}

/* Without it the disk idles until a sync, and then the program does. Only a hint: what fails here
 * is told by the sync. */
static void outfile_start_writing(int fd, uint64_t offset, size_t n)
{
#ifdef SYS_sync_file_range
    if (n >= OUTDIR_EARLY_BYTES)
        (void)syscall(SYS_sync_file_range, fd, (int64_t)offset, (int64_t)n,
                      2u /* SYNC_FILE_RANGE_WRITE */);
#else
    (void)fd;
    (void)offset;
    (void)n;
#endif
}

mt_status mt_outfile_write(struct mt_ctx *ctx, struct mt_outfile *file, uint64_t offset,
                           const void *data, size_t n)
{
    const char *p = data;
    const uint64_t first = offset;
    const size_t all = n;

    if (mt_fault_now(&outdir_fault))
        return outdir_fail(ctx, ENOSPC, file->path);
    while (n > 0) {
        ssize_t done = mt_sys_pwrite(file->fd, p, n, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return outdir_fail(ctx, errno, file->path);
        p += done;
        n -= (size_t)done;
        offset += (uint64_t)done;
    }
    outfile_start_writing(file->fd, first, all);
    if (file->dir != NULL)
        atomic_fetch_add(&file->sum, mt_sum_at(&file->dir->sum, first, data, all) * file->salt);
    return MT_OK;
}

uint64_t mt_outdir_sum(const struct mt_outdir *out)
{
    uint64_t sum = 0;

    for (const struct mt_outfile *f = out->files; f != NULL; f = f->next)
        sum += atomic_load(&f->sum);
    return sum;
}

mt_status mt_outfile_sum(struct mt_ctx *ctx, const struct mt_outfile *file, uint64_t offset,
                         uint64_t bytes, uint64_t *sum)
{
    mt_status st = MT_OK;
    char *buf;

    *sum = 0;
    MT_TRY(mt_alloc(ctx, OUTDIR_COPY_BYTES, 1, "checking files", &buf));
    while (st == MT_OK && bytes > 0) {
        size_t want = bytes < OUTDIR_COPY_BYTES ? (size_t)bytes : OUTDIR_COPY_BYTES;
        ssize_t n = mt_sys_pread(file->fd, buf, want, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            st = n < 0 ? mt_fail_errno(ctx, errno, "%s: cannot read", file->path)
                       : mt_fail(ctx, MT_E_IO, "%s: ends early", file->path);
            break;
        }
        *sum += mt_sum_at(&file->dir->sum, offset, buf, (size_t)n) * file->salt;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
        st = mt_check_cancel(ctx);
    }
    mt_free(buf);
    return st;
}

mt_status mt_outfile_sync(struct mt_ctx *ctx, struct mt_outfile *file)
{
    return mt_sys_fsync(file->fd) == 0 ? MT_OK : outdir_fail(ctx, errno, file->path);
}

const char *mt_outfile_path(const struct mt_outfile *file)
{
    return file->path;
}

/* Flushes and closes a file that was written in one go; failures of close count too. */
mt_status outdir_finish_file(struct mt_ctx *ctx, struct mt_outfile *f, mt_status st)
{
    if (st == MT_OK)
        st = mt_outfile_sync(ctx, f);
    if (f->fd >= 0 && close(f->fd) != 0 && st == MT_OK)
        st = outdir_fail(ctx, errno, f->path);
    f->fd = -1;
    return st;
}

mt_status mt_outdir_text(struct mt_ctx *ctx, struct mt_outdir *out, const char *name,
                         const void *data, size_t n)
{
    struct mt_outfile *f, fresh = {.fd = -1};
    mt_status st;
    char *path;

    /* Written beside and renamed, so that a kill leaves the old text or the new one. */
    MT_TRY(outdir_entry(ctx, out, name, &f));
    MT_TRY(outdir_concat(ctx, out->work, "/", name, ".new" OUTDIR_SUFFIX, &path));
    fresh.path = path;
    fresh.fd = mt_sys_open(path, O_RDWR | O_CREAT | O_TRUNC);
    st = fresh.fd < 0 ? outdir_fail(ctx, errno, path) : mt_outfile_write(ctx, &fresh, 0, data, n);
    st = outdir_finish_file(ctx, &fresh, st);
    if (st == MT_OK && mt_sys_rename(path, f->path) != 0)
        st = outdir_fail(ctx, errno, f->path);
    mt_free(path);
    return st;
}

static mt_status outdir_copy_bytes(struct mt_ctx *ctx, struct mt_outfile *f, int from,
                                   const char *from_path)
{
    mt_status st = MT_OK;
    uint64_t at = 0;
    char *buf;

    MT_TRY(mt_alloc(ctx, OUTDIR_COPY_BYTES, 1, "copying files", &buf));
    while (st == MT_OK) {
        ssize_t n = mt_sys_read(from, buf, OUTDIR_COPY_BYTES);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        st = n < 0 ? mt_fail_errno(ctx, errno, "%s: cannot read", from_path)
                   : mt_outfile_write(ctx, f, at, buf, (size_t)n);
        at += (uint64_t)(n > 0 ? n : 0);
        if (st == MT_OK)
            st = mt_check_cancel(ctx);
    }
    mt_free(buf);
    return st;
}

mt_status mt_outdir_copy(struct mt_ctx *ctx, struct mt_outdir *out, const char *name,
                         const char *from)
{
    struct mt_outfile *f;
    mt_status st;
    int fd;

    if (!mt_path_is_file(from))
        return mt_fail(ctx, MT_E_ABSENT, "%s: no such file", from);
    fd = mt_sys_open(from, O_RDONLY);
    if (fd < 0)
        return mt_fail_errno(ctx, errno, "%s: cannot read", from);
    st = mt_outdir_file(ctx, out, name, 0, &f);
    if (st == MT_OK)
        st = outdir_finish_file(ctx, f, outdir_copy_bytes(ctx, f, fd, from));
    close(fd);
    return st;
}

mt_status mt_outdir_remove(struct mt_ctx *ctx, struct mt_outdir *out, const char *name)
{
    for (struct mt_outfile **link = &out->files; *link != NULL; link = &(*link)->next) {
        struct mt_outfile *f = *link;
        mt_status st = MT_OK;
        if (strcmp(f->name, name) != 0)
            continue;
        *link = f->next;
        if (f->fd >= 0)
            close(f->fd);
        if (unlink(f->path) != 0 && errno != ENOENT)
            st = outdir_fail(ctx, errno, f->path);
        mt_free(f);
        return st;
    }
    return MT_OK;
}
