/* st_header.h: the header of a safetensors file, believed only after nine checks.
 *
 * Layout: u64 little-endian n, n bytes of JSON, data to the end of the file. Every number in it is
 * a claim. The checks and their order are the reference library's (spec: formats, 1.2):
 *   1 the file has 8 bytes             2 n <= 100,000,000        3 8 + n lies inside the file
 *   4 UTF-8 and JSON of the expected types (keys unique: our addition)
 *   5 sorted by offsets, each tensor begins where the one before ended: no hole, overlap, alias
 *   6 element and bit counts do not overflow                     7 whole bytes
 *   8 the range is as long as dtype and shape say                9 data end where the file ends
 * Zero-size dimensions, rank 0, an empty header, white space around the JSON and unknown keys in
 * a tensor's entry are accepted; "__metadata__" may be null. Beyond the reference, a rank above
 * MT_RANK_MAX, NUL characters and shapes whose non-zero dimensions multiply past 2^60 (though
 * another is zero) are not supported.
 *
 * Memory: names, shapes and metadata in the caller's arena; 40 bytes per record besides, until
 * mt_st_header_free. A header of 100 MB holds at most 1.9 million tensors. Failures name file and
 * tensor. Threads: one per header.
 */
#ifndef MT_FORMATS_ST_HEADER_H
#define MT_FORMATS_ST_HEADER_H

#include "lib/base/dtype.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"

#define MT_ST_HEADER_MAX 100000000u

struct mt_st_record {
    const char *name;
    const uint64_t *shape; /* [rank]; the product of the non-zero ones is <= INT64_MAX / 8 */
    uint64_t begin, end;   /* bytes from the start of the data */
    uint32_t line;         /* position in the header */
    uint8_t dtype;         /* enum mt_dtype */
    uint8_t rank;
};

struct mt_st_pair {
    const char *key, *value;
};

struct mt_st_header {
    struct mt_st_record *v; /* ordered by offset */
    size_t n, cap;
    struct mt_st_pair *meta; /* "__metadata__", in file order */
    size_t n_meta, cap_meta;
    uint64_t data_offset; /* 8 + n */
};

/* *out is valid for mt_st_header_free also after a failure. */
MT_NODISCARD mt_status mt_st_header_read(struct mt_ctx *ctx, const struct mt_map *map,
                                         struct mt_arena *arena, struct mt_st_header *out);
void mt_st_header_free(struct mt_st_header *h);
#endif
