#include "lib/text/vocab_table.h"
#include "tests/t.h"

T_TEST(what_goes_in_is_found_and_nothing_else)
{
    struct mt_vocab_table v = {0};
    char s[32];

    T_EQ_INT(t, mt_vocab_find(&v, "a", 1), -1);
    for (int i = 0; i < 20000; i++) {
        int n = snprintf(s, sizeof s, "%x.%d", (unsigned)i * 2654435761u, i % 7);
        T_OK(t, mt_vocab_add(&t->ctx, &v, s, (size_t)n, 20000 - i));
    }
    for (int i = 0; i < 20000; i++) {
        const char *back;
        size_t len;
        int n = snprintf(s, sizeof s, "%x.%d", (unsigned)i * 2654435761u, i % 7);
        T_EQ_INT(t, mt_vocab_find(&v, s, (size_t)n), 20000 - i);
        T_CHECK(t, mt_vocab_text(&v, 20000 - i, &back, &len));
        T_CHECK(t, len == (size_t)n && memcmp(back, s, len) == 0);
        T_EQ_INT(t, mt_vocab_find(&v, s, (size_t)n - 1), -1);
    }
    T_CHECK(t, !mt_vocab_text(&v, 0, &(const char *){0}, &(size_t){0}));
    T_CHECK(t, !mt_vocab_text(&v, -1, &(const char *){0}, &(size_t){0}));
    T_CHECK(t, !mt_vocab_text(&v, 1 << 30, &(const char *){0}, &(size_t){0}));
    mt_vocab_end(&v);
}

T_TEST(bytes_of_any_value_and_the_empty_string_are_keys)
{
    struct mt_vocab_table v = {0};

    T_OK(t, mt_vocab_add(&t->ctx, &v, "", 0, 0));
    T_OK(t, mt_vocab_add(&t->ctx, &v, "\0", 1, 1));
    T_OK(t, mt_vocab_add(&t->ctx, &v, "\0\0", 2, 2));
    T_OK(t, mt_vocab_add(&t->ctx, &v, "12345678", 8, 3));
    T_OK(t, mt_vocab_add(&t->ctx, &v, "12345678\0", 9, 4));
    T_EQ_INT(t, mt_vocab_find(&v, "", 0), 0);
    T_EQ_INT(t, mt_vocab_find(&v, "\0", 1), 1);
    T_EQ_INT(t, mt_vocab_find(&v, "\0\0", 2), 2);
    T_EQ_INT(t, mt_vocab_find(&v, "\0\0\0", 3), -1);
    T_EQ_INT(t, mt_vocab_find(&v, "12345678", 8), 3);
    T_EQ_INT(t, mt_vocab_find(&v, "12345678\0", 9), 4);
    mt_vocab_end(&v);
}

T_TEST(second_uses_and_ids_out_of_range_are_refused)
{
    struct mt_vocab_table v = {0};

    T_OK(t, mt_vocab_add(&t->ctx, &v, "a", 1, 5));
    T_FAILS(t, mt_vocab_add(&t->ctx, &v, "a", 1, 6), MT_E_FORMAT, "\"a\" has two ids, 5 and 6");
    T_FAILS(t, mt_vocab_add(&t->ctx, &v, "b", 1, 5), MT_E_FORMAT, "id 5 belongs to two tokens");
    T_FAILS(t, mt_vocab_add(&t->ctx, &v, "c", 1, -1), MT_E_FORMAT, "id -1 is outside");
    T_FAILS(t, mt_vocab_add(&t->ctx, &v, "c", 1, (int64_t)1 << 40), MT_E_FORMAT, "outside");
    T_FAILS(t, mt_vocab_add(&t->ctx, &v, "c", 1, MT_TOKEN_ID_MAX + 1), MT_E_FORMAT, "outside");
    T_OK(t, mt_vocab_add(&t->ctx, &v, "c", 1, MT_TOKEN_ID_MAX));
    T_CHECK(t, mt_mem_used(&t->ctx) < (64u << 20));
    mt_vocab_end(&v);
}
