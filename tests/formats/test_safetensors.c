#include "formats/safetensors.h"

#include "formats/table.h"
#include "tests/st_fixture.h"

#include <stdlib.h>
#include <unistd.h>

static mt_status open_try(struct t *t, const char *path)
{
    struct mt_model *m;
    mt_status st = mt_model_open(&t->ctx, mt_formats, path, &m);

    if (st == MT_OK)
        mt_model_free(m);
    return st;
}

T_TEST(tensors_are_slices_of_the_file)
{
    static const char header[] = "{\"b\":" FX_ENTRY("U8", "2,3", 0, 6) ",\"a\":" FX_ENTRY(
        "F32", "2,0,5", 6, 6) ",\"s\":" FX_ENTRY("I16", "", 6, 8) "} ";
    struct mt_model *m;
    const struct mt_tensor *b;
    unsigned char row[3];
    const void *bytes;

    T_OK(t, mt_model_open(&t->ctx, mt_formats, fx_st(t, "m.safetensors", header, 8), &m));
    T_EQ_INT(t, m->n_tensors, 3);
    T_CHECK(t, m->family == NULL && m->config == NULL && m->n_sidecars == 0);
    T_EQ_STR(t, m->path, t_path(t, "m.safetensors"));
    T_EQ_STR(t, m->format, "safetensors");
    b = fx_find(m, "b");
    T_CHECK(t, b != NULL && b->dtype == MT_U8 && b->rank == 2 && b->shape[1] == 3);
    T_EQ_INT(t, b->role.kind, MT_ROLE_OTHER);
    T_CHECK(t, b->planner == NULL && mt_tensor_contiguous(b, &bytes));
    T_OK(t, mt_tensor_fetch(&t->ctx, b, 1, 1, row));
    for (int i = 0; i < 3; i++)
        T_EQ_INT(t, row[i], (3 + i) * 31 + 7);
    T_EQ_INT(t, mt_tensor_bytes(fx_find(m, "a")), 0);
    T_EQ_INT(t, fx_find(m, "s")->rank, 0);
    T_EQ_INT(t, mt_tensor_bytes(fx_find(m, "s")), 2);
    mt_model_free(m);
}

/* An odd header: every element of the matrix lies at an odd address. */
T_TEST(misaligned_data_read_right)
{
    float got[6], values[6];
    unsigned char want[24];
    struct mt_model *m;

    T_OK(t, mt_model_open(
                &t->ctx, mt_formats,
                fx_st(t, "m.safetensors", "{\"w\":" FX_ENTRY("F32", "2,3", 0, 24) "}", 24), &m));
    T_CHECK(t, (m->tensors[0]->src.slice.offset & 3) != 0);
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, m->tensors[0], 0, 2, got));
    for (size_t i = 0; i < 24; i++)
        want[i] = (unsigned char)(i * 31 + 7);
    memcpy(values, want, 24);
    for (int i = 0; i < 6; i++)
        T_CHECK(t, got[i] == values[i]);
    mt_model_free(m);
}

T_TEST(a_config_beside_the_file_is_used)
{
    struct mt_model *m;
    const char *dir = t_shipped("tinymix-dense");

    T_OK(t, mt_model_open(&t->ctx, mt_formats, t_shipped("tinymix-dense/model.safetensors"), &m));
    T_CHECK(t, m->family != NULL && m->config != NULL && m->n_sidecars > 0);
    T_EQ_STR(t, m->family->name, "llama");
    mt_model_free(m);
    T_OK(t, mt_model_open(&t->ctx, mt_formats, dir, &m));
    T_EQ_STR(t, m->family->name, "llama");
    mt_model_free(m);
}

T_TEST(one_shard_by_itself_has_no_family)
{
    static const char header[] = "{\"a\":" FX_ENTRY("U8", "1", 0, 1) "}";
    struct mt_model *m;

    fx_text(t, "m/config.json", "{\"model_type\":\"llama\"}");
    T_OK(t, mt_model_open(&t->ctx, mt_formats,
                          fx_st(t, "m/model-00001-of-00002.safetensors", header, 1), &m));
    T_CHECK(t, m->family == NULL && m->config == NULL);
    T_CHECK(t, strstr(t->log, "one shard of several") != NULL);
    mt_model_free(m);
    /* The only shard of one is the whole model, so its config counts (and is nonsense here). */
    T_CHECK(t, open_try(t, fx_st(t, "m/model-00001-of-00001.safetensors", header, 1)) != MT_OK);
}

T_TEST(a_file_is_known_by_its_first_bytes_too)
{
    struct mt_model *m;

    T_OK(t, mt_model_open(&t->ctx, mt_formats,
                          fx_st(t, "blob", "{\"a\":" FX_ENTRY("U8", "1", 0, 1) "}", 1), &m));
    T_EQ_INT(t, m->n_tensors, 1);
    mt_model_free(m);
    T_FAILS(t, open_try(t, fx_text(t, "notes.txt", "hello there, reader")), MT_E_FORMAT,
            "not a model that can be read");
    T_FAILS(t, open_try(t, fx_text(t, "short", "abc")), MT_E_FORMAT, "looked for: Hugging Face");
    T_FAILS(t, open_try(t, fx_text(t, "empty.safetensors", "")), MT_E_FORMAT, "too few");
    T_FAILS(t, open_try(t, t_path(t, "gone.safetensors")), MT_E_ABSENT, "no such file");
}

T_TEST(failures_name_file_and_tensor)
{
    T_FAILS(t, open_try(t, fx_st(t, "m.safetensors", "{\"q.w\":" FX_ENTRY("U8", "3", 0, 2) "}", 2)),
            MT_E_FORMAT, "m.safetensors: tensor \"q.w\": dtype and shape need 3 bytes");
}

/* Every allocation on the way may fail; nothing is leaked and nothing is left open. */
T_TEST(running_out_of_memory_is_survived)
{
    const char *dir = t_shipped("tinymix-dense");
    mt_status st = MT_E_NOMEM;

    for (uint64_t n = 1; n < 500 && st != MT_OK; n++) {
        mt_fault_alloc(n);
        st = open_try(t, dir);
        mt_fault_alloc(0);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
    }
    T_EQ_INT(t, st, MT_OK);
}
