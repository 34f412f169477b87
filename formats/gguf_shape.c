/* Values that GGUF keeps in another shape than families do: norms with their one, DeepSeek's kv_b
 * in two, MXFP4 in GGML's blocks. */
#include "formats/gguf_arch.h"
#include "kernels/kernels.h"
#include "lib/base/mem.h"

#include <string.h>

static void shape_recipe(struct mt_tensor *t, mt_recipe_fn eval, const char *name,
                         const struct mt_tensor *a, const struct mt_tensor *b, const void *args)
{
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = eval;
    t->src.recipe.name = name;
    t->src.recipe.in[0] = a;
    t->src.recipe.in[1] = b;
    t->src.recipe.n_in = b != NULL ? 2 : 1;
    t->src.recipe.args = args;
}

/* ---- norms ---- */

static mt_status shape_eval_add(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                int64_t n, void *dst)
{
    const float *value = t->src.recipe.args;
    float *v = dst;

    MT_TRY(mt_tensor_fetch_f32(ctx, t->src.recipe.in[0], row, n, v));
    for (int64_t i = 0; i < n * mt_tensor_cols(t); i++)
        v[i] += *value;
    return MT_OK;
}

mt_status mt_gguf_add(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                      const struct mt_tensor *raw, float value)
{
    float *arg;

    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *arg, &arg));
    *arg = value;
    t->dtype = MT_F32;
    shape_recipe(t, shape_eval_add, "add", raw, NULL, arg);
    return MT_OK;
}

/* ---- latent attention: kv_b holds, head by head, `nope` rows for keys and `v` for values ---- */

struct shape_kv {
    int64_t heads, nope, v, rank;
};

/* Rows of values as they stand. */
static mt_status shape_eval_v(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                              void *dst)
{
    const struct shape_kv *s = t->src.recipe.args;
    uint64_t row_bytes = 0;
    char *to = dst;

    bool whole = mt_dtype_bytes(t->dtype, (uint64_t)s->rank, &row_bytes);
    mt_assert(whole);
    while (n > 0) {
        int64_t at = row % s->v, some = s->v - at < n ? s->v - at : n;
        int64_t from = row / s->v * (s->nope + s->v) + s->nope + at;
        MT_TRY(mt_tensor_fetch(ctx, t->src.recipe.in[0], from, some, to));
        to += (uint64_t)some * row_bytes;
        row += some;
        n -= some;
    }
    return MT_OK;
}

/* Turns `cols` columns from `first` on of a matrix of `rows` rows into rows. */
static void shape_turn(const char *from, int64_t rows, int64_t line, int64_t first, int64_t cols,
                       size_t size, char *to)
{
    for (int64_t c = 0; c < cols; c++)
        for (int64_t r = 0; r < rows; r++, to += size)
            memcpy(to, from + (size_t)(r * line + first + c) * size, size);
}

/* Keys of a head, turned: row r of [heads, rank, nope] is a column of the head's rows. */
static mt_status shape_eval_k(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                              void *dst)
{
    const struct shape_kv *s = t->src.recipe.args;
    size_t size = mt_dtype_bits(t->dtype) / 8;
    mt_status st = MT_OK;
    char *buf, *to = dst;

    MT_TRY(mt_alloc(ctx, (size_t)(s->nope * s->rank), size, "keys of a head", &buf));
    while (n > 0 && st == MT_OK) {
        int64_t at = row % s->rank, some = s->rank - at < n ? s->rank - at : n;
        st = mt_tensor_fetch(ctx, t->src.recipe.in[0], row / s->rank * (s->nope + s->v), s->nope,
                             buf);
        if (st == MT_OK)
            shape_turn(buf, s->nope, s->rank, at, some, size, to);
        to += (size_t)(some * s->nope) * size;
        row += some;
        n -= some;
    }
    mt_free(buf);
    return st;
}

/* Rows of one part of a head of kv_b; plain numbers of the same type are copied, others become
 * floats first. */
static mt_status shape_join_head(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                 int64_t n, char *to)
{
    const struct shape_kv *s = t->src.recipe.args;
    const struct mt_tensor *k = t->src.recipe.in[0], *v = t->src.recipe.in[1];
    int64_t each = s->nope + s->v, head = row / each, at = row % each;
    size_t size = mt_dtype_bits(t->dtype) / 8;
    bool key = at < s->nope, same = (key ? k : v)->dtype == t->dtype;
    mt_status st;
    char *buf;

    if (!key)
        return same ? mt_tensor_fetch(ctx, v, head * s->v + at - s->nope, n, to)
                    : mt_tensor_fetch_f32(ctx, v, head * s->v + at - s->nope, n, (void *)to);
    MT_TRY(mt_alloc(ctx, (size_t)(s->nope * s->rank), size, "keys of a head", &buf));
    st = same ? mt_tensor_fetch(ctx, k, head * s->rank, s->rank, buf)
              : mt_tensor_fetch_f32(ctx, k, head * s->rank, s->rank, (void *)buf);
    if (st == MT_OK)
        shape_turn(buf, s->rank, s->nope, at, n, size, to);
    mt_free(buf);
    return st;
}

static mt_status shape_eval_join(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                 int64_t n, void *dst)
{
    const struct shape_kv *s = t->src.recipe.args;
    size_t row_bytes = (size_t)s->rank * (mt_dtype_bits(t->dtype) / 8);
    char *to = dst;

    while (n > 0) {
        int64_t at = row % (s->nope + s->v), end = at < s->nope ? s->nope : s->nope + s->v;
        int64_t some = end - at < n ? end - at : n;
        MT_TRY(shape_join_head(ctx, t, row, some, to));
        to += (size_t)some * row_bytes;
        row += some;
        n -= some;
    }
    return MT_OK;
}

mt_status mt_gguf_join_kv(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *k,
                          const struct mt_tensor *v, struct mt_tensor **out)
{
    bool same = k->dtype == v->dtype && mt_dtype_is_plain_float(k->dtype);
    struct shape_kv *s;

    if (k->rank != 3 || v->rank != 3 || k->shape[0] != v->shape[0] || k->shape[1] != v->shape[2])
        return mt_fail(ctx, MT_E_FORMAT, "%s and %s do not fit each other", k->name, v->name);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *s, &s));
    *s = (struct shape_kv){k->shape[0], k->shape[2], v->shape[1], k->shape[1]};
    const int64_t shape[2] = {s->heads * (s->nope + s->v), s->rank};
    MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_OTHER, -1, MT_EXPERT_NONE),
                        same ? k->dtype : MT_F32, 2, shape, out));
    shape_recipe(*out, shape_eval_join, "join-kv", k, v, s);
    return MT_OK;
}

static mt_status shape_add_part(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *kv,
                                const struct shape_kv *s, bool key, struct mt_tensor **out)
{
    int64_t shape[3] = {s->heads, key ? s->rank : s->v, key ? s->nope : s->rank};
    struct mt_role role =
        mt_role(key ? MT_ROLE_ATTN_K_B : MT_ROLE_ATTN_V_B, kv->role.layer, MT_EXPERT_NONE);

    MT_TRY(mt_model_add(ctx, m, role, kv->dtype, 3, shape, out));
    (*out)->name = kv->name;
    (*out)->planner = kv->planner;
    shape_recipe(*out, key ? shape_eval_k : shape_eval_v, key ? "keys of kv_b" : "values of kv_b",
                 kv, NULL, s);
    return MT_OK;
}

static mt_status shape_split_kv(struct mt_ctx *ctx, struct mt_model *m, const struct mt_tensor *kv,
                                struct mt_tensor **k, struct mt_tensor **v)
{
    const struct mt_mla *l = &m->hp.mla;
    struct shape_kv *s;

    if (!mt_dtype_pickable(kv->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: %s blocks cannot be turned into GGUF's attn_k_b; choose a float type "
                       "with --dtype",
                       kv->name, mt_dtype_name(kv->dtype));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *s, &s));
    *s = (struct shape_kv){m->hp.n_heads, l->nope, l->v, l->kv_rank};
    MT_TRY(shape_add_part(ctx, m, kv, s, true, k));
    return shape_add_part(ctx, m, kv, s, false, v);
}

/* ---- the plan ---- */

bool mt_gguf_norm_has_one(const struct mt_gguf_arch *a, struct mt_role role)
{
    if ((a->does & MT_GGUF_NORM_ONE) == 0 || role.part != MT_PART_WEIGHT)
        return false;
    switch (role.kind) {
    case MT_ROLE_ATTN_NORM:
    case MT_ROLE_ATTN_POST_NORM:
    case MT_ROLE_FFN_NORM:
    case MT_ROLE_FFN_POST_NORM:
    case MT_ROLE_FINAL_NORM:
    case MT_ROLE_Q_NORM:
    case MT_ROLE_K_NORM:
        return true;
    default:
        return false;
    }
}

/* One record of the plan as the file has it: itself, another, or two. */
static mt_status shape_one(struct mt_ctx *ctx, struct mt_model *m, const struct mt_gguf_arch *a,
                           struct mt_tensor *t, struct mt_tensor *to[2])
{
    to[0] = t;
    to[1] = NULL;
    if (t->role.kind == MT_ROLE_ATTN_KV_B)
        return shape_split_kv(ctx, m, t, &to[0], &to[1]);
    if (mt_gguf_norm_has_one(a, t->role)) {
        MT_TRY(mt_model_add(ctx, m, t->role, MT_F32, t->rank, t->shape, &to[0]));
        to[0]->name = t->name;
        to[0]->planner = t->planner;
        return mt_gguf_add(ctx, m, to[0], t, 1);
    }
    return mt_model_keep_mx(ctx, m, t, &to[0]);
}

/* The embeddings once more, for a loader that asks for a head. */
static mt_status shape_head(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor **out,
                            size_t *n)
{
    const struct mt_role role = mt_role(MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE);
    struct mt_tensor *embed, *head;

    if (!m->hp.tied || mt_model_find(m, role) != NULL)
        return MT_OK;
    MT_TRY(mt_model_need(ctx, m, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE), &embed));
    MT_TRY(mt_model_add(ctx, m, role, embed->dtype, embed->rank, embed->shape, &head));
    head->name = "lm_head.weight";
    head->planner = embed->planner;
    head->src.kind = MT_SRC_ALIAS;
    head->src.alias = embed;
    out[(*n)++] = head;
    return MT_OK;
}

static mt_status shape_all(struct mt_ctx *ctx, struct mt_model *m, const struct mt_gguf_arch *a,
                           size_t n_plan, struct mt_tensor **out, size_t *n)
{
    struct mt_tensor *to[2];

    *n = 0;
    for (size_t i = 0; i < n_plan; i++) {
        MT_TRY(shape_one(ctx, m, a, m->tensors[i], to));
        out[(*n)++] = to[0];
        if (to[1] != NULL)
            out[(*n)++] = to[1];
    }
    return (a->does & MT_GGUF_HEAD) != 0 ? shape_head(ctx, m, out, n) : MT_OK;
}

mt_status mt_gguf_prepare(struct mt_ctx *ctx, struct mt_model *plan, struct mt_tensor ***out,
                          size_t *n)
{
    const struct mt_gguf_arch *a = mt_gguf_arch_of_family(plan->family);
    size_t n_plan = plan->n_tensors;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_gguf_holds(ctx, plan));
    MT_TRY(mt_alloc(ctx, 2 * n_plan + 1, sizeof(struct mt_tensor *), "records to write", out));
    st = shape_all(ctx, plan, a, n_plan, *out, n);
    /* They live on, but the plan lists its own records only. */
    while (plan->n_tensors > n_plan)
        mt_model_remove(plan, plan->tensors[plan->n_tensors - 1]);
    return st;
}
