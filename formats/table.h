/* table.h: all formats of format.def, NULL-ended, in the order in which they are asked.
 *
 * `cmd` hands the table to `flow`. Adding a format is one file with a struct mt_format
 * mt_format_NAME and one line in format.def.
 */
#ifndef MT_FORMATS_TABLE_H
#define MT_FORMATS_TABLE_H

#include "lib/flow/format.h"

extern const struct mt_format *const mt_formats[];

/* The format that can be written under a name ("safetensors"); NULL when there is none. */
const struct mt_format *mt_format_writer(const char *name);
#endif
