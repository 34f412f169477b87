#include "lib/text/bpe.h"

#include "lib/base/mem.h"

#include <string.h>

#define BPE_CACHED_BYTES_MAX 256 /* longer pieces rarely come again */
#define BPE_CACHE_SLOTS (1u << 15)
#define BPE_CACHE_BYTES (1u << 19)
#define BPE_CACHE_IDS (1u << 17)
#define BPE_NO_RANK UINT32_MAX

uint32_t mt_byte_char(unsigned char b)
{
    if ((b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174)
        return b;
    if (b <= 32)
        return 256u + b;
    return b <= 160 ? 256u + 33 + (b - 127u) : 256u + 33 + 34; /* 127..160, then 173 */
}

int mt_char_byte(uint32_t c)
{
    if (c < 256)
        return mt_byte_char((unsigned char)c) == c ? (int)c : -1;
    c -= 256;
    if (c <= 32)
        return (int)c;
    if (c < 33 + 34)
        return (int)(c - 33 + 127);
    return c == 33 + 34 ? 173 : -1;
}

/* The token that the texts of two neighbours make, when merging may make it. */
static mt_status bpe_joined(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                            int32_t left, int32_t right, struct mt_bpe_merge *out)
{
    const char *s;
    size_t n;

    out->id = -1;
    w->joined.n = 0;
    for (int i = 0; i < 2; i++) {
        if (!mt_vocab_text(&m->vocab, i == 0 ? left : right, &s, &n))
            return MT_OK;
        MT_TRY(mt_text_add(ctx, &w->joined, s, n));
    }
    out->id = mt_vocab_find(&m->vocab, w->joined.s, w->joined.n);
    if (out->id >= 0)
        out->rank = m->score_rank[out->id];
    if (out->id >= 0 && out->rank == BPE_NO_RANK)
        out->id = -1;
    return MT_OK;
}

static const struct mt_bpe_merge *bpe_merge(const struct mt_bpe *m, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    for (size_t i = mt_bpe_pair_slot(m, pair); m->merges[i].id >= 0; i = (i + 1) & m->merge_mask)
        if (m->merges[i].pair == pair)
            return &m->merges[i];
    return NULL;
}

/* --- heap of pairs, lowest rank first, then leftmost --- */

static mt_status bpe_heap_push(struct mt_ctx *ctx, struct mt_bpe_work *w, uint64_t key)
{
    size_t i;

    if (w->n_heap == w->cap_heap) {
        size_t cap = w->cap_heap * 2 + 64;
        MT_TRY(mt_realloc(ctx, cap, sizeof *w->heap, "merge queue", &w->heap));
        w->cap_heap = cap;
    }
    for (i = w->n_heap++; i > 0 && w->heap[(i - 1) / 2] > key; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = key;
    return MT_OK;
}

static uint64_t bpe_heap_pop(struct mt_bpe_work *w)
{
    uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < w->n_heap) {
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child])
            child++;
        if (w->heap[child] >= last)
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

/* Looks at the pair (i, next of i) and queues it when it has a rank. */
static mt_status bpe_pair(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                          int32_t i)
{
    struct mt_bpe_symbol *a = &w->symbols[i];
    const struct mt_bpe_merge *merge = NULL;
    struct mt_bpe_merge joined = {.id = -1};

    if (a->next >= 0 && m->score_rank != NULL) {
        MT_TRY(bpe_joined(ctx, m, w, a->id, w->symbols[a->next].id, &joined));
        merge = joined.id >= 0 ? &joined : NULL;
    } else if (a->next >= 0) {
        merge = bpe_merge(m, a->id, w->symbols[a->next].id);
    }
    a->rank = merge != NULL ? merge->rank : BPE_NO_RANK;
    if (merge == NULL)
        return MT_OK;
    a->merged = merge->id;
    return bpe_heap_push(ctx, w, (uint64_t)merge->rank << 32 | (uint32_t)i);
}

static mt_status bpe_merge_all(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w)
{
    w->n_heap = 0;
    for (size_t i = 0; i < w->n_symbols; i++)
        MT_TRY(bpe_pair(ctx, m, w, (int32_t)i));
    while (w->n_heap > 0) {
        uint64_t key = bpe_heap_pop(w);
        int32_t at = (int32_t)(key & UINT32_MAX);
        struct mt_bpe_symbol *a = &w->symbols[at], *b;

        /* Stale unless its rank still stands here. */
        if (a->id < 0 || a->rank != (uint32_t)(key >> 32))
            continue;
        b = &w->symbols[a->next];
        a->id = a->merged;
        a->next = b->next;
        b->id = -1;
        if (a->next >= 0)
            w->symbols[a->next].prev = at;
        MT_TRY(bpe_pair(ctx, m, w, at));
        if (a->prev >= 0)
            MT_TRY(bpe_pair(ctx, m, w, a->prev));
    }
    return MT_OK;
}

/* --- characters to symbols --- */

static mt_status bpe_symbol(struct mt_ctx *ctx, struct mt_bpe_work *w, int32_t id)
{
    int32_t i = (int32_t)w->n_symbols;

    if (w->n_symbols == w->cap_symbols) {
        size_t cap = w->cap_symbols * 2 + 64;
        MT_TRY(mt_realloc(ctx, cap, sizeof *w->symbols, "symbols of a word", &w->symbols));
        w->cap_symbols = cap;
    }
    w->symbols[w->n_symbols++] = (struct mt_bpe_symbol){id, i - 1, -1, BPE_NO_RANK, -1};
    if (i > 0)
        w->symbols[i - 1].next = i;
    return MT_OK;
}

static bool bpe_falls_back(const struct mt_bpe *m, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (m->fallback_id[(unsigned char)s[i]] < 0)
            return false;
    return m->byte_fallback;
}

/* The text that stands for the character s[from..at) of a piece s[0..n). */
static mt_status bpe_affixed(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                             const char *s, size_t n, size_t from, size_t at,
                             struct mt_token_text *c)
{
    bool prefix = from > 0 && m->n_prefix > 0, suffix = at == n && m->n_suffix > 0;

    *c = (struct mt_token_text){s + from, at - from};
    if (!prefix && !suffix)
        return MT_OK;
    w->joined.n = 0;
    if (prefix)
        MT_TRY(mt_text_add(ctx, &w->joined, m->prefix, m->n_prefix));
    MT_TRY(mt_text_add(ctx, &w->joined, s + from, at - from));
    if (suffix)
        MT_TRY(mt_text_add(ctx, &w->joined, m->suffix, m->n_suffix));
    *c = (struct mt_token_text){w->joined.s, w->joined.n};
    return MT_OK;
}

/* An unknown token waits (`unk`) until a known character follows, so that a run can be fused.
 * Fallback bytes do not end the wait: the order of the reference library. */
static mt_status bpe_characters(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                                const char *s, size_t n)
{
    bool unk = false;

    for (size_t at = 0, from; (from = at) < n;) {
        (void)mt_utf8_next(s, n, &at);
        struct mt_token_text c;
        MT_TRY(bpe_affixed(ctx, m, w, s, n, from, at, &c));
        int32_t id = mt_vocab_find(&m->vocab, c.s, c.n);
        if (id < 0 && bpe_falls_back(m, c.s, c.n)) {
            for (size_t i = 0; i < c.n; i++)
                MT_TRY(bpe_symbol(ctx, w, m->fallback_id[(unsigned char)c.s[i]]));
            continue;
        }
        if (id < 0 && m->unk_id == -1)
            continue;
        if (id < 0 && m->unk_id < 0)
            return mt_fail(ctx, MT_E_FORMAT,
                           "tokenizer: the text has a character without a token, and the "
                           "unk_token is not in the vocabulary");
        if (unk && (id >= 0 || !m->fuse_unk))
            MT_TRY(bpe_symbol(ctx, w, m->unk_id));
        unk = id < 0;
        if (id >= 0)
            MT_TRY(bpe_symbol(ctx, w, id));
    }
    return unk ? bpe_symbol(ctx, w, m->unk_id) : MT_OK;
}

mt_status mt_bpe_map_bytes(struct mt_ctx *ctx, struct mt_text *out, const char *s, size_t n)
{
    out->n = 0;
    MT_TRY(mt_text_room(ctx, out, 2 * n + 4));
    for (size_t i = 0; i < n; i++)
        out->n += mt_utf8_put(mt_byte_char((unsigned char)s[i]), out->s + out->n);
    return MT_OK;
}

static mt_status bpe_word(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                          const char *s, size_t n, bool bytes, struct mt_ids *out)
{
    bool direct = bytes && !m->ignore_merges && m->n_prefix + m->n_suffix == 0;

    w->n_symbols = 0;
    for (size_t i = 0; direct && i < n; i++)
        direct = m->byte_id[(unsigned char)s[i]] >= 0;
    for (size_t i = 0; direct && i < n; i++)
        MT_TRY(bpe_symbol(ctx, w, m->byte_id[(unsigned char)s[i]]));
    if (!direct) {
        if (bytes) {
            MT_TRY(mt_bpe_map_bytes(ctx, &w->mapped, s, n));
            s = w->mapped.s;
            n = w->mapped.n;
        }
        int32_t whole = m->ignore_merges ? mt_vocab_find(&m->vocab, s, n) : -1;
        if (whole >= 0)
            return mt_ids_push(ctx, out, whole);
        MT_TRY(bpe_characters(ctx, m, w, s, n));
    }
    MT_TRY(bpe_merge_all(ctx, m, w));
    for (size_t i = 0; i < w->n_symbols; i++)
        if (w->symbols[i].id >= 0)
            MT_TRY(mt_ids_push(ctx, out, w->symbols[i].id));
    return MT_OK;
}

/* --- cache --- */

static mt_status bpe_cache_ready(struct mt_ctx *ctx, struct mt_bpe_work *w)
{
    if (w->cache_ids != NULL)
        return MT_OK;
    if (w->slots == NULL)
        MT_TRY(mt_alloc0(ctx, BPE_CACHE_SLOTS, sizeof *w->slots, "word cache", &w->slots));
    if (w->cache_bytes == NULL)
        MT_TRY(mt_alloc(ctx, BPE_CACHE_BYTES, 1, "word cache", &w->cache_bytes));
    return mt_alloc(ctx, BPE_CACHE_IDS, sizeof *w->cache_ids, "word cache", &w->cache_ids);
}

static void bpe_cache_put(struct mt_bpe_work *w, size_t slot, uint64_t hash, const char *s,
                          size_t n, const int32_t *ids, size_t n_ids)
{
    if (n_ids > UINT16_MAX)
        return;
    if (w->n_slots >= BPE_CACHE_SLOTS / 2 || n > BPE_CACHE_BYTES - w->n_cache_bytes ||
        n_ids > BPE_CACHE_IDS - w->n_cache_ids) {
        memset(w->slots, 0, BPE_CACHE_SLOTS * sizeof *w->slots);
        w->n_slots = w->n_cache_bytes = w->n_cache_ids = 0;
        slot = hash & (BPE_CACHE_SLOTS - 1);
    }
    w->slots[slot] =
        (struct mt_bpe_slot){hash, w->n_cache_bytes, w->n_cache_ids, (uint16_t)n, (uint16_t)n_ids};
    memcpy(w->cache_bytes + w->n_cache_bytes, s, n);
    memcpy(w->cache_ids + w->n_cache_ids, ids, n_ids * sizeof *ids);
    w->n_slots++;
    w->n_cache_bytes += (uint32_t)n;
    w->n_cache_ids += (uint32_t)n_ids;
}

static mt_status bpe_cached(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                            const char *s, size_t n, bool bytes, struct mt_ids *out)
{
    size_t before = out->n, i;
    uint64_t hash;

    if (n > BPE_CACHED_BYTES_MAX)
        return bpe_word(ctx, m, w, s, n, bytes, out);
    MT_TRY(bpe_cache_ready(ctx, w));
    hash = mt_text_hash(s, n);
    for (i = hash & (BPE_CACHE_SLOTS - 1); w->slots[i].n_bytes != 0;
         i = (i + 1) & (BPE_CACHE_SLOTS - 1)) {
        const struct mt_bpe_slot *e = &w->slots[i];
        if (e->hash != hash || e->n_bytes != n || memcmp(w->cache_bytes + e->at, s, n) != 0)
            continue;
        for (size_t k = 0; k < e->n_ids; k++)
            MT_TRY(mt_ids_push(ctx, out, w->cache_ids[e->ids_at + k]));
        return MT_OK;
    }
    MT_TRY(bpe_word(ctx, m, w, s, n, bytes, out));
    if (out->n > before)
        bpe_cache_put(w, i, hash, s, n, out->v + before, out->n - before);
    return MT_OK;
}

#define BPE_META "\xE2\x96\x81" /* U+2581 */

/* End of the part of s that no merge can leave: before a U+2581 that follows another character.
 * Valid when m->breaks. */
static size_t bpe_part_end(const char *s, size_t n)
{
    size_t i = 0;

    while (i + 3 <= n && memcmp(s + i, BPE_META, 3) == 0)
        i += 3;
    for (;; i++) {
        const char *p = i < n ? memchr(s + i, 0xE2, n - i) : NULL;
        if (p == NULL)
            return n;
        i = (size_t)(p - s);
        if (i + 3 <= n && memcmp(p, BPE_META, 3) == 0)
            return i;
    }
}

mt_status mt_bpe_encode(struct mt_ctx *ctx, const struct mt_bpe *m, struct mt_bpe_work *w,
                        const char *s, size_t n, bool bytes, struct mt_ids *out)
{
    if (bytes || !m->breaks)
        return n == 0 ? MT_OK : bpe_cached(ctx, m, w, s, n, bytes, out);
    while (n > 0) {
        size_t part = bpe_part_end(s, n);
        MT_TRY(bpe_cached(ctx, m, w, s, part, false, out));
        s += part;
        n -= part;
    }
    return MT_OK;
}

void mt_bpe_work_end(struct mt_bpe_work *w)
{
    mt_free(w->symbols);
    mt_free(w->heap);
    mt_text_end(&w->mapped);
    mt_text_end(&w->joined);
    mt_free(w->slots);
    mt_free(w->cache_bytes);
    mt_free(w->cache_ids);
    *w = (struct mt_bpe_work){0};
}
