/* What is kept of a layer between rounds: as many batches as there is room for, the first ones. */
#include "lib/base/mem.h"
#include "lib/flow/walk_state.h"
#include "tests/t.h"

static const struct walk_kept_shape shape = {.x = 3, .h = 5, .y = 3, .drift = 0};
#define BATCH_BYTES (10 * 11 * sizeof(float)) /* ten tokens */

/* Offers six batches; those kept hold what was put there. */
static void keep_some(struct t *t, struct walk_keep *k)
{
    const struct walk_kept *v;

    for (size_t b = 0; b < 6; b++) {
        T_OK(t, walk_keep_add(&t->ctx, k, b, 10, &shape, &v));
        T_CHECK(t, (v != NULL) == (walk_keep_find(k, b) != NULL));
        for (int64_t i = 0; v != NULL && i < 10 * 11; i++)
            v->x[i] = (float)b;
        T_CHECK(t, v == NULL || (v->h == v->x + 30 && v->y == v->h + 50));
    }
    for (size_t b = 0; b < k->n; b++)
        T_CHECK(t, walk_keep_find(k, b)->x[109] == (float)b);
}

T_TEST(the_first_batches_are_kept_as_far_as_room_goes)
{
    for (size_t n = 0; n <= 6; n++) {
        struct walk_keep k = {.room = n * BATCH_BYTES + BATCH_BYTES / 2};
        keep_some(t, &k);
        T_EQ_INT(t, (int)k.n, (int)n);
        walk_keep_drop(&k);
        T_CHECK(t, walk_keep_find(&k, 0) == NULL);
        keep_some(t, &k);
        T_EQ_INT(t, (int)k.n, (int)n); /* the room is there again */
        walk_keep_drop(&k);
    }
}

/* A small batch behind one that had no room would leave a gap. */
T_TEST(nothing_is_kept_behind_a_gap)
{
    struct walk_keep k = {.room = BATCH_BYTES};
    const struct walk_kept *v;

    T_OK(t, walk_keep_add(&t->ctx, &k, 0, 20, &shape, &v));
    T_CHECK(t, v == NULL);
    T_OK(t, walk_keep_add(&t->ctx, &k, 1, 10, &shape, &v));
    T_CHECK(t, v == NULL && k.n == 0);
    walk_keep_drop(&k);
}

T_TEST(room_is_a_part_of_what_is_free)
{
    struct walk_keep k;
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 1, .memory_bytes_max = 1 << 20}));
    uint64_t used = mt_mem_used(&ctx);
    walk_keep_open(&ctx, &k, 1 << 19);
    T_CHECK(t, k.room == ((1 << 19) - used) / 4);
    walk_keep_open(&ctx, &k, 2 << 20);
    T_CHECK(t, k.room == 0);
    mt_ctx_close(&ctx);
}
