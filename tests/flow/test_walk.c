#include "lib/flow/walk.h"

#include "tests/flow_kit.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

T_TEST(a_walk_without_passes_copies_every_bit)
{
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    struct kit_run r = {.source = src, .out = out};
    size_t n, m;

    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, kit_same_tensors(t, src, out, MT_ROLE_COUNT));
    char *a = t_read_file(kit_path(t, "src/generation_config.json"), &n);
    char *b = t_read_file(kit_path(t, "out/generation_config.json"), &m);
    T_CHECK(t, a != NULL && b != NULL && n == m && memcmp(a, b, n) == 0);
    free(a);
    free(b);
    b = t_read_file(kit_path(t, "out/config.json"), &m);
    T_CHECK(t, b != NULL && strstr(b, "some_unknown_key") != NULL);
    free(b);
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
    T_CHECK(t, access(kit_path(t, "out/" MT_JOURNAL_NAME), F_OK) != 0);
    T_CHECK(t, access(kit_path(t, "out/" MT_MANIFEST_NAME), F_OK) == 0);
}

T_TEST(a_model_of_an_unknown_family_is_copied_too)
{
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    struct kit_run r = {.source = src, .out = out};
    size_t n;
    char *config = t_read_file(kit_path(t, "src/config.json"), &n), *at;

    T_CHECK(t, config != NULL && (at = strstr(config, "\"llama\"")) != NULL);
    at[1] = 'y';
    t_write_file(t, kit_path(t, "src/config.json"), config, n);
    free(config);
    T_OK(t, kit_walk(t, &r));
    struct mt_model *m = kit_open(t, out);
    T_CHECK(t, m != NULL && m->family == NULL);
    mt_model_free(m);
    T_CHECK(t, kit_same_tensors(t, src, out, MT_ROLE_COUNT));
}

T_TEST(a_pass_that_does_nothing_changes_nothing)
{
    const char *src = kit_make(t, "src");
    const struct mt_walk_pass none = {&kit_noop, NULL};
    struct kit_run r = {.source = src, .out = kit_path(t, "out"), .passes = &none, .n_passes = 1};

    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, kit_same_tensors(t, src, kit_path(t, "out"), MT_ROLE_COUNT));
}

T_TEST(a_pass_changes_its_records_and_no_others)
{
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    const struct kit_scale_opts by = {.by = 2};
    const struct mt_walk_pass p = {&kit_scale, &by};
    struct kit_run r = {.source = src, .out = out, .passes = &p, .n_passes = 1};
    struct mt_tensor *x, *y;
    float *a, *b;

    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, kit_same_tensors(t, src, out, MT_ROLE_FFN_DOWN));
    struct mt_model *m = kit_open(t, src), *n = kit_open(t, out);
    T_CHECK(t, m != NULL && n != NULL);
    for (int l = 0; l < KIT_LAYERS; l++) {
        struct mt_role role = mt_role(MT_ROLE_FFN_DOWN, l, MT_EXPERT_NONE);
        T_OK(t, mt_model_need(&t->ctx, m, role, &x));
        T_OK(t, mt_model_need(&t->ctx, n, role, &y));
        T_OK(t, mt_tensor_load_f32(&t->ctx, x, &a));
        T_OK(t, mt_tensor_load_f32(&t->ctx, y, &b));
        for (int64_t i = 0; i < mt_tensor_count(x); i++)
            T_CHECK(t, b[i] == 2 * a[i]);
        mt_free(a);
        mt_free(b);
    }
    mt_model_free(m);
    mt_model_free(n);
}

/* The shape of everything, and the whole plan, are known before the first layer. */
static int layer_calls;
static mt_status counting_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    (void)ctx;
    (void)state;
    (void)m;
    (void)layer;
    layer_calls++;
    return MT_OK;
}

static mt_status shrinking_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    struct mt_tensor *t;

    (void)state;
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_NONE), &t));
    t->shape[0]--;
    return MT_OK;
}

T_TEST(a_shape_that_cannot_be_is_refused_before_the_first_layer)
{
    const struct mt_pass bad = {.name = "bad", .plan = shrinking_plan, .layer = counting_layer};
    const struct mt_walk_pass p = {&bad, NULL};
    struct kit_run r = {
        .source = kit_make(t, "src"), .out = kit_path(t, "out"), .passes = &p, .n_passes = 1};

    layer_calls = 0;
    T_CHECK(t, kit_walk(t, &r) != MT_OK);
    T_CHECK(t, strstr(mt_error(&t->ctx), "bad: ") != NULL &&
                   strstr(mt_error(&t->ctx), "up_proj") != NULL);
    T_EQ_INT(t, layer_calls, 0);
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
}

static mt_status pending_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    struct mt_tensor *t;

    (void)state;
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_NONE), &t));
    t->src.kind = MT_SRC_PENDING;
    t->planner = "forgetful";
    return MT_OK;
}

T_TEST(a_record_left_without_a_source_names_its_pass)
{
    const struct mt_pass bad = {.name = "forgetful", .plan = pending_plan};
    const struct mt_walk_pass p = {&bad, NULL};
    struct kit_run r = {
        .source = kit_make(t, "src"), .out = kit_path(t, "out"), .passes = &p, .n_passes = 1};

    T_FAILS(t, kit_walk(t, &r), MT_E_UNSUPPORTED, "forgetful left it without a source");
    T_CHECK(t, strstr(mt_error(&t->ctx), "layers.1.up_proj") != NULL);
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
}

/* Puts a NaN at element 17 of a record of the file. */
static void plant_nan(struct t *t, const char *dir, struct mt_role role)
{
    struct mt_model *m = kit_open(t, dir);
    const struct mt_tensor *r;
    char path[600];

    if (m == NULL)
        return;
    r = mt_tensor_origin(mt_model_find(m, role));
    snprintf(path, sizeof path, "%s", r->src.slice.map->path);
    long at = (long)r->src.slice.offset + 17 * 2;
    mt_model_free(m);
    FILE *f = fopen(path, "r+b");
    fseek(f, at, SEEK_SET);
    fwrite("\xc0\x7f", 1, 2, f);
    fclose(f);
}

T_TEST(a_nan_is_refused_by_name_and_allowed_by_option)
{
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    struct kit_run r = {.source = src, .out = out, .threads = 2};

    plant_nan(t, src, mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_NONE));
    T_FAILS(t, kit_walk(t, &r), MT_E_NUMERIC, "layers.1.up_proj");
    T_CHECK(t, strstr(mt_error(&t->ctx), "element 17 ") != NULL);
    T_CHECK(t, strstr(mt_error(&t->ctx), "model.safetensors") != NULL);
    T_CHECK(t, strstr(mt_error(&t->ctx), "--allow-nan") != NULL);
    T_CHECK(t, access(out, F_OK) != 0 && access(kit_path(t, "out.partial"), F_OK) != 0);
    r.allow_nan = true;
    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, kit_same_tensors(t, src, out, MT_ROLE_COUNT));
}

T_TEST(an_output_in_the_way_is_kept_unless_forced)
{
    const char *src = kit_make(t, "src"), *out = kit_path(t, "out");
    const struct kit_scale_opts by = {.by = 2};
    const struct mt_walk_pass p = {&kit_scale, &by};
    struct kit_run r = {.source = src, .out = out};

    T_OK(t, kit_walk(t, &r));
    r.passes = &p;
    r.n_passes = 1;
    T_FAILS(t, kit_walk(t, &r), MT_E_IO, "--force");
    T_CHECK(t, kit_same_tensors(t, src, out, MT_ROLE_COUNT));
    r.flags = MT_OUT_FORCE;
    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, kit_same_tensors(t, src, out, MT_ROLE_FFN_DOWN));
    r.flags = 0;
    r.out = kit_path(t, "second");
    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, t_same_tree(out, kit_path(t, "second")));
}

static uint64_t greedy_memory(const void *state, const struct mt_model *m)
{
    (void)state;
    (void)m;
    return (uint64_t)1 << 40;
}

T_TEST(what_cannot_fit_is_refused_before_output_is_opened)
{
    const struct mt_pass greedy = {.name = "greedy", .memory = greedy_memory};
    const struct mt_walk_pass p = {&greedy, NULL};
    const char *src = kit_make(t, "src");
    struct kit_run r = {.source = src, .out = kit_path(t, "out"), .threads = 1, .memory = 1 << 20};

    T_FAILS(t, kit_walk(t, &r), MT_E_LIMIT, "--memory");
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
    r.memory = 64 << 20;
    T_OK(t, kit_walk(t, &r));
    r.passes = &p;
    r.n_passes = 1;
    r.out = kit_path(t, "out2");
    T_FAILS(t, kit_walk(t, &r), MT_E_LIMIT, "passes 1.0 TiB");
    T_CHECK(t, access(kit_path(t, "out2.partial"), F_OK) != 0);
}

/* Whatever limit the plan accepts, the work ends within it. */
T_TEST(a_limit_that_is_accepted_suffices)
{
    const struct kit_scale_opts by = {.by = 0.25};
    const struct kit_watch_opts watch = {.student = true, .rounds = 2};
    const struct mt_walk_pass p[] = {{&kit_tilt, &by}, {&kit_watch, &watch}};
    struct kit_run r = {.source = kit_make(t, "src"), .passes = p, .n_passes = 2, .data = true};
    uint64_t lo = 1 << 20, hi = (uint64_t)256 << 20;

    r.threads = 2;
    r.out = kit_path(t, "out");
    r.flags = MT_OUT_FORCE;
    while (hi - lo > 256) {
        r.memory = lo + (hi - lo) / 2;
        mt_status st = kit_walk(t, &r);
        if (st == MT_OK) {
            hi = r.memory;
            continue;
        }
        T_EQ_INT(t, st, MT_E_LIMIT);
        if (strncmp(mt_error(&t->ctx), "this work", 9) != 0)
            T_FAIL(t, "%s", mt_error(&t->ctx));
        lo = r.memory;
    }
}

T_TEST(a_dry_run_tells_sizes_and_writes_nothing)
{
    const char *src = kit_make(t, "src");
    struct kit_run r = {.source = src, .out = kit_path(t, "out"), .dry_run = true};
    struct kit_walked w;
    struct mt_model_size size;

    T_OK(t, kit_walk_open(&t->ctx, &r, &w));
    mt_model_measure(w.source, &size);
    T_EQ_INT(t, w.result.bytes_out, size.bytes);
    T_CHECK(t, w.result.disk_bytes > size.bytes && w.result.memory_bytes > 0);
    T_CHECK(t, w.result.plan != NULL && w.result.manifest != NULL);
    kit_walk_close(&w);
    T_CHECK(t, access(kit_path(t, "out"), F_OK) != 0);
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
}

T_TEST(a_measuring_walk_leaves_a_plan_that_can_be_read)
{
    const struct kit_scale_opts by = {.by = 4};
    const struct mt_walk_pass p = {&kit_scale, &by};
    struct kit_run r = {.source = kit_make(t, "src"), .passes = &p, .n_passes = 1};
    struct mt_role role = mt_role(MT_ROLE_FFN_DOWN, 2, MT_EXPERT_NONE);
    struct kit_walked w;
    struct mt_tensor *x;
    float *a, *b;
    double number;

    T_OK(t, kit_walk_open(&t->ctx, &r, &w));
    T_OK(t, mt_model_need(&t->ctx, w.source, role, &x));
    T_OK(t, mt_tensor_load_f32(&t->ctx, x, &a));
    T_OK(t, mt_model_need(&t->ctx, w.result.plan, role, &x));
    T_OK(t, mt_tensor_load_f32(&t->ctx, x, &b));
    for (int64_t i = 0; i < mt_tensor_count(x); i++)
        T_CHECK(t, b[i] == 4 * a[i]);
    mt_free(a);
    mt_free(b);
    struct mt_json *layers = mt_json_get(w.result.manifest, "layers");
    T_EQ_INT(t, mt_json_count(layers), KIT_LAYERS);
    T_CHECK(t, mt_json_number(mt_json_get(mt_json_get(mt_json_first(layers), "scale"), "by"),
                              &number) &&
                   number == 4);
    kit_walk_close(&w);
}

T_TEST(activations_without_data_are_refused_by_name)
{
    const struct kit_watch_opts o = {.rounds = 1};
    const struct mt_walk_pass p = {&kit_watch, &o};
    struct kit_run r = {
        .source = kit_make(t, "src"), .out = kit_path(t, "out"), .passes = &p, .n_passes = 1};

    T_FAILS(t, kit_walk(t, &r), MT_E_OPTION, "watch: ");
    T_CHECK(t, strstr(mt_error(&t->ctx), "--data") != NULL);
}

/* Data that no pass wants changes neither the bytes nor what the manifest says of them. */
T_TEST(unwanted_data_are_not_computed_with)
{
    const char *src = kit_make(t, "src");
    struct kit_run r = {.source = src, .out = kit_path(t, "a")};

    T_OK(t, kit_walk(t, &r));
    r.out = kit_path(t, "b");
    r.data = true;
    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, t_same_tree(kit_path(t, "a"), kit_path(t, "b")));
}

struct finish_seen {
    int calls;
    size_t tensors;
    bool manifest;
};
static mt_status look(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                      const struct mt_json *manifest, struct mt_outdir *out)
{
    struct finish_seen *s = arg;

    s->calls++;
    s->tensors = result->n_tensors;
    s->manifest = mt_json_get(manifest, "source") != NULL;
    MT_TRY(mt_outdir_text(ctx, out, "generation_config.json", "{}\n", 3));
    return mt_outdir_text(ctx, out, "README.md", "hello\n", 6);
}

T_TEST(the_caller_sees_the_result_before_it_is_committed)
{
    struct finish_seen seen = {0};
    struct kit_run r = {.source = kit_make(t, "src"),
                        .out = kit_path(t, "out"),
                        .finish = look,
                        .finish_arg = &seen};
    size_t n;

    T_OK(t, kit_walk(t, &r));
    T_EQ_INT(t, seen.calls, 1);
    T_EQ_INT(t, seen.tensors, KIT_LAYERS * 9 + 3);
    T_CHECK(t, seen.manifest);
    char *text = t_read_file(kit_path(t, "out/README.md"), &n);
    T_CHECK(t, text != NULL && strcmp(text, "hello\n") == 0);
    free(text);
    /* What is written a second time replaces the first. */
    text = t_read_file(kit_path(t, "out/generation_config.json"), &n);
    T_CHECK(t, text != NULL && strcmp(text, "{}\n") == 0);
    free(text);
}

static mt_status refuse(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                        const struct mt_json *manifest, struct mt_outdir *out)
{
    (void)arg;
    (void)result;
    (void)manifest;
    (void)out;
    return mt_fail(ctx, MT_E_EXCEEDED, "KL too high");
}

T_TEST(a_refusing_caller_leaves_nothing)
{
    struct kit_run r = {.source = kit_make(t, "src"), .out = kit_path(t, "out"), .finish = refuse};

    T_FAILS(t, kit_walk(t, &r), MT_E_EXCEEDED, "KL too high");
    T_CHECK(t, access(kit_path(t, "out"), F_OK) != 0);
    T_CHECK(t, access(kit_path(t, "out.partial"), F_OK) != 0);
}

/* One tree, whatever the threads, the memory and the directory it came from. */
T_TEST(bytes_do_not_depend_on_threads_memory_or_path)
{
    const struct kit_scale_opts by = {.by = 0.25};
    const struct kit_watch_opts watch = {.rounds = 2};
    const struct mt_walk_pass p[] = {{&kit_tilt, &by}, {&kit_watch, &watch}};
    static const int threads[] = {1, 2, 4};
    struct kit_run r = {.out = kit_path(t, "a"), .passes = p, .n_passes = 2, .data = true};
    char name[32];

    r.source = kit_make(t, "src");
    T_OK(t, kit_walk(t, &r));
    r.source = kit_make(t, "elsewhere");
    for (int i = 0; i < 6; i++) {
        snprintf(name, sizeof name, "b%d", i);
        r.out = kit_path(t, name);
        r.threads = threads[i % 3];
        r.memory = i < 3 ? (uint64_t)1 << 30 : (uint64_t)120 << 20;
        T_OK(t, kit_walk(t, &r));
        T_CHECK(t, t_same_tree(kit_path(t, "a"), r.out));
    }
}

T_TEST(shards_hold_the_same_tensors)
{
    const char *src = kit_make(t, "src");
    struct kit_run r = {.source = src, .out = kit_path(t, "out"), .shard_bytes = 4000};

    T_OK(t, kit_walk(t, &r));
    T_CHECK(t, access(kit_path(t, "out/model.safetensors.index.json"), F_OK) == 0);
    T_CHECK(t, kit_same_tensors(t, src, r.out, MT_ROLE_COUNT));
}

T_TEST(the_identity_ignores_path_and_shards_and_sees_the_rest)
{
    const char *src = kit_make(t, "src");
    struct kit_run r = {.source = src, .out = kit_path(t, "sharded"), .shard_bytes = 4000};
    char a[65], b[65];

    T_OK(t, kit_walk(t, &r));
    struct mt_model *m = kit_open(t, src), *n = kit_open(t, r.out);
    T_CHECK(t, m != NULL && n != NULL);
    T_OK(t, mt_model_identity(&t->ctx, m, a));
    T_OK(t, mt_model_identity(&t->ctx, n, b));
    T_EQ_STR(t, a, b);
    mt_model_free(n);
    n = kit_open(t, kit_make(t, "other"));
    T_OK(t, mt_model_identity(&t->ctx, n, b));
    T_EQ_STR(t, a, b);
    mt_model_free(n);
    mt_model_free(m);
    plant_nan(t, kit_path(t, "other"), mt_role(MT_ROLE_ATTN_Q, 0, MT_EXPERT_NONE));
    n = kit_open(t, kit_path(t, "other"));
    T_OK(t, mt_model_identity(&t->ctx, n, b));
    T_CHECK(t, strcmp(a, b) != 0);
    mt_model_free(n);
}

T_TEST(the_manifest_tells_the_making_and_the_history)
{
    const struct kit_scale_opts by = {.by = 0.5}, again = {.by = 2};
    const struct kit_watch_opts watch = {.rounds = 1};
    const struct mt_walk_pass p[] = {{&kit_scale, &by}, {&kit_watch, &watch}};
    const struct mt_walk_pass q = {&kit_scale, &again};
    struct kit_run r = {.source = kit_make(t, "src"),
                        .out = kit_path(t, "a"),
                        .passes = p,
                        .n_passes = 2,
                        .data = true};
    struct mt_json *j, *x;
    double v;
    int64_t n;

    T_OK(t, kit_walk(t, &r));
    r = (struct kit_run){
        .source = kit_path(t, "a"), .out = kit_path(t, "b"), .passes = &q, .n_passes = 1};
    T_OK(t, kit_walk(t, &r));
    T_OK(t, mt_json_read(&t->ctx, kit_path(t, "a/" MT_MANIFEST_NAME), 1 << 20, &j));
    x = mt_json_first(mt_json_get(j, "passes"));
    T_EQ_STR(t, mt_json_text(mt_json_get(x, "name")), "scale");
    T_CHECK(t, mt_json_number(mt_json_get(mt_json_get(x, "options"), "by"), &v) && v == 0.5);
    T_CHECK(t, mt_json_integer(mt_json_get(mt_json_get(x, "report"), "layers"), &n) &&
                   n == KIT_LAYERS);
    T_CHECK(t,
            mt_json_integer(mt_json_get(mt_json_get(j, "data"), "tokens"), &n) && n == KIT_TOKENS);
    T_CHECK(t, mt_json_get(j, "blas") != NULL && mt_json_get(j, "seed") != NULL);
    mt_json_free(j);
    T_OK(t, mt_json_read(&t->ctx, kit_path(t, "b/" MT_MANIFEST_NAME), 1 << 20, &j));
    T_CHECK(t, mt_json_get(j, "data") == NULL);
    x = mt_json_get(mt_json_get(j, "source"), "history");
    T_EQ_INT(t, mt_json_count(mt_json_get(x, "passes")), 2);
    T_CHECK(t, mt_json_get(x, "data") != NULL && mt_json_get(x, "layers") == NULL);
    mt_json_free(j);
}
