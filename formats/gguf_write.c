#include "formats/gguf.h"

#include "lib/base/mem.h"
#include "lib/base/path.h"
#include "lib/base/show.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WRITE_CHUNK 4096 /* elements converted at a time */

/* A tensor of the file: one record, or the experts of a stack. */
struct gguf_slot {
    char name[MT_GGUF_NAME_MAX + 1];
    enum mt_dtype dtype; /* as stored */
    int rank;
    uint64_t ne[3];
    size_t shard;
    uint64_t begin, bytes; /* from the start of the shard's data */
};

/* A file of the output. */
struct gguf_shard {
    struct mt_outfile *file;
    struct mt_gguf_out head;
    size_t first, n; /* slots */
    uint64_t data_bytes;
    _Atomic bool dirty;
};

struct gguf_place {
    const struct mt_tensor *t;
    size_t slot;         /* SIZE_MAX: left out */
    uint64_t first;      /* elements of the slot before it */
    uint64_t begin;      /* of the record, from the start of the shard's data */
    enum mt_dtype dtype; /* as stored */
    int heads;           /* rows are permuted within so many heads; 0: not */
    uint64_t row_bytes;  /* as stored; only with heads */
};

struct mt_writer {
    struct mt_outdir *out;
    const struct mt_model *m;
    const struct mt_gguf_arch *arch;
    struct gguf_slot *slots;
    size_t n_slots, n_records;  /* slots from n_records on have no record */
    struct gguf_place *places;  /* in the order of the model */
    struct gguf_place **by_ptr; /* by address of the record */
    size_t n;
    struct gguf_shard *shards;
    size_t n_shards;
};

static int write_by_ptr(const void *a, const void *b)
{
    const struct mt_tensor *x = (*(const struct gguf_place *const *)a)->t;
    const struct mt_tensor *y = (*(const struct gguf_place *const *)b)->t;

    return (x > y) - (x < y);
}

/* ---- plan ---- */

/* Vectors, routers, gates of shared experts and learned positions are kept in F32, as every loader
 * expects. */
static enum mt_dtype write_dtype(const struct mt_tensor *t)
{
    bool small = t->rank <= 1 || t->role.kind == MT_ROLE_ROUTER ||
                 t->role.kind == MT_ROLE_ROUTER_BIAS || t->role.kind == MT_ROLE_SHARED_GATE ||
                 t->role.kind == MT_ROLE_POS_EMBED;

    return small && mt_dtype_is_plain_float(t->dtype) ? MT_F32 : t->dtype;
}

/* Buffers that can be computed, and next-token predictors, which are declared absent. */
static bool write_leaves_out(const struct mt_writer *w, const struct mt_tensor *t)
{
    static const char buffer[] = "rotary_emb.inv_freq", layers[] = "model.layers.";
    size_t n = strlen(t->name), b = sizeof buffer - 1, l = sizeof layers - 1;

    if (t->role.kind != MT_ROLE_OTHER)
        return false;
    if (n >= b && strcmp(t->name + n - b, buffer) == 0)
        return true;
    return strncmp(t->name, layers, l) == 0 && strtol(t->name + l, NULL, 10) >= w->m->hp.n_layers;
}

static mt_status write_new_slot(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                                struct gguf_slot *s)
{
    bool flat = t->role.kind == MT_ROLE_SHARED_GATE || t->role.kind == MT_ROLE_ROUTER_BIAS;
    char show[MT_SHOW_BYTES];

    if (!mt_gguf_print_name(w->arch->name, w->m, t->role, s->name, sizeof s->name))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: GGUF architecture %s has no place for it; write safetensors instead",
                       mt_show_name(t->name, show), w->arch->name);
    s->dtype = write_dtype(t);
    if (s->dtype != MT_F32 && s->dtype != MT_F16 && s->dtype != MT_BF16 &&
        !mt_dtype_is_block(s->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: %s is not stored in GGUF files; choose another type with --dtype",
                       mt_show_name(t->name, show), mt_dtype_name(s->dtype));
    s->rank = flat ? 1 : t->rank;
    mt_assert(s->rank <= 3);
    for (int d = 0; d < s->rank; d++)
        s->ne[d] = (uint64_t)t->shape[t->rank - 1 - d];
    if (t->role.expert >= 0) {
        mt_assert(s->rank <= 2);
        s->ne[s->rank++] = (uint64_t)w->m->ffn[t->role.layer].n_experts;
    }
    return MT_OK;
}

/* Rows of a second role behind those of the first: q, k and v; gate and up. */
static bool write_append(struct gguf_slot *have, const struct gguf_slot *s)
{
    int last = s->rank - 1;

    if (have->dtype != s->dtype || have->rank != s->rank ||
        (last > 0 && memcmp(have->ne, s->ne, (size_t)last * sizeof s->ne[0]) != 0))
        return false;
    have->ne[last] += s->ne[last];
    return true;
}

static uint64_t write_count(const struct gguf_slot *s)
{
    uint64_t n = 1;

    for (int d = 0; d < s->rank; d++)
        n *= s->ne[d];
    return n;
}

/* The slot of a record and where in it: a new one, or that of the expert or role before it. */
static mt_status write_slot(struct mt_ctx *ctx, struct mt_writer *w, struct gguf_place *p)
{
    struct gguf_slot s = {.dtype = MT_F32};
    const struct mt_tensor *t = p->t;
    char show[MT_SHOW_BYTES];

    MT_TRY(write_new_slot(ctx, w, t, &s));
    p->first = t->role.expert >= 0 ? (uint64_t)(t->role.expert * mt_tensor_count(t)) : 0;
    /* What shares a tensor stands together, so it is among the last slots. */
    for (size_t i = w->n_slots; i > 0 && i + 8 > w->n_slots; i--) {
        struct gguf_slot *have = &w->slots[i - 1];
        bool stack = t->role.expert >= 0;
        if (strcmp(have->name, s.name) != 0)
            continue;
        if (!stack)
            p->first = write_count(have);
        if (stack ? have->dtype != s.dtype || memcmp(have->ne, s.ne, sizeof s.ne) != 0
                  : !write_append(have, &s))
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s: %s of different types or shapes do not make one tensor; choose one "
                           "type with --dtype",
                           mt_show_name(t->name, show), stack ? "experts" : "parts");
        p->slot = i - 1;
        return MT_OK;
    }
    p->slot = w->n_slots;
    w->slots[w->n_slots++] = s;
    return MT_OK;
}

static int write_expert_order(const void *a, const void *b)
{
    const struct mt_role x = (*(const struct mt_tensor *const *)a)->role;
    const struct mt_role y = (*(const struct mt_tensor *const *)b)->role;

    if (x.layer != y.layer)
        return x.layer < y.layer ? -1 : 1;
    if ((x.expert >= 0) != (y.expert >= 0))
        return x.expert >= 0 ? 1 : -1;
    if (x.kind != y.kind)
        return x.kind < y.kind ? -1 : 1;
    if (x.part != y.part)
        return x.part < y.part ? -1 : 1;
    return (x.expert > y.expert) - (x.expert < y.expert);
}

/* Tensors that no record stands for: factors of rotary frequencies. */
static const char *const *write_factors(const struct mt_model *m)
{
    static const char *const llama3[] = {MT_GGUF_ROPE_FREQS, NULL};
    static const char *const longrope[] = {MT_GGUF_ROPE_LONG, MT_GGUF_ROPE_SHORT, NULL};

    return m->hp.rope.type == MT_ROPE_LLAMA3     ? llama3
           : m->hp.rope.type == MT_ROPE_LONGROPE ? longrope
                                                 : llama3 + 1;
}

static mt_status write_places(struct mt_ctx *ctx, struct mt_writer *w)
{
    const struct mt_tensor **sorted;
    char show[MT_SHOW_BYTES];
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, w->n, sizeof(struct mt_tensor *), "layout of the output", &sorted));
    for (size_t i = 0; i < w->n; i++)
        sorted[i] = w->m->tensors[i];
    if (w->n > 1)
        qsort(sorted, w->n, sizeof(struct mt_tensor *), write_expert_order);
    for (size_t i = 0; i < w->n && st == MT_OK; i++) {
        const struct mt_tensor *t = sorted[i];
        struct gguf_place *p = &w->places[i];
        p->t = t;
        p->dtype = write_dtype(t);
        p->slot = SIZE_MAX;
        if (write_leaves_out(w, t)) {
            mt_log(ctx, MT_LOG_WARN, "%s is left out: GGUF has no place for it",
                   mt_show_name(t->name, show));
            continue;
        }
        st = write_slot(ctx, w, p);
        if (mt_gguf_permuted(w->arch, t->role))
            p->heads = t->role.kind == MT_ROLE_ATTN_Q ? w->m->hp.n_heads : w->m->hp.n_kv_heads;
    }
    mt_free(sorted);
    w->n_records = w->n_slots;
    for (const char *const *name = write_factors(w->m); st == MT_OK && *name != NULL; name++) {
        struct gguf_slot *s = &w->slots[w->n_slots++];
        *s = (struct gguf_slot){.dtype = MT_F32,
                                .rank = 1,
                                .ne = {(uint64_t)(w->m->hp.head_dim * w->m->hp.rope.partial) / 2}};
        snprintf(s->name, sizeof s->name, "%s", *name);
    }
    return st;
}

static uint64_t write_pad(uint64_t v)
{
    return (v + MT_GGUF_ALIGNMENT - 1) / MT_GGUF_ALIGNMENT * MT_GGUF_ALIGNMENT;
}

/* Bytes of a slot's line in the header. */
static uint64_t write_info_bytes(const struct gguf_slot *s)
{
    return 8 + strlen(s->name) + 4 + 8 * (uint64_t)s->rank + 4 + 8;
}

/* Magic, version and counts; and the pairs that tell the part: their keys, lengths and types, two
 * numbers of 16 bits and one of 32. */
#define WRITE_HEAD_BYTES 24u
#define WRITE_SPLIT_BYTES                                                                          \
    (3 * 12u + sizeof "split.nosplit.countsplit.tensors.count" - 1 + 2 + 2 + 4)

/* Puts slots into shards in order: as many as stay below `max` together with the header, but one
 * at least. */
static mt_status write_shards(struct mt_ctx *ctx, struct mt_writer *w, uint64_t pairs, uint64_t max)
{
    uint64_t least = WRITE_HEAD_BYTES + WRITE_SPLIT_BYTES + MT_GGUF_ALIGNMENT, at = least + pairs;

    MT_TRY(mt_alloc0(ctx, w->n_slots, sizeof *w->shards, "layout of the output", &w->shards));
    w->n_shards = 1;
    for (size_t i = 0; i < w->n_slots; i++) {
        struct gguf_slot *s = &w->slots[i];
        struct gguf_shard *sh = &w->shards[w->n_shards - 1];
        bool whole = mt_dtype_bytes(s->dtype, write_count(s), &s->bytes);
        uint64_t more = write_pad(s->bytes) + write_info_bytes(s);
        mt_assert(whole); /* the records were whole */
        if (max > 0 && sh->n > 0 && (more > max || at > max - more)) {
            sh = &w->shards[w->n_shards++];
            sh->first = i;
            at = least;
        }
        s->shard = w->n_shards - 1;
        s->begin = sh->data_bytes;
        sh->data_bytes = write_pad(sh->data_bytes + s->bytes);
        sh->n++;
        at += more;
    }
    if (w->n_shards > MT_GGUF_SPLITS_MAX)
        return mt_fail(ctx, MT_E_OPTION,
                       "--max-shard-size makes %zu parts; a GGUF model has 65535 at most",
                       w->n_shards);
    return MT_OK;
}

static void write_layout(struct mt_writer *w)
{
    for (size_t i = 0; i < w->n; i++) {
        struct gguf_place *p = &w->places[i];
        uint64_t rows = (uint64_t)(p->t->rank == 1 ? p->t->shape[0] : mt_tensor_rows(p->t));
        uint64_t bytes, skip = 0;
        if (p->slot == SIZE_MAX)
            continue;
        bool whole = mt_dtype_bytes(p->dtype, (uint64_t)mt_tensor_count(p->t), &bytes) &&
                     mt_dtype_bytes(p->dtype, p->first, &skip);
        mt_assert(whole);
        p->begin = w->slots[p->slot].begin + skip;
        p->row_bytes = rows > 0 ? bytes / rows : 0;
    }
}

static void write_split_pairs(const struct mt_writer *w, size_t no, struct mt_gguf_out *o)
{
    mt_gguf_put_key(o, NULL, "split.no", MT_GGUF_U16);
    mt_gguf_put_u16(o, (uint16_t)no);
    mt_gguf_put_key(o, NULL, "split.count", MT_GGUF_U16);
    mt_gguf_put_u16(o, (uint16_t)w->n_shards);
    mt_gguf_put_key(o, NULL, "split.tensors.count", MT_GGUF_I32);
    mt_gguf_put_u32(o, (uint32_t)w->n_slots);
}

/* The first file carries what the model is, the others which part they are. */
static mt_status write_head(struct mt_ctx *ctx, struct mt_writer *w, size_t no,
                            const struct mt_gguf_out *model)
{
    struct gguf_shard *sh = &w->shards[no];
    struct mt_gguf_out split = {.ctx = ctx}, *o = &sh->head;

    o->ctx = ctx;
    if (w->n_shards > 1)
        write_split_pairs(w, no, &split);
    mt_gguf_put_raw(o, "GGUF", 4);
    mt_gguf_put_u32(o, 3);
    mt_gguf_put_u64(o, sh->n);
    mt_gguf_put_u64(o, split.n_pairs + (no == 0 ? model->n_pairs : 0));
    if (no == 0)
        mt_gguf_put_raw(o, model->p, model->n);
    mt_gguf_put_raw(o, split.p, split.n);
    mt_free(split.p);
    MT_TRY(split.st);
    for (size_t i = sh->first; i < sh->first + sh->n; i++) {
        const struct gguf_slot *s = &w->slots[i];
        mt_gguf_put_text(o, s->name, strlen(s->name));
        mt_gguf_put_u32(o, (uint32_t)s->rank);
        for (int d = 0; d < s->rank; d++)
            mt_gguf_put_u64(o, s->ne[d]);
        mt_gguf_put_u32(o, (uint32_t)mt_gguf_type_of(s->dtype));
        mt_gguf_put_u64(o, s->begin);
    }
    while (o->st == MT_OK && o->n % MT_GGUF_ALIGNMENT != 0)
        mt_gguf_put_raw(o, "", 1);
    return o->st;
}

/* A forced run must not take the parts away that it reads. */
static mt_status write_not_source(struct mt_ctx *ctx, const struct mt_writer *w, const char *name)
{
    const struct mt_model *src = w->m->source != NULL ? w->m->source : w->m;
    const char *work = mt_outdir_work_path(w->out);
    char path[4096];

    snprintf(path, sizeof path, "%.*s%s", (int)(mt_path_base(work) - work), work, name);
    for (size_t i = 0; i < src->n_maps; i++)
        if (mt_path_same(src->maps[i]->path, path))
            return mt_fail(ctx, MT_E_OPTION,
                           "%s is a part of the model that is read; write to "
                           "another name",
                           path);
    return MT_OK;
}

static mt_status write_files(struct mt_ctx *ctx, struct mt_writer *w)
{
    const char *out = mt_outdir_name(w->out);
    char name[300];

    for (size_t i = 0; i < w->n_shards && w->n_shards > 1; i++) {
        mt_gguf_part_name(out, i, w->n_shards, name, sizeof name);
        MT_TRY(write_not_source(ctx, w, name));
        MT_TRY(mt_outdir_part(ctx, w->out, name));
    }
    for (size_t i = 0; i < w->n_shards; i++) {
        struct gguf_shard *sh = &w->shards[i];
        snprintf(name, sizeof name, "%s", out);
        if (w->n_shards > 1)
            mt_gguf_part_name(out, i, w->n_shards, name, sizeof name);
        MT_TRY(mt_outdir_file(ctx, w->out, name, sh->head.n + sh->data_bytes, &sh->file));
    }
    return MT_OK;
}

static mt_status write_heads(struct mt_ctx *ctx, struct mt_writer *w, uint64_t max)
{
    struct mt_gguf_out pairs = {.ctx = ctx};
    mt_status st = mt_gguf_put_model(ctx, w->m, &pairs);

    if (st == MT_OK)
        st = mt_gguf_put_vocab(ctx, w->m, &pairs);
    if (st == MT_OK)
        st = write_shards(ctx, w, pairs.n, max);
    for (size_t i = 0; st == MT_OK && i < w->n_shards; i++)
        st = write_head(ctx, w, i, &pairs);
    mt_free(pairs.p);
    return st;
}

static mt_status write_plan(struct mt_ctx *ctx, struct mt_writer *w, uint64_t max)
{
    w->arch = mt_gguf_arch_of_family(w->m->family);
    w->n = w->m->n_tensors;
    mt_assert(w->arch != NULL); /* mt_gguf_prepare */
    MT_TRY(mt_alloc0(ctx, w->n + 2, sizeof *w->slots, "layout of the output", &w->slots));
    MT_TRY(mt_alloc0(ctx, w->n, sizeof *w->places, "layout of the output", &w->places));
    MT_TRY(mt_alloc0(ctx, w->n, sizeof(struct gguf_place *), "layout of the output", &w->by_ptr));
    MT_TRY(write_places(ctx, w));
    MT_TRY(write_heads(ctx, w, max));
    write_layout(w);
    for (size_t i = 0; i < w->n; i++)
        w->by_ptr[i] = &w->places[i];
    if (w->n > 1)
        qsort(w->by_ptr, w->n, sizeof(struct gguf_place *), write_by_ptr);
    return write_files(ctx, w);
}

mt_status mt_gguf_plan(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                       const struct mt_write_opts *opts, struct mt_writer **w)
{
    mt_status st;

    MT_TRY(mt_alloc0(ctx, 1, sizeof **w, "layout of the output", w));
    (*w)->out = out;
    (*w)->m = m;
    st = write_plan(ctx, *w, opts->shard_bytes_max);
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
        bsearch(&k, w->by_ptr, w->n, sizeof(struct gguf_place *), write_by_ptr);

    mt_assert(hit != NULL);
    return *hit;
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
