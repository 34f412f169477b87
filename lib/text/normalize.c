#include "lib/text/normalize.h"

#include "lib/text/stage.h"

#include <string.h>
#include <utf8proc.h>

static mt_status normalize_keep(struct mt_ctx *ctx, struct mt_normalizer *m, const char *s,
                                const char **out, size_t *n)
{
    *n = strlen(s);
    return mt_arena_strndup(ctx, &m->arena, s, *n, out);
}

static mt_status normalize_stage(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                                 void *arg)
{
    static const char *const prepend[] = {"type", "prepend", NULL};
    static const char *const replace[] = {"type", "pattern", "content", NULL};
    static const char *const nfc[] = {"type", NULL};
    struct mt_normalizer *m = arg;
    struct mt_normalizer_stage *s = &m->stages[m->n];
    const char *pattern, *content;
    bool regex;

    if (m->n == MT_NORMALIZER_STAGES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "more than %d stages", MT_NORMALIZER_STAGES_MAX);
    if (strcmp(type, "Prepend") == 0) {
        s->kind = MT_NORMALIZE_PREPEND;
        MT_TRY(mt_stage_fields(ctx, j, type, prepend));
        MT_TRY(mt_stage_text(ctx, j, type, "prepend", &content));
        MT_TRY(normalize_keep(ctx, m, content, &s->content, &s->n_content));
    } else if (strcmp(type, "Replace") == 0) {
        s->kind = MT_NORMALIZE_REPLACE;
        MT_TRY(mt_stage_fields(ctx, j, type, replace));
        MT_TRY(mt_stage_pattern(ctx, j, type, &regex, &pattern));
        if (regex)
            return mt_fail(ctx, MT_E_UNSUPPORTED, "a Regex pattern is not supported here");
        MT_TRY(mt_stage_text(ctx, j, type, "content", &content));
        MT_TRY(normalize_keep(ctx, m, pattern, &s->pattern, &s->n_pattern));
        MT_TRY(normalize_keep(ctx, m, content, &s->content, &s->n_content));
    } else if (strcmp(type, "NFC") == 0) {
        s->kind = MT_NORMALIZE_NFC;
        MT_TRY(mt_stage_fields(ctx, j, type, nfc));
    } else {
        return mt_fail(ctx, MT_E_UNSUPPORTED, "this normalizer is not supported");
    }
    m->n++;
    return MT_OK;
}

mt_status mt_normalizer_open(struct mt_ctx *ctx, const struct mt_json *j, struct mt_normalizer *m)
{
    mt_arena_init(&m->arena);
    return mt_stage_each(ctx, j, "normalizer", "normalizers", normalize_stage, m);
}

void mt_normalizer_end(struct mt_normalizer *m)
{
    mt_arena_free(&m->arena);
    m->n = 0;
}

mt_status mt_text_replace(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n,
                          const char *from, size_t n_from, const char *to, size_t n_to)
{
    const char *end = s + n, *kept = s;

    while ((size_t)(end - s) >= n_from) {
        s = memchr(s, from[0], (size_t)(end - s) - n_from + 1);
        if (s == NULL)
            break;
        if (memcmp(s, from, n_from) != 0) {
            s++;
            continue;
        }
        MT_TRY(mt_text_add(ctx, out, kept, (size_t)(s - kept)));
        MT_TRY(mt_text_add(ctx, out, to, n_to));
        kept = s += n_from;
    }
    return mt_text_add(ctx, out, kept, (size_t)(end - kept));
}

/* Code points below U+0300 neither combine nor decompose under NFC. */
static bool normalize_is_plain(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= 0xCC)
            return false;
    return true;
}

static mt_status normalize_nfc(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n)
{
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)s;
    utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t n_points = utf8proc_decompose(in, (utf8proc_ssize_t)n, NULL, 0, how), n_bytes;
    utf8proc_int32_t *points;
    mt_status st;

    if (n_points < 0)
        return mt_fail(ctx, MT_E_FORMAT, "NFC: %s", utf8proc_errmsg(n_points));
    /* The encoder writes a NUL behind the text. */
    MT_TRY(mt_alloc(ctx, (size_t)n_points + 1, sizeof *points, "normalization", &points));
    n_points = utf8proc_decompose(in, (utf8proc_ssize_t)n, points, n_points, how);
    n_bytes = n_points < 0 ? n_points : utf8proc_reencode(points, n_points, how);
    st = n_bytes < 0 ? mt_fail(ctx, MT_E_FORMAT, "NFC: %s", utf8proc_errmsg(n_bytes))
                     : mt_text_add(ctx, out, (const char *)points, (size_t)n_bytes);
    mt_free(points);
    return st;
}

mt_status mt_normalize(struct mt_ctx *ctx, const struct mt_normalizer *m, const char *s, size_t n,
                       struct mt_text scratch[2], const char **out, size_t *n_out)
{
    for (int i = 0; i < m->n; i++) {
        const struct mt_normalizer_stage *stage = &m->stages[i];
        struct mt_text *t = s == scratch[0].s ? &scratch[1] : &scratch[0];
        bool nfc = stage->kind == MT_NORMALIZE_NFC;

        if (n == 0 || (nfc && normalize_is_plain(s, n)))
            continue;
        t->n = 0;
        if (nfc) {
            MT_TRY(normalize_nfc(ctx, t, s, n));
        } else if (stage->kind == MT_NORMALIZE_PREPEND) {
            MT_TRY(mt_text_add(ctx, t, stage->content, stage->n_content));
            MT_TRY(mt_text_add(ctx, t, s, n));
        } else {
            MT_TRY(mt_text_replace(ctx, t, s, n, stage->pattern, stage->n_pattern, stage->content,
                                   stage->n_content));
        }
        s = t->s;
        n = t->n;
    }
    *out = s;
    *n_out = n;
    return MT_OK;
}
