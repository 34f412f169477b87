#include "formats/safetensors.h"

#include "formats/check.h"
#include "formats/st_header.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

bool mt_name_ends(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);

    return n >= s && strcmp(name + n - s, suffix) == 0;
}

void mt_st_strides(const struct mt_tensor *t, int64_t stride[MT_RANK_MAX])
{
    int64_t step = 1;

    memset(stride, 0, MT_RANK_MAX * sizeof *stride);
    for (int i = t->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= t->shape[i];
    }
}

static mt_status safetensors_add(struct mt_ctx *ctx, struct mt_model *m, const struct mt_map *map,
                                 const struct mt_st_header *h)
{
    struct mt_role role = mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE);

    for (size_t i = 0; i < h->n; i++) {
        const struct mt_st_record *r = &h->v[i];
        int64_t shape[MT_RANK_MAX];
        struct mt_tensor *t;

        for (int d = 0; d < r->rank; d++)
            shape[d] = (int64_t)r->shape[d];
        MT_TRY(mt_model_add(ctx, m, role, (enum mt_dtype)r->dtype, r->rank, shape, &t));
        t->name = r->name;
        t->src.kind = MT_SRC_SLICE;
        t->src.slice.map = map;
        t->src.slice.offset = h->data_offset + r->begin;
        mt_st_strides(t, t->src.slice.stride);
    }
    return MT_OK;
}

static mt_status safetensors_add_as(struct mt_ctx *ctx, struct mt_model *m, const char *path,
                                    bool config)
{
    struct mt_st_header h;
    struct mt_map *map;
    mt_status st;

    MT_TRY(mt_map_open(ctx, path, &map));
    MT_TRY(mt_model_own_map(ctx, m, map));
    st = mt_st_header_read(ctx, map, &m->arena, &h);
    if (st == MT_OK)
        st = safetensors_add(ctx, m, map, &h);
    if (st == MT_OK && config)
        st = mt_st_carried_config(ctx, m, path, &h);
    mt_st_header_free(&h);
    return st;
}

mt_status mt_st_add_file(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    return safetensors_add_as(ctx, m, path, false);
}

mt_status mt_st_add_model(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    return safetensors_add_as(ctx, m, path, true);
}

/* "model-00001-of-00003.safetensors": a part, so the config beside it speaks of more than is here.
 */
static bool safetensors_is_shard(const char *path)
{
    static const char form[] = "-00000-of-00000" MT_ST_SUFFIX, one[] = "-of-00001" MT_ST_SUFFIX;
    size_t n = strlen(path), f = sizeof form - 1;

    if (n < f || strcmp(path + n - strlen(one), one) == 0)
        return false;
    for (size_t i = 0; i < f; i++) {
        char c = path[n - f + i];
        if (form[i] == '0' ? !isdigit((unsigned char)c) : c != form[i])
            return false;
    }
    return true;
}

static mt_status safetensors_read_one(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    size_t dir_n = (size_t)(mt_path_base(path) - path);
    const char *dir = ".";

    MT_TRY(mt_st_add_model(ctx, m, path));
    if (m->config == NULL && safetensors_is_shard(path)) {
        mt_log(ctx, MT_LOG_WARN,
               "%s: one shard of several is read by itself; name the directory to read the model",
               path);
        return MT_OK;
    }
    if (dir_n > 0)
        MT_TRY(mt_arena_strndup(ctx, &m->arena, path, dir_n, &dir));
    if (m->config != NULL) /* the file is a model by itself, whatever else lies here */
        return mt_hf_read_tokenizer(ctx, m, dir);
    MT_TRY(mt_hf_read_config(ctx, m, dir));
    return m->config != NULL ? mt_hf_read_sidecars(ctx, m, dir) : MT_OK;
}

static mt_status safetensors_open_file(struct mt_ctx *ctx, const char *path, bool lenient,
                                       struct mt_model **out)
{
    struct mt_model *m;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_model_create(ctx, &m));
    m->format = "safetensors";
    st = lenient ? mt_model_be_lenient(ctx, m) : MT_OK;
    if (st == MT_OK)
        st = mt_arena_strndup(ctx, &m->arena, path, strlen(path), &m->path);
    if (st == MT_OK)
        st = safetensors_read_one(ctx, m, path);
    if (st == MT_OK)
        st = mt_model_bind(ctx, m);
    if (st != MT_OK) {
        mt_model_free(m);
        return st;
    }
    *out = m;
    return MT_OK;
}

/* A blob of the hub's cache has no suffix; its first bytes are a header's length and a brace. */
static bool safetensors_has_magic(const char *path)
{
    unsigned char head[9];
    FILE *f = fopen(path, "rb");
    size_t n = f != NULL ? fread(head, 1, sizeof head, f) : 0;

    if (f != NULL)
        fclose(f);
    return n == sizeof head && mt_le64(head) <= MT_ST_HEADER_MAX && head[8] == '{';
}

static bool safetensors_probe(const char *path)
{
    if (mt_path_is_dir(path))
        return true;
    return mt_path_is_file(path) &&
           (mt_name_ends(path, MT_ST_SUFFIX) || safetensors_has_magic(path));
}

mt_status mt_st_open(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    return mt_path_is_dir(path) ? mt_hf_dir_open_as(ctx, path, false, out)
                                : safetensors_open_file(ctx, path, false, out);
}

mt_status mt_st_open_lenient(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    return mt_path_is_dir(path) ? mt_hf_dir_open_as(ctx, path, true, out)
                                : safetensors_open_file(ctx, path, true, out);
}

const struct mt_format mt_format_safetensors = {
    .name = "safetensors",
    .summary = "Hugging Face directory (config.json and *.safetensors) or one .safetensors file",
    .probe = safetensors_probe,
    .open = mt_st_open,
    .open_lenient = mt_st_open_lenient,
    .check = mt_check_written,
    .plan = mt_st_plan,
    .put = mt_st_put,
    .sync = mt_st_sync,
    .end = mt_st_end,
    .reread = mt_st_reread,
    .place = mt_st_where,
    .free = mt_st_writer_free,
};
