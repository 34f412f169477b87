#include "lib/base/rng.h"
#include "lib/text/bpe.h"
#include "tests/t.h"

#include <stdlib.h>

/* --- an independent BPE: tokens are strings, every step looks at every pair --- */

#define NAIVE_MAX 64
struct naive {
    char merge[400][2][24];
    int n_merges;
};

static int naive_rank(const struct naive *m, const char *a, const char *b)
{
    for (int i = m->n_merges - 1; i >= 0; i--)
        if (strcmp(m->merge[i][0], a) == 0 && strcmp(m->merge[i][1], b) == 0)
            return i;
    return -1;
}

static int naive_encode(const struct naive *m, char word[NAIVE_MAX][24], int n)
{
    for (;;) {
        int best = -1, at = -1;
        for (int i = 0; i + 1 < n; i++) {
            int r = naive_rank(m, word[i], word[i + 1]);
            if (r >= 0 && (best < 0 || r < best)) {
                best = r;
                at = i;
            }
        }
        if (at < 0)
            return n;
        size_t n_left = strlen(word[at]);
        memcpy(word[at] + n_left, word[at + 1], sizeof word[0] - n_left);
        memmove(word[at + 1], word[at + 2], (size_t)(n - at - 2) * sizeof word[0]);
        n--;
    }
}

/* A random vocabulary over few letters, so that merges overlap and compete. */
static struct mt_json *random_model(struct mt_rng *rng, struct naive *m, int letters, int merges)
{
    struct mt_json *j = mt_json_new_object(), *vocab, *list;
    char token[300][24];
    int n = 0;

    mt_json_set_str(j, "type", "BPE");
    vocab = mt_json_set_object(j, "vocab");
    list = mt_json_set_array(j, "merges");
    for (; n < letters; n++) {
        snprintf(token[n], sizeof token[n], "%c", 'a' + n);
        mt_json_set_int(vocab, token[n], n);
    }
    m->n_merges = 0;
    while (m->n_merges < merges) {
        const char *a = token[mt_rng_below(rng, (uint64_t)n)];
        const char *b = token[mt_rng_below(rng, (uint64_t)n)];
        char joined[64];
        struct mt_json *pair;
        if (strlen(a) + strlen(b) >= 20)
            continue;
        snprintf(joined, sizeof joined, "%s%s", a, b);
        if (mt_json_get(vocab, joined) == NULL) {
            memcpy(token[n], joined, sizeof token[n]);
            mt_json_set_int(vocab, joined, n++);
        }
        snprintf(m->merge[m->n_merges][0], sizeof m->merge[0][0], "%s", a);
        snprintf(m->merge[m->n_merges++][1], sizeof m->merge[0][1], "%s", b);
        if (m->n_merges % 2 == 0) {
            pair = mt_json_new_array();
            mt_json_add_str(pair, a);
            mt_json_add_str(pair, b);
            mt_json_add(list, pair);
        } else {
            snprintf(joined, sizeof joined, "%s %s", a, b);
            mt_json_add_str(list, joined);
        }
    }
    return j;
}

T_TEST(merging_agrees_with_brute_force)
{
    struct mt_rng rng;
    static struct naive m;

    mt_rng_seed(&rng, 7, 0);
    for (int round = 0; round < 60; round++) {
        struct mt_json *j = random_model(&rng, &m, 2 + round % 4, 5 + 3 * round % 100);
        struct mt_bpe bpe = {0};
        struct mt_bpe_work w = {0};
        T_OK(t, mt_bpe_open(&t->ctx, j, &bpe));
        mt_json_free(j);
        for (int k = 0; k < 60; k++) {
            char text[NAIVE_MAX + 1] = "", word[NAIVE_MAX][24];
            int n = 1 + (int)mt_rng_below(&rng, NAIVE_MAX - 1), n_tokens;
            struct mt_ids ids = {0};
            for (int i = 0; i < n; i++) {
                text[i] = (char)('a' + mt_rng_below(&rng, (uint64_t)(2 + round % 4)));
                snprintf(word[i], sizeof word[i], "%c", text[i]);
            }
            n_tokens = naive_encode(&m, word, n);
            T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &w, text, (size_t)n, false, &ids));
            T_EQ_INT(t, ids.n, n_tokens);
            for (int i = 0; i < n_tokens; i++)
                T_EQ_INT(t, ids.v[i], mt_vocab_find(&bpe.vocab, word[i], strlen(word[i])));
            mt_ids_free(&ids);
        }
        mt_bpe_work_end(&w);
        mt_bpe_end(&bpe);
    }
}

/* The same vocabulary with scores instead of merges: the highest first, the leftmost of equals. */
T_TEST(scores_order_merges_too)
{
    static const char *const token[] = {"a", "b", "c", "ab", "bc", "abc", "aa", "cc"};
    static const uint32_t ranks[] = {9, 9, 9, 2, 1, 3, 2, UINT32_MAX};
    struct mt_bpe bpe = {.unk_id = -1};
    struct mt_bpe_work w = {0};
    struct mt_ids ids = {0};
    uint32_t *rank;

    for (int i = 0; i < 8; i++)
        T_OK(t, mt_vocab_add(&t->ctx, &bpe.vocab, token[i], strlen(token[i]), i));
    T_OK(t, mt_alloc(&t->ctx, 8, sizeof *rank, "ranks", &rank));
    memcpy(rank, ranks, sizeof ranks);
    T_OK(t, mt_bpe_from(&t->ctx, NULL, 0, rank, &bpe));
    /* bc before ab; then a+bc. aab: aa and ab are equals. cc may not be made. */
    T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &w, "abcaabcc", 8, false, &ids));
    T_EQ_INT(t, ids.n, 4);
    T_EQ_INT(t, ids.v[0], 5);
    T_EQ_INT(t, ids.v[1], 6);
    T_EQ_INT(t, ids.v[2], 4);
    T_EQ_INT(t, ids.v[3], 2);
    mt_ids_free(&ids);
    mt_bpe_work_end(&w);
    mt_bpe_end(&bpe);
}

/* --- unknown characters --- */

static void encodes(struct t *t, const char *model, const char *text, const char *want)
{
    struct mt_json *j;
    struct mt_bpe bpe = {0};
    struct mt_bpe_work w = {0};
    struct mt_ids ids = {0};
    char got[256] = "";

    T_OK(t, mt_json_parse(&t->ctx, model, strlen(model), "test", &j));
    T_OK(t, mt_bpe_open(&t->ctx, j, &bpe));
    mt_json_free(j);
    T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &w, text, strlen(text), false, &ids));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i == 0 ? "" : " ",
                 (int)ids.v[i]);
    if (strcmp(got, want) != 0)
        t_fail(t, __FILE__, __LINE__, "\"%s\" gives \"%s\", wanted \"%s\"", text, got, want);
    mt_ids_free(&ids);
    mt_bpe_work_end(&w);
    mt_bpe_end(&bpe);
}

T_TEST(affixes_mark_ends_and_insides_of_words)
{
    static const char suffix[] =
        "{\"type\":\"BPE\",\"unk_token\":\"?\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"?\":0,"
        "\"a\":1,\"b\":2,\"b</w>\":3,\"ab</w>\":4,\"ab\":5},\"merges\":[\"a b\",\"a b</w>\"]}";
    static const char prefix[] =
        "{\"type\":\"BPE\",\"unk_token\":\"?\",\"continuing_subword_prefix\":\"##\",\"vocab\":{"
        "\"?\":0,\"a\":1,\"##a\":2,\"##b\":3,\"ab\":4,\"##ab\":5},"
        "\"merges\":[\"##a ##b\",\"a ##b\"]}";

    encodes(t, suffix, "ab", "4");
    encodes(t, suffix, "abab", "5 4");
    encodes(t, suffix, "ba", "2 0"); /* "a" does not end words here */
    encodes(t, prefix, "ab", "4");
    encodes(t, prefix, "abab", "4 5");
    encodes(t, prefix, "ba", "0 2");
}

#define VOCAB "\"vocab\":{\"?\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"aa\":4},\"merges\":[\"a a\"]"

T_TEST(unknown_characters_fall_back_fuse_or_vanish)
{
    const char *e = "a\xC3\xA9"
                    "a",
               *u = "a\xC3\xBC\xC3\xBC"
                    "a"; /* U+00E9 has bytes, U+00FC not */

    encodes(t, "{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"?\"," VOCAB "}", e,
            "1 2 3 1");
    encodes(t, "{\"type\":\"BPE\",\"byte_fallback\":true,\"unk_token\":\"?\"," VOCAB "}", u,
            "1 0 0 1");
    encodes(t,
            "{\"type\":\"BPE\",\"byte_fallback\":true,\"fuse_unk\":true,\"unk_token\":\"?\"," VOCAB
            "}",
            u, "1 0 1");
    encodes(t, "{\"type\":\"BPE\",\"unk_token\":\"?\"," VOCAB "}", e, "1 0 1");
    encodes(t, "{\"type\":\"BPE\"," VOCAB "}", e, "4");
    encodes(t, "{" VOCAB "}", "aaa", "4 1");
}

T_TEST(ignore_merges_takes_a_whole_piece_that_is_a_token)
{
    static const char vocab[] = "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"abb\":3},\"merges\":[]}";
    char model[200];

    snprintf(model, sizeof model, "{\"type\":\"BPE\",\"ignore_merges\":true,%s", vocab);
    encodes(t, model, "abb", "3");
    encodes(t, model, "abba", "0 1 1 0");
    snprintf(model, sizeof model, "{\"type\":\"BPE\",\"ignore_merges\":false,%s", vocab);
    encodes(t, model, "abb", "0 1 1");
}

T_TEST(an_unknown_token_without_an_id_fails_only_when_needed)
{
    static const char model[] = "{\"unk_token\":\"no\",\"vocab\":{\"a\":0},\"merges\":[]}";
    struct mt_json *j;
    struct mt_bpe bpe = {0};
    struct mt_bpe_work w = {0};
    struct mt_ids ids = {0};

    T_OK(t, mt_json_parse(&t->ctx, model, strlen(model), "test", &j));
    T_OK(t, mt_bpe_open(&t->ctx, j, &bpe));
    mt_json_free(j);
    T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &w, "a", 1, false, &ids));
    T_FAILS(t, mt_bpe_encode(&t->ctx, &bpe, &w, "b", 1, false, &ids), MT_E_FORMAT, "unk_token");
    mt_ids_free(&ids);
    mt_bpe_work_end(&w);
    mt_bpe_end(&bpe);
}

/* --- cutting before U+2581, and the cache --- */

/* The same text through a model that may cut and one that may not gives the same ids. */
T_TEST(cutting_at_word_marks_changes_nothing)
{
    struct mt_json *j;
    struct mt_bpe bpe = {0};
    struct mt_bpe_work w = {0}, whole = {0};
    struct mt_rng rng;
    const char *path = t_data("tokenizers/hf/llama/tokenizer.json");
    static const char *const parts[] = {"\xE2\x96\x81",
                                        "\xE2\x96\x81\xE2\x96\x81",
                                        "the",
                                        "q",
                                        "\xE2\x82\xAC",
                                        "\xF0\x9F\x98\x80",
                                        "ing",
                                        "\n",
                                        "1"};

    if (path == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_json_read(&t->ctx, path, 64u << 20, &j));
    T_OK(t, mt_bpe_open(&t->ctx, mt_json_get(j, "model"), &bpe));
    mt_json_free(j);
    T_CHECK(t, bpe.breaks);
    mt_rng_seed(&rng, 3, 0);
    for (int round = 0; round < 2000; round++) {
        struct mt_text text = {0};
        struct mt_ids a = {0}, b = {0};
        for (uint64_t n = mt_rng_below(&rng, 40) + 1; n > 0; n--) {
            const char *p = parts[mt_rng_below(&rng, sizeof parts / sizeof *parts)];
            T_OK(t, mt_text_add(&t->ctx, &text, p, strlen(p)));
        }
        bpe.breaks = true;
        T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &w, text.s, text.n, false, &a));
        bpe.breaks = false;
        T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &whole, text.s, text.n, false, &b));
        T_CHECK(t, a.n == b.n && memcmp(a.v, b.v, a.n * sizeof *a.v) == 0);
        mt_ids_free(&a);
        mt_ids_free(&b);
        mt_text_end(&text);
    }
    mt_bpe_work_end(&w);
    mt_bpe_work_end(&whole);
    mt_bpe_end(&bpe);
}

T_TEST(a_merge_across_a_word_mark_forbids_cutting)
{
    static const char crossing[] = "{\"vocab\":{\"a\":0,\"\xE2\x96\x81\":1,\"a\xE2\x96\x81\":2},"
                                   "\"merges\":[\"a \xE2\x96\x81\"]}";
    struct mt_json *j;
    struct mt_bpe bpe = {0};

    T_OK(t, mt_json_parse(&t->ctx, crossing, strlen(crossing), "test", &j));
    T_OK(t, mt_bpe_open(&t->ctx, j, &bpe));
    T_CHECK(t, !bpe.breaks);
    mt_json_free(j);
    mt_bpe_end(&bpe);
    encodes(t, crossing,
            "aa\xE2\x96\x81"
            "a",
            "0 2 0");
}

/* More distinct words than the cache holds, twice: the second pass meets a cache that has been
 * emptied in between, and a fresh one must agree with it. */
T_TEST(a_full_cache_changes_nothing)
{
    static const char model[] = "{\"vocab\":{\"0\":0,\"1\":1,\"2\":2,\"3\":3,\"01\":4,\"23\":5,"
                                "\"0123\":6},\"merges\":[\"0 1\",\"2 3\",\"01 23\"]}";
    struct mt_json *j;
    struct mt_bpe bpe = {0};
    struct mt_bpe_work w = {0};
    size_t sum[2] = {0};

    T_OK(t, mt_json_parse(&t->ctx, model, strlen(model), "test", &j));
    T_OK(t, mt_bpe_open(&t->ctx, j, &bpe));
    mt_json_free(j);
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < 50000; i++) {
            char s[16];
            struct mt_ids ids = {0}, fresh = {0};
            struct mt_bpe_work none = {0};
            for (int k = 0; k < 9; k++)
                s[k] = (char)('0' + (i >> 2 * k & 3));
            T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &w, s, 9, false, &ids));
            for (size_t k = 0; k < ids.n; k++)
                sum[pass] = sum[pass] * 31 + (size_t)ids.v[k];
            if (i % 997 == 0) {
                T_OK(t, mt_bpe_encode(&t->ctx, &bpe, &none, s, 9, false, &fresh));
                T_CHECK(t, fresh.n == ids.n && memcmp(fresh.v, ids.v, ids.n * sizeof(int)) == 0);
            }
            mt_ids_free(&ids);
            mt_ids_free(&fresh);
            mt_bpe_work_end(&none);
        }
    }
    T_CHECK(t, sum[0] == sum[1]);
    mt_bpe_work_end(&w);
    mt_bpe_end(&bpe);
}

T_TEST(the_byte_alphabet_is_a_bijection)
{
    int seen = 0;

    for (int b = 0; b < 256; b++)
        T_EQ_INT(t, mt_char_byte(mt_byte_char((unsigned char)b)), b);
    for (uint32_t c = 0; c < 0x3000; c++)
        seen += mt_char_byte(c) >= 0;
    T_EQ_INT(t, seen, 256);
    T_EQ_INT(t, mt_byte_char(' '), 0x120);
    T_EQ_INT(t, mt_byte_char('\n'), 0x10A);
    T_EQ_INT(t, mt_byte_char(0xAD), 0x143);
}
