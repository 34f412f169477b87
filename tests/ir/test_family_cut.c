/* Tensors that hold several roles, cut at binding and put back for a copy. */
#include "tests/tiny.h"

#include <stdlib.h>

/* The header of a golden model's file, read without the reader under test. */
static struct mt_json *header_of(struct t *t, const char *dir)
{
    char path[256];
    unsigned char size[8];
    struct mt_json *head = NULL;
    uint64_t n = 0;
    char *text;
    FILE *f;

    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    f = fopen(path, "rb");
    if (f == NULL || fread(size, 1, 8, f) != 8)
        return NULL;
    for (int i = 7; i >= 0; i--)
        n = n << 8 | size[i];
    text = malloc(n);
    if (fread(text, 1, n, f) != n || mt_json_parse(&t->ctx, text, n, path, &head) != MT_OK)
        head = NULL;
    fclose(f);
    free(text);
    return head;
}

static bool same_shape(const struct mt_json *entry, const struct mt_tensor *x)
{
    const struct mt_json *j = mt_json_first(mt_json_get(entry, "shape"));
    int64_t v;

    for (int i = 0; i < x->rank; i++, j = mt_json_next(j))
        if (!mt_json_integer(j, &v) || v != x->shape[i])
            return false;
    return j == NULL;
}

static const struct mt_tensor *named(const struct mt_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (strcmp(m->tensors[i]->name, name) == 0)
            return m->tensors[i];
    return NULL;
}

T_TEST(copies_have_the_tensors_of_their_files)
{
    static const char *const names[] = {"gpt2",    "phi3",         "granitemoe", "granitemoeshared",
                                        "gpt_oss", "gpt_oss-mxfp4"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char dir[128];
        struct mt_model *m, *plan;
        struct mt_json *head;
        size_t n = 0;

        snprintf(dir, sizeof dir, "tests/golden/%s", names[i]);
        m = tiny_open(t, dir);
        head = header_of(t, dir);
        T_CHECK(t, m != NULL && head != NULL);
        T_OK(t, mt_model_plan(&t->ctx, m, &plan));
        T_OK(t, mt_model_restack(&t->ctx, plan));
        for (const struct mt_json *j = mt_json_first(head); j != NULL; j = mt_json_next(j)) {
            const struct mt_tensor *x;

            if (strcmp(mt_json_key(j), "__metadata__") == 0)
                continue;
            n++;
            x = named(plan, mt_json_key(j));
            if (x == NULL || !same_shape(j, x))
                T_FAIL(t, "%s: %s is not planned as it was", names[i], mt_json_key(j));
        }
        T_CHECK(t, n == plan->n_tensors && n < m->n_tensors);
        mt_json_free(head);
        mt_model_free(plan);
        mt_model_free(m);
    }
}

/* The parts of a transposed, interleaved stack against its elements, counted by hand. */
T_TEST(parts_are_the_right_elements)
{
    struct mt_model *m = tiny_open(t, "tests/golden/gpt_oss");
    const int64_t e = 2, width = 12, hidden = 32;
    const struct mt_tensor *whole = NULL, *up;
    float *all, *part;

    T_CHECK(t, m != NULL);
    for (const struct mt_cut *c = m->cuts; c != NULL; c = c->next)
        if (strcmp(c->whole->name, "model.layers.1.mlp.experts.gate_up_proj") == 0)
            whole = c->whole;
    T_CHECK(t, whole != NULL);
    up = mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 1, (int)e));
    T_CHECK(t, up != NULL && up->shape[0] == width && up->shape[1] == hidden);
    T_OK(t, mt_tensor_load_f32(&t->ctx, whole, &all));
    T_OK(t, mt_tensor_load_f32(&t->ctx, up, &part));
    for (int64_t r = 0; r < width; r++)
        for (int64_t c = 0; c < hidden; c++)
            T_NEAR(t, part[r * hidden + c], all[(e * hidden + c) * 2 * width + 2 * r + 1], 0);
    mt_free(all);
    mt_free(part);
    mt_model_free(m);
}

T_TEST(a_changed_part_cannot_be_copied)
{
    struct mt_model *m = tiny_open(t, "tests/golden/phi3"), *plan;
    struct mt_tensor *k;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_model_plan(&t->ctx, m, &plan));
    k = mt_model_find(plan, mt_role(MT_ROLE_ATTN_K, 0, MT_EXPERT_NONE));
    T_OK(t, mt_recipe_fill(&t->ctx, plan, k, 1));
    T_FAILS(t, mt_model_restack(&t->ctx, plan), MT_E_UNSUPPORTED, "qkv_proj");
    mt_model_free(plan);
    mt_model_free(m);
}
