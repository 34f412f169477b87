/* GGML's blocks against values of the `gguf` package (scripts/refs/ggml_blocks.py) and by hand. */
#include "kernels/blocks.h"
#include "lib/base/json.h"
#include "tests/t.h"

#include <stdlib.h>

static const enum mt_dtype types[] = {MT_Q4_0,  MT_Q4_1,  MT_Q5_0,  MT_Q5_1, MT_Q8_0,   MT_Q2_K,
                                      MT_Q3_K,  MT_Q4_K,  MT_Q5_K,  MT_Q6_K, MT_IQ4_NL, MT_IQ4_XS,
                                      MT_TQ1_0, MT_TQ2_0, MT_MXFP4, MT_NVFP4};

static size_t from_hex(const char *s, uint8_t *out, size_t max)
{
    size_t n = 0;
    unsigned v;

    for (; *s != '\0' && n < max && sscanf(s, "%2x", &v) == 1; s += 2)
        out[n++] = (uint8_t)v;
    return n;
}

T_TEST(values_are_those_of_the_gguf_package)
{
    static uint8_t bytes[1024], raw[4096];
    static float got[1024];
    struct mt_json *j;

    T_OK(t, mt_json_read(&t->ctx, t_shipped("gguf/blocks.json"), (size_t)1 << 20, &j));
    T_EQ_INT(t, mt_json_count(j), sizeof types / sizeof types[0]);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct mt_json *one = mt_json_get(j, mt_dtype_name(types[i]));
        uint64_t each = 0;
        size_t n, values;

        T_CHECK(t, one != NULL && mtk_block_known(types[i]));
        T_CHECK(t, mt_dtype_bytes(types[i], mt_dtype_block(types[i]), &each));
        n = from_hex(mt_json_text(mt_json_get(one, "blocks")), bytes, sizeof bytes);
        values = from_hex(mt_json_text(mt_json_get(one, "values")), raw, sizeof raw) / 4;
        T_EQ_INT(t, n / each * mt_dtype_block(types[i]), values);
        mtk_block_to_f32(types[i], bytes, got, values);
        for (size_t k = 0; k < values; k++) {
            float want;
            memcpy(&want, raw + 4 * k, sizeof want);
            if (!(fabsf(got[k] - want) <= 1e-6f * fabsf(want)))
                T_FAIL(t, "%s: value %zu is %.9g, wanted %.9g", mt_dtype_name(types[i]), k,
                       (double)got[k], (double)want);
        }
    }
    mt_json_free(j);
}

/* Blocks of one scale and a ramp. */
T_TEST(blocks_made_by_hand)
{
    uint8_t q8[36] = {0x00, 0x38}, k[292] = {0};
    const float half = 0.5f;
    float y[256];

    for (int i = 0; i < 32; i++)
        q8[2 + i] = (uint8_t)(i - 16);
    mtk_block_to_f32(MT_Q8_0, q8, y, 32);
    for (int i = 0; i < 32; i++)
        T_NEAR(t, (double)y[i], 0.5 * (i - 16), 0);
    memmove(q8 + 4, q8 + 2, 32);
    mtk_block_to_f32(MT_Q8_1, q8, y, 32);
    T_NEAR(t, (double)y[0], -8, 0);
    memcpy(k, &half, 4);
    k[4] = 0x80;
    k[5] = 7;
    mtk_block_to_f32(MT_Q8_K, k, y, 256);
    T_NEAR(t, (double)y[0], -64, 0);
    T_NEAR(t, (double)y[1], 3.5, 0);
    T_NEAR(t, (double)y[255], 0, 0);
}

T_TEST(types_with_codebooks_are_not_known)
{
    T_CHECK(t, !mtk_block_known(MT_IQ2_XXS) && !mtk_block_known(MT_IQ1_M));
    T_CHECK(t, !mtk_block_known(MT_F32) && !mtk_block_known(MT_U8));
}
