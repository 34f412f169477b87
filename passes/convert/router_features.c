/* router_features.c
 * features: ridge on random features beside the input itself (best_conversion section 3).
 *
 * z = [silu(A x); x] with a random A, drawn once per layer and scaled to the inputs; labels and
 * solution as for router ridge. Closer to the oracle than a linear router, for the price of A.
 */
#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/convert/method.h"

#include <math.h>
#include <string.h>

#define FEATURES 1024
#define FEATURES_SPREAD 2.0 /* standard deviation of A x: where silu bends */
#define FEATURES_BLOCK 512  /* tokens */
#define FEATURES_STREAM ((uint64_t)2 << 40)

struct features {
    int64_t d;
    float *a; /* [FEATURES, d]; scaled at the first block */
    bool scaled;
    float *z;    /* [FEATURES_BLOCK, FEATURES + d] */
    float *part; /* [FEATURES_BLOCK, FEATURES] */
    struct mt_router_fit *fit;
};

static void features_form(const struct mt_convert_at *at, struct mt_router *is)
{
    (void)at;
    is->kind = MT_ROUTER_MLP;
    is->fn = MT_ROUTER_FN_SILU;
    is->width = FEATURES;
    is->skip = true;
}

static int features_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t features_memory(const struct mt_convert_at *at)
{
    uint64_t d = (uint64_t)at->shape->hidden, n = (uint64_t)at->shape->n_experts;

    return mt_router_fit_bytes(FEATURES + d, n) + FEATURES * d * 4 +
           FEATURES_BLOCK * (2 * FEATURES + d) * 4 + n * (FEATURES + d) * 4;
}

static mt_status features_begin(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                int64_t n_tokens, void **state)
{
    size_t d = (size_t)at->shape->hidden;
    struct features *s;
    struct mt_rng rng;

    (void)n_tokens;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "random features", &s));
    *state = s;
    s->d = at->shape->hidden;
    MT_TRY(mt_alloc(ctx, FEATURES, d * sizeof(float), "random features", &s->a));
    MT_TRY(mt_alloc(ctx, FEATURES_BLOCK, (FEATURES + d) * sizeof(float), "features", &s->z));
    MT_TRY(mt_alloc(ctx, FEATURES_BLOCK, FEATURES * sizeof(float), "features", &s->part));
    mt_rng_seed(&rng, mt_ctx_seed(ctx), FEATURES_STREAM + (uint64_t)at->layer);
    for (size_t i = 0; i < FEATURES * d; i++)
        s->a[i] = (float)mt_rng_normal(&rng);
    MT_TRY(mt_router_fit_create(ctx, FEATURES + s->d, at->shape->n_experts, at->shape->k,
                                at->labels, &s->fit));
    return at->shape->by_token ? mt_router_fit_keep_mean(ctx, s->fit) : MT_OK;
}

/* So that A x has the wanted spread on the first block. */
static void features_scale(struct features *s, const struct mt_observation *ob)
{
    double sum = 0;

    for (int64_t t = 0; t < ob->m; t++)
        sum += mt_kernels_get()->sumsq(ob->x + t * s->d, (size_t)s->d);
    double by = sum > 0 && isfinite(sum) ? FEATURES_SPREAD / sqrt(sum / (double)ob->m) : 1;
    for (int64_t i = 0; i < FEATURES * s->d; i++)
        s->a[i] = (float)((double)s->a[i] * by);
    s->scaled = true;
}

static mt_status features_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                  const struct mt_observation *ob, const float *norms)
{
    struct features *s = state;
    int64_t width = FEATURES + s->d;

    if (!s->scaled)
        features_scale(s, ob);
    for (int64_t t = 0; t < ob->m; t += FEATURES_BLOCK) {
        int64_t m = ob->m - t < FEATURES_BLOCK ? ob->m - t : FEATURES_BLOCK;
        const float *x = ob->x + t * s->d;
        MT_TRY(mt_gemm_nt(ctx, m, FEATURES, s->d, 1, x, s->d, s->a, s->d, 0, s->part, FEATURES));
        mt_kernels_get()->act_mul(MT_ACT_SILU, s->part, s->part, NULL, (size_t)(m * FEATURES));
        for (int64_t i = 0; i < m; i++) {
            memcpy(s->z + i * width, s->part + i * FEATURES, FEATURES * sizeof(float));
            memcpy(s->z + i * width + FEATURES, x + i * s->d, (size_t)s->d * sizeof(float));
        }
        MT_TRY(mt_router_fit_add(ctx, s->fit, m, s->z, norms + t * at->shape->n_experts));
    }
    return MT_OK;
}

static mt_status features_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               struct mt_convert_routing *out)
{
    struct features *s = state;
    int64_t width = FEATURES + s->d;
    float *all;

    if (!mt_router_fit_finite(s->fit))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted");
    MT_TRY(
        mt_alloc(ctx, (size_t)at->shape->n_experts, (size_t)width * sizeof(*all), "router", &all));
    mt_status st = mt_router_fit_solve(ctx, s->fit, MT_ROUTER_FIT_LAMBDA, all);
    for (int e = 0; st == MT_OK && e < at->shape->n_experts; e++) {
        memcpy(out->form.w + e * FEATURES, all + e * width, FEATURES * sizeof(float));
        memcpy(out->form.skip + e * s->d, all + e * width + FEATURES, (size_t)s->d * sizeof(float));
    }
    if (st == MT_OK)
        memcpy(out->form.inner, s->a, (size_t)(FEATURES * s->d) * sizeof(float));
    if (st == MT_OK && at->shape->by_token) {
        mt_router_fit_intercepts(s->fit, out->bias);
        out->has_bias = true;
    }
    mt_free(all);
    return st;
}

static void features_end(void *state)
{
    struct features *s = state;

    if (s == NULL)
        return;
    mt_router_fit_free(s->fit);
    mt_free(s->a);
    mt_free(s->z);
    mt_free(s->part);
    mt_free(s);
}

const struct mt_convert_router mt_convert_router_features = {
    .name = "features",
    .summary = "ridge on 1,024 random features beside the input",
    .help = "Router features is router ridge on 1,024 random SiLU features beside the input; it is "
            "not linear, so only the native layout holds it.",
    .data = true,
    .norms = true,
    .form = features_form,
    .rounds = features_rounds,
    .memory = features_memory,
    .begin = features_begin,
    .observe = features_observe,
    .make = features_make,
    .end = features_end,
};
