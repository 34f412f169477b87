#include "passes/lib/expert_norms.h"

#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>

#define NORMS_BLOCK 256 /* tokens per product */
#define NORMS_ROWS 64   /* rows of the down projection per load */

struct mt_expert_norms {
    const struct mt_tensor *down;
    const struct mt_split *split;
    int64_t hidden, rows; /* rows: what is left of `hidden` */
    float *v;             /* [N][hidden, I]; the first `rows` of each expert count */
};

static mt_status norms_load_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct mt_expert_norms *s = arg;
    const struct mt_split *p = s->split;
    int64_t from = job * NORMS_ROWS, width = p->expert_width;
    int64_t n = s->hidden - from < NORMS_ROWS ? s->hidden - from : NORMS_ROWS;
    float *rows;

    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)p->width * sizeof(*rows), "down_proj rows", &rows));
    mt_status st = mt_tensor_fetch_f32(ctx, s->down, from, n, rows);
    for (int e = 0; st == MT_OK && e < p->n_experts; e++) {
        const int32_t *idx = mt_split_expert(p, e);
        for (int64_t r = 0; r < n; r++) {
            float *out = s->v + (e * s->hidden + from + r) * width;
            for (int64_t j = 0; j < width; j++)
                out[j] = idx[j] >= 0 ? rows[r * p->width + idx[j]] : 0;
        }
    }
    mt_free(rows);
    return st;
}

/* |V h| = |R h| with the triangle R of V = Q R, which is I by I instead of hidden by I. */
static mt_status norms_shrink_job(struct mt_ctx *ctx, int64_t e, void *arg)
{
    struct mt_expert_norms *s = arg;
    int64_t width = s->split->expert_width;

    return mt_qr_triangle(ctx, s->hidden, width, s->v + e * s->hidden * width);
}

mt_status mt_expert_norms_create(struct mt_ctx *ctx, const struct mt_tensor *down,
                                 const struct mt_split *split, struct mt_expert_norms **out)
{
    struct mt_expert_norms *s;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "expert norms", &s));
    s->down = down;
    s->split = split;
    s->hidden = mt_tensor_rows(down);
    s->rows = split->expert_width < s->hidden ? split->expert_width : s->hidden;
    mt_status st =
        mt_alloc(ctx, (size_t)(split->n_experts * s->hidden),
                 (size_t)split->expert_width * sizeof(*s->v), "experts' down_proj", &s->v);
    if (st == MT_OK)
        st = mt_pool_run(ctx, (s->hidden + NORMS_ROWS - 1) / NORMS_ROWS, norms_load_job, s);
    if (st == MT_OK && s->rows < s->hidden)
        st = mt_pool_run(ctx, split->n_experts, norms_shrink_job, s);
    if (st != MT_OK) {
        mt_expert_norms_free(s);
        return st;
    }
    *out = s;
    return MT_OK;
}

void mt_expert_norms_free(struct mt_expert_norms *n)
{
    if (n == NULL)
        return;
    mt_free(n->v);
    mt_free(n);
}

struct norms_run {
    const struct mt_expert_norms *s;
    int64_t m;
    const float *h;
    float *norms;
};

/* One expert, one block of tokens. */
static mt_status norms_run_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct norms_run *r = arg;
    const struct mt_expert_norms *s = r->s;
    const struct mt_split *p = s->split;
    int64_t e = job % p->n_experts, from = job / p->n_experts * NORMS_BLOCK;
    int64_t n = r->m - from < NORMS_BLOCK ? r->m - from : NORMS_BLOCK;
    int64_t width = p->expert_width, d = s->rows;
    const int32_t *idx = mt_split_expert(p, (int)e);
    float *he;

    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)(width + d) * sizeof(*he), "expert outputs", &he));
    float *y = he + n * width;
    for (int64_t t = 0; t < n; t++)
        for (int64_t j = 0; j < width; j++)
            he[t * width + j] = idx[j] >= 0 ? r->h[(from + t) * p->width + idx[j]] : 0;
    mt_status st =
        mt_gemm_nt(ctx, n, d, width, 1, he, width, s->v + e * s->hidden * width, width, 0, y, d);
    for (int64_t t = 0; st == MT_OK && t < n; t++)
        r->norms[(from + t) * p->n_experts + e] =
            (float)sqrt(mt_kernels_get()->sumsq(y + t * d, (size_t)d));
    mt_free(he);
    return st;
}

mt_status mt_expert_norms_run(struct mt_ctx *ctx, const struct mt_expert_norms *n, int64_t m,
                              const float *h, float *norms)
{
    struct norms_run r = {.s = n, .m = m, .h = h, .norms = norms};

    return mt_pool_run(ctx, (m + NORMS_BLOCK - 1) / NORMS_BLOCK * n->split->n_experts,
                       norms_run_job, &r);
}
