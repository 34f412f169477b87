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

const char *mt_act_name(enum mt_act act)
{
    static const char *const names[] = {"silu", "gelu", "gelu_tanh", "relu", "relu2", "quick_gelu"};

    return (unsigned)act < sizeof names / sizeof names[0] ? names[act] : "?";
}
