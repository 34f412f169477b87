/* The parts of a model that lies in several files (spec: formats, 4.2). */
#include "formats/gguf.h"
#include "formats/safetensors.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static mt_status split_add_file(struct mt_ctx *ctx, struct mt_gguf_set *o, const char *path)
{
    struct mt_map *map;

    MT_TRY(mt_realloc(ctx, o->n + 1, sizeof *o->v, "list of files", &o->v));
    MT_TRY(mt_map_open(ctx, path, &map));
    MT_TRY(mt_model_own_map(ctx, o->m, map));
    return mt_gguf_header_read(ctx, map, &o->m->arena, &o->v[o->n++]);
}

/* "NAME-00001-of-00003.gguf": the bytes of NAME; 0 when the path is not of that form. */
static size_t split_stem(const char *path, int64_t count)
{
    size_t n = strlen(path);
    char end[64];

    snprintf(end, sizeof end, "-00001-of-%05d" MT_GGUF_SUFFIX, (int)count);
    return n > strlen(end) && mt_name_ends(path, end) ? n - strlen(end) : 0;
}

static mt_status split_value(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                             int64_t dflt, int64_t *out)
{
    return mt_wrap(ctx, mt_gguf_int(ctx, g, key, dflt, out), "%s", g->map->path);
}

static mt_status split_check_place(struct mt_ctx *ctx, const struct mt_gguf *g, int64_t want,
                                   int64_t count)
{
    int64_t no, n;

    MT_TRY(split_value(ctx, g, "split.no", -1, &no));
    MT_TRY(split_value(ctx, g, "split.count", -1, &n));
    if (no != want || n != count)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: says it is part %" PRId64 " of %" PRId64 ", expected %" PRId64
                       " of %" PRId64,
                       g->map->path, no, n, want, count);
    return MT_OK;
}

struct split_owner {
    const char *name, *path;
};

static int split_by_name(const void *a, const void *b)
{
    return strcmp(((const struct split_owner *)a)->name, ((const struct split_owner *)b)->name);
}

/* Within a file names are unique; between parts they must be too. */
static mt_status split_check_twice(struct mt_ctx *ctx, const struct mt_gguf_set *o, size_t n)
{
    char show[MT_SHOW_BYTES];
    struct split_owner *v;
    mt_status st = MT_OK;
    size_t at = 0;

    MT_TRY(mt_alloc(ctx, n, sizeof *v, "names of tensors", &v));
    for (size_t f = 0; f < o->n; f++)
        for (size_t i = 0; i < o->v[f].n; i++)
            v[at++] = (struct split_owner){o->v[f].v[i].name, o->v[f].map->path};
    if (n > 1)
        qsort(v, n, sizeof *v, split_by_name);
    for (size_t i = 1; i < n && st == MT_OK; i++)
        if (strcmp(v[i - 1].name, v[i].name) == 0)
            st = mt_fail(ctx, MT_E_FORMAT, "%s: tensor %s is in %s too", v[i].path,
                         mt_show_name(v[i].name, show), v[i - 1].path);
    mt_free(v);
    return st;
}

static mt_status split_check_total(struct mt_ctx *ctx, const struct mt_gguf_set *o)
{
    int64_t total, have = 0;

    for (size_t i = 0; i < o->n; i++)
        have += (int64_t)o->v[i].n;
    MT_TRY(split_value(ctx, &o->v[0], "split.tensors.count", have, &total));
    if (total != have)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: %" PRId64 " tensors are announced, the parts hold %" PRId64, o->m->path,
                       total, have);
    return split_check_twice(ctx, o, (size_t)have);
}

static mt_status split_read(struct mt_ctx *ctx, struct mt_gguf_set *o, const char *path)
{
    const char *part;
    int64_t count, no;
    size_t stem;

    MT_TRY(split_add_file(ctx, o, path));
    MT_TRY(split_value(ctx, &o->v[0], "split.count", 1, &count));
    MT_TRY(split_value(ctx, &o->v[0], "split.no", 0, &no));
    if (count < 0 || count > MT_GGUF_SPLITS_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "%s: split.count is %" PRId64, path, count);
    if (count <= 1)
        return MT_OK;
    stem = split_stem(path, count);
    if (no != 0 || stem == 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: part %" PRId64 " of a model in %" PRId64
                       " parts; name its first part, NAME-00001-of-%05" PRId64 MT_GGUF_SUFFIX,
                       path, no + 1, count, count);
    for (int64_t i = 1; i < count; i++) {
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(mt_arena_printf(ctx, &o->m->arena, &part, "%.*s-%05d-of-%05d" MT_GGUF_SUFFIX,
                               (int)stem, path, (int)i + 1, (int)count));
        if (!mt_path_exists(part))
            return mt_fail(ctx, MT_E_ABSENT,
                           "%s: part %" PRId64 " of %" PRId64
                           " is missing; all parts lie in one directory",
                           part, i + 1, count);
        MT_TRY(split_add_file(ctx, o, part));
        MT_TRY(split_check_place(ctx, &o->v[i], i, count));
    }
    return split_check_total(ctx, o);
}

mt_status mt_gguf_set_read(struct mt_ctx *ctx, struct mt_model *m, const char *path,
                           struct mt_gguf_set *out)
{
    *out = (struct mt_gguf_set){.m = m};
    return split_read(ctx, out, path);
}

void mt_gguf_set_free(struct mt_gguf_set *o)
{
    for (size_t i = 0; i < o->n; i++)
        mt_gguf_header_free(&o->v[i]);
    mt_free(o->v);
    *o = (struct mt_gguf_set){0};
}

void mt_gguf_part_name(const char *name, size_t no, size_t count, char *buf, size_t n)
{
    int stem = (int)(mt_name_ends(name, MT_GGUF_SUFFIX) ? strlen(name) - strlen(MT_GGUF_SUFFIX)
                                                        : strlen(name));

    snprintf(buf, n, "%.*s-%05zu-of-%05zu" MT_GGUF_SUFFIX, stem, name, no + 1, count);
}
