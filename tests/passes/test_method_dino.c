/* Copies of FFNs, whole and in slices: what the source computes, whatever router and target. */
#include "lib/base/rng.h"
#include "lib/run/runner.h"
#include "passes/lib/pick.h"
#include "passes/lib/targets.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"
#include "tests/toy.h"

#include <stdlib.h>
#include <string.h>

/* Same logits up to the order of summation in fp64. */
#define EXACT 1e-10

static struct mt_model *dense(struct t *t, const char *name)
{
    struct mt_model *m = tiny_open(t, tiny_write(t, name, &(struct tiny){.seed = 3}));

    if (m == NULL)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

/* A source that the target's attention holds. */
static struct mt_model *dense_for(struct t *t, const char *arch)
{
    bool norms = strcmp(arch, "dots1") == 0 || strcmp(arch, "qwen3_moe") == 0;
    struct mt_model *m;

    if (!norms)
        return dense(t, "m");
    m = tiny_open(t, tiny_write(t, "n", &(struct tiny){.family = "qwen3", .seed = 3}));
    if (m == NULL)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

static void same_as_source(struct t *t, const struct mt_model *src, const char *options)
{
    struct mt_walk_result r;
    double d = 1;

    if (run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r) != MT_OK) {
        t_fail(t, __FILE__, __LINE__, "%s: %s", options, mt_error(&t->ctx));
        return;
    }
    T_OK(t, logits_distance(&t->ctx, "ref", src, r.plan, &d));
    if (d > EXACT)
        t_fail(t, __FILE__, __LINE__, "%s: logits are %.3g off", options, d);
    T_OK(t, ffn_distance(&t->ctx, src, r.plan, 50, &d));
    if (d > ffn_tolerance(src->ffn[0].width))
        t_fail(t, __FILE__, __LINE__, "%s: FFNs are %.3g off", options, d);
    mt_walk_result_free(&r);
}

T_TEST(every_target_that_sums_weights_starts_as_the_source)
{
    struct mt_model *src;
    char text[160];

    for (int i = 0; mt_target_names[i] != NULL; i++) {
        const struct mt_target *target = mt_target_find(mt_target_names[i]);
        if (!mt_target_sums(target) && target->rule.score == MT_SCORE_SOFTMAX)
            continue;
        src = dense_for(t, mt_target_names[i]);
        T_CHECK(t, src != NULL);
        /* 5 does not divide the width; a factor of 3 or 5 in down_proj would round. */
        for (int g = 1; g <= 5; g++) {
            if (target->alpha != MT_ALPHA_ONE && g != 1 && g != 2 && g != 4)
                continue;
            snprintf(text, sizeof text, "method=dino copies=4 granularity=%d arch=%s", g,
                     mt_target_names[i]);
            same_as_source(t, src, text);
            snprintf(text, sizeof text, "method=dino copies=4 granularity=%d active=%d arch=%s", g,
                     3 * g, mt_target_names[i]);
            same_as_source(t, src, text);
        }
        mt_model_free(src);
    }
    src = dense(t, "m");
    T_CHECK(t, src != NULL);
    same_as_source(t, src, "method=dino copies=3 granularity=4 partition=random");
    same_as_source(t, src, "method=dino copies=3 granularity=4 partition=cluster");
    same_as_source(t, src, "method=dino copies=5 router=zero");
    mt_model_free(src);
}

T_TEST(whole_copies_start_as_the_source_with_any_router)
{
    static const char *const routers[] = {"auto", "zero", "random", "centroid"};
    static const char *const archs[] = {"mixtral",  "qwen3_moe", "granitemoe", "granitemoeshared",
                                        "glm4_moe", "dots1",     "native"};
    struct mt_model *src;
    char text[160];

    for (size_t a = 0; a < sizeof archs / sizeof *archs; a++) {
        src = dense_for(t, archs[a]);
        T_CHECK(t, src != NULL);
        for (size_t r = 0; r < sizeof routers / sizeof *routers; r++) {
            for (int k = 1; k <= 6; k += 2) {
                snprintf(text, sizeof text, "method=upcycle experts=6 active=%d router=%s arch=%s",
                         k, routers[r], archs[a]);
                same_as_source(t, src, text);
            }
        }
        mt_model_free(src);
    }
    src = dense(t, "m");
    T_CHECK(t, src != NULL);
    same_as_source(t, src, "method=upcycle");
    same_as_source(t, src, "method=upcycle experts=1");
    mt_model_free(src);
}

/* The paper's case: no gates, biases on both sides. */
T_TEST(biases_of_plain_ffns_count_once)
{
    struct mt_model *src;
    char text[96];

    T_OK(t, toy_model(&t->ctx,
                      &(struct toy){.ungated = true, .in_bias = true, .out_bias = true, .seed = 5},
                      &src));
    src->ffn[0].act = src->ffn[1].act = MT_ACT_GELU;
    for (int g = 1; g <= 7; g++) {
        snprintf(text, sizeof text, "method=dino copies=3 granularity=%d arch=native", g);
        same_as_source(t, src, text);
        snprintf(text, sizeof text, "method=upcycle experts=7 active=%d arch=native", g);
        same_as_source(t, src, text);
    }
    mt_model_free(src);
}

static bool same_record(struct t *t, const struct mt_model *a, const struct mt_model *b,
                        struct mt_role role)
{
    const struct mt_tensor *x = mt_model_find(a, role), *y = mt_model_find(b, role);
    uint64_t bytes = x != NULL ? mt_tensor_bytes(x) : 0;
    char *p = malloc(2 * bytes + 1);
    bool same;

    if (x == NULL || y == NULL || mt_tensor_bytes(y) != bytes) {
        free(p);
        return false;
    }
    same = mt_tensor_fetch(&t->ctx, x, 0, mt_tensor_rows(x), p) == MT_OK &&
           mt_tensor_fetch(&t->ctx, y, 0, mt_tensor_rows(y), p + bytes) == MT_OK &&
           memcmp(p, p + bytes, bytes) == 0;
    free(p);
    return same;
}

T_TEST(one_copy_is_a_plain_split)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    static const char *const how[] = {"contiguous", "random", "cluster"};
    struct mt_model *src = dense(t, "m");
    struct mt_walk_result a, b;
    char text[128];

    T_CHECK(t, src != NULL);
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof text, "method=dino copies=1 granularity=5 partition=%s arch=native",
                 how[i]);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", text, src, NULL, &a));
        snprintf(text, sizeof text,
                 "method=partition experts=5 active=5 shared=0 partition=%s arch=native", how[i]);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", text, src, NULL, &b));
        for (int l = 0; l < src->hp.n_layers; l++) {
            T_CHECK(t, same_record(t, a.plan, b.plan, mt_role(MT_ROLE_ROUTER, l, MT_EXPERT_NONE)));
            for (int e = 0; e < 5; e++)
                for (int k = 0; k < 3; k++)
                    T_CHECK(t, same_record(t, a.plan, b.plan, mt_role(kinds[k], l, e)));
        }
        mt_walk_result_free(&a);
        mt_walk_result_free(&b);
    }
    mt_model_free(src);
}

static float *router_of(struct t *t, const struct mt_model *m, int layer)
{
    struct mt_tensor *r = mt_model_find(m, mt_role(MT_ROLE_ROUTER, layer, MT_EXPERT_NONE));
    float *w = NULL;

    if (r == NULL || r->dtype != MT_F32 || mt_tensor_load_f32(&t->ctx, r, &w) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "no router of fp32 numbers");
    return w;
}

T_TEST(rows_are_one_in_a_copy_and_differ_between_copies)
{
    enum { N = 6, G = 3 };
    struct mt_model *src = dense(t, "m");
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    size_t row = (size_t)src->hp.hidden * sizeof(float);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=dino copies=6 granularity=3 arch=glm4_moe",
                     src, NULL, &r));
    float *first = router_of(t, r.plan, 0);
    for (int l = 0; l < src->hp.n_layers; l++) {
        float *w = router_of(t, r.plan, l);
        for (int a = 0; a < N * G; a++)
            for (int b = 0; b < a; b++)
                T_CHECK(t, (memcmp(w + a * src->hp.hidden, w + b * src->hp.hidden, row) == 0) ==
                               (a / G == b / G));
        T_CHECK(t, l == 0 || memcmp(w, first, row) != 0);
        mt_free(w);
    }
    mt_free(first);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* Of 20,000 random tokens none gets slices of two copies. */
T_TEST(copies_are_chosen_whole)
{
    enum { TOKENS = 20000, G = 4, D_MAX = 64 };
    static float x[TOKENS * D_MAX];
    static unsigned char picked[TOKENS * 16 * G];
    static const char *const archs[] = {"mixtral", "glm4_moe", "granitemoe", "native"};
    struct mt_model *src = dense(t, "m");
    int64_t d, torn = 0, n;
    struct mt_walk_result r;
    struct mt_rng rng;

    T_CHECK(t, src != NULL);
    d = src->hp.hidden;
    T_CHECK(t, d <= D_MAX);
    mt_rng_seed(&rng, 9, 0);
    for (int64_t i = 0; i < TOKENS * d; i++)
        x[i] = (float)mt_rng_normal(&rng);
    for (int a = 0; a < 4; a++) {
        char text[96];
        snprintf(text, sizeof text, "method=dino copies=16 granularity=4 arch=%s", archs[a]);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", text, src, NULL, &r));
        float *w = router_of(t, r.plan, 1);
        const struct mt_ffn *f = &r.plan->ffn[1];
        n = f->n_experts;
        const struct mt_pick p = {.rule = &f->rule, .n = f->n_experts, .k = f->k};
        T_EQ_INT(t, n, 16 * G);
        T_OK(t, mt_pick_linear(&t->ctx, &p, d, w, TOKENS, x, picked));
        int used[16] = {0};
        for (int64_t i = 0; i < TOKENS; i++) {
            for (int g = 0; g < 16; g++) {
                int k = 0;
                for (int e = 0; e < G; e++)
                    k += picked[i * n + g * G + e];
                torn += k != 0 && k != G;
                used[g] += k == G;
            }
        }
        for (int g = 0; g < 16; g++)
            T_CHECK(t, used[g] > TOKENS / 160);
        mt_free(w);
        mt_walk_result_free(&r);
    }
    T_EQ_INT(t, torn, 0);
    mt_model_free(src);
}

/* With text, rows are drawn until copies are apart; the report tells by how much. */
T_TEST(margins_on_the_text_are_told)
{
    struct mt_model *src = dense(t, "m");
    struct noise_data data;
    struct mt_walk_result r;
    double margin, ties;

    T_CHECK(t, src != NULL);
    noise_data(&data, 16, (int)src->hp.vocab, 4);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=dino copies=8 granularity=2 arch=mixtral", src,
                     &data.set, &r));
    const struct mt_json *l = mt_json_first(mt_json_get(r.manifest, "layers"));
    for (; l != NULL; l = mt_json_next(l)) {
        const struct mt_json *mine = mt_json_get(l, "convert-ffn"),
                             *facts = mt_json_get(mine, "method");
        T_OK(t, mt_json_get_num(&t->ctx, facts, "margin_min", -1, &margin));
        T_OK(t, mt_json_get_num(&t->ctx, facts, "bf16_ties", -1, &ties));
        T_CHECK(t, margin >= 0x1p-16 && margin < 0.1);
        T_CHECK(t, ties >= 0 && ties < 0.1);
    }
    mt_walk_result_free(&r);
    mt_model_free(src);
}

T_TEST(noise_and_flat_softmax_are_not_exact)
{
    struct mt_model *src = dense(t, "m");
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=dino copies=4 granularity=2 noise=0.5 arch=mixtral", src, NULL, &r));
    T_OK(t, ffn_distance(&t->ctx, src, r.plan, 50, &d));
    T_CHECK(t, d > 0.1);
    mt_walk_result_free(&r);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=dino copies=4 granularity=2 arch=qwen2_moe",
                     src, NULL, &r));
    T_OK(t, logits_distance(&t->ctx, "cpu", src, r.plan, &d));
    T_CHECK(t, d > 1e-6 && d < 0x1p-6);
    mt_walk_result_free(&r);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle experts=4 arch=qwen2_moe", src, NULL,
                     &r));
    T_OK(t, logits_distance(&t->ctx, "cpu", src, r.plan, &d));
    T_CHECK(t, d > 1e-6 && d < 0x1p-6);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

T_TEST(what_makes_no_sense_is_refused)
{
    static const struct {
        const char *options, *says;
    } cases[] = {
        {"method=dino shared=1", "--shared 1"},
        {"method=dino router=random", "--granularity 1"},
        {"method=upcycle granularity=2 router=centroid", "--granularity 1"},
        {"method=dino refit=down", "--refit down"},
        {"method=dino granularity=3 active=4", "multiple"},
        {"method=dino active=25%", "number of experts"},
        {"method=dino experts=5", "leave --experts out"},
        {"method=dino experts=8 copies=3", "leave --experts out"},
        {"method=upcycle experts=4 active=5", "only 4"},
        {"method=upcycle expert-scale=E/k", "--expert-scale"},
        {"method=dino copies=4000 granularity=4", "more than"},
    };
    struct mt_model *src = dense(t, "m");
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        T_FAILS(t, run_pass(&t->ctx, "convert-ffn", cases[i].options, src, NULL, &r), MT_E_OPTION,
                cases[i].says);
    mt_model_free(src);
}
