/* logits MODEL                      what moetool computes for 24 ids: {"ids": [...], "logits":
 * [[...]]} logits --full-norm OUT OPTIONS    converts a small random model whose q/k norms span all
 * heads, which no dense family on disk has, with convert-ffn's options
 *                                   ("arch=olmoe experts=8 ..."), and prints the source's logits
 *
 * logits --uneven OUT               writes a small random glm4_moe whose layers have 6, 3 and 2
 * experts, padded, and prints the logits of the model without padding
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

/* The first `live` experts of a layer stay. */
static mt_status thin(struct mt_ctx *ctx, struct mt_model *m, int layer, int live)
{
    static const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    static const int32_t idx[] = {0, 1, 2, 3, 4, 5, 6, 7};
    const int64_t shape[2] = {live, m->hp.hidden};
    struct mt_tensor *t, *old;

    for (int e = live; e < m->ffn[layer].n_experts; e++)
        for (int i = 0; i < 3; i++)
            mt_model_remove(m, mt_model_find(m, mt_role(kinds[i], layer, e)));
    old = mt_model_find(m, mt_role(MT_ROLE_ROUTER, layer, MT_EXPERT_NONE));
    mt_model_remove(m, old);
    MT_TRY(mt_model_add(ctx, m, old->role, old->dtype, 2, shape, &t));
    MT_TRY(mt_recipe_gather_rows(ctx, m, t, old, idx, live, 1));
    old = mt_model_find(m, mt_role(MT_ROLE_ROUTER_BIAS, layer, MT_EXPERT_NONE));
    mt_model_remove(m, old);
    MT_TRY(mt_model_add(ctx, m, old->role, old->dtype, 1, shape, &t));
    MT_TRY(mt_recipe_gather_cols(ctx, m, t, old, idx, live, 1));
    m->ffn[layer].n_experts = live;
    return MT_OK;
}

static mt_status uneven(struct mt_ctx *ctx, const struct mt_model *toy, const char *out)
{
    struct mt_walk_opts o = {.format = mt_format_writer("safetensors"),
                             .formats = mt_formats,
                             .out_path = out,
                             .out_flags = MT_OUT_FORCE};
    struct mt_walk_result r;
    struct mt_model *m;
    mt_status st;

    MT_TRY(mt_model_plan(ctx, toy, &m));
    o.source = m;
    st = thin(ctx, m, 1, 3);
    if (st == MT_OK)
        st = thin(ctx, m, 2, 2);
    if (st == MT_OK)
        st = mt_walk_run(ctx, &o, &r);
    if (st == MT_OK) {
        mt_walk_result_free(&r);
        st = print_logits(ctx, m);
    }
    mt_model_free(m);
    return st;
}

static mt_status run(struct mt_ctx *ctx, int argc, char **argv)
{
    static const struct toy full = {.qk_norm = MT_QK_NORM_FULL, .seed = 11};
    static const struct toy glm = {.layers = 3,
                                   .experts = 6,
                                   .k = 2,
                                   .shared_width = 48,
                                   .rule = {.score = MT_SCORE_SIGMOID,
                                            .renorm = true,
                                            .renorm_eps = 1e-20,
                                            .has_bias = true,
                                            .n_group = 1,
                                            .topk_group = 1},
                                   .seed = 12};
    struct mt_model *m;
    mt_status st;

    if (argc == 2)
        MT_TRY(mt_model_open(ctx, mt_formats, argv[1], &m));
    else
        MT_TRY(toy_model(ctx, argc == 4 ? &full : &glm, &m));
    if (argc == 3)
        st = uneven(ctx, m, argv[2]);
    else
        st = argc == 4 ? convert(ctx, m, argv[3], argv[2]) : MT_OK;
    if (st == MT_OK && argc != 3)
        st = print_logits(ctx, m);
    mt_model_free(m);
    return st;
}

static bool usage_is_right(int argc, char **argv)
{
    return argc == 2 || (argc == 3 && strcmp(argv[1], "--uneven") == 0) ||
           (argc == 4 && strcmp(argv[1], "--full-norm") == 0);
}

int main(int argc, char **argv)
{
    const struct mt_ctx_opts o = {.n_threads = 1};
    struct mt_ctx ctx;
    mt_status st;

    if (!usage_is_right(argc, argv)) {
        fprintf(stderr, "usage: logits MODEL | --full-norm OUT OPTIONS | --uneven OUT\n");
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
