/* yardstick.h: what the speed benches measure against: cblas_sgemm of 4096^3, one single-threaded
 * call per thread at the same time. Beside wall time stands processor time, which other people's
 * work disturbs less.
 */
#ifndef MT_TESTS_BENCH_YARDSTICK_H
#define MT_TESTS_BENCH_YARDSTICK_H

#include "lib/base/ctx.h"

#include <stddef.h>
#include <time.h>

double bench_seconds(clockid_t clock);
/* The middle one; v is sorted. */
double bench_median(double *v, int n);
/* n numbers within -0.5 .. 0.5, the same ones always; from malloc, NULL without memory. */
float *bench_noise(size_t n);

struct bench_peak {
    float *a, *c;
};
MT_NODISCARD mt_status bench_peak_open(struct mt_ctx *ctx, struct bench_peak *p);
void bench_peak_close(struct bench_peak *p);
/* GFLOP/s by the clock and per second of one processor. */
MT_NODISCARD mt_status bench_peak_run(struct mt_ctx *ctx, const struct bench_peak *p, double *wall,
                                      double *cpu);
#endif
