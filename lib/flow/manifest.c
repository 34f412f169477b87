#include "lib/flow/manifest.h"

#include "kernels/linalg.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/flow/profile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST_BYTES_MAX ((size_t)64 << 20)

static void manifest_sizes(struct mt_json *obj, const struct mt_model *m)
{
    struct mt_model_size size;

    mt_model_measure(m, &size);
    mt_json_set_int(obj, "tensors", (int64_t)m->n_tensors);
    mt_json_set_int(obj, "bytes", (int64_t)size.bytes);
    mt_json_set_int(obj, "parameters", (int64_t)size.params_total);
    mt_json_set_int(obj, "parameters_active", (int64_t)size.params_active);
}

static void manifest_ffn(struct mt_json *target, const struct mt_model *m)
{
    const struct mt_ffn *f = NULL;
    struct mt_json *o, *live;
    int n_moe = 0;

    for (int l = 0; m->ffn != NULL && l < m->hp.n_layers; l++) {
        n_moe += m->ffn[l].moe;
        if (f == NULL || (m->ffn[l].moe && !f->moe))
            f = &m->ffn[l];
    }
    if (f == NULL)
        return;
    o = mt_json_set_object(target, "ffn");
    mt_json_set_int(o, "layers", m->hp.n_layers);
    mt_json_set_int(o, "moe_layers", n_moe);
    mt_json_set_int(o, "hidden", m->hp.hidden);
    mt_json_set_int(o, "width", f->width);
    if (!f->moe)
        return;
    mt_json_set_int(o, "experts", f->n_experts);
    mt_json_set_int(o, "active", f->k);
    double mean = mt_model_mean_active(m);
    if (mean < f->k || mean > f->k)
        mt_json_set_num(o, "active_mean", mean);
    mt_json_set_int(o, "shared_width", f->shared_width);
    if (m->live_experts == NULL)
        return;
    live = mt_json_set_array(o, "live_experts");
    for (int l = 0; l < m->hp.n_layers; l++)
        mt_json_add_int(live, m->live_experts[l]);
}

/* Names of files are told without their directories. */
static const char *manifest_value(const struct mt_opt *row, const char *text)
{
    bool file = row->kind == MT_OPT_KIND_STR && row->arg != NULL &&
                (strstr(row->arg, "FILE") != NULL || strstr(row->arg, "DIR") != NULL ||
                 strstr(row->arg, "PATH") != NULL);

    return file ? mt_path_base(text) : text;
}

static void manifest_option(struct mt_json *o, const struct mt_opt *row, const void *values)
{
    char text[512], *end;

    mt_opt_print(row, values, text, sizeof text);
    if (row->kind == MT_OPT_KIND_BOOL)
        mt_json_set_bool(o, row->name, *(const bool *)((const char *)values + row->offset));
    else if (row->kind == MT_OPT_KIND_INT)
        mt_json_set_int(o, row->name, (int64_t)strtoll(text, &end, 10));
    else if (row->kind == MT_OPT_KIND_NUM)
        mt_json_set_num(o, row->name, strtod(text, &end));
    else if (row->kind == MT_OPT_KIND_STR &&
             *(const char *const *)(const void *)((const char *)values + row->offset) == NULL)
        mt_json_set_null(o, row->name);
    else
        mt_json_set_str(o, row->name, manifest_value(row, text));
}

static void manifest_passes(struct mt_json *m, const struct mt_walk_opts *o)
{
    struct mt_json *list = mt_json_set_array(m, "passes");

    for (int i = 0; i < o->n_passes; i++) {
        const struct mt_pass *p = o->passes[i].pass;
        struct mt_json *one = mt_json_add_object(list), *opts;
        mt_json_set_str(one, "name", p->name);
        opts = mt_json_set_object(one, "options");
        for (const struct mt_opt *row = p->opts; row != NULL && row->name != NULL; row++)
            manifest_option(opts, row, o->passes[i].opts);
    }
}

static void manifest_data(struct mt_json *m, const struct mt_dataset *d)
{
    struct mt_json *o = mt_json_set_object(m, "data"), *names;

    mt_json_set_str(o, "sha256", d->sha256);
    mt_json_set_int(o, "windows", (int64_t)d->n_windows);
    mt_json_set_int(o, "tokens", (int64_t)d->n_tokens);
    names = mt_json_set_array(o, "domains");
    for (int i = 0; i < d->n_domains; i++)
        mt_json_add_str(names, d->domains[i]);
}

static void manifest_profile(struct mt_json *m, const struct mt_profile *p)
{
    struct mt_json *o = mt_json_set_object(m, "profile"), *list;
    char hex[65];

    mt_profile_identity(p, hex);
    mt_json_set_str(o, "identity", hex);
    mt_json_set_str(o, "origin", mt_profile_info(p)->origin);
    list = mt_json_set_array(o, "sources");
    for (int i = 0; i < mt_profile_n_sources(p); i++) {
        const struct mt_profile_source *s = mt_profile_source(p, i);
        struct mt_json *one = mt_json_add_object(list);
        mt_json_set_str(one, "domain", s->domain);
        mt_json_set_str(one, "sha256", s->sha256);
        mt_json_set_int(one, "windows", s->windows);
        mt_json_set_int(one, "tokens", s->tokens);
    }
}

/* The manifest beside the source's files; absent is fine, and one that cannot be read is no reason
 * to stop. A model given as a single file has none of its own. */
static mt_status manifest_before(struct mt_ctx *ctx, const struct mt_model *src,
                                 struct mt_json **out)
{
    const char *file = src->n_maps > 0 ? src->maps[0]->path : "", *slash = strrchr(file, '/');
    char *dir, *path;
    mt_status st;

    *out = NULL;
    if (slash == NULL || mt_path_is_file(src->path))
        return MT_OK;
    MT_TRY(mt_alloc(ctx, (size_t)(slash - file) + 1, 1, "path", &dir));
    memcpy(dir, file, (size_t)(slash - file));
    dir[slash - file] = '\0';
    st = mt_path_join(ctx, dir, MT_MANIFEST_NAME, &path);
    mt_free(dir);
    if (st == MT_OK && mt_path_is_file(path))
        st = mt_json_read(ctx, path, MANIFEST_BYTES_MAX, out);
    mt_free(path);
    if (st == MT_OK || st == MT_E_NOMEM)
        return st;
    mt_log(ctx, MT_LOG_WARN, "the source's history is left out: %s", mt_error(ctx));
    return MT_OK;
}

/* What the source's manifest tells of its making: its passes, and what came before them. */
static mt_status manifest_history(struct mt_ctx *ctx, struct mt_json *source,
                                  const struct mt_model *src)
{
    static const char *const keys[] = {"moetool", "source", "passes", "data", "profile"};
    struct mt_json *before, *o, *part;
    mt_status st = manifest_before(ctx, src, &before);

    if (st != MT_OK || before == NULL)
        return st;
    o = mt_json_set_object(source, "history");
    for (size_t k = 0; k < sizeof keys / sizeof keys[0] && st == MT_OK; k++) {
        if (mt_json_get(before, keys[k]) == NULL)
            continue;
        st = mt_json_copy(ctx, mt_json_get(before, keys[k]), &part);
        if (st == MT_OK)
            mt_json_set(o, keys[k], part);
    }
    mt_json_free(before);
    return st;
}

static mt_status manifest_siblings(struct mt_ctx *ctx, struct mt_json *m,
                                   const struct mt_model *src)
{
    struct mt_json *list, *o;
    char hex[65];

    if (src->n_siblings == 0)
        return MT_OK;
    list = mt_json_set_array(m, "siblings");
    for (int i = 0; i < src->n_siblings; i++) {
        const struct mt_sibling *s = &src->siblings[i];
        MT_TRY(mt_model_identity(ctx, s->m, hex));
        o = mt_json_add_object(list);
        mt_json_set_str(o, "name", s->name);
        mt_json_set_str(o, "identity", hex);
        if (s->m->model_type != NULL)
            mt_json_set_str(o, "model_type", s->m->model_type);
        if (s->m->format != NULL)
            mt_json_set_str(o, "format", s->m->format);
        manifest_sizes(o, s->m);
    }
    return MT_OK;
}

mt_status mt_manifest_new(struct mt_ctx *ctx, const struct mt_manifest_in *in, struct mt_json **out)
{
    const struct mt_model *src = in->opts->source, *plan = in->plan;
    struct mt_json *m = mt_json_new_object(), *o;
    char seed[24];
    mt_status st;

    *out = NULL;
    if (m == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for the manifest");
    mt_json_set_str(m, "moetool", MT_VERSION);
    o = mt_json_set_object(m, "source");
    mt_json_set_str(o, "identity", in->identity);
    if (src->model_type != NULL)
        mt_json_set_str(o, "model_type", src->model_type);
    if (src->format != NULL)
        mt_json_set_str(o, "format", src->format);
    manifest_sizes(o, src);
    st = manifest_history(ctx, o, src);
    if (st == MT_OK)
        st = manifest_siblings(ctx, m, src);
    manifest_passes(m, in->opts);
    /* Seeds beyond 2^53 do not survive a JSON number. */
    snprintf(seed, sizeof seed, "%" PRIu64, mt_ctx_seed(ctx));
    if (mt_ctx_seed(ctx) >> 53 != 0)
        mt_json_set_str(m, "seed", seed);
    else
        mt_json_set_int(m, "seed", (int64_t)mt_ctx_seed(ctx));
    if (in->data_used) {
        mt_json_set_str(m, "blas", mt_blas_core());
        mt_json_set_str(m, "device", in->opts->dev->name);
        manifest_data(m, in->opts->data);
    }
    if (src->profile != NULL)
        manifest_profile(m, src->profile);
    o = mt_json_set_object(m, "target");
    if (plan->family != NULL) {
        mt_json_set_str(o, "model_type", plan->family->name);
        mt_json_set_str(o, "architecture", plan->family->architecture);
    } else if (plan->model_type != NULL) {
        mt_json_set_str(o, "model_type", plan->model_type);
    }
    if (in->opts->format != NULL)
        mt_json_set_str(o, "format", in->opts->format->name);
    manifest_sizes(o, plan);
    manifest_ffn(o, plan);
    if (st != MT_OK) {
        mt_json_free(m);
        return st;
    }
    *out = m;
    return MT_OK;
}
