#include "kernels/blocks.h"

#include <math.h>
#include <string.h>

typedef void (*block_fn)(const uint8_t *b, float *y);

static float block_half(const uint8_t *p)
{
    uint32_t h = (uint32_t)p[0] | (uint32_t)p[1] << 8, exponent = h >> 10 & 31, m = h & 1023;
    float v = exponent == 0    ? ldexpf((float)m, -24)
              : exponent == 31 ? (m == 0 ? INFINITY : NAN)
                               : ldexpf((float)(1024 + m), (int)exponent - 25);

    return (h & 0x8000) != 0 ? -v : v;
}

static uint32_t block_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int block_i8(uint8_t v)
{
    return v < 128 ? v : (int)v - 256;
}

/* ---- 32 elements: i and i + 16 share a byte ---- */

static void block_q4_0(const uint8_t *b, float *y)
{
    float d = block_half(b);

    for (int i = 0; i < 16; i++) {
        y[i] = (float)((b[2 + i] & 15) - 8) * d;
        y[i + 16] = (float)((b[2 + i] >> 4) - 8) * d;
    }
}

static void block_q4_1(const uint8_t *b, float *y)
{
    float d = block_half(b), m = block_half(b + 2);

    for (int i = 0; i < 16; i++) {
        y[i] = (float)(b[4 + i] & 15) * d + m;
        y[i + 16] = (float)(b[4 + i] >> 4) * d + m;
    }
}

/* The fifth bits stand together in 32. */
static int block_five(const uint8_t *qs, uint32_t high, int i)
{
    int low = i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;

    return low | (int)(high >> i & 1) << 4;
}

static void block_q5_0(const uint8_t *b, float *y)
{
    float d = block_half(b);
    uint32_t high = block_u32(b + 2);

    for (int i = 0; i < 32; i++)
        y[i] = (float)(block_five(b + 6, high, i) - 16) * d;
}

static void block_q5_1(const uint8_t *b, float *y)
{
    float d = block_half(b), m = block_half(b + 2);
    uint32_t high = block_u32(b + 4);

    for (int i = 0; i < 32; i++)
        y[i] = (float)block_five(b + 8, high, i) * d + m;
}

static void block_q8_0(const uint8_t *b, float *y)
{
    float d = block_half(b);

    for (int i = 0; i < 32; i++)
        y[i] = (float)block_i8(b[2 + i]) * d;
}

/* With the sum of its quants behind the scale. */
static void block_q8_1(const uint8_t *b, float *y)
{
    float d = block_half(b);

    for (int i = 0; i < 32; i++)
        y[i] = (float)block_i8(b[4 + i]) * d;
}

/* ---- 256 elements with scales of their own ---- */

static void block_q2_k(const uint8_t *b, float *y)
{
    float d = block_half(b + 80), min = block_half(b + 82);

    for (int i = 0; i < 256; i++) {
        int part = i / 128, group = i % 128 / 32, at = i % 32;
        uint8_t scale = b[i / 16];
        int q = b[16 + 32 * part + at] >> 2 * group & 3;
        y[i] = d * (float)(scale & 15) * (float)q - min * (float)(scale >> 4);
    }
}

/* Sixteen scales of six bits: low halves in eight bytes, the upper two bits in four. */
static int block_q3_scale(const uint8_t *s, int i)
{
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4;

    return (low | (s[8 + i % 4] >> 2 * (i / 4) & 3) << 4) - 32;
}

static void block_q3_k(const uint8_t *b, float *y)
{
    const uint8_t *high = b, *low = b + 32, *scales = b + 96;
    float d = block_half(b + 108);

    for (int i = 0; i < 256; i++) {
        int part = i / 128, group = i % 128 / 32, at = i % 32;
        int q = low[32 * part + at] >> 2 * group & 3;
        bool set = (high[at] >> (4 * part + group) & 1) != 0;
        y[i] = d * (float)block_q3_scale(scales, i / 16) * (float)(q - (set ? 0 : 4));
    }
}

/* Eight scales and minima of six bits in twelve bytes. */
static void block_k4_scale(const uint8_t *s, int i, int *scale, int *min)
{
    if (i < 4) {
        *scale = s[i] & 63;
        *min = s[i + 4] & 63;
        return;
    }
    *scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
    *min = s[i + 4] >> 4 | (s[i] >> 6) << 4;
}

static void block_q45_k(const uint8_t *b, const uint8_t *high, const uint8_t *low, float *y)
{
    float d = block_half(b), dm = block_half(b + 2);

    for (int g = 0; g < 8; g++) {
        int scale, min;
        block_k4_scale(b + 4, g, &scale, &min);
        float by = d * (float)scale, less = dm * (float)min;
        for (int i = 0; i < 32; i++) {
            int q = low[32 * (g / 2) + i] >> 4 * (g % 2) & 15;
            if (high != NULL)
                q |= (high[i] >> g & 1) << 4;
            y[32 * g + i] = by * (float)q - less;
        }
    }
}

static void block_q4_k(const uint8_t *b, float *y)
{
    block_q45_k(b, NULL, b + 16, y);
}

static void block_q5_k(const uint8_t *b, float *y)
{
    block_q45_k(b, b + 16, b + 48, y);
}

static void block_q6_k(const uint8_t *b, float *y)
{
    float d = block_half(b + 208);

    for (int i = 0; i < 256; i++) {
        int part = i / 128, group = i % 128 / 32, at = i % 32;
        int low = b[64 * part + 32 * (group % 2) + at] >> 4 * (group / 2) & 15;
        int q = (low | (b[128 + 32 * part + at] >> 2 * group & 3) << 4) - 32;
        y[i] = d * (float)block_i8(b[192 + i / 16]) * (float)q;
    }
}

static void block_q8_k(const uint8_t *b, float *y)
{
    uint32_t bits = block_u32(b);
    float d;

    memcpy(&d, &bits, sizeof d);
    for (int i = 0; i < 256; i++)
        y[i] = d * (float)block_i8(b[4 + i]);
}

/* ---- sixteen values that are not evenly spaced ---- */

static const int8_t block_nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                    1,    13,   25,  38,  53,  69,  89,  113};

static void block_iq4_nl(const uint8_t *b, float *y)
{
    float d = block_half(b);

    for (int i = 0; i < 16; i++) {
        y[i] = d * (float)block_nl[b[2 + i] & 15];
        y[i + 16] = d * (float)block_nl[b[2 + i] >> 4];
    }
}

static void block_iq4_xs(const uint8_t *b, float *y)
{
    float d = block_half(b);
    int high = b[2] | b[3] << 8;

    for (int g = 0; g < 8; g++) {
        int scale = (b[4 + g / 2] >> 4 * (g % 2) & 15) | (high >> 2 * g & 3) << 4;
        float by = d * (float)(scale - 32);
        for (int i = 0; i < 32; i++)
            y[32 * g + i] = by * (float)block_nl[b[8 + 16 * g + i % 16] >> 4 * (i / 16) & 15];
    }
}

/* ---- three values ---- */

/* Digit n, base 3, of a byte that holds five as a fraction of 256. */
static float block_trit(uint8_t v, int n)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    uint8_t shifted = (uint8_t)(v * power[n]);

    return (float)((shifted * 3 >> 8) - 1);
}

static void block_tq1_0(const uint8_t *b, float *y)
{
    float d = block_half(b + 52);

    for (int n = 0; n < 5; n++)
        for (int i = 0; i < 32; i++)
            y[32 * n + i] = block_trit(b[i], n) * d;
    for (int n = 0; n < 5; n++)
        for (int i = 0; i < 16; i++)
            y[160 + 16 * n + i] = block_trit(b[32 + i], n) * d;
    for (int n = 0; n < 4; n++)
        for (int i = 0; i < 4; i++)
            y[240 + 4 * n + i] = block_trit(b[48 + i], n) * d;
}

static void block_tq2_0(const uint8_t *b, float *y)
{
    float d = block_half(b + 64);

    for (int i = 0; i < 256; i++) {
        int part = i / 128, group = i % 128 / 32, at = i % 32;
        y[i] = (float)((b[32 * part + at] >> 2 * group & 3) - 1) * d;
    }
}

/* ---- E2M1 with shared exponents ---- */

static const float block_e2m1[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                     -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static void block_mxfp4(const uint8_t *b, float *y)
{
    float d = b[0] == 255 ? NAN : ldexpf(1, (int)b[0] - 127);

    for (int i = 0; i < 16; i++) {
        y[i] = block_e2m1[b[1 + i] & 15] * d;
        y[i + 16] = block_e2m1[b[1 + i] >> 4] * d;
    }
}

/* E4M3 without a sign: the scale of 16 elements. */
static float block_ue4m3(uint8_t v)
{
    int exponent = v >> 3 & 15, m = v & 7;

    if (v == 0x7f)
        return 0;
    return exponent == 0 ? ldexpf((float)m, -9) : ldexpf((float)(8 + m), exponent - 10);
}

static void block_nvfp4(const uint8_t *b, float *y)
{
    for (int g = 0; g < 4; g++) {
        float d = block_ue4m3(b[g]);
        for (int i = 0; i < 16; i++)
            y[16 * g + i] = block_e2m1[b[4 + 8 * g + i % 8] >> 4 * (i / 8) & 15] * d;
    }
}

static block_fn block_decoder(enum mt_dtype t)
{
    static const struct {
        enum mt_dtype t;
        block_fn fn;
    } known[] = {
        {MT_Q4_0, block_q4_0},     {MT_Q4_1, block_q4_1},     {MT_Q5_0, block_q5_0},
        {MT_Q5_1, block_q5_1},     {MT_Q8_0, block_q8_0},     {MT_Q8_1, block_q8_1},
        {MT_Q2_K, block_q2_k},     {MT_Q3_K, block_q3_k},     {MT_Q4_K, block_q4_k},
        {MT_Q5_K, block_q5_k},     {MT_Q6_K, block_q6_k},     {MT_Q8_K, block_q8_k},
        {MT_IQ4_NL, block_iq4_nl}, {MT_IQ4_XS, block_iq4_xs}, {MT_TQ1_0, block_tq1_0},
        {MT_TQ2_0, block_tq2_0},   {MT_MXFP4, block_mxfp4},   {MT_NVFP4, block_nvfp4},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].t == t)
            return known[i].fn;
    return NULL;
}

bool mtk_block_known(enum mt_dtype t)
{
    return block_decoder(t) != NULL;
}

void mtk_block_to_f32(enum mt_dtype t, const void *src, float *dst, size_t n)
{
    block_fn decode = block_decoder(t);
    size_t each = mt_dtype_block(t);
    const uint8_t *b = src;
    uint64_t bytes = 0;

    (void)mt_dtype_bytes(t, each, &bytes);
    for (size_t i = 0; i + each <= n; i += each, b += bytes)
        decode(b, dst + i);
}
