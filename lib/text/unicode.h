/* unicode.h: classes of characters as the `tokenizers` library has them, from utf8proc's tables.
 * Threads: safe. */
#ifndef MT_TEXT_UNICODE_H
#define MT_TEXT_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool mt_char_is_space(uint32_t c);   /* White_Space */
bool mt_char_is_control(uint32_t c); /* Cc, Cf, Co but tab, line feed and carriage return */
bool mt_char_is_cjk(uint32_t c);     /* BERT's ideographs */
bool mt_char_is_mark(uint32_t c, bool nonspacing_only); /* M, or Mn alone */
/* Lower case of one character: 1 or 2 of them. */
size_t mt_char_lower(uint32_t c, uint32_t out[2]);
#endif
