#include "passes/lib/kmeans.h"

#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/base/rng.h"
#include "passes/lib/assign.h"

#include <math.h>
#include <string.h>

#define KMEANS_CHUNK 256 /* points per job */

struct kmeans {
    int64_t n, d;
    const float *x;
    int k;
    const int64_t *cap;
    double *norm;    /* [n] squared length of each point */
    double *nearest; /* [n] squared distance to the nearest seed */
    float *centroid; /* [k, d] */
    float *product;  /* [n, k] */
    double *cost;    /* [n, k] squared distance less the point's own squared length */
    int32_t *to;     /* [n] */
    int32_t *before; /* [n] */
};

static int64_t kmeans_chunks(const struct kmeans *s)
{
    return (s->n + KMEANS_CHUNK - 1) / KMEANS_CHUNK;
}

static int64_t kmeans_chunk_end(const struct kmeans *s, int64_t job)
{
    return (job + 1) * KMEANS_CHUNK < s->n ? (job + 1) * KMEANS_CHUNK : s->n;
}

static mt_status kmeans_norm_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct kmeans *s = arg;

    (void)ctx;
    for (int64_t i = job * KMEANS_CHUNK; i < kmeans_chunk_end(s, job); i++)
        s->norm[i] = mt_kernels_get()->sumsq(s->x + i * s->d, (size_t)s->d);
    return MT_OK;
}

static double kmeans_distance(const struct kmeans *s, int64_t i, double norm, double product)
{
    return fmax(0, s->norm[i] + norm - 2 * product);
}

/* The point at which the running sum of `nearest` passes u * total; never one of weight 0 unless
 * all are. */
static int64_t kmeans_draw(const struct kmeans *s, double u)
{
    double total = 0, sum = 0;
    int64_t last = 0;

    for (int64_t i = 0; i < s->n; i++)
        total += s->nearest[i];
    for (int64_t i = 0; i < s->n; i++) {
        if (s->nearest[i] <= 0)
            continue;
        sum += s->nearest[i];
        last = i;
        if (sum > u * total)
            break;
    }
    return last;
}

/* Of several drawn candidates, takes the one that leaves the smallest sum of distances. */
static mt_status kmeans_seed_one(struct mt_ctx *ctx, struct kmeans *s, struct mt_rng *rng, int c,
                                 int tries, float *rows)
{
    double best_sum = INFINITY;
    int64_t pick[16] = {0};
    int best = 0;

    for (int t = 0; t < tries; t++) {
        pick[t] =
            c == 0 ? (int64_t)mt_rng_below(rng, (uint64_t)s->n) : kmeans_draw(s, mt_rng_unit(rng));
        memcpy(rows + t * s->d, s->x + pick[t] * s->d, (size_t)s->d * sizeof(*rows));
    }
    MT_TRY(mt_gemm_nt(ctx, s->n, tries, s->d, 1, s->x, s->d, rows, s->d, 0, s->product, tries));
    for (int t = 0; t < tries; t++) {
        double sum = 0;
        for (int64_t i = 0; i < s->n; i++)
            sum += fmin(s->nearest[i],
                        kmeans_distance(s, i, s->norm[pick[t]], s->product[i * tries + t]));
        if (sum < best_sum) {
            best_sum = sum;
            best = t;
        }
    }
    for (int64_t i = 0; i < s->n; i++)
        s->nearest[i] = fmin(s->nearest[i], kmeans_distance(s, i, s->norm[pick[best]],
                                                            s->product[i * tries + best]));
    s->nearest[pick[best]] = 0;
    memcpy(s->centroid + c * s->d, rows + best * s->d, (size_t)s->d * sizeof(*rows));
    return MT_OK;
}

static mt_status kmeans_seed(struct mt_ctx *ctx, struct kmeans *s, struct mt_rng *rng)
{
    int tries = 2 + (int)log((double)s->k);
    float *rows = NULL;

    mt_assert(tries <= 16);
    if (tries > s->k)
        tries = s->k; /* the product buffer has k columns */
    MT_TRY(mt_alloc(ctx, (size_t)tries, (size_t)s->d * sizeof(*rows), "k-means seeds", &rows));
    /* Finite, so that the first sums compare; above every distance. */
    for (int64_t i = 0; i < s->n; i++)
        s->nearest[i] = 1e300;
    mt_status st = MT_OK;
    for (int c = 0; c < s->k && st == MT_OK; c++)
        st = kmeans_seed_one(ctx, s, rng, c, tries, rows);
    mt_free(rows);
    return st;
}

static mt_status kmeans_cost_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    struct kmeans *s = arg;
    const double *norm = s->nearest; /* of the centroids, see kmeans_costs */

    (void)ctx;
    for (int64_t i = job * KMEANS_CHUNK; i < kmeans_chunk_end(s, job); i++)
        for (int c = 0; c < s->k; c++)
            s->cost[i * s->k + c] = norm[c] - 2.0 * (double)s->product[i * s->k + c];
    return MT_OK;
}

static mt_status kmeans_costs(struct mt_ctx *ctx, struct kmeans *s)
{
    const struct mt_kernels *kn = mt_kernels_get();

    /* Seeding is over and k <= n: its buffer holds the centroids' squared lengths. */
    for (int c = 0; c < s->k; c++)
        s->nearest[c] = kn->sumsq(s->centroid + c * s->d, (size_t)s->d);
    MT_TRY(
        mt_gemm_nt(ctx, s->n, s->k, s->d, 1, s->x, s->d, s->centroid, s->d, 0, s->product, s->k));
    return mt_pool_run(ctx, kmeans_chunks(s), kmeans_cost_job, s);
}

/* An empty cluster keeps its centroid. */
static mt_status kmeans_mean_job(struct mt_ctx *ctx, int64_t c, void *arg)
{
    struct kmeans *s = arg;
    float *mean = s->centroid + c * s->d;
    double *sum;
    int64_t count = 0;

    MT_TRY(mt_alloc0(ctx, (size_t)s->d, sizeof(*sum), "k-means centroid", &sum));
    for (int64_t i = 0; i < s->n; i++) {
        if (s->to[i] != c)
            continue;
        for (int64_t j = 0; j < s->d; j++)
            sum[j] += (double)s->x[i * s->d + j];
        count++;
    }
    for (int64_t j = 0; count > 0 && j < s->d; j++)
        mean[j] = (float)(sum[j] / (double)count);
    mt_free(sum);
    return MT_OK;
}

static void kmeans_assign_nearest(struct kmeans *s)
{
    for (int64_t i = 0; i < s->n; i++) {
        const double *cost = s->cost + i * s->k;
        int best = 0;
        for (int c = 1; c < s->k; c++)
            if (cost[c] < cost[best])
                best = c;
        s->to[i] = best;
    }
}

static mt_status kmeans_run(struct mt_ctx *ctx, struct kmeans *s, struct mt_rng *rng)
{
    size_t n = (size_t)s->n, k = (size_t)s->k, d = (size_t)s->d;

    MT_TRY(mt_alloc(ctx, n, sizeof(*s->norm), "k-means", &s->norm));
    MT_TRY(mt_alloc(ctx, n, sizeof(*s->nearest), "k-means", &s->nearest));
    MT_TRY(mt_alloc(ctx, k, d * sizeof(*s->centroid), "k-means centroids", &s->centroid));
    MT_TRY(mt_alloc(ctx, n, k * sizeof(*s->product), "k-means distances", &s->product));
    MT_TRY(mt_alloc(ctx, n, k * sizeof(*s->cost), "k-means distances", &s->cost));
    MT_TRY(mt_alloc(ctx, n, sizeof(*s->before), "k-means", &s->before));
    MT_TRY(mt_pool_run(ctx, kmeans_chunks(s), kmeans_norm_job, s));
    MT_TRY(kmeans_seed(ctx, s, rng));
    for (int i = 0; i < MT_KMEANS_FREE_ITERS; i++) {
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(kmeans_costs(ctx, s));
        kmeans_assign_nearest(s);
        MT_TRY(mt_pool_run(ctx, s->k, kmeans_mean_job, s));
    }
    for (int i = 0; i < MT_KMEANS_BALANCED_ITERS; i++) {
        memcpy(s->before, s->to, n * sizeof(*s->to));
        MT_TRY(kmeans_costs(ctx, s));
        MT_TRY(mt_assign_balanced(ctx, s->n, s->k, s->cost, s->cap, s->to));
        if (i > 0 && memcmp(s->before, s->to, n * sizeof(*s->to)) == 0)
            break;
        MT_TRY(mt_pool_run(ctx, s->k, kmeans_mean_job, s));
    }
    return MT_OK;
}

mt_status mt_kmeans_balanced(struct mt_ctx *ctx, int64_t n, int64_t d, const float *x, int k,
                             const int64_t *cap, uint64_t seed, uint64_t stream, int32_t *to)
{
    struct kmeans s = {.n = n, .d = d, .x = x, .k = k, .cap = cap, .to = to};
    struct mt_rng rng;

    mt_assert(k >= 1 && k <= n);
    mt_rng_seed(&rng, seed, stream);
    mt_status st = kmeans_run(ctx, &s, &rng);
    mt_free(s.norm);
    mt_free(s.nearest);
    mt_free(s.centroid);
    mt_free(s.product);
    mt_free(s.cost);
    mt_free(s.before);
    return st;
}
