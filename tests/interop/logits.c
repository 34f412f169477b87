/* logits MODEL                      what moetool computes for 24 ids: {"ids": [...], "logits":
 * [[...]]} logits --full-norm OUT OPTIONS    converts a small random model whose q/k norms span all
 * heads, which no dense family on disk has, with convert-ffn's options
 *                                   ("arch=olmoe experts=8 ..."), and prints the source's logits
 *
 * For scripts/refs/convert_targets.py. All in fp64. */
#include "formats/table.h"
#include "lib/base/mem.h"
#include "lib/flow/walk.h"
#include "lib/run/runner.h"
#include "passes/table.h"
#include "tests/toy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_IDS 24

static mt_status print_logits(struct mt_ctx *ctx, const struct mt_model *m)
{
    size_t vocab = (size_t)m->hp.vocab;
    struct mt_device *dev;
    int32_t ids[N_IDS];
    double *logits;
    mt_status st;

    toy_ids(7, m->hp.vocab, ids, N_IDS);
    MT_TRY(mt_device_open(ctx, "ref", &dev));
    st = mt_alloc(ctx, N_IDS * vocab, sizeof *logits, "logits", &logits);
    if (st == MT_OK)
        st = mt_run_logits(ctx, m, dev, ids, N_IDS, logits);
    printf("{\"ids\": [");
    for (int i = 0; i < N_IDS && st == MT_OK; i++)
        printf("%s%d", i > 0 ? ", " : "", ids[i]);
    printf("], \"logits\": [");
    for (size_t i = 0; i < N_IDS * vocab && st == MT_OK; i++)
        printf("%s%.17g%s",
               i % vocab > 0 ? ", "
               : i > 0       ? ", ["
                             : "[",
               logits[i], i % vocab == vocab - 1 ? "]" : "");
    printf("]}\n");
    mt_free(logits);
    mt_device_close(dev);
    return st;
}

static mt_status convert(struct mt_ctx *ctx, const struct mt_model *src, char *text,
                         const char *out)
{
    const struct mt_pass *p = mt_pass_find("convert-ffn");
    struct mt_walk_pass step = {.pass = p};
    const struct mt_walk_opts o = {.source = src,
                                   .passes = &step,
                                   .n_passes = 1,
                                   .format = mt_format_writer("safetensors"),
                                   .formats = mt_formats,
                                   .out_path = out,
                                   .out_flags = MT_OUT_FORCE};
    struct mt_walk_result r;
    mt_status st = MT_OK;
    char *rest = text;
    void *opts;

    MT_TRY(mt_alloc0(ctx, 1, p->opts_size, "options", &opts));
    mt_opt_defaults(p->opts, opts);
    for (char *w = strtok_r(text, " ", &rest); w != NULL && st == MT_OK;
         w = strtok_r(NULL, " ", &rest)) {
        char *eq = strchr(w, '=');
        mt_assert(eq != NULL);
        *eq = '\0';
        st = mt_opt_set(ctx, p->opts, opts, w, eq + 1);
    }
    step.opts = opts;
    if (st == MT_OK)
        st = mt_walk_run(ctx, &o, &r);
    if (st == MT_OK)
        mt_walk_result_free(&r);
    mt_free(opts);
    return st;
}

static mt_status run(struct mt_ctx *ctx, int argc, char **argv)
{
    const struct toy full = {.qk_norm = MT_QK_NORM_FULL, .seed = 11};
    struct mt_model *m;
    mt_status st;

    if (argc == 2)
        MT_TRY(mt_model_open(ctx, mt_formats, argv[1], &m));
    else
        MT_TRY(toy_model(ctx, &full, &m));
    st = argc == 4 ? convert(ctx, m, argv[3], argv[2]) : MT_OK;
    if (st == MT_OK)
        st = print_logits(ctx, m);
    mt_model_free(m);
    return st;
}

int main(int argc, char **argv)
{
    const struct mt_ctx_opts o = {.n_threads = 1};
    struct mt_ctx ctx;
    mt_status st;

    if (argc != 2 && (argc != 4 || strcmp(argv[1], "--full-norm") != 0)) {
        fprintf(stderr, "usage: logits MODEL | logits --full-norm OUT OPTIONS\n");
        return 2;
    }
    if (mt_ctx_open(&ctx, &o) != MT_OK)
        return 1;
    st = run(&ctx, argc, argv);
    if (st != MT_OK)
        fprintf(stderr, "logits: %s\n", mt_error(&ctx));
    mt_ctx_close(&ctx);
    return st == MT_OK ? 0 : 1;
}
