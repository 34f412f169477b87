/* wordpiece.h: WordPiece, the model of BERT (Devlin et al. 2018, arXiv:1810.04805): greedy longest
 * match from the left.
 *
 * Parts of a word behind its first begin with `prefix` ("##") in the vocabulary. A word of more
 * than chars_max characters, and one that cannot be covered whole, becomes the unknown token.
 *
 * Ownership: opening fills a zeroed struct, mt_wordpiece_end ends it also after a failure.
 * Threads: read-only once open.
 */
#ifndef MT_TEXT_WORDPIECE_H
#define MT_TEXT_WORDPIECE_H

#include "lib/base/json.h"
#include "lib/text/pieces.h"
#include "lib/text/tokenizer.h"
#include "lib/text/vocab_table.h"

#define MT_WORDPIECE_PREFIX_MAX 31

struct mt_wordpiece {
    struct mt_vocab_table vocab;
    int32_t unk_id; /* -1: the vocabulary lacks the unknown token */
    int64_t chars_max;
    char prefix[MT_WORDPIECE_PREFIX_MAX + 1];
    size_t n_prefix, token_bytes_max; /* of the longest token */
};

/* Reads the object "model" of a tokenizer.json. */
MT_NODISCARD mt_status mt_wordpiece_open(struct mt_ctx *ctx, const struct mt_json *model,
                                         struct mt_wordpiece *out);
/* Sets the options behind a vocabulary that is filled already. */
MT_NODISCARD mt_status mt_wordpiece_ready(struct mt_ctx *ctx, const char *unk, const char *prefix,
                                          int64_t chars_max, struct mt_wordpiece *m);
void mt_wordpiece_end(struct mt_wordpiece *m);

/* Appends the ids of one word, valid UTF-8. */
MT_NODISCARD mt_status mt_wordpiece_encode(struct mt_ctx *ctx, const struct mt_wordpiece *m,
                                           struct mt_text *scratch, const char *s, size_t n,
                                           struct mt_ids *out);
#endif
