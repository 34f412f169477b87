/* added.h: the "added_tokens" of a tokenizer.json, which are cut out of the text before the model
 * sees it.
 *
 * Two sets: tokens found in the raw text, then those marked `normalized`, found in the normalized
 * text by their own normalized form. Matches are leftmost, then longest. `single_word` refuses a
 * match that touches a word character; `lstrip` and `rstrip` widen it over white space.
 *
 * Ownership: mt_added_open fills a zeroed struct, mt_added_end ends it also after a failure.
 * Threads: read-only once open.
 */
#ifndef MT_TEXT_ADDED_H
#define MT_TEXT_ADDED_H

#include "lib/text/normalize.h"
#include "lib/text/vocab_table.h"

struct mt_added_token {
    int32_t id;
    const char *content, *pattern; /* as written; as looked for */
    uint32_t n_content, n_pattern;
    bool single_word, lstrip, rstrip, normalized, special;
};

struct mt_added_set {
    struct mt_added_token *v; /* sorted by pattern, bytewise */
    size_t n;
    uint32_t first[257]; /* v[first[b]] .. v[first[b+1]-1] begin with byte b */
};

struct mt_added {
    struct mt_added_set raw, normalized;
    struct mt_vocab_table ids; /* content -> id, and back */
    struct mt_arena arena;
};

/* `vocab` is the model's: a content it holds keeps the model's id. */
MT_NODISCARD mt_status mt_added_open(struct mt_ctx *ctx, const struct mt_json *j,
                                     const struct mt_vocab_table *vocab,
                                     const struct mt_normalizer *norm, struct mt_added *out);
void mt_added_end(struct mt_added *a);

/* The added token with this id, or NULL. */
const struct mt_added_token *mt_added_by_id(const struct mt_added *a, int32_t id);

/* Walks a text: plain parts and tokens, in order. Begin with a zeroed cursor. */
struct mt_added_cursor {
    size_t scan, from;                 /* next place to look at; end of what was handed out */
    const struct mt_added_token *held; /* found behind a plain part */
    size_t held_at, held_end;
};
struct mt_added_part {
    const struct mt_added_token *token; /* NULL: plain text */
    size_t at, n;
};
/* False at the end of the text. skip_special leaves special tokens in the text. */
bool mt_added_next(const struct mt_added_set *set, const char *s, size_t n, bool skip_special,
                   struct mt_added_cursor *c, struct mt_added_part *part);
#endif
