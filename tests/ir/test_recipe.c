#include "lib/base/rng.h"
#include "lib/ir/model.h"
#include "tests/t.h"

#include <stdlib.h>

/* Bit for bit, so that a NaN equals itself and zeros of either sign differ. */
static bool same_bits(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n) == 0;
}

static const struct mt_role other = {.kind = MT_ROLE_OTHER, .layer = -1, .expert = -1};

/* bf16 by its definition: the nearest of the two neighbours, ties to even. */
static uint16_t to_bf16(float v)
{
    uint32_t bits, low;

    memcpy(&bits, &v, 4);
    low = bits & 0xFFFF;
    bits >>= 16;
    if (low > 0x8000 || (low == 0x8000 && (bits & 1) != 0))
        bits++;
    return (uint16_t)bits;
}

static float from_bf16(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float v;

    memcpy(&v, &bits, 4);
    return v;
}

static mt_status add(struct t *t, struct mt_model *m, const char *name, enum mt_dtype dtype,
                     int64_t rows, int64_t cols, struct mt_tensor **out)
{
    const int64_t shape[2] = {rows, cols};

    MT_TRY(mt_model_add(&t->ctx, m, other, dtype, 2, shape, out));
    (*out)->name = name;
    return MT_OK;
}

/* A random bf16 matrix, as an owned source. */
static mt_status random_bf16(struct t *t, struct mt_model *m, struct mt_rng *rng, int64_t rows,
                             int64_t cols, struct mt_tensor **out, uint16_t **bits)
{
    MT_TRY(add(t, m, "from", MT_BF16, rows, cols, out));
    MT_TRY(mt_arena_alloc(&t->ctx, &m->arena, (size_t)(rows * cols), 2, bits));
    for (int64_t i = 0; i < rows * cols; i++)
        (*bits)[i] = to_bf16((float)mt_rng_normal(rng));
    (*out)->src.kind = MT_SRC_OWNED;
    (*out)->src.owned = *bits;
    return MT_OK;
}

static void random_index(struct mt_rng *rng, int32_t *idx, int64_t n, int64_t limit)
{
    for (int64_t i = 0; i < n; i++)
        idx[i] = (int32_t)mt_rng_below(rng, (uint64_t)limit + 1) - 1;
    /* Runs, which are fetched together, at both ends and in zeros. */
    for (int64_t i = 1; i < n; i++)
        if (mt_rng_below(rng, 2) == 0)
            idx[i] = idx[i - 1] < 0 ? -1 : idx[i - 1] + 1 < limit ? idx[i - 1] + 1 : idx[i];
}

static void gather_round(struct t *t, struct mt_rng *rng, bool by_rows, enum mt_dtype dtype,
                         float scale)
{
    int64_t rows = 1 + (int64_t)mt_rng_below(rng, 9), cols = 1 + (int64_t)mt_rng_below(rng, 9);
    int64_t n = 1 + (int64_t)mt_rng_below(rng, 12), out_rows = by_rows ? n : rows;
    int64_t out_cols = by_rows ? cols : n;
    struct mt_tensor *from, *x;
    struct mt_model *m;
    int32_t idx[12] = {0};
    uint16_t *bits;
    float got[200] = {0};

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, random_bf16(t, m, rng, rows, cols, &from, &bits));
    T_OK(t, add(t, m, "x", dtype, out_rows, out_cols, &x));
    random_index(rng, idx, n, by_rows ? rows : cols);
    if (by_rows)
        T_OK(t, mt_recipe_gather_rows(&t->ctx, m, x, from, idx, n, scale));
    else
        T_OK(t, mt_recipe_gather_cols(&t->ctx, m, x, from, idx, n, scale));
    for (int64_t r = 0; r < out_rows; r++) {
        int64_t many = 1 + (int64_t)mt_rng_below(rng, (uint64_t)(out_rows - r));

        T_OK(t, mt_tensor_fetch_f32(&t->ctx, x, r, many, got));
        for (int64_t i = 0; i < many * out_cols; i++) {
            int64_t row = r + i / out_cols, col = i % out_cols;
            int32_t at = by_rows ? idx[row] : idx[col];
            float want = 0;
            if (at >= 0)
                want = from_bf16(bits[by_rows ? at * cols + col : row * cols + at]) * scale;
            if (dtype == MT_BF16)
                want = from_bf16(to_bf16(want));
            T_CHECK(t, got[i] == want);
        }
    }
    mt_model_free(m);
}

T_TEST(gathers_match_brute_force)
{
    struct mt_rng rng;

    mt_rng_seed(&rng, 11, 0);
    for (int i = 0; i < 400 && !t->failed; i++)
        gather_round(t, &rng, i % 2 == 0, i % 3 == 0 ? MT_F32 : MT_BF16,
                     i % 5 < 2    ? 1.0f
                     : i % 5 == 3 ? 3.0f
                                  : -0.7f);
}

T_TEST(copies_are_exact_to_the_bit)
{
    /* NaN payloads, infinities, denormals, negative zero survive a copy but not arithmetic. */
    static const uint16_t odd[6] = {0x7FC1, 0xFF85, 0x7F80, 0x0001, 0x8000, 0xFFFF};
    const int32_t rows[3] = {2, -1, 0}, cols[2] = {1, -1};
    struct mt_tensor *from, *x, *y, *z;
    uint16_t got[6];
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, add(t, m, "from", MT_BF16, 3, 2, &from));
    from->src.kind = MT_SRC_OWNED;
    from->src.owned = odd;
    T_OK(t, add(t, m, "x", MT_BF16, 3, 2, &x));
    T_OK(t, add(t, m, "y", MT_BF16, 3, 2, &y));
    T_OK(t, add(t, m, "z", MT_BF16, 3, 2, &z));
    T_OK(t, mt_recipe_gather_rows(&t->ctx, m, x, from, rows, 3, 1));
    T_OK(t, mt_tensor_fetch(&t->ctx, x, 0, 3, got));
    T_CHECK(t, got[0] == odd[4] && got[1] == odd[5] && got[2] == 0 && got[4] == odd[0]);
    T_OK(t, mt_recipe_gather_cols(&t->ctx, m, y, from, cols, 2, 1));
    T_OK(t, mt_tensor_fetch(&t->ctx, y, 0, 3, got));
    T_CHECK(t, got[0] == odd[1] && got[1] == 0 && got[4] == odd[5]);
    T_OK(t, mt_recipe_cast(&t->ctx, m, z, from));
    T_OK(t, mt_tensor_fetch(&t->ctx, z, 0, 3, got));
    T_CHECK(t, same_bits(got, odd, sizeof odd));
    mt_model_free(m);
}

T_TEST(integers_are_copied_but_not_scaled)
{
    static const int32_t codes[4] = {1, -2, 3, -4};
    const int32_t idx[2] = {1, 0};
    struct mt_tensor *from, *x;
    struct mt_model *m;
    int32_t got[4];

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, add(t, m, "codes", MT_I32, 2, 2, &from));
    from->src.kind = MT_SRC_OWNED;
    from->src.owned = codes;
    T_OK(t, add(t, m, "x", MT_I32, 2, 2, &x));
    T_OK(t, mt_recipe_gather_rows(&t->ctx, m, x, from, idx, 2, 1));
    T_OK(t, mt_tensor_fetch(&t->ctx, x, 0, 2, got));
    T_CHECK(t, got[0] == 3 && got[3] == -2);
    T_FAILS(t, mt_recipe_gather_rows(&t->ctx, m, x, from, idx, 2, 0.5f), MT_E_UNSUPPORTED,
            "no arithmetic on codes, which is I32");
    T_OK(t, mt_recipe_fill(&t->ctx, m, x, 0));
    T_OK(t, mt_tensor_fetch(&t->ctx, x, 0, 2, got));
    T_CHECK(t, got[0] == 0 && got[3] == 0);
    T_FAILS(t, mt_recipe_fill(&t->ctx, m, x, 1), MT_E_UNSUPPORTED, "filled with 1 as I32");
    mt_model_free(m);
}

T_TEST(recipes_stack_and_read_strided_sources)
{
    float w[12];
    struct mt_map map = {(const unsigned char *)w, sizeof w, "memory"};
    const int32_t rows[4] = {3, 2, -1, 0}, cols[2] = {2, 0};
    struct mt_tensor *turned, *a, *b, *c;
    struct mt_model *m;
    float got[8];

    for (int i = 0; i < 12; i++)
        w[i] = (float)(i + 1);
    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, add(t, m, "turned", MT_F32, 4, 3, &turned)); /* turned[r][c] = w[c*4 + r] */
    turned->src.kind = MT_SRC_SLICE;
    turned->src.slice.map = &map;
    turned->src.slice.stride[0] = 1;
    turned->src.slice.stride[1] = 4;
    T_OK(t, add(t, m, "a", MT_F32, 4, 3, &a));
    T_OK(t, add(t, m, "b", MT_F32, 4, 2, &b));
    T_OK(t, add(t, m, "c", MT_BF16, 4, 2, &c));
    T_OK(t, mt_recipe_gather_rows(&t->ctx, m, a, turned, rows, 4, 1));
    T_OK(t, mt_recipe_gather_cols(&t->ctx, m, b, a, cols, 2, 2));
    T_OK(t, mt_recipe_cast(&t->ctx, m, c, b));
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, c, 0, 4, got));
    for (int i = 0; i < 8; i++) {
        int r = rows[i / 2], k = cols[i % 2];
        T_CHECK(t, got[i] == (r < 0 ? 0 : 2 * w[k * 4 + r]));
    }
    mt_tensor_drop(c);
    mt_model_free(m);
}

T_TEST(vectors_are_gathered_as_columns)
{
    const float bias[4] = {1, 2, 3, 4};
    const int32_t idx[3] = {3, -1, 0};
    const int64_t four = 4, three = 3;
    struct mt_tensor *from, *x;
    struct mt_model *m;
    float got[3];

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, mt_model_add(&t->ctx, m, other, MT_F32, 1, &four, &from));
    T_OK(t, mt_source_floats(&t->ctx, m, from, bias));
    T_OK(t, mt_model_add(&t->ctx, m, other, MT_F32, 1, &three, &x));
    T_OK(t, mt_recipe_gather_cols(&t->ctx, m, x, from, idx, 3, 1));
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, x, 0, 1, got));
    T_CHECK(t, got[0] == 4 && got[1] == 0 && got[2] == 1);
    mt_model_free(m);
}

T_TEST(fill_cast_and_values_in_every_float_dtype)
{
    static const enum mt_dtype types[] = {MT_F64, MT_F32, MT_F16, MT_BF16};
    const float values[4] = {0.5f, -1.25f, 3, 0};
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    for (int i = 0; i < 4; i++) {
        struct mt_tensor *x, *y, *z;
        float got[4];

        T_OK(t, add(t, m, "x", types[i], 2, 2, &x));
        T_OK(t, mt_recipe_fill(&t->ctx, m, x, 1.5f));
        T_OK(t, mt_tensor_fetch_f32(&t->ctx, x, 0, 2, got));
        T_CHECK(t, got[0] == 1.5f && got[3] == 1.5f);
        T_OK(t, add(t, m, "y", types[i], 2, 2, &y));
        T_OK(t, mt_source_floats(&t->ctx, m, y, values));
        T_OK(t, mt_tensor_fetch_f32(&t->ctx, y, 0, 2, got));
        T_CHECK(t, same_bits(got, values, sizeof got));
        for (int k = 0; k < 4; k++) {
            T_OK(t, add(t, m, "z", types[k], 2, 2, &z));
            T_OK(t, mt_recipe_cast(&t->ctx, m, z, y));
            T_OK(t, mt_tensor_fetch_f32(&t->ctx, z, 1, 1, got));
            T_CHECK(t, got[0] == 3 && got[1] == 0);
        }
    }
    mt_model_free(m);
}

T_TEST(lists_that_do_not_fit_are_refused)
{
    const int32_t idx[3] = {0, 1, 2}, low[3] = {0, -2, 1};
    struct mt_tensor *from, *x, *four;
    struct mt_model *m;

    T_OK(t, mt_model_create(&t->ctx, &m));
    T_OK(t, add(t, m, "from", MT_F32, 2, 3, &from));
    T_OK(t, add(t, m, "x", MT_F32, 3, 3, &x));
    T_OK(t, add(t, m, "four", MT_F32, 3, 4, &four));
    T_FAILS(t, mt_recipe_gather_rows(&t->ctx, m, x, from, idx, 3, 1), MT_E_FORMAT,
            "x: no number 2 among the 2 rows of from");
    T_FAILS(t, mt_recipe_gather_rows(&t->ctx, m, x, from, low, 3, 1), MT_E_FORMAT, "no number -2");
    T_FAILS(t, mt_recipe_gather_rows(&t->ctx, m, x, from, idx, 2, 1), MT_E_FORMAT,
            "x has 3 rows, but 2 are picked");
    T_FAILS(t, mt_recipe_gather_rows(&t->ctx, m, four, x, idx, 3, 1), MT_E_FORMAT,
            "four has 4 columns, x has 3");
    T_FAILS(t, mt_recipe_gather_cols(&t->ctx, m, x, from, idx, 3, 1), MT_E_FORMAT,
            "x has 3 rows, from has 2");
    T_FAILS(t, mt_recipe_cast(&t->ctx, m, x, four), MT_E_FORMAT, "differ in shape");
    mt_model_free(m);
}
