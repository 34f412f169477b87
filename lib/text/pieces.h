/* pieces.h: growing text, and spans over it. What the stages of a tokenizer hand to each other.
 *
 * Ownership: zeroed structs are empty; end them with the functions below. Threads: one at a time.
 */
#ifndef MT_TEXT_PIECES_H
#define MT_TEXT_PIECES_H

#include "lib/base/ctx.h"
#include "lib/base/utf8.h"

#include <stddef.h>

struct mt_text {
    char *s;
    size_t n, cap;
};
MT_NODISCARD mt_status mt_text_add(struct mt_ctx *ctx, struct mt_text *t, const char *s, size_t n);
/* Room for n more bytes. */
MT_NODISCARD mt_status mt_text_room(struct mt_ctx *ctx, struct mt_text *t, size_t n);
void mt_text_end(struct mt_text *t);

struct mt_piece {
    size_t at, n;
    bool first; /* begins where the whole input begins */
};
struct mt_pieces {
    struct mt_piece *v;
    size_t n, cap;
};
MT_NODISCARD mt_status mt_pieces_push(struct mt_ctx *ctx, struct mt_pieces *p, size_t at, size_t n,
                                      bool first);
void mt_pieces_end(struct mt_pieces *p);

/* Appends s with every maximal ill-formed part replaced by U+FFFD (Unicode 15, 3.9, the practice
 * of Python and Rust). */
MT_NODISCARD mt_status mt_utf8_repair(struct mt_ctx *ctx, struct mt_text *out, const char *s,
                                      size_t n);
#endif
