#include "lib/text/bert.h"

#include "lib/base/map.h"
#include "lib/text/model.h"

#include <string.h>

#define BERT_WORD_CHARS_MAX 100

static void bert_added(struct mt_json *list, const char *token, int32_t id)
{
    struct mt_json *t = mt_json_add_object(list);

    mt_json_set_int(t, "id", id);
    mt_json_set_str(t, "content", token);
    mt_json_set_bool(t, "single_word", false);
    mt_json_set_bool(t, "lstrip", false);
    mt_json_set_bool(t, "rstrip", false);
    mt_json_set_bool(t, "normalized", false);
    mt_json_set_bool(t, "special", true);
}

static void bert_pair(struct mt_json *obj, const char *key, const char *token, int32_t id)
{
    struct mt_json *a = mt_json_set_array(obj, key);

    mt_json_add_str(a, token);
    mt_json_add_int(a, id);
}

mt_status mt_bert_rest(struct mt_ctx *ctx, const struct mt_wordpiece *m, bool lower,
                       struct mt_json **out)
{
    static const char *const special[] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
    static const char text[] =
        "{\"normalizer\":{\"type\":\"BertNormalizer\",\"clean_text\":true,"
        "\"handle_chinese_chars\":true,\"strip_accents\":null},"
        "\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"},"
        "\"decoder\":{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}}";
    struct mt_json *added;
    int32_t cls = mt_vocab_find(&m->vocab, "[CLS]", 5), sep = mt_vocab_find(&m->vocab, "[SEP]", 5);

    MT_TRY(mt_json_parse(ctx, text, sizeof text - 1, "BERT", out));
    mt_json_set_bool(mt_json_get(*out, "normalizer"), "lowercase", lower);
    added = mt_json_set_array(*out, "added_tokens");
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        int32_t id = mt_vocab_find(&m->vocab, special[i], strlen(special[i]));
        if (id >= 0)
            bert_added(added, special[i], id);
    }
    if (cls >= 0 && sep >= 0) {
        struct mt_json *post = mt_json_set_object(*out, "post_processor");
        mt_json_set_str(post, "type", "BertProcessing");
        bert_pair(post, "cls", "[CLS]", cls);
        bert_pair(post, "sep", "[SEP]", sep);
    }
    return MT_OK;
}

static mt_status bert_lines(struct mt_ctx *ctx, const char *s, size_t n, struct mt_vocab_table *t)
{
    int64_t id = 0;

    for (size_t at = 0; at < n; id++) {
        const char *nl = memchr(s + at, '\n', n - at);
        size_t end = nl != NULL ? (size_t)(nl - s) : n, len = end - at;
        if (len > 0 && s[end - 1] == '\r')
            len--;
        if (mt_utf8_valid(s + at, len) != len)
            return mt_fail(ctx, MT_E_FORMAT, "line %lld is not UTF-8", (long long)id + 1);
        if (len > 0)
            MT_TRY(mt_vocab_add(ctx, t, s + at, len, id));
        at = end + 1;
    }
    return t->n_entries > 0 ? MT_OK : mt_fail(ctx, MT_E_FORMAT, "the file holds no tokens");
}

mt_status mt_tokenizer_open_bert(struct mt_ctx *ctx, const char *path, bool lower,
                                 struct mt_tokenizer **out)
{
    struct mt_text_model m = {.kind = MT_MODEL_WORDPIECE};
    struct mt_json *rest = NULL;
    struct mt_map *map;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_map_open(ctx, path, &map));
    st = mt_wrap(ctx,
                 bert_lines(ctx, (const char *)map->base, (size_t)map->bytes, &m.wordpiece.vocab),
                 "%s", path);
    mt_map_close(map);
    if (st == MT_OK)
        st = mt_wordpiece_ready(ctx, "[UNK]", "##", BERT_WORD_CHARS_MAX, &m.wordpiece);
    if (st == MT_OK)
        st = mt_bert_rest(ctx, &m.wordpiece, lower, &rest);
    if (st == MT_OK)
        return mt_tokenizer_assemble(ctx, &m, rest, path, out);
    mt_text_model_end(&m);
    return st;
}
