#include "tests/planted.h"

#include "passes/lib/domain_masks.h"

#include <stdlib.h>

#define BLOCK 500

/* Neurons of each expert among the `keep` of the largest |h|, ties by index: ranks are counted. */
static void count(const struct planted *p, int64_t keep, const float *h, float *out)
{
    const struct mt_split *s = p->at.split;

    for (int e = 0; e < s->n_experts; e++) {
        const int32_t *list = mt_split_expert(s, e);
        out[e] = 0;
        for (int64_t i = 0; i < s->expert_width; i++) {
            int64_t before = 0;
            for (int64_t j = 0; j < s->width; j++)
                before += fabsf(h[j]) > fabsf(h[list[i]]) ||
                          (fabsf(h[j]) == fabsf(h[list[i]]) && j < list[i]);
            out[e] += before < keep ? 1 : 0;
        }
    }
}

static mt_status fit_counts(struct t *t, const struct planted *p, int64_t keep, float *w)
{
    struct mt_router_fit *fit;
    float *counts = calloc(BLOCK * (size_t)p->shape.n_experts, sizeof(*counts));

    mt_assert(counts != NULL);
    mt_status st = mt_router_fit_create(&t->ctx, PLANTED_HIDDEN, p->shape.n_experts, p->shape.k,
                                        MT_LABELS_MEMBERSHIP, &fit);
    for (int64_t at = 0; at < PLANTED_TOKENS && st == MT_OK; at += BLOCK) {
        int64_t m = PLANTED_TOKENS - at < BLOCK ? PLANTED_TOKENS - at : BLOCK;
        for (int64_t i = 0; i < m; i++)
            count(p, keep, p->h + (at + i) * p->dense.width, counts + i * p->shape.n_experts);
        st = mt_router_fit_add(&t->ctx, fit, m, p->x + at * PLANTED_HIDDEN, counts);
    }
    if (st == MT_OK)
        st = mt_router_fit_solve(&t->ctx, fit, MT_ROUTER_FIT_LAMBDA, w);
    mt_router_fit_free(fit);
    free(counts);
    return st;
}

static mt_status run_router(struct t *t, const struct planted *p, float *w)
{
    const struct mt_convert_router *r =
        mt_convert_routers[mt_convert_name_find(mt_convert_router_names, "overlap")];
    struct mt_convert_routing out = {.w = w};
    void *state = NULL;
    mt_status st = r->begin(&t->ctx, &p->at, PLANTED_TOKENS, &state);

    for (int64_t at = 0; at < PLANTED_TOKENS && st == MT_OK; at += BLOCK) {
        struct mt_observation ob = {.m = PLANTED_TOKENS - at < BLOCK ? PLANTED_TOKENS - at : BLOCK,
                                    .token0 = at,
                                    .n_tokens = PLANTED_TOKENS,
                                    .x = p->x + at * PLANTED_HIDDEN,
                                    .h = p->h + at * p->dense.width};
        st = r->observe(&t->ctx, &p->at, state, &ob, NULL);
    }
    if (st == MT_OK)
        st = r->make(&t->ctx, &p->at, state, &out);
    r->end(state);
    return st;
}

/* The same bits as a fit to counts by brute force. ReLU makes many neurons equal, at zero. */
static void learns_counts(struct t *t, bool relu, const char *keep)
{
    const struct planted_spec spec = {
        .groups = 4, .per_group = 6, .noise = 0.3, .relu = relu, .seed = 17};
    float w[4 * PLANTED_HIDDEN] = {0}, want[4 * PLANTED_HIDDEN] = {0};
    struct mt_convert_division d;
    struct planted p;
    char options[96];

    snprintf(options, sizeof(options), "method=uoe experts=4 active=2 arch=native keep=%s", keep);
    if (!planted_open(t, &spec, options, &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "uoe", &d));
    T_OK(t, fit_counts(t, &p, mt_domain_keep(p.o.keep, p.dense.width), want));
    T_OK(t, run_router(t, &p, w));
    T_CHECK(t, t_rel_l2(w, want, sizeof(w) / sizeof(*w)) == 0);
    planted_division_free(&d);
    planted_close(&p);
}

T_TEST(it_learns_how_many_active_neurons_experts_hold)
{
    static const char *const keeps[] = {"0.5", "0.04", "0.9", "1"};

    for (size_t i = 0; i < sizeof(keeps) / sizeof(*keeps) && !t->failed; i++) {
        learns_counts(t, false, keeps[i]);
        learns_counts(t, true, keeps[i]);
    }
}
