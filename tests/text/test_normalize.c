#include "lib/text/normalize.h"
#include "tests/t.h"

static void gives(struct t *t, const char *json, const char *in, const char *want)
{
    struct mt_normalizer m = {0};
    struct mt_text scratch[2] = {0};
    struct mt_json *j;
    const char *out;
    size_t n;

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_OK(t, mt_normalizer_open(&t->ctx, j, &m));
    mt_json_free(j);
    T_OK(t, mt_normalize(&t->ctx, &m, in, strlen(in), scratch, &out, &n));
    if (n != strlen(want) || memcmp(out, want, n) != 0)
        t_fail(t, __FILE__, __LINE__, "%s of \"%s\" is \"%.*s\"", json, in, (int)n, out);
    mt_normalizer_end(&m);
    mt_text_end(&scratch[0]);
    mt_text_end(&scratch[1]);
}

static void refuses(struct t *t, const char *json, mt_status st, const char *part)
{
    struct mt_normalizer m = {0};
    struct mt_json *j;

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_FAILS(t, mt_normalizer_open(&t->ctx, j, &m), st, part);
    mt_json_free(j);
    mt_normalizer_end(&m);
}

#define PREPEND "{\"type\":\"Prepend\",\"prepend\":\"_\"}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\"aa\"},\"content\":\"<a>\"}"
#define NFC "{\"type\":\"NFC\"}"
#define SEQ(x) "{\"type\":\"Sequence\",\"normalizers\":[" x "]}"

T_TEST(each_stage_does_its_work)
{
    gives(t, "null", "a", "a");
    gives(t, PREPEND, "a", "_a");
    gives(t, PREPEND, "_a", "__a");
    gives(t, PREPEND, "", "");
    gives(t, REPLACE, "aaaaa", "<a><a>a");
    gives(t, REPLACE, "xaaxax", "x<a>xax");
    gives(t, REPLACE, "a", "a");
    gives(t, SEQ(PREPEND "," REPLACE "," PREPEND), "aa", "__<a>");
    gives(t, SEQ(REPLACE "," SEQ(PREPEND)), "aa", "_<a>");
    gives(t, SEQ(""), "aa", "aa");
}

/* Rows of the standard's own test file, NormalizationTest.txt: source and NFC. */
T_TEST(nfc_composes_reorders_and_leaves_exclusions)
{
    gives(t, NFC, "plain \xC3\xA9", "plain \xC3\xA9");
    gives(t, NFC, "e\xCC\x81", "\xC3\xA9");
    gives(t, NFC, "\xE1\xB8\x8A\xCC\xA3", "\xE1\xB8\x8C\xCC\x87");         /* 1E0A 0323 */
    gives(t, NFC, "D\xCC\x87\xCC\xA3", "\xE1\xB8\x8C\xCC\x87");            /* 0044 0307 0323 */
    gives(t, NFC, "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"); /* Hangul */
    gives(t, NFC, "\xE2\x84\xAB", "\xC3\x85");                             /* Angstrom sign */
    gives(t, NFC, "\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC");             /* 0958: excluded */
    gives(t, NFC, "\xF0\x9D\x85\xA0", /* 1D160: excluded, decomposes into three */
          "\xF0\x9D\x85\x98\xF0\x9D\x85\xA5\xF0\x9D\x85\xAE");
    gives(t, SEQ(PREPEND "," NFC), "e\xCC\x81", "_\xC3\xA9");
}

/* Columns of the same file: source, NFC, NFD, NFKC, NFKD. */
T_TEST(four_forms_of_one_text)
{
    static const char *const rows[][5] = {
        /* 1E9B 0323: long s with dot above, dot below */
        {"\xE1\xBA\x9B\xCC\xA3", "\xE1\xBA\x9B\xCC\xA3", "\xC5\xBF\xCC\xA3\xCC\x87", "\xE1\xB9\xA9",
         "s\xCC\xA3\xCC\x87"},
        /* FB01: the ligature fi */
        {"\xEF\xAC\x81", "\xEF\xAC\x81", "\xEF\xAC\x81", "fi", "fi"},
        /* 00C5 */
        {"\xC3\x85", "\xC3\x85", "A\xCC\x8A", "\xC3\x85", "A\xCC\x8A"},
        /* 00BD: one half */
        {"\xC2\xBD", "\xC2\xBD", "\xC2\xBD",
         "1\xE2\x81\x84"
         "2",
         "1\xE2\x81\x84"
         "2"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gives(t, NFC, rows[i][0], rows[i][1]);
        gives(t, "{\"type\":\"NFD\"}", rows[i][0], rows[i][2]);
        gives(t, "{\"type\":\"NFKC\"}", rows[i][0], rows[i][3]);
        gives(t, "{\"type\":\"NFKD\"}", rows[i][0], rows[i][4]);
    }
}

T_TEST(case_marks_and_margins)
{
    gives(t, "{\"type\":\"Lowercase\"}", "A\xC3\x89\xC4\xB0Z", "a\xC3\xA9i\xCC\x87z");
    gives(t, "{\"type\":\"StripAccents\"}", "e\xCC\x81\xC3\xA9", "e\xC3\xA9");
    gives(t, "{\"type\":\"Strip\"}", " \t a b\xE3\x80\x80", "a b");
    gives(t, "{\"type\":\"Strip\",\"strip_left\":false}", "  a  ", "  a");
    gives(t, "{\"type\":\"Strip\",\"strip_right\":false}", "  a  ", "a  ");
    gives(t, "{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":false}", "  ", "  ");
    gives(t, "{\"type\":\"Strip\"}", "  ", "");
    gives(t, SEQ("{\"type\":\"Lowercase\"},{\"type\":\"Strip\"}," PREPEND), " A ", "_a");
}

#define REGEX(pattern)                                                                             \
    "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"" pattern "\"},\"content\":\"<>\"}"

T_TEST(a_regex_replaces_every_match)
{
    gives(t, REGEX("[ab]+"), "xaby a", "x<>y <>");
    gives(t, REGEX("\\\\s{2,}"), "a  b c\xE2\x80\x83 d", "a<>b c<>d");
    gives(t, REGEX("x*"), "axb", "<>a<>b<>");
    gives(t, REGEX("z"), "axb", "axb");
}

T_TEST(bert_cleans_spaces_strips_and_lowers)
{
    static const char bert[] = "{\"type\":\"BertNormalizer\",\"clean_text\":true,"
                               "\"handle_chinese_chars\":true,\"strip_accents\":null,"
                               "\"lowercase\":true}";
    static const char cased[] = "{\"type\":\"BertNormalizer\",\"lowercase\":false}";

    gives(t, bert, "H\xC3\xA9llo\tWorld\x01\xE2\x80\x8B\xEF\xBF\xBD!", "hello world!");
    gives(t, bert,
          "a\xE4\xB8\xAD\xE6\x96\x87"
          "b",
          "a \xE4\xB8\xAD  \xE6\x96\x87 b");
    gives(t, cased, "H\xC3\xA9llo\r\nW", "H\xC3\xA9llo  W");
    gives(t, "{\"type\":\"BertNormalizer\",\"strip_accents\":false}", "\xC3\x89", "\xC3\xA9");
    gives(t, "{\"type\":\"BertNormalizer\",\"lowercase\":false,\"strip_accents\":true}", "\xC3\x89",
          "E");
    gives(t, "{\"type\":\"BertNormalizer\",\"clean_text\":false,\"handle_chinese_chars\":false}",
          "\tA\xE4\xB8\xAD", "\ta\xE4\xB8\xAD");
}

T_TEST(what_is_not_known_is_refused_by_name)
{
    refuses(t, "{\"type\":\"Nmt\"}", MT_E_UNSUPPORTED, "normalizer \"Nmt\"");
    refuses(t, SEQ("{\"type\":\"Precompiled\"}"), MT_E_UNSUPPORTED, "normalizer \"Precompiled\"");
    refuses(t, "{\"type\":\"BertNormalizer\",\"lowercase\":1}", MT_E_FORMAT, "lowercase");
    refuses(t, "{\"type\":\"Strip\",\"left\":true}", MT_E_UNSUPPORTED, "\"left\"");
    refuses(t, "{\"type\":\"NFC\",\"x\":1}", MT_E_UNSUPPORTED, "field \"x\"");
    refuses(t, "{\"type\":\"Prepend\"}", MT_E_FORMAT, "\"prepend\" is missing");
    refuses(t, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}", MT_E_FORMAT,
            "regular expression");
    refuses(t, "{\"type\":\"Replace\",\"pattern\":\"a\",\"content\":\"\"}", MT_E_FORMAT,
            "\"pattern\"");
    refuses(t, "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"}",
            MT_E_UNSUPPORTED, "empty pattern");
    refuses(t, "{}", MT_E_FORMAT, "\"type\" is missing");
    refuses(t, "[]", MT_E_FORMAT, "not an object");
    refuses(t, "{\"type\":\"Sequence\"}", MT_E_FORMAT, "\"normalizers\" is not an array");
    refuses(t,
            SEQ(NFC "," NFC "," NFC "," NFC "," NFC "," NFC "," NFC "," NFC "," NFC "," NFC "," NFC
                    "," NFC "," NFC "," NFC "," NFC "," NFC "," NFC),
            MT_E_LIMIT, "more than 16");
}
