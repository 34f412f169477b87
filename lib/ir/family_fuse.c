/* Records put together again where a family stores several roles in one tensor: the counterpart of
 * family_cut.c for parts that come from elsewhere (another format, a pass). */
#include "lib/base/mem.h"
#include "lib/ir/family.h"

#include <stdlib.h>
#include <string.h>

#define FUSE_CHUNK_BYTES ((size_t)1 << 18) /* of a part at a time, one row at least */
#define FUSE_MX_BLOCK 32
#define FUSE_MX_BYTES 17 /* of GGML's block: the exponent, then 32 halves of bytes */

struct fuse {
    const struct mt_tensor **parts; /* [experts][kinds] */
    int kinds;
    int64_t experts; /* 1 where there is no stack */
    int64_t rows[MT_FUSED_MAX], total;
    int64_t cols; /* of a part; 1: vectors */
    bool turns, transposed, vectors;
};

/* Where row i of part `kind` stands among the rows of the whole; and back. */
static int64_t fuse_place(const struct fuse *f, int kind, int64_t i)
{
    if (f->turns)
        return i * f->kinds + kind;
    for (int k = 0; k < kind; k++)
        i += f->rows[k];
    return i;
}

static void fuse_find(const struct fuse *f, int64_t r, int *kind, int64_t *at)
{
    *kind = 0;
    *at = r;
    if (f->turns) {
        *kind = (int)(r % f->kinds);
        *at = r / f->kinds;
        return;
    }
    while (*at >= f->rows[*kind])
        *at -= f->rows[(*kind)++];
}

static mt_status fuse_eval_rows(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                int64_t n, void *dst)
{
    const struct fuse *f = t->src.recipe.args;
    size_t row_bytes = (size_t)f->cols * (mt_dtype_bits(t->dtype) / 8);
    char *to = dst;

    while (n > 0) {
        int64_t e = row / f->total, at, some = 1;
        int kind;

        fuse_find(f, row % f->total, &kind, &at);
        if (!f->turns)
            some = f->rows[kind] - at < n ? f->rows[kind] - at : n;
        MT_TRY(mt_tensor_fetch(ctx, f->parts[e * f->kinds + kind], at, some, to));
        to += (size_t)some * row_bytes;
        row += some;
        n -= some;
    }
    return MT_OK;
}

/* A column of a part is a piece of a row of the whole; vectors are columns of their own. */
struct fuse_columns {
    const struct mt_tensor *part;
    char *buf; /* rows of the part */
    int64_t rows_at_once;
    int64_t first, n; /* columns wanted */
    size_t size;      /* of an element */
    char *to;         /* of column `first` */
};

static mt_status fuse_scatter(struct mt_ctx *ctx, const struct fuse *f, int kind,
                              const struct fuse_columns *c)
{
    size_t size = c->size, line = (size_t)f->total * size;

    for (int64_t at = 0; at < f->rows[kind]; at += c->rows_at_once) {
        int64_t some = f->rows[kind] - at < c->rows_at_once ? f->rows[kind] - at : c->rows_at_once;

        if (f->vectors)
            MT_TRY(mt_tensor_fetch(ctx, c->part, 0, 1, c->buf));
        else
            MT_TRY(mt_tensor_fetch(ctx, c->part, at, some, c->buf));
        for (int64_t i = 0; i < some; i++) {
            const char *from = c->buf + (size_t)(i * f->cols + c->first) * size;
            char *to = c->to + (size_t)fuse_place(f, kind, at + i) * size;
            for (int64_t j = 0; j < c->n; j++, from += size, to += line)
                memcpy(to, from, size);
        }
    }
    return MT_OK;
}

static mt_status fuse_eval_columns(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                   int64_t n, void *dst)
{
    const struct fuse *f = t->src.recipe.args;
    struct fuse_columns c = {.size = mt_dtype_bits(t->dtype) / 8, .to = dst};
    size_t part_row = (size_t)f->cols * c.size;
    mt_status st = MT_OK;

    c.rows_at_once =
        part_row >= FUSE_CHUNK_BYTES ? 1 : (int64_t)(FUSE_CHUNK_BYTES / (part_row + 1)) + 1;
    for (int k = 0; k < f->kinds && f->vectors; k++)
        c.rows_at_once = f->rows[k] > c.rows_at_once ? f->rows[k] : c.rows_at_once;
    MT_TRY(mt_alloc(ctx, (size_t)c.rows_at_once, part_row, "rows of a part", &c.buf));
    while (n > 0 && st == MT_OK) {
        int64_t e = row / f->cols;

        c.first = row % f->cols;
        c.n = f->cols - c.first < n ? f->cols - c.first : n;
        for (int k = 0; k < f->kinds && st == MT_OK; k++) {
            c.part = f->parts[e * f->kinds + k];
            st = fuse_scatter(ctx, f, k, &c);
        }
        c.to += (size_t)(c.n * f->total) * c.size;
        row += c.n;
        n -= c.n;
    }
    mt_free(c.buf);
    return st;
}

/* ---- MXFP4: GGML's blocks, which begin with their exponent and hold elements i and i + 16 in a
 * byte, as gpt-oss's: neighbours in a byte, exponents in a tensor of their own ---- */

static mt_status fuse_mx_row(struct mt_ctx *ctx, const struct fuse *f, int64_t r,
                             unsigned char *row)
{
    int64_t at;
    int kind;

    fuse_find(f, r % f->total, &kind, &at);
    return mt_tensor_fetch(ctx, f->parts[r / f->total * f->kinds + kind], at, 1, row);
}

static mt_status fuse_eval_blocks(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, void *dst)
{
    const struct fuse *f = t->src.recipe.args;
    int64_t groups = f->cols / FUSE_MX_BLOCK, have = -1;
    unsigned char *bytes, *to = dst;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, (size_t)groups, FUSE_MX_BYTES, "a row of blocks", &bytes));
    for (int64_t i = row; i < row + n && st == MT_OK; i++) {
        const unsigned char *q = bytes + i % groups * FUSE_MX_BYTES + 1;

        if (have != i / groups)
            st = fuse_mx_row(ctx, f, have = i / groups, bytes);
        for (int j = 0; j < FUSE_MX_BLOCK / 2 && st == MT_OK; j++) {
            int low = 2 * j % 16, shift = 2 * j / 16 * 4;
            *to++ = (unsigned char)((q[low] >> shift & 15) | (q[low + 1] >> shift & 15) << 4);
        }
    }
    mt_free(bytes);
    return st;
}

static mt_status fuse_eval_exponents(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                     int64_t n, void *dst)
{
    const struct fuse *f = t->src.recipe.args;
    int64_t groups = f->cols / FUSE_MX_BLOCK;
    unsigned char *bytes, *to = dst;
    mt_status st = MT_OK;

    MT_TRY(mt_alloc(ctx, (size_t)groups, FUSE_MX_BYTES, "a row of blocks", &bytes));
    for (int64_t i = row; i < row + n && st == MT_OK; i++) {
        st = fuse_mx_row(ctx, f, i, bytes);
        for (int64_t g = 0; g < groups; g++)
            *to++ = bytes[g * FUSE_MX_BYTES];
    }
    mt_free(bytes);
    return st;
}

/* ---- planning ---- */

/* A part, and what is written where the first of a whole's parts stands. */
struct fuse_part {
    const struct mt_tensor *part;
    struct mt_tensor *whole, *also; /* NULL at other parts; also: the exponents of MXFP4 blocks */
};

struct fuse_list {
    struct fuse_part *v;
    size_t n, cap;
};

static mt_status fuse_name(struct mt_ctx *ctx, struct mt_model *m, const char *pattern, int layer,
                           const char *was, const char *now, const char **out)
{
    const char *l = strstr(pattern, "%l");
    size_t n = strlen(pattern) - strlen(was);

    return mt_arena_printf(ctx, &m->arena, out, "%.*s%d%.*s%s", (int)(l - pattern), pattern, layer,
                           (int)(n - (size_t)(l + 2 - pattern)), l + 2, now);
}

static mt_status fuse_add(struct mt_ctx *ctx, struct mt_model *m, const struct fuse *f,
                          enum mt_dtype dtype, int rank, const int64_t *shape, mt_recipe_fn eval,
                          struct mt_tensor **out)
{
    struct mt_tensor *t;

    MT_TRY(mt_model_add(ctx, m, mt_role(MT_ROLE_OTHER, f->parts[0]->role.layer, MT_EXPERT_NONE),
                        dtype, rank, shape, &t));
    t->planner = f->parts[0]->planner;
    memset(&t->src, 0, sizeof t->src);
    t->src.kind = MT_SRC_RECIPE;
    t->src.recipe.eval = eval;
    t->src.recipe.name = "fuse";
    t->src.recipe.args = f;
    t->src.recipe.more = f->parts;
    t->src.recipe.n_more = (size_t)(f->experts * f->kinds);
    *out = t;
    return MT_OK;
}

static mt_status fuse_add_mx(struct mt_ctx *ctx, struct mt_model *m, const struct fuse *f,
                             const struct mt_fused_row *row, int layer, struct fuse_part *p)
{
    int64_t shape[4] = {f->experts, f->total, f->cols / FUSE_MX_BLOCK, FUSE_MX_BLOCK / 2};

    MT_TRY(fuse_add(ctx, m, f, MT_U8, 4, shape, fuse_eval_blocks, &p->whole));
    MT_TRY(fuse_name(ctx, m, row->pattern, layer, "", "", &p->whole->name));
    MT_TRY(fuse_add(ctx, m, f, MT_U8, 3, shape, fuse_eval_exponents, &p->also));
    return fuse_name(ctx, m, row->pattern, layer, "_blocks", "_scales", &p->also->name);
}

static mt_status fuse_add_whole(struct mt_ctx *ctx, struct mt_model *m, const struct fuse *f,
                                const struct mt_fused_row *row, int layer, struct fuse_part *p)
{
    bool stack = (row->flags & MT_FUSED_STACK) != 0;
    int64_t shape[3] = {f->experts, f->total, f->cols};

    if (f->transposed) {
        shape[1] = f->cols;
        shape[2] = f->total;
    }
    MT_TRY(fuse_add(ctx, m, f, f->parts[0]->dtype, (f->vectors ? 1 : 2) + stack, shape + !stack,
                    f->transposed || f->vectors ? fuse_eval_columns : fuse_eval_rows, &p->whole));
    return fuse_name(ctx, m, row->pattern, layer, "", "", &p->whole->name);
}

static struct mt_role fuse_role(const struct mt_fused_row *row, int kind, int layer, int64_t e)
{
    struct mt_role role = mt_role(row->kinds[kind], layer, MT_EXPERT_NONE);

    if (row->expert == MT_NAME_ROUTED)
        role.expert = (int32_t)e;
    else if (row->expert == MT_NAME_SHARED)
        role.expert = MT_EXPERT_SHARED;
    role.part = row->part;
    return role;
}

/* All parts of one whole; all of one dtype and, by kind, of one shape. */
static mt_status fuse_collect(struct mt_ctx *ctx, struct mt_model *m,
                              const struct mt_fused_row *row, int layer, struct fuse *f)
{
    const struct mt_tensor *first = mt_model_find(m, fuse_role(row, 0, layer, 0));
    char label[128];

    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)(f->experts * f->kinds),
                          sizeof(struct mt_tensor *), &f->parts));
    for (int64_t i = 0; i < f->experts * f->kinds; i++) {
        int k = (int)(i % f->kinds);
        const struct mt_tensor *t = mt_model_find(m, fuse_role(row, k, layer, i / f->kinds));

        if (t != NULL && i < f->kinds)
            f->rows[k] = t->shape[0];
        if (t == NULL || t->rank != first->rank || t->dtype != first->dtype ||
            t->shape[0] != f->rows[k] || (t->rank == 2 && t->shape[1] != first->shape[1]))
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "%s: models of family %s store it in one tensor with others of the same "
                           "type and shape, which these are not; choose one type with --dtype",
                           mt_tensor_label(t != NULL ? t : first, label, sizeof label),
                           m->family->name);
        f->parts[i] = t;
    }
    for (int k = 0; k < f->kinds; k++)
        f->total += f->rows[k];
    f->cols = first->rank == 1 ? 1 : first->shape[1];
    return MT_OK;
}

static mt_status fuse_note(struct mt_ctx *ctx, struct fuse_list *l, const struct fuse *f,
                           struct fuse_part first)
{
    for (int64_t i = 0; i < f->experts * f->kinds; i++) {
        MT_TRY(mt_grow(ctx, l->n, &l->cap, sizeof *l->v, "records to write", &l->v));
        if (i > 0)
            first.whole = first.also = NULL;
        first.part = f->parts[i];
        l->v[l->n++] = first;
    }
    return MT_OK;
}

static mt_status fuse_layer(struct mt_ctx *ctx, struct mt_model *m, const struct mt_fused_row *row,
                            int layer, struct fuse_list *l)
{
    const struct mt_tensor *first = mt_model_find(m, fuse_role(row, 0, layer, 0));
    bool mx = (row->flags & MT_FUSED_MXFP4) != 0;
    struct fuse_part p = {0};
    char label[128];
    struct fuse *f;

    if (first == NULL || (first->dtype == MT_MXFP4) != mx)
        return MT_OK;
    if (!mx && !mt_dtype_pickable(first->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "%s: %s blocks have no place in a directory of family %s; write a GGUF "
                       "file, or choose a float type with --dtype",
                       mt_tensor_label(first, label, sizeof label), mt_dtype_name(first->dtype),
                       m->family->name);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, 1, sizeof *f, &f));
    memset(f, 0, sizeof *f);
    while (f->kinds < MT_FUSED_MAX && row->kinds[f->kinds] != MT_ROLE_OTHER)
        f->kinds++;
    f->experts = row->expert == MT_NAME_ROUTED ? m->ffn[layer].n_experts : 1;
    f->turns = (row->flags & MT_FUSED_INTERLEAVED) != 0 || mx;
    f->vectors = row->part == MT_PART_BIAS;
    f->transposed = (row->flags & MT_FUSED_TRANSPOSED) != 0 && !f->vectors;
    MT_TRY(fuse_collect(ctx, m, row, layer, f));
    MT_TRY(mx ? fuse_add_mx(ctx, m, f, row, layer, &p) : fuse_add_whole(ctx, m, f, row, layer, &p));
    return fuse_note(ctx, l, f, p);
}

static int fuse_by_part(const void *a, const void *b)
{
    const struct mt_tensor *x = ((const struct fuse_part *)a)->part;
    const struct mt_tensor *y = ((const struct fuse_part *)b)->part;

    return (x > y) - (x < y);
}

/* Wholes stand where their first part did; of two rows that could hold a part the first takes it.
 */
static mt_status fuse_list(struct mt_ctx *ctx, const struct mt_model *m, size_t n_plan,
                           struct fuse_list *l, struct mt_tensor ***out, size_t *n)
{
    MT_TRY(mt_alloc(ctx, m->n_tensors, sizeof(struct mt_tensor *), "records to write", out));
    if (l->n > 1)
        qsort(l->v, l->n, sizeof *l->v, fuse_by_part);
    *n = 0;
    for (size_t i = 0; i < n_plan; i++) {
        struct fuse_part key = {.part = m->tensors[i]};
        const struct fuse_part *p =
            l->n == 0 ? NULL : bsearch(&key, l->v, l->n, sizeof *l->v, fuse_by_part);
        if (p == NULL) {
            (*out)[(*n)++] = m->tensors[i];
            continue;
        }
        if (p->whole != NULL)
            (*out)[(*n)++] = p->whole;
        if (p->also != NULL)
            (*out)[(*n)++] = p->also;
    }
    return MT_OK;
}

static mt_status fuse_all(struct mt_ctx *ctx, struct mt_model *m, struct fuse_list *l)
{
    const struct mt_fused_row *rows = m->family != NULL ? m->family->fused : NULL;

    for (const struct mt_fused_row *row = rows; row != NULL && row->pattern != NULL; row++) {
        bool again = false; /* another name for what an earlier row holds */

        for (const struct mt_fused_row *r = rows; r < row; r++)
            again |= r->part == row->part && r->expert == row->expert &&
                     ((r->flags ^ row->flags) & MT_FUSED_MXFP4) == 0 &&
                     memcmp(r->kinds, row->kinds, sizeof r->kinds) == 0;
        for (int layer = 0; layer < m->hp.n_layers && !again; layer++)
            MT_TRY(fuse_layer(ctx, m, row, layer, l));
    }
    return MT_OK;
}

mt_status mt_model_stored(struct mt_ctx *ctx, struct mt_model *plan, struct mt_tensor ***out,
                          size_t *n)
{
    size_t n_plan = plan->n_tensors;
    struct fuse_list l = {0};
    mt_status st = fuse_all(ctx, plan, &l);

    *out = NULL;
    if (st == MT_OK)
        st = fuse_list(ctx, plan, n_plan, &l, out, n);
    while (plan->n_tensors > n_plan)
        mt_model_remove(plan, plan->tensors[plan->n_tensors - 1]);
    mt_free(l.v);
    return st;
}
