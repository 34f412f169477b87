/* Text that grows: every length across its growth steps, escapes, failures that stay. */
#include "lib/base/str.h"
#include "tests/t.h"

#include <stdio.h>
#include <string.h>

T_TEST(pieces_of_any_length_lie_behind_one_another)
{
    char want[6000] = "", piece[1500];
    struct mt_str text;
    size_t n = 0;

    mt_str_begin(&t->ctx, &text, "a text");
    T_CHECK(t, text.p == NULL && text.n == 0);
    for (size_t len = 0; len < 1500; len += 1 + len / 3) {
        memset(piece, 'a' + (int)(len % 26), len);
        piece[len] = '\0';
        if (len % 2 == 0)
            mt_str_add(&text, piece, len);
        else
            mt_str_addf(&text, "%s", piece);
        n += (size_t)snprintf(want + n, sizeof want - n, "%s", piece);
    }
    T_OK(t, text.st);
    T_CHECK(t, text.n == n && strlen(text.p) == n);
    T_EQ_STR(t, text.p, want);
    mt_str_free(&text);
    mt_str_free(&text);
}

T_TEST(the_last_byte_of_the_room_is_the_nul)
{
    for (int less = 0; less < 4; less++) {
        struct mt_str text;
        mt_str_begin(&t->ctx, &text, "a text");
        mt_str_add(&text, "x", 1);
        size_t room = text.cap - text.n;
        for (size_t i = 0; i < room - (size_t)less; i++)
            mt_str_addf(&text, "%c", 'y');
        T_OK(t, text.st);
        T_CHECK(t, text.n == 1 + room - (size_t)less && strlen(text.p) == text.n);
        mt_str_free(&text);
    }
}

T_TEST(bytes_may_be_any)
{
    struct mt_str text;

    mt_str_begin(&t->ctx, &text, "bytes");
    mt_str_add(&text, "a\0b", 3);
    mt_str_add(&text, NULL, 0);
    T_OK(t, text.st);
    T_CHECK(t, text.n == 3 && memcmp(text.p, "a\0b", 4) == 0);
    mt_str_free(&text);
}

T_TEST(json_escapes_are_those_of_the_reference_writer)
{
    struct mt_str text;

    mt_str_begin(&t->ctx, &text, "a name");
    mt_str_add_escaped(&text, "");
    mt_str_add_escaped(&text, "q\"b\\\b\f\n\r\t\x01\x1f/\x7f\xc3\xa9");
    T_OK(t, text.st);
    T_EQ_STR(t, text.p, "q\\\"b\\\\\\b\\f\\n\\r\\t\\u0001\\u001f/\x7f\xc3\xa9");
    mt_str_free(&text);
}

T_TEST(a_failure_stays)
{
    const struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = 40000};
    struct mt_str text;
    struct mt_ctx ctx;

    T_OK(t, mt_ctx_open(&ctx, &o));
    mt_str_begin(&ctx, &text, "a long text");
    for (int i = 0; i < 1000; i++)
        mt_str_addf(&text, "%0100d", i);
    T_CHECK(t, text.st == MT_E_LIMIT && strstr(mt_error(&ctx), "a long text") != NULL);
    size_t n = text.n;
    T_CHECK(t, n > 0 && strlen(text.p) == n);
    mt_str_add(&text, "more", 4);
    mt_str_add_escaped(&text, "more");
    T_CHECK(t, text.n == n && text.st == MT_E_LIMIT);
    mt_str_free(&text);
    mt_ctx_close(&ctx);
}
