/* torch_fixture.h: zip archives and pickles made by tests, honest and hostile.
 *
 *   struct zf z;  zf_begin(&z);  zf_add(&z, "a/data.pkl", text, n);  path = zf_write(t, &z,
 * "m.pt");
 *
 * Between zf_add and zf_write a test may change members and the end record to say what is not so.
 * Paths are in the scratch directory.
 */
#ifndef MT_TESTS_TORCH_FIXTURE_H
#define MT_TESTS_TORCH_FIXTURE_H

#include "tests/t.h"

#define ZF_MEMBERS 16

struct zf_member {
    const char *name;
    const char *data;
    size_t n;
    unsigned flags, method, extra; /* extra: bytes of padding in the local header */
    /* What headers claim; the truth until changed. */
    uint64_t stored, bytes, local_bytes, at;
    const char *local_name;
    bool set_at;          /* `at` was changed */
    bool zip64, no_extra; /* sizes in a zip64 field; or claimed but left out */
};

struct zf {
    struct zf_member v[ZF_MEMBERS];
    size_t n;
    bool zip64; /* a zip64 end record */
    uint64_t count,
        dir_shift; /* claims: members (0: the truth); bytes that the directory's place is off */
    unsigned disk;
    const char *comment;
    size_t cut; /* bytes missing at the end */
};

void zf_begin(struct zf *z);
struct zf_member *zf_add(struct zf *z, const char *name, const void *data, size_t n);
const char *zf_write(struct t *t, const struct zf *z, const char *file);

/* A checkpoint of one pickle and one storage "0" of n bytes, byte i being i. */
const char *zf_checkpoint(struct t *t, const char *file, const void *pickle, size_t n_pickle,
                          size_t n_storage);
/* Text of a pickle: a tensor over storage "0" of 24 floats; args are offset, sizes and strides. */
#define ZF_STORAGE                                                                                 \
    "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                             \
    "0X\3\0\0\0cpuK\30tQ"
#define ZF_TENSOR(args)                                                                            \
    "ctorch._utils\n_rebuild_tensor_v2\n(" ZF_STORAGE args "\x89"                                  \
    "ccollections\nOrderedDict\n)RtR"
#endif
