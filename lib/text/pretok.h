/* pretok.h: the "pre_tokenizer" of a tokenizer.json, which cuts text into the pieces a model sees.
 *
 * ByteLevel, Split (String or Regex; every behavior; invert), Digits, Metaspace, BertPreTokenizer,
 * Whitespace, WhitespaceSplit, Punctuation, CharDelimiterSplit, and Sequences.
 *
 * Regexes are written for Oniguruma and run in PCRE2 (UTF, UCP, MULTILINE since ^ and $ are line
 * anchors there, JIT). \s, \S and \w are replaced by explicit classes, because the engines differ
 * in them; what means something else in PCRE2 (nested classes, &&, {n,m}+, \h, \b, ...) is refused
 * by name. See mt_regex_translate.
 *
 * Ownership: mt_pretok_open fills a zeroed struct, mt_pretok_end ends it also after a failure.
 * Threads: stages are read-only; a mt_pretok_work belongs to one thread at a time.
 */
#ifndef MT_TEXT_PRETOK_H
#define MT_TEXT_PRETOK_H

#include "lib/base/json.h"
#include "lib/text/pieces.h"

#define MT_PRETOK_STAGES_MAX 16

enum mt_pretok_behavior {
    MT_SPLIT_REMOVED,
    MT_SPLIT_ISOLATED,
    MT_SPLIT_MERGED_WITH_PREVIOUS,
    MT_SPLIT_MERGED_WITH_NEXT,
    MT_SPLIT_CONTIGUOUS,
};

struct mt_pretok_stage {
    enum { MT_PRETOK_SPLIT, MT_PRETOK_BYTES, MT_PRETOK_METASPACE } kind;
    void *regex;                      /* pcre2_code; NULL: no split in this stage */
    enum mt_pretok_behavior behavior; /* what becomes of matches */
    bool invert;                      /* matches and the text between them change places */
    bool prefix_always, prefix_first; /* put `prefix` in front of pieces that lack it */
    char prefix[8];                   /* " ", or the replacement of a Metaspace */
    size_t n_prefix;
};
struct mt_pretok {
    struct mt_pretok_stage stages[MT_PRETOK_STAGES_MAX];
    int n;
    bool bytes; /* the last stage maps bytes: left to the model, which gets raw bytes */
};

struct mt_pretok_work {
    struct mt_text text[2];
    struct mt_pieces pieces[2];
    void *match;     /* pcre2_match_data */
    void *match_ctx; /* pcre2_match_context */
    void *jit_stack; /* pcre2_jit_stack */
};

MT_NODISCARD mt_status mt_pretok_open(struct mt_ctx *ctx, const struct mt_json *j,
                                      struct mt_pretok *out);
void mt_pretok_end(struct mt_pretok *p);
void mt_pretok_work_end(struct mt_pretok_work *w);

/* Cuts s[0..n), valid UTF-8; `first`: s begins where the input begins. The pieces and the text
 * they are spans of live in w (or in s) until the next call. */
MT_NODISCARD mt_status mt_pretok_run(struct mt_ctx *ctx, const struct mt_pretok *p,
                                     struct mt_pretok_work *w, const char *s, size_t n, bool first,
                                     const char **text, const struct mt_pieces **pieces);

/* An Oniguruma pattern as PCRE2 understands it; appended to out, NUL-ended. */
MT_NODISCARD mt_status mt_regex_translate(struct mt_ctx *ctx, const char *pattern,
                                          struct mt_text *out);
/* Compiled; end with mt_regex_free. */
MT_NODISCARD mt_status mt_regex_open(struct mt_ctx *ctx, const char *pattern, bool literal,
                                     void **out);
void mt_regex_free(void *regex);
/* Appends s with every match replaced by `to`, as it stands. */
MT_NODISCARD mt_status mt_regex_replace(struct mt_ctx *ctx, const void *regex, struct mt_text *out,
                                        const char *s, size_t n, const char *to, size_t n_to);
#endif
