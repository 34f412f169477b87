#include "formats/gguf.h"
#include "lib/base/mem.h"
#include "tests/gguf_fixture.h"

#include <stdlib.h>

static struct gg g;

/* Parses what was built, from a copy of just that size, so that sanitizers see a read behind. */
static mt_status parse(struct t *t, struct mt_arena *a, struct mt_gguf *out, char **copy)
{
    static char name[] = "x.gguf";
    static struct mt_map map;

    *copy = malloc(g.n > 0 ? g.n : 1);
    memcpy(*copy, g.bytes, g.n);
    map = (struct mt_map){.base = (const unsigned char *)*copy, .bytes = g.n, .path = name};
    mt_arena_init(a);
    return mt_gguf_header_read(&t->ctx, &map, a, out);
}

static void release(struct mt_arena *a, struct mt_gguf *h, char *copy)
{
    mt_gguf_header_free(h);
    mt_arena_free(a);
    free(copy);
}

static mt_status refused(struct t *t)
{
    struct mt_arena a;
    struct mt_gguf h;
    char *copy;
    mt_status st = parse(t, &a, &h, &copy);

    release(&a, &h, copy);
    return st;
}

#define REFUSED(status, part) T_FAILS(t, refused(t), status, part)

T_TEST(an_honest_file_is_read)
{
    const uint64_t a[] = {64, 3}, b[] = {5};
    struct mt_arena arena;
    struct mt_gguf h;
    int64_t i;
    double d;
    char *copy;

    gg_begin(&g, 2, 5);
    gg_kv_text(&g, "general.architecture", "llama");
    gg_kv_f32(&g, "llama.eps", 1e-5f);
    gg_key(&g, "llama.i8", 1);
    gg_raw(&g, "\xff", 1);
    gg_key(&g, "llama.heads", 9);
    gg_u32(&g, 5);
    gg_u64(&g, 3);
    for (int k = 0; k < 3; k++)
        gg_u32(&g, 7);
    gg_key(&g, "tokens", 9);
    gg_u32(&g, 8);
    gg_u64(&g, 2);
    gg_text(&g, "a");
    gg_text(&g, "");
    gg_tensor(&g, "q", 2, a, 2, 0); /* Q4_0: 6 blocks of 18 bytes, padded to 128 */
    gg_tensor(&g, "v", 1, b, 0, 128);
    gg_pad(&g, 32);
    gg_data(&g, 148);
    T_OK(t, parse(t, &arena, &h, &copy));
    T_EQ_INT(t, h.n, 2);
    T_EQ_INT(t, h.v[0].dtype, MT_Q4_0);
    T_EQ_INT(t, h.v[0].bytes, 108);
    T_EQ_INT(t, h.v[1].begin, 128);
    T_EQ_INT(t, h.data_offset + 148, g.n);
    T_CHECK(t, !h.headers_only && h.alignment == 32);
    T_OK(t, mt_gguf_num(&t->ctx, &h, "llama.eps", 0, &d));
    T_CHECK(t, d == 1e-5); /* as written, not as rounded */
    T_OK(t, mt_gguf_int(&t->ctx, &h, "llama.i8", 0, &i));
    T_EQ_INT(t, i, -1);
    T_OK(t, mt_gguf_int(&t->ctx, &h, "llama.heads", 0, &i));
    T_EQ_INT(t, i, 7);
    T_OK(t, mt_gguf_int(&t->ctx, &h, "absent", 42, &i));
    T_EQ_INT(t, i, 42);
    T_FAILS(t, mt_gguf_int(&t->ctx, &h, "general.architecture", 0, &i), MT_E_FORMAT,
            "of type string");
    T_FAILS(t, mt_gguf_int(&t->ctx, &h, "tokens", 0, &i), MT_E_FORMAT, "tokens");
    release(&arena, &h, copy);
}

T_TEST(empty_files_scalars_and_zero_sizes_are_read)
{
    const uint64_t none[] = {0, 32};
    struct mt_arena arena;
    struct mt_gguf h;
    char *copy;

    gg_begin(&g, 0, 0);
    T_OK(t, refused(t));
    gg_begin(&g, 2, 0);
    gg_tensor(&g, "scalar", 0, none, 0, 0);
    gg_tensor(&g, "nothing", 2, none, 0, 32);
    gg_pad(&g, 32);
    gg_data(&g, 32);
    T_OK(t, parse(t, &arena, &h, &copy));
    T_EQ_INT(t, h.v[0].bytes, 4);
    T_EQ_INT(t, h.v[1].bytes, 0);
    release(&arena, &h, copy);
}

T_TEST(a_header_without_data_is_told_apart_from_a_truncated_file)
{
    const uint64_t ne[] = {16};
    struct mt_arena arena;
    struct mt_gguf h;
    char *copy;

    gg_begin(&g, 1, 0);
    gg_tensor(&g, "x", 1, ne, 0, 0);
    T_OK(t, parse(t, &arena, &h, &copy));
    T_CHECK(t, h.headers_only);
    release(&arena, &h, copy);
    gg_pad(&g, 32);
    gg_data(&g, 63);
    REFUSED(MT_E_FORMAT, "tensor x ends 1 byte past the end");
}

T_TEST(every_cut_is_refused_or_a_header)
{
    const uint64_t ne[] = {16};
    size_t whole, header;

    gg_begin(&g, 1, 2);
    gg_kv_text(&g, "general.architecture", "llama");
    gg_key(&g, "list", 9);
    gg_u32(&g, 8);
    gg_u64(&g, 1);
    gg_text(&g, "token");
    gg_tensor(&g, "x", 1, ne, 0, 0);
    header = g.n;
    gg_pad(&g, 32);
    gg_data(&g, 64);
    whole = g.n;
    for (size_t n = 0; n <= whole; n++) {
        bool fine = n == whole || (n >= header && n <= whole - 64);
        g.n = n;
        T_EQ_INT(t, refused(t) == MT_OK, fine);
    }
}

T_TEST(magic_version_and_byte_order)
{
    gg_begin(&g, 0, 0);
    g.bytes[0] = 'g';
    REFUSED(MT_E_FORMAT, "does not begin with GGUF");
    gg_begin(&g, 0, 0);
    g.bytes[4] = 1;
    REFUSED(MT_E_UNSUPPORTED, "GGUF version 1");
    gg_begin(&g, 0, 0);
    g.bytes[4] = 4;
    REFUSED(MT_E_UNSUPPORTED, "version 4");
    gg_begin(&g, 0, 0);
    g.bytes[4] = 0, g.bytes[7] = 3;
    REFUSED(MT_E_UNSUPPORTED, "big-endian");
    gg_begin(&g, 0, 0);
    g.bytes[4] = 2;
    T_OK(t, refused(t));
}

T_TEST(counts_that_lie)
{
    static const uint64_t lies[] = {1, 1000, UINT64_MAX, 1ull << 63, 1ull << 62};

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        gg_begin(&g, lies[i], 0);
        REFUSED(MT_E_FORMAT, "");
        gg_begin(&g, 0, lies[i]);
        REFUSED(MT_E_FORMAT, "");
    }
}

T_TEST(keys)
{
    gg_begin(&g, 0, 2);
    gg_kv_u32(&g, "a", 1);
    gg_kv_u32(&g, "a", 2);
    REFUSED(MT_E_FORMAT, "key a is there twice");
    gg_begin(&g, 0, 1);
    gg_kv_u32(&g, "", 1);
    REFUSED(MT_E_FORMAT, "a key is empty");
    gg_begin(&g, 0, 1);
    gg_kv_u32(&g, "\xff\xfe", 1);
    REFUSED(MT_E_FORMAT, "UTF-8");
    gg_begin(&g, 0, 1);
    gg_u64(&g, 3);
    gg_raw(&g, "a\0b", 3);
    gg_u32(&g, 4);
    gg_u32(&g, 4);
    REFUSED(MT_E_FORMAT, "NUL");
    gg_begin(&g, 0, 1);
    gg_u64(&g, 65536);
    gg_data(&g, 60000);
    REFUSED(MT_E_FORMAT, "a key of 65536 bytes");
}

/* Sizes that are claimed are compared with what is there before anything is allocated. */
T_TEST(strings_and_arrays_that_claim_too_much)
{
    static const uint64_t lies[] = {9, 64u << 20, (64u << 20) + 1, 1ull << 31, UINT64_MAX};

    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        gg_begin(&g, 0, 1);
        gg_key(&g, "s", 8);
        gg_u64(&g, lies[i]);
        gg_data(&g, 8);
        REFUSED(MT_E_FORMAT, "");
        for (uint32_t item = 0; item < 13; item++) {
            gg_begin(&g, 0, 1);
            gg_key(&g, "list", 9);
            gg_u32(&g, item);
            gg_u64(&g, lies[i]);
            gg_data(&g, 8);
            REFUSED(MT_E_FORMAT, "");
        }
    }
    T_CHECK(t, mt_mem_peak(&t->ctx) < 1 << 20);
}

T_TEST(types_of_values)
{
    static const uint32_t types[] = {13, 255, 0xffffffff};

    for (size_t i = 0; i < 3; i++) {
        gg_begin(&g, 0, 1);
        gg_key(&g, "k", types[i]);
        gg_u64(&g, 0);
        REFUSED(MT_E_FORMAT, "which is not known");
        gg_begin(&g, 0, 1);
        gg_key(&g, "k", 9);
        gg_u32(&g, types[i]);
        gg_u64(&g, 0);
        REFUSED(MT_E_FORMAT, "which is not known");
    }
    gg_begin(&g, 0, 1);
    gg_key(&g, "k", 9);
    gg_u32(&g, 9);
    gg_u64(&g, 1);
    REFUSED(MT_E_FORMAT, "arrays of arrays");
    gg_begin(&g, 0, 1);
    gg_key(&g, "k", 7);
    gg_raw(&g, "\2", 1);
    REFUSED(MT_E_FORMAT, "boolean of value 2");
}

T_TEST(alignment)
{
    static const uint32_t bad[] = {0, 3, 48, 1u << 21, 1u << 31, 0xffffffff};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gg_begin(&g, 0, 1);
        gg_kv_u32(&g, "general.alignment", bad[i]);
        REFUSED(MT_E_FORMAT, "general.alignment is");
    }
    gg_begin(&g, 0, 1);
    gg_key(&g, "general.alignment", 10);
    gg_u64(&g, 32);
    REFUSED(MT_E_FORMAT, "of type u64");
    gg_begin(&g, 0, 1);
    gg_kv_text(&g, "general.alignment", "32");
    REFUSED(MT_E_FORMAT, "of type string");
    gg_begin(&g, 0, 1);
    gg_kv_u32(&g, "general.alignment", 1u << 20);
    T_OK(t, refused(t));
}

T_TEST(names_of_tensors)
{
    const uint64_t ne[] = {8};
    char name[65];

    memset(name, 'n', 64);
    name[64] = 0;
    gg_begin(&g, 1, 0);
    gg_tensor(&g, name, 1, ne, 0, 0);
    REFUSED(MT_E_FORMAT, "of 64 bytes, at most 63");
    name[63] = 0;
    gg_begin(&g, 1, 0);
    gg_tensor(&g, name, 1, ne, 0, 0);
    T_OK(t, refused(t));
    gg_begin(&g, 2, 0);
    gg_tensor(&g, "a", 1, ne, 0, 0);
    gg_tensor(&g, "a", 1, ne, 0, 32);
    REFUSED(MT_E_FORMAT, "tensor a is there twice");
}

T_TEST(dimensions)
{
    static const uint64_t wraps[][4] = {
        {(1ull << 42) + 1, 1ull << 22, 1, 1},
        {UINT64_MAX, 1, 1, 1},
        {1ull << 63, 1, 1, 1},
        {1ull << 32, 1ull << 32, 1, 1},
        {1ull << 21, 1ull << 21, 1ull << 22, 1},
        {0, 1ull << 62, 1ull << 62, 1},
        {1ull << 60, 4, 4, 4},
    };
    const uint64_t five[] = {1, 1, 1, 1, 1}, odd[] = {33, 2}, one[] = {1ull << 42};

    for (size_t i = 0; i < sizeof wraps / sizeof wraps[0]; i++) {
        gg_begin(&g, 1, 0);
        gg_tensor(&g, "x", 4, wraps[i], 0, 0);
        gg_pad(&g, 32);
        gg_data(&g, 64);
        REFUSED(MT_E_FORMAT, "tensor x");
    }
    gg_begin(&g, 1, 0);
    gg_tensor(&g, "x", 5, five, 0, 0);
    REFUSED(MT_E_FORMAT, "5 dimensions");
    gg_begin(&g, 1, 0);
    gg_text(&g, "x");
    gg_u32(&g, 0xffffffff);
    gg_data(&g, 64);
    REFUSED(MT_E_FORMAT, "4294967295 dimensions");
    gg_begin(&g, 1, 0);
    gg_tensor(&g, "x", 2, odd, 2, 0);
    REFUSED(MT_E_FORMAT, "do not fill blocks of 32");
    /* Dimensions larger than the data: a reader that trusts them reads the heap. */
    gg_begin(&g, 1, 0);
    gg_tensor(&g, "x", 1, one, 1, 0);
    gg_pad(&g, 32);
    gg_data(&g, 64);
    REFUSED(MT_E_FORMAT, "past the end of the file");
}

T_TEST(types_of_tensors)
{
    static const uint32_t bad[] = {4, 5, 31, 32, 33, 36, 37, 38, 43, 1000, 0x7fffffff, 0xffffffff};
    const uint64_t ne[] = {256};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gg_begin(&g, 1, 0);
        gg_tensor(&g, "x", 1, ne, bad[i], 0);
        REFUSED(MT_E_FORMAT, "which is not known");
    }
    for (uint32_t type = 0; type <= 42; type++) {
        enum mt_dtype d;
        if (!mt_gguf_dtype_of((int32_t)type, &d))
            continue;
        T_EQ_INT(t, mt_gguf_type_of(d), type);
        gg_begin(&g, 1, 0);
        gg_tensor(&g, "x", 1, ne, type, 0);
        T_OK(t, refused(t));
    }
    T_EQ_INT(t, mt_gguf_type_of(MT_F8_E4M3), -1);
}

T_TEST(offsets)
{
    const uint64_t ne[] = {8};
    static const uint64_t bad[] = {0, 8, 31, 33, 64, UINT64_MAX, UINT64_MAX - 31};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gg_begin(&g, 2, 0);
        gg_tensor(&g, "a", 1, ne, 0, 0);
        gg_tensor(&g, "b", 1, ne, 0, bad[i]);
        gg_pad(&g, 32);
        gg_data(&g, 128);
        REFUSED(MT_E_FORMAT, "tensor b begins at");
    }
    gg_begin(&g, 1, 0);
    gg_tensor(&g, "a", 1, ne, 0, 32);
    REFUSED(MT_E_FORMAT, "tensor a begins at 32, but 0 follows");
}

T_TEST(sums_of_sizes_that_wrap)
{
    const uint64_t ne[] = {INT64_MAX / 8};

    gg_begin(&g, 5, 0);
    for (uint64_t i = 0; i < 5; i++)
        gg_tensor(&g,
                  i == 0   ? "a"
                  : i == 1 ? "b"
                  : i == 2 ? "c"
                  : i == 3 ? "d"
                           : "e",
                  1, ne, 27, i * 0x8000000000000000u);
    gg_pad(&g, 32);
    gg_data(&g, 64);
    REFUSED(MT_E_FORMAT, "tensor ");
}
