/* The vocabulary of a GGUF file as a tokenizer.json. */
#include "lib/text/from_vocab.h"

#include "lib/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct vj {
    struct mt_ctx *ctx;
    struct mt_text out;
    mt_status st; /* the first failure; after one nothing is written */
};

static void vj_put(struct vj *o, const char *s, size_t n)
{
    if (o->st == MT_OK)
        o->st = mt_text_add(o->ctx, &o->out, s, n);
}

static void vj_raw(struct vj *o, const char *s)
{
    vj_put(o, s, strlen(s));
}

/* s[0..n) without quotes around it. */
static void vj_escaped(struct vj *o, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        char hex[8];
        if (c == '"' || c == '\\')
            vj_raw(o, "\\");
        if (c >= 0x20) {
            vj_put(o, s + i, 1);
            continue;
        }
        snprintf(hex, sizeof hex, "\\u%04x", c);
        vj_raw(o, hex);
    }
}

static void vj_quoted(struct vj *o, const char *s, size_t n)
{
    vj_raw(o, "\"");
    vj_escaped(o, s, n);
    vj_raw(o, "\"");
}

static void vj_vocab(struct vj *o, const struct mt_vocab_table *t)
{
    const char *s, *comma = "\n";
    char id[32];
    size_t n;

    vj_raw(o, "    \"vocab\": {");
    for (size_t i = 0; i < t->n_ids; i++) {
        if (!mt_vocab_text(t, (int64_t)i, &s, &n))
            continue;
        vj_raw(o, comma);
        vj_raw(o, "      ");
        vj_quoted(o, s, n);
        snprintf(id, sizeof id, ": %zu", i);
        vj_raw(o, id);
        comma = ",\n";
    }
    vj_raw(o, "\n    }");
}

/* --- scores to merges --- */

struct vj_merge {
    uint32_t rank;
    int32_t whole, left, right;
};

static int vj_by_rank(const void *a, const void *b)
{
    const struct vj_merge *x = a, *y = b;

    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    if (x->whole != y->whole)
        return x->whole < y->whole ? -1 : 1;
    return (x->left > y->left) - (x->left < y->left);
}

/* Every way to put two tokens together to one that has a rank; counts only when out is NULL. */
static size_t vj_pairs(const struct mt_bpe *m, struct vj_merge *out)
{
    size_t count = 0;

    for (size_t id = 0; id < m->vocab.n_ids; id++) {
        const char *s;
        size_t n;
        if (m->score_rank[id] == UINT32_MAX || !mt_vocab_text(&m->vocab, (int64_t)id, &s, &n))
            continue;
        for (size_t at = 1; at < n; at++) {
            struct vj_merge k = {.rank = m->score_rank[id], .whole = (int32_t)id};
            if (((unsigned char)s[at] & 0xC0) == 0x80)
                continue;
            k.left = mt_vocab_find(&m->vocab, s, at);
            k.right = k.left < 0 ? -1 : mt_vocab_find(&m->vocab, s + at, n - at);
            if (k.right < 0)
                continue;
            if (out != NULL)
                out[count] = k;
            count++;
        }
    }
    return count;
}

/* Both as an array, because a token may hold a space. */
static void vj_merge_put(struct vj *o, const struct mt_vocab_table *t, const struct vj_merge *k)
{
    const char *s;
    size_t n;

    vj_raw(o, "[");
    if (mt_vocab_text(t, k->left, &s, &n))
        vj_quoted(o, s, n);
    vj_raw(o, ", ");
    if (mt_vocab_text(t, k->right, &s, &n))
        vj_quoted(o, s, n);
    vj_raw(o, "]");
}

static mt_status vj_score_merges(struct vj *o, const struct mt_bpe *m)
{
    size_t n = vj_pairs(m, NULL);
    struct vj_merge *list;

    MT_TRY(mt_alloc(o->ctx, n + 1, sizeof *list, "merges", &list));
    vj_pairs(m, list);
    qsort(list, n, sizeof *list, vj_by_rank);
    for (size_t i = 0; i < n; i++) {
        vj_raw(o, i > 0 ? ",\n      " : "\n      ");
        vj_merge_put(o, &m->vocab, &list[i]);
    }
    mt_free(list);
    return o->st;
}

/* --- models --- */

static void vj_flag(struct vj *o, const char *key, bool on)
{
    vj_raw(o, "    \"");
    vj_raw(o, key);
    vj_raw(o, on ? "\": true,\n" : "\": false,\n");
}

static mt_status vj_bpe(struct vj *o, const struct mt_vocab_desc *v, const struct mt_bpe *m)
{
    const char *s;
    size_t n;

    vj_raw(o, "    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": ");
    if (m->unk_id >= 0 && mt_vocab_text(&m->vocab, m->unk_id, &s, &n))
        vj_quoted(o, s, n);
    else
        vj_raw(o, "null");
    vj_raw(o, ",\n    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n");
    vj_flag(o, "fuse_unk", m->fuse_unk);
    vj_flag(o, "byte_fallback", m->byte_fallback);
    vj_flag(o, "ignore_merges", m->ignore_merges);
    vj_vocab(o, &m->vocab);
    vj_raw(o, ",\n    \"merges\": [");
    if (m->score_rank != NULL)
        MT_TRY(vj_score_merges(o, m));
    for (size_t i = 0; m->score_rank == NULL && i < v->n_merges; i++) {
        vj_raw(o, i > 0 ? ",\n      " : "\n      ");
        vj_quoted(o, v->merges[i].s, v->merges[i].n);
    }
    vj_raw(o, "\n    ]\n");
    return o->st;
}

static mt_status vj_wordpiece(struct vj *o, const struct mt_wordpiece *m)
{
    char max[64];
    const char *s = "[UNK]";
    size_t n = 5;

    vj_raw(o, "    \"type\": \"WordPiece\",\n    \"unk_token\": ");
    if (m->unk_id >= 0)
        mt_vocab_text(&m->vocab, m->unk_id, &s, &n);
    vj_quoted(o, s, n);
    vj_raw(o, ",\n    \"continuing_subword_prefix\": ");
    vj_quoted(o, m->prefix, m->n_prefix);
    snprintf(max, sizeof max, ",\n    \"max_input_chars_per_word\": %" PRId64 ",\n", m->chars_max);
    vj_raw(o, max);
    vj_vocab(o, &m->vocab);
    vj_raw(o, "\n");
    return o->st;
}

/* `rest` is an object that is not empty; the model comes behind its last member. */
static mt_status vj_write(struct vj *o, const struct mt_vocab_desc *v,
                          const struct mt_text_model *m, struct mt_json *rest)
{
    static const char *const stages[] = {"truncation",    "padding",        "normalizer",
                                         "pre_tokenizer", "post_processor", "decoder"};
    char *text;
    size_t n;

    mt_json_set_str(rest, "version", "1.0");
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        if (mt_json_get(rest, stages[i]) == NULL)
            mt_json_set_null(rest, stages[i]);
    MT_TRY(mt_json_print(o->ctx, rest, &text, &n));
    while (n > 0 && text[n - 1] != '}')
        n--;
    while (n > 1 && (text[n - 2] == '\n' || text[n - 2] == ' '))
        n--;
    vj_put(o, text, n > 0 ? n - 1 : 0);
    mt_free(text);
    vj_raw(o, ",\n  \"model\": {\n");
    MT_TRY(m->kind == MT_MODEL_BPE ? vj_bpe(o, v, &m->bpe) : vj_wordpiece(o, &m->wordpiece));
    vj_raw(o, "  }\n}\n");
    vj_put(o, "", 1);
    return o->st;
}

mt_status mt_vocab_to_json(struct mt_ctx *ctx, const struct mt_vocab_desc *v, char **text,
                           size_t *n)
{
    struct mt_text_model m = {.kind = MT_MODEL_BPE};
    struct mt_json *rest = NULL;
    struct vj o = {.ctx = ctx};
    mt_status st = mt_vocab_parts(ctx, v, &m, &rest);

    *text = NULL;
    *n = 0;
    if (st == MT_OK)
        st = vj_write(&o, v, &m, rest);
    mt_json_free(rest);
    mt_text_model_end(&m);
    if (st == MT_OK) {
        *text = o.out.s;
        *n = o.out.n - 1;
    } else {
        mt_text_end(&o.out);
    }
    return mt_wrap(ctx, st, "%s", v->what);
}
