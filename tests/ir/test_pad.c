#include "formats/table.h"
#include "lib/base/rng.h"
#include "lib/flow/walk.h"
#include "lib/ir/family.h"
#include "lib/ir/pad.h"
#include "lib/run/runner.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <math.h>
#include <stddef.h>

#define LAYERS 4
#define EXPERTS 6
#define K 2

/* Which experts stay; the first layer of glm4_moe is dense. */
static const struct {
    int n;
    int32_t expert[EXPERTS];
} keep[LAYERS] = {{4, {0, 1, 2, 3}}, {3, {5, 0, 2}}, {6, {0, 1, 2, 3, 4, 5}}, {K, {4, 1}}};

static struct mt_model *source(struct t *t, const char *family)
{
    return tiny_open(t, tiny_write(t, "moe",
                                   &(struct tiny){.family = family,
                                                  .layers = LAYERS,
                                                  .experts = EXPERTS,
                                                  .k = K,
                                                  .shared = 1,
                                                  .dense_layers = 1,
                                                  .width = 12,
                                                  .seed = 5}));
}

/* The live router or bias of a layer: another record in the place of the source's. */
static mt_status replant(struct mt_ctx *ctx, struct mt_model *m, enum mt_role_kind kind, int layer,
                         struct mt_tensor **live)
{
    const struct mt_role role = mt_role(kind, layer, MT_EXPERT_NONE);
    struct mt_tensor *old = mt_model_find(m, role);
    int64_t shape[2] = {keep[layer].n, m->hp.hidden};

    mt_model_remove(m, old);
    return mt_model_add(ctx, m, role, old->dtype, old->rank, shape, live);
}

static mt_status replant_source(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *live)
{
    const struct mt_tensor *from = mt_model_find(m->source, live->role);
    const int32_t *idx = keep[live->role.layer].expert;
    int n = keep[live->role.layer].n;

    return live->rank == 2 ? mt_recipe_gather_rows(ctx, m, live, from, idx, n, 1)
                           : mt_recipe_gather_cols(ctx, m, live, from, idx, n, 1);
}

/* Leaves each layer of a plan the experts of `keep`; routers and biases stay pending. */
static mt_status plant(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *live[LAYERS][2])
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};

    for (int l = 0; l < LAYERS; l++) {
        if (!m->ffn[l].moe)
            continue;
        for (int i = 0; i < 3; i++)
            for (int e = 0; e < EXPERTS; e++) {
                struct mt_tensor *t = mt_model_find(m, mt_role(kinds[i], l, e));
                if (e < keep[l].n)
                    t->src.alias =
                        mt_model_find(m->source, mt_role(kinds[i], l, keep[l].expert[e]));
                else
                    mt_model_remove(m, t);
            }
        MT_TRY(replant(ctx, m, MT_ROLE_ROUTER, l, &live[l][0]));
        if (m->ffn[l].rule.has_bias)
            MT_TRY(replant(ctx, m, MT_ROLE_ROUTER_BIAS, l, &live[l][1]));
        m->ffn[l].n_experts = keep[l].n;
    }
    return MT_OK;
}

static mt_status plant_whole(struct mt_ctx *ctx, const struct mt_model *src, struct mt_model **out)
{
    struct mt_tensor *live[LAYERS][2] = {{NULL}};

    MT_TRY(mt_model_plan(ctx, src, out));
    MT_TRY(plant(ctx, *out, live));
    for (int l = 0; l < LAYERS; l++)
        for (int i = 0; i < 2; i++)
            if (live[l][i] != NULL)
                MT_TRY(replant_source(ctx, *out, live[l][i]));
    return mt_model_verify(ctx, *out);
}

T_TEST(a_padded_model_is_the_model)
{
    struct mt_model *src = source(t, "glm4_moe"), *uneven, *even;
    double d;

    T_CHECK(t, src != NULL);
    T_CHECK(t, !mt_model_uneven(src));
    T_OK(t, plant_whole(&t->ctx, src, &uneven));
    T_CHECK(t, mt_model_uneven(uneven));
    T_OK(t, logits_distance(&t->ctx, "ref", uneven, src, &d));
    T_CHECK(t, d > 1e-3); /* what was planted makes a difference */

    T_OK(t, plant_whole(&t->ctx, src, &even));
    T_OK(t, mt_model_pad_experts(&t->ctx, even, 8));
    T_OK(t, mt_model_verify(&t->ctx, even));
    T_CHECK(t, !mt_model_uneven(even));
    for (int l = 1; l < LAYERS; l++) {
        T_EQ_INT(t, even->ffn[l].n_experts, 8);
        T_EQ_INT(t, even->live_experts[l], keep[l].n);
    }
    T_OK(t, logits_distance(&t->ctx, "ref", even, uneven, &d));
    T_NEAR(t, d, 0, 0);
    T_OK(t, logits_distance(&t->ctx, "cpu", even, uneven, &d));
    T_NEAR(t, d, 0, 0);
    T_OK(t, even->family->can_hold(&t->ctx, even));
    mt_model_free(even);
    mt_model_free(uneven);
    mt_model_free(src);
}

/* Routers with random biases of all sizes, and logits of all sizes. */
T_TEST(dead_experts_are_never_chosen)
{
    static const double sizes[] = {0, 0.1, 3, 1e3, 1e6, 3e8, 1e30};
    struct mt_model *src = source(t, "glm4_moe"), *even;
    struct mt_rng r;

    T_CHECK(t, src != NULL);
    mt_rng_seed(&r, 3, 9);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        struct mt_tensor *bias;
        float values[4], *padded;
        double all[EXPERTS], logits[EXPERTS], weight[4];
        int32_t expert[4];

        T_OK(t, plant_whole(&t->ctx, src, &even));
        bias = mt_model_find(even, mt_role(MT_ROLE_ROUTER_BIAS, 1, MT_EXPERT_NONE));
        for (int e = 0; e < 3; e++)
            values[e] = (float)(sizes[s] * mt_rng_normal(&r));
        T_OK(t, mt_source_floats(&t->ctx, even, bias, values));
        T_OK(t, mt_model_pad_experts(&t->ctx, even, 0));
        bias = mt_model_find(even, mt_role(MT_ROLE_ROUTER_BIAS, 1, MT_EXPERT_NONE));
        T_OK(t, mt_tensor_load_f32(&t->ctx, bias, &padded));
        for (int e = 0; e < EXPERTS; e++)
            all[e] = (double)padded[e];
        for (int e = 0; e < 3; e++) {
            T_NEAR(t, padded[e], values[e], 0);
            /* In fp32 too a live score of 0 comes before a dead one of 1. */
            T_CHECK(t, values[e] + 0.0f > padded[3] + 1.0f);
        }
        if (s < 3)
            T_NEAR(t, padded[5], (double)fminf(fminf(values[0], values[1]), values[2]) - 2, 1e-6);
        for (int token = 0; token < 2000; token++) {
            for (int e = 0; e < EXPERTS; e++)
                logits[e] = e < 3 ? mt_rng_normal(&r) * (token % 50) : 0;
            mt_router_apply(&even->ffn[1].rule, logits, all, EXPERTS, 3, expert, weight);
            for (int i = 0; i < 3; i++)
                T_CHECK(t, expert[i] < 3);
        }
        mt_free(padded);
        mt_model_free(even);
    }
    mt_model_free(src);
}

/* ---- written ---- */

struct drop {
    struct mt_tensor *live[LAYERS][2];
};

static mt_status drop_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                             void **state)
{
    (void)opts, (void)src;
    return mt_alloc0(ctx, 1, sizeof(struct drop), "a test's pass", state);
}

static mt_status drop_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    return plant(ctx, m, ((struct drop *)state)->live);
}

static mt_status drop_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct drop *s = state;

    for (int i = 0; i < 2; i++)
        if (s->live[layer][i] != NULL)
            MT_TRY(replant_source(ctx, m, s->live[layer][i]));
    return MT_OK;
}

static const struct mt_opt drop_opts[] = {MT_OPT_END};
static const struct mt_pass drop = {.name = "drop",
                                    .summary = "leaves layers with the experts of a table",
                                    .opts = drop_opts,
                                    .create = drop_create,
                                    .plan = drop_plan,
                                    .layer = drop_layer,
                                    .destroy = mt_free};

static mt_status drop_run(struct t *t, const struct mt_model *src, const char *format,
                          const char *out, struct mt_walk_result *r)
{
    const struct mt_walk_pass step = {&drop, NULL};
    const struct mt_walk_opts o = {.source = src,
                                   .passes = &step,
                                   .n_passes = 1,
                                   .format = mt_format_writer(format),
                                   .formats = mt_formats,
                                   .out_path = out};

    return mt_walk_run(&t->ctx, &o, r);
}

static void written_as(struct t *t, const char *format, const char *name)
{
    struct mt_model *src = source(t, "glm4_moe"), *uneven, *back;
    const char *out = t_path(t, name);
    const struct mt_json *live;
    struct mt_walk_result r;
    int64_t n;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, plant_whole(&t->ctx, src, &uneven));
    T_OK(t, drop_run(t, src, format, out, &r));
    live = mt_json_get(mt_json_get(mt_json_get(r.manifest, "target"), "ffn"), "live_experts");
    T_EQ_INT(t, (long long)mt_json_count(live), LAYERS);
    T_CHECK(t, mt_json_integer(mt_json_next(mt_json_first(live)), &n));
    T_EQ_INT(t, n, keep[1].n);
    T_CHECK(t, strstr(t->log, "filled up to 6 experts") != NULL);
    mt_walk_result_free(&r);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &back));
    for (int l = 1; l < LAYERS; l++)
        T_EQ_INT(t, back->ffn[l].n_experts, EXPERTS);
    T_OK(t, logits_distance(&t->ctx, "ref", back, uneven, &d));
    T_NEAR(t, d, 0, 0);
    mt_model_free(back);
    mt_model_free(uneven);
    mt_model_free(src);
}

T_TEST(a_written_directory_computes_the_same)
{
    written_as(t, "safetensors", "padded");
}

T_TEST(a_gguf_file_computes_the_same)
{
    written_as(t, "gguf", "padded.gguf");
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    struct mt_model *src = source(t, "glm4_moe"), *m;
    mt_status st = MT_E_NOMEM;
    int failures = 0;

    T_CHECK(t, src != NULL);
    for (uint64_t n = 1; st != MT_OK && n < 400; n++, failures++) {
        T_OK(t, plant_whole(&t->ctx, src, &m));
        mt_fault_alloc(n);
        st = mt_model_pad_experts(&t->ctx, m, 40);
        mt_fault_alloc(0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        mt_model_free(m);
    }
    T_EQ_INT(t, st, MT_OK);
    T_CHECK(t, failures > 5);
    mt_model_free(src);
}

/* ---- refused ---- */

T_TEST(routers_that_would_let_padding_take_part_are_refused)
{
    static const char *const families[] = {"mixtral", "qwen3_moe"};

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        struct mt_model *src = source(t, families[i]);
        struct mt_walk_result r;
        char part[128];

        T_CHECK(t, src != NULL);
        snprintf(part, sizeof part, "%s cannot hold layers with 2 to 6 experts", families[i]);
        T_FAILS(t, drop_run(t, src, "safetensors", t_path(t, "none"), &r), MT_E_UNSUPPORTED, part);
        T_CHECK(t, strstr(mt_error(&t->ctx), "native layout") != NULL);
        mt_model_free(src);
    }
}

T_TEST(groups_and_too_few_live_experts_are_refused)
{
    struct mt_model *src = source(t, "glm4_moe"), *m;

    T_CHECK(t, src != NULL);
    T_OK(t, plant_whole(&t->ctx, src, &m));
    for (int l = 1; l < LAYERS; l++)
        m->ffn[l].k = 3;
    T_FAILS(t, mt_model_pad_experts(&t->ctx, m, 0), MT_E_UNSUPPORTED,
            "3 experts act for a token, but there is a layer that has only 2");
    mt_model_free(m);
    T_OK(t, plant_whole(&t->ctx, src, &m));
    for (int l = 1; l < LAYERS; l++)
        m->ffn[l].rule.n_group = 2;
    T_FAILS(t, mt_model_pad_experts(&t->ctx, m, 0), MT_E_UNSUPPORTED, "in groups");
    mt_model_free(m);
    mt_model_free(src);
}
