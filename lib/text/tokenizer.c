#include "lib/text/tokenizer.h"

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/text/added.h"
#include "lib/text/decode.h"
#include "lib/text/model.h"
#include "lib/text/normalize.h"
#include "lib/text/pretok.h"
#include "lib/text/stage.h"
#include "lib/text/template.h"

#include <pthread.h>
#include <string.h>

#define TOKENIZER_FILE_BYTES_MAX ((size_t)256 << 20)
#define TOKENIZER_TEXT_BYTES_MAX ((size_t)1 << 30)

/* What one encode call writes to. Kept on a shelf between calls, so that the caches stay warm and
 * as many exist as there ever were threads at once. */
struct tokenizer_work {
    struct tokenizer_work *next;
    struct mt_text repaired, normal[2];
    struct mt_pretok_work pretok;
    struct mt_text_work model;
};
struct tokenizer_shelf {
    pthread_mutex_t lock;
    struct tokenizer_work *first;
};

struct mt_tokenizer {
    struct mt_text_model model;
    struct mt_added added;
    struct mt_normalizer normalizer;
    struct mt_pretok pretok;
    struct mt_decoder decoder;
    struct mt_template template;
    struct tokenizer_shelf *shelf;
};

void mt_ids_free(struct mt_ids *ids)
{
    mt_free(ids->v);
    *ids = (struct mt_ids){0};
}

mt_status mt_ids_push(struct mt_ctx *ctx, struct mt_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap * 2 + 64;
        MT_TRY(mt_realloc(ctx, cap, sizeof *ids->v, "token ids", &ids->v));
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return MT_OK;
}

/* --- opening --- */

static mt_status tokenizer_check_top(struct mt_ctx *ctx, const struct mt_json *root)
{
    static const char *const known[] = {
        "version",       "truncation", "padding", "added_tokens",   "normalizer",
        "pre_tokenizer", "model",      "decoder", "post_processor", NULL};
    const char *version;

    if (mt_json_kind(root) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "not an object");
    MT_TRY(mt_stage_fields(ctx, root, "tokenizer", known));
    MT_TRY(mt_json_get_str(ctx, root, "version", "1.0", &version));
    if (strcmp(version, "1.0") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "version \"%.60s\" is not supported", version);
    return MT_OK;
}

/* All but the model. */
static mt_status tokenizer_rest(struct mt_ctx *ctx, const struct mt_json *root,
                                struct mt_tokenizer *t)
{
    MT_TRY(mt_normalizer_open(ctx, mt_json_get(root, "normalizer"), &t->normalizer));
    MT_TRY(mt_added_open(ctx, mt_json_get(root, "added_tokens"), mt_text_model_vocab(&t->model),
                         &t->normalizer, &t->added));
    MT_TRY(mt_pretok_open(ctx, mt_json_get(root, "pre_tokenizer"), &t->pretok));
    MT_TRY(mt_decoder_open(ctx, mt_json_get(root, "decoder"), &t->decoder));
    MT_TRY(mt_template_open(ctx, mt_json_get(root, "post_processor"), &t->template));
    MT_TRY(mt_alloc0(ctx, 1, sizeof *t->shelf, "tokenizer", &t->shelf));
    pthread_mutex_init(&t->shelf->lock, NULL);
    return MT_OK;
}

static mt_status tokenizer_read(struct mt_ctx *ctx, const struct mt_json *root,
                                struct mt_tokenizer *t)
{
    MT_TRY(tokenizer_check_top(ctx, root));
    MT_TRY(mt_text_model_open(ctx, mt_json_get(root, "model"), &t->model));
    return tokenizer_rest(ctx, root, t);
}

static mt_status tokenizer_from(struct mt_ctx *ctx, struct mt_json *root /* taken */,
                                const char *what, struct mt_tokenizer **out)
{
    struct mt_tokenizer *t;
    mt_status st = mt_alloc0(ctx, 1, sizeof *t, "tokenizer", &t);

    if (st == MT_OK)
        st = mt_wrap(ctx, tokenizer_read(ctx, root, t), "%s", what);
    mt_json_free(root);
    if (st != MT_OK) {
        mt_tokenizer_free(t);
        t = NULL;
    }
    *out = t;
    return st;
}

mt_status mt_tokenizer_assemble(struct mt_ctx *ctx, struct mt_text_model *m, struct mt_json *rest,
                                const char *what, struct mt_tokenizer **out)
{
    struct mt_tokenizer *t;
    mt_status st = mt_alloc0(ctx, 1, sizeof *t, "tokenizer", &t);

    if (st == MT_OK) {
        t->model = *m;
        *m = (struct mt_text_model){0};
        st = mt_wrap(ctx, tokenizer_rest(ctx, rest, t), "%s", what);
    }
    mt_json_free(rest);
    mt_text_model_end(m);
    if (st != MT_OK) {
        mt_tokenizer_free(t);
        t = NULL;
    }
    *out = t;
    return st;
}

mt_status mt_tokenizer_open(struct mt_ctx *ctx, const char *path, struct mt_tokenizer **out)
{
    struct mt_json *root;

    *out = NULL;
    MT_TRY(mt_json_read(ctx, path, TOKENIZER_FILE_BYTES_MAX, &root));
    return tokenizer_from(ctx, root, path, out);
}

mt_status mt_tokenizer_parse(struct mt_ctx *ctx, const char *json, size_t n, const char *what,
                             struct mt_tokenizer **out)
{
    struct mt_json *root;

    *out = NULL;
    MT_TRY(mt_json_parse(ctx, json, n, what, &root));
    return tokenizer_from(ctx, root, what, out);
}

static void tokenizer_work_free(struct tokenizer_work *w)
{
    mt_text_end(&w->repaired);
    mt_text_end(&w->normal[0]);
    mt_text_end(&w->normal[1]);
    mt_pretok_work_end(&w->pretok);
    mt_text_work_end(&w->model);
    mt_free(w);
}

void mt_tokenizer_free(struct mt_tokenizer *t)
{
    if (t == NULL)
        return;
    if (t->shelf != NULL) {
        while (t->shelf->first != NULL) {
            struct tokenizer_work *w = t->shelf->first;
            t->shelf->first = w->next;
            tokenizer_work_free(w);
        }
        pthread_mutex_destroy(&t->shelf->lock);
        mt_free(t->shelf);
    }
    mt_template_end(&t->template);
    mt_decoder_end(&t->decoder);
    mt_pretok_end(&t->pretok);
    mt_added_end(&t->added);
    mt_normalizer_end(&t->normalizer);
    mt_text_model_end(&t->model);
    mt_free(t);
}

/* --- encoding --- */

static mt_status tokenizer_take(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                struct tokenizer_work **out)
{
    pthread_mutex_lock(&t->shelf->lock);
    *out = t->shelf->first;
    if (*out != NULL)
        t->shelf->first = (*out)->next;
    pthread_mutex_unlock(&t->shelf->lock);
    return *out != NULL ? MT_OK : mt_alloc0(ctx, 1, sizeof **out, "tokenizer", out);
}

static void tokenizer_give(const struct mt_tokenizer *t, struct tokenizer_work *w)
{
    pthread_mutex_lock(&t->shelf->lock);
    w->next = t->shelf->first;
    t->shelf->first = w;
    pthread_mutex_unlock(&t->shelf->lock);
}

/* Normalized text without added tokens. */
static mt_status tokenizer_plain(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                 struct tokenizer_work *w, const char *s, size_t n, bool first,
                                 struct mt_ids *out)
{
    const struct mt_pieces *pieces;
    const char *text;

    MT_TRY(mt_pretok_run(ctx, &t->pretok, &w->pretok, s, n, first, &text, &pieces));
    for (size_t i = 0; i < pieces->n; i++)
        MT_TRY(mt_text_model_encode(ctx, &t->model, &w->model, text + pieces->v[i].at,
                                    pieces->v[i].n, t->pretok.bytes, out));
    return MT_OK;
}

/* Text without raw added tokens. */
static mt_status tokenizer_raw(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                               struct tokenizer_work *w, const char *s, size_t n, bool first,
                               bool skip_special, struct mt_ids *out)
{
    struct mt_added_cursor c = {0};
    struct mt_added_part part;

    MT_TRY(mt_normalize(ctx, &t->normalizer, s, n, w->normal, &s, &n));
    while (mt_added_next(&t->added.normalized, s, n, skip_special, &c, &part)) {
        if (part.token != NULL)
            MT_TRY(mt_ids_push(ctx, out, part.token->id));
        else
            MT_TRY(tokenizer_plain(ctx, t, w, s + part.at, part.n, first && part.at == 0, out));
    }
    return MT_OK;
}

static mt_status tokenizer_text(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                struct tokenizer_work *w, const char *s, size_t n,
                                bool skip_special, struct mt_ids *out)
{
    struct mt_added_cursor c = {0};
    struct mt_added_part part;

    if (mt_utf8_valid(s, n) != n) {
        w->repaired.n = 0;
        MT_TRY(mt_utf8_repair(ctx, &w->repaired, s, n));
        s = w->repaired.s;
        n = w->repaired.n;
    }
    while (mt_added_next(&t->added.raw, s, n, skip_special, &c, &part)) {
        if (part.token != NULL)
            MT_TRY(mt_ids_push(ctx, out, part.token->id));
        else
            MT_TRY(tokenizer_raw(ctx, t, w, s + part.at, part.n, part.at == 0, skip_special, out));
    }
    return MT_OK;
}

mt_status mt_tokenizer_encode(struct mt_ctx *ctx, const struct mt_tokenizer *t, const char *text,
                              size_t n, unsigned flags, struct mt_ids *out)
{
    bool special = (flags & MT_ENCODE_SPECIAL) != 0;
    struct tokenizer_work *w;
    mt_status st;

    if (n > TOKENIZER_TEXT_BYTES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "a text of %zu bytes is too long; split it", n);
    for (size_t i = 0; special && i < t->template.before.n; i++)
        MT_TRY(mt_ids_push(ctx, out, t->template.before.v[i]));
    MT_TRY(tokenizer_take(ctx, t, &w));
    st = tokenizer_text(ctx, t, w, text, n, (flags & MT_ENCODE_NO_ADDED) != 0, out);
    tokenizer_give(t, w);
    for (size_t i = 0; special && st == MT_OK && i < t->template.after.n; i++)
        st = mt_ids_push(ctx, out, t->template.after.v[i]);
    return st;
}

/* --- decoding --- */

static mt_status tokenizer_tokens(struct mt_ctx *ctx, const struct mt_tokenizer *t,
                                  const int32_t *ids, size_t n, bool skip_special,
                                  struct mt_text *text, struct mt_pieces *pieces)
{
    for (size_t i = 0; i < n; i++) {
        const struct mt_added_token *a = mt_added_by_id(&t->added, ids[i]);
        const char *s;
        size_t len, at = text->n;

        if (a != NULL && a->special && skip_special)
            continue;
        if (a != NULL) {
            s = a->pattern;
            len = a->n_pattern;
        } else if (!mt_vocab_text(mt_text_model_vocab(&t->model), ids[i], &s, &len)) {
            continue; /* rows that pad an embedding have no text */
        }
        MT_TRY(mt_text_add(ctx, text, s, len));
        MT_TRY(mt_pieces_push(ctx, pieces, at, len, false));
    }
    return MT_OK;
}

mt_status mt_tokenizer_decode(struct mt_ctx *ctx, const struct mt_tokenizer *t, const int32_t *ids,
                              size_t n, bool skip_special, char **out, size_t *len)
{
    struct mt_text text[2] = {0};
    struct mt_pieces pieces[2] = {0};
    size_t total = 0;
    char *joined = NULL;
    int now = 0;
    mt_status st = tokenizer_tokens(ctx, t, ids, n, skip_special, &text[0], &pieces[0]);

    if (st == MT_OK)
        st = mt_decoder_run(ctx, &t->decoder, text, pieces, &now);
    for (size_t i = 0; i < pieces[now].n; i++)
        total += pieces[now].v[i].n;
    if (st == MT_OK)
        st = mt_alloc(ctx, total + 1, 1, "text", &joined);
    if (st == MT_OK) {
        *len = 0;
        for (size_t i = 0; i < pieces[now].n; i++) {
            memcpy(joined + *len, text[now].s + pieces[now].v[i].at, pieces[now].v[i].n);
            *len += pieces[now].v[i].n;
        }
        joined[*len] = '\0';
    }
    *out = joined;
    for (int i = 0; i < 2; i++) {
        mt_text_end(&text[i]);
        mt_pieces_end(&pieces[i]);
    }
    return st;
}

/* --- questions --- */

int64_t mt_tokenizer_vocab(const struct mt_tokenizer *t)
{
    size_t a = mt_text_model_vocab(&t->model)->n_ids, b = t->added.ids.n_ids;

    return (int64_t)(a > b ? a : b);
}

int32_t mt_tokenizer_find(const struct mt_tokenizer *t, const char *token)
{
    int32_t id = mt_vocab_find(&t->added.ids, token, strlen(token));

    return id >= 0 ? id : mt_vocab_find(mt_text_model_vocab(&t->model), token, strlen(token));
}

bool mt_tokenizer_adds_bos(const struct mt_tokenizer *t)
{
    return t->template.before.n > 0;
}
