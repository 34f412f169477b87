#include "lib/base/dtype.h"

#include "tests/t.h"

T_TEST(names_read_back)
{
    for (int i = 0; i < MT_DTYPE_PLAIN_COUNT; i++) {
        const char *name = mt_dtype_name((enum mt_dtype)i);
        enum mt_dtype got;
        T_CHECK(t, mt_dtype_parse(name, strlen(name), &got));
        T_EQ_INT(t, got, i);
    }
}

T_TEST(unknown_and_half_names_are_refused)
{
    enum mt_dtype got;

    T_CHECK(t, !mt_dtype_parse("bf16", 4, &got));
    T_CHECK(t, !mt_dtype_parse("BF1", 3, &got));
    T_CHECK(t, !mt_dtype_parse("", 0, &got));
    T_CHECK(t, mt_dtype_parse("F32x", 3, &got) && got == MT_F32);
}

T_TEST(sizes_follow_the_bits)
{
    uint64_t bytes;

    T_CHECK(t, mt_dtype_bytes(MT_BF16, 5, &bytes) && bytes == 10);
    T_CHECK(t, mt_dtype_bytes(MT_F4, 6, &bytes) && bytes == 3);
    T_CHECK(t, mt_dtype_bytes(MT_F6_E2M3, 4, &bytes) && bytes == 3);
    T_CHECK(t, !mt_dtype_bytes(MT_F4, 5, &bytes));
    T_CHECK(t, !mt_dtype_bytes(MT_F64, UINT64_MAX / 8, &bytes));
}

T_TEST(multiplication_is_checked)
{
    uint64_t p;

    T_CHECK(t, mt_size_mul(UINT32_MAX, UINT32_MAX, &p) && p == 18446744065119617025u);
    T_CHECK(t, !mt_size_mul(1ull << 33, 1ull << 31, &p));
}

T_TEST(plain_floats_are_the_four_that_kernels_convert)
{
    int n = 0;

    for (int i = 0; i < MT_DTYPE_COUNT; i++)
        n += mt_dtype_is_plain_float((enum mt_dtype)i);
    T_EQ_INT(t, n, 4);
    T_CHECK(t, mt_dtype_is_plain_float(MT_BF16) && !mt_dtype_is_plain_float(MT_F8_E4M3));
}

T_TEST(block_types_have_sizes_and_no_single_elements)
{
    static const enum mt_dtype types[] = {MT_Q4_0, MT_Q8_0, MT_Q6_K, MT_MXFP4, MT_NVFP4, MT_Q1_0};
    static const uint64_t block[] = {32, 32, 256, 32, 64, 128}, size[] = {18, 34, 210, 17, 36, 18};
    enum mt_dtype got;
    uint64_t bytes;

    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        T_CHECK(t, mt_dtype_is_block(types[i]) && !mt_dtype_pickable(types[i]));
        T_CHECK(t, mt_dtype_bytes(types[i], 3 * block[i], &bytes) && bytes == 3 * size[i]);
        T_CHECK(t, mt_dtype_bytes(types[i], 0, &bytes) && bytes == 0);
        T_CHECK(t, !mt_dtype_bytes(types[i], block[i] + 1, &bytes));
    }
    T_CHECK(t, mt_dtype_pickable(MT_BF16) && !mt_dtype_pickable(MT_F4));
    T_CHECK(t, !mt_dtype_bytes(MT_Q8_0, UINT64_MAX / 32 * 32, &bytes));
    T_EQ_INT(t, mt_dtype_block(MT_F32), 1);
    for (int i = MT_DTYPE_PLAIN_COUNT; i < MT_DTYPE_COUNT; i++) {
        const char *name = mt_dtype_name((enum mt_dtype)i);
        T_CHECK(t, !mt_dtype_parse(name, strlen(name), &got)); /* safetensors knows none of them */
    }
}
