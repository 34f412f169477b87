#include "cmd/cmd.h"

#include "cmd/per_token.h"
#include "cmd/report.h"
#include "lib/base/mem.h"
#include "lib/base/outdir.h"
#include "lib/base/scratch.h"

#include <stdio.h>
#include <string.h>

#define VALIDATE_MAX 9

struct validate_opts {
    double max_kl;
    const char *per_token;
    bool force;
};

static const struct mt_opt validate_opt_table[] = {
    MT_OPT_NUM(struct validate_opts, max_kl, "max-kl", 0, "X", "-1", -1, 1e9,
               "exit with code 3 when the mean KL of a candidate is larger (default: no limit)"),
    MT_OPT_STR(
        struct validate_opts, per_token, "per-token", 0, "FILE", NULL,
        "write the KL of every predicted token, a row for each, a column for each candidate, "
        "separated by tabs"),
    MT_OPT_BOOL(struct validate_opts, force, "force", 0, "replace an existing FILE"),
    MT_OPT_END,
};

struct validate {
    int n; /* candidates */
    struct mt_model *ref, *cand[VALIDATE_MAX];
    struct mt_device *dev;
    struct mt_dataset data;
    struct mt_compare_report reports[VALIDATE_MAX];
    bool compared;
    struct mt_paired paired[VALIDATE_MAX]; /* against the first candidate */
    char names[VALIDATE_MAX + 1][64];
    struct cmd_report_row rows[VALIDATE_MAX + 1];
};

/* What would fail only after the work. */
static mt_status validate_probe(struct mt_ctx *ctx, const struct validate_opts *o)
{
    if (o->per_token == NULL)
        return MT_OK;
    return mt_outdir_probe(ctx, o->per_token,
                           MT_OUT_FILE | (o->force ? (unsigned)MT_OUT_FORCE : 0));
}

static mt_status validate_open(struct mt_ctx *ctx, const struct cmd_args *a, struct validate *v)
{
    MT_TRY(cmd_open_model(ctx, a->pos->v[0], &v->ref));
    for (int i = 0; i < v->n; i++)
        MT_TRY(cmd_open_model(ctx, a->pos->v[i + 1], &v->cand[i]));
    MT_TRY(cmd_check_predicts(ctx, v->ref));
    for (int i = 0; i < v->n; i++)
        MT_TRY(cmd_check_predicts(ctx, v->cand[i]));
    MT_TRY(cmd_open_device(ctx, a, &v->dev));
    MT_TRY(cmd_open_data(ctx, a, v->ref, &a->data->data, &v->data));
    for (int i = 0; i < v->n; i++)
        MT_TRY(cmd_warn_same_data(ctx, v->cand[i], &v->data));
    return MT_OK;
}

/* The last part of a path, or all of it where two models end alike. */
static const char *validate_name(const struct cmd_args *a, int i, char *buf, size_t n)
{
    char other[64];

    cmd_model_name(a->pos->v[i], buf, n);
    for (int k = 0; k < a->pos->n; k++) {
        if (k != i && strcmp(cmd_model_name(a->pos->v[k], other, sizeof other), buf) == 0)
            return a->pos->v[i];
    }
    return buf;
}

static mt_status validate_compare(struct mt_ctx *ctx, const struct cmd_args *a, struct validate *v)
{
    MT_TRY(mt_compare(ctx, v->ref, (const struct mt_model *const *)v->cand, v->n, v->dev, &v->data,
                      mt_scratch_dir(), v->reports));
    v->compared = true;
    for (int i = 0; i < v->n; i++) {
        MT_TRY(cmd_check_finite(ctx, a, v->ref, v->reports[i].ppl_ref));
        MT_TRY(cmd_check_finite(ctx, a, v->cand[i], v->reports[i].kl_mean));
    }
    for (int i = 0; i <= v->n; i++) {
        v->rows[i] = (struct cmd_report_row){
            .name = validate_name(a, i, v->names[i], sizeof v->names[i]),
            .m = i == 0 ? v->ref : v->cand[i - 1],
            .r = i == 0 ? NULL : &v->reports[i - 1],
        };
    }
    for (int i = 1; i < v->n; i++) {
        MT_TRY(mt_paired(ctx, v->reports[i].kl, v->reports[0].kl, &v->data,
                         (uint64_t)a->common->seed, &v->paired[i]));
        v->rows[i + 1].paired = &v->paired[i];
    }
    return MT_OK;
}

static mt_status validate_per_token(struct mt_ctx *ctx, const struct validate_opts *o,
                                    const struct validate *v)
{
    return o->per_token != NULL
               ? cmd_per_token_write(ctx, o->per_token, o->force, v->rows, v->n + 1, &v->data)
               : MT_OK;
}

static mt_status validate_print(struct mt_ctx *ctx, const struct cmd_args *a,
                                const struct validate *v)
{
    if (a->common->json) {
        struct mt_json *root = mt_json_new_object();
        cmd_report_json(root, v->rows, v->n + 1, &v->data);
        return cmd_print_json(ctx, root);
    }
    cmd_report_head(v->reports[0].n_tokens, v->data.n_windows, "");
    MT_TRY(cmd_report_table(ctx, v->rows, v->n + 1, &v->data));
    for (int i = 1; i <= v->n; i++) {
        printf("\n");
        MT_TRY(cmd_report_layers(ctx, &v->rows[i]));
    }
    return MT_OK;
}

static mt_status validate_limit(struct mt_ctx *ctx, const struct validate_opts *o,
                                const struct validate *v)
{
    for (int i = 0; i < v->n && o->max_kl >= 0; i++) {
        if (!(v->reports[i].kl_mean <= o->max_kl))
            return mt_fail(ctx, MT_E_EXCEEDED, "%s: mean KL %.3g is above --max-kl %.3g",
                           v->rows[i + 1].name, v->reports[i].kl_mean, o->max_kl);
    }
    return MT_OK;
}

static void validate_close(struct validate *v)
{
    for (int i = 0; i < v->n; i++) {
        if (v->compared)
            mt_compare_free(&v->reports[i]);
        mt_model_free(v->cand[i]);
    }
    mt_dataset_free(&v->data);
    if (v->dev != NULL)
        mt_device_close(v->dev);
    mt_model_free(v->ref);
}

static mt_status validate_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct validate v = {.n = a->pos->n - 1};
    mt_status st;

    st = validate_probe(ctx, a->opts);
    if (st == MT_OK)
        st = validate_open(ctx, a, &v);
    if (st == MT_OK)
        st = validate_compare(ctx, a, &v);
    if (st == MT_OK)
        st = validate_per_token(ctx, a->opts, &v);
    if (st == MT_OK)
        st = validate_print(ctx, a, &v);
    if (st == MT_OK)
        st = validate_limit(ctx, a->opts, &v);
    validate_close(&v);
    return st;
}

static const struct cmd_example validate_examples[] = {
    {"validate dense moe --data held-out.jsonl", "how far moe is from dense"},
    {"validate dense moe-a moe-b --data a=a.txt --data b=b.txt --json",
     "two candidates, for scripts"},
    {"validate dense moe-a moe-b --data held-out.jsonl --samples 0",
     "is moe-b closer than moe-a? all there is of the text, for a narrow interval"},
    {"validate dense moe --data held-out.jsonl --max-kl 0.1 --quiet",
     "exit code 3 when it is too far"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_validate = {
    .name = "validate",
    .summary = "how far models are from a reference: KL, perplexity, agreement",
    .synopsis = "REFERENCE MODEL... --data FILE",
    .help =
        "Runs the reference and every candidate over the same text, layer by layer side by side, "
        "and compares their predictions token by token: KL divergence from the reference in nats "
        "(mean with standard error, 99th percentile, worst), perplexity, and how often the most "
        "likely next token is the same. By layer: relative error of the FFN on the reference's "
        "input, drift of the hidden state, load of the experts.\n\n"
        "Of several candidates each is also compared with the first: the difference of their mean "
        "KL, negative where it is closer than the first, with a 95 % interval of a paired "
        "bootstrap "
        "over windows.\n\n"
        "Use text the candidate was not calibrated on; validate warns when it sees the same.",
    .examples = validate_examples,
    .opts = validate_opt_table,
    .opts_size = sizeof(struct validate_opts),
    .reads_data = true,
    .args_min = 2,
    .args_max = VALIDATE_MAX + 1,
    .run = validate_run,
};
