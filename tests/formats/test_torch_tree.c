#include "formats/torch_zip.h"

#include "tests/torch_fixture.h"

#include <stdlib.h>

#define T1 ZF_TENSOR("K\0K\3\x85K\1\x85")
#define KEY(letter) "X\1\0\0\0" letter

struct read {
    struct mt_arena a;
    struct mt_torch_tree tree;
};

static mt_status read_tree(struct t *t, struct read *r, const void *text, size_t n)
{
    const struct mt_pickle *root;

    mt_arena_init(&r->a);
    r->tree = (struct mt_torch_tree){0};
    MT_TRY(mt_pickle_read(&t->ctx, text, n, "f", &r->a, &root));
    return mt_torch_tree_read(&t->ctx, root, "f", &r->a, &r->tree);
}

static void read_free(struct read *r)
{
    mt_torch_tree_free(&r->tree);
    mt_arena_free(&r->a);
}

static mt_status try_tree(struct t *t, const void *text, size_t n)
{
    struct read r;
    mt_status st = read_tree(t, &r, text, n);

    read_free(&r);
    return st;
}

#define P(s) (s), sizeof(s) - 1

T_TEST(tensors_keep_the_order_of_their_dictionary)
{
    struct read r;

    T_OK(t, read_tree(t, &r, P("}(" KEY("b") T1 KEY("a") "}" KEY("x") T1 "s" KEY("n") "K\3u.")));
    T_EQ_INT(t, r.tree.n, 2);
    T_EQ_STR(t, r.tree.v[0].name, "b");
    T_EQ_STR(t, r.tree.v[1].name, "a.x");
    T_CHECK(t, r.tree.under == NULL && r.tree.n_elsewhere == 0);
    T_EQ_INT(t, r.tree.n_notes, 1);
    T_EQ_STR(t, r.tree.notes[0].name, "n");
    T_EQ_STR(t, r.tree.notes[0].text, "3");
    read_free(&r);
}

T_TEST(customary_names_are_gone_into)
{
    struct read r;

    T_OK(t, read_tree(t, &r,
                      P("}(X\5\0\0\0model}X\12\0\0\0state_dict}" KEY("w") T1
                        "ssX\3\0\0\0opt}" KEY("m") T1 "su.")));
    T_EQ_INT(t, r.tree.n, 1);
    T_EQ_STR(t, r.tree.v[0].name, "w");
    T_EQ_STR(t, r.tree.under, "model.state_dict");
    T_EQ_INT(t, r.tree.n_elsewhere, 1);
    T_EQ_STR(t, r.tree.elsewhere, "opt.m");
    read_free(&r);
    /* A dictionary with tensors of its own is the one, whatever its keys. */
    T_OK(t, read_tree(t, &r, P("}(" KEY("w") T1 "X\5\0\0\0model}" KEY("v") T1 "su.")));
    T_EQ_INT(t, r.tree.n, 2);
    T_EQ_STR(t, r.tree.v[1].name, "model.v");
    T_CHECK(t, r.tree.under == NULL);
    read_free(&r);
    /* A customary name without tensors is not. */
    T_OK(t, read_tree(t, &r, P("}(X\5\0\0\0model}X\1\0\0\0a}" KEY("v") T1 "ssu.")));
    T_EQ_STR(t, r.tree.v[0].name, "a.v");
    read_free(&r);
    T_OK(t, read_tree(t, &r, P("}(X\5\0\0\0model}" KEY("a") "NsX\1\0\0\0q}" KEY("v") T1 "su.")));
    T_EQ_STR(t, r.tree.v[0].name, "q.v");
    T_CHECK(t, r.tree.under == NULL);
    read_free(&r);
}

T_TEST(prefixes_of_wrappers_come_off_when_all_have_them)
{
    struct read r;

    T_OK(t, read_tree(t, &r, P("}(X\x8\0\0\0module.aK\1X\x8\0\0\0module.b" T1 "u.")));
    T_EQ_STR(t, r.tree.v[0].name, "b");
    T_EQ_STR(t, r.tree.prefix_off, "module.");
    read_free(&r);
    T_OK(t, read_tree(t, &r, P("}(X\x8\0\0\0module.a" T1 "X\1\0\0\0b" T1 "u.")));
    T_EQ_STR(t, r.tree.v[0].name, "module.a");
    T_CHECK(t, r.tree.prefix_off == NULL);
    read_free(&r);
    T_OK(t, read_tree(t, &r, P("}(X\7\0\0\0module." T1 "u.")));
    T_EQ_STR(t, r.tree.v[0].name, "module.");
    read_free(&r);
}

T_TEST(names_are_checked)
{
    T_FAILS(t, try_tree(t, P("}(" KEY("a") T1 KEY("a") T1 "u.")), MT_E_FORMAT,
            "two tensors are called \"a\"");
    T_FAILS(t, try_tree(t, P("}(X\3\0\0\0a.b" T1 KEY("a") "}" KEY("b") T1 "su.")), MT_E_FORMAT,
            "two tensors are called \"a.b\"");
    T_FAILS(t, try_tree(t, P("}(X\3\0\0\0a\0b" T1 "u.")), MT_E_FORMAT, "NUL");
    T_OK(t, try_tree(t, P("}(K\5" T1 "\x88" T1 "K\1K\2\x86" T1 "u.")));
}

T_TEST(circles_and_explosions_end)
{
    static char text[4096];
    size_t at = 0;

    /* A list and a dictionary that hold themselves. */
    T_FAILS(t, try_tree(t, P("]q\0h\0a.")), MT_E_LIMIT, "nest deeper than 64");
    T_FAILS(t, try_tree(t, P("}q\0" KEY("a") "h\0s.")), MT_E_LIMIT, "nest deeper than 64");
    T_FAILS(t, try_tree(t, P("}q\0X\5\0\0\0modelh\0s.")), MT_E_LIMIT, "nest deeper than 64");
    /* Forty lists, each of ten times the one before. */
#define PUT(s) (memcpy(text + at, s, sizeof(s) - 1), at += sizeof(s) - 1)
    PUT("]q");
    text[at++] = 0;
    for (char i = 1; i < 40; i++) {
        PUT("0](");
        for (int k = 0; k < 10; k++) {
            text[at++] = 'h';
            text[at++] = (char)(i - 1);
        }
        PUT("eq");
        text[at++] = i;
    }
    PUT(".");
    T_FAILS(t, try_tree(t, text, at), MT_E_LIMIT, "once shared ones are told apart");
}

/* One tensor under millions of names. */
T_TEST(shared_tensors_do_not_multiply_without_end)
{
    static const char leaf[] = "](" T1;
    static char text[4096];
    size_t n = 0;

    for (size_t i = 0; i < sizeof leaf - 1; i++)
        text[n++] = leaf[i];
    text[n++] = 'e';
    text[n++] = 'q';
    text[n++] = 0;
    for (char i = 1; i < 8; i++) {
        text[n++] = '0';
        text[n++] = ']';
        text[n++] = '(';
        for (int k = 0; k < 12; k++) {
            text[n++] = 'h';
            text[n++] = (char)(i - 1);
        }
        text[n++] = 'e';
        text[n++] = 'q';
        text[n++] = i;
    }
    text[n++] = '.';
    T_FAILS(t, try_tree(t, text, n), MT_E_LIMIT, "more tensors than a checkpoint has");
    T_CHECK(t, mt_mem_peak(&t->ctx) < (uint64_t)200 << 20);
}

T_TEST(many_values_are_counted_not_kept)
{
    static const char end[] = KEY("t") T1 "u.";
    static char text[20000];
    size_t n = 0;
    struct read r;

    text[n++] = '}';
    text[n++] = '(';
    for (int i = 0; i < 1500; i++) {
        text[n++] = 'M';
        text[n++] = (char)i;
        text[n++] = (char)(i >> 8);
        text[n++] = 'N';
    }
    for (size_t i = 0; i < sizeof end - 1; i++)
        text[n++] = end[i];
    T_OK(t, read_tree(t, &r, text, n));
    T_EQ_INT(t, r.tree.n, 1);
    T_EQ_INT(t, r.tree.n_notes, MT_TORCH_NOTES_MAX);
    T_EQ_INT(t, r.tree.n_untold, 500);
    read_free(&r);
}
