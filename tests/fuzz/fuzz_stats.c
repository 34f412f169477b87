/* Any bytes as a profile, an imatrix or scores, for a dense and for a MoE model: refused with a
 * sentence, or every statistic can be asked for. `make fuzz` runs it under libFuzzer; otherwise
 * replay.c feeds it a corpus. */
#include "formats/stats.h"
#include "lib/ir/family.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n);

static struct mt_ctx *fuzz_ctx(void)
{
    static struct mt_ctx ctx;
    static struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 256u << 20};

    if (ctx.env == NULL && mt_ctx_open(&ctx, &o) != MT_OK)
        abort();
    return &ctx;
}

/* Shapes of tests/golden/llama, or of tests/golden/qwen3_moe, without weights. */
static struct mt_model *fuzz_model(struct mt_ctx *ctx, bool moe)
{
    struct mt_model *m;

    if (mt_model_create(ctx, &m) != MT_OK)
        abort();
    m->family = mt_family_find(moe ? "qwen3_moe" : "llama");
    m->path = "model";
    m->hp = (struct mt_hparams){
        .n_layers = moe ? 3 : 2, .hidden = 32, .n_heads = 4, .head_dim = moe ? 8 : 12};
    if (mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *m->ffn, &m->ffn) != MT_OK)
        abort();
    for (int l = 0; l < m->hp.n_layers; l++) {
        bool experts = moe && l != 1;
        m->ffn[l] = (struct mt_ffn){.moe = experts,
                                    .gated = true,
                                    .width = experts ? 12 : 40,
                                    .n_experts = experts ? 8 : 0,
                                    .k = experts ? 3 : 0};
    }
    return m;
}

static char fuzz_path[] = "/tmp/fuzz-stats-XXXXXX";

static void fuzz_remove(void)
{
    unlink(fuzz_path);
}

/* The input under a name: what reads it takes paths. */
static const char *fuzz_file(const unsigned char *data, size_t n)
{
    static int fd = -1;

    if (fd < 0 && (fd = mkstemp(fuzz_path)) >= 0)
        (void)!atexit(fuzz_remove);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, n, 0) != (ssize_t)n)
        abort();
    return fuzz_path;
}

static void fuzz_use(struct mt_ctx *ctx, const struct mt_profile *p)
{
    static double v[1 << 16];
    int64_t rows, cols;

    for (int l = 0; l < mt_profile_info(p)->n_layers; l++)
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            if (!mt_profile_has(p, l, (enum mt_stat)i))
                continue;
            mt_profile_shape(p, l, (enum mt_stat)i, &rows, &cols);
            if (rows * cols <= (int64_t)(sizeof v / sizeof v[0]))
                (void)!mt_profile_get(ctx, p, l, (enum mt_stat)i, NULL, v, (size_t)(rows * cols));
        }
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t n)
{
    struct mt_ctx *ctx = fuzz_ctx();
    const char *path = fuzz_file(data, n);
    struct mt_profile *p;
    mt_status st;

    for (int moe = 0; moe < 2; moe++) {
        struct mt_model *m = fuzz_model(ctx, moe != 0);
        ctx->error[0] = '\0';
        st = mt_stats_import(ctx, path, m, &p);
        if (st == MT_OK)
            fuzz_use(ctx, p);
        else
            mt_assert(mt_error(ctx)[0] != '\0' && strchr(mt_error(ctx), '\n') == NULL);
        mt_profile_free(p);
        mt_model_free(m);
    }
    ctx->error[0] = '\0';
    if (mt_stats_read(ctx, path, &p) == MT_OK)
        fuzz_use(ctx, p);
    mt_profile_free(p);
    mt_assert(mt_mem_used(ctx) == 0);
    return 0;
}
