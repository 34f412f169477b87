#include "lib/text/tokenizer.h"

#include "lib/base/json.h"
#include "lib/base/pool.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>
#include <time.h>

static void ids_equal(struct t *t, const char *what, const struct mt_ids *got, const int32_t *want,
                      size_t n)
{
    for (size_t i = 0; i < got->n && i < n; i++)
        if (got->v[i] != want[i]) {
            t_fail(t, __FILE__, __LINE__, "%s: id %zu is %d, wanted %d", what, i, (int)got->v[i],
                   (int)want[i]);
            return;
        }
    if (got->n != n)
        t_fail(t, __FILE__, __LINE__, "%s: %zu ids, wanted %zu", what, got->n, n);
}

/* --- golden ids of models --- */

/* `before`: put in front because the model was run so; -1: nothing. */
static void golden_text(struct t *t, const struct mt_tokenizer *k, const struct mt_json *g,
                        int32_t before, const char *what)
{
    const char *text = mt_json_text(mt_json_get(g, "text"));
    struct mt_ids got = {0}, want = {0};

    T_CHECK(t, text != NULL);
    if (before >= 0)
        T_OK(t, mt_ids_push(&t->ctx, &got, before));
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, text, strlen(text), MT_ENCODE_SPECIAL, &got));
    for (const struct mt_json *j = mt_json_first(mt_json_get(g, "ids")); j != NULL;
         j = mt_json_next(j)) {
        int64_t id;
        T_CHECK(t, mt_json_integer(j, &id));
        T_OK(t, mt_ids_push(&t->ctx, &want, (int32_t)id));
    }
    T_CHECK(t, want.n > 0);
    ids_equal(t, what, &got, want.v, want.n);
    mt_ids_free(&got);
    mt_ids_free(&want);
}

static void golden_model(struct t *t, const char *model, const char *file, int32_t before)
{
    char path[200];
    struct mt_tokenizer *k;
    struct mt_json *root;
    const char *p;

    snprintf(path, sizeof path, "models/%s/tokenizer.json", model);
    p = t_data(path);
    if (p == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_open(&t->ctx, p, &k));
    snprintf(path, sizeof path, "models/%s/%s", model, file);
    p = t_data(path);
    T_CHECK(t, p != NULL);
    T_OK(t, mt_json_read(&t->ctx, p, 256u << 20, &root));
    if (mt_json_kind(root) == MT_JSON_ARRAY)
        for (const struct mt_json *g = mt_json_first(root); g != NULL; g = mt_json_next(g))
            golden_text(t, k, g, before, model);
    else
        golden_text(t, k, root, before, model);
    mt_json_free(root);
    mt_tokenizer_free(k);
}

T_TEST(golden_ids_of_every_model)
{
    golden_model(t, "tinymix-dense", "golden.json", 0);
    golden_model(t, "tinymix-moe", "golden.json", 0);
    golden_model(t, "stories260K", "golden_fp32.json", -1);
    golden_model(t, "stories3M", "golden_fp32.json", -1);
    golden_model(t, "zh-poem", "golden_fp32.json", -1);
}

T_TEST(golden_ids_of_the_model_that_ships)
{
    const char *p = t_shipped("tinymix-dense/tokenizer.json");
    struct mt_tokenizer *k;
    struct mt_json *root;

    if (p == NULL)
        T_SKIP(t, "tests/data holds no model");
    T_OK(t, mt_tokenizer_open(&t->ctx, p, &k));
    T_OK(t, mt_json_read(&t->ctx, t_shipped("tinymix-dense/golden.json"), 256u << 20, &root));
    for (const struct mt_json *g = mt_json_first(root); g != NULL; g = mt_json_next(g))
        golden_text(t, k, g, 0, p);
    mt_json_free(root);
    mt_tokenizer_free(k);
}

/* --- the vectors of llama.cpp: 47 strings each --- */

static void vectors(struct t *t, const char *tokenizer, const char *vocab)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[200];
    struct mt_tokenizer *k;
    size_t n_in, n_out;
    char *in, *out, *p, *line;
    int n = 0;

    if (t_data(tokenizer) == NULL)
        T_SKIP(t, "no shared data");
    if (strstr(tokenizer, "vocab.txt") != NULL)
        T_OK(t, mt_tokenizer_open_bert(&t->ctx, t_data(tokenizer), true, &k));
    else
        T_OK(t, mt_tokenizer_open(&t->ctx, t_data(tokenizer), &k));
    snprintf(path, sizeof path, "tokenizers/llama.cpp/%s.inp", vocab);
    in = t_read_file(t_data(path), &n_in);
    snprintf(path, sizeof path, "tokenizers/llama.cpp/%s.out", vocab);
    out = t_read_file(t_data(path), &n_out);
    T_CHECK(t, in != NULL && out != NULL);
    p = in;
    line = out;
    for (char *end; (end = strstr(p, mark)) != NULL; p = end + strlen(mark)) {
        struct mt_ids got = {0};
        int32_t want[400];
        size_t n_want = 0;
        char what[200];
        for (char *nl = strchr(line, '\n'); line < nl; n_want++) {
            want[n_want] = (int32_t)strtol(line, &line, 10);
            while (*line == ' ')
                line++;
        }
        line++;
        T_OK(t, mt_tokenizer_encode(&t->ctx, k, p, (size_t)(end - p), 0, &got));
        snprintf(what, sizeof what, "%s, text %d (\"%.*s\")", vocab, n++, (int)(end - p), p);
        ids_equal(t, what, &got, want, n_want);
        mt_ids_free(&got);
    }
    T_EQ_INT(t, n, 46);
    free(in);
    free(out);
    mt_tokenizer_free(k);
}

T_TEST(gpt2_agrees_with_llama_cpp)
{
    vectors(t, "tokenizers/hf/gpt2/tokenizer.json", "ggml-vocab-gpt-2.gguf");
}

T_TEST(llama2_agrees_with_llama_cpp)
{
    vectors(t, "tokenizers/hf/llama/tokenizer.json", "ggml-vocab-llama-spm.gguf");
}

T_TEST(bert_agrees_with_llama_cpp)
{
    vectors(t, "tokenizers/bert/vocab.txt", "ggml-vocab-bert-bge.gguf");
}

/* --- round trips --- */

static const char small[] =
    "{\"version\":\"1.0\",\"truncation\":{\"max_length\":2},\"padding\":null,"
    "\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true,\"normalized\":false}],"
    "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":["
    "{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]"
    ","
    "\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[3],\"tokens\":[\"<s>\"]}}},"
    "\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"<\":4,\"s\":5,\">\":6},"
    "\"merges\":[\"a b\"]}}";

T_TEST(flags_choose_what_special_tokens_do)
{
    struct mt_tokenizer *k;
    struct mt_ids ids = {0};
    char *text;
    size_t n;

    T_OK(t, mt_tokenizer_parse(&t->ctx, small, strlen(small), "small", &k));
    T_CHECK(t, mt_tokenizer_adds_bos(k));
    T_EQ_INT(t, mt_tokenizer_vocab(k), 7);
    T_EQ_INT(t, mt_tokenizer_find(k, "<s>"), 3);
    T_EQ_INT(t, mt_tokenizer_find(k, "ab"), 2);
    T_EQ_INT(t, mt_tokenizer_find(k, "abb"), -1);
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "ab<s>b", 6, 0, &ids));
    ids_equal(t, "plain", &ids, (const int32_t[]){2, 3, 1}, 3);
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "a", 1, MT_ENCODE_SPECIAL, &ids));
    ids_equal(t, "appended", &ids, (const int32_t[]){2, 3, 1, 3, 0}, 5);
    T_OK(t, mt_tokenizer_decode(&t->ctx, k, ids.v, ids.n, false, &text, &n));
    T_EQ_STR(t, text, "ab<s>b<s>a");
    mt_free(text);
    T_OK(t, mt_tokenizer_decode(&t->ctx, k, ids.v, ids.n, true, &text, &n));
    T_EQ_STR(t, text, "abba");
    mt_free(text);
    ids.n = 0;
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "<s>", 3, MT_ENCODE_NO_ADDED, &ids));
    ids_equal(t, "as text", &ids, (const int32_t[]){4, 5, 6}, 3);
    /* Ids without a token have no text. */
    T_OK(t, mt_tokenizer_decode(&t->ctx, k, (const int32_t[]){-1, 99, 0, INT32_MAX}, 4, false,
                                &text, &n));
    T_EQ_STR(t, text, "a");
    mt_free(text);
    T_OK(t, mt_tokenizer_decode(&t->ctx, k, NULL, 0, false, &text, &n));
    T_EQ_STR(t, text, "");
    mt_free(text);
    mt_ids_free(&ids);
    mt_tokenizer_free(k);
}

/* Byte-level text comes back whole, also when the ids are cut anywhere and decoded apart. */
T_TEST(random_text_survives_encode_and_decode)
{
    const char *p = t_data("tokenizers/hf/gpt2/tokenizer.json");
    struct mt_tokenizer *k;
    struct mt_rng rng;

    if (p == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_open(&t->ctx, p, &k));
    mt_rng_seed(&rng, 11, 0);
    for (int round = 0; round < 3000; round++) {
        char text[400], *a, *b;
        size_t n = 0, na, nb, cut;
        struct mt_ids ids = {0};
        for (uint64_t i = mt_rng_below(&rng, 80); i > 0; i--) {
            uint32_t c = (uint32_t)mt_rng_below(&rng, round % 3 == 0 ? 0x110000 : 0x3000);
            if (c >= 0xD800 && c < 0xE000)
                c = ' ';
            char *o = text + n;
            n += c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
            if (c < 0x80) {
                *o = (char)c;
                continue;
            }
            for (char *q = text + n - 1; q > o; q--, c >>= 6)
                *q = (char)(0x80 | (c & 0x3F));
            *o = (char)((text + n - o == 2 ? 0xC0 : text + n - o == 3 ? 0xE0 : 0xF0) | c);
        }
        T_OK(t, mt_tokenizer_encode(&t->ctx, k, text, n, MT_ENCODE_NO_ADDED, &ids));
        cut = mt_rng_below(&rng, ids.n + 1);
        T_OK(t, mt_tokenizer_decode(&t->ctx, k, ids.v, cut, false, &a, &na));
        T_OK(t, mt_tokenizer_decode(&t->ctx, k, ids.v + cut, ids.n - cut, false, &b, &nb));
        T_EQ_INT(t, na + nb, n);
        T_CHECK(t, memcmp(a, text, na) == 0 && memcmp(b, text + na, nb) == 0);
        mt_free(a);
        mt_free(b);
        mt_ids_free(&ids);
    }
    mt_tokenizer_free(k);
}

T_TEST(invalid_utf8_is_read_as_replacement_characters)
{
    const char *p = t_data("tokenizers/hf/gpt2/tokenizer.json");
    struct mt_tokenizer *k;
    struct mt_ids a = {0}, b = {0};

    if (p == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_open(&t->ctx, p, &k));
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "a\xFF \xE2\x82 z", 7, 0, &a));
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "a\xEF\xBF\xBD \xEF\xBF\xBD z", 10, 0, &b));
    ids_equal(t, "repaired", &a, b.v, b.n);
    mt_ids_free(&a);
    mt_ids_free(&b);
    mt_tokenizer_free(k);
}

/* --- size --- */

static double seconds(void)
{
    struct timespec s;

    clock_gettime(CLOCK_MONOTONIC, &s);
    return (double)s.tv_sec + 1e-9 * (double)s.tv_nsec;
}

static void one_long_word(struct t *t, const char *tokenizer, bool random)
{
    size_t n = (size_t)1 << 20, len;
    const char *p = t_data(tokenizer);
    struct mt_tokenizer *k;
    struct mt_ids ids = {0};
    struct mt_rng rng;
    char *text, *back;
    double t0;

    if (p == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_open(&t->ctx, p, &k));
    T_OK(t, mt_alloc(&t->ctx, n, 1, "word", &text));
    mt_rng_seed(&rng, 5, 0);
    for (size_t i = 0; i < n; i++)
        text[i] = random ? (char)('a' + mt_rng_below(&rng, 26)) : 'a';
    t0 = seconds();
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, text, n, 0, &ids));
    /* About 0.2 s here; a quadratic merge would take hours. */
    T_CHECK(t, seconds() - t0 < 30);
    T_OK(t, mt_tokenizer_decode(&t->ctx, k, ids.v, ids.n, false, &back, &len));
    T_EQ_INT(t, len, n);
    T_CHECK(t, memcmp(text, back, n) == 0);
    mt_free(back);
    mt_free(text);
    mt_ids_free(&ids);
    mt_tokenizer_free(k);
}

T_TEST(a_word_of_one_mebibyte_takes_no_time)
{
    one_long_word(t, "tokenizers/hf/gpt2/tokenizer.json", false);
    one_long_word(t, "tokenizers/hf/gpt2/tokenizer.json", true);
    one_long_word(t, "tokenizers/hf/llama/tokenizer.json", false);
    one_long_word(t, "tokenizers/hf/llama/tokenizer.json", true);
}

/* --- threads --- */

struct crowd {
    const struct mt_tokenizer *k;
    struct mt_ids ids[64];
};

static mt_status crowd_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct crowd *c = arg;
    char text[100];

    for (int round = 0; round < 50; round++) {
        int n = snprintf(text, sizeof text, "Number %d times %d, of course.", (int)i % 7, round);
        mt_status st = mt_tokenizer_encode(ctx, c->k, text, (size_t)n, 0, &c->ids[i]);
        if (st != MT_OK)
            return st;
    }
    return MT_OK;
}

T_TEST(many_threads_share_one_tokenizer)
{
    const char *p = t_data("models/tinymix-dense/tokenizer.json");
    struct mt_tokenizer *k;
    struct crowd c = {0};

    if (p == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_open(&t->ctx, p, &k));
    c.k = k;
    T_OK(t, mt_pool_run(&t->ctx, 64, crowd_job, &c));
    for (int i = 7; i < 64; i++)
        ids_equal(t, "crowd", &c.ids[i], c.ids[i % 7].v, c.ids[i % 7].n);
    for (int i = 0; i < 64; i++)
        mt_ids_free(&c.ids[i]);
    mt_tokenizer_free(k);
}

/* --- hostile files --- */

static void refuses(struct t *t, const char *json, mt_status st, const char *part)
{
    struct mt_tokenizer *k;

    T_FAILS(t, mt_tokenizer_parse(&t->ctx, json, strlen(json), "tokenizer.json", &k), st, part);
    T_CHECK(t, strchr(mt_error(&t->ctx), '\n') == NULL);
    T_CHECK(t, strncmp(mt_error(&t->ctx), "tokenizer.json: ", 16) == 0);
}

#define MODEL(vocab, merges)                                                                       \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}}"
#define WITH(more)                                                                                 \
    "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}," more "}"

T_TEST(models_that_make_no_sense_are_refused)
{
    refuses(t, "", MT_E_FORMAT, "");
    refuses(t, "[]", MT_E_FORMAT, "not an object");
    refuses(t, "{}", MT_E_FORMAT, "\"model\" is missing");
    refuses(t, "{\"model\":3}", MT_E_FORMAT, "\"model\"");
    refuses(t, "{\"model\":{}}", MT_E_FORMAT, "no \"type\"");
    refuses(t, "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", MT_E_UNSUPPORTED,
            "model type \"Unigram\" is not supported");
    refuses(t, "{\"model\":{\"type\":\"WordPiece\"}}", MT_E_FORMAT, "\"vocab\"");
    refuses(t, "{\"model\":{\"type\":\"WordLevel\"}}", MT_E_UNSUPPORTED, "\"WordLevel\"");
    refuses(t, "{\"model\":{\"type\":\"BPE\"}}", MT_E_FORMAT, "\"vocab\"");
    refuses(t, MODEL("[]", "[]"), MT_E_FORMAT, "\"vocab\"");
    refuses(t, MODEL("{\"a\":0}", "{}"), MT_E_FORMAT, "\"merges\"");
    refuses(t, MODEL("{\"a\":\"0\"}", "[]"), MT_E_FORMAT, "not an integer");
    refuses(t, MODEL("{\"a\":0.5}", "[]"), MT_E_FORMAT, "not an integer");
    refuses(t, MODEL("{\"a\":-1}", "[]"), MT_E_FORMAT, "id -1 is outside");
    refuses(t, MODEL("{\"a\":4294967296}", "[]"), MT_E_FORMAT, "outside");
    refuses(t, MODEL("{\"a\":1e300}", "[]"), MT_E_FORMAT, "integer");
    refuses(t, MODEL("{\"a\":1,\"b\":1}", "[]"), MT_E_FORMAT, "two tokens");
    refuses(t, MODEL("{\"a\":1,\"a\":2}", "[]"), MT_E_FORMAT, "a");
    refuses(t, MODEL("{\"a\":1}", "[\"a b\"]"), MT_E_FORMAT, "\"b\", which is not in");
    refuses(t, MODEL("{\"a\":1,\"b\":2}", "[\"a b\"]"), MT_E_FORMAT, "makes \"ab\"");
    refuses(t, MODEL("{\"a\":1}", "[\"aa\"]"), MT_E_FORMAT, "not two tokens");
    refuses(t, MODEL("{\"a\":1}", "[\"a a a\"]"), MT_E_FORMAT, "not two tokens");
    refuses(t, MODEL("{\"a\":1}", "[[\"a\"]]"), MT_E_FORMAT, "not a pair");
    refuses(t, MODEL("{\"a\":1}", "[[\"a\",\"a\",\"a\"]]"), MT_E_FORMAT, "not a pair");
    refuses(t, MODEL("{\"a\":1}", "[[\"a\",1]]"), MT_E_FORMAT, "not a pair");
    refuses(t, MODEL("{\"a\":1}", "[[]]"), MT_E_FORMAT, "not a pair");
    refuses(t, MODEL("{\"a\":1}", "[null]"), MT_E_FORMAT, "not a pair");
    /* Merging with nothing would go on for ever. */
    refuses(t, MODEL("{\"a\":1,\"\":2}", "[[\"a\",\"\"]]"), MT_E_FORMAT, "makes \"a\"");
    refuses(t, MODEL("{\"a\":1,\"\":2}", "[[\"\",\"\"]]"), MT_E_FORMAT, "makes \"\"");
}

T_TEST(parts_that_make_no_sense_are_refused)
{
    refuses(t, WITH("\"odd\":1"), MT_E_UNSUPPORTED, "field \"odd\"");
    refuses(t, WITH("\"o\\nd\\u001bd\":1"), MT_E_UNSUPPORTED, "field \"o?d?d\"");
    refuses(t, WITH("\"version\":\"2.0\""), MT_E_UNSUPPORTED, "version \"2.0\"");
    refuses(t, WITH("\"version\":2"), MT_E_FORMAT, "version");
    refuses(t, WITH("\"normalizer\":{\"type\":\"Bert\"}"), MT_E_UNSUPPORTED, "\"Bert\"");
    refuses(t, WITH("\"normalizer\":7"), MT_E_FORMAT, "normalizer");
    refuses(t, WITH("\"pre_tokenizer\":[]"), MT_E_FORMAT, "pre_tokenizer");
    refuses(t, WITH("\"decoder\":\"x\""), MT_E_FORMAT, "decoder");
    refuses(t, WITH("\"post_processor\":true"), MT_E_FORMAT, "post_processor");
    refuses(t, WITH("\"added_tokens\":{}"), MT_E_FORMAT, "added_tokens");
    refuses(t, "{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{},\"merges\":[]}}",
            MT_E_UNSUPPORTED, "dropout");
    refuses(t,
            "{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"0123456789012345678901234567890"
            "1\",\"vocab\":{},\"merges\":[]}}",
            MT_E_LIMIT, "end_of_word_suffix");
    refuses(t, "{\"model\":{\"type\":\"BPE\",\"fuse_unk\":3,\"vocab\":{},\"merges\":[]}}",
            MT_E_FORMAT, "fuse_unk");
    refuses(t, "{\"model\":{\"type\":\"BPE\",\"unk_token\":3,\"vocab\":{},\"merges\":[]}}",
            MT_E_FORMAT, "unk_token");
    refuses(t, "{\"model\":{\"type\":\"BPE\",\"odd\":3,\"vocab\":{},\"merges\":[]}}",
            MT_E_UNSUPPORTED, "\"odd\"");
}

T_TEST(an_empty_vocabulary_gives_no_ids)
{
    static const char json[] = MODEL("{}", "[]");
    struct mt_tokenizer *k;
    struct mt_ids ids = {0};

    T_OK(t, mt_tokenizer_parse(&t->ctx, json, strlen(json), "empty", &k));
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "some text", 9, 0, &ids));
    T_EQ_INT(t, ids.n, 0);
    T_EQ_INT(t, mt_tokenizer_vocab(k), 0);
    mt_ids_free(&ids);
    mt_tokenizer_free(k);
}

/* One huge id must not make a table of gigabytes. */
T_TEST(a_large_id_costs_little)
{
    static const char json[] = MODEL("{\"a\":4194303}", "[]");
    struct mt_tokenizer *k;

    T_OK(t, mt_tokenizer_parse(&t->ctx, json, strlen(json), "large", &k));
    T_EQ_INT(t, mt_tokenizer_vocab(k), 4194304);
    T_CHECK(t, mt_mem_peak(&t->ctx) < (64u << 20));
    mt_tokenizer_free(k);
}

/* Every prefix and every single-byte change of a good file opens or is refused with a sentence. */
T_TEST(damaged_files_never_crash)
{
    static const char bytes[] = "{}[]\",:0-9a\x01\xFF";
    char copy[sizeof small];
    size_t n = strlen(small);

    for (size_t i = 0; i < n; i++) {
        for (size_t b = 0; b < sizeof bytes; b++) {
            struct mt_tokenizer *k;
            struct mt_ids ids = {0};
            memcpy(copy, small, sizeof small);
            copy[i] = bytes[b];
            mt_status st =
                mt_tokenizer_parse(&t->ctx, copy, b + 1 < sizeof bytes ? n : i, "damaged", &k);
            if (st == MT_OK)
                T_OK(t, mt_tokenizer_encode(&t->ctx, k, "ab<s>ab", 7, 1, &ids));
            else
                T_CHECK(t, mt_error(&t->ctx)[0] != '\0');
            mt_ids_free(&ids);
            mt_tokenizer_free(k);
        }
    }
}

/* Every allocation that can fail does so once; nothing leaks and nothing crashes. */
T_TEST(running_out_of_memory_is_one_failure)
{
    for (uint64_t i = 1;; i++) {
        struct mt_tokenizer *k = NULL;
        struct mt_ids ids = {0};
        char *text = NULL;
        size_t n;
        mt_fault_alloc(i);
        mt_status st = mt_tokenizer_parse(&t->ctx, small, strlen(small), "small", &k);
        if (st == MT_OK)
            st = mt_tokenizer_encode(&t->ctx, k, "ab\xFF<s>b", 7, MT_ENCODE_SPECIAL, &ids);
        if (st == MT_OK)
            st = mt_tokenizer_decode(&t->ctx, k, ids.v, ids.n, false, &text, &n);
        mt_fault_alloc(0);
        mt_free(text);
        mt_ids_free(&ids);
        mt_tokenizer_free(k);
        if (st == MT_OK)
            break;
        T_EQ_INT(t, st, MT_E_NOMEM);
        T_CHECK(t, i < 1000);
    }
}
