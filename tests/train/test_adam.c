#include "lib/train/adam.h"
#include "tests/t.h"

/* The first step is the rate, whatever the gradient's size; the second by hand. */
T_TEST(steps_are_those_of_the_paper)
{
    const double g[3] = {1e-3, -40, 0}, g2[3] = {2e-3, 20, 0};
    float w[3] = {1, 1, 1};
    struct mt_adam a;

    T_OK(t, mt_adam_open(&t->ctx, 3, 0.1, &a));
    mt_adam_step(&a, g, w);
    T_NEAR(t, w[0], 0.9, 1e-5);
    T_NEAR(t, w[1], 1.1, 1e-5);
    T_NEAR(t, w[2], 1, 0);
    mt_adam_step(&a, g2, w);
    for (int i = 0; i < 2; i++) {
        double m1 = 0.9 * 0.1 * g[i] + 0.1 * g2[i];
        double m2 = 0.999 * 0.001 * g[i] * g[i] + 0.001 * g2[i] * g2[i];
        double step = 0.1 * (m1 / (1 - 0.81)) / (sqrt(m2 / (1 - 0.999 * 0.999)) + 1e-8);
        T_NEAR(t, w[i], (i == 0 ? 0.9 : 1.1) - step, 1e-5);
    }
    mt_adam_close(&a);
}

/* Parts of a step, applied by the caller in fp32, are the step. */
T_TEST(a_step_in_parts_is_the_step)
{
    float w[3] = {1, -2, 0.5f}, v[3] = {1, -2, 0.5f};
    struct mt_adam a, b;

    T_OK(t, mt_adam_open(&t->ctx, 3, 0.03, &a));
    T_OK(t, mt_adam_open(&t->ctx, 3, 0.03, &b));
    a.beta2 = b.beta2 = 0.99;
    for (int i = 0; i < 50; i++) {
        const double g[3] = {sin(i), -3 + i % 4, i < 5 ? 0 : 1e-4};
        const float f[3] = {(float)g[0], (float)g[1], (float)g[2]};
        mt_adam_step(&a, g, w);
        const struct mt_adam_step s = mt_adam_next(&b);
        for (int k = 0; k < 3; k++)
            mt_kernels_get()->adam(&s, v + k, b.m1 + k, b.m2 + k, f + k, 1);
        for (int k = 0; k < 3; k++)
            T_NEAR(t, v[k], w[k], 1e-5);
    }
    mt_adam_close(&a);
    mt_adam_close(&b);
}

T_TEST(a_bowl_is_descended)
{
    float w[2] = {3, -4};
    struct mt_adam a;

    T_OK(t, mt_adam_open(&t->ctx, 2, 0.05, &a));
    for (int i = 0; i < 2000; i++) {
        const double g[2] = {2 * ((double)w[0] - 1), 200 * ((double)w[1] + 2)};
        mt_adam_step(&a, g, w);
    }
    T_NEAR(t, w[0], 1, 1e-3);
    T_NEAR(t, w[1], -2, 1e-3);
    mt_adam_close(&a);
}
