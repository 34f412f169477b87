#include "lib/text/pre_table.h"
#include "lib/text/pretok.h"
#include "lib/text/tokenizer.h"

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "tests/t.h"

#include <stdlib.h>

/* --- a reader of GGUF metadata, independent of the product's --- */

struct gguf {
    char *data;
    size_t at, n;
    struct mt_vocab_desc v;
    char model[64], pre[64];
    struct mt_token_text *tokens, *merges;
    float *scores;
    int32_t *types;
};

static uint64_t gguf_int(struct gguf *g, int bytes)
{
    uint64_t x = 0;

    for (int i = 0; i < bytes; i++)
        x |= (uint64_t)(unsigned char)g->data[g->at + (size_t)i] << (8 * i);
    g->at += (size_t)bytes;
    return x;
}

static struct mt_token_text gguf_text(struct gguf *g)
{
    struct mt_token_text t = {0};

    t.n = (size_t)gguf_int(g, 8);
    t.s = g->data + g->at;
    g->at += t.n;
    return t;
}

static int gguf_size(uint64_t type)
{
    static const int size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

    return size[type];
}

static void gguf_array(struct gguf *g, struct mt_token_text key)
{
    uint64_t type = gguf_int(g, 4), n = gguf_int(g, 8);
    bool tokens = strncmp(key.s, "tokenizer.ggml.tokens", key.n) == 0;
    struct mt_token_text *text = type == 8 ? calloc((size_t)n, sizeof *text) : NULL;

    for (uint64_t i = 0; i < n && text != NULL; i++)
        text[i] = gguf_text(g);
    if (text != NULL && tokens) {
        g->v.tokens = g->tokens = text;
        g->v.n_tokens = (size_t)n;
    } else if (text != NULL) {
        g->v.merges = g->merges = text;
        g->v.n_merges = (size_t)n;
    } else if (type == 6) {
        g->v.scores = g->scores = malloc((size_t)n * 4 + 1);
        memcpy(g->scores, g->data + g->at, (size_t)n * 4);
    } else if (type == 5) {
        g->v.types = g->types = malloc((size_t)n * 4 + 1);
        memcpy(g->types, g->data + g->at, (size_t)n * 4);
    }
    g->at += (size_t)n * (size_t)gguf_size(type);
}

static bool gguf_is(struct mt_token_text key, const char *name)
{
    return key.n == strlen(name) && memcmp(key.s, name, key.n) == 0;
}

static void gguf_pair(struct gguf *g)
{
    struct mt_token_text key = gguf_text(g), text;
    uint64_t type = gguf_int(g, 4), x;

    if (type == 9) {
        gguf_array(g, key);
        return;
    }
    if (type == 8) {
        text = gguf_text(g);
        if (gguf_is(key, "tokenizer.ggml.model"))
            snprintf(g->model, sizeof g->model, "%.*s", (int)text.n, text.s);
        if (gguf_is(key, "tokenizer.ggml.pre"))
            snprintf(g->pre, sizeof g->pre, "%.*s", (int)text.n, text.s);
        return;
    }
    x = gguf_int(g, gguf_size(type));
    if (gguf_is(key, "tokenizer.ggml.bos_token_id"))
        g->v.bos = (int32_t)x;
    if (gguf_is(key, "tokenizer.ggml.eos_token_id"))
        g->v.eos = (int32_t)x;
    if (gguf_is(key, "tokenizer.ggml.unknown_token_id"))
        g->v.unk = (int32_t)x;
    if (gguf_is(key, "tokenizer.ggml.add_bos_token"))
        g->v.add_bos = (int)x;
}

static bool gguf_open(struct gguf *g, const char *vocab)
{
    char path[200];
    uint64_t pairs;

    snprintf(path, sizeof path, "tokenizers/llama.cpp/ggml-vocab-%s.gguf", vocab);
    if (t_data(path) == NULL)
        return false;
    *g = (struct gguf){.data = t_read_file(t_data(path), &g->n)};
    g->v = (struct mt_vocab_desc){.bos = -1, .eos = -1, .unk = -1, .what = vocab};
    g->v.add_bos = g->v.add_eos = g->v.add_space_prefix = -1;
    g->at = 16;
    pairs = gguf_int(g, 8);
    for (uint64_t i = 0; i < pairs; i++)
        gguf_pair(g);
    g->v.model = g->model;
    g->v.pre = g->pre[0] != '\0' ? g->pre : NULL;
    return true;
}

static void gguf_end(struct gguf *g)
{
    free(g->data);
    free(g->tokens);
    free(g->merges);
    free(g->scores);
    free(g->types);
}

/* --- the vectors --- */

struct vectors {
    char *in, *out, *at, *line;
    int n;
    const char *text;
    size_t n_text;
    int32_t want[400];
    size_t n_want;
};

static bool vectors_open(struct vectors *v, const char *vocab)
{
    char path[200];
    size_t n;

    memset(v, 0, sizeof *v);
    snprintf(path, sizeof path, "tokenizers/llama.cpp/ggml-vocab-%s.gguf.inp", vocab);
    v->at = v->in = t_data(path) == NULL ? NULL : t_read_file(t_data(path), &n);
    snprintf(path, sizeof path, "tokenizers/llama.cpp/ggml-vocab-%s.gguf.out", vocab);
    v->line = v->out = t_data(path) == NULL ? NULL : t_read_file(t_data(path), &n);
    return v->in != NULL && v->out != NULL;
}

static bool vectors_next(struct vectors *v)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *end = strstr(v->at, mark), *nl;

    if (end == NULL)
        return false;
    v->text = v->at;
    v->n_text = (size_t)(end - v->at);
    v->at = end + strlen(mark);
    nl = strchr(v->line, '\n');
    for (v->n_want = 0; v->line < nl; v->n_want++) {
        v->want[v->n_want] = (int32_t)strtol(v->line, &v->line, 10);
        while (*v->line == ' ')
            v->line++;
    }
    v->line = nl + 1;
    v->n++;
    return true;
}

static void vectors_end(struct vectors *v)
{
    free(v->in);
    free(v->out);
}

/* Expected ids were made without special tokens around; their texts are tokens in them. */
static void agrees_with(struct t *t, const char *vocab, struct mt_tokenizer *k)
{
    struct vectors v;

    T_CHECK(t, vectors_open(&v, vocab));
    while (vectors_next(&v)) {
        struct mt_ids got = {0};
        size_t i = 0;
        T_OK(t, mt_tokenizer_encode(&t->ctx, k, v.text, v.n_text, 0, &got));
        while (i < got.n && i < v.n_want && got.v[i] == v.want[i])
            i++;
        if (got.n != v.n_want || i < got.n)
            t_fail(t, __FILE__, __LINE__,
                   "%s: text %d \"%.*s\": %zu ids, wanted %zu; id %zu is %d, wanted %d", vocab, v.n,
                   (int)v.n_text, v.text, got.n, v.n_want, i, i < got.n ? (int)got.v[i] : -1,
                   i < v.n_want ? (int)v.want[i] : -1);
        mt_ids_free(&got);
    }
    T_EQ_INT(t, v.n, 46);
    vectors_end(&v);
}

/* As the vocabulary, and as the tokenizer.json that is written of it. */
static void agrees(struct t *t, const char *vocab)
{
    struct gguf g;
    struct mt_tokenizer *k;
    char *json;
    size_t n;

    if (!gguf_open(&g, vocab))
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_from_vocab(&t->ctx, &g.v, &k));
    agrees_with(t, vocab, k);
    mt_tokenizer_free(k);
    T_OK(t, mt_vocab_to_json(&t->ctx, &g.v, &json, &n));
    gguf_end(&g);
    T_EQ_INT(t, strlen(json), n);
    T_OK(t, mt_tokenizer_parse(&t->ctx, json, n, vocab, &k));
    mt_free(json);
    agrees_with(t, vocab, k);
    mt_tokenizer_free(k);
}

T_TEST(gpt2_agrees)
{
    agrees(t, "gpt-2");
}
T_TEST(llama_spm_agrees)
{
    agrees(t, "llama-spm");
}
T_TEST(phi3_agrees)
{
    agrees(t, "phi-3");
}
T_TEST(bert_agrees)
{
    agrees(t, "bert-bge");
}
T_TEST(deepseek_coder_agrees)
{
    agrees(t, "deepseek-coder");
}
T_TEST(deepseek_llm_agrees)
{
    agrees(t, "deepseek-llm");
}
T_TEST(falcon_agrees)
{
    agrees(t, "falcon");
}
T_TEST(mpt_agrees)
{
    agrees(t, "mpt");
}
T_TEST(refact_agrees)
{
    agrees(t, "refact");
}
T_TEST(starcoder_agrees)
{
    agrees(t, "starcoder");
}

/* --- where only the ids are here: at least the split --- */

/* Pieces of v's text by the regexes of a name; each of whole characters, together all of it. */
static void pieces_of(struct t *t, const char *name, const struct vectors *v, size_t *n)
{
    const struct mt_pre *pre = mt_pre_find(name);
    struct mt_json *root = mt_json_new_object(), *list, *s;
    struct mt_pretok p = {0};
    struct mt_pretok_work w = {0};
    const struct mt_pieces *pieces;
    const char *text;
    size_t at = 0;

    T_CHECK(t, pre != NULL);
    mt_json_set_str(root, "type", "Sequence");
    list = mt_json_set_array(root, "pretokenizers");
    for (const char *const *r = pre->regex; *r != NULL; r++) {
        s = mt_json_add_object(list);
        mt_json_set_str(s, "type", "Split");
        mt_json_set_str(s, "behavior", "Isolated");
        mt_json_set_str(mt_json_set_object(s, "pattern"), "Regex", *r);
    }
    T_OK(t, mt_pretok_open(&t->ctx, root, &p));
    mt_json_free(root);
    T_OK(t, mt_pretok_run(&t->ctx, &p, &w, v->text, v->n_text, true, &text, &pieces));
    *n = 0;
    for (size_t i = 0; i < pieces->n; i++) {
        const struct mt_piece *x = &pieces->v[i];
        T_EQ_INT(t, x->at, at);
        T_EQ_INT(t, mt_utf8_valid(text + x->at, x->n), x->n);
        at += x->n;
        *n += x->n > 0;
    }
    T_EQ_INT(t, at, v->n_text);
    mt_pretok_end(&p);
    mt_pretok_work_end(&w);
}

/* A piece is at least one id. Texts of digits are as many ids as pieces: every run of digits that
 * the pattern makes is a token of these vocabularies. */
static void splits(struct t *t, const char *name)
{
    struct vectors v;
    int digits = 0;

    if (!vectors_open(&v, name))
        T_SKIP(t, "no shared data");
    while (vectors_next(&v)) {
        size_t n = 0;
        pieces_of(t, name, &v, &n);
        if (n > v.n_want)
            t_fail(t, __FILE__, __LINE__, "%s: text %d \"%.*s\": %zu pieces, but %zu ids", name,
                   v.n, (int)v.n_text, v.text, n, v.n_want);
        if (v.n_text > 0 && strspn(v.text, "0123456789") == v.n_text) {
            T_EQ_INT(t, n, v.n_want);
            digits++;
        }
    }
    T_EQ_INT(t, v.n, 46);
    T_EQ_INT(t, digits, 9);
    vectors_end(&v);
}

T_TEST(llama3_splits)
{
    splits(t, "llama-bpe");
}
T_TEST(qwen2_splits)
{
    splits(t, "qwen2");
}
T_TEST(deepseek_r1_qwen_splits)
{
    splits(t, "deepseek-r1-qwen");
}
T_TEST(command_r_splits)
{
    splits(t, "command-r");
}
T_TEST(chameleon_splits)
{
    splits(t, "chameleon");
}

/* RoBERTa's tokens are GPT-2's under other numbers: one number stands for one number. */
T_TEST(roberta_is_gpt2_renumbered)
{
    struct gguf g;
    struct vectors v;
    struct mt_tokenizer *k;
    static int32_t there[60000], back[60000];
    int distinct = 0;

    if (!gguf_open(&g, "gpt-2"))
        T_SKIP(t, "no shared data");
    g.v.pre = "roberta-bpe";
    T_OK(t, mt_tokenizer_from_vocab(&t->ctx, &g.v, &k));
    gguf_end(&g);
    T_CHECK(t, vectors_open(&v, "roberta-bpe"));
    while (vectors_next(&v)) {
        struct mt_ids got = {0};
        T_OK(t, mt_tokenizer_encode(&t->ctx, k, v.text, v.n_text, 0, &got));
        T_EQ_INT(t, got.n, v.n_want);
        for (size_t i = 0; i < got.n; i++) {
            int32_t a = got.v[i], b = v.want[i];
            distinct += there[a] == 0;
            T_CHECK(t, there[a] == 0 || there[a] == b + 1);
            T_CHECK(t, back[b] == 0 || back[b] == a + 1);
            there[a] = b + 1;
            back[b] = a + 1;
        }
        mt_ids_free(&got);
    }
    T_CHECK(t, distinct > 150);
    vectors_end(&v);
    mt_tokenizer_free(k);
}

/* Without vectors of their own: what goes in comes out. */
static void round_trips(struct t *t, const char *vocab)
{
    struct gguf g;
    struct vectors v;
    struct mt_tokenizer *k;

    if (!gguf_open(&g, vocab))
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_from_vocab(&t->ctx, &g.v, &k));
    gguf_end(&g);
    T_CHECK(t, vectors_open(&v, "gpt-2"));
    while (vectors_next(&v)) {
        struct mt_ids ids = {0};
        char *text;
        size_t n;
        T_OK(t, mt_tokenizer_encode(&t->ctx, k, v.text, v.n_text, MT_ENCODE_SPECIAL, &ids));
        T_OK(t, mt_tokenizer_decode(&t->ctx, k, ids.v, ids.n, true, &text, &n));
        if (n != v.n_text || memcmp(text, v.text, n) != 0)
            t_fail(t, __FILE__, __LINE__, "%s: \"%.*s\" came back as \"%s\"", vocab, (int)v.n_text,
                   v.text, text);
        mt_free(text);
        mt_ids_free(&ids);
    }
    vectors_end(&v);
    mt_tokenizer_free(k);
}

T_TEST(texts_come_back)
{
    round_trips(t, "baichuan");
    round_trips(t, "gpt-neox");
    round_trips(t, "llama-spm");
    round_trips(t, "falcon");
}

/* --- small ones --- */

#define TEXT(x)                                                                                    \
    {                                                                                              \
        x, sizeof(x) - 1                                                                           \
    }

static const struct mt_token_text small_tokens[] = {
    TEXT("a"), TEXT("b"), TEXT("ab"), TEXT("<s>"), TEXT("<u>"), TEXT("a"), TEXT("\xC4\xA0")};
static const struct mt_token_text small_merges[] = {TEXT("a b")};
static const int32_t small_types[] = {1, 1, 1, 3, 4, 1, 1};

static struct mt_vocab_desc small(void)
{
    return (struct mt_vocab_desc){.model = "gpt2",
                                  .pre = "gpt-2",
                                  .tokens = small_tokens,
                                  .n_tokens = 7,
                                  .types = small_types,
                                  .merges = small_merges,
                                  .n_merges = 1,
                                  .bos = 3,
                                  .eos = 3,
                                  .unk = -1,
                                  .add_bos = -1,
                                  .add_eos = -1,
                                  .add_space_prefix = -1,
                                  .what = "small"};
}

static void gives(struct t *t, const struct mt_vocab_desc *v, unsigned flags, const char *text,
                  const char *want)
{
    struct mt_tokenizer *k;
    struct mt_ids ids = {0};
    char got[100] = "";

    T_OK(t, mt_tokenizer_from_vocab(&t->ctx, v, &k));
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, text, strlen(text), flags, &ids));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i == 0 ? "" : " ",
                 (int)ids.v[i]);
    T_EQ_STR(t, got, want);
    mt_ids_free(&ids);
    mt_tokenizer_free(k);
}

T_TEST(types_and_flags_say_what_is_special)
{
    struct mt_vocab_desc v = small();

    gives(t, &v, MT_ENCODE_SPECIAL, "ab<s>a<u>", "2 3 0 4");
    gives(t, &v, MT_ENCODE_NO_ADDED, "ab<u>", "2 4");
    v.add_bos = 1;
    gives(t, &v, MT_ENCODE_SPECIAL, "ab", "3 2");
    v.add_eos = 1;
    gives(t, &v, MT_ENCODE_SPECIAL, "ab a", "3 2 6 0 3");
    gives(t, &v, 0, "ab", "2");
    v.pre = "llama-bpe"; /* has a BOS unless told otherwise */
    v.add_bos = v.add_eos = -1;
    gives(t, &v, MT_ENCODE_SPECIAL, "ab", "3 2");
    v.bos = -1;
    gives(t, &v, MT_ENCODE_SPECIAL, "ab", "2");
}

static void refuses(struct t *t, const struct mt_vocab_desc *v, mt_status st, const char *part)
{
    struct mt_tokenizer *k;

    T_FAILS(t, mt_tokenizer_from_vocab(&t->ctx, v, &k), st, part);
    T_CHECK(t, k == NULL);
}

T_TEST(what_is_missing_or_unknown_is_named)
{
    static const struct mt_token_text bad[] = {TEXT("\xFF")}, odd[] = {TEXT("ab")};
    struct mt_vocab_desc v = small();

    v.pre = "martian";
    refuses(t, &v, MT_E_UNSUPPORTED, "small: tokenizer.ggml.pre \"martian\"");
    v = small();
    v.model = "t5";
    refuses(t, &v, MT_E_UNSUPPORTED, "\"t5\"");
    v.model = "llama";
    refuses(t, &v, MT_E_FORMAT, "scores is missing");
    v = small();
    v.merges = NULL;
    refuses(t, &v, MT_E_FORMAT, "merges is missing");
    v.merges = odd;
    refuses(t, &v, MT_E_FORMAT, "merge 0 (\"ab\")");
    v.n_tokens = 0;
    refuses(t, &v, MT_E_FORMAT, "0 tokens");
    v.tokens = bad;
    v.n_tokens = 1;
    refuses(t, &v, MT_E_FORMAT, "token 0 is not UTF-8");
}
