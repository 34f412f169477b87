#include "formats/safetensors.h"

#include "tests/st_fixture.h"

#include <stdlib.h>

static mt_status index_try(struct t *t, const char *text)
{
    struct mt_hf_index ix;
    struct mt_arena a;

    mt_arena_init(&a);
    mt_status st = mt_hf_index_read(&t->ctx, fx_text(t, "index.json", text), MT_ST_SUFFIX, &a, &ix);
    mt_hf_index_free(&ix);
    mt_arena_free(&a);
    return st;
}

#define TO(file) "{\"weight_map\":{\"a\":\"" file "\"}}"

T_TEST(shards_lie_beside_the_index)
{
    T_OK(t, index_try(t, TO("x.safetensors")));
    T_FAILS(t, index_try(t, TO("../x.safetensors")), MT_E_FORMAT,
            "\"../x.safetensors\" is not a plain");
    T_FAILS(t, index_try(t, TO("/etc/x.safetensors")), MT_E_FORMAT, "not a plain file name");
    T_FAILS(t, index_try(t, TO("sub/x.safetensors")), MT_E_FORMAT, "not a plain file name");
    T_FAILS(t, index_try(t, TO("sub\\u002fx.safetensors")), MT_E_FORMAT, "not a plain file name");
    T_FAILS(t, index_try(t, TO("..")), MT_E_FORMAT, "not a plain file name");
    T_FAILS(t, index_try(t, TO(".")), MT_E_FORMAT, "not a plain file name");
    T_FAILS(t, index_try(t, TO("")), MT_E_FORMAT, "not a plain file name");
    T_FAILS(t, index_try(t, TO("x\\u0000.safetensors")), MT_E_FORMAT, "NUL");
    T_FAILS(t, index_try(t, TO("pytorch_model.bin")), MT_E_FORMAT,
            "not the name of a .safetensors");
    T_FAILS(t, index_try(t, TO(".safetensors")), MT_E_FORMAT, "not the name of a .safetensors");
}

T_TEST(types_are_checked)
{
    T_FAILS(t, index_try(t, "[]"), MT_E_FORMAT, "expected an object");
    T_FAILS(t, index_try(t, "{}"), MT_E_FORMAT, "\"weight_map\" is missing or empty");
    T_FAILS(t, index_try(t, "{\"weight_map\":{}}"), MT_E_FORMAT, "missing or empty");
    T_FAILS(t, index_try(t, "{\"weight_map\":[]}"), MT_E_FORMAT, "expected an object");
    T_FAILS(t, index_try(t, "{\"weight_map\":{\"a\":1}}"), MT_E_FORMAT, "expected a string");
    T_FAILS(t, index_try(t, TO("x.safetensors") "x"), MT_E_FORMAT, "text after the end");
    T_FAILS(t, index_try(t, ""), MT_E_FORMAT, "the JSON ends");
    T_FAILS(t, index_try(t, "{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}"),
            MT_E_FORMAT, "tensor \"a\" is mapped twice");
    T_FAILS(t, index_try(t, "{\"weight_map\":{\"a\":\"x.safetensors\"},\"weight_map\":{}}"),
            MT_E_FORMAT, "\"weight_map\" is there twice");
    T_OK(t, index_try(t, "{\"other\":[{\"x\":[1]}],\"metadata\":7,\"weight_map\":{\"a\":"
                         "\"x.safetensors\"}}"));
}

T_TEST(entries_are_sorted_by_file_and_name)
{
    struct mt_hf_index ix;
    struct mt_arena a;

    mt_arena_init(&a);
    T_OK(t, mt_hf_index_read(
                &t->ctx,
                fx_text(t, "i",
                        "{\"weight_map\":{\"b\":\"2.safetensors\",\"c\":\"1.safetensors\",\"a\":"
                        "\"2.safetensors\"},\"metadata\":{\"x\":1,\"total_size\":123}}"),
                MT_ST_SUFFIX, &a, &ix));
    T_EQ_INT(t, ix.n, 3);
    T_EQ_STR(t, ix.v[0].name, "c");
    T_EQ_STR(t, ix.v[1].name, "a");
    T_EQ_STR(t, ix.v[2].name, "b");
    T_EQ_STR(t, ix.v[2].file, "2.safetensors");
    T_CHECK(t, ix.has_total && ix.total == 123);
    mt_hf_index_free(&ix);
    mt_arena_free(&a);
}

/* As a tree this text would take a gigabyte. */
T_TEST(a_large_index_of_tiny_values_takes_no_memory)
{
    static const char head[] = "{\"x\":[[]", tail[] = "],\"weight_map\":{\"a\":\"x.safetensors\"}}";
    const size_t n = 10u << 20;
    char *text = malloc(sizeof head + 3 * n + sizeof tail);

    memcpy(text, head, sizeof head);
    for (size_t i = 0; i < 3 * n; i++)
        text[sizeof head - 1 + i] = ",[]"[i % 3];
    snprintf(text + sizeof head - 1 + 3 * n, sizeof tail, "%s", tail);
    mt_status st = index_try(t, text);
    free(text);
    T_OK(t, st);
    T_CHECK(t, mt_mem_peak(&t->ctx) < 100000);
}
