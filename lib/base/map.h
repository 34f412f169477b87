/* map.h: files that are read without being loaded.
 *
 * A map is a read-only private mapping of a whole file. Pages come in when touched and are given
 * back with mt_map_drop, so that resident size does not grow with file size. Reading past a file
 * that another process truncates under us raises SIGBUS; the program turns that into one line
 * (see cmd/main.c), because no check beforehand can exclude it.
 *
 * Ownership: mt_map_open *gives* the map; mt_map_close ends it. Threads: reading and dropping are
 * safe from any thread.
 */
#ifndef MT_BASE_MAP_H
#define MT_BASE_MAP_H

#include "lib/base/ctx.h"

#include <stddef.h>

struct mt_map {
    const unsigned char *base; /* NULL when bytes == 0 */
    uint64_t bytes;
    char *path; /* as given; for messages */
};

/* Fails with MT_E_ABSENT (no such file) or MT_E_IO, naming the path. Directories are refused. */
MT_NODISCARD mt_status mt_map_open(struct mt_ctx *ctx, const char *path, struct mt_map **out);
/* The same of a file that is open, for reading at least, and may have no name; `path` is only told.
 * fd stays the caller's, who may close it at once. */
MT_NODISCARD mt_status mt_map_open_fd(struct mt_ctx *ctx, int fd, const char *path,
                                      struct mt_map **out);
void mt_map_close(struct mt_map *map);

/* The pages wholly inside [offset, offset+bytes) are no longer needed soon. */
void mt_map_drop(const struct mt_map *map, uint64_t offset, uint64_t bytes);

/* The pages of [offset, offset+bytes) will be read soon: the system may begin to fetch them. Never
 * waits for the disk, never fails. */
void mt_map_ahead(const struct mt_map *map, uint64_t offset, uint64_t bytes);

/* Little-endian reads at any alignment. */
uint64_t mt_le64(const void *p);
uint32_t mt_le32(const void *p);

/* A whole small file as text with a NUL after it; *given*. Fails beyond max_bytes (MT_E_LIMIT). */
MT_NODISCARD mt_status mt_read_file(struct mt_ctx *ctx, const char *path, size_t max_bytes,
                                    char **text, size_t *n);
#endif
