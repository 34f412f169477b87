/* bpe.h: byte-pair encoding of one piece of text (Sennrich et al. 2016, arXiv:1508.07909).
 *
 * A piece becomes its characters' tokens; then the pair with the lowest rank, the leftmost of
 * equals, is replaced by its merged token until no pair has a rank. A heap of (rank, position)
 * keeps this at n log n. An unknown character becomes its <0xNN> tokens when byte_fallback is set
 * and *all* of them exist, else the unknown token (fused with its neighbours when fuse_unk), else
 * nothing.
 *
 * Two variants: with affixes every character but a piece's first has the continuing_subword_prefix
 * in front and a piece's last one the end_of_word_suffix behind (CLIP); and with scores instead of
 * merges (SentencePiece's vocabularies) any two neighbours merge whose texts joined are a token,
 * the highest score first.
 *
 * With `bytes`, pieces are raw bytes and every byte stands for the character of the byte-level
 * alphabet (GPT-2), so that the mapped text need not be written down.
 *
 * Ownership: mt_bpe_open fills a zeroed struct, mt_bpe_end ends it also after a failure.
 * Threads: the model is read-only; a mt_bpe_work belongs to one thread at a time.
 */
#ifndef MT_TEXT_BPE_H
#define MT_TEXT_BPE_H

#include "lib/base/json.h"
#include "lib/text/pieces.h"
#include "lib/text/tokenizer.h"
#include "lib/text/vocab_table.h"

struct mt_bpe_merge {
    uint64_t pair; /* left id in the upper half */
    uint32_t rank;
    int32_t id; /* -1: free slot */
};

#define MT_BPE_AFFIX_MAX 31

struct mt_bpe {
    struct mt_vocab_table vocab;
    uint32_t
        *score_rank; /* [vocab.n_ids] 0 is the best, UINT32_MAX: not made by merging; or NULL */
    char prefix[MT_BPE_AFFIX_MAX + 1], suffix[MT_BPE_AFFIX_MAX + 1];
    size_t n_prefix, n_suffix;
    struct mt_bpe_merge *merges; /* open addressing */
    size_t merge_mask, n_merges;
    int32_t unk_id; /* -1: none; -2: named, but not in the vocabulary */
    bool fuse_unk, byte_fallback, ignore_merges;
    int32_t byte_id[256];     /* token of a byte's character in the byte-level alphabet, -1 */
    int32_t fallback_id[256]; /* token of <0xNN>, -1 */
    bool breaks; /* no token has U+2581 after another character: pieces may be cut before one */
};

/* Reads the object "model" of a tokenizer.json. */
MT_NODISCARD mt_status mt_bpe_open(struct mt_ctx *ctx, const struct mt_json *model,
                                   struct mt_bpe *out);
/* The same from arrays, over a vocabulary that m->vocab holds already. Merges "a b", or else
 * score_rank (taken). Flags (fuse_unk, ...) and unk_id are the caller's to set before. */
MT_NODISCARD mt_status mt_bpe_from(struct mt_ctx *ctx, const struct mt_token_text *merges,
                                   size_t n_merges, uint32_t *score_rank, struct mt_bpe *m);
void mt_bpe_end(struct mt_bpe *m);

/* Scratch and cache of one thread. The cache forgets everything when full: results never depend
 * on what it holds. Zeroed is empty. */
struct mt_bpe_symbol {
    int32_t id, prev, next; /* id -1: merged into its left neighbour */
    uint32_t rank;          /* of the pair with `next`; UINT32_MAX: none */
    int32_t merged;
};
struct mt_bpe_slot {
    uint64_t hash;
    uint32_t at; /* of the bytes in cache_bytes, of the ids in cache_ids */
    uint32_t ids_at;
    uint16_t n_bytes, n_ids; /* n_bytes 0: free */
};
struct mt_bpe_work {
    struct mt_bpe_symbol *symbols;
    uint64_t *heap; /* rank in the upper half, position in the lower */
    size_t n_symbols, cap_symbols, n_heap, cap_heap;
    struct mt_text mapped, joined;
    struct mt_bpe_slot *slots;
    char *cache_bytes;
    int32_t *cache_ids;
    uint32_t n_slots, n_cache_bytes, n_cache_ids;
};
void mt_bpe_work_end(struct mt_bpe_work *w);

/* Appends the ids of s[0..n), valid UTF-8 of at most INT32_MAX bytes. */
MT_NODISCARD mt_status mt_bpe_encode(struct mt_ctx *ctx, const struct mt_bpe *m,
                                     struct mt_bpe_work *w, const char *s, size_t n, bool bytes,
                                     struct mt_ids *out);

/* First slot to look at for a pair. */
static inline size_t mt_bpe_pair_slot(const struct mt_bpe *m, uint64_t pair)
{
    pair *= 0x9E3779B97F4A7C15u;
    return (size_t)(pair ^ pair >> 32) & m->merge_mask;
}

/* Code point that stands for a byte in the byte-level alphabet, and back (-1: none). */
uint32_t mt_byte_char(unsigned char b);
/* Replaces out by the characters of s's bytes. */
MT_NODISCARD mt_status mt_bpe_map_bytes(struct mt_ctx *ctx, struct mt_text *out, const char *s,
                                        size_t n);
int mt_char_byte(uint32_t c);
#endif
