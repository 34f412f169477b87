#include "lib/base/json.h"

#include "tests/t.h"

#include <stdlib.h>
#include <time.h>

static mt_status json_parse_text(struct t *t, const char *text, struct mt_json **j)
{
    return mt_json_parse(&t->ctx, text, strlen(text), "x.json", j);
}

T_TEST(every_kind_of_value_is_read)
{
    struct mt_json *j;
    double d;
    int64_t i;
    bool b;

    T_OK(t,
         json_parse_text(t,
                         " {\"a\": [1, -2.5, 1e3], \"b\" :{}, \"c\":\"x\\n\\u00e9\\ud83d\\ude00\","
                         "\"d\":true,\"e\":null,\"f\":[ ],\"g\":-0}\r\n\t",
                         &j));
    const struct mt_json *a = mt_json_get(j, "a"), *first = mt_json_first(a);
    T_EQ_INT(t, mt_json_count(a), 3);
    T_CHECK(t, mt_json_integer(first, &i) && i == 1);
    T_CHECK(t, !mt_json_integer(mt_json_next(first), &i));
    T_CHECK(t, mt_json_number(mt_json_next(first), &d) && d == -2.5);
    T_CHECK(t, mt_json_integer(mt_json_next(mt_json_next(first)), &i) && i == 1000);
    T_CHECK(t, mt_json_kind(mt_json_get(j, "b")) == MT_JSON_OBJECT);
    T_EQ_STR(t, mt_json_text(mt_json_get(j, "c")), "x\n\xc3\xa9\xf0\x9f\x98\x80");
    T_CHECK(t, mt_json_truth(mt_json_get(j, "d"), &b) && b);
    T_CHECK(t, mt_json_kind(mt_json_get(j, "e")) == MT_JSON_NULL);
    T_EQ_INT(t, mt_json_count(mt_json_get(j, "f")), 0);
    T_CHECK(t, mt_json_integer(mt_json_get(j, "g"), &i) && i == 0);
    T_CHECK(t, mt_json_kind(mt_json_get(j, "z")) == MT_JSON_ABSENT);
    T_CHECK(t, mt_json_get(j, "A") == NULL);
    mt_json_free(j);
}

T_TEST(hostile_texts_are_refused_with_a_place)
{
    static const struct {
        const char *text, *part;
    } rows[] = {
        {"", "line 1, column 1: the JSON ends"},
        {"   \n  ", "line 2, column 3: the JSON ends"},
        {"{", "expected a name in quotes"},
        {"{\"a\"", "expected ':'"},
        {"{\"a\":1", "expected ',' or '}'"},
        {"{\"a\":1,}", "expected a name in quotes"},
        {"[1,]", "expected a value"},
        {"[1", "expected ',' or ']'"},
        {"[1 2]", "column 4: expected ',' or ']'"},
        {"{\"a\":1}\n{", "line 2, column 1: text after the end"},
        {"{\"a\":1,\"b\":2,\"a\":3}", "the key \"a\" occurs twice"},
        {"{\"a\":1,\"\\u0061\":3}", "the key \"a\" occurs twice"},
        {"[{\"x\":{\"y\":1,\"y\":1}}]", "the key \"y\" occurs twice"},
        {"'a'", "expected a value"},
        {"{a:1}", "expected a name in quotes"},
        {"\"a", "unfinished string"},
        {"\"a\\", "unfinished string"},
        {"\"a\\\"", "unfinished string"},
        {"\"\\x41\"", "unknown escape"},
        {"\"\\u12\"", "four hexadecimal digits"},
        {"\"\\u12g4\"", "four hexadecimal digits"},
        {"\"\\u0000\"", "\\u0000"},
        {"\"\\ud800\"", "surrogate"},
        {"\"\\ud800\\u0041\"", "surrogate"},
        {"\"\\udc00\"", "surrogate"},
        {"\"a\nb\"", "control character"},
        {"\"\xff\"", "not valid UTF-8"},
        {"\"\xc0\x80\"", "not valid UTF-8"},
        {"\"\xed\xa0\x80\"", "not valid UTF-8"},
        {"\"\xe2\x82\"", "not valid UTF-8"},
        {"\"\xf4\x90\x80\x80\"", "not valid UTF-8"},
        {"01", "malformed number"},
        {"-", "malformed number"},
        {"1.", "malformed number"},
        {".5", "expected a value"},
        {"+1", "expected a value"},
        {"1e", "malformed number"},
        {"1e+", "malformed number"},
        {"0x10", "text after the end"},
        {"nul", "expected a value"},
        {"truefalse", "text after the end"},
        {"// c\n1", "expected a value"},
        {"\xef\xbb\xbf{}", "expected a value"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mt_json *j;
        T_FAILS(t, json_parse_text(t, rows[i].text, &j), MT_E_FORMAT, rows[i].part);
        T_CHECK(t, j == NULL);
    }
}

T_TEST(a_zero_byte_in_the_text_is_refused)
{
    struct mt_json *j;

    T_FAILS(t, mt_json_parse(&t->ctx, "\"a\0b\"", 5, "x", &j), MT_E_FORMAT, "control character");
    T_FAILS(t, mt_json_parse(&t->ctx, "1\0", 2, "x", &j), MT_E_FORMAT, "a NUL byte where the end");
}

T_TEST(reading_stops_at_the_given_length)
{
    struct mt_json *j;
    int64_t v;

    T_OK(t, mt_json_parse(&t->ctx, "123456", 3, "x", &j));
    T_CHECK(t, mt_json_integer(j, &v) && v == 123);
    mt_json_free(j);
    T_FAILS(t, mt_json_parse(&t->ctx, "true", 3, "x", &j), MT_E_FORMAT, "expected a value");
}

T_TEST(nesting_is_limited)
{
    char deep[400];
    struct mt_json *j;

    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    deep[128] = '\0';
    T_OK(t, json_parse_text(t, deep, &j));
    mt_json_free(j);
    memset(deep, '[', 399);
    deep[399] = '\0';
    T_FAILS(t, json_parse_text(t, deep, &j), MT_E_FORMAT, "nested deeper than 64");
}

T_TEST(numbers_are_not_rounded_behind_ones_back)
{
    struct mt_json *j;
    int64_t i;
    double d;

    T_OK(t, json_parse_text(t,
                            "[9007199254740992, 9007199254740993, 5368709120, 1.5, 1e400, NaN, "
                            "-Infinity, 123456789012345678901234567890]",
                            &j));
    const struct mt_json *n = mt_json_first(j);
    T_CHECK(t, mt_json_integer(n, &i) && i == 9007199254740992);
    T_CHECK(t, !mt_json_integer(n = mt_json_next(n), &i));
    T_CHECK(t, mt_json_integer(n = mt_json_next(n), &i) && i == 5368709120);
    T_CHECK(t, !mt_json_integer(n = mt_json_next(n), &i));
    T_CHECK(t, !mt_json_number(n = mt_json_next(n), &d));
    T_CHECK(t, !mt_json_number(n = mt_json_next(n), &d));
    T_CHECK(t, !mt_json_number(n = mt_json_next(n), &d));
    T_CHECK(t, mt_json_number(n = mt_json_next(n), &d) && d == 123456789012345678901234567890.0);
    T_CHECK(t, !mt_json_integer(n, &i));
    mt_json_free(j);
}

T_TEST(a_large_object_is_checked_and_walked_in_little_time)
{
    const int n = 150000;
    char *text = malloc(32u * (size_t)n), *p = text;
    struct mt_json *j;
    clock_t begin = clock();
    int64_t sum = 0, v;

    for (int i = 0; i < n; i++)
        p += snprintf(p, 32, "%c\"token %d\":%d", i == 0 ? '{' : ',', i, i);
    *p++ = '}';
    mt_status st = mt_json_parse(&t->ctx, text, (size_t)(p - text), "vocab", &j);
    snprintf(p - 1, 16, ",\"token 77\":1}");
    struct mt_json *twice;
    mt_status dup = mt_json_parse(&t->ctx, text, (size_t)(p - text) + 13, "vocab", &twice);
    free(text);
    T_OK(t, st);
    for (const struct mt_json *c = mt_json_first(j); c != NULL; c = mt_json_next(c))
        sum += mt_json_integer(c, &v) ? v : -1;
    mt_json_free(j);
    T_EQ_INT(t, sum, (int64_t)n * (n - 1) / 2);
    T_FAILS(t, dup, MT_E_FORMAT, "the key \"token 77\" occurs twice");
    T_CHECK(t, (double)(clock() - begin) / CLOCKS_PER_SEC < 5);
}

T_TEST(files_are_read_within_a_limit)
{
    struct mt_json *j;

    t_write_file(t, t_path(t, "c.json"), "{\"a\":\n1x}", 9);
    T_FAILS(t, mt_json_read(&t->ctx, t_path(t, "c.json"), 100, &j), MT_E_FORMAT,
            "c.json: line 2, column 2: expected ',' or '}'");
    T_FAILS(t, mt_json_read(&t->ctx, t_path(t, "c.json"), 8, &j), MT_E_LIMIT, "c.json");
    T_FAILS(t, mt_json_read(&t->ctx, t_path(t, "d.json"), 8, &j), MT_E_ABSENT, "d.json");
    t_write_file(t, t_path(t, "c.json"), "{\"a\":1}", 7);
    T_OK(t, mt_json_read(&t->ctx, t_path(t, "c.json"), 7, &j));
    mt_json_free(j);
}

/* A tree counts until its root is freed, wherever it was put. */
T_TEST(trees_are_charged_to_the_budget)
{
    uint64_t before = mt_mem_used(&t->ctx), with;
    struct mt_json *j, *outer = mt_json_new_object();

    T_OK(t, mt_json_parse(&t->ctx, "{\"a\":[1,2,{\"b\":\"text\"}]}", 24, "x", &j));
    with = mt_mem_used(&t->ctx);
    T_CHECK(t, with >= before + 5 * 64 && with < before + 2000);
    mt_json_set(outer, "inner", j);
    T_EQ_INT(t, mt_mem_used(&t->ctx), with);
    mt_json_set_int(outer, "inner", 1);
    T_EQ_INT(t, mt_mem_used(&t->ctx), before);
    mt_json_free(outer);
}

T_TEST(a_tree_stays_within_the_budget)
{
    enum { N = 200000 };
    struct mt_ctx small;
    struct mt_json *j;
    char *text = malloc(2 * N + 2);

    T_CHECK(t, text != NULL);
    for (int i = 0; i < N; i++) {
        text[2 * i] = i == 0 ? '[' : ',';
        text[2 * i + 1] = '1';
    }
    text[2 * N] = ']';
    text[2 * N + 1] = '\0';
    T_OK(t,
         mt_ctx_open(&small, &(struct mt_ctx_opts){.n_threads = 1, .memory_bytes_max = 4 << 20}));
    mt_status st = mt_json_parse(&small, text, strlen(text), "x.json", &j);
    T_CHECK(t, st == MT_E_LIMIT && strstr(mt_error(&small), "x.json needs") != NULL);
    T_EQ_INT(t, mt_mem_used(&small), 0);
    mt_ctx_close(&small);
    T_OK(t, mt_json_parse(&t->ctx, text, strlen(text), "x.json", &j));
    mt_json_free(j);
    free(text);
}

T_TEST(running_out_of_memory_is_survived)
{
    static const char text[] =
        "{\"a\":[1,\"t\"],\"b\":{\"1\":1,\"2\":1,\"3\":1,\"4\":1,\"5\":1,\"6\":1,"
        "\"7\":1,\"8\":1,\"9\":1,\"10\":1,\"11\":1,\"12\":1,\"13\":1,"
        "\"14\":1,\"15\":1,\"16\":1,\"17\":1}}";
    mt_status st = MT_E_NOMEM;
    struct mt_json *j;
    uint64_t n = 0;

    while (st != MT_OK && n < 200) {
        mt_fault_alloc(++n);
        st = mt_json_parse(&t->ctx, text, sizeof text - 1, "x", &j);
        mt_fault_alloc(0);
        T_CHECK(t, st == MT_E_NOMEM || st == MT_OK);
        if (st != MT_OK)
            T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
    }
    T_CHECK(t, n > 40);
    mt_json_free(j);
}
