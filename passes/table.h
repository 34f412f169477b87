/* table.h: all passes, from pass.def. Adding one is a file and a line there. */
#ifndef MT_PASSES_TABLE_H
#define MT_PASSES_TABLE_H

#include "lib/flow/pass.h"

extern const struct mt_pass *const mt_passes[]; /* NULL-ended */

/* By name ("convert-ffn"); NULL when there is none. */
const struct mt_pass *mt_pass_find(const char *name);
#endif
