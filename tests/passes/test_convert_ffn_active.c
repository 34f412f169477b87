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

#define LAYERS 3
#define WIDTH 96
#define HIDDEN 32
#define EXPERTS 12

static struct mt_model *source(struct t *t, uint64_t seed)
{
    return tiny_open(
        t, tiny_write(t, "m", &(struct tiny){.layers = LAYERS, .width = WIDTH, .seed = seed}));
}

static double number_of(const struct mt_json *in, const char *key)
{
    double v = -1;

    (void)mt_json_number(mt_json_get(in, key), &v);
    return v;
}

static bool same_numbers(struct mt_ctx *ctx, const struct mt_tensor *a, const struct mt_tensor *b)
{
    float *p = NULL, *q = NULL;
    bool same = b != NULL && mt_tensor_count(a) == mt_tensor_count(b) &&
                mt_tensor_load_f32(ctx, a, &p) == MT_OK && mt_tensor_load_f32(ctx, b, &q) == MT_OK;

    same = same && memcmp(p, q, (size_t)mt_tensor_count(a) * sizeof(*p)) == 0;
    mt_free(p);
    mt_free(q);
    return same;
}

/* Whether all records of layers below n, and those of none, have the same numbers in both. */
static bool same_records(struct t *t, const struct mt_model *a, const struct mt_model *b, int n)
{
    bool same = a->n_tensors == b->n_tensors;

    for (size_t i = 0; i < a->n_tensors && same; i++)
        if (a->tensors[i]->role.layer < n)
            same = same_numbers(&t->ctx, a->tensors[i], mt_model_find(b, a->tensors[i]->role));
    return same;
}

T_TEST(a_list_of_equal_entries_is_the_plain_value)
{
    static const char *const options[] = {
        "experts=12 shared=0 active=%s",
        "experts=12 shared=0 arch=native active=%s",
        "experts=12 shared=0 dynamic-k=true active=%s",
        "experts=11 shared=1 active=%s",
    };
    static const char *const lists[][2] = {
        {"5", "5,5,5"}, {"50%", "50%,50%,50%"}, {"6", "50%,6,49%"}, {"5", "5,5,5"}};
    struct mt_model *src = source(t, 51);
    static struct noise_data data;

    T_CHECK(t, src != NULL);
    noise_data(&data, 8, 64, 5);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        struct mt_walk_result r[2];
        char text[128];
        for (int j = 0; j < 2; j++) {
            snprintf(text, sizeof text, options[i], lists[i][j]);
            T_OK(t, run_pass(&t->ctx, "convert-ffn", text, src, &data.set, &r[j]));
        }
        T_EQ_STR(t, r[1].plan->family->name, r[0].plan->family->name);
        T_CHECK(t, same_records(t, r[0].plan, r[1].plan, LAYERS));
        for (int l = 0; l < LAYERS; l++)
            T_EQ_INT(t, r[1].plan->ffn[l].k, r[0].plan->ffn[l].k);
        mt_walk_result_free(&r[0]);
        mt_walk_result_free(&r[1]);
    }
    mt_model_free(src);
}

/* Layers come one after the other, so up to the first whose number differs all is as it was. */
T_TEST(each_layer_has_its_own_number)
{
    struct mt_model *src = source(t, 52);
    static struct noise_data data;
    struct mt_walk_result plain, own;
    struct mt_model_size size;

    T_CHECK(t, src != NULL);
    noise_data(&data, 8, 64, 5);
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "experts=12 shared=0 arch=native dynamic-k=false active=4", src, &data.set,
                     &plain));
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=12 shared=0 dynamic-k=false active=4,4,7",
                     src, &data.set, &own));
    T_EQ_STR(t, own.plan->family->name, "moetool");
    T_CHECK(t, same_records(t, plain.plan, own.plan, 2));
    T_CHECK(t, !same_records(t, plain.plan, own.plan, 3));
    T_EQ_INT(t, own.plan->ffn[1].k, 4);
    T_EQ_INT(t, own.plan->ffn[2].k, 7);
    T_NEAR(t, mt_model_mean_active(own.plan), 5, 0);
    mt_model_measure(own.plan, &size);
    T_EQ_INT(t, size.ffn_params_active, 3 * HIDDEN * (4 + 4 + 7) * (WIDTH / EXPERTS));
    const struct mt_json *ffn = mt_json_get(mt_json_get(own.manifest, "target"), "ffn");
    T_NEAR(t, number_of(ffn, "active_mean"), 5, 0);
    ffn = mt_json_get(mt_json_get(plain.manifest, "target"), "ffn");
    T_CHECK(t, mt_json_get(ffn, "active_mean") == NULL);
    mt_walk_result_free(&plain);
    mt_walk_result_free(&own);
    mt_model_free(src);
}

T_TEST(thresholds_leave_each_layer_its_own_mean)
{
    static const char *const options[] = {
        "experts=12 shared=0 dynamic-k=true active=3,12,7",
        "experts=12 shared=0 dynamic-k=true active=3,12,7 router=features refit=down",
    };
    static const int k[LAYERS] = {3, 12, 7};
    struct mt_model *src = source(t, 53);
    static struct noise_data data;
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    noise_data(&data, 8, 64, 5);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options[i], src, &data.set, &r));
        for (int l = 0; l < LAYERS; l++) {
            const struct mt_ffn *f = &r.plan->ffn[l];
            const struct mt_json *m = mt_json_get(layer_numbers(&r, "convert-ffn", l), "measured");
            T_EQ_INT(t, f->k, 12);
            T_EQ_INT(t, f->rule.cut, k[l] < 12 ? MT_CUT_ABOVE : MT_CUT_NONE);
            T_NEAR(t, mt_ffn_mean_active(f), k[l], 0);
            T_EQ_INT(t, f->router.kind, i == 1 && k[l] < 12 ? MT_ROUTER_MLP : MT_ROUTER_LINEAR);
            if (k[l] < 12)
                T_NEAR(t, number_of(m, "active"), k[l], 0.01);
        }
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

/* ---- all act ---- */

struct matrices {
    float *gate, *up, *down;
};

static void load(struct t *t, const struct mt_model *m, int layer, int expert, struct matrices *out)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    float **v[] = {&out->gate, &out->up, &out->down};

    for (size_t i = 0; i < 3; i++) {
        struct mt_tensor *x = mt_model_find(m, mt_role(kinds[i], layer, expert));
        T_CHECK(t, x != NULL);
        T_OK(t, mt_tensor_load_f32(&t->ctx, x, v[i]));
    }
}

static void unload(struct matrices *m)
{
    mt_free(m->gate);
    mt_free(m->up);
    mt_free(m->down);
}

/* n numbers, so far apart in each. */
static bool equal(const float *a, int step_a, const float *b, int step_b, int n)
{
    for (int i = 0; i < n; i++)
        if (a[i * step_a] < b[i * step_b] || a[i * step_a] > b[i * step_b])
            return false;
    return true;
}

/* The neuron of `from`, WIDTH of them, that neuron i of an expert is to the last bit; -1: none. */
static int neuron_of(const struct matrices *from, const struct matrices *expert, int i)
{
    const int wide = WIDTH / EXPERTS;

    for (int j = 0; j < WIDTH; j++)
        if (equal(from->gate + j * HIDDEN, 1, expert->gate + i * HIDDEN, 1, HIDDEN) &&
            equal(from->up + j * HIDDEN, 1, expert->up + i * HIDDEN, 1, HIDDEN) &&
            equal(from->down + j, WIDTH, expert->down + i, wide, HIDDEN))
            return j;
    return -1;
}

/* Neurons of a dense layer that stand in its experts as they were. */
static void count_neurons(struct t *t, const struct mt_model *src, const struct mt_model *m,
                          int layer, int *found)
{
    struct matrices from = {0};
    bool seen[WIDTH] = {false};

    *found = 0;
    load(t, src, layer, MT_EXPERT_NONE, &from);
    T_CHECK(t, from.gate != NULL && from.up != NULL && from.down != NULL);
    for (int e = 0; e < EXPERTS && !t->failed; e++) {
        struct matrices expert = {0};
        load(t, m, layer, e, &expert);
        T_CHECK(t, expert.gate != NULL && expert.up != NULL && expert.down != NULL);
        for (int i = 0; i < WIDTH / EXPERTS && !t->failed; i++) {
            int j = neuron_of(&from, &expert, i);
            *found += j >= 0 && !seen[j];
            seen[j >= 0 ? j : 0] |= j >= 0;
        }
        unload(&expert);
    }
    unload(&from);
}

/* Nothing is routed or fitted where all act, whatever is asked of the other layers. */
T_TEST(a_layer_in_which_all_act_is_the_dense_one)
{
    static const char *const options[] = {
        "experts=12 shared=0 active=100%,25%,50%",
        "experts=12 shared=0 active=12,25%,50% router=features refit=all",
        "experts=12 shared=0 active=100%,25%,50% method=expertweaver router=ridge refit=down",
        "experts=12 shared=0 active=100%,25%,50% method=cmoe refit=down dynamic-k=true",
    };
    struct mt_model *src = source(t, 54);
    static struct noise_data data;
    struct mt_walk_result r, dense;
    int found;
    double d;

    T_CHECK(t, src != NULL);
    noise_data(&data, 8, 64, 5);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options[i], src, &data.set, &r));
        T_EQ_INT(t, r.plan->ffn[0].k, 12);
        T_CHECK(t, r.plan->ffn[0].rule.unit);
        T_EQ_INT(t, r.plan->ffn[0].rule.cut, MT_CUT_NONE);
        count_neurons(t, src, r.plan, 0, &found);
        T_EQ_INT(t, found, WIDTH);
        count_neurons(t, src, r.plan, 2, &found);
        T_EQ_INT(t, found, 0);
        T_CHECK(t, mt_json_get(layer_numbers(&r, "convert-ffn", 0), "refit") == NULL);
        T_CHECK(t, mt_json_get(layer_numbers(&r, "convert-ffn", 2), "refit") != NULL);
        if (t->failed)
            printf("    with %s\n", options[i]);
        mt_walk_result_free(&r);
    }
    /* Without text the others do not depend on what the layer gives to the last bit. */
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=12 shared=0 active=12,3,6", src, NULL, &r));
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "experts=12 shared=0 active=-,3,6 dense-layers=0 arch=native", src, NULL,
                     &dense));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, dense.plan, &d));
    T_NEAR(t, d, 0, EXACT);
    T_CHECK(t, !dense.plan->ffn[0].moe);
    T_EQ_INT(t, dense.plan->ffn[2].k, 6);
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_CHECK(t, d > 1e-3);
    mt_walk_result_free(&r);
    mt_walk_result_free(&dense);
    mt_model_free(src);
}

/* ---- files ---- */

T_TEST(numbers_survive_writing_and_reading)
{
    const char *options = "experts=12 shared=0 active=3,12,7", *out = t_path(t, "moe");
    struct mt_model *src = source(t, 55), *back;
    struct mt_walk_result r, plain;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
    T_OK(t, write_pass(&t->ctx, "convert-ffn", options, src, out));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &back));
    T_EQ_INT(t, back->ffn[0].k, 3);
    T_EQ_INT(t, back->ffn[1].k, 12);
    T_EQ_INT(t, back->ffn[2].k, 7);
    T_OK(t, logits_distance(&t->ctx, "ref", back, r.plan, &d));
    T_NEAR(t, d, 0, 0);
    T_OK(t, logits_distance(&t->ctx, "cpu", back, r.plan, &d));
    T_NEAR(t, d, 0, 0);
    /* The runner goes by it: with as many everywhere the model is another. */
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=12 shared=0 active=7 arch=native", src, NULL,
                     &plain));
    T_OK(t, logits_distance(&t->ctx, "ref", back, plain.plan, &d));
    T_CHECK(t, d > 1e-3);
    T_CHECK(t, same_records(t, back, plain.plan, 1));
    /* ... and with its own numbers it is this one: experts were found without text. */
    for (int l = 0; l < LAYERS; l++)
        plain.plan->ffn[l].k = back->ffn[l].k;
    T_OK(t, logits_distance(&t->ctx, "ref", back, plain.plan, &d));
    T_NEAR(t, d, 0, EXACT);
    mt_walk_result_free(&plain);
    mt_walk_result_free(&r);
    mt_model_free(back);
    mt_model_free(src);
}

T_TEST(what_holds_no_list_is_refused)
{
    static const struct {
        const char *options;
        mt_status status;
        const char *said;
    } bad[] = {
        {"active=4,4", MT_E_OPTION, "2 entries, but there are 3 layers"},
        {"active=4,4,4,5", MT_E_OPTION, "4 entries, but there are 3 layers"},
        {"active=4,,5", MT_E_OPTION, "layer 1: --active 4,,5: expected"},
        {"active=4,5,", MT_E_OPTION, "layer 2: --active 4,5,: expected"},
        {"active=4,5,x", MT_E_OPTION, "layer 2: --active 4,5,x: expected"},
        {"active=4,5,1.5", MT_E_OPTION, "layer 2: --active 4,5,1.5: expected"},
        {"active=4,5,101%", MT_E_OPTION, "layer 2: --active 4,5,101%: expected"},
        {"active=4,13,5", MT_E_OPTION, "layer 1: --active 4,13,5: there are only 12"},
        {"active=4,-,5", MT_E_OPTION, "layer 1 has no number; --dense-layers leaves it dense"},
        {"active=4,5,5 dense-layers=1", MT_E_OPTION, "layer 1 stays dense by --dense-layers"},
        {"active=4,4,5 arch=glm4_moe", MT_E_OPTION,
         "glm4_moe has one number of active experts for all layers; --arch native has one for "
         "each"},
        {"active=4,4,5 arch=mixtral", MT_E_OPTION, "--arch native has one for each"},
        {"active=4,2,4 method=dino arch=native", MT_E_OPTION, "as many experts act in every layer"},
    };
    struct mt_model *src = source(t, 56);
    struct mt_walk_result r;
    char text[160];

    T_CHECK(t, src != NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, "experts=12 shared=0 %s", bad[i].options);
        T_FAILS(t, run_pass(&t->ctx, "convert-ffn", text, src, NULL, &r), bad[i].status,
                bad[i].said);
    }
    T_FAILS(t,
            write_pass(&t->ctx, "convert-ffn", "experts=12 shared=0 active=4,4,5", src,
                       t_path(t, "m.gguf")),
            MT_E_UNSUPPORTED, "but a directory can");
    mt_model_free(src);
}
