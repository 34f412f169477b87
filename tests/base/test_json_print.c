#include "lib/base/json.h"

#include "tests/t.h"

#include "lib/base/rng.h"

/* Text -> tree -> text. */
static int json_again(struct t *t, const char *in, const char *want)
{
    struct mt_json *j, *copy;
    char *text = NULL;
    size_t n;
    int same = 0;

    if (mt_json_parse(&t->ctx, in, strlen(in), "x", &j) != MT_OK)
        return 0;
    if (mt_json_copy(&t->ctx, j, &copy) == MT_OK) {
        mt_json_free(j);
        if (mt_json_print(&t->ctx, copy, &text, &n) == MT_OK)
            same = strcmp(text, want) == 0;
        if (!same)
            printf("    got %s", text != NULL ? text : mt_error(&t->ctx));
        mt_json_free(copy);
    }
    mt_free(text);
    return same;
}

T_TEST(numbers_come_back_as_they_were)
{
    T_CHECK(t, json_again(t, "[1, 1.0, -0.0, 10000.0, 1e-05, 0.1, 1e6, 2.5e-8]",
                          "[1, 1.0, -0.0, 10000.0, 1e-05, 0.1, 1000000.0, 2.5e-08]\n"));
    T_CHECK(t, json_again(t, "[999999999999999999, 1e300, 0.30000000000000004, NaN, -Infinity]",
                          "[999999999999999999, 1e+300, 0.30000000000000004, NaN, -Infinity]\n"));
}

T_TEST(random_doubles_read_back_equal)
{
    struct mt_rng r;

    mt_rng_seed(&r, 1, 0);
    for (int i = 0; i < 2000; i++) {
        uint64_t bits = mt_rng_u64(&r);
        struct mt_json *a = mt_json_new_array(), *b;
        double v, back;
        char *text;
        size_t n;
        memcpy(&v, &bits, sizeof v);
        if (!isfinite(v)) {
            mt_json_free(a);
            continue;
        }
        mt_json_add_num(a, v);
        T_OK(t, mt_json_print(&t->ctx, a, &text, &n));
        T_OK(t, mt_json_parse(&t->ctx, text, n, text, &b));
        T_CHECK(t, mt_json_number(mt_json_first(b), &back));
        T_CHECK(t, !(back < v) && !(back > v));
        mt_free(text);
        mt_json_free(a);
        mt_json_free(b);
    }
}

T_TEST(strings_are_escaped_where_they_must)
{
    T_CHECK(t, json_again(t, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0001\\u00e9\"",
                          "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\xc3\xa9\"\n"));
}

T_TEST(order_and_empty_containers_are_kept)
{
    T_CHECK(t,
            json_again(t, "{\"b\":{},\"a\":[],\"c\":[[],[1,2]]}",
                       "{\n  \"b\": {},\n  \"a\": [],\n  \"c\": [\n    [],\n    [1, 2]\n  ]\n}\n"));
}

T_TEST(a_copy_of_a_member_stands_alone)
{
    struct mt_json *j = mt_json_new_object(), *copy;

    mt_json_set_str(mt_json_set_object(j, "inner"), "k", "v");
    T_OK(t, mt_json_copy(&t->ctx, mt_json_get(j, "inner"), &copy));
    mt_json_free(j);
    T_CHECK(t, mt_json_key(copy) == NULL);
    T_EQ_STR(t, mt_json_text(mt_json_get(copy, "k")), "v");
    mt_json_free(copy);
}

T_TEST(printing_survives_every_failing_allocation)
{
    struct mt_json *j = mt_json_new_array();
    char *text;
    size_t n;

    for (int i = 0; i < 500; i++)
        mt_json_add_str(j, "some words that make the text grow");
    for (uint64_t i = 1;; i++) {
        mt_fault_alloc(i);
        mt_status st = mt_json_print(&t->ctx, j, &text, &n);
        mt_fault_alloc(0);
        if (st == MT_OK)
            break;
        T_CHECK(t, st == MT_E_NOMEM && text == NULL && i < 100);
    }
    mt_free(text);
    mt_json_free(j);
}
