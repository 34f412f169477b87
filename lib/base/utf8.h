/* utf8.h: UTF-8 read, written and checked. Pure functions.
 *
 * Well-formed as in the Unicode standard, table 3-7: no overlong forms, no surrogates, nothing
 * beyond U+10FFFF.
 */
#ifndef MT_BASE_UTF8_H
#define MT_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the well-formed sequence at s (n > 0), or minus the length of the maximal ill-formed
 * part. */
int mt_utf8_sequence(const char *s, size_t n);
/* Length of the longest well-formed prefix. */
size_t mt_utf8_valid(const char *s, size_t n);
/* Reads the scalar value at *at (< n) of well-formed text and moves on. */
uint32_t mt_utf8_next(const char *s, size_t n, size_t *at);
/* Writes at most 4 bytes and returns how many. */
size_t mt_utf8_put(uint32_t c, char *out);
#endif
