/* device_cases.h: every operation of a device against the reference device on the same inputs.
 *
 * The including test file says which device: #define DEVICE_UNDER_TEST "cpu". Inputs are floats,
 * so both devices start from the same numbers; results agree within relative L2
 * max(1e-6, 3e-8 sqrt(K)), K being the length of the sums (docs: numbers in tests). A device that
 * cannot be opened for want of hardware is skipped.
 */
#ifndef MT_TESTS_KERNELS_DEVICE_CASES_H
#define MT_TESTS_KERNELS_DEVICE_CASES_H

#include "kernels/device.h"
#include "kernels/kernels.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>

struct dc {
    struct t *t;
    struct mt_ctx *ctx;
    struct mt_device *dev, *ref;
    struct mt_rng rng;
};

/* The same elements on both devices. */
struct dc_buf {
    mt_buf d, r;
    size_t n;
};

struct dc_weight {
    char *host; /* malloc'ed; the elements start at an odd address where asked for */
    struct mt_weight *d, *r;
};

#define DC_OK(c, expr)                                                                             \
    do {                                                                                           \
        if (!(c)->t->failed && (expr) != MT_OK)                                                    \
            t_fail((c)->t, __FILE__, __LINE__, "%s: %s", #expr, mt_error((c)->ctx));               \
    } while (0)
static inline void dc_fill(struct dc *c, struct dc_buf *b, const double *v)
{
    DC_OK(c, c->dev->ops->upload_f64(c->ctx, c->dev, b->d, v, b->n));
    DC_OK(c, c->ref->ops->upload_f64(c->ctx, c->ref, b->r, v, b->n));
}

/* n normal numbers (floats) times `size`; ended by dc_end. */
static inline struct dc_buf dc_new(struct dc *c, int64_t n, double size)
{
    struct dc_buf b = {.n = (size_t)n};
    double *v = malloc((b.n + 1) * sizeof *v);

    DC_OK(c, c->dev->ops->alloc(c->ctx, c->dev, b.n, &b.d));
    DC_OK(c, c->ref->ops->alloc(c->ctx, c->ref, b.n, &b.r));
    for (size_t i = 0; i < b.n; i++)
        v[i] = (double)(float)(size * mt_rng_normal(&c->rng));
    dc_fill(c, &b, v);
    free(v);
    return b;
}

static inline void dc_end(struct dc *c, struct dc_buf *b)
{
    c->dev->ops->release(c->dev, b->d);
    c->ref->ops->release(c->ref, b->r);
}

static inline struct dc_weight dc_weight(struct dc *c, enum mt_dtype t, int64_t rows, int64_t cols,
                                         size_t misaligned)
{
    struct dc_weight w = {0};
    size_t n = (size_t)(rows * cols);
    float *f = malloc((n + 1) * sizeof *f);

    w.host = malloc(n * 8 + misaligned + 8);
    for (size_t i = 0; i < n; i++)
        f[i] = (float)mt_rng_normal(&c->rng);
    mt_kernels_named("ref")->from_f32(t, f, w.host + misaligned, n);
    free(f);
    DC_OK(c, c->dev->ops->weight_load(c->ctx, c->dev, t, rows, cols, w.host + misaligned, &w.d));
    DC_OK(c, c->ref->ops->weight_load(c->ctx, c->ref, t, rows, cols, w.host + misaligned, &w.r));
    return w;
}

static inline void dc_weight_end(struct dc *c, struct dc_weight *w)
{
    c->dev->ops->weight_free(c->dev, w->d);
    c->ref->ops->weight_free(c->ref, w->r);
    free(w->host);
}

/* Fails the test when the device's elements are further from the reference than sums of length k
 * allow, or when one has a NaN where the other has none. */
static inline void dc_same(struct dc *c, const struct dc_buf *b, int64_t k, const char *what)
{
    double *d = malloc((b->n + 1) * sizeof *d), *r = malloc((b->n + 1) * sizeof *r);
    double tol = fmax(1e-6, 3e-8 * sqrt((double)k));

    DC_OK(c, c->dev->ops->download_f64(c->ctx, c->dev, d, b->d, b->n));
    DC_OK(c, c->ref->ops->download_f64(c->ctx, c->ref, r, b->r, b->n));
    double off = c->t->failed ? 0 : t_rel_l2_f64(d, r, b->n);
    if (!(off <= tol))
        t_fail(c->t, __FILE__, __LINE__, "%s: relative L2 %g, allowed %g", what, off, tol);
    free(d);
    free(r);
}

static const enum mt_dtype dc_types[] = {MT_F32, MT_BF16, MT_F16, MT_F64};
enum { DC_TYPES = sizeof dc_types / sizeof dc_types[0] };

static inline void dc_one_gemm(struct dc *c, enum mt_dtype t, int64_t m, int64_t n, int64_t k,
                               size_t misaligned, bool accumulate)
{
    struct dc_buf x = dc_new(c, m * k, 1), y = dc_new(c, m * n, 3);
    struct dc_weight w = dc_weight(c, t, n, k, misaligned);
    char what[128];

    snprintf(what, sizeof what, "[%d, %d] x [%d, %d] %s, %d bytes off%s", (int)m, (int)k, (int)n,
             (int)k, mt_dtype_name(t), (int)misaligned, accumulate ? ", accumulated" : "");
    DC_OK(c, c->dev->ops->gemm(c->ctx, c->dev, y.d, x.d, m, w.d, accumulate));
    DC_OK(c, c->ref->ops->gemm(c->ctx, c->ref, y.r, x.r, m, w.r, accumulate));
    dc_same(c, &y, k, what);
    dc_weight_end(c, &w);
    dc_end(c, &x);
    dc_end(c, &y);
}

static inline void dc_gemm(struct dc *c)
{
    static const int64_t m[] = {0, 1, 3, 4, 5, 17, 300};
    static const int64_t nk[][2] = {{1, 1}, {5, 7}, {33, 129}, {257, 100}, {130, 1030}};

    for (size_t i = 0; i < sizeof m / sizeof m[0]; i++)
        for (size_t s = 0; s < sizeof nk / sizeof nk[0]; s++)
            for (size_t t = 0; t < DC_TYPES; t++)
                dc_one_gemm(c, dc_types[t], m[i], nk[s][0], nk[s][1], (i + s + t) % 4,
                            (i + t) % 2 == 0);
    dc_one_gemm(c, MT_BF16, 17, 70, 4500, 1, false);
    dc_one_gemm(c, MT_F16, 17, 700, 4500, 0, true);
    dc_one_gemm(c, MT_F32, 2100, 70, 65, 3, false);
}

static inline void dc_gemm_grouped(struct dc *c)
{
    static const int64_t sizes[] = {0, 3, 40, 0, 1, 160, 6, 0};
    enum { N = sizeof sizes / sizeof sizes[0] };
    int64_t offset[N + 1] = {0}, n = 300, k = 70;

    for (int e = 0; e < N; e++)
        offset[e + 1] = offset[e] + sizes[e];
    for (int t = 0; t < DC_TYPES; t++) {
        struct dc_weight w[N];
        const struct mt_weight *wd[N] = {0}, *wr[N] = {0};
        struct dc_buf x = dc_new(c, offset[N] * k, 1), y = dc_new(c, offset[N] * n, 1);
        for (int e = 0; e < N; e++) {
            w[e] = dc_weight(c, dc_types[t], n, k, (size_t)e % 3);
            wd[e] = sizes[e] > 0 || e == 3 ? w[e].d : NULL;
            wr[e] = sizes[e] > 0 ? w[e].r : NULL;
        }
        DC_OK(c, c->dev->ops->gemm_grouped(c->ctx, c->dev, y.d, x.d, N, offset, wd));
        DC_OK(c, c->ref->ops->gemm_grouped(c->ctx, c->ref, y.r, x.r, N, offset, wr));
        dc_same(c, &y, k, "groups");
        for (int e = 0; e < N; e++)
            dc_weight_end(c, &w[e]);
        dc_end(c, &x);
        dc_end(c, &y);
    }
    DC_OK(c, c->dev->ops->gemm_grouped(c->ctx, c->dev, NULL, NULL, 0, offset, NULL));
}

static inline void dc_elements(struct dc *c)
{
    static const int64_t sizes[] = {0, 1, 63, 64, 65, 1000, 70001};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct dc_buf x = dc_new(c, sizes[i], 1), y = dc_new(c, sizes[i], 1);
        DC_OK(c, c->dev->ops->add(c->ctx, c->dev, y.d, x.d, y.n));
        DC_OK(c, c->ref->ops->add(c->ctx, c->ref, y.r, x.r, y.n));
        DC_OK(c, c->dev->ops->scale(c->ctx, c->dev, y.d, -1.7, y.n));
        DC_OK(c, c->ref->ops->scale(c->ctx, c->ref, y.r, -1.7, y.n));
        DC_OK(c, c->dev->ops->clamp(c->ctx, c->dev, y.d, -0.5, 1.25, y.n));
        DC_OK(c, c->ref->ops->clamp(c->ctx, c->ref, y.r, -0.5, 1.25, y.n));
        dc_same(c, &y, 1, "add and scale");
        DC_OK(c, c->dev->ops->copy(c->ctx, c->dev, x.d, y.d, y.n));
        DC_OK(c, c->ref->ops->copy(c->ctx, c->ref, x.r, y.r, y.n));
        dc_same(c, &x, 1, "copy");
        if (sizes[i] > 1) {
            size_t half = y.n / 2;
            DC_OK(c, c->dev->ops->zero(c->ctx, c->dev, mt_dev_at(c->dev, y.d, half), y.n - half));
            DC_OK(c, c->ref->ops->zero(c->ctx, c->ref, mt_dev_at(c->ref, y.r, half), y.n - half));
            dc_same(c, &y, 1, "zero");
        }
        dc_end(c, &x);
        dc_end(c, &y);
    }
    c->dev->ops->release(c->dev, NULL);
    c->dev->ops->weight_free(c->dev, NULL);
}

/* Floats survive an upload and a download untouched. */
static inline void dc_transfers(struct dc *c)
{
    float v[333], back[333] = {0};
    mt_buf b = NULL;

    for (int i = 0; i < 333; i++)
        v[i] = (float)mt_rng_normal(&c->rng) * (i % 3 == 0 ? 1e-30f : 1e20f);
    DC_OK(c, c->dev->ops->alloc(c->ctx, c->dev, 333, &b));
    DC_OK(c, c->dev->ops->upload(c->ctx, c->dev, b, v, 333));
    DC_OK(c, c->dev->ops->download(c->ctx, c->dev, back, b, 333));
    c->dev->ops->release(c->dev, b);
    if (memcmp(v, back, sizeof v) != 0)
        t_fail(c->t, __FILE__, __LINE__, "floats changed on the way");
}

static inline void dc_bias_and_rows(struct dc *c)
{
    static const int64_t md[][2] = {{0, 5}, {1, 1}, {3, 7}, {65, 1000}, {300, 33}};

    for (size_t i = 0; i < sizeof md / sizeof md[0]; i++) {
        int64_t m = md[i][0], d = md[i][1];
        double *s = malloc((size_t)(m + 1) * sizeof *s);
        for (int64_t r = 0; r < m; r++)
            s[r] = mt_rng_normal(&c->rng);
        for (int t = 0; t < DC_TYPES; t++) {
            struct dc_buf y = dc_new(c, m * d, 1);
            struct dc_weight b = dc_weight(c, dc_types[t], 1, d, (size_t)t);
            DC_OK(c, c->dev->ops->add_bias(c->ctx, c->dev, y.d, m, b.d));
            DC_OK(c, c->ref->ops->add_bias(c->ctx, c->ref, y.r, m, b.r));
            dc_same(c, &y, 1, "bias");
            DC_OK(c, c->dev->ops->scale_rows(c->ctx, c->dev, y.d, m, d, s));
            DC_OK(c, c->ref->ops->scale_rows(c->ctx, c->ref, y.r, m, d, s));
            dc_same(c, &y, 1, "scaled rows");
            DC_OK(c, c->dev->ops->scale_cols(c->ctx, c->dev, y.d, m, b.d));
            DC_OK(c, c->ref->ops->scale_cols(c->ctx, c->ref, y.r, m, b.r));
            dc_same(c, &y, 1, "scaled columns");
            dc_weight_end(c, &b);
            dc_end(c, &y);
        }
        free(s);
    }
}

static inline void dc_norms(struct dc *c)
{
    static const int64_t md[][2] = {{0, 5}, {1, 1}, {3, 7}, {17, 64}, {65, 1000}, {300, 33}};

    for (size_t i = 0; i < sizeof md / sizeof md[0]; i++) {
        int64_t m = md[i][0], d = md[i][1];
        for (int t = 0; t < DC_TYPES; t++) {
            struct dc_buf x = dc_new(c, m * d, i % 2 == 0 ? 1.0 : 40.0), y = dc_new(c, m * d, 1);
            struct dc_weight w = dc_weight(c, dc_types[t], 1, d, (size_t)t);
            struct dc_weight b = dc_weight(c, dc_types[t], 1, d, 0);
            DC_OK(c, c->dev->ops->rmsnorm(c->ctx, c->dev, y.d, x.d, m, w.d, t % 2, 1e-5));
            DC_OK(c, c->ref->ops->rmsnorm(c->ctx, c->ref, y.r, x.r, m, w.r, t % 2, 1e-5));
            dc_same(c, &y, 1, "rmsnorm");
            DC_OK(c, c->dev->ops->layernorm(c->ctx, c->dev, y.d, x.d, m, w.d, b.d, 1e-5));
            DC_OK(c, c->ref->ops->layernorm(c->ctx, c->ref, y.r, x.r, m, w.r, b.r, 1e-5));
            dc_same(c, &y, 1, "layernorm");
            DC_OK(c, c->dev->ops->layernorm(c->ctx, c->dev, x.d, x.d, m, w.d, NULL, 1e-5));
            DC_OK(c, c->ref->ops->layernorm(c->ctx, c->ref, x.r, x.r, m, w.r, NULL, 1e-5));
            dc_same(c, &x, 1, "layernorm in place");
            DC_OK(c, c->dev->ops->rmsnorm(c->ctx, c->dev, y.d, y.d, m, w.d, 0, 1e-6));
            DC_OK(c, c->ref->ops->rmsnorm(c->ctx, c->ref, y.r, y.r, m, w.r, 0, 1e-6));
            dc_same(c, &y, 1, "rmsnorm in place");
            dc_weight_end(c, &w);
            dc_weight_end(c, &b);
            dc_end(c, &x);
            dc_end(c, &y);
        }
    }
}

static inline void dc_rope(struct dc *c)
{
    double freq[32];
    int32_t pos[4200];

    for (int i = 0; i < 4200; i++)
        pos[i] = i < 4100 ? i : 130000 + i;
    for (int i = 0; i < 24; i++) {
        int head_dim = i % 2 == 0 ? 64 : 10, rot = i % 3 == 0 ? head_dim : head_dim / 2 & ~1;
        int64_t m = i % 8 == 7 ? 4200 : i % 4 == 3 ? 0 : 1 + 13 * i;
        struct mt_rope r = {.rot_dim = rot,
                            .half_split = i / 2 % 2 == 0,
                            .inv_freq = freq,
                            .amplitude = i % 5 == 0 ? 1.3 : 1.0};
        struct dc_buf x = dc_new(c, m * 3 * head_dim, 1);
        for (int e = 0; e < 32; e++)
            freq[e] = pow(i < 12 ? 10000.0 : 5e5, -2.0 * e / rot);
        for (int twice = 0; twice < 2; twice++) {
            DC_OK(c, c->dev->ops->rope(c->ctx, c->dev, x.d, m, 3, head_dim, pos, &r));
            DC_OK(c, c->ref->ops->rope(c->ctx, c->ref, x.r, m, 3, head_dim, pos, &r));
        }
        dc_same(c, &x, 1, "rope");
        dc_end(c, &x);
    }
}

static inline void dc_one_attention(struct dc *c, const struct mt_attn *a)
{
    int64_t d = a->head_dim;
    struct dc_buf q = dc_new(c, a->n_q * a->n_heads * d, 1.5), o = dc_new(c, (int64_t)q.n, 1);
    struct dc_buf k = dc_new(c, a->n_k * a->n_kv_heads * d, 1), v = dc_new(c, (int64_t)k.n, 1);
    char what[160];

    snprintf(what, sizeof what, "%d of %d queries, heads %d/%d of %d, window %d, softcap %g%s%s",
             a->n_q, a->n_k, a->n_heads, a->n_kv_heads, a->head_dim, a->window, a->softcap,
             a->sinks != NULL ? ", sinks" : "", a->both_ways ? ", both ways" : "");
    DC_OK(c, c->dev->ops->attention(c->ctx, c->dev, o.d, q.d, k.d, v.d, a));
    DC_OK(c, c->ref->ops->attention(c->ctx, c->ref, o.r, q.r, k.r, v.r, a));
    dc_same(c, &o, d + a->n_k, what);
    dc_end(c, &q);
    dc_end(c, &o);
    dc_end(c, &k);
    dc_end(c, &v);
}

static inline void dc_attention(struct dc *c)
{
    static const int qk[][2] = {{0, 4},   {1, 1},   {1, 33},    {2, 9},    {3, 3},
                                {17, 17}, {70, 70}, {130, 200}, {64, 512}, {5, 17}};
    static const int heads[][3] = {{4, 2, 8}, {3, 1, 40}, {2, 2, 1}, {8, 2, 64}};
    static const int windows[] = {0, 1, 5, 64};
    static const double sinks[8] = {0.5, -30, 3, 12, -1, 0, 40, 1};

    for (int i = 0; i < 10; i++)
        for (int h = 0; h < 4; h++)
            for (int w = 0; w < 4; w++) {
                struct mt_attn a = {.n_q = qk[i][0],
                                    .n_k = qk[i][1],
                                    .n_heads = heads[h][0],
                                    .n_kv_heads = heads[h][1],
                                    .head_dim = heads[h][2],
                                    .scale = 1.0 / sqrt((double)heads[h][2]),
                                    .softcap = (i + h + w) % 3 == 0 ? 5.0 : 0.0,
                                    .window = windows[w],
                                    .sinks = (i + w) % 2 == 0 ? sinks : NULL};
                dc_one_attention(c, &a);
                a.both_ways = true;
                a.window = 0;
                if (w == 0)
                    dc_one_attention(c, &a);
            }
}

static inline void dc_act_mul(struct dc *c)
{
    static const int64_t sizes[] = {0, 1, 63, 65, 1000, 70001};

    for (int act = MT_ACT_SILU; act <= MT_ACT_QUICK_GELU; act++)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            struct dc_buf g = dc_new(c, sizes[i], 3), u = dc_new(c, sizes[i], 1);
            struct dc_buf h = dc_new(c, sizes[i], 1);
            DC_OK(c, c->dev->ops->act_mul(c->ctx, c->dev, act, h.d, g.d, u.d, g.n));
            DC_OK(c, c->ref->ops->act_mul(c->ctx, c->ref, act, h.r, g.r, u.r, g.n));
            dc_same(c, &h, 1, mt_act_name((enum mt_act)act));
            DC_OK(c, c->dev->ops->act_mul(c->ctx, c->dev, act, g.d, g.d, NULL, g.n));
            DC_OK(c, c->ref->ops->act_mul(c->ctx, c->ref, act, g.r, g.r, NULL, g.n));
            dc_same(c, &g, 1, mt_act_name((enum mt_act)act));
            dc_end(c, &g);
            dc_end(c, &u);
            dc_end(c, &h);
        }
}

/* Far out the activations approach 0 and x; nothing overflows on the way. */
static inline void dc_act_far_out(struct dc *c)
{
    double v[64];
    struct dc_buf g = dc_new(c, 64, 1);

    for (int i = 0; i < 64; i++)
        v[i] = (double)(float)((i % 2 == 0 ? 1 : -1) * pow(10.0, -6.0 + i * 0.25));
    for (int act = MT_ACT_SILU; act <= MT_ACT_RELU; act++) {
        dc_fill(c, &g, v);
        DC_OK(c, c->dev->ops->act_mul(c->ctx, c->dev, act, g.d, g.d, NULL, g.n));
        DC_OK(c, c->ref->ops->act_mul(c->ctx, c->ref, act, g.r, g.r, NULL, g.n));
        dc_same(c, &g, 1, mt_act_name((enum mt_act)act));
    }
    dc_end(c, &g);
}

static inline void dc_gather_and_combine(struct dc *c)
{
    enum { TOKENS = 150, K = 3, D = 77 };
    int32_t idx[TOKENS * K];
    double w[TOKENS * K];
    struct dc_buf x = dc_new(c, TOKENS * D, 1), g = dc_new(c, TOKENS * K * D, 1);
    struct dc_buf y = dc_new(c, TOKENS * D, 1);

    for (int i = 0; i < TOKENS * K; i++)
        idx[i] = (int32_t)mt_rng_below(&c->rng, TOKENS);
    DC_OK(c, c->dev->ops->gather_rows(c->ctx, c->dev, g.d, x.d, TOKENS * K, D, idx));
    DC_OK(c, c->ref->ops->gather_rows(c->ctx, c->ref, g.r, x.r, TOKENS * K, D, idx));
    dc_same(c, &g, 1, "gathered rows");
    for (int i = 0; i < TOKENS * K; i++) {
        idx[i] = i % 7 == 0 ? -1 : (int32_t)mt_rng_below(&c->rng, TOKENS * K);
        w[i] = mt_rng_normal(&c->rng);
    }
    DC_OK(c, c->dev->ops->combine_rows(c->ctx, c->dev, y.d, g.d, TOKENS, K, D, idx, w));
    DC_OK(c, c->ref->ops->combine_rows(c->ctx, c->ref, y.r, g.r, TOKENS, K, D, idx, w));
    dc_same(c, &y, 1, "combined rows");
    DC_OK(c, c->dev->ops->gather_rows(c->ctx, c->dev, g.d, x.d, 0, D, idx));
    DC_OK(c, c->dev->ops->combine_rows(c->ctx, c->dev, y.d, g.d, 0, K, D, idx, w));
    dc_same(c, &y, 1, "combining nothing");
    dc_end(c, &x);
    dc_end(c, &g);
    dc_end(c, &y);
}

/* Only plain floats are weights. */
static inline void dc_refusals(struct dc *c)
{
    struct mt_weight *w = NULL;
    char bytes[16] = {0};

    if (c->dev->ops->weight_load(c->ctx, c->dev, MT_I8, 2, 8, bytes, &w) != MT_E_UNSUPPORTED ||
        w != NULL || strstr(mt_error(c->ctx), "I8") == NULL)
        t_fail(c->t, __FILE__, __LINE__, "an I8 weight was not refused by name");
}

static inline void dc_run(struct t *t, void (*fn)(struct dc *c))
{
    struct dc c = {.t = t, .ctx = &t->ctx};
    mt_status st = mt_device_open(&t->ctx, DEVICE_UNDER_TEST, &c.dev);

    if (st == MT_E_DEVICE)
        T_SKIP(t, mt_error(&t->ctx));
    T_OK(t, st);
    T_OK(t, mt_device_open(&t->ctx, "ref", &c.ref));
    mt_rng_seed(&c.rng, 7, 0);
    fn(&c);
    mt_device_close(c.dev);
    mt_device_close(c.ref);
}

#define DC_TEST(name_)                                                                             \
    T_TEST(name_##_agrees_with_the_reference)                                                      \
    {                                                                                              \
        dc_run(t, dc_##name_);                                                                     \
    }

DC_TEST(gemm)
DC_TEST(gemm_grouped)
DC_TEST(elements)
DC_TEST(transfers)
DC_TEST(bias_and_rows)
DC_TEST(norms)
DC_TEST(rope)
DC_TEST(attention)
DC_TEST(act_mul)
DC_TEST(act_far_out)
DC_TEST(gather_and_combine)
DC_TEST(refusals)

#endif
