/* Layouts of a safetensors output that the user chooses: experts stacked or one by one, one file
 * that carries its config. Whatever is chosen, what comes back is the same model. */
#include "formats/check.h"
#include "formats/safetensors.h"
#include "formats/table.h"
#include "lib/flow/walk.h"
#include "tests/pass_run.h"
#include "tests/st_fixture.h"
#include "tests/tiny.h"

#include <stdlib.h>
#include <unistd.h>

struct job {
    const char *from, *to;
    const char *format; /* [safetensors] */
    bool stack;
    unsigned flags;
    uint64_t shard_bytes;
};

static mt_status copy(struct t *t, const struct job *j)
{
    struct mt_walk_opts o = {
        .format = mt_format_writer(j->format != NULL ? j->format : "safetensors"),
        .formats = mt_formats,
        .out_path = j->to,
        .out_flags = j->flags,
        .write = {.stack_experts = j->stack, .shard_bytes_max = j->shard_bytes}};
    struct mt_walk_result r;
    struct mt_model *src;
    mt_status st;

    MT_TRY(mt_model_open(&t->ctx, mt_formats, j->from, &src));
    o.source = src;
    st = mt_walk_run(&t->ctx, &o, &r);
    if (st == MT_OK)
        mt_walk_result_free(&r);
    mt_model_free(src);
    return st;
}

static bool same_file(const char *a, const char *b)
{
    size_t n, m;
    char *x = t_read_file(a, &n), *y = t_read_file(b, &m);
    bool same = x != NULL && y != NULL && n == m && memcmp(x, y, n) == 0;

    free(x);
    free(y);
    return same;
}

static const char *kept(const char *path)
{
    static char buf[8][512];
    static int turn;

    turn = (turn + 1) % 8;
    snprintf(buf[turn], sizeof buf[turn], "%s", path);
    return buf[turn];
}

/* The shape of a tensor as it stands in the file of a directory. */
static bool stored(struct t *t, const char *path, const char *name, int rank, const int64_t *shape)
{
    struct mt_arena arena;
    struct mt_st_header h;
    struct mt_map *map;
    bool found = false;

    if (mt_map_open(&t->ctx, path, &map) != MT_OK)
        return false;
    mt_arena_init(&arena);
    if (mt_st_header_read(&t->ctx, map, &arena, &h) == MT_OK)
        for (size_t i = 0; i < h.n && !found; i++) {
            found = strcmp(h.v[i].name, name) == 0 && h.v[i].rank == rank;
            for (int d = 0; found && d < rank; d++)
                found = (int64_t)h.v[i].shape[d] == shape[d];
        }
    mt_st_header_free(&h);
    mt_arena_free(&arena);
    mt_map_close(map);
    return found;
}

/* ---- stacks ---- */

T_TEST(experts_are_stacked_and_taken_apart_again)
{
    static const char *const families[] = {"mixtral",     "qwen2_moe",   "qwen3_moe",
                                           "olmoe",       "dots1",       "glm4_moe",
                                           "deepseek_v2", "deepseek_v3", "ernie4_5_moe"};

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        char golden[128];
        const char *plain = kept(t_path(t, "plain")), *stacked = kept(t_path(t, "stacked"));
        const char *back = kept(t_path(t, "back"));
        struct mt_model *a, *b;
        double d;

        snprintf(golden, sizeof golden, "tests/golden/%s", families[i]);
        T_OK(t, copy(t, &(struct job){.from = golden, .to = plain, .flags = MT_OUT_FORCE}));
        T_OK(t, copy(t, &(struct job){
                            .from = golden, .to = stacked, .stack = true, .flags = MT_OUT_FORCE}));
        T_OK(t, copy(t, &(struct job){.from = stacked, .to = back, .flags = MT_OUT_FORCE}));
        T_CHECK(t, same_file(kept(t_path(t, "plain/model.safetensors")),
                             kept(t_path(t, "back/model.safetensors"))));
        T_CHECK(t, same_file(kept(t_path(t, "plain/config.json")),
                             kept(t_path(t, "stacked/config.json"))));
        T_CHECK(t, !same_file(kept(t_path(t, "plain/model.safetensors")),
                              kept(t_path(t, "stacked/model.safetensors"))));
        T_OK(t, mt_model_open(&t->ctx, mt_formats, golden, &a));
        T_OK(t, mt_model_open(&t->ctx, mt_formats, stacked, &b));
        T_CHECK(t, b->cuts != NULL && b->n_tensors == a->n_tensors);
        T_OK(t, logits_distance(&t->ctx, "ref", a, b, &d));
        T_CHECK(t, d == 0);
        mt_model_free(a);
        mt_model_free(b);
    }
}

T_TEST(stacks_have_the_names_and_shapes_of_transformers_5)
{
    const char *out = kept(t_path(t, "stacked/model.safetensors"));

    T_OK(t, copy(t, &(struct job){.from = "tests/golden/mixtral",
                                  .to = kept(t_path(t, "stacked")),
                                  .stack = true}));
    T_CHECK(t, stored(t, out, "model.layers.0.mlp.experts.gate_up_proj", 3,
                      (const int64_t[]){4, 48, 32}));
    T_CHECK(
        t, stored(t, out, "model.layers.1.mlp.experts.down_proj", 3, (const int64_t[]){4, 32, 24}));
    T_CHECK(t, stored(t, out, "model.layers.0.mlp.gate.weight", 2, (const int64_t[]){4, 32}));
    T_CHECK(t, !stored(t, out, "model.layers.0.block_sparse_moe.gate.weight", 2,
                       (const int64_t[]){4, 32}));
    /* What transformers wrote itself. */
    T_CHECK(t, stored(t, "tests/golden/mixtral-fused/model.safetensors",
                      "model.layers.0.mlp.experts.gate_up_proj", 3, (const int64_t[]){4, 48, 32}));
}

T_TEST(stacks_are_never_cut_by_shards)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "qwen3_moe", .experts = 5});
    const char *out = kept(t_path(t, "out"));
    struct mt_model *a, *b;
    double d;

    T_OK(t, copy(t, &(struct job){.from = dir, .to = out, .stack = true, .shard_bytes = 1}));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &a));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &b));
    T_OK(t, logits_distance(&t->ctx, "ref", a, b, &d));
    T_CHECK(t, d == 0);
    T_CHECK(t, b->n_maps < a->n_tensors); /* a file for each tensor, fewer than records */
    mt_model_free(a);
    mt_model_free(b);
}

/* Where a family publishes stacks, and where there is nothing to stack, the choice is none. */
T_TEST(stacking_changes_nothing_where_there_is_no_choice)
{
    static const char *const names[] = {"granitemoe", "gpt_oss", "llama"};

    for (size_t i = 0; i < 3; i++) {
        char golden[128];
        snprintf(golden, sizeof golden, "tests/golden/%s", names[i]);
        T_OK(t, copy(t, &(struct job){
                            .from = golden, .to = kept(t_path(t, "a")), .flags = MT_OUT_FORCE}));
        T_OK(t, copy(t, &(struct job){.from = golden,
                                      .to = kept(t_path(t, "b")),
                                      .stack = true,
                                      .flags = MT_OUT_FORCE}));
        T_CHECK(t, same_file(kept(t_path(t, "a/model.safetensors")),
                             kept(t_path(t, "b/model.safetensors"))));
    }
}

/* ---- one file ---- */

T_TEST(one_file_is_a_model_by_itself)
{
    const char *dir =
        tiny_write(t, "m", &(struct tiny){.family = "glm4_moe", .shared = 1, .shards = 2});
    const char *file = kept(t_path(t, "alone/x.safetensors"));
    struct mt_model *a, *b;
    double d;

    fx_mkdir(t, "alone");
    T_OK(t, copy(t, &(struct job){.from = dir, .to = file, .format = "safetensors-file"}));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &a));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, file, &b));
    T_EQ_STR(t, b->format, "safetensors");
    T_CHECK(t, b->family == a->family && b->n_maps == 1 && b->n_sidecars == 0);
    T_EQ_INT(t, mt_check_engines_of(b), MT_FOR_MOETOOL);
    T_OK(t, logits_distance(&t->ctx, "ref", a, b, &d));
    T_CHECK(t, d == 0);
    mt_model_free(a);
    mt_model_free(b);
    /* And a directory again: as if it had never been a file. */
    T_OK(t, copy(t, &(struct job){.from = file, .to = kept(t_path(t, "back"))}));
    T_OK(t, copy(t, &(struct job){.from = dir, .to = kept(t_path(t, "copy"))}));
    T_CHECK(t, same_file(kept(t_path(t, "copy/model.safetensors")),
                         kept(t_path(t, "back/model.safetensors"))));
    T_CHECK(t, same_file(kept(t_path(t, "copy/config.json")), kept(t_path(t, "back/config.json"))));
}

T_TEST(a_file_of_stacks_comes_back_too)
{
    const char *file = kept(t_path(t, "x.safetensors"));

    T_OK(t, copy(t, &(struct job){.from = "tests/golden/qwen3_moe",
                                  .to = file,
                                  .stack = true,
                                  .format = "safetensors-file"}));
    T_OK(t, copy(t, &(struct job){.from = file, .to = kept(t_path(t, "back"))}));
    T_OK(t,
         copy(t, &(struct job){.from = "tests/golden/qwen3_moe", .to = kept(t_path(t, "copy"))}));
    T_CHECK(t, same_file(kept(t_path(t, "copy/model.safetensors")),
                         kept(t_path(t, "back/model.safetensors"))));
}

/* The config that a file carries counts, not one that happens to lie beside it; its tokenizer is
 * taken from there. */
T_TEST(a_file_goes_by_the_config_it_carries)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "llama", .tokenizer = true});
    const char *file = kept(t_path(t, "other/x.safetensors"));
    struct mt_model *m;

    tiny_write(t, "other", &(struct tiny){.family = "qwen3", .tokenizer = true, .hidden = 64});
    T_OK(t, copy(t, &(struct job){.from = dir, .to = file, .format = "safetensors-file"}));
    T_OK(t, mt_model_open(&t->ctx, mt_formats, file, &m));
    T_EQ_STR(t, m->family->name, "llama");
    T_EQ_INT(t, m->n_sidecars, 1);
    T_EQ_STR(t, m->sidecars[0].name, "tokenizer.json");
    mt_model_free(m);
}

static mt_status open_try(struct t *t, const char *path)
{
    struct mt_model *m;
    mt_status st = mt_model_open(&t->ctx, mt_formats, path, &m);

    if (st == MT_OK)
        mt_model_free(m);
    return st;
}

T_TEST(carried_configs_are_not_believed)
{
#define HEAD(config)                                                                               \
    "{\"__metadata__\":{\"moetool.config\":" config "},\"a\":" FX_ENTRY("U8", "1", 0, 1) "}"
    T_FAILS(t, open_try(t, fx_st(t, "a.safetensors", HEAD("\"{\""), 1)), MT_E_FORMAT,
            "a.safetensors: __metadata__: moetool.config");
    T_FAILS(t, open_try(t, fx_st(t, "b.safetensors", HEAD("\"[1]\""), 1)), MT_E_FORMAT,
            "b.safetensors: moetool.config is not an object");
    T_FAILS(
        t,
        open_try(t, fx_st(t, "c.safetensors", HEAD("\"{\\\"model_type\\\":\\\"llama\\\"}\""), 1)),
        MT_E_FORMAT, "config of llama");
    T_OK(t, open_try(
                t, fx_st(t, "d.safetensors", HEAD("\"{\\\"model_type\\\":\\\"abacus\\\"}\""), 1)));
    /* Of a directory only its config.json counts. */
    T_OK(t, open_try(t, (fx_st(t, "e/model.safetensors", HEAD("\"{\""), 1), t_path(t, "e"))));
}

T_TEST(a_file_is_written_whole_or_not_at_all)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.family = "llama"});
    const char *file = kept(t_path(t, "x.safetensors")),
               *part = kept(t_path(t, "x.safetensors.partial"));
    mt_status st = MT_E_IO;

    for (uint64_t n = 1; st != MT_OK; n++) {
        T_CHECK(t, n < 1000);
        mt_fault_write(n);
        st = copy(t, &(struct job){.from = dir, .to = file, .format = "safetensors-file"});
        mt_fault_write(0);
        if (st != MT_OK)
            T_CHECK(t, access(file, F_OK) != 0 && access(part, F_OK) != 0);
    }
    T_FAILS(t, copy(t, &(struct job){.from = dir, .to = file, .format = "safetensors-file"}),
            MT_E_IO, "exists already");
}

/* ---- blocks as numbers ---- */

T_TEST(mxfp4_blocks_become_numbers)
{
    static const char *const dtypes[] = {"bf16", "f16", "f32"};
    struct mt_model *a, *b;
    double d;

    T_OK(t, mt_model_open(&t->ctx, mt_formats, "tests/golden/gpt_oss-mxfp4", &a));
    for (int i = 0; i < 3; i++) {
        char options[32], out[32];
        snprintf(options, sizeof options, "dtype=%s", dtypes[i]);
        snprintf(out, sizeof out, "out-%s", dtypes[i]);
        const char *path = kept(t_path(t, out));
        T_OK(t, write_pass(&t->ctx, "cast", options, a, path));
        T_OK(t, mt_model_open(&t->ctx, mt_formats, path, &b));
        T_CHECK(t, mt_json_get(b->config, "quantization_config") == NULL);
        T_OK(t, logits_distance(&t->ctx, "ref", a, b, &d));
        T_CHECK(t, i == 2 ? d == 0 : d > 0 && d < 0.05);     /* the rest of the model was rounded */
        for (size_t k = 0; k < a->n_tensors && i < 2; k++) { /* blocks fit into 16 bits exactly */
            const struct mt_tensor *x = a->tensors[k], *y = mt_model_find(b, x->role);
            float *u, *v;
            if (x->src.kind != MT_SRC_RECIPE)
                continue;
            T_CHECK(t, y != NULL && y->dtype == (i == 0 ? MT_BF16 : MT_F16));
            T_OK(t, mt_tensor_load_f32(&t->ctx, x, &u));
            T_OK(t, mt_tensor_load_f32(&t->ctx, y, &v));
            T_CHECK(t, memcmp(u, v, (size_t)mt_tensor_count(x) * sizeof *u) == 0);
            mt_free(u);
            mt_free(v);
        }
        mt_model_free(b);
    }
    mt_model_free(a);
}

T_TEST(mxfp4_blocks_stay_blocks_in_a_copy)
{
    T_OK(t,
         copy(t, &(struct job){.from = "tests/golden/gpt_oss-mxfp4", .to = kept(t_path(t, "x"))}));
    T_CHECK(t, same_file("tests/golden/gpt_oss-mxfp4/model.safetensors",
                         kept(t_path(t, "x/model.safetensors"))));
}
