#include "passes/lib/layer_list.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct list_at {
    const char *option, *text;
    int n_layers;
};

static mt_status list_fail(struct mt_ctx *ctx, const struct list_at *at)
{
    return mt_fail(ctx, MT_E_OPTION,
                   "--%s %s: expected layers from 0 to %d, with commas, ranges like 0-2, or -1 for "
                   "the last",
                   at->option, at->text, at->n_layers - 1);
}

/* A number at *p, which moves behind it; `minus`: counted from the end when negative. */
static mt_status list_number(struct mt_ctx *ctx, const struct list_at *at, const char **p,
                             bool minus, int *out)
{
    char *end;

    errno = 0;
    if (!isdigit((unsigned char)(*p)[minus && **p == '-' ? 1 : 0]))
        return list_fail(ctx, at);
    long v = strtol(*p, &end, 10);
    v = v < 0 ? v + at->n_layers : v;
    if (errno != 0 || v < 0 || v >= at->n_layers)
        return list_fail(ctx, at);
    *p = end;
    *out = (int)v;
    return MT_OK;
}

mt_status mt_layer_list_read(struct mt_ctx *ctx, const char *option, const char *text, int n_layers,
                             bool *in, int *n)
{
    const struct list_at at = {.option = option, .text = text, .n_layers = n_layers};
    const char *p = text;
    int first = 0, last = 0;

    memset(in, 0, (size_t)n_layers * sizeof(*in));
    *n = 0;
    while (*p != '\0') {
        MT_TRY(list_number(ctx, &at, &p, true, &first));
        last = first;
        if (*p == '-') {
            p++;
            MT_TRY(list_number(ctx, &at, &p, false, &last));
        }
        if (last < first || (*p != '\0' && (*p != ',' || p[1] == '\0')))
            return list_fail(ctx, &at);
        for (int l = first; l <= last; l++) {
            *n += !in[l];
            in[l] = true;
        }
        p += *p == ',';
    }
    return MT_OK;
}
