#include "lib/flow/emit.h"

#include "kernels/kernels.h"
#include "lib/base/rng.h"
#include "lib/ir/model.h"
#include "tests/t.h"

#include <pthread.h>
#include <stdlib.h>

/* A format that keeps what it is given, and counts how often each byte was given. */
struct mt_writer {
    pthread_mutex_t lock;
    const struct mt_tensor *t[16];
    unsigned char *bytes[16], *times[16];
    size_t n, calls, largest;
};

static mt_status keep_put(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                          uint64_t offset, const void *bytes, size_t n)
{
    size_t i = 0;

    while (i < w->n && w->t[i] != t)
        i++;
    if (i == w->n || offset > mt_tensor_bytes(t) || n > mt_tensor_bytes(t) - offset)
        return mt_fail(ctx, MT_E_IO, "outside of what was planned");
    memcpy(w->bytes[i] + offset, bytes, n);
    for (size_t k = 0; k < n; k++)
        w->times[i][offset + k]++;
    pthread_mutex_lock(&w->lock);
    w->calls++;
    w->largest = n > w->largest ? n : w->largest;
    pthread_mutex_unlock(&w->lock);
    return MT_OK;
}

static const struct mt_format keep = {.name = "keep", .put = keep_put};

static void writer_open(struct mt_writer *w, const struct mt_model *m)
{
    *w = (struct mt_writer){.n = m->n_tensors};
    pthread_mutex_init(&w->lock, NULL);
    for (size_t i = 0; i < w->n; i++) {
        w->t[i] = m->tensors[i];
        w->bytes[i] = calloc(mt_tensor_bytes(w->t[i]) + 1, 1);
        w->times[i] = calloc(mt_tensor_bytes(w->t[i]) + 1, 1);
    }
}

static void writer_close(struct mt_writer *w)
{
    for (size_t i = 0; i < w->n; i++) {
        free(w->bytes[i]);
        free(w->times[i]);
    }
    pthread_mutex_destroy(&w->lock);
}

/* A record of random bytes (finite floats where the type is one), owned by the model. */
static struct mt_tensor *add(struct t *t, struct mt_model *m, const char *name, enum mt_dtype dtype,
                             int rank, const int64_t *shape)
{
    struct mt_role role = mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE);
    struct mt_tensor *x = NULL;
    struct mt_rng rng;
    unsigned char *p;

    if (mt_model_add(&t->ctx, m, role, dtype, rank, shape, &x) != MT_OK ||
        mt_alloc(&t->ctx, mt_tensor_bytes(x) + 8, 1, "bytes", &p) != MT_OK) {
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
        return NULL;
    }
    x->name = name;
    x->src.kind = MT_SRC_OWNED;
    x->src.owned = p;
    if (mt_model_own_buffer(&t->ctx, m, p) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    mt_rng_seed(&rng, 3, m->n_tensors);
    for (uint64_t i = 0; i < mt_tensor_bytes(x); i++)
        p[i] = (unsigned char)(mt_rng_u64(&rng) & 0x3f); /* exponents stay below all ones */
    return x;
}

static void check_all(struct t *t, const struct mt_writer *w)
{
    for (size_t i = 0; i < w->n; i++) {
        uint64_t n = mt_tensor_bytes(w->t[i]);
        unsigned char *want = malloc(n + 1);
        T_OK(t, mt_tensor_fetch(&t->ctx, w->t[i], 0, mt_tensor_rows(w->t[i]), want));
        T_CHECK(t, memcmp(w->bytes[i], want, n) == 0);
        for (uint64_t k = 0; k < n; k++)
            T_EQ_INT(t, w->times[i][k], 1);
        free(want);
    }
}

T_TEST(every_byte_of_every_kind_of_record_is_written_once)
{
    const int64_t big[] = {1500, 700}, wide[] = {2, 700000}, vector[] = {900000}, none[] = {0, 5},
                  odd[] = {6, 5}, cube[] = {7, 5, 3}, turned[] = {700, 1500}, picked[] = {40, 700};
    int32_t cols[700];
    struct mt_writer w;
    struct mt_model *m;
    struct mt_tensor *x, *from;

    T_OK(t, mt_model_create(&t->ctx, &m));
    from = add(t, m, "big", MT_BF16, 2, big);
    add(t, m, "wide", MT_F32, 2, wide);
    add(t, m, "vector", MT_U8, 1, vector);
    add(t, m, "none", MT_F32, 2, none);
    add(t, m, "scalar", MT_F64, 0, none);
    add(t, m, "odd", MT_F4, 2, odd);
    add(t, m, "cube", MT_I64, 3, cube);
    T_CHECK(t, !t->failed);
    x = add(t, m, "picked", MT_BF16, 2, picked);
    for (int i = 0; i < 700; i++)
        cols[i] = 699 - i;
    T_OK(t, mt_recipe_gather_rows(&t->ctx, m, x, from, cols, 40, 1));
    x = add(t, m, "turned", MT_BF16, 2, turned);
    T_OK(t, mt_recipe_fill(&t->ctx, m, x, 0.5f));
    x = add(t, m, "alias", MT_BF16, 2, big);
    x->src.kind = MT_SRC_ALIAS;
    x->src.alias = from;
    writer_open(&w, m);
    T_OK(t, mt_emit(&t->ctx, &keep, &w, m->tensors, m->n_tensors));
    check_all(t, &w);
    T_CHECK(t, w.calls > m->n_tensors);
    T_CHECK(t, w.largest <= (1u << 20));
    writer_close(&w);
    mt_model_free(m);
}

T_TEST(a_nan_in_a_late_tile_is_found_at_its_place)
{
    const int64_t shape[] = {3000, 500};
    const int64_t at = 2999 * 500 + 123;
    struct mt_writer w;
    struct mt_model *m;
    struct mt_tensor *x;
    int32_t rows[3000];

    T_OK(t, mt_model_create(&t->ctx, &m));
    x = add(t, m, "weights", MT_BF16, 2, shape);
    T_CHECK(t, x != NULL);
    memcpy((char *)m->owned[0] + 2 * at, "\x80\x7f", 2); /* +Inf */
    writer_open(&w, m);
    T_FAILS(t, mt_emit(&t->ctx, &keep, &w, m->tensors, 1), MT_E_NUMERIC,
            "weights (computed): element 1499623 is NaN or infinite");
    writer_close(&w);
    /* Through a recipe too; other types are bytes. */
    x = add(t, m, "turned", MT_BF16, 2, shape);
    for (int i = 0; i < 3000; i++)
        rows[i] = 2999 - i;
    T_OK(t, mt_recipe_gather_rows(&t->ctx, m, x, m->tensors[0], rows, 3000, 1));
    x->planner = "flip";
    writer_open(&w, m);
    T_FAILS(t, mt_emit(&t->ctx, &keep, &w, m->tensors + 1, 1), MT_E_NUMERIC,
            "turned (flip): element 123 ");
    m->tensors[0]->dtype = MT_U16;
    T_OK(t, mt_emit(&t->ctx, &keep, &w, m->tensors, 1));
    writer_close(&w);
    mt_model_free(m);
}

static mt_status broken(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                        void *dst)
{
    (void)t;
    memset(dst, 0, (size_t)n * 4000);
    return row >= 500 ? mt_fail(ctx, MT_E_FORMAT, "row %d is bad", (int)row) : MT_OK;
}

T_TEST(a_failing_recipe_names_the_record_and_who_planned_it)
{
    const int64_t shape[] = {2000, 1000};
    struct mt_writer w;
    struct mt_model *m;
    struct mt_tensor *x;

    T_OK(t, mt_model_create(&t->ctx, &m));
    x = add(t, m, "broken", MT_F32, 2, shape);
    x->src.kind = MT_SRC_RECIPE;
    x->src.recipe.eval = broken;
    x->src.recipe.n_in = 0;
    x->planner = "merge";
    writer_open(&w, m);
    /* The lowest tile wins, whatever the threads. */
    T_FAILS(t, mt_emit(&t->ctx, &keep, &w, m->tensors, 1), MT_E_FORMAT,
            "broken (planned by merge): row 524 is bad");
    writer_close(&w);
    mt_model_free(m);
}

T_TEST(an_interrupt_stops_it)
{
    const int64_t shape[] = {2000, 1000};
    struct mt_writer w;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    add(t, m, "x", MT_F32, 2, shape);
    writer_open(&w, m);
    t->cancel = 1;
    T_FAILS(t, mt_emit(&t->ctx, &keep, &w, m->tensors, 1), MT_E_CANCELLED, "interrupted");
    writer_close(&w);
    mt_model_free(m);
}
