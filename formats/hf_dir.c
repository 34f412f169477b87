#include "formats/safetensors.h"
#include "formats/torch_zip.h"
#include "lib/base/path.h"
#include "lib/base/show.h"
#include "lib/flow/walk.h"

#include <stdlib.h>
#include <string.h>

#define HF_CONFIG "config.json"
#define HF_CONFIG_BYTES_MAX (16u << 20)

/* DIR/NAME in the model's arena. */
static mt_status hf_path(struct mt_ctx *ctx, struct mt_model *m, const char *dir, const char *name,
                         const char **out)
{
    size_t n = strlen(dir);

    return mt_arena_printf(ctx, &m->arena, out, "%s%s%s", dir,
                           n > 0 && dir[n - 1] == '/' ? "" : "/", name);
}

mt_status mt_hf_read_config(struct mt_ctx *ctx, struct mt_model *m, const char *dir)
{
    const char *path;

    MT_TRY(hf_path(ctx, m, dir, HF_CONFIG, &path));
    if (!mt_path_exists(path))
        return MT_OK;
    MT_TRY(mt_json_read(ctx, path, HF_CONFIG_BYTES_MAX, &m->config));
    if (mt_json_kind(m->config) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "%s: not an object", path);
    return MT_OK;
}

/* ---- sidecars ---- */

/* Weights, which a changed model must not carry along; what the output gets anew; leftovers. */
static bool hf_stays_behind(const char *name)
{
    static const char *const ends[] = {MT_ST_SUFFIX, ".bin",       ".pt",         ".pth",
                                       ".ckpt",      ".gguf",      ".h5",         ".onnx",
                                       ".msgpack",   ".onnx_data", ".index.json", MT_PARTIAL};
    static const char *const names[] = {HF_CONFIG, "README.md", MT_MANIFEST_NAME, MT_JOURNAL_NAME,
                                        "lock"};

    if (name[0] == '.')
        return true;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (mt_name_ends(name, ends[i]))
            return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

static mt_status hf_add_sidecars(struct mt_ctx *ctx, struct mt_model *m, const char *dir,
                                 char *const *names, size_t n)
{
    MT_TRY(mt_arena_alloc(ctx, &m->arena, n, sizeof *m->sidecars, &m->sidecars));
    for (size_t i = 0; i < n; i++) {
        struct mt_sidecar *sc = &m->sidecars[m->n_sidecars];
        if (hf_stays_behind(names[i]))
            continue;
        MT_TRY(mt_arena_strndup(ctx, &m->arena, names[i], strlen(names[i]), &sc->name));
        MT_TRY(hf_path(ctx, m, dir, names[i], &sc->path));
        m->n_sidecars++;
    }
    return MT_OK;
}

mt_status mt_hf_read_sidecars(struct mt_ctx *ctx, struct mt_model *m, const char *dir)
{
    char **names;
    mt_status st;
    size_t n;

    MT_TRY(mt_path_list(ctx, dir, &names, &n));
    st = hf_add_sidecars(ctx, m, dir, names, n);
    mt_free(names);
    return st;
}

mt_status mt_hf_read_tokenizer(struct mt_ctx *ctx, struct mt_model *m, const char *dir)
{
    static const char *const names[] = {"tokenizer.json",          "tokenizer_config.json",
                                        "special_tokens_map.json", "generation_config.json",
                                        "chat_template.jinja",     NULL};

    MT_TRY(mt_arena_alloc(ctx, &m->arena, sizeof names / sizeof names[0], sizeof *m->sidecars,
                          &m->sidecars));
    for (size_t i = 0; names[i] != NULL; i++) {
        struct mt_sidecar *s = &m->sidecars[m->n_sidecars];
        MT_TRY(hf_path(ctx, m, dir, names[i], &s->path));
        s->name = names[i];
        m->n_sidecars += mt_path_is_file(s->path);
    }
    return MT_OK;
}

/* ---- weights ---- */

static mt_status hf_unmapped(struct mt_ctx *ctx, const struct mt_hf_index *ix, const char *path,
                             const char *name)
{
    char show[MT_SHOW_BYTES], other[MT_SHOW_BYTES];

    mt_show_name(name, show);
    for (size_t i = 0; i < ix->n; i++) {
        if (strcmp(ix->v[i].name, name) == 0)
            return mt_fail(ctx, MT_E_FORMAT, "%s: holds tensor \"%s\", which %s places in %s", path,
                           show, ix->name, mt_show_name(ix->v[i].file, other));
    }
    return mt_fail(ctx, MT_E_FORMAT, "%s: tensor \"%s\" is not in %s", path, show, ix->name);
}

/* Entries [first, end) of the index and the tensors of their shard are the same set. Within a file
 * names are unique, so equal counts and every tensor found say so. */
static mt_status hf_check_shard(struct mt_ctx *ctx, const struct mt_hf_index *ix, size_t first,
                                size_t end, struct mt_tensor *const *t, size_t n, const char *path)
{
    char show[MT_SHOW_BYTES];
    mt_status st = MT_OK;
    bool *seen;

    MT_TRY(mt_alloc0(ctx, end - first, sizeof *seen, "a shard index", &seen));
    for (size_t i = 0; st == MT_OK && i < n; i++) {
        size_t lo = first, hi = end;
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (strcmp(ix->v[mid].name, t[i]->name) < 0)
                lo = mid + 1;
            else
                hi = mid;
        }
        if (lo < end && strcmp(ix->v[lo].name, t[i]->name) == 0)
            seen[lo - first] = true;
        else
            st = hf_unmapped(ctx, ix, path, t[i]->name);
    }
    for (size_t i = first; st == MT_OK && i < end; i++) {
        if (!seen[i - first])
            st = mt_fail(ctx, MT_E_FORMAT, "%s: tensor \"%s\" is missing, though %s places it here",
                         path, mt_show_name(ix->v[i].name, show), ix->name);
    }
    mt_free(seen);
    return st;
}

static void hf_check_total(struct mt_ctx *ctx, const struct mt_model *m,
                           const struct mt_hf_index *ix, const char *path)
{
    uint64_t tensors = 0, files = 0;

    for (size_t i = 0; i < m->n_tensors; i++)
        tensors += mt_tensor_bytes(m->tensors[i]);
    for (size_t i = 0; i < m->n_maps; i++)
        files += m->maps[i]->bytes;
    if (ix->has_total && ix->total != tensors && ix->total != files)
        mt_log(ctx, MT_LOG_WARN,
               "%s: total_size is %llu, but the tensors hold %llu bytes; the tensors are believed",
               path, (unsigned long long)ix->total, (unsigned long long)tensors);
}

static mt_status hf_add_file(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    return mt_name_ends(path, MT_TORCH_SUFFIX) ? mt_torch_add_file(ctx, m, path)
                                               : mt_st_add_file(ctx, m, path);
}

static mt_status hf_add_indexed(struct mt_ctx *ctx, struct mt_model *m, const char *dir,
                                const struct mt_hf_index *ix)
{
    for (size_t first = 0, end; first < ix->n; first = end) {
        size_t before = m->n_tensors;
        const char *path;

        for (end = first + 1; end < ix->n && strcmp(ix->v[end].file, ix->v[first].file) == 0;)
            end++;
        MT_TRY(mt_check_cancel(ctx));
        MT_TRY(hf_path(ctx, m, dir, ix->v[first].file, &path));
        MT_TRY(mt_wrap(ctx, hf_add_file(ctx, m, path), "shard of %s", ix->name));
        MT_TRY(
            hf_check_shard(ctx, ix, first, end, m->tensors + before, m->n_tensors - before, path));
    }
    return MT_OK;
}

static mt_status hf_add_index(struct mt_ctx *ctx, struct mt_model *m, const char *dir,
                              const char *path, const char *suffix)
{
    struct mt_hf_index ix;
    mt_status st = mt_hf_index_read(ctx, path, suffix, &m->arena, &ix);

    if (st == MT_OK)
        st = hf_add_indexed(ctx, m, dir, &ix);
    /* torch counts what tensors share once, so its total proves nothing. */
    if (st == MT_OK && strcmp(suffix, MT_ST_SUFFIX) == 0)
        hf_check_total(ctx, m, &ix, path);
    mt_hf_index_free(&ix);
    return st;
}

struct hf_owner {
    const char *name;
    const struct mt_map *map;
};

static int hf_by_name(const void *a, const void *b)
{
    return strcmp(((const struct hf_owner *)a)->name, ((const struct hf_owner *)b)->name);
}

static mt_status hf_check_twice(struct mt_ctx *ctx, const struct mt_model *m)
{
    char show[MT_SHOW_BYTES];
    struct hf_owner *v;
    mt_status st = MT_OK;

    if (m->n_maps < 2 || m->n_tensors < 2)
        return MT_OK;
    MT_TRY(mt_alloc(ctx, m->n_tensors, sizeof *v, "names of tensors", &v));
    for (size_t i = 0; i < m->n_tensors; i++)
        v[i] = (struct hf_owner){m->tensors[i]->name, m->tensors[i]->src.slice.map};
    qsort(v, m->n_tensors, sizeof *v, hf_by_name);
    for (size_t i = 1; st == MT_OK && i < m->n_tensors; i++) {
        if (strcmp(v[i - 1].name, v[i].name) == 0)
            st = mt_fail(ctx, MT_E_FORMAT,
                         "%s: tensor \"%s\" is in %s too; without " MT_ST_INDEX
                         " it is unclear which counts",
                         v[i].map->path, mt_show_name(v[i].name, show), v[i - 1].map->path);
    }
    mt_free(v);
    return st;
}

static mt_status hf_add_all(struct mt_ctx *ctx, struct mt_model *m, const char *dir)
{
    mt_status st = MT_OK;
    char **names;
    size_t n;

    MT_TRY(mt_path_list(ctx, dir, &names, &n));
    for (size_t i = 0; st == MT_OK && i < n; i++) {
        const char *path;
        if (!mt_name_ends(names[i], MT_ST_SUFFIX))
            continue;
        st = hf_path(ctx, m, dir, names[i], &path);
        if (st == MT_OK)
            st = mt_st_add_file(ctx, m, path);
    }
    mt_free(names);
    return st == MT_OK ? hf_check_twice(ctx, m) : st;
}

/* Weights of torch where there are no others. */
static mt_status hf_add_torch(struct mt_ctx *ctx, struct mt_model *m, const char *dir, bool *found)
{
    const char *single, *index;

    MT_TRY(hf_path(ctx, m, dir, MT_TORCH_SINGLE, &single));
    MT_TRY(hf_path(ctx, m, dir, MT_TORCH_INDEX, &index));
    *found = true;
    if (mt_path_exists(single))
        return mt_torch_add_file(ctx, m, single);
    if (mt_path_exists(index))
        return hf_add_index(ctx, m, dir, index, MT_TORCH_SUFFIX);
    *found = false;
    return MT_OK;
}

static mt_status hf_add_weights(struct mt_ctx *ctx, struct mt_model *m, const char *dir)
{
    const char *single, *index, *snapshots;
    bool has_single, has_index, found;

    MT_TRY(hf_path(ctx, m, dir, MT_ST_SINGLE, &single));
    MT_TRY(hf_path(ctx, m, dir, MT_ST_INDEX, &index));
    MT_TRY(hf_path(ctx, m, dir, "snapshots", &snapshots));
    has_single = mt_path_exists(single);
    has_index = mt_path_exists(index);
    if (has_single && has_index)
        mt_log(ctx, MT_LOG_WARN,
               "%s: both " MT_ST_SINGLE " and " MT_ST_INDEX
               " are here; the single file is read, as the usual loaders do",
               dir);
    if (has_single)
        return mt_st_add_file(ctx, m, single);
    if (has_index)
        return hf_add_index(ctx, m, dir, index, MT_ST_SUFFIX);
    MT_TRY(hf_add_all(ctx, m, dir));
    if (m->n_maps > 0)
        return MT_OK;
    MT_TRY(hf_add_torch(ctx, m, dir, &found));
    if (!found && mt_path_is_dir(snapshots))
        return mt_fail(ctx, MT_E_ABSENT,
                       "%s: a repository of the Hugging Face cache; give Org/Name, or one of the "
                       "directories in %s",
                       dir, snapshots);
    if (!found)
        return mt_fail(ctx, MT_E_ABSENT,
                       "%s: no weights here; looked for " MT_ST_SINGLE ", " MT_ST_INDEX
                       ", *" MT_ST_SUFFIX ", " MT_TORCH_SINGLE " and " MT_TORCH_INDEX,
                       dir);
    m->format = "torch";
    return MT_OK;
}

static mt_status hf_fill(struct mt_ctx *ctx, struct mt_model *m, const char *dir)
{
    m->format = "safetensors";
    MT_TRY(mt_arena_strndup(ctx, &m->arena, dir, strlen(dir), &m->path));
    MT_TRY(mt_hf_read_config(ctx, m, dir));
    MT_TRY(hf_add_weights(ctx, m, dir));
    MT_TRY(mt_hf_read_sidecars(ctx, m, dir));
    MT_TRY(mt_model_bind(ctx, m));
    return strcmp(m->format, "torch") == 0 ? mt_torch_untie(ctx, m) : MT_OK;
}

mt_status mt_hf_dir_open_as(struct mt_ctx *ctx, const char *dir, bool lenient,
                            struct mt_model **out)
{
    struct mt_model *m;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_model_create(ctx, &m));
    st = lenient ? mt_model_be_lenient(ctx, m) : MT_OK;
    if (st == MT_OK)
        st = hf_fill(ctx, m, dir);
    if (st != MT_OK) {
        mt_model_free(m);
        return st;
    }
    *out = m;
    return MT_OK;
}

mt_status mt_hf_dir_open(struct mt_ctx *ctx, const char *dir, struct mt_model **out)
{
    return mt_hf_dir_open_as(ctx, dir, false, out);
}
