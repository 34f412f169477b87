#include "lib/train/adam.h"

#include "lib/base/mem.h"

#include <math.h>

mt_status mt_adam_open(struct mt_ctx *ctx, int64_t n, double rate, struct mt_adam *a)
{
    *a = (struct mt_adam){.rate = rate, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .n = n};
    MT_TRY(mt_alloc0(ctx, (size_t)n, 2 * sizeof(*a->m1), "optimizer", &a->m1));
    a->m2 = a->m1 + n;
    return MT_OK;
}

void mt_adam_close(struct mt_adam *a)
{
    mt_free(a->m1);
    *a = (struct mt_adam){0};
}

void mt_adam_step(struct mt_adam *a, const double *g, float *w)
{
    a->steps++;
    double c1 = 1 - pow(a->beta1, (double)a->steps), c2 = 1 - pow(a->beta2, (double)a->steps);

    for (int64_t i = 0; i < a->n; i++) {
        double m1 = a->beta1 * (double)a->m1[i] + (1 - a->beta1) * g[i];
        double m2 = a->beta2 * (double)a->m2[i] + (1 - a->beta2) * g[i] * g[i];
        a->m1[i] = (float)m1;
        a->m2[i] = (float)m2;
        w[i] -= (float)(a->rate * (m1 / c1) / (sqrt(m2 / c2) + a->eps));
    }
}

struct mt_adam_step mt_adam_next(struct mt_adam *a)
{
    a->steps++;
    return (struct mt_adam_step){
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .rate = (float)(a->rate / (1 - pow(a->beta1, (double)a->steps))),
        .grow2 = (float)(1 / (1 - pow(a->beta2, (double)a->steps))),
        .eps = (float)a->eps,
    };
}
