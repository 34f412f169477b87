/* zip_dir.h: where the files of a zip archive lie; stored ones only.
 *
 * torch.save writes zip archives whose members are stored, not compressed, so a tensor can be read
 * where it lies in the mapped file. This reader knows the central directory, zip64 included, and
 * believes nothing in it. Refused, with a sentence naming file and member:
 *   - no end record, more than one disk, a directory that is not where the end record says;
 *   - a member that is encrypted;
 *   - local headers that contradict the directory (name, method, sizes);
 *   - members that overlap each other or the directory, or leave the file;
 *   - names twice, absolute names, "..", backslashes, control characters, text that is not UTF-8.
 * Compressed members, which cannot be mapped, are listed, so that the caller may tell what the
 * archive is before it refuses them (mt_zip_all_stored). Checksums are not verified: that would
 * read every byte, and torch can be told not to write them.
 *
 * Memory: names in the caller's arena; 40 bytes per member besides, until mt_zip_free. Threads: one
 * per directory.
 */
#ifndef MT_FORMATS_ZIP_DIR_H
#define MT_FORMATS_ZIP_DIR_H

#include "lib/base/map.h"
#include "lib/base/mem.h"

struct mt_zip_entry {
    const char *name;
    uint64_t header;        /* of the local header, from the start of the file */
    uint64_t offset, bytes; /* of the data, inside the file */
    unsigned method;        /* 0: stored; 8: deflate */
};

struct mt_zip {
    const struct mt_map *map; /* borrowed */
    struct mt_zip_entry *v;   /* sorted by name; names are unique */
    size_t n, cap;
};

/* True when the file begins like an archive with members. */
bool mt_zip_has_magic(const void *head, size_t n);

/* *out is valid for mt_zip_free also after a failure. */
MT_NODISCARD mt_status mt_zip_read(struct mt_ctx *ctx, const struct mt_map *map,
                                   struct mt_arena *arena, struct mt_zip *out);
void mt_zip_free(struct mt_zip *z);

/* MT_E_UNSUPPORTED naming the first member that is compressed. */
MT_NODISCARD mt_status mt_zip_all_stored(struct mt_ctx *ctx, const struct mt_zip *z);

/* NULL when there is no such member. */
const struct mt_zip_entry *mt_zip_find(const struct mt_zip *z, const char *name);
#endif
