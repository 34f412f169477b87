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

T_TEST(what_is_not_known_is_refused_by_name)
{
    refuses(t, "{\"type\":\"Lowercase\"}", MT_E_UNSUPPORTED, "normalizer \"Lowercase\"");
    refuses(t, SEQ("{\"type\":\"NFKC\"}"), MT_E_UNSUPPORTED, "normalizer \"NFKC\"");
    refuses(t, "{\"type\":\"NFC\",\"x\":1}", MT_E_UNSUPPORTED, "field \"x\"");
    refuses(t, "{\"type\":\"Prepend\"}", MT_E_FORMAT, "\"prepend\" is missing");
    refuses(t, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}",
            MT_E_UNSUPPORTED, "Regex");
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
