/* The tokenizer of a model in the keys of GGUF (spec: formats, 4.4). */
#include "formats/gguf.h"

#include "lib/base/mem.h"
#include "lib/text/pre_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VOCAB_JSON_BYTES_MAX ((size_t)256 << 20)
#define VOCAB_TOKENS_MAX (1 << 22)

enum vocab_type {
    VOCAB_NORMAL = 1,
    VOCAB_UNKNOWN,
    VOCAB_CONTROL,
    VOCAB_USER,
    VOCAB_UNUSED,
    VOCAB_BYTE
};

struct vocab_token {
    const char *text; /* NULL: a hole, borrowed otherwise */
    float score;
    uint8_t type; /* enum vocab_type */
};

struct vocab {
    struct mt_ctx *ctx;
    const struct mt_model *m;
    struct mt_gguf_out *o;
    struct mt_json *json, *config; /* tokenizer.json, tokenizer_config.json; config may be NULL */
    bool spm;                      /* characters with byte fallback, as SentencePiece */
    struct vocab_token *v;
    int64_t n;
};

static const char *vocab_sidecar(const struct mt_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_sidecars; i++)
        if (strcmp(m->sidecars[i].name, name) == 0)
            return m->sidecars[i].path;
    return NULL;
}

/* ---- tokens ---- */

static const char *vocab_entry(const struct mt_json *j, int64_t *id)
{
    return mt_json_integer(j, id) ? mt_json_key(j) : NULL;
}

static mt_status vocab_bad(struct vocab *b, const char *what)
{
    return mt_fail(
        b->ctx, MT_E_UNSUPPORTED,
        "tokenizer.json: %s cannot be put into a GGUF file; remove the file to write one "
        "without a tokenizer",
        what);
}

static mt_status vocab_count(struct vocab *b, const struct mt_json *vocab,
                             const struct mt_json *added)
{
    int64_t id;

    b->n = b->m->hp.vocab;
    for (const struct mt_json *j = mt_json_first(vocab); j != NULL; j = mt_json_next(j))
        if (vocab_entry(j, &id) == NULL || id < 0 || id >= VOCAB_TOKENS_MAX || id >= b->m->hp.vocab)
            return vocab_bad(b, "a vocabulary larger than the model's embedding");
    for (const struct mt_json *j = mt_json_first(added); j != NULL; j = mt_json_next(j))
        if (!mt_json_integer(mt_json_get(j, "id"), &id) || id < 0 || id >= b->m->hp.vocab ||
            mt_json_text(mt_json_get(j, "content")) == NULL)
            return vocab_bad(b, "an added token without a row in the model's embedding");
    if (b->n > VOCAB_TOKENS_MAX)
        return vocab_bad(b, "a vocabulary of that size");
    return mt_alloc0(b->ctx, (size_t)b->n, sizeof *b->v, "vocabulary", &b->v);
}

static bool vocab_is_byte(const char *s)
{
    return strlen(s) == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>';
}

static mt_status vocab_tokens(struct vocab *b, const struct mt_json *model)
{
    const struct mt_json *vocab = mt_json_get(model, "vocab");
    const struct mt_json *added = mt_json_get(b->json, "added_tokens");
    const char *unk = mt_json_text(mt_json_get(model, "unk_token"));
    int64_t id;

    MT_TRY(vocab_count(b, vocab, added));
    for (const struct mt_json *j = mt_json_first(vocab); j != NULL; j = mt_json_next(j)) {
        const char *text = vocab_entry(j, &id);
        b->v[id].text = text;
        b->v[id].type = b->spm && vocab_is_byte(text) ? VOCAB_BYTE : VOCAB_NORMAL;
    }
    for (const struct mt_json *j = mt_json_first(added); j != NULL; j = mt_json_next(j)) {
        bool special = false;
        (void)mt_json_integer(mt_json_get(j, "id"), &id);
        (void)mt_json_truth(mt_json_get(j, "special"), &special);
        b->v[id].text = mt_json_text(mt_json_get(j, "content"));
        b->v[id].type = special ? VOCAB_CONTROL : VOCAB_USER;
    }
    for (int64_t i = 0; i < b->n; i++) {
        if (b->v[i].text == NULL)
            b->v[i].type = VOCAB_UNUSED;
        else if (b->spm && unk != NULL && strcmp(b->v[i].text, unk) == 0)
            b->v[i].type = VOCAB_UNKNOWN;
    }
    return MT_OK;
}

static void vocab_put_tokens(struct vocab *b)
{
    char hole[32];
    uint32_t bits;

    mt_gguf_pair_array(b->o, "tokenizer.ggml.tokens", MT_GGUF_STRING, (uint64_t)b->n);
    for (int64_t i = 0; i < b->n; i++) {
        const char *text = b->v[i].text;
        if (text == NULL) {
            snprintf(hole, sizeof hole, "[PAD%lld]", (long long)i);
            text = hole;
        }
        mt_gguf_put_text(b->o, text, strlen(text));
    }
    if (b->spm) {
        mt_gguf_pair_array(b->o, "tokenizer.ggml.scores", MT_GGUF_F32, (uint64_t)b->n);
        for (int64_t i = 0; i < b->n; i++) {
            memcpy(&bits, &b->v[i].score, sizeof bits);
            mt_gguf_put_u32(b->o, bits);
        }
    }
    mt_gguf_pair_array(b->o, "tokenizer.ggml.token_type", MT_GGUF_I32, (uint64_t)b->n);
    for (int64_t i = 0; i < b->n; i++)
        mt_gguf_put_u32(b->o, b->v[i].type);
}

/* ---- merges ---- */

/* Both spellings, "a b" and ["a", "b"], as one string; NULL when it is neither. */
static const char *vocab_merge(const struct mt_json *j, char *buf, size_t n)
{
    const char *a, *c;

    if (mt_json_kind(j) == MT_JSON_STRING)
        return mt_json_text(j);
    a = mt_json_text(mt_json_first(j));
    c = mt_json_count(j) == 2 ? mt_json_text(mt_json_next(mt_json_first(j))) : NULL;
    if (a == NULL || c == NULL || strchr(a, ' ') != NULL || strchr(c, ' ') != NULL)
        return NULL;
    size_t first = strlen(a), second = strlen(c);
    if (first + second + 2 > n)
        return NULL;
    memcpy(buf, a, first);
    buf[first] = ' ';
    memcpy(buf + first + 1, c, second);
    buf[first + 1 + second] = '\0';
    return buf;
}

struct vocab_name {
    const char *text;
    int64_t id;
};

static int vocab_by_text(const void *a, const void *b)
{
    return strcmp(((const struct vocab_name *)a)->text, ((const struct vocab_name *)b)->text);
}

/* SentencePiece merges the pair whose result scores best; the earliest merge scores highest, and
 * what no merge makes is never made. */
static mt_status vocab_scores(struct vocab *b, const struct mt_json *merges)
{
    struct vocab_name *names, key = {0}, *hit;
    char buf[4096], whole[4096];
    mt_status st = MT_OK;
    float rank = 0;
    size_t n = 0;

    MT_TRY(mt_alloc(b->ctx, (size_t)b->n, sizeof *names, "vocabulary", &names));
    for (int64_t i = 0; i < b->n; i++) {
        b->v[i].score = b->v[i].type == VOCAB_NORMAL ? -1e9f : 0;
        if (b->v[i].type == VOCAB_NORMAL)
            names[n++] = (struct vocab_name){b->v[i].text, i};
    }
    if (n > 1)
        qsort(names, n, sizeof *names, vocab_by_text);
    for (const struct mt_json *j = mt_json_first(merges); j != NULL && st == MT_OK;
         j = mt_json_next(j)) {
        const char *text = vocab_merge(j, buf, sizeof buf), *cut;
        if (text == NULL || strlen(text) >= sizeof whole || (cut = strchr(text, ' ')) == NULL) {
            st = vocab_bad(b, "a merge of that form");
            break;
        }
        size_t first = (size_t)(cut - text), second = strlen(cut + 1);
        memcpy(whole, text, first);
        memcpy(whole + first, cut + 1, second);
        whole[first + second] = '\0';
        key.text = whole;
        hit = bsearch(&key, names, n, sizeof *names, vocab_by_text);
        if (hit != NULL && b->v[hit->id].score <= -1e9f)
            b->v[hit->id].score = -rank;
        rank++;
    }
    mt_free(names);
    return st;
}

static mt_status vocab_put_merges(struct vocab *b, const struct mt_json *merges)
{
    char buf[4096];

    mt_gguf_pair_array(b->o, "tokenizer.ggml.merges", MT_GGUF_STRING, mt_json_count(merges));
    for (const struct mt_json *j = mt_json_first(merges); j != NULL; j = mt_json_next(j)) {
        const char *text = vocab_merge(j, buf, sizeof buf);
        if (text == NULL)
            return vocab_bad(b, "a merge of that form");
        mt_gguf_put_text(b->o, text, strlen(text));
    }
    return MT_OK;
}

/* ---- how text is split ---- */

/* How a pre-tokenizer cuts text, one expression after the other. */
struct vocab_splits {
    const char *regex[MT_PRE_REGEX_MAX + 2]; /* NULL-ended */
    int n;
    bool bytes; /* a byte-level step is there */
    bool other; /* a step that no expression stands for */
};

static void vocab_split(struct vocab_splits *s, const char *regex)
{
    if (regex == NULL || s->n > MT_PRE_REGEX_MAX)
        s->other = true;
    else
        s->regex[s->n++] = regex;
}

static void vocab_look(const struct mt_json *j, struct vocab_splits *s)
{
    const char *type = mt_json_text(mt_json_get(j, "type"));
    bool yes = true, digits = false;

    if (type != NULL && strcmp(type, "Split") == 0) {
        vocab_split(s, mt_json_text(mt_json_get(mt_json_get(j, "pattern"), "Regex")));
    } else if (type != NULL && strcmp(type, "Digits") == 0) {
        (void)mt_json_truth(mt_json_get(j, "individual_digits"), &digits);
        vocab_split(s, digits ? "\\p{N}" : "\\p{N}+");
    } else if (type != NULL && strcmp(type, "ByteLevel") == 0) {
        (void)mt_json_truth(mt_json_get(j, "use_regex"), &yes);
        s->bytes = true;
        if (yes)
            vocab_split(s, mt_pre_find("gpt-2")->regex[0]);
    } else if (type != NULL && strcmp(type, "Sequence") != 0) {
        s->other = true;
    }
    for (const struct mt_json *c = mt_json_first(mt_json_get(j, "pretokenizers")); c != NULL;
         c = mt_json_next(c))
        vocab_look(c, s);
}

/* True when a step of the normalizer is Unicode's NFC. */
static bool vocab_nfc(const struct mt_json *j)
{
    const char *type = mt_json_text(mt_json_get(j, "type"));
    bool found = type != NULL && strcmp(type, "NFC") == 0;

    for (const struct mt_json *c = mt_json_first(mt_json_get(j, "normalizers"));
         c != NULL && !found; c = mt_json_next(c))
        found = vocab_nfc(c);
    return found;
}

/* llama.cpp has one set of splits for each name; a wrong name is a wrong split. */
static mt_status vocab_pre(struct vocab *b, const struct mt_json *model, const char **pre)
{
    struct vocab_splits s = {0};
    bool ignore = false;

    vocab_look(mt_json_get(b->json, "pre_tokenizer"), &s);
    (void)mt_json_truth(mt_json_get(model, "ignore_merges"), &ignore);
    if (!s.bytes)
        return vocab_bad(b, "a BPE that is neither byte-level nor with byte fallback");
    *pre = s.other ? NULL
                   : mt_pre_name(s.regex, vocab_nfc(mt_json_get(b->json, "normalizer")), ignore);
    if (*pre == NULL) {
        mt_log(b->ctx, MT_LOG_WARN,
               "tokenizer.json splits text in a way that has no known name in GGUF; \"default\" is "
               "written, check that engines tokenize as the original does");
        *pre = "default";
    }
    return MT_OK;
}

/* ---- special tokens ---- */

static int64_t vocab_find(const struct vocab *b, const char *text)
{
    for (int64_t i = 0; text != NULL && i < b->n; i++)
        if (b->v[i].text != NULL && strcmp(b->v[i].text, text) == 0)
            return i;
    return -1;
}

/* A special token of tokenizer_config.json: a string, or an object with its content. */
static int64_t vocab_special(const struct vocab *b, const char *key)
{
    const struct mt_json *j = mt_json_get(b->config, key);
    const char *text = mt_json_text(j);

    return vocab_find(b, text != NULL ? text : mt_json_text(mt_json_get(j, "content")));
}

static void vocab_id(struct vocab *b, const char *key, int64_t id)
{
    if (id >= 0)
        mt_gguf_pair_u32(b->o, "tokenizer.ggml", key, id);
}

static bool vocab_is_special(const struct mt_json *step)
{
    return mt_json_get(step, "SpecialToken") != NULL;
}

/* What the post-processor puts in front and behind; the config may say otherwise. */
static void vocab_adds(struct vocab *b)
{
    const struct mt_json *post = mt_json_get(b->json, "post_processor"), *last = NULL;
    const struct mt_json *single = mt_json_get(post, "single");
    bool bos, eos;

    for (const struct mt_json *j = mt_json_first(mt_json_get(post, "processors"));
         j != NULL && single == NULL; j = mt_json_next(j))
        single = mt_json_get(j, "single");
    for (const struct mt_json *j = mt_json_first(single); j != NULL; j = mt_json_next(j))
        last = j;
    bos = vocab_is_special(mt_json_first(single));
    eos = last != mt_json_first(single) && vocab_is_special(last);
    (void)mt_json_truth(mt_json_get(b->config, "add_bos_token"), &bos);
    (void)mt_json_truth(mt_json_get(b->config, "add_eos_token"), &eos);
    mt_gguf_pair_bool(b->o, "tokenizer.ggml", "add_bos_token", bos);
    mt_gguf_pair_bool(b->o, "tokenizer.ggml", "add_eos_token", eos);
}

/* True when a normalizer or pre-tokenizer puts a space in front of text. */
static bool vocab_prepends(const struct mt_json *j)
{
    const char *type = mt_json_text(mt_json_get(j, "type"));
    const char *scheme = mt_json_text(mt_json_get(j, "prepend_scheme"));
    bool found =
        type != NULL &&
        (strcmp(type, "Prepend") == 0 ||
         (strcmp(type, "Metaspace") == 0 && (scheme == NULL || strcmp(scheme, "never") != 0)));

    for (const struct mt_json *c = mt_json_first(mt_json_get(j, "normalizers"));
         c != NULL && !found; c = mt_json_next(c))
        found = vocab_prepends(c);
    return found;
}

static mt_status vocab_template(struct vocab *b)
{
    const struct mt_json *list = mt_json_get(b->config, "chat_template");
    const char *text = mt_json_text(list);
    const char *path = vocab_sidecar(b->m, "chat_template.jinja");
    char *file;
    size_t n;

    /* One of several by names: the default. */
    for (const struct mt_json *j = mt_json_first(list); j != NULL && text == NULL;
         j = mt_json_next(j)) {
        const char *name = mt_json_text(mt_json_get(j, "name"));
        if (name != NULL && strcmp(name, "default") == 0)
            text = mt_json_text(mt_json_get(j, "template"));
    }
    if (path != NULL) {
        MT_TRY(mt_read_file(b->ctx, path, (size_t)16 << 20, &file, &n));
        mt_gguf_pair_text(b->o, "tokenizer", "chat_template", file);
        mt_free(file);
    } else if (text != NULL) {
        mt_gguf_pair_text(b->o, "tokenizer", "chat_template", text);
    }
    return MT_OK;
}

static mt_status vocab_put(struct vocab *b)
{
    const struct mt_json *model = mt_json_get(b->json, "model");
    const struct mt_json *merges = mt_json_get(model, "merges");
    const char *type = mt_json_text(mt_json_get(model, "type")), *pre = NULL;

    if (mt_json_kind(mt_json_get(model, "vocab")) != MT_JSON_OBJECT ||
        (type != NULL && strcmp(type, "BPE") != 0))
        return vocab_bad(b, "a model other than BPE");
    (void)mt_json_truth(mt_json_get(model, "byte_fallback"), &b->spm);
    MT_TRY(vocab_tokens(b, model));
    if (b->spm)
        MT_TRY(vocab_scores(b, merges));
    else
        MT_TRY(vocab_pre(b, model, &pre));
    mt_gguf_pair_text(b->o, "tokenizer.ggml", "model", b->spm ? "llama" : "gpt2");
    mt_gguf_pair_text(b->o, "tokenizer.ggml", "pre", b->spm ? "default" : pre);
    vocab_put_tokens(b);
    if (!b->spm)
        MT_TRY(vocab_put_merges(b, merges));
    vocab_id(b, "bos_token_id", b->m->hp.bos_id);
    vocab_id(b, "eos_token_id", b->m->hp.eos_id);
    vocab_id(b, "unknown_token_id",
             b->spm ? vocab_find(b, mt_json_text(mt_json_get(model, "unk_token"))) : -1);
    vocab_id(b, "padding_token_id", vocab_special(b, "pad_token"));
    vocab_adds(b);
    if (b->spm)
        mt_gguf_pair_bool(b->o, "tokenizer.ggml", "add_space_prefix",
                          vocab_prepends(mt_json_get(b->json, "normalizer")) ||
                              vocab_prepends(mt_json_get(b->json, "pre_tokenizer")));
    return vocab_template(b);
}

/* The pairs of a GGUF source, as they are. */
static mt_status vocab_copy(struct mt_ctx *ctx, const struct mt_map *map, struct mt_gguf_out *o)
{
    static const char prefix[] = "tokenizer.";
    struct mt_arena a;
    struct mt_gguf g;
    mt_status st;

    mt_arena_init(&a);
    st = mt_gguf_header_read(ctx, map, &a, &g);
    for (size_t i = 0; st == MT_OK && i < g.n_pairs; i++) {
        const struct mt_gguf_pair *p = &g.pairs[i];
        if (strncmp(p->key, prefix, sizeof prefix - 1) != 0)
            continue;
        mt_gguf_put_key(o, NULL, p->key, p->type);
        if (p->type == MT_GGUF_ARRAY) {
            mt_gguf_put_u32(o, p->item);
            mt_gguf_put_u64(o, p->n);
        } else if (p->type == MT_GGUF_STRING) {
            mt_gguf_put_u64(o, p->n);
        }
        mt_gguf_put_raw(o, p->at, (size_t)p->bytes);
    }
    mt_gguf_header_free(&g);
    mt_arena_free(&a);
    return st;
}

mt_status mt_gguf_put_vocab(struct mt_ctx *ctx, const struct mt_model *m, struct mt_gguf_out *o)
{
    const struct mt_model *src = m->source != NULL ? m->source : m;
    struct vocab b = {.ctx = ctx, .m = m, .o = o};
    const char *path = vocab_sidecar(m, "tokenizer.json");
    const char *config = vocab_sidecar(m, "tokenizer_config.json");
    mt_status st;

    if (src->format != NULL && strcmp(src->format, "gguf") == 0 && src->n_maps > 0) {
        MT_TRY(vocab_copy(ctx, src->maps[0], o));
        return o->st;
    }
    if (path == NULL) {
        mt_log(ctx, MT_LOG_WARN,
               "no tokenizer.json beside the model: the GGUF file gets no vocabulary, and engines "
               "take token ids only");
        mt_gguf_pair_text(o, "tokenizer.ggml", "model", "no_vocab");
        return MT_OK;
    }
    st = mt_json_read(ctx, path, VOCAB_JSON_BYTES_MAX, &b.json);
    if (st == MT_OK && config != NULL)
        st = mt_json_read(ctx, config, VOCAB_JSON_BYTES_MAX, &b.config);
    if (st == MT_OK)
        st = vocab_put(&b);
    mt_json_free(b.json);
    mt_json_free(b.config);
    mt_free(b.v);
    return st == MT_OK ? o->st : st;
}
