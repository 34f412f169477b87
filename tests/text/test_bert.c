#include "lib/text/bert.h"

#include "tests/t.h"

static const char lines[] =
    "[PAD]\n[UNK]\r\n[CLS]\n[SEP]\n\nthe\ncat\n##s\n,\nE\ncaf\n##\xC3\xA9\n##e";

static void encodes(struct t *t, const struct mt_tokenizer *k, const char *text, const char *want)
{
    char got[200] = "";
    struct mt_ids ids = {0};

    T_OK(t, mt_tokenizer_encode(&t->ctx, k, text, strlen(text), MT_ENCODE_SPECIAL, &ids));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i == 0 ? "" : " ",
                 (int)ids.v[i]);
    T_EQ_STR(t, got, want);
    mt_ids_free(&ids);
}

T_TEST(a_list_of_tokens_is_a_tokenizer)
{
    struct mt_tokenizer *k;
    const char *path = t_path(t, "vocab.txt");
    char *text;
    size_t n;

    t_write_file(t, path, lines, sizeof lines - 1);
    T_OK(t, mt_tokenizer_open_bert(&t->ctx, path, true, &k));
    T_EQ_INT(t, mt_tokenizer_vocab(k), 13);
    T_CHECK(t, mt_tokenizer_adds_bos(k));
    encodes(t, k, "The CATS, caf\xC3\xA9[SEP] E", "2 5 6 7 8 10 12 3 1 3");
    T_OK(t, mt_tokenizer_decode(&t->ctx, k, (const int32_t[]){2, 5, 6, 7, 8, 6, 3}, 7, true, &text,
                                &n));
    T_EQ_STR(t, text, "the cats, cat");
    mt_free(text);
    mt_tokenizer_free(k);
    T_OK(t, mt_tokenizer_open_bert(&t->ctx, path, false, &k));
    encodes(t, k, "The cats E caf\xC3\xA9", "2 1 6 7 9 10 11 3");
    mt_tokenizer_free(k);
}

T_TEST(without_special_tokens_nothing_is_put_around)
{
    struct mt_tokenizer *k;
    const char *path = t_path(t, "vocab.txt");

    t_write_file(t, path, "a\nb\n", 4);
    T_OK(t, mt_tokenizer_open_bert(&t->ctx, path, true, &k));
    T_CHECK(t, !mt_tokenizer_adds_bos(k));
    encodes(t, k, "a B", "0 1");
    mt_tokenizer_free(k);
}

T_TEST(what_is_no_list_of_tokens_is_refused)
{
    struct mt_tokenizer *k;
    const char *path = t_path(t, "vocab.txt");

    T_FAILS(t, mt_tokenizer_open_bert(&t->ctx, path, true, &k), MT_E_ABSENT, "vocab.txt");
    t_write_file(t, path, "\n\n", 2);
    T_FAILS(t, mt_tokenizer_open_bert(&t->ctx, path, true, &k), MT_E_FORMAT, "no tokens");
    t_write_file(t, path, "a\nb\na\n", 6);
    T_FAILS(t, mt_tokenizer_open_bert(&t->ctx, path, true, &k), MT_E_FORMAT, "has two ids");
    t_write_file(t, path, "a\n\xFF\n", 4);
    T_FAILS(t, mt_tokenizer_open_bert(&t->ctx, path, true, &k), MT_E_FORMAT, "line 2 is not UTF-8");
    T_CHECK(t, k == NULL);
}
