#include "formats/torch_zip.h"

#include "formats/safetensors.h"
#include "formats/zip_dir.h"
#include "lib/base/path.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- tied tensors ---- */

struct torch_view {
    struct mt_tensor *t;
    size_t at; /* in the model */
};

static int torch_by_view(const void *a, const void *b)
{
    const struct torch_view *va = a, *vb = b;
    const struct mt_tensor *x = va->t, *y = vb->t;
    uintptr_t mx = (uintptr_t)x->src.slice.map, my = (uintptr_t)y->src.slice.map;

    if (mx != my)
        return mx < my ? -1 : 1;
    if (x->src.slice.offset != y->src.slice.offset)
        return x->src.slice.offset < y->src.slice.offset ? -1 : 1;
    if (x->dtype != y->dtype)
        return x->dtype < y->dtype ? -1 : 1;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    for (int i = 0; i < x->rank; i++) {
        if (x->shape[i] != y->shape[i])
            return x->shape[i] < y->shape[i] ? -1 : 1;
        if (x->src.slice.stride[i] != y->src.slice.stride[i])
            return x->src.slice.stride[i] < y->src.slice.stride[i] ? -1 : 1;
    }
    return 0;
}

static int torch_by_view_and_place(const void *a, const void *b)
{
    const struct torch_view *x = a, *y = b;
    int c = torch_by_view(a, b);

    return c != 0 ? c : (x->at > y->at) - (x->at < y->at);
}

/* Would a loader that finds only the first of two equal tensors put the other back? */
static bool torch_is_tied(const struct mt_model *m, const struct mt_tensor *t)
{
    bool tied;

    if (m->family != NULL)
        return m->hp.tied && t->role.kind == MT_ROLE_LM_HEAD && t->role.part == MT_PART_WEIGHT;
    return m->config != NULL &&
           (!mt_json_truth(mt_json_get(m->config, "tie_word_embeddings"), &tied) || tied);
}

static mt_status torch_untie_sorted(struct mt_ctx *ctx, struct mt_model *m, struct torch_view *v,
                                    size_t n)
{
    size_t first = 0;

    qsort(v, n, sizeof *v, torch_by_view_and_place);
    for (size_t i = 1; i < n; i++) {
        if (torch_by_view(&v[first], &v[i]) != 0) {
            first = i;
            continue;
        }
        MT_TRY(mt_check_cancel(ctx));
        if (!torch_is_tied(m, v[i].t))
            continue;
        mt_log(ctx, MT_LOG_INFO, "%s: \"%s\" is \"%s\" again and is read once", m->path,
               v[i].t->name, v[first].t->name);
        mt_model_remove(m, v[i].t);
    }
    return MT_OK;
}

mt_status mt_torch_untie(struct mt_ctx *ctx, struct mt_model *m)
{
    struct torch_view *v;
    mt_status st;
    size_t n = 0;

    MT_TRY(mt_alloc(ctx, m->n_tensors, sizeof *v, "names of tensors", &v));
    for (size_t i = 0; i < m->n_tensors; i++) {
        if (m->tensors[i]->src.kind == MT_SRC_SLICE)
            v[n++] = (struct torch_view){m->tensors[i], i};
    }
    st = torch_untie_sorted(ctx, m, v, n);
    mt_free(v);
    return st;
}

/* ---- the format ---- */

static mt_status torch_read_one(struct mt_ctx *ctx, struct mt_model *m, const char *path)
{
    size_t dir_n = (size_t)(mt_path_base(path) - path);
    const char *dir = ".";

    MT_TRY(mt_arena_strndup(ctx, &m->arena, path, strlen(path), &m->path));
    MT_TRY(mt_torch_add_file(ctx, m, path));
    /* Only the name of a whole model says that the config beside it is its own: optimizers and
     * states of random numbers lie there too. */
    if (strcmp(mt_path_base(path), MT_TORCH_SINGLE) == 0) {
        if (dir_n > 0)
            MT_TRY(mt_arena_strndup(ctx, &m->arena, path, dir_n, &dir));
        MT_TRY(mt_hf_read_config(ctx, m, dir));
        if (m->config != NULL)
            MT_TRY(mt_hf_read_sidecars(ctx, m, dir));
    }
    MT_TRY(mt_model_bind(ctx, m));
    return mt_torch_untie(ctx, m);
}

static mt_status torch_open(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    struct mt_model *m;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_model_create(ctx, &m));
    m->format = "torch";
    st = torch_read_one(ctx, m, path);
    if (st != MT_OK) {
        mt_model_free(m);
        return st;
    }
    *out = m;
    return MT_OK;
}

/* Suffixes that only torch uses, whatever is inside; else the first bytes of a zip archive. */
static bool torch_probe(const char *path)
{
    static const char *const ends[] = {".pt", ".pth", ".ckpt"};
    unsigned char head[4];
    size_t n = 0;
    FILE *f;

    if (!mt_path_is_file(path))
        return false;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        if (mt_name_ends(path, ends[i]))
            return true;
    }
    if (strncmp(mt_path_base(path), "pytorch_model", 13) == 0 &&
        mt_name_ends(path, MT_TORCH_SUFFIX))
        return true;
    f = fopen(path, "rb");
    if (f != NULL) {
        n = fread(head, 1, sizeof head, f);
        fclose(f);
    }
    return mt_zip_has_magic(head, n);
}

const struct mt_format mt_format_torch_zip = {
    .name = "torch",
    .summary = "a checkpoint that torch.save wrote (.pt, .pth, pytorch_model.bin)",
    .probe = torch_probe,
    .open = torch_open,
};
