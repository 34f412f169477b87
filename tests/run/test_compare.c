#include "lib/run/compare.h"
#include "lib/run/runner.h"
#include "tests/run/sets.h"
#include "tests/t.h"
#include "tests/toy.h"

static const struct toy dense_spec = {.seed = 1, .layers = 3};
static const struct toy moe_spec = {
    .seed = 2, .layers = 3, .experts = 6, .k = 2, .rule = {.renorm = true}};

/* A plan over m whose down matrices of `layer` are scaled. */
static struct mt_model *scaled_plan(struct t *t, const struct mt_model *m, int layer, float scale)
{
    struct mt_model *plan;

    if (mt_model_plan(&t->ctx, m, &plan) != MT_OK)
        return NULL;
    for (size_t i = 0; i < plan->n_tensors; i++) {
        struct mt_tensor *w = plan->tensors[i];
        int32_t idx[64];
        if (w->role.kind != MT_ROLE_FFN_DOWN || w->role.layer != layer)
            continue;
        for (int32_t r = 0; r < w->shape[0]; r++)
            idx[r] = r;
        if (mt_recipe_gather_rows(&t->ctx, plan, w, m->tensors[i], idx, w->shape[0], scale) !=
            MT_OK)
            t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    }
    return plan;
}

static void same_as_itself(struct t *t, const struct toy *spec)
{
    struct mt_dataset d = set_make(1, 61, 40, 50);
    struct mt_compare_report r;
    struct mt_device *dev;
    struct mt_model *m;
    const struct mt_model *cand;

    T_OK(t, toy_model(&t->ctx, spec, &m));
    cand = m;
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_compare(&t->ctx, m, &cand, 1, dev, &d, t->dir, &r));
    T_EQ_INT(t, r.n_tokens, d.n_tokens - d.n_windows);
    T_CHECK(t, r.kl_mean == 0 && r.kl_max == 0 && r.kl_stderr == 0 && r.kl_median == 0);
    T_CHECK(t, r.top1 == 1 && r.ppl_ratio == 1 && r.nll_ref == r.nll_cand);
    T_NEAR(t, r.ppl_ref, exp(r.nll_ref), 1e-9);
    T_EQ_INT(t, r.n_layers, 3);
    for (int l = 0; l < 3; l++) {
        double sum = 0;
        T_CHECK(t, r.layers[l].ffn_error == 0 && r.layers[l].drift == 0);
        T_EQ_INT(t, r.layers[l].n_experts, spec->experts);
        for (int e = 0; e < spec->experts; e++)
            sum += r.layers[l].load[e];
        T_NEAR(t, sum, spec->experts > 0 ? 1 : 0, 1e-12);
        T_CHECK(t,
                spec->experts == 0 || (r.layers[l].load_max >= 1 && r.layers[l].load_entropy <= 1));
    }
    T_EQ_INT(t, r.n_domains, 2);
    T_EQ_INT(t, r.domains[0].n_tokens + r.domains[1].n_tokens, r.n_tokens);
    T_CHECK(t, r.seconds_ref > 0 && r.seconds_cand > 0);
    mt_compare_free(&r);
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(a_model_against_itself_differs_in_nothing)
{
    same_as_itself(t, &dense_spec);
}

T_TEST(a_mixture_against_itself_differs_in_nothing)
{
    same_as_itself(t, &moe_spec);
}

/* One prediction: KL, both nlls and argmaxes from fp64 logits, the long way. */
struct brute {
    double kl, nll_ref, nll_cand, top1;
    double domain_kl[2];
    size_t n, domain_n[2];
    float per_token[4096];
};

static double log_z(const double *v, int n)
{
    double max = v[0], s = 0;

    for (int i = 1; i < n; i++)
        max = v[i] > max ? v[i] : max;
    for (int i = 0; i < n; i++)
        s += exp(v[i] - max);
    return max + log(s);
}

static int argmax(const double *v, int n)
{
    int best = 0;

    for (int i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

static mt_status brute_force(struct mt_ctx *ctx, const struct mt_model *a, const struct mt_model *b,
                             struct mt_device *dev, const struct mt_dataset *d, struct brute *out)
{
    static double la[64 * 64], lb[64 * 64];
    int vocab = (int)a->hp.vocab;

    memset(out, 0, sizeof *out);
    for (size_t w = 0; w < d->n_windows; w++) {
        const struct mt_window *win = &d->windows[w];
        MT_TRY(mt_run_logits(ctx, a, dev, win->ids, win->n, la));
        MT_TRY(mt_run_logits(ctx, b, dev, win->ids, win->n, lb));
        for (int i = 0; i + 1 < win->n; i++) {
            const double *p = la + i * vocab, *q = lb + i * vocab;
            double zp = log_z(p, vocab), zq = log_z(q, vocab), kl = 0;
            for (int v = 0; v < vocab; v++)
                kl += exp(p[v] - zp) * ((p[v] - zp) - (q[v] - zq));
            out->kl += kl;
            out->nll_ref += zp - p[win->ids[i + 1]];
            out->nll_cand += zq - q[win->ids[i + 1]];
            out->top1 += argmax(p, vocab) == argmax(q, vocab);
            out->domain_kl[win->domain] += kl;
            out->domain_n[win->domain]++;
            out->per_token[out->n++] = (float)kl;
        }
    }
    return MT_OK;
}

T_TEST(kl_is_what_brute_force_gives)
{
    struct mt_dataset d = set_make(2, 61, 40, 60);
    static struct brute b;
    struct mt_compare_report r[2];
    struct mt_device *dev;
    struct mt_model *m, *p0, *p1;

    T_OK(t, toy_model(&t->ctx, &moe_spec, &m));
    p0 = scaled_plan(t, m, 1, 1.3f);
    p1 = scaled_plan(t, m, 2, 0.5f);
    T_CHECK(t, p0 != NULL && p1 != NULL);
    const struct mt_model *cand[2] = {p0, p1};
    T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
    T_OK(t, mt_compare(&t->ctx, m, cand, 2, dev, &d, t->dir, r));
    for (int k = 0; k < 2; k++) {
        T_OK(t, brute_force(&t->ctx, m, cand[k], dev, &d, &b));
        double n = (double)b.n;
        T_EQ_INT(t, r[k].n_tokens, b.n);
        /* States between layers and logits are rounded to fp32. */
        T_CHECK(t, b.kl / n > 1e-3);
        T_NEAR(t, r[k].kl_mean / (b.kl / n), 1, 1e-5);
        T_NEAR(t, r[k].nll_ref, b.nll_ref / n, 1e-6);
        T_NEAR(t, r[k].nll_cand, b.nll_cand / n, 1e-6);
        T_NEAR(t, r[k].top1, b.top1 / n, 1e-12);
        for (int i = 0; i < 2; i++) {
            T_EQ_INT(t, r[k].domains[i].n_tokens, b.domain_n[i]);
            T_NEAR(t, r[k].domains[i].kl_mean, b.domain_kl[i] / (double)b.domain_n[i], 1e-6);
        }
        double max = 0;
        for (size_t i = 0; i < b.n; i++) {
            T_NEAR(t, r[k].kl[i], b.per_token[i], 1e-5);
            max = (double)r[k].kl[i] > max ? (double)r[k].kl[i] : max;
        }
        T_NEAR(t, r[k].kl_max, max, 0);
        T_CHECK(t, r[k].kl_median <= r[k].kl_p99 && r[k].kl_p99 <= r[k].kl_max);
        mt_compare_free(&r[k]);
    }
    mt_model_free(p0);
    mt_model_free(p1);
    mt_device_close(dev);
    mt_model_free(m);
}

/* Scaling the output of one block by 1 + a: error a in that layer, none elsewhere; states drift
 * from that layer on. */
T_TEST(a_planted_change_shows_in_its_layer)
{
    const struct toy *specs[] = {&dense_spec, &moe_spec};

    for (int s = 0; s < 2; s++) {
        struct mt_dataset d = set_make(3, 61, 20, 50);
        struct mt_compare_report r;
        struct mt_device *dev;
        struct mt_model *m, *plan;
        T_OK(t, toy_model(&t->ctx, specs[s], &m));
        plan = scaled_plan(t, m, 1, 1.25f);
        T_CHECK(t, plan != NULL);
        const struct mt_model *cand = plan;
        T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
        T_OK(t, mt_compare(&t->ctx, m, &cand, 1, dev, &d, t->dir, &r));
        T_CHECK(t, r.layers[0].ffn_error == 0 && r.layers[2].ffn_error == 0);
        T_NEAR(t, r.layers[1].ffn_error, 0.25, 1e-6);
        T_CHECK(t, r.layers[0].drift == 0 && r.layers[1].drift > 0.01 && r.layers[2].drift > 0.01);
        T_CHECK(t, r.kl_mean > 0);
        mt_compare_free(&r);
        mt_model_free(plan);
        mt_device_close(dev);
        mt_model_free(m);
    }
}

static int same_report(const struct mt_compare_report *a, const struct mt_compare_report *b)
{
    int same = a->n_tokens == b->n_tokens && a->kl_mean == b->kl_mean && a->kl_p99 == b->kl_p99 &&
               a->nll_cand == b->nll_cand && a->top1 == b->top1 &&
               memcmp(a->kl, b->kl, a->n_tokens * sizeof *a->kl) == 0;

    for (int l = 0; l < a->n_layers; l++)
        same = same && a->layers[l].ffn_error == b->layers[l].ffn_error &&
               a->layers[l].drift == b->layers[l].drift;
    return same;
}

/* Compares in a context of its own; the report lives in that context. */
static mt_status compare_in(struct mt_ctx *ctx, int threads, uint64_t memory,
                            const struct mt_model *m, const struct mt_model *cand,
                            const struct mt_dataset *d, const char *dir,
                            struct mt_compare_report *r)
{
    struct mt_ctx_opts o = {.n_threads = threads, .memory_bytes_max = memory};
    struct mt_device *dev;
    mt_status st;

    MT_TRY(mt_ctx_open(ctx, &o));
    MT_TRY(mt_device_open(ctx, "cpu", &dev));
    st = mt_compare(ctx, m, &cand, 1, dev, d, dir, r);
    mt_device_close(dev);
    return st;
}

/* Two streams of 25,000 tokens of 128 bytes are 6 MB: with 3 MB less than the peak of an unlimited
 * run, part of them has to go to the scratch file. */
T_TEST(threads_and_spilled_streams_change_no_bit)
{
    const struct toy spec = {
        .seed = 4, .layers = 2, .experts = 4, .k = 2, .rule = {.renorm = true}};
    struct mt_dataset d = set_make(4, 61, 800, 60);
    struct mt_compare_report r[3];
    struct mt_model *m, *plan;
    struct mt_ctx ctx[3];

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    plan = scaled_plan(t, m, 0, 0.9f);
    T_CHECK(t, plan != NULL);
    for (int i = 0; i < 3; i++) {
        uint64_t limit = i == 2 ? mt_mem_peak(&ctx[0]) - (3u << 20) : 0;
        if (compare_in(&ctx[i], 1 << i, limit, m, plan, &d, t->dir, &r[i]) != MT_OK)
            T_FAIL(t, "%s", mt_error(&ctx[i]));
        T_CHECK(t, same_report(&r[0], &r[i]));
    }
    for (int i = 0; i < 3; i++) {
        mt_compare_free(&r[i]);
        T_EQ_INT(t, mt_mem_used(&ctx[i]), 0);
        mt_ctx_close(&ctx[i]);
    }
    mt_model_free(plan);
    mt_model_free(m);
}

/* What one candidate gets does not depend on the others beside it. */
/* The bytes that are told suffice, streams spilled, and are not far from what is taken. */
T_TEST(the_memory_that_is_told_suffices)
{
    const struct toy spec = {
        .seed = 5, .layers = 2, .experts = 4, .k = 2, .rule = {.renorm = true}};
    struct mt_dataset d = set_make(6, 61, 800, 60);
    struct mt_compare_report all, spilled;
    struct mt_model *m, *plan;
    struct mt_ctx ctx;
    const struct mt_model *cand;
    struct mt_device *dev;
    uint64_t bytes, before = mt_mem_used(&t->ctx);

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    plan = scaled_plan(t, m, 0, 0.9f);
    T_CHECK(t, plan != NULL);
    cand = plan;
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_compare_bytes(&t->ctx, m, &cand, 1, 0, dev, &d, &bytes));
    mt_device_close(dev);
    if (compare_in(&ctx, 2, 0, m, plan, &d, t->dir, &all) != MT_OK)
        T_FAIL(t, "%s", mt_error(&ctx));
    printf("    told %llu KiB, unbounded peak %llu KiB\n", (unsigned long long)bytes / 1024,
           (unsigned long long)mt_mem_peak(&ctx) / 1024);
    T_CHECK(t, bytes < 2 * mt_mem_peak(&ctx));
    mt_compare_free(&all);
    mt_ctx_close(&ctx);
    if (compare_in(&ctx, 2, bytes + (64u << 10), m, plan, &d, t->dir, &spilled) != MT_OK)
        T_FAIL(t, "%s", mt_error(&ctx));
    mt_compare_free(&spilled);
    mt_ctx_close(&ctx);
    mt_model_free(plan);
    mt_model_free(m);
    T_EQ_INT(t, mt_mem_used(&t->ctx), before);
}

T_TEST(candidates_together_are_as_alone)
{
    struct mt_dataset d = set_make(5, 61, 60, 50);
    struct mt_compare_report both[2], alone;
    struct mt_device *dev;
    struct mt_model *m, *p[2];

    T_OK(t, toy_model(&t->ctx, &dense_spec, &m));
    p[0] = scaled_plan(t, m, 0, 1.1f);
    p[1] = scaled_plan(t, m, 2, 0.7f);
    T_CHECK(t, p[0] != NULL && p[1] != NULL);
    const struct mt_model *cand[2] = {p[0], p[1]};
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_compare(&t->ctx, m, cand, 2, dev, &d, t->dir, both));
    for (int k = 0; k < 2; k++) {
        T_OK(t, mt_compare(&t->ctx, m, cand + k, 1, dev, &d, t->dir, &alone));
        T_CHECK(t, same_report(&alone, &both[k]));
        mt_compare_free(&alone);
        mt_compare_free(&both[k]);
        mt_model_free(p[k]);
    }
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(dead_experts_are_counted)
{
    const struct toy spec = {.seed = 6,
                             .layers = 1,
                             .experts = 4,
                             .k = 1,
                             .rule = {.score = MT_SCORE_SIGMOID, .has_bias = true}};
    struct mt_dataset d = set_make(6, 61, 10, 30);
    struct mt_compare_report r;
    struct mt_device *dev;
    struct mt_model *m;
    const struct mt_model *cand;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    cand = m;
    /* A selection bias that leaves experts 0 and 3 only. */
    T_OK(t, mt_source_floats(&t->ctx, m,
                             mt_model_find(m, mt_role(MT_ROLE_ROUTER_BIAS, 0, MT_EXPERT_NONE)),
                             (const float[]){0, -5, -5, 0}));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_compare(&t->ctx, m, &cand, 1, dev, &d, t->dir, &r));
    T_EQ_INT(t, r.layers[0].dead, 2);
    T_CHECK(t, r.layers[0].load[1] == 0 && r.layers[0].load[0] > 0);
    T_CHECK(t, r.layers[0].load_max >= 2 && r.layers[0].load_entropy <= 0.5);
    mt_compare_free(&r);
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(evaluation_agrees_with_the_comparison)
{
    struct mt_dataset d = set_make(7, 61, 30, 50);
    struct mt_compare_report r;
    struct mt_eval_report e;
    struct mt_device *dev;
    struct mt_model *m;
    const struct mt_model *cand;

    T_OK(t, toy_model(&t->ctx, &moe_spec, &m));
    cand = m;
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_compare(&t->ctx, m, &cand, 1, dev, &d, t->dir, &r));
    T_OK(t, mt_evaluate(&t->ctx, m, dev, &d, t->dir, NULL, &e));
    T_EQ_INT(t, e.n_tokens, r.n_tokens);
    T_NEAR(t, e.nll, r.nll_ref, 1e-12);
    T_NEAR(t, e.ppl, r.ppl_ref, 1e-9);
    T_CHECK(t, e.nll_stderr > 0 && e.nll_stderr < e.nll);
    for (int i = 0; i < 2; i++)
        T_NEAR(t, e.domains[i].nll, r.domains[i].nll_ref, 1e-12);
    mt_eval_free(&e);
    mt_compare_free(&r);
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(models_of_different_shape_are_refused)
{
    struct toy other = dense_spec;
    struct mt_dataset d = set_make(8, 61, 3, 9);
    struct mt_compare_report r;
    struct mt_device *dev;
    struct mt_model *m, *o;

    T_OK(t, toy_model(&t->ctx, &dense_spec, &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    for (int i = 0; i < 3; i++) {
        const char *what[] = {"vocabulary is 50, not 61", "hidden size is 40, not 32",
                              "layer count is 2, not 3"};
        other = dense_spec;
        other.vocab = i == 0 ? 50 : 0;
        other.hidden = i == 1 ? 40 : 0;
        other.layers = i == 2 ? 2 : 3;
        T_OK(t, toy_model(&t->ctx, &other, &o));
        const struct mt_model *cand = o;
        T_FAILS(t, mt_compare(&t->ctx, m, &cand, 1, dev, &d, t->dir, &r), MT_E_FORMAT, what[i]);
        mt_model_free(o);
    }
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(ids_outside_the_vocabulary_are_refused)
{
    struct mt_dataset d = set_make(9, 61, 5, 20);
    struct mt_eval_report e;
    struct mt_device *dev;
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &dense_spec, &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    ((int32_t *)d.storage)[3] = 61;
    T_FAILS(t, mt_evaluate(&t->ctx, m, dev, &d, t->dir, NULL, &e), MT_E_FORMAT,
            "token id 61 (number 3 of the batch) is outside the vocabulary of 61");
    mt_device_close(dev);
    mt_model_free(m);
}

T_TEST(an_interrupt_ends_the_comparison)
{
    struct mt_dataset d = set_make(10, 61, 5, 20);
    struct mt_eval_report e;
    struct mt_device *dev;
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &dense_spec, &m));
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    t->cancel = 1;
    T_FAILS(t, mt_evaluate(&t->ctx, m, dev, &d, t->dir, NULL, &e), MT_E_CANCELLED, "");
    t->cancel = 0;
    mt_device_close(dev);
    mt_model_free(m);
}

/* Every allocation fails once; the call must fail cleanly each time until none is left. */
T_TEST(failing_memory_leaks_nothing)
{
    struct mt_dataset d = set_make(11, 61, 3, 12);
    const struct toy spec = {.seed = 9, .layers = 1, .experts = 3, .k = 2};
    struct mt_compare_report r;
    struct mt_device *dev;
    struct mt_model *m;
    const struct mt_model *cand;
    mt_status st = MT_E_NOMEM;
    uint64_t before, n;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    cand = m;
    before = mt_mem_used(&t->ctx);
    for (n = 1; st != MT_OK && n < 1000; n++) {
        T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
        mt_fault_alloc(n);
        st = mt_compare(&t->ctx, m, &cand, 1, dev, &d, t->dir, &r);
        mt_fault_alloc(0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        mt_device_close(dev);
        T_CHECK(t, st == MT_OK || mt_mem_used(&t->ctx) == before);
    }
    T_CHECK(t, st == MT_OK && n > 30);
    mt_compare_free(&r);
    mt_model_free(m);
}
