#include "lib/text/vocab_table.h"

#include "lib/base/mem.h"

#include <inttypes.h>
#include <string.h>

static uint64_t vocab_mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15u;
    return x ^ (x >> 29);
}

uint64_t mt_text_hash(const char *s, size_t n)
{
    uint64_t h = n * 0xD6E8FEB86659FD93u, w;

    for (; n >= 8; n -= 8, s += 8) {
        memcpy(&w, s, 8);
        h = vocab_mix(h ^ w);
    }
    w = 0;
    for (size_t i = 0; i < n; i++)
        w |= (uint64_t)(unsigned char)s[i] << (8 * i);
    return vocab_mix(vocab_mix(h ^ w));
}

static void vocab_place(struct mt_vocab_table *t, uint32_t entry)
{
    size_t i = t->entries[entry].hash & t->mask;

    while (t->slots[i] != 0)
        i = (i + 1) & t->mask;
    t->slots[i] = entry + 1;
}

static mt_status vocab_rehash(struct mt_ctx *ctx, struct mt_vocab_table *t, size_t n)
{
    size_t size = 64;
    uint32_t *slots;

    while (size < 2 * n)
        size *= 2;
    MT_TRY(mt_alloc0(ctx, size, sizeof *slots, "vocabulary", &slots));
    mt_free(t->slots);
    t->slots = slots;
    t->mask = size - 1;
    for (size_t i = 0; i < t->n_entries; i++)
        vocab_place(t, (uint32_t)i);
    return MT_OK;
}

static mt_status vocab_grow_ids(struct mt_ctx *ctx, struct mt_vocab_table *t, size_t n)
{
    size_t cap = t->cap_ids < 64 ? 64 : t->cap_ids;

    while (cap < n)
        cap *= 2;
    if (cap > t->cap_ids) {
        MT_TRY(mt_realloc(ctx, cap, sizeof *t->by_id, "vocabulary", &t->by_id));
        memset(t->by_id + t->cap_ids, 0, (cap - t->cap_ids) * sizeof *t->by_id);
        t->cap_ids = cap;
    }
    if (n > t->n_ids)
        t->n_ids = n;
    return MT_OK;
}

mt_status mt_vocab_reserve(struct mt_ctx *ctx, struct mt_vocab_table *t, size_t n, size_t n_bytes)
{
    if (n > t->cap_entries) {
        MT_TRY(mt_realloc(ctx, n, sizeof *t->entries, "vocabulary", &t->entries));
        t->cap_entries = n;
    }
    if (n_bytes > t->cap_blob) {
        MT_TRY(mt_realloc(ctx, n_bytes, 1, "vocabulary", &t->blob));
        t->cap_blob = n_bytes;
    }
    if (t->slots == NULL || 2 * n > t->mask + 1)
        MT_TRY(vocab_rehash(ctx, t, n));
    return MT_OK;
}

static struct mt_vocab_entry *vocab_lookup(const struct mt_vocab_table *t, const char *s, size_t n,
                                           uint64_t hash)
{
    if (t->slots == NULL)
        return NULL;
    for (size_t i = hash & t->mask; t->slots[i] != 0; i = (i + 1) & t->mask) {
        struct mt_vocab_entry *e = &t->entries[t->slots[i] - 1];
        if (e->hash == hash && e->n == n && memcmp(t->blob + e->at, s, n) == 0)
            return e;
    }
    return NULL;
}

mt_status mt_vocab_add(struct mt_ctx *ctx, struct mt_vocab_table *t, const char *s, size_t n,
                       int64_t id)
{
    uint64_t hash = mt_text_hash(s, n);
    const struct mt_vocab_entry *same = vocab_lookup(t, s, n, hash);
    int shown = n < 60 ? (int)n : 60;

    if (id < 0 || id > MT_TOKEN_ID_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "token \"%.*s\": id %" PRId64 " is outside 0..%d", shown,
                       s, id, MT_TOKEN_ID_MAX);
    if (same != NULL)
        return mt_fail(ctx, MT_E_FORMAT, "token \"%.*s\" has two ids, %" PRId32 " and %" PRId64,
                       shown, s, same->id, id);
    if ((size_t)id < t->n_ids && t->by_id[id] != 0)
        return mt_fail(ctx, MT_E_FORMAT, "id %" PRId64 " belongs to two tokens; one is \"%.*s\"",
                       id, shown, s);
    if (n > UINT32_MAX - t->n_blob)
        return mt_fail(ctx, MT_E_LIMIT, "the vocabulary holds more than 4 GiB of text");
    if (t->n_entries + 1 > t->cap_entries || t->n_blob + n > t->cap_blob)
        MT_TRY(mt_vocab_reserve(ctx, t, t->n_entries * 2 + 16, (t->n_blob + n) * 2 + 256));
    MT_TRY(vocab_grow_ids(ctx, t, (size_t)id + 1));
    memcpy(t->blob + t->n_blob, s, n);
    t->entries[t->n_entries] =
        (struct mt_vocab_entry){hash, (uint32_t)t->n_blob, (uint32_t)n, (int32_t)id};
    t->n_blob += n;
    vocab_place(t, (uint32_t)t->n_entries);
    t->by_id[id] = (uint32_t)++t->n_entries;
    return MT_OK;
}

int32_t mt_vocab_find(const struct mt_vocab_table *t, const char *s, size_t n)
{
    const struct mt_vocab_entry *e = vocab_lookup(t, s, n, mt_text_hash(s, n));

    return e != NULL ? e->id : -1;
}

bool mt_vocab_text(const struct mt_vocab_table *t, int64_t id, const char **s, size_t *n)
{
    const struct mt_vocab_entry *e;

    if (id < 0 || (uint64_t)id >= t->n_ids || t->by_id[id] == 0)
        return false;
    e = &t->entries[t->by_id[id] - 1];
    *s = t->blob + e->at;
    *n = e->n;
    return true;
}

void mt_vocab_end(struct mt_vocab_table *t)
{
    mt_free(t->blob);
    mt_free(t->entries);
    mt_free(t->slots);
    mt_free(t->by_id);
    *t = (struct mt_vocab_table){0};
}
