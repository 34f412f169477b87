#include "lib/ir/model.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define MODEL_RECORDS_MAX 10000000

/* Open addressing with linear probing; capacity is a power of two, at most half full (buried
 * slots included). `other` records have no place here. */
struct mt_role_index {
    struct mt_tensor **slot; /* NULL: free */
    size_t cap, n_used;
    size_t n_second; /* listed records whose role had been taken by another */
};

static struct mt_tensor model_buried; /* marks a slot whose record was removed */

static size_t model_hash(struct mt_role r)
{
    uint64_t h = (uint64_t)r.kind << 4 | (uint64_t)r.part;

    h = h << 28 ^ (uint64_t)(uint32_t)r.layer << 14 ^ (uint64_t)(uint32_t)r.expert;
    h *= 0x9E3779B97F4A7C15u;
    return (size_t)(h ^ h >> 29);
}

static bool model_same_role(struct mt_role a, struct mt_role b)
{
    return a.kind == b.kind && a.layer == b.layer && a.expert == b.expert && a.part == b.part;
}

/* The slot of a role, or the free slot that ends its chain. */
static struct mt_tensor **model_slot(const struct mt_role_index *x, struct mt_role role)
{
    size_t i = model_hash(role) & (x->cap - 1);

    while (x->slot[i] != NULL &&
           (x->slot[i] == &model_buried || !model_same_role(x->slot[i]->role, role)))
        i = (i + 1) & (x->cap - 1);
    return &x->slot[i];
}

static mt_status model_index_grow(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_role_index *x = m->index;
    struct mt_tensor **old = x->slot, **slot;
    size_t old_cap = x->cap, live = 0, cap = 64;

    for (size_t i = 0; i < old_cap; i++)
        live += old[i] != NULL && old[i] != &model_buried;
    while (cap < (live + 1) * 4)
        cap *= 2;
    MT_TRY(mt_alloc0(ctx, cap, sizeof(struct mt_tensor *), "index of tensors", &slot));
    x->slot = slot;
    x->cap = cap;
    x->n_used = live;
    for (size_t i = 0; i < old_cap; i++)
        if (old[i] != NULL && old[i] != &model_buried)
            *model_slot(x, old[i]->role) = old[i];
    mt_free(old);
    return MT_OK;
}

/* The first record of a role is the one found; a second stays listed, for verify to name. */
static void model_index_put(struct mt_model *m, struct mt_tensor *t)
{
    struct mt_tensor **slot;

    if (t->role.kind == MT_ROLE_OTHER)
        return;
    slot = model_slot(m->index, t->role);
    if (*slot == NULL) {
        *slot = t;
        m->index->n_used++;
    } else {
        m->index->n_second++;
    }
}

static void model_index_drop(struct mt_model *m, struct mt_tensor *t)
{
    struct mt_tensor **slot;

    if (t->role.kind == MT_ROLE_OTHER)
        return;
    slot = model_slot(m->index, t->role);
    if (*slot != t) {
        m->index->n_second--;
        return;
    }
    *slot = &model_buried;
    for (size_t i = 0; i < m->n_tensors && m->index->n_second > 0; i++)
        if (m->tensors[i] != t && model_same_role(m->tensors[i]->role, t->role)) {
            *slot = m->tensors[i];
            m->index->n_second--;
            return;
        }
}

mt_status mt_model_create(struct mt_ctx *ctx, struct mt_model **out)
{
    struct mt_model *m;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *m, "model", &m));
    mt_arena_init(&m->arena);
    st = mt_arena_alloc(ctx, &m->arena, 1, sizeof *m->index, &m->index);
    if (st == MT_OK)
        st = model_index_grow(ctx, m);
    if (st != MT_OK) {
        mt_model_free(m);
        return st;
    }
    m->path = "";
    m->hp.bos_id = m->hp.eos_id = -1;
    *out = m;
    return MT_OK;
}

void mt_model_free(struct mt_model *m)
{
    if (m == NULL)
        return;
    for (size_t i = 0; i < m->n_maps; i++)
        mt_map_close(m->maps[i]);
    for (size_t i = 0; i < m->n_owned; i++)
        mt_free(m->owned[i]);
    mt_free(m->maps);
    mt_free(m->owned);
    mt_free(m->tensors);
    if (m->index != NULL)
        mt_free(m->index->slot);
    if (m->source == NULL)
        mt_json_free(m->config);
    mt_arena_free(&m->arena);
    mt_free(m);
}

static mt_status model_list(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t)
{
    if (m->n_tensors >= MODEL_RECORDS_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "%s: more than %d tensors", m->path, MODEL_RECORDS_MAX);
    MT_TRY(mt_grow(ctx, m->n_tensors, &m->cap_tensors, sizeof(void *), "list of tensors",
                   &m->tensors));
    if ((m->index->n_used + 1) * 2 > m->index->cap)
        MT_TRY(model_index_grow(ctx, m));
    m->tensors[m->n_tensors++] = t;
    model_index_put(m, t);
    return MT_OK;
}

mt_status mt_model_add(struct mt_ctx *ctx, struct mt_model *m, struct mt_role role,
                       enum mt_dtype dtype, int rank, const int64_t *shape, struct mt_tensor **out)
{
    uint64_t count = 1, nonzero = 1, bytes;
    struct mt_tensor *t;
    char label[128];

    *out = NULL;
    if (rank < 0 || rank > MT_RANK_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "%s: %d dimensions, at most %d are supported",
                       mt_role_print(role, label, sizeof label), rank, MT_RANK_MAX);
    for (int i = 0; i < rank; i++) {
        /* Products over some of the dimensions are used too, so a zero must not hide them. */
        if (shape[i] < 0 ||
            !mt_size_mul(nonzero, shape[i] == 0 ? 1 : (uint64_t)shape[i], &nonzero) ||
            nonzero > INT64_MAX / 8)
            return mt_fail(ctx, MT_E_FORMAT, "%s: impossible shape, dimension %d is %" PRId64,
                           mt_role_print(role, label, sizeof label), i, shape[i]);
        count *= (uint64_t)shape[i];
    }
    if (!mt_dtype_bytes(dtype, count, &bytes))
        return mt_fail(ctx, MT_E_FORMAT, "%s: %" PRIu64 " elements of %s do not fill whole bytes",
                       mt_role_print(role, label, sizeof label), count, mt_dtype_name(dtype));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *t, &t));
    t->role = role;
    t->dtype = dtype;
    t->rank = rank;
    for (int i = 0; i < rank; i++)
        t->shape[i] = shape[i];
    MT_TRY(model_list(ctx, m, t));
    *out = t;
    return MT_OK;
}

void mt_model_remove(struct mt_model *m, struct mt_tensor *t)
{
    for (size_t i = 0; i < m->n_tensors; i++)
        if (m->tensors[i] == t) {
            model_index_drop(m, t);
            memmove(&m->tensors[i], &m->tensors[i + 1],
                    (m->n_tensors - i - 1) * sizeof(struct mt_tensor *));
            m->n_tensors--;
            return;
        }
}

mt_status mt_model_set_role(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                            struct mt_role role)
{
    if ((m->index->n_used + 1) * 2 > m->index->cap)
        MT_TRY(model_index_grow(ctx, m));
    model_index_drop(m, t);
    t->role = role;
    model_index_put(m, t);
    return MT_OK;
}

struct mt_tensor *mt_model_find(const struct mt_model *m, struct mt_role role)
{
    return role.kind == MT_ROLE_OTHER ? NULL : *model_slot(m->index, role);
}

struct mt_tensor *mt_model_bias(const struct mt_model *m, enum mt_role_kind kind, int layer,
                                int expert)
{
    struct mt_role role = mt_role(kind, layer, expert);

    role.part = MT_PART_BIAS;
    return mt_model_find(m, role);
}

mt_status mt_model_need(struct mt_ctx *ctx, const struct mt_model *m, struct mt_role role,
                        struct mt_tensor **out)
{
    char label[128];

    *out = mt_model_find(m, role);
    if (*out == NULL)
        return mt_fail(ctx, MT_E_ABSENT, "%s: %s is missing", m->path,
                       mt_role_print(role, label, sizeof label));
    return MT_OK;
}

static mt_status model_plan_records(struct mt_ctx *ctx, const struct mt_model *src,
                                    struct mt_model *m)
{
    for (size_t i = 0; i < src->n_tensors; i++) {
        const struct mt_tensor *from = src->tensors[i];
        struct mt_tensor *t;

        MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *t, &t));
        *t = *from;
        memset(&t->src, 0, sizeof t->src);
        t->src.kind = MT_SRC_ALIAS;
        t->src.alias = from;
        MT_TRY(model_list(ctx, m, t));
    }
    return MT_OK;
}

mt_status mt_model_plan(struct mt_ctx *ctx, const struct mt_model *src, struct mt_model **out)
{
    size_t n_layers = src->ffn == NULL ? 0 : (size_t)src->hp.n_layers;
    struct mt_model *m;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_model_create(ctx, &m));
    m->source = src;
    m->path = src->path;
    m->format = src->format;
    m->family = src->family;
    m->base = src->base != NULL ? src->base : src->family;
    m->model_type = src->model_type;
    m->hp = src->hp;
    m->config = src->config;
    m->sidecars = src->sidecars;
    m->n_sidecars = src->n_sidecars;
    if (n_layers > 0) {
        st = mt_arena_alloc(ctx, &m->arena, n_layers, sizeof *m->ffn, &m->ffn);
        if (st == MT_OK)
            memcpy(m->ffn, src->ffn, n_layers * sizeof *m->ffn);
    } else {
        st = MT_OK;
    }
    if (st == MT_OK)
        st = model_plan_records(ctx, src, m);
    if (st != MT_OK) {
        mt_model_free(m);
        return st;
    }
    *out = m;
    return MT_OK;
}

mt_status mt_model_own_map(struct mt_ctx *ctx, struct mt_model *m, struct mt_map *map)
{
    mt_status st = mt_grow(ctx, m->n_maps, &m->cap_maps, sizeof(void *), "list of files", &m->maps);

    if (st == MT_OK)
        m->maps[m->n_maps++] = map;
    else
        mt_map_close(map);
    return st;
}

mt_status mt_model_own_buffer(struct mt_ctx *ctx, struct mt_model *m, void *buf)
{
    mt_status st =
        mt_grow(ctx, m->n_owned, &m->cap_owned, sizeof(void *), "list of buffers", &m->owned);

    if (st == MT_OK)
        m->owned[m->n_owned++] = buf;
    else
        mt_free(buf);
    return st;
}

static bool model_is_head(const struct mt_tensor *t)
{
    return t->role.kind == MT_ROLE_LM_HEAD && t->role.part == MT_PART_WEIGHT;
}

/* Numbers a record stands for: codes hold several in a byte, and what belongs to them none. */
static uint64_t model_params(const struct mt_model *m, const struct mt_tensor *t)
{
    const struct mt_ffn *f;

    if (t->role.kind == MT_ROLE_OTHER || t->role.part < MT_PART_SPARSE_ROWS)
        return (uint64_t)mt_tensor_count(t);
    if (t->role.part != MT_PART_CODES || m->ffn == NULL || t->role.layer < 0 ||
        t->role.layer >= m->hp.n_layers)
        return 0;
    f = &m->ffn[t->role.layer];
    return t->role.expert < 0 || t->role.expert >= f->n_experts
               ? 0
               : (uint64_t)(mt_ffn_expert_width(f, t->role.expert) * m->hp.hidden);
}

void mt_model_measure(const struct mt_model *m, struct mt_model_size *out)
{
    const struct mt_tensor *embed = mt_model_find(m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE));

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        uint64_t n = model_params(m, t), active = n;
        bool is_ffn = t->role.kind == MT_ROLE_FFN_GATE || t->role.kind == MT_ROLE_FFN_UP ||
                      t->role.kind == MT_ROLE_FFN_DOWN;

        /* A tied head is one matrix under two names, even where a file stores it twice. */
        bool same = embed != NULL && mt_tensor_origin(embed) == mt_tensor_origin(t);
        if (!model_is_head(t) || !same)
            out->bytes += mt_tensor_bytes(t);
        if (model_is_head(t) && (same || m->hp.tied))
            continue;
        if (t->role.kind == MT_ROLE_OTHER) {
            active = 0;
        } else if (t->role.expert >= 0 && m->ffn != NULL && t->role.layer >= 0 &&
                   t->role.layer < m->hp.n_layers) {
            const struct mt_ffn *f = &m->ffn[t->role.layer];

            /* Experts 0..k-1 stand for whichever k are chosen where all have one shape. */
            double mean = mt_ffn_mean_active(f);
            if (f->widths == NULL && mean == floor(mean))
                active = t->role.expert < (int)mean ? n : 0;
            else
                active = (uint64_t)((double)n * mean / f->n_experts);
        }
        out->params_total += n;
        out->params_active += active;
        if (is_ffn) {
            out->ffn_params_total += n;
            out->ffn_params_active += active;
        }
    }
}

double mt_model_mean_active(const struct mt_model *m)
{
    double sum = 0;
    int n = 0;

    for (int l = 0; m->ffn != NULL && l < m->hp.n_layers; l++) {
        sum += m->ffn[l].moe ? mt_ffn_mean_active(&m->ffn[l]) : 0;
        n += m->ffn[l].moe;
    }
    return n > 0 ? sum / n : 0;
}
