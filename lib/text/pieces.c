#include "lib/text/pieces.h"

#include "lib/base/mem.h"

#include <string.h>

mt_status mt_text_room(struct mt_ctx *ctx, struct mt_text *t, size_t n)
{
    size_t cap;

    if (n <= t->cap - t->n)
        return MT_OK;
    if (n > SIZE_MAX / 4 - t->n)
        return mt_fail(ctx, MT_E_LIMIT, "text of more than %zu bytes", SIZE_MAX / 4);
    cap = (t->n + n) * 3 / 2 + 64;
    MT_TRY(mt_realloc(ctx, cap, 1, "text", &t->s));
    t->cap = cap;
    return MT_OK;
}

mt_status mt_text_add(struct mt_ctx *ctx, struct mt_text *t, const char *s, size_t n)
{
    MT_TRY(mt_text_room(ctx, t, n));
    if (n != 0)
        memcpy(t->s + t->n, s, n);
    t->n += n;
    return MT_OK;
}

void mt_text_end(struct mt_text *t)
{
    mt_free(t->s);
    *t = (struct mt_text){0};
}

mt_status mt_pieces_push(struct mt_ctx *ctx, struct mt_pieces *p, size_t at, size_t n, bool first)
{
    if (p->n == p->cap) {
        size_t cap = p->cap * 2 + 32;
        MT_TRY(mt_realloc(ctx, cap, sizeof *p->v, "pieces of text", &p->v));
        p->cap = cap;
    }
    p->v[p->n++] = (struct mt_piece){at, n, first};
    return MT_OK;
}

void mt_pieces_end(struct mt_pieces *p)
{
    mt_free(p->v);
    *p = (struct mt_pieces){0};
}

uint32_t mt_utf8_next(const char *s, size_t n, size_t *at)
{
    uint32_t c = (unsigned char)s[(*at)++];
    int more = c < 0x80 ? 0 : c < 0xE0 ? 1 : c < 0xF0 ? 2 : 3;

    if (more != 0)
        c &= 0x3Fu >> more;
    for (; more > 0 && *at < n; more--)
        c = c << 6 | ((unsigned char)s[(*at)++] & 0x3Fu);
    return c;
}

size_t mt_utf8_put(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0 | c >> 6);
        out[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 0x3F));
        out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F));
    out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

/* Bytes of the well-formed sequence at s (Unicode table 3-7), or minus the length of the maximal
 * ill-formed part. The second byte's range excludes overlong forms, surrogates and values beyond
 * U+10FFFF. */
static int utf8_sequence(const unsigned char *s, size_t n)
{
    unsigned lo = 0x80, hi = 0xBF;
    int want;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xC2 || s[0] > 0xF4)
        return -1;
    want = s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4;
    if (s[0] == 0xE0)
        lo = 0xA0;
    else if (s[0] == 0xED)
        hi = 0x9F;
    else if (s[0] == 0xF0)
        lo = 0x90;
    else if (s[0] == 0xF4)
        hi = 0x8F;
    for (int i = 1; i < want; i++) {
        if ((size_t)i >= n || s[i] < lo || s[i] > hi)
            return -i;
        lo = 0x80;
        hi = 0xBF;
    }
    return want;
}

size_t mt_utf8_valid(const char *s, size_t n)
{
    size_t i = 0;

    while (i < n) {
        uint64_t w;
        while (i + 8 <= n) {
            memcpy(&w, s + i, 8);
            if ((w & 0x8080808080808080u) != 0)
                break;
            i += 8;
        }
        if (i == n)
            break;
        int len = utf8_sequence((const unsigned char *)s + i, n - i);
        if (len < 0)
            break;
        i += (size_t)len;
    }
    return i;
}

mt_status mt_utf8_repair(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n)
{
    while (n > 0) {
        size_t ok = mt_utf8_valid(s, n);

        MT_TRY(mt_text_add(ctx, out, s, ok));
        s += ok;
        n -= ok;
        if (n > 0) {
            size_t bad = (size_t)-utf8_sequence((const unsigned char *)s, n);
            MT_TRY(mt_text_add(ctx, out, "\xEF\xBF\xBD", 3));
            s += bad;
            n -= bad;
        }
    }
    return MT_OK;
}
