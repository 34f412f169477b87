#include "tests/bench/yardstick.h"

#include "lib/base/pool.h"

#include <cblas.h>
#include <stdint.h>
#include <stdlib.h>

enum { PEAK = 4096 };

double bench_seconds(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double bench_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

float *bench_noise(size_t n)
{
    float *x = malloc(n * sizeof *x);
    uint32_t s = 1;

    for (size_t i = 0; x != NULL && i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) * 0x1p-24f - 0.5f;
    }
    return x;
}

mt_status bench_peak_open(struct mt_ctx *ctx, struct bench_peak *p)
{
    p->a = bench_noise((size_t)PEAK * PEAK);
    p->c = bench_noise((size_t)mt_ctx_threads(ctx) * PEAK * PEAK);
    return p->a != NULL && p->c != NULL ? MT_OK
                                        : mt_fail(ctx, MT_E_NOMEM, "no memory for the yardstick");
}

void bench_peak_close(struct bench_peak *p)
{
    free(p->a);
    free(p->c);
}

/* Every worker multiplies into a c of its own. */
static mt_status peak_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct bench_peak *p = arg;

    (void)ctx;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, PEAK, PEAK, PEAK, 1.0f, p->a, PEAK, p->a,
                PEAK, 0.0f, p->c + i * PEAK * PEAK, PEAK);
    return MT_OK;
}

mt_status bench_peak_run(struct mt_ctx *ctx, const struct bench_peak *p, double *wall, double *cpu)
{
    double flops = 2.0 * PEAK * PEAK * PEAK * mt_ctx_threads(ctx) / 1e9;
    double start = bench_seconds(CLOCK_MONOTONIC);
    double cpu_start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);

    MT_TRY(mt_pool_run(ctx, mt_ctx_threads(ctx), peak_job, (void *)p));
    *wall = flops / (bench_seconds(CLOCK_MONOTONIC) - start);
    *cpu = flops / (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
    return MT_OK;
}
