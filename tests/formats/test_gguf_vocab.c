#include "formats/gguf_vocab.h"

#include "tests/gguf_fixture.h"

#include <stdlib.h>

static struct gg g;

static void texts(const char *key, const char *const *v, int n)
{
    gg_key(&g, key, 9);
    gg_u32(&g, 8);
    gg_u64(&g, (uint64_t)n);
    for (int i = 0; i < n; i++)
        gg_text(&g, v[i]);
}

static void words(const char *key, uint32_t type, const uint32_t *v, int n)
{
    gg_key(&g, key, 9);
    gg_u32(&g, type);
    gg_u64(&g, (uint64_t)n);
    for (int i = 0; i < n; i++)
        gg_u32(&g, v[i]);
}

static const char *const tokens[] = {"a", "b", "ab", "<s>"};
static const char *const merges[] = {"a b"};
static const uint32_t types[] = {1, 1, 1, 3};

static mt_status opens(struct t *t, struct mt_tokenizer **k)
{
    const char *path = t_path(t, "v.gguf");

    t_write_file(t, path, g.bytes, g.n);
    return mt_tokenizer_open_gguf(&t->ctx, path, k);
}

T_TEST(a_vocabulary_inside_is_a_tokenizer)
{
    struct mt_tokenizer *k;
    struct mt_ids ids = {0};

    gg_begin(&g, 0, 7);
    gg_kv_text(&g, "tokenizer.ggml.model", "gpt2");
    gg_kv_text(&g, "tokenizer.ggml.pre", "gpt-2");
    texts("tokenizer.ggml.tokens", tokens, 4);
    texts("tokenizer.ggml.merges", merges, 1);
    words("tokenizer.ggml.token_type", 5, types, 4);
    gg_key(&g, "tokenizer.ggml.add_bos_token", 7);
    gg_raw(&g, "\1", 1);
    gg_key(&g, "tokenizer.ggml.bos_token_id", 4);
    gg_u32(&g, 3);
    T_OK(t, opens(t, &k));
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, "ab<s>b", 6, MT_ENCODE_SPECIAL, &ids));
    T_EQ_INT(t, ids.n, 4);
    T_CHECK(t, ids.v[0] == 3 && ids.v[1] == 2 && ids.v[2] == 3 && ids.v[3] == 1);
    mt_ids_free(&ids);
    mt_tokenizer_free(k);
}

T_TEST(a_tokenizer_json_inside_goes_first)
{
    struct mt_tokenizer *k;

    gg_begin(&g, 0, 2);
    gg_kv_text(&g, "tokenizer.ggml.model", "martian");
    gg_kv_text(&g, "tokenizer.huggingface.json",
               "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"x\":5},\"merges\":[]}}");
    T_OK(t, opens(t, &k));
    T_EQ_INT(t, mt_tokenizer_find(k, "x"), 5);
    mt_tokenizer_free(k);
}

T_TEST(what_does_not_fit_is_refused_by_key)
{
    static const uint32_t scores[] = {0, 0, 0, 0};
    struct mt_tokenizer *k;

    gg_begin(&g, 0, 1);
    gg_kv_text(&g, "general.architecture", "llama");
    T_FAILS(t, opens(t, &k), MT_E_ABSENT, "carries no tokenizer (no tokenizer.ggml.model)");
    gg_begin(&g, 0, 3);
    gg_kv_text(&g, "tokenizer.ggml.model", "llama");
    texts("tokenizer.ggml.tokens", tokens, 4);
    words("tokenizer.ggml.scores", 6, scores, 3);
    T_FAILS(t, opens(t, &k), MT_E_FORMAT, "tokenizer.ggml.scores has 3 items for 4 tokens");
    gg_begin(&g, 0, 3);
    gg_kv_text(&g, "tokenizer.ggml.model", "llama");
    texts("tokenizer.ggml.tokens", tokens, 4);
    gg_key(&g, "tokenizer.ggml.scores", 9); /* items of one byte where four are read */
    gg_u32(&g, 0);
    gg_u64(&g, 4);
    gg_raw(&g, "abcd", 4);
    T_FAILS(t, opens(t, &k), MT_E_FORMAT, "tokenizer.ggml.scores is not an array of 32-bit floats");
    gg_begin(&g, 0, 2);
    gg_kv_text(&g, "tokenizer.ggml.model", "llama");
    words("tokenizer.ggml.tokens", 4, types, 4);
    T_FAILS(t, opens(t, &k), MT_E_FORMAT, "tokenizer.ggml.tokens is not an array of strings");
    gg_begin(&g, 0, 2);
    gg_kv_text(&g, "tokenizer.ggml.model", "rwkv");
    texts("tokenizer.ggml.tokens", tokens, 4);
    T_FAILS(t, opens(t, &k), MT_E_UNSUPPORTED, "\"rwkv\"");
    T_CHECK(t, k == NULL);
}

/* The first of each list of expected ids; tests of the vocabularies themselves are
 * beside lib/text. */
static void agrees(struct t *t, const char *vocab)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char path[200], *in, *out, *line;
    struct mt_tokenizer *k;
    struct mt_ids ids = {0};
    size_t n;

    snprintf(path, sizeof path, "tokenizers/llama.cpp/ggml-vocab-%s.gguf", vocab);
    if (t_data(path) == NULL)
        T_SKIP(t, "no shared data");
    T_OK(t, mt_tokenizer_open_gguf(&t->ctx, t_data(path), &k));
    snprintf(path, sizeof path, "tokenizers/llama.cpp/ggml-vocab-%s.gguf.inp", vocab);
    in = t_read_file(t_data(path), &n);
    snprintf(path, sizeof path, "tokenizers/llama.cpp/ggml-vocab-%s.gguf.out", vocab);
    line = out = t_read_file(t_data(path), &n);
    T_CHECK(t, in != NULL && out != NULL);
    *strstr(in, mark) = '\0';
    T_OK(t, mt_tokenizer_encode(&t->ctx, k, in, strlen(in), 0, &ids));
    T_CHECK(t, ids.n > 0);
    for (size_t i = 0; i < ids.n; i++)
        T_EQ_INT(t, ids.v[i], strtol(line, &line, 10));
    while (*line == ' ')
        line++;
    T_EQ_INT(t, *line, '\n');
    free(in);
    free(out);
    mt_ids_free(&ids);
    mt_tokenizer_free(k);
}

T_TEST(real_vocabularies_agree)
{
    agrees(t, "gpt-2");
    agrees(t, "llama-spm");
    agrees(t, "bert-bge");
    agrees(t, "deepseek-coder");
}

/* ---- the chat template ---- */

T_TEST(the_chat_template_is_read_with_the_tokens_it_names)
{
    struct mt_gguf_chat c;

    gg_begin(&g, 0, 4);
    texts("tokenizer.ggml.tokens", tokens, 4);
    gg_kv_text(&g, "tokenizer.chat_template", "<|im_start|>");
    gg_kv_u32(&g, "tokenizer.ggml.bos_token_id", 3);
    gg_kv_u32(&g, "tokenizer.ggml.eos_token_id", 0xffffffffu); /* none */
    T_OK(t, mt_gguf_chat_read(&t->ctx, gg_file(t, &g, "c.gguf"), &c));
    T_EQ_STR(t, c.template_text, "<|im_start|>");
    T_EQ_STR(t, c.bos, "<s>");
    T_CHECK(t, c.eos == NULL);
    mt_gguf_chat_free(&c);
}

T_TEST(a_file_without_a_chat_template_gives_none)
{
    struct mt_gguf_chat c;

    gg_begin(&g, 0, 0);
    T_OK(t, mt_gguf_chat_read(&t->ctx, gg_file(t, &g, "c.gguf"), &c));
    T_CHECK(t, c.template_text == NULL && c.bos == NULL && c.eos == NULL);
    gg_begin(&g, 0, 1);
    gg_kv_u32(&g, "tokenizer.chat_template", 7);
    T_FAILS(t, mt_gguf_chat_read(&t->ctx, gg_file(t, &g, "c.gguf"), &c), MT_E_FORMAT, "is no text");
    T_CHECK(t, c.template_text == NULL);
}
