/* Operations on elements and rows. Each is one function over a range [from, to) of elements or
 * rows; cpu_ranges cuts the whole into ranges of about the same work. */
#include "kernels/cpu/device_cpu.h"

#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

enum { ROWS_ELEMS = 1 << 15, ROWS_POSITIONS = 4096 };

/* One struct for all: each operation uses what it needs. */
struct rows_job {
    struct cpu_device *cpu;
    void (*fn)(const struct rows_job *j, int64_t from, int64_t to);
    int64_t n, per_job; /* rows (or elements), and as many to a job */
    int64_t d;          /* elements of a row */
    float *y;
    const float *x, *w, *b;
    double offset, eps;
    int act, k;
    const int32_t *index;
    const double *factor;
    bool half_split;
};

static mt_status rows_run_range(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct rows_job *j = arg;

    (void)ctx;
    j->fn(j, i * j->per_job, cpu_min(j->n, (i + 1) * j->per_job));
    return MT_OK;
}

static mt_status rows_run(struct mt_ctx *ctx, struct rows_job *j, int64_t elems_per_row)
{
    j->per_job = elems_per_row > 0 ? ROWS_ELEMS / elems_per_row : ROWS_ELEMS;
    j->per_job = j->per_job < 1 ? 1 : j->per_job;
    return mt_pool_run(ctx, cpu_tiles(j->n, j->per_job), rows_run_range, j);
}

static void rows_add(const struct rows_job *j, int64_t from, int64_t to)
{
    j->cpu->k->axpy(j->y + from, 1.0f, j->x + from, (size_t)(to - from));
}

mt_status mt_cpu_add(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, size_t n)
{
    struct rows_job j = {.cpu = cpu_self(dev), .fn = rows_add, .n = (int64_t)n, .y = y, .x = x};

    return rows_run(ctx, &j, 1);
}

static void rows_scale(const struct rows_job *j, int64_t from, int64_t to)
{
    float s = (float)j->offset;

    for (int64_t i = from; i < to; i++)
        j->y[i] *= s;
}

mt_status mt_cpu_scale(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double s, size_t n)
{
    struct rows_job j = {
        .cpu = cpu_self(dev), .fn = rows_scale, .n = (int64_t)n, .y = y, .offset = s};

    return rows_run(ctx, &j, 1);
}

/* offset and eps are the bounds. */
static void rows_clamp(const struct rows_job *j, int64_t from, int64_t to)
{
    float lo = (float)j->offset, hi = (float)j->eps;

    for (int64_t i = from; i < to; i++)
        j->y[i] = j->y[i] < lo ? lo : j->y[i] > hi ? hi : j->y[i];
}

mt_status mt_cpu_clamp(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, double lo, double hi,
                       size_t n)
{
    struct rows_job j = {
        .cpu = cpu_self(dev), .fn = rows_clamp, .n = (int64_t)n, .y = y, .offset = lo, .eps = hi};

    return rows_run(ctx, &j, 1);
}

static void rows_add_bias(const struct rows_job *j, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        j->cpu->k->axpy(j->y + i * j->d, 1.0f, j->b, (size_t)j->d);
}

mt_status mt_cpu_add_bias(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                          const struct mt_weight *b)
{
    struct rows_job j = {
        .cpu = cpu_self(dev), .fn = rows_add_bias, .n = m, .d = b->cols, .y = y, .b = b->direct};

    mt_assert(b->rows == 1);
    return rows_run(ctx, &j, j.d);
}

static void rows_scale_rows(const struct rows_job *j, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) {
        float *y = j->y + i * j->d, s = (float)j->factor[i];
        for (int64_t e = 0; e < j->d; e++)
            y[e] *= s;
    }
}

mt_status mt_cpu_scale_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                            int64_t n, const double *s)
{
    struct rows_job j = {
        .cpu = cpu_self(dev), .fn = rows_scale_rows, .n = m, .d = n, .y = y, .factor = s};

    return rows_run(ctx, &j, n);
}

static void rows_scale_cols(const struct rows_job *j, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++) {
        float *y = j->y + i * j->d;
        for (int64_t e = 0; e < j->d; e++)
            y[e] *= j->w[e];
    }
}

mt_status mt_cpu_scale_cols(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, int64_t m,
                            const struct mt_weight *w)
{
    struct rows_job j = {
        .cpu = cpu_self(dev), .fn = rows_scale_cols, .n = m, .d = w->cols, .y = y, .w = w->direct};

    mt_assert(w->rows == 1);
    return rows_run(ctx, &j, j.d);
}

static void rows_rmsnorm(const struct rows_job *j, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        j->cpu->k->rmsnorm(j->y + i * j->d, j->x + i * j->d, j->w, (float)j->offset, (size_t)j->d,
                           (float)j->eps);
}

mt_status mt_cpu_rmsnorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                         const struct mt_weight *w, double offset, double eps)
{
    struct rows_job j = {.cpu = cpu_self(dev),
                         .fn = rows_rmsnorm,
                         .n = m,
                         .d = w->cols,
                         .y = y,
                         .x = x,
                         .w = w->direct,
                         .offset = offset,
                         .eps = eps};

    mt_assert(w->rows == 1);
    return rows_run(ctx, &j, j.d);
}

/* The centred row is rounded once; its squares are summed in double. */
static void rows_layernorm(const struct rows_job *j, int64_t from, int64_t to)
{
    size_t d = (size_t)j->d;

    for (int64_t i = from; i < to; i++) {
        const float *x = j->x + i * j->d;
        float *y = j->y + i * j->d;
        double mean = 0;
        for (size_t e = 0; e < d; e++)
            mean += (double)x[e];
        mean /= (double)d;
        for (size_t e = 0; e < d; e++)
            y[e] = (float)((double)x[e] - mean);
        float s = (float)(1.0 / sqrt(j->cpu->k->sumsq(y, d) / (double)d + j->eps));
        for (size_t e = 0; e < d; e++)
            y[e] = y[e] * s * j->w[e] + (j->b != NULL ? j->b[e] : 0.0f);
    }
}

mt_status mt_cpu_layernorm(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x, int64_t m,
                           const struct mt_weight *w, const struct mt_weight *b, double eps)
{
    struct rows_job j = {.cpu = cpu_self(dev),
                         .fn = rows_layernorm,
                         .n = m,
                         .d = w->cols,
                         .y = y,
                         .x = x,
                         .w = w->direct,
                         .b = b != NULL ? b->direct : NULL,
                         .eps = eps};

    mt_assert(w->rows == 1 && (b == NULL || b->rows == 1));
    return rows_run(ctx, &j, j.d);
}

static void rows_act_mul(const struct rows_job *j, int64_t from, int64_t to)
{
    j->cpu->k->act_mul((enum mt_act)j->act, j->y + from, j->x + from,
                       j->w != NULL ? j->w + from : NULL, (size_t)(to - from));
}

mt_status mt_cpu_act_mul(struct mt_ctx *ctx, struct mt_device *dev, int act, mt_buf h, mt_buf g,
                         mt_buf u, size_t n)
{
    struct rows_job j = {.cpu = cpu_self(dev),
                         .fn = rows_act_mul,
                         .n = (int64_t)n,
                         .y = h,
                         .x = g,
                         .w = u,
                         .act = act};

    return rows_run(ctx, &j, 1);
}

static void rows_gather(const struct rows_job *j, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        memcpy(j->y + i * j->d, j->x + j->index[i] * j->d, (size_t)j->d * sizeof(float));
}

mt_status mt_cpu_gather_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                             int64_t n, int64_t d, const int32_t *idx)
{
    struct rows_job j = {
        .cpu = cpu_self(dev), .fn = rows_gather, .n = n, .d = d, .y = y, .x = x, .index = idx};

    return rows_run(ctx, &j, d);
}

static void rows_combine(const struct rows_job *j, int64_t from, int64_t to)
{
    for (int64_t i = from * j->k; i < to * j->k; i++)
        if (j->index[i] >= 0)
            j->cpu->k->axpy(j->y + i / j->k * j->d, (float)j->factor[i], j->x + j->index[i] * j->d,
                            (size_t)j->d);
}

mt_status mt_cpu_combine_rows(struct mt_ctx *ctx, struct mt_device *dev, mt_buf y, mt_buf x,
                              int64_t m, int k, int64_t d, const int32_t *row, const double *w)
{
    struct rows_job j = {.cpu = cpu_self(dev),
                         .fn = rows_combine,
                         .n = m,
                         .d = d,
                         .k = k,
                         .y = y,
                         .x = x,
                         .index = row,
                         .factor = w};

    return rows_run(ctx, &j, d * k);
}

void mt_cpu_angles_free(struct cpu_angles *a)
{
    mt_free(a->pos);
    mt_free(a->inv_freq);
    mt_free(a->cos);
    mt_free(a->sin);
    *a = (struct cpu_angles){0};
}

static mt_status rows_angles_room(struct mt_ctx *ctx, struct cpu_angles *a, int n, int rot_dim)
{
    size_t half = (size_t)rot_dim / 2;

    a->n = 0;
    if (n <= a->n_max && rot_dim <= a->rot_dim_max)
        return MT_OK;
    mt_cpu_angles_free(a);
    MT_TRY(mt_alloc(ctx, (size_t)n, sizeof *a->pos, "positions", &a->pos));
    MT_TRY(mt_alloc(ctx, half, sizeof *a->inv_freq, "frequencies", &a->inv_freq));
    MT_TRY(mt_alloc(ctx, (size_t)n * half, sizeof *a->cos, "rotary angles", &a->cos));
    MT_TRY(mt_alloc(ctx, (size_t)n * half, sizeof *a->sin, "rotary angles", &a->sin));
    a->n_max = n;
    a->rot_dim_max = rot_dim;
    return MT_OK;
}

static mt_status rows_angles_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    struct cpu_angles *a = arg;
    int half = a->rot_dim / 2;

    (void)ctx;
    for (int64_t t = i * 64; t < cpu_min(a->n, (i + 1) * 64); t++) {
        for (int e = 0; e < half; e++) {
            double angle = (double)a->pos[t] * a->inv_freq[e];
            a->cos[t * half + e] = (float)(cos(angle) * a->amplitude);
            a->sin[t * half + e] = (float)(sin(angle) * a->amplitude);
        }
    }
    return MT_OK;
}

/* The table for these positions; the one at hand when it is the same. */
static mt_status rows_angles(struct mt_ctx *ctx, struct cpu_angles *a, int n, const int32_t *pos,
                             const struct mt_rope *r)
{
    size_t freq_bytes = (size_t)(r->rot_dim / 2) * sizeof *a->inv_freq;

    if (a->n >= n && a->rot_dim == r->rot_dim && !(a->amplitude < r->amplitude) &&
        !(a->amplitude > r->amplitude) && memcmp(a->inv_freq, r->inv_freq, freq_bytes) == 0 &&
        memcmp(a->pos, pos, (size_t)n * sizeof *pos) == 0)
        return MT_OK;
    MT_TRY(rows_angles_room(ctx, a, n, r->rot_dim));
    memcpy(a->pos, pos, (size_t)n * sizeof *pos);
    memcpy(a->inv_freq, r->inv_freq, freq_bytes);
    a->rot_dim = r->rot_dim;
    a->amplitude = r->amplitude;
    a->n = n;
    return mt_pool_run(ctx, cpu_tiles(n, 64), rows_angles_job, a);
}

static void rows_rotate(float *h, const float *c, const float *s, int half, bool half_split)
{
    int step = half_split ? 1 : 2, apart = half_split ? half : 1;

    for (int e = 0; e < half; e++) {
        float a = h[e * step], b = h[e * step + apart];
        h[e * step] = a * c[e] - b * s[e];
        h[e * step + apart] = b * c[e] + a * s[e];
    }
}

/* d: head_dim; k: heads of a token. */
static void rows_rope(const struct rows_job *j, int64_t from, int64_t to)
{
    const struct cpu_angles *a = &j->cpu->angles;
    int half = a->rot_dim / 2;

    for (int64_t t = from; t < to; t++)
        for (int h = 0; h < j->k; h++)
            rows_rotate(j->y + (t * j->k + h) * j->d, a->cos + t * half, a->sin + t * half, half,
                        j->half_split);
}

mt_status mt_cpu_rope(struct mt_ctx *ctx, struct mt_device *dev, mt_buf x, int64_t m, int n_heads,
                      int head_dim, const int32_t *pos, const struct mt_rope *r)
{
    struct rows_job j = {.cpu = cpu_self(dev),
                         .fn = rows_rope,
                         .d = head_dim,
                         .k = n_heads,
                         .half_split = r->half_split};

    for (int64_t t = 0; t < m; t += ROWS_POSITIONS) {
        j.n = cpu_min(ROWS_POSITIONS, m - t);
        j.y = (float *)x + t * n_heads * head_dim;
        MT_TRY(rows_angles(ctx, &j.cpu->angles, (int)j.n, pos + t, r));
        MT_TRY(rows_run(ctx, &j, (int64_t)n_heads * head_dim));
    }
    return MT_OK;
}
