/* What training a layer's experts costs, with masks and with tokens gathered. usage: bench_refit
 * [rounds] [hidden] [width]
 *
 * One batch of 512 tokens through the FFN and back, and Adam's step, on one thread. Both ways take
 * turns within a round; medians of processor time are printed. "useful" counts the products that
 * choices ask for, "made" those that are made: the same when tokens are gathered.
 */
#include "kernels/linalg.h"
#include "lib/base/ctx.h"
#include "lib/base/mem.h"
#include "lib/train/adam.h"
#include "passes/lib/local_grad.h"
#include "tests/bench/yardstick.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS_MAX = 31, TOKENS = 512, WAYS = 2 };

struct bench_case {
    int n_experts, percent;
};
static const struct bench_case cases[] = {{8, 25},   {8, 50},   {8, 75},   {16, 25}, {16, 50},
                                          {16, 75},  {32, 75},  {64, 25},  {64, 50}, {64, 75},
                                          {128, 25}, {128, 50}, {256, 25}, {256, 50}};
enum { N_CASES = sizeof cases / sizeof cases[0] };

struct bench {
    struct mt_local_shape shape;
    struct mt_local_weights w;
    struct mt_local_batch batch;
    struct mt_adam adam[MT_LOCAL_PARTS];
    double adam_seconds;
    int64_t picks;
};

static mt_status bench_step(struct mt_ctx *ctx, void *arg, enum mt_local_part part,
                            const float *grad)
{
    struct bench *b = arg;
    double start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    struct mt_adam *a = &b->adam[part];
    struct mt_adam_step by = mt_adam_next(a);

    (void)ctx;
    mt_kernels_get()->adam(&by, mt_local_part(&b->w, part), a->m1, a->m2, grad, (size_t)a->n);
    b->adam_seconds += bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - start;
    return MT_OK;
}

static mt_status bench_open(struct mt_ctx *ctx, const struct bench_case *c, int64_t hidden,
                            int64_t width, enum mt_local_way way, struct bench *b)
{
    int k = c->n_experts * c->percent / 100;

    *b = (struct bench){.shape = {.hidden = hidden,
                                  .expert_width = width / c->n_experts,
                                  .n_experts = c->n_experts,
                                  .gated = true,
                                  .act = MT_ACT_SILU,
                                  .way = way}};
    MT_TRY(mt_alloc(ctx, (size_t)width, (size_t)hidden * sizeof(float), "gate", &b->w.gate));
    MT_TRY(mt_alloc(ctx, (size_t)width, (size_t)hidden * sizeof(float), "up", &b->w.up));
    MT_TRY(mt_alloc(ctx, (size_t)width, (size_t)hidden * sizeof(float), "down", &b->w.down));
    for (int part = 0; part < MT_LOCAL_PARTS; part++)
        if (mt_local_part(&b->w, part) != NULL)
            MT_TRY(mt_adam_open(ctx, width * hidden, 1e-6, &b->adam[part]));
    MT_TRY(mt_local_batch_open(ctx, &b->shape, TOKENS, &b->batch));
    b->batch.m = TOKENS;
    int64_t n = (width > TOKENS ? width : TOKENS) * hidden;
    float *noise = bench_noise((size_t)n);
    if (noise == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "no memory for the weights");
    for (int part = 0; part < MT_LOCAL_PARTS; part++)
        if (mt_local_part(&b->w, part) != NULL)
            memcpy(mt_local_part(&b->w, part), noise, (size_t)(width * hidden) * sizeof(float));
    memcpy(b->batch.x, noise, TOKENS * (size_t)hidden * sizeof(float));
    free(noise);
    /* Every token has k experts, at places that jump about. */
    memset(b->batch.picked, 0, TOKENS * (size_t)c->n_experts);
    for (int t = 0; t < TOKENS; t++)
        for (int i = 0; i < k; i++)
            b->batch.picked[t * c->n_experts + (t * 7 + i * 5) % c->n_experts] = 1;
    for (int i = 0; i < TOKENS * c->n_experts; i++)
        b->picks += b->batch.picked[i];
    return MT_OK;
}

static void bench_close(struct bench *b)
{
    for (int part = 0; part < MT_LOCAL_PARTS; part++)
        mt_adam_close(&b->adam[part]);
    mt_local_batch_close(&b->batch);
    mt_local_weights_free(&b->w);
}

/* Seconds of the products, and of Adam, of a batch. */
static mt_status bench_run(struct mt_ctx *ctx, struct bench *b, double *products, double *adam)
{
    mt_assert(b->batch.y != NULL);
    memset(b->batch.y, 0, TOKENS * (size_t)b->shape.hidden * sizeof(float));
    b->adam_seconds = 0;
    double start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    MT_TRY(mt_local_forward(ctx, &b->batch, &b->w));
    MT_TRY(mt_local_backward(ctx, &b->batch, &b->w, 1e-6, bench_step, b));
    *products = bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - start - b->adam_seconds;
    *adam = b->adam_seconds;
    return MT_OK;
}

static mt_status bench_case(struct mt_ctx *ctx, const struct bench_case *c, int rounds,
                            int64_t hidden, int64_t width)
{
    static const enum mt_local_way ways[WAYS] = {MT_LOCAL_MASKED, MT_LOCAL_GATHERED};
    double s[WAYS][ROUNDS_MAX], adam[WAYS][ROUNDS_MAX], t[WAYS], a[WAYS];
    struct bench b[WAYS];
    mt_status st = MT_OK;

    memset(b, 0, sizeof b);
    for (int i = 0; st == MT_OK && i < WAYS; i++)
        st = bench_open(ctx, c, hidden, width, ways[i], &b[i]);
    /* The first round warms up. */
    for (int r = -1; st == MT_OK && r < rounds; r++)
        for (int i = 0; st == MT_OK && i < WAYS; i++)
            st = bench_run(ctx, &b[i], &s[i][r < 0 ? 0 : r], &adam[i][r < 0 ? 0 : r]);
    if (st == MT_OK) {
        /* Three products forward, one back to h, three gradients. */
        double made = 14.0 * (double)(hidden * width) * TOKENS / 1e9;
        double useful = made * (double)b[0].picks / (double)(TOKENS * c->n_experts);
        for (int i = 0; i < WAYS; i++) {
            t[i] = bench_median(s[i], rounds);
            a[i] = bench_median(adam[i], rounds);
        }
        printf("%7d %6lld %4.0f %% %8.1f %8.1f %8.1f %8.1f %8.1f %7.2f %7.2f\n", c->n_experts,
               (long long)b[0].shape.expert_width, 100 * useful / made, 1e3 * t[0], 1e3 * t[1],
               1e3 * a[0], made / t[0], useful / t[1], t[0] / t[1], (t[0] + a[0]) / (t[1] + a[1]));
        fflush(stdout);
    }
    for (int i = 0; i < WAYS; i++)
        bench_close(&b[i]);
    return st;
}

int main(int argc, char **argv)
{
    struct mt_ctx ctx;
    mt_status st = MT_OK;
    int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 5;
    long hidden = argc > 2 ? strtol(argv[2], NULL, 10) : 1024;
    long width = argc > 3 ? strtol(argv[3], NULL, 10) : 4096;

    mt_blas_prepare(argc, argv);
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    if (hidden < 1 || width < 256 ||
        mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 1}) != MT_OK)
        return 1;
    printf("hidden %ld, width %ld, %d tokens, 1 thread, %s, %d rounds; ms of a batch\n", hidden,
           width, TOKENS, mt_blas_core(), rounds);
    printf("%7s %6s %6s %8s %8s %8s %8s %8s %7s %7s\n", "", "", "", "masked", "gathered", "Adam",
           "made", "useful", "", "with");
    printf("%7s %6s %6s %8s %8s %8s %8s %8s %7s %7s\n", "experts", "width", "act", "ms", "ms", "ms",
           "GFLOP/s", "GFLOP/s", "faster", "Adam");
    for (int i = 0; st == MT_OK && i < N_CASES; i++)
        st = bench_case(&ctx, &cases[i], rounds, hidden, width);
    if (st != MT_OK)
        printf("%s\n", mt_error(&ctx));
    mt_ctx_close(&ctx);
    return st != MT_OK;
}
