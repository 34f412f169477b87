#include "passes/lib/local_fit.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "tests/t.h"

#include <stdlib.h>

#define D 12
#define SHARED 4
#define WIDTH 4
#define EXPERTS 5
#define N (SHARED + EXPERTS * WIDTH)
#define TOKENS 6000

static float x[TOKENS * D], y[TOKENS * D];
static unsigned char picked[TOKENS * EXPERTS];

static void fill(uint64_t seed, float *v, int64_t n, double scale)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int64_t i = 0; i < n; i++)
        v[i] = (float)(scale * mt_rng_normal(&r));
}

static mt_status weights_new(struct mt_ctx *ctx, const struct mt_local_shape *s, bool bias,
                             uint64_t seed, struct mt_local_weights *w)
{
    *w = (struct mt_local_weights){0};
    if (s->gated)
        MT_TRY(mt_alloc0(ctx, N * D, sizeof(float), "gate", &w->gate));
    MT_TRY(mt_alloc0(ctx, N * D, sizeof(float), "up", &w->up));
    MT_TRY(mt_alloc0(ctx, N * D, sizeof(float), "down", &w->down));
    if (bias)
        MT_TRY(mt_alloc0(ctx, N, sizeof(float), "bias", &w->up_bias));
    if (bias && s->gated)
        MT_TRY(mt_alloc0(ctx, N, sizeof(float), "bias", &w->gate_bias));
    for (int part = 0; part < MT_LOCAL_PARTS; part++)
        if (mt_local_part(w, part) != NULL)
            fill(seed + (uint64_t)part, mt_local_part(w, part), mt_local_part_size(s, part), 0.3);
    return MT_OK;
}

/* y of what the weights give, and some noise. */
static void answers(const struct mt_local_shape *s, const struct mt_local_weights *w, double noise)
{
    static float extra[TOKENS * D];
    double h[N];

    fill(77, extra, TOKENS * D, noise);
    for (int t = 0; t < TOKENS; t++) {
        for (int j = 0; j < N; j++) {
            double g = w->gate_bias != NULL ? (double)w->gate_bias[j] : 0;
            double u = w->up_bias != NULL ? (double)w->up_bias[j] : 0;
            for (int i = 0; i < D; i++) {
                g += s->gated ? (double)w->gate[j * D + i] * (double)x[t * D + i] : 0;
                u += (double)w->up[j * D + i] * (double)x[t * D + i];
            }
            bool on = j < SHARED || picked[t * EXPERTS + (j - SHARED) / WIDTH] != 0;
            h[j] = !on ? 0 : s->gated ? mt_act_f64(s->act, g) * u : mt_act_f64(s->act, u);
        }
        for (int i = 0; i < D; i++) {
            double sum = (double)extra[t * D + i];
            for (int j = 0; j < N; j++)
                sum += (double)w->down[i * N + j] * h[j];
            y[t * D + i] = (float)sum;
        }
    }
}

static void inputs(void)
{
    fill(5, x, TOKENS * D, 1);
    for (int i = 0; i < TOKENS * EXPERTS; i++)
        picked[i] = (i / EXPERTS * 3 + i % EXPERTS) % 5 < 2;
}

static mt_status fit(struct mt_ctx *ctx, const struct mt_local_shape *s, int64_t n, int epochs,
                     struct mt_local_weights *w, struct mt_local_told *told)
{
    struct mt_local_tokens *k;

    MT_TRY(mt_local_tokens_open(ctx, D, EXPERTS, n, &k));
    mt_status st = mt_local_tokens_put(ctx, k, 0, n, x, y, picked);
    if (st == MT_OK)
        st = mt_local_fit(ctx, s, k, epochs, 3, w, told);
    mt_local_tokens_close(k);
    return st;
}

static const struct mt_local_shape swiglu = {.hidden = D,
                                             .shared = SHARED,
                                             .expert_width = WIDTH,
                                             .n_experts = EXPERTS,
                                             .gated = true,
                                             .act = MT_ACT_SILU};
static const struct mt_local_shape relu = {
    .hidden = D, .shared = SHARED, .expert_width = WIDTH, .n_experts = EXPERTS, .act = MT_ACT_RELU};

static void shake(const struct mt_local_shape *s, struct mt_local_weights *w, double by)
{
    static float noise[N * D];

    for (int part = 0; part < MT_LOCAL_PARTS; part++) {
        float *v = mt_local_part(w, part);
        int64_t n = mt_local_part_size(s, part);
        fill(100 + (uint64_t)part, noise, n, by);
        for (int64_t i = 0; v != NULL && i < n; i++)
            v[i] += noise[i];
    }
}

/* A masked teacher that the student can be exactly is found again from beside it. */
static void finds(struct t *t, const struct mt_local_shape *s, bool bias)
{
    struct mt_local_weights w;
    struct mt_local_told told;

    inputs();
    T_OK(t, weights_new(&t->ctx, s, bias, 20, &w));
    answers(s, &w, 0);
    shake(s, &w, 0.05);
    T_OK(t, fit(&t->ctx, s, TOKENS, 24, &w, &told));
    T_CHECK(t, told.before > 0.01);
    T_CHECK(t, told.after < 0.002 * told.before);
    T_EQ_INT(t, told.epoch, 24);
    mt_local_weights_free(&w);
}

T_TEST(a_planted_teacher_is_found)
{
    finds(t, &swiglu, false);
    if (!t->failed)
        finds(t, &relu, true);
}

/* Where nothing but noise is to be learned the first state stays, bit for bit. */
T_TEST(what_does_worse_is_put_back)
{
    struct mt_local_weights w, was;
    struct mt_local_told told;
    int kept = 0;

    inputs();
    for (int64_t n = 60; n <= 240; n += 60) {
        T_OK(t, weights_new(&t->ctx, &swiglu, true, 40, &w));
        T_OK(t, weights_new(&t->ctx, &swiglu, true, 40, &was));
        answers(&swiglu, &w, 3);
        T_OK(t, fit(&t->ctx, &swiglu, n, 8, &w, &told));
        T_CHECK(t, told.after <= told.before);
        if (told.epoch == 0) {
            kept++;
            T_CHECK(t, told.after == told.before);
            for (int part = 0; part < MT_LOCAL_PARTS; part++)
                T_CHECK(t, memcmp(mt_local_part(&w, part), mt_local_part(&was, part),
                                  (size_t)mt_local_part_size(&swiglu, part) * sizeof(float)) == 0);
        }
        mt_local_weights_free(&w);
        mt_local_weights_free(&was);
    }
    T_CHECK(t, kept > 0);
}

T_TEST(no_epochs_or_no_tokens_change_nothing)
{
    struct mt_local_weights w;
    struct mt_local_told told;

    inputs();
    T_OK(t, weights_new(&t->ctx, &relu, true, 50, &w));
    answers(&relu, &w, 1);
    T_OK(t, fit(&t->ctx, &relu, 600, 0, &w, &told));
    T_CHECK(t, told.epoch == 0 && told.after == told.before && told.before > 0);
    T_OK(t, fit(&t->ctx, &relu, 1, 4, &w, &told));
    T_CHECK(t, told.epoch == 0 && isnan(told.before));
    /* What was never tried is not told of. */
    struct mt_refit_numbers n = {.after = 0.5, .down = NAN};
    mt_local_tell(&told, &n);
    T_CHECK(t, !n.trained && n.after == 0.5 && isnan(n.down));
    memset(y, 0, sizeof y);
    T_OK(t, fit(&t->ctx, &relu, 600, 4, &w, &told));
    T_EQ_INT(t, told.epoch, 0);
    mt_local_weights_free(&w);
}

T_TEST(any_number_of_threads_gives_the_same_bits)
{
    struct mt_local_weights w[2];
    struct mt_local_told told[2];

    inputs();
    for (int k = 0; k < 2; k++) {
        struct mt_ctx ctx;
        T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = k == 0 ? 1 : 4}));
        mt_status st = weights_new(&t->ctx, &swiglu, true, 60, &w[k]);
        if (st == MT_OK) {
            answers(&swiglu, &w[k], 0.1);
            shake(&swiglu, &w[k], 0.1);
            st = fit(&ctx, &swiglu, 3000, 2, &w[k], &told[k]);
        }
        mt_ctx_close(&ctx);
        T_OK(t, st);
    }
    T_CHECK(t, told[0].after == told[1].after && told[0].epoch == 2);
    for (int part = 0; part < MT_LOCAL_PARTS; part++)
        T_CHECK(t, memcmp(mt_local_part(&w[0], part), mt_local_part(&w[1], part),
                          (size_t)mt_local_part_size(&swiglu, part) * sizeof(float)) == 0);
    mt_local_weights_free(&w[0]);
    mt_local_weights_free(&w[1]);
}

T_TEST(training_stays_within_what_it_says)
{
    struct mt_local_weights w;
    struct mt_local_told told;
    struct mt_ctx ctx;

    inputs();
    T_OK(t, mt_ctx_open(&ctx, &(struct mt_ctx_opts){.n_threads = 2}));
    mt_status st = weights_new(&ctx, &swiglu, true, 70, &w);
    if (st == MT_OK) {
        answers(&swiglu, &w, 0.1);
        st = fit(&ctx, &swiglu, TOKENS, 1, &w, &told);
    }
    uint64_t peak = mt_mem_peak(&ctx);
    mt_local_weights_free(&w);
    mt_ctx_close(&ctx);
    T_OK(t, st);
    /* Small change: contexts, states. */
    T_CHECK(t, peak <= mt_local_fit_bytes(&swiglu) + mt_local_tokens_bytes(D, EXPERTS) + 4096);
}

T_TEST(it_can_be_interrupted)
{
    struct mt_local_weights w;
    struct mt_local_told told;

    inputs();
    T_OK(t, weights_new(&t->ctx, &swiglu, false, 80, &w));
    answers(&swiglu, &w, 0.1);
    t->cancel = 1;
    mt_status st = fit(&t->ctx, &swiglu, TOKENS, 1000, &w, &told);
    t->cancel = 0;
    mt_local_weights_free(&w);
    T_EQ_INT(t, st, MT_E_CANCELLED);
}
