#include "lib/flow/profile_run.h"
#include "lib/run/runner.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"

#include <stdlib.h>

#define D 32
#define W 48
#define KEEP 20
#define TOKENS 256

T_TEST(keeping_all_neurons_changes_no_logit)
{
    static const char *const selects[] = {"magnitude", "wanda", "flap", "obs"};
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 1});
    static struct noise_data data;
    char options[64];
    double d;

    T_CHECK(t, src != NULL);
    noise_data(&data, 4, 64, 1);
    for (int i = 0; i < 4; i++) {
        struct mt_walk_result r;
        snprintf(options, sizeof(options), "width=100%% select=%s", selects[i]);
        T_OK(t, run_pass(&t->ctx, "prune-ffn", options, src, i > 0 ? &data.set : NULL, &r));
        T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
        T_NEAR(t, d, 0, 0);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

/* Weights of layer 0 and, when h is not NULL, its hidden activations on the data, [TOKENS, W]. */
struct layer0 {
    float *gate, *up, *down; /* [W, D], [W, D], [D, W] */
    float h[TOKENS * W];
};

static mt_status layer0_hidden(struct mt_ctx *ctx, const struct mt_model *m,
                               const struct mt_dataset *data, float *h)
{
    struct mt_run_layer *l = NULL;
    struct mt_runner *r = NULL;
    struct mt_device *dev;
    mt_buf x = NULL, n = NULL, y = NULL, hid = NULL;

    MT_TRY(mt_device_open(ctx, "cpu", &dev));
    mt_status st = mt_runner_open(ctx, m, dev, &r);
    if (st == MT_OK)
        st = mt_run_layer_open(ctx, r, 0, &l);
    mt_buf *const bufs[] = {&x, &n, &y, &hid};
    for (int i = 0; i < 4 && st == MT_OK; i++)
        st = dev->ops->alloc(ctx, dev, (size_t)64 * (i < 3 ? D : W), bufs[i]);
    for (size_t w = 0; w < data->n_windows && st == MT_OK; w++) {
        const int32_t len = data->windows[w].n;
        const struct mt_seqs seqs = {.n = 1, .len = &len};
        st = mt_run_embed(ctx, r, data->windows[w].ids, len, x);
        if (st == MT_OK)
            st = mt_run_attn(ctx, l, x, &seqs, NULL);
        if (st == MT_OK)
            st = mt_run_ffn_norm(ctx, l, x, len, n);
        if (st == MT_OK)
            st = mt_run_ffn(ctx, l, n, len, y, hid);
        if (st == MT_OK)
            st = dev->ops->download(ctx, dev, h + w * 64 * W, hid, (size_t)len * W);
    }
    for (int i = 0; i < 4; i++)
        dev->ops->release(dev, *bufs[i]);
    if (l != NULL)
        mt_run_layer_close(l);
    if (r != NULL)
        mt_runner_close(r);
    mt_device_close(dev);
    return st;
}

static mt_status layer0_load(struct mt_ctx *ctx, const struct mt_model *m, struct layer0 *out)
{
    const struct mt_role gate = mt_role(MT_ROLE_FFN_GATE, 0, MT_EXPERT_NONE);
    const struct mt_role up = mt_role(MT_ROLE_FFN_UP, 0, MT_EXPERT_NONE);
    const struct mt_role down = mt_role(MT_ROLE_FFN_DOWN, 0, MT_EXPERT_NONE);

    MT_TRY(mt_tensor_load_f32(ctx, mt_model_find(m, gate), &out->gate));
    MT_TRY(mt_tensor_load_f32(ctx, mt_model_find(m, up), &out->up));
    return mt_tensor_load_f32(ctx, mt_model_find(m, down), &out->down);
}

static void layer0_free(struct layer0 *l)
{
    mt_free(l->gate);
    mt_free(l->up);
    mt_free(l->down);
}

static double norm2(const float *v, int n, int step)
{
    double sum = 0;

    for (int i = 0; i < n; i++)
        sum += (double)v[i * step] * (double)v[i * step];
    return sum;
}

/* The score the help text promises, straight from its formula. */
static double score(const struct layer0 *l, int select, int j)
{
    double g = sqrt(norm2(l->gate + j * D, D, 1)), u = sqrt(norm2(l->up + j * D, D, 1));
    double v = sqrt(norm2(l->down + j, D, W)), mean = 0, square = 0;

    for (int i = 0; i < TOKENS; i++) {
        mean += (double)l->h[i * W + j] / TOKENS;
        square += (double)l->h[i * W + j] * (double)l->h[i * W + j] / TOKENS;
    }
    return select == 0   ? g * u * v
           : select == 1 ? sqrt(square) * v
                         : (square - mean * mean) * v * v;
}

static void kept_is_the_best(struct t *t, const struct mt_model *plan, const struct layer0 *a,
                             int select)
{
    struct layer0 b;
    int n = 0;

    T_OK(t, layer0_load(&t->ctx, plan, &b));
    T_EQ_INT(t, plan->ffn[0].width, KEEP);
    for (int j = 0; j < W; j++) {
        int better = 0;
        for (int o = 0; o < W; o++)
            better += score(a, select, o) > score(a, select, j);
        if (better >= KEEP)
            continue;
        T_CHECK(t, n < KEEP);
        for (int i = 0; i < D; i++) {
            T_CHECK(t, a->gate[j * D + i] == b.gate[n * D + i]);
            T_CHECK(t, a->up[j * D + i] == b.up[n * D + i]);
            T_CHECK(t, a->down[i * W + j] == b.down[i * KEEP + n]);
        }
        n++;
    }
    layer0_free(&b);
    T_EQ_INT(t, n, KEEP);
}

T_TEST(the_kept_neurons_are_the_best_ones_in_order)
{
    static const char *const selects[] = {"magnitude", "wanda", "flap", "obs"};
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 3});
    static struct noise_data data;
    static struct layer0 a;
    char options[64];

    T_CHECK(t, src != NULL);
    noise_data(&data, TOKENS / 64, 64, 2);
    T_OK(t, layer0_load(&t->ctx, src, &a));
    T_OK(t, layer0_hidden(&t->ctx, src, &data.set, a.h));
    for (int i = 0; i < 3; i++) {
        struct mt_walk_result r;
        snprintf(options, sizeof(options), "width=%d select=%s", KEEP, selects[i]);
        T_OK(t, run_pass(&t->ctx, "prune-ffn", options, src, i > 0 ? &data.set : NULL, &r));
        kept_is_the_best(t, r.plan, &a, i);
        mt_walk_result_free(&r);
        if (t->failed)
            return;
    }
    layer0_free(&a);
    mt_model_free(src);
}

static mt_status measure(struct mt_ctx *ctx, const struct mt_model *m, const struct mt_dataset *d,
                         struct mt_profile **out)
{
    struct mt_profile_opts o = {.model = m, .seq_len = 64};
    struct mt_profile_text text;

    MT_TRY(mt_profile_text_make(ctx, d, 1, 0, &text));
    o.text = &text;
    mt_status st = mt_device_open(ctx, "cpu", &o.dev);
    if (st == MT_OK)
        st = mt_profile_plan(ctx, &o, out);
    if (st == MT_OK)
        st = mt_profile_run(ctx, &o, *out, NULL, NULL);
    mt_device_close(o.dev);
    mt_profile_text_free(&text);
    return st;
}

/* In layer 0 what the original model does is what the pruned one is shown. */
T_TEST(a_profile_stands_in_for_text)
{
    static const char *const selects[] = {"magnitude", "wanda", "flap", "obs"};
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 3});
    static struct noise_data data;
    static struct layer0 a;
    struct mt_profile *p = NULL;
    char options[64];

    T_CHECK(t, src != NULL);
    noise_data(&data, TOKENS / 64, 64, 2);
    T_OK(t, measure(&t->ctx, src, &data.set, &p));
    T_OK(t, layer0_load(&t->ctx, src, &a));
    T_OK(t, layer0_hidden(&t->ctx, src, &data.set, a.h));
    for (int i = 1; i < 3; i++) {
        struct mt_walk_result r;
        snprintf(options, sizeof(options), "width=%d select=%s", KEEP, selects[i]);
        src->profile = NULL;
        T_FAILS(t, run_pass(&t->ctx, "prune-ffn", options, src, NULL, &r), MT_E_OPTION, "--data");
        src->profile = p;
        T_OK(t, run_pass(&t->ctx, "prune-ffn", options, src, NULL, &r));
        kept_is_the_best(t, r.plan, &a, i);
        mt_walk_result_free(&r);
        if (t->failed)
            return;
    }
    src->profile = NULL;
    layer0_free(&a);
    mt_profile_free(p);
    mt_model_free(src);
}

/* Scores from elsewhere, also negative ones: the largest stay. */
T_TEST(given_scores_decide)
{
    const struct mt_profile_info info = {.origin = "json", .n_layers = 2, .hidden = D};
    const struct mt_profile_source source = {.domain = "scores"};
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 3});
    struct mt_walk_result r;
    struct mt_profile *p;
    struct layer0 a, b;
    double score_of[W];

    T_CHECK(t, src != NULL);
    T_FAILS(t, run_pass(&t->ctx, "prune-ffn", "width=20 select=score", src, NULL, &r), MT_E_OPTION,
            "--profile");
    for (int j = 0; j < W; j++)
        score_of[j] = j % 2 == 0 ? -10 - j : -j;
    T_OK(t, mt_profile_create(&t->ctx, &info, &source, 1, &p));
    for (int l = 0; l < 2; l++) {
        mt_profile_declare(p, l, MT_STAT_NEURON_SCORE, 1, W);
        mt_profile_set(p, l, MT_STAT_NEURON_SCORE, 0, score_of, NULL, false);
    }
    src->profile = p;
    T_OK(t, run_pass(&t->ctx, "prune-ffn", "width=20 select=score", src, NULL, &r));
    T_OK(t, layer0_load(&t->ctx, src, &a));
    T_OK(t, layer0_load(&t->ctx, r.plan, &b));
    for (int j = 0, n = 0; j < W; j++) {
        int better = 0;
        for (int o = 0; o < W; o++)
            better += score_of[o] > score_of[j];
        if (better < KEEP)
            T_CHECK(t, t_rel_l2(a.gate + j * D, b.gate + n++ * D, D) == 0);
    }
    layer0_free(&a);
    layer0_free(&b);
    mt_walk_result_free(&r);
    src->profile = NULL;
    mt_profile_free(p);
    mt_model_free(src);
}

/* What the dropped neurons add on average, by summing them token by token. */
T_TEST(flap_adds_what_the_dropped_neurons_gave_on_average)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 5});
    static struct noise_data data;
    static struct layer0 a;
    struct mt_walk_result r;
    double want[D] = {0};
    float *bias;

    T_CHECK(t, src != NULL);
    noise_data(&data, TOKENS / 64, 64, 3);
    T_OK(t, layer0_load(&t->ctx, src, &a));
    T_OK(t, layer0_hidden(&t->ctx, src, &data.set, a.h));
    T_OK(t, run_pass(&t->ctx, "prune-ffn", "width=20 select=flap", src, &data.set, &r));
    for (int j = 0; j < W; j++) {
        int better = 0;
        for (int o = 0; o < W; o++)
            better += score(&a, 2, o) > score(&a, 2, j);
        for (int i = 0; better >= KEEP && i < TOKENS * D; i++)
            want[i % D] += (double)a.h[i / D * W + j] * (double)a.down[i % D * W + j] / TOKENS;
    }
    T_CHECK(t, r.plan->ffn[0].out_bias && r.plan->ffn[0].in_bias);
    T_OK(t, mt_tensor_load_f32(&t->ctx, mt_model_bias(r.plan, MT_ROLE_FFN_DOWN, 0, MT_EXPERT_NONE),
                               &bias));
    for (int i = 0; i < D; i++)
        T_NEAR(t, bias[i], want[i], 1e-5);
    mt_free(bias);
    /* Loaders of mlp_bias want the other two as well. */
    T_OK(t, mt_tensor_load_f32(&t->ctx, mt_model_bias(r.plan, MT_ROLE_FFN_UP, 0, MT_EXPERT_NONE),
                               &bias));
    for (int i = 0; i < KEEP; i++)
        T_CHECK(t, bias[i] == 0);
    mt_free(bias);
    mt_walk_result_free(&r);
    layer0_free(&a);
    mt_model_free(src);
}

T_TEST(biases_of_the_source_follow_their_neurons)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.mlp_biases = true, .seed = 7});
    static struct noise_data data;
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    noise_data(&data, 4, 64, 4);
    T_OK(t, run_pass(&t->ctx, "prune-ffn", "width=100% select=wanda", src, &data.set, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_NEAR(t, d, 0, 0);
    mt_walk_result_free(&r);
    T_OK(t, run_pass(&t->ctx, "prune-ffn", "width=47 select=flap", src, &data.set, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_CHECK(t, d > 0 && d < 0.2);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* Numbers of one layer's refit. */
static double refit_number(const struct mt_walk_result *r, int layer, const char *key)
{
    return json_number(mt_json_get(layer_numbers(r, "prune-ffn", layer), "refit"), key);
}

/* Held-out errors of layer 0 fall with every refinement: refit, refit with bias, and with the
 * surgeon's choice and all that it keeps trained they are least. */
T_TEST(refits_and_the_surgeon_lower_held_out_errors)
{
    static const char *const options[] = {"select=wanda refit=none", "select=wanda refit=down",
                                          "select=obs refit=none",   "select=obs refit=down",
                                          "select=obs refit=bias",   "select=obs"};
    struct mt_model *src = tiny_dense(t, &(struct tiny){.width = 96, .seed = 31});
    static struct noise_data data;
    double before[6], after[6], far[6];
    char text[64];

    T_CHECK(t, src != NULL);
    noise_data(&data, 40, 64, 7);
    for (int i = 0; i < 6; i++) {
        struct mt_walk_result r;
        snprintf(text, sizeof(text), "width=50%% %s", options[i]);
        T_OK(t, run_pass(&t->ctx, "prune-ffn", text, src, &data.set, &r));
        T_EQ_INT(t, r.plan->ffn[0].width, 48);
        T_EQ_INT(t, r.plan->ffn[0].out_bias, i == 4);
        before[i] = refit_number(&r, 0, "error_before");
        after[i] = refit_number(&r, 0, "error_after");
        T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &far[i]));
        if (i == 5) {
            T_NEAR(t, refit_number(&r, 0, "error_down"), after[3], 1e-9);
            T_CHECK(t, refit_number(&r, 0, "epoch") > 0);
        }
        mt_walk_result_free(&r);
    }
    T_CHECK(t, after[5] < 0.95 * after[3] && far[5] < far[3]);
    T_CHECK(t, isnan(after[0]) && isnan(after[2]));
    T_CHECK(t, after[1] < before[1] && after[3] < before[3]);
    T_CHECK(t, after[3] < after[1]);
    T_CHECK(t, after[4] < 1.05 * after[3]);
    T_CHECK(t, far[1] < far[0] && far[3] < far[2]);
    mt_model_free(src);
}

/* A neuron that is another's double goes first, and its twin gives for both. */
T_TEST(a_double_is_dropped_at_no_cost)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 33}), *twice;
    static struct noise_data data;
    struct mt_walk_result r;
    int32_t idx[W + 8];
    double d;

    T_CHECK(t, src != NULL);
    noise_data(&data, 16, 64, 8);
    for (int j = 0; j < W + 8; j++)
        idx[j] = j < W ? j : j - W;
    T_OK(t, mt_model_plan(&t->ctx, src, &twice));
    for (int l = 0; l < src->hp.n_layers; l++) {
        const enum mt_role_kind kinds[3] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
        twice->ffn[l].width = W + 8;
        for (int i = 0; i < 3; i++) {
            struct mt_tensor *from = mt_model_find(src, mt_role(kinds[i], l, MT_EXPERT_NONE)), *to;
            int64_t shape[2] = {i < 2 ? W + 8 : D, i < 2 ? D : W + 8};
            mt_model_remove(twice, mt_model_find(twice, from->role));
            T_OK(t, mt_model_add(&t->ctx, twice, from->role, from->dtype, 2, shape, &to));
            if (i < 2)
                T_OK(t, mt_recipe_gather_rows(&t->ctx, twice, to, from, idx, W + 8, 1));
            else
                T_OK(t, mt_recipe_gather_cols(&t->ctx, twice, to, from, idx, W + 8, 1));
        }
    }
    T_OK(t, run_pass(&t->ctx, "prune-ffn", "width=48 select=obs", twice, &data.set, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, twice, &d));
    T_CHECK(t, d < 2e-3);
    mt_walk_result_free(&r);
    mt_model_free(twice);
    mt_model_free(src);
}

T_TEST(what_cannot_be_is_refused_in_a_sentence)
{
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 9});
    struct mt_model *moe = tiny_dense(t, &(struct tiny){.family = "mixtral", .seed = 9});
    struct mt_walk_result r;
    struct mt_ctx *c = &t->ctx;

    T_CHECK(t, src != NULL && moe != NULL);
    T_FAILS(t, run_pass(c, "prune-ffn", "width=49", src, NULL, &r), MT_E_OPTION,
            "the FFNs are only 48 neurons wide");
    T_FAILS(t, run_pass(c, "prune-ffn", "width=0", src, NULL, &r), MT_E_OPTION, "--width 0");
    T_FAILS(t, run_pass(c, "prune-ffn", "select=wanda", src, NULL, &r), MT_E_OPTION, "--data");
    T_FAILS(t, run_pass(c, "prune-ffn", "select=magnitude", moe, NULL, &r), MT_E_UNSUPPORTED,
            "dense FFNs");
    mt_model_free(src);
    mt_model_free(moe);
}
