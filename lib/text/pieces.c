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
    MT_TRY(mt_grow(ctx, p->n, &p->cap, sizeof *p->v, "pieces of text", &p->v));
    p->v[p->n++] = (struct mt_piece){at, n, first};
    return MT_OK;
}

void mt_pieces_end(struct mt_pieces *p)
{
    mt_free(p->v);
    *p = (struct mt_pieces){0};
}

mt_status mt_utf8_repair(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n)
{
    while (n > 0) {
        size_t ok = mt_utf8_valid(s, n);

        MT_TRY(mt_text_add(ctx, out, s, ok));
        s += ok;
        n -= ok;
        if (n > 0) {
            size_t bad = (size_t)-mt_utf8_sequence(s, n);
            MT_TRY(mt_text_add(ctx, out, "\xEF\xBF\xBD", 3));
            s += bad;
            n -= bad;
        }
    }
    return MT_OK;
}
