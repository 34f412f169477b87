#include "passes/lib/local_grad.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "passes/lib/local_act.h"
#include "passes/lib/local_gather.h"

#include <string.h>

#define GRAD_ROWS 32 /* tokens per job */
/* Gathering pays where less than 1 - 2 / sqrt(width) of the pairs of token and expert are chosen,
 * so never with 4 neurons or fewer. Measured by bench_refit (hidden 256 to 1024, AVX-512): both
 * ways take as long at 50, 55 to 62, 72 to 80, 83 to 90 and 92 % for 16, 32, 64, 128 and 256
 * neurons.
 */
#define GRAD_NARROW 4

int64_t mt_local_columns(const struct mt_local_shape *s)
{
    return s->shared + s->n_experts * s->expert_width;
}

float *mt_local_part(const struct mt_local_weights *w, enum mt_local_part part)
{
    float *const parts[MT_LOCAL_PARTS] = {w->gate, w->up, w->gate_bias, w->up_bias, w->down};

    return parts[part];
}

int64_t mt_local_part_size(const struct mt_local_shape *s, enum mt_local_part part)
{
    bool bias = part == MT_LOCAL_GATE_BIAS || part == MT_LOCAL_UP_BIAS;

    return mt_local_columns(s) * (bias ? 1 : s->hidden);
}

/* Whether batches may be gathered, for their memory. */
static bool grad_may_gather(const struct mt_local_shape *s)
{
    if (s->way != MT_LOCAL_AUTO)
        return s->way == MT_LOCAL_GATHERED;
    return s->n_experts > 0 && s->expert_width > GRAD_NARROW;
}

static bool grad_gathers(const struct mt_local_batch *b)
{
    const struct mt_local_shape *s = &b->shape;
    int64_t all = b->m * s->n_experts, picks = 0;

    if (s->way != MT_LOCAL_AUTO || !grad_may_gather(s))
        return s->way == MT_LOCAL_GATHERED;
    for (int64_t i = 0; i < all; i++)
        picks += b->picked[i] != 0;
    double idle = all > 0 ? 1 - (double)picks / (double)all : 0;
    return idle * idle * (double)s->expert_width > GRAD_NARROW;
}

/* Jobs of gathered products that get a place to work: as many as fit into a fifth part beside x, y,
 * zg, zu and h, so that memory does not hang on threads. */
static int64_t grad_slots(const struct mt_local_shape *s, int64_t size)
{
    int64_t n = size * mt_local_columns(s) / mt_local_gather_room(s, size);

    return n > 1 ? n : 1;
}

/* zg, where there is one, zu and h. */
static int grad_arrays(const struct mt_local_shape *s)
{
    return s->gated ? 3 : 2;
}

uint64_t mt_local_batch_bytes(const struct mt_local_shape *s, int64_t size)
{
    uint64_t n = (uint64_t)mt_local_columns(s), d = (uint64_t)s->hidden, m = (uint64_t)size;
    uint64_t gather = grad_may_gather(s)
                          ? ((uint64_t)s->n_experts + 1) * (8 + m * 4) +
                                (uint64_t)(grad_slots(s, size) * mt_local_gather_room(s, size)) * 4
                          : 0;

    return m * ((2 * d + (uint64_t)grad_arrays(s) * n) * 4 + (uint64_t)s->n_experts + 1) +
           n * d * 4 + gather;
}

static mt_status grad_open_gather(struct mt_ctx *ctx, struct mt_local_batch *b)
{
    size_t n = (size_t)b->shape.n_experts + 1;
    int64_t slots = grad_slots(&b->shape, b->size);

    b->n_slots = slots < mt_ctx_threads(ctx) ? (int)slots : mt_ctx_threads(ctx);
    MT_TRY(mt_alloc(ctx, (size_t)b->n_slots,
                    (size_t)mt_local_gather_room(&b->shape, b->size) * sizeof(*b->room),
                    "products of experts", &b->room));
    MT_TRY(mt_alloc(ctx, n, sizeof(*b->first), "experts' tokens", &b->first));
    return mt_alloc(ctx, n, (size_t)b->size * sizeof(*b->rows), "experts' tokens", &b->rows);
}

mt_status mt_local_batch_open(struct mt_ctx *ctx, const struct mt_local_shape *s, int64_t size,
                              struct mt_local_batch *b)
{
    int64_t n = mt_local_columns(s), d = s->hidden;

    *b = (struct mt_local_batch){.shape = *s, .n = n, .size = size};
    MT_TRY(mt_alloc(ctx, (size_t)size, (size_t)(2 * d + grad_arrays(s) * n) * sizeof(float),
                    "a batch", &b->x));
    b->y = b->x + size * d;
    b->zg = b->y + size * d;
    b->zu = s->gated ? b->zg + size * n : b->zg; /* zg is not used then */
    b->h = b->zu + size * n;
    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)d * sizeof(float), "gradient", &b->grad));
    if (grad_may_gather(s))
        MT_TRY(grad_open_gather(ctx, b));
    return mt_alloc(ctx, (size_t)size, (size_t)s->n_experts + 1, "choices", &b->picked);
}

void mt_local_batch_close(struct mt_local_batch *b)
{
    mt_free(b->x);
    mt_free(b->room);
    mt_free(b->grad);
    mt_free(b->picked);
    mt_free(b->first);
    mt_free(b->rows);
    *b = (struct mt_local_batch){0};
}

/* ---- with masks ---- */

struct grad_rows {
    const struct mt_local_batch *b;
    const struct mt_local_weights *w;
};

static mt_status grad_run_rows(struct mt_ctx *ctx, const struct mt_local_batch *b,
                               const struct mt_local_weights *w, mt_job_fn fn)
{
    struct grad_rows r = {b, w};

    return mt_pool_run(ctx, (b->m + GRAD_ROWS - 1) / GRAD_ROWS, fn, &r);
}

/* Zero in v[n] of token t what may not act for it. */
static void grad_mask(const struct mt_local_batch *b, int64_t t, float *v)
{
    const struct mt_local_shape *s = &b->shape;
    const unsigned char *picked = b->picked + t * s->n_experts;

    for (int e = 0; e < s->n_experts; e++)
        if (picked[e] == 0)
            memset(v + s->shared + e * s->expert_width, 0, (size_t)s->expert_width * sizeof(*v));
}

static mt_status grad_act_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct grad_rows *r = arg;
    const struct mt_local_batch *b = r->b;

    (void)ctx;
    for (int64_t t = job * GRAD_ROWS; t < b->m && t < (job + 1) * GRAD_ROWS; t++) {
        mt_local_act(&b->shape, r->w, 0, b->n, b->zg + t * b->n, b->zu + t * b->n, b->h + t * b->n);
        grad_mask(b, t, b->h + t * b->n);
    }
    return MT_OK;
}

static mt_status grad_back_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct grad_rows *r = arg;
    const struct mt_local_batch *b = r->b;

    (void)ctx;
    for (int64_t t = job * GRAD_ROWS; t < b->m && t < (job + 1) * GRAD_ROWS; t++) {
        grad_mask(b, t, b->h + t * b->n);
        mt_local_act_back(&b->shape, b->n, b->zg + t * b->n, b->zu + t * b->n, b->h + t * b->n);
    }
    return MT_OK;
}

/* Gradients of h take its place: that of `down` is made. */
static mt_status grad_back(struct mt_ctx *ctx, struct mt_local_batch *b,
                           const struct mt_local_weights *w, float by)
{
    int64_t d = b->shape.hidden, n = b->n;

    if (b->gathered)
        return mt_local_gather_back(ctx, b, w, by);
    MT_TRY(mt_gemm_nn(ctx, b->m, n, d, by, b->y, d, w->down, n, 0, b->h, n));
    return grad_run_rows(ctx, b, w, grad_back_job);
}

static mt_status grad_part(struct mt_ctx *ctx, struct mt_local_batch *b, enum mt_local_part part,
                           float by)
{
    bool gate = part == MT_LOCAL_GATE || part == MT_LOCAL_GATE_BIAS;
    const float *z = gate ? b->zg : b->zu;
    int64_t d = b->shape.hidden, n = b->n;

    if (b->gathered)
        return mt_local_gather_grad(ctx, b, part, by);
    if (part == MT_LOCAL_DOWN)
        return mt_gemm_tn(ctx, d, n, b->m, by, b->y, d, b->h, n, 0, b->grad, n);
    if (part == MT_LOCAL_GATE || part == MT_LOCAL_UP)
        return mt_gemm_tn(ctx, n, d, b->m, 1, z, n, b->x, d, 0, b->grad, d);
    memset(b->grad, 0, (size_t)n * sizeof(*b->grad));
    for (int64_t t = 0; t < b->m; t++)
        mt_kernels_get()->axpy(b->grad, 1, z + t * n, (size_t)n);
    return MT_OK;
}

/* ---- either way ---- */

mt_status mt_local_forward(struct mt_ctx *ctx, struct mt_local_batch *b,
                           const struct mt_local_weights *w)
{
    int64_t d = b->shape.hidden, n = b->n;

    b->gathered = grad_gathers(b);
    if (b->gathered)
        return mt_local_gather_forward(ctx, b, w);
    if (b->shape.gated)
        MT_TRY(mt_gemm_nt(ctx, b->m, n, d, 1, b->x, d, w->gate, d, 0, b->zg, n));
    MT_TRY(mt_gemm_nt(ctx, b->m, n, d, 1, b->x, d, w->up, d, 0, b->zu, n));
    MT_TRY(grad_run_rows(ctx, b, w, grad_act_job));
    return mt_gemm_nt(ctx, b->m, d, n, 1, b->h, n, w->down, n, -1, b->y, d);
}

mt_status mt_local_backward(struct mt_ctx *ctx, struct mt_local_batch *b,
                            const struct mt_local_weights *w, double by, mt_local_grad_fn fn,
                            void *arg)
{
    static const enum mt_local_part order[MT_LOCAL_PARTS] = {
        MT_LOCAL_DOWN, MT_LOCAL_GATE, MT_LOCAL_GATE_BIAS, MT_LOCAL_UP, MT_LOCAL_UP_BIAS};

    for (int i = 0; i < MT_LOCAL_PARTS; i++) {
        if (mt_local_part(w, order[i]) == NULL)
            continue;
        MT_TRY(grad_part(ctx, b, order[i], (float)by));
        /* On the way back `down` must be as it was on the way there. */
        if (order[i] == MT_LOCAL_DOWN)
            MT_TRY(grad_back(ctx, b, w, (float)by));
        MT_TRY(fn(ctx, arg, order[i], b->grad));
    }
    return MT_OK;
}
