#include "lib/flow/format.h"

#include "lib/base/path.h"
#include "lib/flow/walk.h"

#include <string.h>

#define FORMAT_PARTIAL ".partial"

/* True when the last component of path[0..n) ends in ".partial". */
static bool format_is_partial(const char *path, size_t n)
{
    size_t s = strlen(FORMAT_PARTIAL);

    while (n > 1 && path[n - 1] == '/')
        n--;
    return n > s && memcmp(path + n - s, FORMAT_PARTIAL, s) == 0;
}

static mt_status format_has_journal(struct mt_ctx *ctx, const char *dir, bool *found)
{
    static const char *const names[] = {MT_JOURNAL_NAME, MT_JOURNAL_NAME FORMAT_PARTIAL};

    for (size_t i = 0; i < sizeof names / sizeof names[0] && !*found; i++) {
        char *path;
        MT_TRY(mt_path_join(ctx, dir, names[i], &path));
        *found = mt_path_exists(path);
        mt_free(path);
    }
    return MT_OK;
}

/* Half an output looks like a model but is none. */
static mt_status format_refuse_unfinished(struct mt_ctx *ctx, const char *path)
{
    size_t n = strlen(path), dir_n = (size_t)(mt_path_base(path) - path);
    bool found = format_is_partial(path, n) || format_is_partial(path, dir_n);

    if (!found && mt_path_is_dir(path)) {
        MT_TRY(format_has_journal(ctx, path, &found));
    } else if (!found) {
        struct mt_arena a;
        const char *dir = ".";
        mt_status st;

        mt_arena_init(&a);
        st = dir_n > 0 ? mt_arena_strndup(ctx, &a, path, dir_n, &dir) : MT_OK;
        if (st == MT_OK)
            st = format_has_journal(ctx, dir, &found);
        mt_arena_free(&a);
        MT_TRY(st);
    }
    if (found)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: the unfinished output of an interrupted run; give the same command "
                       "again with --resume to finish it",
                       path);
    return MT_OK;
}

static mt_status format_none(struct mt_ctx *ctx, const struct mt_format *const *formats,
                             const char *path)
{
    char all[512] = "";
    size_t at = 0;

    if (!mt_path_exists(path))
        return mt_fail(ctx, MT_E_ABSENT, "%s: no such file or directory", path);
    for (size_t i = 0; formats[i] != NULL; i++) {
        size_t n = strlen(formats[i]->summary);
        if (at + n + 3 > sizeof all)
            break;
        memcpy(all + at, at > 0 ? "; " : "", at > 0 ? 3 : 1);
        at += at > 0 ? 2 : 0;
        memcpy(all + at, formats[i]->summary, n + 1);
        at += n;
    }
    return mt_fail(ctx, MT_E_FORMAT, "%s: not a model that can be read; looked for: %s", path, all);
}

mt_status mt_model_open_work(struct mt_ctx *ctx, const struct mt_format *const *formats,
                             const char *path, struct mt_model **out)
{
    *out = NULL;
    for (size_t i = 0; formats[i] != NULL; i++) {
        if (formats[i]->probe(path))
            return formats[i]->open(ctx, path, out);
    }
    return format_none(ctx, formats, path);
}

mt_status mt_model_open(struct mt_ctx *ctx, const struct mt_format *const *formats,
                        const char *path, struct mt_model **out)
{
    *out = NULL;
    MT_TRY(format_refuse_unfinished(ctx, path));
    return mt_model_open_work(ctx, formats, path, out);
}

mt_status mt_model_open_lenient(struct mt_ctx *ctx, const struct mt_format *const *formats,
                                const char *path, struct mt_model **out)
{
    *out = NULL;
    MT_TRY(format_refuse_unfinished(ctx, path));
    for (size_t i = 0; formats[i] != NULL; i++) {
        if (formats[i]->probe(path))
            return formats[i]->open_lenient != NULL ? formats[i]->open_lenient(ctx, path, out)
                                                    : formats[i]->open(ctx, path, out);
    }
    return format_none(ctx, formats, path);
}
