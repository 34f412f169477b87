#include "kernels/kernels.h"
#include "lib/ir/model.h"

#include <inttypes.h>
#include <string.h>

struct recipe_gather {
    const int32_t *idx;
    float scale;
};

static void recipe_set(struct mt_tensor *t, mt_recipe_fn eval, const char *name,
                       const struct mt_tensor *from, const void *args)
{
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = eval;
    t->src.recipe.name = name;
    t->src.recipe.in[0] = from;
    t->src.recipe.n_in = from != NULL;
    t->src.recipe.args = args;
}

static bool recipe_is_copy(const struct mt_tensor *t, const struct mt_tensor *from, float scale)
{
    return t->dtype == from->dtype && scale == 1.0f;
}

static size_t recipe_element(const struct mt_tensor *t)
{
    return mt_dtype_bits(t->dtype) / 8;
}

static mt_status recipe_check(struct mt_ctx *ctx, const struct mt_tensor *t,
                              const struct mt_tensor *from, float scale, bool rows)
{
    char a[128], b[128];
    uint64_t bytes;

    mt_tensor_label(t, a, sizeof a);
    mt_tensor_label(from, b, sizeof b);
    if (recipe_is_copy(t, from, scale)) {
        if (rows ? !mt_dtype_bytes(t->dtype, (uint64_t)mt_tensor_cols(t), &bytes)
                 : !mt_dtype_pickable(t->dtype))
            return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: cannot pick %s of %s (%s)", a,
                           rows ? "rows" : "single elements", b, mt_dtype_name(t->dtype));
        return MT_OK;
    }
    if (!mt_dtype_is_plain_float(t->dtype) || !mt_dtype_reads_f32(from->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s (%s): no arithmetic on %s, which is %s", a,
                       mt_dtype_name(t->dtype), b, mt_dtype_name(from->dtype));
    return MT_OK;
}

static mt_status recipe_check_index(struct mt_ctx *ctx, const struct mt_tensor *t,
                                    const struct mt_tensor *from, const int32_t *idx, int64_t n,
                                    int64_t have, int64_t limit, const char *what)
{
    char a[128], b[128];

    mt_tensor_label(t, a, sizeof a);
    mt_tensor_label(from, b, sizeof b);
    if (n != have)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s has %" PRId64 " %s, but %" PRId64 " are picked from %s", a, have, what,
                       n, b);
    for (int64_t i = 0; i < n; i++)
        if (idx[i] < -1 || idx[i] >= limit)
            return mt_fail(ctx, MT_E_FORMAT,
                           "%s: no number %" PRId32 " among the %" PRId64 " %s of %s", a, idx[i],
                           limit, what, b);
    return MT_OK;
}

static mt_status recipe_args(struct mt_ctx *ctx, struct mt_model *m, const int32_t *idx, int64_t n,
                             float scale, struct recipe_gather **out)
{
    int32_t *copy;

    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof **out, out));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)n, sizeof *copy, &copy));
    if (n > 0)
        memcpy(copy, idx, (size_t)n * sizeof *copy);
    **out = (struct recipe_gather){copy, scale};
    return MT_OK;
}

/* Rows side by side in the source are fetched together. */
static int64_t recipe_run(const int32_t *idx, int64_t i, int64_t end)
{
    int64_t n = 1;

    while (i + n < end && (idx[i] < 0 ? idx[i + n] < 0 : idx[i + n] == idx[i] + n))
        n++;
    return n;
}

static mt_status recipe_copy_rows(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, void *dst)
{
    const struct recipe_gather *g = t->src.recipe.args;
    uint64_t row_bytes = 0;
    bool whole = mt_dtype_bytes(t->dtype, (uint64_t)mt_tensor_cols(t), &row_bytes);
    char *to = dst;

    mt_assert(whole); /* recipe_check */
    for (int64_t i = row, run; i < row + n; i += run) {
        run = recipe_run(g->idx, i, row + n);
        if (g->idx[i] < 0)
            memset(to, 0, (size_t)run * row_bytes);
        else
            MT_TRY(mt_tensor_fetch(ctx, t->src.recipe.in[0], g->idx[i], run, to));
        to += (size_t)run * row_bytes;
    }
    return MT_OK;
}

static void recipe_scale(float *v, int64_t n, float scale)
{
    if (scale != 1.0f)
        for (int64_t i = 0; i < n; i++)
            v[i] *= scale;
}

static mt_status recipe_scale_rows(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                   int64_t n, void *dst)
{
    const struct recipe_gather *g = t->src.recipe.args;
    int64_t cols = mt_tensor_cols(t);
    mt_status st = MT_OK;
    char *to = dst;
    float *v;

    MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *v, "a row of weights", &v));
    for (int64_t i = row; i < row + n && st == MT_OK; i++) {
        if (g->idx[i] < 0)
            memset(v, 0, (size_t)cols * sizeof *v);
        else
            st = mt_tensor_fetch_f32(ctx, t->src.recipe.in[0], g->idx[i], 1, v);
        if (st == MT_OK) {
            recipe_scale(v, cols, g->scale);
            mt_kernels_get()->from_f32(t->dtype, v, to, (size_t)cols);
        }
        to += (size_t)cols * recipe_element(t);
    }
    mt_free(v);
    return st;
}

mt_status mt_recipe_gather_rows(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                const struct mt_tensor *from, const int32_t *idx, int64_t n,
                                float scale)
{
    struct recipe_gather *args;
    char a[128], b[128];

    MT_TRY(
        recipe_check_index(ctx, t, from, idx, n, mt_tensor_rows(t), mt_tensor_rows(from), "rows"));
    if (mt_tensor_cols(t) != mt_tensor_cols(from))
        return mt_fail(ctx, MT_E_FORMAT, "%s has %" PRId64 " columns, %s has %" PRId64,
                       mt_tensor_label(t, a, sizeof a), mt_tensor_cols(t),
                       mt_tensor_label(from, b, sizeof b), mt_tensor_cols(from));
    MT_TRY(recipe_check(ctx, t, from, scale, true));
    MT_TRY(recipe_args(ctx, m, idx, n, scale, &args));
    recipe_set(t, recipe_is_copy(t, from, scale) ? recipe_copy_rows : recipe_scale_rows,
               "gather-rows", from, args);
    return MT_OK;
}

static void recipe_pick(char *dst, const char *src, size_t size, const int32_t *idx, int64_t n)
{
    for (int64_t i = 0; i < n; i++, dst += size) {
        if (idx[i] < 0)
            memset(dst, 0, size);
        else
            memcpy(dst, src + (size_t)idx[i] * size, size);
    }
}

static mt_status recipe_copy_cols(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, void *dst)
{
    const struct recipe_gather *g = t->src.recipe.args;
    const struct mt_tensor *from = t->src.recipe.in[0];
    size_t size = recipe_element(t), in_bytes = (size_t)mt_tensor_cols(from) * size;
    int64_t cols = mt_tensor_cols(t);
    const void *all;
    mt_status st = MT_OK;
    char *raw = NULL, *to = dst;

    if (mt_tensor_contiguous(from, &all)) {
        for (int64_t r = row; r < row + n; r++, to += (size_t)cols * size)
            recipe_pick(to, (const char *)all + (size_t)r * in_bytes, size, g->idx, cols);
        return MT_OK;
    }
    MT_TRY(mt_alloc(ctx, 1, in_bytes, "a row of weights", &raw));
    for (int64_t r = row; r < row + n && st == MT_OK; r++, to += (size_t)cols * size) {
        st = mt_tensor_fetch(ctx, from, r, 1, raw);
        if (st == MT_OK)
            recipe_pick(to, raw, size, g->idx, cols);
    }
    mt_free(raw);
    return st;
}

static mt_status recipe_scale_cols(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                   int64_t n, void *dst)
{
    const struct recipe_gather *g = t->src.recipe.args;
    const struct mt_tensor *from = t->src.recipe.in[0];
    int64_t cols = mt_tensor_cols(t), in_cols = mt_tensor_cols(from);
    mt_status st = MT_OK;
    float *v, *picked;
    char *to = dst;

    MT_TRY(mt_alloc(ctx, (size_t)(cols + in_cols), sizeof *v, "a row of weights", &v));
    picked = v + in_cols;
    for (int64_t r = row; r < row + n && st == MT_OK; r++, to += (size_t)cols * recipe_element(t)) {
        st = mt_tensor_fetch_f32(ctx, from, r, 1, v);
        if (st != MT_OK)
            break;
        recipe_pick((char *)picked, (const char *)v, sizeof *v, g->idx, cols);
        recipe_scale(picked, cols, g->scale);
        mt_kernels_get()->from_f32(t->dtype, picked, to, (size_t)cols);
    }
    mt_free(v);
    return st;
}

mt_status mt_recipe_gather_cols(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                const struct mt_tensor *from, const int32_t *idx, int64_t n,
                                float scale)
{
    struct recipe_gather *args;
    char a[128], b[128];

    MT_TRY(recipe_check_index(ctx, t, from, idx, n, mt_tensor_cols(t), mt_tensor_cols(from),
                              "columns"));
    if (mt_tensor_rows(t) != mt_tensor_rows(from))
        return mt_fail(ctx, MT_E_FORMAT, "%s has %" PRId64 " rows, %s has %" PRId64,
                       mt_tensor_label(t, a, sizeof a), mt_tensor_rows(t),
                       mt_tensor_label(from, b, sizeof b), mt_tensor_rows(from));
    MT_TRY(recipe_check(ctx, t, from, scale, false));
    MT_TRY(recipe_args(ctx, m, idx, n, scale, &args));
    recipe_set(t, recipe_is_copy(t, from, scale) ? recipe_copy_cols : recipe_scale_cols,
               "gather-cols", from, args);
    return MT_OK;
}

static mt_status recipe_eval_fill(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, void *dst)
{
    size_t size = recipe_element(t), count = (size_t)(n * mt_tensor_cols(t));
    char *to = dst;

    (void)ctx, (void)row;
    for (size_t i = 0; i < count; i++, to += size)
        memcpy(to, t->src.recipe.args, size);
    return MT_OK;
}

mt_status mt_recipe_fill(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t, float value)
{
    char label[128];
    void *bits; /* one element; zeroed by the arena */

    if (!mt_dtype_pickable(t->dtype) || (value != 0 && !mt_dtype_is_plain_float(t->dtype)))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: cannot be filled with %g as %s",
                       mt_tensor_label(t, label, sizeof label), (double)value,
                       mt_dtype_name(t->dtype));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, 8, &bits));
    if (mt_dtype_is_plain_float(t->dtype))
        mt_kernels_get()->from_f32(t->dtype, &value, bits, 1);
    recipe_set(t, recipe_eval_fill, "fill", NULL, bits);
    return MT_OK;
}

static mt_status recipe_eval_cast(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, void *dst)
{
    const struct mt_tensor *from = t->src.recipe.in[0];
    int64_t cols = mt_tensor_cols(t);
    mt_status st = MT_OK;
    char *to = dst;
    float *v;

    if (t->dtype == from->dtype)
        return mt_tensor_fetch(ctx, from, row, n, dst);
    if (t->dtype == MT_F32)
        return mt_tensor_fetch_f32(ctx, from, row, n, dst);
    MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *v, "a row of weights", &v));
    for (int64_t r = row; r < row + n && st == MT_OK; r++, to += (size_t)cols * recipe_element(t)) {
        st = mt_tensor_fetch_f32(ctx, from, r, 1, v);
        if (st == MT_OK)
            mt_kernels_get()->from_f32(t->dtype, v, to, (size_t)cols);
    }
    mt_free(v);
    return st;
}

mt_status mt_recipe_cast(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                         const struct mt_tensor *from)
{
    char a[128], b[128];

    (void)m;
    if (mt_tensor_rows(t) != mt_tensor_rows(from) || mt_tensor_cols(t) != mt_tensor_cols(from))
        return mt_fail(ctx, MT_E_FORMAT, "%s and %s differ in shape",
                       mt_tensor_label(t, a, sizeof a), mt_tensor_label(from, b, sizeof b));
    if (t->dtype != from->dtype)
        MT_TRY(recipe_check(ctx, t, from, 1.0f, true));
    recipe_set(t, recipe_eval_cast, "cast", from, NULL);
    return MT_OK;
}

mt_status mt_source_floats(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                           const float *values)
{
    char label[128];
    void *bytes;

    mt_tensor_label(t, label, sizeof label);
    if (!mt_dtype_is_plain_float(t->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: floats cannot be stored as %s", label,
                       mt_dtype_name(t->dtype));
    MT_TRY(mt_alloc(ctx, 1, mt_tensor_bytes(t), label, &bytes));
    mt_kernels_get()->from_f32(t->dtype, values, bytes, (size_t)mt_tensor_count(t));
    MT_TRY(mt_model_own_buffer(ctx, m, bytes));
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_OWNED;
    t->src.owned = bytes;
    return MT_OK;
}
