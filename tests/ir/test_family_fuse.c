/* Parts put together again give the bytes that they were cut from. */
#include "formats/table.h"
#include "lib/base/mem.h"
#include "lib/ir/family.h"
#include "tests/t.h"

#include <stdlib.h>

static struct mt_tensor *named(struct mt_tensor **v, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(v[i]->name, name) == 0)
            return v[i];
    return NULL;
}

static void check_bytes(struct t *t, const struct mt_tensor *got, const struct mt_tensor *want,
                        int64_t step)
{
    size_t n = (size_t)mt_tensor_bytes(want);
    int64_t rows = mt_tensor_rows(want);
    mt_status st;

    T_CHECK(t, got->rank == want->rank && got->dtype == want->dtype);
    for (int d = 0; d < want->rank; d++)
        T_EQ_INT(t, got->shape[d], want->shape[d]);
    char *a = calloc(n + 1, 1), *b = calloc(n + 1, 1);
    st = mt_tensor_fetch(&t->ctx, want, 0, rows, a);
    for (int64_t r = 0; r < rows && st == MT_OK; r += step)
        st = mt_tensor_fetch(&t->ctx, got, r, rows - r < step ? rows - r : step,
                             b + n / (size_t)rows * (size_t)r);
    bool same = memcmp(a, b, n) == 0;
    free(a);
    free(b);
    T_OK(t, st);
    T_CHECK(t, same);
}

static void check_family(struct t *t, const char *name, size_t cuts_want)
{
    struct mt_tensor **v;
    struct mt_model *src, *plan;
    char dir[256];
    size_t n, cuts = 0;

    snprintf(dir, sizeof dir, "tests/golden/%s", name);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &src));
    T_OK(t, mt_model_plan(&t->ctx, src, &plan));
    size_t before = plan->n_tensors;
    T_OK(t, mt_model_stored(&t->ctx, plan, &v, &n));
    T_EQ_INT(t, plan->n_tensors, before);
    T_OK(t, mt_model_verify(&t->ctx, plan));
    for (const struct mt_cut *c = src->cuts; c != NULL; c = c->next, cuts++) {
        const struct mt_tensor *got = named(v, n, c->whole->name);
        T_CHECK(t, got != NULL && got->src.kind == MT_SRC_RECIPE);
        T_EQ_INT(t, got->role.layer, c->parts[0]->role.layer);
        check_bytes(t, got, c->whole, 1);
        check_bytes(t, got, c->whole, 7);
        check_bytes(t, got, c->whole, 1000);
        for (size_t i = 0; i < c->n; i++)
            T_CHECK(t, named(v, n, c->parts[i]->name) == NULL);
    }
    T_EQ_INT(t, cuts, cuts_want);
    mt_free(v);
    mt_model_free(plan);
    mt_model_free(src);
}

T_TEST(stacks_of_experts)
{
    check_family(t, "granitemoe", 4);
    check_family(t, "granitemoeshared", 6);
}

T_TEST(transposed_matrices_and_their_biases)
{
    check_family(t, "gpt2", 16);
}

T_TEST(rows_one_after_the_other)
{
    check_family(t, "phi3", 4);
}

T_TEST(transposed_stacks_whose_rows_take_turns)
{
    check_family(t, "gpt_oss", 8);
}

T_TEST(a_family_without_such_tensors_keeps_its_records)
{
    struct mt_tensor **v;
    struct mt_model *src, *plan;
    size_t n;

    T_OK(t, mt_model_open(&t->ctx, mt_formats, "tests/golden/llama", &src));
    T_OK(t, mt_model_plan(&t->ctx, src, &plan));
    T_OK(t, mt_model_stored(&t->ctx, plan, &v, &n));
    T_EQ_INT(t, n, plan->n_tensors);
    for (size_t i = 0; i < n; i++)
        T_CHECK(t, v[i] == plan->tensors[i]);
    mt_free(v);
    mt_model_free(plan);
    mt_model_free(src);
}

T_TEST(parts_of_different_types_are_refused)
{
    const struct mt_role up = mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_NONE);
    struct mt_tensor **v, *part;
    struct mt_model *src, *plan;
    size_t n;

    T_OK(t, mt_model_open(&t->ctx, mt_formats, "tests/golden/phi3", &src));
    T_OK(t, mt_model_plan(&t->ctx, src, &plan));
    part = mt_model_find(plan, up);
    T_CHECK(t, part != NULL);
    part->dtype = MT_F16;
    T_OK(t, mt_recipe_cast(&t->ctx, plan, part, mt_model_find(src, up)));
    T_FAILS(t, mt_model_stored(&t->ctx, plan, &v, &n), MT_E_UNSUPPORTED, "layers.1.up_proj");
    T_CHECK(t, v == NULL);
    mt_model_free(plan);
    mt_model_free(src);
}
