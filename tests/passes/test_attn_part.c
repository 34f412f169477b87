#include "passes/lib/attn_part.h"

#include "formats/table.h"
#include "lib/base/rng.h"
#include "lib/run/runner.h"
#include "tests/t.h"
#include "tests/toy.h"

#include <stdlib.h>

#define TOKENS 12

/* out += times what x[TOKENS, hidden] is behind a layer's attention, in two sequences. */
static mt_status attend(struct mt_ctx *ctx, struct mt_device *dev, const struct mt_model *m,
                        int layer, const float *x, double times, double *out)
{
    static const int32_t lens[] = {7, TOKENS - 7};
    const struct mt_seqs seqs = {.n = 2, .len = lens};
    size_t n = TOKENS * (size_t)m->hp.hidden;
    struct mt_run_layer *l = NULL;
    struct mt_runner *r = NULL;
    float *y = calloc(n, sizeof(*y));
    mt_buf at = NULL;
    mt_status st = mt_runner_open(ctx, m, dev, &r);

    if (st == MT_OK)
        st = mt_run_layer_open(ctx, r, layer, &l);
    if (st == MT_OK)
        st = dev->ops->alloc(ctx, dev, n, &at);
    if (st == MT_OK)
        st = dev->ops->upload(ctx, dev, at, x, n);
    if (st == MT_OK)
        st = mt_run_attn(ctx, l, at, &seqs, NULL);
    if (st == MT_OK)
        st = dev->ops->download(ctx, dev, y, at, n);
    for (size_t i = 0; i < n && st == MT_OK; i++)
        out[i] += times * (double)y[i];
    dev->ops->release(dev, at);
    if (l != NULL)
        mt_run_layer_close(l);
    mt_runner_close(r);
    free(y);
    return st;
}

/* The model without what attention gives: positions and norms in front of the sum stay. */
static mt_status silence(struct mt_ctx *ctx, const struct mt_model *src, struct mt_model **out)
{
    mt_status st = mt_model_plan(ctx, src, out);

    for (int l = 0; l < src->hp.n_layers && st == MT_OK; l++) {
        struct mt_role role = mt_role(MT_ROLE_ATTN_O, l, MT_EXPERT_NONE);
        st = mt_recipe_fill(ctx, *out, mt_model_find(*out, role), 0);
        role.part = MT_PART_BIAS;
        if (st == MT_OK && mt_model_find(*out, role) != NULL)
            st = mt_recipe_fill(ctx, *out, mt_model_find(*out, role), 0);
    }
    return st;
}

/* What the parts of one layer give, less what is there without them. */
static mt_status sum_parts(struct mt_ctx *ctx, struct mt_device *dev, const struct mt_model *src,
                           const struct mt_model *silent, const int *sizes, int layer,
                           const float *x, double *sum)
{
    mt_status st = MT_OK;

    for (int first = 0, i = 0; first < src->hp.n_kv_heads && st == MT_OK; first += sizes[i++]) {
        struct mt_model *part = NULL;
        st = mt_attn_part(ctx, src, first, sizes[i], &part);
        if (st == MT_OK)
            st = attend(ctx, dev, part, layer, x, 1, sum);
        if (st == MT_OK)
            st = attend(ctx, dev, silent, layer, x, -1, sum);
        mt_model_free(part);
    }
    return st;
}

/* Parts of sizes[0], sizes[1], ... key-value heads against the whole; all layers. */
static mt_status parts_distance(struct mt_ctx *ctx, const struct mt_model *src, const int *sizes,
                                double *worst)
{
    size_t n = TOKENS * (size_t)src->hp.hidden;
    double *whole = calloc(n, sizeof(*whole)), *sum = calloc(n, sizeof(*sum));
    float *x = calloc(n, sizeof(*x));
    struct mt_model *silent = NULL;
    struct mt_device *dev = NULL;
    struct mt_rng r;
    mt_status st = mt_device_open(ctx, "ref", &dev);

    if (st == MT_OK)
        st = silence(ctx, src, &silent);
    mt_rng_seed(&r, 77, 0);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)mt_rng_normal(&r);
    *worst = 0;
    for (int l = 0; l < src->hp.n_layers && st == MT_OK; l++) {
        memset(whole, 0, n * sizeof(*whole));
        memset(sum, 0, n * sizeof(*sum));
        st = attend(ctx, dev, src, l, x, 1, whole);
        if (st == MT_OK)
            st = attend(ctx, dev, silent, l, x, -1, whole);
        if (st == MT_OK)
            st = sum_parts(ctx, dev, src, silent, sizes, l, x, sum);
        *worst = fmax(*worst, t_rel_l2_f64(sum, whole, n));
    }
    if (dev != NULL)
        mt_device_close(dev);
    mt_model_free(silent);
    free(whole);
    free(sum);
    free(x);
    return st;
}

static void parts_add_up(struct t *t, struct toy spec, const int *sizes)
{
    struct mt_model *m = NULL;
    double d = 1;

    T_OK(t, toy_model(&t->ctx, &spec, &m));
    mt_status st = parts_distance(&t->ctx, m, sizes, &d);
    mt_model_free(m);
    T_OK(t, st);
    /* States go in and out as floats. */
    T_NEAR(t, d, 0, 1e-6);
}

T_TEST(heads_add_up_to_the_attention)
{
    parts_add_up(t, (struct toy){.heads = 4, .kv_heads = 4, .seed = 1}, (int[]){1, 1, 1, 1});
    parts_add_up(t, (struct toy){.heads = 4, .kv_heads = 4, .seed = 2}, (int[]){4});
    parts_add_up(t, (struct toy){.heads = 4, .kv_heads = 4, .seed = 3}, (int[]){3, 1});
}

T_TEST(queries_stay_with_their_keys)
{
    parts_add_up(t, (struct toy){.heads = 8, .kv_heads = 2, .seed = 4}, (int[]){1, 1});
    parts_add_up(t, (struct toy){.heads = 6, .kv_heads = 3, .seed = 5}, (int[]){1, 2});
    parts_add_up(t, (struct toy){.heads = 6, .kv_heads = 1, .seed = 6}, (int[]){1});
}

T_TEST(norms_of_single_heads_stay)
{
    parts_add_up(
        t,
        (struct toy){
            .family = "qwen3", .heads = 8, .kv_heads = 4, .qk_norm = MT_QK_NORM_HEAD, .seed = 7},
        (int[]){1, 2, 1});
}

/* The bias of the output counts once: with it in every part the sum would be off. */
T_TEST(biases_count_once)
{
    parts_add_up(
        t, (struct toy){.heads = 8, .kv_heads = 4, .qkv_bias = true, .o_bias = true, .seed = 8},
        (int[]){1, 1, 1, 1});
    parts_add_up(t, (struct toy){.heads = 4, .kv_heads = 2, .qkv_bias = true, .seed = 9},
                 (int[]){1, 1});
}

/* Transposed and fused projections, learned positions, sinks, windows, both ways; and norms over
 * what the heads give. */
T_TEST(families_divide_as_they_are_stored)
{
    static const char *const names[] = {"llama", "qwen2",   "qwen3",   "gpt2",
                                        "phi3",  "gpt_oss", "granite", "vit"};
    static const int ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct mt_model *m, *part;
    char path[64];

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        double d = 1;
        snprintf(path, sizeof(path), "tests/golden/%s", names[i]);
        T_OK(t, mt_model_open(&t->ctx, mt_formats, path, &m));
        mt_status st = parts_distance(&t->ctx, m, ones, &d);
        mt_model_free(m);
        T_OK(t, st);
        if (!(d <= 2e-6))
            t_fail(t, __FILE__, __LINE__, "%s: off by %g", names[i], d);
    }
    T_OK(t, mt_model_open(&t->ctx, mt_formats, "tests/golden/olmoe", &m));
    T_FAILS(t, mt_attn_part(&t->ctx, m, 0, 1, &part), MT_E_UNSUPPORTED, "olmoe");
    mt_model_free(m);
    static const char *const normed[] = {"gemma3_text", "bert"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "tests/golden/%s", normed[i]);
        T_OK(t, mt_model_open(&t->ctx, mt_formats, path, &m));
        T_FAILS(t, mt_attn_part(&t->ctx, m, 0, 1, &part), MT_E_UNSUPPORTED, "sum of all heads");
        mt_model_free(m);
    }
}

T_TEST(what_does_not_divide_is_refused)
{
    struct mt_model *m = NULL, *part;

    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 10}, &m));
    T_FAILS(t, mt_attn_part(&t->ctx, m, 0, 3, &part), MT_E_OPTION, "there are 2");
    T_FAILS(t, mt_attn_part(&t->ctx, m, -1, 1, &part), MT_E_OPTION, "there are 2");
    T_FAILS(t, mt_attn_part(&t->ctx, m, 2, 1, &part), MT_E_OPTION, "there are 2");
    m->hp.qk_norm = MT_QK_NORM_FULL;
    T_FAILS(t, mt_attn_part(&t->ctx, m, 0, 1, &part), MT_E_UNSUPPORTED, "norm goes over all heads");
    m->hp.qk_norm = MT_QK_NORM_NONE;
    m->hp.mla.kv_rank = 4;
    T_FAILS(t, mt_attn_part(&t->ctx, m, 0, 1, &part), MT_E_UNSUPPORTED, "latent");
    mt_model_free(m);
}
