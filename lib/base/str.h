/* str.h: text that grows, for headers, cards and traces.
 *
 *     struct mt_str t;
 *     mt_str_begin(ctx, &t, "model card");
 *     mt_str_addf(&t, "| %s | %d |\n", name, n);
 *     st = t.st == MT_OK ? write(t.p, t.n) : t.st;
 *     mt_str_free(&t);
 *
 * A failure stays in `st`, its text in the context, and later calls do nothing: who adds a hundred
 * pieces asks once. A NUL follows the n bytes. Ownership: the bytes are the text's, until
 * mt_str_free. Threads: one.
 */
#ifndef MT_BASE_STR_H
#define MT_BASE_STR_H

#include "lib/base/ctx.h"

#include <stddef.h>

struct mt_str {
    struct mt_ctx *ctx;
    const char *what; /* names it when memory runs out; borrowed */
    mt_status st;
    char *p; /* NULL until something is added */
    size_t n, cap;
};

void mt_str_begin(struct mt_ctx *ctx, struct mt_str *t, const char *what);
void mt_str_add(struct mt_str *t, const void *bytes, size_t n);
void mt_str_addf(struct mt_str *t, const char *fmt, ...) MT_PRINTF(2, 3);
/* What stands between the quotes of a JSON string, with the escapes that the reference writer of
 * safetensors uses, and no others. */
void mt_str_add_escaped(struct mt_str *t, const char *text);
void mt_str_free(struct mt_str *t); /* twice is fine */
#endif
