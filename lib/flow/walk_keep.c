#include "lib/base/mem.h"
#include "lib/flow/walk_state.h"

#include <string.h>

/* What streams may keep where nothing bounds memory. */
#define KEEP_UNBOUNDED ((uint64_t)1 << 30)

void walk_keep_open(struct mt_ctx *ctx, struct walk_keep *k, uint64_t others)
{
    uint64_t limit = mt_mem_limit(ctx), used = mt_mem_used(ctx);

    *k = (struct walk_keep){.room = KEEP_UNBOUNDED};
    if (limit != UINT64_MAX)
        k->room = limit > used && limit - used > others ? (limit - used - others) / 4 : 0;
}

const struct walk_kept *walk_keep_find(const struct walk_keep *k, size_t batch)
{
    return batch < k->n ? &k->v[batch] : NULL;
}

mt_status walk_keep_add(struct mt_ctx *ctx, struct walk_keep *k, size_t batch, int64_t tokens,
                        const struct walk_kept_shape *shape, const struct walk_kept **out)
{
    uint64_t each = (uint64_t)(shape->x + shape->h + shape->y + shape->drift);
    uint64_t bytes = each * (uint64_t)tokens * sizeof(float);
    float *all;

    *out = NULL;
    if (batch != k->n || bytes > k->room)
        return MT_OK;
    MT_TRY(mt_grow(ctx, k->n, &k->cap, sizeof *k->v, "kept activations", &k->v));
    MT_TRY(mt_alloc(ctx, (size_t)each, (size_t)tokens * sizeof *all, "kept activations", &all));
    k->room -= bytes;
    k->held += bytes;
    struct walk_kept *v = &k->v[k->n++];
    v->x = all;
    v->h = v->x + tokens * shape->x;
    v->y = v->h + tokens * shape->h;
    v->drift = v->y + tokens * shape->y;
    *out = v;
    return MT_OK;
}

void walk_keep_drop(struct walk_keep *k)
{
    for (size_t i = 0; i < k->n; i++)
        mt_free(k->v[i].x);
    mt_free(k->v);
    *k = (struct walk_keep){.room = k->room + k->held};
}
