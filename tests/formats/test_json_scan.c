#include "formats/json_scan.h"

#include "lib/base/json.h"
#include "tests/t.h"

#include <stdlib.h>

static mt_status scan_all(struct t *t, const char *text, size_t n)
{
    struct mt_scan s;
    mt_status st = mt_scan_open(&t->ctx, &s, text, n, "text");

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
    mt_status st = mt_scan_open(&t->ctx, &s, text, strlen(text), "text");

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
    mt_status st = mt_scan_open(&t->ctx, &s, text, strlen(text), "text");

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

/* The tree parser of lib/base is an independent implementation of the same grammar (it also takes
 * NaN and Infinity, which stay out of these alphabets, and refuses duplicate keys). */
T_TEST(accepts_what_the_tree_parser_accepts)
{
    static const char *const pieces[] = {
        "{",    "}",    "[", "]",  ",", ":",  "\"a\"",   "\"b\"",   "1",        "-0", "1.5", "1e3",
        "true", "null", " ", "01", "-", "\"", "\\u0041", "\"\\n\"", "\xc3\xbc", "2.", "\t"};
    const size_t n_pieces = sizeof pieces / sizeof pieces[0];
    unsigned seed = 12345;
    int good = 0;

    for (int round = 0; round < 200000; round++) {
        char text[64] = "";
        struct mt_json *j;
        int n = 1 + (int)(seed % 7);
        for (int i = 0; i < n; i++) {
            seed = seed * 1103515245u + 12345u;
            strncat(text, pieces[(seed >> 16) % n_pieces], sizeof text - strlen(text) - 1);
        }
        mt_status tree = mt_json_parse(&t->ctx, text, strlen(text), "text", &j);
        if (tree == MT_OK)
            mt_json_free(j);
        if (tree != MT_OK && strstr(mt_error(&t->ctx), "twice") != NULL)
            continue;
        mt_status mine = scan_all(t, text, strlen(text));
        good += mine == MT_OK;
        if ((mine == MT_OK) != (tree == MT_OK))
            T_FAIL(t, "<%s>: scanner %d, tree %d (%s)", text, (int)mine, (int)tree,
                   mt_error(&t->ctx));
    }
    T_CHECK(t, good > 1000);
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

T_TEST(failures_say_where)
{
    T_FAILS(t, scan_all(t, "{\"a\":[1,2 3]}", 13), MT_E_FORMAT,
            "text: byte 10: not valid JSON: expected ',' or ']'");
    T_FAILS(t, scan_all(t, "{}\0\0", 4), MT_E_FORMAT, "text: byte 2: a NUL byte where the end");
    T_FAILS(t, scan_all(t, "{} x", 4), MT_E_FORMAT, "expected the end");
    T_FAILS(t, scan_all(t, "{\"a\"", 4), MT_E_FORMAT, "the JSON ends where ':'");
}

T_TEST(names_are_shown_on_one_line)
{
    char buf[MT_SHOW_BYTES], longer[400];

    T_EQ_STR(t, mt_show_name("a\x1b[31m\nb\x7f", buf), "a?[31m?b?");
    memset(longer, 'x', sizeof longer);
    mt_scan_show(longer, sizeof longer, buf);
    T_CHECK(t, strlen(buf) < MT_SHOW_BYTES && strcmp(buf + strlen(buf) - 4, "x...") == 0);
    /* A character is not cut in two, whether it begins at an even byte or an odd one. */
    for (size_t odd = 0; odd < 2; odd++) {
        for (size_t i = odd; i + 1 < sizeof longer; i += 2) {
            longer[i] = '\xc3';
            longer[i + 1] = '\xbc';
        }
        mt_scan_show(longer, sizeof longer - 2, buf);
        T_CHECK(t, (unsigned char)buf[strlen(buf) - 4] == 0xbc);
        longer[0] = 'x';
    }
}
