/* Methods that cut an FFN up (slices.h): which neurons go where, and what experts weigh. */
#include "tests/pass_run.h"
#include "tests/planted.h"
#include "tests/tiny.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct planted_spec spec = {
    .groups = 4, .per_group = 6, .common = 0, .noise = 0.05, .seed = 7};

static const struct mt_convert_method *method_of(const char *name)
{
    return mt_convert_methods[mt_convert_name_find(mt_convert_method_names, name)];
}

/* 1R4E1K to 1R4E3K: slices as they stand, times E/k, or 1 when that is asked for. */
T_TEST(factorllm_cuts_slices_and_multiplies_by_their_share)
{
    char options[128];

    for (int k = 1; k <= 3; k++) {
        for (int unit = 0; unit < 2; unit++) {
            struct mt_convert_division d;
            struct planted p;
            snprintf(options, sizeof options, "method=factorllm experts=4 active=%d arch=native%s",
                     k, unit ? " expert-scale=unit" : "");
            if (!planted_open(t, &spec, options, &p))
                return;
            T_CHECK(t, planted_divide(t, &p, "factorllm", &d));
            T_EQ_INT(t, p.shape.k, k);
            T_EQ_INT(t, mt_split_shared_width(d.split), 0);
            for (int j = 0; j < 24; j++)
                T_EQ_INT(t, d.split->idx[j], j);
            for (int e = 0; e < 4; e++)
                T_NEAR(t, d.scale != NULL ? d.scale[e] : 1, unit ? 1 : 4.0 / k, 1e-7);
            planted_division_free(&d);
            planted_close(&p);
        }
    }
    T_CHECK(t, strcmp(method_of("factorllm")->router, "pa") == 0);
}

/* What is written is E/k times the source's columns; with all experts acting that is 1. */
T_TEST(scales_go_into_the_down_projections)
{
    struct mt_model *src = tiny_open(t, tiny_write(t, "m", &(struct tiny){.width = 64, .seed = 3}));
    char options[128];

    T_CHECK(t, src != NULL);
    for (int k = 1; k <= 4; k++) {
        struct mt_walk_result r;
        float *a, *b;
        snprintf(options, sizeof options,
                 "method=factorllm experts=4 active=%d arch=native router=random", k);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
        T_OK(t, mt_tensor_load_f32(
                    &t->ctx, mt_model_find(src, mt_role(MT_ROLE_FFN_DOWN, 1, MT_EXPERT_NONE)), &a));
        for (int e = 0; e < 4; e++) {
            T_OK(t, mt_tensor_load_f32(&t->ctx,
                                       mt_model_find(r.plan, mt_role(MT_ROLE_FFN_DOWN, 1, e)), &b));
            for (int i = 0; i < 32; i++)
                for (int j = 0; j < 16; j++) {
                    double want = (double)a[i * 64 + e * 16 + j] * 4 / k;
                    T_NEAR(t, b[i * 16 + j], want, 1e-6 * fabs(want));
                }
            mt_free(b);
        }
        mt_free(a);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
}

T_TEST(llama_moe_deals_neurons_out_by_lot)
{
    struct mt_convert_division d;
    int32_t first[24] = {0};
    struct planted p;

    for (int again = 0; again < 3; again++) {
        bool seen[24] = {false};
        if (!planted_open(t, &spec, "method=llama-moe experts=4 active=2 arch=native", &p))
            return;
        p.at.layer = again == 2; /* every layer has a lot of its own */
        T_CHECK(t, planted_divide(t, &p, "llama-moe", &d));
        int rises = 0;
        for (int j = 0; j < 24; j++) {
            T_CHECK(t, !seen[d.split->idx[j]]);
            seen[d.split->idx[j]] = true;
            rises += d.split->idx[j] == j;
        }
        T_CHECK(t, rises < 12);
        bool same = memcmp(first, d.split->idx, sizeof first) == 0;
        T_CHECK(t, same == (again == 1));
        if (again == 0)
            memcpy(first, d.split->idx, sizeof first);
        for (int e = 0; e < 4; e++)
            T_NEAR(t, d.scale[e], 2, 0);
        planted_division_free(&d);
        planted_close(&p);
    }
    T_CHECK(t, strcmp(method_of("llama-moe")->router, "random") == 0);
}

/* ReLU, unit rows: the paper's case. */
T_TEST(moefication_clusters_rows_without_shared_experts)
{
    struct planted_spec relu = spec;
    struct mt_convert_division d;
    struct planted p;

    relu.relu = true;
    if (!planted_open(t, &relu, "method=moefication experts=4 active=1 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "moefication", &d));
    T_CHECK(t, planted_found(&p, d.split));
    T_CHECK(t, d.scale == NULL && p.shape.n_shared == 0);
    planted_division_free(&d);
    planted_close(&p);
    T_CHECK(t, strcmp(method_of("moefication")->router, "mlp") == 0);
}

/* Groups that only gate rows, or only up rows, tell apart. */
T_TEST(the_rows_that_are_asked_for_are_clustered)
{
    static const struct {
        const char *how;
        bool gate, up; /* which rows keep their groups */
    } cases[] = {{"cluster", true, false},
                 {"cluster-up", false, true},
                 {"cluster-both", true, false},
                 {"cluster-both", false, true}};
    char options[128];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mt_convert_division d;
        struct planted p;
        snprintf(options, sizeof options,
                 "method=llama-moe partition=%s experts=4 active=2 arch=native", cases[i].how);
        if (!planted_open(t, &spec, options, &p))
            return;
        const struct mt_tensor *rows[2] = {p.dense.gate, p.dense.up};
        for (int side = 0; side < 2; side++) {
            float *v;
            memcpy(&v, &rows[side]->src.owned, sizeof v);
            if (!(side == 0 ? cases[i].gate : cases[i].up))
                for (int j = 0; j < 24 * PLANTED_HIDDEN; j++)
                    v[j] = j % PLANTED_HIDDEN == 30 ? 1 : 0; /* one row like another */
        }
        T_CHECK(t, planted_divide(t, &p, "llama-moe", &d));
        T_CHECK(t, planted_found(&p, d.split));
        planted_division_free(&d);
        planted_close(&p);
    }
}

/* Spec dense_to_moe section 6, number 8: with a ReLU and groups that act on tokens of their own
 * only, the expert that contributes most is all there is; and k of them more than enough. */
T_TEST(with_disjoint_activations_an_oracle_loses_nothing)
{
    struct planted_spec disjoint = {.groups = 6, .per_group = 5, .relu = true, .seed = 9};
    struct mt_convert_division d;
    struct planted p;

    if (!planted_open(t, &disjoint, "method=moefication experts=6 active=1 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "moefication", &d));
    T_CHECK(t, planted_found(&p, d.split));
    const float *down = p.dense.down->src.owned;
    double off = 0, all = 0;
    for (int i = 0; i < PLANTED_TOKENS; i++) {
        double f[6][PLANTED_HIDDEN] = {{0}}, norm[6] = {0};
        int best = 0;
        for (int e = 0; e < 6; e++)
            for (int c = 0; c < PLANTED_HIDDEN; c++) {
                for (int j = 0; j < 5; j++) {
                    int n = mt_split_expert(d.split, e)[j];
                    f[e][c] += (double)down[c * 30 + n] * (double)p.h[i * 30 + n];
                }
                norm[e] += f[e][c] * f[e][c];
            }
        for (int e = 1; e < 6; e++)
            best = norm[e] > norm[best] ? e : best;
        T_CHECK(t, norm[best] > 0);
        for (int c = 0; c < PLANTED_HIDDEN; c++) {
            double y = (double)p.y[i * PLANTED_HIDDEN + c];
            off += (f[best][c] - y) * (f[best][c] - y);
            all += y * y;
        }
    }
    T_NEAR(t, sqrt(off / all), 0, ffn_tolerance(30));
    planted_division_free(&d);
    planted_close(&p);
}

/* Number 17: no token at all, one expert, as many as there are neurons; all of them acting. */
T_TEST(nothing_and_extremes_work)
{
    static const char *const ways[] = {"experts=1 active=1", "experts=48 active=48",
                                       "experts=48 active=1", "experts=5 active=5 shared=1"};
    struct mt_model *src = tiny_open(t, tiny_write(t, "m", &(struct tiny){.seed = 3}));
    static struct noise_data data;
    char options[128];

    T_CHECK(t, src != NULL);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (int with = 0; with < 2; with++) {
            struct mt_walk_result r;
            double d = 1;
            noise_data(&data, 1, 64, 4);
            data.windows[0].n = 1; /* one token is all the text there is */
            data.set.n_tokens = 1;
            snprintf(options, sizeof options, "method=uoe arch=native %s%s", ways[i],
                     with ? "" : " router=centroid");
            T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, with ? &data.set : NULL, &r));
            T_OK(t, ffn_distance(&t->ctx, r.plan, src, 0, &d));
            T_OK(t, ffn_distance(&t->ctx, r.plan, src, 1, &d));
            if (i != 2)
                T_NEAR(t, d, 0, ffn_tolerance(48));
            mt_walk_result_free(&r);
        }
    mt_model_free(src);
}
