#include "lib/text/pieces.h"
#include "tests/t.h"

#include <stdlib.h>

static void repairs(struct t *t, const char *in, size_t n, const char *want)
{
    struct mt_text out = {0};
    /* An exact copy, so that a sanitizer sees any read beyond it. */
    char *copy = malloc(n);
    mt_status st;

    T_CHECK(t, copy != NULL);
    memcpy(copy, in, n);
    st = mt_utf8_repair(&t->ctx, &out, copy, n);
    free(copy);
    T_OK(t, st);
    T_OK(t, mt_text_add(&t->ctx, &out, "", 1));
    T_EQ_STR(t, out.s, want);
    mt_text_end(&out);
}

#define R "\xEF\xBF\xBD"

/* Expected values: Python's bytes.decode("utf-8", "replace"). */
T_TEST(ill_formed_parts_become_one_replacement_each)
{
    repairs(t, "plain \xC3\xA9", 8, "plain \xC3\xA9");
    repairs(t, "\xFFz", 2, R "z");
    repairs(t, "\x80\x80", 2, R R);
    repairs(t, "\xC0\xAF", 2, R R);
    repairs(t, "\xE2\x82", 2, R);
    repairs(t, "\xE2\x82z", 3, R "z");
    repairs(t, "\xE2\xE2\x82\xAC", 4, R "\xE2\x82\xAC");
    repairs(t, "\xED\xA0\x80", 3, R R R);
    repairs(t, "\xF0\x9F\x98", 3, R);
    repairs(t, "\xF4\x90\x80\x80", 4, R R R R);
    repairs(t, "\xF0\x80\x80\x80", 4, R R R R);
    repairs(t, "\xE0\x9F\xBF", 3, R R R);
    repairs(t,
            "a\xF1\x80\x80\xE1\x80\xC2"
            "b",
            8, "a" R R R "b");
    repairs(t,
            "12345678\xFF"
            "12345678",
            17, "12345678" R "12345678");
}

/* Every string of 1 to 3 bytes out of the classes that matter: the repaired text is valid, and
 * valid text is left alone. */
T_TEST(repaired_text_is_valid)
{
    static const unsigned char bytes[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0,
                                          0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC,
                                          0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
    struct mt_text out = {0};
    size_t k = sizeof bytes;

    for (size_t i = 0; i < k * k * k * k; i++) {
        char s[4] = {(char)bytes[i % k], (char)bytes[i / k % k], (char)bytes[i / k / k % k],
                     (char)bytes[i / k / k / k]};
        out.n = 0;
        T_OK(t, mt_utf8_repair(&t->ctx, &out, s, 4));
        T_EQ_INT(t, mt_utf8_valid(out.s, out.n), out.n);
        if (mt_utf8_valid(s, 4) == 4)
            T_CHECK(t, out.n == 4 && memcmp(out.s, s, 4) == 0);
        else
            T_CHECK(t, out.n > 4 || memcmp(out.s, s, out.n) != 0);
    }
    mt_text_end(&out);
}
