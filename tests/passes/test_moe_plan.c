/* Records of converted layers, shown where a target holds blocks of every kind: the native layout,
 * from all dense families of tests/golden, biased and plain FFNs among them. */
#include "passes/lib/moe_plan.h"

#include "formats/table.h"
#include "lib/ir/family.h"
#include "lib/run/encode.h"
#include "tests/pass_run.h"
#include "tests/t.h"

#include <stdlib.h>

static const char *const sources[] = {"gpt2",    "gemma2",     "gemma3_text", "gemma3_text-old",
                                      "phi3",    "phi3-short", "llama",       "llama-yarn",
                                      "mistral", "qwen2",      "qwen3"};
#define SOURCES (sizeof sources / sizeof sources[0])

/* Same logits up to the order of summation in fp64, through the file. */
#define EXACT 1e-10

static struct mt_model *open_golden(struct t *t, const char *name)
{
    struct mt_model *m = NULL;
    char dir[128];

    snprintf(dir, sizeof dir, "tests/golden/%s", name);
    if (mt_model_open(&t->ctx, mt_formats, dir, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

/* Converts into the scratch directory and opens what was written. */
static struct mt_model *native(struct t *t, const struct mt_model *src, const char *name,
                               const char *options)
{
    struct mt_model *m = NULL;
    char out[512];

    snprintf(out, sizeof out, "%s", t_path(t, name));
    if (write_pass(&t->ctx, "convert-ffn", options, src, out) != MT_OK ||
        mt_model_open(&t->ctx, mt_formats, out, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s: %s", options, mt_error(&t->ctx));
    return m;
}

static void all_active_is_the_source(struct t *t, const char *name, const char *options)
{
    struct mt_model *src = open_golden(t, name), *m;
    double d;

    T_CHECK(t, src != NULL);
    m = native(t, src, name, options);
    T_CHECK(t, m != NULL);
    T_EQ_STR(t, m->family->name, "moetool");
    T_EQ_STR(t, m->base->name, src->family->name);
    T_CHECK(t, m->ffn[0].moe && m->ffn[0].act == src->ffn[0].act &&
                   m->ffn[0].gated == src->ffn[0].gated &&
                   m->ffn[0].in_bias == src->ffn[0].in_bias &&
                   m->ffn[0].layer_bias == src->ffn[0].out_bias && !m->ffn[0].out_bias);
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, EXACT);
    T_OK(t, ffn_distance(&t->ctx, m, src, 17, &d));
    T_NEAR(t, d, 0, ffn_tolerance(src->ffn[0].width));
    mt_model_free(m);
    mt_model_free(src);
}

T_TEST(all_experts_active_are_the_dense_model)
{
    static const char *const options[] = {
        "arch=native experts=4 active=4 shared=0",
        "arch=native experts=3 active=100% shared=1 partition=random"};

    for (size_t i = 0; i < SOURCES && t->failed == 0; i++) {
        all_active_is_the_source(t, sources[i], options[i % 2]);
        if (t->failed != 0)
            printf("    %s, %s\n", sources[i], options[i % 2]);
    }
}

#define TOKENS 9

static mt_status encode(struct mt_ctx *ctx, const struct mt_model *m, double *last)
{
    const int32_t len = TOKENS;
    float x[TOKENS * 64];
    struct mt_device *dev;
    struct mt_runner *r;

    mt_assert(m->hp.hidden <= 64);
    for (int64_t i = 0; i < TOKENS * m->hp.hidden; i++)
        x[i] = cosf(1.7F * (float)i);
    MT_TRY(mt_device_open(ctx, "ref", &dev));
    MT_TRY(mt_runner_open(ctx, m, dev, &r));
    mt_status st = mt_encode_f64(ctx, r, &(struct mt_encode_in){.seqs = {1, &len}, .x = x}, last);
    mt_runner_close(r);
    mt_device_close(dev);
    return st;
}

/* Encoders: norms behind the blocks, layer scales, plain and gated FFNs. */
T_TEST(encoders_are_held_too)
{
    static const char *const encoders[] = {"bert", "vit", "dinov2", "dinov2-swiglu"};

    for (size_t i = 0; i < sizeof encoders / sizeof encoders[0] && t->failed == 0; i++) {
        struct mt_model *src = open_golden(t, encoders[i]), *m;
        double a[TOKENS * 64], b[TOKENS * 64];
        T_CHECK(t, src != NULL);
        m = native(t, src, encoders[i], "arch=native experts=4 active=4 shared=0");
        T_CHECK(t, m != NULL);
        T_OK(t, encode(&t->ctx, src, a));
        T_OK(t, encode(&t->ctx, m, b));
        T_NEAR(t, t_rel_l2_f64(b, a, (size_t)(TOKENS * src->hp.hidden)), 0, EXACT);
        mt_model_free(m);
        mt_model_free(src);
    }
}

/* A centroid router on whatever rows there are; k experts each of weight one. */
T_TEST(fewer_experts_run)
{
    for (size_t i = 0; i < SOURCES && t->failed == 0; i++) {
        struct mt_model *src = open_golden(t, sources[i]), *m;
        double d;
        T_CHECK(t, src != NULL);
        m = native(t, src, sources[i], "arch=native experts=5 active=2 shared=1");
        T_CHECK(t, m != NULL);
        T_CHECK(t, m->ffn[0].k == 2 && m->ffn[0].rule.unit);
        T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
        T_CHECK(t, d > 1e-6 && d < 2);
        mt_model_free(m);
        mt_model_free(src);
    }
}

/* --arch auto takes it for what no standard family holds, and for nothing else. */
T_TEST(auto_falls_back_to_it)
{
    for (size_t i = 0; i < SOURCES && t->failed == 0; i++) {
        struct mt_model *src = open_golden(t, sources[i]);
        struct mt_walk_result r;
        bool standard = strcmp(sources[i], "mistral") == 0 || strcmp(sources[i], "qwen3") == 0 ||
                        strcmp(sources[i], "phi3-short") == 0 ||
                        strcmp(sources[i], "llama-yarn") == 0;
        T_CHECK(t, src != NULL);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=4 active=4", src, NULL, &r));
        T_EQ_INT(t, strcmp(r.plan->family->name, "moetool") != 0, standard);
        mt_walk_result_free(&r);
        mt_model_free(src);
    }
}

/* What a copy changes: nothing; what a cast does: routers and selection biases stay F32. */
T_TEST(copies_and_casts_keep_routers)
{
    struct mt_model *src = open_golden(t, "moetool"), *m, *half;
    char out[512];
    double d;

    T_CHECK(t, src != NULL);
    snprintf(out, sizeof out, "%s", t_path(t, "copy"));
    T_OK(t, write_pass(&t->ctx, "cast", "dtype=f32", src, out));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &m));
    T_OK(t, logits_distance(&t->ctx, "ref", m, src, &d));
    T_NEAR(t, d, 0, 0);
    T_EQ_INT(t, m->n_tensors, src->n_tensors);
    snprintf(out, sizeof out, "%s", t_path(t, "half"));
    T_OK(t, write_pass(&t->ctx, "cast", "dtype=f16", src, out));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &half));
    T_OK(t, logits_distance(&t->ctx, "ref", half, src, &d));
    T_CHECK(t, d > 0 && d < 0.2);
    for (size_t i = 0; i < half->n_tensors; i++) {
        const struct mt_tensor *x = half->tensors[i], *was = mt_model_find(src, x->role);
        T_CHECK(t, was != NULL);
        if (mt_role_is_routing(x->role.kind) || x->role.part >= MT_PART_SPARSE_ROWS)
            T_EQ_INT(t, x->dtype, was->dtype);
        else
            T_EQ_INT(t, x->dtype, MT_F16);
    }
    mt_model_free(half);
    mt_model_free(m);
    mt_model_free(src);
}

/* Neither GGUF nor a standard family takes what only the native layout holds. */
T_TEST(nobody_else_takes_its_blocks)
{
    struct mt_model *src = open_golden(t, "moetool"), *plan;
    const struct mt_family *const *all = mt_family_all();

    T_CHECK(t, src != NULL);
    T_OK(t, mt_model_plan(&t->ctx, src, &plan));
    T_OK(t, src->family->can_hold(&t->ctx, plan));
    for (int i = 0; all[i] != NULL; i++)
        if (all[i] != src->family && all[i]->can_hold != NULL)
            T_FAILS(t, all[i]->can_hold(&t->ctx, plan), MT_E_UNSUPPORTED, "cannot hold");
    mt_model_free(plan);
    mt_model_free(src);
}
