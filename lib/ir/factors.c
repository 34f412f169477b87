#include "lib/ir/factors.h"

#include "kernels/linalg.h"

#include <string.h>

struct factors_args {
    const struct mt_tensor *base, *sparse; /* or NULL */
    const int32_t *rows;                   /* [n_rows] of `sparse`, rising */
    int64_t n_rows;
};

struct planes_args {
    const struct mt_tensor *planes, *plane_scale; /* or NULL */
    struct mt_planes how;
};

bool mt_matrix_in_parts(const struct mt_model *m, struct mt_role role)
{
    return mt_model_find(m, mt_role_part(role, MT_PART_LEFT)) != NULL ||
           mt_model_find(m, mt_role_part(role, MT_PART_CODES)) != NULL;
}

static void factors_put(const struct mt_tensor *t, const double *v, void *dst, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (t->dtype == MT_F64)
            ((double *)dst)[i] = v[i];
        else
            ((float *)dst)[i] = (float)v[i];
}

/* ---- factors ---- */

/* sum[cols] += row `row` of t. */
static mt_status factors_add_row(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                 float *v, double *sum)
{
    int64_t cols = mt_tensor_cols(t);

    MT_TRY(mt_tensor_fetch_f32(ctx, t, row, 1, v));
    for (int64_t c = 0; c < cols; c++)
        sum[c] += (double)v[c];
    return MT_OK;
}

/* One row of the product and of what is added to it; `right` whole, `left` a row, `v` a row. */
static mt_status factors_row(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                             const float *right, float *left, float *v, double *sum)
{
    const struct factors_args *a = t->src.recipe.args;
    int64_t cols = mt_tensor_cols(t), rank = mt_tensor_cols(t->src.recipe.in[0]);

    MT_TRY(mt_tensor_fetch_f32(ctx, t->src.recipe.in[0], row, 1, left));
    memset(sum, 0, (size_t)cols * sizeof *sum);
    for (int64_t k = 0; k < rank; k++)
        for (int64_t c = 0; c < cols; c++)
            sum[c] += (double)left[k] * (double)right[k * cols + c];
    if (a->base != NULL)
        MT_TRY(factors_add_row(ctx, a->base, row, v, sum));
    for (int64_t i = 0; i < a->n_rows; i++)
        if (a->rows[i] == row)
            MT_TRY(factors_add_row(ctx, a->sparse, i, v, sum));
    return MT_OK;
}

/* F64: for the reference device. */
static mt_status factors_eval_f64(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, double *dst)
{
    const struct mt_tensor *right = t->src.recipe.in[1];
    int64_t cols = mt_tensor_cols(t), rank = mt_tensor_rows(right);
    float *r;

    MT_TRY(mt_alloc(ctx, (size_t)(rank * cols + rank + cols), sizeof *r, "factors", &r));
    mt_status st = mt_tensor_fetch_f32(ctx, right, 0, rank, r);
    for (int64_t i = 0; st == MT_OK && i < n; i++)
        st = factors_row(ctx, t, row + i, r, r + rank * cols, r + rank * cols + rank,
                         dst + i * cols);
    mt_free(r);
    return st;
}

static mt_status factors_add_f32(struct mt_ctx *ctx, const struct mt_tensor *from, int64_t row,
                                 int64_t n, float *dst)
{
    int64_t cols = mt_tensor_cols(from);
    float *v;

    MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *v, "factors", &v));
    mt_status st = MT_OK;
    for (int64_t i = 0; st == MT_OK && i < n; i++) {
        st = mt_tensor_fetch_f32(ctx, from, row + i, 1, v);
        for (int64_t c = 0; st == MT_OK && c < cols; c++)
            dst[i * cols + c] += v[c];
    }
    mt_free(v);
    return st;
}

static mt_status factors_eval_f32(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, float *dst)
{
    const struct factors_args *a = t->src.recipe.args;
    const struct mt_tensor *left = t->src.recipe.in[0], *right = t->src.recipe.in[1];
    int64_t cols = mt_tensor_cols(t), rank = mt_tensor_rows(right);
    float *r;

    MT_TRY(mt_alloc(ctx, (size_t)(rank * (cols + n)), sizeof *r, "factors", &r));
    mt_status st = mt_tensor_fetch_f32(ctx, right, 0, rank, r);
    if (st == MT_OK)
        st = mt_tensor_fetch_f32(ctx, left, row, n, r + rank * cols);
    if (st == MT_OK)
        st = mt_gemm_nn(ctx, n, cols, rank, 1, r + rank * cols, rank, r, cols, 0, dst, cols);
    mt_free(r);
    if (st == MT_OK && a->base != NULL)
        st = factors_add_f32(ctx, a->base, row, n, dst);
    for (int64_t i = 0; st == MT_OK && i < a->n_rows; i++)
        if (a->rows[i] >= row && a->rows[i] < row + n)
            st = factors_add_f32(ctx, a->sparse, i, 1, dst + (a->rows[i] - row) * cols);
    return st;
}

static mt_status factors_eval(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                              void *dst)
{
    return t->dtype == MT_F64 ? factors_eval_f64(ctx, t, row, n, dst)
                              : factors_eval_f32(ctx, t, row, n, dst);
}

/* Row numbers of the sparse summand: rising, within the matrix. */
static mt_status factors_rows(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t rows,
                              struct mt_arena *arena, struct factors_args *a)
{
    int64_t n = mt_tensor_count(t), last = -1;
    char label[128];
    int32_t *v;

    if (t->dtype != MT_I32 || n != mt_tensor_rows(a->sparse))
        return mt_fail(ctx, MT_E_FORMAT, "%s: expected %lld numbers of type I32",
                       mt_tensor_label(t, label, sizeof label),
                       (long long)mt_tensor_rows(a->sparse));
    MT_TRY(mt_arena_alloc(ctx, arena, (size_t)n, sizeof *v, &v));
    MT_TRY(mt_tensor_fetch(ctx, t, 0, 1, v));
    for (int64_t i = 0; i < n; last = v[i++])
        if (v[i] <= last || v[i] >= rows)
            return mt_fail(ctx, MT_E_FORMAT, "%s[%lld] is %ld: expected rising numbers below %lld",
                           mt_tensor_label(t, label, sizeof label), (long long)i, (long)v[i],
                           (long long)rows);
    a->rows = v;
    a->n_rows = n;
    return MT_OK;
}

static mt_status factors_make(struct mt_ctx *ctx, const struct mt_model *m, struct mt_arena *arena,
                              struct mt_tensor *t, const struct mt_tensor *left)
{
    const struct mt_factors *how =
        &m->ffn[t->role.layer].factors[t->role.kind == MT_ROLE_FFN_GATE ? MT_FFN_GATE
                                       : t->role.kind == MT_ROLE_FFN_UP ? MT_FFN_UP
                                                                        : MT_FFN_DOWN];
    struct mt_tensor *right, *one;
    struct factors_args *a;
    char label[128];

    MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_RIGHT), &right));
    t->shape[0] = mt_tensor_rows(left);
    t->shape[1] = mt_tensor_cols(right);
    if (mt_tensor_cols(left) != mt_tensor_rows(right))
        return mt_fail(ctx, MT_E_FORMAT, "%s has %lld columns, but its right factor %lld rows",
                       mt_tensor_label(left, label, sizeof label), (long long)mt_tensor_cols(left),
                       (long long)mt_tensor_rows(right));
    MT_TRY(mt_arena_alloc(ctx, arena, 1, sizeof *a, &a));
    *a = (struct factors_args){0};
    if (how->base) {
        MT_TRY(mt_model_need(ctx, m, mt_role(t->role.kind, t->role.layer, MT_EXPERT_NONE), &one));
        a->base = one;
    }
    if (how->sparse) {
        MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_SPARSE), &one));
        a->sparse = one;
        MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_SPARSE_ROWS), &one));
        MT_TRY(factors_rows(ctx, one, t->shape[0], arena, a));
    }
    t->src.recipe.eval = factors_eval;
    t->src.recipe.name = "factors";
    t->src.recipe.in[0] = left;
    t->src.recipe.in[1] = right;
    t->src.recipe.n_in = 2;
    if (a->base != NULL)
        t->src.recipe.in[t->src.recipe.n_in++] = a->base;
    if (a->sparse != NULL)
        t->src.recipe.in[t->src.recipe.n_in++] = a->sparse;
    t->src.recipe.args = a;
    return MT_OK;
}

/* ---- planes of bits ---- */

/* `bits` bits from bit `at` on, lowest first. */
static unsigned planes_bits(const unsigned char *p, int64_t at, int bits)
{
    unsigned v = 0;

    for (int i = 0; i < bits; i++, at++)
        v |= (unsigned)(p[at / 8] >> (at % 8) & 1) << i;
    return v;
}

static mt_status planes_codes(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                              double *sum)
{
    const struct mt_planes *p = &((const struct planes_args *)t->src.recipe.args)->how;
    const struct mt_tensor *const *in = t->src.recipe.in;
    int64_t cols = mt_tensor_cols(t), groups = mt_tensor_cols(in[1]), bytes = mt_tensor_cols(in[0]);
    unsigned char *codes;
    float *scale;

    MT_TRY(mt_alloc(ctx, (size_t)(8 * groups + bytes), 1, "codes", &scale));
    codes = (unsigned char *)(scale + 2 * groups);
    mt_status st = mt_tensor_fetch(ctx, in[0], row, 1, codes);
    if (st == MT_OK)
        st = mt_tensor_fetch_f32(ctx, in[1], row, 1, scale);
    if (st == MT_OK)
        st = mt_tensor_fetch_f32(ctx, in[2], row, 1, scale + groups);
    for (int64_t c = 0; st == MT_OK && c < cols; c++) {
        int64_t g = c / p->group;
        sum[c] = (double)scale[g] *
                 ((double)planes_bits(codes, c * p->bits, p->bits) - (double)scale[groups + g]);
    }
    mt_free(scale);
    return st;
}

static mt_status planes_signs(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                              double *sum)
{
    const struct planes_args *a = t->src.recipe.args;
    int64_t rows = mt_tensor_rows(t), cols = mt_tensor_cols(t);
    int64_t groups = mt_tensor_cols(t->src.recipe.in[1]), bytes = (cols + 7) / 8;
    unsigned char *signs;
    float *scale;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, (size_t)(4 * groups + bytes), 1, "planes", &scale));
    signs = (unsigned char *)(scale + groups);
    for (int64_t p = 0; st == MT_OK && p < a->how.n; p++) {
        st = mt_tensor_fetch(ctx, a->planes, p * rows + row, 1, signs);
        if (st == MT_OK)
            st = mt_tensor_fetch_f32(ctx, a->plane_scale, p * rows + row, 1, scale);
        for (int64_t c = 0; st == MT_OK && c < cols; c++) {
            double s = (double)scale[c / a->how.group];
            sum[c] += planes_bits(signs, c, 1) != 0 ? s : -s;
        }
    }
    mt_free(scale);
    return st;
}

static mt_status planes_eval(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                             void *dst)
{
    const struct planes_args *a = t->src.recipe.args;
    int64_t cols = mt_tensor_cols(t);
    size_t elem = mt_dtype_bits(t->dtype) / 8;
    double *sum;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *sum, "row of planes", &sum));
    for (int64_t i = 0; st == MT_OK && i < n; i++) {
        st = planes_codes(ctx, t, row + i, sum);
        if (st == MT_OK && a->how.n > 0)
            st = planes_signs(ctx, t, row + i, sum);
        if (st == MT_OK)
            factors_put(t, sum, (char *)dst + (size_t)(i * cols) * elem, (size_t)cols);
    }
    mt_free(sum);
    return st;
}

/* Shapes are those mt_model_verify has checked. */
static mt_status planes_make(struct mt_ctx *ctx, const struct mt_model *m, struct mt_arena *arena,
                             struct mt_tensor *t, const struct mt_tensor *codes)
{
    const struct mt_ffn *f = &m->ffn[t->role.layer];
    int64_t width = mt_ffn_expert_width(f, t->role.expert), hidden = m->hp.hidden;
    bool down = t->role.kind == MT_ROLE_FFN_DOWN;
    struct mt_tensor *scale, *zero, *one;
    struct planes_args *a;

    MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_SCALE), &scale));
    MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_ZERO), &zero));
    MT_TRY(mt_arena_alloc(ctx, arena, 1, sizeof *a, &a));
    *a = (struct planes_args){.how = f->planes};
    if (f->planes.n > 0) {
        MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_PLANES), &one));
        a->planes = one;
        MT_TRY(mt_model_need(ctx, m, mt_role_part(t->role, MT_PART_PLANE_SCALE), &one));
        a->plane_scale = one;
    }
    t->shape[0] = down ? hidden : width;
    t->shape[1] = down ? width : hidden;
    t->src.recipe.eval = planes_eval;
    t->src.recipe.name = "planes";
    t->src.recipe.in[0] = codes;
    t->src.recipe.in[1] = scale;
    t->src.recipe.in[2] = zero;
    t->src.recipe.n_in = 3;
    if (a->planes != NULL)
        t->src.recipe.in[t->src.recipe.n_in++] = a->planes;
    t->src.recipe.args = a;
    return MT_OK;
}

mt_status mt_matrix_of(struct mt_ctx *ctx, const struct mt_model *m, struct mt_arena *arena,
                       struct mt_role role, enum mt_dtype dtype, const struct mt_tensor **out)
{
    const struct mt_tensor *left = mt_model_find(m, mt_role_part(role, MT_PART_LEFT));
    const struct mt_tensor *codes = mt_model_find(m, mt_role_part(role, MT_PART_CODES));
    struct mt_tensor *t;

    *out = mt_model_find(m, role);
    if (*out == NULL && left == NULL && codes == NULL) {
        MT_TRY(mt_model_need(ctx, m, role, &t)); /* names what lacks */
        return MT_OK;
    }
    if (*out != NULL)
        return MT_OK;
    mt_assert(dtype == MT_F32 || dtype == MT_F64);
    MT_TRY(mt_arena_alloc(ctx, arena, 1, sizeof *t, &t));
    *t = (struct mt_tensor){.role = role, .dtype = dtype, .rank = 2};
    t->src.kind = MT_SRC_RECIPE;
    *out = t;
    return left != NULL ? factors_make(ctx, m, arena, t, left)
                        : planes_make(ctx, m, arena, t, codes);
}
