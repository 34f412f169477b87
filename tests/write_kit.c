#include "tests/write_kit.h"

#include "formats/table.h"
#include "lib/flow/walk.h"

struct mt_model *open_model(struct t *t, const char *path)
{
    struct mt_model *m;

    if (mt_model_open(&t->ctx, mt_formats, path, &m) == MT_OK)
        return m;
    t_fail(t, __FILE__, __LINE__, "%s: %s", path, mt_error(&t->ctx));
    return NULL;
}

static void check_bytes(struct t *t, const struct mt_walk_result *r)
{
    struct mt_arena a;
    struct mt_map *map;
    struct mt_gguf g;
    uint64_t bytes[MT_DTYPE_COUNT] = {0};

    T_OK(t, gguf_header(t, r->written, &a, &map, &g));
    for (size_t i = 0; i < g.n; i++)
        bytes[g.v[i].dtype] += g.v[i].bytes;
    for (int d = 0; d < MT_DTYPE_COUNT; d++)
        T_EQ_INT(t, r->type_bytes[d], bytes[d]);
    mt_gguf_header_free(&g);
    mt_arena_free(&a);
    mt_map_close(map);
}

mt_status write_format(struct t *t, const struct mt_model *src, const char *format, const char *out,
                       unsigned flags, uint64_t max, char **written)
{
    const struct mt_walk_opts o = {.source = src,
                                   .format = mt_format_writer(format),
                                   .formats = mt_formats,
                                   .out_path = out,
                                   .out_flags = flags,
                                   .write = {.shard_bytes_max = max}};
    struct mt_walk_result r;
    mt_status st = mt_walk_run(&t->ctx, &o, &r);

    if (written != NULL)
        *written = NULL;
    if (st != MT_OK)
        return st;
    if (strcmp(format, "gguf") == 0 && strstr(r.written, "-of-") == NULL)
        check_bytes(t, &r);
    if (written != NULL) {
        *written = r.written;
        r.written = NULL;
    }
    mt_walk_result_free(&r);
    return MT_OK;
}

mt_status gguf_header(struct t *t, const char *path, struct mt_arena *a, struct mt_map **map,
                      struct mt_gguf *g)
{
    mt_arena_init(a);
    MT_TRY(mt_map_open(&t->ctx, path, map));
    return mt_gguf_header_read(&t->ctx, *map, a, g);
}
