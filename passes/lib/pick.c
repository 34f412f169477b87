#include "passes/lib/pick.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/run/runner.h"

#include <string.h>

#define PICK_ROWS 64 /* tokens per job */

struct pick_run {
    const struct mt_pick *p;
    int64_t m;
    const float *logits; /* [m, n] */
    unsigned char *picked;
    unsigned char *scratch; /* [threads] of pick_scratch_bytes */
};

static size_t pick_scratch_bytes(int n)
{
    /* Each worker's part starts where doubles may stand. */
    return ((size_t)n * (3 * sizeof(double) + sizeof(int32_t)) + 63) / 64 * 64;
}

static mt_status pick_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct pick_run *r = arg;
    const struct mt_pick *p = r->p;
    double *logits = (void *)(r->scratch + (size_t)mt_pool_worker() * pick_scratch_bytes(p->n));
    double *weight = logits + p->n, *bias = weight + p->n;
    int32_t *expert = (void *)(bias + p->n);

    (void)ctx;
    for (int e = 0; p->bias != NULL && e < p->n; e++)
        bias[e] = (double)p->bias[e];
    for (int64_t t = job * PICK_ROWS; t < r->m && t < (job + 1) * PICK_ROWS; t++) {
        for (int e = 0; e < p->n; e++)
            logits[e] = (double)r->logits[t * p->n + e];
        mt_router_apply(p->rule, logits, p->bias != NULL ? bias : NULL, p->n, p->k, expert, weight);
        memset(r->picked + t * p->n, 0, (size_t)p->n);
        for (int i = 0; i < p->k; i++)
            if (expert[i] >= 0)
                r->picked[t * p->n + expert[i]] = 1;
    }
    return MT_OK;
}

mt_status mt_pick_experts(struct mt_ctx *ctx, const struct mt_pick *p, int64_t m,
                          const float *logits, unsigned char *picked)
{
    struct pick_run r = {.p = p, .m = m, .logits = logits, .picked = picked};

    MT_TRY(mt_alloc(ctx, (size_t)mt_ctx_threads(ctx), pick_scratch_bytes(p->n), "choices",
                    &r.scratch));
    mt_status st = mt_pool_run(ctx, (m + PICK_ROWS - 1) / PICK_ROWS, pick_job, &r);
    mt_free(r.scratch);
    return st;
}

mt_status mt_pick_linear(struct mt_ctx *ctx, const struct mt_pick *p, int64_t d, const float *w,
                         int64_t m, const float *x, unsigned char *picked)
{
    float *logits;

    MT_TRY(mt_alloc(ctx, (size_t)m, (size_t)p->n * sizeof(*logits), "logits", &logits));
    mt_status st = mt_gemm_nt(ctx, m, p->n, d, 1, x, d, w, d, 0, logits, p->n);
    if (st == MT_OK)
        st = mt_pick_experts(ctx, p, m, logits, picked);
    mt_free(logits);
    return st;
}
