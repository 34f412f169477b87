#include "passes/lib/router_form.h"

#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"

#include <math.h>
#include <string.h>

#define FORM_ROWS 64 /* tokens per job */

static int64_t form_outer_rows(const struct mt_router *is, int64_t n)
{
    return is->kind == MT_ROUTER_SPECTRAL ? n * is->width : n;
}

static int64_t form_outer_cols(const struct mt_router *is, int64_t d)
{
    return is->kind == MT_ROUTER_MLP ? is->width : d;
}

/* 0: there is no inner matrix. */
static int64_t form_inner_rows(const struct mt_router *is, int64_t n)
{
    if (is->kind == MT_ROUTER_MLP)
        return is->width;
    return is->kind >= MT_ROUTER_REPRESENTATIVE && is->gated ? form_outer_rows(is, n) : 0;
}

uint64_t mt_router_form_bytes(const struct mt_router *is, int64_t n, int64_t d)
{
    int64_t inner = form_inner_rows(is, n);
    int64_t elems = form_outer_rows(is, n) * form_outer_cols(is, d) + inner * (d + 1) + n;

    return (uint64_t)(elems + (is->skip ? n * d : 0)) * sizeof(float);
}

static mt_status form_alloc(struct mt_ctx *ctx, int64_t rows, int64_t cols, float **out)
{
    return rows == 0 ? MT_OK
                     : mt_alloc0(ctx, (size_t)rows, (size_t)cols * sizeof(float), "router", out);
}

mt_status mt_router_form_open(struct mt_ctx *ctx, const struct mt_router *is, bool has_bias, int n,
                              int64_t d, struct mt_router_form *out)
{
    int64_t inner = form_inner_rows(is, n);
    mt_status st;

    *out = (struct mt_router_form){.is = *is, .has_bias = has_bias, .n = n, .d = d};
    st = form_alloc(ctx, form_outer_rows(is, n), form_outer_cols(is, d), &out->w);
    if (st == MT_OK)
        st = form_alloc(ctx, inner, d, &out->inner);
    if (st == MT_OK && is->hidden_bias)
        st = form_alloc(ctx, inner, 1, &out->inner_bias);
    if (st == MT_OK && is->skip)
        st = form_alloc(ctx, n, d, &out->skip);
    if (st == MT_OK && has_bias)
        st = form_alloc(ctx, n, 1, &out->bias);
    if (st != MT_OK)
        mt_router_form_free(out);
    return st;
}

void mt_router_form_free(struct mt_router_form *f)
{
    mt_free(f->w);
    mt_free(f->inner);
    mt_free(f->inner_bias);
    mt_free(f->skip);
    mt_free(f->bias);
    *f = (struct mt_router_form){0};
}

/* ---- logits ---- */

struct form_run {
    const struct mt_router_form *f;
    int64_t m, inner;            /* tokens; rows of the inner matrix */
    const float *outer_products; /* [m, rows of w]; NULL for an mlp */
    float *inner_products;       /* [m, inner]; an mlp's become its features */
    float *logits;
};

static double form_inner_value(const struct form_run *r, int64_t t, int64_t i)
{
    double v = (double)r->inner_products[t * r->inner + i];

    return r->f->inner_bias != NULL ? v + (double)r->f->inner_bias[i] : v;
}

static void form_features(const struct form_run *r, int64_t t)
{
    for (int64_t i = 0; i < r->inner; i++)
        r->inner_products[t * r->inner + i] =
            (float)mt_router_fn(r->f->is.fn, form_inner_value(r, t, i));
}

static double form_neuron(const struct form_run *r, int64_t t, int e)
{
    const struct mt_router_form *f = r->f;
    double up = (double)r->outer_products[t * f->n + e];

    if (f->has_bias)
        up += (double)f->bias[e];
    return fabs(f->is.gated ? mt_router_fn(f->is.fn, form_inner_value(r, t, e)) * up
                            : mt_router_fn(f->is.fn, up));
}

static double form_length(const float *v, int64_t n)
{
    double s = 0;

    for (int64_t i = 0; i < n; i++)
        s += (double)v[i] * (double)v[i];
    return sqrt(s);
}

static double form_spectrum(const struct form_run *r, int64_t t, int e)
{
    int64_t w = r->f->is.width, at = (t * r->f->n + e) * w;
    double q = form_length(r->outer_products + at, w);

    return r->f->is.gated ? q * form_length(r->inner_products + at, w) : q;
}

static mt_status form_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct form_run *r = arg;

    (void)ctx;
    for (int64_t t = job * FORM_ROWS; t < r->m && t < (job + 1) * FORM_ROWS; t++) {
        if (r->f->is.kind == MT_ROUTER_MLP) {
            form_features(r, t);
            continue;
        }
        for (int e = 0; e < r->f->n; e++)
            r->logits[t * r->f->n + e] =
                (float)(r->f->is.kind == MT_ROUTER_SPECTRAL ? form_spectrum(r, t, e)
                                                            : form_neuron(r, t, e));
    }
    return MT_OK;
}

static void form_add_bias(const struct mt_router_form *f, int64_t m, float *logits)
{
    for (int64_t t = 0; f->has_bias && t < m; t++)
        for (int e = 0; e < f->n; e++)
            logits[t * f->n + e] += f->bias[e];
}

static mt_status form_mlp(struct mt_ctx *ctx, struct form_run *r, const float *x)
{
    const struct mt_router_form *f = r->f;

    MT_TRY(mt_gemm_nt(ctx, r->m, f->is.width, f->d, 1, x, f->d, f->inner, f->d, 0,
                      r->inner_products, f->is.width));
    MT_TRY(mt_pool_run(ctx, (r->m + FORM_ROWS - 1) / FORM_ROWS, form_job, r));
    MT_TRY(mt_gemm_nt(ctx, r->m, f->n, f->is.width, 1, r->inner_products, f->is.width, f->w,
                      f->is.width, 0, r->logits, f->n));
    if (f->skip != NULL)
        MT_TRY(mt_gemm_nt(ctx, r->m, f->n, f->d, 1, x, f->d, f->skip, f->d, 1, r->logits, f->n));
    form_add_bias(f, r->m, r->logits);
    return MT_OK;
}

static mt_status form_pairs(struct mt_ctx *ctx, struct form_run *r, const float *x)
{
    const struct mt_router_form *f = r->f;
    int64_t rows = form_outer_rows(&f->is, f->n);
    float *products;

    MT_TRY(mt_alloc(ctx, (size_t)r->m, (size_t)rows * sizeof(float), "logits", &products));
    r->outer_products = products;
    mt_status st = mt_gemm_nt(ctx, r->m, rows, f->d, 1, x, f->d, f->w, f->d, 0, products, rows);
    if (st == MT_OK && r->inner > 0)
        st = mt_gemm_nt(ctx, r->m, rows, f->d, 1, x, f->d, f->inner, f->d, 0, r->inner_products,
                        rows);
    if (st == MT_OK)
        st = mt_pool_run(ctx, (r->m + FORM_ROWS - 1) / FORM_ROWS, form_job, r);
    mt_free(products);
    return st;
}

/* x / |x|; rows of zeros stay. */
static mt_status form_unit(struct mt_ctx *ctx, const struct mt_router_form *f, int64_t m,
                           const float *x, float **out)
{
    MT_TRY(mt_alloc(ctx, (size_t)m, (size_t)f->d * sizeof(float), "router inputs", out));
    for (int64_t t = 0; t < m; t++) {
        double length = form_length(x + t * f->d, f->d);
        double by = length > 0 ? 1 / length : 0;
        for (int64_t i = t * f->d; i < (t + 1) * f->d; i++)
            (*out)[i] = (float)((double)x[i] * by);
    }
    return MT_OK;
}

static mt_status form_run(struct mt_ctx *ctx, const struct mt_router_form *f, int64_t m,
                          const float *x, float *logits)
{
    struct form_run r = {.f = f, .m = m, .logits = logits};
    mt_status st;

    if (f->is.kind == MT_ROUTER_LINEAR) {
        MT_TRY(mt_gemm_nt(ctx, m, f->n, f->d, 1, x, f->d, f->w, f->d, 0, logits, f->n));
        form_add_bias(f, m, logits);
        return MT_OK;
    }
    r.inner = form_inner_rows(&f->is, f->n);
    if (r.inner > 0)
        MT_TRY(mt_alloc(ctx, (size_t)m, (size_t)r.inner * sizeof(float), "router features",
                        &r.inner_products));
    st = f->is.kind == MT_ROUTER_MLP ? form_mlp(ctx, &r, x) : form_pairs(ctx, &r, x);
    mt_free(r.inner_products);
    return st;
}

mt_status mt_router_form_run(struct mt_ctx *ctx, const struct mt_router_form *f, int64_t m,
                             const float *x, float *logits)
{
    float *unit = NULL;

    if (f->is.unit_input)
        MT_TRY(form_unit(ctx, f, m, x, &unit));
    mt_status st = form_run(ctx, f, m, unit != NULL ? unit : x, logits);
    mt_free(unit);
    return st;
}

/* ---- records ---- */

static struct mt_role form_role(enum mt_role_kind kind, int layer, enum mt_part part)
{
    struct mt_role role = mt_role(kind, layer, MT_EXPERT_NONE);

    role.part = part;
    return role;
}

static enum mt_role_kind form_inner_kind(const struct mt_router *is)
{
    return is->kind == MT_ROUTER_MLP ? MT_ROLE_ROUTER_HIDDEN : MT_ROLE_ROUTER_GATE;
}

mt_status mt_router_form_plan(struct mt_ctx *ctx, const struct mt_router *is, bool has_bias,
                              struct mt_model *m, int layer)
{
    struct mt_tensor *old, *t;
    struct mt_ffn *ffn = &m->ffn[layer];

    MT_TRY(mt_model_need(ctx, m, form_role(MT_ROLE_ROUTER, layer, MT_PART_WEIGHT), &old));
    int64_t n = old->shape[0], d = old->shape[1];
    const int64_t outer[2] = {form_outer_rows(is, n), form_outer_cols(is, d)};
    const int64_t inner[2] = {form_inner_rows(is, n), d}, skip[2] = {n, d};
    mt_model_remove(m, old);
    MT_TRY(mt_model_add(ctx, m, form_role(MT_ROLE_ROUTER, layer, MT_PART_WEIGHT), MT_F32, 2, outer,
                        &t));
    if (has_bias)
        MT_TRY(mt_model_add(ctx, m, form_role(MT_ROLE_ROUTER, layer, MT_PART_BIAS), MT_F32, 1, skip,
                            &t));
    if (inner[0] > 0)
        MT_TRY(mt_model_add(ctx, m, form_role(form_inner_kind(is), layer, MT_PART_WEIGHT), MT_F32,
                            2, inner, &t));
    if (is->hidden_bias)
        MT_TRY(mt_model_add(ctx, m, form_role(form_inner_kind(is), layer, MT_PART_BIAS), MT_F32, 1,
                            inner, &t));
    if (is->skip)
        MT_TRY(mt_model_add(ctx, m, form_role(MT_ROLE_ROUTER_SKIP, layer, MT_PART_WEIGHT), MT_F32,
                            2, skip, &t));
    ffn->router = *is;
    ffn->router_bias = has_bias;
    return MT_OK;
}

static mt_status form_set(struct mt_ctx *ctx, struct mt_model *m, struct mt_role role,
                          const float *values)
{
    struct mt_tensor *t;

    if (values == NULL)
        return MT_OK;
    MT_TRY(mt_model_need(ctx, m, role, &t));
    return mt_source_floats(ctx, m, t, values);
}

mt_status mt_router_form_store(struct mt_ctx *ctx, const struct mt_router_form *f,
                               struct mt_model *m, int layer)
{
    enum mt_role_kind inner = form_inner_kind(&f->is);

    MT_TRY(form_set(ctx, m, form_role(MT_ROLE_ROUTER, layer, MT_PART_WEIGHT), f->w));
    MT_TRY(form_set(ctx, m, form_role(MT_ROLE_ROUTER, layer, MT_PART_BIAS), f->bias));
    MT_TRY(form_set(ctx, m, form_role(inner, layer, MT_PART_WEIGHT), f->inner));
    MT_TRY(form_set(ctx, m, form_role(inner, layer, MT_PART_BIAS), f->inner_bias));
    return form_set(ctx, m, form_role(MT_ROLE_ROUTER_SKIP, layer, MT_PART_WEIGHT), f->skip);
}
