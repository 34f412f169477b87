/* layer_list.h: layers named in an option.
 *
 * "0,2,-1": numbers from 0, negative ones counted from the end (-1 is the last). "0-2": all of a
 * range. Threads: none of its own.
 */
#ifndef MT_PASSES_LAYER_LIST_H
#define MT_PASSES_LAYER_LIST_H

#include "lib/base/ctx.h"

/* Sets in[l] for every layer of the list, which may name one twice, and clears the others; returns
 * how many are set in *n. MT_E_OPTION names `option` and what is no layer of n_layers. */
MT_NODISCARD mt_status mt_layer_list_read(struct mt_ctx *ctx, const char *option, const char *text,
                                          int n_layers, bool *in, int *n);
#endif
