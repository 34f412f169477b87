/* vocab_table.h: byte strings to token ids and back.
 *
 * Open addressing over a blob of all strings; ids index a second array. Ids lie in
 * [0, MT_TOKEN_ID_MAX], so a hostile file cannot make the id array large. Strings and ids are both
 * unique: a second use of either is refused by mt_vocab_add.
 *
 * Ownership: a zeroed struct is an empty table; end it with mt_vocab_end. Texts handed out are
 * borrowed and live until the next mt_vocab_add. Threads: reading from several at once is safe.
 */
#ifndef MT_TEXT_VOCAB_TABLE_H
#define MT_TEXT_VOCAB_TABLE_H

#include "lib/base/ctx.h"

#include <stddef.h>

#define MT_TOKEN_ID_MAX ((1 << 22) - 1)

struct mt_vocab_entry {
    uint64_t hash;
    uint32_t at, n; /* in the blob */
    int32_t id;
};

struct mt_vocab_table {
    char *blob;
    size_t n_blob, cap_blob;
    struct mt_vocab_entry *entries;
    size_t n_entries, cap_entries;
    uint32_t *slots; /* [mask + 1] entry number + 1, 0: free */
    size_t mask;
    uint32_t *by_id; /* [n_ids] entry number + 1, 0: no such token */
    size_t n_ids, cap_ids;
};

/* Room for n strings of n_bytes in all, so that adding them moves nothing. */
MT_NODISCARD mt_status mt_vocab_reserve(struct mt_ctx *ctx, struct mt_vocab_table *t, size_t n,
                                        size_t n_bytes);
/* MT_E_FORMAT when id is out of range, or the string or the id is there already. */
MT_NODISCARD mt_status mt_vocab_add(struct mt_ctx *ctx, struct mt_vocab_table *t, const char *s,
                                    size_t n, int64_t id);
int32_t mt_vocab_find(const struct mt_vocab_table *t, const char *s, size_t n); /* -1: none */
/* False when no token has this id. */
bool mt_vocab_text(const struct mt_vocab_table *t, int64_t id, const char **s, size_t *n);
void mt_vocab_end(struct mt_vocab_table *t);

/* 64 mixed bits of n bytes; not for adversaries. */
uint64_t mt_text_hash(const char *s, size_t n);
#endif
