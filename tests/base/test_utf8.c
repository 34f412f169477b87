#include "lib/base/utf8.h"

#include "tests/t.h"

T_TEST(every_scalar_value_survives_a_round_trip)
{
    char s[8];

    for (uint32_t c = 0; c < 0x110000; c++) {
        size_t at = 0, n;
        if (c >= 0xD800 && c < 0xE000)
            continue;
        n = mt_utf8_put(c, s);
        T_EQ_INT(t, mt_utf8_valid(s, n), n);
        T_EQ_INT(t, mt_utf8_next(s, n, &at), c);
        T_EQ_INT(t, at, n);
    }
}

/* Every second byte behind every first one, against table 3-7 as it is printed. */
T_TEST(sequences_are_those_of_the_table)
{
    static const struct {
        int first, last, lo, hi, len;
    } table[] = {
        {0x00, 0x7F, 0, 0, 1},       {0xC2, 0xDF, 0x80, 0xBF, 2}, {0xE0, 0xE0, 0xA0, 0xBF, 3},
        {0xE1, 0xEC, 0x80, 0xBF, 3}, {0xED, 0xED, 0x80, 0x9F, 3}, {0xEE, 0xEF, 0x80, 0xBF, 3},
        {0xF0, 0xF0, 0x90, 0xBF, 4}, {0xF1, 0xF3, 0x80, 0xBF, 4}, {0xF4, 0xF4, 0x80, 0x8F, 4}};

    for (int a = 0; a < 256; a++) {
        for (int b = 0; b < 256; b++) {
            const char s[5] = {(char)a, (char)b, '\x80', '\xBF', 'x'};
            int want = -1;
            for (size_t r = 0; r < sizeof table / sizeof table[0]; r++) {
                if (a < table[r].first || a > table[r].last)
                    continue;
                if (table[r].len == 1 || (b >= table[r].lo && b <= table[r].hi))
                    want = table[r].len;
            }
            T_EQ_INT(t, mt_utf8_sequence(s, 5), want);
            for (int n = 2; n < want; n++) /* cut short: all that is there is ill-formed */
                T_EQ_INT(t, mt_utf8_sequence(s, (size_t)n), -n);
            if (want > 2) /* a third byte that does not belong */
                T_EQ_INT(t, mt_utf8_sequence((const char[4]){(char)a, (char)b, 'x', 0}, 4), -2);
        }
    }
}
