#include "passes/lib/regroup.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/lib/assign.h"

#include <string.h>

#define REGROUP_BLOCK 1024 /* tokens per product */
#define REGROUP_ROWS 32    /* tokens per job */

struct mt_regroup {
    int64_t width;
    int n;
    double *length; /* [width] */
    double *earned; /* [width, n] */
    float *block;   /* [REGROUP_BLOCK, width] squared contributions */
    float *chosen;  /* [REGROUP_BLOCK, n] */

    /* The block at hand. */
    int64_t m;
    const float *h;
    const unsigned char *picked;
};

uint64_t mt_regroup_bytes(uint64_t width, uint64_t n_experts)
{
    return width * n_experts * 8 + width * 8 + REGROUP_BLOCK * (width + n_experts) * 4 +
           width * n_experts * 24;
}

mt_status mt_regroup_create(struct mt_ctx *ctx, int64_t width, int n_experts, const double *length,
                            struct mt_regroup **out)
{
    size_t w = (size_t)width, n = (size_t)n_experts;
    struct mt_regroup *g;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*g), "regrouping", &g));
    g->width = width;
    g->n = n_experts;
    mt_status st = mt_alloc0(ctx, w, n * sizeof(double), "regrouping", &g->earned);
    if (st == MT_OK)
        st = mt_alloc(ctx, w, sizeof(double), "regrouping", &g->length);
    if (st == MT_OK)
        st = mt_alloc(ctx, REGROUP_BLOCK, w * sizeof(float), "regrouping", &g->block);
    if (st == MT_OK)
        st = mt_alloc(ctx, REGROUP_BLOCK, n * sizeof(float), "regrouping", &g->chosen);
    if (st != MT_OK) {
        mt_regroup_free(g);
        return st;
    }
    memcpy(g->length, length, w * sizeof(*length));
    *out = g;
    return MT_OK;
}

void mt_regroup_free(struct mt_regroup *g)
{
    if (g == NULL)
        return;
    mt_free(g->length);
    mt_free(g->earned);
    mt_free(g->block);
    mt_free(g->chosen);
    mt_free(g);
}

static mt_status regroup_rows_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct mt_regroup *g = arg;

    (void)ctx;
    for (int64_t t = job * REGROUP_ROWS; t < g->m && t < (job + 1) * REGROUP_ROWS; t++) {
        for (int64_t j = 0; j < g->width; j++) {
            double c = (double)g->h[t * g->width + j] * g->length[j];
            g->block[t * g->width + j] = (float)(c * c);
        }
        for (int e = 0; e < g->n; e++)
            g->chosen[t * g->n + e] = g->picked[t * g->n + e];
    }
    return MT_OK;
}

mt_status mt_regroup_add(struct mt_ctx *ctx, struct mt_regroup *g, int64_t m, const float *h,
                         const unsigned char *picked)
{
    for (int64_t t = 0; t < m; t += REGROUP_BLOCK) {
        g->m = m - t < REGROUP_BLOCK ? m - t : REGROUP_BLOCK;
        g->h = h + t * g->width;
        g->picked = picked + t * g->n;
        MT_TRY(mt_pool_run(ctx, (g->m + REGROUP_ROWS - 1) / REGROUP_ROWS, regroup_rows_job, g));
        MT_TRY(mt_cross_add(ctx, g->m, g->width, g->n, g->block, g->width, g->chosen, g->n,
                            g->earned));
    }
    return MT_OK;
}

static void regroup_owners(const struct mt_split *split, int32_t *owner)
{
    const int32_t *shared = mt_split_shared(split);

    memset(owner, 0, (size_t)split->width * sizeof(*owner));
    for (int64_t i = 0; i < mt_split_shared_width(split); i++)
        if (shared[i] >= 0)
            owner[shared[i]] = MT_SPLIT_SHARED;
}

mt_status mt_regroup_move(struct mt_ctx *ctx, const struct mt_regroup *g, struct mt_split *split)
{
    size_t w = (size_t)g->width, n = (size_t)g->n;
    int32_t *owner = NULL;
    int64_t *cap = NULL, at = 0;
    double *cost = NULL;
    mt_status st = mt_alloc(ctx, w, 3 * sizeof(*owner), "regrouping", &owner);

    if (st == MT_OK)
        st = mt_alloc(ctx, n, sizeof(*cap), "expert sizes", &cap);
    if (st == MT_OK)
        st = mt_alloc(ctx, w, n * sizeof(*cost), "regrouping", &cost);
    if (st == MT_OK) {
        int32_t *pool = owner + w, *to = pool + w;
        regroup_owners(split, owner);
        for (int64_t j = 0; j < g->width; j++) {
            if (owner[j] == MT_SPLIT_SHARED)
                continue;
            for (int e = 0; e < g->n; e++)
                cost[at * g->n + e] = -g->earned[j * g->n + e];
            pool[at++] = (int32_t)j;
        }
        mt_split_capacities(split, cap);
        st = mt_assign_balanced(ctx, at, g->n, cost, cap, to);
        for (int64_t i = 0; st == MT_OK && i < at; i++)
            owner[pool[i]] = to[i];
        if (st == MT_OK)
            mt_split_fill(split, owner);
    }
    mt_free(owner);
    mt_free(cap);
    mt_free(cost);
    return st;
}
