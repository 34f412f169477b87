#include "passes/lib/local_grad.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#define D 5
#define SHARED 3
#define WIDTH 2
#define EXPERTS 3
#define N (SHARED + EXPERTS * WIDTH)
#define M 7

struct fixture {
    float gate[N * D], up[N * D], gate_bias[N], up_bias[N], down[D * N];
    float x[M * D], y[M * D];
    unsigned char picked[M * EXPERTS];
};

static void fill(uint64_t seed, float *v, int64_t n)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)mt_rng_normal(&r);
}

static void fixture_make(struct fixture *f)
{
    fill(1, f->gate, N * D);
    fill(2, f->up, N * D);
    fill(3, f->gate_bias, N);
    fill(4, f->up_bias, N);
    fill(5, f->down, D * N);
    fill(6, f->x, M * D);
    fill(7, f->y, M * D);
    for (int i = 0; i < M * EXPERTS; i++)
        f->picked[i] = i % 5 < 2;
}

static bool acts(const struct fixture *f, int t, int j)
{
    return j < SHARED || f->picked[t * EXPERTS + (j - SHARED) / WIDTH] != 0;
}

/* What a neuron gives. */
static double neuron(const struct mt_local_shape *s, double g, double u)
{
    double c = s->glu_limit;

    if (!s->gated)
        return mt_act_f64(s->act, u);
    if (!(c > 0))
        return mt_act_f64(s->act, g) * u;
    return mt_act_f64(s->act, fmin(g, c)) * (1 + fmax(-c, fmin(u, c)));
}

/* What token t's error is, by the formula, in fp64. */
static void errors(const struct fixture *f, const struct mt_local_shape *s,
                   const struct mt_local_weights *w, int t, double *e)
{
    double h[N] = {0};

    for (int j = 0; j < N; j++) {
        double g = w->gate_bias != NULL ? (double)f->gate_bias[j] : 0;
        double u = w->up_bias != NULL ? (double)f->up_bias[j] : 0;
        for (int i = 0; i < D; i++) {
            g += (double)f->gate[j * D + i] * (double)f->x[t * D + i];
            u += (double)f->up[j * D + i] * (double)f->x[t * D + i];
        }
        if (acts(f, t, j))
            h[j] = neuron(s, g, u);
    }
    for (int i = 0; i < D; i++) {
        e[i] = -(double)f->y[t * D + i];
        for (int j = 0; j < N; j++)
            e[i] += (double)f->down[i * N + j] * h[j];
    }
}

static double loss(const struct fixture *f, const struct mt_local_shape *s,
                   const struct mt_local_weights *w)
{
    double sum = 0, e[D];

    for (int t = 0; t < M; t++) {
        errors(f, s, w, t, e);
        for (int i = 0; i < D; i++)
            sum += e[i] * e[i];
    }
    return sum;
}

struct caught {
    const struct mt_local_shape *shape;
    float grad[MT_LOCAL_PARTS][N * D];
    int calls[MT_LOCAL_PARTS];
};

static mt_status catch_grad(struct mt_ctx *ctx, void *arg, enum mt_local_part part,
                            const float *grad)
{
    struct caught *c = arg;

    (void)ctx;
    memcpy(c->grad[part], grad, (size_t)mt_local_part_size(c->shape, part) * sizeof(float));
    c->calls[part]++;
    return MT_OK;
}

static mt_status run(struct mt_ctx *ctx, struct fixture *f, const struct mt_local_shape *s,
                     const struct mt_local_weights *w, struct caught *c, float *e)
{
    struct mt_local_batch b;

    *c = (struct caught){.shape = s};
    mt_status st = mt_local_batch_open(ctx, s, M + 3, &b);
    if (st == MT_OK) {
        b.m = M;
        memcpy(b.x, f->x, sizeof f->x);
        memcpy(b.y, f->y, sizeof f->y);
        memcpy(b.picked, f->picked, sizeof f->picked);
        st = mt_local_forward(ctx, &b, w);
    }
    if (st == MT_OK) {
        memcpy(e, b.y, sizeof f->y);
        st = mt_local_backward(ctx, &b, w, 2, catch_grad, c);
    }
    mt_local_batch_close(&b);
    return st;
}

/* Central differences of the loss by its formula. */
static double slope(struct fixture *f, const struct mt_local_shape *s,
                    const struct mt_local_weights *w, float *at)
{
    const float was = *at, above = was + 1e-3f, below = was - 1e-3f;

    *at = above;
    double rise = loss(f, s, w);
    *at = below;
    rise -= loss(f, s, w);
    *at = was;
    return rise / ((double)above - (double)below);
}

static struct mt_local_shape shape(bool gated, enum mt_act a, enum mt_local_way way)
{
    return (struct mt_local_shape){.hidden = D,
                                   .shared = SHARED,
                                   .expert_width = WIDTH,
                                   .n_experts = EXPERTS,
                                   .gated = gated,
                                   .act = a,
                                   .way = way};
}

static void check(struct t *t, bool bias, const struct mt_local_shape *of)
{
    const struct mt_local_shape s = *of;
    const bool gated = s.gated;
    static struct fixture f;
    static struct caught c;
    float e[M * D];
    double want[D];

    fixture_make(&f);
    const struct mt_local_weights w = {.gate = gated ? f.gate : NULL,
                                       .up = f.up,
                                       .gate_bias = gated && bias ? f.gate_bias : NULL,
                                       .up_bias = bias ? f.up_bias : NULL,
                                       .down = f.down};
    T_OK(t, run(&t->ctx, &f, &s, &w, &c, e));
    for (int k = 0; k < M; k++) {
        errors(&f, &s, &w, k, want);
        for (int i = 0; i < D; i++)
            T_NEAR(t, e[k * D + i], want[i], 2e-5);
    }
    for (int part = 0; part < MT_LOCAL_PARTS; part++) {
        float *v = mt_local_part(&w, part);
        T_EQ_INT(t, c.calls[part], v != NULL);
        for (int64_t i = 0; v != NULL && i < mt_local_part_size(&s, part); i++) {
            double by = slope(&f, &s, &w, v + i);
            T_NEAR(t, c.grad[part][i], by, 2e-3 * fabs(by) + 2e-2);
        }
    }
}

T_TEST(gradients_are_the_slopes_of_the_loss)
{
    for (int a = MT_ACT_SILU; a <= MT_ACT_QUICK_GELU && !t->failed; a++)
        for (int kind = 0; kind < 8 && !t->failed; kind++) {
            const struct mt_local_shape s = shape(
                kind % 2 == 0, (enum mt_act)a, kind / 4 == 0 ? MT_LOCAL_MASKED : MT_LOCAL_GATHERED);
            check(t, kind / 2 % 2 == 1, &s);
        }
}

/* gpt-oss's form, at a limit that many neurons reach. */
T_TEST(gradients_end_at_the_limit)
{
    for (int a = MT_ACT_SILU; a <= MT_ACT_QUICK_GELU && !t->failed; a++)
        for (int kind = 0; kind < 4 && !t->failed; kind++) {
            struct mt_local_shape s =
                shape(true, (enum mt_act)a, kind / 2 == 0 ? MT_LOCAL_MASKED : MT_LOCAL_GATHERED);
            s.glu_limit = 1.5;
            check(t, kind % 2 == 1, &s);
        }
}

/* Neither moves, so padding is padding for ever. */
T_TEST(zero_neurons_have_no_gradient)
{
    static struct fixture f;
    static struct caught c;
    float e[M * D];

    for (int kind = 0; kind < 8; kind++)
        for (int a = MT_ACT_SILU; a <= MT_ACT_QUICK_GELU; a++) {
            bool gated = kind % 2 == 1;
            struct mt_local_shape here =
                shape(gated, (enum mt_act)a, kind / 4 == 0 ? MT_LOCAL_MASKED : MT_LOCAL_GATHERED);
            here.glu_limit = gated && kind / 2 % 2 == 1 ? 1.5 : 0;
            fixture_make(&f);
            memset(f.gate + (N - 1) * D, 0, D * sizeof(float));
            memset(f.up + (N - 1) * D, 0, D * sizeof(float));
            f.gate_bias[N - 1] = f.up_bias[N - 1] = 0;
            for (int i = 0; i < D; i++)
                f.down[i * N + N - 1] = 0;
            const struct mt_local_weights w = {.gate = gated ? f.gate : NULL,
                                               .up = f.up,
                                               .gate_bias = gated ? f.gate_bias : NULL,
                                               .up_bias = f.up_bias,
                                               .down = f.down};
            T_OK(t, run(&t->ctx, &f, &here, &w, &c, e));
            for (int i = 0; i < D; i++) {
                T_CHECK(t, c.grad[MT_LOCAL_GATE][(N - 1) * D + i] == 0);
                T_CHECK(t, c.grad[MT_LOCAL_UP][(N - 1) * D + i] == 0);
                T_CHECK(t, c.grad[MT_LOCAL_DOWN][i * N + N - 1] == 0);
            }
            T_CHECK(t, c.grad[MT_LOCAL_UP_BIAS][N - 1] == 0);
        }
}

/* ---- larger ones, one way against the other ---- */

struct large {
    struct mt_local_shape shape;
    struct mt_local_weights w;
    int64_t m, n;
    float *x, *y;
    unsigned char *picked;
    float *out[2];                  /* errors of each run */
    float *grad[2][MT_LOCAL_PARTS]; /* gradients, likewise */
    int run;
};

static mt_status large_floats(struct mt_ctx *ctx, uint64_t seed, int64_t n, float **out)
{
    MT_TRY(mt_alloc0(ctx, (size_t)n, sizeof(float), "floats", out));
    fill(seed, *out, n);
    return MT_OK;
}

static mt_status large_open(struct mt_ctx *ctx, const struct mt_local_shape *s, bool bias,
                            int64_t m, struct large *l)
{
    float **parts[MT_LOCAL_PARTS];

    *l = (struct large){.shape = *s, .m = m, .n = mt_local_columns(s)};
    parts[MT_LOCAL_GATE] = s->gated ? &l->w.gate : NULL;
    parts[MT_LOCAL_UP] = &l->w.up;
    parts[MT_LOCAL_GATE_BIAS] = s->gated && bias ? &l->w.gate_bias : NULL;
    parts[MT_LOCAL_UP_BIAS] = bias ? &l->w.up_bias : NULL;
    parts[MT_LOCAL_DOWN] = &l->w.down;
    for (int i = 0; i < MT_LOCAL_PARTS; i++) {
        if (parts[i] == NULL)
            continue;
        int64_t n = mt_local_part_size(s, i);
        MT_TRY(large_floats(ctx, 10 + (uint64_t)i, n, parts[i]));
        for (int64_t k = 0; k < n; k++)
            (*parts[i])[k] *= 0.05f;
        for (int run = 0; run < 2; run++)
            MT_TRY(mt_alloc0(ctx, (size_t)n, sizeof(float), "gradient", &l->grad[run][i]));
    }
    MT_TRY(large_floats(ctx, 20, m * s->hidden, &l->x));
    MT_TRY(large_floats(ctx, 21, m * s->hidden, &l->y));
    for (int run = 0; run < 2; run++)
        MT_TRY(mt_alloc0(ctx, (size_t)(m * s->hidden), sizeof(float), "errors", &l->out[run]));
    return mt_alloc0(ctx, (size_t)(m * s->n_experts), 1, "choices", &l->picked);
}

static void large_close(struct large *l)
{
    for (int i = 0; i < MT_LOCAL_PARTS; i++) {
        mt_free(l->grad[0][i]);
        mt_free(l->grad[1][i]);
    }
    mt_free(l->out[0]);
    mt_free(l->out[1]);
    mt_free(l->x);
    mt_free(l->y);
    mt_free(l->picked);
    mt_local_weights_free(&l->w);
}

/* Expert 0 is chosen by nobody, expert 1 by everybody who chooses at all; every seventh token
 * chooses none. */
static void large_pick(struct large *l, int share)
{
    struct mt_rng r;
    int n = l->shape.n_experts;

    mt_rng_seed(&r, 30, 0);
    for (int64_t t = 0; t < l->m; t++)
        for (int e = 0; e < n; e++)
            l->picked[t * n + e] =
                t % 7 != 3 && e != 0 && (e == 1 || (int)(mt_rng_u64(&r) % 100) < share);
}

static mt_status large_catch(struct mt_ctx *ctx, void *arg, enum mt_local_part part,
                             const float *grad)
{
    struct large *l = arg;

    (void)ctx;
    memcpy(l->grad[l->run][part], grad,
           (size_t)mt_local_part_size(&l->shape, part) * sizeof(float));
    return MT_OK;
}

/* Twice with the same batch: what one batch leaves must not show in the next. */
static mt_status large_run(struct mt_ctx *ctx, struct large *l, enum mt_local_way way, int run,
                           bool *gathered)
{
    struct mt_local_shape s = l->shape;
    struct mt_local_batch b;
    mt_status st;

    s.way = way;
    l->run = run;
    st = mt_local_batch_open(ctx, &s, l->m + 5, &b);
    for (int i = 0; i < 2 && st == MT_OK; i++) {
        b.m = l->m;
        memcpy(b.x, l->x, (size_t)(l->m * s.hidden) * sizeof(float));
        memcpy(b.y, l->y, (size_t)(l->m * s.hidden) * sizeof(float));
        memcpy(b.picked, l->picked, (size_t)(l->m * s.n_experts));
        st = mt_local_forward(ctx, &b, &l->w);
        if (st == MT_OK) {
            memcpy(l->out[run], b.y, (size_t)(l->m * s.hidden) * sizeof(float));
            st = mt_local_backward(ctx, &b, &l->w, 2, large_catch, l);
        }
        *gathered = b.gathered;
    }
    mt_local_batch_close(&b);
    return st;
}

static double distance(const float *a, const float *b, int64_t n)
{
    double off = 0, all = 0;

    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        off += d * d;
        all += (double)a[i] * (double)a[i];
    }
    return all > 0 ? sqrt(off / all) : off;
}

static bool same(const struct large *l)
{
    bool all = memcmp(l->out[0], l->out[1], (size_t)(l->m * l->shape.hidden) * sizeof(float)) == 0;

    for (int i = 0; i < MT_LOCAL_PARTS; i++)
        if (l->grad[0][i] != NULL)
            all = all && memcmp(l->grad[0][i], l->grad[1][i],
                                (size_t)mt_local_part_size(&l->shape, i) * sizeof(float)) == 0;
    return all;
}

/* Tiles of tokens and features that are cut off, and those that fit; threads 1 and 4. */
static void both_ways(struct t *t, const struct mt_local_shape *s, bool bias, int64_t m, int share)
{
    struct large l;
    struct mt_ctx one, four;
    bool gathered = false;

    T_OK(t, mt_ctx_open(&one, &(struct mt_ctx_opts){.n_threads = 1}));
    T_OK(t, mt_ctx_open(&four, &(struct mt_ctx_opts){.n_threads = 4}));
    mt_status st = large_open(&one, s, bias, m, &l);
    large_pick(&l, share);
    if (st == MT_OK)
        st = large_run(&one, &l, MT_LOCAL_MASKED, 0, &gathered);
    T_CHECK(t, !gathered);
    if (st == MT_OK)
        st = large_run(&one, &l, MT_LOCAL_GATHERED, 1, &gathered);
    T_OK(t, st);
    T_CHECK(t, gathered);
    T_CHECK(t, distance(l.out[0], l.out[1], m * s->hidden) < 1e-6);
    for (int i = 0; i < MT_LOCAL_PARTS; i++)
        if (l.grad[0][i] != NULL)
            T_CHECK(t, distance(l.grad[0][i], l.grad[1][i], mt_local_part_size(s, i)) < 2e-6);
    T_OK(t, large_run(&four, &l, MT_LOCAL_GATHERED, 0, &gathered));
    T_CHECK(t, same(&l));
    large_close(&l);
    mt_ctx_close(&one);
    mt_ctx_close(&four);
}

T_TEST(gathered_tokens_give_what_masks_give)
{
    static const struct mt_local_shape shapes[] = {
        {.hidden = 600, .shared = 24, .expert_width = 24, .n_experts = 6, .gated = true},
        {.hidden = 130, .expert_width = 40, .n_experts = 5, .gated = true, .act = MT_ACT_GELU},
        {.hidden = 64, .shared = 7, .expert_width = 33, .n_experts = 3, .act = MT_ACT_RELU},
        {.hidden = 1100, .expert_width = 8, .n_experts = 2, .gated = true, .glu_limit = 0.4},
        {.hidden = 33, .shared = 90, .expert_width = 1, .n_experts = 4, .act = MT_ACT_RELU2},
    };
    static const int64_t tokens[] = {300, 64, 1};
    static const int shares[] = {30, 100, 0};

    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (int k = 0; k < 3 && !t->failed; k++)
            both_ways(t, &shapes[i], (i + (size_t)k) % 2 == 0, tokens[k], shares[k]);
}

/* Which way is taken, and that it is that way's bits. */
T_TEST(wide_experts_with_few_tokens_are_gathered)
{
    static const struct {
        int64_t width;
        int share;
        bool gathered;
    } cases[] = {{4, 10, false}, {16, 40, true}, {16, 80, false}, {64, 65, true}, {64, 95, false}};
    bool gathered;

    for (size_t i = 0; i < sizeof cases / sizeof cases[0] && !t->failed; i++) {
        const struct mt_local_shape s = {
            .hidden = 48, .expert_width = cases[i].width, .n_experts = 20, .gated = true};
        struct large l;
        T_OK(t, large_open(&t->ctx, &s, true, 200, &l));
        large_pick(&l, cases[i].share);
        T_OK(t, large_run(&t->ctx, &l, MT_LOCAL_AUTO, 0, &gathered));
        T_EQ_INT(t, gathered, cases[i].gathered);
        T_OK(t,
             large_run(&t->ctx, &l, gathered ? MT_LOCAL_GATHERED : MT_LOCAL_MASKED, 1, &gathered));
        T_CHECK(t, same(&l));
        large_close(&l);
    }
}
