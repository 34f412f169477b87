/* divide_coactivation.c
 * --partition coactivation: neurons that are active together (MoEfication, arXiv 2110.01786, and
 * LLaMA-MoE, arXiv 2406.16554).
 *
 * Two neurons are tied by sum over tokens of |h_i h_j|; the strongest ties of every neuron make a
 * graph, which is cut into experts of one size so that little weight is cut (graph_cut.h). Shared
 * experts take the neurons with the largest mean |h_j| ||v_j|| first.
 */
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "passes/convert/divide.h"
#include "passes/lib/graph_cut.h"

#include <math.h>

#define COACT_TIES 64 /* of a neuron */

struct coact {
    int64_t width, tokens;
    double *gram; /* [width, width] sum of |h_i| |h_j| */
    double *sum;  /* [width] of |h_j| */
    float *h;     /* [MT_OBSERVE_TOKENS_MAX, width] */
};

static int coact_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t coact_memory(const struct mt_convert_at *at)
{
    uint64_t w = (uint64_t)at->shape->width, n = (uint64_t)at->shape->n_experts;

    return w * w * 16 + w * 24 + MT_OBSERVE_TOKENS_MAX * w * 4 + mt_graph_bytes(w, COACT_TIES) +
           mt_graph_cut_bytes(w, n);
}

static mt_status coact_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    size_t w = (size_t)at->shape->width;
    struct coact *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "co-activations", &s));
    *state = s;
    s->width = at->shape->width;
    MT_TRY(mt_alloc0(ctx, w, w * sizeof(*s->gram), "co-activations", &s->gram));
    MT_TRY(mt_alloc0(ctx, w, sizeof(*s->sum), "co-activations", &s->sum));
    return mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, w * sizeof(*s->h), "co-activations", &s->h);
}

static mt_status coact_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               const struct mt_observation *ob)
{
    struct mt_neuron_sums sums = {0};
    struct coact *s = state;

    (void)at;
    sums.width = s->width;
    sums.abs = s->sum;
    MT_TRY(mt_neuron_sums_add(ctx, &sums, ob->m, ob->h));
    for (int64_t i = 0; i < ob->m * s->width; i++)
        s->h[i] = fabsf(ob->h[i]);
    s->tokens += ob->m;
    return mt_gram_add(ctx, ob->m, s->width, s->h, s->width, s->gram);
}

/* ---- decide ---- */

/* The matrix of the neurons in the pool alone, in place: they rise, so nothing is overwritten
 * before it is read. */
static void coact_pack(double *gram, int64_t width, const int32_t *pool, int64_t n)
{
    for (int64_t a = 0; a < n; a++)
        for (int64_t b = 0; b < n; b++)
            gram[a * n + b] = gram[pool[a] * width + pool[b]];
}

static mt_status coact_tell(struct mt_ctx *ctx, const struct mt_graph *g, const int32_t *to,
                            struct mt_convert_division *out)
{
    out->facts = mt_json_new_object();
    if (out->facts == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    mt_json_set_int(out->facts, "ties", g->first[g->n] / 2);
    mt_json_set_num(out->facts, "ties_inside_experts", mt_graph_inside(g, to));
    return MT_OK;
}

static mt_status coact_cut(struct mt_ctx *ctx, const struct mt_convert_at *at, struct coact *s,
                           const int32_t *pool, int64_t n, int64_t *cap, int32_t *to,
                           struct mt_convert_division *out)
{
    struct mt_graph g;

    coact_pack(s->gram, s->width, pool, n);
    mt_split_capacities(out->split, cap);
    mt_status st = mt_graph_strongest(ctx, n, s->gram, COACT_TIES, &g);
    if (st == MT_OK)
        st = mt_graph_cut(ctx, &g, at->shape->n_experts, cap, mt_ctx_seed(ctx), (uint64_t)at->layer,
                          to);
    if (st == MT_OK)
        st = coact_tell(ctx, &g, to, out);
    mt_graph_free(&g);
    return st;
}

static mt_status coact_divide(struct mt_ctx *ctx, const struct mt_convert_at *at, struct coact *s,
                              struct mt_convert_division *out, double *score, int32_t *owner,
                              int32_t *pool, int32_t *to, int64_t *cap)
{
    int64_t n = s->width - mt_split_shared_width(out->split);

    MT_TRY(mt_cols_sumsq(ctx, at->dense->down, score));
    for (int64_t j = 0; j < s->width; j++)
        score[j] = sqrt(score[j]) * s->sum[j];
    MT_TRY(mt_split_share_best(ctx, out->split, score, owner, pool));
    MT_TRY(coact_cut(ctx, at, s, pool, n, cap, to, out));
    for (int64_t i = 0; i < n; i++)
        owner[pool[i]] = to[i];
    mt_split_fill(out->split, owner);
    if (mt_split_shared_width(out->split) > 0)
        out->shared_by = MT_SHARED_BY_ACTIVATIONS;
    return MT_OK;
}

static mt_status coact_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                              struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    size_t w = (size_t)p->width;
    struct coact *s = state;
    int32_t *owner = NULL;
    double *score = NULL;
    int64_t *cap = NULL;

    if (s->tokens == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--partition coactivation looks for neurons that are active together: give "
                       "text with --data");
    MT_TRY(mt_split_create(ctx, p->width, p->n_experts, p->n_shared, &out->split));
    mt_status st = mt_alloc(ctx, w, 3 * sizeof(*owner), "neurons", &owner);
    if (st == MT_OK)
        st = mt_alloc(ctx, w, sizeof(*score), "neurons", &score);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)p->n_experts, sizeof(*cap), "neurons", &cap);
    if (st == MT_OK)
        st = coact_divide(ctx, at, s, out, score, owner, owner + w, owner + 2 * w, cap);
    mt_free(owner);
    mt_free(score);
    mt_free(cap);
    return st;
}

static void coact_end(void *state)
{
    struct coact *s = state;

    if (s != NULL) {
        mt_free(s->gram);
        mt_free(s->sum);
        mt_free(s->h);
    }
    mt_free(s);
}

const struct mt_convert_method mt_divider_coactivation = {
    .name = "coactivation",
    .rounds = coact_rounds,
    .memory = coact_memory,
    .begin = coact_begin,
    .observe = coact_observe,
    .decide = coact_decide,
    .end = coact_end,
};
