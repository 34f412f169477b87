#include "lib/run/rope.h"
#include "tests/t.h"

/* Wanted values were computed from the published formulas by a separate program in fp64. */

static struct mt_hparams hp_of(int head_dim, double theta)
{
    struct mt_hparams hp = {.head_dim = head_dim, .max_pos = 2048};

    hp.rope = (struct mt_rope_params){.type = MT_ROPE_DEFAULT, .theta = theta, .partial = 1};
    return hp;
}

static void near_rel(struct t *t, double got, double want)
{
    T_NEAR(t, got / want, 1, 1e-13);
}

T_TEST(default_frequencies)
{
    /* 10000^(-2i/16) = 10^(-i/2) */
    static const double want[8] = {1.0,  0.31622776601683794,   0.1,   0.03162277660168379,
                                   0.01, 0.0031622776601683794, 0.001, 0.00031622776601683794};
    struct mt_hparams hp = hp_of(16, 10000);
    double f[8], a;
    int dim;

    T_OK(t, mt_rope_dim(&t->ctx, &hp, &dim));
    T_EQ_INT(t, dim, 16);
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 100000, dim, f, &a));
    T_NEAR(t, a, 1, 0);
    for (int i = 0; i < 8; i++)
        near_rel(t, f[i], want[i]);
}

T_TEST(partial_rotary_takes_a_share_of_the_head)
{
    struct mt_hparams hp = hp_of(32, 10000);
    double f[8], a;
    int dim;

    hp.rope.partial = 0.5;
    T_OK(t, mt_rope_dim(&t->ctx, &hp, &dim));
    T_EQ_INT(t, dim, 16);
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 0, dim, f, &a));
    near_rel(t, f[1], 0.31622776601683794); /* of 16 features, not of 32 */
    hp.rope.partial = 0.6;                  /* 19.2 */
    T_FAILS(t, mt_rope_dim(&t->ctx, &hp, &dim), MT_E_UNSUPPORTED, "19 features");
    hp.rope.partial = 1.5;
    T_FAILS(t, mt_rope_dim(&t->ctx, &hp, &dim), MT_E_UNSUPPORTED, "[0, 1]");
}

T_TEST(linear_divides_every_frequency)
{
    struct mt_hparams hp = hp_of(16, 10000);
    double f[8], a;

    hp.rope.type = MT_ROPE_LINEAR;
    hp.rope.factor = 4;
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 0, 16, f, &a));
    near_rel(t, f[0], 0.25);
    near_rel(t, f[7], 0.25 * 0.00031622776601683794);
}

T_TEST(dynamic_looks_at_the_length_beyond_max_pos_only)
{
    /* n 8192 of 2048, factor 2, 8 features: base 10000 * 7^(8/6) = 133905.18...; the slowest
     * frequency becomes 10000^(-6/8) / 7 */
    static const double want[4] = {1.0, 0.052275795857471025, 0.0027327588325319844,
                                   0.00014285714285714287};
    struct mt_hparams hp = hp_of(8, 10000);
    double f[4], a;

    hp.rope.type = MT_ROPE_DYNAMIC;
    hp.rope.factor = 2;
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 2048, 8, f, &a));
    near_rel(t, f[1], 0.1);
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 8192, 8, f, &a));
    for (int i = 0; i < 4; i++)
        near_rel(t, f[i], want[i]);
}

T_TEST(llama3_keeps_blends_and_slows)
{
    /* Llama 3.1: theta 500000, 128 features, factor 8, low 1, high 4, old context 8192. Kept up to
     * 28, blended to 34, slowed from 35. */
    static const struct {
        int i;
        double f;
    } want[] = {{0, 1.0},
                {10, 0.12868737343265052},
                {28, 0.003211445994752591},
                {29, 0.002166570763503359},
                {31, 0.0008567514129196321},
                {33, 0.00031269375038406517},
                {34, 0.0001785078127679964},
                {35, 9.556212353964683e-05},
                {36, 7.78465527393245e-05},
                {63, 3.068925988914511e-07}};
    struct mt_hparams hp = hp_of(128, 500000);
    double f[64], a;

    hp.rope.type = MT_ROPE_LLAMA3;
    hp.rope.factor = 8;
    hp.rope.low_freq_factor = 1;
    hp.rope.high_freq_factor = 4;
    hp.rope.original_max_pos = 8192;
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 0, 128, f, &a));
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        near_rel(t, f[want[i].i], want[i].f);
}

T_TEST(yarn_ramps_between_two_features_and_amplifies)
{
    /* theta 10000, 64 features, factor 4, old context 4096, beta 32 and 1: the ramp runs from
     * feature 10 to feature 23; amplitude 0.1 ln 4 + 1 */
    static const struct {
        int i;
        double f;
    } want[] = {{0, 1.0},
                {10, 0.05623413251903491},
                {11, 0.039736785900001015},
                {15, 0.009488517882700576},
                {22, 0.0005471628953965915},
                {23, 0.000333380358040831},
                {31, 3.33380358040831e-05}};
    struct mt_hparams hp = hp_of(64, 10000);
    double f[32], a;

    hp.rope.type = MT_ROPE_YARN;
    hp.rope.factor = 4;
    hp.rope.original_max_pos = 4096;
    hp.rope.beta_fast = 32;
    hp.rope.beta_slow = 1;
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 0, 64, f, &a));
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        near_rel(t, f[want[i].i], want[i].f);
    near_rel(t, a, 1.138629436111989);

    /* an explicit attention factor wins; else mscale over mscale_all_dim, at factor 40:
     * (0.0707 ln 40 + 1) / (0.1 ln 40 + 1) */
    hp.rope.factor = 40;
    hp.rope.mscale = 0.707;
    hp.rope.mscale_all_dim = 1;
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 0, 64, f, &a));
    near_rel(t, a, 0.9210423553163399);
    hp.rope.attention_factor = 1.25;
    T_OK(t, mt_rope_frequencies(&t->ctx, &hp, 0, 64, f, &a));
    T_NEAR(t, a, 1.25, 0);
}

T_TEST(settings_without_a_frequency_are_refused)
{
    struct mt_hparams hp = hp_of(16, 10000);
    double f[8], a;

    hp.rope.type = MT_ROPE_LINEAR;
    hp.rope.factor = 0;
    T_FAILS(t, mt_rope_frequencies(&t->ctx, &hp, 0, 16, f, &a), MT_E_FORMAT, "factor 0");
    hp = hp_of(16, -1);
    T_FAILS(t, mt_rope_frequencies(&t->ctx, &hp, 0, 16, f, &a), MT_E_FORMAT, "theta -1");
}
