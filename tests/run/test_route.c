/* Routers of every kind and blocks with all that only the native layout holds, against plain loops
 * in fp64 over random small models. */
#include "lib/run/runner.h"

#include "lib/base/rng.h"
#include "lib/ir/factors.h"
#include "lib/run/tap.h"
#include "tests/t.h"
#include "tests/toy.h"

#include <stdlib.h>

#define H 32
#define M 150 /* more tokens than one job routes */
#define EXPERTS 6

struct made {
    struct mt_model *m;
    struct mt_rng rng;
    int64_t widths[EXPERTS];
    int32_t map[16];
};

static mt_status put(struct mt_ctx *ctx, struct made *k, struct mt_role role, int64_t rows,
                     int64_t cols, double spread)
{
    int64_t shape[2] = {rows > 0 ? rows : cols, cols};
    size_t n = (size_t)((rows > 0 ? rows : 1) * cols);
    struct mt_tensor *t;
    float *v;

    MT_TRY(mt_model_add(ctx, k->m, role, MT_F32, rows > 0 ? 2 : 1, shape, &t));
    MT_TRY(mt_alloc(ctx, n, sizeof *v, "weights", &v));
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(spread * mt_rng_normal(&k->rng));
    mt_status st = mt_source_floats(ctx, k->m, t, v);
    mt_free(v);
    return st;
}

/* Takes a record out and puts random numbers of another shape in its place. */
static mt_status reput(struct mt_ctx *ctx, struct made *k, enum mt_role_kind kind, int expert,
                       enum mt_part part, int64_t rows, int64_t cols)
{
    struct mt_role role = mt_role_part(mt_role(kind, 0, expert), part);
    struct mt_tensor *old = mt_model_find(k->m, role);

    if (old != NULL)
        mt_model_remove(k->m, old);
    if (cols == 0 || (rows == 0 && part == MT_PART_WEIGHT))
        return MT_OK;
    return put(ctx, k, role, rows, cols, 1 / sqrt((double)(cols < H ? cols : H)));
}

static mt_status make(struct mt_ctx *ctx, struct made *k, uint64_t seed, bool gated, bool biases)
{
    struct toy spec = {.seed = seed,
                       .layers = 1,
                       .experts = EXPERTS,
                       .k = 3,
                       .ungated = !gated,
                       .in_bias = biases,
                       .out_bias = biases};

    mt_rng_seed(&k->rng, seed, 7);
    return toy_model(ctx, &spec, &k->m);
}

/* The router's own tensors, for a rule of `rows` rows. */
static mt_status make_router(struct mt_ctx *ctx, struct made *k, const struct mt_router *r,
                             bool bias, int rows)
{
    int64_t n = r->kind == MT_ROUTER_SPECTRAL ? rows * r->width : rows;
    int64_t cols = r->kind == MT_ROUTER_MLP ? r->width : H;

    k->m->ffn[0].router = *r;
    k->m->ffn[0].router_bias = bias;
    MT_TRY(reput(ctx, k, MT_ROLE_ROUTER, MT_EXPERT_NONE, MT_PART_WEIGHT, n, cols));
    if (bias)
        MT_TRY(reput(ctx, k, MT_ROLE_ROUTER, MT_EXPERT_NONE, MT_PART_BIAS, 0, n));
    if (r->kind == MT_ROUTER_MLP)
        MT_TRY(reput(ctx, k, MT_ROLE_ROUTER_HIDDEN, MT_EXPERT_NONE, MT_PART_WEIGHT, r->width, H));
    if (r->kind == MT_ROUTER_MLP && r->hidden_bias)
        MT_TRY(reput(ctx, k, MT_ROLE_ROUTER_HIDDEN, MT_EXPERT_NONE, MT_PART_BIAS, 0, r->width));
    if (r->skip)
        MT_TRY(reput(ctx, k, MT_ROLE_ROUTER_SKIP, MT_EXPERT_NONE, MT_PART_WEIGHT, rows, H));
    if (r->gated)
        MT_TRY(reput(ctx, k, MT_ROLE_ROUTER_GATE, MT_EXPERT_NONE, MT_PART_WEIGHT, n, H));
    if (r->gated && r->hidden_bias)
        MT_TRY(reput(ctx, k, MT_ROLE_ROUTER_GATE, MT_EXPERT_NONE, MT_PART_BIAS, 0, n));
    return MT_OK;
}

/* ---- plain loops ---- */

static float *weights(struct t *t, const struct made *k, enum mt_role_kind kind, int expert,
                      enum mt_part part)
{
    struct mt_tensor *w = mt_model_find(k->m, mt_role_part(mt_role(kind, 0, expert), part));
    float *v = NULL;

    if (w != NULL && mt_tensor_load_f32(&t->ctx, w, &v) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return v;
}

/* y[n] = W x + b of one token. */
static void linear(struct t *t, const struct made *k, enum mt_role_kind kind, int expert,
                   const double *x, int64_t n, int64_t d, double *y)
{
    float *w = weights(t, k, kind, expert, MT_PART_WEIGHT);
    float *b = weights(t, k, kind, expert, MT_PART_BIAS);

    for (int64_t i = 0; i < n; i++) {
        y[i] = b != NULL ? (double)b[i] : 0;
        for (int64_t c = 0; w != NULL && c < d; c++)
            y[i] += (double)w[i * d + c] * x[c];
    }
    mt_free(w);
    mt_free(b);
}

static double fn(enum mt_router_fn f, double x)
{
    switch (f) {
    case MT_ROUTER_FN_IDENTITY:
        return x;
    case MT_ROUTER_FN_TANH:
        return tanh(x);
    case MT_ROUTER_FN_COS:
        return cos(x);
    case MT_ROUTER_FN_RELU:
        return x > 0 ? x : 0;
    default: /* the tests use no other */
        return x / (1 + exp(-x));
    }
}

static void plain_logits(struct t *t, const struct made *k, const double *token, double *z)
{
    const struct mt_router *r = &k->m->ffn[0].router;
    int rows = mt_ffn_rows(&k->m->ffn[0]);
    double x[H], h[256], g[256], norm = 0;

    for (int i = 0; i < H; i++)
        norm += token[i] * token[i];
    for (int i = 0; i < H; i++)
        x[i] = r->unit_input && norm > 0 ? token[i] / sqrt(norm) : token[i];
    if (r->kind == MT_ROUTER_LINEAR) {
        linear(t, k, MT_ROLE_ROUTER, MT_EXPERT_NONE, x, rows, H, z);
        return;
    }
    if (r->kind == MT_ROUTER_MLP) {
        linear(t, k, MT_ROLE_ROUTER_HIDDEN, MT_EXPERT_NONE, x, r->width, H, h);
        for (int64_t i = 0; i < r->width; i++)
            h[i] = fn(r->fn, h[i]);
        linear(t, k, MT_ROLE_ROUTER, MT_EXPERT_NONE, h, rows, r->width, z);
        linear(t, k, MT_ROLE_ROUTER_SKIP, MT_EXPERT_NONE, x, rows, H, g);
        for (int i = 0; i < rows; i++)
            z[i] += g[i];
        return;
    }
    int64_t each = r->kind == MT_ROUTER_SPECTRAL ? r->width : 1;
    linear(t, k, MT_ROLE_ROUTER, MT_EXPERT_NONE, x, rows * each, H, h);
    linear(t, k, MT_ROLE_ROUTER_GATE, MT_EXPERT_NONE, x, rows * each, H, g);
    for (int i = 0; i < rows; i++) {
        double a = 0, b = 0;
        for (int64_t j = i * each; j < (i + 1) * each; j++) {
            a += h[j] * h[j];
            b += g[j] * g[j];
        }
        if (r->kind == MT_ROUTER_SPECTRAL)
            z[i] = r->gated ? sqrt(a * b) : sqrt(a);
        else
            z[i] = fabs(r->gated ? fn(r->fn, g[i]) * h[i] : fn(r->fn, h[i]));
    }
}

static void plain_expert(struct t *t, const struct made *k, int e, const double *x, double weight,
                         double *y)
{
    const struct mt_ffn *f = &k->m->ffn[0];
    int64_t width = mt_ffn_expert_width(f, e);
    double g[64], u[64], out[H];

    linear(t, k, MT_ROLE_FFN_GATE, e, x, width, H, g);
    linear(t, k, MT_ROLE_FFN_UP, e, x, width, H, u);
    for (int64_t i = 0; i < width; i++)
        u[i] = f->gated ? g[i] / (1 + exp(-g[i])) * u[i] : u[i] / (1 + exp(-u[i]));
    linear(t, k, MT_ROLE_FFN_DOWN, e, u, H, width, out);
    for (int i = 0; i < H; i++)
        y[i] += weight * out[i];
}

/* ---- the runner's ---- */

struct got {
    double y[M * H];
    double logits[M * 16];
    int32_t expert[M * 8];
    double weight[M * 8];
    int k, n_rows;
};

static mt_status run_open(struct mt_ctx *ctx, struct mt_device *dev, struct mt_run_layer *l,
                          const double *x, mt_buf in, mt_buf y, struct got *out)
{
    const struct mt_routing *ro;

    MT_TRY(dev->ops->upload_f64(ctx, dev, in, x, M * H));
    MT_TRY(mt_run_ffn(ctx, l, in, M, y, NULL));
    MT_TRY(dev->ops->download_f64(ctx, dev, out->y, y, M * H));
    ro = mt_run_routing(l);
    out->k = ro->k;
    out->n_rows = ro->n_rows;
    memcpy(out->logits, ro->logits, (size_t)(M * ro->n_rows) * sizeof(double));
    memcpy(out->expert, ro->expert, (size_t)(M * ro->k) * sizeof(int32_t));
    memcpy(out->weight, ro->weight, (size_t)(M * ro->k) * sizeof(double));
    return MT_OK;
}

static mt_status run(struct mt_ctx *ctx, const struct mt_model *m, const char *device,
                     const double *x, struct got *out)
{
    struct mt_run_layer *l = NULL;
    struct mt_device *dev = NULL;
    struct mt_runner *r = NULL;
    mt_buf in = NULL, y = NULL;
    mt_status st = mt_device_open(ctx, device, &dev);

    if (st == MT_OK)
        st = mt_runner_open(ctx, m, dev, &r);
    if (st == MT_OK)
        st = mt_run_layer_open(ctx, r, 0, &l);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, M * H, &in);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, M * H, &y);
    if (st == MT_OK)
        st = run_open(ctx, dev, l, x, in, y, out);
    if (dev != NULL) {
        dev->ops->release(dev, in);
        dev->ops->release(dev, y);
    }
    if (l != NULL)
        mt_run_layer_close(l);
    mt_runner_close(r);
    mt_device_close(dev);
    return st;
}

static void inputs(double *x)
{
    for (int i = 0; i < M * H; i++)
        x[i] = cos(1.3 * i) + 0.2 * sin(0.01 * (double)i * i);
    memset(x, 0, H * sizeof *x); /* a token of zeros */
}

/* Logits, choices and outputs are what plain loops give. */
static void compare(struct t *t, const struct made *k, const char *device, double tol)
{
    const struct mt_ffn *f = &k->m->ffn[0];
    int rows = mt_ffn_rows(f);
    static double x[M * H], want[M * H];
    static struct got got;
    float *lb =
        f->layer_bias ? weights(t, k, MT_ROLE_FFN_DOWN, MT_EXPERT_NONE, MT_PART_BIAS) : NULL;

    inputs(x);
    T_OK(t, run(&t->ctx, k->m, device, x, &got));
    T_EQ_INT(t, got.n_rows, rows);
    memset(want, 0, sizeof want);
    for (int token = 0; token < M; token++) {
        double z[16], w[8];
        int32_t e[8];
        plain_logits(t, k, x + token * H, z);
        for (int i = 0; i < rows; i++)
            T_NEAR(t, got.logits[token * rows + i], z[i], tol * 100);
        /* From the runner's own logits, so that near-ties choose alike. */
        mt_router_apply(&f->rule, got.logits + token * rows, NULL, rows, f->k, e, w);
        if (f->map != NULL)
            mt_router_join(f->map, f->k, e, w);
        for (int s = 0; s < f->k; s++) {
            T_EQ_INT(t, got.expert[token * f->k + s], e[s]);
            T_NEAR(t, got.weight[token * f->k + s], w[s], 1e-12);
            if (e[s] >= 0)
                plain_expert(t, k, e[s], x + token * H, w[s], want + token * H);
        }
        for (int i = 0; lb != NULL && i < H; i++)
            want[token * H + i] += (double)lb[i];
    }
    T_NEAR(t, t_rel_l2_f64(got.y, want, M * H), 0, tol);
    mt_free(lb);
}

T_TEST(every_router_is_what_its_formula_says)
{
    static const struct {
        struct mt_router r;
        bool bias;
    } cases[] = {
        {{.kind = MT_ROUTER_LINEAR}, true},
        {{.kind = MT_ROUTER_LINEAR, .unit_input = true}, true},
        {{.kind = MT_ROUTER_MLP, .fn = MT_ROUTER_FN_IDENTITY, .width = 3}, false},
        {{.kind = MT_ROUTER_MLP, .fn = MT_ROUTER_FN_TANH, .width = 40, .hidden_bias = true}, true},
        {{.kind = MT_ROUTER_MLP, .fn = MT_ROUTER_FN_COS, .width = 17, .hidden_bias = true}, false},
        {{.kind = MT_ROUTER_MLP,
          .fn = MT_ROUTER_FN_SILU,
          .width = 64,
          .skip = true,
          .unit_input = true},
         true},
        {{.kind = MT_ROUTER_MLP, .fn = MT_ROUTER_FN_RELU, .width = 5, .skip = true}, false},
        {{.kind = MT_ROUTER_REPRESENTATIVE, .fn = MT_ROUTER_FN_SILU, .gated = true}, false},
        {{.kind = MT_ROUTER_REPRESENTATIVE,
          .fn = MT_ROUTER_FN_SILU,
          .gated = true,
          .hidden_bias = true,
          .unit_input = true},
         true},
        {{.kind = MT_ROUTER_REPRESENTATIVE, .fn = MT_ROUTER_FN_RELU}, true},
        {{.kind = MT_ROUTER_SPECTRAL, .width = 4, .gated = true}, false},
        {{.kind = MT_ROUTER_SPECTRAL, .width = 9}, false},
        {{.kind = MT_ROUTER_SPECTRAL, .width = 1, .gated = true, .unit_input = true}, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && t->failed == 0; i++) {
        struct made k;
        T_OK(t, make(&t->ctx, &k, 40 + i, i % 2, false));
        T_OK(t, make_router(&t->ctx, &k, &cases[i].r, cases[i].bias, EXPERTS));
        k.m->ffn[0].rule = (struct mt_router_rule){.score = (enum mt_router_score)(i % 4),
                                                   .renorm = i % 3 == 0 && i % 4 != MT_SCORE_LOGIT,
                                                   .scale = 1};
        compare(t, &k, "ref", 1e-12);
        compare(t, &k, "cpu", 1e-5);
        if (t->failed != 0)
            printf("    case %zu\n", i);
        mt_model_free(k.m);
    }
}

/* More rows than experts, fewer experts a token than k, and none at all. */
T_TEST(rows_share_experts_and_thresholds_drop_them)
{
    for (int i = 0; i < 6 && t->failed == 0; i++) {
        const struct mt_router linear_router = {.kind = MT_ROUTER_LINEAR};
        struct mt_ffn *f;
        struct made k;
        T_OK(t, make(&t->ctx, &k, 60 + (uint64_t)i, true, false));
        f = &k.m->ffn[0];
        for (int r = 0; r < 11; r++)
            k.map[r] = (int32_t)mt_rng_below(&k.rng, EXPERTS - 1); /* one is never reached */
        f->map = k.map;
        f->n_rows = 11;
        f->k = 5;
        f->rule = (struct mt_router_rule){.score = (enum mt_router_score)(i % 2),
                                          .renorm = i % 2 == 0,
                                          .scale = 2,
                                          .cut = (enum mt_router_cut)(i % 4),
                                          .cut_at = i % 4 == MT_CUT_ABOVE ? 0.93 : 0.1,
                                          .cut_min = 0};
        T_OK(t, make_router(&t->ctx, &k, &linear_router, false, 11));
        compare(t, &k, "ref", 1e-12);
        compare(t, &k, "cpu", 1e-5);
        mt_model_free(k.m);
    }
}

/* Widths that differ, experts that are a bias alone, a bias of the layer, with and without gates;
 * with so little memory that experts come and go, too. */
T_TEST(experts_of_any_width_add_up)
{
    static const int64_t widths[][EXPERTS] = {
        {5, 5, 5, 40, 40, 3}, {0, 7, 0, 7, 9, 9}, {48, 1, 48, 1, 0, 0}, {1, 2, 3, 4, 5, 6}};

    for (int i = 0; i < 8 && t->failed == 0; i++) {
        struct mt_ffn *f;
        struct made k;
        bool gated = i % 2, biases = i / 2 % 2 == 0;
        T_OK(t, make(&t->ctx, &k, 80 + (uint64_t)i, gated, biases));
        f = &k.m->ffn[0];
        f->widths = widths[i / 2];
        f->layer_bias = true;
        T_OK(t, put(&t->ctx, &k,
                    mt_role_part(mt_role(MT_ROLE_FFN_DOWN, 0, MT_EXPERT_NONE), MT_PART_BIAS), 0, H,
                    1));
        for (int e = 0; e < EXPERTS; e++) {
            int64_t w = widths[i / 2][e];
            if (gated)
                T_OK(t, reput(&t->ctx, &k, MT_ROLE_FFN_GATE, e, MT_PART_WEIGHT, w, H));
            if (gated && biases)
                T_OK(t, reput(&t->ctx, &k, MT_ROLE_FFN_GATE, e, MT_PART_BIAS, 0, w));
            T_OK(t, reput(&t->ctx, &k, MT_ROLE_FFN_UP, e, MT_PART_WEIGHT, w, H));
            if (biases)
                T_OK(t, reput(&t->ctx, &k, MT_ROLE_FFN_UP, e, MT_PART_BIAS, 0, w));
            T_OK(t, reput(&t->ctx, &k, MT_ROLE_FFN_DOWN, e, MT_PART_WEIGHT, w > 0 ? H : 0, w));
        }
        T_OK(t, mt_model_verify(&t->ctx, k.m));
        compare(t, &k, "ref", 1e-12);
        compare(t, &k, "cpu", 1e-5);
        mt_model_free(k.m);
    }
}

static mt_status store_as_factors(struct mt_ctx *ctx, struct made *k, int rank)
{
    for (int e = 0; e < EXPERTS; e++) {
        struct mt_role up = mt_role(MT_ROLE_FFN_UP, 0, e);
        MT_TRY(reput(ctx, k, MT_ROLE_FFN_UP, e, MT_PART_WEIGHT, 0, 0));
        MT_TRY(put(ctx, k, mt_role_part(up, MT_PART_LEFT), 48, rank, 0.4));
        MT_TRY(put(ctx, k, mt_role_part(up, MT_PART_RIGHT), rank, H, 0.4));
    }
    k->m->ffn[0].factors[MT_FFN_UP].on = true;
    return MT_OK;
}

static mt_status run_within(const struct made *k, uint64_t limit, const double *x, struct got *out)
{
    struct mt_ctx_opts o = {.n_threads = 2, .memory_bytes_max = limit};
    struct mt_ctx ctx;
    mt_status st = mt_ctx_open(&ctx, &o);

    if (st != MT_OK)
        return st;
    st = run(&ctx, k->m, "cpu", x, out);
    mt_assert(mt_mem_used(&ctx) == 0);
    mt_ctx_close(&ctx);
    return st;
}

/* Products of factors take memory; from where it is just enough for one expert at a time to where
 * all fit, no bit changes. */
T_TEST(little_memory_changes_nothing)
{
    static double x[M * H];
    static struct got want, got;
    uint64_t low = 1u << 16, high = 64u << 20;
    struct made k;

    T_OK(t, make(&t->ctx, &k, 98, true, true));
    T_OK(t, store_as_factors(&t->ctx, &k, 5));
    inputs(x);
    T_OK(t, run(&t->ctx, k.m, "cpu", x, &want));
    T_OK(t, run_within(&k, high, x, &got));
    while (high - low > 256) {
        uint64_t mid = (low + high) / 2;
        if (run_within(&k, mid, x, &got) == MT_OK)
            high = mid;
        else
            low = mid;
    }
    for (int i = 0; i < 20; i++) {
        memset(&got, 0, sizeof got);
        T_OK(t, run_within(&k, high + (uint64_t)(i * i) * 512, x, &got));
        T_NEAR(t, t_rel_l2_f64(got.y, want.y, M * H), 0, 0);
    }
    mt_model_free(k.m);
}

/* The same numbers as experts stored whole, and as factors: the runner sees one matrix. */
T_TEST(factors_run_as_their_product)
{
    enum { RANK = 4 };
    static double x[M * H];
    static struct got whole, parts;
    struct made k;
    double d;

    T_OK(t, make(&t->ctx, &k, 99, true, false));
    inputs(x);
    T_OK(t, store_as_factors(&t->ctx, &k, RANK));
    T_OK(t, mt_model_verify(&t->ctx, k.m));
    T_OK(t, run(&t->ctx, k.m, "ref", x, &parts));
    for (int e = 0; e < EXPERTS; e++) {
        struct mt_role up = mt_role(MT_ROLE_FFN_UP, 0, e);
        const int64_t shape[] = {48, H};
        const struct mt_tensor *made;
        struct mt_tensor *one;
        double *v;
        /* F64, so that only the order of summation differs. */
        T_OK(t, mt_matrix_of(&t->ctx, k.m, &k.m->arena, up, MT_F64, &made));
        T_OK(t, mt_alloc(&t->ctx, 48 * H, sizeof *v, "product", &v));
        T_OK(t, mt_tensor_fetch(&t->ctx, made, 0, 48, v));
        T_OK(t, mt_model_add(&t->ctx, k.m, up, MT_F64, 2, shape, &one));
        one->src.kind = MT_SRC_OWNED;
        one->src.owned = v;
        T_OK(t, mt_model_own_buffer(&t->ctx, k.m, v));
    }
    T_OK(t, run(&t->ctx, k.m, "ref", x, &whole));
    T_NEAR(t, t_rel_l2_f64(parts.y, whole.y, M * H), 0, 1e-13);
    T_OK(t, run(&t->ctx, k.m, "cpu", x, &parts));
    d = t_rel_l2_f64(parts.y, whole.y, M * H);
    T_NEAR(t, d, 0, 1e-5);
    mt_model_free(k.m);
}
