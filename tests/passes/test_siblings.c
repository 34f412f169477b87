/* One model of several fine-tunes: whose tensors go where, and which models do not fit together. */
#include "passes/lib/siblings.h"

#include "lib/base/json.h"
#include "lib/flow/profile.h"
#include "lib/run/runner.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"
#include "tests/toy.h"

#include <stdlib.h>
#include <string.h>

#define EXACT 1e-10

/* Three models of one shape; the first is handed the others. */
struct trio {
    struct mt_model *m[3];
    struct mt_sibling siblings[2];
};

static bool trio_open(struct t *t, const struct tiny *of, struct trio *out)
{
    static const char *const names[] = {"a", "b", "c"};
    struct tiny one = *of;

    memset(out, 0, sizeof(*out));
    for (int i = 0; i < 3; i++) {
        one.seed = of->seed + (uint64_t)i;
        out->m[i] = tiny_open(t, tiny_write(t, names[i], &one));
        if (out->m[i] == NULL) {
            t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
            return false;
        }
    }
    for (int i = 0; i < 2; i++)
        out->siblings[i] = (struct mt_sibling){.name = names[i + 1], .m = out->m[i + 1]};
    out->m[0]->siblings = out->siblings;
    out->m[0]->n_siblings = 2;
    return true;
}

static void trio_close(struct trio *y)
{
    for (int i = 0; i < 3; i++)
        mt_model_free(y->m[i]);
}

static bool same_bytes(struct t *t, const struct mt_tensor *x, const struct mt_tensor *y)
{
    uint64_t bytes = x != NULL ? mt_tensor_bytes(x) : 0;
    bool same = false;
    char *p;

    if (x == NULL || y == NULL || mt_tensor_bytes(y) != bytes || x->dtype != y->dtype)
        return false;
    p = malloc(2 * bytes + 1);
    same = mt_tensor_fetch(&t->ctx, x, 0, mt_tensor_rows(x), p) == MT_OK &&
           mt_tensor_fetch(&t->ctx, y, 0, mt_tensor_rows(y), p + bytes) == MT_OK &&
           memcmp(p, p + bytes, bytes) == 0;
    free(p);
    return same;
}

/* The matrices of expert e are the dense ones of model m, bit for bit. */
static bool expert_is(struct t *t, const struct mt_model *plan, int e, const struct mt_model *m)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};

    for (int l = 0; l < m->hp.n_layers; l++)
        for (int k = 0; k < 3; k++)
            if (!same_bytes(t, mt_model_find(plan, mt_role(kinds[k], l, e)),
                            mt_model_find(m, mt_role(kinds[k], l, MT_EXPERT_NONE))))
                return false;
    return true;
}

static const struct mt_role outside[] = {
    {.kind = MT_ROLE_EMBED, .layer = -1, .expert = MT_EXPERT_NONE},
    {.kind = MT_ROLE_LM_HEAD, .layer = -1, .expert = MT_EXPERT_NONE},
    {.kind = MT_ROLE_FINAL_NORM, .layer = -1, .expert = MT_EXPERT_NONE},
    {.kind = MT_ROLE_ATTN_Q, .layer = 1, .expert = MT_EXPERT_NONE},
    {.kind = MT_ROLE_ATTN_O, .layer = 0, .expert = MT_EXPERT_NONE},
    {.kind = MT_ROLE_FFN_NORM, .layer = 1, .expert = MT_EXPERT_NONE},
};

/* Every value is the mean of those of models [from, 3), rounded once. */
static bool is_mean(struct t *t, const struct mt_model *plan, const struct trio *y, int from,
                    struct mt_role role)
{
    const struct mt_tensor *got = mt_model_find(plan, role);
    float *v[4] = {NULL};
    bool same = true;

    if (got == NULL || mt_tensor_load_f32(&t->ctx, got, &v[3]) != MT_OK)
        return false;
    for (int i = 0; i < 3; i++)
        same = same && mt_tensor_load_f32(&t->ctx, mt_model_find(y->m[i], role), &v[i]) == MT_OK;
    for (int64_t i = 0; same && i < mt_tensor_count(got); i++) {
        double sum = 0;
        for (int m = from; m < 3; m++)
            sum += (double)v[m][i];
        float mean = (float)(sum / (3 - from)), want = mean;
        if (got->dtype == MT_BF16) {
            uint32_t bits;
            memcpy(&bits, &mean, 4);
            bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
            memcpy(&want, &bits, 4);
        }
        same = v[3][i] == want;
    }
    for (int i = 0; i < 4; i++)
        mt_free(v[i]);
    return same;
}

T_TEST(experts_are_the_models_and_the_rest_is_their_mean)
{
    struct mt_walk_result r;
    struct trio y;

    for (int bf16 = 0; bf16 < 2; bf16++) {
        if (!trio_open(t, &(struct tiny){.dtype = bf16 ? MT_BF16 : MT_F32, .seed = 11}, &y))
            return;
        T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle", y.m[0], NULL, &r));
        T_EQ_INT(t, r.plan->ffn[0].n_experts, 3);
        T_EQ_INT(t, r.plan->ffn[0].k, 2);
        for (int e = 0; e < 3; e++)
            T_CHECK(t, expert_is(t, r.plan, e, y.m[e]));
        for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
            T_CHECK(t, is_mean(t, r.plan, &y, 0, outside[i]));
        const struct mt_json *told = mt_json_get(r.manifest, "siblings");
        T_EQ_INT(t, mt_json_count(told), 2);
        T_EQ_STR(t, mt_json_text(mt_json_get(mt_json_first(told), "name")), "b");
        T_CHECK(t, strlen(mt_json_text(mt_json_get(mt_json_first(told), "identity"))) == 64);
        mt_walk_result_free(&r);
        trio_close(&y);
    }
}

T_TEST(the_first_may_give_the_rest_and_be_no_expert)
{
    struct mt_walk_result r;
    struct trio y;

    if (!trio_open(t, &(struct tiny){.seed = 11}, &y))
        return;
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle attention=first active=1", y.m[0],
                     NULL, &r));
    for (int e = 0; e < 3; e++)
        T_CHECK(t, expert_is(t, r.plan, e, y.m[e]));
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        T_CHECK(
            t, same_bytes(t, mt_model_find(r.plan, outside[i]), mt_model_find(y.m[0], outside[i])));
    mt_walk_result_free(&r);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle without-base=true", y.m[0], NULL, &r));
    T_EQ_INT(t, r.plan->ffn[0].n_experts, 2);
    for (int e = 0; e < 2; e++)
        T_CHECK(t, expert_is(t, r.plan, e, y.m[e + 1]));
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        T_CHECK(t, is_mean(t, r.plan, &y, 1, outside[i]));
    mt_walk_result_free(&r);
    trio_close(&y);
}

T_TEST(a_tied_head_stays_tied)
{
    struct mt_walk_result r;
    struct trio y;

    if (!trio_open(t, &(struct tiny){.seed = 11, .tied = true}, &y))
        return;
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle", y.m[0], NULL, &r));
    T_CHECK(t, r.plan->hp.tied);
    T_CHECK(t, is_mean(t, r.plan, &y, 0, outside[0]));
    mt_walk_result_free(&r);
    trio_close(&y);
}

/* Models that are one and the same are one model, whatever the router mixes. */
T_TEST(copies_of_one_model_compute_what_it_does)
{
    static const char *const options[] = {"method=upcycle", "method=upcycle active=3",
                                          "method=upcycle active=1 router=random",
                                          "method=upcycle granularity=2 arch=glm4_moe"};
    struct mt_sibling twice[2];
    struct mt_walk_result r;
    struct mt_model *m;
    double d;

    m = tiny_open(t, tiny_write(t, "m", &(struct tiny){.seed = 4}));
    T_CHECK(t, m != NULL);
    twice[0] = (struct mt_sibling){.name = "x", .m = m};
    twice[1] = (struct mt_sibling){.name = "y", .m = m};
    m->siblings = twice;
    m->n_siblings = 2;
    for (int i = 0; i < 4; i++) {
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options[i], m, NULL, &r));
        T_OK(t, logits_distance(&t->ctx, "ref", m, r.plan, &d));
        T_CHECK(t, d < EXACT);
        mt_walk_result_free(&r);
    }
    mt_model_free(m);
}

/* Every expert keeps its own output bias: with one copy acting the result is that model's FFN. */
T_TEST(output_biases_go_with_their_experts)
{
    struct mt_model *m[2];
    struct mt_walk_result r;
    struct mt_sibling other;
    double d;

    for (int i = 0; i < 2; i++) {
        T_OK(t, toy_model(&t->ctx,
                          &(struct toy){.ungated = true,
                                        .in_bias = true,
                                        .out_bias = true,
                                        .seed = 5 + (uint64_t)i},
                          &m[i]));
    }
    other = (struct mt_sibling){.name = "x", .m = m[1]};
    m[0]->siblings = &other;
    m[0]->n_siblings = 1;
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=upcycle active=1 router=zero attention=first arch=native", m[0], NULL,
                     &r));
    T_CHECK(t, r.plan->ffn[0].out_bias && !r.plan->ffn[0].layer_bias);
    for (int e = 0; e < 2; e++)
        for (int l = 0; l < m[0]->hp.n_layers; l++)
            T_CHECK(t, same_bytes(t, mt_model_bias(r.plan, MT_ROLE_FFN_DOWN, l, e),
                                  mt_model_bias(m[e], MT_ROLE_FFN_DOWN, l, MT_EXPERT_NONE)));
    T_OK(t, ffn_distance(&t->ctx, m[0], r.plan, 40, &d));
    T_CHECK(t, d <= ffn_tolerance(m[0]->ffn[0].width));
    mt_walk_result_free(&r);
    m[0]->n_siblings = 0;
    /* The paper's b2 / k in each slice. */
    for (int g = 1; g <= 7; g++) {
        char text[96];
        snprintf(text, sizeof text,
                 "method=dino copies=3 granularity=%d out-bias=experts arch=native", g);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", text, m[0], NULL, &r));
        T_CHECK(t, r.plan->ffn[0].out_bias && !r.plan->ffn[0].layer_bias);
        T_OK(t, logits_distance(&t->ctx, "ref", m[0], r.plan, &d));
        /* b2 / 3 rounds in fp32. */
        T_CHECK(t, d < ((g & (g - 1)) == 0 ? EXACT : 1e-7));
        mt_walk_result_free(&r);
    }
    mt_model_free(m[0]);
    mt_model_free(m[1]);
}

T_TEST(rows_of_router_domain_are_mean_inputs)
{
    enum { D = 32 };
    struct mt_profile_info info = {.origin = "moetool", .n_layers = 2, .hidden = D};
    /* In order of names. */
    const struct mt_profile_source sources[] = {
        {.domain = "b"}, {.domain = "base"}, {.domain = "c"}};
    static const int expert_of[] = {1, 0, 2};
    double sums[2][3][D], sq;
    struct mt_profile *p;
    struct mt_walk_result r;
    struct trio y;
    float *w;

    if (!trio_open(t, &(struct tiny){.seed = 11}, &y))
        return;
    T_OK(t, mt_profile_create(&t->ctx, &info, sources, 3, &p));
    for (int l = 0; l < 2; l++) {
        mt_profile_declare(p, l, MT_STAT_X_SUM, 1, D);
        for (int c = 0; c < 3; c++) {
            for (int i = 0; i < D; i++)
                sums[l][c][i] = sin(1 + 3 * l + 7 * c + i * (c + 1)) * (10 + c);
            mt_profile_set(p, l, MT_STAT_X_SUM, c, sums[l][c], NULL, false);
        }
    }
    y.m[0]->profile = p;
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle granularity=2", y.m[0], NULL, &r));
    for (int l = 0; l < 2; l++) {
        T_OK(t,
             mt_tensor_load_f32(
                 &t->ctx, mt_model_find(r.plan, mt_role(MT_ROLE_ROUTER, l, MT_EXPERT_NONE)), &w));
        for (int c = 0; c < 3; c++) {
            sq = 0;
            for (int i = 0; i < D; i++)
                sq += sums[l][c][i] * sums[l][c][i];
            for (int i = 0; i < 2 * D; i++)
                T_NEAR(t, w[expert_of[c] * 2 * D + i], sums[l][c][i % D] / sqrt(sq), 1e-7);
        }
        mt_free(w);
    }
    mt_walk_result_free(&r);
    y.m[0]->profile = NULL;
    mt_profile_free(p);
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle router=domain", y.m[0], NULL, &r),
            MT_E_OPTION, "--data NAME=FILE");
    trio_close(&y);
}

T_TEST(wrong_partners_are_refused)
{
    static const struct {
        struct tiny of;
        const char *says;
    } cases[] = {
        {{.layers = 3}, "3 layers, but"},
        {{.width = 64}, "gate_proj is 64 x 32, but 48 x 32"},
        {{.hidden = 64}, "embed"},
        {{.vocab = 70}, "70 x 32, but 64 x 32"},
        {{.family = "qwen2"}, "qwen2, but"},
        {{.mlp_biases = true}, "has no"},
        {{.kv_heads = 4}, "k_proj is 32 x 32, but 16 x 32"},
        {{.family = "mixtral"}, "mixtral, but"},
    };
    struct mt_model *m = tiny_open(t, tiny_write(t, "m", &(struct tiny){.seed = 1})), *other;
    struct mt_sibling sibling = {.name = "x"};
    struct mt_walk_result r;

    T_CHECK(t, m != NULL);
    m->siblings = &sibling;
    m->n_siblings = 1;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[16];
        snprintf(name, sizeof name, "x%zu", i);
        sibling.m = other = tiny_open(t, tiny_write(t, name, &cases[i].of));
        T_CHECK(t, other != NULL);
        T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle", m, NULL, &r), MT_E_OPTION,
                cases[i].says);
        T_CHECK(t, strstr(mt_error(&t->ctx), name) != NULL);
        mt_model_free(other);
    }
    sibling.m = other = tiny_open(t, tiny_write(t, "y", &(struct tiny){.seed = 2}));
    T_CHECK(t, other != NULL);
    other->hp.rope.theta *= 2;
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle", m, NULL, &r), MT_E_OPTION,
            "different rotary positions");
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle attention=first", m, NULL, &r));
    mt_walk_result_free(&r);
    other->hp.rope = m->hp.rope;
    other->hp.norm_eps *= 2;
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle", m, NULL, &r), MT_E_OPTION,
            "different norms");
    other->hp.norm_eps = m->hp.norm_eps;
    other->ffn[1].act = MT_ACT_GELU;
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle", m, NULL, &r), MT_E_OPTION,
            "layer 1 is of another kind");
    other->ffn[1].act = m->ffn[1].act;
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=dino", m, NULL, &r), MT_E_OPTION, "--from");
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle experts=5", m, NULL, &r),
            MT_E_OPTION, "every model is one copy");
    m->n_siblings = 0;
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=upcycle without-base=true", m, NULL, &r),
            MT_E_OPTION, "needs --from");
    mt_model_free(other);
    mt_model_free(m);
}
