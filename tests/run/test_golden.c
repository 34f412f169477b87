/* Real and random models against logits of independent programs: numpy and PyTorch for the trained
 * ones, transformers for every directory of tests/golden. */
#include "formats/table.h"
#include "lib/ir/family.h"
#include "lib/run/runner.h"
#include "tests/t.h"

#include <dirent.h>
#include <stdlib.h>

struct golden {
    struct t *t;
    const char *dir;
    struct mt_model *m;
    struct mt_device *dev;
    double tol;   /* of logits and nll */
    double worst; /* seen */
    int checked;  /* numbers compared */
};

static int golden_near(struct golden *g, const char *what, int64_t i, double got, double want)
{
    double d = fabs(got - want);

    g->checked++;
    if (!(d <= g->worst))
        g->worst = d;
    if (d <= g->tol)
        return 1;
    t_fail(g->t, __FILE__, __LINE__, "%s on %s: %s[%lld] = %.9g, wanted %.9g within %g", g->dir,
           g->dev->name, what, (long long)i, got, want, g->tol);
    return 0;
}

static double golden_nll(const double *logits, int64_t vocab, int32_t target)
{
    double max = logits[0], sum = 0;

    for (int64_t i = 1; i < vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    for (int64_t i = 0; i < vocab; i++)
        sum += exp(logits[i] - max);
    return log(sum) + max - logits[target];
}

static int golden_logits_row(struct golden *g, const struct mt_json *row, const double *logits)
{
    int64_t i = 0;

    for (const struct mt_json *v = mt_json_first(row); v != NULL; v = mt_json_next(v), i++) {
        double want;
        if (!mt_json_number(v, &want) || !golden_near(g, "logits", i, logits[i], want))
            return 0;
    }
    return i == g->m->hp.vocab;
}

/* Routing of each layer, by running layer by layer. */
static mt_status golden_routing(struct golden *g, const int32_t *ids, int n,
                                const struct mt_json *want)
{
    struct mt_ctx *ctx = &g->t->ctx;
    size_t elems = (size_t)n * (size_t)g->m->hp.hidden;
    const struct mt_json *layer = mt_json_first(want);
    int32_t len = n;
    struct mt_seqs seqs = {1, &len};
    struct mt_runner *r;
    mt_buf x, nn, y;

    MT_TRY(mt_runner_open(ctx, g->m, g->dev, &r));
    MT_TRY(g->dev->ops->alloc(ctx, g->dev, elems, &x));
    MT_TRY(g->dev->ops->alloc(ctx, g->dev, elems, &nn));
    MT_TRY(g->dev->ops->alloc(ctx, g->dev, elems, &y));
    MT_TRY(mt_run_embed(ctx, r, ids, n, x));
    for (int i = 0; i < g->m->hp.n_layers; i++, layer = mt_json_next(layer)) {
        struct mt_run_layer *l;
        const struct mt_json *token = mt_json_first(layer);
        MT_TRY(mt_run_layer_open(ctx, r, i, &l));
        MT_TRY(mt_run_attn(ctx, l, x, &seqs, NULL));
        MT_TRY(mt_run_ffn_norm(ctx, l, x, n, nn));
        MT_TRY(mt_run_ffn(ctx, l, nn, n, y, NULL));
        MT_TRY(mt_run_add(ctx, r, x, y, n));
        for (int64_t s = 0; token != NULL && s < n; s++, token = mt_json_next(token)) {
            const struct mt_routing *ro = mt_run_routing(l);
            const struct mt_json *e = mt_json_first(token);
            for (int j = 0; j < ro->k; j++, e = mt_json_next(e)) {
                int64_t id = -1;
                g->checked++;
                if (!mt_json_integer(e, &id) || id != ro->expert[s * ro->k + j])
                    t_fail(g->t, __FILE__, __LINE__,
                           "%s: layer %d token %lld slot %d: expert %d, "
                           "wanted %d",
                           g->dir, i, (long long)s, j, (int)ro->expert[s * ro->k + j], (int)id);
            }
        }
        mt_run_layer_close(l);
    }
    g->dev->ops->release(g->dev, x);
    g->dev->ops->release(g->dev, nn);
    g->dev->ops->release(g->dev, y);
    mt_runner_close(r);
    return MT_OK;
}

static void golden_one(struct golden *g, const struct mt_json *j)
{
    struct t *t = g->t;
    int n = (int)mt_json_count(mt_json_get(j, "ids")), i = 0;
    size_t vocab = (size_t)g->m->hp.vocab;
    int32_t *ids = calloc((size_t)n + 1, sizeof *ids);
    double *logits = calloc((size_t)n * vocab + 1, sizeof *logits), want;
    const struct mt_json *v;

    for (v = mt_json_first(mt_json_get(j, "ids")); v != NULL; v = mt_json_next(v)) {
        int64_t id = -1;
        if (mt_json_integer(v, &id))
            ids[i++] = (int32_t)id;
    }
    if (n == 0 || mt_run_logits(&t->ctx, g->m, g->dev, ids, n, logits) != MT_OK) {
        t_fail(t, __FILE__, __LINE__, "%s: %s", g->dir, mt_error(&t->ctx));
        goto out;
    }
    i = 0;
    for (v = mt_json_first(mt_json_get(j, "nll_next")); v != NULL; v = mt_json_next(v), i++) {
        if (!mt_json_number(v, &want) ||
            !golden_near(g, "nll", i,
                         golden_nll(logits + (size_t)i * vocab, g->m->hp.vocab, ids[i + 1]), want))
            goto out;
    }
    if (mt_json_get(j, "last_logits") != NULL &&
        !golden_logits_row(g, mt_json_get(j, "last_logits"), logits + (size_t)(n - 1) * vocab))
        t_fail(t, __FILE__, __LINE__, "%s: last_logits", g->dir);
    i = 0;
    for (v = mt_json_first(mt_json_get(j, "logits")); v != NULL; v = mt_json_next(v), i++) {
        if (!golden_logits_row(g, v, logits + (size_t)i * vocab)) {
            t_fail(t, __FILE__, __LINE__, "%s: logits of token %d", g->dir, i);
            goto out;
        }
    }
    if (mt_json_count(mt_json_get(j, "router_topk")) > 0 &&
        golden_routing(g, ids, n, mt_json_get(j, "router_topk")) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s: %s", g->dir, mt_error(&t->ctx));
out:
    free(ids);
    free(logits);
}

/* One model directory and its golden file on one device. */
static void golden_dir(struct t *t, const char *dir, const char *file, const char *device,
                       double tol)
{
    struct golden g = {.t = t, .dir = dir, .tol = tol};
    char path[1100];
    struct mt_json *root;

    snprintf(path, sizeof path, "%s/%s", dir, file);
    T_OK(t, mt_json_read(&t->ctx, path, 64u << 20, &root));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &g.m));
    T_OK(t, mt_device_open(&t->ctx, device, &g.dev));
    if (mt_json_kind(root) == MT_JSON_ARRAY) {
        for (const struct mt_json *j = mt_json_first(root); j != NULL; j = mt_json_next(j))
            golden_one(&g, j);
    } else {
        golden_one(&g, root);
    }
    printf("    %s on %s: %d numbers, worst difference %.2g\n", dir, device, g.checked, g.worst);
    if (g.checked == 0)
        t_fail(t, __FILE__, __LINE__, "%s: nothing to compare in %s", dir, file);
    mt_device_close(g.dev);
    mt_model_free(g.m);
    mt_json_free(root);
}

/* `exact`: what the reference device must reach, given the decimals the file was rounded to. */
static void golden_both(struct t *t, const char *dir, const char *file, double exact)
{
    struct mt_device *dev;

    golden_dir(t, dir, file, "cpu", 1e-4);
    if (mt_device_open(&t->ctx, "cuda", &dev) == MT_OK) {
        mt_device_close(dev);
        golden_dir(t, dir, file, "cuda", 1e-3);
    }
    golden_dir(t, dir, file, "ref", exact);
}

static void golden_data(struct t *t, const char *name, const char *file, double exact)
{
    char path[512];
    const char *dir;

    snprintf(path, sizeof path, "models/%s", name);
    dir = t_data(path);
    if (dir == NULL)
        T_SKIP(t, "the model is not among the shared data");
    golden_both(t, dir, file, exact);
}

T_TEST(tinymix_dense)
{
    golden_both(t, t_shipped("tinymix-dense"), "golden.json", 1e-6);
}

T_TEST(stories260k)
{
    golden_both(t, t_shipped("stories260K"), "golden_fp32.json", 1e-5);
}

T_TEST(tinymix_moe_with_its_routing)
{
    golden_data(t, "tinymix-moe", "golden.json", 1e-6);
}

T_TEST(stories3m)
{
    golden_data(t, "stories3M", "golden_fp32.json", 1e-5);
}

T_TEST(zh_poem)
{
    golden_data(t, "zh-poem", "golden_fp32.json", 1e-5);
}

/* A trained GPT-2 of three layers, by an independent program. */
T_TEST(gpt_nano_sort)
{
    golden_data(t, "gpt-nano-sort", "golden_fp64.json", 1e-6);
}

/* Hidden states of a batch behind all layers, through the cache when there is one. */
static mt_status golden_layers(struct t *t, struct mt_runner *r, const struct mt_seqs *seqs,
                               struct mt_kv_cache *kv, mt_buf x, mt_buf n, mt_buf y)
{
    struct mt_ctx *ctx = &t->ctx;
    int64_t m = 0;

    for (int s = 0; s < seqs->n; s++)
        m += seqs->len[s];
    for (int i = 0; i < mt_runner_model(r)->hp.n_layers; i++) {
        struct mt_run_layer *l;
        mt_status st;
        MT_TRY(mt_run_layer_open(ctx, r, i, &l));
        st = mt_run_attn(ctx, l, x, seqs, kv);
        if (st == MT_OK)
            st = mt_run_ffn_norm(ctx, l, x, m, n);
        if (st == MT_OK)
            st = mt_run_ffn(ctx, l, n, m, y, NULL);
        if (st == MT_OK)
            st = mt_run_add(ctx, r, x, y, m);
        mt_run_layer_close(l);
        MT_TRY(st);
    }
    return MT_OK;
}

enum { STEPS = 12, FIRST = 7 }; /* tokens; those of the first call */

/* The same tokens as two sequences of one batch, the second a beginning of the first, and as one
 * sequence through the cache, its end token by token. */
static void golden_other_ways(struct t *t, const char *dir)
{
    const int32_t together[] = {STEPS, FIRST}, first = FIRST, one = 1;
    int32_t ids[STEPS + FIRST];
    struct mt_kv_cache *kv;
    struct mt_runner *r;
    struct mt_device *dev;
    struct mt_model *m;
    mt_buf x, n, y;

    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &m));
    if (m->hp.both_ways) { /* no logits and no cache: test_encode.c */
        mt_model_free(m);
        return;
    }
    T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
    size_t h = (size_t)m->hp.hidden, vocab = (size_t)m->hp.vocab, bytes = sizeof(double);
    double *want = malloc(STEPS * vocab * bytes), *got = malloc((STEPS + FIRST) * vocab * bytes);
    for (int i = 0; i < STEPS + FIRST; i++)
        ids[i] = (int32_t)(i % STEPS * 17 % (int)vocab);
    T_OK(t, mt_run_logits(&t->ctx, m, dev, ids, STEPS, want));
    T_OK(t, mt_runner_open(&t->ctx, m, dev, &r));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, (STEPS + FIRST) * h, &x));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, (STEPS + FIRST) * h, &n));
    T_OK(t, dev->ops->alloc(&t->ctx, dev, (STEPS + FIRST) * h, &y));
    T_OK(t, mt_run_embed(&t->ctx, r, ids, STEPS + FIRST, x));
    T_OK(t, golden_layers(t, r, &(struct mt_seqs){2, together}, NULL, x, n, y));
    T_OK(t, mt_run_head_f64(&t->ctx, r, x, STEPS + FIRST, got));
    for (size_t i = 0; i < (STEPS + FIRST) * vocab; i++)
        T_NEAR(t, got[i], want[i % (STEPS * vocab)], 1e-10);
    T_OK(t, mt_kv_create(&t->ctx, r, STEPS, &kv));
    for (int at = 0; at < STEPS; at += at == 0 ? FIRST : 1) {
        const int32_t *len = at == 0 ? &first : &one;
        T_OK(t, mt_run_embed(&t->ctx, r, ids + at, *len, x));
        T_OK(t, golden_layers(t, r, &(struct mt_seqs){1, len}, kv, x, n, y));
        T_OK(t, mt_run_head_f64(&t->ctx, r, x, *len, got + (size_t)at * vocab));
    }
    for (size_t i = 0; i < STEPS * vocab; i++)
        T_NEAR(t, got[i], want[i], 1e-10);
    mt_kv_free(kv);
    dev->ops->release(dev, x);
    dev->ops->release(dev, n);
    dev->ops->release(dev, y);
    mt_runner_close(r);
    mt_device_close(dev);
    mt_model_free(m);
    free(want);
    free(got);
}

T_TEST(batches_and_caches_change_nothing)
{
    const struct mt_family *const *all = mt_family_all();

    for (int i = 0; all[i] != NULL && t->failed == 0; i++) {
        char dir[128];
        if (all[i]->wraps || all[i]->only_blocks)
            continue;
        snprintf(dir, sizeof dir, "tests/golden/%s", all[i]->name);
        golden_other_ways(t, dir);
        if (t->failed != 0)
            printf("    %s\n", dir);
    }
}

/* Every directory of tests/golden: a family each, random weights, fp64 logits by transformers. */
T_TEST(families)
{
    DIR *d = opendir("tests/golden");
    struct dirent *e;
    int n = 0;

    if (d == NULL)
        T_SKIP(t, "tests/golden is not here");
    while ((e = readdir(d)) != NULL) {
        char dir[300], file[400];
        FILE *f;
        snprintf(dir, sizeof dir, "tests/golden/%s", e->d_name);
        snprintf(file, sizeof file, "%s/golden.json", dir);
        f = e->d_name[0] == '.' ? NULL : fopen(file, "rb");
        if (f == NULL)
            continue;
        fclose(f);
        golden_both(t, dir, "golden.json", 1e-10);
        n++;
    }
    closedir(d);
    T_CHECK(t, n > 0);
}
