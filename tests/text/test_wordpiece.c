#include "lib/text/wordpiece.h"

#include "tests/t.h"

static const char vocab[] = "\"[UNK]\":0,\"un\":1,\"##want\":2,\"##ed\":3,\"wa\":4,\"##ff\":5,"
                            "\"runn\":6,\"##ing\":7,\",\":8,\"##\xC3\xA9\":9,\"##e\":10";

/* Ids of a word, as text. */
static void gives(struct t *t, const char *options, const char *word, const char *want)
{
    char json[600], got[200] = "";
    struct mt_wordpiece m = {0};
    struct mt_text scratch = {0};
    struct mt_ids ids = {0};
    struct mt_json *j;

    snprintf(json, sizeof json, "{\"type\":\"WordPiece\",\"vocab\":{%s}%s}", vocab, options);
    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_OK(t, mt_wordpiece_open(&t->ctx, j, &m));
    mt_json_free(j);
    T_OK(t, mt_wordpiece_encode(&t->ctx, &m, &scratch, word, strlen(word), &ids));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i == 0 ? "" : " ",
                 (int)ids.v[i]);
    T_EQ_STR(t, got, want);
    mt_ids_free(&ids);
    mt_text_end(&scratch);
    mt_wordpiece_end(&m);
}

/* The example of the paper's own code. */
T_TEST(the_longest_piece_comes_first)
{
    gives(t, "", "unwanted", "1 2 3");
    gives(t, "", "running", "6 7");
    gives(t, "",
          "un\xC3\xA9"
          "ed",
          "1 9 3");
    gives(t, "", ",", "8");
}

T_TEST(a_word_is_covered_whole_or_unknown)
{
    gives(t, "", "unwantedX", "0");
    gives(t, "", "X", "0");
    gives(t, "", "ed", "0"); /* only inside words */
    gives(t, "", "un\xC3\xA8", "0");
    gives(t, ",\"max_input_chars_per_word\":8", "unwanted", "1 2 3");
    gives(t, ",\"max_input_chars_per_word\":7", "unwanted", "0");
    gives(t, ",\"max_input_chars_per_word\":3", "un\xC3\xA9", "1 9"); /* characters, not bytes */
    gives(t, ",\"unk_token\":\",\"", "X", "8");
    gives(t, ",\"continuing_subword_prefix\":\"\"", "unun", "1 1");
}

T_TEST(a_word_without_tokens_needs_the_unknown_token)
{
    static const char json[] = "{\"type\":\"WordPiece\",\"vocab\":{\"a\":0}}";
    struct mt_wordpiece m = {0};
    struct mt_text scratch = {0};
    struct mt_ids ids = {0};
    struct mt_json *j;

    T_OK(t, mt_json_parse(&t->ctx, json, strlen(json), "test", &j));
    T_OK(t, mt_wordpiece_open(&t->ctx, j, &m));
    mt_json_free(j);
    T_OK(t, mt_wordpiece_encode(&t->ctx, &m, &scratch, "a", 1, &ids));
    T_FAILS(t, mt_wordpiece_encode(&t->ctx, &m, &scratch, "ab", 2, &ids), MT_E_FORMAT,
            "unk_token is not in the vocabulary");
    T_EQ_INT(t, ids.n, 1);
    mt_ids_free(&ids);
    mt_text_end(&scratch);
    mt_wordpiece_end(&m);
}
