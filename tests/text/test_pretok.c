#include "lib/text/pretok.h"
#include "tests/t.h"

/* The pieces of `in`, joined by '|'. */
static void cuts(struct t *t, const char *json, const char *in, const char *want)
{
    struct mt_pretok p = {0};
    struct mt_pretok_work w = {0};
    struct mt_json *j;
    const struct mt_pieces *pieces;
    const char *text;
    char got[512] = "";

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_OK(t, mt_pretok_open(&t->ctx, j, &p));
    mt_json_free(j);
    T_OK(t, mt_pretok_run(&t->ctx, &p, &w, in, strlen(in), true, &text, &pieces));
    for (size_t i = 0; i < pieces->n; i++)
        if (pieces->v[i].n > 0)
            snprintf(got + strlen(got), sizeof got - strlen(got), "%s%.*s",
                     got[0] == '\0' ? "" : "|", (int)pieces->v[i].n, text + pieces->v[i].at);
    if (strcmp(got, want) != 0)
        t_fail(t, __FILE__, __LINE__, "%s cuts \"%s\" into \"%s\", wanted \"%s\"", json, in, got,
               want);
    mt_pretok_end(&p);
    mt_pretok_work_end(&w);
}

static void refuses(struct t *t, const char *json, mt_status st, const char *part)
{
    struct mt_pretok p = {0};
    struct mt_json *j;

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_FAILS(t, mt_pretok_open(&t->ctx, j, &p), st, part);
    mt_json_free(j);
    mt_pretok_end(&p);
}

#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"" behavior         \
    "\",\"invert\":" invert "}"
#define BYTES(prefix, regex)                                                                       \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":" prefix                                         \
    ",\"trim_offsets\":true,\"use_regex\":" regex "}"
#define META(scheme, split)                                                                        \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" scheme                   \
    "\",\"split\":" split "}"
#define SEQ(x) "{\"type\":\"Sequence\",\"pretokenizers\":[" x "]}"

/* The example of the reference library's documentation, and its mirror images. */
T_TEST(every_behavior_places_the_delimiter)
{
    cuts(t, SPLIT("-", "Removed", "false"), "the-final--countdown", "the|final|countdown");
    cuts(t, SPLIT("-", "Isolated", "false"), "the-final--countdown", "the|-|final|-|-|countdown");
    cuts(t, SPLIT("-", "MergedWithPrevious", "false"), "the-final--countdown",
         "the-|final-|-|countdown");
    cuts(t, SPLIT("-", "MergedWithNext", "false"), "the-final--countdown",
         "the|-final|-|-countdown");
    cuts(t, SPLIT("-", "Contiguous", "false"), "the-final--countdown", "the|-|final|--|countdown");
    cuts(t, SPLIT("-", "Removed", "true"), "a-b", "-");
    cuts(t, SPLIT("[a-z]+", "Removed", "true"), "a-bc", "a|bc");
    cuts(t, SPLIT("-", "Isolated", "true"), "a-b", "a|-|b");
    cuts(t, SPLIT("-", "MergedWithPrevious", "false"), "--a-", "-|-|a-");
    cuts(t, SPLIT("-", "MergedWithNext", "false"), "--a-", "-|-a|-");
}

T_TEST(gpt2_cuts_words_numbers_and_space)
{
    cuts(t, BYTES("false", "true"), "I've 12  cats!!\n", "I|'ve| 12| | cats|!!|\n");
    cuts(t, BYTES("true", "true"), "a", " a");
    cuts(t, BYTES("true", "true"), " a", " a");
    cuts(t, BYTES("false", "false"), "a b", "a b");
    cuts(t, "null", "a b", "a b");
    /* U+180E is not white space; U+2003 is. */
    cuts(t, BYTES("false", "true"),
         "a\xE1\xA0\x8E"
         "b",
         "a|\xE1\xA0\x8E|b");
    cuts(t, BYTES("false", "true"),
         "a\xE2\x80\x83\xE2\x80\x83"
         "b",
         "a|\xE2\x80\x83|\xE2\x80\x83|b");
}

T_TEST(bytes_are_mapped_only_when_a_stage_follows)
{
    cuts(t, SEQ(BYTES("false", "true") "," SPLIT("x", "Isolated", "false")), "a \xC3\xA9",
         "a|\xC4\xA0\xC3\x83\xC2\xA9");
    cuts(t, SEQ(SPLIT("x", "Isolated", "false") "," BYTES("true", "false")), "axb", " a| x| b");
    cuts(t, SEQ("{\"type\":\"Digits\",\"individual_digits\":true}"), "a12b", "a|1|2|b");
    cuts(t, "{\"type\":\"Digits\",\"individual_digits\":false}", "a12b3", "a|12|b|3");
}

T_TEST(metaspace_marks_and_splits)
{
    cuts(t, META("always", "true"), "a b  c", "_a|_b|_|_c");
    cuts(t, META("always", "false"), "a b", "_a_b");
    cuts(t, META("always", "false"), " a b", "_a_b");
    cuts(t, META("never", "true"), "a b", "a|_b");
    cuts(t, SEQ(SPLIT("x", "Isolated", "false") "," META("first", "false")), "axb", "_a|x|b");
    cuts(t, SEQ(SPLIT("x", "Isolated", "false") "," META("always", "false")), "axb", "_a|_x|_b");
    cuts(t, "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", "a b",
         "a|_b");
}

T_TEST(words_are_cut_as_bert_and_whitespace_do)
{
    static const char text[] = "Hey, don't  stop_it!?\n\xC2\xBFqu\xC3\xA9? a\xE2\x80\x8D$b";

    cuts(t, "{\"type\":\"BertPreTokenizer\"}", text,
         "Hey|,|don|'|t|stop|_|it|!|?|\xC2\xBF|qu\xC3\xA9|?|a\xE2\x80\x8D|$|b");
    cuts(t, "{\"type\":\"Whitespace\"}", text,
         "Hey|,|don|'|t|stop_it|!?|\xC2\xBF|qu\xC3\xA9|?|a\xE2\x80\x8D|$|b");
    cuts(t, "{\"type\":\"WhitespaceSplit\"}", text,
         "Hey,|don't|stop_it!?|\xC2\xBFqu\xC3\xA9?|a\xE2\x80\x8D$b");
    cuts(t, "{\"type\":\"Punctuation\"}", "a, b!!", "a|,| b|!|!");
    cuts(t, "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a, b!!", "a|,| b|!!");
    cuts(t, "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"-\"}", "-a--b", "a|b");
}

T_TEST(empty_matches_neither_loop_nor_lose_text)
{
    cuts(t, SPLIT("\\\\d*", "Isolated", "false"), "a12b", "a|12|b");
    cuts(t, SPLIT("x*", "Removed", "false"), "axxb", "a|b");
    cuts(t, SPLIT("(?=b)", "Isolated", "false"), "abab", "a|ba|b");
    cuts(t, SPLIT("$", "Isolated", "false"), "ab\ncd", "ab|\ncd");
    cuts(t, SPLIT("^", "Isolated", "false"), "ab\ncd", "ab\n|cd");
}

static void translates(struct t *t, const char *in, const char *want)
{
    struct mt_text out = {0};

    T_OK(t, mt_regex_translate(&t->ctx, in, &out));
    T_EQ_STR(t, out.s, want);
    mt_text_end(&out);
}

static void regex_refused(struct t *t, const char *in, const char *part)
{
    struct mt_text out = {0};

    T_FAILS(t, mt_regex_translate(&t->ctx, in, &out), MT_E_UNSUPPORTED, part);
    mt_text_end(&out);
}

T_TEST(what_means_something_else_elsewhere_is_refused)
{
    translates(t, "(?i:'s)|[^\\r\\n\\p{L}]?+\\p{N}{1,3}", "(?i:'s)|[^\\r\\n\\p{L}]?+\\p{N}{1,3}");
    translates(t, "\\u4e00[\\-\\]]", "\\x{4e00}[\\-\\]]");
    translates(t, "a{b", "a{b");
    translates(t, "\\p{Han}\\P{Lu}[\\p{L}]", "\\p{sc:Han}\\P{Lu}[\\p{L}]");
    regex_refused(t, "\\p{N}{1,3}+", "{1,3}+");
    regex_refused(t, "[a[b]]", "\"[\"");
    regex_refused(t, "[a&&b]", "&&");
    regex_refused(t, "[]a]", "]");
    regex_refused(t, "[\\S]", "\\S");
    regex_refused(t, "\\b", "\\b");
    regex_refused(t, "\\pL", "\\pL");
    regex_refused(t, "\\p{^L}", "\\p{");
    regex_refused(t, "\\h", "\\h");
    regex_refused(t, "(a)\\1", "\\1");
    regex_refused(t, "(?<n>a)", "(?<");
    regex_refused(t, "(?m)a", "(?m");
    regex_refused(t, "(*SKIP)", "(*");
    regex_refused(t, "a\\", "\\");
    regex_refused(t, "\\u12", "\\u");
}

T_TEST(bad_stages_are_refused_by_name)
{
    refuses(t, SPLIT("(", "Isolated", "false"), MT_E_FORMAT, "regular expression \"(\"");
    refuses(t, SPLIT("a", "Sideways", "false"), MT_E_UNSUPPORTED, "\"Sideways\"");
    refuses(t, SPLIT("", "Isolated", "false"), MT_E_UNSUPPORTED, "empty pattern");
    refuses(t, "{\"type\":\"UnicodeScripts\"}", MT_E_UNSUPPORTED,
            "pre_tokenizer \"UnicodeScripts\"");
    refuses(t, "{\"type\":\"Punctuation\",\"behavior\":\"Up\"}", MT_E_UNSUPPORTED, "\"Up\"");
    refuses(t, "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"ab\"}", MT_E_FORMAT,
            "one character");
    refuses(t, "{\"type\":\"BertPreTokenizer\",\"x\":1}", MT_E_UNSUPPORTED, "\"x\"");
    refuses(t, META("sometimes", "true"), MT_E_UNSUPPORTED, "\"sometimes\"");
    refuses(t, "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", MT_E_FORMAT, "one character");
    refuses(t, "{\"type\":\"Metaspace\",\"replacement\":\"\"}", MT_E_FORMAT, "one character");
    refuses(t, "{\"type\":\"Split\",\"behavior\":\"Isolated\"}", MT_E_FORMAT, "\"pattern\"");
    refuses(t, "{\"type\":\"Digits\",\"individual_digits\":3}", MT_E_FORMAT, "individual_digits");
}

/* A pattern that backtracks without end stops with a sentence. */
T_TEST(a_runaway_pattern_gives_up)
{
    static const char json[] = SPLIT("(a|aa)+[bc]", "Isolated", "false");
    struct mt_pretok p = {0};
    struct mt_pretok_work w = {0};
    struct mt_json *j;
    const struct mt_pieces *pieces;
    const char *text;
    char in[65];

    memset(in, 'a', 64);
    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_OK(t, mt_pretok_open(&t->ctx, j, &p));
    mt_json_free(j);
    T_FAILS(t, mt_pretok_run(&t->ctx, &p, &w, in, 64, true, &text, &pieces), MT_E_LIMIT, "gave up");
    mt_pretok_end(&p);
    mt_pretok_work_end(&w);
}
