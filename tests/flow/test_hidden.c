/* FFN inputs from a file: what observers see, what errors are, and files that do not serve. */
#include "formats/safetensors.h"
#include "lib/flow/hidden.h"
#include "tests/flow_kit.h"

#include <stdlib.h>

/* As many rows that the last fifth of them leaves the tokens of kit_data. */
#define HIDDEN_FILE_ROWS (KIT_TOKENS + KIT_TOKENS / 4)

struct hidden_part {
    const char *name;
    int64_t rows, cols;
    const float *v;
};

/* A safetensors file of F32 matrices, opened; the path is the test's own. */
static struct mt_model *hidden_file(struct t *t, const char *name, const struct hidden_part *parts,
                                    int n)
{
    char head[2048], *at = head + 8;
    const char *path = kit_path(t, name);
    uint64_t bytes = 0;
    struct mt_model *m;
    FILE *f;

    at += snprintf(at, 1024, "{");
    for (int i = 0; i < n; i++) {
        uint64_t size = (uint64_t)(parts[i].rows * parts[i].cols) * 4;
        at += snprintf(at, 300,
                       "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld,%lld],\"data_offsets\":[%llu,"
                       "%llu]}",
                       i > 0 ? "," : "", parts[i].name, (long long)parts[i].rows,
                       (long long)parts[i].cols, (unsigned long long)bytes,
                       (unsigned long long)bytes + (unsigned long long)size);
        bytes += size;
    }
    at += snprintf(at, 8, "}");
    for (int b = 0; b < 8; b++)
        head[b] = (char)((at - head - 8) >> 8 * b & 255);
    f = fopen(path, "wb");
    if (f == NULL)
        abort();
    fwrite(head, 1, (size_t)(at - head), f);
    for (int i = 0; i < n; i++)
        fwrite(parts[i].v, 4, (size_t)(parts[i].rows * parts[i].cols), f);
    fclose(f);
    if (mt_model_create(&t->ctx, &m) != MT_OK || mt_st_add_file(&t->ctx, m, path) != MT_OK)
        abort();
    m->path = path;
    return m;
}

static float *hidden_noise(size_t n, unsigned seed)
{
    float *v = malloc(n * sizeof *v);

    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / (float)(1 << 23) - 1.0f;
    }
    return v;
}

/* The layers' inputs as a model run on kit_data gives them, and noise to hold out. */
static struct mt_model *hidden_of(struct t *t, const struct kit_seen *seen)
{
    static const char *const names[] = {"x.9", "x.10", "x.11"};
    struct hidden_part parts[KIT_LAYERS];
    struct mt_model *m;
    float *v[KIT_LAYERS];

    for (int l = 0; l < KIT_LAYERS; l++) {
        v[l] = hidden_noise(HIDDEN_FILE_ROWS * KIT_HIDDEN, (unsigned)l);
        memcpy(v[l], seen[l].x, KIT_TOKENS * KIT_HIDDEN * sizeof(float));
        /* Natural order is not the file's. */
        parts[(l + 1) % KIT_LAYERS] =
            (struct hidden_part){names[l], HIDDEN_FILE_ROWS, KIT_HIDDEN, v[l]};
    }
    m = hidden_file(t, "inputs.safetensors", parts, KIT_LAYERS);
    for (int l = 0; l < KIT_LAYERS; l++)
        free(v[l]);
    return m;
}

T_TEST(observers_see_what_running_the_model_shows)
{
    struct kit_seen ran[KIT_LAYERS] = {{0}}, a[KIT_LAYERS] = {{0}}, b[KIT_LAYERS * 2] = {{0}};
    struct kit_watch_opts watch = {.rounds = 1, .seen = ran};
    const struct kit_watch_opts teacher = {.rounds = 1, .seen = a};
    const struct kit_watch_opts student = {.student = true, .rounds = 2, .seen = b};
    const struct mt_walk_pass once = {&kit_watch, &watch};
    const struct mt_walk_pass both[] = {{&kit_watch, &teacher}, {&kit_watch, &student}};
    const char *src = kit_make(t, "src");
    struct mt_walk_result result;
    struct mt_hidden h;
    struct mt_device *dev;
    struct mt_model *m;

    T_OK(t, kit_walk(
                t, &(struct kit_run){.source = src, .passes = &once, .n_passes = 1, .data = true}));
    T_CHECK(t, (m = kit_open(t, src)) != NULL);
    T_OK(t, mt_device_open(&t->ctx, "cpu", &dev));
    T_OK(t, mt_hidden_open(&t->ctx, hidden_of(t, ran), "inputs", KIT_LAYERS, KIT_HIDDEN, &h));
    T_EQ_INT(t, h.n_fit[0], KIT_TOKENS);
    T_EQ_STR(t, h.layer[0]->name, "x.9");
    T_EQ_STR(t, h.layer[2]->name, "x.11");
    const struct mt_walk_opts o = {
        .source = m, .passes = both, .n_passes = 2, .data = &h.about, .dev = dev, .hidden = &h};
    T_OK(t, mt_walk_run(&t->ctx, &o, &result));
    for (int l = 0; l < KIT_LAYERS; l++) {
        const struct kit_seen *as[] = {&a[l], &b[2 * l], &b[2 * l + 1]};
        for (int i = 0; i < 3; i++) {
            T_EQ_INT(t, as[i]->tokens, KIT_TOKENS);
            T_CHECK(t, t_rel_l2(as[i]->x, ran[l].x, KIT_TOKENS * KIT_HIDDEN) == 0);
            T_CHECK(t, t_rel_l2(as[i]->h, ran[l].h, KIT_TOKENS * KIT_WIDTH) < 1e-6);
            T_CHECK(t, t_rel_l2(as[i]->y, ran[l].y, KIT_TOKENS * KIT_HIDDEN) < 1e-6);
        }
    }
    mt_walk_result_free(&result);
    mt_hidden_free(&h);
    mt_device_close(dev);
    mt_model_free(m);
    kit_seen_free(ran, KIT_LAYERS);
    kit_seen_free(a, KIT_LAYERS);
    kit_seen_free(b, 2 * KIT_LAYERS);
}

/* Outputs 1.25 times as large are off by a quarter; itself is met exactly. */
T_TEST(errors_are_relative_norms)
{
    const struct kit_scale_opts by = {.by = 1.25};
    const struct mt_walk_pass p = {&kit_scale, &by};
    const struct kit_run r = {.source = kit_make(t, "src"), .passes = &p, .n_passes = 1};
    float *v = hidden_noise(3000 * KIT_HIDDEN, 7);
    const struct hidden_part parts[] = {{"a", 3000, KIT_HIDDEN, v},
                                        {"b", 40, KIT_HIDDEN, v},
                                        {"c", 11, KIT_HIDDEN, v},
                                        {"other", 12, KIT_HIDDEN + 1, v}};
    double error[KIT_LAYERS + 1];
    struct kit_walked w;
    struct mt_device *dev;
    struct mt_hidden h;

    T_OK(t, mt_device_open(&t->ctx, "ref", &dev));
    T_OK(t, kit_walk_open(&t->ctx, &r, &w));
    T_OK(t,
         mt_hidden_open(&t->ctx, hidden_file(t, "h", parts, 4), "h", KIT_LAYERS, KIT_HIDDEN, &h));
    T_EQ_INT(t, mt_hidden_size(h.file), KIT_HIDDEN);
    T_EQ_INT(t, h.n_fit[0], 2400);
    T_EQ_INT(t, h.n_fit[2], 9);
    T_OK(t, mt_hidden_errors(&t->ctx, &h, w.source, w.result.plan, dev, error));
    for (int l = 0; l <= KIT_LAYERS; l++)
        T_NEAR(t, error[l], 0.25, 2e-3); /* weights are BF16 */
    T_OK(t, mt_hidden_errors(&t->ctx, &h, w.source, w.source, dev, error));
    for (int l = 0; l <= KIT_LAYERS; l++)
        T_NEAR(t, error[l], 0, 0);
    mt_hidden_free(&h);
    kit_walk_close(&w);
    mt_device_close(dev);
    free(v);
}

T_TEST(files_that_do_not_serve_are_refused)
{
    float *v = hidden_noise(40 * KIT_HIDDEN, 3);
    const struct hidden_part two[] = {{"a", 30, KIT_HIDDEN, v}, {"b", 30, KIT_HIDDEN, v}};
    const struct hidden_part few[] = {
        {"a", 30, KIT_HIDDEN, v}, {"b", 9, KIT_HIDDEN, v}, {"c", 30, KIT_HIDDEN, v}};
    struct mt_hidden h;
    float x[40 * KIT_HIDDEN];

    T_FAILS(t,
            mt_hidden_open(&t->ctx, hidden_file(t, "2", two, 2), "h", KIT_LAYERS, KIT_HIDDEN, &h),
            MT_E_FORMAT, "2 matrices of 16 columns for 3 layers");
    T_FAILS(t,
            mt_hidden_open(&t->ctx, hidden_file(t, "3", few, 3), "h", KIT_LAYERS, KIT_HIDDEN, &h),
            MT_E_FORMAT, "b holds 9 tokens");
    v[5 * KIT_HIDDEN + 1] = NAN;
    T_OK(t, mt_hidden_open(&t->ctx, hidden_file(t, "4", two, 2), "h", 2, KIT_HIDDEN, &h));
    T_OK(t, mt_hidden_rows(&t->ctx, &h, 1, 6, 10, x));
    T_FAILS(t, mt_hidden_rows(&t->ctx, &h, 1, 0, 10, x), MT_E_NUMERIC,
            "b is NaN or infinite at token 5");
    mt_hidden_free(&h);
    free(v);
}
