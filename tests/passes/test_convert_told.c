/* What a conversion says of itself: numbers by layer, what it took unasked, and what it cost. */
#include "lib/flow/walk.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"
#include "tests/toy.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const partitions[] = {"contiguous", "random", "cluster"};

T_TEST(the_same_seed_gives_the_same_lists_for_any_thread_count)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 13});
    static struct noise_data data;
    char lists[2][3][2][32];

    T_CHECK(t, src != NULL);
    noise_data(&data, 6, 64, 1);
    for (int run = 0; run < 3; run++) {
        struct mt_ctx ctx;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = run == 0 ? 1 : 4,
                                                        .seed = run == 2 ? 8 : 7}));
        for (int p = 1; p < 3; p++) {
            struct mt_walk_result r;
            char options[160];
            snprintf(options, sizeof(options), "experts=5 active=2 shared=1 partition=%s",
                     partitions[p]);
            mt_status st = run_pass(&ctx, "convert-ffn", options, src, &data.set, &r);
            T_EQ_INT(t, st, MT_OK);
            for (int l = 0; l < 2; l++)
                snprintf(lists[l][run][p - 1], 32, "%s",
                         json_word(layer_numbers(&r, "convert-ffn", l), "lists"));
            mt_walk_result_free(&r);
        }
        mt_ctx_close(&ctx);
    }
    for (int l = 0; l < 2; l++) {
        for (int p = 0; p < 2; p++)
            T_EQ_STR(t, lists[l][0][p], lists[l][1][p]);
        T_EQ_INT(t, strlen(lists[l][0][0]), 16);
        /* Lots differ with the seed, and between layers. */
        T_CHECK(t, strcmp(lists[l][0][0], lists[l][2][0]) != 0);
    }
    T_CHECK(t, strcmp(lists[0][0][0], lists[1][0][0]) != 0);
    mt_model_free(src);
}

T_TEST(routers_know_their_weights_and_report_them)
{
    static const char *const targets[] = {"glm4_moe", "mixtral", "qwen3_moe"};
    struct mt_model *llama = tiny_dense(t, &(struct tiny){.width = 96, .seed = 15});
    struct mt_model *qwen3 =
        tiny_dense(t, &(struct tiny){.family = "qwen3", .width = 96, .seed = 15});
    static struct noise_data data;

    T_CHECK(t, llama != NULL && qwen3 != NULL);
    noise_data(&data, 32, 64, 2);
    for (int i = 0; i < 3; i++) {
        double bound_before = INFINITY;
        for (int m = 0; m <= 12; m += 6) {
            struct mt_walk_result r;
            char options[160];
            snprintf(options, sizeof(options),
                     "experts=8 active=4 shared=0 router=ridge arch=%s flatten=%d", targets[i], m);
            T_OK(t,
                 run_pass(&t->ctx, "convert-ffn", options, i == 2 ? qwen3 : llama, &data.set, &r));
            for (int l = 0; l < 2; l++) {
                const struct mt_json *n = layer_numbers(&r, "convert-ffn", l),
                                     *fit = mt_json_get(n, "measured");
                T_EQ_STR(t, json_word(n, "router"), "ridge");
                T_CHECK(t, json_number(fit, "weight_error") > 0);
                T_CHECK(t, json_number(fit, "weight_error") <= json_number(n, "weight_bound"));
                /* Chance is 4 of 8. */
                T_CHECK(t, json_number(fit, "agreement") > 0.55);
                T_CHECK(t, json_number(fit, "captured") > json_number(fit, "agreement"));
                T_CHECK(t, json_number(fit, "tokens") == 2048);
            }
            double bound = json_number(layer_numbers(&r, "convert-ffn", 0), "weight_bound");
            T_CHECK(t, bound < bound_before / 2);
            bound_before = bound;
            T_CHECK(t, m < 12 || bound < 0.01);
            mt_walk_result_free(&r);
        }
    }
    mt_model_free(llama);
    mt_model_free(qwen3);
}

/* What a pass said of a layer comes back word for word after a resume. */
T_TEST(a_resumed_walk_takes_reports_back)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 16});
    const struct mt_pass *p = mt_pass_find("convert-ffn");
    static struct noise_data data;
    struct mt_walk_result r;
    static _Alignas(max_align_t) char opts[512];
    void *state;

    T_CHECK(t, src != NULL && p->opts_size <= sizeof opts);
    noise_data(&data, 4, 64, 5);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=8", src, &data.set, &r));
    mt_opt_defaults(p->opts, opts);
    T_OK(t, p->create(&t->ctx, opts, src, &state));
    for (int l = 0; l < src->hp.n_layers; l++) {
        struct mt_json *again = mt_json_new_object();
        char *a, *b;
        size_t na, nb;
        T_OK(t, p->layer_restore(&t->ctx, state, l, layer_numbers(&r, "convert-ffn", l)));
        T_OK(t, p->layer_report(&t->ctx, state, l, again));
        T_OK(t, mt_json_print(&t->ctx, layer_numbers(&r, "convert-ffn", l), &a, &na));
        T_OK(t, mt_json_print(&t->ctx, again, &b, &nb));
        T_EQ_STR(t, b, a);
        T_CHECK(t, strstr(a, "captured") != NULL);
        mt_free(a);
        mt_free(b);
        mt_json_free(again);
    }
    p->destroy(state);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

T_TEST(auto_takes_what_there_is)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 17});
    struct mt_model *qwen3 =
        tiny_dense(t, &(struct tiny){.family = "qwen3", .width = 96, .seed = 17});
    static struct noise_data data;
    struct mt_walk_result r;

    T_CHECK(t, src != NULL && qwen3 != NULL);
    noise_data(&data, 4, 64, 3);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=5", src, NULL, &r));
    T_EQ_STR(t, r.plan->family->name, "glm4_moe");
    T_EQ_STR(t, json_word(layer_numbers(&r, "convert-ffn", 0), "router"), "centroid");
    T_EQ_STR(t, json_word(layer_numbers(&r, "convert-ffn", 0), "shared_by"), "weights");
    /* Width 96 in 5 + 1 parts: half of it is one shared and two routed experts of 16. */
    T_EQ_INT(t, r.plan->ffn[0].k, 2);
    T_EQ_INT(t, r.plan->ffn[0].shared_width, 16);
    mt_walk_result_free(&r);

    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=5", src, &data.set, &r));
    T_EQ_STR(t, json_word(layer_numbers(&r, "convert-ffn", 0), "router"), "ridge");
    T_EQ_STR(t, json_word(layer_numbers(&r, "convert-ffn", 0), "shared_by"), "activations");
    mt_walk_result_free(&r);

    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=4 active=4", qwen3, NULL, &r));
    T_EQ_STR(t, r.plan->family->name, "qwen3_moe");
    T_EQ_STR(t, json_word(layer_numbers(&r, "convert-ffn", 0), "router"), "zero");
    T_EQ_INT(t, r.plan->ffn[0].shared_width, 0);
    mt_walk_result_free(&r);

    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=4 shared=1", qwen3, NULL, &r));
    T_EQ_STR(t, r.plan->family->name, "glm4_moe");
    mt_walk_result_free(&r);
    mt_model_free(src);
    mt_model_free(qwen3);
}

T_TEST(glm4_moe_without_shared_experts_gets_one_of_zeros)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 19});
    struct mt_walk_result r;
    float *v;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=4 shared=0 active=2", src, NULL, &r));
    T_EQ_INT(t, r.plan->ffn[1].shared_width, 12);
    T_OK(t,
         mt_tensor_load_f32(
             &t->ctx, mt_model_find(r.plan, mt_role(MT_ROLE_FFN_DOWN, 1, MT_EXPERT_SHARED)), &v));
    for (int i = 0; i < 12 * 32; i++)
        T_CHECK(t, v[i] == 0);
    mt_free(v);
    T_CHECK(t, strstr(t->log, "one of zeros is written") != NULL);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* One half in fp32, whatever the text, and neither zero nor subnormal (formats 3.4, trap 1). */
T_TEST(the_gate_of_qwen2_moe_decides_nothing)
{
    struct mt_model *src =
        tiny_dense(t, &(struct tiny){.family = "qwen2", .dtype = MT_BF16, .seed = 20});
    const struct mt_tensor *gate;
    struct mt_walk_result r;
    float *v;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "arch=qwen2_moe experts=4 active=2", src, NULL, &r));
    gate = mt_model_find(r.plan, mt_role(MT_ROLE_SHARED_GATE, 1, MT_EXPERT_NONE));
    T_CHECK(t, gate != NULL && r.plan->ffn[1].shared_gated);
    T_EQ_INT(t, gate->dtype, MT_F32);
    T_OK(t, mt_tensor_load_f32(&t->ctx, gate, &v));
    for (int i = 0; i < 32; i++) {
        T_NEAR(t, v[i], 1e-20, 1e-26);
        /* Inputs of the largest size that a norm lets through, and of the smallest. */
        T_CHECK(t, 1 / (1 + expf(-1e6f * v[i])) == 0.5f && 1e-6f * v[i] > 1e-38f);
    }
    mt_free(v);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

T_TEST(padding_and_inexact_scales_are_told)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .dtype = MT_BF16, .seed = 21});
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=7 shared=0 active=3 arch=mixtral", src, NULL,
                     &r));
    T_CHECK(t, strstr(t->log, "14 neurons wide, not a multiple of 32") != NULL);
    T_CHECK(t, strstr(t->log, "2 zero neurons") != NULL);
    T_CHECK(t, strstr(t->log, "--experts 3 would fit") != NULL);
    T_CHECK(t, strstr(t->log, "multiplied by 3, which rounds in BF16: inexact") != NULL);
    T_EQ_INT(t, json_number(layer_numbers(&r, "convert-ffn", 0), "padded"), 2);
    mt_walk_result_free(&r);
    mt_model_free(src);
}
