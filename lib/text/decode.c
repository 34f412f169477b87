#include "lib/text/decode.h"

#include "lib/text/bpe.h"
#include "lib/text/normalize.h"
#include "lib/text/stage.h"

#include <string.h>

/* --- opening --- */

static mt_status decode_keep(struct mt_ctx *ctx, struct mt_decoder *d, const char *s,
                             const char **out, size_t *n)
{
    *n = strlen(s);
    return mt_arena_strndup(ctx, &d->arena, s, *n, out);
}

static mt_status decode_open_replace(struct mt_ctx *ctx, const struct mt_json *j,
                                     struct mt_decoder *d, struct mt_decoder_stage *s)
{
    static const char *const known[] = {"type", "pattern", "content", NULL};
    const char *pattern, *content;
    bool regex;

    MT_TRY(mt_stage_fields(ctx, j, "Replace", known));
    MT_TRY(mt_stage_pattern(ctx, j, "Replace", &regex, &pattern));
    if (regex)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "a Regex pattern is not supported here");
    MT_TRY(mt_stage_text(ctx, j, "Replace", "content", &content));
    MT_TRY(decode_keep(ctx, d, pattern, &s->pattern, &s->n_pattern));
    return decode_keep(ctx, d, content, &s->content, &s->n_content);
}

static mt_status decode_open_strip(struct mt_ctx *ctx, const struct mt_json *j,
                                   struct mt_decoder *d, struct mt_decoder_stage *s)
{
    static const char *const known[] = {"type", "content", "start", "stop", NULL};
    const char *content;

    MT_TRY(mt_stage_fields(ctx, j, "Strip", known));
    MT_TRY(mt_stage_text(ctx, j, "Strip", "content", &content));
    MT_TRY(mt_json_get_int(ctx, j, "start", 0, &s->start));
    MT_TRY(mt_json_get_int(ctx, j, "stop", 0, &s->stop));
    if (content[0] == '\0' || s->start < 0 || s->stop < 0)
        return mt_fail(ctx, MT_E_FORMAT, "empty content or negative count");
    return decode_keep(ctx, d, content, &s->pattern, &s->n_pattern);
}

static mt_status decode_open_meta(struct mt_ctx *ctx, const struct mt_json *j, struct mt_decoder *d,
                                  struct mt_decoder_stage *s)
{
    static const char *const known[] = {
        "type", "replacement", "add_prefix_space", "split", "str_rep", "prepend_scheme", NULL};
    const char *mark, *scheme;
    bool prefix;

    MT_TRY(mt_stage_fields(ctx, j, "Metaspace", known));
    MT_TRY(mt_json_get_str(ctx, j, "replacement", "\xE2\x96\x81", &mark));
    MT_TRY(mt_json_get_bool(ctx, j, "add_prefix_space", true, &prefix));
    MT_TRY(mt_json_get_str(ctx, j, "prepend_scheme", prefix ? "always" : "never", &scheme));
    if (mark[0] == '\0')
        return mt_fail(ctx, MT_E_FORMAT, "\"replacement\" is not one character");
    s->drop_first = strcmp(scheme, "never") != 0;
    return decode_keep(ctx, d, mark, &s->pattern, &s->n_pattern);
}

static mt_status decode_open_wordpiece(struct mt_ctx *ctx, const struct mt_json *j,
                                       struct mt_decoder *d, struct mt_decoder_stage *s)
{
    static const char *const known[] = {"type", "prefix", "cleanup", NULL};
    const char *prefix;

    s->kind = MT_DECODE_WORDPIECE;
    MT_TRY(mt_stage_fields(ctx, j, "WordPiece", known));
    MT_TRY(mt_json_get_str(ctx, j, "prefix", "##", &prefix));
    MT_TRY(mt_json_get_bool(ctx, j, "cleanup", true, &s->cleanup));
    return decode_keep(ctx, d, prefix, &s->pattern, &s->n_pattern);
}

static mt_status decode_open_suffix(struct mt_ctx *ctx, const struct mt_json *j,
                                    struct mt_decoder *d, struct mt_decoder_stage *s)
{
    static const char *const known[] = {"type", "suffix", NULL};
    const char *suffix;

    s->kind = MT_DECODE_SUFFIX;
    MT_TRY(mt_stage_fields(ctx, j, "BPEDecoder", known));
    MT_TRY(mt_json_get_str(ctx, j, "suffix", "</w>", &suffix));
    if (suffix[0] == '\0')
        return mt_fail(ctx, MT_E_UNSUPPORTED, "an empty suffix is not supported");
    return decode_keep(ctx, d, suffix, &s->pattern, &s->n_pattern);
}

static mt_status decode_stage(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                              void *arg)
{
    static const char *const known[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                        NULL};
    static const char *const bare[] = {"type", NULL};
    struct mt_decoder *d = arg;
    struct mt_decoder_stage *s = &d->stages[d->n];

    if (d->n == MT_DECODER_STAGES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "more than %d stages", MT_DECODER_STAGES_MAX);
    d->n++;
    if (strcmp(type, "Replace") == 0) {
        s->kind = MT_DECODE_REPLACE;
        return decode_open_replace(ctx, j, d, s);
    }
    if (strcmp(type, "Strip") == 0) {
        s->kind = MT_DECODE_STRIP;
        return decode_open_strip(ctx, j, d, s);
    }
    if (strcmp(type, "Metaspace") == 0) {
        s->kind = MT_DECODE_META;
        return decode_open_meta(ctx, j, d, s);
    }
    if (strcmp(type, "WordPiece") == 0)
        return decode_open_wordpiece(ctx, j, d, s);
    if (strcmp(type, "BPEDecoder") == 0)
        return decode_open_suffix(ctx, j, d, s);
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = MT_DECODE_BYTES;
        return mt_stage_fields(ctx, j, type, known);
    }
    s->kind = strcmp(type, "Fuse") == 0 ? MT_DECODE_FUSE : MT_DECODE_FALLBACK;
    if (s->kind == MT_DECODE_FALLBACK && strcmp(type, "ByteFallback") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "this decoder is not supported");
    return mt_stage_fields(ctx, j, type, bare);
}

mt_status mt_decoder_open(struct mt_ctx *ctx, const struct mt_json *j, struct mt_decoder *d)
{
    mt_arena_init(&d->arena);
    d->absent = mt_json_kind(j) == MT_JSON_ABSENT || mt_json_kind(j) == MT_JSON_NULL;
    return mt_stage_each(ctx, j, "decoder", "decoders", decode_stage, d);
}

void mt_decoder_end(struct mt_decoder *d)
{
    mt_arena_free(&d->arena);
    d->n = 0;
}

/* --- running --- */

/* The bytes a token of the byte-level alphabet stands for; a token with any other character is
 * its own text. */
static mt_status decode_bytes(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n)
{
    size_t before = out->n, at = 0;

    MT_TRY(mt_text_room(ctx, out, n));
    while (at < n) {
        int b = mt_char_byte(mt_utf8_next(s, n, &at));
        if (b < 0) {
            out->n = before;
            return mt_text_add(ctx, out, s, n);
        }
        out->s[out->n++] = (char)b;
    }
    return MT_OK;
}

static int decode_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of "<0xNN>"; -1: another token. */
static int decode_fallback(const char *s, size_t n)
{
    int hi, lo;

    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>')
        return -1;
    hi = decode_hex(s[3]);
    lo = decode_hex(s[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

static void decode_strip(const struct mt_decoder_stage *s, const char **p, size_t *n)
{
    for (int64_t i = 0; i < s->start && *n >= s->n_pattern; i++) {
        if (memcmp(*p, s->pattern, s->n_pattern) != 0)
            break;
        *p += s->n_pattern;
        *n -= s->n_pattern;
    }
    for (int64_t i = 0; i < s->stop && *n >= s->n_pattern; i++) {
        if (memcmp(*p + *n - s->n_pattern, s->pattern, s->n_pattern) != 0)
            break;
        *n -= s->n_pattern;
    }
}

/* English as tokenizers write it to English as people do: no space before punctuation and what is
 * left of a contraction. In this order, each over the result of the one before. */
static mt_status decode_cleanup(struct mt_ctx *ctx, struct mt_text *out, size_t from)
{
    static const char *const rules[][2] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    struct mt_text t = {0};
    mt_status st = MT_OK;

    for (size_t i = 0; i < sizeof rules / sizeof *rules && st == MT_OK; i++) {
        t.n = 0;
        st = mt_text_replace(ctx, &t, out->s + from, out->n - from, rules[i][0],
                             strlen(rules[i][0]), rules[i][1], strlen(rules[i][1]));
        out->n = from;
        if (st == MT_OK)
            st = mt_text_add(ctx, out, t.s, t.n);
    }
    mt_text_end(&t);
    return st;
}

static mt_status decode_wordpiece(struct mt_ctx *ctx, const struct mt_decoder_stage *s,
                                  const char *p, size_t n, bool first, struct mt_text *out)
{
    size_t from = out->n;
    bool inside = !first && n >= s->n_pattern && memcmp(p, s->pattern, s->n_pattern) == 0;

    if (inside) {
        p += s->n_pattern;
        n -= s->n_pattern;
    } else if (!first) {
        MT_TRY(mt_text_add(ctx, out, " ", 1));
    }
    MT_TRY(mt_text_add(ctx, out, p, n));
    return s->cleanup && out->n > from ? decode_cleanup(ctx, out, from) : MT_OK;
}

/* One token through one stage; *join: it continues the piece before it. `number` of `of`. */
static mt_status decode_piece(struct mt_ctx *ctx, const struct mt_decoder_stage *s, const char *p,
                              size_t n, size_t number, size_t of, struct mt_text *out, bool *join)
{
    int byte;

    switch (s->kind) {
    case MT_DECODE_BYTES:
        *join = true;
        return decode_bytes(ctx, out, p, n);
    case MT_DECODE_FUSE:
        *join = true;
        break;
    case MT_DECODE_REPLACE:
        return mt_text_replace(ctx, out, p, n, s->pattern, s->n_pattern, s->content, s->n_content);
    case MT_DECODE_FALLBACK:
        byte = decode_fallback(p, n);
        if (byte >= 0) {
            *join = true;
            return mt_text_add(ctx, out, &(char){(char)byte}, 1);
        }
        break;
    case MT_DECODE_STRIP:
        decode_strip(s, &p, &n);
        break;
    case MT_DECODE_META:
        return mt_text_replace(ctx, out, p, n, s->pattern, s->n_pattern, " ",
                               s->drop_first && number == 0 ? 0 : 1);
    case MT_DECODE_WORDPIECE:
        return decode_wordpiece(ctx, s, p, n, number == 0, out);
    case MT_DECODE_SUFFIX:
        return mt_text_replace(ctx, out, p, n, s->pattern, s->n_pattern, " ", number + 1 < of);
    }
    return mt_text_add(ctx, out, p, n);
}

static mt_status decode_run(struct mt_ctx *ctx, const struct mt_decoder_stage *s,
                            const struct mt_text *text, const struct mt_pieces *in,
                            struct mt_text *out, struct mt_pieces *pieces)
{
    bool joined = false;

    out->n = pieces->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        size_t at = out->n;
        bool join = false;
        MT_TRY(decode_piece(ctx, s, text->s + in->v[i].at, in->v[i].n, i, in->n, out, &join));
        if (join && joined)
            pieces->v[pieces->n - 1].n += out->n - at;
        else
            MT_TRY(mt_pieces_push(ctx, pieces, at, out->n - at, false));
        joined = join;
    }
    return MT_OK;
}

mt_status mt_decoder_run(struct mt_ctx *ctx, const struct mt_decoder *d, struct mt_text text[2],
                         struct mt_pieces pieces[2], int *now)
{
    *now = 0;
    if (d->absent) {
        text[1].n = pieces[1].n = 0;
        for (size_t i = 0; i < pieces[0].n; i++) {
            MT_TRY(mt_text_add(ctx, &text[1], " ", i > 0));
            MT_TRY(mt_text_add(ctx, &text[1], text[0].s + pieces[0].v[i].at, pieces[0].v[i].n));
        }
        *now = 1;
        return mt_pieces_push(ctx, &pieces[1], 0, text[1].n, false);
    }
    for (int i = 0; i < d->n; i++) {
        MT_TRY(decode_run(ctx, &d->stages[i], &text[*now], &pieces[*now], &text[!*now],
                          &pieces[!*now]));
        *now = !*now;
    }
    return MT_OK;
}
