#include "formats/gguf.h"

#include "lib/base/json_scan.h"
#include "lib/base/mem.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- types ---- */

static const struct {
    int32_t number;
    enum mt_dtype dtype;
} header_types[] = {
    {0, MT_F32},     {1, MT_F16},      {2, MT_Q4_0},   {3, MT_Q4_1},    {6, MT_Q5_0},
    {7, MT_Q5_1},    {8, MT_Q8_0},     {9, MT_Q8_1},   {10, MT_Q2_K},   {11, MT_Q3_K},
    {12, MT_Q4_K},   {13, MT_Q5_K},    {14, MT_Q6_K},  {15, MT_Q8_K},   {16, MT_IQ2_XXS},
    {17, MT_IQ2_XS}, {18, MT_IQ3_XXS}, {19, MT_IQ1_S}, {20, MT_IQ4_NL}, {21, MT_IQ3_S},
    {22, MT_IQ2_S},  {23, MT_IQ4_XS},  {24, MT_I8},    {25, MT_I16},    {26, MT_I32},
    {27, MT_I64},    {28, MT_F64},     {29, MT_IQ1_M}, {30, MT_BF16},   {34, MT_TQ1_0},
    {35, MT_TQ2_0},  {39, MT_MXFP4},   {40, MT_NVFP4}, {41, MT_Q1_0},   {42, MT_Q2_0},
};
#define HEADER_TYPES (sizeof header_types / sizeof header_types[0])

int mt_gguf_type_of(enum mt_dtype t)
{
    for (size_t i = 0; i < HEADER_TYPES; i++)
        if (header_types[i].dtype == t)
            return header_types[i].number;
    return -1;
}

bool mt_gguf_dtype_of(int32_t type, enum mt_dtype *out)
{
    for (size_t i = 0; i < HEADER_TYPES; i++)
        if (header_types[i].number == type) {
            *out = header_types[i].dtype;
            return true;
        }
    return false;
}

static const uint8_t header_width[MT_GGUF_TYPE_COUNT] = {
    [MT_GGUF_U8] = 1,  [MT_GGUF_I8] = 1,  [MT_GGUF_U16] = 2, [MT_GGUF_I16] = 2,
    [MT_GGUF_U32] = 4, [MT_GGUF_I32] = 4, [MT_GGUF_F32] = 4, [MT_GGUF_BOOL] = 1,
    [MT_GGUF_U64] = 8, [MT_GGUF_I64] = 8, [MT_GGUF_F64] = 8,
};

static const char *const header_type_names[MT_GGUF_TYPE_COUNT] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

/* ---- a cursor that never passes the end ---- */

struct header {
    struct mt_ctx *ctx;
    const struct mt_map *map;
    struct mt_arena *arena;
    struct mt_gguf *g;
    uint64_t at;
};

static uint64_t header_left(const struct header *h)
{
    return h->map->bytes - h->at;
}

static mt_status header_short(const struct header *h, const char *what)
{
    return mt_fail(h->ctx, MT_E_FORMAT, "%s: ends inside %s at byte %" PRIu64, h->map->path, what,
                   h->at);
}

static mt_status header_u32(struct header *h, const char *what, uint32_t *v)
{
    if (header_left(h) < 4)
        return header_short(h, what);
    *v = mt_le32(h->map->base + h->at);
    h->at += 4;
    return MT_OK;
}

static mt_status header_u64(struct header *h, const char *what, uint64_t *v)
{
    if (header_left(h) < 8)
        return header_short(h, what);
    *v = mt_le64(h->map->base + h->at);
    h->at += 8;
    return MT_OK;
}

/* Length and bytes of a string; *text borrowed from the map. */
static mt_status header_string(struct header *h, const char *what, uint64_t max,
                               const unsigned char **text, uint64_t *n)
{
    MT_TRY(header_u64(h, what, n));
    if (*n > max)
        return mt_fail(h->ctx, MT_E_FORMAT,
                       "%s: %s of %" PRIu64 " bytes, at most %" PRIu64 " can be", h->map->path,
                       what, *n, max);
    if (*n > header_left(h))
        return header_short(h, what);
    *text = h->map->base + h->at;
    h->at += *n;
    return MT_OK;
}

/* A name that is printed and compared: UTF-8, no NUL, not empty. */
static mt_status header_name(struct header *h, const char *what, uint64_t max, const char **out)
{
    char show[MT_SHOW_BYTES];
    const unsigned char *text = NULL;
    struct mt_scan s;
    uint64_t n = 0;

    MT_TRY(header_string(h, what, max, &text, &n));
    if (n == 0)
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s is empty", h->map->path, what);
    mt_status st = mt_scan_open(h->ctx, &s, text, (size_t)n, what, 0);
    mt_scan_close(&s);
    MT_TRY(mt_wrap(h->ctx, st, "%s", h->map->path));
    if (text != NULL && memchr(text, 0, (size_t)n) != NULL)
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s \"%s\" holds a NUL", h->map->path, what,
                       mt_show_text((const char *)text, (size_t)n, show));
    return mt_arena_strndup(h->ctx, h->arena, (const char *)text, (size_t)n, out);
}

/* ---- pairs ---- */

static mt_status header_array(struct header *h, struct mt_gguf_pair *p)
{
    const unsigned char *text;
    uint64_t n = 0, bytes;
    uint32_t item = 0;

    MT_TRY(header_u32(h, "the type of an array", &item));
    MT_TRY(header_u64(h, "the length of an array", &p->n));
    if (item >= MT_GGUF_TYPE_COUNT || item == MT_GGUF_ARRAY)
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s is an array of items of type %" PRIu32 ", %s",
                       h->map->path, p->key, item,
                       item == MT_GGUF_ARRAY ? "and arrays of arrays are not allowed"
                                             : "which is not known");
    p->item = (uint8_t)item;
    p->at = h->map->base + h->at;
    uint64_t begin = h->at, width = item == MT_GGUF_STRING ? 8 : header_width[item];
    if (!mt_size_mul(p->n, width, &bytes) || bytes > MT_GGUF_VALUE_MAX)
        return mt_fail(h->ctx, MT_E_FORMAT,
                       "%s: %s claims %" PRIu64 " items, more than the 64 MiB that can be",
                       h->map->path, p->key, p->n);
    if (bytes > header_left(h))
        return header_short(h, p->key);
    if (item != MT_GGUF_STRING)
        h->at += bytes;
    for (uint64_t i = 0; item == MT_GGUF_STRING && i < p->n; i++) {
        MT_TRY(header_string(h, p->key, MT_GGUF_VALUE_MAX, &text, &n));
        if (h->at - begin > MT_GGUF_VALUE_MAX)
            return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s is longer than the 64 MiB that can be",
                           h->map->path, p->key);
    }
    for (uint64_t i = 0; item == MT_GGUF_BOOL && i < p->n; i++)
        if (p->at[i] > 1)
            return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s holds a boolean of value %d", h->map->path,
                           p->key, p->at[i]);
    p->bytes = h->at - begin;
    return MT_OK;
}

static mt_status header_value(struct header *h, struct mt_gguf_pair *p)
{
    uint32_t type = 0;

    MT_TRY(header_u32(h, "the type of a value", &type));
    if (type >= MT_GGUF_TYPE_COUNT)
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s has type %" PRIu32 ", which is not known",
                       h->map->path, p->key, type);
    p->type = (uint8_t)type;
    p->n = 1;
    if (type == MT_GGUF_ARRAY)
        return header_array(h, p);
    if (type == MT_GGUF_STRING) {
        MT_TRY(header_string(h, p->key, MT_GGUF_VALUE_MAX, &p->at, &p->n));
        p->bytes = p->n;
        return MT_OK;
    }
    if (header_left(h) < header_width[type])
        return header_short(h, p->key);
    p->at = h->map->base + h->at;
    p->bytes = header_width[type];
    h->at += p->bytes;
    if (type == MT_GGUF_BOOL && *p->at > 1)
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: %s is a boolean of value %d", h->map->path, p->key,
                       *p->at);
    return MT_OK;
}

static int header_by_key(const void *a, const void *b)
{
    return strcmp(((const struct mt_gguf_pair *)a)->key, ((const struct mt_gguf_pair *)b)->key);
}

static mt_status header_pairs(struct header *h, uint64_t n)
{
    struct mt_gguf *g = h->g;
    char show[MT_SHOW_BYTES];

    for (uint64_t i = 0; i < n; i++) {
        struct mt_gguf_pair p = {0};
        MT_TRY(header_name(h, "a key", MT_GGUF_KEY_MAX, &p.key));
        MT_TRY(header_value(h, &p));
        MT_TRY(mt_grow(h->ctx, g->n_pairs, &g->cap_pairs, sizeof p, "metadata", &g->pairs));
        g->pairs[g->n_pairs++] = p;
    }
    if (g->n_pairs > 1)
        qsort(g->pairs, g->n_pairs, sizeof *g->pairs, header_by_key);
    for (size_t i = 1; i < g->n_pairs; i++)
        if (strcmp(g->pairs[i - 1].key, g->pairs[i].key) == 0)
            return mt_fail(h->ctx, MT_E_FORMAT, "%s: key %s is there twice", h->map->path,
                           mt_show_name(g->pairs[i].key, show));
    return MT_OK;
}

static mt_status header_alignment(struct header *h)
{
    const struct mt_gguf_pair *p = mt_gguf_find(h->g, "general.alignment");
    uint32_t a = MT_GGUF_ALIGNMENT;

    if (p != NULL && p->type != MT_GGUF_U32)
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: general.alignment is of type %s, expected u32",
                       h->map->path, header_type_names[p->type]);
    if (p != NULL)
        a = mt_le32(p->at);
    if (a == 0 || (a & (a - 1)) != 0 || a > MT_GGUF_ALIGNMENT_MAX)
        return mt_fail(h->ctx, MT_E_FORMAT,
                       "%s: general.alignment is %" PRIu32 ", expected a power of two up to 1 MiB",
                       h->map->path, a);
    h->g->alignment = a;
    return MT_OK;
}

/* ---- tensors ---- */

static mt_status header_shape(struct header *h, struct mt_gguf_record *r)
{
    uint64_t nonzero = 1, count = 1;
    uint32_t rank = 0, type = 0;
    enum mt_dtype dtype;
    char show[MT_SHOW_BYTES];

    mt_show_name(r->name, show);
    MT_TRY(header_u32(h, "the dimensions of a tensor", &rank));
    if (rank > MT_GGUF_DIMS_MAX)
        return mt_fail(h->ctx, MT_E_FORMAT,
                       "%s: tensor %s claims %" PRIu32 " dimensions, at most 4 can be",
                       h->map->path, show, rank);
    r->rank = (uint8_t)rank;
    for (uint32_t d = 0; d < rank; d++) {
        MT_TRY(header_u64(h, "the dimensions of a tensor", &r->ne[d]));
        if (r->ne[d] > INT64_MAX || !mt_size_mul(nonzero, r->ne[d] == 0 ? 1 : r->ne[d], &nonzero) ||
            nonzero > INT64_MAX / 8)
            return mt_fail(h->ctx, MT_E_FORMAT,
                           "%s: tensor %s has an impossible dimension %" PRId64, h->map->path, show,
                           (int64_t)r->ne[d]);
        count *= r->ne[d];
    }
    MT_TRY(header_u32(h, "the type of a tensor", &type));
    if (!mt_gguf_dtype_of((int32_t)type, &dtype))
        return mt_fail(h->ctx, MT_E_FORMAT,
                       "%s: tensor %s has type %" PRId32 ", which is not known", h->map->path, show,
                       (int32_t)type);
    r->dtype = (uint8_t)dtype;
    if ((rank > 0 ? r->ne[0] : 1) % mt_dtype_block(dtype) != 0)
        return mt_fail(h->ctx, MT_E_FORMAT,
                       "%s: tensor %s has rows of %" PRIu64
                       " elements, which do not fill blocks of %u (%s)",
                       h->map->path, show, rank > 0 ? r->ne[0] : 1, mt_dtype_block(dtype),
                       mt_dtype_name(dtype));
    if (!mt_dtype_bytes(dtype, count, &r->bytes))
        return mt_fail(h->ctx, MT_E_FORMAT, "%s: tensor %s is too large to be", h->map->path, show);
    return MT_OK;
}

static int header_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct mt_gguf_record *const *)a)->name,
                  (*(const struct mt_gguf_record *const *)b)->name);
}

static mt_status header_check_twice(struct header *h)
{
    const struct mt_gguf_record **sorted;
    char show[MT_SHOW_BYTES];
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(h->ctx, h->g->n, sizeof(struct mt_gguf_record *), "names of tensors", &sorted));
    for (size_t i = 0; i < h->g->n; i++)
        sorted[i] = &h->g->v[i];
    if (h->g->n > 1)
        qsort(sorted, h->g->n, sizeof(struct mt_gguf_record *), header_by_name);
    for (size_t i = 1; i < h->g->n && st == MT_OK; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            st = mt_fail(h->ctx, MT_E_FORMAT, "%s: tensor %s is there twice", h->map->path,
                         mt_show_name(sorted[i]->name, show));
    mt_free(sorted);
    return st;
}

static bool header_pad(uint64_t v, uint32_t alignment, uint64_t *out)
{
    if (v > UINT64_MAX - (alignment - 1))
        return false;
    *out = (v + alignment - 1) & ~(uint64_t)(alignment - 1);
    return true;
}

static mt_status header_tensors(struct header *h, uint64_t n)
{
    struct mt_gguf *g = h->g;
    char show[MT_SHOW_BYTES];
    uint64_t at = 0;

    for (uint64_t i = 0; i < n; i++) {
        struct mt_gguf_record r = {.line = (uint32_t)i};
        MT_TRY(header_name(h, "the name of a tensor", MT_GGUF_NAME_MAX, &r.name));
        MT_TRY(header_shape(h, &r));
        MT_TRY(header_u64(h, "the offset of a tensor", &r.begin));
        if (r.begin != at)
            return mt_fail(h->ctx, MT_E_FORMAT,
                           "%s: tensor %s begins at %" PRIu64 ", but %" PRIu64
                           " follows from the sizes before it",
                           h->map->path, mt_show_name(r.name, show), r.begin, at);
        if (r.bytes > UINT64_MAX - at || !header_pad(at + r.bytes, g->alignment, &at))
            return mt_fail(h->ctx, MT_E_FORMAT, "%s: tensor %s is too large to be", h->map->path,
                           mt_show_name(r.name, show));
        MT_TRY(mt_grow(h->ctx, g->n, &g->cap, sizeof r, "list of tensors", &g->v));
        g->v[g->n++] = r;
    }
    return header_check_twice(h);
}

static mt_status header_data(struct header *h)
{
    struct mt_gguf *g = h->g;
    char show[MT_SHOW_BYTES];

    if (!header_pad(h->at, g->alignment, &g->data_offset))
        return header_short(h, "the header");
    g->headers_only = g->n > 0 && h->map->bytes <= g->data_offset;
    for (size_t i = 0; i < g->n && !g->headers_only; i++) {
        const struct mt_gguf_record *r = &g->v[i];
        uint64_t room = h->map->bytes - g->data_offset;
        if (r->begin > room || r->bytes > room - r->begin)
            return mt_fail(h->ctx, MT_E_FORMAT,
                           "%s: tensor %s ends %" PRIu64 " byte%s past the end of the file",
                           h->map->path, mt_show_name(r->name, show), r->begin + r->bytes - room,
                           r->begin + r->bytes - room == 1 ? "" : "s");
    }
    return MT_OK;
}

mt_status mt_gguf_header_read(struct mt_ctx *ctx, const struct mt_map *map, struct mt_arena *arena,
                              struct mt_gguf *out)
{
    struct header h = {.ctx = ctx, .map = map, .arena = arena, .g = out};
    uint64_t n_tensors = 0, n_pairs = 0;

    memset(out, 0, sizeof *out);
    out->map = map;
    if (map->bytes < 24)
        return mt_fail(ctx, MT_E_FORMAT, "%s: %" PRIu64 " byte%s too short for a GGUF file",
                       map->path, map->bytes, map->bytes == 1 ? " is" : "s are");
    if (memcmp(map->base, "GGUF", 4) != 0)
        return mt_fail(ctx, MT_E_FORMAT, "%s: does not begin with GGUF", map->path);
    h.at = 4;
    MT_TRY(header_u32(&h, "the version", &out->version));
    if (out->version != 0 && (out->version & 0xffff) == 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: a big-endian file; convert it on such a machine",
                       map->path);
    if (out->version < 2 || out->version > 3)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: GGUF version %" PRIu32 ", versions 2 and 3 can be read", map->path,
                       out->version);
    MT_TRY(header_u64(&h, "the counts", &n_tensors));
    MT_TRY(header_u64(&h, "the counts", &n_pairs));
    /* The shortest pair takes 14 bytes, the shortest tensor 25. */
    if (n_pairs > map->bytes / 14 || n_tensors > map->bytes / 25 || n_tensors > UINT32_MAX)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: claims %" PRId64 " tensors and %" PRId64
                       " metadata pairs, more than the file can hold",
                       map->path, (int64_t)n_tensors, (int64_t)n_pairs);
    MT_TRY(header_pairs(&h, n_pairs));
    MT_TRY(header_alignment(&h));
    MT_TRY(header_tensors(&h, n_tensors));
    return header_data(&h);
}

void mt_gguf_header_free(struct mt_gguf *g)
{
    mt_free(g->pairs);
    mt_free(g->v);
    memset(g, 0, sizeof *g);
}

/* ---- values ---- */

const struct mt_gguf_pair *mt_gguf_find(const struct mt_gguf *g, const char *key)
{
    const struct mt_gguf_pair want = {.key = key};

    return g->n_pairs == 0 ? NULL
                           : bsearch(&want, g->pairs, g->n_pairs, sizeof *g->pairs, header_by_key);
}

static mt_status header_wrong_type(struct mt_ctx *ctx, const struct mt_gguf_pair *p,
                                   const char *want)
{
    return mt_fail(ctx, MT_E_FORMAT, "%s is of type %s%s, expected %s", p->key,
                   header_type_names[p->type],
                   p->type == MT_GGUF_ARRAY ? " (or its items differ in type)" : "", want);
}

static bool header_int_at(int type, const unsigned char *at, int64_t *out)
{
    uint32_t v = type == MT_GGUF_U32 || type == MT_GGUF_I32 ? mt_le32(at) : 0;
    uint64_t w = type == MT_GGUF_U64 || type == MT_GGUF_I64 ? mt_le64(at) : 0;

    switch (type) {
    case MT_GGUF_U8:
        *out = *at;
        return true;
    case MT_GGUF_I8:
        *out = *at < 128 ? *at : *at - 256;
        return true;
    case MT_GGUF_U16:
        *out = at[0] | at[1] << 8;
        return true;
    case MT_GGUF_I16:
        *out = (int16_t)(at[0] | at[1] << 8);
        return true;
    case MT_GGUF_U32:
        *out = v;
        return true;
    case MT_GGUF_I32:
        *out = (int32_t)v;
        return true;
    case MT_GGUF_U64:
    case MT_GGUF_I64:
        *out = (int64_t)w;
        return type == MT_GGUF_I64 || w <= INT64_MAX;
    default:
        return false;
    }
}

/* The shortest decimal that rounds to f, as a double. */
static double header_shortest(float f)
{
    char text[32];

    if (!isfinite(f))
        return (double)f;
    for (int digits = 1; digits < 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)f);
        float back = strtof(text, NULL);
        if (back >= f && back <= f)
            return strtod(text, NULL);
    }
    return (double)f;
}

static bool header_num_at(int type, const unsigned char *at, double *out)
{
    uint32_t v = type == MT_GGUF_F32 ? mt_le32(at) : 0;
    uint64_t w = type == MT_GGUF_F64 ? mt_le64(at) : 0;
    int64_t i;
    float f;

    if (type == MT_GGUF_F32) {
        memcpy(&f, &v, sizeof f);
        *out = header_shortest(f);
        return true;
    }
    if (type == MT_GGUF_F64) {
        memcpy(out, &w, sizeof w);
        return true;
    }
    if (!header_int_at(type, at, &i))
        return false;
    *out = (double)i;
    return true;
}

/* Arrays that say the same for each layer are one value. */
static mt_status header_one(struct mt_ctx *ctx, const struct mt_gguf_pair *p, int *type)
{
    *type = p->type;
    if (p->type != MT_GGUF_ARRAY)
        return MT_OK;
    *type = p->item;
    if (p->n == 0 || p->item == MT_GGUF_STRING)
        return header_wrong_type(ctx, p, "a number");
    for (uint64_t i = 1; i < p->n; i++)
        if (memcmp(p->at, p->at + i * header_width[p->item], header_width[p->item]) != 0)
            return mt_fail(ctx, MT_E_UNSUPPORTED, "%s differs between layers", p->key);
    return MT_OK;
}

mt_status mt_gguf_int(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key, int64_t dflt,
                      int64_t *out)
{
    const struct mt_gguf_pair *p = mt_gguf_find(g, key);
    int type;

    *out = dflt;
    if (p == NULL)
        return MT_OK;
    MT_TRY(header_one(ctx, p, &type));
    return header_int_at(type, p->at, out) ? MT_OK : header_wrong_type(ctx, p, "an integer");
}

double mt_gguf_f32(const unsigned char *at)
{
    uint32_t bits = mt_le32(at);
    float f;

    memcpy(&f, &bits, sizeof f);
    return header_shortest(f);
}

mt_status mt_gguf_num(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key, double dflt,
                      double *out)
{
    const struct mt_gguf_pair *p = mt_gguf_find(g, key);
    int type;

    *out = dflt;
    if (p == NULL)
        return MT_OK;
    MT_TRY(header_one(ctx, p, &type));
    if (!header_num_at(type, p->at, out))
        return header_wrong_type(ctx, p, "a number");
    return isfinite(*out) ? MT_OK : mt_fail(ctx, MT_E_FORMAT, "%s is not finite", key);
}

mt_status mt_gguf_bool(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key, bool dflt,
                       bool *out)
{
    const struct mt_gguf_pair *p = mt_gguf_find(g, key);

    *out = dflt;
    if (p == NULL)
        return MT_OK;
    if (p->type != MT_GGUF_BOOL)
        return header_wrong_type(ctx, p, "a boolean");
    *out = *p->at != 0;
    return MT_OK;
}

mt_status mt_gguf_str(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                      struct mt_arena *arena, const char **out)
{
    const struct mt_gguf_pair *p = mt_gguf_find(g, key);

    *out = NULL;
    if (p == NULL)
        return MT_OK;
    if (p->type != MT_GGUF_STRING || memchr(p->at, 0, (size_t)p->n) != NULL)
        return header_wrong_type(ctx, p, "a string");
    return mt_arena_strndup(ctx, arena, (const char *)p->at, (size_t)p->n, out);
}
