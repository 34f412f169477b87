#include "tests/tiny.h"

static struct mt_model *open_plan(struct t *t, const struct tiny *o, struct mt_model **src)
{
    struct mt_model *plan = NULL;

    *src = tiny_open(t, tiny_write(t, "m", o));
    if (*src != NULL && mt_model_plan(&t->ctx, *src, &plan) != MT_OK)
        plan = NULL;
    return plan;
}

static const struct tiny fullest[] = {
    {.family = "llama", .biases = true, .mlp_biases = true},
    {.family = "mistral"},
    {.family = "qwen2", .tied = true},
    {.family = "qwen3", .biases = true},
    {.family = "mixtral"},
    {.family = "qwen3_moe", .dense_layers = 1, .biases = true},
    {.family = "glm4_moe", .dense_layers = 1, .biases = true, .qk_norm = true, .shared = 2},
};
#define N_FULLEST (sizeof fullest / sizeof fullest[0])

T_TEST(every_record_is_missed_by_name)
{
    for (size_t f = 0; f < N_FULLEST; f++) {
        struct mt_model *src, *plan = open_plan(t, &fullest[f], &src);
        char label[128], want[160];

        T_CHECK(t, plan != NULL);
        T_OK(t, mt_model_verify(&t->ctx, plan));
        for (size_t i = 0; i < src->n_tensors; i++) {
            struct mt_model *p;

            T_OK(t, mt_model_plan(&t->ctx, src, &p));
            snprintf(want, sizeof want, "%s is missing",
                     mt_tensor_label(p->tensors[i], label, sizeof label));
            mt_model_remove(p, p->tensors[i]);
            T_FAILS(t, mt_model_verify(&t->ctx, p), MT_E_FORMAT, want);
            mt_model_free(p);
        }
        mt_model_free(plan);
        mt_model_free(src);
    }
}

T_TEST(every_wrong_shape_is_named_with_what_is_expected)
{
    for (size_t f = 0; f < N_FULLEST; f++) {
        struct mt_model *src, *plan = open_plan(t, &fullest[f], &src);
        char label[128], want[160];

        T_CHECK(t, plan != NULL);
        for (size_t i = 0; i < plan->n_tensors; i++) {
            struct mt_tensor *x = plan->tensors[i];

            x->shape[x->rank - 1]++;
            snprintf(want, sizeof want, "%s (%s) has shape [",
                     mt_tensor_label(x, label, sizeof label), x->name);
            T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT, want);
            x->shape[x->rank - 1]--;
        }
        T_OK(t, mt_model_verify(&t->ctx, plan));
        mt_model_free(plan);
        mt_model_free(src);
    }
}

T_TEST(ranks_are_checked)
{
    struct mt_model *src, *plan = open_plan(t, &(struct tiny){0}, &src);
    struct mt_tensor *x;

    T_CHECK(t, plan != NULL);
    T_OK(t, mt_model_need(&t->ctx, plan, mt_role(MT_ROLE_FINAL_NORM, -1, -1), &x));
    x->rank = 2;
    x->shape[1] = 1;
    T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT,
            "final_norm (model.norm.weight) has shape [32, 1], but the config gives [32]");
    mt_model_free(plan);
    mt_model_free(src);
}

static void surplus(struct t *t, struct mt_role role, int rank, const int64_t *shape,
                    const char *want)
{
    struct mt_model *src,
        *plan = open_plan(t, &(struct tiny){.family = "qwen3_moe", .dense_layers = 1}, &src);
    struct mt_tensor *x;

    T_CHECK(t, plan != NULL);
    T_OK(t, mt_model_add(&t->ctx, plan, role, MT_F32, rank, shape, &x));
    T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT, want);
    mt_model_free(plan);
    mt_model_free(src);
}

T_TEST(records_nobody_declared_are_refused)
{
    const int64_t up[2] = {48, 32}, bias[1] = {32}, one[2] = {1, 32};
    struct mt_role q = mt_role(MT_ROLE_ATTN_Q, 0, MT_EXPERT_NONE);

    q.part = MT_PART_BIAS;
    surplus(t, q, 1, bias, "layers.0.q_proj.bias is there, but the config declares no such bias");
    surplus(t, mt_role(MT_ROLE_FFN_UP, 1, 4), 2, up, "layers.1.experts.4.up_proj is there");
    surplus(t, mt_role(MT_ROLE_FFN_UP, 0, 0), 2, up, "leaves no place");
    surplus(t, mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_NONE), 2, up, "layers.1.up_proj is there");
    surplus(t, mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_SHARED), 2, up, "layers.1.shared_expert");
    surplus(t, mt_role(MT_ROLE_FFN_UP, 2, MT_EXPERT_NONE), 2, up, "layers.2.up_proj");
    surplus(t, mt_role(MT_ROLE_ROUTER, 0, MT_EXPERT_NONE), 2, one, "layers.0.router");
    surplus(t, mt_role(MT_ROLE_ROUTER_BIAS, 1, MT_EXPERT_NONE), 1, bias, "router_selection_bias");
    surplus(t, mt_role(MT_ROLE_SHARED_GATE, 1, MT_EXPERT_NONE), 2, one, "shared_expert_gate");
}

T_TEST(norms_nobody_declared_are_refused)
{
    struct mt_model *src, *plan = open_plan(t, &(struct tiny){.family = "qwen3"}, &src);

    T_CHECK(t, plan != NULL);
    plan->hp.qk_norm = MT_QK_NORM_NONE;
    T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT, "layers.0 has q_norm or k_norm");
    mt_model_free(plan);
    mt_model_free(src);
}

T_TEST(twins_are_refused)
{
    const int64_t up[2] = {48, 32};
    struct mt_model *src, *plan = open_plan(t, &(struct tiny){0}, &src);
    struct mt_tensor *x;

    T_CHECK(t, plan != NULL);
    T_OK(t, mt_model_add(&t->ctx, plan, mt_role(MT_ROLE_FFN_UP, 0, -1), MT_F32, 2, up, &x));
    x->name = "another";
    T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT,
            "layers.0.up_proj is there twice (model.layers.0.mlp.up_proj.weight, another)");
    x->name = "model.layers.1.mlp.up_proj.weight";
    T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT,
            "two tensors are named model.layers.1.mlp.up_proj.weight");
    mt_model_free(plan);
    mt_model_free(src);
}

T_TEST(more_active_experts_than_there_are)
{
    struct mt_model *src, *plan = open_plan(t, &(struct tiny){.family = "mixtral"}, &src);

    T_CHECK(t, plan != NULL);
    plan->ffn[1].k = 5;
    T_FAILS(t, mt_model_verify(&t->ctx, plan), MT_E_FORMAT, "layers.1: 5 of 4 experts per token");
    mt_model_free(plan);
    mt_model_free(src);
}

T_TEST(models_of_unknown_families_only_need_distinct_names)
{
    const int64_t shape[1] = {3};
    struct mt_tensor *a, *b;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_F32, 1, shape, &a));
    T_OK(t, mt_model_add(&t->ctx, m, mt_role(MT_ROLE_OTHER, -1, -1), MT_F32, 1, shape, &b));
    a->name = "a";
    b->name = "b";
    T_OK(t, mt_model_verify(&t->ctx, m));
    b->name = "a";
    T_FAILS(t, mt_model_verify(&t->ctx, m), MT_E_FORMAT, "two tensors are named a");
    mt_model_free(m);
}
