/* Tokens per second of several models by turns. usage: bench_speed MODEL... [device=cpu]
 *
 * One step of 1 and of 64 sequences, as generating has them: every layer is open all the time, each
 * sequence brings one token, logits are made of all. The tokens have no past, so attention costs
 * nothing but its products; ids differ from step to step, so that routers choose afresh.
 * In each of the rounds every model has its turn; medians. Beside wall time stands processor time,
 * which other people's work disturbs less.
 */
#include "formats/table.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/flow/format.h"
#include "lib/run/runner.h"
#include "tests/bench/yardstick.h"

#include <stdio.h>
#include <string.h>

enum { BATCH_MAX = 64, MODELS_MAX = 8, LAYERS_MAX = 128, ROUNDS = 9, TOKENS_ROUND = 256 };

struct speed {
    const char *name;
    struct mt_model *m;
    struct mt_runner *r;
    struct mt_run_layer *layers[LAYERS_MAX];
    mt_buf x, n, y;
    float *logits;
    double wall[ROUNDS], cpu[ROUNDS]; /* tokens per second */
};

static mt_status speed_open(struct mt_ctx *ctx, struct mt_device *dev, struct speed *s)
{
    size_t elems;

    MT_TRY(mt_model_open(ctx, mt_formats, s->name, &s->m));
    if (s->m->hp.n_layers > LAYERS_MAX)
        return mt_fail(ctx, MT_E_OPTION, "%s has more than %d layers", s->name, LAYERS_MAX);
    elems = BATCH_MAX * (size_t)s->m->hp.hidden;
    MT_TRY(mt_runner_open(ctx, s->m, dev, &s->r));
    MT_TRY(dev->ops->alloc(ctx, dev, elems, &s->x));
    MT_TRY(dev->ops->alloc(ctx, dev, elems, &s->n));
    MT_TRY(dev->ops->alloc(ctx, dev, elems, &s->y));
    MT_TRY(mt_alloc(ctx, (size_t)s->m->hp.vocab, BATCH_MAX * sizeof(float), "logits", &s->logits));
    for (int l = 0; l < s->m->hp.n_layers; l++)
        MT_TRY(mt_run_layer_open(ctx, s->r, l, &s->layers[l]));
    return MT_OK;
}

static void speed_close(struct mt_device *dev, struct speed *s)
{
    for (int l = 0; l < LAYERS_MAX; l++) {
        if (s->layers[l] != NULL)
            mt_run_layer_close(s->layers[l]);
    }
    dev->ops->release(dev, s->x);
    dev->ops->release(dev, s->n);
    dev->ops->release(dev, s->y);
    mt_free(s->logits);
    mt_runner_close(s->r);
    mt_model_free(s->m);
}

static mt_status speed_step(struct mt_ctx *ctx, struct speed *s, const int32_t *ids, int batch)
{
    int32_t len[BATCH_MAX];
    const struct mt_seqs seqs = {(size_t)batch, len};

    for (int i = 0; i < batch; i++)
        len[i] = 1;
    MT_TRY(mt_run_embed(ctx, s->r, ids, batch, s->x));
    for (int l = 0; l < s->m->hp.n_layers; l++) {
        MT_TRY(mt_run_attn(ctx, s->layers[l], s->x, &seqs, NULL));
        MT_TRY(mt_run_ffn_norm(ctx, s->layers[l], s->x, batch, s->n));
        MT_TRY(mt_run_ffn(ctx, s->layers[l], s->n, batch, s->y, NULL));
        MT_TRY(mt_run_add(ctx, s->r, s->x, s->y, batch));
    }
    return mt_run_head(ctx, s->r, s->x, batch, s->logits);
}

/* round < 0: to warm up. */
static mt_status speed_round(struct mt_ctx *ctx, struct speed *s, int batch, int round)
{
    double wall = bench_seconds(CLOCK_MONOTONIC), cpu = bench_seconds(CLOCK_PROCESS_CPUTIME_ID);
    int tokens = batch == 1 ? TOKENS_ROUND / 8 : TOKENS_ROUND;
    int32_t ids[BATCH_MAX];
    struct mt_rng rng;

    mt_rng_seed(&rng, 0, (uint64_t)round + 1);
    for (int done = 0; done < tokens; done += batch) {
        for (int i = 0; i < batch; i++)
            ids[i] = (int32_t)mt_rng_below(&rng, (uint64_t)s->m->hp.vocab);
        MT_TRY(speed_step(ctx, s, ids, batch));
    }
    if (round >= 0) {
        s->wall[round] = tokens / (bench_seconds(CLOCK_MONOTONIC) - wall);
        s->cpu[round] = tokens / (bench_seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu);
    }
    return MT_OK;
}

static mt_status speed_batch(struct mt_ctx *ctx, struct speed *s, int n, int batch)
{
    double first = 0;

    for (int round = -1; round < ROUNDS; round++) {
        for (int i = 0; i < n; i++)
            MT_TRY(speed_round(ctx, &s[i], batch, round));
    }
    printf("\nbatch %d, %d threads: tokens per second, per CPU second, against the first\n", batch,
           mt_ctx_threads(ctx));
    for (int i = 0; i < n; i++) {
        double wall = bench_median(s[i].wall, ROUNDS), cpu = bench_median(s[i].cpu, ROUNDS);
        first = i == 0 ? cpu : first;
        printf("%-40s %9.1f %9.1f %6.2f\n", s[i].name, wall, cpu, cpu / first);
    }
    return MT_OK;
}

static mt_status bench(struct mt_ctx *ctx, struct mt_device *dev, struct speed *s, int n)
{
    for (int i = 0; i < n; i++)
        MT_TRY(speed_open(ctx, dev, &s[i]));
    MT_TRY(speed_batch(ctx, s, n, 1));
    return speed_batch(ctx, s, n, BATCH_MAX);
}

int main(int argc, char **argv)
{
    static struct speed s[MODELS_MAX];
    const char *device = "cpu";
    struct mt_ctx_opts o = {0};
    struct mt_device *dev;
    struct mt_ctx ctx;
    int n = 0;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "device=", strlen("device=")) == 0)
            device = argv[i] + strlen("device=");
        else if (n < MODELS_MAX)
            s[n++].name = argv[i];
    }
    if (n == 0) {
        printf("usage: %s MODEL... [device=cpu]\n", argv[0]);
        return 0;
    }
    mt_blas_prepare(argc, argv);
    if (mt_ctx_open(&ctx, &o) != MT_OK)
        return 1;
    mt_status st = mt_device_open(&ctx, device, &dev);
    if (st == MT_OK) {
        st = bench(&ctx, dev, s, n);
        for (int i = 0; i < n; i++)
            speed_close(dev, &s[i]);
        mt_device_close(dev);
    }
    if (st != MT_OK)
        printf("%s\n", mt_error(&ctx));
    mt_ctx_close(&ctx);
    return st != MT_OK;
}
