#include "cmd/cmd.h"

#include "cmd/table.h"
#include "lib/base/json.h"
#include "lib/base/scratch.h"
#include "lib/run/compare.h"
#include "lib/run/trace.h"

#include <math.h>
#include <stdio.h>

struct eval_opts {
    const char *trace;
    bool force;
};

static const struct mt_opt eval_opt_table[] = {
    MT_OPT_STR(struct eval_opts, trace, "trace", 0, "FILE", NULL,
               "write which experts each token went to, for simulate (JSONL)"),
    MT_OPT_BOOL(struct eval_opts, force, "force", 0, "replace an existing FILE"),
    MT_OPT_END,
};

static mt_status eval_print(struct mt_ctx *ctx, const struct mt_dataset *d,
                            const struct mt_eval_report *r)
{
    struct cmd_table t;

    cmd_table_begin(&t, "lrrr");
    cmd_table_cell(ctx, &t, "%s", "");
    cmd_table_cell(ctx, &t, "tokens");
    cmd_table_cell(ctx, &t, "nats per token");
    cmd_table_cell(ctx, &t, "perplexity");
    for (int i = 0; i < r->n_domains && r->n_domains > 1; i++) {
        cmd_table_cell(ctx, &t, "%s", d->domains[i]);
        cmd_table_cell(ctx, &t, "%zu", r->domains[i].n_tokens);
        if (r->domains[i].n_tokens == 0) { /* too few --samples, or an empty file */
            cmd_table_cell(ctx, &t, "-");
            cmd_table_cell(ctx, &t, "-");
            continue;
        }
        cmd_table_cell(ctx, &t, "%.4f", r->domains[i].nll);
        cmd_table_cell(ctx, &t, "%.4g", exp(r->domains[i].nll));
    }
    cmd_table_cell(ctx, &t, "%s", r->n_domains > 1 ? "all" : d->domains[0]);
    cmd_table_cell(ctx, &t, "%zu", r->n_tokens);
    cmd_table_cell(ctx, &t, "%.4f +- %.4f", r->nll, r->nll_stderr);
    cmd_table_cell(ctx, &t, "%.4g", r->ppl);
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    return st;
}

static mt_status eval_json(struct mt_ctx *ctx, const struct mt_model *m, const struct mt_dataset *d,
                           const struct mt_eval_report *r)
{
    struct mt_json *root = mt_json_new_object(), *list;

    mt_json_set_str(root, "model", m->path);
    mt_json_set_str(root, "data_sha256", d->sha256);
    mt_json_set_int(root, "windows", (int64_t)d->n_windows);
    mt_json_set_int(root, "tokens", (int64_t)r->n_tokens);
    mt_json_set_num(root, "nll", r->nll);
    mt_json_set_num(root, "nll_stderr", r->nll_stderr);
    mt_json_set_num(root, "perplexity", r->ppl);
    mt_json_set_num(root, "seconds", r->seconds);
    list = mt_json_set_array(root, "domains");
    for (int i = 0; i < r->n_domains; i++) {
        struct mt_json *o = mt_json_add_object(list);
        mt_json_set_str(o, "name", d->domains[i]);
        mt_json_set_int(o, "tokens", (int64_t)r->domains[i].n_tokens);
        double nll = r->domains[i].n_tokens > 0 ? r->domains[i].nll : NAN; /* null */
        mt_json_set_num(o, "nll", nll);
        mt_json_set_num(o, "perplexity", exp(nll));
    }
    return cmd_print_json(ctx, root);
}

static mt_status eval_routing(struct mt_ctx *ctx, void *arg, int layer, const struct mt_batch *b,
                              const struct mt_routing *routing)
{
    return mt_trace_add(ctx, arg, layer, b, routing);
}

static mt_status eval_measure(struct mt_ctx *ctx, const struct eval_opts *o,
                              const struct mt_model *m, struct mt_device *dev,
                              const struct mt_dataset *d, struct mt_eval_report *r)
{
    struct mt_eval_watch watch = {.routing = eval_routing};
    struct mt_trace_writer *w;
    mt_status st;

    if (o->trace == NULL)
        return mt_evaluate(ctx, m, dev, d, mt_scratch_dir(), NULL, r);
    MT_TRY(mt_trace_create(ctx, o->trace, o->force ? MT_OUT_FORCE : 0u, m, &w));
    watch.arg = w;
    st = mt_evaluate(ctx, m, dev, d, mt_scratch_dir(), &watch, r);
    if (st == MT_OK) {
        st = mt_trace_commit(ctx, w);
        if (st != MT_OK)
            mt_eval_free(r);
    }
    mt_trace_close(w);
    return st;
}

static mt_status eval_with_data(struct mt_ctx *ctx, const struct cmd_args *a,
                                const struct mt_model *m, const struct mt_dataset *d)
{
    struct mt_eval_report r;
    struct mt_device *dev;
    mt_status st;

    MT_TRY(cmd_warn_same_data(ctx, m, d));
    MT_TRY(cmd_open_device(ctx, a, &dev));
    st = eval_measure(ctx, a->opts, m, dev, d, &r);
    if (st == MT_OK) {
        st = cmd_check_finite(ctx, a, m, r.nll);
        if (st == MT_OK)
            st = a->common->json ? eval_json(ctx, m, d, &r) : eval_print(ctx, d, &r);
        mt_eval_free(&r);
    }
    mt_device_close(dev);
    return st;
}

static mt_status eval_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct mt_dataset d;
    struct mt_model *m;
    mt_status st;

    MT_TRY(cmd_open_model(ctx, a->pos->v[0], &m));
    st = cmd_check_predicts(ctx, m);
    if (st == MT_OK)
        st = cmd_open_data(ctx, a, m, &a->data->data, &d);
    if (st == MT_OK) {
        st = eval_with_data(ctx, a, m, &d);
        mt_dataset_free(&d);
    }
    mt_model_free(m);
    return st;
}

static const struct cmd_example eval_examples[] = {
    {"eval Qwen3-0.6B --data held-out.jsonl", "perplexity on one text"},
    {"eval moe --data math=m.jsonl --data web=w.jsonl --samples 0", "by domain, all of the text"},
    {"eval moe --data held-out.jsonl --trace routes.jsonl", "and where its tokens go"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_eval = {
    .name = "eval",
    .summary = "perplexity of a model, per text and domain",
    .synopsis = "MODEL --data FILE",
    .help = "Runs a model over text and tells its perplexity. Windows are cut from the text as "
            "validate and convert cut them, each predicted from its own beginning, so the figure "
            "depends on --seq-len.",
    .examples = eval_examples,
    .opts = eval_opt_table,
    .opts_size = sizeof(struct eval_opts),
    .reads_data = true,
    .args_min = 1,
    .args_max = 1,
    .run = eval_run,
};
