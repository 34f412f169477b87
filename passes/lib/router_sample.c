#include "passes/lib/router_sample.h"

#include "lib/base/mem.h"

#include <math.h>
#include <string.h>

uint64_t mt_router_sample_bytes(uint64_t d, uint64_t n)
{
    return MT_ROUTER_SAMPLE_TOKENS * (d + n + 1) * sizeof(float);
}

mt_status mt_router_sample_open(struct mt_ctx *ctx, int64_t d, int n, int64_t n_tokens,
                                struct mt_router_sample *s)
{
    *s = (struct mt_router_sample){.d = d, .n = n};
    s->stride = (n_tokens + MT_ROUTER_SAMPLE_TOKENS - 1) / MT_ROUTER_SAMPLE_TOKENS;
    s->stride = s->stride < 1 ? 1 : s->stride;
    s->cap = (n_tokens + s->stride - 1) / s->stride;
    mt_status st = mt_alloc(ctx, (size_t)s->cap, (size_t)d * sizeof(float), "router fit", &s->x);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)s->cap, (size_t)n * sizeof(float), "router fit", &s->q);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)s->cap, sizeof(int32_t), "router fit", &s->order);
    if (st != MT_OK)
        mt_router_sample_close(s);
    return st;
}

void mt_router_sample_close(struct mt_router_sample *s)
{
    mt_free(s->x);
    mt_free(s->q);
    mt_free(s->order);
    *s = (struct mt_router_sample){0};
}

bool mt_router_sample_wants(const struct mt_router_sample *s, int64_t token)
{
    return token % s->stride == 0 && s->tokens < s->cap;
}

void mt_router_sample_add(struct mt_router_sample *s, const float *x, const float *q)
{
    memcpy(s->x + s->tokens * s->d, x, (size_t)s->d * sizeof(*x));
    memcpy(s->q + s->tokens * s->n, q, (size_t)s->n * sizeof(*q));
    s->order[s->tokens] = (int32_t)s->tokens;
    s->tokens++;
}

static double sample_square(const float *v, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sum;
}

static void sample_by(float *v, int64_t n, double by)
{
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)((double)v[i] * by);
}

float mt_router_sample_scale(struct mt_router_sample *s)
{
    int64_t n = s->tokens * s->d;
    double square = sample_square(s->x, n);

    if (!(square > 0) || !isfinite(square))
        return 1;
    double by = 1 / sqrt(square / (double)n);
    sample_by(s->x, n, by);
    return (float)by;
}

void mt_router_sample_unit(struct mt_router_sample *s)
{
    for (int64_t t = 0; t < s->tokens; t++) {
        double square = sample_square(s->x + t * s->d, s->d);
        if (square > 0)
            sample_by(s->x + t * s->d, s->d, 1 / sqrt(square));
    }
}
