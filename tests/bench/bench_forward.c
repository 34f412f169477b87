/* The forward pass against BLAS at its best. usage: bench_forward MODEL [rounds] [device]
 *
 * Batches of 512 tokens, one sequence each, go through the model layer by layer as `eval` has them
 * do: a layer is opened once for all batches, logits are made of all tokens. Counted are the
 * products of the weight matrices alone, so attention's own products and everything else are
 * overhead. Yardstick and forward pass take turns (yardstick.h). make_model.py makes a MODEL of
 * random weights: --gib 0.3 --hidden 1024 --width 4096 has 0.1 billion parameters.
 */
#include "formats/table.h"
#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/flow/format.h"
#include "lib/run/runner.h"
#include "tests/bench/yardstick.h"

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 512, BATCHES = 8, ROUNDS_MAX = 101, HEAD_TOKENS = 128 };

struct forward {
    struct mt_runner *r;
    mt_buf x[BATCHES], n, y;
    float *logits; /* [HEAD_TOKENS, vocab] */
    int32_t ids[TOKENS];
};

/* Multiply-adds per token times two. */
static double flops_per_token(const struct mt_model *m)
{
    double n = 0;

    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        if (t->rank == 2 && t->role.kind != MT_ROLE_EMBED &&
            (t->role.expert < 0 || m->ffn[t->role.layer].n_experts == 0))
            n += (double)mt_tensor_count(t);
    }
    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        if (f->moe)
            n += 3.0 * (double)mt_ffn_active_width(f) * (double)m->hp.hidden;
    }
    return 2 * n;
}

static mt_status forward_open(struct mt_ctx *ctx, struct forward *f, const struct mt_model *m,
                              struct mt_device *dev)
{
    size_t n = (size_t)TOKENS * (size_t)m->hp.hidden;

    for (int i = 0; i < TOKENS; i++)
        f->ids[i] = (int32_t)((int64_t)i * 7919 % m->hp.vocab);
    MT_TRY(mt_runner_open(ctx, m, dev, &f->r));
    for (int b = 0; b < BATCHES; b++)
        MT_TRY(dev->ops->alloc(ctx, dev, n, &f->x[b]));
    MT_TRY(dev->ops->alloc(ctx, dev, n, &f->n));
    MT_TRY(dev->ops->alloc(ctx, dev, n, &f->y));
    return mt_alloc(ctx, (size_t)m->hp.vocab, HEAD_TOKENS * sizeof(float), "logits", &f->logits);
}

static void forward_close(struct forward *f, struct mt_device *dev)
{
    for (int b = 0; b < BATCHES; b++)
        dev->ops->release(dev, f->x[b]);
    dev->ops->release(dev, f->n);
    dev->ops->release(dev, f->y);
    mt_free(f->logits);
    mt_runner_close(f->r);
}

static mt_status forward_layer(struct mt_ctx *ctx, struct forward *f, int layer)
{
    const int32_t len = TOKENS;
    const struct mt_seqs seqs = {1, &len};
    struct mt_run_layer *l;
    mt_status st = MT_OK;

    MT_TRY(mt_run_layer_open(ctx, f->r, layer, &l));
    for (int b = 0; b < BATCHES && st == MT_OK; b++) {
        st = mt_run_attn(ctx, l, f->x[b], &seqs, NULL);
        if (st == MT_OK)
            st = mt_run_ffn_norm(ctx, l, f->x[b], TOKENS, f->n);
        if (st == MT_OK)
            st = mt_run_ffn(ctx, l, f->n, TOKENS, f->y, NULL);
        if (st == MT_OK)
            st = mt_run_add(ctx, f->r, f->x[b], f->y, TOKENS);
    }
    mt_run_layer_close(l);
    return st;
}

/* The head takes a batch in pieces, as its logits are many. */
static mt_status forward_head(struct mt_ctx *ctx, struct forward *f, mt_buf x)
{
    const struct mt_model *m = mt_runner_model(f->r);
    struct mt_device *dev = mt_runner_device(f->r);
    float *host;
    mt_status st;

    MT_TRY(mt_alloc(ctx, (size_t)TOKENS * (size_t)m->hp.hidden, sizeof *host, "states", &host));
    st = dev->ops->download(ctx, dev, host, x, (size_t)TOKENS * (size_t)m->hp.hidden);
    for (int at = 0; at < TOKENS && st == MT_OK; at += HEAD_TOKENS) {
        size_t n = (size_t)HEAD_TOKENS * (size_t)m->hp.hidden;
        st = dev->ops->upload(ctx, dev, f->n, host + (size_t)at * (size_t)m->hp.hidden, n);
        if (st == MT_OK)
            st = mt_run_head(ctx, f->r, f->n, HEAD_TOKENS, f->logits);
    }
    mt_free(host);
    return st;
}

static mt_status forward_run(struct mt_ctx *ctx, struct forward *f, double *wall, double *cpu)
{
    const struct mt_model *m = mt_runner_model(f->r);
    double flops = flops_per_token(m) * TOKENS * BATCHES / 1e9;
    double start = bench_seconds(CLOCK_MONOTONIC);
    double cpu_start = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);

    for (int b = 0; b < BATCHES; b++)
        MT_TRY(mt_run_embed(ctx, f->r, f->ids, TOKENS, f->x[b]));
    for (int l = 0; l < m->hp.n_layers; l++)
        MT_TRY(forward_layer(ctx, f, l));
    for (int b = 0; b < BATCHES; b++)
        MT_TRY(forward_head(ctx, f, f->x[b]));
    *wall = flops / (bench_seconds(CLOCK_MONOTONIC) - start);
    *cpu = flops / (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start);
    return MT_OK;
}

static mt_status bench(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                       int rounds)
{
    double peak[ROUNDS_MAX], peak_cpu[ROUNDS_MAX], run[ROUNDS_MAX], run_cpu[ROUNDS_MAX];
    struct bench_peak p = {0};
    struct forward f = {0};
    mt_status st = bench_peak_open(ctx, &p);

    if (st == MT_OK)
        st = forward_open(ctx, &f, m, dev);
    for (int i = 0; i < rounds && st == MT_OK; i++) {
        st = bench_peak_run(ctx, &p, &peak[i], &peak_cpu[i]);
        if (st == MT_OK)
            st = forward_run(ctx, &f, &run[i], &run_cpu[i]);
    }
    if (st == MT_OK) {
        double a = bench_median(peak, rounds), b = bench_median(run, rounds);
        double c = bench_median(peak_cpu, rounds), d = bench_median(run_cpu, rounds);
        printf("%s, %s, %s, %d threads, %d rounds of %d x %d tokens\n", dev->name, mt_blas_core(),
               mt_kernels_get()->isa, mt_ctx_threads(ctx), rounds, BATCHES, TOKENS);
        printf("sgemm 4096^3 on every thread   %8.1f GFLOP/s, %.1f per CPU second\n", a, c);
        printf(
            "forward pass                   %8.1f GFLOP/s, %.1f per CPU second: %.0f %%, %.0f %%\n",
            b, d, 100 * b / a, 100 * d / c);
        printf("tokens per second              %8.0f\n", b * 1e9 / flops_per_token(m));
    }
    forward_close(&f, dev);
    bench_peak_close(&p);
    return st;
}

int main(int argc, char **argv)
{
    struct mt_ctx_opts o = {0};
    struct mt_ctx ctx;
    struct mt_model *m = NULL;
    struct mt_device *dev = NULL;
    int rounds = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 5;

    if (argc < 2) {
        printf("usage: %s MODEL [rounds] [device]\n", argv[0]);
        return 0;
    }
    mt_blas_prepare(argc, argv);
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    if (mt_ctx_open(&ctx, &o) != MT_OK)
        return 1;
    mt_status st = mt_model_open(&ctx, mt_formats, argv[1], &m);
    if (st == MT_OK)
        st = mt_device_open(&ctx, argc > 3 ? argv[3] : "cpu", &dev);
    if (st == MT_OK)
        st = bench(&ctx, m, dev, rounds);
    if (st != MT_OK)
        printf("%s\n", mt_error(&ctx));
    if (dev != NULL)
        mt_device_close(dev);
    mt_model_free(m);
    mt_ctx_close(&ctx);
    return st != MT_OK;
}
