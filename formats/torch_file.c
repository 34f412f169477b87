#include "formats/torch_zip.h"
#include "formats/zip_dir.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TORCH_MEMBER_MAX 4096u

struct torch_file {
    struct mt_ctx *ctx;
    struct mt_model *m;
    const struct mt_map *map;
    struct mt_zip zip;
    const char *prefix; /* "archive", in the arena */
    const char *what;   /* "model.pt: data.pkl" */
};

/* ---- what is not read ---- */

static const char torch_again[] =
    "load it with torch and save it again: torch.save(torch.load(OLD, map_location=\"cpu\", "
    "weights_only=True), NEW)";

static mt_status torch_not_zip(struct mt_ctx *ctx, const struct mt_map *map)
{
    /* A pickle of the integer 0x1950a86a20f9469cfc6c. */
    static const char legacy[] = "\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
    static const char lfs[] = "version https://git-lfs";
    const char *p = (const char *)map->base;
    uint64_t n = map->bytes;

    if (n >= 2 + sizeof legacy - 1 && p[0] == '\x80' &&
        memcmp(p + 2, legacy, sizeof legacy - 1) == 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: written in the format of torch before 1.6, which is not read; %s",
                       map->path, torch_again);
    if (n >= 262 && memcmp(p + 257, "ustar", 5) == 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: a tar archive, the format of torch before 0.1.10, which is not read; "
                       "%s",
                       map->path, torch_again);
    if (n >= sizeof lfs - 1 && memcmp(p, lfs, sizeof lfs - 1) == 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s: a pointer of git-lfs, not the file itself; git lfs pull fetches it",
                       map->path);
    if (n >= 2 && p[0] == '\x80' && p[1] <= 5)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: a bare pickle, not a checkpoint of torch.save; %s", map->path,
                       torch_again);
    return mt_fail(ctx, MT_E_FORMAT, "%s: not a checkpoint of torch.save: no zip archive",
                   map->path);
}

/* ---- members ---- */

static const struct mt_zip_entry *torch_member(const struct torch_file *f, const char *name,
                                               size_t n)
{
    char full[TORCH_MEMBER_MAX];
    size_t prefix_n = strlen(f->prefix);

    if (prefix_n + n + 2 > sizeof full || memchr(name, '\0', n) != NULL)
        return NULL;
    memcpy(full, f->prefix, prefix_n);
    full[prefix_n] = '/';
    memcpy(full + prefix_n + 1, name, n);
    full[prefix_n + 1 + n] = '\0';
    return mt_zip_find(&f->zip, full);
}

/* The one directory with a data.pkl, however it is called. */
static mt_status torch_find_prefix(struct torch_file *f)
{
    static const char tail[] = "/data.pkl";
    size_t tail_n = sizeof tail - 1;

    for (size_t i = 0; i < f->zip.n; i++) {
        const char *name = f->zip.v[i].name;
        size_t n = strlen(name);
        if (n <= tail_n || strcmp(name + n - tail_n, tail) != 0 ||
            memchr(name, '/', n - tail_n) != NULL)
            continue;
        if (f->prefix != NULL)
            return mt_fail(f->ctx, MT_E_FORMAT, "%s: both \"%s%s\" and \"%s\" describe objects",
                           f->map->path, f->prefix, tail, name);
        MT_TRY(mt_arena_strndup(f->ctx, &f->m->arena, name, n - tail_n, &f->prefix));
    }
    if (f->prefix == NULL)
        return mt_fail(f->ctx, MT_E_FORMAT,
                       "%s: a zip archive, but no checkpoint of torch.save: no member NAME%s",
                       f->map->path, tail);
    return MT_OK;
}

static mt_status torch_check_members(struct torch_file *f)
{
    const struct mt_zip_entry *order = torch_member(f, "byteorder", 9);
    const char *text;

    if (torch_member(f, "constants.pkl", 13) != NULL)
        return mt_fail(f->ctx, MT_E_UNSUPPORTED,
                       "%s: a TorchScript program, not a checkpoint; load it with torch.jit.load "
                       "and save its state_dict()",
                       f->map->path);
    MT_TRY(mt_zip_all_stored(f->ctx, &f->zip));
    if (order == NULL) /* torch before 2.1; on the machines that matter, little */
        return MT_OK;
    text = (const char *)f->map->base + order->offset;
    if (order->bytes == 3 && memcmp(text, "big", 3) == 0)
        return mt_fail(f->ctx, MT_E_UNSUPPORTED,
                       "%s: numbers are stored big-endian; load it with torch and save it on a "
                       "little-endian machine",
                       f->map->path);
    if (order->bytes != 6 || memcmp(text, "little", 6) != 0)
        return mt_fail(f->ctx, MT_E_FORMAT, "%s: member byteorder says neither little nor big",
                       f->map->path);
    return MT_OK;
}

/* ---- tensors ---- */

static mt_status torch_storage(const struct torch_file *f, const struct mt_pickle_storage *s,
                               const char *name, const struct mt_zip_entry **e)
{
    char member[TORCH_MEMBER_MAX] = "data/", show[MT_SHOW_BYTES], key[MT_SHOW_BYTES];
    size_t at = strlen(member);
    uint64_t bytes;

    *e = NULL;
    if (s->key.n < sizeof member - at) {
        memcpy(member + at, s->key.s, s->key.n);
        *e = torch_member(f, member, at + s->key.n);
    }
    if (*e == NULL)
        return mt_fail(f->ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": its storage, member data/%s, is missing", f->map->path,
                       mt_show_name(name, show), mt_show_text(s->key.s, s->key.n, key));
    if (!mt_size_mul(s->count, s->untyped ? 1 : mt_dtype_bits(s->dtype) / 8, &bytes) ||
        bytes != (*e)->bytes)
        return mt_fail(f->ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\": its storage claims %" PRIu64
                       " %s, but member data/%s has %" PRIu64 " bytes",
                       f->map->path, mt_show_name(name, show), s->count,
                       s->untyped ? "bytes" : mt_dtype_name(s->dtype),
                       mt_show_text(s->key.s, s->key.n, key), (*e)->bytes);
    return MT_OK;
}

/* True when every element of the view lies in the storage's bytes. */
static bool torch_view_fits(const struct mt_pickle_tensor *v, uint64_t bytes)
{
    uint64_t last = (uint64_t)v->offset, step, size = mt_dtype_bits(v->dtype) / 8;

    for (int i = 0; i < v->rank; i++) {
        if (v->shape[i] == 0)
            return true;
    }
    for (int i = 0; i < v->rank; i++) {
        if (!mt_size_mul((uint64_t)v->shape[i] - 1, (uint64_t)v->stride[i], &step) ||
            last > UINT64_MAX - step)
            return false;
        last += step;
    }
    return last < bytes / size;
}

static mt_status torch_add_tensor(const struct torch_file *f, const struct mt_torch_found *found)
{
    const struct mt_pickle_tensor *v = found->tensor;
    struct mt_role role = mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE);
    const struct mt_zip_entry *e;
    char show[MT_SHOW_BYTES];
    struct mt_tensor *t;
    mt_status st;

    MT_TRY(torch_storage(f, v->storage, found->name, &e));
    mt_assert(e != NULL);
    if (!torch_view_fits(v, e->bytes))
        return mt_fail(f->ctx, MT_E_FORMAT,
                       "%s: tensor \"%s\" reaches beyond its storage of %" PRIu64 " bytes",
                       f->map->path, mt_show_name(found->name, show), e->bytes);
    st = mt_model_add(f->ctx, f->m, role, v->dtype, v->rank, v->shape, &t);
    if (st != MT_OK)
        return mt_wrap(f->ctx, st, "%s: tensor \"%s\"", f->map->path,
                       mt_show_name(found->name, show));
    t->name = found->name;
    t->src.kind = MT_SRC_SLICE;
    t->src.slice.map = f->map;
    t->src.slice.offset = e->offset;
    if (mt_tensor_count(t) > 0)
        t->src.slice.offset += (uint64_t)v->offset * (mt_dtype_bits(v->dtype) / 8);
    /* Of a dimension of one element no step is taken, and torch writes anything there. */
    for (int i = 0; i < v->rank; i++)
        t->src.slice.stride[i] = v->shape[i] > 1 ? v->stride[i] : 1;
    return MT_OK;
}

/* ---- the file ---- */

/* What was chosen comes first among the notes, so that people can see it later too. */
static mt_status torch_tell(struct torch_file *f, struct mt_torch_tree *tree,
                            const struct mt_note **told)
{
    char elsewhere[MT_SHOW_BYTES + 64] = "", show[MT_SHOW_BYTES];
    struct mt_note *note;

    *told = NULL;
    if (tree->n_untold > 0)
        mt_log(f->ctx, MT_LOG_INFO, "%s: %zu more values besides tensors are not listed",
               f->map->path, tree->n_untold);
    if (tree->n_elsewhere > 0)
        snprintf(elsewhere, sizeof elsewhere, "; %zu elsewhere, such as \"%s\", are left alone",
                 tree->n_elsewhere, mt_show_name(tree->elsewhere, show));
    if (tree->under == NULL && tree->prefix_off == NULL)
        return MT_OK;
    MT_TRY(mt_arena_alloc(f->ctx, &f->m->arena, 1, sizeof *note, &note));
    note->name = "tensors";
    MT_TRY(mt_arena_printf(f->ctx, &f->m->arena, &note->text, "those under \"%s%s%s\"%s",
                           tree->under != NULL ? tree->under : "",
                           tree->under != NULL && tree->prefix_off != NULL ? "." : "",
                           tree->prefix_off != NULL ? tree->prefix_off : "", elsewhere));
    mt_log(f->ctx, MT_LOG_INFO, "%s: tensors are %s", f->map->path, note->text);
    *told = note;
    return MT_OK;
}

static mt_status torch_keep_notes(struct torch_file *f, struct mt_torch_tree *tree)
{
    struct mt_model *m = f->m;
    const struct mt_note *told;
    struct mt_note *all;
    size_t n;

    MT_TRY(torch_tell(f, tree, &told));
    n = m->n_notes + tree->n_notes + (told != NULL ? 1 : 0);
    if (n == m->n_notes)
        return MT_OK;
    MT_TRY(mt_arena_alloc(f->ctx, &m->arena, n, sizeof *all, &all));
    if (m->n_notes > 0)
        memcpy(all, m->notes, m->n_notes * sizeof *all);
    if (told != NULL)
        all[m->n_notes++] = *told;
    if (tree->n_notes > 0)
        memcpy(all + m->n_notes, tree->notes, tree->n_notes * sizeof *all);
    m->notes = all;
    m->n_notes = n;
    return MT_OK;
}

static mt_status torch_add_tree(struct torch_file *f, struct mt_torch_tree *tree)
{
    if (tree->n == 0)
        return mt_fail(f->ctx, MT_E_FORMAT, "%s: holds no tensors%s", f->map->path,
                       tree->n_notes > 0 ? ", only other values" : "");
    for (size_t i = 0; i < tree->n; i++)
        MT_TRY(torch_add_tensor(f, &tree->v[i]));
    return torch_keep_notes(f, tree);
}

static mt_status torch_read_objects(struct torch_file *f, struct mt_arena *objects)
{
    const struct mt_zip_entry *pkl = torch_member(f, "data.pkl", 8);
    const struct mt_pickle *root;
    struct mt_torch_tree tree;
    mt_status st;

    MT_TRY(mt_arena_printf(f->ctx, &f->m->arena, &f->what, "%s: data.pkl", f->map->path));
    MT_TRY(mt_pickle_read(f->ctx, f->map->base + pkl->offset, (size_t)pkl->bytes, f->what, objects,
                          &root));
    st = mt_torch_tree_read(f->ctx, root, f->what, &f->m->arena, &tree);
    if (st == MT_OK)
        st = torch_add_tree(f, &tree);
    mt_torch_tree_free(&tree);
    return st;
}

static mt_status torch_read_zip(struct torch_file *f)
{
    struct mt_arena objects;
    mt_status st;

    MT_TRY(mt_zip_read(f->ctx, f->map, &f->m->arena, &f->zip));
    MT_TRY(torch_find_prefix(f));
    MT_TRY(torch_check_members(f));
    mt_arena_init(&objects);
    st = torch_read_objects(f, &objects);
    mt_arena_free(&objects);
    return st;
}

mt_status mt_torch_add_map(struct mt_ctx *ctx, struct mt_model *m, const struct mt_map *map)
{
    struct torch_file f = {.ctx = ctx, .m = m, .map = map};
    mt_status st;

    if (!mt_zip_has_magic(map->base, (size_t)map->bytes))
        return torch_not_zip(ctx, map);
    st = torch_read_zip(&f);
    mt_zip_free(&f.zip);
    return st;
}

mt_status mt_torch_add_file(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    struct mt_map *map;

    MT_TRY(mt_map_open(ctx, path, &map));
    MT_TRY(mt_model_own_map(ctx, m, map));
    return mt_torch_add_map(ctx, m, map);
}
