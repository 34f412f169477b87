#include "lib/base/rng.h"
#include "tests/tiny.h"

#include <stdlib.h>

/* Bit for bit, so that a NaN equals itself and zeros of either sign differ. */
static bool same_bits(const void *a, const void *b, size_t n)
{
    return memcmp(a, b, n) == 0;
}

/* A map that stands on a buffer of the test. */
static struct mt_map memory_map(const void *base, size_t n)
{
    return (struct mt_map){base, n, "memory"};
}

static struct mt_tensor slice(const struct mt_map *map, enum mt_dtype dtype, int rank,
                              const int64_t *shape, const int64_t *stride, uint64_t offset)
{
    struct mt_tensor x = {.dtype = dtype, .rank = rank, .name = "x"};

    x.src.kind = MT_SRC_SLICE;
    x.src.slice.map = map;
    x.src.slice.offset = offset;
    for (int i = 0; i < rank; i++) {
        x.shape[i] = shape[i];
        x.src.slice.stride[i] = stride[i];
    }
    return x;
}

/* Element number `at` (row-major) of a slice, found through its strides alone. */
static const unsigned char *element(const struct mt_tensor *x, int64_t at)
{
    int64_t where = 0;

    for (int i = x->rank - 1; i >= 0; i--) {
        where += at % x->shape[i] * x->src.slice.stride[i];
        at /= x->shape[i];
    }
    return x->src.slice.map->base + x->src.slice.offset +
           (size_t)where * (mt_dtype_bits(x->dtype) / 8);
}

T_TEST(slices_of_any_stride_match_brute_force)
{
    static const enum mt_dtype types[] = {MT_U8, MT_BF16, MT_F32, MT_F64};
    static unsigned char file[200000], got[100000];
    struct mt_rng rng;

    mt_rng_seed(&rng, 7, 0);
    for (size_t i = 0; i < sizeof file; i++)
        file[i] = (unsigned char)mt_rng_u64(&rng);
    for (int round = 0; round < 400; round++) {
        int rank = (int)mt_rng_below(&rng, 5), order[4] = {0, 1, 2, 3};
        int64_t shape[4], stride[4], span = 1;
        struct mt_map map = memory_map(file, sizeof file);

        /* A row-major array with gaps, its axes in any order. */
        for (int i = rank - 1; i > 0; i--) {
            int j = (int)mt_rng_below(&rng, (uint64_t)i + 1), keep = order[i];
            order[i] = order[j];
            order[j] = keep;
        }
        for (int i = 0; i < rank; i++) {
            int d = order[i];
            shape[d] = 1 + (int64_t)mt_rng_below(&rng, 6);
            stride[d] = span * (1 + (int64_t)mt_rng_below(&rng, 2));
            span = stride[d] * shape[d];
        }
        struct mt_tensor x =
            slice(&map, types[round % 4], rank, shape, stride, mt_rng_below(&rng, 100));
        size_t size = mt_dtype_bits(x.dtype) / 8;
        int64_t rows = mt_tensor_rows(&x), cols = mt_tensor_cols(&x);
        int64_t row = (int64_t)mt_rng_below(&rng, (uint64_t)rows);
        int64_t n = 1 + (int64_t)mt_rng_below(&rng, (uint64_t)(rows - row));

        memset(got, 0xAB, sizeof got);
        T_OK(t, mt_tensor_fetch(&t->ctx, &x, row, n, got));
        for (int64_t i = 0; i < n * cols; i++)
            if (!same_bits(got + (size_t)i * size, element(&x, row * cols + i), size))
                T_FAIL(t, "round %d, element %lld differs", round, (long long)i);
        T_CHECK(t, got[(size_t)(n * cols) * size] == 0xAB);
    }
}

T_TEST(experts_of_a_stack_are_slices)
{
    float stack[3][4][2]; /* [E, 2I, H], gate rows first */
    struct mt_map map = memory_map(stack, sizeof stack);
    const int64_t shape[2] = {2, 2}, stride[2] = {2, 1};
    const void *bytes;
    float got[4];

    for (int i = 0; i < 24; i++)
        stack[i / 8][i / 2 % 4][i % 2] = (float)i;
    for (uint64_t e = 0; e < 3; e++) {
        struct mt_tensor up = slice(&map, MT_F32, 2, shape, stride, (e * 8 + 4) * 4);

        T_CHECK(t, mt_tensor_contiguous(&up, &bytes) && bytes == &stack[e][2][0]);
        T_OK(t, mt_tensor_fetch_f32(&t->ctx, &up, 0, 2, got));
        T_CHECK(t, same_bits(got, stack[e][2], sizeof got));
    }
}

T_TEST(transposed_and_interleaved_matrices_are_slices)
{
    float w[3][4];
    struct mt_map map = memory_map(w, sizeof w);
    const int64_t shape[2] = {4, 3}, stride[2] = {1, 4}, half[2] = {3, 2}, step[2] = {4, 2};
    struct mt_tensor turned = slice(&map, MT_F32, 2, shape, stride, 0);
    struct mt_tensor odd = slice(&map, MT_F32, 2, half, step, 4);
    const void *bytes;
    float got[12];

    for (int i = 0; i < 12; i++)
        w[i / 4][i % 4] = (float)i;
    T_CHECK(t, !mt_tensor_contiguous(&turned, &bytes));
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, &turned, 0, 4, got));
    for (int i = 0; i < 12; i++)
        T_CHECK(t, got[i] == w[i % 3][i / 3]);
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, &odd, 1, 2, got));
    T_CHECK(t, got[0] == 5 && got[1] == 7 && got[2] == 9 && got[3] == 11);
}

T_TEST(slices_that_leave_their_file_are_refused)
{
    unsigned char file[64] = {0}, got[64];
    struct mt_map map = memory_map(file, sizeof file);
    const int64_t shape[2] = {4, 4}, stride[2] = {4, 1}, gap[2] = {5, 1};
    const int64_t huge[2] = {INT64_MAX / 2, 1}, back[2] = {-4, 1};
    struct mt_tensor fits = slice(&map, MT_F32, 2, shape, stride, 0);
    struct mt_tensor late = slice(&map, MT_F32, 2, shape, stride, 1);
    struct mt_tensor wide = slice(&map, MT_F32, 2, shape, gap, 0);
    struct mt_tensor over = slice(&map, MT_F32, 2, shape, huge, 0);
    struct mt_tensor down = slice(&map, MT_F32, 2, shape, back, 48);
    struct mt_tensor far = slice(&map, MT_F32, 2, shape, stride, UINT64_MAX - 3);

    T_OK(t, mt_tensor_fetch(&t->ctx, &fits, 0, 4, got));
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &late, 0, 1, got), MT_E_FORMAT, "past the end of memory");
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &wide, 0, 1, got), MT_E_FORMAT, "x: data lies past");
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &over, 0, 1, got), MT_E_FORMAT, "past the end");
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &down, 0, 1, got), MT_E_FORMAT, "past the end");
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &far, 0, 1, got), MT_E_FORMAT, "past the end");
    mt_tensor_drop(&far);
}

T_TEST(empty_and_rank_0_tensors)
{
    float one = 2.5f, got = 0;
    struct mt_map map = memory_map(&one, sizeof one), none = memory_map(NULL, 0);
    const int64_t shape[2] = {3, 0}, stride[2] = {0, 1};
    struct mt_tensor scalar = slice(&map, MT_F32, 0, NULL, NULL, 0);
    struct mt_tensor empty = slice(&none, MT_F32, 2, shape, stride, 0);

    T_EQ_INT(t, mt_tensor_rows(&scalar), 1);
    T_EQ_INT(t, mt_tensor_count(&scalar), 1);
    T_OK(t, mt_tensor_fetch_f32(&t->ctx, &scalar, 0, 1, &got));
    T_CHECK(t, got == 2.5f);
    T_EQ_INT(t, mt_tensor_rows(&empty), 3);
    T_EQ_INT(t, (long long)mt_tensor_bytes(&empty), 0);
    T_OK(t, mt_tensor_fetch(&t->ctx, &empty, 0, 3, &got));
}

T_TEST(floats_from_every_plain_dtype)
{
    unsigned char raw[1 + 6 * 8]; /* one byte off, as in old files */
    static const float want[6] = {0, 1, -2.5f, 0.15625f, 1024, -0.0f};
    const int64_t shape[2] = {2, 3}, stride[2] = {3, 1}, turned[2] = {1, 2};
    struct mt_map map = memory_map(raw, sizeof raw);
    float got[6];

    for (int type = 0; type < 3; type++) {
        enum mt_dtype dtype = type == 0 ? MT_F64 : type == 1 ? MT_F32 : MT_BF16;
        for (int i = 0; i < 6; i++) {
            double d = (double)want[i];
            uint32_t bits;
            memcpy(&bits, &want[i], 4);
            uint16_t half = (uint16_t)(bits >> 16);
            if (type == 0)
                memcpy(raw + 1 + i * 8, &d, 8);
            else if (type == 1)
                memcpy(raw + 1 + i * 4, &bits, 4);
            else
                memcpy(raw + 1 + i * 2, &half, 2);
        }
        struct mt_tensor x = slice(&map, dtype, 2, shape, stride, 1);
        T_OK(t, mt_tensor_fetch_f32(&t->ctx, &x, 0, 2, got));
        T_CHECK(t, same_bits(got, want, sizeof want));
        struct mt_tensor y = slice(&map, dtype, 2, shape, turned, 1);
        T_OK(t, mt_tensor_fetch_f32(&t->ctx, &y, 1, 1, got));
        T_CHECK(t, got[0] == want[1] && got[1] == want[3] && got[2] == want[5]);
        float *all;
        T_OK(t, mt_tensor_load_f32(&t->ctx, &y, &all));
        T_CHECK(t, all[1] == want[2] && all[3] == want[1]);
        mt_free(all);
    }
}

T_TEST(long_strided_tensors_convert_in_pieces)
{
    enum { ROWS = 700, COLS = 100 };
    uint16_t *w = malloc(2 * ROWS * COLS);
    float *got = malloc(4 * ROWS * COLS);
    struct mt_map map = memory_map(w, 2 * ROWS * COLS);
    const int64_t shape[2] = {ROWS, COLS}, stride[2] = {1, ROWS};
    struct mt_tensor x = slice(&map, MT_BF16, 2, shape, stride, 0);
    bool same = true;

    for (int i = 0; i < ROWS * COLS; i++) {
        float v = (float)(i % 251);
        uint32_t bits;
        memcpy(&bits, &v, 4);
        w[i] = (uint16_t)(bits >> 16);
    }
    mt_status st = mt_tensor_fetch_f32(&t->ctx, &x, 0, ROWS, got);
    for (int r = 0; r < ROWS && st == MT_OK; r++)
        for (int c = 0; c < COLS; c++)
            same = same && got[r * COLS + c] == (float)((c * ROWS + r) % 251);
    free(w);
    free(got);
    T_OK(t, st);
    T_CHECK(t, same);
}

T_TEST(what_cannot_be_fetched_says_why)
{
    unsigned char raw[16] = {0};
    struct mt_map map = memory_map(raw, sizeof raw);
    const int64_t shape[1] = {16}, stride[1] = {1};
    struct mt_tensor bytes = slice(&map, MT_U8, 1, shape, stride, 0);
    struct mt_tensor pending = {.role = mt_role(MT_ROLE_FFN_UP, 3, 7),
                                .dtype = MT_F32,
                                .rank = 1,
                                .shape = {4},
                                .planner = "prune"};
    struct mt_tensor alias = pending;
    float got[16];

    alias.src.kind = MT_SRC_ALIAS;
    alias.src.alias = &pending;
    bytes.role = mt_role(MT_ROLE_ROUTER, 1, MT_EXPERT_NONE);
    T_FAILS(t, mt_tensor_fetch_f32(&t->ctx, &bytes, 0, 1, got), MT_E_UNSUPPORTED,
            "layers.1.router: U8 values");
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &pending, 0, 1, got), MT_E_ABSENT,
            "layers.3.experts.7.up_proj: planned by prune");
    T_FAILS(t, mt_tensor_fetch_f32(&t->ctx, &alias, 0, 1, got), MT_E_ABSENT, "planned by prune");
}

T_TEST(aliases_are_looked_through)
{
    const float values[4] = {1, 2, 3, 4};
    struct mt_tensor owner = {.dtype = MT_F32, .rank = 2, .shape = {2, 2}}, a, b;
    const void *bytes;
    float got[2];

    owner.src.kind = MT_SRC_OWNED;
    owner.src.owned = values;
    a = owner;
    a.src.kind = MT_SRC_ALIAS;
    a.src.alias = &owner;
    b = a;
    b.src.alias = &a;
    T_CHECK(t, mt_tensor_origin(&b) == &owner);
    T_CHECK(t, mt_tensor_contiguous(&b, &bytes) && bytes == values);
    T_OK(t, mt_tensor_fetch(&t->ctx, &b, 1, 1, got));
    T_CHECK(t, got[0] == 3 && got[1] == 4);
}

T_TEST(elements_narrower_than_a_byte_come_whole)
{
    unsigned char raw[8] = {1, 2, 3, 4, 5, 6, 7, 8}, got[8];
    struct mt_map map = memory_map(raw, sizeof raw);
    const int64_t even[2] = {2, 4}, odd[2] = {2, 3}, stride[2] = {4, 1}, stride3[2] = {3, 1};
    const int64_t gap[2] = {6, 1};
    struct mt_tensor x = slice(&map, MT_F4, 2, even, stride, 1);
    struct mt_tensor y = slice(&map, MT_F4, 2, odd, stride3, 1);
    struct mt_tensor z = slice(&map, MT_F4, 2, even, gap, 0);

    T_OK(t, mt_tensor_fetch(&t->ctx, &x, 1, 1, got));
    T_CHECK(t, got[0] == 4 && got[1] == 5);
    T_OK(t, mt_tensor_fetch(&t->ctx, &y, 0, 2, got));
    T_CHECK(t, same_bits(got, raw + 1, 3));
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &y, 0, 1, got), MT_E_UNSUPPORTED, "end inside a byte");
    T_FAILS(t, mt_tensor_fetch(&t->ctx, &z, 0, 1, got), MT_E_UNSUPPORTED, "side by side");
}

T_TEST(dropped_pages_come_back)
{
    const char *dir = tiny_write(t, "m", &(struct tiny){.seed = 3});
    struct mt_model *m = tiny_open(t, dir);
    struct mt_tensor *x;
    float *before, *after;

    T_CHECK(t, m != NULL);
    T_OK(t, mt_model_need(&t->ctx, m, mt_role(MT_ROLE_FFN_UP, 1, MT_EXPERT_NONE), &x));
    T_OK(t, mt_tensor_load_f32(&t->ctx, x, &before));
    mt_tensor_drop(x);
    T_OK(t, mt_tensor_load_f32(&t->ctx, x, &after));
    T_CHECK(t, same_bits(before, after, (size_t)mt_tensor_count(x) * 4));
    mt_free(before);
    mt_free(after);
    mt_model_free(m);
}

T_TEST(labels)
{
    struct mt_tensor x = {.role = mt_role(MT_ROLE_FFN_DOWN, 0, MT_EXPERT_SHARED)};
    char buf[64], small[8];

    T_EQ_STR(t, mt_tensor_label(&x, buf, sizeof buf), "layers.0.shared_expert.down_proj");
    x.role = mt_role(MT_ROLE_ATTN_Q, 12, MT_EXPERT_NONE);
    x.role.part = MT_PART_BIAS;
    T_EQ_STR(t, mt_tensor_label(&x, buf, sizeof buf), "layers.12.q_proj.bias");
    T_EQ_STR(t, mt_tensor_label(&x, small, sizeof small), "layers.");
    x.role = mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE);
    T_EQ_STR(t, mt_tensor_label(&x, buf, sizeof buf), "embed_tokens");
    x.role.kind = MT_ROLE_OTHER;
    x.name = "rotary_emb.inv_freq";
    T_EQ_STR(t, mt_tensor_label(&x, buf, sizeof buf), "rotary_emb.inv_freq");
}
