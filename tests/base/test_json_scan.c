#include "lib/base/json_scan.h"

#include "tests/t.h"

static mt_status scan_all(struct t *t, const char *text, size_t n)
{
    struct mt_scan s;
    mt_status st = mt_scan_open(&t->ctx, &s, text, n, "text", 0);

    if (st == MT_OK)
        st = mt_scan_skip(&s, NULL);
    if (st == MT_OK)
        st = mt_scan_end(&s);
    mt_scan_close(&s);
    return st;
}

static mt_status scan_u64(struct t *t, const char *text, uint64_t *v)
{
    struct mt_scan s;
    mt_status st = mt_scan_open(&t->ctx, &s, text, strlen(text), "text", 0);

    if (st == MT_OK)
        st = mt_scan_u64(&s, v);
    if (st == MT_OK)
        st = mt_scan_end(&s);
    mt_scan_close(&s);
    return st;
}

static mt_status scan_string(struct t *t, const char *text, char *out)
{
    struct mt_scan_text x = {0};
    struct mt_scan s;
    mt_status st = mt_scan_open(&t->ctx, &s, text, strlen(text), "text", 0);

    if (st == MT_OK)
        st = mt_scan_string(&s, &x);
    if (st == MT_OK) {
        memcpy(out, x.s, x.n);
        out[x.n] = '\0';
        st = mt_scan_end(&s);
    }
    mt_scan_close(&s);
    return st;
}

/* An oracle: the grammar written down as it stands in RFC 8259, one function per rule. Each returns
 * what follows, or NULL. Escapes other than \n and \u0041 stay out of the alphabet below. */
static const char *rfc_value(const char *p);

static const char *rfc_space(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

static const char *rfc_string(const char *p)
{
    if (*p++ != '"')
        return NULL;
    while (*p != '"') {
        if ((unsigned char)*p < 0x20)
            return NULL;
        p += *p != '\\' ? 1 : p[1] == 'n' ? 2 : strncmp(p, "\\u0041", 6) == 0 ? 6 : strlen(p);
    }
    return p + 1;
}

static const char *rfc_number(const char *p)
{
    static const char digits[] = "0123456789";

    p += *p == '-';
    if (strspn(p, digits) == 0)
        return NULL;
    p += *p == '0' ? 1 : strspn(p, digits);
    if (*p == '.') {
        if (strspn(p + 1, digits) == 0)
            return NULL;
        p += 1 + strspn(p + 1, digits);
    }
    if (*p == 'e' || *p == 'E') {
        p += 1 + (p[1] == '+' || p[1] == '-');
        if (strspn(p, digits) == 0)
            return NULL;
        p += strspn(p, digits);
    }
    return p;
}

static const char *rfc_members(const char *p, char close)
{
    p = rfc_space(p + 1);
    if (*p == close)
        return p + 1;
    for (;; p++) {
        if (close == '}') {
            p = rfc_string(rfc_space(p));
            if (p == NULL || *(p = rfc_space(p)) != ':')
                return NULL;
            p++;
        }
        p = rfc_value(p);
        if (p == NULL || (*p != ',' && *p != close))
            return NULL;
        if (*p == close)
            return p + 1;
    }
}

static const char *rfc_value(const char *p)
{
    p = rfc_space(p);
    if (*p == '{' || *p == '[')
        p = rfc_members(p, *p == '{' ? '}' : ']');
    else if (*p == '"')
        p = rfc_string(p);
    else if (strncmp(p, "true", 4) == 0 || strncmp(p, "null", 4) == 0)
        p += 4;
    else
        p = rfc_number(p);
    return p == NULL ? NULL : rfc_space(p);
}

T_TEST(accepts_what_the_grammar_accepts)
{
    static const char *const pieces[] = {
        "{",    "}",    "[", "]",  ",", ":",  "\"a\"",   "\"b\"",   "1",        "-0", "1.5", "1e3",
        "true", "null", " ", "01", "-", "\"", "\\u0041", "\"\\n\"", "\xc3\xbc", "2.", "\t"};
    const size_t n_pieces = sizeof pieces / sizeof pieces[0];
    unsigned seed = 12345;
    int good = 0;

    for (int round = 0; round < 200000; round++) {
        char text[64] = "";
        int n = 1 + (int)(seed % 7);
        for (int i = 0; i < n; i++) {
            seed = seed * 1103515245u + 12345u;
            strncat(text, pieces[(seed >> 16) % n_pieces], sizeof text - strlen(text) - 1);
        }
        const char *end = rfc_value(text);
        bool valid = end != NULL && *end == '\0';
        mt_status st = scan_all(t, text, strlen(text));
        good += valid;
        if ((st == MT_OK) != valid)
            T_FAIL(t, "<%s>: scanner %d, grammar %d", text, (int)st, (int)valid);
    }
    T_CHECK(t, good > 1000);
}

T_TEST(numbers_that_are_none_are_taken_on_request_only)
{
    static const char *const words[] = {"NaN", "Infinity", "-Infinity", "[1, NaN ]"};

    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        struct mt_scan s;
        size_t n = strlen(words[i]);
        T_CHECK(t, scan_all(t, words[i], n) == MT_E_FORMAT);
        T_OK(t, mt_scan_open(&t->ctx, &s, words[i], n, "text", MT_SCAN_NONFINITE));
        T_OK(t, mt_scan_skip(&s, NULL));
        T_OK(t, mt_scan_end(&s));
        mt_scan_close(&s);
    }
}

T_TEST(whole_numbers_are_digits_only)
{
    uint64_t v;

    T_OK(t, scan_u64(t, " 0 ", &v));
    T_EQ_INT(t, v, 0);
    T_OK(t, scan_u64(t, "18446744073709551615", &v));
    T_CHECK(t, v == UINT64_MAX);
    T_FAILS(t, scan_u64(t, "18446744073709551616", &v), MT_E_FORMAT, "beyond 64 bits");
    T_FAILS(t, scan_u64(t, "99999999999999999999999", &v), MT_E_FORMAT, "beyond 64 bits");
    T_FAILS(t, scan_u64(t, "16.0", &v), MT_E_FORMAT, "fraction");
    T_FAILS(t, scan_u64(t, "1e3", &v), MT_E_FORMAT, "fraction");
    T_FAILS(t, scan_u64(t, "-1", &v), MT_E_FORMAT, "negative");
    T_FAILS(t, scan_u64(t, "-0", &v), MT_E_FORMAT, "negative");
    T_FAILS(t, scan_u64(t, "016", &v), MT_E_FORMAT, "leading zero");
    T_FAILS(t, scan_u64(t, "\"1\"", &v), MT_E_FORMAT, "expected a whole number");
    T_FAILS(t, scan_u64(t, "", &v), MT_E_FORMAT, "the JSON ends");
}

T_TEST(strings_are_decoded)
{
    char out[128];

    T_OK(t, scan_string(t, "\"plain\"", out));
    T_EQ_STR(t, out, "plain");
    T_OK(t, scan_string(t, "\"q\\\"b\\\\s\\/ \\b\\f\\n\\r\\t \\u00fc\\u4F60\\ud83e\\uddea\"", out));
    T_EQ_STR(t, out, "q\"b\\s/ \b\f\n\r\t \xc3\xbc\xe4\xbd\xa0\xf0\x9f\xa7\xaa");
    T_FAILS(t, scan_string(t, "\"\\u0000\"", out), MT_E_FORMAT, "NUL");
    T_FAILS(t, scan_string(t, "\"\\ud83e\"", out), MT_E_FORMAT, "surrogate");
    T_FAILS(t, scan_string(t, "\"\\ud83e\\u0041\"", out), MT_E_FORMAT, "surrogate");
    T_FAILS(t, scan_string(t, "\"\\udc00\"", out), MT_E_FORMAT, "surrogate");
    T_FAILS(t, scan_string(t, "\"\\x41\"", out), MT_E_FORMAT, "unknown escape");
    T_FAILS(t, scan_string(t, "\"\\u12\"", out), MT_E_FORMAT, "four hexadecimal");
    T_FAILS(t, scan_string(t, "\"abc", out), MT_E_FORMAT, "unfinished string");
    T_FAILS(t, scan_string(t, "\"abc\\", out), MT_E_FORMAT, "unfinished string");
    T_FAILS(t, scan_string(t, "\"abc\\\"", out), MT_E_FORMAT, "unfinished string");
    T_FAILS(t, scan_string(t, "\"a\nb\"", out), MT_E_FORMAT, "control character");
}

T_TEST(text_must_be_utf8)
{
    static const char *const bad[] = {"\"\x80\"",
                                      "\"\xc0\xaf\"",
                                      "\"\xe0\x80\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\xf4\x90\x80\x80\"",
                                      "\"\xff\"",
                                      "\"\xe4\xbd\"",
                                      "\xc3"};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        T_FAILS(t, scan_all(t, bad[i], strlen(bad[i])), MT_E_FORMAT, "not valid UTF-8");
    T_OK(t, scan_all(t, "\"\xf4\x8f\xbf\xbf\xee\x80\x80\"", 9));
}

T_TEST(depth_is_bounded)
{
    char text[200001];
    uint64_t before = mt_mem_peak(&t->ctx);

    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    T_OK(t, scan_all(t, text, 128));
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    T_FAILS(t, scan_all(t, text, 130), MT_E_FORMAT, "nested deeper than 64");
    memset(text, '[', sizeof text);
    T_FAILS(t, scan_all(t, text, sizeof text), MT_E_FORMAT, "nested deeper than 64");
    T_CHECK(t, mt_mem_peak(&t->ctx) == before);
}

/* Levels opened by the caller count like those that are skipped. */
T_TEST(depth_counts_from_the_outside)
{
    char text[200];
    struct mt_scan s;
    bool more;

    memset(text, '[', 66);
    T_OK(t, mt_scan_open(&t->ctx, &s, text, 66, "text", 0));
    T_OK(t, mt_scan_enter(&s, '['));
    T_OK(t, mt_scan_next(&s, ']', &more));
    T_FAILS(t, mt_scan_skip(&s, NULL), MT_E_FORMAT, "byte 64: nested deeper than 64");
    mt_scan_close(&s);
    for (int i = 0; i < 3 * 65; i++)
        text[i] = "[],"[i % 3];
    T_OK(t, mt_scan_open(&t->ctx, &s, text, 3 * 65, "text", 0));
    for (int i = 0; i < 65; i++) {
        T_OK(t, mt_scan_skip(&s, NULL));
        T_CHECK(t, s.depth == 0);
        s.p++;
    }
    mt_scan_close(&s);
}

T_TEST(failures_say_where)
{
    struct mt_scan s;

    T_FAILS(t, scan_all(t, "{\"a\":[1,2 3]}", 13), MT_E_FORMAT,
            "text: byte 10: expected ',' or ']'");
    T_FAILS(t, scan_all(t, "{}\0\0", 4), MT_E_FORMAT, "text: byte 2: a NUL byte where the end");
    T_FAILS(t, scan_all(t, "{} x", 4), MT_E_FORMAT, "text after the end");
    T_FAILS(t, scan_all(t, "{\"a\"", 4), MT_E_FORMAT, "the JSON ends, expected ':'");
    T_OK(t, mt_scan_open(&t->ctx, &s, "{\n\n \"a\" 1}", 10, "text", MT_SCAN_LINES));
    T_FAILS(t, mt_scan_skip(&s, NULL), MT_E_FORMAT, "text: line 3, column 6: expected ':'");
    mt_scan_close(&s);
}
