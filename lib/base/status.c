#include "lib/base/ctx.h"
#include "lib/base/show.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *mt_status_text(mt_status st)
{
    static const char *const texts[] = {"success",
#define MT_STATUS_TEXT(name, text) text,
                                        MT_STATUS_LIST(MT_STATUS_TEXT)
#undef MT_STATUS_TEXT
    };
    size_t i = (size_t)st;

    return i < sizeof texts / sizeof texts[0] ? texts[i] : "unknown failure";
}

mt_status mt_fail(struct mt_ctx *ctx, mt_status st, const char *fmt, ...)
{
    va_list ap;

    mt_assert(st != MT_OK);
    va_start(ap, fmt);
    vsnprintf(ctx->error, sizeof ctx->error, fmt, ap);
    va_end(ap);
    mt_show_line(ctx->error);
    ctx->error_status = st;
    return st;
}

mt_status mt_fail_errno(struct mt_ctx *ctx, int errno_value, const char *fmt, ...)
{
    char reason[128];
    va_list ap;
    size_t n;

    if (strerror_r(errno_value, reason, sizeof reason) != 0)
        snprintf(reason, sizeof reason, "error %d", errno_value);
    va_start(ap, fmt);
    vsnprintf(ctx->error, sizeof ctx->error, fmt, ap);
    va_end(ap);
    n = strlen(ctx->error);
    snprintf(ctx->error + n, sizeof ctx->error - n, ": %s", reason);
    mt_show_line(ctx->error);
    ctx->error_status = MT_E_IO;
    return MT_E_IO;
}

/* Takes "<where>: " out of a text that has it as one of its places already. */
static void status_drop_place(char *text, const char *where)
{
    size_t n = strlen(where);

    for (char *at = text;;) {
        if (strncmp(at, where, n) == 0 && strncmp(at + n, ": ", 2) == 0) {
            memmove(at, at + n + 2, strlen(at + n + 2) + 1);
            return;
        }
        at = strstr(at, ": ");
        if (at == NULL)
            return;
        at += 2;
    }
}

mt_status mt_wrap(struct mt_ctx *ctx, mt_status st, const char *fmt, ...)
{
    char where[MT_ERROR_TEXT_MAX], text[MT_ERROR_TEXT_MAX];
    va_list ap;

    if (st == MT_OK)
        return MT_OK;
    va_start(ap, fmt);
    vsnprintf(where, sizeof where, fmt, ap);
    va_end(ap);
    memcpy(text, ctx->error, sizeof text);
    if (where[0] != '\0')
        status_drop_place(text, where);
    /* A text that would be cut loses its end, not the place just added. */
    if ((size_t)snprintf(ctx->error, sizeof ctx->error, "%s: %s", where, text) >= sizeof ctx->error)
        memcpy(ctx->error + sizeof ctx->error - 4, "...", 4);
    mt_show_line(ctx->error);
    return st;
}

const char *mt_error(const struct mt_ctx *ctx)
{
    return ctx->error;
}

MT_NORETURN void mt_assert_failed(const char *expr, const char *file, int line)
{
    fprintf(stderr, "moetool: internal error: %s:%d: %s\n", file, line, expr);
    abort();
}
