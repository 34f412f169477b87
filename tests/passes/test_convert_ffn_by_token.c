#include "formats/table.h"
#include "lib/base/mem.h"
#include "lib/flow/walk.h"
#include "lib/ir/native.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <stddef.h>
#include <string.h>

static double measured(const struct mt_json *layer, const char *key)
{
    return json_number(mt_json_get(layer, "measured"), key);
}

static struct mt_model *source(struct t *t, uint64_t seed)
{
    return tiny_open(t, tiny_write(t, "m", &(struct tiny){.width = 96, .seed = seed}));
}

/* As many act on average as were asked for, and the plan says so everywhere. */
T_TEST(a_threshold_gives_the_mean_that_was_asked_for)
{
    static const char *const options[] = {
        "experts=12 active=5 shared=0 dynamic-k=true",
        "experts=12 active=5 shared=0 dynamic-k=true router=features",
        "experts=12 active=5 shared=0 dynamic-k=true router=mlp method=partition refit=down",
        "experts=12 active=5 shared=0 dynamic-k=true labels=membership",
    };
    struct mt_model *src = source(t, 41);
    static struct noise_data data;
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    noise_data(&data, 8, 64, 5);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options[i], src, &data.set, &r));
        T_EQ_STR(t, r.plan->family->name, "moetool");
        for (int l = 0; l < src->hp.n_layers; l++) {
            const struct mt_ffn *f = &r.plan->ffn[l];
            T_EQ_INT(t, f->rule.cut, MT_CUT_ABOVE);
            T_EQ_INT(t, f->k, 12);
            T_NEAR(t, mt_ffn_mean_active(f), 5, 0);
            T_EQ_INT(t, mt_ffn_active_width(f), 40);
            /* The sample is the text itself. */
            T_NEAR(t, measured(layer_numbers(&r, "convert-ffn", l), "active"), 5, 0.01);
            T_CHECK(t, measured(layer_numbers(&r, "convert-ffn", l), "captured") > 0.5);
        }
        if (t->failed)
            printf("    with %s\n", options[i]);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

/* Tokens whose FFN gives more get more experts: for the same number in all the layers' error, held
 * out from the refit, is less than with k for every token. */
T_TEST(freedom_lowers_the_error)
{
    struct mt_model *src;
    const char *path = t_shipped("tinymix-dense");
    static struct noise_data data;
    struct mt_walk_result r;
    double error[2] = {0};

    if (path == NULL)
        T_SKIP(t, "tests/data/tinymix-dense is not there");
    T_OK(t, mt_model_open(&t->ctx, mt_formats, path, &src));
    noise_data(&data, RANDOM_WINDOWS_MAX, 4096, 7);
    for (int i = 0; i < 2; i++) {
        T_OK(t, run_pass(&t->ctx, "convert-ffn",
                         i == 0 ? "arch=native experts=32 active=16 shared=0 moves=0 "
                                  "labels=lognorm dense-layers=1-4 dynamic-k=false"
                                : "experts=32 active=16 shared=0 moves=0 dense-layers=1-4 "
                                  "dynamic-k=true",
                         src, &data.set, &r));
        const struct mt_json *refit = mt_json_get(layer_numbers(&r, "convert-ffn", 0), "refit");
        T_CHECK(t, mt_json_number(mt_json_get(refit, "error_after"), &error[i]));
        mt_walk_result_free(&r);
    }
    T_CHECK(t, error[1] < 0.95 * error[0]);
    mt_model_free(src);
}

/* Written, read and run it is the plan. */
T_TEST(a_threshold_survives_writing_and_reading)
{
    struct mt_model *src = source(t, 42);
    struct mt_json *config = mt_json_new_object(), *again = mt_json_new_object();
    static struct noise_data data;
    struct mt_walk_result r;
    struct mt_model_size size;
    struct mt_ffn back;

    T_CHECK(t, src != NULL);
    noise_data(&data, 4, 64, 5);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=12 active=5 shared=0 dynamic-k=true", src,
                     &data.set, &r));
    mt_native_write_ffn(&r.plan->ffn[0], config);
    T_OK(t, mt_native_read_ffn(&t->ctx, r.plan, config, &back));
    T_NEAR(t, back.rule.cut_mean, 5, 0);
    mt_native_write_ffn(&back, again);
    char *a, *b;
    size_t na, nb;
    T_OK(t, mt_json_print(&t->ctx, config, &a, &na));
    T_OK(t, mt_json_print(&t->ctx, again, &b, &nb));
    T_EQ_STR(t, b, a);
    T_CHECK(t, strstr(a, "\"mean\"") != NULL);
    /* Two layers of gate, up and down, 40 of 96 neurons. */
    mt_model_measure(r.plan, &size);
    T_EQ_INT(t, size.ffn_params_active, 2 * 3 * 40 * 32);
    mt_free(a);
    mt_free(b);
    mt_json_free(config);
    mt_json_free(again);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* Unasked it is what method best does in the native layout when it sees text, and nothing else. */
T_TEST(best_takes_a_threshold_where_it_can)
{
    static const struct {
        const char *options;
        bool data, cut;
    } runs[] = {
        {"experts=12 active=5 shared=0 arch=native", true, true},
        {"experts=12 active=5 shared=0 router=features", true, true},
        {"experts=12 active=5 shared=0", true, false},
        {"experts=12 active=5 shared=0 arch=native", false, false},
        {"experts=12 active=5 shared=0 arch=native dynamic-k=false", true, false},
        {"experts=12 active=5 shared=0 arch=native method=partition", true, false},
        {"experts=12 active=5 shared=0 arch=native method=partition dynamic-k=true", true, true},
        {"experts=12 active=12 shared=0 arch=native", true, false},
        {"method=dino copies=4 arch=native", true, false},
    };
    struct mt_model *src = source(t, 44);
    static struct noise_data data;
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    noise_data(&data, 4, 64, 5);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        T_OK(t, run_pass(&t->ctx, "convert-ffn", runs[i].options, src,
                         runs[i].data ? &data.set : NULL, &r));
        T_EQ_INT(t, r.plan->ffn[0].rule.cut, runs[i].cut ? MT_CUT_ABOVE : MT_CUT_NONE);
        if (t->failed)
            printf("    with %s\n", runs[i].options);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

T_TEST(what_has_no_threshold_is_refused)
{
    static const struct {
        const char *options;
        bool data;
        const char *said;
    } bad[] = {
        {"experts=4 active=2 dynamic-k=true arch=glm4_moe", true,
         "glm4_moe gives every token the same number of experts; --arch native does not"},
        {"method=dino copies=4 dynamic-k=true arch=native", true, "experts that are copies"},
        {"experts=4 active=2 dynamic-k=true", false, "--data"},
    };
    struct mt_model *src = source(t, 43);
    static struct noise_data data;
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    noise_data(&data, 2, 64, 5);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        T_FAILS(t,
                run_pass(&t->ctx, "convert-ffn", bad[i].options, src,
                         bad[i].data ? &data.set : NULL, &r),
                MT_E_OPTION, bad[i].said);
    /* With all of them acting there is nothing to choose. */
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=4 active=4 shared=0 dynamic-k=true", src,
                     &data.set, &r));
    T_EQ_INT(t, r.plan->ffn[0].rule.cut, MT_CUT_NONE);
    mt_walk_result_free(&r);
    mt_model_free(src);
}
