/* How near the cpu device's product comes to BLAS at its best. usage: bench_gemm [rounds]
 *
 * The yardstick is cblas_sgemm of 4096^3, one single-threaded call per thread at the same time.
 * Device products and yardstick take turns within a round, so that a disturbed machine disturbs
 * both; the median over the rounds is printed, with the ratio of medians.
 */
#include "kernels/device.h"
#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/ctx.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PEAK = 4096, ROUNDS_MAX = 101 };

struct bench_case {
    int m, k, n;
    enum mt_dtype t;
    double gflops[ROUNDS_MAX];
    void *stored;
    struct mt_weight *w;
};

static struct bench_case cases[] = {
    {512, 768, 3072, MT_F32, {0}, NULL, NULL},   {512, 768, 3072, MT_BF16, {0}, NULL, NULL},
    {512, 3072, 768, MT_BF16, {0}, NULL, NULL},  {512, 2048, 8192, MT_F32, {0}, NULL, NULL},
    {512, 2048, 8192, MT_BF16, {0}, NULL, NULL}, {512, 8192, 2048, MT_BF16, {0}, NULL, NULL},
    {32, 2048, 8192, MT_BF16, {0}, NULL, NULL},  {1, 2048, 8192, MT_BF16, {0}, NULL, NULL},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[n / 2];
}

static float *noise(size_t n)
{
    float *x = malloc(n * sizeof *x);
    uint32_t s = 1;

    for (size_t i = 0; x != NULL && i < n; i++) {
        s = s * 1664525u + 1013904223u;
        x[i] = (float)(s >> 8) * 0x1p-24f - 0.5f;
    }
    return x;
}

struct peak {
    const float *a;
    float *c;
};

/* Every worker multiplies into a c of its own. */
static mt_status peak_job(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct peak *p = arg;

    (void)ctx;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, PEAK, PEAK, PEAK, 1.0f, p->a, PEAK, p->a,
                PEAK, 0.0f, p->c + i * PEAK * PEAK, PEAK);
    return MT_OK;
}

static mt_status bench_round(struct mt_ctx *ctx, struct mt_device *dev, int round, mt_buf x,
                             mt_buf y, const struct peak *p, double *peak)
{
    int threads = mt_ctx_threads(ctx);
    double start = seconds();

    MT_TRY(mt_pool_run(ctx, threads, peak_job, (void *)p));
    *peak = 2.0 * PEAK * PEAK * PEAK * threads / (seconds() - start) / 1e9;
    for (int i = 0; i < N_CASES; i++) {
        struct bench_case *b = &cases[i];
        double flops = 2.0 * b->m * b->n * b->k;
        int times = (int)(2e10 / flops) + 1;
        times = times > 200 ? 200 : times;
        MT_TRY(dev->ops->gemm(ctx, dev, y, x, b->m, b->w, false));
        start = seconds();
        for (int r = 0; r < times; r++)
            MT_TRY(dev->ops->gemm(ctx, dev, y, x, b->m, b->w, false));
        b->gflops[round] = flops * times / (seconds() - start) / 1e9;
    }
    return MT_OK;
}

static mt_status bench_open(struct mt_ctx *ctx, struct mt_device *dev, mt_buf *x, mt_buf *y)
{
    size_t n = 512 * 8192;
    float *f = noise(n > 2048u * 8192u ? n : 2048u * 8192u);

    if (f == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "no memory for the operands");
    MT_TRY(dev->ops->alloc(ctx, dev, n, x));
    MT_TRY(dev->ops->alloc(ctx, dev, n, y));
    MT_TRY(dev->ops->upload(ctx, dev, *x, f, n));
    for (int i = 0; i < N_CASES; i++) {
        struct bench_case *b = &cases[i];
        size_t elems = (size_t)b->n * (size_t)b->k;
        b->stored = malloc(elems * 4);
        mt_kernels_get()->from_f32(b->t, f, b->stored, elems);
        MT_TRY(dev->ops->weight_load(ctx, dev, b->t, b->n, b->k, b->stored, &b->w));
    }
    free(f);
    return MT_OK;
}

int main(int argc, char **argv)
{
    struct mt_ctx_opts o = {0};
    struct mt_ctx ctx;
    struct mt_device *dev = NULL;
    double peaks[ROUNDS_MAX];
    int rounds = argc > 1 ? atoi(argv[1]) : 5;
    mt_buf x = NULL, y = NULL;

    mt_blas_prepare(argc, argv);
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    if (mt_ctx_open(&ctx, &o) != MT_OK)
        return 1;
    int threads = mt_ctx_threads(&ctx);
    struct peak p = {noise((size_t)PEAK * PEAK), noise((size_t)threads * PEAK * PEAK)};
    mt_status st = mt_device_open(&ctx, "cpu", &dev);
    if (st == MT_OK)
        st = bench_open(&ctx, dev, &x, &y);
    for (int r = 0; st == MT_OK && r < rounds; r++)
        st = bench_round(&ctx, dev, r, x, y, &p, &peaks[r]);
    if (st != MT_OK) {
        printf("%s\n", mt_error(&ctx));
        return 1;
    }
    double peak = median(peaks, rounds);
    printf("%s, %s, %d threads, %d rounds\n", mt_blas_core(), mt_kernels_get()->isa, threads,
           rounds);
    printf("sgemm 4096^3 on every thread      %7.1f GFLOP/s\n", peak);
    for (int i = 0; i < N_CASES; i++) {
        struct bench_case *b = &cases[i];
        double g = median(b->gflops, rounds);
        printf("[%4d, %4d] x [%4d, %4d] %-5s %7.1f GFLOP/s  %3.0f %%", b->m, b->k, b->k, b->n,
               mt_dtype_name(b->t), g, 100 * g / peak);
        printf("  %6.1f GB/s of weights\n", g / 2 / b->m * (mt_dtype_bits(b->t) / 8));
        dev->ops->weight_free(dev, b->w);
        free(b->stored);
    }
    dev->ops->release(dev, x);
    dev->ops->release(dev, y);
    mt_device_close(dev);
    mt_ctx_close(&ctx);
    free((void *)p.a);
    free(p.c);
    return 0;
}
