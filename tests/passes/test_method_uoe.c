#include "tests/pass_run.h"
#include "tests/planted.h"
#include "tests/toy.h"

static struct mt_model *toy(struct t *t, const struct toy *spec)
{
    struct mt_model *m = NULL;

    if (toy_model(&t->ctx, spec, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

T_TEST(all_slices_are_the_dense_model)
{
    const struct toy specs[] = {{.seed = 3},
                                {.width = 50, .seed = 4},
                                {.ungated = true, .in_bias = true, .out_bias = true, .seed = 5}};

    for (size_t i = 0; i < sizeof(specs) / sizeof(*specs); i++) {
        struct mt_model *src = toy(t, &specs[i]);
        struct mt_walk_result r;
        double d;
        T_CHECK(t, src != NULL);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=uoe experts=4 active=4 arch=native", src,
                         NULL, &r));
        T_OK(t, ffn_distance(&t->ctx, r.plan, src, 17, &d));
        T_NEAR(t, d, 0, ffn_tolerance(src->ffn[0].width));
        mt_walk_result_free(&r);
        mt_model_free(src);
    }
}

/* Without down projections only the layer's bias is left: once, however many slices act. */
T_TEST(the_bias_of_the_output_counts_once)
{
    struct mt_model *src =
        toy(t, &(struct toy){.ungated = true, .in_bias = true, .out_bias = true, .seed = 6});
    char options[96];

    T_CHECK(t, src != NULL);
    for (int l = 0; l < src->hp.n_layers; l++) {
        struct mt_tensor *down = mt_model_find(src, mt_role(MT_ROLE_FFN_DOWN, l, MT_EXPERT_NONE));
        float *v;
        memcpy(&v, &down->src.owned, sizeof v);
        memset(v, 0, (size_t)mt_tensor_count(down) * sizeof *v);
    }
    for (int k = 1; k <= 4; k++) {
        struct mt_walk_result r;
        double d;
        snprintf(options, sizeof(options),
                 "method=uoe experts=4 active=%d arch=native router=random", k);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
        T_OK(t, ffn_distance(&t->ctx, r.plan, src, 9, &d));
        T_NEAR(t, d, 0, 1e-7);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

T_TEST(slices_stand_in_order_with_weight_one)
{
    static const struct planted_spec spec = {.groups = 4, .per_group = 6, .noise = 0.05, .seed = 7};
    struct mt_convert_division d;
    struct planted p;

    if (!planted_open(t, &spec, "method=uoe experts=4 active=2 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "uoe", &d));
    T_CHECK(t, d.scale == NULL && d.weight == NULL);
    T_EQ_INT(t, mt_split_shared_width(d.split), 0);
    for (int j = 0; j < 24; j++)
        T_EQ_INT(t, d.split->idx[j], j);
    planted_division_free(&d);
    planted_close(&p);
}
