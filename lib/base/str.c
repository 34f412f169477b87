#include "lib/base/str.h"

#include "lib/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mt_str_begin(struct mt_ctx *ctx, struct mt_str *t, const char *what)
{
    *t = (struct mt_str){.ctx = ctx, .what = what};
}

/* Room for n more bytes and a NUL. */
static bool str_room(struct mt_str *t, size_t n)
{
    size_t cap;

    if (t->st != MT_OK || n < t->cap - t->n)
        return t->st == MT_OK;
    if (n > SIZE_MAX / 4 || t->cap > SIZE_MAX / 4) {
        t->st = mt_fail(t->ctx, MT_E_LIMIT, "%s: too long for this machine", t->what);
        return false;
    }
    cap = 2 * t->cap + n + 1024;
    t->st = mt_realloc(t->ctx, cap, 1, t->what, &t->p);
    if (t->st == MT_OK)
        t->cap = cap;
    return t->st == MT_OK;
}

void mt_str_add(struct mt_str *t, const void *bytes, size_t n)
{
    if (!str_room(t, n))
        return;
    if (n > 0)
        memcpy(t->p + t->n, bytes, n);
    t->n += n;
    t->p[t->n] = '\0';
}

void mt_str_addf(struct mt_str *t, const char *fmt, ...)
{
    va_list ap;

    for (int turn = 0; turn < 2 && t->st == MT_OK; turn++) {
        va_start(ap, fmt);
        int n = vsnprintf(t->p != NULL ? t->p + t->n : NULL, t->cap - t->n, fmt, ap);
        va_end(ap);
        mt_assert(n >= 0);
        if ((size_t)n < t->cap - t->n) {
            t->n += (size_t)n;
            return;
        }
        if (!str_room(t, (size_t)n) && t->p != NULL)
            t->p[t->n] = '\0'; /* the part that had room */
    }
}

void mt_str_add_escaped(struct mt_str *t, const char *text)
{
    static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";

    while (*text != '\0') {
        size_t plain = 0;
        while ((unsigned char)text[plain] >= 0x20 && text[plain] != '"' && text[plain] != '\\')
            plain++;
        mt_str_add(t, text, plain);
        text += plain;
        if (*text == '\0')
            return;
        const char *hit = strchr(from, *text);
        if (hit != NULL)
            mt_str_addf(t, "\\%c", to[hit - from]);
        else
            mt_str_addf(t, "\\u%04x", (unsigned)*text);
        text++;
    }
}

void mt_str_free(struct mt_str *t)
{
    mt_free(t->p);
    t->p = NULL;
    t->n = t->cap = 0;
}
