#include "lib/text/decode.h"
#include "tests/t.h"

/* Tokens are given NULL-ended; the result's pieces are joined. */
static void gives(struct t *t, const char *json, const char *const *tokens, const char *want)
{
    struct mt_decoder d = {0};
    struct mt_text text[2] = {0}, got = {0};
    struct mt_pieces pieces[2] = {0};
    struct mt_json *j;
    int now;

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_OK(t, mt_decoder_open(&t->ctx, j, &d));
    mt_json_free(j);
    for (; *tokens != NULL; tokens++) {
        T_OK(t, mt_pieces_push(&t->ctx, &pieces[0], text[0].n, strlen(*tokens), false));
        T_OK(t, mt_text_add(&t->ctx, &text[0], *tokens, strlen(*tokens)));
    }
    T_OK(t, mt_decoder_run(&t->ctx, &d, text, pieces, &now));
    for (size_t i = 0; i < pieces[now].n; i++)
        T_OK(t, mt_text_add(&t->ctx, &got, text[now].s + pieces[now].v[i].at, pieces[now].v[i].n));
    T_OK(t, mt_text_add(&t->ctx, &got, "", 1));
    if (strcmp(got.s, want) != 0)
        t_fail(t, __FILE__, __LINE__, "%s gives \"%s\", wanted \"%s\"", json, got.s, want);
    mt_text_end(&got);
    for (int i = 0; i < 2; i++) {
        mt_text_end(&text[i]);
        mt_pieces_end(&pieces[i]);
    }
    mt_decoder_end(&d);
}

#define GIVES(json, want, ...) gives(t, json, (const char *const[]){__VA_ARGS__, NULL}, want)
#define SEQ(x) "{\"type\":\"Sequence\",\"decoders\":[" x "]}"
#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" \"}"
#define FALLBACK "{\"type\":\"ByteFallback\"}"
#define FUSE "{\"type\":\"Fuse\"}"
#define STRIP "{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1}"

T_TEST(each_stage_does_its_work)
{
    GIVES("null", "a b c", "a", "b", "c");
    GIVES("{\"type\":\"ByteLevel\"}", " a\n",
          "\xC4\xA0"
          "a",
          "\xC4\x8A");
    GIVES("{\"type\":\"ByteLevel\"}", "\xC3\xA9", "\xC3\x83", "\xC2\xA9");
    /* A token with a character outside of the alphabet is its own text. */
    GIVES("{\"type\":\"ByteLevel\"}", "\xE2\x96\x81\xC4\xA0 a", "\xE2\x96\x81\xC4\xA0",
          "\xC4\xA0"
          "a");
    GIVES(REPLACE, " a b", "_a", "_b");
    GIVES(FALLBACK, "x\xC3\xA9y", "x", "<0xC3>", "<0xa9>", "y");
    GIVES(FALLBACK, "<0xG0><0x1>", "<0xG0>", "<0x1>");
    GIVES(FALLBACK, "\xC3", "<0xC3>"); /* cut inside a character: the byte stays */
    GIVES(STRIP, "ab", " a ", "b ");
    GIVES(STRIP, " a", "  a");
    GIVES(STRIP, "", " ", "");
    GIVES(SEQ(FUSE "," STRIP), "a b", " a ", "b ");
    GIVES(SEQ(REPLACE "," FALLBACK "," FUSE "," STRIP), "a \xC3\xA9", "_a", "_", "<0xC3>",
          "<0xA9>");
}

T_TEST(metaspace_drops_the_marks_of_the_first_token)
{
    GIVES("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}", "a b c",
          "_a", "_b_c");
    GIVES("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\"}", " a b",
          "_a", "_b");
    GIVES("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", " a", "_a");
}

T_TEST(wordpiece_joins_words_and_cleans_up)
{
    static const char json[] = "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}";
    static const char raw[] = "{\"type\":\"WordPiece\",\"cleanup\":false}";

    GIVES(json, "the embedding isn't it, is it?", "the", "em", "##bed", "##ding", "is", "n't", "it",
          ",", "is", "it", "?");
    GIVES(raw, "a , b##c##", "a", ",", "b##c", "####");
    GIVES(json, "##a b", "##a", "b"); /* the first token keeps its marks */
    GIVES(json, "you don't", "you", "do not");
}

T_TEST(a_suffix_ends_a_word)
{
    GIVES("{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}", "a photo of", "a</w>", "pho", "to</w>",
          "of</w>");
}

static void refuses(struct t *t, const char *json, mt_status st, const char *part)
{
    struct mt_decoder d = {0};
    struct mt_json *j;

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_FAILS(t, mt_decoder_open(&t->ctx, j, &d), st, part);
    mt_json_free(j);
    mt_decoder_end(&d);
}

T_TEST(nonsense_is_refused)
{
    refuses(t, "{\"type\":\"CTC\"}", MT_E_UNSUPPORTED, "decoder \"CTC\"");
    refuses(t, "{\"type\":\"BPEDecoder\",\"suffix\":\"\"}", MT_E_UNSUPPORTED, "empty suffix");
    refuses(t, "{\"type\":\"Fuse\",\"x\":1}", MT_E_UNSUPPORTED, "\"x\"");
    refuses(t, "{\"type\":\"Strip\",\"content\":\"\",\"start\":1,\"stop\":0}", MT_E_FORMAT,
            "empty content");
    refuses(t, "{\"type\":\"Strip\",\"content\":\"a\",\"start\":-1,\"stop\":0}", MT_E_FORMAT,
            "negative");
    refuses(t, "{\"type\":\"Metaspace\",\"replacement\":\"\"}", MT_E_FORMAT, "one character");
    refuses(t, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":\"\"}",
            MT_E_UNSUPPORTED, "Regex");
    refuses(t, "3", MT_E_FORMAT, "not an object");
}
