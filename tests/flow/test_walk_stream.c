/* What observers see, against models run window by window. */
#include "tests/flow_kit.h"

#include "lib/run/runner.h"

#include <stdlib.h>

#define N_SEEN (KIT_LAYERS * 2)

/* Brute force for one window: layers 0..l-1 of `prefix`, then norm and FFN of layer l of `at`
 * after the attention of layer l of `at`. x, h, y: [n, ...]. */
struct brute {
    struct mt_runner *prefix, *at;
    struct mt_device *dev;
    mt_buf x, n, y, h;
};

static mt_status brute_open(struct mt_ctx *ctx, const struct mt_model *prefix,
                            const struct mt_model *at, struct mt_device *dev, struct brute *b)
{
    *b = (struct brute){.dev = dev};
    MT_TRY(mt_runner_open(ctx, prefix, dev, &b->prefix));
    MT_TRY(mt_runner_open(ctx, at, dev, &b->at));
    MT_TRY(dev->ops->alloc(ctx, dev, 64 * KIT_HIDDEN, &b->x));
    MT_TRY(dev->ops->alloc(ctx, dev, 64 * KIT_HIDDEN, &b->n));
    MT_TRY(dev->ops->alloc(ctx, dev, 64 * KIT_HIDDEN, &b->y));
    return dev->ops->alloc(ctx, dev, 64 * KIT_WIDTH, &b->h);
}

static void brute_close(struct brute *b)
{
    b->dev->ops->release(b->dev, b->x);
    b->dev->ops->release(b->dev, b->n);
    b->dev->ops->release(b->dev, b->y);
    b->dev->ops->release(b->dev, b->h);
    mt_runner_close(b->prefix);
    mt_runner_close(b->at);
}

static mt_status brute_layer(struct mt_ctx *ctx, struct brute *b, struct mt_runner *r, int layer,
                             int32_t n, bool last)
{
    struct mt_seqs seqs = {1, &n};
    struct mt_run_layer *l;

    MT_TRY(mt_run_layer_open(ctx, r, layer, &l));
    mt_status st = mt_run_attn(ctx, l, b->x, &seqs, NULL);
    if (st == MT_OK)
        st = mt_run_ffn_norm(ctx, l, b->x, n, b->n);
    if (st == MT_OK)
        st = mt_run_ffn(ctx, l, b->n, n, b->y, last ? b->h : NULL);
    if (st == MT_OK && !last)
        st = mt_run_add(ctx, r, b->x, b->y, n);
    mt_run_layer_close(l);
    return st;
}

static mt_status brute_window(struct mt_ctx *ctx, struct brute *b, const struct mt_window *w,
                              int layer, float *x, float *h, float *y)
{
    const struct mt_device_ops *ops = b->dev->ops;

    MT_TRY(mt_run_embed(ctx, b->prefix, w->ids, w->n, b->x));
    for (int l = 0; l < layer; l++)
        MT_TRY(brute_layer(ctx, b, b->prefix, l, w->n, false));
    MT_TRY(brute_layer(ctx, b, b->at, layer, w->n, true));
    MT_TRY(ops->download(ctx, b->dev, x, b->n, (size_t)w->n * KIT_HIDDEN));
    MT_TRY(ops->download(ctx, b->dev, h, b->h, (size_t)w->n * KIT_WIDTH));
    return ops->download(ctx, b->dev, y, b->y, (size_t)w->n * KIT_HIDDEN);
}

/* Every seen array of the source's inner layers against brute force with this prefix. */
static void check_seen(struct t *t, const struct kit_seen *seen, int rounds, const char *prefix,
                       const char *at)
{
    struct mt_model *p = kit_open(t, prefix), *a = kit_open(t, at);
    const struct mt_dataset *d = kit_data();
    float x[64 * KIT_HIDDEN], h[64 * KIT_WIDTH], y[64 * KIT_HIDDEN];
    struct mt_device *dev;
    struct brute b;

    T_CHECK(t, p != NULL && a != NULL);
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, brute_open(&t->ctx, p, a, dev, &b));
    for (int l = 0; l < KIT_LAYERS; l++) {
        size_t row = 0;
        for (size_t w = 0; w < d->n_windows; w++) {
            size_t n = (size_t)d->windows[w].n;
            T_OK(t, brute_window(&t->ctx, &b, &d->windows[w], l, x, h, y));
            for (int r = 0; r < rounds; r++) {
                const struct kit_seen *s = &seen[l * rounds + r];
                T_EQ_INT(t, s->tokens, KIT_TOKENS);
                T_CHECK(t, t_rel_l2(s->x + row * KIT_HIDDEN, x, n * KIT_HIDDEN) < 2e-6);
                T_CHECK(t, t_rel_l2(s->h + row * KIT_WIDTH, h, n * KIT_WIDTH) < 4e-6);
                T_CHECK(t, t_rel_l2(s->y + row * KIT_HIDDEN, y, n * KIT_HIDDEN) < 4e-6);
            }
            row += n;
        }
    }
    brute_close(&b);
    mt_device_close(dev);
    mt_model_free(p);
    mt_model_free(a);
}

static bool same_bytes(const void *a, const void *b, size_t n)
{
    return a != NULL && b != NULL && memcmp(a, b, n) == 0;
}

T_TEST(teacher_inputs_are_those_of_the_source)
{
    struct kit_seen seen[N_SEEN] = {{0}};
    const struct kit_watch_opts watch = {.rounds = 2, .seen = seen};
    const struct kit_scale_opts by = {.by = 3};
    const struct mt_walk_pass p[] = {{&kit_scale, &by}, {&kit_watch, &watch}};
    const char *src = kit_make(t, "src");
    struct kit_run r = {
        .source = src, .out = kit_path(t, "out"), .passes = p, .n_passes = 2, .data = true};

    T_OK(t, kit_walk(t, &r));
    check_seen(t, seen, 2, src, src);
    for (int l = 0; l < KIT_LAYERS; l++)
        T_CHECK(t, same_bytes(seen[2 * l].x, seen[2 * l + 1].x,
                              KIT_TOKENS * KIT_HIDDEN * sizeof(float)));
    kit_seen_free(seen, N_SEEN);
}

T_TEST(student_inputs_are_those_of_the_output_as_stored)
{
    struct kit_seen seen[N_SEEN] = {{0}}, teacher[N_SEEN] = {{0}};
    const struct kit_watch_opts watch = {.student = true, .rounds = 2, .seen = seen};
    const struct kit_watch_opts beside = {.rounds = 1, .seen = teacher};
    const struct kit_scale_opts by = {.by = 1.7};
    const struct mt_walk_pass p[] = {
        {&kit_scale, &by}, {&kit_watch, &watch}, {&kit_watch, &beside}};
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    struct kit_run r = {.source = src, .out = out, .passes = p, .n_passes = 3, .data = true};

    T_OK(t, kit_walk(t, &r));
    check_seen(t, seen, 2, out, src);
    check_seen(t, teacher, 1, src, src);
    /* Nothing is edited before the first layer; after it the two part. */
    T_CHECK(t, same_bytes(seen[0].x, teacher[0].x, KIT_TOKENS * KIT_HIDDEN * sizeof(float)));
    T_CHECK(t, t_rel_l2(seen[2].x, teacher[1].x, KIT_TOKENS * KIT_HIDDEN) > 1e-2);
    kit_seen_free(seen, N_SEEN);
    kit_seen_free(teacher, N_SEEN);
}

/* The same without an output: the plan itself is run. */
T_TEST(a_measuring_walk_shows_the_same)
{
    struct kit_seen seen[N_SEEN] = {{0}}, plan[N_SEEN] = {{0}};
    struct kit_watch_opts watch = {.student = true, .rounds = 2, .seen = seen};
    const struct kit_scale_opts by = {.by = 1.7};
    const struct mt_walk_pass p[] = {{&kit_scale, &by}, {&kit_watch, &watch}};
    struct kit_run r = {.source = kit_make(t, "src"),
                        .out = kit_path(t, "out"),
                        .passes = p,
                        .n_passes = 2,
                        .data = true};

    T_OK(t, kit_walk(t, &r));
    watch.seen = plan;
    r.out = NULL;
    T_OK(t, kit_walk(t, &r));
    for (int i = 0; i < N_SEEN; i++) {
        T_EQ_INT(t, plan[i].tokens, KIT_TOKENS);
        T_CHECK(t, same_bytes(seen[i].x, plan[i].x, KIT_TOKENS * KIT_HIDDEN * sizeof(float)));
        T_CHECK(t, same_bytes(seen[i].h, plan[i].h, KIT_TOKENS * KIT_WIDTH * sizeof(float)));
    }
    kit_seen_free(seen, N_SEEN);
    kit_seen_free(plan, N_SEEN);
}

/* A pass that edits attention: the student goes on through what is stored, and observers see the
 * source's layer on the student's states. */
static mt_status attn_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    struct mt_tensor *t;

    (void)state;
    for (int l = 0; l < m->hp.n_layers; l++) {
        MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_ATTN_O, l, MT_EXPERT_NONE), &t));
        t->src.kind = MT_SRC_PENDING;
    }
    return MT_OK;
}

static mt_status attn_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct mt_role role = mt_role(MT_ROLE_ATTN_O, layer, MT_EXPERT_NONE);
    const struct mt_model *src = *(const struct mt_model **)state;
    int32_t rows[KIT_HIDDEN];
    struct mt_tensor *t, *from;

    for (int i = 0; i < KIT_HIDDEN; i++)
        rows[i] = i;
    MT_TRY(mt_model_need(ctx, m, role, &t));
    MT_TRY(mt_model_need(ctx, src, role, &from));
    return mt_recipe_gather_rows(ctx, m, t, from, rows, KIT_HIDDEN, 2);
}

static mt_status attn_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                             void **state)
{
    (void)opts;
    MT_TRY(mt_alloc(ctx, 1, sizeof(void *), "state", state));
    memcpy(*state, (const void *)&src, sizeof(void *));
    return MT_OK;
}

T_TEST(edited_attention_takes_the_student_along)
{
    const struct mt_pass attn = {.name = "attn",
                                 .create = attn_create,
                                 .plan = attn_plan,
                                 .layer = attn_layer,
                                 .destroy = mt_free};
    struct kit_seen seen[N_SEEN] = {{0}};
    const struct kit_watch_opts watch = {.student = true, .rounds = 2, .seen = seen};
    const struct mt_walk_pass p[] = {{&attn, NULL}, {&kit_watch, &watch}};
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    struct kit_run r = {.source = src, .out = out, .passes = p, .n_passes = 2, .data = true};

    T_OK(t, kit_walk(t, &r));
    check_seen(t, seen, 2, out, src);
    kit_seen_free(seen, N_SEEN);
}

/* What a sequential pass decides from the student's inputs is what the numbers say. */
T_TEST(a_sequential_pass_acts_on_what_it_saw)
{
    struct kit_seen seen[KIT_LAYERS] = {{0}};
    const struct kit_watch_opts watch = {.student = true, .rounds = 1, .seen = seen};
    const struct kit_scale_opts by = {.by = 0.25};
    const struct mt_walk_pass p[] = {{&kit_tilt, &by}, {&kit_watch, &watch}};
    struct kit_run r = {.source = kit_make(t, "src"),
                        .out = kit_path(t, "out"),
                        .passes = p,
                        .n_passes = 2,
                        .data = true};
    struct mt_json *layers;
    struct kit_walked w;

    T_OK(t, kit_walk_open(&t->ctx, &r, &w));
    layers = mt_json_first(mt_json_get(w.result.manifest, "layers"));
    for (int l = 0; l < KIT_LAYERS; l++, layers = mt_json_next(layers)) {
        double sum = 0, mean;
        for (int i = 0; i < KIT_TOKENS * KIT_HIDDEN; i++)
            sum += (double)fabsf(seen[l].x[i]);
        T_CHECK(t, mt_json_number(mt_json_get(mt_json_get(layers, "tilt"), "mean"), &mean));
        T_NEAR(t, mean, sum / (KIT_TOKENS * KIT_HIDDEN), 1e-12);
    }
    kit_walk_close(&w);
    kit_seen_free(seen, KIT_LAYERS);
}
