/* Checkpoints that were published in blocks of small numbers, read as numbers: FP8 with a scale per
 * block (DeepSeek-V3) and MXFP4 (gpt-oss, OCP Microscaling Formats 1.0). */
#include "lib/ir/family.h"
#include "lib/ir/family_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define QUANT_SCALE "_scale_inv"
#define QUANT_MX_BLOCK 32 /* values that share an exponent, two to a byte, the lower half first */

/* E4M3 without infinities: sign, 4 bits of exponent with bias 7, 3 of mantissa. */
static float quant_e4m3(unsigned char v)
{
    int exponent = v >> 3 & 15, mantissa = v & 7;
    float x =
        exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);

    if ((v & 127) == 127)
        x = NAN;
    return (v & 128) != 0 ? -x : x;
}

struct quant_fp8 {
    int64_t rows, cols; /* of a block */
    float value[256];
};

static mt_status quant_eval_fp8(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                int64_t n, void *dst)
{
    const struct quant_fp8 *q = t->src.recipe.args;
    const struct mt_tensor *weight = t->src.recipe.in[0], *scale = t->src.recipe.in[1];
    int64_t cols = mt_tensor_cols(t), at = -1;
    size_t row_bytes = (size_t)cols * (mt_dtype_bits(t->dtype) / 8);
    unsigned char *bytes = NULL;
    float *v, *s = NULL;
    mt_status st;

    MT_TRY(mt_alloc(ctx, (size_t)cols, sizeof *v, "a row of weights", &v));
    st = mt_alloc(ctx, (size_t)cols, 1, "a row of weights", &bytes);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)mt_tensor_cols(scale), sizeof *s, "a row of scales", &s);
    for (int64_t r = row; st == MT_OK && r < row + n; r++) {
        st = mt_tensor_fetch(ctx, weight, r, 1, bytes);
        if (st == MT_OK && at != r / q->rows)
            st = mt_tensor_fetch_f32(ctx, scale, at = r / q->rows, 1, s);
        for (int64_t c = 0; st == MT_OK && c < cols; c++)
            v[c] = q->value[bytes[c]] * s[c / q->cols];
        if (st == MT_OK)
            mt_kernels_get()->from_f32(t->dtype, v, (char *)dst + (size_t)(r - row) * row_bytes,
                                       (size_t)cols);
    }
    mt_free(v);
    mt_free(bytes);
    mt_free(s);
    return st;
}

static bool quant_is_scale(const struct mt_tensor *t)
{
    size_t n = t->name != NULL ? strlen(t->name) : 0, tail = strlen(QUANT_SCALE);

    return n > tail && t->role.kind == MT_ROLE_OTHER && t->rank == 2 &&
           mt_dtype_is_plain_float(t->dtype) && strcmp(t->name + n - tail, QUANT_SCALE) == 0;
}

static int quant_by_name(const void *a, const void *b)
{
    return strcmp((*(const struct mt_tensor *const *)a)->name,
                  (*(const struct mt_tensor *const *)b)->name);
}

/* bsearch: a weight's name before the ending of its scale's. */
static int quant_match(const void *key, const void *elem)
{
    const char *name = key, *scale = (*(const struct mt_tensor *const *)elem)->name;
    size_t n = strlen(name);
    int c = strncmp(name, scale, n);

    return c != 0 ? c : strcmp("", scale + n) == 0 ? 0 : strcmp(QUANT_SCALE, scale + n);
}

static mt_status quant_read_fp8(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                struct mt_tensor *scale, const struct quant_fp8 *q)
{
    struct mt_tensor *stored;

    if (scale->shape[0] != (t->shape[0] + q->rows - 1) / q->rows ||
        scale->shape[1] != (t->shape[1] + q->cols - 1) / q->cols)
        return mt_fail(ctx, MT_E_FORMAT,
                       "%s is %" PRId64 " x %" PRId64 ", but %s in blocks of %" PRId64 " x %" PRId64
                       " is %" PRId64 " x %" PRId64,
                       scale->name, scale->shape[0], scale->shape[1], t->name, q->rows, q->cols,
                       t->shape[0], t->shape[1]);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *stored, &stored));
    *stored = *t;
    t->dtype = MT_BF16;
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = quant_eval_fp8;
    t->src.recipe.name = "fp8-blocks";
    t->src.recipe.in[0] = stored;
    t->src.recipe.in[1] = scale;
    t->src.recipe.n_in = 2;
    t->src.recipe.args = q;
    return MT_OK;
}

static mt_status quant_fp8_args(struct mt_ctx *ctx, struct mt_model *m, struct quant_fp8 **out)
{
    const struct mt_json *quant = mt_json_get(m->config, "quantization_config");
    const struct mt_json *block = mt_json_first(mt_json_get(quant, "weight_block_size"));
    struct quant_fp8 *q;

    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *q, &q));
    q->rows = q->cols = 128;
    if (block != NULL &&
        (!mt_json_integer(block, &q->rows) || !mt_json_integer(mt_json_next(block), &q->cols) ||
         q->rows < 1 || q->cols < 1 || q->rows > MT_DIM_MAX || q->cols > MT_DIM_MAX))
        return mt_fail(ctx, MT_E_FORMAT, "weight_block_size holds no two positive sizes");
    for (int i = 0; i < 256; i++)
        q->value[i] = quant_e4m3((unsigned char)i);
    *out = q;
    return MT_OK;
}

mt_status family_read_fp8(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_tensor **scales, **found;
    struct quant_fp8 *q = NULL;
    size_t n = 0, kept = 0;
    mt_status st;

    MT_TRY(mt_alloc(ctx, m->n_tensors, sizeof(struct mt_tensor *), "list of scales", &scales));
    for (size_t i = 0; i < m->n_tensors; i++)
        if (quant_is_scale(m->tensors[i]))
            scales[n++] = m->tensors[i];
    qsort(scales, n, sizeof(struct mt_tensor *), quant_by_name);
    st = n > 0 ? quant_fp8_args(ctx, m, &q) : MT_OK;
    for (size_t i = 0; st == MT_OK && q != NULL && i < m->n_tensors; i++) {
        struct mt_tensor *t = m->tensors[i];

        if (t->dtype != MT_F8_E4M3 || t->rank != 2 || t->name == NULL)
            continue;
        found = bsearch(t->name, scales, n, sizeof(struct mt_tensor *), quant_match);
        if (found == NULL || (*found)->planner != NULL)
            continue;
        st = quant_read_fp8(ctx, m, t, *found, q);
        (*found)->planner = QUANT_SCALE; /* used */
        m->unblocked = true;
    }
    for (size_t i = 0; st == MT_OK && i < m->n_tensors; i++)
        if (!quant_is_scale(m->tensors[i]) || m->tensors[i]->planner == NULL)
            m->tensors[kept++] = m->tensors[i];
    m->n_tensors = st == MT_OK ? kept : m->n_tensors;
    mt_free(scales);
    return st;
}

/* Where the rows of one part stand in blocks [E, rows, groups, 16] and scales [E, rows, groups]. */
struct quant_mx {
    int64_t first, step, groups; /* row r of the part is row first + r*step of the whole */
};

static mt_status quant_eval_mx(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                               int64_t n, void *dst)
{
    static const float value[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
                                    -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
    const struct quant_mx *q = t->src.recipe.args;
    const struct mt_tensor *blocks = t->src.recipe.in[0], *scales = t->src.recipe.in[1];
    size_t row_bytes = (size_t)mt_tensor_cols(t) * (mt_dtype_bits(t->dtype) / 8);
    size_t groups = (size_t)q->groups;
    unsigned char *scale, *block;
    float v[QUANT_MX_BLOCK];
    mt_status st = MT_OK;

    /* A row's exponents, and behind them its blocks. */
    MT_TRY(mt_alloc(ctx, groups, 1 + QUANT_MX_BLOCK / 2, "a row of blocks", &scale));
    for (int64_t r = row; st == MT_OK && r < row + n; r++) {
        int64_t from = q->first + r * q->step;
        char *to = (char *)dst + (size_t)(r - row) * row_bytes;
        block = scale + groups;
        st = mt_tensor_fetch(ctx, scales, from, 1, scale);
        if (st == MT_OK)
            st = mt_tensor_fetch(ctx, blocks, from * q->groups, q->groups, block);
        for (size_t g = 0; st == MT_OK && g < groups; g++, block += QUANT_MX_BLOCK / 2) {
            float power = scale[g] == 255 ? NAN : ldexpf(1, (int)scale[g] - 127);
            for (int i = 0; i < QUANT_MX_BLOCK; i++)
                v[i] = value[block[i / 2] >> (i % 2 * 4) & 15] * power;
            mt_kernels_get()->from_f32(t->dtype, v, to + g * sizeof v / 2, QUANT_MX_BLOCK);
        }
    }
    mt_free(scale);
    return st;
}

static struct mt_tensor *quant_named(const struct mt_model *m, const char *name, size_t n,
                                     const char *ending)
{
    for (size_t i = 0; i < m->n_tensors; i++) {
        const char *have = m->tensors[i]->name;
        if (have != NULL && strncmp(have, name, n) == 0 && strcmp(have + n, ending) == 0)
            return m->tensors[i];
    }
    return NULL;
}

static mt_status quant_mx_part(struct mt_ctx *ctx, struct mt_model *m, const struct mt_cut *cut,
                               struct mt_role role, const struct quant_mx *where, int64_t rows)
{
    const int64_t shape[2] = {rows, where->groups * QUANT_MX_BLOCK};
    struct mt_tensor *t;
    struct quant_mx *q;

    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *q, &q));
    *q = *where;
    MT_TRY(mt_model_add(ctx, m, role, MT_BF16, 2, shape, &t));
    MT_TRY(mt_family_print(ctx, m->family, m, role, &t->name));
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = quant_eval_mx;
    t->src.recipe.name = "mxfp4";
    t->src.recipe.in[0] = cut->whole;
    t->src.recipe.in[1] = cut->also;
    t->src.recipe.n_in = 2;
    t->src.recipe.args = q;
    return MT_OK;
}

mt_status family_cut_mx(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                        const struct mt_fused_row *row, struct mt_role role, bool *cut)
{
    struct mt_tensor *scales =
        quant_named(m, t->name, strlen(t->name) - strlen("_blocks"), "_scales");
    int kinds = row->kinds[1] != MT_ROLE_OTHER ? 2 : 1;
    size_t before = m->n_tensors;
    struct mt_cut *c;

    *cut = false;
    if (scales == NULL || t->rank != 4 || scales->rank != 3 || t->dtype != MT_U8 ||
        scales->dtype != MT_U8 || t->shape[3] != QUANT_MX_BLOCK / 2 ||
        memcmp(t->shape, scales->shape, 3 * sizeof t->shape[0]) != 0 ||
        role.layer >= m->hp.n_layers || !m->ffn[role.layer].moe ||
        t->shape[0] != m->ffn[role.layer].n_experts || t->shape[1] % kinds != 0)
        return MT_OK;
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *c, &c));
    c->whole = t;
    c->also = scales;
    for (role.expert = 0; role.expert < t->shape[0]; role.expert++)
        for (int k = 0; k < kinds; k++) {
            struct quant_mx where = {role.expert * t->shape[1] + k, kinds, t->shape[2]};
            role.kind = row->kinds[k];
            MT_TRY(quant_mx_part(ctx, m, c, role, &where, t->shape[1] / kinds));
        }
    c->n = m->n_tensors - before;
    MT_TRY(mt_arena_alloc(ctx, &m->arena, c->n, sizeof(struct mt_tensor *), &c->parts));
    memcpy(c->parts, m->tensors + before, c->n * sizeof(struct mt_tensor *));
    c->next = m->cuts;
    m->cuts = c;
    scales->planner = "mxfp4"; /* its own name is passed over, should its turn be yet to come */
    mt_model_remove(m, t);
    *cut = true;
    return MT_OK;
}

/* GGML's block: the exponent, then elements i and i + 16 in a byte. */
static mt_status quant_eval_ggml(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                 int64_t n, void *dst)
{
    const struct quant_mx *q = t->src.recipe.args;
    const struct mt_tensor *blocks = t->src.recipe.in[0], *scales = t->src.recipe.in[1];
    size_t groups = (size_t)q->groups;
    unsigned char *scale, *to = dst;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, groups, 1 + QUANT_MX_BLOCK / 2, "a row of blocks", &scale));
    for (int64_t r = row; st == MT_OK && r < row + n; r++) {
        int64_t from = q->first + r * q->step;
        const unsigned char *block = scale + groups;
        st = mt_tensor_fetch(ctx, scales, from, 1, scale);
        if (st == MT_OK)
            st = mt_tensor_fetch(ctx, blocks, from * q->groups, q->groups, scale + groups);
        for (size_t g = 0; st == MT_OK && g < groups; g++, block += QUANT_MX_BLOCK / 2) {
            *to++ = scale[g];
            for (int i = 0; i < QUANT_MX_BLOCK / 2; i++, to++)
                *to = (unsigned char)((block[i / 2] >> (i % 2 * 4) & 15) |
                                      (block[i / 2 + 8] >> (i % 2 * 4) & 15) << 4);
        }
    }
    mt_free(scale);
    return st;
}

mt_status mt_model_keep_mx(struct mt_ctx *ctx, struct mt_model *plan, struct mt_tensor *t,
                           struct mt_tensor **out)
{
    const struct mt_tensor *from = mt_tensor_origin(t);
    struct mt_source source = from->src;

    *out = t;
    if (from->src.kind != MT_SRC_RECIPE || from->src.recipe.eval != quant_eval_mx)
        return MT_OK;
    source.recipe.eval = quant_eval_ggml;
    MT_TRY(mt_model_add(ctx, plan, t->role, MT_MXFP4, t->rank, t->shape, out));
    (*out)->src = source;
    (*out)->name = t->name;
    (*out)->planner = t->planner;
    return MT_OK;
}

void family_drop_scales(struct mt_model *m)
{
    size_t kept = 0;

    for (size_t i = 0; i < m->n_tensors; i++) {
        struct mt_tensor *t = m->tensors[i];
        bool drop = false;

        for (const struct mt_cut *c = m->cuts; c != NULL && !drop && t->planner != NULL;
             c = c->next)
            drop = c->also == t;
        if (drop)
            t->planner = NULL;
        else
            m->tensors[kept++] = t;
    }
    m->n_tensors = kept;
}
