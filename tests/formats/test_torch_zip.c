#include "formats/torch_zip.h"

#include "formats/table.h"
#include "tests/st_fixture.h"
#include "tests/torch_fixture.h"

#include <stdlib.h>

static mt_status open_try(struct t *t, const char *path)
{
    struct mt_model *m;
    mt_status st = mt_model_open(&t->ctx, mt_formats, path, &m);

    if (st == MT_OK)
        mt_model_free(m);
    return st;
}

/* The whole tensor as bytes, however it lies in its file; malloc'ed. */
static unsigned char *all_of(struct t *t, const struct mt_tensor *x)
{
    unsigned char *p = malloc(mt_tensor_bytes(x) + 1);

    if (p == NULL ||
        (mt_tensor_bytes(x) > 0 && mt_tensor_fetch(&t->ctx, x, 0, mt_tensor_rows(x), p) != MT_OK)) {
        free(p);
        return NULL;
    }
    return p;
}

/* Every tensor of `want` is in `got` with type, shape and bytes. */
static void check_models(struct t *t, const struct mt_model *got, const struct mt_model *want)
{
    T_EQ_INT(t, got->n_tensors, want->n_tensors);
    for (size_t i = 0; i < want->n_tensors; i++) {
        const struct mt_tensor *w = want->tensors[i], *g = fx_find(got, w->name);
        unsigned char *a, *b;
        bool same;
        if (g == NULL || g->dtype != w->dtype || g->rank != w->rank)
            T_FAIL(t, "%s: missing, or of another type or rank", w->name);
        for (int d = 0; d < w->rank; d++)
            T_EQ_INT(t, g->shape[d], w->shape[d]);
        a = all_of(t, g);
        b = all_of(t, w);
        same = a != NULL && b != NULL && memcmp(a, b, mt_tensor_bytes(w)) == 0;
        free(a);
        free(b);
        if (!same)
            T_FAIL(t, "%s: other values", w->name);
    }
}

/* The shipped checkpoint and what torch said it holds. */
static void check_shipped(struct t *t, const char *file, const char *truth)
{
    struct mt_model *got, *want;
    char path[128];

    snprintf(path, sizeof path, "torch/%s.safetensors", truth);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped(path), &want));
    snprintf(path, sizeof path, "torch/%s", file);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped(path), &got));
    T_EQ_STR(t, got->format, "torch");
    check_models(t, got, want);
    mt_model_free(got);
    mt_model_free(want);
}

T_TEST(every_type_reads_as_torch_reads_it)
{
    check_shipped(t, "types.pt", "types");
}

T_TEST(every_view_reads_as_torch_reads_it)
{
    check_shipped(t, "views.pt", "views");
    check_shipped(t, "views_protocol4.pt", "views");
    check_shipped(t, "views_protocol5.pt", "views");
}

T_TEST(state_of_a_module_and_bare_tensors)
{
    check_shipped(t, "module.pt", "module");
    check_shipped(t, "one.pt", "one");
    check_shipped(t, "list.pt", "list");
}

static const char *note(const struct mt_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_notes; i++) {
        if (strcmp(m->notes[i].name, name) == 0)
            return m->notes[i].text;
    }
    return "";
}

T_TEST(a_training_checkpoint_gives_its_model)
{
    struct mt_model *m;

    check_shipped(t, "nested.pt", "nested");
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped("torch/nested.pt"), &m));
    T_EQ_STR(t, note(m, "tensors"),
             "those under \"model.module.\"; 1 elsewhere, such as "
             "\"optimizer.state.0.exp_avg\", are left alone");
    T_EQ_STR(t, note(m, "epoch"), "3");
    T_EQ_STR(t, note(m, "lr"), "0.1");
    T_EQ_STR(t, note(m, "best"), "None");
    T_EQ_STR(t, note(m, "name"), "'tiny'");
    T_EQ_STR(t, note(m, "args.dtype"), "torch.float16");
    T_EQ_STR(t, note(m, "args.raw"), "3 bytes");
    T_EQ_STR(t, note(m, "args.huge"), "an integer beyond 64 bits");
    mt_model_free(m);
}

/* Two shards, an index, a head that is the embedding again. */
T_TEST(a_directory_of_shards_is_a_model)
{
    struct mt_model *got, *want;

    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped("torch/llama"), &got));
    T_CHECK(t, got->family != NULL && got->hp.tied && got->n_maps == 2);
    T_EQ_STR(t, got->family->name, "llama");
    T_EQ_STR(t, got->format, "torch");
    T_CHECK(t, fx_find(got, "lm_head.weight") == NULL);
    T_CHECK(t, strstr(t->log, "\"lm_head.weight\" is \"model.embed_tokens.weight\" again") != NULL);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped("torch/llama.safetensors"), &want));
    check_models(t, got, want);
    mt_model_free(got);
    mt_model_free(want);
}

/* Copies shipped files into a directory of the test. */
static void copy_in(struct t *t, const char *from, const char *to)
{
    char path[128];
    size_t n;
    char *data;

    snprintf(path, sizeof path, "torch/%s", from);
    data = t_read_file(t_shipped(path), &n);
    T_CHECK(t, data != NULL);
    fx_text(t, to, "");
    t_write_file(t, t_path(t, to), data, n);
    free(data);
}

T_TEST(the_index_of_a_directory_is_believed_as_little)
{
    static const char *const bad[][2] = {
        {"{\"weight_map\":{\"a.weight\":\"../p.bin\"}}", "not a plain file name"},
        {"{\"weight_map\":{\"a.weight\":\"p.safetensors\"}}", "not the name of a .bin file"},
        {"{\"weight_map\":{\"a.weight\":\"p.bin\"}}",
         "\"a.bias\" is not in pytorch_model.bin.index"},
        {"{\"weight_map\":{\"a.weight\":\"p.bin\",\"a.bias\":\"p.bin\",\"b.weight\":\"p.bin\","
         "\"c\":\"p.bin\"}}",
         "\"c\" is missing, though pytorch_model.bin.index.json places it here"},
    };

    copy_in(t, "module.pt", "m/p.bin");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        fx_text(t, "m/pytorch_model.bin.index.json", bad[i][0]);
        T_FAILS(t, open_try(t, t_path(t, "m")), MT_E_FORMAT, bad[i][1]);
    }
    fx_text(
        t, "m/pytorch_model.bin.index.json",
        "{\"weight_map\":{\"a.weight\":\"p.bin\",\"a.bias\":\"p.bin\",\"b.weight\":\"p.bin\"}}");
    T_OK(t, open_try(t, t_path(t, "m")));
}

/* Only a name says that the config beside a file is its own; safetensors come first. */
T_TEST(which_files_make_a_model)
{
    struct mt_model *m;

    fx_text(t, "m/config.json", "{\"model_type\":\"strange\"}");
    copy_in(t, "module.pt", "m/pytorch_model.bin");
    copy_in(t, "one.pt", "m/optimizer.pt");
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m/optimizer.pt"), &m));
    T_CHECK(t, m->config == NULL && m->n_tensors == 1);
    mt_model_free(m);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m/pytorch_model.bin"), &m));
    T_CHECK(t, m->config != NULL && m->n_tensors == 3);
    mt_model_free(m);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m"), &m));
    T_CHECK(t, m->n_tensors == 3 && m->n_sidecars == 0);
    T_EQ_STR(t, m->format, "torch");
    mt_model_free(m);
    fx_st(t, "m/model.safetensors", "{\"x\":" FX_ENTRY("U8", "1", 0, 1) "}", 1);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m"), &m));
    T_CHECK(t, m->n_tensors == 1 && fx_find(m, "x") != NULL);
    T_EQ_STR(t, m->format, "safetensors");
    mt_model_free(m);
    /* A blob of the hub's cache has no suffix. */
    copy_in(t, "one.pt", "blob");
    T_OK(t, open_try(t, t_path(t, "blob")));
}

/* Where nothing says that a loader ties them, equal tensors stay two. */
T_TEST(equal_tensors_go_only_where_a_loader_puts_them_back)
{
    static const char pickle[] =
        "}(X\1\0\0\0a" ZF_TENSOR("K\0K\4\x85K\1\x85") "X\1\0\0\0b" ZF_TENSOR(
            "K\0K\4\x85K\1\x85") "X\1\0\0\0c" ZF_TENSOR("K\0K\3\x85K\1\x85") "u.";
    static const struct {
        const char *config;
        size_t n;
    } cases[] = {
        {"{}", 2},
        {"{\"tie_word_embeddings\":true}", 2},
        {"{\"tie_word_embeddings\":false}", 3},
    };
    struct mt_model *m;

    T_OK(t, mt_model_open(&t->ctx, mt_formats,
                          zf_checkpoint(t, "m.pt", pickle, sizeof pickle - 1, 96), &m));
    T_EQ_INT(t, m->n_tensors, 3);
    mt_model_free(m);
    fx_mkdir(t, "m");
    zf_checkpoint(t, "m/pytorch_model.bin", pickle, sizeof pickle - 1, 96);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fx_text(t, "m/config.json", cases[i].config);
        T_OK(t, mt_model_open(&t->ctx, mt_formats, t_path(t, "m"), &m));
        T_EQ_INT(t, m->n_tensors, cases[i].n);
        T_CHECK(t, fx_find(m, "a") != NULL && fx_find(m, "c") != NULL);
        mt_model_free(m);
    }
}

T_TEST(what_is_no_checkpoint_is_refused_by_name)
{
    static const char *const cases[][2] = {
        {"legacy.pt", "legacy.pt: written in the format of torch before 1.6"},
        {"evil.pt", "evil.pt: data.pkl: asks for posix.system"},
        {"namespace.pt", "asks for argparse.Namespace"},
        {"whole.pt", "asks for torch.nn.modules.linear.Linear"},
        {"sparse.pt", "asks for torch._utils._rebuild_sparse_tensor"},
        {"double_complex.pt", "asks for torch.ComplexDoubleStorage"},
        {"negated.pt", "negated or conjugated"},
        {"script.pt", "a TorchScript program"},
        {"values.pt", "holds no tensors, only other values"},
    };
    static char tar[600];
    char path[128];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        snprintf(path, sizeof path, "torch/%s", cases[i][0]);
        mt_status st = open_try(t, t_shipped(path));
        T_CHECK(t, st == MT_E_UNSUPPORTED || st == MT_E_FORMAT);
        if (strstr(mt_error(&t->ctx), cases[i][1]) == NULL)
            T_FAIL(t, "%s: %s", cases[i][0], mt_error(&t->ctx));
    }
    snprintf(tar + 257, 8, "ustar");
    t_write_file(t, t_path(t, "tar.pth"), tar, sizeof tar);
    T_FAILS(t, open_try(t, t_path(t, "tar.pth")), MT_E_UNSUPPORTED, "a tar archive");
    T_FAILS(t, open_try(t, fx_text(t, "a.pt", "version https://git-lfs.github.com/spec/v1\n")),
            MT_E_FORMAT, "a pointer of git-lfs");
    T_FAILS(t, open_try(t, fx_text(t, "b.pth", "\x80\2}q\1.")), MT_E_UNSUPPORTED, "a bare pickle");
    T_FAILS(t, open_try(t, fx_text(t, "c.ckpt", "")), MT_E_FORMAT, "no zip archive");
    T_FAILS(t, open_try(t, fx_text(t, "d.bin", "hello")), MT_E_FORMAT, "not a model");
}

T_TEST(shared_files_read)
{
    static const struct {
        const char *path;
        size_t n;
        int64_t rows;
    } cases[] = {
        {"files/tiny_fair_checkpoint.pt", 21, 500},
        {"files/tiny_llama2_checkpoint.pt", 21, 100},
        {"traces/moe_model_5_gates_1.pt", 1, 96 * 32},
        {"traces/moe_model_gates_1.pt", 1, 96 * 32},
        {"traces/moe_model_gates_2.pt", 1, 96 * 32},
        {"traces/moe_model_128_10_gates_1.pt", 1, 96 * 32},
        {"traces/moe_model_128_10_gates_2.pt", 1, 96 * 32},
        {"traces/moe_model_128_30_gates_1.pt", 1, 96 * 32},
        {"traces/moe_model_128_30_gates_2.pt", 1, 96 * 32},
    };

    if (t_data("traces") == NULL)
        T_SKIP(t, "no shared test data");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct mt_model *m;
        float *v;
        T_OK(t, mt_model_open(&t->ctx, mt_formats, t_data(cases[i].path), &m));
        T_EQ_INT(t, m->n_tensors, cases[i].n);
        T_EQ_INT(t, mt_tensor_rows(m->tensors[0]), cases[i].rows);
        T_OK(t, mt_tensor_load_f32(&t->ctx, m->tensors[0], &v));
        /* Traces: the expert of each token, -1 for none. */
        for (int64_t k = 0; cases[i].n == 1 && k < mt_tensor_count(m->tensors[0]); k++) {
            if (!(v[k] >= -1 && v[k] < 4 && v[k] == floorf(v[k])))
                T_FAIL(t, "%s: element %lld is %g", cases[i].path, (long long)k, (double)v[k]);
        }
        mt_free(v);
        mt_model_free(m);
    }
}

T_TEST(running_out_of_memory_is_survived)
{
    mt_status st = MT_E_NOMEM;

    for (uint64_t n = 1; n < 500 && st != MT_OK; n++) {
        mt_fault_alloc(n);
        st = open_try(t, t_shipped("torch/llama"));
        mt_fault_alloc(0);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
    }
    T_EQ_INT(t, st, MT_OK);
}
