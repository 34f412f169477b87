#include "lib/ir/factors.h"

#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>

#define ROWS 7
#define COLS 11
#define RANK 3

/* A model of one layer with one expert, of which only the parts under test exist. */
struct parts {
    struct mt_model *m;
    struct mt_rng rng;
    struct mt_arena arena;
    struct mt_role role;
};

static mt_status parts_open(struct mt_ctx *ctx, struct parts *p, enum mt_role_kind kind)
{
    MT_TRY(mt_model_create(ctx, &p->m));
    MT_TRY(mt_arena_alloc(ctx, &p->m->arena, 1, sizeof *p->m->ffn, &p->m->ffn));
    p->m->hp.n_layers = 1;
    p->m->hp.hidden = kind == MT_ROLE_FFN_DOWN ? ROWS : COLS;
    p->m->ffn[0] = (struct mt_ffn){.moe = true,
                                   .gated = true,
                                   .n_experts = 1,
                                   .k = 1,
                                   .width = kind == MT_ROLE_FFN_DOWN ? COLS : ROWS};
    mt_arena_init(&p->arena);
    mt_rng_seed(&p->rng, 3, (uint64_t)kind);
    p->role = mt_role(kind, 0, 0);
    return MT_OK;
}

static void parts_close(struct parts *p)
{
    mt_arena_free(&p->arena);
    mt_model_free(p->m);
}

static mt_status parts_floats(struct mt_ctx *ctx, struct parts *p, struct mt_role role, int rank,
                              const int64_t *shape, float *v)
{
    struct mt_tensor *t;
    int64_t n = 1;

    for (int i = 0; i < rank; i++)
        n *= shape[i];
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)mt_rng_normal(&p->rng);
    MT_TRY(mt_model_add(ctx, p->m, role, MT_F32, rank, shape, &t));
    return mt_source_floats(ctx, p->m, t, v);
}

static mt_status parts_bytes(struct mt_ctx *ctx, struct parts *p, struct mt_role role,
                             enum mt_dtype dtype, int rank, const int64_t *shape, const void *bytes)
{
    struct mt_tensor *t;
    void *own;

    MT_TRY(mt_model_add(ctx, p->m, role, dtype, rank, shape, &t));
    MT_TRY(mt_alloc(ctx, (size_t)mt_tensor_bytes(t), 1, "bytes", &own));
    memcpy(own, bytes, (size_t)mt_tensor_bytes(t));
    t->src.kind = MT_SRC_OWNED;
    t->src.owned = own;
    return mt_model_own_buffer(ctx, p->m, own);
}

/* The matrix in pieces of different heights, in both dtypes. */
static void same_matrix(struct t *t, struct parts *p, const double *want)
{
    for (int step = 1; step <= ROWS; step += 2) {
        for (int wide = 0; wide < 2; wide++) {
            const struct mt_tensor *x;
            double f64[ROWS * COLS] = {0};
            float f32[ROWS * COLS] = {0};
            T_OK(t, mt_matrix_of(&t->ctx, p->m, &p->arena, p->role, wide ? MT_F64 : MT_F32, &x));
            T_EQ_INT(t, mt_tensor_rows(x), ROWS);
            T_EQ_INT(t, mt_tensor_cols(x), COLS);
            for (int row = 0; row < ROWS; row += step) {
                int n = ROWS - row < step ? ROWS - row : step;
                T_OK(t, mt_tensor_fetch(&t->ctx, x, row, n,
                                        wide ? (void *)(f64 + row * COLS) : f32 + row * COLS));
            }
            for (int i = 0; i < ROWS * COLS; i++)
                T_NEAR(t, wide ? f64[i] : (double)f32[i], want[i],
                       (1 + fabs(want[i])) * (wide ? 1e-14 : 1e-6));
        }
    }
}

T_TEST(factors_are_multiplied_and_added)
{
    const enum mt_role_kind kinds[] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    const int64_t left[] = {ROWS, RANK}, right[] = {RANK, COLS}, all[] = {ROWS, COLS};
    const int64_t some[] = {3, COLS}, three[] = {3};
    const int32_t at[] = {0, 4, 6};

    for (int kind = 0; kind < 3; kind++) {
        for (int how = 0; how < 4; how++) {
            float l[ROWS * RANK], r[RANK * COLS], b[ROWS * COLS], s[3 * COLS];
            double want[ROWS * COLS] = {0};
            struct parts p;
            struct mt_role common = mt_role(kinds[kind], 0, MT_EXPERT_NONE);
            T_OK(t, parts_open(&t->ctx, &p, kinds[kind]));
            p.m->ffn[0].factors[kind] = (struct mt_factors){true, how & 1, how & 2};
            T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_LEFT), 2, left, l));
            T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_RIGHT), 2, right, r));
            if (how & 1)
                T_OK(t, parts_floats(&t->ctx, &p, common, 2, all, b));
            if (how & 2) {
                T_OK(t,
                     parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_SPARSE), 2, some, s));
                T_OK(t, parts_bytes(&t->ctx, &p, mt_role_part(p.role, MT_PART_SPARSE_ROWS), MT_I32,
                                    1, three, at));
            }
            for (int i = 0; i < ROWS; i++)
                for (int c = 0; c < COLS; c++) {
                    for (int k = 0; k < RANK; k++)
                        want[i * COLS + c] += (double)l[i * RANK + k] * (double)r[k * COLS + c];
                    want[i * COLS + c] += how & 1 ? (double)b[i * COLS + c] : 0;
                    for (int k = 0; k < 3; k++)
                        want[i * COLS + c] += (how & 2) && at[k] == i ? (double)s[k * COLS + c] : 0;
                }
            T_CHECK(t, mt_matrix_in_parts(p.m, p.role));
            same_matrix(t, &p, want);
            parts_close(&p);
        }
    }
}

/* Row numbers are claims of a file. */
T_TEST(row_numbers_that_lie_are_told)
{
    static const int32_t bad[][3] = {
        {0, 4, 7}, {-1, 2, 3}, {2, 2, 3}, {3, 2, 4}, {0, 1, 2147483647}};
    const int64_t left[] = {ROWS, RANK}, right[] = {RANK, COLS}, some[] = {3, COLS}, three[] = {3};

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        float v[ROWS * COLS];
        const struct mt_tensor *x;
        struct parts p;
        T_OK(t, parts_open(&t->ctx, &p, MT_ROLE_FFN_UP));
        p.m->ffn[0].factors[MT_FFN_UP] = (struct mt_factors){true, false, true};
        T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_LEFT), 2, left, v));
        T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_RIGHT), 2, right, v));
        T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_SPARSE), 2, some, v));
        T_OK(t, parts_bytes(&t->ctx, &p, mt_role_part(p.role, MT_PART_SPARSE_ROWS), MT_I32, 1,
                            three, bad[i]));
        T_FAILS(t, mt_matrix_of(&t->ctx, p.m, &p.arena, p.role, MT_F32, &x), MT_E_FORMAT,
                "layers.0.experts.0.up_proj.sparse_rows[");
        parts_close(&p);
    }
}

T_TEST(parts_that_do_not_fit_are_told)
{
    const int64_t left[] = {ROWS, RANK}, right[] = {RANK + 1, COLS};
    float v[ROWS * COLS];
    const struct mt_tensor *x;
    struct parts p;

    T_OK(t, parts_open(&t->ctx, &p, MT_ROLE_FFN_UP));
    T_FAILS(t, mt_matrix_of(&t->ctx, p.m, &p.arena, p.role, MT_F32, &x), MT_E_ABSENT,
            "layers.0.experts.0.up_proj is missing");
    p.m->ffn[0].factors[MT_FFN_UP].on = true;
    T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_LEFT), 2, left, v));
    T_FAILS(t, mt_matrix_of(&t->ctx, p.m, &p.arena, p.role, MT_F32, &x), MT_E_ABSENT,
            "layers.0.experts.0.up_proj.right is missing");
    T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(p.role, MT_PART_RIGHT), 2, right, v));
    T_FAILS(t, mt_matrix_of(&t->ctx, p.m, &p.arena, p.role, MT_F32, &x), MT_E_FORMAT,
            "has 3 columns, but its right factor 4 rows");
    parts_close(&p);
}

/* Codes of b bits, lowest bit first and rows on whole bytes; every width of code. */
T_TEST(planes_are_numbers)
{
    for (int bits = 1; bits <= 8; bits++) {
        for (int planes = 0; planes <= 3; planes += 3) {
            enum { GROUP = 4, GROUPS = 3 };
            const int row_bytes = (COLS * bits + 7) / 8;
            const int64_t codes_shape[] = {ROWS, row_bytes}, scale_shape[] = {ROWS, GROUPS};
            const int64_t planes_shape[] = {3, ROWS, 2}, plane_scale_shape[] = {3, ROWS, GROUPS};
            unsigned char codes[ROWS * COLS] = {0}, signs[3 * ROWS * 2] = {0};
            float scale[ROWS * GROUPS], zero[ROWS * GROUPS], ps[3 * ROWS * GROUPS];
            double want[ROWS * COLS];
            struct parts p;
            struct mt_role r;
            T_OK(t, parts_open(&t->ctx, &p, MT_ROLE_FFN_UP));
            r = p.role;
            p.m->ffn[0].planes = (struct mt_planes){bits, planes, GROUP};
            T_OK(t,
                 parts_floats(&t->ctx, &p, mt_role_part(r, MT_PART_SCALE), 2, scale_shape, scale));
            T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(r, MT_PART_ZERO), 2, scale_shape, zero));
            for (int i = 0; i < ROWS; i++)
                for (int c = 0; c < COLS; c++) {
                    unsigned v = (unsigned)mt_rng_below(&p.rng, 1u << bits);
                    int g = i * GROUPS + c / GROUP;
                    for (int b = 0; b < bits; b++) {
                        int at = c * bits + b;
                        codes[i * row_bytes + at / 8] |= (unsigned char)((v >> b & 1) << (at % 8));
                    }
                    want[i * COLS + c] = (double)scale[g] * ((double)v - (double)zero[g]);
                }
            T_OK(t, parts_bytes(&t->ctx, &p, mt_role_part(r, MT_PART_CODES), MT_U8, 2, codes_shape,
                                codes));
            if (planes > 0) {
                T_OK(t, parts_floats(&t->ctx, &p, mt_role_part(r, MT_PART_PLANE_SCALE), 3,
                                     plane_scale_shape, ps));
                for (int k = 0; k < planes; k++)
                    for (int i = 0; i < ROWS * COLS; i++) {
                        int row = k * ROWS + i / COLS, c = i % COLS;
                        bool up = mt_rng_below(&p.rng, 2);
                        double s = (double)ps[row * GROUPS + c / GROUP];
                        signs[row * 2 + c / 8] |= (unsigned char)(up << (c % 8));
                        want[i] += up ? s : -s;
                    }
                T_OK(t, parts_bytes(&t->ctx, &p, mt_role_part(r, MT_PART_PLANES), MT_U8, 3,
                                    planes_shape, signs));
            }
            same_matrix(t, &p, want);
            parts_close(&p);
        }
    }
}

T_TEST(a_whole_matrix_is_itself)
{
    const int64_t shape[] = {ROWS, COLS};
    float v[ROWS * COLS];
    const struct mt_tensor *x;
    struct parts p;

    T_OK(t, parts_open(&t->ctx, &p, MT_ROLE_FFN_UP));
    T_OK(t, parts_floats(&t->ctx, &p, p.role, 2, shape, v));
    T_CHECK(t, !mt_matrix_in_parts(p.m, p.role));
    T_OK(t, mt_matrix_of(&t->ctx, p.m, &p.arena, p.role, MT_F32, &x));
    T_CHECK(t, x == mt_model_find(p.m, p.role));
    parts_close(&p);
}
