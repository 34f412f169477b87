#include "lib/base/hash.h"

#include "tests/t.h"

/* Examples of FIPS 180-4 and the NIST long-message vector. */
T_TEST(known_answers)
{
    static const struct {
        const char *text;
        int times;
        const char *hex;
    } rows[] = {
        {"", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
        {"aaaaaaaaaa", 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct mt_sha256 s;
        char hex[65];
        mt_sha256_begin(&s);
        for (int k = 0; k < rows[i].times; k++)
            mt_sha256_add(&s, rows[i].text, strlen(rows[i].text));
        mt_sha256_hex(&s, hex);
        T_EQ_STR(t, hex, rows[i].hex);
    }
}

T_TEST(cutting_the_input_changes_nothing)
{
    unsigned char data[300];
    char want[65], got[65];

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        struct mt_sha256 whole, parts;
        mt_sha256_begin(&whole);
        mt_sha256_add(&whole, data, n);
        mt_sha256_hex(&whole, want);
        mt_sha256_begin(&parts);
        for (size_t at = 0, step = 1; at < n; at += step, step = step % 97 + 1) {
            if (step > n - at)
                step = n - at;
            mt_sha256_add(&parts, data + at, step);
        }
        mt_sha256_hex(&parts, got);
        T_EQ_STR(t, got, want);
    }
}

/* ---- sums ---- */

static void sum_fill(unsigned char *data, size_t n)
{
    uint32_t x = 12345;

    for (size_t i = 0; i < n; i++) {
        x = x * 1664525 + 1013904223;
        data[i] = (unsigned char)(x >> 24);
    }
}

T_TEST(a_sum_does_not_depend_on_the_parts)
{
    static unsigned char data[3 * MT_SUM_BLOCK + 77];
    static struct mt_sum s;
    uint32_t x = 7;

    mt_sum_make(&s);
    sum_fill(data, sizeof data);
    for (uint64_t offset = 0; offset < 12; offset++) {
        uint64_t want = mt_sum_at(&s, offset, data, sizeof data), got;
        for (int round = 0; round < 50; round++) {
            got = 0;
            for (size_t at = 0, n; at < sizeof data; at += n) {
                x = x * 1664525 + 1013904223;
                n = (x >> 8) % (round < 25 ? 9 : 6000);
                n = n > sizeof data - at ? sizeof data - at : n;
                got += mt_sum_at(&s, offset + at, data + at, n);
            }
            T_CHECK(t, got == want);
        }
        T_CHECK(t, mt_sum_at(&s, offset + 1, data, sizeof data) != want);
    }
    memset(data, 0, sizeof data);
    T_CHECK(t, mt_sum_at(&s, 5, data, sizeof data) == 0);
}

/* Every flipped bit, every two flipped bits of one place value, every two bytes swapped. */
T_TEST(small_changes_change_a_sum)
{
    unsigned char data[MT_SUM_BLOCK + 64];
    static struct mt_sum s;
    uint64_t want;

    mt_sum_make(&s);
    sum_fill(data, sizeof data);
    want = mt_sum_at(&s, 8192, data, sizeof data);
    for (size_t i = 0; i < sizeof data; i++) {
        for (int bit = 0; bit < 8; bit++) {
            data[i] ^= (unsigned char)(1 << bit);
            T_CHECK(t, mt_sum_at(&s, 8192, data, sizeof data) != want);
            data[(i + 4) % sizeof data] ^= (unsigned char)(1 << bit);
            T_CHECK(t, mt_sum_at(&s, 8192, data, sizeof data) != want);
            data[i] ^= (unsigned char)(1 << bit);
            data[(i + 4) % sizeof data] ^= (unsigned char)(1 << bit);
        }
    }
    for (size_t i = 0; i + MT_SUM_BLOCK < sizeof data; i++) {
        size_t k = i + (i % 2 == 0 ? MT_SUM_BLOCK : 8);
        unsigned char a = data[i];
        if (data[k] == a)
            continue;
        data[i] = data[k];
        data[k] = a;
        T_CHECK(t, mt_sum_at(&s, 8192, data, sizeof data) != want);
        data[k] = data[i];
        data[i] = a;
    }
    T_CHECK(t, mt_sum_at(&s, 8192, data, sizeof data) == want);
}
