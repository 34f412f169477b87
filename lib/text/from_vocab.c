/* Tokenizers from the vocabularies of GGUF files. */
#include "lib/text/from_vocab.h"

#include "lib/text/bert.h"
#include "lib/text/pre_table.h"

#include "lib/base/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define FROM_META "\xE2\x96\x81" /* U+2581 */
#define FROM_BERT_WORD_CHARS_MAX 100
#define FROM_BERT_UNK 100

static int32_t from_type(const struct mt_vocab_desc *v, size_t i)
{
    return v->types != NULL ? v->types[i] : MT_TOKEN_NORMAL;
}

/* --- tokens --- */

static mt_status from_add(struct mt_ctx *ctx, struct mt_vocab_table *t, const char *s, size_t n,
                          size_t id)
{
    if (n == 0 || mt_vocab_find(t, s, n) >= 0)
        return MT_OK;
    if (mt_utf8_valid(s, n) != n)
        return mt_fail(ctx, MT_E_FORMAT, "token %zu is not UTF-8", id);
    return mt_vocab_add(ctx, t, s, n, (int64_t)id);
}

static mt_status from_tokens(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                             struct mt_vocab_table *t)
{
    size_t bytes = 0;

    if (v->n_tokens == 0 || v->n_tokens > (size_t)MT_TOKEN_ID_MAX + 1)
        return mt_fail(ctx, MT_E_FORMAT, "a vocabulary of %zu tokens (1 to %d are possible)",
                       v->n_tokens, MT_TOKEN_ID_MAX + 1);
    for (size_t i = 0; i < v->n_tokens; i++)
        bytes += v->tokens[i].n;
    MT_TRY(mt_vocab_reserve(ctx, t, v->n_tokens, bytes));
    for (size_t i = 0; i < v->n_tokens; i++)
        MT_TRY(from_add(ctx, t, v->tokens[i].s, v->tokens[i].n, i));
    return MT_OK;
}

/* Written with U+2581 before what begins a word, where BERT's own list has ## before what does
 * not. A list without any such mark is BERT's own. */
static mt_status from_bert_tokens(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                                  struct mt_vocab_table *t)
{
    struct mt_text word = {0};
    bool marked = false;
    mt_status st = MT_OK;

    for (size_t i = 0; i < v->n_tokens && !marked; i++)
        marked = v->tokens[i].n > 3 && memcmp(v->tokens[i].s, FROM_META, 3) == 0;
    if (!marked)
        return from_tokens(ctx, v, t);
    for (size_t i = 0; i < v->n_tokens && st == MT_OK; i++) {
        const struct mt_token_text *k = &v->tokens[i];
        bool begins = k->n > 3 && memcmp(k->s, FROM_META, 3) == 0;
        if (begins || from_type(v, i) != MT_TOKEN_NORMAL) {
            size_t skip = begins ? 3 : 0;
            st = from_add(ctx, t, k->s + skip, k->n - skip, i);
            continue;
        }
        word.n = 0;
        st = mt_text_add(ctx, &word, "##", 2);
        if (st == MT_OK)
            st = mt_text_add(ctx, &word, k->s, k->n);
        if (st == MT_OK)
            st = from_add(ctx, t, word.s, word.n, i);
    }
    mt_text_end(&word);
    return st;
}

/* --- scores to ranks --- */

struct from_score {
    float score;
    uint32_t id;
};

static int from_by_score(const void *a, const void *b)
{
    const struct from_score *x = a, *y = b;

    return (x->score < y->score) - (x->score > y->score);
}

/* Equal scores have equal ranks. Only normal tokens come from merging, as in SentencePiece. */
static mt_status from_ranks(struct mt_ctx *ctx, const struct mt_vocab_desc *v, uint32_t **out)
{
    struct from_score *s;
    size_t n = 0;
    uint32_t rank = 0;

    if (v->scores == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "tokenizer.ggml.scores is missing");
    MT_TRY(mt_alloc(ctx, v->n_tokens, sizeof *s, "scores", &s));
    for (size_t i = 0; i < v->n_tokens; i++)
        if (from_type(v, i) == MT_TOKEN_NORMAL && v->scores[i] == v->scores[i])
            s[n++] = (struct from_score){v->scores[i], (uint32_t)i};
    qsort(s, n, sizeof *s, from_by_score);
    mt_status st = mt_alloc(ctx, v->n_tokens, sizeof **out, "scores", out);
    if (st == MT_OK) {
        memset(*out, 0xFF, v->n_tokens * sizeof **out);
        for (size_t i = 0; i < n; i++) {
            if (i > 0 && s[i].score < s[i - 1].score)
                rank++;
            (*out)[s[i].id] = rank;
        }
    }
    mt_free(s);
    return st;
}

/* --- what stands around the model --- */

static void from_added(const struct mt_vocab_desc *v, const struct mt_vocab_table *t,
                       struct mt_json *rest)
{
    struct mt_json *list = mt_json_set_array(rest, "added_tokens");

    for (size_t i = 0; i < v->n_tokens; i++) {
        int32_t type = from_type(v, i);
        const char *s;
        size_t n;
        char text[256];
        if (type != MT_TOKEN_UNKNOWN && type != MT_TOKEN_CONTROL && type != MT_TOKEN_USER)
            continue;
        if (!mt_vocab_text(t, (int64_t)i, &s, &n) || n >= sizeof text || memchr(s, 0, n) != NULL)
            continue; /* longer ones are no tokens that anyone writes */
        memcpy(text, s, n);
        text[n] = '\0';
        struct mt_json *a = mt_json_add_object(list);
        mt_json_set_int(a, "id", (int64_t)i);
        mt_json_set_str(a, "content", text);
        mt_json_set_bool(a, "single_word", false);
        mt_json_set_bool(a, "lstrip", false);
        mt_json_set_bool(a, "rstrip", false);
        mt_json_set_bool(a, "normalized", false);
        mt_json_set_bool(a, "special", type != MT_TOKEN_USER);
    }
}

static void from_piece(struct mt_json *list, const char *kind, const char *name, int64_t type)
{
    struct mt_json *piece = mt_json_set_object(mt_json_add_object(list), kind);

    mt_json_set_str(piece, "id", name);
    mt_json_set_int(piece, "type_id", type);
}

static void from_special(struct mt_json *specials, const char *name, int32_t id)
{
    struct mt_json *one = mt_json_set_object(specials, name);

    mt_json_set_str(one, "id", name);
    mt_json_add_int(mt_json_set_array(one, "ids"), id);
    mt_json_add_str(mt_json_set_array(one, "tokens"), name);
}

static void from_template(struct mt_json *list, bool bos, bool eos, const char *text, int64_t type)
{
    if (bos)
        from_piece(list, "SpecialToken", "bos", type);
    from_piece(list, "Sequence", text, type);
    if (eos)
        from_piece(list, "SpecialToken", "eos", type);
}

static void from_post(const struct mt_vocab_desc *v, bool bos, bool eos, struct mt_json *rest)
{
    struct mt_json *post, *pair, *specials;

    bos = bos && v->bos >= 0;
    eos = eos && v->eos >= 0;
    if (!bos && !eos)
        return;
    post = mt_json_set_object(rest, "post_processor");
    mt_json_set_str(post, "type", "TemplateProcessing");
    from_template(mt_json_set_array(post, "single"), bos, eos, "A", 0);
    pair = mt_json_set_array(post, "pair");
    from_template(pair, bos, eos, "A", 0);
    from_template(pair, bos, eos, "B", 1);
    specials = mt_json_set_object(post, "special_tokens");
    if (bos)
        from_special(specials, "bos", v->bos);
    if (eos)
        from_special(specials, "eos", v->eos);
}

static struct mt_json *from_stage(struct mt_json *list, const char *type)
{
    struct mt_json *j = mt_json_add_object(list);

    mt_json_set_str(j, "type", type);
    return j;
}

static struct mt_json *from_sequence(struct mt_json *rest, const char *what, const char *list)
{
    struct mt_json *j = mt_json_set_object(rest, what);

    mt_json_set_str(j, "type", "Sequence");
    return mt_json_set_array(j, list);
}

static void from_replace(struct mt_json *list, const char *pattern, const char *content)
{
    struct mt_json *j = from_stage(list, "Replace");

    mt_json_set_str(mt_json_set_object(j, "pattern"), "String", pattern);
    mt_json_set_str(j, "content", content);
}

static void from_byte_level(struct mt_json *j, bool prefix, bool regex)
{
    mt_json_set_bool(j, "add_prefix_space", prefix);
    mt_json_set_bool(j, "trim_offsets", true);
    mt_json_set_bool(j, "use_regex", regex);
}

/* --- the three kinds --- */

static mt_status from_gpt2(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                           struct mt_text_model *m, struct mt_json *rest)
{
    const char *name = v->pre != NULL ? v->pre : "default";
    const struct mt_pre *pre = mt_pre_find(name);
    struct mt_json *list;

    if (pre == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "tokenizer.ggml.pre \"%.60s\" is not known; a tokenizer.json beside the "
                       "model would be used instead",
                       name);
    if (v->pre == NULL)
        mt_log(ctx, MT_LOG_WARN,
               "%s: tokenizer.ggml.pre is missing; text is split by the default rules", v->what);
    if (v->merges == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "tokenizer.ggml.merges is missing");
    MT_TRY(from_tokens(ctx, v, &m->bpe.vocab));
    m->bpe.unk_id = -1;
    m->bpe.ignore_merges = pre->ignore_merges;
    MT_TRY(mt_bpe_from(ctx, v->merges, v->n_merges, NULL, &m->bpe));
    from_added(v, &m->bpe.vocab, rest);
    if (pre->nfc)
        mt_json_set_str(mt_json_set_object(rest, "normalizer"), "type", "NFC");
    list = from_sequence(rest, "pre_tokenizer", "pretokenizers");
    for (const char *const *r = pre->regex; *r != NULL; r++) {
        struct mt_json *s = from_stage(list, "Split");
        mt_json_set_str(mt_json_set_object(s, "pattern"), "Regex", *r);
        mt_json_set_str(s, "behavior", "Isolated");
        mt_json_set_bool(s, "invert", false);
    }
    list = from_stage(list, "ByteLevel");
    from_byte_level(list, v->add_space_prefix == 1, false);
    list = mt_json_set_object(rest, "decoder");
    mt_json_set_str(list, "type", "ByteLevel");
    from_byte_level(list, false, true);
    from_post(v, v->add_bos < 0 ? pre->add_bos : v->add_bos == 1, v->add_eos == 1, rest);
    return MT_OK;
}

static mt_status from_llama(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                            struct mt_text_model *m, struct mt_json *rest)
{
    bool prefix = v->add_space_prefix != 0;
    uint32_t *ranks = NULL;
    struct mt_json *list;

    MT_TRY(from_tokens(ctx, v, &m->bpe.vocab));
    m->bpe.unk_id = v->unk >= 0 && (size_t)v->unk < v->n_tokens ? v->unk : -1;
    m->bpe.fuse_unk = m->bpe.byte_fallback = true;
    MT_TRY(from_ranks(ctx, v, &ranks));
    MT_TRY(mt_bpe_from(ctx, NULL, 0, ranks, &m->bpe));
    from_added(v, &m->bpe.vocab, rest);
    list = from_sequence(rest, "normalizer", "normalizers");
    if (prefix)
        mt_json_set_str(from_stage(list, "Prepend"), "prepend", FROM_META);
    from_replace(list, " ", FROM_META);
    list = from_sequence(rest, "decoder", "decoders");
    from_replace(list, FROM_META, " ");
    from_stage(list, "ByteFallback");
    from_stage(list, "Fuse");
    if (prefix) {
        list = from_stage(list, "Strip");
        mt_json_set_str(list, "content", " ");
        mt_json_set_int(list, "start", 1);
        mt_json_set_int(list, "stop", 0);
    }
    from_post(v, v->add_bos != 0, v->add_eos == 1, rest);
    return MT_OK;
}

static mt_status from_bert(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                           struct mt_text_model *m, struct mt_json **rest)
{
    int32_t id = v->unk >= 0 ? v->unk : FROM_BERT_UNK;

    m->kind = MT_MODEL_WORDPIECE;
    MT_TRY(from_bert_tokens(ctx, v, &m->wordpiece.vocab));
    MT_TRY(mt_wordpiece_ready(ctx, "[UNK]", "##", FROM_BERT_WORD_CHARS_MAX, &m->wordpiece));
    if (m->wordpiece.unk_id < 0 && (size_t)id < v->n_tokens)
        m->wordpiece.unk_id = id;
    mt_json_free(*rest);
    *rest = NULL;
    return mt_bert_rest(ctx, &m->wordpiece, true, rest);
}

mt_status mt_vocab_parts(struct mt_ctx *ctx, const struct mt_vocab_desc *v, struct mt_text_model *m,
                         struct mt_json **rest)
{
    *rest = mt_json_new_object();
    if (strcmp(v->model, "gpt2") == 0)
        return from_gpt2(ctx, v, m, *rest);
    if (strcmp(v->model, "llama") == 0)
        return from_llama(ctx, v, m, *rest);
    if (strcmp(v->model, "bert") == 0)
        return from_bert(ctx, v, m, rest);
    return mt_fail(ctx, MT_E_UNSUPPORTED,
                   "tokenizer.ggml.model \"%.60s\" is not supported; gpt2, llama and bert are",
                   v->model);
}

mt_status mt_tokenizer_from_vocab(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                                  struct mt_tokenizer **out)
{
    struct mt_text_model m = {.kind = MT_MODEL_BPE};
    struct mt_json *rest = NULL;
    mt_status st = mt_vocab_parts(ctx, v, &m, &rest);

    *out = NULL;
    if (st == MT_OK)
        return mt_tokenizer_assemble(ctx, &m, rest, v->what, out);
    mt_json_free(rest);
    mt_text_model_end(&m);
    return mt_wrap(ctx, st, "%s", v->what);
}
