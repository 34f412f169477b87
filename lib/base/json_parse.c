#include "lib/base/json_node.h"

#include "lib/base/map.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JSON_DEPTH_MAX 64

struct json_in {
    struct mt_ctx *ctx;
    const char *what, *begin, *p, *end;
};

static mt_status json_bad(struct json_in *in, const char *at, const char *why)
{
    size_t line = 1, column = 1;

    for (const char *q = in->begin; q < at; q++) {
        column = *q == '\n' ? 1 : column + 1;
        line += *q == '\n';
    }
    return mt_fail(in->ctx, MT_E_FORMAT, "%s: line %zu, column %zu: %s", in->what, line, column,
                   why);
}

static mt_status json_nomem(struct json_in *in)
{
    return mt_fail(in->ctx, MT_E_NOMEM, "%s: out of memory", in->what);
}

static void json_space(struct json_in *in)
{
    while (in->p < in->end && (*in->p == ' ' || *in->p == '\t' || *in->p == '\n' || *in->p == '\r'))
        in->p++;
}

/* Length of the well-formed UTF-8 character at p (no surrogates, no overlong forms); 0: none. */
static size_t json_utf8(const char *p, const char *end)
{
    const unsigned char *s = (const unsigned char *)p;
    size_t left = (size_t)(end - p), n;

    if (s[0] < 0x80)
        return 1;
    n = s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    }
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

static bool json_hex4(const char *p, const char *end, unsigned *out)
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

static char *json_put_utf8(char *o, unsigned c)
{
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *o++ = (char)(0xe0 | c >> 12);
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    } else {
        *o++ = (char)(0xf0 | c >> 18);
        *o++ = (char)(0x80 | (c >> 12 & 63));
        *o++ = (char)(0x80 | (c >> 6 & 63));
        *o++ = (char)(0x80 | (c & 63));
    }
    return o;
}

/* in->p stands behind a backslash. */
static mt_status json_escape(struct json_in *in, char **o)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *at = in->p - 1, *hit;
    unsigned c, low;

    if (in->p >= in->end)
        return json_bad(in, at, "unfinished string");
    if (*in->p != 'u') {
        hit = memchr(from, *in->p++, sizeof from - 1);
        if (hit == NULL)
            return json_bad(in, at, "unknown escape in a string");
        *(*o)++ = to[hit - from];
        return MT_OK;
    }
    if (!json_hex4(in->p + 1, in->end, &c))
        return json_bad(in, at, "\\u needs four hexadecimal digits");
    in->p += 5;
    if (c >= 0xd800 && c < 0xdc00 && in->end - in->p >= 6 && in->p[0] == '\\' && in->p[1] == 'u' &&
        json_hex4(in->p + 2, in->end, &low) && low >= 0xdc00 && low < 0xe000) {
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        in->p += 6;
    }
    if (c >= 0xd800 && c < 0xe000)
        return json_bad(in, at, "half of a surrogate pair in a string");
    if (c == 0)
        return json_bad(in, at, "a string holds the character \\u0000, which is not supported");
    *o = json_put_utf8(*o, c);
    return MT_OK;
}

/* in->p stands on the opening quote. *text is malloc'ed. */
static mt_status json_string(struct json_in *in, char **text)
{
    const char *open = in->p, *close = open + 1;
    mt_status st = MT_OK;
    char *o;

    while (close < in->end && *close != '"')
        close += *close == '\\' ? 2 : 1;
    if (close >= in->end)
        return json_bad(in, open, "unfinished string");
    *text = o = malloc((size_t)(close - open)); /* escapes only shrink */
    if (o == NULL)
        return json_nomem(in);
    in->p = open + 1;
    while (st == MT_OK && in->p < close) {
        size_t n = json_utf8(in->p, close);
        if (*in->p == '\\') {
            in->p++;
            st = json_escape(in, &o);
        } else if (n == 0) {
            st = json_bad(in, in->p, "a string is not valid UTF-8");
        } else if ((unsigned char)*in->p < 0x20) {
            st = json_bad(in, in->p, "a control character in a string");
        } else {
            memcpy(o, in->p, n);
            o += n;
            in->p += n;
        }
    }
    if (st != MT_OK) {
        free(*text);
        *text = NULL;
        return st;
    }
    *o = '\0';
    in->p = close + 1;
    return MT_OK;
}

static const char *json_digits(const char *p, const char *end)
{
    while (p < end && *p >= '0' && *p <= '9')
        p++;
    return p;
}

static mt_status json_scan_number(struct json_in *in, struct mt_json *j)
{
    const char *from = in->p, *p = from, *q;
    char buf[400];
    size_t n;

    j->kind = MT_JSON_NUMBER;
    j->whole = true;
    p += *p == '-';
    q = json_digits(p, in->end);
    if (q == p || (*p == '0' && q > p + 1))
        return json_bad(in, from, "malformed number");
    if (q < in->end && *q == '.') {
        j->whole = false;
        p = q + 1;
        q = json_digits(p, in->end);
        if (q == p)
            return json_bad(in, from, "malformed number");
    }
    if (q < in->end && (*q == 'e' || *q == 'E')) {
        j->whole = false;
        p = q + 1;
        p += p < in->end && (*p == '+' || *p == '-');
        q = json_digits(p, in->end);
        if (q == p)
            return json_bad(in, from, "malformed number");
    }
    n = (size_t)(q - from);
    if (n >= sizeof buf)
        return json_bad(in, from, "a number of more than 400 characters");
    memcpy(buf, from, n);
    buf[n] = '\0';
    if (j->whole && n <= 18)
        j->integer = strtoll(buf, NULL, 10);
    else
        j->num = strtod(buf, NULL);
    j->whole = j->whole && n <= 18;
    in->p = q;
    return MT_OK;
}

static bool json_word(struct json_in *in, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(in->end - in->p) < n || memcmp(in->p, word, n) != 0)
        return false;
    in->p += n;
    return true;
}

static mt_status json_scalar(struct json_in *in, struct mt_json *j)
{
    static const struct {
        const char *word;
        enum mt_json_kind kind;
        bool truth;
        double num;
    } words[] = {
        {"null", MT_JSON_NULL, false, 0},
        {"true", MT_JSON_BOOL, true, 0},
        {"false", MT_JSON_BOOL, false, 0},
        /* Not JSON, but what Python writes and real configs hold. */
        {"NaN", MT_JSON_NUMBER, false, (double)NAN},
        {"Infinity", MT_JSON_NUMBER, false, (double)INFINITY},
        {"-Infinity", MT_JSON_NUMBER, false, -(double)INFINITY},
    };

    if (in->p >= in->end)
        return json_bad(in, in->p, "the text ends where a value is expected");
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (json_word(in, words[i].word)) {
            j->kind = words[i].kind;
            if (j->kind == MT_JSON_BOOL)
                j->truth = words[i].truth;
            else
                j->num = words[i].num;
            return MT_OK;
        }
    }
    if (*in->p == '"') {
        char *text;
        MT_TRY(json_string(in, &text));
        j->kind = MT_JSON_STRING;
        j->text = text;
        return MT_OK;
    }
    if (*in->p == '-' || (*in->p >= '0' && *in->p <= '9'))
        return json_scan_number(in, j);
    return json_bad(in, in->p, "expected a value");
}

static int json_by_key(const void *a, const void *b)
{
    return strcmp((*(struct mt_json *const *)a)->key, (*(struct mt_json *const *)b)->key);
}

/* Sorting keeps a hostile object of a million keys at n log n. */
static mt_status json_check_keys(struct json_in *in, const struct mt_json *obj)
{
    struct mt_json **v, *few[16];
    mt_status st = MT_OK;
    size_t n = 0;

    v = obj->count <= 16 ? few : malloc(obj->count * sizeof(struct mt_json *));
    if (v == NULL)
        return json_nomem(in);
    for (struct mt_json *c = obj->first; c != NULL; c = c->next)
        v[n++] = c;
    qsort(v, n, sizeof(struct mt_json *), json_by_key);
    for (size_t i = 1; st == MT_OK && i < n; i++) {
        if (strcmp(v[i - 1]->key, v[i]->key) == 0)
            st = mt_fail(in->ctx, MT_E_FORMAT, "%s: the key \"%.100s\" occurs twice in one object",
                         in->what, v[i]->key);
    }
    if (v != few)
        free(v);
    return st;
}

static mt_status json_value(struct json_in *in, struct mt_json *j, int depth);

/* One member of an array or object, appended to it. */
static mt_status json_member(struct json_in *in, struct mt_json *parent, int depth)
{
    struct mt_json *c = mt_json_node_new(MT_JSON_NULL);

    if (c == NULL)
        return json_nomem(in);
    mt_json_node_append(parent, c);
    json_space(in);
    if (parent->kind == MT_JSON_OBJECT) {
        if (in->p >= in->end || *in->p != '"')
            return json_bad(in, in->p, "expected a name in quotes");
        MT_TRY(json_string(in, &c->key));
        json_space(in);
        if (in->p >= in->end || *in->p != ':')
            return json_bad(in, in->p, "expected ':'");
        in->p++;
    }
    return json_value(in, c, depth);
}

static mt_status json_value(struct json_in *in, struct mt_json *j, int depth)
{
    bool object;

    json_space(in);
    if (in->p >= in->end || (*in->p != '{' && *in->p != '['))
        return json_scalar(in, j);
    if (depth >= JSON_DEPTH_MAX)
        return json_bad(in, in->p, "nested more than 64 levels deep");
    object = *in->p++ == '{';
    j->kind = object ? MT_JSON_OBJECT : MT_JSON_ARRAY;
    json_space(in);
    if (in->p < in->end && *in->p == (object ? '}' : ']')) {
        in->p++;
        return MT_OK;
    }
    for (;;) {
        MT_TRY(json_member(in, j, depth + 1));
        json_space(in);
        if (in->p < in->end && *in->p == (object ? '}' : ']'))
            break;
        if (in->p >= in->end || *in->p != ',')
            return json_bad(in, in->p, object ? "expected ',' or '}'" : "expected ',' or ']'");
        in->p++;
    }
    in->p++;
    return object ? json_check_keys(in, j) : MT_OK;
}

mt_status mt_json_parse(struct mt_ctx *ctx, const char *text, size_t n, const char *what,
                        struct mt_json **out)
{
    struct json_in in = {ctx, what, text, text, text + n};
    mt_status st;

    *out = mt_json_node_new(MT_JSON_NULL);
    if (*out == NULL)
        return json_nomem(&in);
    st = json_value(&in, *out, 0);
    if (st == MT_OK) {
        json_space(&in);
        if (in.p != in.end)
            st = json_bad(&in, in.p, "text after the end of the value");
    }
    if (st != MT_OK) {
        mt_json_free(*out);
        *out = NULL;
    }
    return st;
}

mt_status mt_json_read(struct mt_ctx *ctx, const char *path, size_t max_bytes, struct mt_json **out)
{
    mt_status st;
    char *text;
    size_t n;

    *out = NULL;
    MT_TRY(mt_read_file(ctx, path, max_bytes, &text, &n));
    st = mt_json_parse(ctx, text, n, path, out);
    mt_free(text);
    return st;
}
