/* st_fixture.h: safetensors files made by tests, honest and hostile. Paths are in the scratch
 * directory; directories of the path are made. */
#ifndef MT_TESTS_ST_FIXTURE_H
#define MT_TESTS_ST_FIXTURE_H

#include "lib/ir/family.h"
#include "tests/t.h"

/* A file of a header as given (its true length in front) and n_data bytes of data, byte i being
 * i * 31 + 7. Returns the path (static, as t_path). */
const char *fx_st(struct t *t, const char *name, const char *header, size_t n_data);
/* The same, told a length of its own and any bytes in the header. */
const char *fx_st_raw(struct t *t, const char *name, uint64_t claimed, const void *header,
                      size_t n_header, size_t n_data);
const char *fx_text(struct t *t, const char *name, const char *text);
void fx_mkdir(struct t *t, const char *name);

/* The record of a name, or NULL. */
struct mt_tensor *fx_find(const struct mt_model *m, const char *name);

/* "{"dtype":D,"shape":[S],"data_offsets":[B,E]}" */
#define FX_ENTRY(d, s, b, e)                                                                       \
    "{\"dtype\":\"" d "\",\"shape\":[" s "],\"data_offsets\":[" #b "," #e "]}"
#endif
