/* The model of a tokenizer.json: vocabulary and merges. */
#include "lib/text/bpe.h"
#include "lib/text/stage.h"

#include "lib/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static mt_status bpe_read_vocab(struct mt_ctx *ctx, const struct mt_json *vocab, struct mt_bpe *m)
{
    size_t n = 0, n_bytes = 0;

    if (mt_json_kind(vocab) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "model: \"vocab\" must be an object of tokens and ids");
    for (const struct mt_json *j = mt_json_first(vocab); j != NULL; j = mt_json_next(j)) {
        n++;
        n_bytes += strlen(mt_json_key(j));
    }
    MT_TRY(mt_vocab_reserve(ctx, &m->vocab, n, n_bytes));
    for (const struct mt_json *j = mt_json_first(vocab); j != NULL; j = mt_json_next(j)) {
        const char *token = mt_json_key(j);
        int64_t id;
        if (!mt_json_integer(j, &id))
            return mt_fail(ctx, MT_E_FORMAT, "model: the id of token \"%.60s\" is not an integer",
                           token);
        MT_TRY(mt_wrap(ctx, mt_vocab_add(ctx, &m->vocab, token, strlen(token), id), "model"));
    }
    return MT_OK;
}

/* The two sides of a merge, "a b" or ["a", "b"]. */
static mt_status bpe_merge_sides(struct mt_ctx *ctx, const struct mt_json *j, size_t number,
                                 const char *side[2], size_t n[2])
{
    if (mt_json_kind(j) == MT_JSON_STRING) {
        const char *s = mt_json_text(j), *space = strchr(s, ' ');
        if (space == NULL || strchr(space + 1, ' ') != NULL)
            return mt_fail(ctx, MT_E_FORMAT,
                           "model: merge %zu (\"%.60s\") is not two tokens with a space between",
                           number, s);
        side[0] = s;
        n[0] = (size_t)(space - s);
        side[1] = space + 1;
        n[1] = strlen(space + 1);
        return MT_OK;
    }
    if (mt_json_kind(j) == MT_JSON_ARRAY) {
        const struct mt_json *a = mt_json_first(j), *b = mt_json_next(a);
        side[0] = mt_json_text(a);
        side[1] = b != NULL ? mt_json_text(b) : NULL;
        if (side[0] != NULL && side[1] != NULL && mt_json_next(b) == NULL) {
            n[0] = strlen(side[0]);
            n[1] = strlen(side[1]);
            return MT_OK;
        }
    }
    return mt_fail(ctx, MT_E_FORMAT, "model: merge %zu is not a pair of tokens", number);
}

static void bpe_put_merge(struct mt_bpe *m, uint64_t pair, uint32_t rank, int32_t id)
{
    size_t i = mt_bpe_pair_slot(m, pair);

    while (m->merges[i].id >= 0 && m->merges[i].pair != pair)
        i = (i + 1) & m->merge_mask;
    /* A pair that is listed twice has its later rank, as in the reference library. */
    m->merges[i] = (struct mt_bpe_merge){pair, rank, id};
}

static mt_status bpe_read_merge(struct mt_ctx *ctx, const struct mt_json *j, uint32_t rank,
                                struct mt_text *joined, struct mt_bpe *m)
{
    const char *side[2] = {NULL, NULL};
    size_t n[2] = {0, 0};
    int32_t id[2], merged;

    MT_TRY(bpe_merge_sides(ctx, j, rank, side, n));
    for (int i = 0; i < 2; i++) {
        id[i] = mt_vocab_find(&m->vocab, side[i], n[i]);
        if (id[i] < 0)
            return mt_fail(ctx, MT_E_FORMAT,
                           "model: merge %" PRIu32
                           " names \"%.*s\", which is not in the vocabulary",
                           rank, n[i] < 60 ? (int)n[i] : 60, side[i]);
    }
    joined->n = 0;
    MT_TRY(mt_text_add(ctx, joined, side[0], n[0]));
    MT_TRY(mt_text_add(ctx, joined, side[1], n[1]));
    merged = joined->n == 0 ? -1 : mt_vocab_find(&m->vocab, joined->s, joined->n);
    if (n[0] == 0 || n[1] == 0 || merged < 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "model: merge %" PRIu32 " makes \"%.*s\", which is not in the vocabulary",
                       rank, joined->n < 60 ? (int)joined->n : 60, joined->n ? joined->s : "");
    bpe_put_merge(m, (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1], rank, merged);
    return MT_OK;
}

static mt_status bpe_read_merges(struct mt_ctx *ctx, const struct mt_json *merges, struct mt_bpe *m)
{
    struct mt_text joined = {0};
    size_t size = 64, n = mt_json_count(merges);
    uint32_t rank = 0;
    mt_status st = MT_OK;

    if (mt_json_kind(merges) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "model: \"merges\" must be an array");
    if (n >= UINT32_MAX / 4)
        return mt_fail(ctx, MT_E_LIMIT, "model: %zu merges are too many", n);
    while (size < 2 * n + 1)
        size *= 2;
    MT_TRY(mt_alloc(ctx, size, sizeof *m->merges, "merges", &m->merges));
    for (size_t i = 0; i < size; i++)
        m->merges[i].id = -1;
    m->merge_mask = size - 1;
    for (const struct mt_json *j = mt_json_first(merges); j != NULL && st == MT_OK;
         j = mt_json_next(j)) {
        const char *s = mt_json_text(j);
        if (s != NULL && strncmp(s, "#version", 8) == 0)
            continue; /* the first line of a merges.txt, copied */
        st = bpe_read_merge(ctx, j, rank++, &joined, m);
    }
    mt_text_end(&joined);
    return st;
}

static void bpe_find_bytes(struct mt_bpe *m)
{
    for (int b = 0; b < 256; b++) {
        char buf[8];
        size_t n = mt_utf8_put(mt_byte_char((unsigned char)b), buf);
        m->byte_id[b] = mt_vocab_find(&m->vocab, buf, n);
        snprintf(buf, sizeof buf, "<0x%02X>", (unsigned)b);
        m->fallback_id[b] = mt_vocab_find(&m->vocab, buf, 6);
    }
}

/* True when every merge keeps U+2581 at the front: then text can be cut before each U+2581 that
 * follows another character without changing the result, and words of Llama-style text are cached
 * like those of GPT-2. The U+2581 must be a token, so that it ends a run of unknown characters. */
static bool bpe_can_break(const struct mt_bpe *m)
{
    if (m->ignore_merges || mt_vocab_find(&m->vocab, "\xE2\x96\x81", 3) < 0)
        return false;
    for (size_t i = 0; i <= m->merge_mask; i++) {
        const char *s;
        size_t n, at = 0;
        bool other = false;
        if (m->merges[i].id < 0 || !mt_vocab_text(&m->vocab, m->merges[i].id, &s, &n))
            continue;
        while (at < n) {
            bool meta = mt_utf8_next(s, n, &at) == 0x2581;
            if (meta && other)
                return false;
            other = other || !meta;
        }
    }
    return true;
}

static mt_status bpe_check_type(struct mt_ctx *ctx, const struct mt_json *model)
{
    const char *type;

    if (mt_json_kind(model) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "\"model\" is missing or not an object");
    MT_TRY(mt_json_get_str(ctx, model, "type", NULL, &type));
    /* Files of 2020 have no type; what has merges is BPE. */
    if (type == NULL && mt_json_get(model, "merges") == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "the model has no \"type\"");
    if (type != NULL && strcmp(type, "BPE") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "model type \"%.60s\" is not supported", type);
    return MT_OK;
}

static mt_status bpe_read_options(struct mt_ctx *ctx, const struct mt_json *model, const char **unk,
                                  struct mt_bpe *m)
{
    static const char *const known[] = {"type",
                                        "dropout",
                                        "unk_token",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "ignore_merges",
                                        "vocab",
                                        "merges",
                                        NULL};
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    double dropout;

    MT_TRY(mt_stage_fields(ctx, model, "model", known));
    MT_TRY(mt_json_get_num(ctx, model, "dropout", 0, &dropout));
    if (dropout != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "model: dropout %g is not supported", dropout);
    for (int i = 0; i < 2; i++) {
        const char *affix;
        MT_TRY(mt_json_get_str(ctx, model, affixes[i], "", &affix));
        if (affix[0] != '\0')
            return mt_fail(ctx, MT_E_UNSUPPORTED, "model: %s \"%.60s\" is not supported",
                           affixes[i], affix);
    }
    MT_TRY(mt_json_get_str(ctx, model, "unk_token", NULL, unk));
    MT_TRY(mt_json_get_bool(ctx, model, "fuse_unk", false, &m->fuse_unk));
    MT_TRY(mt_json_get_bool(ctx, model, "byte_fallback", false, &m->byte_fallback));
    return mt_json_get_bool(ctx, model, "ignore_merges", false, &m->ignore_merges);
}

mt_status mt_bpe_open(struct mt_ctx *ctx, const struct mt_json *model, struct mt_bpe *m)
{
    const char *unk = NULL;

    MT_TRY(bpe_check_type(ctx, model));
    MT_TRY(bpe_read_options(ctx, model, &unk, m));
    MT_TRY(bpe_read_vocab(ctx, mt_json_get(model, "vocab"), m));
    MT_TRY(bpe_read_merges(ctx, mt_json_get(model, "merges"), m));
    m->unk_id = -1;
    if (unk != NULL) {
        m->unk_id = mt_vocab_find(&m->vocab, unk, strlen(unk));
        if (m->unk_id < 0)
            m->unk_id = -2;
    }
    bpe_find_bytes(m);
    m->breaks = bpe_can_break(m);
    return MT_OK;
}

void mt_bpe_end(struct mt_bpe *m)
{
    mt_vocab_end(&m->vocab);
    mt_free(m->merges);
    *m = (struct mt_bpe){0};
}
