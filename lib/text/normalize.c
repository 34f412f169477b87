#include "lib/text/normalize.h"

#include "lib/text/pretok.h"
#include "lib/text/stage.h"
#include "lib/text/unicode.h"

#include <string.h>
#include <utf8proc.h>

static mt_status normalize_keep(struct mt_ctx *ctx, struct mt_normalizer *m, const char *s,
                                const char **out, size_t *n)
{
    *n = strlen(s);
    return mt_arena_strndup(ctx, &m->arena, s, *n, out);
}

static mt_status normalize_open_replace(struct mt_ctx *ctx, const struct mt_json *j,
                                        struct mt_normalizer *m, struct mt_normalizer_stage *s)
{
    static const char *const known[] = {"type", "pattern", "content", NULL};
    const char *pattern, *content;
    bool regex;

    s->kind = MT_NORMALIZE_REPLACE;
    MT_TRY(mt_stage_fields(ctx, j, "Replace", known));
    MT_TRY(mt_stage_pattern(ctx, j, "Replace", &regex, &pattern));
    MT_TRY(mt_stage_text(ctx, j, "Replace", "content", &content));
    MT_TRY(normalize_keep(ctx, m, pattern, &s->pattern, &s->n_pattern));
    MT_TRY(normalize_keep(ctx, m, content, &s->content, &s->n_content));
    return regex ? mt_regex_open(ctx, pattern, false, &s->regex) : MT_OK;
}

static mt_status normalize_open_strip(struct mt_ctx *ctx, const struct mt_json *j,
                                      struct mt_normalizer_stage *s)
{
    static const char *const known[] = {"type", "strip_left", "strip_right", NULL};

    s->kind = MT_NORMALIZE_STRIP;
    MT_TRY(mt_stage_fields(ctx, j, "Strip", known));
    MT_TRY(mt_json_get_bool(ctx, j, "strip_left", true, &s->left));
    return mt_json_get_bool(ctx, j, "strip_right", true, &s->right);
}

/* Decomposition stands between the spaces around ideographs and the loss of marks, so that this is
 * up to three stages. */
static mt_status normalize_open_bert(struct mt_ctx *ctx, const struct mt_json *j,
                                     struct mt_normalizer *m)
{
    static const char *const known[] = {"type",          "clean_text", "handle_chinese_chars",
                                        "strip_accents", "lowercase",  NULL};
    struct mt_normalizer_stage *s = &m->stages[m->n];
    bool lower, strip, clean, cjk;

    MT_TRY(mt_stage_fields(ctx, j, "BertNormalizer", known));
    MT_TRY(mt_json_get_bool(ctx, j, "clean_text", true, &clean));
    MT_TRY(mt_json_get_bool(ctx, j, "handle_chinese_chars", true, &cjk));
    MT_TRY(mt_json_get_bool(ctx, j, "lowercase", true, &lower));
    MT_TRY(mt_json_get_bool(ctx, j, "strip_accents", lower, &strip));
    if (m->n + 3 > MT_NORMALIZER_STAGES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "more than %d stages", MT_NORMALIZER_STAGES_MAX);
    s[0] = (struct mt_normalizer_stage){.kind = MT_NORMALIZE_CHARS, .clean = clean, .cjk = cjk};
    if (!strip) {
        s[0].lower = lower;
        m->n += 1;
        return MT_OK;
    }
    s[1] = (struct mt_normalizer_stage){.kind = MT_NORMALIZE_FORM, .form = UTF8PROC_DECOMPOSE};
    s[2] = (struct mt_normalizer_stage){
        .kind = MT_NORMALIZE_CHARS, .no_marks = true, .nonspacing_only = true, .lower = lower};
    m->n += 3;
    return MT_OK;
}

/* Those without fields of their own. */
static mt_status normalize_open_plain(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                                      struct mt_normalizer_stage *s)
{
    static const struct {
        const char *name;
        int form;
    } forms[] = {{"NFC", UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    static const char *const known[] = {"type", NULL};

    s->kind = MT_NORMALIZE_CHARS;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (strcmp(type, forms[i].name) == 0) {
            s->kind = MT_NORMALIZE_FORM;
            s->form = forms[i].form;
        }
    s->lower = strcmp(type, "Lowercase") == 0;
    s->no_marks = strcmp(type, "StripAccents") == 0;
    if (s->kind == MT_NORMALIZE_CHARS && !s->lower && !s->no_marks)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "this normalizer is not supported");
    return mt_stage_fields(ctx, j, type, known);
}

static mt_status normalize_stage(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                                 void *arg)
{
    static const char *const prepend[] = {"type", "prepend", NULL};
    struct mt_normalizer *m = arg;
    struct mt_normalizer_stage *s = &m->stages[m->n];
    const char *content;

    if (m->n == MT_NORMALIZER_STAGES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "more than %d stages", MT_NORMALIZER_STAGES_MAX);
    if (strcmp(type, "BertNormalizer") == 0)
        return normalize_open_bert(ctx, j, m);
    m->n++;
    if (strcmp(type, "Replace") == 0)
        return normalize_open_replace(ctx, j, m, s);
    if (strcmp(type, "Strip") == 0)
        return normalize_open_strip(ctx, j, s);
    if (strcmp(type, "Prepend") != 0)
        return normalize_open_plain(ctx, j, type, s);
    s->kind = MT_NORMALIZE_PREPEND;
    MT_TRY(mt_stage_fields(ctx, j, type, prepend));
    MT_TRY(mt_stage_text(ctx, j, type, "prepend", &content));
    return normalize_keep(ctx, m, content, &s->content, &s->n_content);
}

mt_status mt_normalizer_open(struct mt_ctx *ctx, const struct mt_json *j, struct mt_normalizer *m)
{
    mt_arena_init(&m->arena);
    return mt_stage_each(ctx, j, "normalizer", "normalizers", normalize_stage, m);
}

void mt_normalizer_end(struct mt_normalizer *m)
{
    for (int i = 0; i < m->n; i++) {
        mt_regex_free(m->stages[i].regex);
        m->stages[i].regex = NULL;
    }
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

/* True when the form leaves such text alone: code points below U+0300 neither combine nor
 * decompose under NFC; other forms are asked about ASCII only. */
static bool normalize_is_plain(const char *s, size_t n, int form)
{
    unsigned char limit = form == UTF8PROC_COMPOSE ? 0xCC : 0x80;

    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] >= limit)
            return false;
    return true;
}

static mt_status normalize_form(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n,
                                int form)
{
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)s;
    utf8proc_option_t how = (utf8proc_option_t)(UTF8PROC_STABLE | form);
    utf8proc_ssize_t n_points = utf8proc_decompose(in, (utf8proc_ssize_t)n, NULL, 0, how), n_bytes;
    utf8proc_int32_t *points;
    mt_status st;

    if (n_points < 0)
        return mt_fail(ctx, MT_E_FORMAT, "normalizer: %s", utf8proc_errmsg(n_points));
    /* The encoder writes a NUL behind the text. */
    MT_TRY(mt_alloc(ctx, (size_t)n_points + 1, sizeof *points, "normalization", &points));
    n_points = utf8proc_decompose(in, (utf8proc_ssize_t)n, points, n_points, how);
    n_bytes = n_points < 0 ? n_points : utf8proc_reencode(points, n_points, how);
    st = n_bytes < 0 ? mt_fail(ctx, MT_E_FORMAT, "normalizer: %s", utf8proc_errmsg(n_bytes))
                     : mt_text_add(ctx, out, (const char *)points, (size_t)n_bytes);
    mt_free(points);
    return st;
}

static mt_status normalize_chars(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n,
                                 const struct mt_normalizer_stage *stage)
{
    size_t at = 0;

    while (at < n) {
        uint32_t c = mt_utf8_next(s, n, &at), lower[2] = {c, 0};
        size_t n_lower = 1;
        bool apart;
        if (stage->clean && (c == 0 || c == 0xFFFD || mt_char_is_control(c)))
            continue;
        if (stage->clean && mt_char_is_space(c))
            lower[0] = c = ' ';
        if (stage->no_marks && mt_char_is_mark(c, stage->nonspacing_only))
            continue;
        if (stage->lower)
            n_lower = mt_char_lower(c, lower);
        apart = stage->cjk && mt_char_is_cjk(c);
        MT_TRY(mt_text_room(ctx, out, 12));
        if (apart)
            out->s[out->n++] = ' ';
        for (size_t i = 0; i < n_lower; i++)
            out->n += mt_utf8_put(lower[i], out->s + out->n);
        if (apart)
            out->s[out->n++] = ' ';
    }
    return MT_OK;
}

/* Spans of the text only: nothing is copied. */
static void normalize_strip(const struct mt_normalizer_stage *stage, const char **s, size_t *n)
{
    size_t at = 0, next = 0, end = 0;
    bool any = false;

    while (next < *n) {
        size_t from = next;
        bool space = mt_char_is_space(mt_utf8_next(*s, *n, &next));
        if (!space && !any) {
            at = from;
            any = true;
        }
        if (!space)
            end = next;
    }
    if (!any)
        end = stage->left || stage->right ? 0 : *n;
    if (any && !stage->left)
        at = 0;
    if (any && !stage->right)
        end = *n;
    *s += at;
    *n = end - at;
}

static mt_status normalize_one(struct mt_ctx *ctx, const struct mt_normalizer_stage *stage,
                               struct mt_text *out, const char *s, size_t n)
{
    out->n = 0;
    switch (stage->kind) {
    case MT_NORMALIZE_FORM:
        return normalize_form(ctx, out, s, n, stage->form);
    case MT_NORMALIZE_CHARS:
        return normalize_chars(ctx, out, s, n, stage);
    case MT_NORMALIZE_PREPEND:
        MT_TRY(mt_text_add(ctx, out, stage->content, stage->n_content));
        return mt_text_add(ctx, out, s, n);
    case MT_NORMALIZE_REPLACE:
        if (stage->regex != NULL)
            return mt_regex_replace(ctx, stage->regex, out, s, n, stage->content, stage->n_content);
        return mt_text_replace(ctx, out, s, n, stage->pattern, stage->n_pattern, stage->content,
                               stage->n_content);
    case MT_NORMALIZE_STRIP:
        break;
    }
    return MT_OK;
}

mt_status mt_normalize(struct mt_ctx *ctx, const struct mt_normalizer *m, const char *s, size_t n,
                       struct mt_text scratch[2], const char **out, size_t *n_out)
{
    int now = 1;

    for (int i = 0; i < m->n; i++) {
        const struct mt_normalizer_stage *stage = &m->stages[i];

        if (n == 0)
            break;
        if (stage->kind == MT_NORMALIZE_STRIP) {
            normalize_strip(stage, &s, &n);
            continue;
        }
        if (stage->kind == MT_NORMALIZE_FORM && normalize_is_plain(s, n, stage->form))
            continue;
        now = !now;
        MT_TRY(normalize_one(ctx, stage, &scratch[now], s, n));
        s = scratch[now].s;
        n = scratch[now].n;
    }
    *out = s;
    *n_out = n;
    return MT_OK;
}
