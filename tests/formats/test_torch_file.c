#include "formats/torch_zip.h"

#include "tests/st_fixture.h"
#include "tests/torch_fixture.h"

#include <stdlib.h>

static mt_status file_try(struct t *t, const char *path)
{
    struct mt_model *m;
    mt_status st;

    MT_TRY(mt_model_create(&t->ctx, &m));
    st = mt_torch_add_file(&t->ctx, m, path);
    mt_model_free(m);
    return st;
}

/* A file with one tensor of these offset, sizes and strides over 24 floats. */
#define VIEW(args)                                                                                 \
    zf_checkpoint(t, "m.pt", "}X\1\0\0\0w" ZF_TENSOR(args) "s.",                                   \
                  sizeof("}X\1\0\0\0w" ZF_TENSOR(args) "s.") - 1, 96)

T_TEST(a_view_is_a_slice_of_the_file)
{
    struct mt_model *m;
    unsigned char row[8];

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_torch_add_file(&t->ctx, m, VIEW("K\2K\3K\2\x86K\1K\4\x86")));
    T_EQ_INT(t, m->n_tensors, 1);
    T_EQ_INT(t, m->tensors[0]->src.kind, MT_SRC_SLICE);
    T_OK(t, mt_tensor_fetch(&t->ctx, m->tensors[0], 1, 1, row));
    T_EQ_INT(t, row[0], (2 + 1) * 4);
    T_EQ_INT(t, row[4], (2 + 1 + 4) * 4);
    mt_model_free(m);
}

T_TEST(views_stay_inside_their_storage)
{
    T_OK(t, file_try(t, VIEW("K\0K\30\x85K\1\x85")));
    T_OK(t, file_try(t, VIEW("K\27K\1\x85K\1\x85")));
    T_OK(t, file_try(t, VIEW("K\27K\1\x85M\xff\xff\x85")));   /* no step is taken */
    T_OK(t, file_try(t, VIEW("M\xff\xffK\0\x85K\1\x85")));    /* no element */
    T_OK(t, file_try(t, VIEW("K\0K\xffK\2\x86K\0K\27\x86"))); /* one row again and again */
    T_OK(t, file_try(t, VIEW("K\27))")));                     /* a scalar */
    T_FAILS(t, file_try(t, VIEW("K\30))")), MT_E_FORMAT,
            "m.pt: tensor \"w\" reaches beyond its storage of 96 bytes");
    T_FAILS(t, file_try(t, VIEW("K\1K\30\x85K\1\x85")), MT_E_FORMAT, "reaches beyond");
    T_FAILS(t, file_try(t, VIEW("K\0K\2\x85K\30\x85")), MT_E_FORMAT, "reaches beyond");
    T_FAILS(t, file_try(t, VIEW("\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7fK\2\x85K\1\x85")),
            MT_E_FORMAT, "reaches beyond");
    T_FAILS(t,
            file_try(t, VIEW("K\0\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f\x85"
                             "\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f\x85")),
            MT_E_FORMAT, "reaches beyond");
    T_FAILS(t, file_try(t, VIEW("K\0\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f\x85K\0\x85")),
            MT_E_FORMAT, "impossible shape");
}

/* Members a/data.pkl, a/data/0 of 96 bytes; tests change them. */
static struct zf *plain(void)
{
    static const char pickle[] = "}X\1\0\0\0w" ZF_TENSOR("K\0K\3\x85K\1\x85") "s.";
    static const char storage[96];
    static struct zf z;

    zf_begin(&z);
    zf_add(&z, "a/data.pkl", pickle, sizeof pickle - 1);
    zf_add(&z, "a/data/0", storage, sizeof storage);
    return &z;
}

static mt_status try_zip(struct t *t, const struct zf *z)
{
    return file_try(t, zf_write(t, z, "m.pt"));
}

T_TEST(storages_are_what_they_claim)
{
    struct zf *z = plain();

    T_OK(t, try_zip(t, z));
    z->v[1].n = z->v[1].bytes = z->v[1].stored = z->v[1].local_bytes = 95;
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT,
            "m.pt: tensor \"w\": its storage claims 24 F32, but member data/0 has 95 bytes");
    z = plain();
    z->v[1].name = z->v[1].local_name = "a/data/1";
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT, "its storage, member data/0, is missing");
    /* A key that would lead elsewhere is only a name that is not there. */
    static const char key[] =
        "}X\1\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\7\0\0\0storagectorch"
        "\nFloatStorage\nX\13\0\0\0../data.pklX\3\0\0\0cpuK\30tQK\0K\3\x85K\1"
        "\x85\x89NtRs.";
    z = plain();
    z->v[0].data = key;
    z->v[0].n = z->v[0].bytes = z->v[0].stored = z->v[0].local_bytes = sizeof key - 1;
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT, "member data/../data.pkl, is missing");
}

T_TEST(archives_that_are_no_checkpoints)
{
    struct zf *z = plain();

    z->v[0].name = z->v[0].local_name = "a/b/data.pkl";
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT, "no member NAME/data.pkl");
    z = plain();
    zf_add(z, "b/data.pkl", "N.", 2);
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT, "both \"a/data.pkl\" and \"b/data.pkl\"");
    z = plain();
    zf_add(z, "a/constants.pkl", "N.", 2);
    T_FAILS(t, try_zip(t, z), MT_E_UNSUPPORTED, "a TorchScript program");
    z = plain();
    zf_add(z, "a/byteorder", "big", 3);
    T_FAILS(t, try_zip(t, z), MT_E_UNSUPPORTED, "big-endian");
    z = plain();
    zf_add(z, "a/byteorder", "middle", 6);
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT, "neither little nor big");
    z = plain();
    zf_add(z, "a/data/7", "x", 1)->method = 8;
    T_FAILS(t, try_zip(t, z), MT_E_UNSUPPORTED, "\"a/data/7\" is compressed");
    z = plain();
    z->v[1].flags = 1;
    T_FAILS(t, try_zip(t, z), MT_E_FORMAT, "\"a/data/0\" is encrypted");
}

/* Opening reads the directory and the objects, never the numbers. */
T_TEST(memory_does_not_grow_with_tensors)
{
    uint64_t before = mt_mem_peak(&t->ctx);

    T_OK(t, file_try(t, VIEW("K\0K\30\x85K\1\x85")));
    T_CHECK(t, mt_mem_peak(&t->ctx) - before < 100000);
}
