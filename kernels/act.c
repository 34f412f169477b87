#include "kernels/kernels.h"

#include <math.h>

double mt_act_f64(enum mt_act act, double x)
{
    switch (act) {
    case MT_ACT_SILU:
        return x / (1.0 + exp(-x));
    case MT_ACT_GELU:
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case MT_ACT_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
    case MT_ACT_RELU:
        return x < 0.0 ? 0.0 : x;
    case MT_ACT_RELU2:
        return x < 0.0 ? 0.0 : x * x;
    case MT_ACT_QUICK_GELU:
        return x / (1.0 + exp(-1.702 * x));
    }
    return NAN;
}

static double act_logistic(double z)
{
    return 1.0 / (1.0 + exp(-z));
}

double mt_act_slope_f64(enum mt_act act, double x)
{
    double s, z;

    switch (act) {
    case MT_ACT_SILU:
        s = act_logistic(x);
        return s * (1.0 + x * (1.0 - s));
    case MT_ACT_GELU:
        return 0.5 * erfc(-x * 0.70710678118654752440) +
               x * 0.39894228040143267794 * exp(-0.5 * x * x);
    case MT_ACT_GELU_TANH:
        z = 2.0 * 0.79788456080286535588;
        s = act_logistic(z * (x + 0.044715 * x * x * x));
        return s * (1.0 + x * (1.0 - s) * z * (1.0 + 0.134145 * x * x));
    case MT_ACT_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case MT_ACT_RELU2:
        return x > 0.0 ? 2.0 * x : 0.0;
    case MT_ACT_QUICK_GELU:
        s = act_logistic(1.702 * x);
        return s * (1.0 + 1.702 * x * (1.0 - s));
    }
    return NAN;
}

const char *mt_act_name(enum mt_act act)
{
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2", "quick_gelu"};

    return (unsigned)act < sizeof names / sizeof names[0] ? names[act] : "?";
}
