/* pickle.h: the part of Python's pickle that makes tensors; no code is ever run.
 *
 * A pickle is a program for a stack machine whose instructions look objects up by name and call
 * them. This machine has the instructions that containers, numbers, strings and tensors need, of
 * protocols 2 to 5, and knows these names:
 *   collections.OrderedDict         torch.Size            torch.float32 ... (dtypes)
 *   torch._utils._rebuild_tensor_v2, _v3, _rebuild_parameter, _rebuild_parameter_with_state
 *   torch.FloatStorage ... torch.storage.UntypedStorage    _codecs.encode (bytes in protocol 2)
 * A name that is not among them is refused, MT_E_UNSUPPORTED, as soon as it is looked up, with its
 * qualified name. Attributes that a pickle sets on dictionaries (torch's _metadata) are dropped.
 *
 * The result is a graph of values: what is shared or holds itself in Python does so here, and who
 * walks it limits depth and visits. Storages keep the name of their member; whether it exists and
 * how long it is, and whether a tensor's view lies inside, is the caller's to check.
 *
 * Limits: MT_PICKLE_BYTES_MAX of text, 16,777,216 values and
 * places in containers (some 0.5 GB), 1,048,576 on the stack, 4,096 marks.
 * Memory: values in the caller's arena (charged), strings borrowed from the text; stack and memo
 * are freed on return. Threads: one per call.
 */
#ifndef MT_FORMATS_PICKLE_H
#define MT_FORMATS_PICKLE_H

#include "lib/base/mem.h"
#include "lib/ir/tensor.h"

#define MT_PICKLE_BYTES_MAX 100000000u

enum mt_pickle_kind {
    MT_PICKLE_NONE,
    MT_PICKLE_BOOL,
    MT_PICKLE_INT,
    MT_PICKLE_BIG, /* an integer beyond 64 bits; only its existence is known */
    MT_PICKLE_FLOAT,
    MT_PICKLE_STR,
    MT_PICKLE_BYTES,
    MT_PICKLE_TUPLE,
    MT_PICKLE_LIST,
    MT_PICKLE_DICT,
    MT_PICKLE_NAME, /* one of the names above, looked up but not called */
    MT_PICKLE_STORAGE,
    MT_PICKLE_TENSOR
};

struct mt_pickle;

/* NUL-terminated only where said; borrowed from the text. */
struct mt_pickle_text {
    const char *s;
    size_t n;
};

struct mt_pickle_list {
    struct mt_pickle **v; /* of a dict: key, value, key, value */
    size_t n, cap;
};

struct mt_pickle_storage {
    struct mt_pickle_text key; /* the member is PREFIX/data/KEY */
    uint64_t count;            /* elements, or bytes when untyped */
    enum mt_dtype dtype;
    bool untyped;
};

/* A view: element (i, j, ..) is at offset + i stride[0] + j stride[1] .., in elements. None of the
 * numbers is negative. */
struct mt_pickle_tensor {
    const struct mt_pickle_storage *storage;
    enum mt_dtype dtype;
    int rank;
    int64_t offset, shape[MT_RANK_MAX], stride[MT_RANK_MAX];
};

struct mt_pickle {
    enum mt_pickle_kind kind;
    union {
        bool truth;
        int64_t integer;
        double num;
        struct mt_pickle_text text; /* STR, BYTES */
        struct mt_pickle_list list; /* TUPLE, LIST, DICT */
        const struct mt_pickle_name *name;
        const struct mt_pickle_storage *storage;
        const struct mt_pickle_tensor *tensor;
    };
};

/* `what` names the text in messages ("model.pt: data.pkl"). */
MT_NODISCARD mt_status mt_pickle_read(struct mt_ctx *ctx, const void *text, size_t n,
                                      const char *what, struct mt_arena *arena,
                                      const struct mt_pickle **root);

/* "None", "True", "12", "'text'", "a dict of 3", "torch.float16": one line into buf, cut. */
const char *mt_pickle_show(const struct mt_pickle *v, char *buf, size_t n);
/* "a dict", "a string" */
const char *mt_pickle_kind_name(enum mt_pickle_kind kind);
#endif
