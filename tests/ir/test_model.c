#include "lib/base/rng.h"
#include "tests/tiny.h"

#include <stdlib.h>

/* Bit for bit, so that a NaN equals itself and zeros of either sign differ. */
static bool same_bits(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n) == 0;
}

static struct mt_role random_role(struct mt_rng *rng)
{
    struct mt_role r = mt_role(mt_rng_below(rng, 2) ? MT_ROLE_FFN_UP : MT_ROLE_FFN_GATE,
                               (int)mt_rng_below(rng, 4) - 1, (int)mt_rng_below(rng, 6) - 2);

    r.part = mt_rng_below(rng, 4) == 0 ? MT_PART_BIAS : MT_PART_WEIGHT;
    if (mt_rng_below(rng, 8) == 0)
        r.kind = MT_ROLE_OTHER;
    return r;
}

static bool same_role(struct mt_role a, struct mt_role b)
{
    return a.kind == b.kind && a.layer == b.layer && a.expert == b.expert && a.part == b.part;
}

/* The index says a record is there exactly when a walk over the list does. */
static bool index_agrees(const struct mt_model *m, struct mt_role role)
{
    struct mt_tensor *found = mt_model_find(m, role);
    bool listed = false, among = false;

    for (size_t i = 0; i < m->n_tensors; i++)
        if (role.kind != MT_ROLE_OTHER && same_role(m->tensors[i]->role, role)) {
            listed = true;
            among = among || m->tensors[i] == found;
        }
    return listed ? among : found == NULL;
}

T_TEST(the_index_stays_right_under_edits)
{
    const int64_t shape[1] = {1};
    struct mt_tensor *x;
    struct mt_model *m;
    struct mt_rng rng;

    mt_rng_seed(&rng, 5, 0);
    T_OK(t, mt_model_create(&t->ctx, &m));
    for (int round = 0; round < 6000; round++) {
        uint64_t what = mt_rng_below(&rng, 5), at = mt_rng_below(&rng, m->n_tensors + 1);

        if (what < 2 && m->n_tensors < 70)
            T_OK(t, mt_model_add(&t->ctx, m, random_role(&rng), MT_F32, 1, shape, &x));
        else if (what < 4 && at < m->n_tensors)
            mt_model_remove(m, m->tensors[at]);
        else if (at < m->n_tensors)
            T_OK(t, mt_model_set_role(&t->ctx, m, m->tensors[at], random_role(&rng)));
        for (int i = 0; i < 4; i++)
            T_CHECK(t, index_agrees(m, random_role(&rng)));
    }
    mt_model_free(m);
}

T_TEST(many_experts_are_found)
{
    const int64_t shape[2] = {2, 2};
    struct mt_tensor *x;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    for (int l = 0; l < 20; l++)
        for (int e = 0; e < 256; e++)
            T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_FFN_UP, l, e), MT_BF16, 2, shape, &x));
    for (int l = 0; l < 20; l++)
        for (int e = 0; e < 256; e++) {
            x = mt_model_find(m, mt_role(MT_ROLE_FFN_UP, l, e));
            T_CHECK(t, x != NULL && x->role.layer == l && x->role.expert == e);
        }
    T_CHECK(t, mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 20, 0)) == NULL);
    T_FAILS(t, mt_model_need(&t->ctx, m, mt_role(MT_ROLE_FFN_UP, 20, 1), &x), MT_E_ABSENT,
            "layers.20.experts.1.up_proj is missing");
    /* Every second expert leaves and the others close up: what pruning does. */
    for (int l = 0; l < 20; l++)
        for (int e = 0; e < 256; e++) {
            x = mt_model_find(m, mt_role(MT_ROLE_FFN_UP, l, e));
            if (e % 2 == 1)
                mt_model_remove(m, x);
            else
                T_OK(t, mt_model_set_role(&t->ctx, m, x, mt_role(MT_ROLE_FFN_UP, l, e / 2)));
        }
    T_EQ_INT(t, m->n_tensors, 20 * 128);
    for (int e = 0; e < 256; e++)
        T_CHECK(t, (mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 7, e)) != NULL) == (e < 128));
    mt_model_free(m);
}

T_TEST(impossible_shapes_are_refused)
{
    const struct mt_role role = mt_role(MT_ROLE_FFN_UP, 1, 2);
    const int64_t negative[2] = {3, -1}, huge[2] = {INT64_MAX, INT64_MAX}, odd[1] = {3};
    const int64_t hidden[3] = {(int64_t)1 << 40, (int64_t)1 << 40, 0};
    const int64_t many[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    struct mt_tensor *x;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_FAILS(t, mt_model_add(&t->ctx, m, role, MT_F32, 2, negative, &x), MT_E_FORMAT,
            "layers.1.experts.2.up_proj: impossible shape, dimension 1 is -1");
    T_FAILS(t, mt_model_add(&t->ctx, m, role, MT_F32, 2, huge, &x), MT_E_FORMAT, "impossible");
    T_FAILS(t, mt_model_add(&t->ctx, m, role, MT_F32, 3, hidden, &x), MT_E_FORMAT, "impossible");
    T_FAILS(t, mt_model_add(&t->ctx, m, role, MT_F4, 1, odd, &x), MT_E_FORMAT, "whole bytes");
    T_FAILS(t, mt_model_add(&t->ctx, m, role, MT_F32, 9, many, &x), MT_E_LIMIT, "9 dimensions");
    T_EQ_INT(t, m->n_tensors, 0);
    mt_model_free(m);
}

T_TEST(editing_a_plan_leaves_the_source_alone)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "mixtral"});
    struct mt_model *src = tiny_open(t, dir), *plan, *again;
    const int64_t shape[2] = {2, 32};
    struct mt_tensor *x, *old;
    size_t n;
    float a[32], b[32];

    T_CHECK(t, src != NULL);
    n = src->n_tensors;
    T_OK(t, mt_model_plan(&t->ctx, src, &plan));
    T_OK(t, mt_model_verify(&t->ctx, plan));
    T_CHECK(t, plan->config == src->config && plan->ffn != src->ffn);
    old = mt_model_find(plan, mt_role(MT_ROLE_ROUTER, 0, MT_EXPERT_NONE));
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, old, 1, 1, a));
    T_OK(t, mt_model_plan(&t->ctx, plan, &again));

    plan->ffn[0].n_experts = 2;
    plan->hp.n_layers = 1;
    mt_model_remove(plan, old);
    T_OK(t, mt_model_add(&t->ctx, plan, mt_role(MT_ROLE_ROUTER, 0, MT_EXPERT_NONE), MT_F32, 2,
                         shape, &x));
    T_OK(t, mt_recipe_gather_rows(&t->ctx, plan, x, old, (const int32_t[]){3, 1}, 2, 1));
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, x, 1, 1, b));
    T_CHECK(t, same_bits(a, b, sizeof a)); /* a removed record still feeds recipes */
    T_EQ_INT(t, src->n_tensors, n);
    T_EQ_INT(t, again->n_tensors, n);
    T_EQ_INT(t, src->ffn[0].n_experts, 4);
    T_EQ_INT(t, src->hp.n_layers, 2);
    T_OK(t, mt_model_verify(&t->ctx, src));
    T_OK(t, mt_model_verify(&t->ctx, again));
    mt_model_free(again);
    mt_model_free(plan);
    mt_model_free(src);
}

/* Hand count of a Mixtral: 2 layers, d 32, 4 experts of 48, 2 active, heads 4/2 of 8, vocab 64. */
T_TEST(sizes_of_a_small_moe_by_hand)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "mixtral", .dtype = MT_BF16});
    const uint64_t expert = 3 * 32 * 48, attn = 2 * 32 * 32 + 2 * 16 * 32, ends = 2 * 64 * 32 + 32;
    const uint64_t rest = 2 * (attn + 4 * 32 + 2 * 32) + ends;
    struct mt_model *m = tiny_open(t, dir);
    struct mt_model_size s;

    T_CHECK(t, m != NULL);
    mt_model_measure(m, &s);
    T_EQ_INT(t, s.ffn_params_total, 2 * 4 * expert);
    T_EQ_INT(t, s.ffn_params_active, 2 * 2 * expert);
    T_EQ_INT(t, s.params_total, rest + 2 * 4 * expert);
    T_EQ_INT(t, s.params_active, rest + 2 * 2 * expert);
    T_EQ_INT(t, s.bytes, 2 * s.params_total);
    mt_model_free(m);
}

T_TEST(a_tied_head_counts_once)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.tied = true});
    struct mt_model *m = tiny_open(t, dir);
    const int64_t shape[2] = {64, 32};
    struct mt_tensor *embed, *head;
    struct mt_model_size s, with;

    T_CHECK(t, m != NULL);
    mt_model_measure(m, &s);
    T_OK(t, mt_model_need(&t->ctx, m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE), &embed));
    T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE), MT_F32, 2, shape,
                         &head));
    mt_model_measure(m, &with); /* stored a second time: more bytes, no more parameters */
    T_EQ_INT(t, with.params_total, s.params_total);
    T_EQ_INT(t, with.bytes, s.bytes + 64 * 32 * 4);
    head->src.kind = MT_SRC_ALIAS;
    head->src.alias = embed;
    mt_model_measure(m, &with);
    T_EQ_INT(t, with.params_total, s.params_total);
    T_EQ_INT(t, with.bytes, s.bytes);
    T_OK(t, mt_model_verify(&t->ctx, m));
    mt_model_free(m);
}

static void measure_real(struct t *t, const char *name, double total, double active)
{
    const char *dir = t_data(name);
    struct mt_model_size s;
    struct mt_model *m;

    if (dir == NULL)
        T_SKIP(t, "no shared data");
    m = tiny_open(t, dir);
    if (m == NULL)
        T_FAIL(t, "%s", mt_error(&t->ctx));
    mt_model_measure(m, &s);
    T_NEAR(t, (double)s.params_total / 1e6, total, 0.05);
    T_NEAR(t, (double)s.params_active / 1e6, active, 0.05);
    mt_model_free(m);
}

T_TEST(tinymix_dense_has_6_0_m)
{
    measure_real(t, "models/tinymix-dense", 6.0, 6.0);
}

T_TEST(tinymix_moe_has_17_8_m_of_which_4_0_m_act)
{
    measure_real(t, "models/tinymix-moe", 17.8, 4.0);
}

/* Every allocation fails once; nothing leaks (the harness counts) and nothing is half made. */
T_TEST(out_of_memory_anywhere_is_one_sentence)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "glm4_moe", .shared = 1});
    struct mt_model *src = tiny_open(t, dir), *plan = NULL, *m;
    uint64_t n = 0;

    T_CHECK(t, src != NULL);
    for (mt_status st = MT_E_NOMEM; st != MT_OK;) {
        mt_fault_alloc(++n);
        st = mt_model_plan(&t->ctx, src, &plan);
        mt_fault_alloc(0);
        if (st != MT_OK)
            T_CHECK(t, st == MT_E_NOMEM && plan == NULL && n < 100);
    }
    T_CHECK(t, n > 3);
    mt_model_free(plan);
    for (m = NULL, n = 0; m == NULL;) {
        mt_fault_alloc(++n);
        m = tiny_open(t, dir);
        mt_fault_alloc(0);
        if (m == NULL)
            T_CHECK(t, t->ctx.error_status == MT_E_NOMEM && n < 2000);
    }
    mt_model_free(m);
    mt_model_free(src);
}
