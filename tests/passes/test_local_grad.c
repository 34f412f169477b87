#include "passes/lib/local_grad.h"

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

static double act(const struct mt_local_shape *s, double x)
{
    return mt_act_f64(s->act, x);
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
            h[j] = s->gated ? act(s, g) * u : act(s, u);
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

static void check(struct t *t, bool gated, bool bias, enum mt_act a)
{
    const struct mt_local_shape s = {.hidden = D,
                                     .shared = SHARED,
                                     .expert_width = WIDTH,
                                     .n_experts = EXPERTS,
                                     .gated = gated,
                                     .act = a};
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
        for (int kind = 0; kind < 4 && !t->failed; kind++)
            check(t, kind % 2 == 0, kind / 2 == 1, (enum mt_act)a);
}

/* Neither moves, so padding is padding for ever. */
T_TEST(zero_neurons_have_no_gradient)
{
    const struct mt_local_shape s = {
        .hidden = D, .shared = SHARED, .expert_width = WIDTH, .n_experts = EXPERTS};
    static struct fixture f;
    static struct caught c;
    float e[M * D];

    for (int gated = 0; gated < 2; gated++)
        for (int a = MT_ACT_SILU; a <= MT_ACT_QUICK_GELU; a++) {
            struct mt_local_shape here = s;
            here.gated = gated == 1;
            here.act = (enum mt_act)a;
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
