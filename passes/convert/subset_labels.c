#include "passes/convert/subset_labels.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/lib/best_subset.h"

#include <string.h>

uint64_t mt_subset_labels_bytes(const struct mt_convert_at *at)
{
    const struct mt_moe_shape *p = at->shape;
    uint64_t d = (uint64_t)p->hidden, n = (uint64_t)p->n_experts;
    uint64_t columns = (uint64_t)p->shared_width + n * (uint64_t)p->expert_width;

    return columns * (d + MT_SUBSET_TOKENS) * 4 + (n + 1) * MT_SUBSET_TOKENS * (d * 4 + n * 8) +
           (uint64_t)p->width * (d + MT_SUBSET_TOKENS) * 4;
}

/* Columns of down_proj in the order of the lists, times their weights; zeros for padding. */
static void labels_gather(const struct mt_convert_at *at, struct mt_subset_labels *s)
{
    const int32_t *idx = at->split->idx;
    int64_t w = at->shape->width;

    for (int64_t r = 0; r < at->shape->hidden; r++)
        for (int64_t c = 0; c < s->columns; c++) {
            float by = at->weight != NULL ? at->weight[c] : 1;
            s->down[r * s->columns + c] = idx[c] >= 0 ? s->v[r * w + idx[c]] * by : 0;
        }
}

mt_status mt_subset_labels_open(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                struct mt_subset_labels *s)
{
    size_t d = (size_t)at->shape->hidden, n = (size_t)at->shape->n_experts, m = MT_SUBSET_TOKENS,
           w = (size_t)at->shape->width;

    *s = (struct mt_subset_labels){.columns = mt_split_entries(at->split),
                                   .c = at->scale != NULL ? at->scale[0] : 1};
    if (n > MT_SUBSET_EXPERTS_MAX || mt_subsets((int)n, at->shape->k) > MT_SUBSETS_MAX)
        return mt_fail(ctx, MT_E_OPTION,
                       "--pa-targets subset tries every choice of %d of %d experts, which are more "
                       "than %d: take fewer experts, or k-hot",
                       at->shape->k, at->shape->n_experts, MT_SUBSETS_MAX);
    MT_TRY(mt_alloc(ctx, (size_t)s->columns, d * sizeof(*s->down), "router fit", &s->down));
    MT_TRY(mt_alloc(ctx, (size_t)s->columns, m * sizeof(*s->h), "router fit", &s->h));
    MT_TRY(mt_alloc(ctx, m, d * sizeof(*s->all), "router fit", &s->all));
    MT_TRY(mt_alloc(ctx, n, m * d * sizeof(*s->f), "router fit", &s->f));
    MT_TRY(mt_alloc(ctx, m, n * n * sizeof(*s->gram), "router fit", &s->gram));
    MT_TRY(mt_alloc(ctx, m, n * sizeof(*s->dot), "router fit", &s->dot));
    MT_TRY(mt_alloc(ctx, m, w * sizeof(*s->dense), "router fit", &s->dense));
    MT_TRY(mt_tensor_load_f32(ctx, at->dense->down, &s->v));
    labels_gather(at, s);
    return MT_OK;
}

void mt_subset_labels_close(struct mt_subset_labels *s)
{
    mt_free(s->v);
    mt_free(s->dense);
    mt_free(s->down);
    mt_free(s->h);
    mt_free(s->all);
    mt_free(s->f);
    mt_free(s->gram);
    mt_free(s->dot);
    *s = (struct mt_subset_labels){0};
}

struct labels_job {
    const struct mt_subset_labels *s;
    const struct mt_moe_shape *p;
    float *score;
};

static double labels_dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

static mt_status labels_job(struct mt_ctx *ctx, int64_t t, void *arg)
{
    const struct labels_job *j = arg;
    int64_t d = j->p->hidden;
    int n = j->p->n_experts;
    double *gram = j->s->gram + t * n * n, *dot = j->s->dot + t * n;
    bool in[MT_SUBSET_EXPERTS_MAX];

    (void)ctx;
    for (int a = 0; a < n; a++) {
        const float *f = j->s->f + (a * MT_SUBSET_TOKENS + t) * d;
        dot[a] = labels_dot(f, j->s->all + t * d, d);
        for (int b = 0; b <= a; b++)
            gram[a * n + b] = gram[b * n + a] =
                labels_dot(f, j->s->f + (b * MT_SUBSET_TOKENS + t) * d, d);
    }
    mt_best_subset(gram, dot, (double)j->s->c, n, j->p->k, in);
    for (int e = 0; e < n; e++)
        j->score[t * n + e] = in[e] ? 1 : 0;
    return MT_OK;
}

mt_status mt_subset_labels_run(struct mt_ctx *ctx, const struct mt_convert_at *at,
                               struct mt_subset_labels *s, const float *h, const int64_t *row,
                               int64_t m, float *score)
{
    const struct mt_moe_shape *p = at->shape;
    int64_t d = p->hidden, w = p->width, size = p->expert_width, shared = at->split->shared_width;
    struct labels_job j = {s, p, score};

    for (int64_t t = 0; t < m; t++) {
        memcpy(s->dense + t * w, h + row[t] * w, (size_t)w * sizeof(*h));
        for (int64_t c = 0; c < s->columns; c++)
            s->h[t * s->columns + c] =
                at->split->idx[c] >= 0 ? s->dense[t * w + at->split->idx[c]] : 0;
    }
    MT_TRY(mt_gemm_nt(ctx, m, d, w, 1, s->dense, w, s->v, w, 0, s->all, d));
    /* What is always on is there whoever is chosen. */
    if (shared > 0)
        MT_TRY(
            mt_gemm_nt(ctx, m, d, shared, -1, s->h, s->columns, s->down, s->columns, 1, s->all, d));
    for (int e = 0; e < p->n_experts; e++)
        MT_TRY(mt_gemm_nt(ctx, m, d, size, 1, s->h + shared + e * size, s->columns,
                          s->down + shared + e * size, s->columns, 0,
                          s->f + e * MT_SUBSET_TOKENS * d, d));
    return mt_pool_run(ctx, m, labels_job, &j);
}
