#include "tests/flow_kit.h"

#include "formats/table.h"
#include "tests/tiny.h"

#include <signal.h>
#include <stdlib.h>

const char *kit_path(struct t *t, const char *relative)
{
    static char paths[64][600];
    static int n;
    static char dir[sizeof t->dir];

    if (strcmp(dir, t->dir) != 0) {
        snprintf(dir, sizeof dir, "%s", t->dir);
        n = 0;
    }
    snprintf(paths[n], sizeof paths[n], "%s/%s", t->dir, relative);
    for (int i = 0; i < n; i++) {
        if (strcmp(paths[i], paths[n]) == 0)
            return paths[i];
    }
    if (n == 63)
        t_fail(t, __FILE__, __LINE__, "too many paths");
    return paths[n == 63 ? n : n++];
}

/* ---- models ---- */

const char *kit_make(struct t *t, const char *name)
{
    const char *dir =
        tiny_write(t, name,
                   &(struct tiny){.layers = KIT_LAYERS,
                                  .hidden = KIT_HIDDEN,
                                  .width = KIT_WIDTH,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .head_dim = 8,
                                  .vocab = 32,
                                  .dtype = MT_BF16,
                                  .seed = 5,
                                  .config = "\"some_unknown_key\": {\"kept\": true}"});
    char path[600];

    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    t_write_file(t, path, "{\"temperature\": 0.5}\n", 21);
    return dir;
}

struct mt_model *kit_open(struct t *t, const char *dir)
{
    struct mt_model *m = NULL;

    if (mt_model_open(&t->ctx, mt_formats, dir, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s: %s", dir, mt_error(&t->ctx));
    return m;
}

const struct mt_dataset *kit_data(void)
{
    static int32_t ids[KIT_TOKENS];
    static struct mt_window windows[KIT_WINDOWS];
    static char *domains[1];
    static char name[] = "kit";
    static struct mt_dataset d;
    int32_t *p = ids;

    for (int w = 0; w < KIT_WINDOWS; w++) {
        windows[w] = (struct mt_window){p, 7 + w, 0};
        for (int i = 0; i < 7 + w; i++)
            *p++ = (int32_t)((i * 7 + w * 11 + i * i) % 32);
    }
    domains[0] = name;
    d = (struct mt_dataset){.windows = windows,
                            .n_windows = KIT_WINDOWS,
                            .n_tokens = KIT_TOKENS,
                            .window_len_max = 6 + KIT_WINDOWS,
                            .domains = domains,
                            .n_domains = 1};
    memset(d.sha256, 'd', 64);
    return &d;
}

/* ---- passes ---- */

static mt_status noop_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                             void **state)
{
    (void)ctx;
    (void)opts;
    (void)src;
    *state = NULL;
    return MT_OK;
}

const struct mt_pass kit_noop = {.name = "noop", .summary = "nothing", .create = noop_create};

/* Leaves every down_proj of the plan pending, keeping its shape. */
static mt_status kit_plan_down(struct mt_ctx *ctx, struct mt_model *m, const char *planner)
{
    for (int l = 0; l < m->hp.n_layers; l++) {
        struct mt_tensor *t;
        MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_DOWN, l, MT_EXPERT_NONE), &t));
        t->src.kind = MT_SRC_PENDING;
        t->planner = planner;
    }
    return MT_OK;
}

static mt_status kit_scale_down(struct mt_ctx *ctx, const struct mt_model *src, struct mt_model *m,
                                int layer, float by)
{
    struct mt_role role = mt_role(MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE);
    struct mt_tensor *t, *from;
    int32_t *rows;

    MT_TRY(mt_model_need(ctx, m, role, &t));
    MT_TRY(mt_model_need(ctx, src, role, &from));
    MT_TRY(mt_alloc(ctx, (size_t)t->shape[0], sizeof *rows, "row numbers", &rows));
    for (int32_t i = 0; i < (int32_t)t->shape[0]; i++)
        rows[i] = i;
    mt_status st = mt_recipe_gather_rows(ctx, m, t, from, rows, t->shape[0], by);
    mt_free(rows);
    return st;
}

struct scale_state {
    const struct kit_scale_opts *o;
    const struct mt_model *src;
    int64_t layers;
};

static mt_status scale_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                              void **state)
{
    struct scale_state *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "scale", &s));
    s->o = opts;
    s->src = src;
    *state = s;
    return MT_OK;
}

static mt_status scale_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    (void)state;
    return kit_plan_down(ctx, m, "scale");
}

/* What the options ask to go wrong at this layer. */
static mt_status kit_mishap(struct mt_ctx *ctx, const struct kit_scale_opts *o, int layer)
{
    if (o->kill_at == layer + 1)
        raise(SIGKILL);
    if (o->cancel_at == layer + 1)
        *o->cancel = 1;
    return o->fail_at == layer + 1 ? mt_fail(ctx, MT_E_NUMERIC, "told to fail") : MT_OK;
}

static mt_status scale_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct scale_state *s = state;

    MT_TRY(kit_mishap(ctx, s->o, layer));
    return kit_scale_down(ctx, s->src, m, layer, (float)s->o->by);
}

static mt_status scale_layer_report(struct mt_ctx *ctx, void *state, int layer, struct mt_json *out)
{
    struct scale_state *s = state;

    (void)ctx;
    s->layers++;
    mt_json_set_num(out, "by", s->o->by / (layer + 1));
    return MT_OK;
}

static mt_status scale_layer_restore(struct mt_ctx *ctx, void *state, int layer,
                                     const struct mt_json *numbers)
{
    struct scale_state *s = state;
    double by = 0;

    MT_TRY(mt_json_get_num(ctx, numbers, "by", 0, &by));
    if (by != s->o->by / (layer + 1))
        return mt_fail(ctx, MT_E_FORMAT, "took back %g", by);
    s->layers++;
    return MT_OK;
}

static mt_status scale_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    (void)ctx;
    mt_json_set_int(out, "layers", ((struct scale_state *)state)->layers);
    return MT_OK;
}

static const struct mt_opt scale_opts[] = {
    MT_OPT_NUM(struct kit_scale_opts, by, "by", 0, "F", "1", 0, 0, "factor"),
    MT_OPT_END,
};

const struct mt_pass kit_scale = {
    .name = "scale",
    .summary = "multiplies down_proj",
    .opts = scale_opts,
    .opts_size = sizeof(struct kit_scale_opts),
    .create = scale_create,
    .plan = scale_plan,
    .layer = scale_layer,
    .layer_report = scale_layer_report,
    .layer_restore = scale_layer_restore,
    .report = scale_report,
    .destroy = mt_free,
};

/* ---- watching ---- */

struct watch_state {
    const struct kit_watch_opts *o;
    double sum[3]; /* x, h, y of the layer */
    double total;
};

static mt_status watch_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                              void **state)
{
    struct watch_state *s;

    (void)src;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "watch", &s));
    s->o = opts;
    *state = s;
    return MT_OK;
}

static unsigned watch_needs(const void *state)
{
    const struct watch_state *s = state;

    return MT_NEED_INPUTS | MT_NEED_HIDDEN | MT_NEED_OUTPUT | MT_NEED_DATA |
           (s->o->student ? (unsigned)MT_NEED_STUDENT : 0u);
}

static int watch_rounds(const void *state)
{
    return (int)((const struct watch_state *)state)->o->rounds;
}

static void watch_keep(float **to, const float *from, int64_t token0, int64_t n, int64_t m,
                       int64_t d)
{
    if (*to == NULL)
        *to = calloc((size_t)(n * d), sizeof(float));
    memcpy(*to + token0 * d, from, (size_t)(m * d) * sizeof(float));
}

static mt_status watch_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct watch_state *s = state;
    const struct kit_watch_opts *o = s->o;

    if (ob->x == NULL || ob->h == NULL || ob->y == NULL || ob->n_tokens != KIT_TOKENS)
        return mt_fail(ctx, MT_E_FORMAT, "asked for x, h and y");
    for (int64_t i = 0; i < ob->m * KIT_HIDDEN && ob->round == 0; i++) {
        s->sum[0] += (double)fabsf(ob->x[i]);
        s->sum[2] += (double)fabsf(ob->y[i]);
    }
    for (int64_t i = 0; i < ob->m * KIT_WIDTH && ob->round == 0; i++)
        s->sum[1] += (double)fabsf(ob->h[i]);
    if (o->seen != NULL) {
        struct kit_seen *seen = &o->seen[ob->layer * o->rounds + ob->round];
        if (seen->tokens != ob->token0)
            return mt_fail(ctx, MT_E_FORMAT, "blocks out of order");
        watch_keep(&seen->x, ob->x, ob->token0, ob->n_tokens, ob->m, KIT_HIDDEN);
        watch_keep(&seen->h, ob->h, ob->token0, ob->n_tokens, ob->m, KIT_WIDTH);
        watch_keep(&seen->y, ob->y, ob->token0, ob->n_tokens, ob->m, KIT_HIDDEN);
        seen->tokens += ob->m;
    }
    return MT_OK;
}

static mt_status watch_layer_report(struct mt_ctx *ctx, void *state, int layer, struct mt_json *out)
{
    static const char *const names[] = {"x", "h", "y"};
    struct watch_state *s = state;

    (void)ctx;
    (void)layer;
    for (int i = 0; i < 3; i++) {
        mt_json_set_num(out, names[i], s->sum[i]);
        s->total += s->sum[i];
        s->sum[i] = 0;
    }
    return MT_OK;
}

static mt_status watch_layer_restore(struct mt_ctx *ctx, void *state, int layer,
                                     const struct mt_json *numbers)
{
    static const char *const names[] = {"x", "h", "y"};
    struct watch_state *s = state;
    double v;

    (void)layer;
    for (int i = 0; i < 3; i++) {
        MT_TRY(mt_json_get_num(ctx, numbers, names[i], 0, &v));
        s->total += v;
    }
    return MT_OK;
}

static mt_status watch_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    (void)ctx;
    mt_json_set_num(out, "total", ((struct watch_state *)state)->total);
    return MT_OK;
}

static const struct mt_opt watch_opts[] = {
    MT_OPT_BOOL(struct kit_watch_opts, student, "student", 0, "watch the student"),
    MT_OPT_INT(struct kit_watch_opts, rounds, "rounds", 0, "N", "1", 1, 9, "rounds"),
    MT_OPT_END,
};

const struct mt_pass kit_watch = {
    .name = "watch",
    .summary = "keeps activations",
    .opts = watch_opts,
    .opts_size = sizeof(struct kit_watch_opts),
    .create = watch_create,
    .needs = watch_needs,
    .rounds = watch_rounds,
    .observe = watch_observe,
    .layer_report = watch_layer_report,
    .layer_restore = watch_layer_restore,
    .report = watch_report,
    .destroy = mt_free,
};

void kit_seen_free(struct kit_seen *seen, int n)
{
    for (int i = 0; i < n; i++) {
        free(seen[i].x);
        free(seen[i].h);
        free(seen[i].y);
        seen[i] = (struct kit_seen){0};
    }
}

/* ---- a sequential pass ---- */

struct tilt_state {
    const struct kit_scale_opts *o;
    const struct mt_model *src;
    double sum;
    int64_t count;
};

static mt_status tilt_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                             void **state)
{
    struct tilt_state *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "tilt", &s));
    s->o = opts;
    s->src = src;
    *state = s;
    return MT_OK;
}

static unsigned tilt_needs(const void *state)
{
    (void)state;
    return MT_NEED_INPUTS | MT_NEED_STUDENT | MT_NEED_DATA;
}

static mt_status tilt_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    (void)state;
    return kit_plan_down(ctx, m, "tilt");
}

static mt_status tilt_begin(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct tilt_state *s = state;

    (void)ctx;
    (void)m;
    (void)layer;
    s->sum = 0;
    s->count = 0;
    return MT_OK;
}

static mt_status tilt_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct tilt_state *s = state;

    (void)ctx;
    for (int64_t i = 0; i < ob->m * s->src->hp.hidden; i++)
        s->sum += (double)fabsf(ob->x[i]);
    s->count += ob->m * s->src->hp.hidden;
    return MT_OK;
}

static mt_status tilt_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct tilt_state *s = state;

    MT_TRY(kit_mishap(ctx, s->o, layer));
    return kit_scale_down(ctx, s->src, m, layer, (float)(1 + s->o->by * s->sum / (double)s->count));
}

static mt_status tilt_layer_report(struct mt_ctx *ctx, void *state, int layer, struct mt_json *out)
{
    struct tilt_state *s = state;

    (void)ctx;
    (void)layer;
    mt_json_set_num(out, "mean", s->sum / (double)s->count);
    return MT_OK;
}

const struct mt_pass kit_tilt = {
    .name = "tilt",
    .summary = "multiplies down_proj by what it sees",
    .opts = scale_opts,
    .opts_size = sizeof(struct kit_scale_opts),
    .create = tilt_create,
    .needs = tilt_needs,
    .plan = tilt_plan,
    .begin = tilt_begin,
    .observe = tilt_observe,
    .layer = tilt_layer,
    .layer_report = tilt_layer_report,
    .destroy = mt_free,
};

/* ---- a walk ---- */

mt_status kit_walk_open(struct mt_ctx *ctx, const struct kit_run *r, struct kit_walked *w)
{
    struct mt_walk_opts o = {
        .passes = r->passes,
        .n_passes = r->n_passes,
        .formats = mt_formats,
        .out_path = r->out,
        .out_flags = r->flags,
        .write = {.shard_bytes_max = r->shard_bytes},
        .dry_run = r->dry_run,
        .keep_on_failure = r->keep,
        .finish = r->finish,
        .finish_arg = r->finish_arg,
    };

    *w = (struct kit_walked){0};
    mt_status st = mt_model_open(ctx, mt_formats, r->source, &w->source);
    if (st == MT_OK && r->data)
        st = mt_device_open(ctx, "cpu", &w->dev);
    if (st != MT_OK)
        return st;
    o.source = w->source;
    o.data = r->data ? kit_data() : NULL;
    o.dev = w->dev;
    o.format = r->out != NULL ? mt_format_writer("safetensors") : NULL;
    return mt_walk_run(ctx, &o, &w->result);
}

void kit_walk_close(struct kit_walked *w)
{
    mt_walk_result_free(&w->result);
    if (w->dev != NULL)
        mt_device_close(w->dev);
    mt_model_free(w->source);
    *w = (struct kit_walked){0};
}

mt_status kit_walk(struct t *t, const struct kit_run *r)
{
    struct mt_ctx_opts co = {.n_threads = r->threads,
                             .memory_bytes_max = r->memory,
                             .seed = 1,
                             .allow_nan = r->allow_nan,
                             .cancel = &t->cancel};
    struct kit_walked w;
    struct mt_ctx own;
    mt_status st;

    if (r->threads == 0) {
        st = kit_walk_open(&t->ctx, r, &w);
        kit_walk_close(&w);
        return st;
    }
    st = mt_ctx_open(&own, &co);
    if (st != MT_OK)
        return st;
    st = kit_walk_open(&own, r, &w);
    kit_walk_close(&w);
    if (mt_mem_used(&own) != 0)
        t_fail(t, __FILE__, __LINE__, "%llu counted bytes leaked",
               (unsigned long long)mt_mem_used(&own));
    memcpy(t->ctx.error, own.error, sizeof t->ctx.error);
    mt_ctx_close(&own);
    return st;
}

static bool same_record(struct t *t, const struct mt_tensor *x, const struct mt_tensor *y)
{
    const void *p, *q;
    bool same = strcmp(x->name, y->name) == 0 && x->dtype == y->dtype && x->rank == y->rank;

    for (int i = 0; same && i < x->rank; i++)
        same = x->shape[i] == y->shape[i];
    same = same && mt_tensor_contiguous(x, &p) && mt_tensor_contiguous(y, &q) &&
           memcmp(p, q, mt_tensor_bytes(x)) == 0;
    if (!same)
        t_fail(t, __FILE__, __LINE__, "%s differs", x->name);
    return same;
}

bool kit_same_tensors(struct t *t, const char *a, const char *b, int except)
{
    struct mt_model *x = kit_open(t, a), *y = kit_open(t, b);
    bool same = x != NULL && y != NULL && x->n_tensors == y->n_tensors;

    for (size_t i = 0; same && i < x->n_tensors; i++) {
        const struct mt_tensor *u = x->tensors[i], *v = mt_model_find(y, u->role);
        for (size_t k = 0; u->role.kind == MT_ROLE_OTHER && k < y->n_tensors; k++) {
            if (strcmp(y->tensors[k]->name, u->name) == 0)
                v = y->tensors[k];
        }
        if ((int)u->role.kind != except)
            same = v != NULL && same_record(t, u, v);
    }
    mt_model_free(x);
    mt_model_free(y);
    return same;
}
