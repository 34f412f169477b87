/* pickle_impl.h: the machine's state, for pickle.c (instructions) and pickle_call.c (what the
 * known names do) alone. */
#ifndef MT_FORMATS_PICKLE_IMPL_H
#define MT_FORMATS_PICKLE_IMPL_H

#include "formats/pickle.h"

struct pickle_in {
    struct mt_ctx *ctx;
    struct mt_arena *arena;
    const char *what;
    const unsigned char *begin, *p, *end;
    const unsigned char *op; /* the instruction being done, for messages */
    struct mt_pickle **stack;
    size_t n_stack, cap_stack;
    size_t *marks; /* stack heights */
    size_t n_marks, cap_marks;
    struct mt_pickle **memo;
    size_t n_memo, cap_memo;
    size_t n_units; /* values and places in containers made so far */
};

enum pickle_does {
    PICKLE_DICT,
    PICKLE_SIZE,
    PICKLE_TENSOR_V2,
    PICKLE_TENSOR_V3,
    PICKLE_PARAMETER,
    PICKLE_ENCODE,
    PICKLE_STORAGE,
    PICKLE_UNTYPED,
    PICKLE_DTYPE
};

struct mt_pickle_name {
    const char *module, *name;
    enum pickle_does does;
    enum mt_dtype dtype; /* STORAGE, DTYPE */
};

mt_status pickle_fail(const struct pickle_in *in, mt_status st, const char *fmt, ...)
    MT_PRINTF(3, 4);
/* Counts what is made: a value or a place in a container is a unit, of some 32 bytes. */
MT_NODISCARD mt_status pickle_charge(struct pickle_in *in, size_t units);
MT_NODISCARD mt_status pickle_new(struct pickle_in *in, enum mt_pickle_kind kind,
                                  struct mt_pickle **out);
MT_NODISCARD mt_status pickle_append(struct pickle_in *in, struct mt_pickle *list,
                                     struct mt_pickle *const *v, size_t n);

/* MT_E_UNSUPPORTED naming it when it is not known. */
MT_NODISCARD mt_status pickle_look_up(struct pickle_in *in, struct mt_pickle_text module,
                                      struct mt_pickle_text name, struct mt_pickle **out);
/* name(*args), for the known names that are called. */
MT_NODISCARD mt_status pickle_call(struct pickle_in *in, const struct mt_pickle *what,
                                   const struct mt_pickle *args, struct mt_pickle **out);
/* What torch puts in place of a storage: ("storage", type, key, device, count). */
MT_NODISCARD mt_status pickle_persistent(struct pickle_in *in, const struct mt_pickle *id,
                                         struct mt_pickle **out);
#endif
