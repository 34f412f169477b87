#include "formats/safetensors.h"
#include "formats/st_header.h"
#include "lib/base/show.h"
#include "lib/base/str.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A tensor of the output: one record, or those that its family stores as one. */
struct st_slot {
    const char *name;
    enum mt_dtype dtype;
    int rank;
    int64_t shape[MT_RANK_MAX];
    uint64_t begin, bytes; /* from the start of its shard's data */
    size_t shard;
};

/* Where a record's bytes go. */
struct st_place {
    const struct mt_tensor *t;
    const char *name; /* of its slot */
    bool fused;
    uint64_t at, bytes; /* from the start of its slot */
    size_t lead;        /* the slot's first place */
    struct st_slot *slot;
};

struct st_shard {
    char name[256]; /* a file name has 255 bytes at most */
    struct mt_outfile *file;
    const struct mt_map *map; /* owned by the plan; NULL until something is reread */
    size_t first, n;          /* sorted[first .. first + n), in the order of their bytes */
    uint64_t header_bytes;    /* n of the file, padding included */
    uint64_t data_bytes;
    _Atomic bool dirty;
};

struct mt_writer {
    struct mt_outdir *out;
    struct mt_model *m;
    struct st_place *places;  /* of m's records, in their order */
    struct st_place **by_ptr; /* by address of the tensor: what `put` looks up, from any thread */
    size_t n;
    struct st_slot *slots;   /* in the order of their first records */
    struct st_slot **sorted; /* by shard, then by place in it */
    size_t n_slots;
    struct st_shard *shards;
    size_t n_shards;
    uint64_t total;        /* tensor bytes */
    bool stack;            /* experts */
    const char *file_name; /* of an output that is one file; NULL: a directory */
    char *config;          /* JSON that such a file carries; NULL: none. Owned */
};

/* ---- text ---- */

static void st_add_string(struct mt_str *s, const char *text)
{
    mt_str_add(s, "\"", 1);
    mt_str_add_escaped(s, text);
    mt_str_add(s, "\"", 1);
}

static void st_add_entry(struct mt_str *s, const struct st_slot *p)
{
    mt_str_add(s, ",", 1);
    st_add_string(s, p->name);
    mt_str_addf(s, ":{\"dtype\":\"%s\",\"shape\":[", mt_dtype_name(p->dtype));
    for (int i = 0; i < p->rank; i++)
        mt_str_addf(s, "%s%" PRId64, i > 0 ? "," : "", p->shape[i]);
    mt_str_addf(s, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", p->begin, p->begin + p->bytes);
}

/* The header's bytes, from its length to its padding; s is to be freed also after a failure. */
static mt_status st_header_text(struct mt_ctx *ctx, const struct mt_writer *w,
                                const struct st_shard *shard, struct mt_str *s)
{
    static const char meta[] = "{\"__metadata__\":{\"format\":\"pt\"";

    mt_str_begin(ctx, s, "header of the output");
    mt_str_add(s, "00000000", 8);
    mt_str_add(s, meta, sizeof meta - 1);
    if (w->config != NULL) {
        mt_str_add(s, ",\"" MT_ST_CONFIG_KEY "\":", sizeof MT_ST_CONFIG_KEY + 3);
        st_add_string(s, w->config);
    }
    mt_str_add(s, "}", 1);
    for (size_t i = 0; i < shard->n; i++)
        st_add_entry(s, w->sorted[shard->first + i]);
    mt_str_add(s, "}", 1);
    while (s->st == MT_OK && s->n % 8 != 0)
        mt_str_add(s, " ", 1);
    for (int i = 0; s->st == MT_OK && i < 8; i++)
        s->p[i] = (char)((uint64_t)(s->n - 8) >> (8 * i) & 255);
    return s->st;
}

/* ---- plan ---- */

static int st_by_slot(const void *a, const void *b)
{
    const struct st_slot *x = *(struct st_slot *const *)a, *y = *(struct st_slot *const *)b;

    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    if (x->dtype != y->dtype)
        return x->dtype > y->dtype ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int st_by_ptr(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t)(*(struct st_place *const *)a)->t;
    uintptr_t y = (uintptr_t)(*(struct st_place *const *)b)->t;

    return x < y ? -1 : x > y;
}

/* By name, then in the order of the model. */
static int st_by_name(const void *a, const void *b)
{
    const struct st_place *x = *(struct st_place *const *)a, *y = *(struct st_place *const *)b;
    int order = strcmp(x->name, y->name);

    return order != 0 ? order : x < y ? -1 : x > y;
}

static int st_slot_by_name(const void *a, const void *b)
{
    return strcmp((*(struct st_slot *const *)a)->name, (*(struct st_slot *const *)b)->name);
}

static mt_status st_place_one(struct mt_ctx *ctx, struct mt_writer *w, size_t i)
{
    struct st_place *p = &w->places[i];
    struct mt_fused_place whole;
    char show[MT_SHOW_BYTES];

    p->t = w->m->tensors[i];
    p->name = p->t->name;
    p->bytes = mt_tensor_bytes(p->t);
    p->lead = i;
    mt_assert(p->name != NULL);
    if (mt_dtype_is_block(p->t->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: safetensors has no %s blocks; only GGUF holds them",
                       mt_show_name(p->name, show), mt_dtype_name(p->t->dtype));
    MT_TRY(mt_family_fused_place(ctx, w->m, p->t, w->stack, &whole, &p->fused));
    if (!p->fused)
        return w->stack ? mt_family_stacked_name(ctx, w->m, p->t, &p->name) : MT_OK;
    p->name = whole.name;
    p->at = (uint64_t)whole.at * (mt_dtype_bits(p->t->dtype) / 8);
    return MT_OK;
}

/* Records under one name: a name is used once, or by all parts of one tensor. */
static mt_status st_join(struct mt_ctx *ctx, struct mt_writer *w)
{
    char show[MT_SHOW_BYTES];

    for (size_t i = 0; i < w->n; i++)
        w->by_ptr[i] = &w->places[i];
    if (w->n > 0)
        qsort(w->by_ptr, w->n, sizeof(struct st_place *), st_by_name);
    for (size_t i = 1; i < w->n; i++) {
        const struct st_place *a = w->by_ptr[i - 1], *b = w->by_ptr[i];
        if (strcmp(a->name, b->name) != 0)
            continue;
        if (!a->fused || !b->fused)
            return mt_fail(ctx, MT_E_FORMAT,
                           "two tensors would be written as \"%s\" (from %s and %s); a name can "
                           "be used once",
                           mt_show_name(a->name, show),
                           a->t->planner != NULL ? a->t->planner : "the source",
                           b->t->planner != NULL ? b->t->planner : "the source");
        if (a->t->dtype != b->t->dtype)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s: its parts are %s and %s, but models of family %s store them as one "
                           "tensor; choose one type with --dtype",
                           mt_show_name(a->name, show), mt_dtype_name(a->t->dtype),
                           mt_dtype_name(b->t->dtype), w->m->family->name);
        w->by_ptr[i]->lead = a->lead;
    }
    return MT_OK;
}

/* One slot for each name, in model order. */
static mt_status st_slots(struct mt_ctx *ctx, struct mt_writer *w)
{
    MT_TRY(mt_alloc0(ctx, w->n, sizeof *w->slots, "layout of the output", &w->slots));
    MT_TRY(mt_alloc0(ctx, w->n, sizeof(struct st_slot *), "layout of the output", &w->sorted));
    for (size_t i = 0; i < w->n; i++) {
        struct st_place *p = &w->places[i];
        struct mt_fused_place whole;
        bool fused = false;
        if (p->lead < i) {
            p->slot = w->places[p->lead].slot;
            p->slot->bytes += p->bytes;
            continue;
        }
        p->slot = &w->slots[w->n_slots++];
        *p->slot = (struct st_slot){
            .name = p->name, .dtype = p->t->dtype, .rank = p->t->rank, .bytes = p->bytes};
        memcpy(p->slot->shape, p->t->shape, sizeof p->t->shape);
        if (p->fused)
            MT_TRY(mt_family_fused_place(ctx, w->m, p->t, w->stack, &whole, &fused));
        if (fused) {
            p->slot->rank = whole.rank;
            memcpy(p->slot->shape, whole.shape, sizeof whole.shape);
        }
    }
    return MT_OK;
}

/* Fills shards in model order; a tensor larger than a shard gets one of its own. */
static mt_status st_assign(struct mt_ctx *ctx, struct mt_writer *w, uint64_t bytes_max)
{
    uint64_t filled = 0;

    w->n_shards = 1;
    for (size_t i = 0; i < w->n_slots; i++) {
        struct st_slot *p = &w->slots[i];
        w->sorted[i] = p;
        if (bytes_max > 0 && filled > 0 &&
            (p->bytes > bytes_max || filled > bytes_max - p->bytes)) {
            w->n_shards++;
            filled = 0;
        }
        p->shard = w->n_shards - 1;
        filled += p->bytes;
        if (__builtin_add_overflow(w->total, p->bytes, &w->total) || w->total > INT64_MAX / 2)
            return mt_fail(ctx, MT_E_LIMIT, "the output has more bytes than a file system holds");
    }
    return w->n_shards <= 99999
               ? MT_OK
               : mt_fail(ctx, MT_E_LIMIT, "--max-shard-size gives %zu files; choose a larger size",
                         w->n_shards);
}

static mt_status st_layout(struct mt_ctx *ctx, struct mt_writer *w)
{
    size_t at = 0;

    if (w->n_slots > 0)
        qsort(w->sorted, w->n_slots, sizeof(struct st_slot *), st_by_slot);
    for (size_t s = 0; s < w->n_shards; s++) {
        struct st_shard *sh = &w->shards[s];
        struct mt_str text;
        mt_status st;

        if (w->file_name != NULL)
            snprintf(sh->name, sizeof sh->name, "%s", w->file_name);
        else if (w->n_shards == 1)
            snprintf(sh->name, sizeof sh->name, MT_ST_SINGLE);
        else
            snprintf(sh->name, sizeof sh->name, "model-%05zu-of-%05zu" MT_ST_SUFFIX, s + 1,
                     w->n_shards);
        for (sh->first = at; at < w->n_slots && w->sorted[at]->shard == s; at++, sh->n++) {
            w->sorted[at]->begin = sh->data_bytes;
            sh->data_bytes += w->sorted[at]->bytes;
        }
        st = st_header_text(ctx, w, sh, &text);
        sh->header_bytes = text.n - (text.n > 8 ? 8 : text.n);
        mt_str_free(&text);
        MT_TRY(st);
        if (sh->header_bytes > MT_ST_HEADER_MAX)
            return mt_fail(ctx, MT_E_LIMIT,
                           "%s would need a header of %" PRIu64
                           " bytes, the format allows %u; choose a smaller --max-shard-size",
                           sh->name, sh->header_bytes, MT_ST_HEADER_MAX);
    }
    mt_assert(at == w->n_slots);
    return MT_OK;
}

static mt_status st_open_files(struct mt_ctx *ctx, struct mt_writer *w)
{
    for (size_t s = 0; s < w->n_shards; s++) {
        struct st_shard *sh = &w->shards[s];
        MT_TRY(mt_outdir_file(ctx, w->out, sh->name, 8 + sh->header_bytes + sh->data_bytes,
                              &sh->file));
    }
    return MT_OK;
}

static mt_status st_plan_all(struct mt_ctx *ctx, struct mt_writer *w,
                             const struct mt_write_opts *opts)
{
    w->n = w->m->n_tensors;
    MT_TRY(mt_alloc0(ctx, w->n, sizeof *w->places, "layout of the output", &w->places));
    MT_TRY(mt_alloc0(ctx, w->n, sizeof(struct st_place *), "layout of the output", &w->by_ptr));
    for (size_t i = 0; i < w->n; i++)
        MT_TRY(st_place_one(ctx, w, i));
    MT_TRY(st_join(ctx, w));
    MT_TRY(st_slots(ctx, w));
    MT_TRY(st_assign(ctx, w, opts->shard_bytes_max));
    MT_TRY(mt_alloc0(ctx, w->n_shards, sizeof *w->shards, "layout of the output", &w->shards));
    MT_TRY(st_layout(ctx, w));
    if (w->n > 0)
        qsort(w->by_ptr, w->n, sizeof(struct st_place *), st_by_ptr);
    return st_open_files(ctx, w);
}

static mt_status st_plan(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                         const struct mt_write_opts *opts, bool one_file, struct mt_writer **w)
{
    struct mt_write_opts o = *opts;
    mt_status st = MT_OK;
    size_t n;

    MT_TRY(mt_alloc0(ctx, 1, sizeof **w, "layout of the output", w));
    (*w)->out = out;
    (*w)->m = m;
    (*w)->stack = o.stack_experts;
    if (one_file && o.shard_bytes_max > 0)
        st = mt_fail(ctx, MT_E_OPTION,
                     "--max-shard-size: a .safetensors file is one file; name a directory to get "
                     "several");
    if (one_file && st == MT_OK) {
        (*w)->file_name = mt_outdir_name(out);
        if (o.config != NULL)
            st = mt_json_print(ctx, o.config, &(*w)->config, &n);
    }
    if (st == MT_OK)
        st = st_plan_all(ctx, *w, &o);
    if (st != MT_OK) {
        mt_st_writer_free(*w);
        *w = NULL;
    }
    return st;
}

mt_status mt_st_plan(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                     const struct mt_write_opts *opts, struct mt_writer **w)
{
    return st_plan(ctx, out, m, opts, false, w);
}

mt_status mt_st_plan_file(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                          const struct mt_write_opts *opts, struct mt_writer **w)
{
    return st_plan(ctx, out, m, opts, true, w);
}

void mt_st_writer_free(struct mt_writer *w)
{
    if (w == NULL)
        return;
    mt_free(w->config);
    mt_free(w->places);
    mt_free(w->by_ptr);
    mt_free(w->slots);
    mt_free(w->sorted);
    mt_free(w->shards);
    mt_free(w);
}

/* ---- tensors ---- */

static const struct st_place *st_find(const struct mt_writer *w, const struct mt_tensor *t)
{
    struct st_place key = {.t = t}, *k = &key;
    struct st_place *const *hit =
        bsearch(&k, w->by_ptr, w->n, sizeof(struct st_place *), st_by_ptr);

    mt_assert(hit != NULL);
    return *hit;
}

mt_status mt_st_put(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                    uint64_t offset, const void *bytes, size_t n)
{
    const struct st_place *p = st_find(w, t);
    struct st_shard *sh = &w->shards[p->slot->shard];
    uint64_t to = 8 + sh->header_bytes + p->slot->begin + p->at + offset;

    mt_assert(offset <= p->bytes && n <= p->bytes - offset);
    atomic_store(&sh->dirty, true);
    return mt_outfile_write(ctx, sh->file, to, bytes, n);
}

mt_status mt_st_sync(struct mt_ctx *ctx, struct mt_writer *w)
{
    for (size_t s = 0; s < w->n_shards; s++) {
        if (atomic_exchange(&w->shards[s].dirty, false))
            MT_TRY(mt_outfile_sync(ctx, w->shards[s].file));
    }
    return MT_OK;
}

mt_status mt_st_reread(struct mt_ctx *ctx, struct mt_writer *w, struct mt_tensor *t)
{
    const struct st_place *p = st_find(w, t);
    struct st_shard *sh = &w->shards[p->slot->shard];

    if (sh->map == NULL) {
        struct mt_map *map;
        MT_TRY(mt_map_open(ctx, mt_outfile_path(sh->file), &map));
        MT_TRY(mt_model_own_map(ctx, w->m, map));
        sh->map = map;
    }
    t->src.kind = MT_SRC_SLICE;
    t->src.slice.map = sh->map;
    t->src.slice.offset = 8 + sh->header_bytes + p->slot->begin + p->at;
    mt_st_strides(t, t->src.slice.stride);
    return MT_OK;
}

void mt_st_where(const struct mt_writer *w, const struct mt_tensor *t,
                 const struct mt_outfile **file, uint64_t *offset, uint64_t *bytes)
{
    const struct st_place *p = st_find(w, t);
    const struct st_shard *sh = &w->shards[p->slot->shard];

    *file = sh->file;
    *offset = 8 + sh->header_bytes + p->slot->begin + p->at;
    *bytes = p->bytes;
}

/* ---- end ---- */

static mt_status st_write_header(struct mt_ctx *ctx, const struct mt_writer *w, struct st_shard *sh)
{
    struct mt_str text;
    mt_status st = st_header_text(ctx, w, sh, &text);

    if (st == MT_OK) {
        mt_assert(text.n == 8 + sh->header_bytes);
        st = mt_outfile_write(ctx, sh->file, 0, text.p, text.n);
    }
    mt_str_free(&text);
    atomic_store(&sh->dirty, true);
    return st;
}

static void st_index_text(const struct mt_writer *w, struct st_slot *const *sorted,
                          struct mt_str *s)
{
    mt_str_addf(s,
                "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
                w->total);
    for (size_t i = 0; i < w->n_slots; i++) {
        mt_str_addf(s, "%s\n    ", i > 0 ? "," : "");
        st_add_string(s, sorted[i]->name);
        mt_str_addf(s, ": \"%s\"", w->shards[sorted[i]->shard].name);
    }
    mt_str_addf(s, "\n  }\n}\n");
}

static mt_status st_write_index(struct mt_ctx *ctx, const struct mt_writer *w)
{
    struct mt_str text;
    struct st_slot **sorted;
    mt_status st;

    MT_TRY(mt_alloc(ctx, w->n_slots, sizeof(struct st_slot *), "index of the output", &sorted));
    memcpy(sorted, w->sorted, w->n_slots * sizeof(struct st_slot *));
    qsort(sorted, w->n_slots, sizeof(struct st_slot *), st_slot_by_name);
    mt_str_begin(ctx, &text, "index of the output");
    st_index_text(w, sorted, &text);
    st = text.st;
    if (st == MT_OK)
        st = mt_outdir_text(ctx, w->out, MT_ST_INDEX, text.p, text.n);
    mt_str_free(&text);
    mt_free(sorted);
    return st;
}

static mt_status st_write_config(struct mt_ctx *ctx, const struct mt_writer *w,
                                 const struct mt_json *config)
{
    char *text;
    size_t n;

    MT_TRY(mt_json_print(ctx, config, &text, &n));
    mt_status st = mt_outdir_text(ctx, w->out, "config.json", text, n);
    mt_free(text);
    return st;
}

static bool st_same(const struct st_slot *p, const struct mt_st_record *r)
{
    bool same = strcmp(p->name, r->name) == 0 && (uint8_t)p->dtype == r->dtype &&
                p->rank == r->rank && p->begin == r->begin && p->begin + p->bytes == r->end;

    for (int i = 0; same && i < p->rank; i++)
        same = p->shape[i] == (int64_t)r->shape[i];
    return same;
}

/* Reads the file as a stranger would. */
static mt_status st_verify(struct mt_ctx *ctx, const struct mt_writer *w, const struct st_shard *sh)
{
    struct mt_arena arena;
    struct mt_st_header h;
    char show[MT_SHOW_BYTES];
    struct mt_map *map;
    mt_status st;

    MT_TRY(mt_map_open(ctx, mt_outfile_path(sh->file), &map));
    mt_arena_init(&arena);
    st = mt_st_header_read(ctx, map, &arena, &h);
    if (st == MT_OK && (h.n != sh->n || h.data_offset != 8 + sh->header_bytes))
        st = mt_fail(ctx, MT_E_IO, "%s: %zu tensors were written, but %zu are there", map->path,
                     sh->n, h.n);
    for (size_t i = 0; st == MT_OK && i < h.n; i++) {
        const struct st_slot *p = w->sorted[sh->first + i];
        if (!st_same(p, &h.v[i]))
            st = mt_fail(ctx, MT_E_IO, "%s: tensor \"%s\" is not as planned", map->path,
                         mt_show_name(p->name, show));
    }
    mt_st_header_free(&h);
    mt_arena_free(&arena);
    mt_map_close(map);
    return mt_wrap(ctx, st, "checking what was written");
}

mt_status mt_st_end(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_json *config)
{
    MT_TRY(mt_st_sync(ctx, w));
    for (size_t s = 0; s < w->n_shards; s++)
        MT_TRY(st_write_header(ctx, w, &w->shards[s]));
    MT_TRY(mt_st_sync(ctx, w));
    for (size_t s = 0; s < w->n_shards; s++)
        MT_TRY(st_verify(ctx, w, &w->shards[s]));
    if (w->file_name != NULL)
        return MT_OK;
    if (config != NULL)
        MT_TRY(st_write_config(ctx, w, config));
    return w->n_shards > 1 ? st_write_index(ctx, w) : MT_OK;
}
