/* divide_importance.c
 * --partition importance, importance-overlap: experts of the neurons that matter most to one kind
 * of text each, after LLaMA-MoE's gradient splits (arXiv 2406.16554, section 3.1).
 *
 * Kinds of text: the FFN's inputs, made 1 long, in as many groups of one size as there are experts
 * (balanced k-means on a sample; every token then belongs to the nearest mean). What neuron j is
 * worth to a kind is the mean over its tokens of |h_j| ||v_j||, or of |h_j v_j.y|, which is
 * |h_j dL/dh_j| of L = |y|^2 / 2: how much of the output's square it makes. The paper's L is the
 * language loss, whose gradient needs a backward pass through all later layers. The rules that make
 * experts of it are in importance.h.
 */
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "passes/convert/divide.h"
#include "passes/lib/importance.h"
#include "passes/lib/kmeans.h"
#include "passes/lib/router_sample.h"

#include <math.h>
#include <string.h>

struct worth {
    int64_t d, width;
    int n;
    struct mt_router_sample sample; /* inputs of round 0; its targets are not used */
    float *mean;                    /* [n, d] of each kind; NULL before round 1 */
    float *nearest;                 /* [n] half its squared length */
    double *sum;                    /* [n, width] */
    int64_t *tokens;                /* [n] */
    double *reach;                  /* [width] ||v_j|| */
    float *x, *score;               /* of a block: [m, d] of length 1, [m, n] */
    float *down, *y, *vy;           /* --importance output: [d, width]; [m, d]; [m, width] v_j.y */
};

static bool worth_by_output(const struct mt_convert_at *at)
{
    return at->o->importance == MT_CONVERT_IMPORTANCE_OUTPUT;
}

static int worth_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 2;
}

static uint64_t worth_memory(const struct mt_convert_at *at)
{
    uint64_t w = (uint64_t)at->shape->width, d = (uint64_t)at->shape->hidden,
             n = (uint64_t)at->shape->n_experts, m = MT_OBSERVE_TOKENS_MAX;
    uint64_t groups = mt_router_sample_bytes(d, n) + MT_ROUTER_SAMPLE_TOKENS * n * 28 + n * d * 8;
    uint64_t sums = n * w * 12 + w * 40 + m * (d + n) * 4;

    if (worth_by_output(at))
        sums += (d + m) * w * 4 + m * d * 4;
    return groups + sums + n * (uint64_t)at->shape->expert_width * 8;
}

static mt_status worth_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    size_t w = (size_t)at->shape->width, d = (size_t)at->shape->hidden,
           n = (size_t)at->shape->n_experts, m = MT_OBSERVE_TOKENS_MAX;
    struct worth *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "importance", &s));
    *state = s;
    s->d = at->shape->hidden;
    s->width = at->shape->width;
    s->n = at->shape->n_experts;
    MT_TRY(mt_alloc0(ctx, n, w * sizeof(*s->sum), "importance", &s->sum));
    MT_TRY(mt_alloc0(ctx, n, sizeof(*s->tokens), "importance", &s->tokens));
    MT_TRY(mt_alloc(ctx, n, sizeof(*s->nearest), "importance", &s->nearest));
    MT_TRY(mt_alloc(ctx, w, sizeof(*s->reach), "importance", &s->reach));
    MT_TRY(mt_alloc(ctx, m, d * sizeof(*s->x), "importance", &s->x));
    MT_TRY(mt_alloc(ctx, m, n * sizeof(*s->score), "importance", &s->score));
    MT_TRY(mt_cols_sumsq(ctx, at->dense->down, s->reach));
    for (size_t j = 0; j < w; j++)
        s->reach[j] = sqrt(s->reach[j]);
    if (!worth_by_output(at))
        return MT_OK;
    MT_TRY(mt_tensor_load_f32(ctx, at->dense->down, &s->down));
    MT_TRY(mt_alloc(ctx, m, d * sizeof(*s->y), "importance", &s->y));
    return mt_alloc(ctx, m, w * sizeof(*s->vy), "importance", &s->vy);
}

/* ---- kinds of text ---- */

static mt_status worth_sample(struct mt_ctx *ctx, struct worth *s, const struct mt_observation *ob)
{
    if (s->sample.cap == 0)
        MT_TRY(mt_router_sample_open(ctx, s->d, 1, ob->n_tokens, &s->sample));
    for (int64_t t = 0; t < ob->m; t++) {
        float none = 0;
        if (mt_router_sample_wants(&s->sample, ob->token0 + t))
            mt_router_sample_add(&s->sample, ob->x + t * s->d, &none);
    }
    return MT_OK;
}

/* Means of the groups, and half their squared lengths: |x - c|^2 / 2 = 1/2 - x.c + |c|^2 / 2. */
static mt_status worth_means(struct mt_ctx *ctx, struct worth *s, const int32_t *to,
                             const int64_t *size)
{
    MT_TRY(mt_alloc0(ctx, (size_t)s->n, (size_t)s->d * sizeof(*s->mean), "importance", &s->mean));
    for (int64_t t = 0; t < s->sample.tokens; t++)
        for (int64_t c = 0; c < s->d; c++)
            s->mean[to[t] * s->d + c] += s->sample.x[t * s->d + c] / (float)size[to[t]];
    for (int e = 0; e < s->n; e++) {
        double square = 0;
        for (int64_t c = 0; c < s->d; c++)
            square += (double)s->mean[e * s->d + c] * (double)s->mean[e * s->d + c];
        s->nearest[e] = (float)(square / 2);
    }
    return MT_OK;
}

static mt_status worth_group(struct mt_ctx *ctx, const struct mt_convert_at *at, struct worth *s)
{
    int64_t n = s->sample.tokens, *size;
    int32_t *to = NULL;

    if (n < s->n)
        return mt_fail(ctx, MT_E_OPTION,
                       "--partition importance makes %d groups of %lld tokens: give more text with "
                       "--data",
                       s->n, (long long)n);
    mt_router_sample_unit(&s->sample);
    MT_TRY(mt_alloc(ctx, (size_t)s->n, sizeof(*size), "importance", &size));
    for (int e = 0; e < s->n; e++)
        size[e] = n / s->n + (e < n % s->n);
    mt_status st = mt_alloc(ctx, (size_t)n, sizeof(*to), "importance", &to);
    if (st == MT_OK)
        st = mt_kmeans_balanced(ctx, n, s->d, s->sample.x, s->n, size, mt_ctx_seed(ctx),
                                (uint64_t)at->layer, to);
    if (st == MT_OK)
        st = worth_means(ctx, s, to, size);
    mt_free(size);
    mt_free(to);
    mt_router_sample_close(&s->sample);
    return st;
}

/* score[m, n]: the larger the nearer. */
static mt_status worth_near(struct mt_ctx *ctx, struct worth *s, int64_t m, const float *x)
{
    memcpy(s->x, x, (size_t)(m * s->d) * sizeof(*x));
    struct mt_router_sample block = {.d = s->d, .tokens = m, .x = s->x};
    mt_router_sample_unit(&block);
    return mt_gemm_nt(ctx, m, s->n, s->d, 1, s->x, s->d, s->mean, s->d, 0, s->score, s->n);
}

static mt_status worth_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               const struct mt_observation *ob)
{
    int64_t w = at->shape->width, d = at->shape->hidden;
    struct worth *s = state;

    if (ob->round == 0)
        return worth_sample(ctx, s, ob);
    if (s->mean == NULL)
        MT_TRY(worth_group(ctx, at, s));
    MT_TRY(worth_near(ctx, s, ob->m, ob->x));
    /* What down_proj gives, without bias and before any norm or scale behind it. */
    if (s->vy != NULL) {
        MT_TRY(mt_gemm_nt(ctx, ob->m, d, w, 1, ob->h, w, s->down, w, 0, s->y, d));
        MT_TRY(mt_gemm_nn(ctx, ob->m, w, d, 1, s->y, d, s->down, w, 0, s->vy, w));
    }
    for (int64_t t = 0; t < ob->m; t++) {
        int kind = 0;
        for (int e = 1; e < s->n; e++)
            if (s->score[t * s->n + e] - s->nearest[e] >
                s->score[t * s->n + kind] - s->nearest[kind])
                kind = e;
        s->tokens[kind]++;
        double *sum = s->sum + kind * w;
        for (int64_t j = 0; j < w; j++) {
            double by = s->vy != NULL ? fabs((double)s->vy[t * w + j]) : s->reach[j];
            sum[j] += fabs((double)ob->h[t * w + j]) * by;
        }
    }
    return MT_OK;
}

/* ---- decide ---- */

static mt_status worth_tell(struct mt_ctx *ctx, const struct worth *s,
                            struct mt_convert_division *out)
{
    struct mt_json *list;

    out->facts = mt_json_new_object();
    if (out->facts == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    list = mt_json_set_array(out->facts, "tokens_of_kinds");
    for (int e = 0; e < s->n; e++)
        mt_json_add_int(list, s->tokens[e]);
    return MT_OK;
}

static mt_status worth_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, struct worth *s,
                              bool overlap, struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;

    if (s->mean == NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "--partition %s looks for neurons that matter to kinds of text: give text "
                       "with --data",
                       overlap ? "importance-overlap" : "importance");
    for (int e = 0; e < s->n; e++)
        for (int64_t j = 0; j < s->width; j++) {
            double *v = s->sum + e * s->width + j;
            *v /= s->tokens[e] > 0 ? (double)s->tokens[e] : 1;
            if (!isfinite(*v))
                return mt_fail(ctx, MT_E_NUMERIC, "activations are NaN or infinite");
        }
    MT_TRY(mt_split_create(ctx, p->width, p->n_experts, p->n_shared, &out->split));
    MT_TRY(mt_importance_fill(ctx, s->sum, overlap, out->split));
    if (p->n_shared > 0)
        out->shared_by = MT_SHARED_BY_ACTIVATIONS;
    if (overlap)
        MT_TRY(mt_split_copy_weights(ctx, out->split, p->k, &out->weight));
    return worth_tell(ctx, s, out);
}

static mt_status importance_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                   struct mt_convert_division *out)
{
    return worth_decide(ctx, at, state, false, out);
}

static mt_status overlap_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                struct mt_convert_division *out)
{
    return worth_decide(ctx, at, state, true, out);
}

static uint64_t overlap_memory(const struct mt_convert_at *at)
{
    uint64_t entries = (uint64_t)at->shape->shared_width +
                       (uint64_t)at->shape->n_experts * (uint64_t)at->shape->expert_width;

    /* Down columns times their weights, as a fit would leave them. */
    return worth_memory(at) + entries * (uint64_t)at->shape->hidden * 4;
}

static void worth_end(void *state)
{
    struct worth *s = state;

    if (s != NULL) {
        mt_router_sample_close(&s->sample);
        mt_free(s->mean);
        mt_free(s->nearest);
        mt_free(s->sum);
        mt_free(s->tokens);
        mt_free(s->reach);
        mt_free(s->x);
        mt_free(s->score);
        mt_free(s->down);
        mt_free(s->y);
        mt_free(s->vy);
    }
    mt_free(s);
}

const struct mt_convert_method mt_divider_importance = {
    .name = "importance",
    .rounds = worth_rounds,
    .memory = worth_memory,
    .begin = worth_begin,
    .observe = worth_observe,
    .decide = importance_decide,
    .end = worth_end,
};

const struct mt_convert_method mt_divider_importance_overlap = {
    .name = "importance-overlap",
    .rounds = worth_rounds,
    .memory = overlap_memory,
    .begin = worth_begin,
    .observe = worth_observe,
    .decide = overlap_decide,
    .end = worth_end,
};
