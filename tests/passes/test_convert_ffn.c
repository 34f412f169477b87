#include "formats/table.h"
#include "lib/flow/walk.h"
#include "passes/table.h"
#include "tests/pass_run.h"
#include "tests/t.h"
#include "tests/tiny.h"
#include "tests/toy.h"

#include <stddef.h>
#include <stdlib.h>

static const char *const partitions[] = {"contiguous", "random", "cluster"};

/* What is measured in fp64 differs by summation order and the rounding of alpha only. */
#define EXACT 1e-10

static struct mt_model *dense(struct t *t, const struct tiny *o)
{
    return tiny_open(t, tiny_write(t, "dense", o));
}

/* Source and conversion compute the same: whole logits on the fp64 device, FFNs on the cpu. */
static void same_model(struct t *t, const struct mt_model *src, const struct mt_model *plan)
{
    double d;

    T_OK(t, logits_distance(&t->ctx, "ref", plan, src, &d));
    T_NEAR(t, d, 0, EXACT);
    T_OK(t, ffn_distance(&t->ctx, plan, src, 17, &d));
    T_NEAR(t, d, 0, ffn_tolerance(src->ffn[0].width));
}

static void convert_is_exact(struct t *t, const struct mt_model *src, const char *options)
{
    struct mt_walk_result r;

    T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
    same_model(t, src, r.plan);
    if (t->failed)
        printf("    with %s\n", options);
    mt_walk_result_free(&r);
}

/* Whoever asked for the impossible reads that, and not first what the result would be like. */
T_TEST(errors_come_before_remarks)
{
    static const char *const bad[] = {"experts=5 active=2 router=zero", "experts=5 router=ridge",
                                      "experts=5 arch=mixtral shared=1", "experts=5 flatten=x"};
    struct mt_walk_result r;
    struct mt_model *src = dense(t, &(struct tiny){.seed = 3});

    T_CHECK(t, src != NULL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        T_FAILS(t, run_pass(&t->ctx, "convert-ffn", bad[i], src, NULL, &r), MT_E_OPTION, "");
        T_CHECK(t, t->log == NULL || strstr(t->log, "not a multiple") == NULL);
    }
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=5 active=2", src, NULL, &r));
    T_CHECK(t, strstr(t->log, "not a multiple") != NULL);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* Only mixtral has its windows, so that is what it becomes unasked. */
T_TEST(a_windowed_mistral_converts_unasked)
{
    struct mt_model *src =
        dense(t, &(struct tiny){.family = "mistral", .config = "\"sliding_window\": 8", .seed = 3});

    T_CHECK(t, src != NULL);
    convert_is_exact(t, src, "experts=4 active=4");
    mt_model_free(src);
}

T_TEST(all_experts_active_is_the_dense_model)
{
    static const struct {
        const char *source, *options;
    } cases[] = {
        {"llama", "arch=glm4_moe experts=8 active=8 shared=0"},
        {"llama", "arch=glm4_moe experts=5 active=5 shared=1"},
        {"llama", "arch=glm4_moe experts=3 active=100% shared=2"},
        {"llama", "arch=mixtral experts=4 active=4 shared=0"},
        {"llama", "arch=mixtral experts=8 active=100%"},
        {"mistral", "experts=6 active=6"},
        {"qwen2", "experts=6 active=6"},
        {"qwen3", "experts=8 active=8"},
        {"qwen3", "arch=glm4_moe experts=7 active=7"},
        {"qwen3", "arch=qwen3_moe experts=4 active=4 shared=0"},
        {"qwen3", "arch=dots1 experts=6 active=6 shared=1"},
        {"qwen3", "arch=dots1 experts=4 active=4 shared=0"},
        {"llama", "arch=granitemoeshared experts=4 active=4"},
        {"llama", "arch=granitemoeshared experts=8 active=8 shared=2"},
        {"llama", "arch=granitemoeshared experts=2 active=2 shared=0"},
        {"mistral", "arch=granitemoe experts=4 active=4 shared=0"},
        {"qwen2", "arch=qwen2_moe experts=4 active=4"},
        {"llama", "arch=qwen2_moe experts=8 active=8 shared=2"},
        {"qwen2", "arch=qwen2_moe experts=4 active=4 shared=0"},
    };
    char options[160];

    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct mt_model *src = dense(t, &(struct tiny){.family = cases[i].source, .seed = 3});
        T_CHECK(t, src != NULL);
        for (size_t p = 0; p < 3 && !t->failed; p++) {
            snprintf(options, sizeof(options), "%s partition=%s", cases[i].options, partitions[p]);
            convert_is_exact(t, src, options);
        }
        mt_model_free(src);
        if (t->failed)
            return;
    }
}

/* Its q, k, v and its gate and up are parts of larger tensors, its rotation has lists of divisors.
 */
T_TEST(a_fused_model_converts_too)
{
    struct mt_model *src = tiny_open(t, "tests/golden/phi3-short");

    T_CHECK(t, src != NULL);
    convert_is_exact(t, src, "arch=glm4_moe experts=5 active=5 shared=1");
    mt_model_free(src);
}

/* No dense family on disk has norms that span all heads. */
T_TEST(norms_over_all_heads_become_olmoe)
{
    struct mt_model *src;

    T_OK(t, toy_model(&t->ctx, &(struct toy){.qk_norm = MT_QK_NORM_FULL, .seed = 3}, &src));
    convert_is_exact(t, src, "arch=olmoe experts=8 active=8");
    convert_is_exact(t, src, "experts=4 active=4 partition=random");
    mt_model_free(src);
}

/* Renormalised weights need alpha = k in down_proj, which rounds once per element. */
T_TEST(an_alpha_that_is_no_power_of_two_costs_one_rounding)
{
    struct mt_model *src = dense(t, &(struct tiny){.seed = 4});
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "arch=mixtral experts=6 active=6", src, NULL, &r));
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &d));
    T_CHECK(t, d > EXACT && d < 3e-7);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* tinymix-dense has a tied head, which qwen2moe's loader does not know. */
T_TEST(a_real_model_survives_writing_and_reading)
{
    static const struct {
        const char *options, *out;
    } cases[] = {
        {"arch=glm4_moe experts=7 active=7 shared=1", "glm"},
        {"arch=mixtral experts=16 active=16", "mixtral"},
        {"arch=granitemoeshared experts=8 active=8 shared=1", "granite"},
        {"arch=qwen2_moe experts=4 active=4 shared=1", "qwen2"},
        {"arch=glm4_moe experts=7 active=7 shared=1", "glm.gguf"},
        {"arch=mixtral experts=16 active=16", "mixtral.gguf"},
        {"arch=granitemoeshared experts=8 active=8 shared=1", "granite.gguf"},
        {"arch=granitemoe experts=8 active=8 shared=0", "granite0.gguf"},
        {"arch=qwen2_moe experts=4 active=4 shared=1", "qwen2.gguf"},
    };
    const char *path = t_shipped("tinymix-dense");
    struct mt_model *src, *back;

    if (path == NULL)
        T_SKIP(t, "tests/data/tinymix-dense is not there");
    T_OK(t, mt_model_open(&t->ctx, mt_formats, path, &src));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *out = t_path(t, cases[i].out);
        double d;
        T_OK(t, write_pass(&t->ctx, "convert-ffn", cases[i].options, src, out));
        T_OK(t, mt_model_open(&t->ctx, mt_formats, out, &back));
        T_EQ_INT(t, back->hp.tied, strcmp(cases[i].out, "qwen2.gguf") != 0);
        T_OK(t, logits_distance(&t->ctx, "ref", back, src, &d));
        T_NEAR(t, d, 0, EXACT);
        T_OK(t, ffn_distance(&t->ctx, back, src, 300, &d));
        T_NEAR(t, d, 0, ffn_tolerance(src->ffn[0].width));
        mt_model_free(back);
    }
    mt_model_free(src);
}

T_TEST(odd_widths_are_padded_with_zero_neurons)
{
    /* Widths around multiples of the parts; one expert; one neuron per expert. */
    static const int widths[] = {1, 5, 47, 49, 53, 101};
    static const char *const shapes[] = {"experts=1 shared=0 arch=mixtral", "experts=4 shared=0",
                                         "experts=4 shared=1", "experts=7 shared=2",
                                         "experts=5 shared=0"};
    char options[160];
    int converted = 0;

    for (size_t w = 0; w < sizeof(widths) / sizeof(*widths); w++) {
        struct mt_model *src = dense(t, &(struct tiny){.width = widths[w], .seed = 5});
        T_CHECK(t, src != NULL);
        for (size_t i = 0; i < 5 * 3 && !t->failed; i++) {
            struct mt_walk_result r;
            snprintf(options, sizeof(options), "%s active=100%% partition=%s", shapes[i / 3],
                     partitions[i % 3]);
            mt_status st = run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r);
            /* Narrow FFNs have fewer neurons than some of these want experts. */
            T_CHECK(t, st == MT_OK ||
                           (st == MT_E_OPTION && strstr(mt_error(&t->ctx), "cannot be cut")));
            if (st != MT_OK)
                continue;
            same_model(t, src, r.plan);
            mt_walk_result_free(&r);
            converted++;
        }
        mt_model_free(src);
        if (t->failed)
            return;
    }
    T_CHECK(t, converted > 60);
}

/* Index of the neuron of `src` whose gate row this is, bit for bit; -1 for zeros, -2 for none. */
static int find_neuron(const float *rows, int64_t width, int64_t hidden, const float *row)
{
    bool zero = true;

    for (int64_t i = 0; i < hidden; i++)
        zero = zero && row[i] == 0;
    if (zero)
        return -1;
    for (int64_t j = 0; j < width; j++)
        if (memcmp(rows + j * hidden, row, (size_t)hidden * sizeof(*row)) == 0)
            return (int)j;
    return -2;
}

/* One expert's gate and up rows and down columns belong to the same neurons; counts them. */
static void check_expert(struct t *t, const struct mt_model *src, const struct mt_model *plan,
                         int layer, int expert, int *seen)
{
    int64_t d = src->hp.hidden, w = src->ffn[layer].width;
    float *m[6];
    const enum mt_role_kind kinds[3] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    int64_t n = 0;

    for (int i = 0; i < 3; i++) {
        struct mt_tensor *a = mt_model_find(src, mt_role(kinds[i], layer, MT_EXPERT_NONE));
        struct mt_tensor *b = mt_model_find(plan, mt_role(kinds[i], layer, expert));
        T_CHECK(t, a != NULL && b != NULL);
        T_EQ_INT(t, b->dtype, a->dtype);
        T_OK(t, mt_tensor_load_f32(&t->ctx, a, &m[i]));
        T_OK(t, mt_tensor_load_f32(&t->ctx, b, &m[3 + i]));
        n = i < 2 ? mt_tensor_rows(b) : mt_tensor_cols(b);
    }
    int last = -1;
    bool padded = false, good = true;
    for (int64_t r = 0; r < n; r++) {
        int j = find_neuron(m[0], w, d, m[3] + r * d);
        T_CHECK(t, j >= -1);
        padded = padded || j < 0;
        T_CHECK(t, padded == (j < 0)); /* zero neurons stand at the end */
        T_CHECK(t, j < 0 || j > last); /* lists rise */
        last = j < 0 ? last : j;
        for (int64_t i = 0; i < d; i++) {
            good = good && m[4][r * d + i] == (j < 0 ? 0 : m[1][j * d + i]);
            good = good && m[5][i * n + r] == (j < 0 ? 0 : m[2][i * w + j]);
        }
        if (j >= 0)
            seen[j]++;
    }
    for (int i = 0; i < 6; i++)
        mt_free(m[i]);
    T_CHECK(t, good);
}

T_TEST(lists_partition_the_neurons_and_gathers_keep_every_bit)
{
    const int width = 50, experts = 6, shared = 1;
    char options[160];

    for (int k = 0; k < 6; k++) {
        struct mt_walk_result r;
        struct mt_model *src =
            dense(t, &(struct tiny){.width = width, .dtype = k < 3 ? MT_F32 : MT_BF16, .seed = 7});
        T_CHECK(t, src != NULL);
        snprintf(options, sizeof(options), "experts=%d shared=%d active=2 partition=%s", experts,
                 shared, partitions[k % 3]);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
        for (int l = 0; l < src->hp.n_layers; l++) {
            int seen[50] = {0};
            for (int e = 0; e < experts; e++)
                check_expert(t, src, r.plan, l, e, seen);
            check_expert(t, src, r.plan, l, MT_EXPERT_SHARED, seen);
            if (t->failed)
                return;
            for (int j = 0; j < width; j++)
                T_EQ_INT(t, seen[j], 1);
        }
        mt_walk_result_free(&r);
        mt_model_free(src);
    }
}

/* The same model with experts e and perm(e) exchanged, router rows with them. */
static mt_status relabel(struct mt_ctx *ctx, const struct mt_model *m, const int32_t *perm,
                         struct mt_model **out)
{
    const enum mt_role_kind kinds[3] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};

    MT_TRY(mt_model_plan(ctx, m, out));
    for (int l = 0; l < m->hp.n_layers; l++) {
        for (int e = 0; e < m->ffn[l].n_experts; e++)
            for (int i = 0; i < 3; i++)
                mt_model_find(*out, mt_role(kinds[i], l, e))->src.alias =
                    mt_model_find(m, mt_role(kinds[i], l, perm[e]));
        struct mt_role router = mt_role(MT_ROLE_ROUTER, l, MT_EXPERT_NONE);
        MT_TRY(mt_recipe_gather_rows(ctx, *out, mt_model_find(*out, router),
                                     mt_model_find(m, router), perm, m->ffn[l].n_experts, 1));
    }
    return MT_OK;
}

T_TEST(names_of_experts_do_not_matter)
{
    const int32_t perm[6] = {3, 5, 0, 1, 4, 2};
    struct mt_model *src = dense(t, &(struct tiny){.seed = 9}), *other;
    struct mt_walk_result r;
    double d;

    T_CHECK(t, src != NULL);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=6 active=2 shared=1 router=centroid", src,
                     NULL, &r));
    T_OK(t, relabel(&t->ctx, r.plan, perm, &other));
    T_OK(t, logits_distance(&t->ctx, "ref", other, r.plan, &d));
    T_NEAR(t, d, 0, EXACT);
    mt_model_free(other);
    mt_walk_result_free(&r);
    mt_model_free(src);
}

/* Every neuron twice, with half of its down column each: the same function, twice as wide. */
static mt_status doubled(struct mt_ctx *ctx, const struct mt_model *src, struct mt_model **out)
{
    const enum mt_role_kind kinds[3] = {MT_ROLE_FFN_GATE, MT_ROLE_FFN_UP, MT_ROLE_FFN_DOWN};
    int32_t idx[256];

    MT_TRY(mt_model_plan(ctx, src, out));
    for (int l = 0; l < src->hp.n_layers; l++) {
        int64_t n = 2 * src->ffn[l].width;
        for (int32_t j = 0; j < n; j++)
            idx[j] = j / 2;
        (*out)->ffn[l].width = n;
        for (int i = 0; i < 3; i++) {
            struct mt_tensor *from = mt_model_find(src, mt_role(kinds[i], l, MT_EXPERT_NONE)), *to;
            int64_t shape[2] = {i < 2 ? n : src->hp.hidden, i < 2 ? src->hp.hidden : n};
            mt_model_remove(*out, mt_model_find(*out, from->role));
            MT_TRY(mt_model_add(ctx, *out, from->role, from->dtype, 2, shape, &to));
            if (i < 2)
                MT_TRY(mt_recipe_gather_rows(ctx, *out, to, from, idx, n, 1));
            else
                MT_TRY(mt_recipe_gather_cols(ctx, *out, to, from, idx, n, 0.5f));
        }
    }
    return MT_OK;
}

T_TEST(doubled_neurons_with_halved_outputs_are_the_original)
{
    struct mt_model *src = dense(t, &(struct tiny){.seed = 11}), *twice;
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    T_OK(t, doubled(&t->ctx, src, &twice));
    same_model(t, src, twice);
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "experts=5 active=5", twice, NULL, &r));
    same_model(t, src, r.plan);
    mt_walk_result_free(&r);
    mt_model_free(twice);
    mt_model_free(src);
}

T_TEST(running_out_of_memory_leaks_nothing)
{
    struct mt_model *src = dense(t, &(struct tiny){.layers = 1, .hidden = 16, .seed = 22});
    static struct noise_data data;
    struct mt_walk_result r;
    mt_status st = MT_E_NOMEM;
    bool waits = false;
    int failures = 0;

    T_CHECK(t, src != NULL);
    noise_data(&data, 2, 64, 4);
    const uint64_t used = mt_mem_used(&t->ctx);
    for (uint64_t n = 1; !waits && n < 20000; n += 1 + n / 40, failures++) {
        mt_fault_alloc(n);
        st = run_pass(&t->ctx, "convert-ffn", "experts=5 shared=1 active=2", src, &data.set, &r);
        waits = mt_fault_alloc_waits();
        mt_fault_alloc(0);
        if (st == MT_OK)
            mt_walk_result_free(&r);
        T_CHECK(t, st == MT_OK || st == MT_E_NOMEM);
        T_EQ_INT(t, mt_mem_used(&t->ctx), used);
    }
    T_EQ_INT(t, st, MT_OK);
    T_CHECK(t, failures > 50);
    mt_model_free(src);
}

T_TEST(what_cannot_be_is_refused_in_a_sentence)
{
    struct mt_model *src = dense(t, &(struct tiny){.seed = 23});
    struct mt_model *moe = dense(t, &(struct tiny){.family = "qwen3_moe", .seed = 23});
    struct mt_model *biased = dense(t, &(struct tiny){.mlp_biases = true, .seed = 23});
    struct mt_walk_result r;
    struct mt_ctx *c = &t->ctx;

    T_CHECK(t, src != NULL && moe != NULL && biased != NULL);
    T_FAILS(t, run_pass(c, "convert-ffn", "experts=4 active=5", src, NULL, &r), MT_E_OPTION,
            "--active 5: there are only 4 routed experts");
    T_FAILS(t, run_pass(c, "convert-ffn", "experts=4 active=2 router=zero", src, NULL, &r),
            MT_E_OPTION, "chooses the same 2 of 4 experts for every token");
    T_FAILS(t, run_pass(c, "convert-ffn", "arch=mixtral shared=1", src, NULL, &r), MT_E_OPTION,
            "mixtral has no shared experts: use --shared 0, or --arch glm4_moe");
    T_FAILS(t, run_pass(c, "convert-ffn", "experts=4", moe, NULL, &r), MT_E_UNSUPPORTED,
            "layer 0 is a mixture of 4 experts already");
    T_FAILS(t, run_pass(c, "convert-ffn", "experts=4 arch=glm4_moe", biased, NULL, &r),
            MT_E_UNSUPPORTED, "FFN biases (mlp_bias)");
    T_FAILS(t, run_pass(c, "convert-ffn", "router=ridge", src, NULL, &r), MT_E_OPTION, "--data");
    T_FAILS(t, run_pass(c, "convert-ffn", "experts=64", src, NULL, &r), MT_E_OPTION,
            "an FFN of 48 neurons cannot be cut into 64 experts");
    T_FAILS(t, run_pass(c, "convert-ffn", "active=half", src, NULL, &r), MT_E_OPTION,
            "--active half: expected");
    T_FAILS(t, run_pass(c, "convert-ffn", "active=120%", src, NULL, &r), MT_E_OPTION,
            "--active 120%: expected");
    T_FAILS(t, run_pass(c, "convert-ffn", "shared=-1", src, NULL, &r), MT_E_OPTION,
            "--shared -1: expected");
    mt_model_free(src);
    mt_model_free(moe);
    mt_model_free(biased);
}
