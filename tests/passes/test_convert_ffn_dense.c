#include "formats/table.h"
#include "lib/base/mem.h"
#include "lib/flow/walk.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <string.h>

/* What is measured in fp64 differs by summation order. */
#define EXACT 1e-10

#define LAYERS 4

static struct mt_model *source(struct t *t, const char *family)
{
    return tiny_open(
        t, tiny_write(t, "dense",
                      &(struct tiny){.family = family, .layers = LAYERS, .width = 96, .seed = 31}));
}

/* which: "x.xx", a cross where a layer is dense. */
static void check_layers(struct t *t, const struct mt_model *src, const struct mt_model *m,
                         const char *which)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};

    for (int l = 0; l < LAYERS; l++) {
        T_EQ_INT(t, m->ffn[l].moe, which[l] == '.');
        for (size_t i = 0; i < 3 && which[l] == 'x'; i++) {
            const struct mt_role role = mt_role(kinds[i], l, MT_EXPERT_NONE);
            struct mt_tensor *a = mt_model_find(src, role), *b = mt_model_find(m, role);
            float *x, *y;
            T_CHECK(t, a != NULL && b != NULL);
            T_OK(t, mt_tensor_load_f32(&t->ctx, a, &x));
            T_OK(t, mt_tensor_load_f32(&t->ctx, b, &y));
            T_EQ_INT(t, memcmp(x, y, (size_t)mt_tensor_count(a) * sizeof(*x)), 0);
            mt_free(x);
            mt_free(y);
        }
    }
}

/* With all experts active such a model is the source, in every architecture that has a place for
 * dense layers, also when it was written and read again. */
T_TEST(every_architecture_that_holds_dense_layers_computes_the_source)
{
    static const struct {
        const char *family, *options, *out, *which;
    } cases[] = {
        {"llama", "arch=glm4_moe experts=5 active=5 shared=1 dense-layers=0", "glm", "x..."},
        {"llama", "arch=glm4_moe experts=5 active=5 dense-layers=0,1", "glm.gguf", "xx.."},
        {"llama", "arch=qwen2_moe experts=4 active=4 shared=0 dense-layers=1,-1", "qwen2", ".x.x"},
        {"llama", "arch=native experts=5 active=5 dense-layers=1-2", "native", ".xx."},
        {"qwen3", "arch=dots1 experts=5 active=5 dense-layers=0", "dots1", "x..."},
        {"qwen3", "arch=qwen3_moe experts=4 active=4 dense-layers=0,2", "qwen3", "x.x."},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_model *src = source(t, cases[i].family), *back;
        const char *out = t_path(t, cases[i].out);
        struct mt_walk_result r;
        double d;

        T_CHECK(t, src != NULL);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", cases[i].options, src, NULL, &r));
        check_layers(t, src, r.plan, cases[i].which);
        T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
        T_NEAR(t, d, 0, EXACT);
        T_OK(t, write_pass(&t->ctx, "convert-ffn", cases[i].options, src, out));
        T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &back));
        check_layers(t, src, back, cases[i].which);
        T_OK(t, logits_distance(&t->ctx, "ref", back, src, &d));
        T_NEAR(t, d, 0, EXACT);
        if (t->failed)
            printf("    %s: %s\n", cases[i].family, cases[i].options);
        mt_model_free(back);
        mt_walk_result_free(&r);
        mt_model_free(src);
    }
}

/* Dense layers in front suit most, between others few. */
T_TEST(auto_takes_an_architecture_that_holds_them)
{
    static const struct {
        const char *family, *layers, *target;
    } cases[] = {
        {"llama", "0", "glm4_moe"},
        {"llama", "0-2", "glm4_moe"},
        {"llama", "3", "qwen2_moe"},
        {"llama", "0,2", "qwen2_moe"},
        {"qwen3", "1", "qwen3_moe"},
        {"granite", "1", "native"},
        {"granite", "none", "granitemoeshared"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_model *src = source(t, cases[i].family);
        struct mt_walk_result r;
        char options[64];

        T_CHECK(t, src != NULL);
        snprintf(options, sizeof options, "experts=4 active=2 dense-layers=%s", cases[i].layers);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
        T_EQ_STR(t, strcmp(r.plan->family->name, "moetool") == 0 ? "native" : r.plan->family->name,
                 cases[i].target);
        mt_walk_result_free(&r);
        mt_model_free(src);
    }
}

/* Layers are fitted one after the other: those before the first dense one come out as they do
 * without it, those behind it see what the dense one gives. */
T_TEST(dense_layers_are_walked_through)
{
    struct mt_model *src = source(t, "llama");
    static struct noise_data data;
    struct mt_walk_result all, some;

    T_CHECK(t, src != NULL);
    noise_data(&data, 4, 64, 5);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "arch=native experts=6 active=2 shared=0", src,
                     &data.set, &all));
    T_OK(t,
         run_pass(&t->ctx, "convert-ffn", "arch=native experts=6 active=2 shared=0 dense-layers=1",
                  src, &data.set, &some));
    check_layers(t, src, some.plan, ".x..");
    for (int l = 0; l < LAYERS; l++) {
        const struct mt_json *a = layer_numbers(&all, "convert-ffn", l);
        const struct mt_json *b = layer_numbers(&some, "convert-ffn", l);
        char *x, *y;
        size_t nx, ny;

        T_OK(t, mt_json_print(&t->ctx, a, &x, &nx));
        T_OK(t, mt_json_print(&t->ctx, b, &y, &ny));
        T_EQ_INT(t, strcmp(x, y) == 0, l == 0);
        T_EQ_INT(t, strstr(y, "\"dense\"") != NULL, l == 1);
        T_EQ_INT(t, strstr(y, "captured") != NULL, l != 1);
        mt_free(x);
        mt_free(y);
    }
    mt_walk_result_free(&all);
    mt_walk_result_free(&some);
    mt_model_free(src);
}

T_TEST(what_cannot_stay_dense_is_refused)
{
    static const struct {
        const char *options;
        mt_status st;
        const char *said;
    } bad[] = {
        {"experts=4 dense-layers=0-3", MT_E_OPTION, "no layer is left to convert"},
        {"experts=4 dense-layers=4", MT_E_OPTION, "expected layers from 0 to 3"},
        {"experts=4 dense-layers=1 arch=glm4_moe", MT_E_UNSUPPORTED,
         "cannot hold dense layers behind sparse ones; qwen3_moe can"},
        {"experts=4 dense-layers=0 arch=mixtral shared=0", MT_E_UNSUPPORTED,
         "mixtral cannot hold dense layers beside sparse ones; glm4_moe can"},
        {"experts=4 dense-layers=0 arch=granitemoeshared", MT_E_UNSUPPORTED, "dense layers"},
    };
    struct mt_model *src = source(t, "llama");
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        T_FAILS(t, run_pass(&t->ctx, "convert-ffn", bad[i].options, src, NULL, &r), bad[i].st,
                bad[i].said);
    mt_model_free(src);
}
