/* stats_imatrix_write.c: a profile as imatrix.gguf. */
#include "formats/gguf_arch.h"
#include "formats/stats_imatrix.h"
#include "lib/base/mem.h"
#include "lib/base/outdir.h"

#include <stdio.h>
#include <string.h>

/* One matrix of the file: its sums, then its counts. */
struct imatrix_slot {
    char name[64];
    int layer;
    const struct imatrix_row *row;
    int64_t rows, cols;
    uint64_t sums, counts; /* offsets from the start of the data */
};

struct imatrix_file {
    const struct mt_profile *p;
    struct imatrix_slot *v;
    size_t n, cap;
    uint64_t data_bytes;
    struct mt_gguf_out head;
    struct mt_outdir *out;
    struct mt_outfile *file;
};

static uint64_t imatrix_pad(uint64_t v)
{
    return (v + MT_GGUF_ALIGNMENT - 1) / MT_GGUF_ALIGNMENT * MT_GGUF_ALIGNMENT;
}

static mt_status imatrix_add(struct mt_ctx *ctx, struct imatrix_file *f, const struct mt_model *m,
                             const char *arch, int layer, const struct imatrix_row *row)
{
    struct mt_role role = mt_role(row->kind, layer, row->expert);
    struct imatrix_slot s = {.layer = layer, .row = row};

    if (mt_model_find(m, role) == NULL || imatrix_find(m, role) != row ||
        !mt_profile_has(f->p, layer, row->sums) || !mt_profile_has(f->p, layer, row->counts) ||
        !mt_gguf_print_name(arch, m, role, s.name, sizeof s.name))
        return MT_OK;
    /* Parts of one tensor (q, k and v in some architectures) have the same inputs. */
    for (size_t i = f->n; i > 0 && f->v[i - 1].layer == layer; i--)
        if (strcmp(f->v[i - 1].name, s.name) == 0)
            return MT_OK;
    mt_profile_shape(f->p, layer, row->sums, &s.rows, &s.cols);
    s.sums = f->data_bytes;
    s.counts = imatrix_pad(s.sums + (uint64_t)(s.rows * s.cols) * sizeof(float));
    f->data_bytes = imatrix_pad(s.counts + (uint64_t)s.rows * sizeof(float));
    MT_TRY(mt_grow(ctx, f->n, &f->cap, sizeof s, "layout of the imatrix", &f->v));
    f->v[f->n++] = s;
    return MT_OK;
}

static void imatrix_info(struct mt_gguf_out *o, const char *name, const char *suffix, int64_t cols,
                         int64_t rows, uint64_t begin)
{
    char full[96];
    int n = snprintf(full, sizeof full, "%s%s", name, suffix);

    mt_gguf_put_text(o, full, (size_t)n);
    mt_gguf_put_u32(o, 2);
    mt_gguf_put_u64(o, (uint64_t)cols);
    mt_gguf_put_u64(o, (uint64_t)rows);
    mt_gguf_put_u32(o, (uint32_t)mt_gguf_type_of(MT_F32));
    mt_gguf_put_u64(o, begin);
}

/* chunk_size is the window's length; chunk_count the number of windows, as their tokens would fill
 * them. */
static mt_status imatrix_head(struct mt_ctx *ctx, struct imatrix_file *f)
{
    struct mt_gguf_out pairs = {.ctx = ctx}, *o = &f->head;
    int n = mt_profile_n_sources(f->p);
    int64_t windows = 0, len = mt_profile_info(f->p)->seq_len;

    for (int i = 0; i < n; i++)
        windows += mt_profile_source(f->p, i)->windows;
    mt_gguf_pair_text(&pairs, NULL, "general.type", "imatrix");
    mt_gguf_pair_array(&pairs, "imatrix.datasets", MT_GGUF_STRING, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        const char *domain = mt_profile_source(f->p, i)->domain;
        mt_gguf_put_text(&pairs, domain, strlen(domain));
    }
    mt_gguf_pair_u32(&pairs, NULL, "imatrix.chunk_count", windows > 0 ? windows : 1);
    mt_gguf_pair_u32(&pairs, NULL, "imatrix.chunk_size", len > 0 ? len : 512);
    o->ctx = ctx;
    mt_gguf_put_raw(o, "GGUF", 4);
    mt_gguf_put_u32(o, 3);
    mt_gguf_put_u64(o, 2 * f->n);
    mt_gguf_put_u64(o, pairs.n_pairs);
    mt_gguf_put_raw(o, pairs.p, pairs.n);
    mt_free(pairs.p);
    MT_TRY(pairs.st);
    for (size_t i = 0; i < f->n; i++) {
        const struct imatrix_slot *s = &f->v[i];
        imatrix_info(o, s->name, IMATRIX_SUMS, s->cols, s->rows, s->sums);
        imatrix_info(o, s->name, IMATRIX_COUNTS, 1, s->rows, s->counts);
    }
    while (o->st == MT_OK && o->n % MT_GGUF_ALIGNMENT != 0)
        mt_gguf_put_raw(o, "", 1);
    return o->st;
}

/* The total over domains as F32. */
static mt_status imatrix_put(struct mt_ctx *ctx, struct imatrix_file *f, int layer, enum mt_stat s,
                             size_t n, uint64_t at)
{
    double *v;
    float *x;
    mt_status st;

    MT_TRY(mt_alloc(ctx, n, sizeof *v + sizeof *x, "statistics", &v));
    x = (void *)(v + n);
    st = mt_profile_get(ctx, f->p, layer, s, NULL, v, n);
    for (size_t i = 0; st == MT_OK && i < n; i++)
        x[i] = (float)v[i];
    if (st == MT_OK)
        st = mt_outfile_write(ctx, f->file, f->head.n + at, x, n * sizeof *x);
    mt_free(v);
    return st;
}

static mt_status imatrix_write(struct mt_ctx *ctx, struct imatrix_file *f, const char *path,
                               bool force)
{
    MT_TRY(imatrix_head(ctx, f));
    MT_TRY(mt_outdir_open(ctx, path, MT_OUT_FILE | (force ? (unsigned)MT_OUT_FORCE : 0), &f->out));
    MT_TRY(
        mt_outdir_file(ctx, f->out, mt_outdir_name(f->out), f->head.n + f->data_bytes, &f->file));
    MT_TRY(mt_outfile_write(ctx, f->file, 0, f->head.p, f->head.n));
    for (size_t i = 0; i < f->n; i++) {
        const struct imatrix_slot *s = &f->v[i];
        MT_TRY(imatrix_put(ctx, f, s->layer, s->row->sums, (size_t)(s->rows * s->cols), s->sums));
        MT_TRY(imatrix_put(ctx, f, s->layer, s->row->counts, (size_t)s->rows, s->counts));
    }
    MT_TRY(mt_outdir_settle(ctx, f->out));
    return mt_outdir_commit(ctx, f->out);
}

mt_status mt_stats_export_imatrix(struct mt_ctx *ctx, const char *path, bool force,
                                  const struct mt_profile *p, const struct mt_model *m)
{
    const char *arch = m->family != NULL ? mt_gguf_arch(m->family) : NULL;
    struct imatrix_file f = {.p = p};
    mt_status st = MT_OK;

    if (arch == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: llama.cpp's names of this model's matrices are not known; write a "
                       "profile instead",
                       m->path);
    for (int l = 0; l < mt_profile_info(p)->n_layers && st == MT_OK; l++)
        for (int i = 0; i < imatrix_n_rows && st == MT_OK; i++)
            st = imatrix_add(ctx, &f, m, arch, l, &imatrix_rows[i]);
    if (st == MT_OK && f.n == 0)
        st = mt_fail(ctx, MT_E_ABSENT,
                     "the statistics hold no squares of inputs, which an "
                     "imatrix is made of");
    if (st == MT_OK)
        st = imatrix_write(ctx, &f, path, force);
    if (f.out != NULL)
        mt_outdir_close(f.out, false);
    mt_free(f.head.p);
    mt_free(f.v);
    return st;
}
