#include "tests/t.h"
#include "lib/flow/walk.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/tiny.h"

static struct noise_data data;

T_TEST(a_refit_lowers_held_out_errors_of_every_layer)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 41});
    struct mt_walk_result r, plain;
    double with, without;

    T_CHECK(t, src != NULL);
    noise_data(&data, 60, 64, 9);
    T_OK(t,
         run_pass(&t->ctx, "convert-ffn", "method=best experts=12 shared=0", src, &data.set, &r));
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=best experts=12 shared=0 refit=none", src,
                     &data.set, &plain));
    for (int l = 0; l < src->hp.n_layers; l++) {
        const struct mt_json *fit = mt_json_get(layer_numbers(&r, "convert-ffn", l), "refit");
        T_CHECK(t, json_number(fit, "error_after") < json_number(fit, "error_before"));
        T_CHECK(t, json_number(fit, "tokens") + json_number(fit, "held_out") == 3840);
        T_CHECK(t, mt_json_get(layer_numbers(&plain, "convert-ffn", l), "refit") == NULL);
        /* Chance is one half. */
        T_CHECK(t, json_number(mt_json_get(layer_numbers(&r, "convert-ffn", l), "measured"),
                               "agreement") > 0.6);
    }
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &with));
    T_OK(t, logits_distance(&t->ctx, "ref", plain.plan, src, &without));
    T_CHECK(t, with < without);
    mt_walk_result_free(&r);
    mt_walk_result_free(&plain);
    mt_model_free(src);
}

/* The more of the contributions the router catches, the better: moves are made for that. */
T_TEST(moves_catch_more)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 43});
    double caught[3] = {0};
    char options[80];

    T_CHECK(t, src != NULL);
    noise_data(&data, 60, 64, 10);
    for (int moves = 0; moves < 3; moves++) {
        struct mt_walk_result r;
        snprintf(options, sizeof(options), "method=best experts=12 shared=0 moves=%d", moves);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, &data.set, &r));
        caught[moves] =
            json_number(mt_json_get(layer_numbers(&r, "convert-ffn", 0), "refit"), "error_before");
        mt_walk_result_free(&r);
    }
    T_CHECK(t, caught[1] < caught[0]);
    T_CHECK(t, caught[2] < caught[0]);
    mt_model_free(src);
}

T_TEST(any_number_of_threads_gives_the_same_layers)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 45});
    char *text[2];

    T_CHECK(t, src != NULL);
    noise_data(&data, 40, 64, 11);
    for (int k = 0; k < 2; k++) {
        struct mt_walk_result r;
        struct mt_ctx ctx;
        size_t n;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = k == 0 ? 1 : 4, .seed = 3}));
        mt_status st =
            run_pass(&ctx, "convert-ffn", "experts=10 shared=2 active=50%", src, &data.set, &r);
        T_EQ_INT(t, st, MT_OK);
        T_OK(t, mt_json_print(&t->ctx, mt_json_get(r.manifest, "layers"), &text[k], &n));
        T_CHECK(t, strstr(text[k], "error_after") != NULL);
        mt_walk_result_free(&r);
        mt_ctx_close(&ctx);
    }
    T_EQ_STR(t, text[1], text[0]);
    mt_free(text[0]);
    mt_free(text[1]);
    mt_model_free(src);
}

T_TEST(with_all_experts_active_it_is_the_dense_model)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 50, .seed = 47});
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    noise_data(&data, 8, 64, 12);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=best experts=6 shared=1 active=6", src,
                     &data.set, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_NEAR(t, d, 0, 1e-10);
    mt_walk_result_free(&r);
    /* A router is asked for: then it is fitted, and chooses all of them. */
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=best experts=6 active=6 router=ridge", src,
                     &data.set, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_CHECK(t, d < 0.02);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* The dense output's bias stays where it is: columns are not fitted to it once more. */
T_TEST(biases_are_not_fitted_twice)
{
    struct mt_model *src =
        tiny_dense(t, &(struct tiny){.width = 96, .layers = 1, .mlp_biases = true, .seed = 48});
    struct mt_walk_result r, plain;
    double with, without;

    T_CHECK(t, src != NULL && src->ffn[0].out_bias);
    noise_data(&data, 60, 64, 14);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=best experts=12 shared=0 active=9 arch=native",
                     src, &data.set, &r));
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=best experts=12 shared=0 active=9 arch=native refit=none", src,
                     &data.set, &plain));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &with));
    T_OK(t, logits_distance(&t->ctx, "ref", plain.plan, src, &without));
    T_CHECK(t, with < without);
    const struct mt_json *fit = mt_json_get(layer_numbers(&r, "convert-ffn", 0), "refit");
    T_CHECK(t, json_number(fit, "error_after") < json_number(fit, "error_before"));
    T_CHECK(t, json_number(fit, "error_before") < 0.2);
    mt_walk_result_free(&r);
    mt_walk_result_free(&plain);
    mt_model_free(src);
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.layers = 1, .hidden = 16, .seed = 49});
    struct mt_walk_result r;
    mt_status st = MT_E_NOMEM;

    T_CHECK(t, src != NULL);
    noise_data(&data, 2, 64, 4);
    const uint64_t used = mt_mem_used(&t->ctx);
    for (uint64_t n = 1; st != MT_OK && n < 40000; n += 1 + n / 25) {
        mt_fault_alloc(n);
        st = run_pass(&t->ctx, "convert-ffn", "method=best experts=5 shared=1 active=2", src,
                      &data.set, &r);
        mt_fault_alloc(0);
        if (st == MT_OK)
            mt_walk_result_free(&r);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        T_EQ_INT(t, mt_mem_used(&t->ctx), used);
    }
    T_EQ_INT(t, st, MT_OK);
    mt_model_free(src);
}

T_TEST(asked_for_by_name_the_refit_wants_data)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 51});
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "experts=4 refit=down", src, NULL, &r), MT_E_OPTION,
            "--data");
    /* Unasked it goes by weights. */
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=best experts=4", src, NULL, &r));
    T_CHECK(t, mt_json_get(layer_numbers(&r, "convert-ffn", 0), "refit") == NULL);
    mt_walk_result_free(&r);
    mt_model_free(src);
}
