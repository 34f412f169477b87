#include "passes/lib/router_probe.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/run/runner.h"
#include "passes/lib/router_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct mt_router_probe {
    int64_t d;
    int n, k;
    int64_t stride; /* every stride-th token is sampled */
    int64_t n_sample, sample_max;
    float *sample_x;     /* [sample_max, d] */
    float *sample_norms; /* [sample_max, n] */
};

uint64_t mt_router_probe_bytes(uint64_t d, uint64_t n_experts)
{
    /* Inputs, norms, and the logits of two routers that are compared. */
    return MT_ROUTER_SAMPLE_MAX * (d + 3 * n_experts) * 4;
}

mt_status mt_router_probe_create(struct mt_ctx *ctx, int64_t d, int n_experts, int k,
                                 int64_t n_tokens, struct mt_router_probe **out)
{
    struct mt_router_probe *p;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*p), "router check", &p));
    p->d = d;
    p->n = n_experts;
    p->k = k;
    p->stride = (n_tokens + MT_ROUTER_SAMPLE_MAX - 1) / MT_ROUTER_SAMPLE_MAX;
    if (p->stride < 1)
        p->stride = 1;
    p->sample_max = n_tokens / p->stride + 1;
    mt_status st = mt_alloc(ctx, (size_t)p->sample_max, (size_t)d * sizeof(float), "router check",
                            &p->sample_x);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)p->sample_max, (size_t)n_experts * sizeof(float), "router check",
                      &p->sample_norms);
    if (st != MT_OK) {
        mt_router_probe_free(p);
        return st;
    }
    *out = p;
    return MT_OK;
}

void mt_router_probe_free(struct mt_router_probe *p)
{
    if (p == NULL)
        return;
    mt_free(p->sample_x);
    mt_free(p->sample_norms);
    mt_free(p);
}

void mt_router_probe_add(struct mt_router_probe *p, int64_t m, int64_t token0, const float *x,
                         const float *norms)
{
    for (int64_t t = 0; t < m; t++) {
        if ((token0 + t) % p->stride != 0 || p->n_sample == p->sample_max)
            continue;
        memcpy(p->sample_x + p->n_sample * p->d, x + t * p->d, (size_t)p->d * sizeof(*x));
        memcpy(p->sample_norms + p->n_sample * p->n, norms + t * p->n,
               (size_t)p->n * sizeof(*norms));
        p->n_sample++;
    }
}

struct probe_tally {
    double agree, oracle_energy, router_energy, weight_error;
    int64_t ties, picks;
    int64_t *load_oracle, *load_router; /* [n] */
};

/* One sampled token: the oracle's picks against the target's own choice. */
static void probe_token(const struct mt_router_probe *p, const struct mt_target *target,
                        const float *norms, double *logits, const double *bias, int32_t *picks,
                        double *weight, struct probe_tally *y)
{
    /* fp32 scores near 1/2 stand 6e-8 apart, and a sigmoid's slope is 1/4. */
    bool sigmoid = target->rule.score == MT_SCORE_SIGMOID && bias != NULL;
    double gap_min = sigmoid ? 6e-8 : 2.4e-7;
    double alpha = mt_target_alpha(target, p->n, p->k);
    int32_t *mine = picks, *oracle = picks + p->n;
    double sum = 0;

    bool cut = target->rule.cut != MT_CUT_NONE;
    int k = cut ? p->n : p->k;
    mt_router_apply(&target->rule, logits, bias, p->n, k, mine, weight);
    while (k > 0 && mine[k - 1] < 0)
        k--;
    mt_top_k(norms, p->n, k, oracle);
    y->picks += k;
    for (int i = 0; i < k; i++) {
        double nm = (double)norms[mine[i]], no = (double)norms[oracle[i]];
        for (int j = 0; j < k; j++)
            y->agree += mine[i] == oracle[j];
        y->router_energy += nm * nm;
        y->oracle_energy += no * no;
        sum += weight[i] * alpha;
        if (target->granules == 0)
            y->weight_error = fmax(y->weight_error, fabs(weight[i] * alpha - 1));
        y->load_router[mine[i]]++;
        y->load_oracle[oracle[i]]++;
    }
    if (target->granules > 0)
        y->weight_error = fmax(y->weight_error, fabs(sum / target->granules - 1));
    for (int e = 0; bias != NULL && e < p->n; e++)
        logits[e] = (sigmoid ? 1 / (1 + exp(-logits[e])) : logits[e]) + bias[e];
    double last = INFINITY, next = -INFINITY;
    for (int e = 0; e < p->n; e++) {
        bool picked = false;
        for (int i = 0; i < k; i++)
            picked = picked || mine[i] == e;
        if (picked)
            last = fmin(last, logits[e]);
        else
            next = fmax(next, logits[e]);
    }
    y->ties += !cut && k < p->n && last - next < gap_min;
}

static mt_status probe_run(struct mt_ctx *ctx, const struct mt_router_probe *p,
                           const struct mt_target *target, const struct mt_router_form *router,
                           const float *bias, int64_t *load, struct mt_router_quality *out)
{
    struct probe_tally y = {.load_oracle = load, .load_router = load + p->n};
    size_t n = (size_t)p->n;
    float *product = NULL;
    double *scratch = NULL;
    int32_t *picks = NULL;
    mt_status st = mt_alloc(ctx, (size_t)p->n_sample, n * sizeof(float), "router check", &product);

    if (st == MT_OK)
        st = mt_alloc(ctx, 3 * n, sizeof(double), "router check", &scratch);
    if (st == MT_OK)
        st = mt_alloc(ctx, 2 * n, sizeof(int32_t), "router check", &picks);
    if (st == MT_OK)
        st = mt_router_form_run(ctx, router, p->n_sample, p->sample_x, product);
    for (int e = 0; st == MT_OK && bias != NULL && e < p->n; e++)
        scratch[2 * p->n + e] = (double)bias[e];
    for (int64_t t = 0; st == MT_OK && t < p->n_sample; t++) {
        for (int e = 0; e < p->n; e++)
            scratch[e] = (double)product[t * p->n + e];
        probe_token(p, target, p->sample_norms + t * p->n, scratch,
                    bias != NULL ? scratch + 2 * p->n : NULL, picks, scratch + p->n, &y);
    }
    if (st == MT_OK) {
        double slots = (double)y.picks;
        out->active = slots / (double)p->n_sample;
        out->tokens = p->n_sample;
        out->agreement = y.agree / slots;
        out->captured = y.oracle_energy > 0 ? y.router_energy / y.oracle_energy : 1;
        out->weight_error = y.weight_error;
        out->ties = (double)y.ties / (double)p->n_sample;
        for (int e = 0; e < p->n; e++) {
            out->load_oracle_max =
                fmax(out->load_oracle_max, (double)y.load_oracle[e] * p->n / slots);
            out->load_router_max =
                fmax(out->load_router_max, (double)y.load_router[e] * p->n / slots);
        }
    }
    mt_free(product);
    mt_free(scratch);
    mt_free(picks);
    return st;
}

mt_status mt_router_probe_measure(struct mt_ctx *ctx, const struct mt_router_probe *p,
                                  const struct mt_target *target,
                                  const struct mt_router_form *router, const float *bias,
                                  struct mt_router_quality *out)
{
    int64_t *load;

    memset(out, 0, sizeof(*out));
    if (p->n_sample == 0)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, 2 * (size_t)p->n, sizeof(*load), "router check", &load));
    mt_status st = probe_run(ctx, p, target, router, bias, load, out);
    mt_free(load);
    return st;
}

static int probe_falling(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x < y) - (x > y);
}

static mt_status probe_logits(struct mt_ctx *ctx, const struct mt_router_probe *p,
                              const struct mt_router_form *router, float **out)
{
    MT_TRY(mt_alloc(ctx, (size_t)p->n_sample, (size_t)p->n * sizeof(float), "router check", out));
    return mt_router_form_run(ctx, router, p->n_sample, p->sample_x, *out);
}

/* score[n_sample, n] with biases -> what is left of each token's without its `least` best, close
 * by each other at the front. */
static int64_t probe_drop_best(const struct mt_router_probe *p, const float *bias, int least,
                               float *score)
{
    int64_t left = 0;

    for (int64_t t = 0; t < p->n_sample; t++) {
        float *z = score + t * p->n;
        for (int e = 0; bias != NULL && e < p->n; e++)
            z[e] += bias[e];
        qsort(z, (size_t)p->n, sizeof(*z), probe_falling);
        memmove(score + left, z + least, (size_t)(p->n - least) * sizeof(*z));
        left += p->n - least;
    }
    return left;
}

mt_status mt_router_probe_threshold(struct mt_ctx *ctx, const struct mt_router_probe *p,
                                    const struct mt_router_form *router, const float *bias,
                                    double k, int least, double *at)
{
    float *score;

    *at = 0;
    if (p->n_sample == 0 || p->n <= least)
        return MT_OK;
    MT_TRY(probe_logits(ctx, p, router, &score));
    int64_t others = probe_drop_best(p, bias, least, score);
    int64_t act = llround((k - least) * (double)p->n_sample);
    qsort(score, (size_t)others, sizeof(*score), probe_falling);
    act = act < 0 ? 0 : act > others ? others : act;
    double last = act > 0 ? (double)score[act - 1] : (double)score[0] + 1;
    double next = act < others ? (double)score[act] : (double)score[others - 1] - 1;
    *at = (last + next) / 2;
    mt_free(score);
    return MT_OK;
}

mt_status mt_router_probe_agree(struct mt_ctx *ctx, const struct mt_router_probe *p,
                                const struct mt_router_form *a, const struct mt_router_form *b,
                                double *share)
{
    float *mine = NULL, *other = NULL;
    int32_t *picks = NULL;
    int64_t same = 0;

    *share = NAN;
    if (p->n_sample == 0)
        return MT_OK;
    mt_status st = probe_logits(ctx, p, a, &mine);
    if (st == MT_OK)
        st = probe_logits(ctx, p, b, &other);
    if (st == MT_OK)
        st = mt_alloc(ctx, 2 * (size_t)p->n, sizeof(*picks), "router check", &picks);
    for (int64_t t = 0; st == MT_OK && t < p->n_sample; t++) {
        mt_top_k(mine + t * p->n, p->n, p->k, picks);
        mt_top_k(other + t * p->n, p->n, p->k, picks + p->n);
        for (int i = 0; i < p->k; i++)
            for (int j = 0; j < p->k; j++)
                same += picks[i] == picks[p->n + j];
    }
    if (st == MT_OK)
        *share = (double)same / ((double)p->n_sample * p->k);
    mt_free(mine);
    mt_free(other);
    mt_free(picks);
    return st;
}
