#include "lib/flow/walk.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

static struct noise_data data;

static double agreement(const struct mt_walk_result *r)
{
    const struct mt_json *l = mt_json_first(mt_json_get(r->manifest, "layers"));
    double v = NAN;

    l = mt_json_get(mt_json_get(l, "convert-ffn"), "measured");
    return mt_json_number(mt_json_get(l, "agreement"), &v) ? v : NAN;
}

/* Beside the input itself features can only help on the text they are fitted to, and only the
 * native layout holds them. */
T_TEST(features_know_more_than_the_input_alone)
{
    struct mt_model *src = tiny_open(t, tiny_write(t, "dense", &(struct tiny){.seed = 61}));
    struct mt_walk_result ridge, features;

    T_CHECK(t, src != NULL);
    noise_data(&data, 60, 64, 13);
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=best moves=0 experts=8 shared=0 arch=native router=ridge", src,
                     &data.set, &ridge));
    T_OK(t,
         run_pass(&t->ctx, "convert-ffn", "method=best moves=0 experts=8 shared=0 router=features",
                  src, &data.set, &features));
    T_EQ_INT(t, features.plan->ffn[0].router.kind, MT_ROUTER_MLP);
    T_EQ_INT(t, features.plan->ffn[0].router.width, 1024);
    T_CHECK(t, features.plan->ffn[0].router.skip);
    T_CHECK(t, agreement(&features) > agreement(&ridge) + 0.01);
    mt_walk_result_free(&ridge);
    mt_walk_result_free(&features);
    mt_model_free(src);
}

T_TEST(features_want_data)
{
    struct mt_model *src = tiny_open(t, tiny_write(t, "dense", &(struct tiny){.seed = 61}));
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "experts=8 router=features", src, NULL, &r),
            MT_E_OPTION, "--data");
    mt_model_free(src);
}
