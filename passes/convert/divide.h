/* divide.h: ways to divide neurons that must see activations, for every method that cuts an FFN up
 * as --partition says (slices.h, method_partition.c). Hooks are those of a method. */
#ifndef MT_PASSES_CONVERT_DIVIDE_H
#define MT_PASSES_CONVERT_DIVIDE_H

#include "passes/convert/method.h"

struct mt_divider {
    const char *name; /* of --partition */
    int rounds;
    uint64_t (*memory)(const struct mt_convert_at *at);
    mt_status (*begin)(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state);
    mt_status (*observe)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                         const struct mt_observation *ob);
    /* Fills out->split, and of the rest what it has to say. */
    mt_status (*decide)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                        struct mt_convert_division *out);
    void (*end)(void *state);
};

/* divide_coactivation.c, divide_importance.c */
extern const struct mt_divider mt_divider_coactivation, mt_divider_importance,
    mt_divider_importance_overlap;

/* The one that --partition asks for; NULL: none is needed. */
const struct mt_divider *mt_divider_asked(const struct mt_convert_opts *o);
#define MT_DIVIDER_NEEDS (MT_NEED_INPUTS | MT_NEED_HIDDEN)
#endif
