#include "tests/pass_run.h"

#include "formats/table.h"
#include "lib/base/rng.h"
#include "lib/run/runner.h"
#include "passes/table.h"

#include <stdlib.h>

#define RUN_IDS 24

mt_status pass_options(struct mt_ctx *ctx, const struct mt_pass *p, char *text, void *opts)
{
    char *rest = text;

    mt_opt_defaults(p->opts, opts);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        char *eq = strchr(word, '=');
        mt_assert(eq != NULL);
        *eq = 0;
        MT_TRY(mt_opt_set(ctx, p->opts, opts, word, eq + 1));
    }
    return MT_OK;
}

/* Fills in the passes of o and walks. */
static mt_status pass_walk(struct mt_ctx *ctx, const char *pass, const char *options,
                           struct mt_walk_opts *o, struct mt_walk_result *out)
{
    const struct mt_pass *p = mt_pass_find(pass);
    char *text = strdup(options);
    void *opts;

    mt_assert(p != NULL && text != NULL);
    opts = calloc(1, p->opts_size);
    memset(out, 0, sizeof(*out));
    mt_status st = pass_options(ctx, p, text, opts);
    if (st == MT_OK && o->data != NULL)
        st = mt_device_open(ctx, "cpu", &o->dev);
    const struct mt_walk_pass one = {.pass = p, .opts = opts};
    o->passes = &one;
    o->n_passes = 1;
    if (st == MT_OK)
        st = mt_walk_run(ctx, o, out);
    if (o->dev != NULL)
        mt_device_close(o->dev);
    o->passes = NULL;
    free(opts);
    free(text);
    return st;
}

mt_status run_pass(struct mt_ctx *ctx, const char *pass, const char *options,
                   const struct mt_model *src, const struct mt_dataset *data,
                   struct mt_walk_result *out)
{
    struct mt_walk_opts o = {.source = src, .data = data};

    return pass_walk(ctx, pass, options, &o, out);
}

mt_status write_pass(struct mt_ctx *ctx, const char *pass, const char *options,
                     const struct mt_model *src, const char *out_path)
{
    const char *dot = strrchr(out_path, '.');
    bool gguf = dot != NULL && strcmp(dot, ".gguf") == 0;
    struct mt_walk_opts o = {.source = src,
                             .format = mt_format_writer(gguf ? "gguf" : "safetensors"),
                             .formats = mt_formats,
                             .out_path = out_path};
    struct mt_walk_result r;
    mt_status st = pass_walk(ctx, pass, options, &o, &r);

    if (st == MT_OK)
        mt_walk_result_free(&r);
    return st;
}

const struct mt_json *layer_numbers(const struct mt_walk_result *r, const char *pass, int layer)
{
    const struct mt_json *l = mt_json_first(mt_json_get(r->manifest, "layers"));

    for (; layer > 0 && l != NULL; layer--)
        l = mt_json_next(l);
    return mt_json_get(l, pass);
}

double json_number(const struct mt_json *j, const char *key)
{
    double v = NAN;

    return mt_json_number(mt_json_get(j, key), &v) ? v : NAN;
}

const char *json_word(const struct mt_json *j, const char *key)
{
    const char *s = mt_json_text(mt_json_get(j, key));

    return s != NULL ? s : "(none)";
}

void noise_data(struct noise_data *d, int n_windows, int vocab, uint64_t seed)
{
    static char domain[] = "random";
    struct mt_rng r;

    memset(d, 0, sizeof(*d));
    mt_rng_seed(&r, seed, 41);
    for (int i = 0; i < n_windows * 64; i++)
        d->ids[i] = (int32_t)mt_rng_below(&r, (uint64_t)vocab);
    for (int i = 0; i < n_windows; i++)
        d->windows[i] = (struct mt_window){.ids = d->ids + (ptrdiff_t)i * 64, .n = 64};
    d->domain = domain;
    d->set = (struct mt_dataset){.windows = d->windows,
                                 .n_windows = (size_t)n_windows,
                                 .n_tokens = (size_t)n_windows * 64,
                                 .window_len_max = 64,
                                 .domains = &d->domain,
                                 .n_domains = 1};
}

mt_status logits_distance(struct mt_ctx *ctx, const char *device, const struct mt_model *a,
                          const struct mt_model *b, double *out)
{
    size_t n = RUN_IDS * (size_t)a->hp.vocab;
    double *la = malloc(n * sizeof(*la)), *lb = malloc(n * sizeof(*lb));
    struct mt_device *dev = NULL;
    int32_t ids[RUN_IDS];
    struct mt_rng r;

    mt_rng_seed(&r, 31, 0);
    for (int i = 0; i < RUN_IDS; i++)
        ids[i] = (int32_t)mt_rng_below(&r, (uint64_t)a->hp.vocab);
    mt_status st = mt_device_open(ctx, device, &dev);
    if (st == MT_OK)
        st = mt_run_logits(ctx, a, dev, ids, RUN_IDS, la);
    if (st == MT_OK)
        st = mt_run_logits(ctx, b, dev, ids, RUN_IDS, lb);
    if (st == MT_OK)
        *out = t_rel_l2_f64(la, lb, n);
    if (dev != NULL)
        mt_device_close(dev);
    free(la);
    free(lb);
    return st;
}

/* One layer's FFN of one model on n given inputs. */
static mt_status ffn_run(struct mt_ctx *ctx, const struct mt_model *m, struct mt_device *dev,
                         int layer, int n, const float *x, float *y)
{
    size_t count = (size_t)n * (size_t)m->hp.hidden;
    struct mt_run_layer *l = NULL;
    struct mt_runner *r = NULL;
    mt_buf in = NULL, out = NULL;
    mt_status st = mt_runner_open(ctx, m, dev, &r);

    if (st == MT_OK)
        st = mt_run_layer_open(ctx, r, layer, &l);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, count, &in);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, count, &out);
    if (st == MT_OK)
        st = dev->ops->upload(ctx, dev, in, x, count);
    if (st == MT_OK)
        st = mt_run_ffn(ctx, l, in, n, out, NULL);
    if (st == MT_OK)
        st = dev->ops->download(ctx, dev, y, out, count);
    dev->ops->release(dev, in);
    dev->ops->release(dev, out);
    if (l != NULL)
        mt_run_layer_close(l);
    if (r != NULL)
        mt_runner_close(r);
    return st;
}

mt_status ffn_distance(struct mt_ctx *ctx, const struct mt_model *a, const struct mt_model *b,
                       int n, double *out)
{
    size_t count = (size_t)n * (size_t)a->hp.hidden;
    float *x = calloc(3 * count + 1, sizeof(*x)), *ya = x + count, *yb = ya + count;
    struct mt_device *dev = NULL;
    struct mt_rng r;
    mt_status st = mt_device_open(ctx, "cpu", &dev);

    mt_rng_seed(&r, 37, 0);
    for (size_t i = 0; i < count; i++)
        x[i] = (float)mt_rng_normal(&r);
    *out = 0;
    for (int l = 0; l < a->hp.n_layers && st == MT_OK; l++) {
        st = ffn_run(ctx, a, dev, l, n, x, ya);
        if (st == MT_OK)
            st = ffn_run(ctx, b, dev, l, n, x, yb);
        if (st == MT_OK)
            *out = fmax(*out, t_rel_l2(ya, yb, count));
    }
    if (dev != NULL)
        mt_device_close(dev);
    free(x);
    return st;
}

double ffn_tolerance(int64_t width)
{
    return fmax(1e-6, 3e-8 * sqrt((double)width));
}
