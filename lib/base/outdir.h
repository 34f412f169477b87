/* outdir.h: an output directory that appears whole or not at all.
 *
 * While work goes on everything lies in OUT.partial, and each file inside carries the suffix
 * ".partial" too, so that neither the directory nor a file in it can be taken for a whole one.
 * mt_outdir_commit flushes every file, takes the suffixes away, flushes the directory and renames
 * it to OUT; with MT_OUT_FORCE an existing OUT is swapped out first and removed only after.
 * The directory holds a lock file: two processes cannot write one OUT. Commit keeps what this run
 * opened, wrote or copied and removes whatever else a resumed OUT.partial holds (its journal).
 * FORCE replaces models (a flat directory with a config.json) and empty directories only. An
 * OUT.partial is continued or emptied only when it is empty or holds a lock or a journal of ours.
 *
 * mt_outdir_close without commit removes OUT.partial unless `keep` is set (a journal makes it
 * worth keeping for --resume). Writes are pwrite to fixed offsets, so any thread may write any
 * part in any order. "disk full" and "read-only" become one sentence that names the path.
 * Fault injection: mt_fault_write(n) makes the n-th later write fail with ENOSPC.
 */
#ifndef MT_BASE_OUTDIR_H
#define MT_BASE_OUTDIR_H

#include "lib/base/ctx.h"

#include <stddef.h>

enum mt_out_flags {
    MT_OUT_FORCE = 1u << 0,  /* replace an existing OUT */
    MT_OUT_RESUME = 1u << 1, /* continue in an existing OUT.partial (created if absent) */
    MT_OUT_FILE = 1u << 2,   /* OUT is one file: the one of its name in OUT.partial, which commit
                                moves out before it removes the rest; FORCE replaces files only */
};

struct mt_outdir;
struct mt_outfile;

/* What mt_outdir_open would refuse, without touching the disk: for plans. */
MT_NODISCARD mt_status mt_outdir_probe(struct mt_ctx *ctx, const char *path, unsigned flags);

/* Refuses an existing OUT without FORCE, an existing OUT.partial without RESUME or FORCE (the
 * text names --resume and --force), a missing parent and a parent that cannot be written. */
MT_NODISCARD mt_status mt_outdir_open(struct mt_ctx *ctx, const char *path, unsigned flags,
                                      struct mt_outdir **out);
const char *mt_outdir_work_path(const struct mt_outdir *out); /* "OUT.partial"; borrowed */
/* Where the result stands between settle and commit: the work path, or the file in it. */
const char *mt_outdir_result_path(const struct mt_outdir *out);
const char *mt_outdir_name(const struct mt_outdir *out); /* last component of OUT; borrowed */

/* Opens NAME (a plain name) for writing and sets its length, keeping what a resumed run wrote.
 * The file is owned by the directory and stays open until commit or close. */
MT_NODISCARD mt_status mt_outdir_file(struct mt_ctx *ctx, struct mt_outdir *out, const char *name,
                                      uint64_t bytes, struct mt_outfile **file);
MT_NODISCARD mt_status mt_outfile_write(struct mt_ctx *ctx, struct mt_outfile *file,
                                        uint64_t offset, const void *data, size_t n);
MT_NODISCARD mt_status mt_outfile_sync(struct mt_ctx *ctx, struct mt_outfile *file);
/* Checksum of what mt_outfile_write has put into all files of this run so far (hash.h): taken
 * before and after, the difference is that of what was written between, whatever the order. */
uint64_t mt_outdir_sum(const struct mt_outdir *out);
/* The same of bytes that stand in a file: written in one run, read back in another. */
MT_NODISCARD mt_status mt_outfile_sum(struct mt_ctx *ctx, const struct mt_outfile *file,
                                      uint64_t offset, uint64_t bytes, uint64_t *sum);
/* While set, mt_outdir_file fails for a file that is not there at its full length: layers that a
 * journal says stand would otherwise be zeros. */
void mt_outdir_expect(struct mt_outdir *out, bool there);
const char *mt_outfile_path(const struct mt_outfile *file); /* "OUT.partial/NAME.partial" */

/* Makes an OUT that is a file a set of files beside each other: the one of OUT's name gives way to
 * NAME..., of which `first` is what makes the others a whole. To be called before any file is
 * opened, the first part first. Commit moves the first out last, and with FORCE takes an old one of
 * its name away before anything else, so that at no moment it stands before files that are not its
 * own; a replaced file of OUT's own name goes at the end. Refuses names that are there already
 * without FORCE. */
MT_NODISCARD mt_status mt_outdir_part(struct mt_ctx *ctx, struct mt_outdir *out, const char *name);
/* What commit makes: OUT, or its first part; *given*. */
MT_NODISCARD mt_status mt_outdir_target(struct mt_ctx *ctx, const struct mt_outdir *out,
                                        char **path);

/* A whole small file at once; replaces one of the same name, atomically and on disk on return. */
MT_NODISCARD mt_status mt_outdir_text(struct mt_ctx *ctx, struct mt_outdir *out, const char *name,
                                      const void *data, size_t n);
/* Copies a file from elsewhere, whatever its size (symlinks followed). */
MT_NODISCARD mt_status mt_outdir_copy(struct mt_ctx *ctx, struct mt_outdir *out, const char *name,
                                      const char *from);

/* Takes a file this run opened or wrote out again; no failure when there is none. */
MT_NODISCARD mt_status mt_outdir_remove(struct mt_ctx *ctx, struct mt_outdir *out,
                                        const char *name);

/* Takes the suffixes inside OUT.partial away, so that a reader can open the result at its work
 * path before commit; the directory keeps its own. Files may still be added and replaced. */
MT_NODISCARD mt_status mt_outdir_settle(struct mt_ctx *ctx, struct mt_outdir *out);
MT_NODISCARD mt_status mt_outdir_commit(struct mt_ctx *ctx, struct mt_outdir *out);
void mt_outdir_close(struct mt_outdir *out, bool keep); /* after commit: frees only */

void mt_fault_write(uint64_t n);
#endif
