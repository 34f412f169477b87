#include "tests/t.h"
#include "lib/run/runner.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"

static int count(const struct mt_model *m, enum mt_dtype dtype)
{
    int n = 0;

    for (size_t i = 0; i < m->n_tensors; i++)
        n += m->tensors[i]->dtype == dtype;
    return n;
}

T_TEST(keep_changes_nothing)
{
    struct mt_model *src = tiny_open(t, tiny_write(t, "m", &(struct tiny){.seed = 1}));
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "cast", "dtype=keep", src, NULL, &r));
    T_EQ_INT(t, count(r.plan, MT_F32), (int)src->n_tensors);
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_NEAR(t, d, 0, 0);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

T_TEST(routers_and_selection_biases_are_never_rounded)
{
    const struct tiny o = {.family = "glm4_moe", .seed = 2, .shared = 1};
    static const char *const names[] = {"dtype=bf16", "dtype=f16"};
    static const enum mt_dtype types[] = {MT_BF16, MT_F16};
    struct mt_model *src = tiny_open(t, tiny_write(t, "m", &o));

    T_CHECK(t, src != NULL);
    for (int i = 0; i < 2; i++) {
        struct mt_walk_result r;
        T_OK(t, run_pass(&t->ctx, "cast", names[i], src, NULL, &r));
        for (size_t j = 0; j < r.plan->n_tensors; j++) {
            const struct mt_tensor *x = r.plan->tensors[j];
            bool routes = x->role.kind == MT_ROLE_ROUTER || x->role.kind == MT_ROLE_ROUTER_BIAS;
            T_EQ_INT(t, x->dtype, routes ? MT_F32 : types[i]);
        }
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

T_TEST(a_router_of_another_type_becomes_f32_and_keeps_its_values)
{
    const struct tiny o = {.family = "qwen3_moe", .seed = 3, .dtype = MT_BF16};
    struct mt_model *src = tiny_open(t, tiny_write(t, "m", &o));
    struct mt_role role = mt_role(MT_ROLE_ROUTER, 1, MT_EXPERT_NONE);
    struct mt_walk_result r;
    float *a, *b;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "cast", "dtype=f16", src, NULL, &r));
    const struct mt_tensor *x = mt_model_find(r.plan, role), *y = mt_model_find(src, role);
    T_EQ_INT(t, x->dtype, MT_F32);
    T_OK(t, mt_tensor_load_f32(&t->ctx, x, &a));
    T_OK(t, mt_tensor_load_f32(&t->ctx, y, &b));
    T_CHECK(t, memcmp(a, b, (size_t)mt_tensor_count(x) * sizeof *a) == 0);
    mt_free(a);
    mt_free(b);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* A gate of 1e-20 is zero in F16, which llama.cpp divides by. */
T_TEST(the_gate_of_the_shared_expert_is_not_rounded)
{
    struct mt_model *src = tiny_open(t, "tests/golden/qwen2_moe");
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    src->hp.sliding_window = 0; /* windows by turns can be read but not written */
    T_OK(t, run_pass(&t->ctx, "cast", "dtype=f16", src, NULL, &r));
    T_EQ_INT(t, mt_model_find(r.plan, mt_role(MT_ROLE_SHARED_GATE, 1, MT_EXPERT_NONE))->dtype,
             MT_F32);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

T_TEST(widening_changes_no_logit_and_rounding_a_little)
{
    const struct tiny o = {.seed = 4, .dtype = MT_BF16};
    struct mt_model *src = tiny_open(t, tiny_write(t, "m", &o));
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "cast", "dtype=f32", src, NULL, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_NEAR(t, d, 0, 0);
    mt_walk_result_free(&r);
    mt_model_free(src);

    src = tiny_open(t, tiny_write(t, "n", &(struct tiny){.seed = 4}));
    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "cast", "dtype=bf16", src, NULL, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_CHECK(t, d > 1e-5 && d < 0.03);
    mt_walk_result_free(&r);
    mt_model_free(src);
}
