#include "cmd/cmd.h"

#include "cmd/baseline.h"
#include "cmd/facts.h"
#include "cmd/from.h"
#include "cmd/hidden.h"
#include "cmd/report.h"
#include "cmd/verdict.h"
#include "formats/table.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/scratch.h"
#include "lib/flow/card.h"
#include "lib/flow/walk.h"
#include "passes/convert/method.h"
#include "passes/table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONVERT_BASELINES 3

extern const struct mt_pass mt_pass_convert_ffn;

struct convert_opts {
    struct cmd_blocks blocks;
    const char *hidden, *out, *profile;
    struct mt_strlist eval_data, from;
    int format;
    const char *max_shard_size;
    double max_kl;
    bool no_validate, dry_run, resume, force;
};

static const struct mt_opt convert_opt_table[] = {
    MT_OPT_STR(struct convert_opts, out, "out", 'o', "OUT", NULL,
               "directory to write, or a .gguf file; required"),
    MT_OPT_ENUM(struct convert_opts, format, "format", 0, "NAME", "auto", cmd_format_names,
                "what to write; auto: a GGUF file when OUT ends in .gguf, else safetensors"),
    MT_OPT_BOOL(struct convert_opts, force, "force", 0, "replace an existing OUT"),
    MT_OPT_BOOL(struct convert_opts, resume, "resume", 0, "continue an interrupted run"),
    MT_OPT_BOOL(struct convert_opts, dry_run, "dry-run", 0,
                "tell shapes, sizes, memory and disk; write nothing"),
    CMD_OPT_SHARD_SIZE(struct convert_opts, max_shard_size),
    MT_OPT_STR(struct convert_opts, profile, "profile", 0, "FILE", NULL,
               "statistics from `moetool profile`, an imatrix or scores in JSON: what they tell "
               "is not measured again"),
    MT_OPT_LIST(
        struct convert_opts, from, "from", 0, "[NAME=]MODEL",
        "another fine-tune of the same base, whose FFNs become experts of --method upcycle; "
        "may be given several times. NAME: that of its text, --data NAME=FILE"),
    MT_OPT_LIST(struct convert_opts, eval_data, "eval-data", 0, "[NAME=]FILE",
                "text to validate on, as --data (default: the text of --data)"),
    MT_OPT_BOOL(struct convert_opts, no_validate, "no-validate", 0,
                "do not compare the result with the original"),
    CMD_BLOCKS_OPTS(struct convert_opts, blocks),
    MT_OPT_STR(struct convert_opts, hidden, "hidden", 0, "FILE", NULL,
               "what goes into the FFNs, instead of --data, where the model cannot be run: "
               "safetensors, one matrix [tokens, hidden] for each layer; a fifth is held out to "
               "measure errors on"),
    MT_OPT_NUM(struct convert_opts, max_kl, "max-kl", 0, "X", "-1", -1, 1e9,
               "exit with code 3 when the mean KL of the result is larger; it is written all the "
               "same (default: no limit)"),
    MT_OPT_END,
};

/* Static pruning at the same active parameters, which a conversion has to beat. */
static const char *const convert_baselines[CONVERT_BASELINES] = {"obs", "flap", "wanda"};

struct convert {
    const struct cmd_args *a;
    const struct convert_opts *o;
    struct mt_model *src;
    struct cmd_from from;
    struct mt_profile *profile; /* NULL: none */
    struct mt_device *dev;
    uint64_t shard_bytes;
    bool has_data, has_eval;
    struct mt_dataset data, eval; /* calibration, validation */
    struct cmd_hidden hidden;
    struct mt_walk_result walk;
    bool walked;

    struct mt_walk_result base[CONVERT_BASELINES];
    char base_names[CONVERT_BASELINES][32];
    int n_base;

    int n_reports; /* 0: not validated; else the result and the baselines */
    struct mt_compare_report reports[1 + CONVERT_BASELINES];
};

static const struct mt_dataset *convert_eval_data(const struct convert *c)
{
    return c->has_eval ? &c->eval : &c->data;
}

/* NULL: nothing looks at activations. */
static const struct mt_dataset *convert_data(const struct convert *c)
{
    return c->hidden.on ? &c->hidden.h.about : c->has_data ? &c->data : NULL;
}

/* ---- opening ---- */

static void convert_warn_scant(struct mt_ctx *ctx, const struct convert *c)
{
    const struct mt_model *src = c->src;

    if (src->hp.n_layers == 0 || src->ffn[0].width <= (int64_t)c->data.n_tokens)
        return;
    mt_log(ctx, MT_LOG_WARN,
           "%zu token%s to calibrate on, for FFNs of %lld neurons: what is fitted to so few hardly "
           "holds on other text; give more text, or a larger --samples",
           c->data.n_tokens, c->data.n_tokens == 1 ? "" : "s", (long long)src->ffn[0].width);
}

static mt_status convert_open(struct mt_ctx *ctx, struct convert *c)
{
    const struct mt_convert_given given = {.text = c->a->data->data.n > 0 || c->o->hidden != NULL,
                                           .profile = c->o->profile != NULL,
                                           .models = c->o->from.n > 0};

    MT_TRY(mt_convert_check_scope(ctx, c->a->pass_opts, &given));
    MT_TRY(cmd_hidden_open(ctx, c->o->hidden, c->a->pos->v[0], &c->o->blocks, &c->hidden, &c->src));
    MT_TRY(cmd_from_open(ctx, c->a, &c->o->from, &c->o->blocks, c->src, &c->from));
    MT_TRY(cmd_open_profile(ctx, c->o->profile, c->src, &c->profile));
    if (c->hidden.on) {
        if (c->a->data->data.n > 0 || c->o->eval_data.n > 0 || c->o->max_kl >= 0)
            return mt_fail(ctx, MT_E_OPTION,
                           "--hidden stands in for text: without --data, --eval-data and --max-kl");
        return cmd_open_device(ctx, c->a, &c->dev);
    }
    if (c->a->data->data.n == 0) {
        if (c->o->eval_data.n > 0)
            return mt_fail(ctx, MT_E_OPTION, "--eval-data needs --data: the text to calibrate on");
        if (c->o->max_kl >= 0)
            return mt_fail(ctx, MT_E_OPTION, "--max-kl needs --data: text to validate on");
        return MT_OK;
    }
    MT_TRY(cmd_open_device(ctx, c->a, &c->dev));
    MT_TRY(cmd_open_data(ctx, c->a, c->src, &c->a->data->data, &c->data));
    c->has_data = true;
    convert_warn_scant(ctx, c);
    if (c->profile == NULL && mt_pass_convert_ffn.profiles(c->a->pass_opts, c->src))
        MT_TRY(cmd_measure_profile(ctx, c->a, c->src, c->dev, &c->data, &c->profile));
    if (c->src->hp.both_ways && c->o->max_kl >= 0)
        return mt_fail(ctx, MT_E_OPTION, "--max-kl: %s models have no logits to compare",
                       c->src->family->name);
    if (c->o->no_validate || c->o->dry_run)
        return MT_OK;
    if (c->src->hp.both_ways)
        c->hidden.texts = &c->data;
    if (c->o->eval_data.n == 0) {
        mt_log(ctx, MT_LOG_WARN,
               "validating on the text that calibrates, so the figures flatter; give other text "
               "with --eval-data");
        return MT_OK;
    }
    MT_TRY(cmd_open_data(ctx, c->a, c->src, &c->o->eval_data, &c->eval));
    c->has_eval = true;
    if (c->hidden.texts != NULL)
        c->hidden.texts = &c->eval;
    return MT_OK;
}

static void convert_close(struct convert *c)
{
    for (int i = 0; i < c->n_reports; i++)
        mt_compare_free(&c->reports[i]);
    for (int i = 0; i < c->n_base; i++)
        mt_walk_result_free(&c->base[i]);
    if (c->walked)
        mt_walk_result_free(&c->walk);
    if (c->has_data)
        mt_dataset_free(&c->data);
    if (c->has_eval)
        mt_dataset_free(&c->eval);
    cmd_hidden_free(&c->hidden);
    if (c->dev != NULL)
        mt_device_close(c->dev);
    mt_profile_free(c->profile);
    mt_model_free(c->src);
    cmd_from_free(&c->from);
}

/* ---- validation, before the output gets its name ---- */

/* The original pruned to `width`; `dry`: planned only. */
static mt_status convert_prune(struct mt_ctx *ctx, struct convert *c, const char *select,
                               int64_t width, bool dry, struct mt_walk_result *out)
{
    const struct mt_convert_opts *p = c->a->pass_opts;
    struct cmd_baseline want = {
        .select = select, .drift = p->drift, .refit_epochs = p->refit_epochs};
    struct mt_walk_pass step;
    const struct mt_walk_opts o = {.source = c->src,
                                   .passes = &step,
                                   .n_passes = 1,
                                   .data = convert_data(c),
                                   .dev = c->dev,
                                   .hidden = c->hidden.on ? &c->hidden.h : NULL,
                                   .dry_run = dry};
    char text[24];

    snprintf(text, sizeof text, "%lld", (long long)width);
    want.width = text;
    /* The best rival is fitted as the conversion was asked to be, or as it is best. */
    if (strcmp(select, convert_baselines[0]) == 0 && p->refit > 0 &&
        strcmp(mt_convert_refit_names[p->refit], "none") != 0)
        want.refit = mt_convert_refit_names[p->refit];
    MT_TRY(cmd_baseline_step(ctx, &want, &step));
    mt_status st = mt_walk_run(ctx, &o, out);
    mt_free((void *)step.opts);
    return st;
}

/* Pruned models as large as what acts in the result; what cannot be made is told and left out. */
static mt_status convert_make_baselines(struct mt_ctx *ctx, struct convert *c,
                                        const struct mt_model *result)
{
    int64_t width = cmd_baseline_width(result);

    if (mt_model_first_moe(result) == NULL)
        return MT_OK;
    if (width >= c->src->ffn[0].width) {
        mt_log(ctx, MT_LOG_INFO,
               "not compared with static pruning: what acts, router included, is worth %lld "
               "neurons, and the original has %lld",
               (long long)width, (long long)c->src->ffn[0].width);
        return MT_OK;
    }
    for (int i = 0; i < CONVERT_BASELINES; i++) {
        mt_log(ctx, MT_LOG_INFO, "for comparison: the original pruned to %lld neurons by %s",
               (long long)width, convert_baselines[i]);
        mt_status st =
            convert_prune(ctx, c, convert_baselines[i], width, false, &c->base[c->n_base]);
        if (st == MT_E_CANCELLED || st == MT_E_NOMEM || st == MT_E_LIMIT)
            return st;
        if (st != MT_OK) {
            mt_log(ctx, MT_LOG_WARN, "no comparison with pruning by %s: %s", convert_baselines[i],
                   mt_error(ctx));
            continue;
        }
        snprintf(c->base_names[c->n_base], sizeof c->base_names[0], "pruned: %s",
                 convert_baselines[i]);
        c->n_base++;
    }
    return MT_OK;
}

/* What making each baseline takes while those before it are kept, and the comparison of all. */
static mt_status convert_finish_bytes(struct mt_ctx *ctx, void *arg, const struct mt_model *plan,
                                      uint64_t *bytes, uint64_t *scratch)
{
    struct mt_walk_result base[CONVERT_BASELINES];
    const struct mt_model *cand[1 + CONVERT_BASELINES] = {plan};
    struct convert *c = arg;
    int64_t width = cmd_baseline_width(plan);
    uint64_t before = mt_mem_used(ctx), walk = 0, kept;
    mt_status st = MT_OK;
    int n = 0;

    *bytes = *scratch = 0;
    if (convert_data(c) == NULL || c->o->no_validate)
        return MT_OK;
    int n_base =
        mt_model_first_moe(plan) != NULL && width < c->src->ffn[0].width ? CONVERT_BASELINES : 0;
    for (int i = 0; i < n_base && st == MT_OK; i++) {
        st = convert_prune(ctx, c, convert_baselines[i], width, true, &base[n]);
        if (st == MT_OK) {
            walk = base[n].memory_bytes - before > walk ? base[n].memory_bytes - before : walk;
            *scratch += base[n].scratch_bytes; /* more than is kept: tokens of each */
            cand[n + 1] = base[n].plan;
            n++;
        } else if (st != MT_E_CANCELLED && st != MT_E_NOMEM && st != MT_E_LIMIT) {
            st = MT_OK; /* told when it is made */
        }
    }
    kept = mt_mem_used(ctx) - before;
    if (st == MT_OK && cmd_hidden_measures(&c->hidden))
        *bytes = cmd_hidden_bytes(&c->hidden);
    else if (st == MT_OK)
        st = mt_compare_bytes(ctx, c->src, cand, 1 + n, 1, c->dev, convert_eval_data(c), bytes);
    *bytes = *bytes + kept > walk ? *bytes + kept : walk;
    for (int i = 0; i < n; i++)
        mt_walk_result_free(&base[i]);
    return mt_wrap(ctx, st, "validation");
}

static mt_status convert_validate(struct mt_ctx *ctx, struct convert *c,
                                  const struct mt_model *result, struct mt_outdir *out)
{
    const struct mt_model *cand[1 + CONVERT_BASELINES] = {result};

    MT_TRY(convert_make_baselines(ctx, c, result));
    if (cmd_hidden_measures(&c->hidden)) {
        MT_TRY(cmd_hidden_measure(ctx, &c->hidden, c->src, result, c->dev, "experts"));
        for (int i = 0; i < c->n_base; i++)
            MT_TRY(cmd_hidden_measure(ctx, &c->hidden, c->src, c->base[i].plan, c->dev,
                                      c->base_names[i] + strlen("pruned: ")));
        return MT_OK;
    }
    for (int i = 0; i < c->n_base; i++)
        cand[i + 1] = c->base[i].plan;
    MT_TRY(mt_compare(ctx, c->src, cand, 1 + c->n_base, c->dev, convert_eval_data(c),
                      mt_outdir_work_path(out), c->reports));
    c->n_reports = 1 + c->n_base;
    return MT_OK;
}

/* "Org/Name" when the model came from the local cache under that name. */
static const char *convert_base_model(const struct convert *c)
{
    const char *path = c->a->pos->v[0], *slash = strchr(path, '/');

    if (slash == NULL || slash == path || slash[1] == '\0' || strchr(slash + 1, '/') != NULL ||
        mt_path_exists(path))
        return NULL;
    return path;
}

static mt_status convert_finish(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                                const struct mt_json *manifest, struct mt_outdir *out)
{
    struct convert *c = arg;
    struct mt_card_opts card = {.base_model = convert_base_model(c)};
    struct mt_json *figures = NULL;
    char license[64];
    mt_status st;

    cmd_find_license(ctx, c->src, license, sizeof license);
    card.license = license[0] != '\0' ? license : NULL;
    if (convert_data(c) != NULL && !c->o->no_validate)
        MT_TRY(mt_wrap(ctx, convert_validate(ctx, c, result, out), "validation"));
    if (c->n_reports > 0)
        cmd_report_figures(figures = mt_json_new_object(), &c->reports[0], convert_eval_data(c));
    else if (c->hidden.n > 0)
        cmd_hidden_json(figures = mt_json_new_object(), &c->hidden);
    st = mt_card_write(ctx, out, manifest, figures, &card);
    mt_json_free(figures);
    return st;
}

/* ---- results ---- */

static mt_status convert_judge(struct mt_ctx *ctx, const struct convert *c, struct cmd_verdict *v)
{
    const char *names[CONVERT_BASELINES];

    for (int i = 0; i < c->n_base; i++)
        names[i] = c->base_names[i] + strlen("pruned: ");
    return cmd_verdict(ctx, c->reports, names, c->n_base, convert_eval_data(c), v);
}

static int convert_rows(const struct convert *c, const char *source, const char *result,
                        struct cmd_report_row *rows)
{
    int n = 0;

    /* Directories of one name do not tell which is which. */
    rows[n++] = (struct cmd_report_row){.name = strcmp(source, result) != 0 ? source : "original",
                                        .m = c->src};
    rows[n++] = (struct cmd_report_row){
        .name = result, .m = c->walk.plan, .r = c->n_reports > 0 ? &c->reports[0] : NULL};
    for (int i = 0; i < c->n_base && c->n_reports > 0; i++)
        rows[n++] = (struct cmd_report_row){
            .name = c->base_names[i], .m = c->base[i].plan, .r = &c->reports[1 + i]};
    return n;
}

static mt_status convert_print_plan(struct mt_ctx *ctx, const struct convert *c)
{
    struct cmd_table t;
    char b[24];
    mt_status st;

    cmd_table_begin(&t, "ll");
    cmd_table_cell(ctx, &t, "family");
    cmd_table_cell(ctx, &t, "%s (%s)", c->walk.plan->family->name,
                   c->walk.plan->family->architecture);
    cmd_facts_table(ctx, &t, c->walk.plan);
    cmd_table_cell(ctx, &t, "memory");
    cmd_table_cell(ctx, &t, "%s at most, beside mapped files",
                   mt_format_bytes(c->walk.memory_bytes, b, sizeof b));
    cmd_table_cell(ctx, &t, "disk");
    cmd_table_cell(ctx, &t, "%s", mt_format_bytes(c->walk.disk_bytes, b, sizeof b));
    if (c->walk.scratch_bytes > 0) {
        cmd_table_cell(ctx, &t, "scratch files");
        cmd_table_cell(ctx, &t, "%s at most, in %s",
                       mt_format_bytes(c->walk.scratch_bytes, b, sizeof b), mt_scratch_dir());
    }
    printf("would be written to %s\n", c->o->out);
    st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    printf("\n");
    return st;
}

static mt_status convert_print(struct mt_ctx *ctx, const struct convert *c,
                               const struct cmd_report_row *rows, int n)
{
    if (c->o->dry_run)
        MT_TRY(convert_print_plan(ctx, c));
    if (mt_model_first_moe(c->walk.plan) == NULL)
        printf("%lld of %lld neurons of every FFN stay\n\n", (long long)c->walk.plan->ffn[0].width,
               (long long)c->src->ffn[0].width);
    if (c->n_reports > 0)
        cmd_report_head(c->reports[0].n_tokens, convert_eval_data(c)->n_windows,
                        c->has_eval ? "" : " of the text that calibrated the result");
    MT_TRY(cmd_report_table(ctx, rows, n, convert_eval_data(c)));
    if (c->n_base > 0 && c->n_reports > 0) {
        struct cmd_verdict v;
        MT_TRY(convert_judge(ctx, c, &v));
        printf("\n%s\n", v.text);
    }
    if (c->n_reports > 0 && c->a->common->verbose) {
        printf("\n");
        MT_TRY(cmd_report_layers(ctx, &rows[1]));
    }
    if (c->hidden.n > 0)
        MT_TRY(cmd_hidden_print(ctx, &c->hidden));
    if (c->n_reports == 0 && c->hidden.n == 0 && !c->o->dry_run)
        printf("\nnot compared with the original%s\n",
               convert_data(c) != NULL ? "" : ": give text with --data and --eval-data");
    if (!c->o->dry_run)
        printf("\nwritten to %s\n", c->walk.written != NULL ? c->walk.written : c->o->out);
    return MT_OK;
}

static mt_status convert_print_json(struct mt_ctx *ctx, struct convert *c,
                                    const struct cmd_report_row *rows, int n)
{
    struct mt_json *root, *o;
    struct cmd_verdict v = {0};

    if (c->n_reports > 0 && c->n_base > 0)
        MT_TRY(convert_judge(ctx, c, &v));
    root = mt_json_new_object();
    mt_json_set_str(root, "source", c->a->pos->v[0]);
    mt_json_set_str(root, "out", c->walk.written != NULL ? c->walk.written : c->o->out);
    mt_json_set_bool(root, "dry_run", c->o->dry_run);
    mt_json_set_int(root, "tensor_bytes", (int64_t)c->walk.bytes_out);
    mt_json_set_int(root, "memory_bytes", (int64_t)c->walk.memory_bytes);
    mt_json_set_int(root, "disk_bytes", (int64_t)c->walk.disk_bytes);
    mt_json_set_int(root, "scratch_bytes", (int64_t)c->walk.scratch_bytes);
    cmd_facts_json(mt_json_set_object(root, "result"), c->walk.plan);
    if (c->n_reports > 0) {
        o = mt_json_set_object(root, "validation");
        cmd_report_json(o, rows, n, convert_eval_data(c));
        if (c->n_base > 0)
            cmd_verdict_json(o, &v);
    }
    if (c->hidden.n > 0)
        cmd_hidden_json(mt_json_set_object(root, "validation"), &c->hidden);
    mt_json_set(root, "manifest", c->walk.manifest);
    c->walk.manifest = NULL; /* taken */
    return cmd_print_json(ctx, root);
}

static mt_status convert_limit(struct mt_ctx *ctx, const struct convert *c)
{
    if (c->n_reports == 0 || c->o->max_kl < 0 || c->reports[0].kl_mean <= c->o->max_kl)
        return MT_OK;
    return mt_fail(ctx, MT_E_EXCEEDED, "%s: mean KL %.3g is above --max-kl %.3g", c->o->out,
                   c->reports[0].kl_mean, c->o->max_kl);
}

static unsigned convert_out_flags(const struct convert_opts *o)
{
    return (o->force ? MT_OUT_FORCE : 0u) | (o->resume ? MT_OUT_RESUME : 0u);
}

/* What stands in the way is told before any text is read; the rest of it the walk tells. */
static mt_status convert_check_out(struct mt_ctx *ctx, const struct convert_opts *o)
{
    bool file = cmd_out_format(o->format, o->out)->one_file;

    if (o->dry_run || o->force)
        return MT_OK;
    return mt_outdir_probe(ctx, o->out, convert_out_flags(o) | (file ? MT_OUT_FILE : 0u));
}

static mt_status convert_go(struct mt_ctx *ctx, struct convert *c)
{
    struct mt_walk_pass step;
    bool owned;
    struct cmd_report_row rows[2 + CONVERT_BASELINES];
    char source[64], result[64];
    struct mt_walk_opts o = {
        .source = c->src,
        .passes = &step,
        .n_passes = 1,
        .data = convert_data(c),
        .dev = c->dev,
        .hidden = c->hidden.on ? &c->hidden.h : NULL,
        .format = cmd_out_format(c->o->format, c->o->out),
        .formats = mt_formats,
        .out_path = c->o->out,
        .out_flags = convert_out_flags(c->o),
        .write = {.shard_bytes_max = c->shard_bytes},
        .dry_run = c->o->dry_run,
        .keep_on_failure = true,
        .finish = convert_finish,
        .finish_bytes = convert_finish_bytes,
        .finish_arg = c,
    };

    MT_TRY(cmd_convert_step(ctx, c->a->pass_opts, &step, &owned));
    mt_status st = mt_walk_run(ctx, &o, &c->walk);
    if (owned)
        mt_free((void *)step.opts);
    MT_TRY(st);
    c->walked = true;
    int n = convert_rows(c, cmd_model_name(c->a->pos->v[0], source, sizeof source),
                         cmd_model_name(c->o->out, result, sizeof result), rows);
    MT_TRY(c->a->common->json ? convert_print_json(ctx, c, rows, n)
                              : convert_print(ctx, c, rows, n));
    return convert_limit(ctx, c);
}

static mt_status convert_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct convert c = {.a = a, .o = a->opts};
    mt_status st;

    MT_TRY(cmd_check_out(ctx, c.o->format, c.o->out));
    MT_TRY(cmd_shard_bytes(ctx, c.o->max_shard_size, cmd_out_format(c.o->format, c.o->out),
                           &c.shard_bytes));
    MT_TRY(convert_check_out(ctx, c.o));
    st = convert_open(ctx, &c);
    if (st == MT_OK)
        st = convert_go(ctx, &c);
    convert_close(&c);
    return st;
}

static const struct cmd_example convert_examples[] = {
    {"convert Qwen3-0.6B -o moe --data calib.jsonl --eval-data held-out.jsonl",
     "half of the neurons act for a token; compared with the original and with pruning"},
    {"convert dense -o moe --experts 64 --active 16 --shared 0 --data a.jsonl --data b.jsonl",
     "64 experts, 16 of them at a time"},
    {"convert dense -o moe --active 70%,50%,50%,30% --data calib.jsonl",
     "of four layers, more experts where more are needed; native layout"},
    {"convert dense -o moe --experts 8 --active 8 --router zero",
     "the same function in another shape: every expert acts"},
    {"convert dense -o moe.gguf --data calib.jsonl",
     "one GGUF file, as an architecture whose code in llama.cpp computes it"},
    {"convert gpt2 -o moe --arch native --data calib.jsonl",
     "experts of plain FFNs with biases, in moetool's own layout"},
    {"convert odd -o moe --ffn 'h.*.mlp.{fc1,fc2}' --act relu --hidden inputs.safetensors",
     "the FFNs of a model that cannot be run, by what goes into them"},
    {"convert dense -o moe --method dino --copies 8", "the same function with more to train"},
    {"convert base -o moe --method upcycle --from math=tuned-math --data base=a --data math=b",
     "experts of two fine-tunes, chosen by text"},
    {"convert dense -o half --method prune-baseline --active 50% --data calib.jsonl",
     "no experts: the same half of every FFN for every token"},
    {"convert dense -o moe --data calib.jsonl --dry-run", "what would happen"},
    {"convert dense -o moe --data calib.jsonl --resume", "go on after an interruption"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_convert = {
    .name = "convert",
    .summary = "dense FFNs to experts",
    .synopsis = "MODEL -o OUT [--data FILE]...",
    .help =
        "Cuts the dense FFNs of a model into experts and adds routers, so that only a part of the "
        "neurons acts for each token. The output is a model of a known MoE architecture that "
        "engines load as it is, with a model card and a manifest; it appears whole or not at "
        "all. --arch auto takes an architecture that holds the result exactly in the format that "
        "is written and says which others it passed over. Where none does (GPT-2, Gemma, BERT, "
        "...) that is native, a layout of our own that only moetool reads (docs/formats.md).\n\n"
        "With --data, groups and routers are fitted to that text, and experts to their routers "
        "(--method best), and the result is compared with the original, next to static pruning to "
        "the same active "
        "parameters. "
        "If plain pruning is closer, convert says so. Without --data nothing is run: neurons are "
        "grouped by their weights and the result is not compared.\n\n"
        "A model of unknown family is converted too when --ffn tells where its FFNs are; the "
        "result is in the native layout (docs/formats.md), every other tensor as it was. Such a "
        "model does not run here: --hidden gives what goes into its FFNs instead of --data, and "
        "the error of each layer's output is measured on a part that is held out.\n\n"
        "`moetool passes convert-ffn` tells more about the methods.",
    .examples = convert_examples,
    .opts = convert_opt_table,
    .opts_size = sizeof(struct convert_opts),
    .pass = &mt_pass_convert_ffn,
    .reads_data = true,
    .args_min = 1,
    .args_max = 1,
    .run = convert_run,
};
