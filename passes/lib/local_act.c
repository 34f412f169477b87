#include "passes/lib/local_act.h"

#include <string.h>

#define ACT_CHUNK 256 /* neurons whose factors are put aside */

static void act_add_bias(float *to, const float *bias, int64_t from, int64_t n)
{
    if (bias != NULL)
        mt_kernels_get()->axpy(to, 1, bias + from, (size_t)n);
}

void mt_local_act(const struct mt_local_shape *s, const struct mt_local_weights *w, int64_t from,
                  int64_t n, float *zg, float *zu, float *h)
{
    float c = (float)s->glu_limit;

    act_add_bias(zu, w->up_bias, from, n);
    if (!s->gated) {
        mt_kernels_get()->act_mul(s->act, h, zu, NULL, (size_t)n);
        return;
    }
    act_add_bias(zg, w->gate_bias, from, n);
    for (int64_t i = 0; c > 0 && i < n; i++) {
        zg[i] = zg[i] > c ? c : zg[i];
        zu[i] = 1 + (zu[i] < -c ? -c : zu[i] > c ? c : zu[i]);
    }
    mt_kernels_get()->act_mul(s->act, h, zg, zu, (size_t)n);
}

/* What lay at a limit or beyond does not move; the factor 1 + u tells where. */
static void act_back_limited(const struct mt_local_shape *s, int64_t n, float *zg, float *zu,
                             const float *dh)
{
    float c = (float)s->glu_limit, g[ACT_CHUNK], u[ACT_CHUNK];

    memcpy(g, zg, (size_t)n * sizeof(*g));
    memcpy(u, zu, (size_t)n * sizeof(*u));
    mt_kernels_get()->act_grad(s->act, zg, zu, zg, zu, dh, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        if (g[i] >= c)
            zg[i] = 0;
        if (u[i] >= 1 + c || u[i] <= 1 - c)
            zu[i] = 0;
    }
}

void mt_local_act_back(const struct mt_local_shape *s, int64_t n, float *zg, float *zu,
                       const float *dh)
{
    if (!s->gated) {
        mt_kernels_get()->act_grad(s->act, zu, NULL, zu, NULL, dh, (size_t)n);
        return;
    }
    if (!(s->glu_limit > 0)) {
        mt_kernels_get()->act_grad(s->act, zg, zu, zg, zu, dh, (size_t)n);
        return;
    }
    for (int64_t at = 0; at < n; at += ACT_CHUNK)
        act_back_limited(s, n - at < ACT_CHUNK ? n - at : ACT_CHUNK, zg + at, zu + at, dh + at);
}
