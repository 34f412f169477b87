#include "lib/run/compare_impl.h"

#include <math.h>
#include <string.h>

static double report_ratio(double a, size_t n)
{
    return n > 0 ? a / (double)n : 0;
}

/* sqrt(diff/norm); a difference against nothing is infinite, no difference is 0. */
static double report_relative(double diff, double norm)
{
    return diff == 0 ? 0 : sqrt(diff / norm);
}

static mt_status report_layer(struct mt_ctx *ctx, const struct cmp_layer *s,
                              struct mt_layer_report *out)
{
    uint64_t sum = 0;

    out->ffn_error = report_relative(s->ffn_diff, s->ffn_norm);
    out->drift = report_relative(s->drift_diff, s->drift_norm);
    if (s->slots == NULL)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, (size_t)s->n_experts, sizeof *out->load, "report", &out->load));
    out->n_experts = s->n_experts;
    for (int e = 0; e < s->n_experts; e++)
        sum += s->slots[e];
    for (int e = 0; e < s->n_experts; e++) {
        out->load[e] = sum > 0 ? (double)s->slots[e] / (double)sum : 0;
        out->dead += s->slots[e] == 0;
        if (out->load[e] * s->n_experts > out->load_max)
            out->load_max = out->load[e] * s->n_experts;
    }
    out->load_entropy = mt_metrics_entropy(out->load, s->n_experts);
    return MT_OK;
}

static mt_status report_layers(struct mt_ctx *ctx, const struct cmp_sums *s,
                               struct mt_compare_report *out)
{
    MT_TRY(mt_alloc0(ctx, (size_t)s->n_layers, sizeof *out->layers, "report", &out->layers));
    out->n_layers = s->n_layers;
    for (int l = 0; l < s->n_layers; l++)
        MT_TRY(report_layer(ctx, &s->layers[l], &out->layers[l]));
    return MT_OK;
}

static mt_status report_domains(struct mt_ctx *ctx, const struct cmp *c, const struct cmp_sums *s,
                                struct mt_compare_report *out)
{
    double ref = 0, cand = 0;

    MT_TRY(
        mt_alloc0(ctx, (size_t)c->data->n_domains, sizeof *out->domains, "report", &out->domains));
    out->n_domains = c->data->n_domains;
    for (int i = 0; i < out->n_domains; i++) {
        const struct cmp_domain *d = &s->domains[i];
        out->domains[i].n_tokens = d->n;
        out->domains[i].kl_mean = report_ratio(d->kl, d->n);
        out->domains[i].nll_ref = report_ratio(d->nll_ref, d->n);
        out->domains[i].nll_cand = report_ratio(d->nll_cand, d->n);
        ref += d->nll_ref;
        cand += d->nll_cand;
    }
    out->nll_ref = report_ratio(ref, s->n);
    out->nll_cand = report_ratio(cand, s->n);
    out->ppl_ref = exp(out->nll_ref);
    out->ppl_cand = exp(out->nll_cand);
    out->ppl_ratio = exp(out->nll_cand - out->nll_ref);
    return MT_OK;
}

/* Statistics of the per-token values, which the report takes over. */
static mt_status report_kl(struct mt_ctx *ctx, struct cmp_sums *s, struct mt_compare_report *out)
{
    double mean;
    float *sorted;

    MT_TRY(mt_alloc(ctx, s->n, sizeof *sorted, "report", &sorted));
    memcpy(sorted, s->v, s->n * sizeof *sorted);
    mt_metrics_sort(sorted, s->n);
    out->kl_median = mt_metrics_quantile(sorted, s->n, 0.5);
    out->kl_p99 = mt_metrics_quantile(sorted, s->n, 0.99);
    out->kl_max = mt_metrics_quantile(sorted, s->n, 1);
    mt_free(sorted);
    mt_metrics_mean(s->v, s->n, &mean, &out->kl_stderr);
    out->kl_mean = report_ratio(s->v_sum, s->n);
    out->n_tokens = s->n;
    out->top1 = report_ratio((double)s->top1, s->n);
    out->kl = s->v;
    s->v = NULL;
    return MT_OK;
}

static mt_status report_make(struct mt_ctx *ctx, struct cmp *c, int k,
                             struct mt_compare_report *out)
{
    out->seconds_ref = c->ref.seconds;
    out->seconds_cand = c->cand[k].seconds;
    MT_TRY(report_kl(ctx, &c->sums[k], out));
    MT_TRY(report_domains(ctx, c, &c->sums[k], out));
    return report_layers(ctx, &c->sums[k], out);
}

mt_status mt_compare(struct mt_ctx *ctx, const struct mt_model *ref,
                     const struct mt_model *const *cand, int n_cand, struct mt_device *dev,
                     const struct mt_dataset *data, const char *scratch_dir,
                     struct mt_compare_report *out)
{
    struct cmp c;
    mt_status st;

    mt_assert(n_cand > 0);
    memset(out, 0, (size_t)n_cand * sizeof *out);
    st = cmp_open(ctx, &c, ref, cand, n_cand, dev, data, scratch_dir);
    if (st == MT_OK)
        st = cmp_run(ctx, &c);
    for (int k = 0; st == MT_OK && k < n_cand; k++)
        st = report_make(ctx, &c, k, &out[k]);
    for (int k = 0; st != MT_OK && k < n_cand; k++)
        mt_compare_free(&out[k]);
    cmp_close(&c);
    return st;
}

void mt_compare_free(struct mt_compare_report *r)
{
    for (int l = 0; l < r->n_layers; l++)
        mt_free(r->layers[l].load);
    mt_free(r->layers);
    mt_free(r->domains);
    mt_free(r->kl);
    memset(r, 0, sizeof *r);
}

static mt_status report_eval(struct mt_ctx *ctx, struct cmp *c, struct mt_eval_report *out)
{
    const struct cmp_sums *s = &c->sums[0];
    double mean;

    MT_TRY(
        mt_alloc0(ctx, (size_t)c->data->n_domains, sizeof *out->domains, "report", &out->domains));
    out->n_domains = c->data->n_domains;
    for (int i = 0; i < out->n_domains; i++) {
        out->domains[i].nll = report_ratio(s->domains[i].nll_ref, s->domains[i].n);
        out->domains[i].n_tokens = s->domains[i].n;
    }
    mt_metrics_mean(s->v, s->n, &mean, &out->nll_stderr);
    out->nll = report_ratio(s->v_sum, s->n);
    out->ppl = exp(out->nll);
    out->n_tokens = s->n;
    out->seconds = c->ref.seconds;
    return MT_OK;
}

mt_status mt_evaluate(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                      const struct mt_dataset *data, const char *scratch_dir,
                      const struct mt_eval_watch *watch, struct mt_eval_report *out)
{
    struct cmp c;
    mt_status st;

    memset(out, 0, sizeof *out);
    st = cmp_open(ctx, &c, m, NULL, 0, dev, data, scratch_dir);
    c.watch = watch;
    if (st == MT_OK)
        st = cmp_run(ctx, &c);
    if (st == MT_OK)
        st = report_eval(ctx, &c, out);
    cmp_close(&c);
    return st;
}

void mt_eval_free(struct mt_eval_report *r)
{
    mt_free(r->domains);
    memset(r, 0, sizeof *r);
}
