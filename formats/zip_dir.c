#include "formats/zip_dir.h"

#include "lib/base/show.h"
#include "lib/base/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ZIP_LOCAL 0x04034b50u
#define ZIP_CENTRAL 0x02014b50u
#define ZIP_END 0x06054b50u
#define ZIP_END64 0x06064b50u
#define ZIP_LOCATOR64 0x07064b50u

#define ZIP_LOCAL_BYTES 30u
#define ZIP_CENTRAL_BYTES 46u
#define ZIP_END_BYTES 22u
#define ZIP_END64_BYTES 56u
#define ZIP_LOCATOR64_BYTES 20u
#define ZIP_COMMENT_MAX 65535u
#define ZIP_NAME_MAX 4096u

#define ZIP_ENCRYPTED 0x2041u /* bits 0, 6 and 13: plain, strong, hidden directory */
#define ZIP_PATCH 0x0020u
#define ZIP_DESCRIPTOR 0x0008u /* sizes follow the data; those of the local header may be 0 */

/* Where the directory is, by the end record. */
struct zip_end {
    uint64_t at, bytes, count; /* the directory */
    uint64_t end;              /* the first byte behind it: the end record (or zip64's) */
};

struct zip_in {
    struct mt_ctx *ctx;
    const struct mt_map *map;
    struct mt_arena *arena;
    struct mt_zip *zip;
};

static unsigned zip_le16(const unsigned char *p)
{
    return (unsigned)p[0] | (unsigned)p[1] << 8;
}

bool mt_zip_has_magic(const void *head, size_t n)
{
    return n >= 4 && mt_le32(head) == ZIP_LOCAL;
}

void mt_zip_free(struct mt_zip *z)
{
    mt_free(z->v);
    z->v = NULL;
    z->n = z->cap = 0;
}

static mt_status zip_bad(const struct zip_in *in, const char *why)
{
    return mt_fail(in->ctx, MT_E_FORMAT, "%s: not a whole zip archive: %s", in->map->path, why);
}

static mt_status zip_bad_entry(const struct zip_in *in, const struct mt_zip_entry *e,
                               const char *why)
{
    char show[MT_SHOW_BYTES];

    return mt_fail(in->ctx, MT_E_FORMAT, "%s: member \"%s\" %s", in->map->path,
                   mt_show_name(e->name, show), why);
}

/* ---- the end record ---- */

/* An end record is believed only when its comment ends where the file ends. */
static mt_status zip_find_end(const struct zip_in *in, uint64_t *at)
{
    const unsigned char *base = in->map->base;
    uint64_t n = in->map->bytes, low;

    if (n < ZIP_END_BYTES)
        return zip_bad(in, "too few bytes");
    low = n > ZIP_END_BYTES + ZIP_COMMENT_MAX ? n - ZIP_END_BYTES - ZIP_COMMENT_MAX : 0;
    for (*at = n - ZIP_END_BYTES;; (*at)--) {
        if (mt_le32(base + *at) == ZIP_END && zip_le16(base + *at + 20) == n - *at - ZIP_END_BYTES)
            return MT_OK;
        if (*at == low)
            break;
    }
    return zip_bad(in, "no directory at its end; a download or a copy may have been cut off");
}

static mt_status zip_read_end64(const struct zip_in *in, uint64_t locator, struct zip_end *end)
{
    const unsigned char *base = in->map->base, *p;
    uint64_t at = mt_le64(base + locator + 8);

    if (mt_le32(base + locator + 4) != 0 || mt_le32(base + locator + 16) > 1)
        return zip_bad(in, "it is one of several disks");
    if (at > locator || locator - at < ZIP_END64_BYTES || mt_le32(base + at) != ZIP_END64)
        return zip_bad(in, "the zip64 record is not where its locator says");
    p = base + at;
    if (mt_le64(p + 4) != locator - at - 12)
        return zip_bad(in, "the zip64 record has the wrong length");
    if (mt_le32(p + 16) != 0 || mt_le32(p + 20) != 0 || mt_le64(p + 24) != mt_le64(p + 32))
        return zip_bad(in, "it is one of several disks");
    *end = (struct zip_end){mt_le64(p + 48), mt_le64(p + 40), mt_le64(p + 32), at};
    return MT_OK;
}

static mt_status zip_read_end(const struct zip_in *in, struct zip_end *end)
{
    const unsigned char *base = in->map->base, *p;
    uint64_t at = 0;

    MT_TRY(zip_find_end(in, &at));
    p = base + at;
    if (at >= ZIP_LOCATOR64_BYTES && mt_le32(p - ZIP_LOCATOR64_BYTES) == ZIP_LOCATOR64) {
        MT_TRY(zip_read_end64(in, at - ZIP_LOCATOR64_BYTES, end));
    } else {
        if (zip_le16(p + 4) != 0 || zip_le16(p + 6) != 0 || zip_le16(p + 8) != zip_le16(p + 10))
            return zip_bad(in, "it is one of several disks");
        *end = (struct zip_end){mt_le32(p + 16), mt_le32(p + 12), zip_le16(p + 10), at};
    }
    if (end->at > end->end || end->end - end->at != end->bytes)
        return zip_bad(in, "the directory is not where its end record says");
    if (end->count > end->bytes / ZIP_CENTRAL_BYTES)
        return zip_bad(in, "the directory is too short for its members");
    return MT_OK;
}

/* ---- members ---- */

static mt_status zip_check_name(const struct zip_in *in, const char *s, size_t n)
{
    bool ok = n > 0 && n <= ZIP_NAME_MAX && mt_utf8_valid(s, n) == n && s[0] != '/';
    char show[MT_SHOW_BYTES];

    for (size_t i = 0, first = 0; ok && i <= n; i++) {
        if (i < n && s[i] != '/') {
            ok = (unsigned char)s[i] >= 0x20 && s[i] != 0x7f && s[i] != '\\';
            continue;
        }
        ok = !(i - first == 2 && s[first] == '.' && s[first + 1] == '.') &&
             (i > first || i == n); /* "a//b" */
        first = i + 1;
    }
    if (ok)
        return MT_OK;
    return mt_fail(in->ctx, MT_E_FORMAT, "%s: \"%s\" is no name for a member of a checkpoint",
                   in->map->path, mt_show_text(s, n, show));
}

/* The 64-bit values of a directory entry whose 32-bit fields say "see there", in fixed order. */
static mt_status zip_extra64(const struct zip_in *in, const struct mt_zip_entry *e,
                             const unsigned char *x, size_t n, uint64_t *const v[3])
{
    bool wanted = false;

    for (int i = 0; i < 3; i++)
        wanted |= *v[i] == UINT32_MAX;
    while (wanted && n >= 4) {
        unsigned id = zip_le16(x), bytes = zip_le16(x + 2);
        if (bytes > n - 4)
            return zip_bad_entry(in, e, "has extra fields that leave its entry");
        x += 4, n -= 4;
        if (id != 1) {
            x += bytes, n -= bytes;
            continue;
        }
        for (int i = 0; i < 3; i++) {
            if (*v[i] != UINT32_MAX)
                continue;
            if (bytes < 8)
                return zip_bad_entry(in, e, "has a zip64 field that is too short");
            *v[i] = mt_le64(x);
            x += 8, bytes -= 8;
        }
        return MT_OK;
    }
    return wanted ? zip_bad_entry(in, e, "has no zip64 field, though its sizes ask for one")
                  : MT_OK;
}

/* The local header must tell the same story; only then is its length believed. */
static mt_status zip_check_local(const struct zip_in *in, struct mt_zip_entry *e, uint64_t limit)
{
    const unsigned char *p;
    size_t name_n = strlen(e->name);
    uint64_t head, bytes;

    if (e->header > limit || limit - e->header < ZIP_LOCAL_BYTES ||
        mt_le32(in->map->base + e->header) != ZIP_LOCAL)
        return zip_bad_entry(in, e, "has no header where the directory says");
    p = in->map->base + e->header;
    head = (uint64_t)ZIP_LOCAL_BYTES + zip_le16(p + 26) + zip_le16(p + 28);
    if (head > limit - e->header || e->bytes > limit - e->header - head)
        return zip_bad_entry(in, e, "leaves the file or reaches into the directory");
    if (zip_le16(p + 26) != name_n || memcmp(p + ZIP_LOCAL_BYTES, e->name, name_n) != 0)
        return zip_bad_entry(in, e, "has another name in its own header");
    if ((zip_le16(p + 6) & ZIP_ENCRYPTED) != 0 || zip_le16(p + 8) != e->method)
        return zip_bad_entry(in, e, "is encrypted or compressed by its own header");
    bytes = mt_le32(p + 18);
    if (bytes != UINT32_MAX && bytes != e->bytes &&
        !(bytes == 0 && (zip_le16(p + 6) & ZIP_DESCRIPTOR) != 0))
        return zip_bad_entry(in, e, "has another size in its own header");
    e->offset = e->header + head;
    return MT_OK;
}

static mt_status zip_read_entry(const struct zip_in *in, const unsigned char *p, uint64_t limit,
                                size_t name_n, size_t extra_n)
{
    uint64_t stored = mt_le32(p + 20), bytes = mt_le32(p + 24), header = mt_le32(p + 42);
    uint64_t *const v[3] = {&bytes, &stored, &header};
    const char *name = (const char *)p + ZIP_CENTRAL_BYTES;
    struct mt_zip_entry e = {0};
    unsigned flags = zip_le16(p + 8), method = zip_le16(p + 10);

    MT_TRY(zip_check_name(in, name, name_n));
    MT_TRY(mt_arena_strndup(in->ctx, in->arena, name, name_n, &e.name));
    MT_TRY(zip_extra64(in, &e, p + ZIP_CENTRAL_BYTES + name_n, extra_n, v));
    if ((flags & ZIP_ENCRYPTED) != 0)
        return zip_bad_entry(in, &e, "is encrypted");
    if ((flags & ZIP_PATCH) != 0)
        return zip_bad_entry(in, &e, "is a patch of other data");
    if (method == 0 && stored != bytes)
        return zip_bad_entry(in, &e, "is stored, but its two sizes differ");
    if (zip_le16(p + 34) != 0)
        return zip_bad_entry(in, &e, "is on another disk");
    e.header = header;
    e.bytes = stored;
    e.method = method;
    MT_TRY(zip_check_local(in, &e, limit));
    MT_TRY(mt_grow(in->ctx, in->zip->n, &in->zip->cap, sizeof e, "a zip directory", &in->zip->v));
    in->zip->v[in->zip->n++] = e;
    return MT_OK;
}

static mt_status zip_read_entries(const struct zip_in *in, const struct zip_end *end)
{
    const unsigned char *p = in->map->base + end->at, *stop = in->map->base + end->end;

    for (uint64_t i = 0; i < end->count; i++) {
        size_t name_n, extra_n, all;
        if (stop - p < (ptrdiff_t)ZIP_CENTRAL_BYTES || mt_le32(p) != ZIP_CENTRAL)
            return zip_bad(in, "the directory ends early");
        name_n = zip_le16(p + 28);
        extra_n = zip_le16(p + 30);
        all = ZIP_CENTRAL_BYTES + name_n + extra_n + zip_le16(p + 32);
        if (all > (size_t)(stop - p))
            return zip_bad(in, "the directory ends early");
        MT_TRY(zip_read_entry(in, p, end->at, name_n, extra_n));
        p += all;
    }
    return p == stop ? MT_OK : zip_bad(in, "the directory holds more than its members");
}

static int zip_by_header(const void *a, const void *b)
{
    const struct mt_zip_entry *x = a, *y = b;

    return (x->header > y->header) - (x->header < y->header);
}

static int zip_by_name(const void *a, const void *b)
{
    return strcmp(((const struct mt_zip_entry *)a)->name, ((const struct mt_zip_entry *)b)->name);
}

static mt_status zip_check_apart(const struct zip_in *in)
{
    struct mt_zip_entry *v = in->zip->v;
    size_t n = in->zip->n;

    if (n == 0)
        return zip_bad(in, "no members");
    qsort(v, n, sizeof *v, zip_by_header);
    for (size_t i = 1; i < n; i++) {
        if (v[i].header < v[i - 1].offset + v[i - 1].bytes)
            return zip_bad_entry(in, &v[i], "overlaps another member");
    }
    qsort(v, n, sizeof *v, zip_by_name);
    for (size_t i = 1; i < n; i++) {
        if (strcmp(v[i - 1].name, v[i].name) == 0)
            return zip_bad_entry(in, &v[i], "is there twice");
    }
    return MT_OK;
}

mt_status mt_zip_read(struct mt_ctx *ctx, const struct mt_map *map, struct mt_arena *arena,
                      struct mt_zip *out)
{
    const struct zip_in in = {ctx, map, arena, out};
    struct zip_end end = {0};

    *out = (struct mt_zip){.map = map};
    MT_TRY(zip_read_end(&in, &end));
    MT_TRY(zip_read_entries(&in, &end));
    return zip_check_apart(&in);
}

mt_status mt_zip_all_stored(struct mt_ctx *ctx, const struct mt_zip *z)
{
    char show[MT_SHOW_BYTES];

    for (size_t i = 0; i < z->n; i++) {
        if (z->v[i].method != 0)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s: member \"%s\" is compressed%s; torch.save stores members, so "
                           "unpack the archive and pack it again with zip -0",
                           z->map->path, mt_show_name(z->v[i].name, show),
                           z->v[i].method == 8 ? " (deflate)" : "");
    }
    return MT_OK;
}

const struct mt_zip_entry *mt_zip_find(const struct mt_zip *z, const char *name)
{
    const struct mt_zip_entry key = {.name = name};

    return z->n == 0 ? NULL : bsearch(&key, z->v, z->n, sizeof *z->v, zip_by_name);
}
