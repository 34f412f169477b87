#include "passes/lib/siblings.h"

#include "kernels/kernels.h"
#include "lib/base/mem.h"
#include "lib/ir/family.h"

#include <stdio.h>
#include <string.h>

/* ---- alike? ---- */

/* The record of `m` that stands where t does in another model: by role, or by name where the family
 * has no role for it. */
static const struct mt_tensor *siblings_same(const struct mt_model *m, const struct mt_tensor *t)
{
    if (t->role.kind != MT_ROLE_OTHER)
        return mt_model_find(m, t->role);
    for (size_t i = 0; i < m->n_tensors && t->name != NULL; i++)
        if (m->tensors[i]->name != NULL && strcmp(m->tensors[i]->name, t->name) == 0)
            return m->tensors[i];
    return NULL;
}

static void siblings_shape(const struct mt_tensor *t, char *buf, size_t n)
{
    size_t at = 0;

    buf[0] = '\0';
    for (int i = 0; i < t->rank && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%lld", i > 0 ? " x " : "",
                               (long long)t->shape[i]);
}

static bool siblings_same_shape(const struct mt_tensor *a, const struct mt_tensor *b)
{
    bool same = a->rank == b->rank;

    for (int i = 0; same && i < a->rank; i++)
        same = a->shape[i] == b->shape[i];
    return same;
}

/* Every tensor of a is in b, with the same shape. */
static mt_status siblings_check_tensors(struct mt_ctx *ctx, const struct mt_model *a,
                                        const struct mt_model *b)
{
    char label[160], have[96], want[96];

    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct mt_tensor *t = a->tensors[i], *u = siblings_same(b, t);
        mt_tensor_label(t, label, sizeof label);
        if (u == NULL)
            return mt_fail(ctx, MT_E_OPTION,
                           "%s has no %s, which %s has: they are no fine-tunes of "
                           "one model",
                           b->path, label, a->path);
        if (siblings_same_shape(t, u))
            continue;
        siblings_shape(t, want, sizeof want);
        siblings_shape(u, have, sizeof have);
        return mt_fail(ctx, MT_E_OPTION,
                       "%s: %s is %s, but %s in %s: they are no fine-tunes of one model", b->path,
                       label, have, want, a->path);
    }
    return MT_OK;
}

static mt_status siblings_differ(struct mt_ctx *ctx, const struct mt_model *a,
                                 const struct mt_model *b, const char *what)
{
    return mt_fail(ctx, MT_E_OPTION,
                   "%s and %s have different %s, so their %s cannot be one; use "
                   "--attention first",
                   a->path, b->path, what, what);
}

static mt_status siblings_check_attention(struct mt_ctx *ctx, const struct mt_model *a,
                                          const struct mt_model *b)
{
    const struct mt_hparams *x = &a->hp, *y = &b->hp;

    if (x->n_heads != y->n_heads || x->n_kv_heads != y->n_kv_heads || x->head_dim != y->head_dim)
        return siblings_differ(ctx, a, b, "attention heads");
    if (x->rope.type != y->rope.type || x->rope.theta != y->rope.theta ||
        x->rope.factor != y->rope.factor || x->rope.partial != y->rope.partial ||
        x->rope.pairs != y->rope.pairs)
        return siblings_differ(ctx, a, b, "rotary positions");
    if (x->norm_eps != y->norm_eps || x->norm_offset != y->norm_offset)
        return siblings_differ(ctx, a, b, "norms");
    return MT_OK;
}

static mt_status siblings_check_one(struct mt_ctx *ctx, const struct mt_model *a,
                                    const struct mt_model *b, bool mean)
{
    if (b->family == NULL || a->family == NULL || b->family->name == NULL ||
        strcmp(b->family->name, a->family->name) != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s is %s, but %s is %s: experts must come from models of one architecture",
                       b->path, b->model_type != NULL ? b->model_type : "of unknown family",
                       a->path, a->model_type != NULL ? a->model_type : "of unknown family");
    if (a->hp.n_layers != b->hp.n_layers)
        return mt_fail(ctx, MT_E_OPTION,
                       "%s has %d layers, but %s has %d: they are no fine-tunes of one model",
                       b->path, b->hp.n_layers, a->path, a->hp.n_layers);
    for (int l = 0; l < a->hp.n_layers; l++)
        if (a->ffn[l].moe != b->ffn[l].moe || a->ffn[l].act != b->ffn[l].act ||
            a->ffn[l].gated != b->ffn[l].gated)
            return mt_fail(ctx, MT_E_OPTION,
                           "%s: the FFN of layer %d is of another kind, or has another activation, "
                           "than that of %s",
                           b->path, l, a->path);
    MT_TRY(siblings_check_tensors(ctx, a, b));
    MT_TRY(siblings_check_tensors(ctx, b, a));
    return mean ? siblings_check_attention(ctx, a, b) : MT_OK;
}

mt_status mt_siblings_check(struct mt_ctx *ctx, const struct mt_model *src, bool mean)
{
    for (int i = 0; i < src->n_siblings; i++)
        MT_TRY(siblings_check_one(ctx, src, src->siblings[i].m, mean));
    return MT_OK;
}

/* ---- the mean ---- */

/* Row by row, so that memory does not grow with the matrix. */
static mt_status siblings_eval_mean(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                    int64_t n, void *dst)
{
    size_t cols = (size_t)mt_tensor_cols(t), k = t->src.recipe.n_more;
    size_t bytes = cols * (mt_dtype_bits(t->dtype) / 8);
    mt_status st = MT_OK;
    double *sum = NULL;
    char *to = dst;
    float *v;

    MT_TRY(mt_alloc(ctx, cols, sizeof(*v), "a row of weights", &v));
    st = mt_alloc(ctx, cols, sizeof(*sum), "a row of weights", &sum);
    for (int64_t r = row; r < row + n && st == MT_OK; r++, to += bytes) {
        memset(sum, 0, cols * sizeof(*sum));
        for (size_t i = 0; i < k && st == MT_OK; i++) {
            st = mt_tensor_fetch_f32(ctx, t->src.recipe.more[i], r, 1, v);
            for (size_t c = 0; st == MT_OK && c < cols; c++)
                sum[c] += (double)v[c];
        }
        for (size_t c = 0; c < cols; c++)
            v[c] = (float)(sum[c] / (double)k);
        if (st == MT_OK)
            mt_kernels_get()->from_f32(t->dtype, v, to, cols);
    }
    mt_free(v);
    mt_free(sum);
    return st;
}

mt_status mt_recipe_mean(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                         const struct mt_tensor *const *from, int n)
{
    const struct mt_tensor **list;

    mt_assert(n > 0 && mt_dtype_is_plain_float(t->dtype));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)n, sizeof(struct mt_tensor *), &list));
    memcpy(list, from, (size_t)n * sizeof(struct mt_tensor *));
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = siblings_eval_mean;
    t->src.recipe.name = "mean";
    t->src.recipe.more = list;
    t->src.recipe.n_more = (size_t)n;
    return MT_OK;
}

static mt_status siblings_mean_one(struct mt_ctx *ctx, const struct mt_model *src, bool own,
                                   struct mt_model *m, struct mt_tensor *t,
                                   const struct mt_tensor **from)
{
    const struct mt_tensor *first = siblings_same(src, t);
    char label[160];
    int n = 0;

    if (first == NULL)
        return MT_OK; /* planned by the pass */
    if (!mt_dtype_is_plain_float(t->dtype)) {
        if (!mt_dtype_reads_f32(t->dtype))
            return MT_OK;
        mt_tensor_label(t, label, sizeof label);
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s is %s, of which there is no mean: use --attention first", label,
                       mt_dtype_name(t->dtype));
    }
    if (own)
        from[n++] = first;
    for (int i = 0; i < src->n_siblings; i++)
        from[n++] = siblings_same(src->siblings[i].m, t);
    return mt_recipe_mean(ctx, m, t, from, n);
}

mt_status mt_siblings_mean(struct mt_ctx *ctx, const struct mt_model *src, bool own,
                           struct mt_model *m)
{
    const struct mt_role role = mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE);
    const struct mt_tensor *embed = mt_model_find(src, role), **from;
    struct mt_tensor *mine = mt_model_find(m, role);
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, (size_t)src->n_siblings + 1, sizeof(struct mt_tensor *), "list of records",
                    &from));
    for (size_t i = 0; i < m->n_tensors && st == MT_OK; i++) {
        struct mt_tensor *t = m->tensors[i];
        const struct mt_tensor *first = siblings_same(src, t);
        /* A head that is the embedding stays it. */
        if (first != NULL && t != mine && mine != NULL && embed != NULL &&
            mt_tensor_origin(first) == mt_tensor_origin(embed)) {
            memset(&t->src, 0, sizeof t->src);
            t->src.kind = MT_SRC_ALIAS;
            t->src.alias = mine;
        } else {
            st = siblings_mean_one(ctx, src, own, m, t, from);
        }
    }
    mt_free(from);
    return st;
}
