#include "lib/base/json_scan.h"

#include "lib/base/mem.h"
#include "lib/base/utf8.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define SCAN_DEPTH_MAX 64

mt_status mt_scan_fail(struct mt_scan *s, const char *at, const char *fmt, ...)
{
    size_t line = 1, column = 1;
    char why[512];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    if ((s->flags & MT_SCAN_LINES) == 0)
        return mt_fail(s->ctx, MT_E_FORMAT, "%s: byte %zu: %s", s->what, (size_t)(at - s->begin),
                       why);
    for (const char *p = s->begin; p < at; p++) {
        column = *p == '\n' ? 1 : column + 1;
        line += *p == '\n';
    }
    return mt_fail(s->ctx, MT_E_FORMAT, "%s: line %zu, column %zu: %s", s->what, line, column, why);
}

mt_status mt_scan_open(struct mt_ctx *ctx, struct mt_scan *s, const void *text, size_t n,
                       const char *what, unsigned flags)
{
    size_t valid;

    *s = (struct mt_scan){.ctx = ctx, .what = what, .begin = text, .p = text, .flags = flags};
    s->end = s->begin + n;
    valid = mt_utf8_valid(s->begin, n);
    return valid == n ? MT_OK : mt_scan_fail(s, s->begin + valid, "not valid UTF-8");
}

void mt_scan_close(struct mt_scan *s)
{
    mt_free(s->scratch);
    s->scratch = NULL;
}

char mt_scan_peek(struct mt_scan *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t' || *s->p == '\n' || *s->p == '\r'))
        s->p++;
    return s->p < s->end ? *s->p : '\0';
}

/* What stands where `wanted` should: an end, a NUL (worth an explanation) or something else. */
static mt_status scan_expected(struct mt_scan *s, const char *wanted)
{
    char found = mt_scan_peek(s);

    if (s->p >= s->end)
        return mt_scan_fail(s, s->p, "the JSON ends, expected %s", wanted);
    if (found == '\0')
        return mt_scan_fail(s, s->p,
                            "a NUL byte where %s should stand; padding must be spaces, save the "
                            "file again with a current library",
                            wanted);
    return mt_scan_fail(s, s->p, "expected %s", wanted);
}

bool mt_scan_is(struct mt_scan_text text, const char *word)
{
    return text.n == strlen(word) && memcmp(text.s, word, text.n) == 0;
}

mt_status mt_scan_enter(struct mt_scan *s, char open)
{
    if (mt_scan_peek(s) != open)
        return scan_expected(s, open == '{' ? "an object ({...})" : "an array ([...])");
    if (s->depth == SCAN_DEPTH_MAX)
        return mt_scan_fail(s, s->p, "nested deeper than %d levels", SCAN_DEPTH_MAX);
    s->depth++;
    s->p++;
    s->opened = true;
    return MT_OK;
}

mt_status mt_scan_next(struct mt_scan *s, char close, bool *more)
{
    bool opened = s->opened;
    char c = mt_scan_peek(s);

    s->opened = false;
    *more = false;
    if (c == close) {
        s->depth--;
        s->p++;
        return MT_OK;
    }
    if (!opened) {
        if (c != ',')
            return scan_expected(s, close == '}' ? "',' or '}'" : "',' or ']'");
        s->p++;
    }
    *more = true;
    return MT_OK;
}

static bool scan_hex4(const char *p, const char *end, unsigned *out)
{
    *out = 0;
    if (end - p < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        unsigned d = c >= '0' && c <= '9'   ? (unsigned)(c - '0')
                     : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                     : c >= 'A' && c <= 'F' ? (unsigned)(c - 'A') + 10
                                            : 16;
        if (d == 16)
            return false;
        *out = *out << 4 | d;
    }
    return true;
}

/* s->p stands on a backslash that is followed by a byte of the string. */
static mt_status scan_escape(struct mt_scan *s, char **o)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = s->p, *hit;
    unsigned c, low;

    if (at[1] != 'u') {
        hit = memchr(from, at[1], sizeof from - 1);
        if (hit == NULL)
            return mt_scan_fail(s, at, "unknown escape in a string");
        *(*o)++ = to[hit - from];
        s->p += 2;
        return MT_OK;
    }
    if (!scan_hex4(at + 2, s->end, &c))
        return mt_scan_fail(s, at, "\\u needs four hexadecimal digits");
    s->p += 6;
    if (c >= 0xd800 && c < 0xdc00 && s->end - s->p >= 6 && s->p[0] == '\\' && s->p[1] == 'u' &&
        scan_hex4(s->p + 2, s->end, &low) && low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        s->p += 6;
    }
    if (c >= 0xd800 && c < 0xe000)
        return mt_scan_fail(s, at, "half of a surrogate pair in a string");
    if (c == 0)
        return mt_scan_fail(s, at, "a string holds the character NUL (\\u0000)");
    *o += mt_utf8_put(c, *o);
    return MT_OK;
}

/* The string between s->p and close, which holds escapes, into the scratch buffer. */
static mt_status scan_decode(struct mt_scan *s, const char *close, struct mt_scan_text *text)
{
    size_t room = (size_t)(close - s->p); /* escapes only shrink */
    char *o;

    if (s->scratch_cap < room) {
        MT_TRY(mt_realloc(s->ctx, room, 1, s->what, &s->scratch));
        s->scratch_cap = room;
    }
    o = s->scratch;
    while (s->p < close) {
        if (*s->p == '\\')
            MT_TRY(scan_escape(s, &o));
        else
            *o++ = *s->p++;
    }
    *text = (struct mt_scan_text){s->scratch, (size_t)(o - s->scratch)};
    return MT_OK;
}

mt_status mt_scan_string(struct mt_scan *s, struct mt_scan_text *text)
{
    bool escapes = false;
    const char *open, *close;

    if (mt_scan_peek(s) != '"')
        return scan_expected(s, "a string");
    open = s->p;
    for (close = open + 1; close < s->end && *close != '"'; close++) {
        if ((unsigned char)*close < 0x20)
            return mt_scan_fail(s, close, "a control character in a string");
        if (*close == '\\') {
            escapes = true;
            if (++close == s->end)
                break;
        }
    }
    if (close == s->end)
        return mt_scan_fail(s, open, "unfinished string");
    s->p = open + 1;
    if (escapes)
        MT_TRY(scan_decode(s, close, text));
    else
        *text = (struct mt_scan_text){s->p, (size_t)(close - s->p)};
    s->p = close + 1;
    return MT_OK;
}

mt_status mt_scan_key(struct mt_scan *s, struct mt_scan_text *key)
{
    if (mt_scan_peek(s) != '"')
        return scan_expected(s, "a name in quotes");
    MT_TRY(mt_scan_string(s, key));
    if (mt_scan_peek(s) != ':')
        return scan_expected(s, "':'");
    s->p++;
    return MT_OK;
}

static bool scan_is_digit(const struct mt_scan *s)
{
    return s->p < s->end && *s->p >= '0' && *s->p <= '9';
}

mt_status mt_scan_u64(struct mt_scan *s, uint64_t *v)
{
    char first = mt_scan_peek(s);
    const char *at = s->p;

    *v = 0;
    if (first == '-')
        return mt_scan_fail(s, at, "a negative number where a size should stand");
    if (!scan_is_digit(s))
        return scan_expected(s, "a whole number");
    while (scan_is_digit(s)) {
        if (__builtin_mul_overflow(*v, (uint64_t)10, v) ||
            __builtin_add_overflow(*v, (uint64_t)(*s->p - '0'), v))
            return mt_scan_fail(s, at, "a number beyond 64 bits");
        s->p++;
    }
    if (first == '0' && s->p - at > 1)
        return mt_scan_fail(s, at, "a number with a leading zero");
    if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E'))
        return mt_scan_fail(s, at,
                            "a number with a fraction or an exponent where a whole number "
                            "should stand");
    return MT_OK;
}

/* Steps over digits; false when there are none. */
static bool scan_digits(struct mt_scan *s)
{
    const char *at = s->p;

    while (scan_is_digit(s))
        s->p++;
    return s->p > at;
}

static bool scan_number(struct mt_scan *s)
{
    s->p += *s->p == '-';
    if (s->p < s->end && *s->p == '0')
        s->p++;
    else if (!scan_digits(s))
        return false;
    if (s->p < s->end && *s->p == '.') {
        s->p++;
        if (!scan_digits(s))
            return false;
    }
    if (s->p < s->end && (*s->p == 'e' || *s->p == 'E')) {
        s->p++;
        s->p += s->p < s->end && (*s->p == '+' || *s->p == '-');
        return scan_digits(s);
    }
    return !scan_is_digit(s); /* a leading zero */
}

static bool scan_word(struct mt_scan *s)
{
    static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};
    size_t n_words = (s->flags & MT_SCAN_NONFINITE) != 0 ? 6 : 3;

    for (size_t i = 0; i < n_words; i++) {
        size_t n = strlen(words[i]);
        if ((size_t)(s->end - s->p) >= n && memcmp(s->p, words[i], n) == 0) {
            s->p += n;
            return true;
        }
    }
    return false;
}

static mt_status scan_skip_scalar(struct mt_scan *s)
{
    struct mt_scan_text text;
    char c = mt_scan_peek(s);
    const char *at = s->p;

    if (c == '"')
        return mt_scan_string(s, &text);
    if (scan_word(s))
        return MT_OK;
    if (c != '-' && !scan_is_digit(s))
        return scan_expected(s, "a value");
    return scan_number(s) ? MT_OK : mt_scan_fail(s, at, "malformed number");
}

/* The stack holds the bracket that closes each level. */
mt_status mt_scan_skip(struct mt_scan *s, struct mt_scan_text *raw)
{
    char closes[SCAN_DEPTH_MAX], c;
    struct mt_scan_text key;
    const char *at;
    int depth = 0;
    bool more;

    (void)mt_scan_peek(s);
    at = s->p;
    do {
        if (depth > 0) {
            MT_TRY(mt_scan_next(s, closes[depth - 1], &more));
            if (!more) {
                depth--;
                continue;
            }
            if (closes[depth - 1] == '}')
                MT_TRY(mt_scan_key(s, &key));
        }
        c = mt_scan_peek(s);
        if (c == '{' || c == '[') {
            MT_TRY(mt_scan_enter(s, c)); /* which bounds the depth */
            closes[depth++] = c == '{' ? '}' : ']';
        } else {
            MT_TRY(scan_skip_scalar(s));
        }
    } while (depth > 0);
    if (raw != NULL)
        *raw = (struct mt_scan_text){at, (size_t)(s->p - at)};
    return MT_OK;
}

mt_status mt_scan_end(struct mt_scan *s)
{
    char found = mt_scan_peek(s);

    if (s->p == s->end)
        return MT_OK;
    return found == '\0' ? scan_expected(s, "the end")
                         : mt_scan_fail(s, s->p, "text after the end of the value");
}
