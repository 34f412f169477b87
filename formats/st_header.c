#include "formats/st_header.h"

#include "lib/base/json_scan.h"
#include "lib/base/show.h"
#include "lib/ir/tensor.h"

#include <stdlib.h>
#include <string.h>

struct st_in {
    struct mt_ctx *ctx;
    struct mt_scan s;
    struct mt_arena *arena;
    struct mt_st_header *h;
    bool has_meta;
};

void mt_st_header_free(struct mt_st_header *h)
{
    mt_free(h->v);
    mt_free(h->meta);
    *h = (struct mt_st_header){0};
}

/* ---- check 4: JSON of the expected types ---- */

static mt_status st_metadata(struct st_in *in)
{
    struct mt_scan_text t;
    bool more;

    if (in->has_meta)
        return mt_scan_fail(&in->s, in->s.p, "\"__metadata__\" is there twice");
    in->has_meta = true;
    if (mt_scan_peek(&in->s) == 'n')
        return mt_scan_skip(&in->s, NULL);
    MT_TRY(mt_scan_enter(&in->s, '{'));
    for (;;) {
        struct mt_st_pair pair;
        MT_TRY(mt_scan_next(&in->s, '}', &more));
        if (!more)
            return MT_OK;
        MT_TRY(mt_scan_key(&in->s, &t));
        MT_TRY(mt_arena_strndup(in->ctx, in->arena, t.s, t.n, &pair.key));
        if (mt_scan_peek(&in->s) != '"')
            return mt_scan_fail(&in->s, in->s.p, "\"__metadata__\" may hold strings only");
        MT_TRY(mt_scan_string(&in->s, &t));
        MT_TRY(mt_arena_strndup(in->ctx, in->arena, t.s, t.n, &pair.value));
        MT_TRY(mt_grow(in->ctx, in->h->n_meta, &in->h->cap_meta, sizeof pair,
                       "a safetensors header", &in->h->meta));
        in->h->meta[in->h->n_meta++] = pair;
    }
}

static mt_status st_shape(struct st_in *in, struct mt_st_record *r)
{
    uint64_t dims[MT_RANK_MAX], *kept;
    bool more;

    MT_TRY(mt_scan_enter(&in->s, '['));
    for (;;) {
        MT_TRY(mt_scan_next(&in->s, ']', &more));
        if (!more)
            break;
        if (r->rank == MT_RANK_MAX)
            return mt_scan_fail(&in->s, in->s.p, "more than %d dimensions are not supported",
                                MT_RANK_MAX);
        MT_TRY(mt_scan_u64(&in->s, &dims[r->rank++]));
    }
    MT_TRY(mt_arena_alloc(in->ctx, in->arena, r->rank, sizeof *kept, &kept));
    memcpy(kept, dims, r->rank * sizeof *kept);
    r->shape = kept;
    return MT_OK;
}

static mt_status st_offsets(struct st_in *in, struct mt_st_record *r)
{
    uint64_t *const to[2] = {&r->begin, &r->end};
    bool more;

    MT_TRY(mt_scan_enter(&in->s, '['));
    for (int i = 0; i < 3; i++) {
        MT_TRY(mt_scan_next(&in->s, ']', &more));
        if (more != (i < 2))
            return mt_scan_fail(&in->s, in->s.p, "data_offsets must hold two numbers");
        if (more)
            MT_TRY(mt_scan_u64(&in->s, to[i]));
    }
    return MT_OK;
}

static mt_status st_dtype(struct st_in *in, struct mt_st_record *r)
{
    char show[MT_SHOW_BYTES];
    struct mt_scan_text t;
    enum mt_dtype dtype;
    const char *at;

    (void)mt_scan_peek(&in->s);
    at = in->s.p;
    MT_TRY(mt_scan_string(&in->s, &t));
    if (!mt_dtype_parse(t.s, t.n, &dtype))
        return mt_scan_fail(&in->s, at, "unknown dtype \"%s\"", mt_show_text(t.s, t.n, show));
    r->dtype = (uint8_t)dtype;
    return MT_OK;
}

static mt_status st_entry(struct st_in *in, struct mt_st_record *r)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    static mt_status (*const read[])(struct st_in *, struct mt_st_record *) = {st_dtype, st_shape,
                                                                               st_offsets};
    unsigned seen = 0;
    bool more;

    MT_TRY(mt_scan_enter(&in->s, '{'));
    for (;;) {
        struct mt_scan_text key;
        unsigned k = 0;
        MT_TRY(mt_scan_next(&in->s, '}', &more));
        if (!more)
            break;
        MT_TRY(mt_scan_key(&in->s, &key));
        while (k < 3 && !mt_scan_is(key, keys[k]))
            k++;
        if (k == 3) {
            MT_TRY(mt_scan_skip(&in->s, NULL));
            continue;
        }
        if ((seen & 1u << k) != 0)
            return mt_scan_fail(&in->s, in->s.p, "\"%s\" is there twice", keys[k]);
        seen |= 1u << k;
        MT_TRY(read[k](in, r));
    }
    for (unsigned k = 0; k < 3; k++) {
        if ((seen & 1u << k) == 0)
            return mt_scan_fail(&in->s, in->s.p, "\"%s\" is missing", keys[k]);
    }
    return MT_OK;
}

static mt_status st_parse(struct st_in *in)
{
    struct mt_st_header *h = in->h;
    char show[MT_SHOW_BYTES];
    bool more;

    MT_TRY(mt_scan_enter(&in->s, '{'));
    for (;;) {
        struct mt_st_record r = {.line = (uint32_t)h->n};
        struct mt_scan_text key;
        MT_TRY(mt_scan_next(&in->s, '}', &more));
        if (!more)
            return mt_scan_end(&in->s);
        MT_TRY(mt_scan_key(&in->s, &key));
        if (mt_scan_is(key, "__metadata__")) {
            MT_TRY(st_metadata(in));
            continue;
        }
        MT_TRY(mt_arena_strndup(in->ctx, in->arena, key.s, key.n, &r.name));
        MT_TRY(mt_wrap(in->ctx, st_entry(in, &r), "tensor \"%s\"", mt_show_name(r.name, show)));
        MT_TRY(mt_grow(in->ctx, h->n, &h->cap, sizeof r, "a safetensors header", &h->v));
        h->v[h->n++] = r;
    }
}

static int st_by_name(const void *a, const void *b)
{
    return strcmp(((const struct mt_st_record *)a)->name, ((const struct mt_st_record *)b)->name);
}

static int st_by_key(const void *a, const void *b)
{
    return strcmp(((const struct mt_st_pair *)a)->key, ((const struct mt_st_pair *)b)->key);
}

/* Sorting instead of hashing: no choice of names makes it slow. */
static mt_status st_duplicates(struct mt_ctx *ctx, const char *path, const struct mt_st_header *h)
{
    char show[MT_SHOW_BYTES];
    struct mt_st_pair *pairs;
    mt_status st = MT_OK;

    if (h->n > 0)
        qsort(h->v, h->n, sizeof *h->v, st_by_name);
    for (size_t i = 1; i < h->n; i++) {
        if (strcmp(h->v[i - 1].name, h->v[i].name) == 0)
            return mt_fail(ctx, MT_E_FORMAT, "%s: header: tensor \"%s\" is there twice", path,
                           mt_show_name(h->v[i].name, show));
    }
    if (h->n_meta < 2)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, h->n_meta, sizeof *pairs, "a safetensors header", &pairs));
    memcpy(pairs, h->meta, h->n_meta * sizeof *pairs);
    qsort(pairs, h->n_meta, sizeof *pairs, st_by_key);
    for (size_t i = 1; st == MT_OK && i < h->n_meta; i++) {
        if (strcmp(pairs[i - 1].key, pairs[i].key) == 0)
            st = mt_fail(ctx, MT_E_FORMAT, "%s: header: metadata key \"%s\" is there twice", path,
                         mt_show_name(pairs[i].key, show));
    }
    mt_free(pairs);
    return st;
}

/* ---- checks 5 to 9: the numbers agree ---- */

static int st_by_offset(const void *a, const void *b)
{
    const struct mt_st_record *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return x->line < y->line ? -1 : 1;
}

static mt_status st_check_place(struct mt_ctx *ctx, const char *where,
                                const struct mt_st_record *before, const struct mt_st_record *r)
{
    uint64_t from = before != NULL ? before->end : 0;
    char show[MT_SHOW_BYTES], other[MT_SHOW_BYTES];

    mt_show_name(r->name, show);
    if (r->end < r->begin)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": its data end at byte %llu, before "
                       "they begin at %llu",
                       where, show, (unsigned long long)r->end, (unsigned long long)r->begin);
    if (r->begin > from)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": begins at byte %llu of the data, leaving a hole of "
                       "%llu byte%s before it",
                       where, show, (unsigned long long)r->begin,
                       (unsigned long long)(r->begin - from), r->begin - from == 1 ? "" : "s");
    if (r->begin < from)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": begins at byte %llu of the data and overlaps \"%s\", "
                       "which ends at %llu",
                       where, show, (unsigned long long)r->begin, mt_show_name(before->name, other),
                       (unsigned long long)from);
    return MT_OK;
}

static mt_status st_check_size(struct mt_ctx *ctx, const char *where, const struct mt_st_record *r)
{
    uint64_t count = 1, nonzero = 1, bits;
    char show[MT_SHOW_BYTES];

    mt_show_name(r->name, show);
    for (int i = 0; i < r->rank; i++) {
        /* A zero must not hide the others: products over some dimensions are used too. */
        if (!mt_size_mul(nonzero, r->shape[i] == 0 ? 1 : r->shape[i], &nonzero) ||
            nonzero > INT64_MAX / 8)
            return mt_fail(ctx, MT_E_FORMAT,
                           "%s: tensor \"%s\": the shape counts more elements than any memory "
                           "holds",
                           where, show);
        count *= r->shape[i];
    }
    if (!mt_size_mul(count, mt_dtype_bits((enum mt_dtype)r->dtype), &bits))
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": %llu elements of %s have more bits "
                       "than 64 bits can count",
                       where, show, (unsigned long long)count,
                       mt_dtype_name((enum mt_dtype)r->dtype));
    if (bits % 8 != 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": %llu elements of %s do not fill "
                       "whole bytes",
                       where, show, (unsigned long long)count,
                       mt_dtype_name((enum mt_dtype)r->dtype));
    if (r->end - r->begin != bits / 8)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": dtype and shape need %llu bytes, but its range has "
                       "%llu",
                       where, show, (unsigned long long)(bits / 8),
                       (unsigned long long)(r->end - r->begin));
    return MT_OK;
}

static mt_status st_check_end(struct mt_ctx *ctx, const struct mt_map *map,
                              const struct mt_st_header *h)
{
    uint64_t have = map->bytes - h->data_offset, want = h->n > 0 ? h->v[h->n - 1].end : 0;

    if (want > have)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: the file ends %llu byte%s before its data do; it is cut off, fetch it "
                       "again",
                       map->path, (unsigned long long)(want - have), want - have == 1 ? "" : "s");
    if (want < have)
        return mt_fail(ctx, MT_E_FORMAT, "%s: %llu byte%s the data; nothing may stand there",
                       map->path, (unsigned long long)(have - want),
                       have - want == 1 ? " follows" : "s follow");
    return MT_OK;
}

static mt_status st_check_all(struct mt_ctx *ctx, const struct mt_map *map, struct mt_st_header *h)
{
    if (h->n > 0)
        qsort(h->v, h->n, sizeof *h->v, st_by_offset);
    for (size_t i = 0; i < h->n; i++) {
        MT_TRY(st_check_place(ctx, map->path, i > 0 ? &h->v[i - 1] : NULL, &h->v[i]));
        MT_TRY(st_check_size(ctx, map->path, &h->v[i]));
    }
    return st_check_end(ctx, map, h);
}

/* ---- checks 1 to 3: where the header is ---- */

static mt_status st_find(struct mt_ctx *ctx, const struct mt_map *map, uint64_t *n)
{
    static const char lfs[] = "version https://git-lfs";

    if (map->bytes < 8)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: %llu byte%s too few for a safetensors file; fetch it again", map->path,
                       (unsigned long long)map->bytes, map->bytes == 1 ? " is" : "s are");
    if (map->bytes >= sizeof lfs && memcmp(map->base, lfs, sizeof lfs - 1) == 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: is a Git LFS pointer, not the file itself; run git lfs pull",
                       map->path);
    *n = mt_le64(map->base);
    if (*n > MT_ST_HEADER_MAX)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: claims a header of %llu bytes, more than the %u allowed; this is not a "
                       "safetensors file",
                       map->path, (unsigned long long)*n, MT_ST_HEADER_MAX);
    if (*n > map->bytes - 8)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: claims a header of %llu bytes, but only %llu follow; it is cut off, "
                       "fetch it again",
                       map->path, (unsigned long long)*n, (unsigned long long)(map->bytes - 8));
    return MT_OK;
}

mt_status mt_st_header_read(struct mt_ctx *ctx, const struct mt_map *map, struct mt_arena *arena,
                            struct mt_st_header *out)
{
    struct st_in in = {.ctx = ctx, .arena = arena, .h = out};
    mt_status st;
    uint64_t n = 0;

    *out = (struct mt_st_header){0};
    MT_TRY(st_find(ctx, map, &n));
    out->data_offset = 8 + n;
    st = mt_scan_open(ctx, &in.s, map->base + 8, (size_t)n, "header", 0);
    if (st == MT_OK)
        st = st_parse(&in);
    mt_scan_close(&in.s);
    MT_TRY(mt_wrap(ctx, st, "%s", map->path));
    MT_TRY(st_duplicates(ctx, map->path, out));
    MT_TRY(st_check_all(ctx, map, out));
    mt_map_drop(map, 0, out->data_offset);
    return MT_OK;
}
