#include "formats/safetensors.h"
#include "lib/base/json_scan.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <stdlib.h>
#include <string.h>

#define INDEX_BYTES_MAX 100000000u

struct index_in {
    struct mt_ctx *ctx;
    struct mt_scan s;
    struct mt_arena *arena;
    struct mt_hf_index *ix;
    const char *suffix; /* of shards */
    bool has_map;
};

void mt_hf_index_free(struct mt_hf_index *ix)
{
    mt_free(ix->v);
    *ix = (struct mt_hf_index){0};
}

/* total_size is advisory, so any value that is not a size counts as none. */
static mt_status index_metadata(struct index_in *in)
{
    struct mt_scan_text key, raw;
    bool more, ours;

    if (mt_scan_peek(&in->s) != '{')
        return mt_scan_skip(&in->s, NULL);
    in->ix->has_metadata = true;
    MT_TRY(mt_scan_enter(&in->s, '{'));
    for (;;) {
        MT_TRY(mt_scan_next(&in->s, '}', &more));
        if (!more)
            return MT_OK;
        MT_TRY(mt_scan_key(&in->s, &key));
        ours = mt_scan_is(key, "total_size");
        MT_TRY(mt_scan_skip(&in->s, &raw));
        if (!ours || raw.n > 18)
            continue;
        in->ix->has_total = true;
        in->ix->total = 0;
        for (size_t i = 0; i < raw.n; i++) {
            in->ix->has_total &= raw.s[i] >= '0' && raw.s[i] <= '9';
            in->ix->total = in->ix->total * 10 + (uint64_t)(raw.s[i] & 15);
        }
    }
}

static mt_status index_entry(struct index_in *in)
{
    struct mt_hf_index *ix = in->ix;
    struct mt_hf_entry e = {0};
    char show[MT_SHOW_BYTES];
    struct mt_scan_text t;

    MT_TRY(mt_scan_key(&in->s, &t));
    MT_TRY(mt_arena_strndup(in->ctx, in->arena, t.s, t.n, &e.name));
    MT_TRY(mt_scan_string(&in->s, &t));
    if (!mt_path_plain_name(t.s, t.n))
        return mt_scan_fail(&in->s, in->s.p,
                            "\"%s\" is not a plain file name; shards lie beside "
                            "the index",
                            mt_show_text(t.s, t.n, show));
    if (t.n <= strlen(in->suffix) ||
        memcmp(t.s + t.n - strlen(in->suffix), in->suffix, strlen(in->suffix)) != 0)
        return mt_scan_fail(&in->s, in->s.p, "\"%s\" is not the name of a %s file",
                            mt_show_text(t.s, t.n, show), in->suffix);
    /* Neighbours mostly share their file. */
    if (ix->n > 0 && mt_scan_is(t, ix->v[ix->n - 1].file))
        e.file = ix->v[ix->n - 1].file;
    else
        MT_TRY(mt_arena_strndup(in->ctx, in->arena, t.s, t.n, &e.file));
    MT_TRY(mt_grow(in->ctx, ix->n, &ix->cap, sizeof e, "a shard index", &ix->v));
    ix->v[ix->n++] = e;
    return MT_OK;
}

static mt_status index_map(struct index_in *in)
{
    bool more;

    if (in->has_map)
        return mt_scan_fail(&in->s, in->s.p, "\"weight_map\" is there twice");
    in->has_map = true;
    MT_TRY(mt_scan_enter(&in->s, '{'));
    for (;;) {
        MT_TRY(mt_scan_next(&in->s, '}', &more));
        if (!more)
            return MT_OK;
        MT_TRY(index_entry(in));
    }
}

static mt_status index_parse(struct index_in *in)
{
    struct mt_scan_text key;
    bool more;

    MT_TRY(mt_scan_enter(&in->s, '{'));
    for (;;) {
        MT_TRY(mt_scan_next(&in->s, '}', &more));
        if (!more)
            break;
        MT_TRY(mt_scan_key(&in->s, &key));
        if (mt_scan_is(key, "weight_map"))
            MT_TRY(index_map(in));
        else if (mt_scan_is(key, "metadata"))
            MT_TRY(index_metadata(in));
        else
            MT_TRY(mt_scan_skip(&in->s, NULL));
    }
    MT_TRY(mt_scan_end(&in->s));
    if (in->ix->n == 0)
        return mt_scan_fail(&in->s, in->s.p, "\"weight_map\" is missing or empty");
    return MT_OK;
}

static int index_by_name(const void *a, const void *b)
{
    return strcmp(((const struct mt_hf_entry *)a)->name, ((const struct mt_hf_entry *)b)->name);
}

static int index_by_file(const void *a, const void *b)
{
    int c = strcmp(((const struct mt_hf_entry *)a)->file, ((const struct mt_hf_entry *)b)->file);

    return c != 0 ? c : index_by_name(a, b);
}

static mt_status index_sort(struct mt_ctx *ctx, const char *path, struct mt_hf_index *ix)
{
    char show[MT_SHOW_BYTES];

    qsort(ix->v, ix->n, sizeof *ix->v, index_by_name);
    for (size_t i = 1; i < ix->n; i++) {
        if (strcmp(ix->v[i - 1].name, ix->v[i].name) == 0)
            return mt_fail(ctx, MT_E_FORMAT, "%s: tensor \"%s\" is mapped twice", path,
                           mt_show_name(ix->v[i].name, show));
    }
    qsort(ix->v, ix->n, sizeof *ix->v, index_by_file);
    return MT_OK;
}

mt_status mt_hf_index_read(struct mt_ctx *ctx, const char *path, const char *suffix,
                           struct mt_arena *arena, struct mt_hf_index *out)
{
    struct index_in in = {.ctx = ctx, .arena = arena, .ix = out, .suffix = suffix};
    struct mt_map *map;
    mt_status st;

    *out = (struct mt_hf_index){.name = mt_path_base(path)};
    MT_TRY(mt_map_open(ctx, path, &map));
    if (map->bytes > INDEX_BYTES_MAX) {
        st = mt_fail(ctx, MT_E_FORMAT, "%s: larger than the %u bytes allowed for an index", path,
                     INDEX_BYTES_MAX);
    } else {
        st = mt_scan_open(ctx, &in.s, map->base, (size_t)map->bytes, path, MT_SCAN_LINES);
        if (st == MT_OK)
            st = index_parse(&in);
        mt_scan_close(&in.s);
    }
    mt_map_close(map);
    return st == MT_OK ? index_sort(ctx, path, out) : st;
}
