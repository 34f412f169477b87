/* outdir_files.h: the inside of an output directory, for outdir.c (the directory as a whole) and
 * outfile.c (the files in it) alone. */
#ifndef MT_BASE_OUTDIR_FILES_H
#define MT_BASE_OUTDIR_FILES_H

#include "lib/base/hash.h"
#include "lib/base/outdir.h"

#include <stdatomic.h>

#define OUTDIR_SUFFIX ".partial"
#define OUTDIR_LOCK "lock"

struct mt_outfile {
    struct mt_outfile *next;
    int fd;               /* -1: written and closed (text, copy) */
    bool settled;         /* carries its final name */
    _Atomic uint64_t sum; /* of what was written to it */
    uint64_t salt;        /* odd; tells files apart in the sum of the directory */
    struct mt_outdir *dir;
    char *name;       /* final name */
    const char *path; /* OUT.partial/NAME.partial */
};

struct mt_outdir {
    char *path, *work, *parent;
    char *result; /* work, or the file in it */
    char **parts; /* [n_parts] names of an OUT in parts, the first first */
    size_t n_parts;
    unsigned flags;
    int lock_fd;
    bool committed;
    bool expect; /* files have to be there */
    struct mt_sum sum;
    struct mt_outfile *files;
};

/* The sentence for a failed system call that was to change `path`. */
mt_status outdir_fail(struct mt_ctx *ctx, int err, const char *path);
/* a b c d joined; *given*. */
mt_status outdir_concat(struct mt_ctx *ctx, const char *a, const char *b, const char *c,
                        const char *d, char **out);
bool outdir_has_suffix(const char *name);
/* The entry of a file by its final name, or NULL. */
struct mt_outfile *outdir_find(const struct mt_outdir *o, const char *name);
/* Flushes and closes a file, after a success so far. */
mt_status outdir_finish_file(struct mt_ctx *ctx, struct mt_outfile *f, mt_status st);

#endif
