#include "lib/text/wordpiece.h"

#include "lib/text/stage.h"

#include <string.h>

#define WORDPIECE_CHARS_MAX 100

mt_status mt_wordpiece_ready(struct mt_ctx *ctx, const char *unk, const char *prefix,
                             int64_t chars_max, struct mt_wordpiece *m)
{
    m->n_prefix = strlen(prefix);
    if (m->n_prefix > MT_WORDPIECE_PREFIX_MAX)
        return mt_fail(ctx, MT_E_LIMIT,
                       "model: continuing_subword_prefix \"%.60s\" has more than %d bytes", prefix,
                       MT_WORDPIECE_PREFIX_MAX);
    memcpy(m->prefix, prefix, m->n_prefix + 1);
    m->chars_max = chars_max;
    m->unk_id = mt_vocab_find(&m->vocab, unk, strlen(unk));
    for (size_t i = 0; i < m->vocab.n_entries; i++)
        if (m->vocab.entries[i].n > m->token_bytes_max)
            m->token_bytes_max = m->vocab.entries[i].n;
    return MT_OK;
}

mt_status mt_wordpiece_open(struct mt_ctx *ctx, const struct mt_json *model, struct mt_wordpiece *m)
{
    static const char *const known[] = {
        "type", "unk_token", "continuing_subword_prefix", "vocab", "max_input_chars_per_word",
        NULL};
    const char *unk, *prefix;
    int64_t chars_max;

    MT_TRY(mt_stage_fields(ctx, model, "model", known));
    MT_TRY(mt_json_get_str(ctx, model, "unk_token", "[UNK]", &unk));
    MT_TRY(mt_json_get_str(ctx, model, "continuing_subword_prefix", "##", &prefix));
    MT_TRY(
        mt_json_get_int(ctx, model, "max_input_chars_per_word", WORDPIECE_CHARS_MAX, &chars_max));
    MT_TRY(mt_stage_vocab(ctx, mt_json_get(model, "vocab"), &m->vocab));
    return mt_wordpiece_ready(ctx, unk, prefix, chars_max, m);
}

void mt_wordpiece_end(struct mt_wordpiece *m)
{
    mt_vocab_end(&m->vocab);
    *m = (struct mt_wordpiece){0};
}

/* The longest token that s[0..n) begins with; *used: its bytes of s. */
static mt_status wordpiece_longest(struct mt_ctx *ctx, const struct mt_wordpiece *m,
                                   struct mt_text *scratch, const char *s, size_t n, bool inside,
                                   size_t *used, int32_t *id)
{
    size_t skip = inside ? m->n_prefix : 0, len;

    *id = -1;
    if (m->token_bytes_max < skip)
        return MT_OK;
    len = n < m->token_bytes_max - skip ? n : m->token_bytes_max - skip;
    if (skip > 0) {
        scratch->n = 0;
        MT_TRY(mt_text_add(ctx, scratch, m->prefix, skip));
        MT_TRY(mt_text_add(ctx, scratch, s, len));
    }
    for (; len > 0; len--) {
        if (len < n && ((unsigned char)s[len] & 0xC0) == 0x80)
            continue; /* inside a character */
        *id = mt_vocab_find(&m->vocab, skip > 0 ? scratch->s : s, skip + len);
        if (*id >= 0)
            break;
    }
    *used = len;
    return MT_OK;
}

mt_status mt_wordpiece_encode(struct mt_ctx *ctx, const struct mt_wordpiece *m,
                              struct mt_text *scratch, const char *s, size_t n, struct mt_ids *out)
{
    size_t before = out->n, used;
    int64_t chars = 0;
    bool known;

    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    known = chars <= m->chars_max;
    for (size_t at = 0; known && at < n; at += used) {
        int32_t id;
        MT_TRY(wordpiece_longest(ctx, m, scratch, s + at, n - at, at > 0, &used, &id));
        known = id >= 0;
        if (known)
            MT_TRY(mt_ids_push(ctx, out, id));
    }
    if (known)
        return MT_OK;
    out->n = before;
    if (m->unk_id < 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "tokenizer: the text has a word without tokens, and the unk_token is not in "
                       "the vocabulary");
    return mt_ids_push(ctx, out, m->unk_id);
}
