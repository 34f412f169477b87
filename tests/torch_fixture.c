#include "tests/torch_fixture.h"

#include <stdlib.h>

struct zf_out {
    unsigned char *p;
    size_t n, cap;
};

static void zf_put(struct zf_out *o, const void *data, size_t n)
{
    if (o->n + n > o->cap) {
        o->cap = (o->n + n) * 2;
        o->p = realloc(o->p, o->cap);
        mt_assert(o->p != NULL);
    }
    if (n > 0)
        memcpy(o->p + o->n, data, n);
    o->n += n;
}

static void zf_num(struct zf_out *o, uint64_t v, unsigned bytes)
{
    unsigned char b[8];

    for (unsigned i = 0; i < bytes; i++)
        b[i] = (unsigned char)(v >> (8 * i));
    zf_put(o, b, bytes);
}

void zf_begin(struct zf *z)
{
    memset(z, 0, sizeof *z);
}

struct zf_member *zf_add(struct zf *z, const char *name, const void *data, size_t n)
{
    struct zf_member *m = &z->v[z->n++];

    mt_assert(z->n <= ZF_MEMBERS);
    *m = (struct zf_member){.name = name,
                            .local_name = name,
                            .data = data,
                            .n = n,
                            .stored = n,
                            .bytes = n,
                            .local_bytes = n};
    return m;
}

static void zf_local(struct zf_out *o, const struct zf_member *m)
{
    static const char padding[256];
    size_t name_n = strlen(m->local_name);

    zf_num(o, 0x04034b50, 4);
    zf_num(o, 20, 2);
    zf_num(o, m->flags, 2);
    zf_num(o, m->method, 2);
    zf_num(o, 0, 8); /* time, date, checksum */
    zf_num(o, m->local_bytes, 4);
    zf_num(o, m->local_bytes, 4);
    zf_num(o, name_n, 2);
    zf_num(o, m->extra, 2);
    zf_put(o, m->local_name, name_n);
    zf_put(o, padding, m->extra);
    zf_put(o, m->data, m->n);
}

static void zf_central(struct zf_out *o, const struct zf_member *m, uint64_t at)
{
    size_t name_n = strlen(m->name);

    zf_num(o, 0x02014b50, 4);
    zf_num(o, 20, 2);
    zf_num(o, 20, 2);
    zf_num(o, m->flags, 2);
    zf_num(o, m->method, 2);
    zf_num(o, 0, 8);
    zf_num(o, m->zip64 || m->no_extra ? UINT32_MAX : m->stored, 4);
    zf_num(o, m->zip64 || m->no_extra ? UINT32_MAX : m->bytes, 4);
    zf_num(o, name_n, 2);
    zf_num(o, m->zip64 ? 28 + 5 : 0, 2);
    zf_num(o, 0, 8); /* comment, disk, attributes */
    zf_num(o, 0, 2);
    zf_num(o, m->zip64 ? UINT32_MAX : at, 4);
    zf_put(o, m->name, name_n);
    if (!m->zip64)
        return;
    zf_num(o, 0x4246, 2); /* a field of another kind first */
    zf_num(o, 1, 2);
    zf_num(o, 0, 1);
    zf_num(o, 1, 2);
    zf_num(o, 24, 2);
    zf_num(o, m->bytes, 8);
    zf_num(o, m->stored, 8);
    zf_num(o, at, 8);
}

static void zf_end(struct zf_out *o, const struct zf *z, uint64_t at)
{
    uint64_t bytes = o->n - at, count = z->count != 0 ? z->count : z->n, record = o->n;
    const char *comment = z->comment != NULL ? z->comment : "";

    at += z->dir_shift;
    if (z->zip64) {
        zf_num(o, 0x06064b50, 4);
        zf_num(o, 44, 8);
        zf_num(o, 45, 2);
        zf_num(o, 45, 2);
        zf_num(o, z->disk, 4);
        zf_num(o, 0, 4);
        zf_num(o, count, 8);
        zf_num(o, count, 8);
        zf_num(o, bytes, 8);
        zf_num(o, at, 8);
        zf_num(o, 0x07064b50, 4);
        zf_num(o, 0, 4);
        zf_num(o, record, 8);
        zf_num(o, 1, 4);
        at = bytes = UINT32_MAX;
        count = 0xffff;
    }
    zf_num(o, 0x06054b50, 4);
    zf_num(o, z->disk, 2);
    zf_num(o, 0, 2);
    zf_num(o, count, 2);
    zf_num(o, count, 2);
    zf_num(o, bytes, 4);
    zf_num(o, at, 4);
    zf_num(o, strlen(comment), 2);
    zf_put(o, comment, strlen(comment));
}

const char *zf_write(struct t *t, const struct zf *z, const char *file)
{
    uint64_t at[ZF_MEMBERS], dir;
    const char *path = t_path(t, file);
    struct zf_out o = {0};

    for (size_t i = 0; i < z->n; i++) {
        at[i] = z->v[i].set_at ? z->v[i].at : o.n;
        zf_local(&o, &z->v[i]);
    }
    dir = o.n;
    for (size_t i = 0; i < z->n; i++)
        zf_central(&o, &z->v[i], at[i]);
    zf_end(&o, z, dir);
    t_write_file(t, path, o.p, o.n > z->cut ? o.n - z->cut : 0);
    free(o.p);
    return path;
}

const char *zf_checkpoint(struct t *t, const char *file, const void *pickle, size_t n_pickle,
                          size_t n_storage)
{
    static char storage[1024];
    struct zf z;

    mt_assert(n_storage <= sizeof storage);
    for (size_t i = 0; i < sizeof storage; i++)
        storage[i] = (char)i;
    zf_begin(&z);
    zf_add(&z, "a/data.pkl", pickle, n_pickle);
    zf_add(&z, "a/byteorder", "little", 6);
    zf_add(&z, "a/data/0", storage, n_storage);
    return zf_write(t, &z, file);
}
