/* json_scan.h: JSON read in one pass, without a tree; json.h builds its trees on it.
 *
 * Safetensors headers and shard indexes come from strangers and may be 100 MB long; as a tree, a
 * text of tiny arrays grows thirtyfold. This scanner hands out one token after another and keeps
 * nothing, so memory is what the caller stores. The text must be RFC 8259 and UTF-8; half
 * surrogate pairs, \u0000 and nesting deeper than 64 are refused. Duplicate keys are the caller's
 * business.
 *
 * Ownership: the scanner borrows the text and owns a scratch buffer for strings with escapes;
 * close ends it. Threads: one per scanner. Every failure is MT_E_FORMAT "<what>: <place>: <why>"
 * (or MT_E_NOMEM / MT_E_LIMIT for the scratch buffer).
 *
 *   mt_scan_enter(s, '{');
 *   while (mt_scan_next(s, '}', &more) succeeds and more) { mt_scan_key(s, &key); a value }
 *   mt_scan_end(s);
 */
#ifndef MT_BASE_JSON_SCAN_H
#define MT_BASE_JSON_SCAN_H

#include "lib/base/ctx.h"

#include <stddef.h>

enum {
    MT_SCAN_LINES = 1,    /* a text people edit: places are line and column, not the byte */
    MT_SCAN_NONFINITE = 2 /* mt_scan_skip takes NaN and +-Infinity, which Python writes */
};

struct mt_scan {
    struct mt_ctx *ctx;
    const char *what; /* borrowed; "model.safetensors: header" */
    const char *begin, *p, *end;
    char *scratch;
    size_t scratch_cap;
    unsigned flags; /* MT_SCAN_* */
    int depth;      /* brackets open */
    bool opened;    /* the last token was an opening bracket: no comma is due */
};

/* Not NUL-terminated, but holds no NUL; borrowed until the next string is scanned. */
struct mt_scan_text {
    const char *s;
    size_t n;
};

bool mt_scan_is(struct mt_scan_text text, const char *word);

/* Checks that all of the text is UTF-8. The scanner may be closed after a failure. */
MT_NODISCARD mt_status mt_scan_open(struct mt_ctx *ctx, struct mt_scan *s, const void *text,
                                    size_t n, const char *what, unsigned flags);
void mt_scan_close(struct mt_scan *s);

MT_NODISCARD mt_status mt_scan_enter(struct mt_scan *s, char open);
/* After enter or a value: eats the comma, or the closing bracket (then *more is false). */
MT_NODISCARD mt_status mt_scan_next(struct mt_scan *s, char close, bool *more);
MT_NODISCARD mt_status mt_scan_key(struct mt_scan *s, struct mt_scan_text *key);
MT_NODISCARD mt_status mt_scan_string(struct mt_scan *s, struct mt_scan_text *text);
/* A whole number from 0 to 2^64-1, written as digits only: 16.0, 1e3 and -0 are refused. */
MT_NODISCARD mt_status mt_scan_u64(struct mt_scan *s, uint64_t *v);
/* Any value, checked and dropped; *raw (may be NULL) is its text. */
MT_NODISCARD mt_status mt_scan_skip(struct mt_scan *s, struct mt_scan_text *raw);
/* Nothing but white space may follow. */
MT_NODISCARD mt_status mt_scan_end(struct mt_scan *s);

/* The next byte that is not white space; 0 at the end. */
char mt_scan_peek(struct mt_scan *s);
mt_status mt_scan_fail(struct mt_scan *s, const char *at, const char *fmt, ...) MT_PRINTF(3, 4);
#endif
