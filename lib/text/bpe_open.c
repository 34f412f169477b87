/* The model of a tokenizer.json: vocabulary and merges. */
#include "lib/text/bpe.h"
#include "lib/text/stage.h"

#include "lib/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct bpe_sides {
    struct mt_token_text v[2];
};

/* "a b" */
static mt_status bpe_split_merge(struct mt_ctx *ctx, struct mt_token_text t, size_t number,
                                 struct bpe_sides *out)
{
    const char *space = memchr(t.s, ' ', t.n);
    size_t left = space == NULL ? 0 : (size_t)(space - t.s);

    if (space == NULL || memchr(space + 1, ' ', t.n - left - 1) != NULL)
        return mt_fail(ctx, MT_E_FORMAT,
                       "model: merge %zu (\"%.*s\") is not two tokens with a space between", number,
                       t.n < 60 ? (int)t.n : 60, t.s);
    out->v[0] = (struct mt_token_text){t.s, left};
    out->v[1] = (struct mt_token_text){space + 1, t.n - left - 1};
    return MT_OK;
}

/* The two sides of a merge, "a b" or ["a", "b"]. */
static mt_status bpe_merge_sides(struct mt_ctx *ctx, const struct mt_json *j, size_t number,
                                 struct bpe_sides *out)
{
    if (mt_json_kind(j) == MT_JSON_STRING) {
        const char *s = mt_json_text(j);
        return bpe_split_merge(ctx, (struct mt_token_text){s, strlen(s)}, number, out);
    }
    if (mt_json_kind(j) == MT_JSON_ARRAY) {
        const struct mt_json *a = mt_json_first(j), *b = mt_json_next(a);
        const char *left = mt_json_text(a), *right = b != NULL ? mt_json_text(b) : NULL;
        if (left != NULL && right != NULL && mt_json_next(b) == NULL) {
            out->v[0] = (struct mt_token_text){left, strlen(left)};
            out->v[1] = (struct mt_token_text){right, strlen(right)};
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

static mt_status bpe_add_merge(struct mt_ctx *ctx, const struct bpe_sides *side, uint32_t rank,
                               struct mt_text *joined, struct mt_bpe *m)
{
    int32_t id[2], merged;

    joined->n = 0;
    for (int i = 0; i < 2; i++) {
        const struct mt_token_text *t = &side->v[i];
        /* A right side carries the prefix of what continues a word; the merged token has it once.
         */
        size_t skip = i == 1 && t->n >= m->n_prefix ? m->n_prefix : 0;
        id[i] = mt_vocab_find(&m->vocab, t->s, t->n);
        if (id[i] < 0)
            return mt_fail(ctx, MT_E_FORMAT,
                           "model: merge %" PRIu32
                           " names \"%.*s\", which is not in the vocabulary",
                           rank, t->n < 60 ? (int)t->n : 60, t->s);
        MT_TRY(mt_text_add(ctx, joined, t->s + skip, t->n - skip));
    }
    merged = joined->n == 0 ? -1 : mt_vocab_find(&m->vocab, joined->s, joined->n);
    if (side->v[0].n == 0 || side->v[1].n == 0 || merged < 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "model: merge %" PRIu32 " makes \"%.*s\", which is not in the vocabulary",
                       rank, joined->n < 60 ? (int)joined->n : 60, joined->n ? joined->s : "");
    bpe_put_merge(m, (uint64_t)(uint32_t)id[0] << 32 | (uint32_t)id[1], rank, merged);
    return MT_OK;
}

static mt_status bpe_merge_table(struct mt_ctx *ctx, size_t n, struct mt_bpe *m)
{
    size_t size = 64;

    if (n >= UINT32_MAX / 4)
        return mt_fail(ctx, MT_E_LIMIT, "model: %zu merges are too many", n);
    while (size < 2 * n + 1)
        size *= 2;
    MT_TRY(mt_alloc(ctx, size, sizeof *m->merges, "merges", &m->merges));
    for (size_t i = 0; i < size; i++)
        m->merges[i].id = -1;
    m->merge_mask = size - 1;
    return MT_OK;
}

static mt_status bpe_read_merges(struct mt_ctx *ctx, const struct mt_json *merges, struct mt_bpe *m)
{
    struct mt_text joined = {0};
    uint32_t rank = 0;
    mt_status st = MT_OK;

    if (mt_json_kind(merges) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "model: \"merges\" must be an array");
    MT_TRY(bpe_merge_table(ctx, mt_json_count(merges), m));
    for (const struct mt_json *j = mt_json_first(merges); j != NULL && st == MT_OK;
         j = mt_json_next(j)) {
        const char *s = mt_json_text(j);
        struct bpe_sides side = {0};
        if (s != NULL && strncmp(s, "#version", 8) == 0)
            continue; /* the first line of a merges.txt, copied */
        st = bpe_merge_sides(ctx, j, rank, &side);
        if (st == MT_OK)
            st = bpe_add_merge(ctx, &side, rank++, &joined, m);
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

/* U+2581 behind another character. */
static bool bpe_meta_inside(const char *s, size_t n)
{
    bool other = false;

    for (size_t at = 0; at < n;) {
        bool meta = mt_utf8_next(s, n, &at) == 0x2581;
        if (meta && other)
            return true;
        other = other || !meta;
    }
    return false;
}

/* True when every merge keeps U+2581 at the front: then text can be cut before each U+2581 that
 * follows another character without changing the result, and words of Llama-style text are cached
 * like those of GPT-2. The U+2581 must be a token, so that it ends a run of unknown characters. */
static bool bpe_can_break(const struct mt_bpe *m)
{
    const char *s;
    size_t n;

    if (m->ignore_merges || m->n_prefix + m->n_suffix > 0 ||
        mt_vocab_find(&m->vocab, "\xE2\x96\x81", 3) < 0)
        return false;
    if (m->score_rank != NULL) {
        for (size_t id = 0; id < m->vocab.n_ids; id++)
            if (m->score_rank[id] != UINT32_MAX && mt_vocab_text(&m->vocab, (int64_t)id, &s, &n) &&
                bpe_meta_inside(s, n))
                return false;
        return true;
    }
    for (size_t i = 0; i <= m->merge_mask; i++)
        if (m->merges[i].id >= 0 && mt_vocab_text(&m->vocab, m->merges[i].id, &s, &n) &&
            bpe_meta_inside(s, n))
            return false;
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

static mt_status bpe_affix(struct mt_ctx *ctx, const struct mt_json *model, const char *key,
                           char to[MT_BPE_AFFIX_MAX + 1], size_t *n)
{
    const char *s;

    MT_TRY(mt_json_get_str(ctx, model, key, "", &s));
    *n = strlen(s);
    if (*n > MT_BPE_AFFIX_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "model: %s \"%.60s\" has more than %d bytes", key, s,
                       MT_BPE_AFFIX_MAX);
    memcpy(to, s, *n + 1);
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
    double dropout;

    MT_TRY(mt_stage_fields(ctx, model, "model", known));
    MT_TRY(mt_json_get_num(ctx, model, "dropout", 0, &dropout));
    if (dropout != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "model: dropout %g is not supported", dropout);
    MT_TRY(bpe_affix(ctx, model, "continuing_subword_prefix", m->prefix, &m->n_prefix));
    MT_TRY(bpe_affix(ctx, model, "end_of_word_suffix", m->suffix, &m->n_suffix));
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
    MT_TRY(mt_stage_vocab(ctx, mt_json_get(model, "vocab"), &m->vocab));
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

mt_status mt_bpe_from(struct mt_ctx *ctx, const struct mt_token_text *merges, size_t n_merges,
                      uint32_t *score_rank, struct mt_bpe *m)
{
    struct mt_text joined = {0};
    mt_status st;

    m->score_rank = score_rank;
    st = bpe_merge_table(ctx, n_merges, m);
    for (size_t i = 0; i < n_merges && st == MT_OK; i++) {
        struct bpe_sides side = {0};
        st = bpe_split_merge(ctx, merges[i], i, &side);
        if (st == MT_OK)
            st = bpe_add_merge(ctx, &side, (uint32_t)i, &joined, m);
    }
    mt_text_end(&joined);
    if (st == MT_OK) {
        bpe_find_bytes(m);
        m->breaks = bpe_can_break(m);
    }
    return st;
}

void mt_bpe_end(struct mt_bpe *m)
{
    mt_free(m->score_rank);
    mt_vocab_end(&m->vocab);
    mt_free(m->merges);
    *m = (struct mt_bpe){0};
}
