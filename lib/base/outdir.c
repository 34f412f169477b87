#include "lib/base/outdir_files.h"

#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define OUTDIR_JOURNAL "moetool.journal"

mt_status outdir_fail(struct mt_ctx *ctx, int err, const char *path)
{
    uint64_t room;
    char b[24];

    switch (err) {
    case ENOSPC:
        if (mt_path_free_bytes(ctx, path, &room) != MT_OK)
            room = 0;
        return mt_fail(ctx, MT_E_IO,
                       "%s: disk full (%s left); free some space or choose another file system",
                       path, mt_format_bytes(room, b, sizeof b));
    case EDQUOT:
        return mt_fail(ctx, MT_E_IO,
                       "%s: disk quota exceeded; free some space or choose another file system",
                       path);
    case EROFS:
        return mt_fail(ctx, MT_E_IO, "%s: read-only file system; choose another output", path);
    case EACCES:
    case EPERM:
        return mt_fail(ctx, MT_E_IO, "%s: no permission to write; choose another output", path);
    case EFBIG:
        return mt_fail(ctx, MT_E_IO,
                       "%s: file too large for the file system or the limit of `ulimit -f`; raise "
                       "that limit, or write smaller files (--max-shard-size, where the command "
                       "has it)",
                       path);
    default:
        return mt_fail_errno(ctx, err, "%s: cannot write", path);
    }
}

/* ---- names ---- */

mt_status outdir_concat(struct mt_ctx *ctx, const char *a, const char *b, const char *c,
                        const char *d, char **out)
{
    size_t n = strlen(a) + strlen(b) + strlen(c) + strlen(d) + 1;

    MT_TRY(mt_alloc(ctx, n, 1, "a path", out));
    snprintf(*out, n, "%s%s%s%s", a, b, c, d);
    return MT_OK;
}

bool outdir_has_suffix(const char *name)
{
    size_t n = strlen(name), s = strlen(OUTDIR_SUFFIX);

    return n > s && strcmp(name + n - s, OUTDIR_SUFFIX) == 0;
}

/* "a/b//" -> path "a/b", parent "a". */
static mt_status outdir_name(struct mt_ctx *ctx, struct mt_outdir *o, const char *path)
{
    size_t n = strlen(path);
    char *cut;

    while (n > 1 && path[n - 1] == '/')
        n--;
    MT_TRY(outdir_concat(ctx, path, "", "", "", &o->path));
    o->path[n] = '\0';
    cut = strrchr(o->path, '/');
    if (!mt_path_plain_name(cut != NULL ? cut + 1 : o->path,
                            strlen(cut != NULL ? cut + 1 : o->path)))
        return mt_fail(ctx, MT_E_OPTION, "\"%s\" cannot be an output directory; give it a name",
                       path);
    MT_TRY(outdir_concat(ctx, o->path, OUTDIR_SUFFIX, "", "", &o->work));
    if ((o->flags & MT_OUT_FILE) != 0)
        MT_TRY(outdir_concat(ctx, o->work, "/", mt_path_base(o->path), "", &o->result));
    if (cut == NULL)
        return outdir_concat(ctx, ".", "", "", "", &o->parent);
    MT_TRY(outdir_concat(ctx, o->path, "", "", "", &o->parent));
    o->parent[cut == o->path ? 1 : cut - o->path] = '\0';
    return MT_OK;
}

/* ---- directories as a whole ---- */

/* Calls fn for every entry but "." and ".."; stops at its first failure. */
static mt_status outdir_each(struct mt_ctx *ctx, const char *dir, void *arg,
                             mt_status (*fn)(struct mt_ctx *ctx, void *arg, const char *name,
                                             const char *path))
{
    DIR *d = opendir(dir);
    mt_status st = MT_OK;
    struct dirent *e;

    if (d == NULL)
        return mt_fail_errno(ctx, errno, "%s: cannot list", dir);
    while (st == MT_OK && (e = readdir(d)) != NULL) {
        char *path;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        st = mt_path_join(ctx, dir, e->d_name, &path);
        if (st == MT_OK)
            st = fn(ctx, arg, e->d_name, path);
        mt_free(path);
    }
    closedir(d);
    return st;
}

static mt_status outdir_remove_one(struct mt_ctx *ctx, void *keep, const char *name,
                                   const char *path)
{
    if (keep != NULL && strcmp(name, keep) == 0)
        return MT_OK;
    return mt_sys_unlink(path) == 0 ? MT_OK : outdir_fail(ctx, errno, path);
}

/* The lock tells whose directory it is, so it is the last to go: a kill in between leaves one that
 * a later run knows as ours. */
static mt_status outdir_remove_lock(struct mt_ctx *ctx, const char *dir)
{
    char *path;

    MT_TRY(mt_path_join(ctx, dir, OUTDIR_LOCK, &path));
    mt_status st =
        mt_sys_unlink(path) == 0 || errno == ENOENT ? MT_OK : outdir_fail(ctx, errno, path);
    mt_free(path);
    return st;
}

/* Flat: what we write has no directories, and what has is never ours to remove. */
static mt_status outdir_remove_tree(struct mt_ctx *ctx, const char *dir)
{
    MT_TRY(outdir_each(ctx, dir, OUTDIR_LOCK, outdir_remove_one));
    MT_TRY(outdir_remove_lock(ctx, dir));
    return rmdir(dir) == 0 ? MT_OK : outdir_fail(ctx, errno, dir);
}

struct outdir_look {
    bool model, nested, any, ours;
};

static mt_status outdir_look_one(struct mt_ctx *ctx, void *arg, const char *name, const char *path)
{
    struct outdir_look *look = arg;
    struct stat sb;

    (void)ctx;
    look->any = true;
    look->model |= strcmp(name, "config.json") == 0 || strcmp(name, "moetool.json") == 0;
    /* The manifest alone: killed between taking the lock away and the last rename. */
    look->ours |= strcmp(name, OUTDIR_LOCK) == 0 || strcmp(name, OUTDIR_JOURNAL) == 0 ||
                  strcmp(name, "moetool.json") == 0;
    look->nested |= lstat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
    return MT_OK;
}

/* --force replaces models and empty directories; a home directory given by mistake survives. */
static mt_status outdir_may_replace(struct mt_ctx *ctx, const char *path, bool file)
{
    struct outdir_look look = {0};
    struct stat sb;

    if (file) {
        if (lstat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
            return mt_fail(ctx, MT_E_IO,
                           "%s: exists and is not a file; --force will not replace it", path);
        return MT_OK;
    }
    if (lstat(path, &sb) == 0 && !S_ISDIR(sb.st_mode))
        return mt_fail(ctx, MT_E_IO,
                       "%s: exists and is not a directory; --force will not replace it", path);
    MT_TRY(outdir_each(ctx, path, &look, outdir_look_one));
    if (look.any && (look.nested || !look.model))
        return mt_fail(ctx, MT_E_IO,
                       "%s: exists and does not look like a model (%s); --force will not replace "
                       "it, remove it yourself",
                       path, look.nested ? "it holds directories" : "no config.json");
    return MT_OK;
}

/* What an unfinished run left carries its lock or its journal; anything else of that name is not
 * ours to continue in or to empty. */
static mt_status outdir_may_empty(struct mt_ctx *ctx, const char *work)
{
    struct outdir_look look = {0};
    struct stat sb;

    if (lstat(work, &sb) != 0)
        return MT_OK;
    if (S_ISDIR(sb.st_mode))
        MT_TRY(outdir_each(ctx, work, &look, outdir_look_one));
    if (!S_ISDIR(sb.st_mode) || (look.any && (look.nested || !look.ours)))
        return mt_fail(ctx, MT_E_IO,
                       "%s: not left by an unfinished run (no lock or journal of one in it); "
                       "remove it yourself or choose another output",
                       work);
    return MT_OK;
}

static mt_status outdir_sync_dir(struct mt_ctx *ctx, const char *dir)
{
    int fd = mt_sys_open(dir, O_RDONLY | O_DIRECTORY);
    int err = 0;

    if (fd < 0)
        return outdir_fail(ctx, errno, dir);
    if (mt_sys_fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system without it */
        err = errno;
    close(fd);
    return err == 0 ? MT_OK : outdir_fail(ctx, err, dir);
}

/* ---- opening ---- */

/* True when a process that lives holds the lock of OUT.partial. */
static bool outdir_locked(struct mt_ctx *ctx, const struct mt_outdir *o)
{
    bool locked = false;
    char *path;
    int fd;

    if (mt_path_join(ctx, o->work, OUTDIR_LOCK, &path) != MT_OK)
        return false;
    fd = open(path, O_RDWR | O_CLOEXEC);
    mt_free(path);
    if (fd >= 0) {
        locked = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
        close(fd);
    }
    return locked;
}

static mt_status outdir_check(struct mt_ctx *ctx, const struct mt_outdir *o)
{
    bool force = (o->flags & MT_OUT_FORCE) != 0, resume = (o->flags & MT_OUT_RESUME) != 0;

    if (!mt_path_is_dir(o->parent))
        return mt_fail(ctx, MT_E_ABSENT, "%s: no such directory; create it first", o->parent);
    if (mt_path_exists(o->path)) {
        if (!force)
            return mt_fail(ctx, MT_E_IO, "%s: exists already; use --force to replace it", o->path);
        MT_TRY(outdir_may_replace(ctx, o->path, (o->flags & MT_OUT_FILE) != 0));
    }
    if (outdir_locked(ctx, o))
        return mt_fail(ctx, MT_E_IO, "%s: another process is writing it", o->work);
    if (mt_path_exists(o->work) && !force && !resume)
        return mt_fail(ctx, MT_E_IO,
                       "%s: left by an unfinished run; use --resume to continue it or --force to "
                       "start anew",
                       o->work);
    return outdir_may_empty(ctx, o->work);
}

static mt_status outdir_lock(struct mt_ctx *ctx, struct mt_outdir *o)
{
    struct stat sb;
    char *path;

    MT_TRY(mt_path_join(ctx, o->work, OUTDIR_LOCK, &path));
    o->lock_fd = mt_sys_open(path, O_RDWR | O_CREAT);
    int err = o->lock_fd < 0 ? errno : 0;
    mt_free(path);
    if (err != 0)
        return outdir_fail(ctx, err, o->work);
    /* A lock file without a name was removed by its owner between our open and our lock. */
    if (flock(o->lock_fd, LOCK_EX | LOCK_NB) != 0 || fstat(o->lock_fd, &sb) != 0 ||
        sb.st_nlink == 0) {
        close(o->lock_fd);
        o->lock_fd = -1;
        return mt_fail(ctx, MT_E_IO, "%s: another process is writing it", o->work);
    }
    return MT_OK;
}

static mt_status outdir_start(struct mt_ctx *ctx, struct mt_outdir *o, const char *path)
{
    mt_status st;
    bool made;

    MT_TRY(outdir_name(ctx, o, path));
    MT_TRY(outdir_check(ctx, o));
    made = mt_sys_mkdir(o->work) == 0;
    if (!made && errno != EEXIST)
        return outdir_fail(ctx, errno, o->work);
    st = outdir_lock(ctx, o);
    /* Empty when the lock file could not even be named: then nothing is left behind. */
    if (st != MT_OK && made)
        (void)rmdir(o->work);
    MT_TRY(st);
    if ((o->flags & MT_OUT_RESUME) != 0 || made)
        return MT_OK;
    return outdir_each(ctx, o->work, OUTDIR_LOCK, outdir_remove_one);
}

static void outdir_free(struct mt_outdir *o)
{
    while (o->files != NULL) {
        struct mt_outfile *next = o->files->next;
        if (o->files->fd >= 0)
            close(o->files->fd);
        mt_free(o->files);
        o->files = next;
    }
    if (o->lock_fd >= 0)
        close(o->lock_fd);
    mt_free(o->path);
    mt_free(o->work);
    mt_free(o->result);
    for (size_t i = 0; i < o->n_parts; i++)
        mt_free(o->parts[i]);
    mt_free(o->parts);
    mt_free(o->parent);
    mt_free(o);
}

mt_status mt_outdir_open(struct mt_ctx *ctx, const char *path, unsigned flags,
                         struct mt_outdir **out)
{
    struct mt_outdir *o;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *o, "output directory", &o));
    o->flags = flags;
    o->lock_fd = -1;
    mt_sum_make(&o->sum);
    st = outdir_start(ctx, o, path);
    if (st != MT_OK) {
        outdir_free(o);
        return st;
    }
    *out = o;
    return MT_OK;
}

mt_status mt_outdir_probe(struct mt_ctx *ctx, const char *path, unsigned flags)
{
    struct mt_outdir *o;
    mt_status st;

    MT_TRY(mt_alloc0(ctx, 1, sizeof *o, "output directory", &o));
    o->flags = flags;
    o->lock_fd = -1;
    st = outdir_name(ctx, o, path);
    if (st == MT_OK)
        st = outdir_check(ctx, o);
    outdir_free(o);
    return st;
}

const char *mt_outdir_work_path(const struct mt_outdir *out)
{
    return out->work;
}

const char *mt_outdir_result_path(const struct mt_outdir *out)
{
    return out->result != NULL ? out->result : out->work;
}

const char *mt_outdir_name(const struct mt_outdir *out)
{
    return mt_path_base(out->path);
}

/* ---- the end ---- */

/* What this run did not write, such as the journal of an interrupted one, does not travel. */
static mt_status outdir_sweep_one(struct mt_ctx *ctx, void *arg, const char *name, const char *path)
{
    const struct mt_outdir *o = arg;

    if (outdir_find(o, name) != NULL || strcmp(name, OUTDIR_LOCK) == 0)
        return MT_OK;
    return mt_sys_unlink(path) == 0 ? MT_OK : outdir_fail(ctx, errno, path);
}

mt_status mt_outdir_settle(struct mt_ctx *ctx, struct mt_outdir *out)
{
    char *to;

    for (struct mt_outfile *f = out->files; f != NULL; f = f->next) {
        if (f->settled)
            continue;
        MT_TRY(mt_path_join(ctx, out->work, f->name, &to));
        mt_status st = mt_sys_rename(f->path, to) == 0 ? MT_OK : outdir_fail(ctx, errno, f->path);
        mt_free(to);
        MT_TRY(st);
        f->settled = true;
    }
    return MT_OK;
}

/* OUT.partial -> OUT. An OUT in the way is set aside first and put back if the rename fails. */
static mt_status outdir_swap(struct mt_ctx *ctx, struct mt_outdir *o)
{
    bool replaces = mt_path_exists(o->path);
    mt_status st = MT_OK;
    char number[24], *aside;

    if (replaces && (o->flags & MT_OUT_FORCE) == 0)
        return mt_fail(ctx, MT_E_IO, "%s: appeared while it was being written; %s is complete",
                       o->path, o->work);
    snprintf(number, sizeof number, "%ld", (long)getpid());
    MT_TRY(outdir_concat(ctx, o->path, ".old-", number, "", &aside));
    if (replaces && mt_sys_rename(o->path, aside) != 0)
        st = outdir_fail(ctx, errno, o->path);
    if (st == MT_OK && mt_sys_rename(o->work, o->path) != 0) {
        st = outdir_fail(ctx, errno, o->path);
        if (replaces && mt_sys_rename(aside, o->path) != 0)
            st = mt_wrap(ctx, st, "the old output now is %s", aside);
    }
    if (st == MT_OK)
        o->committed = true;
    if (st == MT_OK)
        st = outdir_sync_dir(ctx, o->parent);
    if (st != MT_OK && o->committed && replaces)
        st = mt_wrap(ctx, st, "the old output is kept as %s", aside);
    if (st == MT_OK && replaces && outdir_remove_tree(ctx, aside) != MT_OK)
        mt_log(ctx, MT_LOG_WARN, "the replaced output could not be removed: %s", mt_error(ctx));
    mt_free(aside);
    return st;
}

/* ---- an OUT that is a file, or several ---- */

mt_status mt_outdir_part(struct mt_ctx *ctx, struct mt_outdir *out, const char *name)
{
    mt_status st = MT_OK;
    char *path;

    mt_assert((out->flags & MT_OUT_FILE) != 0 && out->files == NULL);
    MT_TRY(mt_path_join(ctx, out->parent, name, &path));
    if (mt_path_exists(path) && (out->flags & MT_OUT_FORCE) == 0)
        st = mt_fail(ctx, MT_E_IO, "%s: exists already; use --force to replace it", path);
    else
        st = outdir_may_replace(ctx, path, true);
    mt_free(path);
    MT_TRY(st);
    MT_TRY(mt_realloc(ctx, out->n_parts + 1, sizeof *out->parts, "names of parts", &out->parts));
    MT_TRY(outdir_concat(ctx, name, "", "", "", &out->parts[out->n_parts]));
    if (out->n_parts++ > 0)
        return MT_OK;
    mt_free(out->result);
    out->result = NULL;
    return outdir_concat(ctx, out->work, "/", name, "", &out->result);
}

mt_status mt_outdir_target(struct mt_ctx *ctx, const struct mt_outdir *out, char **path)
{
    bool parts = out->n_parts > 0, beside = parts && strchr(out->path, '/') != NULL;

    return outdir_concat(ctx, beside ? out->parent : "", beside ? "/" : "",
                         parts ? out->parts[0] : out->path, "", path);
}

static mt_status outdir_rename(struct mt_ctx *ctx, const char *from_dir, const char *from,
                               const char *to_dir, const char *to)
{
    char *a = NULL, *b = NULL;
    mt_status st = mt_path_join(ctx, from_dir, from, &a);

    if (st == MT_OK)
        st = mt_path_join(ctx, to_dir, to, &b);
    if (st == MT_OK && mt_sys_rename(a, b) != 0)
        st = outdir_fail(ctx, errno, b);
    mt_free(a);
    mt_free(b);
    return st;
}

static mt_status outdir_move_parts(struct mt_ctx *ctx, struct mt_outdir *o)
{
    mt_status st = MT_OK;
    char *first;

    MT_TRY(mt_path_join(ctx, o->parent, o->parts[0], &first));
    bool replaces = mt_path_exists(first);
    mt_free(first);
    if (replaces && (o->flags & MT_OUT_FORCE) == 0)
        return mt_fail(ctx, MT_E_IO, "%s/%s: appeared while it was being written; %s is complete",
                       o->parent, o->parts[0], o->work);
    if (replaces)
        MT_TRY(outdir_rename(ctx, o->parent, o->parts[0], o->work, "replaced"));
    for (size_t i = 1; i < o->n_parts && st == MT_OK; i++)
        st = outdir_rename(ctx, o->work, o->parts[i], o->parent, o->parts[i]);
    if (st == MT_OK)
        st = outdir_sync_dir(ctx, o->parent);
    if (st == MT_OK)
        st = outdir_rename(ctx, o->work, o->parts[0], o->parent, o->parts[0]);
    if (st == MT_OK && (o->flags & MT_OUT_FORCE) != 0 && mt_path_exists(o->path) &&
        unlink(o->path) != 0)
        mt_log(ctx, MT_LOG_WARN, "%s: the replaced output could not be removed", o->path);
    return st;
}

/* The file of OUT's name becomes OUT, in one step also when it replaces one; what else lies in
 * OUT.partial goes. */
static mt_status outdir_move_file(struct mt_ctx *ctx, struct mt_outdir *o)
{
    struct mt_ctx quiet;
    mt_status st;

    if (mt_path_exists(o->path) && (o->flags & MT_OUT_FORCE) == 0)
        return mt_fail(ctx, MT_E_IO, "%s: appeared while it was being written; %s is complete",
                       o->path, o->result);
    if (o->n_parts > 0)
        MT_TRY(outdir_move_parts(ctx, o));
    else if (mt_sys_rename(o->result, o->path) != 0)
        return outdir_fail(ctx, errno, o->path);
    o->committed = true;
    st = outdir_sync_dir(ctx, o->parent);
    /* OUT stands, so what remains goes even where it is not sure that OUT survives a power cut. */
    mt_ctx_child(&quiet, ctx);
    if (outdir_remove_tree(&quiet, o->work) != MT_OK)
        mt_log(ctx, MT_LOG_WARN, "what was needed for writing could not be removed: %s",
               mt_error(&quiet));
    return st;
}

mt_status mt_outdir_commit(struct mt_ctx *ctx, struct mt_outdir *out)
{
    for (struct mt_outfile *f = out->files; f != NULL; f = f->next) {
        if (f->fd >= 0)
            MT_TRY(outdir_finish_file(ctx, f, MT_OK));
    }
    MT_TRY(mt_outdir_settle(ctx, out));
    MT_TRY(outdir_each(ctx, out->work, out, outdir_sweep_one));
    if (out->result == NULL)
        MT_TRY(outdir_remove_lock(ctx, out->work)); /* held until its descriptor is closed */
    MT_TRY(outdir_sync_dir(ctx, out->work));
    return out->result != NULL ? outdir_move_file(ctx, out) : outdir_swap(ctx, out);
}

void mt_outdir_close(struct mt_outdir *out, bool keep)
{
    if (out == NULL)
        return;
    if (!out->committed && !keep) {
        DIR *d = opendir(out->work);
        struct dirent *e;
        while (d != NULL && (e = readdir(d)) != NULL) {
            if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
                strcmp(e->d_name, OUTDIR_LOCK) != 0)
                unlinkat(dirfd(d), e->d_name, 0);
        }
        if (d != NULL)
            unlinkat(dirfd(d), OUTDIR_LOCK, 0);
        if (d != NULL)
            closedir(d);
        rmdir(out->work);
    }
    outdir_free(out);
}
