/* divide.h: ways to divide neurons that must see activations, for every method that cuts an FFN up
 * as --partition says (slices.h, method_partition.c). Each is a method that has only the name, of
 * --partition, and the hooks that see a layer; `decide` fills out->split, and of the rest what it
 * has to say. */
#ifndef MT_PASSES_CONVERT_DIVIDE_H
#define MT_PASSES_CONVERT_DIVIDE_H

#include "passes/convert/method.h"

/* divide_coactivation.c, divide_importance.c */
extern const struct mt_convert_method mt_divider_coactivation, mt_divider_importance,
    mt_divider_importance_overlap;

/* The one that --partition asks for; NULL: none is needed. */
const struct mt_convert_method *mt_divider_asked(const struct mt_convert_opts *o);
#define MT_DIVIDER_NEEDS (MT_NEED_INPUTS | MT_NEED_HIDDEN)
#endif
