#include "formats/pickle.h"

#include "tests/t.h"

#include <stdlib.h>

/* Text of a pickle: string literals with their length. */
#define P(s) (s), sizeof(s) - 1

static mt_status pickle_try(struct t *t, const void *text, size_t n)
{
    const struct mt_pickle *root;
    struct mt_arena a;
    mt_status st;

    mt_arena_init(&a);
    st = mt_pickle_read(&t->ctx, text, n, "f: data.pkl", &a, &root);
    mt_arena_free(&a);
    return st;
}

/* One storage "0" of 24 floats, as a reference. */
#define STORAGE "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0000X\3\0\0\0cpuK\30tQ"
#define ORDERED "ccollections\nOrderedDict\n)R"
#define REBUILD "ctorch._utils\n_rebuild_tensor_v2\n("

T_TEST(containers_and_scalars)
{
    static const char text[] =
        "\x80\2}(X\1\0\0\0aK\5X\1\0\0\0b]q\0(NM\0\1J\xff\xff\xff\xff\x88\x8a\2\0\xff"
        "G?\xb9\x99\x99\x99\x99\x99\x9a"
        "eX\1\0\0\0c\x8c\2hiX\1\0\0\0dK\1K\2\x86q\1X\1\0\0\0eh\1u.";
    const struct mt_pickle *root, *list;
    struct mt_arena a;
    char show[64];

    mt_arena_init(&a);
    T_OK(t, mt_pickle_read(&t->ctx, P(text), "f", &a, &root));
    T_CHECK(t, root->kind == MT_PICKLE_DICT && root->list.n == 10);
    T_EQ_INT(t, root->list.v[1]->integer, 5);
    list = root->list.v[3];
    T_CHECK(t, list->kind == MT_PICKLE_LIST && list->list.n == 6);
    T_EQ_STR(t, mt_pickle_show(list->list.v[0], show, sizeof show), "None");
    T_EQ_INT(t, list->list.v[1]->integer, 256);
    T_EQ_INT(t, list->list.v[2]->integer, -1);
    T_CHECK(t, list->list.v[3]->kind == MT_PICKLE_BOOL && list->list.v[3]->truth);
    T_EQ_INT(t, list->list.v[4]->integer, -256);
    T_EQ_STR(t, mt_pickle_show(list->list.v[5], show, sizeof show), "0.1");
    T_EQ_STR(t, mt_pickle_show(root->list.v[5], show, sizeof show), "'hi'");
    T_EQ_STR(t, mt_pickle_show(root->list.v[7], show, sizeof show), "a tuple of 2");
    T_CHECK(t, root->list.v[9] == root->list.v[7]);
    T_EQ_STR(t, mt_pickle_show(root, show, sizeof show), "a dict of 5");
    mt_arena_free(&a);
}

T_TEST(a_tensor_is_a_view_of_a_storage)
{
    static const char text[] = "\x80\2" REBUILD STORAGE "K\2K\3K\4\x86K\4K\1\x86\x89" ORDERED "tR.";
    const struct mt_pickle *root;
    struct mt_arena a;

    mt_arena_init(&a);
    T_OK(t, mt_pickle_read(&t->ctx, P(text), "f", &a, &root));
    T_EQ_INT(t, root->kind, MT_PICKLE_TENSOR);
    T_EQ_INT(t, root->tensor->offset, 2);
    T_EQ_INT(t, root->tensor->rank, 2);
    T_EQ_INT(t, root->tensor->shape[0], 3);
    T_EQ_INT(t, root->tensor->stride[0], 4);
    T_EQ_INT(t, root->tensor->dtype, MT_F32);
    T_EQ_INT(t, root->tensor->storage->count, 24);
    T_CHECK(t, root->tensor->storage->key.n == 1 && root->tensor->storage->key.s[0] == '0');
    mt_arena_free(&a);
}

/* Whatever spelling asks for it, and before anything could be called. */
T_TEST(names_that_make_no_tensors_are_refused)
{
    T_FAILS(t, pickle_try(t, P("cposix\nsystem\n.")), MT_E_UNSUPPORTED,
            "f: data.pkl: asks for posix.system");
    T_FAILS(t, pickle_try(t, P("\x80\4\x8c\2os\x8c\6system\x93.")), MT_E_UNSUPPORTED,
            "asks for os.system");
    T_FAILS(t, pickle_try(t, P("cbuiltins\neval\n(X\1\0\0\0001tR.")), MT_E_UNSUPPORTED,
            "asks for builtins.eval");
    T_FAILS(t, pickle_try(t, P("ccollections\nOrderedDict.x\n.")), MT_E_UNSUPPORTED,
            "asks for collections.OrderedDict.x");
    T_FAILS(t, pickle_try(t, P("ctorch._utils\n_rebuild_tensor_v2\0\n.")), MT_E_UNSUPPORTED,
            "asks for torch._utils._rebuild_tensor_v2");
    T_FAILS(t, pickle_try(t, P("ctorch.nn\nModule\n)\x81.")), MT_E_UNSUPPORTED, "torch.nn.Module");
    T_FAILS(t, pickle_try(t, P("c__main__\na\x1b[2Jb\n.")), MT_E_UNSUPPORTED, "__main__.a?[2Jb");
}

T_TEST(instructions_that_make_no_tensors_are_refused)
{
    T_FAILS(t, pickle_try(t, P("(S'ls'\nios\nsystem\n.")), MT_E_UNSUPPORTED, "instruction STRING");
    T_FAILS(t, pickle_try(t, P("(ios\nsystem\n.")), MT_E_UNSUPPORTED, "instruction INST");
    T_FAILS(t, pickle_try(t, P("(o.")), MT_E_UNSUPPORTED, "instruction OBJ");
    T_FAILS(t, pickle_try(t, P("ccollections\nOrderedDict\n)\x81.")), MT_E_UNSUPPORTED,
            "instruction NEWOBJ");
    T_FAILS(t, pickle_try(t, P("\x82\1.")), MT_E_UNSUPPORTED, "instruction EXT1");
    T_FAILS(t, pickle_try(t, P("\x97.")), MT_E_UNSUPPORTED, "instruction NEXT_BUFFER");
    T_FAILS(t, pickle_try(t, P("\x80\6N.")), MT_E_UNSUPPORTED, "protocol 6");
    T_FAILS(t, pickle_try(t, P("\x01.")), MT_E_FORMAT, "0x01 is no instruction");
}

T_TEST(known_names_take_only_their_arguments)
{
    T_FAILS(t, pickle_try(t, P("ctorch\nFloatStorage\n)R.")), MT_E_FORMAT, "makes no tensor");
    T_FAILS(t, pickle_try(t, P("NK\1\x85R.")), MT_E_FORMAT, "calls None");
    T_FAILS(t, pickle_try(t, P("ctorch\nSize\nNR.")), MT_E_FORMAT, "calls torch.Size");
    T_FAILS(t, pickle_try(t, P("ctorch\nSize\n)R.")), MT_E_FORMAT, "torch.Size: arguments");
    T_FAILS(t, pickle_try(t, P("ccollections\nOrderedDict\nK\1\x85R.")), MT_E_FORMAT,
            "no list of pairs");
    T_FAILS(t, pickle_try(t, P("ccollections\nOrderedDict\n]N\x61\x85R.")), MT_E_FORMAT,
            "no list of pairs");
    T_FAILS(t, pickle_try(t, P("c_codecs\nencode\nNN\x86R.")), MT_E_FORMAT, "make no bytes");
}

T_TEST(tensors_are_checked)
{
#define TENSOR(args) P(REBUILD STORAGE args "\x89" ORDERED "tR.")
    T_OK(t, pickle_try(t, TENSOR("K\0K\3\x85K\1\x85")));
    T_FAILS(t, pickle_try(t, TENSOR("J\xff\xff\xff\xffK\3\x85K\1\x85")), MT_E_FORMAT, "no tensor");
    T_FAILS(t, pickle_try(t, TENSOR("K\0J\xff\xff\xff\xff\x85K\1\x85")), MT_E_FORMAT,
            "a size is -1");
    T_FAILS(t, pickle_try(t, TENSOR("K\0K\3\x85J\xff\xff\xff\xff\x85")), MT_E_FORMAT,
            "a stride is -1");
    T_FAILS(t, pickle_try(t, TENSOR("K\0K\3\x85)")), MT_E_FORMAT, "differ in number");
    T_FAILS(t, pickle_try(t, TENSOR("K\0K\3\x85N")), MT_E_FORMAT, "no tensor");
    T_FAILS(t, pickle_try(t, TENSOR("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1th\0")), MT_E_FORMAT,
            "recalls object 0 of 0");
    T_FAILS(t, pickle_try(t, TENSOR("K\0(K\1K\1K\1K\1K\1K\1K\1K\1K\1tq\0h\0")), MT_E_UNSUPPORTED,
            "rank 9");
#undef TENSOR
    T_FAILS(t, pickle_try(t, P("NQ.")), MT_E_FORMAT, "no storage of torch");
    T_FAILS(t, pickle_try(t, P("(X\7\0\0\0storageNNNNtQ.")), MT_E_FORMAT, "no storage of torch");
}

/* A program that takes what is not there, or stops half-way, stops with a sentence. */
T_TEST(every_prefix_of_a_pickle_is_refused)
{
    static const char text[] = "\x80\2}q\0(X\1\0\0\0aq\1" REBUILD STORAGE
                               "K\2K\3K\4\x86K\4K\1\x86\x89" ORDERED "tRX\1\0\0\0b\x8a\2\0\xffu.";
    size_t n = sizeof text - 1;

    T_OK(t, pickle_try(t, text, n));
    for (size_t i = 0; i < n; i++) {
        char *copy = malloc(i + 1);
        T_CHECK(t, copy != NULL);
        memcpy(copy, text, i);
        mt_status st = pickle_try(t, copy, i);
        free(copy);
        T_CHECK(t, st == MT_E_FORMAT || st == MT_E_UNSUPPORTED);
    }
}

T_TEST(the_machine_is_not_fooled)
{
    T_FAILS(t, pickle_try(t, P(".")), MT_E_FORMAT, "stops with 0 objects");
    T_FAILS(t, pickle_try(t, P("NN.")), MT_E_FORMAT, "stops with 2 objects");
    T_FAILS(t, pickle_try(t, P("N(.")), MT_E_FORMAT, "stops with 1 objects");
    T_FAILS(t, pickle_try(t, P("N.N")), MT_E_FORMAT, "stops before the text ends");
    T_FAILS(t, pickle_try(t, P("0.")), MT_E_FORMAT, "not there");
    T_FAILS(t, pickle_try(t, P("N(0a.")), MT_E_FORMAT, "not there");
    T_FAILS(t, pickle_try(t, P("t.")), MT_E_FORMAT, "a mark that is not there");
    T_FAILS(t, pickle_try(t, P("N(\x85.")), MT_E_FORMAT, "not there");
    T_FAILS(t, pickle_try(t, P("NNa.")), MT_E_FORMAT, "adds to None as if it were a list");
    T_FAILS(t, pickle_try(t, P("](NNu.")), MT_E_FORMAT, "adds to a list of 0 as if it were a dict");
    T_FAILS(t, pickle_try(t, P("}(Nu.")), MT_E_FORMAT, "a key without a value");
    T_FAILS(t, pickle_try(t, P("Nr\xff\xff\xff\xff.")), MT_E_FORMAT, "remembers object 4294967295");
    T_FAILS(t, pickle_try(t, P("h\1.")), MT_E_FORMAT, "recalls object 1 of 0");
    T_FAILS(t, pickle_try(t, P("X\xff\xff\xff\xffN.")), MT_E_FORMAT, "inside an instruction");
    T_FAILS(t, pickle_try(t, P("\x8d\xff\xff\xff\xff\xff\xff\xff\xffN.")), MT_E_FORMAT,
            "inside an instruction");
    T_FAILS(t, pickle_try(t, P("X\1\0\0\0\xff.")), MT_E_FORMAT, "not UTF-8");
    T_FAILS(t, pickle_try(t, P("N}b.")), MT_E_UNSUPPORTED, "sets the state of None");
    T_FAILS(t, pickle_try(t, P("")), MT_E_FORMAT, "empty");
}

/* Few bytes that would become many objects. */
T_TEST(what_grows_without_end_is_cut_off)
{
    static char text[3 << 20];
    const size_t n = sizeof text;

    memset(text, 'N', n);
    T_FAILS(t, pickle_try(t, text, n), MT_E_LIMIT, "piles up more objects");
    memset(text, '(', n);
    T_FAILS(t, pickle_try(t, text, n), MT_E_LIMIT, "nests deeper than 4096");
    /* A list of half a million pairs, copied by every call: 5 bytes for 16 MB. */
    size_t at = 0;
#define PUT(s) (memcpy(text + at, s, sizeof(s) - 1), at += sizeof(s) - 1)
    PUT("NN\x86q\0"
        "0]q\1(");
    for (int i = 0; i < 500000; i++)
        PUT("h\0");
    PUT("e\x85q\2"
        "0ccollections\nOrderedDict\nq\3"
        "0");
    while (at < n - 16)
        PUT("h\3h\2R0");
    T_FAILS(t, pickle_try(t, text, at), MT_E_LIMIT, "more objects than a checkpoint has");
    T_CHECK(t, mt_mem_peak(&t->ctx) < (uint64_t)700 << 20);
}

T_TEST(running_out_of_memory_is_survived)
{
    static const char text[] =
        "\x80\2](" REBUILD STORAGE "K\2K\3\x85q\0h\0\x89" ORDERED "tRq\1h\1h\1e.";
    mt_status st = MT_E_NOMEM;

    for (uint64_t n = 1; n < 50 && st != MT_OK; n++) {
        mt_fault_alloc(n);
        st = pickle_try(t, P(text));
        mt_fault_alloc(0);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
    }
    T_EQ_INT(t, st, MT_OK);
}
