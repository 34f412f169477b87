#include "formats/safetensors.h"

#include "tests/st_fixture.h"

#include <unistd.h>

#define ONE(name) "{\"" name "\":" FX_ENTRY("U8", "2", 0, 2) "}"
#define INDEX "m/model.safetensors.index.json"

static mt_status dir_try(struct t *t)
{
    struct mt_model *m;
    mt_status st = mt_hf_dir_open(&t->ctx, t_path(t, "m"), &m);

    if (st == MT_OK)
        mt_model_free(m);
    return st;
}

static void shards(struct t *t)
{
    fx_st(t, "m/model-00001-of-00002.safetensors", ONE("a"), 2);
    fx_st(t, "m/model-00002-of-00002.safetensors", ONE("b"), 2);
}

#define MAP(total, entries) "{\"metadata\":{\"total_size\":" total "},\"weight_map\":{" entries "}}"
#define AT1(name) "\"" name "\":\"model-00001-of-00002.safetensors\""
#define AT2(name) "\"" name "\":\"model-00002-of-00002.safetensors\""

T_TEST(shards_come_together_through_the_index)
{
    struct mt_model *m;

    shards(t);
    fx_text(t, INDEX, MAP("4", AT1("a") "," AT2("b")));
    T_OK(t, mt_hf_dir_open(&t->ctx, t_path(t, "m"), &m));
    T_EQ_INT(t, m->n_tensors, 2);
    T_EQ_INT(t, m->n_maps, 2);
    T_EQ_STR(t, m->tensors[0]->name, "a");
    T_EQ_STR(t, m->tensors[1]->name, "b");
    T_CHECK(t, m->family == NULL);
    T_EQ_STR(t, t->log, "");
    mt_model_free(m);
}

T_TEST(total_size_is_only_advice)
{
    shards(t);
    fx_text(t, INDEX, MAP("5", AT1("a") "," AT2("b")));
    T_OK(t, dir_try(t));
    T_CHECK(t, strstr(t->log, "total_size is 5, but the tensors hold 4 bytes") != NULL);
    t->log[0] = '\0';
    fx_text(t, INDEX, MAP("\"4\"", AT1("a") "," AT2("b")));
    T_OK(t, dir_try(t));
    fx_text(t, INDEX, MAP("4.0e0", AT1("a") "," AT2("b")));
    T_OK(t, dir_try(t));
    fx_text(t, INDEX, "{\"metadata\":null,\"weight_map\":{" AT1("a") "," AT2("b") "}}");
    T_OK(t, dir_try(t));
    T_EQ_STR(t, t->log, "");
}

T_TEST(the_index_and_the_shards_must_agree)
{
    shards(t);
    fx_text(t, INDEX, MAP("4", AT1("a") "," AT2("b") "," AT2("c")));
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "tensor \"c\" is missing");
    fx_text(t, INDEX, MAP("4", AT1("a")));
    T_OK(t, dir_try(t)); /* a shard that is not named is not part of the model */
    fx_text(t, INDEX, MAP("4", AT1("a") "," AT1("b")));
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "tensor \"b\" is missing");
    fx_st(t, "m/model-00002-of-00002.safetensors",
          "{\"b\":" FX_ENTRY("U8", "2", 0, 2) ",\"x\":" FX_ENTRY("U8", "1", 2, 3) "}", 3);
    fx_text(t, INDEX, MAP("5", AT1("a") "," AT2("b")));
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "tensor \"x\" is not in model.safetensors.index.json");
    fx_st(t, "m/model-00002-of-00002.safetensors",
          "{\"b\":" FX_ENTRY("U8", "2", 0, 2) ",\"a\":" FX_ENTRY("U8", "1", 2, 3) "}", 3);
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "holds tensor \"a\", which");
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "places in model-00001-of-00002.safetensors");
    fx_text(t, INDEX, MAP("4", AT1("a") ",\"b\":\"model-00003-of-00003.safetensors\""));
    T_FAILS(t, dir_try(t), MT_E_ABSENT, "model-00003-of-00003.safetensors: no such file");
}

T_TEST(without_an_index_all_files_are_read)
{
    struct mt_model *m;

    shards(t);
    T_OK(t, mt_hf_dir_open(&t->ctx, t_path(t, "m"), &m));
    T_EQ_INT(t, m->n_tensors, 2);
    mt_model_free(m);
    fx_st(t, "m/model-00003.safetensors", ONE("a"), 2);
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "tensor \"a\" is in");
}

T_TEST(one_model_file_comes_first)
{
    struct mt_model *m;

    shards(t);
    fx_st(t, "m/model.safetensors", ONE("whole"), 2);
    fx_text(t, INDEX, "nonsense, and not read");
    T_OK(t, mt_hf_dir_open(&t->ctx, t_path(t, "m"), &m));
    T_EQ_INT(t, m->n_tensors, 1);
    T_EQ_STR(t, m->tensors[0]->name, "whole");
    T_CHECK(t, strstr(t->log, "the single file is read") != NULL);
    mt_model_free(m);
}

T_TEST(a_directory_without_weights_says_what_was_looked_for)
{
    fx_text(t, "m/config.json", "{}");
    fx_text(t, "m/optimizer.bin", "x");
    T_FAILS(t, dir_try(t), MT_E_ABSENT,
            "looked for model.safetensors, model.safetensors.index.json");
    fx_text(t, "m/pytorch_model.bin", "x");
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "pytorch_model.bin: not a checkpoint of torch.save");
    fx_text(t, "m/config.json", "[]");
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "config.json: not an object");
    fx_text(t, "m/config.json", "{\"a\":1,\"a\":2}");
    T_FAILS(t, dir_try(t), MT_E_FORMAT, "config.json");
}

T_TEST(what_travels_along)
{
    static const char *const stay[] = {"README.md",
                                       "moetool.json",
                                       "moetool.journal",
                                       "pytorch_model.bin",
                                       "a.pt",
                                       "b.pth",
                                       "c.gguf",
                                       "d.h5",
                                       "e.msgpack",
                                       "f.onnx",
                                       "g.ckpt",
                                       ".gitattributes",
                                       "adapter.safetensors",
                                       "pytorch_model.bin.index.json",
                                       "x.partial",
                                       "lock"};
    static const char *const go[] = {"LICENSE", "modeling_x.py", "tokenizer.json",
                                     "tokenizer.model"};
    struct mt_model *m;

    fx_st(t, "m/model.safetensors", ONE("a"), 2);
    fx_mkdir(t, "m/onnx");
    for (size_t i = 0; i < sizeof stay / sizeof stay[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "m/%s", stay[i]);
        fx_text(t, name, "x");
    }
    for (size_t i = 0; i < 4; i++) {
        char name[64];
        snprintf(name, sizeof name, "m/%s", go[i]);
        fx_text(t, name, "x");
    }
    T_OK(t, mt_hf_dir_open(&t->ctx, t_path(t, "m"), &m));
    T_EQ_INT(t, m->n_sidecars, 4);
    for (size_t i = 0; i < 4; i++) {
        T_EQ_STR(t, m->sidecars[i].name, go[i]);
        T_CHECK(t, access(m->sidecars[i].path, R_OK) == 0);
    }
    mt_model_free(m);
}

/* The hub's cache: every file of a snapshot is a symlink into blobs. */
T_TEST(symlinked_snapshots_are_followed)
{
    struct mt_model *m;

    fx_st(t, "blobs/abc123", ONE("a"), 2);
    fx_text(t, "blobs/def456", "x");
    fx_mkdir(t, "m");
    T_EQ_INT(t, symlink("../blobs/abc123", t_path(t, "m/model.safetensors")), 0);
    T_EQ_INT(t, symlink("../blobs/def456", t_path(t, "m/tokenizer.json")), 0);
    T_OK(t, mt_hf_dir_open(&t->ctx, t_path(t, "m"), &m));
    T_EQ_INT(t, m->n_tensors, 1);
    T_EQ_INT(t, m->n_sidecars, 1);
    mt_model_free(m);
    /* A download that was not finished leaves a link to nothing. */
    unlink(t_path(t, "blobs/abc123"));
    T_FAILS(t, dir_try(t), MT_E_ABSENT, "model.safetensors: no such file");
}

T_TEST(the_shipped_model_opens_with_its_family)
{
    struct mt_model *m;

    T_OK(t, mt_hf_dir_open(&t->ctx, t_shipped("tinymix-dense/"), &m));
    T_CHECK(t, m->family != NULL && m->hp.n_layers == 5 && m->hp.tied);
    T_CHECK(t, mt_model_find(m, mt_role(MT_ROLE_FFN_UP, 4, MT_EXPERT_NONE)) != NULL);
    mt_model_free(m);
}
