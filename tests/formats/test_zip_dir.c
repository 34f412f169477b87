#include "formats/zip_dir.h"

#include "tests/torch_fixture.h"

static mt_status zip_try(struct t *t, const char *path)
{
    struct mt_arena a;
    struct mt_map *map;
    struct mt_zip z;
    mt_status st;

    mt_arena_init(&a);
    MT_TRY(mt_map_open(&t->ctx, path, &map));
    st = mt_zip_read(&t->ctx, map, &a, &z);
    if (st == MT_OK)
        st = mt_zip_all_stored(&t->ctx, &z);
    mt_zip_free(&z);
    mt_arena_free(&a);
    mt_map_close(map);
    return st;
}

/* Members "a/x" (3 bytes) and "a/y" (5 bytes, behind a padded header). */
static struct zf *two(void)
{
    static struct zf z;

    zf_begin(&z);
    zf_add(&z, "a/y", "12345", 5)->extra = 37;
    zf_add(&z, "a/x", "abc", 3);
    return &z;
}

static const char *write_two(struct t *t)
{
    return zf_write(t, two(), "m.zip");
}

static void check_two(struct t *t, const char *path)
{
    const struct mt_zip_entry *e;
    struct mt_arena a;
    struct mt_map *map;
    struct mt_zip z;

    mt_arena_init(&a);
    T_OK(t, mt_map_open(&t->ctx, path, &map));
    T_OK(t, mt_zip_read(&t->ctx, map, &a, &z));
    T_EQ_INT(t, z.n, 2);
    e = mt_zip_find(&z, "a/y");
    T_CHECK(t, e != NULL && e->bytes == 5 && memcmp(map->base + e->offset, "12345", 5) == 0);
    e = mt_zip_find(&z, "a/x");
    T_CHECK(t, e != NULL && e->bytes == 3 && memcmp(map->base + e->offset, "abc", 3) == 0);
    T_CHECK(t, mt_zip_find(&z, "a/") == NULL && mt_zip_find(&z, "a/z") == NULL);
    mt_zip_free(&z);
    mt_arena_free(&a);
    mt_map_close(map);
}

T_TEST(members_are_found_where_they_lie)
{
    struct zf *z;

    check_two(t, write_two(t));
    z = two();
    z->comment = "a comment with PK\5\6 in it, which is no end record of its own ..........";
    check_two(t, zf_write(t, z, "m.zip"));
    /* Sizes behind the data instead of in front. */
    z = two();
    z->v[0].flags = z->v[1].flags = 0x808;
    z->v[0].local_bytes = z->v[1].local_bytes = 0;
    check_two(t, zf_write(t, z, "m.zip"));
}

T_TEST(zip64_is_read)
{
    struct zf *z = two();

    z->zip64 = true;
    check_two(t, zf_write(t, z, "m.zip"));
    z->v[0].zip64 = z->v[1].zip64 = true;
    z->v[0].local_bytes = UINT32_MAX;
    check_two(t, zf_write(t, z, "m.zip"));
    z = two();
    z->v[1].no_extra = true;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" has no zip64 field");
}

T_TEST(what_is_cut_off_is_no_archive)
{
    struct zf *z = two();

    for (z->cut = 1; z->cut < 400; z->cut++)
        T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "not a whole zip archive");
}

T_TEST(a_directory_must_be_where_its_record_says)
{
    struct zf *z = two();

    z->dir_shift = 1;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "not where its end record says");
    z->zip64 = true;
    z->dir_shift = (uint64_t)-50;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "not where its end record says");
    z = two();
    z->count = 3;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "too short for its members");
    z->count = 1;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "more than its members");
    z = two();
    z->zip64 = true;
    z->count = UINT64_MAX;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "too short for its members");
    z = two();
    z->disk = 1;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "several disks");
    z->zip64 = true;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "several disks");
    zf_begin(z);
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "no members");
}

T_TEST(members_must_tell_one_story)
{
    struct zf *z = two();

    z->v[0].local_name = "a/q";
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/y\" has another name");
    z = two();
    z->v[0].local_bytes = 4;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/y\" has another size");
    z = two();
    z->v[0].bytes = 4;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "its two sizes differ");
    /* Longer than it is: into the next member, into the directory, past the end. */
    z = two();
    z->v[0].bytes = z->v[0].stored = z->v[0].local_bytes = 6;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" overlaps another");
    z = two();
    z->v[1].bytes = z->v[1].stored = z->v[1].local_bytes = 4;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" leaves the file");
    z = two();
    z->v[1].bytes = z->v[1].stored = z->v[1].local_bytes = UINT64_MAX - 8;
    z->v[1].zip64 = true;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" leaves the file");
    z = two();
    z->v[1].set_at = true;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" has another name");
    z->v[1].at = 1;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" has no header");
    z->v[1].at = UINT64_MAX;
    z->v[1].zip64 = true;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/x\" has no header");
}

T_TEST(the_same_bytes_under_one_name_twice_are_refused)
{
    struct zf *z = two();

    z->v[1].name = z->v[1].local_name = "a/y";
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/y\" is there twice");
    z = two();
    z->v[1] = z->v[0];
    z->v[1].set_at = true;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "overlaps another member");
}

T_TEST(names_stay_inside)
{
    static const char *const bad[] = {"../x", "a/../x", "/x", "a\\x",   "a//x",
                                      "..",   "a\nb",   "",   "a/\xff", "a/.."};
    static const char *const good[] = {"x", "a/...", "a/..b", "a/.data/x", "a/", "\xc3\xa9/1"};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct zf *z = two();
        z->v[1].name = z->v[1].local_name = bad[i];
        T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "is no name for a member");
    }
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct zf *z = two();
        z->v[1].name = z->v[1].local_name = good[i];
        T_OK(t, zip_try(t, zf_write(t, z, "m.zip")));
    }
}

T_TEST(what_cannot_be_mapped_is_refused_by_name)
{
    struct zf *z = two();

    z->v[1].method = 8;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_UNSUPPORTED,
            "m.zip: member \"a/x\" is compressed (deflate); torch.save stores members");
    z->v[1].method = 93;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_UNSUPPORTED, "\"a/x\" is compressed;");
    z = two();
    z->v[0].flags = 1;
    T_FAILS(t, zip_try(t, zf_write(t, z, "m.zip")), MT_E_FORMAT, "\"a/y\" is encrypted");
}

T_TEST(running_out_of_memory_is_survived)
{
    const char *path = write_two(t);
    mt_status st = MT_E_NOMEM;

    for (uint64_t n = 1; n < 50 && st != MT_OK; n++) {
        mt_fault_alloc(n);
        st = zip_try(t, path);
        mt_fault_alloc(0);
        T_EQ_INT(t, mt_mem_used(&t->ctx), 0);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
    }
    T_EQ_INT(t, st, MT_OK);
}
