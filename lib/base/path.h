/* path.h: names of files and questions about them. Results are *given* (mt_free).
 * Threads: safe. The only calls into the file system besides map.c and outdir.c. */
#ifndef MT_BASE_PATH_H
#define MT_BASE_PATH_H

#include "lib/base/ctx.h"

#include <stddef.h>

MT_NODISCARD mt_status mt_path_join(struct mt_ctx *ctx, const char *dir, const char *name,
                                    char **out);
const char *mt_path_base(const char *path); /* last component; borrowed; trailing '/' tolerated */
bool mt_path_is_dir(const char *path);
bool mt_path_is_file(const char *path);
bool mt_path_exists(const char *path);           /* also dangling symlinks */
bool mt_path_same(const char *a, const char *b); /* one existing file or directory, however named */

/* Size, and when the bytes last changed (nanoseconds since 1970); false when there is no such file.
 */
bool mt_path_changed(const char *path, uint64_t *bytes, int64_t *ns);

/* A name that stays in its directory: not empty, no '/', no NUL, not "." or "..". */
bool mt_path_plain_name(const char *name, size_t n);

/* Sorted names of the regular files (symlinks followed) in a directory. One mt_free ends both the
 * array and the strings. */
MT_NODISCARD mt_status mt_path_list(struct mt_ctx *ctx, const char *dir, char ***names, size_t *n);

/* Whether both lie, or would lie, on one file system. */
bool mt_path_same_disk(const char *a, const char *b);
/* Free bytes on the file system that holds `path` or its nearest existing parent. */
MT_NODISCARD mt_status mt_path_free_bytes(struct mt_ctx *ctx, const char *path, uint64_t *bytes);

/* "1.5 GiB", "12.0 KiB", "17 B" into buf (at least 16 bytes); returns buf. */
char *mt_format_bytes(uint64_t bytes, char *buf, size_t n);
#endif
