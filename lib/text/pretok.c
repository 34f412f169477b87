#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/text/pretok.h"

#include "lib/text/bpe.h"
#include "lib/text/normalize.h"
#include "lib/text/stage.h"

#include <pcre2.h>
#include <string.h>

#define PRETOK_JIT_STACK_MIN (32u << 10)
#define PRETOK_JIT_STACK_MAX (8u << 20)

static const char pretok_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* ASCII punctuation and P. */
#define PRETOK_PUNCTUATION "[!-/:-@\\[-`{-~\\p{P}]"

/* --- opening --- */

static mt_status pretok_bytelevel(struct mt_ctx *ctx, const struct mt_json *j,
                                  struct mt_pretok_stage *s)
{
    static const char *const known[] = {"type", "add_prefix_space", "trim_offsets", "use_regex",
                                        NULL};
    bool split;

    s->kind = MT_PRETOK_BYTES;
    s->behavior = MT_SPLIT_ISOLATED;
    memcpy(s->prefix, " ", 2);
    s->n_prefix = 1;
    MT_TRY(mt_stage_fields(ctx, j, "ByteLevel", known));
    MT_TRY(mt_json_get_bool(ctx, j, "add_prefix_space", true, &s->prefix_always));
    MT_TRY(mt_json_get_bool(ctx, j, "use_regex", true, &split));
    return split ? mt_regex_open(ctx, pretok_gpt2, false, &s->regex) : MT_OK;
}

static mt_status pretok_behavior(struct mt_ctx *ctx, const char *behavior,
                                 enum mt_pretok_behavior *out)
{
    static const char *const names[] = {"Removed",        "Isolated",   "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous", NULL};
    int i = 0;

    while (names[i] != NULL && strcmp(names[i], behavior) != 0)
        i++;
    if (names[i] == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "behavior \"%.60s\" is not supported", behavior);
    *out = (enum mt_pretok_behavior)i;
    return MT_OK;
}

static mt_status pretok_split(struct mt_ctx *ctx, const struct mt_json *j,
                              struct mt_pretok_stage *s)
{
    static const char *const known[] = {"type", "pattern", "behavior", "invert", NULL};
    const char *pattern, *behavior;
    bool regex;

    s->kind = MT_PRETOK_SPLIT;
    MT_TRY(mt_stage_fields(ctx, j, "Split", known));
    MT_TRY(mt_stage_text(ctx, j, "Split", "behavior", &behavior));
    MT_TRY(mt_json_get_bool(ctx, j, "invert", false, &s->invert));
    MT_TRY(pretok_behavior(ctx, behavior, &s->behavior));
    MT_TRY(mt_stage_pattern(ctx, j, "Split", &regex, &pattern));
    return mt_regex_open(ctx, pattern, !regex, &s->regex);
}

static mt_status pretok_digits(struct mt_ctx *ctx, const struct mt_json *j,
                               struct mt_pretok_stage *s)
{
    static const char *const known[] = {"type", "individual_digits", NULL};
    bool each;

    s->kind = MT_PRETOK_SPLIT;
    s->behavior = MT_SPLIT_ISOLATED;
    MT_TRY(mt_stage_fields(ctx, j, "Digits", known));
    MT_TRY(mt_json_get_bool(ctx, j, "individual_digits", false, &each));
    return mt_regex_open(ctx, each ? "\\p{N}" : "\\p{N}+", false, &s->regex);
}

static mt_status pretok_metaspace(struct mt_ctx *ctx, const struct mt_json *j,
                                  struct mt_pretok_stage *s)
{
    static const char *const known[] = {
        "type", "replacement", "add_prefix_space", "split", "str_rep", "prepend_scheme", NULL};
    const char *mark, *scheme;
    bool split, prefix;
    size_t at = 0;

    s->kind = MT_PRETOK_METASPACE;
    s->behavior = MT_SPLIT_MERGED_WITH_NEXT;
    MT_TRY(mt_stage_fields(ctx, j, "Metaspace", known));
    MT_TRY(mt_json_get_str(ctx, j, "replacement", "\xE2\x96\x81", &mark));
    MT_TRY(mt_json_get_str(ctx, j, "prepend_scheme", NULL, &scheme));
    MT_TRY(mt_json_get_bool(ctx, j, "add_prefix_space", true, &prefix));
    MT_TRY(mt_json_get_bool(ctx, j, "split", true, &split));
    if (scheme == NULL)
        scheme = prefix ? "always" : "never";
    s->n_prefix = strlen(mark);
    if (s->n_prefix > 0)
        (void)mt_utf8_next(mark, s->n_prefix, &at);
    if (s->n_prefix == 0 || at != s->n_prefix || s->n_prefix >= sizeof s->prefix)
        return mt_fail(ctx, MT_E_FORMAT, "\"replacement\" is not one character");
    memcpy(s->prefix, mark, s->n_prefix + 1);
    s->prefix_always = strcmp(scheme, "always") == 0;
    s->prefix_first = strcmp(scheme, "first") == 0;
    if (!s->prefix_always && !s->prefix_first && strcmp(scheme, "never") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "prepend_scheme \"%.60s\" is not supported", scheme);
    if (!prefix && strcmp(scheme, "never") != 0)
        return mt_fail(ctx, MT_E_FORMAT, "add_prefix_space and prepend_scheme disagree");
    return split ? mt_regex_open(ctx, mark, true, &s->regex) : MT_OK;
}

static mt_status pretok_punctuation(struct mt_ctx *ctx, const struct mt_json *j,
                                    struct mt_pretok_stage *s)
{
    static const char *const known[] = {"type", "behavior", NULL};
    const char *behavior;

    MT_TRY(mt_stage_fields(ctx, j, "Punctuation", known));
    MT_TRY(mt_json_get_str(ctx, j, "behavior", "Isolated", &behavior));
    MT_TRY(pretok_behavior(ctx, behavior, &s->behavior));
    return mt_regex_open(ctx, PRETOK_PUNCTUATION, false, &s->regex);
}

static mt_status pretok_delimiter(struct mt_ctx *ctx, const struct mt_json *j,
                                  struct mt_pretok_stage *s)
{
    static const char *const known[] = {"type", "delimiter", NULL};
    const char *delimiter;
    size_t at = 0;

    s->behavior = MT_SPLIT_REMOVED;
    MT_TRY(mt_stage_fields(ctx, j, "CharDelimiterSplit", known));
    MT_TRY(mt_stage_text(ctx, j, "CharDelimiterSplit", "delimiter", &delimiter));
    if (delimiter[0] != '\0')
        (void)mt_utf8_next(delimiter, strlen(delimiter), &at);
    if (at == 0 || delimiter[at] != '\0')
        return mt_fail(ctx, MT_E_FORMAT, "\"delimiter\" is not one character");
    return mt_regex_open(ctx, delimiter, true, &s->regex);
}

/* Those without fields of their own. BERT's leaves out white space, then isolates punctuation. */
static mt_status pretok_words(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                              struct mt_pretok *p)
{
    static const char *const known[] = {"type", NULL};
    struct mt_pretok_stage *s = &p->stages[p->n - 1];

    s->behavior = MT_SPLIT_REMOVED;
    if (strcmp(type, "Whitespace") == 0) {
        s->invert = true;
        MT_TRY(mt_stage_fields(ctx, j, type, known));
        /* Joiners count as parts of words here, unlike in patterns of Split. */
        return mt_regex_open(ctx, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+", false,
                             &s->regex);
    }
    if (strcmp(type, "WhitespaceSplit") != 0 && strcmp(type, "BertPreTokenizer") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "this pre-tokenizer is not supported");
    MT_TRY(mt_stage_fields(ctx, j, type, known));
    MT_TRY(mt_regex_open(ctx, "\\s+", false, &s->regex));
    if (type[0] == 'W')
        return MT_OK;
    if (p->n == MT_PRETOK_STAGES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "more than %d stages", MT_PRETOK_STAGES_MAX);
    s = &p->stages[p->n++];
    s->behavior = MT_SPLIT_ISOLATED;
    return mt_regex_open(ctx, PRETOK_PUNCTUATION, false, &s->regex);
}

static mt_status pretok_stage(struct mt_ctx *ctx, const struct mt_json *j, const char *type,
                              void *arg)
{
    struct mt_pretok *p = arg;
    struct mt_pretok_stage *s = &p->stages[p->n];

    if (p->n == MT_PRETOK_STAGES_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "more than %d stages", MT_PRETOK_STAGES_MAX);
    p->n++;
    if (strcmp(type, "ByteLevel") == 0)
        return pretok_bytelevel(ctx, j, s);
    if (strcmp(type, "Split") == 0)
        return pretok_split(ctx, j, s);
    if (strcmp(type, "Digits") == 0)
        return pretok_digits(ctx, j, s);
    if (strcmp(type, "Metaspace") == 0)
        return pretok_metaspace(ctx, j, s);
    if (strcmp(type, "Punctuation") == 0)
        return pretok_punctuation(ctx, j, s);
    if (strcmp(type, "CharDelimiterSplit") == 0)
        return pretok_delimiter(ctx, j, s);
    return pretok_words(ctx, j, type, p);
}

mt_status mt_pretok_open(struct mt_ctx *ctx, const struct mt_json *j, struct mt_pretok *p)
{
    MT_TRY(mt_stage_each(ctx, j, "pre_tokenizer", "pretokenizers", pretok_stage, p));
    p->bytes = p->n > 0 && p->stages[p->n - 1].kind == MT_PRETOK_BYTES;
    return MT_OK;
}

void mt_pretok_end(struct mt_pretok *p)
{
    for (int i = 0; i < p->n; i++)
        mt_regex_free(p->stages[i].regex);
    *p = (struct mt_pretok){0};
}

/* --- running --- */

static mt_status pretok_ready(struct mt_ctx *ctx, struct mt_pretok_work *w)
{
    if (w->match == NULL)
        w->match = pcre2_match_data_create(1, NULL);
    if (w->match_ctx == NULL)
        w->match_ctx = pcre2_match_context_create(NULL);
    if (w->jit_stack == NULL && w->match_ctx != NULL) {
        w->jit_stack = pcre2_jit_stack_create(PRETOK_JIT_STACK_MIN, PRETOK_JIT_STACK_MAX, NULL);
        pcre2_jit_stack_assign(w->match_ctx, NULL, w->jit_stack);
    }
    if (w->match == NULL || w->match_ctx == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for regular expressions");
    return MT_OK;
}

void mt_pretok_work_end(struct mt_pretok_work *w)
{
    for (int i = 0; i < 2; i++) {
        mt_text_end(&w->text[i]);
        mt_pieces_end(&w->pieces[i]);
    }
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->match_ctx);
    pcre2_jit_stack_free(w->jit_stack);
    *w = (struct mt_pretok_work){0};
}

/* Collects the parts of one piece as its behavior wants them. */
struct pretok_parts {
    struct mt_pieces *out;
    const struct mt_pretok_stage *stage;
    struct mt_piece piece; /* the one being cut; parts are relative to it */
    size_t begin;          /* out->n before it */
    bool previous;         /* the part before was a match */
};

static mt_status pretok_part(struct mt_ctx *ctx, struct pretok_parts *p, size_t at, size_t end,
                             bool match)
{
    enum mt_pretok_behavior b = p->stage->behavior;
    bool any = p->out->n > p->begin, previous = p->previous, join;

    match = match != p->stage->invert;
    p->previous = match;
    if (b == MT_SPLIT_REMOVED && match)
        return MT_OK;
    join = (b == MT_SPLIT_CONTIGUOUS && match == previous) ||
           (b == MT_SPLIT_MERGED_WITH_PREVIOUS && match && !previous) ||
           (b == MT_SPLIT_MERGED_WITH_NEXT && !match && previous);
    if (join && any) {
        p->out->v[p->out->n - 1].n += end - at;
        return MT_OK;
    }
    return mt_pieces_push(ctx, p->out, p->piece.at + at, end - at, p->piece.first && at == 0);
}

static mt_status pretok_match_failed(struct mt_ctx *ctx, int rc)
{
    PCRE2_UCHAR text[128];

    pcre2_get_error_message(rc, text, sizeof text);
    return mt_fail(ctx, MT_E_LIMIT, "the pre_tokenizer's regular expression gave up: %s",
                   (const char *)text);
}

/* Matches are searched as Oniguruma's bindings do: an empty match right behind the last match
 * does not count. */
static mt_status pretok_cut(struct mt_ctx *ctx, struct mt_pretok_work *w, const char *s, size_t n,
                            struct pretok_parts *p)
{
    size_t done = 0, from = 0, last = SIZE_MAX;
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->match);

    while (from <= n) {
        int rc = pcre2_match(p->stage->regex, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, w->match,
                             w->match_ctx);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return pretok_match_failed(ctx, rc);
        size_t at = span[0], end = span[1];
        if (at == end && end == last) {
            if (end >= n)
                break;
            from = end;
            (void)mt_utf8_next(s, n, &from);
            last = SIZE_MAX;
            continue;
        }
        from = last = end;
        if (done < at)
            MT_TRY(pretok_part(ctx, p, done, at, false));
        MT_TRY(pretok_part(ctx, p, at, end, true));
        done = end;
    }
    return done < n ? pretok_part(ctx, p, done, n, false) : MT_OK;
}

/* Rewrites the text of every piece (prefix, replacement, byte mapping). */
static mt_status pretok_rewrite(struct mt_ctx *ctx, const struct mt_pretok_stage *s, bool map,
                                const char *text, const struct mt_pieces *in, struct mt_text *out,
                                struct mt_pieces *pieces)
{
    out->n = pieces->n = 0;
    for (size_t i = 0; i < in->n; i++) {
        const char *p = text + in->v[i].at;
        size_t n = in->v[i].n, at = out->n;
        bool meta = s->kind == MT_PRETOK_METASPACE;
        bool has = n >= s->n_prefix && memcmp(p, s->prefix, s->n_prefix) == 0;

        if (n == 0)
            continue;
        has = has || (meta && p[0] == ' ');
        if (!map && !has && (s->prefix_always || (s->prefix_first && in->v[i].first)))
            MT_TRY(mt_text_add(ctx, out, s->prefix, s->n_prefix));
        if (map) {
            MT_TRY(mt_text_room(ctx, out, 2 * n));
            for (size_t k = 0; k < n; k++)
                out->n += mt_utf8_put(mt_byte_char((unsigned char)p[k]), out->s + out->n);
        } else if (meta) {
            MT_TRY(mt_text_replace(ctx, out, p, n, " ", 1, s->prefix, s->n_prefix));
        } else {
            MT_TRY(mt_text_add(ctx, out, p, n));
        }
        MT_TRY(mt_pieces_push(ctx, pieces, at, out->n - at, in->v[i].first));
    }
    return MT_OK;
}

/* The state between stages: pieces[now] are spans of `text`, which is s or text[own]. */
struct pretok_run {
    struct mt_pretok_work *w;
    const char *text;
    int now, own;
};

static mt_status pretok_rewritten(struct mt_ctx *ctx, struct pretok_run *r,
                                  const struct mt_pretok_stage *s, bool map)
{
    MT_TRY(pretok_rewrite(ctx, s, map, r->text, &r->w->pieces[r->now], &r->w->text[!r->own],
                          &r->w->pieces[!r->now]));
    r->own = !r->own;
    r->now = !r->now;
    r->text = r->w->text[r->own].s;
    return MT_OK;
}

static mt_status pretok_one(struct mt_ctx *ctx, struct pretok_run *r,
                            const struct mt_pretok_stage *s, bool map)
{
    if (s->kind == MT_PRETOK_METASPACE || s->prefix_always)
        MT_TRY(pretok_rewritten(ctx, r, s, false));
    if (s->regex != NULL) {
        const struct mt_pieces *in = &r->w->pieces[r->now];
        struct pretok_parts p = {.out = &r->w->pieces[!r->now], .stage = s};
        p.out->n = 0;
        for (size_t i = 0; i < in->n; i++) {
            if (in->v[i].n == 0)
                continue;
            p.piece = in->v[i];
            p.begin = p.out->n;
            p.previous = false;
            MT_TRY(pretok_cut(ctx, r->w, r->text + p.piece.at, p.piece.n, &p));
        }
        r->now = !r->now;
    }
    return map ? pretok_rewritten(ctx, r, s, true) : MT_OK;
}

mt_status mt_pretok_run(struct mt_ctx *ctx, const struct mt_pretok *p, struct mt_pretok_work *w,
                        const char *s, size_t n, bool first, const char **text,
                        const struct mt_pieces **pieces)
{
    struct pretok_run r = {w, s, 0, 0};

    MT_TRY(pretok_ready(ctx, w));
    w->pieces[0].n = 0;
    MT_TRY(mt_pieces_push(ctx, &w->pieces[0], 0, n, first));
    for (int i = 0; i < p->n; i++)
        MT_TRY(pretok_one(ctx, &r, &p->stages[i],
                          p->stages[i].kind == MT_PRETOK_BYTES && i + 1 < p->n));
    *text = r.text;
    *pieces = &w->pieces[r.now];
    return MT_OK;
}
