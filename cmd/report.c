#include "cmd/report.h"

#include "cmd/cmd.h"
#include "cmd/table.h"
#include "lib/base/path.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum report_line {
    REPORT_KL,
    REPORT_PAIRED,
    REPORT_INTERVAL,
    REPORT_KL_P99,
    REPORT_KL_MAX,
    REPORT_PPL,
    REPORT_RATIO,
    REPORT_TOP1,
    REPORT_FFN_ERROR,
    REPORT_DRIFT,
    REPORT_LOAD,
    REPORT_DEAD,
    REPORT_PARAMS,
    REPORT_ACTIVE,
    REPORT_FFN_ACTIVE,
    REPORT_BYTES,
    REPORT_LINES
};

static const char *const report_labels[REPORT_LINES] = {
    [REPORT_KL] = "KL to the original, mean",
    [REPORT_PAIRED] = "KL less that of the first",
    [REPORT_INTERVAL] = "95 % interval of that",
    [REPORT_KL_P99] = "KL, 99 % of tokens below",
    [REPORT_KL_MAX] = "KL, worst token",
    [REPORT_PPL] = "perplexity",
    [REPORT_RATIO] = "perplexity, relative",
    [REPORT_TOP1] = "same next token",
    [REPORT_FFN_ERROR] = "FFN error, worst layer",
    [REPORT_DRIFT] = "drift of the last layer",
    [REPORT_LOAD] = "busiest expert / mean",
    [REPORT_DEAD] = "experts never used",
    [REPORT_PARAMS] = "parameters",
    [REPORT_ACTIVE] = "active for a token",
    [REPORT_FFN_ACTIVE] = "active in FFNs",
    [REPORT_BYTES] = "bytes",
};

/* Worst layer of what a comparison measured by layer. */
struct report_worst {
    double ffn_error, load_max;
    int dead;
    bool moe;
};

static struct report_worst report_worst(const struct mt_compare_report *r)
{
    struct report_worst w = {0};

    for (int l = 0; l < r->n_layers; l++) {
        const struct mt_layer_report *x = &r->layers[l];
        w.ffn_error = x->ffn_error > w.ffn_error ? x->ffn_error : w.ffn_error;
        w.load_max = x->load_max > w.load_max ? x->load_max : w.load_max;
        w.dead += x->dead;
        w.moe |= x->n_experts > 0;
    }
    return w;
}

static void report_measured(struct mt_ctx *ctx, struct cmd_table *t, enum report_line line,
                            const struct mt_compare_report *r)
{
    struct report_worst w = report_worst(r);

    if (line == REPORT_KL)
        cmd_table_cell(ctx, t, "%.3g +- %.1g", r->kl_mean, r->kl_stderr);
    else if (line == REPORT_KL_P99)
        cmd_table_cell(ctx, t, "%.3g", r->kl_p99);
    else if (line == REPORT_KL_MAX)
        cmd_table_cell(ctx, t, "%.3g", r->kl_max);
    else if (line == REPORT_PPL)
        cmd_table_cell(ctx, t, "%.4g", r->ppl_cand);
    else if (line == REPORT_RATIO)
        cmd_table_cell(ctx, t, "%.4f", r->ppl_ratio);
    else if (line == REPORT_TOP1)
        cmd_table_cell(ctx, t, "%.2f %%", 100 * r->top1);
    else if (line == REPORT_FFN_ERROR)
        cmd_table_cell(ctx, t, "%.3g", w.ffn_error);
    else if (line == REPORT_DRIFT)
        cmd_table_cell(ctx, t, "%.3g", r->n_layers > 0 ? r->layers[r->n_layers - 1].drift : 0);
    else if (!w.moe)
        cmd_table_cell(ctx, t, "-");
    else if (line == REPORT_LOAD)
        cmd_table_cell(ctx, t, "%.2f", w.load_max);
    else
        cmd_table_cell(ctx, t, "%d", w.dead);
}

static void report_paired(struct mt_ctx *ctx, struct cmd_table *t, enum report_line line,
                          const struct mt_paired *p)
{
    if (p == NULL)
        cmd_table_cell(ctx, t, "%s", "");
    else if (line == REPORT_PAIRED)
        cmd_table_cell(ctx, t, "%+.3g", p->mean);
    else if (isnan(p->low))
        cmd_table_cell(ctx, t, "-");
    else
        cmd_table_cell(ctx, t, "%+.3g to %+.3g", p->low, p->high);
}

static void report_cell(struct mt_ctx *ctx, struct cmd_table *t, enum report_line line,
                        const struct cmd_report_row *row, const struct mt_compare_report *any)
{
    struct mt_model_size size;
    char b[24];

    mt_model_measure(row->m, &size);
    if (line == REPORT_PARAMS)
        cmd_table_cell(ctx, t, "%s", cmd_format_count(size.params_total, b, sizeof b));
    else if (line == REPORT_ACTIVE)
        cmd_table_cell(ctx, t, "%s", cmd_format_count(size.params_active, b, sizeof b));
    else if (line == REPORT_FFN_ACTIVE)
        cmd_table_cell(ctx, t, "%s", cmd_format_count(size.ffn_params_active, b, sizeof b));
    else if (line == REPORT_BYTES)
        cmd_table_cell(ctx, t, "%s", mt_format_bytes(size.bytes, b, sizeof b));
    else if (line == REPORT_PAIRED || line == REPORT_INTERVAL)
        report_paired(ctx, t, line, row->paired);
    else if (row->r != NULL)
        report_measured(ctx, t, line, row->r);
    else if (line == REPORT_PPL)
        cmd_table_cell(ctx, t, "%.4g", any->ppl_ref);
    else
        cmd_table_cell(ctx, t, "%s", "");
}

static bool report_any_paired(const struct cmd_report_row *rows, int n)
{
    for (int i = 1; i < n; i++) {
        if (rows[i].paired != NULL)
            return true;
    }
    return false;
}

static bool report_any_moe(const struct cmd_report_row *rows, int n)
{
    for (int i = 1; i < n; i++) {
        if (rows[i].r != NULL && report_worst(rows[i].r).moe)
            return true;
    }
    return false;
}

/* Mean KL of each domain, when there are several. */
static void report_domains(struct mt_ctx *ctx, struct cmd_table *t,
                           const struct cmd_report_row *rows, int n, const struct mt_dataset *data)
{
    if (rows[1].r == NULL || rows[1].r->n_domains < 2)
        return;
    for (int d = 0; d < rows[1].r->n_domains; d++) {
        cmd_table_cell(ctx, t, "KL, %s", data->domains[d]);
        cmd_table_cell(ctx, t, "%s", "");
        for (int i = 1; i < n; i++) {
            if (rows[i].r->domains[d].n_tokens == 0)
                cmd_table_cell(ctx, t, "-");
            else
                cmd_table_cell(ctx, t, "%.3g", rows[i].r->domains[d].kl_mean);
        }
    }
}

void cmd_report_head(size_t n_tokens, size_t n_windows, const char *of)
{
    printf("%zu tokens in %zu window%s%s; KL in nats per token\n\n", n_tokens, n_windows,
           n_windows == 1 ? "" : "s", of);
}

mt_status cmd_report_table(struct mt_ctx *ctx, const struct cmd_report_row *rows, int n,
                           const struct mt_dataset *data)
{
    char align[CMD_TABLE_COLS_MAX + 1] = "l";
    bool moe = report_any_moe(rows, n), paired = report_any_paired(rows, n);
    struct cmd_table t;

    mt_assert(n >= 2 && n < CMD_TABLE_COLS_MAX);
    memset(align + 1, 'r', (size_t)n);
    cmd_table_begin(&t, align);
    cmd_table_cell(ctx, &t, "%s", "");
    for (int i = 0; i < n; i++)
        cmd_table_cell(ctx, &t, "%s", rows[i].name);
    for (int line = 0; line < REPORT_LINES; line++) {
        if ((!moe && (line == REPORT_LOAD || line == REPORT_DEAD)) ||
            (!paired && (line == REPORT_PAIRED || line == REPORT_INTERVAL)) ||
            (rows[1].r == NULL && line < REPORT_PARAMS))
            continue;
        cmd_table_cell(ctx, &t, "%s", report_labels[line]);
        for (int i = 0; i < n; i++)
            report_cell(ctx, &t, (enum report_line)line, &rows[i], rows[1].r);
        if (line == REPORT_KL_MAX)
            report_domains(ctx, &t, rows, n, data);
    }
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    return st;
}

mt_status cmd_report_layers(struct mt_ctx *ctx, const struct cmd_report_row *row)
{
    const struct mt_compare_report *r = row->r;
    bool moe = report_worst(r).moe;
    struct cmd_table t;

    cmd_table_begin(&t, moe ? "rrrrrrr" : "rrr");
    cmd_table_cell(ctx, &t, "layer");
    cmd_table_cell(ctx, &t, "FFN error");
    cmd_table_cell(ctx, &t, "drift");
    if (moe) {
        cmd_table_cell(ctx, &t, "experts");
        cmd_table_cell(ctx, &t, "busiest/mean");
        cmd_table_cell(ctx, &t, "evenness");
        cmd_table_cell(ctx, &t, "never used");
    }
    for (int l = 0; l < r->n_layers; l++) {
        const struct mt_layer_report *x = &r->layers[l];
        cmd_table_cell(ctx, &t, "%d", l);
        cmd_table_cell(ctx, &t, "%.3g", x->ffn_error);
        cmd_table_cell(ctx, &t, "%.3g", x->drift);
        if (moe && x->n_experts > 0) {
            cmd_table_cell(ctx, &t, "%d", x->n_experts);
            cmd_table_cell(ctx, &t, "%.2f", x->load_max);
            cmd_table_cell(ctx, &t, "%.3f", x->load_entropy);
            cmd_table_cell(ctx, &t, "%d", x->dead);
        }
        cmd_table_end_row(ctx, &t);
    }
    printf("%s\n", row->name);
    mt_status st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    return st;
}

/* ---- JSON ---- */

static void report_json_model(struct mt_json *o, const struct cmd_report_row *row)
{
    struct mt_model_size size;

    mt_model_measure(row->m, &size);
    mt_json_set_str(o, "name", row->name);
    mt_json_set_int(o, "parameters", (int64_t)size.params_total);
    mt_json_set_int(o, "parameters_active", (int64_t)size.params_active);
    mt_json_set_int(o, "ffn_parameters", (int64_t)size.ffn_params_total);
    mt_json_set_int(o, "ffn_parameters_active", (int64_t)size.ffn_params_active);
    mt_json_set_int(o, "bytes", (int64_t)size.bytes);
}

static void report_json_layers(struct mt_json *o, const struct mt_compare_report *r)
{
    struct mt_json *list = mt_json_set_array(o, "layers");

    for (int l = 0; l < r->n_layers; l++) {
        const struct mt_layer_report *x = &r->layers[l];
        struct mt_json *j = mt_json_add_object(list), *load;
        mt_json_set_num(j, "ffn_error", x->ffn_error);
        mt_json_set_num(j, "drift", x->drift);
        if (x->n_experts == 0)
            continue;
        mt_json_set_int(j, "experts", x->n_experts);
        mt_json_set_num(j, "load_max", x->load_max);
        mt_json_set_num(j, "load_entropy", x->load_entropy);
        mt_json_set_int(j, "dead", x->dead);
        load = mt_json_set_array(j, "load");
        for (int e = 0; e < x->n_experts; e++)
            mt_json_add_num(load, x->load[e]);
    }
}

static void report_json_candidate(struct mt_json *o, const struct mt_compare_report *r,
                                  const struct mt_dataset *data)
{
    struct mt_json *list;

    mt_json_set_num(o, "kl_mean", r->kl_mean);
    mt_json_set_num(o, "kl_stderr", r->kl_stderr);
    mt_json_set_num(o, "kl_median", r->kl_median);
    mt_json_set_num(o, "kl_p99", r->kl_p99);
    mt_json_set_num(o, "kl_max", r->kl_max);
    mt_json_set_num(o, "nll", r->nll_cand);
    mt_json_set_num(o, "perplexity", r->ppl_cand);
    mt_json_set_num(o, "perplexity_ratio", r->ppl_ratio);
    mt_json_set_num(o, "top1", r->top1);
    list = mt_json_set_array(o, "domains");
    for (int d = 0; d < r->n_domains; d++) {
        struct mt_json *j = mt_json_add_object(list);
        mt_json_set_str(j, "name", data->domains[d]);
        mt_json_set_int(j, "tokens", (int64_t)r->domains[d].n_tokens);
        if (r->domains[d].n_tokens == 0)
            continue;
        mt_json_set_num(j, "kl_mean", r->domains[d].kl_mean);
        mt_json_set_num(j, "nll_reference", r->domains[d].nll_ref);
        mt_json_set_num(j, "nll", r->domains[d].nll_cand);
    }
    report_json_layers(o, r);
}

static void report_json_paired(struct mt_json *o, const struct cmd_report_row *first,
                               const struct mt_paired *p)
{
    struct mt_json *j = mt_json_set_object(o, "kl_less_first");

    mt_json_set_str(j, "first", first->name);
    mt_json_set_num(j, "mean", p->mean);
    mt_json_set_num(j, "low", p->low);
    mt_json_set_num(j, "high", p->high);
}

void cmd_report_json(struct mt_json *out, const struct cmd_report_row *rows, int n,
                     const struct mt_dataset *data)
{
    struct mt_json *o = mt_json_set_object(out, "reference"), *list;

    report_json_model(o, &rows[0]);
    mt_json_set_num(o, "nll", rows[1].r->nll_ref);
    mt_json_set_num(o, "perplexity", rows[1].r->ppl_ref);
    o = mt_json_set_object(out, "data");
    mt_json_set_str(o, "sha256", data->sha256);
    mt_json_set_int(o, "windows", (int64_t)data->n_windows);
    mt_json_set_int(o, "tokens", (int64_t)rows[1].r->n_tokens);
    list = mt_json_set_array(out, "candidates");
    for (int i = 1; i < n; i++) {
        o = mt_json_add_object(list);
        report_json_model(o, &rows[i]);
        if (rows[i].paired != NULL)
            report_json_paired(o, &rows[1], rows[i].paired);
        report_json_candidate(o, rows[i].r, data);
    }
}

void cmd_report_figures(struct mt_json *j, const struct mt_compare_report *r,
                        const struct mt_dataset *data)
{
    struct mt_json *list;

    mt_json_set_int(j, "n_tokens", (int64_t)r->n_tokens);
    mt_json_set_num(j, "kl_mean", r->kl_mean);
    mt_json_set_num(j, "kl_stderr", r->kl_stderr);
    mt_json_set_num(j, "kl_p99", r->kl_p99);
    mt_json_set_num(j, "ppl_ref", r->ppl_ref);
    mt_json_set_num(j, "ppl_cand", r->ppl_cand);
    mt_json_set_num(j, "ppl_ratio", r->ppl_ratio);
    mt_json_set_num(j, "top1", r->top1);
    list = mt_json_set_array(j, "domains");
    for (int d = 0; d < r->n_domains; d++) {
        struct mt_json *o = mt_json_add_object(list);
        mt_json_set_str(o, "name", data->domains[d]);
        mt_json_set_num(o, "kl_mean", r->domains[d].kl_mean);
        mt_json_set_num(o, "nll_ref", r->domains[d].nll_ref);
        mt_json_set_num(o, "nll_cand", r->domains[d].nll_cand);
        mt_json_set_int(o, "n_tokens", (int64_t)r->domains[d].n_tokens);
    }
}
