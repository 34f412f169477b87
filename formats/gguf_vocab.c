#include "formats/gguf_vocab.h"

#include "formats/gguf.h"

#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"

#include <inttypes.h>
#include <string.h>

/* Everything that lives while a vocabulary is read. */
struct gguf_vocab {
    struct mt_map *map;
    struct mt_arena arena;
    struct mt_gguf g;
    struct mt_vocab_desc v;
    struct mt_token_text *tokens, *merges;
    float *scores;
    int32_t *types;
};

/* An array of these items; NULL when absent. */
static mt_status vocab_array(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                             enum mt_gguf_type item, const struct mt_gguf_pair **out)
{
    const struct mt_gguf_pair *p = mt_gguf_find(g, key);
    bool fits = p == NULL || (p->type == MT_GGUF_ARRAY && p->item == item);

    /* Types are whole numbers of 32 bits; some writers say unsigned. */
    fits = fits || (p->type == MT_GGUF_ARRAY && item == MT_GGUF_I32 && p->item == MT_GGUF_U32);
    *out = p;
    if (!fits)
        return mt_fail(ctx, MT_E_FORMAT, "%s is not an array of %s", key,
                       item == MT_GGUF_STRING ? "strings"
                       : item == MT_GGUF_F32  ? "32-bit floats"
                                              : "32-bit integers");
    return MT_OK;
}

static mt_status vocab_texts(struct mt_ctx *ctx, const struct mt_gguf *g, const char *key,
                             struct mt_token_text **out, size_t *n)
{
    const struct mt_gguf_pair *p;
    const unsigned char *at;
    uint64_t left;

    MT_TRY(vocab_array(ctx, g, key, MT_GGUF_STRING, &p));
    if (p == NULL)
        return MT_OK;
    /* One more, so that an empty list is told from none. */
    MT_TRY(mt_alloc(ctx, (size_t)p->n + 1, sizeof **out, "vocabulary", out));
    *n = (size_t)p->n;
    at = p->at;
    left = p->bytes;
    for (uint64_t i = 0; i < p->n; i++) {
        uint64_t len = left < 8 ? 0 : mt_le64(at);
        if (left < 8 || len > left - 8)
            return mt_fail(ctx, MT_E_FORMAT, "%s: string %" PRIu64 " passes the end", key, i);
        (*out)[i] = (struct mt_token_text){(const char *)at + 8, (size_t)len};
        at += 8 + len;
        left -= 8 + len;
    }
    return MT_OK;
}

/* As many items of 32 bits as there are tokens; *out stays NULL when absent. */
static mt_status vocab_words(struct mt_ctx *ctx, const struct gguf_vocab *s, const char *key,
                             enum mt_gguf_type item, void *out)
{
    const struct mt_gguf_pair *p;
    unsigned char *to;

    MT_TRY(vocab_array(ctx, &s->g, key, item, &p));
    if (p == NULL)
        return MT_OK;
    if (p->n != s->v.n_tokens || p->bytes != 4 * p->n)
        return mt_fail(ctx, MT_E_FORMAT, "%s has %" PRIu64 " items for %zu tokens", key, p->n,
                       s->v.n_tokens);
    MT_TRY(mt_alloc(ctx, (size_t)p->n, 4, "vocabulary", &to));
    for (uint64_t i = 0; i < p->n; i++) {
        uint32_t bits = mt_le32(p->at + 4 * i);
        memcpy(to + 4 * i, &bits, 4);
    }
    memcpy(out, &to, sizeof to);
    return MT_OK;
}

static mt_status vocab_id(struct mt_ctx *ctx, const struct gguf_vocab *s, const char *key,
                          int32_t *out)
{
    int64_t id;

    MT_TRY(mt_gguf_int(ctx, &s->g, key, -1, &id));
    /* Some writers put 2^32 - 1 for none. */
    *out = id >= 0 && (uint64_t)id < s->v.n_tokens ? (int32_t)id : -1;
    return MT_OK;
}

static mt_status vocab_flag(struct mt_ctx *ctx, const struct gguf_vocab *s, const char *key,
                            int *out)
{
    bool yes;

    *out = -1;
    if (mt_gguf_find(&s->g, key) == NULL)
        return MT_OK;
    MT_TRY(mt_gguf_bool(ctx, &s->g, key, false, &yes));
    *out = yes;
    return MT_OK;
}

static mt_status vocab_ggml(struct mt_ctx *ctx, struct gguf_vocab *s)
{
    MT_TRY(mt_gguf_str(ctx, &s->g, "tokenizer.ggml.model", &s->arena, &s->v.model));
    MT_TRY(mt_gguf_str(ctx, &s->g, "tokenizer.ggml.pre", &s->arena, &s->v.pre));
    MT_TRY(vocab_texts(ctx, &s->g, "tokenizer.ggml.tokens", &s->tokens, &s->v.n_tokens));
    if (s->v.model == NULL || s->tokens == NULL)
        return mt_fail(ctx, MT_E_ABSENT,
                       "the file carries no tokenizer (no %s); put a tokenizer.json beside it",
                       s->v.model == NULL ? "tokenizer.ggml.model" : "tokenizer.ggml.tokens");
    MT_TRY(vocab_texts(ctx, &s->g, "tokenizer.ggml.merges", &s->merges, &s->v.n_merges));
    MT_TRY(vocab_words(ctx, s, "tokenizer.ggml.scores", MT_GGUF_F32, &s->scores));
    MT_TRY(vocab_words(ctx, s, "tokenizer.ggml.token_type", MT_GGUF_I32, &s->types));
    MT_TRY(vocab_id(ctx, s, "tokenizer.ggml.bos_token_id", &s->v.bos));
    MT_TRY(vocab_id(ctx, s, "tokenizer.ggml.eos_token_id", &s->v.eos));
    MT_TRY(vocab_id(ctx, s, "tokenizer.ggml.unknown_token_id", &s->v.unk));
    MT_TRY(vocab_flag(ctx, s, "tokenizer.ggml.add_bos_token", &s->v.add_bos));
    MT_TRY(vocab_flag(ctx, s, "tokenizer.ggml.add_eos_token", &s->v.add_eos));
    MT_TRY(vocab_flag(ctx, s, "tokenizer.ggml.add_space_prefix", &s->v.add_space_prefix));
    s->v.tokens = s->tokens;
    s->v.merges = s->merges;
    s->v.scores = s->scores;
    s->v.types = s->types;
    return MT_OK;
}

/* The header, and *json where the file holds a whole tokenizer.json; else the vocabulary. */
static mt_status vocab_open(struct mt_ctx *ctx, struct gguf_vocab *s, const char *path,
                            const struct mt_gguf_pair **json)
{
    mt_arena_init(&s->arena);
    MT_TRY(mt_map_open(ctx, path, &s->map));
    MT_TRY(mt_wrap(ctx, mt_gguf_header_read(ctx, s->map, &s->arena, &s->g), "%s", path));
    *json = mt_gguf_find(&s->g, "tokenizer.huggingface.json");
    if (*json != NULL && (*json)->type == MT_GGUF_STRING)
        return MT_OK;
    *json = NULL;
    s->v.what = path;
    return mt_wrap(ctx, vocab_ggml(ctx, s), "%s", path);
}

static void vocab_close(struct gguf_vocab *s)
{
    mt_free(s->tokens);
    mt_free(s->merges);
    mt_free(s->scores);
    mt_free(s->types);
    mt_gguf_header_free(&s->g);
    mt_map_close(s->map);
    mt_arena_free(&s->arena);
}

mt_status mt_tokenizer_open_gguf(struct mt_ctx *ctx, const char *path, struct mt_tokenizer **out)
{
    struct gguf_vocab s = {0};
    const struct mt_gguf_pair *json = NULL;
    mt_status st = vocab_open(ctx, &s, path, &json);

    *out = NULL;
    if (st == MT_OK && json != NULL)
        st = mt_tokenizer_parse(ctx, (const char *)json->at, (size_t)json->n, path, out);
    else if (st == MT_OK)
        st = mt_tokenizer_from_vocab(ctx, &s.v, out);
    vocab_close(&s);
    return st;
}

static mt_status chat_copy(struct mt_ctx *ctx, const void *text, size_t n, char **out)
{
    MT_TRY(mt_alloc(ctx, n + 1, 1, "text of a tokenizer", out));
    memcpy(*out, text, n);
    (*out)[n] = '\0';
    return MT_OK;
}

mt_status mt_gguf_tokenizer_json(struct mt_ctx *ctx, const char *path, char **text, size_t *n)
{
    struct gguf_vocab s = {0};
    const struct mt_gguf_pair *json = NULL;
    mt_status st = vocab_open(ctx, &s, path, &json);

    *text = NULL;
    *n = 0;
    if (st == MT_OK && json != NULL) {
        *n = (size_t)json->n;
        st = chat_copy(ctx, json->at, *n, text);
    } else if (st == MT_OK) {
        st = mt_vocab_to_json(ctx, &s.v, text, n);
    }
    vocab_close(&s);
    return st;
}

/* ---- the chat template ---- */

/* The text of the token that `key` names. */
static mt_status chat_token(struct mt_ctx *ctx, const struct gguf_vocab *s, const char *key,
                            char **out)
{
    int32_t id;

    MT_TRY(vocab_id(ctx, s, key, &id));
    return id < 0 ? MT_OK : chat_copy(ctx, s->tokens[id].s, s->tokens[id].n, out);
}

static mt_status chat_read(struct mt_ctx *ctx, struct gguf_vocab *s, const char *path,
                           struct mt_gguf_chat *out)
{
    const struct mt_gguf_pair *p;

    MT_TRY(mt_map_open(ctx, path, &s->map));
    MT_TRY(mt_gguf_header_read(ctx, s->map, &s->arena, &s->g));
    p = mt_gguf_find(&s->g, "tokenizer.chat_template");
    if (p != NULL && (p->type != MT_GGUF_STRING || memchr(p->at, 0, (size_t)p->n) != NULL))
        return mt_fail(ctx, MT_E_FORMAT, "tokenizer.chat_template is no text");
    if (p != NULL)
        MT_TRY(chat_copy(ctx, p->at, (size_t)p->n, &out->template_text));
    MT_TRY(vocab_texts(ctx, &s->g, "tokenizer.ggml.tokens", &s->tokens, &s->v.n_tokens));
    MT_TRY(chat_token(ctx, s, "tokenizer.ggml.bos_token_id", &out->bos));
    return chat_token(ctx, s, "tokenizer.ggml.eos_token_id", &out->eos);
}

mt_status mt_gguf_chat_read(struct mt_ctx *ctx, const char *path, struct mt_gguf_chat *out)
{
    struct gguf_vocab s = {0};
    mt_status st;

    *out = (struct mt_gguf_chat){0};
    mt_arena_init(&s.arena);
    st = mt_wrap(ctx, chat_read(ctx, &s, path, out), "%s", path);
    vocab_close(&s);
    if (st != MT_OK)
        mt_gguf_chat_free(out);
    return st;
}

void mt_gguf_chat_free(struct mt_gguf_chat *c)
{
    mt_free(c->template_text);
    mt_free(c->bos);
    mt_free(c->eos);
    *c = (struct mt_gguf_chat){0};
}

static void chat_set(struct mt_json *j, const char *key, const char *text)
{
    if (text != NULL && text[0] != '\0')
        mt_json_set_str(j, key, text);
}

mt_status mt_gguf_tokenizer_config(struct mt_ctx *ctx, const char *path, char **text, size_t *n)
{
    struct mt_gguf_chat c;
    struct mt_json *j;
    mt_status st;

    *text = NULL;
    *n = 0;
    MT_TRY(mt_gguf_chat_read(ctx, path, &c));
    j = mt_json_new_object();
    mt_json_set_str(j, "tokenizer_class", "PreTrainedTokenizerFast");
    mt_json_set_bool(j, "clean_up_tokenization_spaces", false);
    chat_set(j, "bos_token", c.bos);
    chat_set(j, "eos_token", c.eos);
    chat_set(j, "chat_template", c.template_text);
    st = mt_json_print(ctx, j, text, n);
    mt_json_free(j);
    mt_gguf_chat_free(&c);
    return st;
}
