#include "formats/gguf_layout.h"

#include "lib/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define WRITE_CHUNK 4096 /* elements converted at a time */

mt_status mt_gguf_plan(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                       const struct mt_write_opts *opts, struct mt_writer **w)
{
    mt_status st;

    MT_TRY(mt_alloc0(ctx, 1, sizeof **w, "layout of the output", w));
    (*w)->out = out;
    (*w)->m = m;
    st = gguf_layout(ctx, *w, opts->shard_bytes_max);
    if (st != MT_OK) {
        mt_gguf_writer_free(*w);
        *w = NULL;
    }
    return st;
}

void mt_gguf_writer_free(struct mt_writer *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->n_shards; i++)
        mt_free(w->shards[i].head.p);
    mt_free(w->shards);
    mt_free(w->slots);
    mt_free(w->places);
    mt_free(w->by_ptr);
    mt_free(w);
}

/* ---- tensors ---- */

/* Bytes as stored, from `offset` of the record on; permuted rows go one by one. */
static mt_status write_span(struct mt_ctx *ctx, struct gguf_shard *sh, const struct gguf_place *p,
                            uint64_t offset, const unsigned char *bytes, uint64_t n)
{
    uint64_t data = sh->head.n + p->begin;
    int64_t rows;

    if (p->heads == 0 || p->row_bytes == 0)
        return mt_outfile_write(ctx, sh->file, data + offset, bytes, (size_t)n);
    rows = p->t->rank == 1 ? p->t->shape[0] : mt_tensor_rows(p->t);
    while (n > 0) {
        uint64_t row = offset / p->row_bytes, in = offset % p->row_bytes;
        uint64_t part = p->row_bytes - in < n ? p->row_bytes - in : n;
        uint64_t to = (uint64_t)mt_gguf_permute((int64_t)row, rows, p->heads) * p->row_bytes + in;
        MT_TRY(mt_outfile_write(ctx, sh->file, data + to, bytes, (size_t)part));
        offset += part;
        bytes += part;
        n -= part;
    }
    return MT_OK;
}

static const struct gguf_place *write_find(const struct mt_writer *w, const struct mt_tensor *t)
{
    struct gguf_place key = {.t = t}, *k = &key;
    struct gguf_place *const *hit =
        bsearch(&k, w->by_ptr, w->n, sizeof(struct gguf_place *), gguf_by_ptr);

    mt_assert(hit != NULL);
    return *hit;
}

/* llama.cpp computes the sigmoid of this gate as silu(x) / x: NaN at 0. */
static mt_status write_check_gate(struct mt_ctx *ctx, const struct mt_tensor *t,
                                  const unsigned char *bytes, size_t n)
{
    char label[128];

    for (size_t i = 0; i < n; i++)
        if (bytes[i] != 0)
            return MT_OK;
    return mt_fail(
        ctx, MT_E_UNSUPPORTED,
        "%s is all zeros, for which llama.cpp computes NaN: give it tiny numbers and its "
        "expert's down_proj what it lacks, or write safetensors",
        mt_tensor_label(t, label, sizeof label));
}

mt_status mt_gguf_put(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                      uint64_t offset, const void *bytes, size_t n)
{
    const struct gguf_place *p = write_find(w, t);
    size_t width = mt_dtype_bits(t->dtype) / 8;
    const unsigned char *from = bytes;
    float values[WRITE_CHUNK];

    if (p->slot == SIZE_MAX)
        return MT_OK;
    if (t->role.kind == MT_ROLE_SHARED_GATE && t->role.part == MT_PART_WEIGHT &&
        n == mt_tensor_bytes(t))
        MT_TRY(write_check_gate(ctx, t, bytes, n));
    struct gguf_shard *sh = &w->shards[w->slots[p->slot].shard];
    atomic_store(&sh->dirty, true);
    if (p->dtype == t->dtype)
        return write_span(ctx, sh, p, offset, bytes, n);
    mt_assert(p->dtype == MT_F32 && width > 0 && n % width == 0 && offset % width == 0);
    for (size_t done = 0, all = n / width; done < all;) {
        size_t some = all - done < WRITE_CHUNK ? all - done : WRITE_CHUNK;
        mt_kernels_get()->to_f32(t->dtype, from + done * width, values, some);
        MT_TRY(write_span(ctx, sh, p, (offset / width + done) * sizeof *values,
                          (const unsigned char *)values, some * sizeof *values));
        done += some;
    }
    return MT_OK;
}

mt_status mt_gguf_sync(struct mt_ctx *ctx, struct mt_writer *w)
{
    for (size_t i = 0; i < w->n_shards; i++)
        if (atomic_exchange(&w->shards[i].dirty, false))
            MT_TRY(mt_outfile_sync(ctx, w->shards[i].file));
    return MT_OK;
}

void mt_gguf_where(const struct mt_writer *w, const struct mt_tensor *t,
                   const struct mt_outfile **file, uint64_t *offset, uint64_t *bytes)
{
    const struct gguf_place *p = write_find(w, t);
    const struct gguf_shard *sh;

    *bytes = 0;
    if (p->slot == SIZE_MAX ||
        !mt_dtype_bytes(p->dtype, (uint64_t)mt_tensor_count(t), bytes)) /* it was laid out */
        return;
    sh = &w->shards[w->slots[p->slot].shard];
    *file = sh->file;
    *offset = sh->head.n + p->begin;
}

/* ---- end ---- */

static mt_status write_same(struct mt_ctx *ctx, const struct mt_writer *w,
                            const struct gguf_shard *sh, const struct mt_gguf *g)
{
    if (g->n != sh->n || g->data_offset != sh->head.n || g->headers_only)
        return mt_fail(ctx, MT_E_IO, "%s: %zu tensors were written, but %zu are there",
                       g->map->path, sh->n, g->n);
    for (size_t i = 0; i < g->n; i++) {
        const struct gguf_slot *s = &w->slots[sh->first + i];
        const struct mt_gguf_record *r = &g->v[i];
        if (strcmp(s->name, r->name) != 0 || s->begin != r->begin || s->bytes != r->bytes ||
            s->dtype != (enum mt_dtype)r->dtype)
            return mt_fail(ctx, MT_E_IO, "%s: tensor %s is not as planned", g->map->path, s->name);
    }
    return MT_OK;
}

/* Reads the header as a stranger would. */
static mt_status write_verify(struct mt_ctx *ctx, const struct mt_writer *w,
                              const struct gguf_shard *sh)
{
    struct mt_arena arena;
    struct mt_gguf g;
    struct mt_map *map;
    mt_status st;

    MT_TRY(mt_map_open(ctx, mt_outfile_path(sh->file), &map));
    mt_arena_init(&arena);
    st = mt_gguf_header_read(ctx, map, &arena, &g);
    if (st == MT_OK)
        st = write_same(ctx, w, sh, &g);
    mt_gguf_header_free(&g);
    mt_arena_free(&arena);
    mt_map_close(map);
    return mt_wrap(ctx, st, "checking what was written");
}

static mt_status write_factor(struct mt_ctx *ctx, struct mt_writer *w, const struct gguf_slot *s)
{
    const struct mt_rope_params *r = &w->m->hp.rope;
    const double *from = strcmp(s->name, MT_GGUF_ROPE_LONG) == 0 ? r->long_factor : r->short_factor;
    mt_status st = MT_OK;
    float *v;

    MT_TRY(mt_alloc0(ctx, 1, s->bytes, "rotary frequencies", &v));
    if (r->type == MT_ROPE_LLAMA3)
        st = mt_gguf_rope_factors(ctx, &w->m->hp, v);
    else
        for (uint64_t i = 0; i < s->ne[0]; i++)
            v[i] = (float)from[i];
    if (st == MT_OK)
        st = mt_outfile_write(ctx, w->shards[s->shard].file, w->shards[s->shard].head.n + s->begin,
                              v, s->bytes);
    mt_free(v);
    return st;
}

mt_status mt_gguf_end(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_json *config)
{
    (void)config; /* the header says it */
    for (size_t i = w->n_records; i < w->n_slots; i++)
        MT_TRY(write_factor(ctx, w, &w->slots[i]));
    for (size_t i = 0; i < w->n_shards; i++) {
        struct gguf_shard *sh = &w->shards[i];
        MT_TRY(mt_outfile_write(ctx, sh->file, 0, sh->head.p, sh->head.n));
        MT_TRY(mt_outfile_sync(ctx, sh->file));
        MT_TRY(write_verify(ctx, w, sh));
    }
    return MT_OK;
}
