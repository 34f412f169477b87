/* How near a device's product comes to BLAS at its best. usage: bench_gemm [rounds] [device]
 *
 * Device products and yardstick take turns within a round, so that a disturbed machine disturbs
 * both; the median over the rounds is printed, with the ratio of medians (yardstick.h).
 */
#include "kernels/device.h"
#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/ctx.h"
#include "lib/base/mem.h"
#include "tests/bench/yardstick.h"

#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS_MAX = 101 };

struct bench_case {
    int m, k, n;
    enum mt_dtype t;
    double gflops[ROUNDS_MAX];
    double per_cpu_second[ROUNDS_MAX];
    void *stored;
    struct mt_weight *w;
};

static struct bench_case cases[] = {
    {.m = 512, .k = 768, .n = 3072, .t = MT_F32},   {.m = 512, .k = 768, .n = 3072, .t = MT_BF16},
    {.m = 512, .k = 3072, .n = 768, .t = MT_BF16},  {.m = 512, .k = 2048, .n = 8192, .t = MT_F32},
    {.m = 512, .k = 2048, .n = 8192, .t = MT_BF16}, {.m = 512, .k = 8192, .n = 2048, .t = MT_BF16},
    {.m = 32, .k = 2048, .n = 8192, .t = MT_BF16},  {.m = 1, .k = 2048, .n = 8192, .t = MT_BF16},
};
enum { N_CASES = sizeof cases / sizeof cases[0] };

/* Downloads wait for what was queued before them, on devices that queue. */
static mt_status bench_case(struct mt_ctx *ctx, struct mt_device *dev, struct bench_case *b,
                            int round, mt_buf x, mt_buf y)
{
    double flops = 2.0 * b->m * b->n * b->k / 1e9;
    int times = (int)(20 / flops) + 1;
    float done;

    times = times > 200 ? 200 : times;
    MT_TRY(dev->ops->gemm(ctx, dev, y, x, b->m, b->w, false));
    MT_TRY(dev->ops->download(ctx, dev, &done, y, 1));
    double start = bench_seconds(CLOCK_MONOTONIC),
           cpu_start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int r = 0; r < times; r++)
        MT_TRY(dev->ops->gemm(ctx, dev, y, x, b->m, b->w, false));
    MT_TRY(dev->ops->download(ctx, dev, &done, y, 1));
    b->gflops[round] = flops * times / (bench_seconds(CLOCK_MONOTONIC) - start);
    b->per_cpu_second[round] =
        flops * times / (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
    return MT_OK;
}

static mt_status bench_open(struct mt_ctx *ctx, struct mt_device *dev, mt_buf *x, mt_buf *y)
{
    size_t n = 512 * 8192;
    float *f = bench_noise(n > 2048u * 8192u ? n : 2048u * 8192u);

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

static void report(struct mt_ctx *ctx, struct mt_device *dev, int rounds, double *peaks,
                   double *cpu_peaks)
{
    double peak = bench_median(peaks, rounds), cpu_peak = bench_median(cpu_peaks, rounds);

    printf("%s, %s, %s, %d threads, %d rounds\n", dev->name, mt_blas_core(), mt_kernels_get()->isa,
           mt_ctx_threads(ctx), rounds);
    printf("%-36s %9s %6s %13s %6s\n", "", "GFLOP/s", "", "per CPU s", "");
    printf("%-36s %9.1f %6s %13.1f\n", "sgemm 4096^3 on every thread", peak, "", cpu_peak);
    for (int i = 0; i < N_CASES; i++) {
        struct bench_case *b = &cases[i];
        double g = bench_median(b->gflops, rounds), c = bench_median(b->per_cpu_second, rounds);
        printf("[%4d, %4d] x [%4d, %4d] %-9s %9.1f %4.0f %% %13.1f %4.0f %%\n", b->m, b->k, b->k,
               b->n, mt_dtype_name(b->t), g, 100 * g / peak, c, 100 * c / cpu_peak);
        dev->ops->weight_free(dev, b->w);
        free(b->stored);
    }
}

int main(int argc, char **argv)
{
    struct mt_ctx_opts o = {0};
    struct mt_ctx ctx;
    struct mt_device *dev = NULL;
    double peaks[ROUNDS_MAX], cpu_peaks[ROUNDS_MAX];
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 5;
    mt_buf x = NULL, y = NULL;

    mt_blas_prepare(argc, argv);
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    if (mt_ctx_open(&ctx, &o) != MT_OK)
        return 1;
    struct bench_peak p;
    mt_status st = bench_peak_open(&ctx, &p);
    if (st == MT_OK)
        st = mt_device_open(&ctx, argc > 2 ? argv[2] : "cpu", &dev);
    if (st == MT_OK)
        st = bench_open(&ctx, dev, &x, &y);
    for (int r = 0; st == MT_OK && r < rounds; r++) {
        st = bench_peak_run(&ctx, &p, &peaks[r], &cpu_peaks[r]);
        for (int i = 0; st == MT_OK && i < N_CASES; i++)
            st = bench_case(&ctx, dev, &cases[i], r, x, y);
    }
    if (st == MT_OK)
        report(&ctx, dev, rounds, peaks, cpu_peaks);
    else
        printf("%s\n", mt_error(&ctx));
    if (dev != NULL) {
        dev->ops->release(dev, x);
        dev->ops->release(dev, y);
        mt_device_close(dev);
    }
    bench_peak_close(&p);
    mt_ctx_close(&ctx);
    return st != MT_OK;
}
