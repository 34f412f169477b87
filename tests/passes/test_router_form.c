/* Every kind of router against plain loops in double. */
#include "lib/base/rng.h"
#include "passes/lib/router_form.h"
#include "tests/t.h"

#include <math.h>

#define N 5
#define D 24
#define M 150
#define WIDTH 3

static void fill(struct mt_rng *r, float *v, int64_t n)
{
    for (int64_t i = 0; v != NULL && i < n; i++)
        v[i] = (float)mt_rng_normal(r);
}

static double dot(const float *row, const double *x)
{
    double s = 0;

    for (int i = 0; i < D; i++)
        s += (double)row[i] * x[i];
    return s;
}

/* Logit e of the token x[D], by the definitions of lib/ir/ffn.h. */
static double by_hand(const struct mt_router_form *f, const double *x, int e)
{
    const struct mt_router *is = &f->is;
    double z = 0, p = 0, q = 0;

    switch (is->kind) {
    case MT_ROUTER_LINEAR:
        z = dot(f->w + e * D, x);
        break;
    case MT_ROUTER_MLP:
        for (int i = 0; i < WIDTH; i++) {
            double h = dot(f->inner + i * D, x) + (is->hidden_bias ? (double)f->inner_bias[i] : 0);
            z += (double)f->w[e * WIDTH + i] * mt_router_fn(is->fn, h);
        }
        if (is->skip)
            z += dot(f->skip + e * D, x);
        break;
    case MT_ROUTER_REPRESENTATIVE:
        q = dot(f->w + e * D, x) + (f->has_bias ? (double)f->bias[e] : 0);
        if (!is->gated)
            return fabs(mt_router_fn(is->fn, q));
        p = dot(f->inner + e * D, x) + (is->hidden_bias ? (double)f->inner_bias[e] : 0);
        return fabs(mt_router_fn(is->fn, p) * q);
    case MT_ROUTER_SPECTRAL:
        for (int i = 0; i < WIDTH; i++) {
            double a = dot(f->w + (e * WIDTH + i) * D, x);
            double b = is->gated ? dot(f->inner + (e * WIDTH + i) * D, x) : 0;
            q += a * a;
            p += b * b;
        }
        return sqrt(q) * (is->gated ? sqrt(p) : 1);
    }
    return z + (f->has_bias ? (double)f->bias[e] : 0);
}

T_TEST(logits_are_those_of_the_definitions)
{
    static const struct {
        struct mt_router is;
        bool has_bias;
    } kinds[] = {
        {{.kind = MT_ROUTER_LINEAR}, false},
        {{.kind = MT_ROUTER_LINEAR, .unit_input = true}, true},
        {{.kind = MT_ROUTER_MLP, .fn = MT_ROUTER_FN_TANH, .width = WIDTH}, false},
        {{.kind = MT_ROUTER_MLP,
          .fn = MT_ROUTER_FN_COS,
          .width = WIDTH,
          .hidden_bias = true,
          .skip = true,
          .unit_input = true},
         true},
        {{.kind = MT_ROUTER_MLP, .width = WIDTH}, false},
        {{.kind = MT_ROUTER_REPRESENTATIVE, .fn = MT_ROUTER_FN_SILU, .gated = true}, false},
        {{.kind = MT_ROUTER_REPRESENTATIVE,
          .fn = MT_ROUTER_FN_SILU,
          .gated = true,
          .hidden_bias = true},
         true},
        {{.kind = MT_ROUTER_REPRESENTATIVE, .fn = MT_ROUTER_FN_RELU}, true},
        {{.kind = MT_ROUTER_SPECTRAL, .width = WIDTH, .gated = true}, false},
        {{.kind = MT_ROUTER_SPECTRAL, .width = WIDTH}, false},
    };
    static float x[M * D], logits[M * N];
    struct mt_rng r;

    mt_rng_seed(&r, 9, 0);
    fill(&r, x, M * D);
    memset(x, 0, D * sizeof(*x)); /* a token of zeros stays one */
    for (size_t c = 0; c < sizeof(kinds) / sizeof(*kinds); c++) {
        const struct mt_router *is = &kinds[c].is;
        struct mt_router_form f;
        int64_t inner =
            is->kind == MT_ROUTER_MLP ? WIDTH : N * (is->kind == MT_ROUTER_SPECTRAL ? WIDTH : 1);
        T_OK(t, mt_router_form_open(&t->ctx, is, kinds[c].has_bias, N, D, &f));
        fill(&r, f.w, is->kind == MT_ROUTER_MLP ? N * WIDTH : inner * D);
        fill(&r, f.inner, inner * D);
        fill(&r, f.inner_bias, inner);
        fill(&r, f.skip, N * D);
        fill(&r, f.bias, N);
        T_OK(t, mt_router_form_run(&t->ctx, &f, M, x, logits));
        for (int i = 0; i < M; i++) {
            double in[D], length = 0;
            for (int k = 0; k < D; k++)
                length += (double)x[i * D + k] * (double)x[i * D + k];
            length = is->unit_input && length > 0 ? sqrt(length) : 1;
            for (int k = 0; k < D; k++)
                in[k] = (double)x[i * D + k] / length;
            for (int e = 0; e < N; e++) {
                double want = by_hand(&f, in, e);
                T_NEAR(t, logits[i * N + e], want, 2e-5 * (1 + fabs(want)));
            }
        }
        mt_router_form_free(&f);
    }
}
