#include "passes/lib/partition.h"

#include "lib/base/mem.h"

#include <math.h>
#include <string.h>

struct partition {
    const struct mt_dense_ffn *f;
    const struct mt_neuron_sums *sums;
    struct mt_split *split;
    uint64_t stream;
    int32_t *owner, *pool; /* [D] */
    double *score;         /* [D] */
};

/* Unit rows of the neurons of the pool; of gate and up side by side when both are asked for. */
static mt_status partition_points(struct mt_ctx *ctx, const struct partition *p,
                                  enum mt_partition_how how, int64_t n, float *points)
{
    const struct mt_dense_ffn *f = p->f;
    bool gate = f->gate != NULL && how != MT_PARTITION_CLUSTER_UP;
    int64_t d = f->hidden;
    float *up;

    if (!gate || how != MT_PARTITION_CLUSTER_BOTH)
        return mt_rows_unit(ctx, gate ? f->gate : f->up, p->pool, n, points);
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)d * sizeof(*up), "up rows", &up));
    mt_status st = mt_rows_unit(ctx, f->up, p->pool, n, up);
    if (st == MT_OK)
        st = mt_rows_unit(ctx, f->gate, p->pool, n, points);
    /* From the end, so that no row is overwritten before it moved. */
    for (int64_t i = n - 1; i >= 0 && st == MT_OK; i--) {
        memmove(points + 2 * i * d, points + i * d, (size_t)d * sizeof(*points));
        memcpy(points + (2 * i + 1) * d, up + i * d, (size_t)d * sizeof(*points));
    }
    mt_free(up);
    return st;
}

static mt_status partition_cluster(struct mt_ctx *ctx, struct partition *p,
                                   enum mt_partition_how how)
{
    const struct mt_dense_ffn *f = p->f;
    int64_t n = f->width - mt_split_shared_width(p->split);
    int64_t d = f->hidden << (how == MT_PARTITION_CLUSTER_BOTH && f->gate != NULL);
    float *points;

    if (p->sums->tokens > 0) {
        MT_TRY(mt_cols_sumsq(ctx, f->down, p->score));
        for (int64_t j = 0; j < f->width; j++)
            p->score[j] = sqrt(p->score[j]) * p->sums->abs[j];
    } else {
        MT_TRY(mt_neuron_weight_score(ctx, f, p->score));
    }
    /* --allow-nan: such neurons are shared last. */
    for (int64_t j = 0; j < f->width; j++)
        p->score[j] = isfinite(p->score[j]) ? p->score[j] : 0;
    MT_TRY(mt_split_share_best(ctx, p->split, p->score, p->owner, p->pool));
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)d * sizeof(*points), "rows", &points));
    mt_status st = partition_points(ctx, p, how, n, points);
    if (st == MT_OK)
        st = mt_split_cluster(ctx, p->split, p->pool, points, d, p->stream, p->owner);
    mt_free(points);
    return st;
}

static mt_status partition_fill(struct mt_ctx *ctx, struct partition *p, enum mt_partition_how how)
{
    size_t w = (size_t)p->f->width;

    MT_TRY(mt_alloc(ctx, w, sizeof(*p->owner), "partition", &p->owner));
    MT_TRY(mt_alloc(ctx, w, sizeof(*p->pool), "partition", &p->pool));
    MT_TRY(mt_alloc(ctx, w, sizeof(*p->score), "partition", &p->score));
    mt_assert(how <= MT_PARTITION_CLUSTER_BOTH);
    if (mt_partition_clusters(how))
        MT_TRY(partition_cluster(ctx, p, how));
    else if (how == MT_PARTITION_RANDOM)
        MT_TRY(mt_split_random(ctx, p->split, p->stream, p->owner));
    else
        mt_split_contiguous(p->split, p->owner);
    mt_split_fill(p->split, p->owner);
    return MT_OK;
}

mt_status mt_partition_ffn(struct mt_ctx *ctx, enum mt_partition_how how,
                           const struct mt_dense_ffn *f, const struct mt_neuron_sums *sums,
                           int n_experts, int n_shared, uint64_t stream, struct mt_split **out)
{
    struct partition p = {.f = f, .sums = sums, .stream = stream};

    *out = NULL;
    MT_TRY(mt_split_create(ctx, f->width, n_experts, n_shared, &p.split));
    mt_status st = partition_fill(ctx, &p, how);
    mt_free(p.owner);
    mt_free(p.pool);
    mt_free(p.score);
    if (st != MT_OK) {
        mt_split_free(p.split);
        return st;
    }
    *out = p.split;
    return MT_OK;
}
