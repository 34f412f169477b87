#include "lib/ir/ffn.h"
#include "tests/t.h"

T_TEST(widths)
{
    const struct mt_ffn dense = {.gated = true, .width = 100};
    const struct mt_ffn moe = {
        .moe = true, .gated = true, .width = 48, .n_experts = 8, .k = 2, .shared_width = 96};
    const struct mt_ffn large = {
        .moe = true, .width = (int64_t)1 << 31, .n_experts = 65536, .k = 8};

    T_EQ_INT(t, mt_ffn_active_width(&dense), 100);
    T_EQ_INT(t, mt_ffn_total_width(&dense), 100);
    T_EQ_INT(t, mt_ffn_active_width(&moe), 2 * 48 + 96);
    T_EQ_INT(t, mt_ffn_total_width(&moe), 8 * 48 + 96);
    T_EQ_INT(t, mt_ffn_total_width(&large), (int64_t)1 << 47);
}

T_TEST(widths_that_differ)
{
    const int64_t widths[] = {10, 0, 5};
    const struct mt_ffn f = {
        .moe = true, .width = 10, .widths = widths, .n_experts = 3, .k = 2, .shared_width = 4};

    T_EQ_INT(t, mt_ffn_total_width(&f), 15 + 4);
    T_EQ_INT(t, mt_ffn_active_width(&f), 10 + 4); /* two of three in the mean */
    T_EQ_INT(t, mt_ffn_expert_width(&f, 1), 0);
    T_EQ_INT(t, mt_ffn_rows(&f), 3);
}

/* Each feature by itself is one that standard families must refuse. */
T_TEST(what_is_special_is_named)
{
    const int64_t widths[] = {1, 2};
    const int32_t map[] = {0, 1, 1};
    const struct mt_ffn plain = {.moe = true, .n_experts = 2, .k = 1, .width = 2, .gated = true};
    struct mt_ffn f[11];
    const char *names[11];

    T_CHECK(t, mt_ffn_special(&plain) == NULL);
    T_CHECK(t, mt_ffn_special(&(struct mt_ffn){.width = 3, .out_bias = true}) == NULL);
    for (int i = 0; i < 11; i++)
        f[i] = plain;
    f[0].factors[MT_FFN_DOWN].on = true;
    f[1].widths = widths;
    f[2].map = map;
    f[3].router.kind = MT_ROUTER_SPECTRAL;
    f[4].router.unit_input = true;
    f[5].rule.unit = true;
    f[6].rule.score = MT_SCORE_LOGIT;
    f[7].rule.cut = MT_CUT_RATIO;
    f[8].layer_bias = true;
    f[9].planes.bits = 2;
    f[10].n_rows = 3;
    for (int i = 0; i < 11; i++) {
        names[i] = mt_ffn_special(&f[i]);
        T_CHECK(t, names[i] != NULL);
        for (int j = 0; j < i && i < 10; j++)
            T_CHECK(t, strcmp(names[i], names[j]) != 0);
    }
}

T_TEST(functions_of_routers)
{
    T_NEAR(t, mt_router_fn(MT_ROUTER_FN_IDENTITY, -2), -2, 0);
    T_NEAR(t, mt_router_fn(MT_ROUTER_FN_TANH, 0.5), tanh(0.5), 0);
    T_NEAR(t, mt_router_fn(MT_ROUTER_FN_COS, 0.5), cos(0.5), 0);
    T_NEAR(t, mt_router_fn(MT_ROUTER_FN_SILU, 1), 1 / (1 + exp(-1)), 1e-15);
    T_NEAR(t, mt_router_fn(MT_ROUTER_FN_RELU2, 3), 9, 0);
    T_NEAR(t, mt_router_fn(MT_ROUTER_FN_QUICK_GELU, 1), 1 / (1 + exp(-1.702)), 1e-15);
}
