/* method_cmoe.c
 * cmoe: experts of neurons that are among the ten most active of the same tokens (CMoE, arXiv
 * 2502.04416).
 *
 * A neuron's marker is the set of tokens for which its |h| is one of the MARKS largest, with rows
 * and inputs of length 1. Shared are the neurons with most marks; seeds are the next ones; the rest
 * joins the seed whose marker is nearest in L1, in equal numbers, assigned exactly, once. An
 * expert's representative is its member nearest to the mean marker: for sets of tokens the ranking
 * by L2 (the paper) and by L1 (the code) is the same.
 */
#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/lib/assign.h"
#include "passes/lib/neuron_acts.h"

#include <math.h>
#include <string.h>

#define CMOE_MARKS 10
#define CMOE_TOKENS_MAX 16384 /* the paper's 8 x 2048 */

struct cmoe {
    int64_t width, tokens;
    int marks;
    int32_t *top; /* [tokens][marks] neurons, in no order */
    float *h;     /* [MT_OBSERVE_TOKENS_MAX, width] */
};

static int cmoe_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t cmoe_memory(const struct mt_convert_at *at)
{
    uint64_t w = (uint64_t)at->shape->width, n = (uint64_t)at->shape->n_experts;

    return MT_OBSERVE_TOKENS_MAX * w * 4 + CMOE_TOKENS_MAX * CMOE_MARKS * 4 + w * n * 24 +
           CMOE_TOKENS_MAX * 8 + mt_neuron_acts_bytes(at->shape->hidden, MT_OBSERVE_TOKENS_MAX);
}

static mt_status cmoe_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    struct cmoe *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "markers", &s));
    *state = s;
    s->width = at->shape->width;
    s->marks = s->width < CMOE_MARKS ? (int)s->width : CMOE_MARKS;
    MT_TRY(mt_alloc(ctx, CMOE_TOKENS_MAX, (size_t)s->marks * sizeof(*s->top), "markers", &s->top));
    return mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, (size_t)s->width * sizeof(*s->h), "markers", &s->h);
}

/* The marks largest |h[j]|; ties to the lower neuron. */
static void cmoe_mark(const float *h, int64_t n, int marks, int32_t *top)
{
    float least = -1;
    int filled = 0, at = 0;

    for (int64_t j = 0; j < n; j++) {
        float v = fabsf(h[j]);
        if (filled < marks)
            top[filled++] = (int32_t)j;
        else if (v > least)
            top[at] = (int32_t)j;
        else
            continue;
        if (filled < marks)
            continue;
        least = INFINITY;
        for (int i = 0; i < marks; i++) {
            float w = fabsf(h[top[i]]);
            /* Of equal ones the last neuron leaves first. */
            if (w < least || (w == least && top[i] > top[at])) {
                least = w;
                at = i;
            }
        }
    }
}

static mt_status cmoe_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                              const struct mt_observation *ob)
{
    struct cmoe *s = state;
    int64_t room = CMOE_TOKENS_MAX - s->tokens, m = ob->m < room ? ob->m : room;

    if (m == 0)
        return MT_OK;
    MT_TRY(mt_neuron_acts(ctx, at->dense, at->src->ffn[at->layer].act, MT_NEURON_PRODUCT, true, m,
                          ob->x, s->h));
    for (int64_t t = 0; t < m; t++)
        cmoe_mark(s->h + t * s->width, s->width, s->marks, s->top + (s->tokens + t) * s->marks);
    s->tokens += m;
    return MT_OK;
}

/* ---- decide ---- */

struct cmoe_sets {
    const struct cmoe *s;
    double *count;   /* [D] tokens that mark a neuron */
    int64_t *first;  /* [D + 1] where a neuron's tokens begin */
    int32_t *tokens; /* [tokens * marks] */
};

static mt_status cmoe_sets_make(struct mt_ctx *ctx, const struct cmoe *s, struct cmoe_sets *y)
{
    int64_t n = s->tokens * s->marks, w = s->width;

    *y = (struct cmoe_sets){.s = s};
    MT_TRY(mt_alloc0(ctx, (size_t)w, sizeof(*y->count), "markers", &y->count));
    MT_TRY(mt_alloc0(ctx, (size_t)w + 2, sizeof(*y->first), "markers", &y->first));
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof(*y->tokens), "markers", &y->tokens));
    for (int64_t i = 0; i < n; i++) {
        y->count[s->top[i]]++;
        y->first[s->top[i] + 2]++;
    }
    for (int64_t j = 1; j <= w + 1; j++)
        y->first[j] += y->first[j - 1];
    for (int64_t i = 0; i < n; i++)
        y->tokens[y->first[s->top[i] + 1]++] = (int32_t)(i / s->marks);
    return MT_OK;
}

static void cmoe_sets_free(struct cmoe_sets *y)
{
    mt_free(y->count);
    mt_free(y->first);
    mt_free(y->tokens);
}

/* cost[p, e]: L1 distance of pool neuron p's marker to the one of seed e. */
static mt_status cmoe_costs(struct mt_ctx *ctx, const struct cmoe_sets *y, const int32_t *pool,
                            int64_t n, const int32_t *seeds, int n_experts, double *cost)
{
    const struct cmoe *s = y->s;
    double *overlap;

    MT_TRY(mt_alloc(ctx, (size_t)s->width, sizeof(*overlap), "markers", &overlap));
    for (int e = 0; e < n_experts; e++) {
        int32_t seed = seeds[e];
        memset(overlap, 0, (size_t)s->width * sizeof(*overlap));
        for (int64_t i = y->first[seed]; i < y->first[seed + 1]; i++)
            for (int k = 0; k < s->marks; k++)
                overlap[s->top[(int64_t)y->tokens[i] * s->marks + k]]++;
        for (int64_t p = 0; p < n; p++)
            cost[p * n_experts + e] = y->count[pool[p]] + y->count[seed] - 2 * overlap[pool[p]];
    }
    mt_free(overlap);
    return MT_OK;
}

/* The member whose marker is nearest to the mean of all members': what its tokens save is
 * sum of 1 - 2 c_t, least is nearest. */
static int32_t cmoe_representative(const struct cmoe_sets *y, const int32_t *members, int64_t n,
                                   double *mean)
{
    double best = INFINITY;
    int32_t who = -1;
    int64_t real = 0;

    memset(mean, 0, (size_t)y->s->tokens * sizeof(*mean));
    for (int64_t i = 0; i < n && members[i] >= 0; i++, real++)
        for (int64_t k = y->first[members[i]]; k < y->first[members[i] + 1]; k++)
            mean[y->tokens[k]]++;
    for (int64_t i = 0; i < real; i++) {
        double sum = 0;
        for (int64_t k = y->first[members[i]]; k < y->first[members[i] + 1]; k++)
            sum += 1 - 2 * mean[y->tokens[k]] / (double)real;
        if (sum < best) {
            best = sum;
            who = members[i];
        }
    }
    return who;
}

static mt_status cmoe_cluster(struct mt_ctx *ctx, const struct mt_convert_at *at,
                              const struct cmoe_sets *y, const int32_t *pool, int32_t *owner,
                              struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    int64_t n = p->width - mt_split_shared_width(out->split), *cap = NULL;
    int32_t *to = NULL, *seeds = NULL;
    double *cost = NULL, *left = NULL;
    mt_status st = mt_alloc(ctx, (size_t)n, (size_t)p->n_experts * sizeof(*cost), "markers", &cost);

    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)n, sizeof(*to), "markers", &to);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)n, sizeof(*seeds), "markers", &seeds);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)n, sizeof(*left), "markers", &left);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)p->n_experts, sizeof(*cap), "markers", &cap);
    for (int64_t i = 0; st == MT_OK && i < n; i++)
        left[i] = y->count[pool[i]];
    if (st == MT_OK)
        st = mt_rank_falling(ctx, left, n, seeds);
    for (int e = 0; st == MT_OK && e < p->n_experts; e++)
        seeds[e] = pool[seeds[e]];
    if (st == MT_OK)
        st = cmoe_costs(ctx, y, pool, n, seeds, p->n_experts, cost);
    if (st == MT_OK) {
        mt_split_capacities(out->split, cap);
        st = mt_assign_balanced(ctx, n, p->n_experts, cost, cap, to);
    }
    for (int64_t i = 0; st == MT_OK && i < n; i++)
        owner[pool[i]] = to[i];
    mt_free(cost);
    mt_free(to);
    mt_free(seeds);
    mt_free(left);
    mt_free(cap);
    return st;
}

static mt_status cmoe_divide(struct mt_ctx *ctx, const struct mt_convert_at *at,
                             const struct cmoe_sets *y, struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    int32_t *owner, *pool = NULL;
    double *mean = NULL;

    MT_TRY(mt_split_create(ctx, p->width, p->n_experts, p->n_shared, &out->split));
    MT_TRY(mt_alloc(ctx, (size_t)p->width, sizeof(*owner), "neurons", &owner));
    mt_status st = mt_alloc(ctx, (size_t)p->width, sizeof(*pool), "neurons", &pool);
    if (st == MT_OK)
        st = mt_split_share_best(ctx, out->split, y->count, owner, pool);
    if (st == MT_OK)
        st = cmoe_cluster(ctx, at, y, pool, owner, out);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)p->n_experts, sizeof(*out->representative), "neurons",
                      &out->representative);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)y->s->tokens, sizeof(*mean), "markers", &mean);
    if (st == MT_OK) {
        mt_split_fill(out->split, owner);
        for (int e = 0; e < p->n_experts; e++)
            out->representative[e] =
                cmoe_representative(y, mt_split_expert(out->split, e), p->expert_width, mean);
    }
    mt_free(owner);
    mt_free(pool);
    mt_free(mean);
    return st;
}

static mt_status cmoe_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                             struct mt_convert_division *out)
{
    const struct cmoe *s = state;
    struct cmoe_sets y;

    if (s->tokens == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--method cmoe marks the neurons that act most on a text: give one with "
                       "--data");
    mt_status st = cmoe_sets_make(ctx, s, &y);
    if (st == MT_OK)
        st = cmoe_divide(ctx, at, &y, out);
    cmoe_sets_free(&y);
    if (at->shape->n_shared > 0)
        out->shared_by = MT_SHARED_BY_ACTIVATIONS;
    return st;
}

static void cmoe_end(void *state)
{
    struct cmoe *s = state;

    if (s != NULL) {
        mt_free(s->top);
        mt_free(s->h);
    }
    mt_free(s);
}

const struct mt_convert_method mt_convert_method_cmoe = {
    .name = "cmoe",
    .summary = "neurons that are most active on the same tokens; one neuron speaks for each expert",
    .help =
        "cmoe (CMoE, arXiv 2502.04416) marks each token's ten most active neurons, shares those "
        "with most marks, groups the others around the next ones by L1 distance of their marks "
        "with an exact balanced assignment, and routes by one representative neuron of each "
        "expert, which only the native layout holds. Marks come from the first 16,384 tokens.",
    .router = "representative",
    .refit = "none",
    .data = true,
    .needs = MT_NEED_INPUTS,
    .rounds = cmoe_rounds,
    .memory = cmoe_memory,
    .begin = cmoe_begin,
    .observe = cmoe_observe,
    .decide = cmoe_decide,
    .end = cmoe_end,
};
