/* write_kit.h: models written through a walk and read again, for tests of formats. */
#ifndef MT_TESTS_WRITE_KIT_H
#define MT_TESTS_WRITE_KIT_H

#include "formats/gguf.h"
#include "tests/t.h"

/* A model of any format. NULL after a failure, which fails the test. */
struct mt_model *open_model(struct t *t, const char *path);

/* Into `out` as it is, with MT_OUT_* flags. max: bytes of a file, as shard_bytes_max. written:
 * NULL, or gets the path that was written, to be freed; NULL after a failure. What the walk says of
 * the size of a GGUF file's tensors is compared with its header. */
mt_status write_format(struct t *t, const struct mt_model *src, const char *format, const char *out,
                       unsigned flags, uint64_t max, char **written);

/* A GGUF file's header, to be ended with mt_gguf_header_free, mt_arena_free and mt_map_close. */
mt_status gguf_header(struct t *t, const char *path, struct mt_arena *a, struct mt_map **map,
                      struct mt_gguf *g);
#endif
