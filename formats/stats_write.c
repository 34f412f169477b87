#include "formats/stats.h"
#include "lib/base/mem.h"
#include "lib/base/outdir.h"
#include "lib/base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct mt_stats_writer {
    const struct mt_profile *p;
    struct mt_outdir *out;
    struct mt_outfile *file;
    uint64_t *offset; /* [layers][statistics][domains] in the file, from its start */
    uint64_t bytes, left;
};

/* ---- layout ---- */

static size_t stats_slot(const struct mt_stats_writer *w, int layer, enum mt_stat s, int domain)
{
    return ((size_t)layer * MT_STAT_COUNT_ALL + (size_t)s) * (size_t)mt_profile_n_domains(w->p) +
           (size_t)domain;
}

static void stats_add_meta(struct mt_str *s, const struct mt_profile *p)
{
    const struct mt_profile_info *info = mt_profile_info(p);
    struct mt_str list;

    mt_str_begin(s->ctx, &list, s->what);
    mt_str_addf(&list, "[");
    for (int i = 0; i < mt_profile_n_sources(p); i++) {
        const struct mt_profile_source *o = mt_profile_source(p, i);
        mt_str_addf(&list, "%s{\"domain\":\"", i > 0 ? "," : "");
        mt_str_add_escaped(&list, o->domain);
        mt_str_addf(&list,
                    "\",\"sha256\":\"%s\",\"ids_sha256\":\"%s\",\"windows\":%" PRId64
                    ",\"tokens\":%" PRId64 "}",
                    o->sha256, o->ids_sha256, o->windows, o->tokens);
    }
    mt_str_add(&list, "]", 1);
    mt_str_addf(s,
                "{\"__metadata__\":{\"format\":\"%s\",\"version\":\"%s\",\"origin\":\"%s\","
                "\"model_sha256\":\"%s\",\"tokenizer_sha256\":\"%s\",\"n_layers\":\"%d\","
                "\"hidden_size\":\"%" PRId64 "\",\"seq_len\":\"%" PRId64 "\",\"sources\":\"",
                MT_STATS_KIND, MT_STATS_VERSION, info->origin, info->model, info->tokenizer,
                info->n_layers, info->hidden, info->seq_len);
    if (list.st == MT_OK)
        mt_str_add_escaped(s, list.p);
    else if (s->st == MT_OK)
        s->st = list.st;
    mt_str_addf(s, "\"}");
    mt_str_free(&list);
}

static void stats_add_entry(struct mt_str *s, const struct mt_profile *p, int layer,
                            enum mt_stat stat, int domain, bool exact, uint64_t *end)
{
    const struct mt_stat_row *row = mt_stat_row(stat);
    int64_t rows, cols;
    uint64_t begin = *end;

    mt_profile_shape(p, layer, stat, &rows, &cols);
    *end += (uint64_t)rows * (uint64_t)cols * (exact ? sizeof(struct mt_exact) : sizeof(double));
    mt_str_addf(s, ",\"%slayers.%d.%s.%s.", exact ? "exact." : "", layer, row->role, row->name);
    mt_str_add_escaped(s, mt_profile_domain(p, domain));
    mt_str_addf(s, "\":{\"dtype\":\"%s\",\"shape\":[", exact ? "I64" : "F64");
    if (row->rows != MT_DIM_1)
        mt_str_addf(s, "%" PRId64 ",", rows);
    mt_str_addf(s, "%" PRId64 "%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", cols,
                exact ? ",2" : "", begin, *end);
}

/* The header, from its length to its padding; offsets are counted from the data until it stands. */
static void stats_lay_out(struct mt_str *s, struct mt_stats_writer *w)
{
    const struct mt_profile *p = w->p;
    uint64_t end = 0;

    mt_str_add(s, "00000000", 8);
    stats_add_meta(s, p);
    for (int l = 0; l < mt_profile_info(p)->n_layers; l++) {
        for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
            enum mt_stat stat = (enum mt_stat)i;
            for (int d = 0; mt_profile_has(p, l, stat) && d < mt_profile_n_domains(p); d++) {
                w->offset[stats_slot(w, l, stat, d)] = end;
                stats_add_entry(s, p, l, stat, d, false, &end);
                if (mt_stat_row(stat)->kind == MT_STAT_SUM)
                    stats_add_entry(s, p, l, stat, d, true, &end);
                w->left++;
            }
        }
    }
    mt_str_add(s, "}", 1);
    while (s->st == MT_OK && s->n % 8 != 0)
        mt_str_add(s, " ", 1);
    for (int i = 0; s->st == MT_OK && i < 8; i++)
        s->p[i] = (char)((uint64_t)(s->n - 8) >> (8 * i) & 255);
    w->bytes = s->n + end;
}

/* *s is freed by the caller, also after a failure. */
static mt_status stats_head(struct mt_ctx *ctx, struct mt_stats_writer *w, struct mt_str *s)
{
    size_t slots = (size_t)mt_profile_info(w->p)->n_layers * MT_STAT_COUNT_ALL *
                   (size_t)mt_profile_n_domains(w->p);

    mt_str_begin(ctx, s, "header of the profile");
    MT_TRY(mt_alloc0(ctx, slots, sizeof *w->offset, "layout of the profile", &w->offset));
    stats_lay_out(s, w);
    for (size_t i = 0; i < slots; i++)
        w->offset[i] += s->n;
    return s->st;
}

static mt_status stats_begin(struct mt_ctx *ctx, struct mt_stats_writer *w, const char *path,
                             bool force)
{
    struct mt_str s;
    mt_status st = stats_head(ctx, w, &s);

    if (st == MT_OK)
        st = mt_outdir_open(ctx, path, MT_OUT_FILE | (force ? (unsigned)MT_OUT_FORCE : 0), &w->out);
    if (st == MT_OK)
        st = mt_outdir_file(ctx, w->out, mt_outdir_name(w->out), w->bytes, &w->file);
    if (st == MT_OK)
        st = mt_outfile_write(ctx, w->file, 0, s.p, s.n);
    mt_str_free(&s);
    return st;
}

mt_status mt_stats_bytes(struct mt_ctx *ctx, const struct mt_profile *p, uint64_t *bytes)
{
    struct mt_stats_writer w = {.p = p};
    struct mt_str s;
    mt_status st = stats_head(ctx, &w, &s);

    *bytes = w.bytes;
    mt_str_free(&s);
    mt_free(w.offset);
    return st;
}

mt_status mt_stats_open(struct mt_ctx *ctx, const char *path, bool force,
                        const struct mt_profile *p, struct mt_stats_writer **out)
{
    struct mt_stats_writer *w;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *w, "profile", &w));
    w->p = p;
    st = stats_begin(ctx, w, path, force);
    if (st != MT_OK) {
        mt_stats_close(w);
        return st;
    }
    *out = w;
    return MT_OK;
}

/* ---- parts ---- */

/* Sums that came without their integers (imported) get those of their values. */
static mt_status stats_put_exact(struct mt_ctx *ctx, struct mt_stats_writer *w,
                                 const struct mt_profile_part *part, uint64_t at, size_t n)
{
    struct mt_exact *made;
    mt_status st = MT_OK;

    if (part->exact != NULL)
        return mt_outfile_write(ctx, w->file, at, part->exact, n * sizeof *part->exact);
    MT_TRY(mt_alloc0(ctx, n, sizeof *made, "exact sums", &made));
    for (size_t i = 0; i < n && st == MT_OK; i++)
        if (!mt_exact_add(&made[i], part->v[i]))
            st = mt_fail(ctx, MT_E_NUMERIC, "a sum of %g is outside what a profile holds",
                         part->v[i]);
    if (st == MT_OK)
        st = mt_outfile_write(ctx, w->file, at, made, n * sizeof *made);
    mt_free(made);
    return st;
}

mt_status mt_stats_put(struct mt_ctx *ctx, struct mt_stats_writer *w, const struct mt_profile *p,
                       int layer, enum mt_stat s, int domain)
{
    const struct mt_profile_part part = mt_profile_part(p, layer, s, domain);
    uint64_t at = w->offset[stats_slot(w, layer, s, domain)];
    int64_t rows, cols;
    size_t n;

    mt_assert(part.v != NULL && w->left > 0);
    mt_profile_shape(w->p, layer, s, &rows, &cols);
    n = (size_t)(rows * cols);
    MT_TRY(mt_outfile_write(ctx, w->file, at, part.v, n * sizeof *part.v));
    if (mt_stat_row(s)->kind == MT_STAT_SUM)
        MT_TRY(stats_put_exact(ctx, w, &part, at + n * sizeof *part.v, n));
    w->left--;
    return MT_OK;
}

mt_status mt_stats_commit(struct mt_ctx *ctx, struct mt_stats_writer *w)
{
    mt_assert(w->left == 0);
    MT_TRY(mt_outdir_settle(ctx, w->out));
    return mt_outdir_commit(ctx, w->out);
}

void mt_stats_close(struct mt_stats_writer *w)
{
    if (w == NULL)
        return;
    if (w->out != NULL)
        mt_outdir_close(w->out, false);
    mt_free(w->offset);
    mt_free(w);
}
