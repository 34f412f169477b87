/* What a profile holds, against the same sums made from weights and hidden states by plain loops in
 * fp64. */
#include "tests/profile_kit.h"

#include "lib/run/runner.h"
#include "tests/toy.h"

#include <stdlib.h>

/* ---- brute force ---- */

struct brute {
    const struct mt_model *m;
    int layer;
    double *want[MT_STAT_COUNT_ALL];
    size_t n[MT_STAT_COUNT_ALL];
    float *w[4096]; /* weights that were loaded */
    const struct mt_tensor *of[4096];
    int n_w;
    struct mt_ctx *ctx;
    bool failed;
};

static const float *weight(struct brute *b, struct mt_role role)
{
    const struct mt_tensor *x = mt_model_find(b->m, role);

    for (int i = 0; i < b->n_w; i++)
        if (b->of[i] == x)
            return b->w[i];
    if (x == NULL)
        return NULL;
    b->of[b->n_w] = x;
    if (mt_tensor_load_f32(b->ctx, x, &b->w[b->n_w]) != MT_OK) {
        b->failed = true;
        return NULL;
    }
    return b->w[b->n_w++];
}

static const float *bias(struct brute *b, enum mt_role_kind kind, int expert)
{
    struct mt_role r = mt_role(kind, b->layer, expert);

    r.part = MT_PART_BIAS;
    return weight(b, r);
}

/* y[rows] = W x + bias */
static void linear(struct brute *b, enum mt_role_kind kind, int expert, const double *x,
                   int64_t cols, double *y, int64_t rows)
{
    const float *w = weight(b, mt_role(kind, b->layer, expert)), *add = bias(b, kind, expert);

    for (int64_t r = 0; r < rows; r++) {
        y[r] = add != NULL ? (double)add[r] : 0;
        for (int64_t c = 0; c < cols; c++)
            y[r] += (double)w[r * cols + c] * x[c];
    }
}

/* h[width] and y[hidden] of one block. */
static void block(struct brute *b, int expert, int64_t width, const double *x, double *h, double *y)
{
    const struct mt_ffn *f = &b->m->ffn[b->layer];
    int64_t d = b->m->hp.hidden;
    double up[512];

    linear(b, MT_ROLE_FFN_UP, expert, x, d, up, width);
    if (f->gated)
        linear(b, MT_ROLE_FFN_GATE, expert, x, d, h, width);
    for (int64_t j = 0; j < width; j++)
        h[j] = f->gated ? mt_act_f64(f->act, h[j]) * up[j] : mt_act_f64(f->act, up[j]);
    linear(b, MT_ROLE_FFN_DOWN, expert, h, width, y, d);
}

static void add(struct brute *b, enum mt_stat s, size_t at, double v)
{
    b->want[s][at] += v;
}

static void add_max(struct brute *b, enum mt_stat s, size_t at, double v)
{
    if (fabs(v) > b->want[s][at])
        b->want[s][at] = fabs(v);
}

static void brute_dense(struct brute *b, const double *x, double *y)
{
    int64_t width = b->m->ffn[b->layer].width;
    const struct mt_ffn *f = &b->m->ffn[b->layer];
    double h[512], gate[512];

    block(b, MT_EXPERT_NONE, width, x, h, y);
    if (f->gated)
        linear(b, MT_ROLE_FFN_GATE, MT_EXPERT_NONE, x, b->m->hp.hidden, gate, width);
    for (int64_t j = 0; j < width; j++) {
        int larger = 0;
        add(b, MT_STAT_A_SUM, (size_t)j, f->gated ? mt_act_f64(f->act, gate[j]) : h[j]);
        for (int64_t i = 0; i < width; i++)
            larger += fabs(h[i]) > fabs(h[j]);
        add(b, MT_STAT_H_SUM, (size_t)j, h[j]);
        add(b, MT_STAT_H_ABS, (size_t)j, fabs(h[j]));
        add(b, MT_STAT_H_SQ, (size_t)j, h[j] * h[j]);
        add_max(b, MT_STAT_H_MAX, (size_t)j, h[j]);
        add(b, MT_STAT_H_TOP, (size_t)j, larger < MT_STAT_TOP_K);
        for (int64_t i = 0; i < width; i++)
            add(b, MT_STAT_H_GRAM, (size_t)(j * width + i), h[j] * h[i]);
    }
}

static void brute_expert(struct brute *b, int e, double g, const double *x, double *y)
{
    int64_t d = b->m->hp.hidden, width = b->m->ffn[b->layer].width;
    double h[512], f[512], square = 0;

    block(b, e, width, x, h, f);
    for (int64_t j = 0; j < width; j++) {
        add(b, MT_STAT_EXPERT_H_ABS, (size_t)(e * width + j), fabs(h[j]));
        add(b, MT_STAT_EXPERT_H_SQ, (size_t)(e * width + j), h[j] * h[j]);
    }
    for (int64_t i = 0; i < d; i++) {
        square += f[i] * f[i];
        y[i] += g * f[i];
        add(b, MT_STAT_EXPERT_F_SUM, (size_t)(e * d + i), f[i]);
        add(b, MT_STAT_EXPERT_X_SQ, (size_t)(e * d + i), x[i] * x[i]);
        add_max(b, MT_STAT_EXPERT_F_MAX, (size_t)e, f[i]);
    }
    add(b, MT_STAT_EXPERT_N, (size_t)e, 1);
    add(b, MT_STAT_EXPERT_G, (size_t)e, g);
    add(b, MT_STAT_EXPERT_F_NORM, (size_t)e, sqrt(square));
    add(b, MT_STAT_EXPERT_F_SQ, (size_t)e, square);
    add(b, MT_STAT_EXPERT_GF_NORM, (size_t)e, g * sqrt(square));
}

static void brute_moe(struct brute *b, const double *x, double *y)
{
    const struct mt_ffn *f = &b->m->ffn[b->layer];
    int64_t d = b->m->hp.hidden, n = f->n_experts;
    double z[64], g[64], h[512], out[512], select[64];
    const float *sel = weight(b, mt_role(MT_ROLE_ROUTER_BIAS, b->layer, MT_EXPERT_NONE));
    int32_t chosen[64];

    linear(b, MT_ROLE_ROUTER, MT_EXPERT_NONE, x, d, z, n);
    for (int64_t e = 0; e < n && sel != NULL; e++)
        select[e] = (double)sel[e];
    mt_router_apply(&f->rule, z, sel != NULL ? select : NULL, (int)n, f->k, chosen, g);
    for (int64_t i = 0; i < n; i++) {
        add(b, MT_STAT_ROUTER_Z_SUM, (size_t)i, z[i]);
        for (int64_t j = 0; j < n; j++)
            add(b, MT_STAT_ROUTER_Z_GRAM, (size_t)(i * n + j), z[i] * z[j]);
    }
    add(b, MT_STAT_ROUTER_TOP1, (size_t)chosen[0], 1);
    memset(y, 0, (size_t)d * sizeof *y);
    for (int i = 0; i < f->k; i++) {
        for (int j = 0; j < f->k; j++)
            add(b, MT_STAT_ROUTER_COACT, (size_t)(chosen[i] * n + chosen[j]), 1);
        brute_expert(b, chosen[i], g[i], x, y);
    }
    for (int e = 0; e < n; e++) {
        block(b, e, f->width, x, h, out);
        for (int64_t i = 0; i < d; i++)
            add(b, MT_STAT_EXPERT_F_ALL, (size_t)(e * d + i), out[i]);
    }
    if (f->shared_width == 0)
        return;
    double gate = 1;
    if (f->shared_gated) {
        linear(b, MT_ROLE_SHARED_GATE, MT_EXPERT_NONE, x, d, &gate, 1);
        gate = 1 / (1 + exp(-gate));
    }
    block(b, MT_EXPERT_SHARED, f->shared_width, x, h, out);
    for (int64_t j = 0; j < f->shared_width; j++) {
        add(b, MT_STAT_SHARED_H_ABS, (size_t)j, fabs(h[j]));
        add(b, MT_STAT_SHARED_H_SQ, (size_t)j, h[j] * h[j]);
    }
    for (int64_t i = 0; i < d; i++)
        y[i] += gate * out[i];
}

static void brute_token(struct brute *b, const double *x)
{
    int64_t d = b->m->hp.hidden;
    double y[512];

    if (b->m->ffn[b->layer].moe)
        brute_moe(b, x, y);
    else
        brute_dense(b, x, y);
    add(b, MT_STAT_TOKENS, 0, 1);
    for (int64_t i = 0; i < d; i++) {
        add(b, MT_STAT_X_SUM, (size_t)i, x[i]);
        add(b, MT_STAT_X_SQ, (size_t)i, x[i] * x[i]);
        add(b, MT_STAT_Y_SUM, (size_t)i, y[i]);
        add(b, MT_STAT_Y_SQ, (size_t)i, y[i] * y[i]);
        for (int64_t j = 0; j < d; j++)
            add(b, MT_STAT_X_GRAM, (size_t)(i * d + j), x[i] * x[j]);
    }
}

/* Inputs of attention from the hidden states before it: RMS norm by hand. */
static void brute_attention_inputs(struct brute *b, const double *x, int64_t tokens)
{
    const float *w = weight(b, mt_role(MT_ROLE_ATTN_NORM, b->layer, MT_EXPERT_NONE));
    int64_t d = b->m->hp.hidden;

    for (int64_t t = 0; t < tokens; t++) {
        double square = 0;
        for (int64_t i = 0; i < d; i++)
            square += x[t * d + i] * x[t * d + i];
        double r = 1 / sqrt(square / (double)d + b->m->hp.norm_eps);
        for (int64_t i = 0; i < d; i++) {
            double n = x[t * d + i] * r * (double)w[i];
            add(b, MT_STAT_ATTN_X_SQ, (size_t)i, n * n);
        }
    }
}

/* The runner brings hidden states to the layer; from there on everything is recomputed. */
static mt_status brute_window(struct brute *b, struct mt_runner *r, struct mt_device *dev,
                              const struct mt_window *w)
{
    const struct mt_device_ops *ops = dev->ops;
    int64_t d = b->m->hp.hidden, n = w->n;
    const struct mt_seqs seqs = {1, &w->n};
    static double host[PROFILE_KIT_WINDOW_MAX * 64];
    struct mt_run_layer *l;
    mt_buf x, norm, y;
    struct mt_ctx *ctx = b->ctx;

    MT_TRY(ops->alloc(ctx, dev, (size_t)(n * d), &x));
    MT_TRY(ops->alloc(ctx, dev, (size_t)(n * d), &norm));
    MT_TRY(ops->alloc(ctx, dev, (size_t)(n * d), &y));
    MT_TRY(mt_run_embed(ctx, r, w->ids, n, x));
    for (int i = 0; i <= b->layer; i++) {
        MT_TRY(mt_run_layer_open(ctx, r, i, &l));
        if (i == b->layer) {
            MT_TRY(ops->download_f64(ctx, dev, host, x, (size_t)(n * d)));
            brute_attention_inputs(b, host, n);
        }
        MT_TRY(mt_run_attn(ctx, l, x, &seqs, NULL));
        MT_TRY(mt_run_ffn_norm(ctx, l, x, n, norm));
        if (i < b->layer) {
            MT_TRY(mt_run_ffn(ctx, l, norm, n, y, NULL));
            MT_TRY(mt_run_add(ctx, r, x, y, n));
        }
        mt_run_layer_close(l);
    }
    MT_TRY(ops->download_f64(ctx, dev, host, norm, (size_t)(n * d)));
    for (int64_t t = 0; t < n; t++)
        brute_token(b, host + t * d);
    ops->release(dev, x);
    ops->release(dev, norm);
    ops->release(dev, y);
    return MT_OK;
}

static mt_status brute_layer(struct brute *b, const struct mt_dataset *d)
{
    struct mt_device *dev;
    struct mt_runner *r;
    mt_status st;

    MT_TRY(mt_device_open(b->ctx, "ref", &dev));
    st = mt_runner_open(b->ctx, b->m, dev, &r);
    for (size_t w = 0; st == MT_OK && w < d->n_windows; w++)
        st = brute_window(b, r, dev, &d->windows[w]);
    mt_runner_close(r);
    mt_device_close(dev);
    return st;
}

/* Everything but o_proj's inputs, which have a test of their own. */
static void check_layer(struct t *t, const struct mt_model *m, const struct mt_profile *p,
                        int layer, const struct mt_dataset *d)
{
    struct brute *b = calloc(1, sizeof *b);
    int64_t rows, cols;
    int seen = 0;

    b->m = m;
    b->ctx = &t->ctx;
    b->layer = layer;
    for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
        mt_stat_shape(m, layer, (enum mt_stat)i, &rows, &cols);
        b->n[i] = (size_t)(rows * cols);
        b->want[i] = calloc(b->n[i] + 1, sizeof **b->want);
    }
    mt_status st = brute_layer(b, d);
    for (int i = 0; st == MT_OK && i < MT_STAT_COUNT_ALL; i++) {
        enum mt_stat s = (enum mt_stat)i;
        double *got = calloc(b->n[i] + 1, sizeof *got), scale = 0;
        if (b->n[i] == 0 || s == MT_STAT_ATTN_O_SQ || mt_stat_row(s)->kind == MT_STAT_GIVEN) {
            free(got);
            continue;
        }
        st = mt_profile_get(&t->ctx, p, layer, s, NULL, got, b->n[i]);
        for (size_t k = 0; k < b->n[i]; k++)
            scale = fmax(scale, fabs(b->want[i][k]));
        seen += scale > 0;
        for (size_t k = 0; st == MT_OK && k < b->n[i]; k++)
            if (!(fabs(got[k] - b->want[i][k]) <= 2e-6 * scale))
                t_fail(t, __FILE__, __LINE__, "layer %d %s.%s[%zu]: %.17g, wanted %.17g", layer,
                       mt_stat_row(s)->role, mt_stat_row(s)->name, k, got[k], b->want[i][k]);
        free(got);
    }
    for (int i = 0; i < b->n_w; i++)
        mt_free(b->w[i]);
    for (int i = 0; i < MT_STAT_COUNT_ALL; i++)
        free(b->want[i]);
    if (seen < 10)
        t_fail(t, __FILE__, __LINE__, "only %d statistics hold anything", seen);
    free(b);
    T_OK(t, st);
}

static void check_model(struct t *t, const struct toy *spec)
{
    struct mt_model *m;
    struct mt_profile *p;
    struct profile_kit_text x;

    profile_kit_text(&x, "web", 0, 4);
    T_OK(t, toy_model(&t->ctx, spec, &m));
    T_OK(t, profile_kit_measure(&t->ctx, m, "ref", &x.set, 1, true, &p));
    for (int l = 0; l < m->hp.n_layers && !t->failed; l++)
        check_layer(t, m, p, l, &x.set);
    mt_profile_free(p);
    mt_model_free(m);
}

T_TEST(dense_layers_are_summed_as_by_hand)
{
    check_model(t, &(struct toy){.seed = 3});
}

T_TEST(plain_ffns_with_biases_too)
{
    check_model(t, &(struct toy){.seed = 4, .ungated = true, .in_bias = true, .out_bias = true});
}

T_TEST(experts_are_summed_as_by_hand)
{
    check_model(t, &(struct toy){.family = "qwen3_moe",
                                 .experts = 8,
                                 .k = 3,
                                 .width = 20,
                                 .rule = {.renorm = true},
                                 .seed = 5});
}

T_TEST(shared_experts_and_selection_biases_too)
{
    check_model(
        t, &(struct toy){
               .experts = 6,
               .k = 2,
               .width = 24,
               .shared_width = 40,
               .shared_gated = true,
               .first_dense = 1,
               .rule = {.score = MT_SCORE_SIGMOID, .renorm = true, .scale = 2.5, .has_bias = true},
               .seed = 6});
}

/* Where all tokens of a window are the same, attention gives the value of each, whatever the
 * positions: o_proj's inputs in layer 0 are v, repeated for the heads that share it. */
T_TEST(inputs_of_o_proj)
{
    struct profile_kit_text x;
    struct mt_profile *p;
    struct mt_model *m;
    static struct brute brute;
    struct brute *b = &brute;
    double in[32], v[64], want[64] = {0}, got[64];

    profile_kit_text(&x, "web", 0, 2);
    for (int i = 0; i < x.w[0].n; i++)
        x.ids[0][i] = 7;
    for (int i = 0; i < x.w[1].n; i++)
        x.ids[1][i] = 11;
    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 8, .qkv_bias = true}, &m));
    T_OK(t, profile_kit_measure(&t->ctx, m, "ref", &x.set, 1, false, &p));
    b->m = m;
    b->ctx = &t->ctx;
    const float *e = weight(b, mt_role(MT_ROLE_EMBED, -1, MT_EXPERT_NONE));
    const float *norm = weight(b, mt_role(MT_ROLE_ATTN_NORM, 0, MT_EXPERT_NONE));
    for (int w = 0; w < 2; w++) {
        double square = 0;
        for (int i = 0; i < 32; i++) {
            in[i] = (double)e[x.ids[w][0] * 32 + i];
            square += in[i] * in[i];
        }
        for (int i = 0; i < 32; i++)
            in[i] *= (double)norm[i] / sqrt(square / 32 + m->hp.norm_eps);
        linear(b, MT_ROLE_ATTN_V, MT_EXPERT_NONE, in, 32, v, 16);
        for (int i = 0; i < 32; i++) /* 4 heads of 8 over 2 */
            want[i] += x.w[w].n * v[i / 16 * 8 + i % 8] * v[i / 16 * 8 + i % 8];
    }
    T_OK(t, mt_profile_get(&t->ctx, p, 0, MT_STAT_ATTN_O_SQ, NULL, got, 32));
    for (int i = 0; i < 32; i++)
        T_NEAR(t, got[i], want[i], 1e-5 * (1 + want[i]));
    for (int i = 0; i < b->n_w; i++)
        mt_free(b->w[i]);
    mt_profile_free(p);
    mt_model_free(m);
}
