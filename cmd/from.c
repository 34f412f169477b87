#include "cmd/from.h"

#include "lib/base/path.h"
#include "passes/convert/method.h"

#include <stdio.h>
#include <string.h>

static mt_status from_open_one(struct mt_ctx *ctx, const char *text,
                               const struct cmd_blocks *blocks, const struct mt_model *src,
                               struct cmd_from *out)
{
    const char *equals = mt_path_exists(text) ? NULL : strchr(text, '=');
    const char *path = equals != NULL ? equals + 1 : text;
    char *name = out->names[out->n], buf[64];

    if (equals != NULL)
        snprintf(name, sizeof out->names[0], "%.*s", (int)(equals - text), text);
    else
        snprintf(name, sizeof out->names[0], "%s", cmd_model_name(path, buf, sizeof buf));
    if (equals == text || path[0] == '\0')
        return mt_fail(ctx, MT_E_OPTION, "--from %s: expected MODEL or NAME=MODEL", text);
    if (strcmp(name, "base") == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--from %s: base is the name of the model that is converted", text);
    for (int i = 0; i < out->n; i++)
        if (strcmp(out->names[i], name) == 0)
            return mt_fail(ctx, MT_E_OPTION,
                           "--from %s: there is a model called %s already; give this one another "
                           "name: --from NAME=%s",
                           text, name, path);
    MT_TRY(mt_wrap(ctx, cmd_open_blocks(ctx, path, blocks, src->hp.hidden, false, &out->m[out->n]),
                   "--from"));
    out->siblings[out->n] = (struct mt_sibling){.name = name, .m = out->m[out->n]};
    out->n++;
    return MT_OK;
}

mt_status cmd_from_open(struct mt_ctx *ctx, const struct cmd_args *a, const struct mt_strlist *list,
                        const struct cmd_blocks *blocks, struct mt_model *src, struct cmd_from *out)
{
    const struct mt_convert_opts *p = a->pass_opts;

    if (list->n > 0 && strcmp(mt_convert_method_names[p->method], "upcycle") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--from: only --method upcycle makes experts of several models");
    for (int i = 0; i < list->n; i++)
        MT_TRY(from_open_one(ctx, list->v[i], blocks, src, out));
    src->siblings = out->siblings;
    src->n_siblings = out->n;
    return MT_OK;
}

void cmd_from_free(struct cmd_from *f)
{
    for (int i = 0; i < f->n; i++)
        mt_model_free(f->m[i]);
    f->n = 0;
}
