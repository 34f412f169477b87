#include "lib/base/json.h"

#include "tests/t.h"

static struct mt_json *json_of(struct t *t, const char *text)
{
    struct mt_json *j = NULL;

    if (mt_json_parse(&t->ctx, text, strlen(text), "x.json", &j) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return j;
}

T_TEST(getters_take_defaults_for_absent_and_null)
{
    struct mt_json *j = json_of(t, "{\"i\":3,\"f\":0.5,\"b\":false,\"s\":\"x\",\"n\":null}");
    int64_t i;
    double d;
    bool b;
    const char *s;

    T_OK(t, mt_json_get_int(&t->ctx, j, "i", 9, &i));
    T_EQ_INT(t, i, 3);
    T_OK(t, mt_json_get_int(&t->ctx, j, "n", 9, &i));
    T_EQ_INT(t, i, 9);
    T_OK(t, mt_json_get_int(&t->ctx, NULL, "n", 8, &i));
    T_EQ_INT(t, i, 8);
    T_OK(t, mt_json_get_num(&t->ctx, j, "f", 9, &d));
    T_NEAR(t, d, 0.5, 0);
    T_OK(t, mt_json_get_num(&t->ctx, j, "i", 9, &d));
    T_NEAR(t, d, 3, 0);
    T_OK(t, mt_json_get_bool(&t->ctx, j, "b", true, &b));
    T_CHECK(t, !b);
    T_OK(t, mt_json_get_bool(&t->ctx, j, "zz", true, &b));
    T_CHECK(t, b);
    T_OK(t, mt_json_get_str(&t->ctx, j, "s", NULL, &s));
    T_EQ_STR(t, s, "x");
    T_OK(t, mt_json_get_str(&t->ctx, j, "n", "dflt", &s));
    T_EQ_STR(t, s, "dflt");
    mt_json_free(j);
}

T_TEST(getters_name_the_key_of_the_wrong_kind)
{
    struct mt_json *j = json_of(t, "{\"i\":3.5,\"s\":\"x\",\"a\":[1],\"big\":1e300,\"nan\":NaN}");
    int64_t i;
    double d;
    bool b;
    const char *s;

    T_FAILS(t, mt_json_get_int(&t->ctx, j, "i", 0, &i), MT_E_FORMAT,
            "\"i\" is 3.5, expected a whole number");
    T_FAILS(t, mt_json_get_int(&t->ctx, j, "big", 0, &i), MT_E_FORMAT, "\"big\"");
    T_FAILS(t, mt_json_get_num(&t->ctx, j, "s", 0, &d), MT_E_FORMAT, "\"s\" is \"x\", expected");
    T_FAILS(t, mt_json_get_num(&t->ctx, j, "nan", 0, &d), MT_E_FORMAT, "finite");
    T_FAILS(t, mt_json_get_bool(&t->ctx, j, "i", 0, &b), MT_E_FORMAT, "true or false");
    T_FAILS(t, mt_json_get_str(&t->ctx, j, "a", NULL, &s), MT_E_FORMAT,
            "\"a\" is an array, expected a string");
    mt_json_free(j);
}

T_TEST(absent_nodes_read_as_absent)
{
    int64_t i;
    double d;
    bool b;

    T_CHECK(t, mt_json_kind(NULL) == MT_JSON_ABSENT && mt_json_get(NULL, "a") == NULL);
    T_CHECK(t, mt_json_first(NULL) == NULL && mt_json_next(NULL) == NULL);
    T_CHECK(t, mt_json_key(NULL) == NULL && mt_json_count(NULL) == 0 && mt_json_text(NULL) == NULL);
    T_CHECK(t, !mt_json_integer(NULL, &i) && !mt_json_number(NULL, &d) && !mt_json_truth(NULL, &b));
    mt_json_free(NULL);
}

static int json_prints(struct t *t, const struct mt_json *j, const char *want)
{
    char *text;
    size_t n;
    int same;

    if (mt_json_print(&t->ctx, j, &text, &n) != MT_OK)
        return 0;
    same = strcmp(text, want) == 0 && strlen(want) == n;
    if (!same)
        printf("    got %s", text);
    mt_free(text);
    return same;
}

T_TEST(setting_replaces_in_place_and_appends)
{
    struct mt_json *j = json_of(t, "{\"a\":1,\"b\":2,\"c\":3}");

    mt_json_set_str(j, "b", "two");
    mt_json_set_bool(j, "c", true);
    mt_json_set_null(j, "d");
    mt_json_set_num(j, "a", 0.25);
    T_CHECK(
        t, json_prints(t, j,
                       "{\n  \"a\": 0.25,\n  \"b\": \"two\",\n  \"c\": true,\n  \"d\": null\n}\n"));
    mt_json_remove(j, "d");
    mt_json_remove(j, "a");
    mt_json_remove(j, "nothing");
    mt_json_set_int(j, "e", 5);
    T_EQ_INT(t, mt_json_count(j), 3);
    T_CHECK(t, json_prints(t, j, "{\n  \"b\": \"two\",\n  \"c\": true,\n  \"e\": 5\n}\n"));
    mt_json_remove(j, "b");
    mt_json_remove(j, "c");
    mt_json_remove(j, "e");
    T_CHECK(t, json_prints(t, j, "{}\n"));
    mt_json_set_str(j, "z", NULL);
    T_CHECK(t, json_prints(t, j, "{\n  \"z\": null\n}\n"));
    mt_json_free(j);
}

T_TEST(children_are_made_inside)
{
    struct mt_json *j = mt_json_new_object();
    struct mt_json *o = mt_json_set_object(j, "o"), *a = mt_json_set_array(j, "a");

    mt_json_set_int(o, "x", -7);
    mt_json_add_str(a, "s");
    mt_json_set_num(mt_json_add_object(a), "nan", (double)NAN);
    T_CHECK(t, json_prints(t, j,
                           "{\n  \"o\": {\n    \"x\": -7\n  },\n  \"a\": [\n    \"s\",\n    {\n"
                           "      \"nan\": null\n    }\n  ]\n}\n"));
    mt_json_free(j);
}

T_TEST(what_memory_failures_leave_is_harmless_until_printed)
{
    struct mt_json *j = mt_json_new_object();
    char *text;
    size_t n;

    mt_json_set(NULL, "a", mt_json_new_array());
    mt_json_set_int(NULL, "a", 1);
    mt_json_add_int(NULL, 1);
    mt_json_add_object(NULL);
    mt_json_set(j, "a", NULL);
    T_FAILS(t, mt_json_print(&t->ctx, j, &text, &n), MT_E_NOMEM, "out of memory");
    T_FAILS(t, mt_json_print(&t->ctx, NULL, &text, &n), MT_E_NOMEM, "out of memory");
    mt_json_free(j);
}
