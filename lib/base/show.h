/* show.h: text from files made fit for one line of a terminal.
 *
 * Names that a file gives are part of messages; what they must not do is start a new line or drive
 * the terminal: control characters become '?'. mt_fail, mt_wrap and mt_log do so with the whole
 * message; who shows a name also keeps it short. Threads: pure functions.
 */
#ifndef MT_BASE_SHOW_H
#define MT_BASE_SHOW_H

#include <stddef.h>

void mt_show_line(char *s);

/* The name in buf, cut behind a whole UTF-8 character when it is long. Returns buf. */
#define MT_SHOW_BYTES 160
const char *mt_show_text(const char *name, size_t n, char buf[MT_SHOW_BYTES]);
/* As above for a NUL-terminated name. */
const char *mt_show_name(const char *name, char buf[MT_SHOW_BYTES]);
#endif
