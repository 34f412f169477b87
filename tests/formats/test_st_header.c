#include "formats/st_header.h"

#include "tests/st_fixture.h"

#include <stdlib.h>
#include <unistd.h>

struct header {
    struct mt_st_header h;
    struct mt_arena arena;
};

static mt_status header_read(struct mt_ctx *ctx, const char *path, struct header *x)
{
    struct mt_map *map;

    mt_arena_init(&x->arena);
    x->h = (struct mt_st_header){0};
    MT_TRY(mt_map_open(ctx, path, &map));
    mt_status st = mt_st_header_read(ctx, map, &x->arena, &x->h);
    mt_map_close(map);
    return st;
}

static void header_free(struct header *x)
{
    mt_st_header_free(&x->h);
    mt_arena_free(&x->arena);
}

static mt_status header_try(struct t *t, const char *path)
{
    struct header x;
    mt_status st = header_read(&t->ctx, path, &x);

    header_free(&x);
    return st;
}

#define BAD(t, header, n_data, part)                                                               \
    T_FAILS(t, header_try(t, fx_st(t, "x.safetensors", header, n_data)), MT_E_FORMAT, part)
#define GOOD(t, header, n_data) T_OK(t, header_try(t, fx_st(t, "x.safetensors", header, n_data)))

/* ---- the nine checks, in order ---- */

T_TEST(check_1_the_file_has_a_length)
{
    for (size_t n = 0; n < 8; n++) {
        t_write_file(t, t_path(t, "x"), "\2\0\0\0\0\0\0\0{}", n);
        T_FAILS(t, header_try(t, t_path(t, "x")), MT_E_FORMAT, "too few for a safetensors file");
    }
    t_write_file(t, t_path(t, "x"), "\2\0\0\0\0\0\0\0{}", 10);
    T_OK(t, header_try(t, t_path(t, "x")));
}

T_TEST(check_2_the_header_is_not_too_large)
{
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 100000001, "{}", 2, 0)), MT_E_FORMAT,
            "claims a header of 100000001 bytes, more than the 100000000 allowed");
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", UINT64_MAX, "{}", 2, 0)), MT_E_FORMAT,
            "more than the 100000000 allowed");
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", UINT64_MAX - 7, "{}", 2, 0)), MT_E_FORMAT,
            "more than the 100000000 allowed");
}

T_TEST(check_3_the_header_lies_inside_the_file)
{
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 3, "{}", 2, 0)), MT_E_FORMAT,
            "claims a header of 3 bytes, but only 2 follow");
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 100000000, "{}", 2, 50)), MT_E_FORMAT,
            "claims a header of 100000000 bytes, but only 52 follow");
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 1, "", 0, 0)), MT_E_FORMAT, "but only 0 follow");
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 0, "", 0, 0)), MT_E_FORMAT, "the JSON ends");
}

T_TEST(check_4_the_header_is_json_of_the_expected_types)
{
    BAD(t, "{\"a\xff\":" FX_ENTRY("U8", "1", 0, 1) "}", 1, "not valid UTF-8");
    BAD(t, "{", 0, "the JSON ends");
    BAD(t, "[]", 0, "expected an object");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1", 0, 1), 1, "the JSON ends");
    BAD(t, "{\"a\":1}", 0, "tensor \"a\": header: byte 5: expected an object");
    BAD(t, "{\"a\":[\"U8\",[1],[0,1]]}", 1, "expected an object");
    BAD(t, "{\"a\":{}}", 0, "\"dtype\" is missing");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "\"data_offsets\" is missing");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "\"shape\" is missing");
    BAD(t, "{\"a\":" FX_ENTRY("u8", "1", 0, 1) "}", 1, "unknown dtype \"u8\"");
    BAD(t, "{\"a\":" FX_ENTRY("I4", "1", 0, 1) "}", 1, "unknown dtype \"I4\"");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1.0", 0, 1) "}", 1, "a fraction");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "-1", 0, 1) "}", 1, "a negative number");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "\"1\"", 0, 1) "}", 1, "expected a whole number");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1,", 0, 1) "}", 1, "expected a whole number");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "null", 0, 1) "}", 1, "expected a whole number");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, "expected an array");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "two numbers");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[]}}", 1, "two numbers");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "two numbers");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1", 0, 18446744073709551616) "}", 1, "beyond 64 bits");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1,1,1,1,1,1,1,1,1", 0, 1) "}", 1, "more than 8 dimensions");
    BAD(t, "{\"a\\u0000b\":" FX_ENTRY("U8", "1", 0, 1) "}", 1, "NUL");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1", 0, 1) ",}", 1, "expected a name in quotes");
    BAD(t, "\xef\xbb\xbf{}", 0, "expected an object");
    BAD(t, "{}{}", 0, "text after the end");
}

T_TEST(check_4_keys_are_unique)
{
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1", 0, 1) ",\"a\":" FX_ENTRY("U8", "1", 0, 1) "}", 1,
        "tensor \"a\" is there twice");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1", 0, 1) ",\"\\u0061\":" FX_ENTRY("U8", "1", 1, 2) "}", 2,
        "tensor \"a\" is there twice");
    BAD(t, "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
        "\"dtype\" is there twice");
    BAD(t, "{\"__metadata__\":{},\"__metadata__\":{}}", 0, "\"__metadata__\" is there twice");
    BAD(t, "{\"__metadata__\":{\"k\":\"1\",\"j\":\"\",\"k\":\"2\"}}", 0,
        "metadata key \"k\" is there twice");
}

T_TEST(check_4_metadata_maps_strings_to_strings)
{
    BAD(t, "{\"__metadata__\":{\"a\":1}}", 0, "may hold strings only");
    BAD(t, "{\"__metadata__\":{\"a\":null}}", 0, "may hold strings only");
    BAD(t, "{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "may hold strings only");
    BAD(t, "{\"__metadata__\":[\"a\"]}", 0, "expected an object");
    BAD(t, "{\"__metadata__\":\"a\"}", 0, "expected an object");
    GOOD(t, "{\"__metadata__\":{}}", 0);
    GOOD(t, "{\"__metadata__\":null}", 0);
}

T_TEST(check_5_ranges_follow_each_other)
{
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 4, 8) "}", 8,
        "tensor \"a\": begins at byte 4 of the data, leaving a hole of 4 bytes");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 0, 4) ",\"b\":" FX_ENTRY("U8", "4", 5, 9) "}", 9,
        "tensor \"b\": begins at byte 5 of the data, leaving a hole of 1 byte");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 0, 4) ",\"b\":" FX_ENTRY("U8", "4", 3, 7) "}", 7,
        "tensor \"b\": begins at byte 3 of the data and overlaps \"a\"");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 0, 4) ",\"b\":" FX_ENTRY("U8", "4", 0, 4) "}", 4,
        "overlaps");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 4, 0) "}", 4, "end at byte 0, before they begin at 4");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "1", 0, 1) ",\"b\":" FX_ENTRY("U8", "1", 1, 0) "}", 1,
        "before they begin");
}

T_TEST(check_6_products_do_not_overflow)
{
    BAD(t, "{\"a\":" FX_ENTRY("U8", "2,67108864,67108864,67108864", 0, 16) "}", 16,
        "more elements than any memory holds");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "18446744073709551615", 0, 16) "}", 16, "more elements");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4294967296,4294967296", 0, 0) "}", 0, "more elements");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "0,18446744073709551615", 0, 0) "}", 0, "more elements");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4294967296,4294967296,0", 0, 0) "}", 0, "more elements");
    /* The largest count there is, times 32 bits. */
    BAD(t, "{\"a\":" FX_ENTRY("F32", "1152921504606846975", 0, 16) "}", 16,
        "more bits than 64 bits can count");
    BAD(t, "{\"a\":" FX_ENTRY("F64", "288230376151711744", 0, 0) "}", 0,
        "more bits than 64 bits can count");
}

T_TEST(check_7_types_narrower_than_a_byte_fill_bytes)
{
    BAD(t, "{\"a\":" FX_ENTRY("F4", "1", 0, 1) "}", 1, "1 elements of F4 do not fill whole bytes");
    BAD(t, "{\"a\":" FX_ENTRY("F4", "3,3", 0, 5) "}", 5, "9 elements of F4 do not fill");
    BAD(t, "{\"a\":" FX_ENTRY("F6_E2M3", "2", 0, 2) "}", 2, "do not fill whole bytes");
    GOOD(t, "{\"a\":" FX_ENTRY("F4", "2", 0, 1) "}", 1);
    GOOD(t, "{\"a\":" FX_ENTRY("F6_E3M2", "4", 0, 3) "}", 3);
    GOOD(t, "{\"a\":" FX_ENTRY("F4", "0", 0, 0) "}", 0);
}

T_TEST(check_8_the_range_is_as_long_as_dtype_and_shape_say)
{
    BAD(t, "{\"a\":" FX_ENTRY("I32", "2,2", 0, 4) "}", 4,
        "tensor \"a\": dtype and shape need 16 bytes, but its range has 4");
    BAD(t, "{\"a\":" FX_ENTRY("I32", "2,2", 0, 17) "}", 17, "need 16 bytes");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "", 0, 0) "}", 0, "need 1 bytes");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "0", 0, 1) "}", 1, "need 0 bytes");
    BAD(t, "{\"a\":" FX_ENTRY("F4", "2", 0, 2) "}", 2, "need 1 bytes");
}

T_TEST(check_9_the_data_end_where_the_file_ends)
{
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 0, 4) "}", 2, "ends 2 bytes before its data do");
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 0, 4) "}", 5, "1 byte follows the data");
    BAD(t, "{}", 1, "1 byte follows the data");
    /* A zip archive behind the tensors: one file, two readings. */
    BAD(t, "{\"a\":" FX_ENTRY("U8", "4", 0, 4) "}", 4 + 22, "22 bytes follow the data");
}

T_TEST(earlier_checks_speak_first)
{
    /* Bad in 5 and 8 and 9; then in 8 and 9. */
    BAD(t, "{\"a\":" FX_ENTRY("I32", "9", 1, 2) "}", 7, "leaving a hole");
    BAD(t, "{\"a\":" FX_ENTRY("I32", "9", 0, 2) "}", 7, "need 36 bytes");
    /* Not JSON, and past the end: the length is judged first. */
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 9, "nonsense", 8, 0)), MT_E_FORMAT, "only 8 follow");
}

/* ---- what must be accepted ---- */

T_TEST(accepts_what_the_reference_accepts)
{
    GOOD(t, "{}", 0);
    GOOD(t, " \n\t {} \r\n ", 0);
    GOOD(t, "{\"a\":" FX_ENTRY("U8", "", 0, 1) "}", 1);
    GOOD(t, "{\"a\":" FX_ENTRY("F32", "2,0,3", 0, 0) ",\"b\":" FX_ENTRY("U8", "1", 0, 1) "}", 1);
    GOOD(t, "{\"b\":" FX_ENTRY("U8", "1", 0, 1) ",\"a\":" FX_ENTRY("F32", "0", 1, 1) "}", 1);
    GOOD(t, "{\"\":" FX_ENTRY("U8", "1", 0, 1) "}", 1);
    GOOD(t, "{\"a\":" FX_ENTRY("U8", "1,1,1,1,1,1,1,1", 0, 1) "}", 1);
    GOOD(t,
         "{\"a\":{\"data_offsets\":[0,1],\"x\":[{\"y\":[1.5e3,true]}],\"shape\":[1],"
         "\"dtype\":\"U8\"}}",
         1);
    /* An odd header length: the data are not aligned. */
    GOOD(t, "{\"a\":" FX_ENTRY("F64", "1", 0, 8) "}  ", 8);
    GOOD(t, "{\"a\":" FX_ENTRY("F64", "1", 0, 8) "}   ", 8);
}

T_TEST(refuses_nul_padding_with_an_explanation)
{
    T_FAILS(t, header_try(t, fx_st_raw(t, "x", 8, "{}\0\0\0\0\0\0", 8, 0)), MT_E_FORMAT,
            "padding must be spaces");
}

T_TEST(names_a_pointer_file_for_what_it_is)
{
    const char *text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";

    T_FAILS(t, header_try(t, fx_text(t, "x", text)), MT_E_FORMAT, "Git LFS pointer");
}

T_TEST(records_hold_what_the_header_says)
{
    struct header x;

    T_OK(t, header_read(
                &t->ctx,
                fx_st(t, "x",
                      "{\"z\":" FX_ENTRY("F32", "2,3", 6,
                                         30) ",\"__metadata__\":{\"k\":"
                                             "\"v\\n\",\"format\":\"pt\"},\"a\\u00fc\":" FX_ENTRY(
                                                 "I16", "3", 0, 6) "}",
                      30),
                &x));
    T_EQ_INT(t, x.h.n, 2);
    T_EQ_STR(t, x.h.v[0].name, "a\xc3\xbc");
    T_EQ_INT(t, x.h.v[0].dtype, MT_I16);
    T_EQ_INT(t, x.h.v[0].rank, 1);
    T_EQ_INT(t, x.h.v[0].shape[0], 3);
    T_EQ_STR(t, x.h.v[1].name, "z");
    T_EQ_INT(t, x.h.v[1].begin, 6);
    T_EQ_INT(t, x.h.v[1].end, 30);
    T_EQ_INT(t, x.h.v[1].shape[1], 3);
    T_EQ_INT(t, x.h.n_meta, 2);
    T_EQ_STR(t, x.h.meta[0].key, "k");
    T_EQ_STR(t, x.h.meta[0].value, "v\n");
    T_EQ_STR(t, x.h.meta[1].value, "pt");
    header_free(&x);
}

/* ---- attacks on time and memory ---- */

struct text {
    char *p;
    size_t n, cap;
};

static void add(struct text *s, const char *part)
{
    size_t n = strlen(part);

    if (s->cap - s->n < n)
        s->p = realloc(s->p, s->cap = s->cap * 2 + n + 1024);
    memcpy(s->p + s->n, part, n);
    s->n += n;
}

static const char *save(struct t *t, struct text *s, size_t n_data)
{
    const char *path = fx_st_raw(t, "big", s->n, s->p, s->n, n_data);

    free(s->p);
    return path;
}

static struct text aliased(int n)
{
    struct text s = {0};
    char buf[128];

    add(&s, "{");
    for (int i = 0; i < n; i++) {
        snprintf(buf, sizeof buf, "%s\"tensor_%d\":" FX_ENTRY("F32", "1", 0, 4), i > 0 ? "," : "",
                 i);
        add(&s, buf);
    }
    add(&s, "}");
    return s;
}

T_TEST(json_attack_and_100k_aliases)
{
    struct text s = aliased(10);

    T_FAILS(t, header_try(t, save(t, &s, 4)), MT_E_FORMAT, "overlaps");
    s = aliased(100000);
    T_FAILS(t, header_try(t, save(t, &s, 4)), MT_E_FORMAT, "overlaps");
    T_CHECK(t, mt_mem_peak(&t->ctx) < 24u << 20);
}

/* Reads `path` with `bytes` of counted memory. */
static mt_status header_capped(struct t *t, const char *path, uint64_t bytes)
{
    struct mt_ctx_opts o = {.n_threads = 1, .memory_bytes_max = bytes};
    struct mt_ctx ctx;
    struct header x;
    mt_status st = mt_ctx_open(&ctx, &o);

    if (st != MT_OK)
        return st;
    st = header_read(&ctx, path, &x);
    if (st != MT_OK)
        (void)mt_fail(&t->ctx, st, "%s", mt_error(&ctx));
    header_free(&x);
    mt_ctx_close(&ctx);
    return st;
}

static struct text repeated(const char *before, const char *unit, const char *after, size_t bytes)
{
    struct text s = {0};

    add(&s, before);
    while (s.n < bytes)
        add(&s, unit);
    add(&s, after);
    return s;
}

/* 60 MB of tiny arrays would be gigabytes as a tree; here they cost nothing or are refused. */
T_TEST(a_large_header_of_tiny_values_takes_no_memory)
{
    const size_t mb60 = 60u << 20;
    struct text s = repeated("{\"a\":{\"x\":[[]", ",[]",
                             "],\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", mb60);

    T_OK(t, header_capped(t, save(t, &s, 1), 1u << 20));
    s = repeated("{\"a\":{\"dtype\":\"U8\",\"shape\":[0", ",0", "],\"data_offsets\":[0,0]}}", mb60);
    T_FAILS(t, header_capped(t, save(t, &s, 0), 1u << 20), MT_E_FORMAT, "more than 8 dimensions");
    s = repeated("{\"a\":[[]", ",[]", "]}", mb60);
    T_FAILS(t, header_capped(t, save(t, &s, 0), 1u << 20), MT_E_FORMAT, "expected an object");
}

T_TEST(memory_for_many_tensors_is_charged)
{
    struct text s = aliased(100000);

    T_FAILS(t, header_capped(t, save(t, &s, 4), 2u << 20), MT_E_LIMIT, "--memory");
}

T_TEST(depth_bombs_are_refused)
{
    struct text s = repeated("{\"a\":{\"x\":", "[", "", 1u << 20);

    T_FAILS(t, header_try(t, save(t, &s, 0)), MT_E_FORMAT, "nested deeper than 64");
    s = repeated("{\"a\":{\"x\":", "{\"k\":", "", 1u << 20);
    T_FAILS(t, header_try(t, save(t, &s, 0)), MT_E_FORMAT, "nested deeper than 64");
}

/* ---- damage anywhere ---- */

static const char small[] = "{\"__metadata__\":{\"format\":\"pt\"},\"w\":" FX_ENTRY(
    "F32", "2,2", 0, 16) ",\"b\\n\":" FX_ENTRY("BF16", "2", 16, 20) "}";

T_TEST(a_file_cut_anywhere_is_refused)
{
    const char *path = fx_st(t, "whole", small, 20);
    size_t n;
    char *whole = t_read_file(path, &n);

    T_OK(t, header_try(t, path));
    for (size_t cut = 0; cut < n; cut++) {
        struct mt_map *map;
        struct header x = {0};
        /* A block of exactly this length, so that the sanitizer sees a read past the end. */
        unsigned char *copy = malloc(cut + 1);
        struct mt_map lies = {.base = cut > 0 ? copy + 1 : NULL, .bytes = cut, .path = whole};
        memcpy(copy + 1, whole, cut);
        map = &lies;
        mt_arena_init(&x.arena);
        char name[] = "cut";
        map->path = name;
        mt_status st = mt_st_header_read(&t->ctx, map, &x.arena, &x.h);
        header_free(&x);
        free(copy);
        if (st != MT_E_FORMAT)
            T_FAIL(t, "%zu of %zu bytes: status %d", cut, n, (int)st);
    }
    free(whole);
}

/* Any byte of the header replaced by any other: refused or accepted, but never beyond the data. */
T_TEST(a_header_changed_anywhere_stays_inside_the_file)
{
    const char *path = fx_st(t, "whole", small, 20);
    size_t n;
    char *whole = t_read_file(path, &n);
    int accepted = 0;

    for (size_t at = 0; at < n - 20; at++) {
        for (int v = 0; v < 256; v++) {
            char name[] = "changed", was = whole[at];
            struct mt_map map = {.base = (unsigned char *)whole, .bytes = n, .path = name};
            struct header x = {0};
            mt_arena_init(&x.arena);
            whole[at] = (char)v;
            if (mt_st_header_read(&t->ctx, &map, &x.arena, &x.h) == MT_OK) {
                accepted++;
                T_CHECK(t, x.h.n == 0 || x.h.data_offset + x.h.v[x.h.n - 1].end == n);
            }
            header_free(&x);
            whole[at] = was;
        }
    }
    T_CHECK(t, accepted > 256);
    free(whole);
}
