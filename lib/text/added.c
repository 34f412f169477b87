#include "lib/text/added.h"

#include "lib/text/stage.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int added_compare(const void *a, const void *b)
{
    const struct mt_added_token *x = a, *y = b;
    size_t n = x->n_pattern < y->n_pattern ? x->n_pattern : y->n_pattern;
    int c = memcmp(x->pattern, y->pattern, n);

    return c != 0 ? c : (x->n_pattern > y->n_pattern) - (x->n_pattern < y->n_pattern);
}

static void added_sort(struct mt_added_set *set)
{
    size_t i = 0;

    if (set->n > 1)
        qsort(set->v, set->n, sizeof *set->v, added_compare);
    for (unsigned b = 0; b <= 256; b++) {
        while (i < set->n && (unsigned char)set->v[i].pattern[0] < b)
            i++;
        set->first[b] = (uint32_t)i;
    }
}

static mt_status added_read(struct mt_ctx *ctx, const struct mt_json *j, int64_t *id,
                            struct mt_added_token *t)
{
    static const char *const known[] = {"id",     "content",    "single_word", "lstrip",
                                        "rstrip", "normalized", "special",     NULL};

    if (mt_json_kind(j) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "added_tokens holds something that is not an object");
    MT_TRY(mt_stage_fields(ctx, j, "added_tokens", known));
    MT_TRY(mt_stage_text(ctx, j, "added_tokens", "content", &t->content));
    if (!mt_json_integer(mt_json_get(j, "id"), id))
        return mt_fail(ctx, MT_E_FORMAT, "added token \"%.60s\": \"id\" is not an integer",
                       t->content);
    MT_TRY(mt_json_get_bool(ctx, j, "single_word", false, &t->single_word));
    MT_TRY(mt_json_get_bool(ctx, j, "lstrip", false, &t->lstrip));
    MT_TRY(mt_json_get_bool(ctx, j, "rstrip", false, &t->rstrip));
    MT_TRY(mt_json_get_bool(ctx, j, "normalized", true, &t->normalized));
    return mt_json_get_bool(ctx, j, "special", false, &t->special);
}

static mt_status added_id(struct mt_ctx *ctx, const struct mt_vocab_table *vocab,
                          struct mt_added *a, int64_t id, struct mt_added_token *t)
{
    int32_t known = mt_vocab_find(vocab, t->content, t->n_content);
    const char *s;
    size_t n;

    if (known >= 0 && known != id)
        mt_log(ctx, MT_LOG_WARN,
               "tokenizer: added token \"%.60s\" says id %" PRId64 ", the vocabulary %" PRId32
               "; taking the latter",
               t->content, id, known);
    else if (known < 0 && mt_vocab_text(vocab, id, &s, &n))
        return mt_fail(ctx, MT_E_FORMAT,
                       "added token \"%.60s\" has id %" PRId64 ", which is \"%.*s\"'s", t->content,
                       id, n < 60 ? (int)n : 60, s);
    if (known >= 0)
        id = known;
    MT_TRY(mt_wrap(ctx, mt_vocab_add(ctx, &a->ids, t->content, t->n_content, id), "added_tokens"));
    t->id = (int32_t)id;
    return MT_OK;
}

static mt_status added_pattern(struct mt_ctx *ctx, const struct mt_normalizer *norm,
                               struct mt_added *a, struct mt_added_token *t)
{
    struct mt_text scratch[2] = {0};
    const char *s;
    size_t n;
    mt_status st = MT_OK;

    t->pattern = t->content;
    t->n_pattern = t->n_content;
    if (!t->normalized)
        return MT_OK;
    st = mt_normalize(ctx, norm, t->content, t->n_content, scratch, &s, &n);
    if (st == MT_OK && n == 0)
        st =
            mt_fail(ctx, MT_E_FORMAT, "added token \"%.60s\" is empty once normalized", t->content);
    if (st == MT_OK)
        st = mt_arena_strndup(ctx, &a->arena, s, n, &t->pattern);
    t->n_pattern = (uint32_t)n;
    mt_text_end(&scratch[0]);
    mt_text_end(&scratch[1]);
    return st;
}

static mt_status added_one(struct mt_ctx *ctx, const struct mt_json *j,
                           const struct mt_vocab_table *vocab, const struct mt_normalizer *norm,
                           struct mt_added *a)
{
    struct mt_added_token t = {.content = ""};
    struct mt_added_set *set;
    int64_t id;

    MT_TRY(added_read(ctx, j, &id, &t));
    t.n_content = (uint32_t)strlen(t.content);
    if (t.n_content == 0)
        return MT_OK; /* nothing can match it; the reference library leaves it out too */
    MT_TRY(mt_arena_strndup(ctx, &a->arena, t.content, t.n_content, &t.content));
    MT_TRY(added_id(ctx, vocab, a, id, &t));
    MT_TRY(added_pattern(ctx, norm, a, &t));
    set = t.normalized ? &a->normalized : &a->raw;
    set->v[set->n++] = t;
    return MT_OK;
}

mt_status mt_added_open(struct mt_ctx *ctx, const struct mt_json *j,
                        const struct mt_vocab_table *vocab, const struct mt_normalizer *norm,
                        struct mt_added *a)
{
    size_t n = mt_json_count(j);

    mt_arena_init(&a->arena);
    if (mt_json_kind(j) == MT_JSON_ABSENT || mt_json_kind(j) == MT_JSON_NULL)
        return MT_OK;
    if (mt_json_kind(j) != MT_JSON_ARRAY)
        return mt_fail(ctx, MT_E_FORMAT, "\"added_tokens\" is not an array");
    MT_TRY(mt_alloc(ctx, n, sizeof *a->raw.v, "added tokens", &a->raw.v));
    MT_TRY(mt_alloc(ctx, n, sizeof *a->raw.v, "added tokens", &a->normalized.v));
    for (const struct mt_json *t = mt_json_first(j); t != NULL; t = mt_json_next(t))
        MT_TRY(added_one(ctx, t, vocab, norm, a));
    added_sort(&a->raw);
    added_sort(&a->normalized);
    return MT_OK;
}

void mt_added_end(struct mt_added *a)
{
    mt_free(a->raw.v);
    mt_free(a->normalized.v);
    mt_vocab_end(&a->ids);
    mt_arena_free(&a->arena);
    *a = (struct mt_added){0};
}

const struct mt_added_token *mt_added_by_id(const struct mt_added *a, int32_t id)
{
    const char *s;
    size_t n;

    if (!mt_vocab_text(&a->ids, id, &s, &n))
        return NULL;
    for (size_t i = 0; i < a->raw.n + a->normalized.n; i++) {
        const struct mt_added_token *t =
            i < a->raw.n ? &a->raw.v[i] : &a->normalized.v[i - a->raw.n];
        if (t->id == id)
            return t;
    }
    return NULL;
}

/* --- matching --- */

/* First of v[lo..hi), which agree up to `depth`, whose byte there is at least b. One that ends at
 * `depth` counts as less than any byte. */
static size_t added_bound(const struct mt_added_set *set, size_t lo, size_t hi, size_t depth,
                          unsigned b)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct mt_added_token *t = &set->v[mid];
        if (t->n_pattern == depth || (unsigned char)t->pattern[depth] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest token that begins at s: the sorted list is narrowed one byte at a time. */
static const struct mt_added_token *added_match(const struct mt_added_set *set, const char *s,
                                                size_t n)
{
    unsigned char b = (unsigned char)s[0];
    size_t lo = set->first[b], hi = set->first[b + 1];
    const struct mt_added_token *best = NULL;

    for (size_t depth = 1; lo < hi; depth++) {
        if (set->v[lo].n_pattern == depth)
            best = &set->v[lo]; /* sorts first among those with this prefix */
        if (depth == n)
            break;
        b = (unsigned char)s[depth];
        lo = added_bound(set, lo, hi, depth, b);
        hi = added_bound(set, lo, hi, depth, b + 1u);
    }
    return best;
}

/* White_Space of Unicode. */
static bool added_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

/* Word characters of UTS 18: Alphabetic, M, Nd, Pc, Join_Control. Alphabetic beyond L, M and Nl is
 * the circled and squared letters. */
static bool added_is_word(uint32_t c)
{
    if (c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
        (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
        (c >= 0x1F170 && c <= 0x1F189))
        return true;
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

/* Start of the character that ends at `at` > 0. */
static size_t added_back(const char *s, size_t at)
{
    do
        at--;
    while (at > 0 && ((unsigned char)s[at] & 0xC0) == 0x80);
    return at;
}

static bool added_touches_word(const char *s, size_t n, size_t at, size_t end)
{
    size_t i;

    if (at > 0) {
        i = added_back(s, at);
        if (added_is_word(mt_utf8_next(s, n, &i)))
            return true;
    }
    i = end;
    return end < n && added_is_word(mt_utf8_next(s, n, &i));
}

static size_t added_strip_left(const char *s, size_t n, size_t at)
{
    while (at > 0) {
        size_t before = added_back(s, at), i = before;
        if (!added_is_space(mt_utf8_next(s, n, &i)))
            break;
        at = before;
    }
    return at;
}

static size_t added_strip_right(const char *s, size_t n, size_t end)
{
    for (size_t i = end; i < n; end = i)
        if (!added_is_space(mt_utf8_next(s, n, &i)))
            break;
    return end;
}

/* Finds the next token that counts; matches that do not count still use up their text. */
static bool added_find(const struct mt_added_set *set, const char *s, size_t n, bool skip_special,
                       struct mt_added_cursor *c)
{
    while (c->scan < n) {
        unsigned char b = (unsigned char)s[c->scan];
        const struct mt_added_token *t =
            set->first[b] == set->first[b + 1] ? NULL : added_match(set, s + c->scan, n - c->scan);
        size_t at = c->scan, end;

        if (t == NULL) {
            c->scan++;
            continue;
        }
        c->scan = end = at + t->n_pattern;
        if ((skip_special && t->special) || (t->single_word && added_touches_word(s, n, at, end)))
            continue;
        if (t->lstrip) {
            size_t left = added_strip_left(s, n, at);
            at = left > c->from ? left : c->from;
        }
        if (t->rstrip)
            end = added_strip_right(s, n, end);
        c->held = t;
        c->held_at = at;
        c->held_end = end;
        return true;
    }
    return false;
}

bool mt_added_next(const struct mt_added_set *set, const char *s, size_t n, bool skip_special,
                   struct mt_added_cursor *c, struct mt_added_part *part)
{
    if (c->held == NULL && (set->n == 0 || !added_find(set, s, n, skip_special, c))) {
        *part = (struct mt_added_part){NULL, c->from, n - c->from};
        c->scan = c->from = n;
        return part->n > 0;
    }
    if (c->from < c->held_at) {
        *part = (struct mt_added_part){NULL, c->from, c->held_at - c->from};
        c->from = c->held_at;
        return true;
    }
    *part = (struct mt_added_part){c->held, c->held_at, c->held_end - c->held_at};
    c->from = c->held_end;
    c->held = NULL;
    return true;
}
