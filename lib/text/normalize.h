/* normalize.h: the "normalizer" of a tokenizer.json: Prepend, Replace (String or Regex), the forms
 * NFC, NFD, NFKC, NFKD (Unicode annex 15), Lowercase, Strip, StripAccents, BertNormalizer and
 * Sequences of them.
 *
 * Ownership: mt_normalizer_open fills a zeroed struct; mt_normalizer_end also after a failure.
 * Threads: running one normalizer from several threads is safe.
 */
#ifndef MT_TEXT_NORMALIZE_H
#define MT_TEXT_NORMALIZE_H

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/text/pieces.h"

#define MT_NORMALIZER_STAGES_MAX 16

struct mt_normalizer_stage {
    enum {
        MT_NORMALIZE_PREPEND,
        MT_NORMALIZE_REPLACE,
        MT_NORMALIZE_FORM,  /* of `form` */
        MT_NORMALIZE_CHARS, /* character by character, as the flags below say, in their order */
        MT_NORMALIZE_STRIP,
    } kind;
    int form;                                          /* utf8proc options */
    void *regex;                                       /* of a Replace; NULL: `pattern` as it is */
    bool clean, cjk, no_marks, nonspacing_only, lower; /* CHARS */
    bool left, right;                                  /* STRIP */
    const char *pattern, *content;                     /* content: also what is prepended */
    size_t n_pattern, n_content;
};
struct mt_normalizer {
    struct mt_normalizer_stage stages[MT_NORMALIZER_STAGES_MAX];
    int n;
    struct mt_arena arena;
};

MT_NODISCARD mt_status mt_normalizer_open(struct mt_ctx *ctx, const struct mt_json *j,
                                          struct mt_normalizer *out);
void mt_normalizer_end(struct mt_normalizer *m);

/* Valid UTF-8 in; *out points at s itself when nothing is to do, else into one of `scratch`. */
MT_NODISCARD mt_status mt_normalize(struct mt_ctx *ctx, const struct mt_normalizer *m,
                                    const char *s, size_t n, struct mt_text scratch[2],
                                    const char **out, size_t *n_out);

/* Appends s with every `from` replaced by `to`, scanning left to right. */
MT_NODISCARD mt_status mt_text_replace(struct mt_ctx *ctx, struct mt_text *out, const char *s,
                                       size_t n, const char *from, size_t n_from, const char *to,
                                       size_t n_to);
#endif
