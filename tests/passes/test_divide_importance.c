/* Ways to divide that look at activations (divide_*.c), through the methods that take them. */
#include "tests/pass_run.h"
#include "tests/planted.h"
#include "tests/tiny.h"

#include "lib/base/json.h"

#include <math.h>

static const struct planted_spec spec = {
    .groups = 6, .per_group = 4, .common = 4, .noise = 0.05, .seed = 3};

static bool found(struct t *t, const struct planted_spec *s, const char *options,
                  const char *method)
{
    struct mt_convert_division d;
    struct planted p;

    if (!planted_open(t, s, options, &p))
        return false;
    bool ok = planted_divide(t, &p, method, &d) && planted_found(&p, d.split);
    planted_division_free(&d);
    planted_close(&p);
    return ok;
}

/* Neurons of a group act on tokens of one class; the common ones on all. */
T_TEST(planted_groups_become_experts)
{
    struct planted_spec relu = spec;

    relu.relu = true;
    T_CHECK(t, found(t, &spec,
                     "method=llama-moe partition=coactivation experts=6 shared=1 "
                     "active=2 arch=native",
                     "llama-moe"));
    T_CHECK(t, found(t, &relu,
                     "method=moefication partition=coactivation experts=6 shared=1 "
                     "active=2 arch=native",
                     "moefication"));
    T_CHECK(t, found(t, &spec, "partition=coactivation experts=6 shared=1 active=2 arch=native",
                     "partition"));
    T_CHECK(t, found(t, &spec,
                     "method=llama-moe partition=importance experts=6 shared=1 active=2 "
                     "arch=native",
                     "llama-moe"));
    T_CHECK(t, found(t, &spec,
                     "partition=importance importance=output experts=6 shared=1 active=2 "
                     "arch=native",
                     "partition"));
    /* Groups of exactly an expert's size: everyone's best are its own. */
    T_CHECK(t, found(t, &relu,
                     "method=uoe partition=importance-overlap experts=6 shared=1 "
                     "active=2 arch=native",
                     "uoe"));
}

T_TEST(ties_inside_experts_are_told)
{
    struct mt_convert_division d;
    struct planted_spec s = spec;
    struct planted p;
    double inside = 0;

    s.common = 0;
    s.relu = true; /* nothing acts on other classes but noise */
    if (!planted_open(t, &s, "partition=coactivation experts=6 shared=0 active=2 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "partition", &d));
    T_OK(t, mt_json_get_num(&t->ctx, d.facts, "ties_inside_experts", -1, &inside));
    T_CHECK(t, inside > 0.6 && inside <= 1);
    planted_division_free(&d);
    planted_close(&p);
}

/* worth[kind of the token][j] by loops, with the planted classes as kinds. */
static void naive_worth(const struct planted *p, bool by_output, int groups, double *worth)
{
    int w = (int)p->dense.width;
    const float *down = p->dense.down->src.owned;
    int count[8] = {0};

    memset(worth, 0, (size_t)(groups * w) * sizeof(*worth));
    for (int i = 0; i < PLANTED_TOKENS; i++) {
        count[p->class_of[i]]++;
        for (int j = 0; j < w; j++) {
            double reach = 0, along = 0;
            for (int c = 0; c < PLANTED_HIDDEN; c++) {
                double v = (double)down[c * w + j];
                reach += v * v;
                along += v * (double)p->y[i * PLANTED_HIDDEN + c];
            }
            worth[p->class_of[i] * w + j] +=
                fabs((double)p->h[i * w + j]) * (by_output ? fabs(along) : sqrt(reach));
        }
    }
    for (int e = 0; e < groups; e++)
        for (int j = 0; j < w; j++)
            worth[e * w + j] /= count[e];
}

/* Overlapping lists are the most important neurons of one class each, by loops; and what several
 * have is divided as often as it will act. */
T_TEST(overlapping_experts_are_the_best_of_a_class)
{
    struct planted_spec s = {.groups = 4, .per_group = 3, .common = 3, .noise = 0.3, .seed = 8};

    for (int by_output = 0; by_output < 2; by_output++) {
        struct mt_convert_division d;
        struct planted p;
        double worth[4 * 15];
        bool used[4] = {false};
        char options[128];
        snprintf(options, sizeof(options),
                 "partition=importance-overlap importance=%s experts=3 shared=0 active=2 "
                 "arch=native",
                 by_output ? "output" : "activation");
        s.groups = 3;
        s.per_group = 4;
        if (!planted_open(t, &s, options, &p))
            return;
        T_CHECK(t, planted_divide(t, &p, "partition", &d));
        int w = (int)p.dense.width, size = (int)d.split->expert_width;
        naive_worth(&p, by_output, 3, worth);
        for (int e = 0; e < 3; e++) {
            const int32_t *list = mt_split_expert(d.split, e);
            for (int g = 0; g < 3; g++) {
                bool same = true;
                for (int i = 0; i < size; i++) {
                    int better = 0;
                    for (int j = 0; j < w; j++)
                        better += worth[g * w + j] > worth[g * w + list[i]];
                    same = same && better < size;
                }
                if (same && !used[g]) {
                    used[g] = true;
                    break;
                }
            }
        }
        T_CHECK(t, used[0] && used[1] && used[2]);
        T_CHECK(t, d.weight != NULL);
        for (int i = 0; i < 3 * size; i++) {
            int copies = 0;
            for (int o = 0; o < 3 * size; o++)
                copies += d.split->idx[o] == d.split->idx[i];
            T_NEAR(t, d.weight[i], 1 / (1 + (copies - 1) * 0.5), 1e-7);
        }
        planted_division_free(&d);
        planted_close(&p);
    }
}

/* What divides without overlap gives the dense model when all experts act. */
T_TEST(all_experts_active_is_the_dense_model)
{
    static const char *const ways[] = {"cluster-up", "cluster-both", "coactivation", "importance"};
    static struct noise_data data;
    char options[160];

    for (int width = 48; width <= 53; width += 5) {
        struct mt_model *src = tiny_dense(t, &(struct tiny){.width = width, .seed = 3});
        T_CHECK(t, src != NULL);
        noise_data(&data, 4, 64, 4);
        for (int i = 0; i < 8; i++) {
            struct mt_walk_result r;
            double off = 1;
            snprintf(options, sizeof options,
                     "method=llama-moe partition=%s experts=5 active=5 shared=%d arch=native "
                     "expert-scale=unit",
                     ways[i / 2], i % 2);
            T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, &data.set, &r));
            T_OK(t, logits_distance(&t->ctx, "ref", r.plan, src, &off));
            T_NEAR(t, off, 0, 1e-10);
            T_OK(t, ffn_distance(&t->ctx, r.plan, src, 17, &off));
            T_NEAR(t, off, 0, ffn_tolerance(width));
            mt_walk_result_free(&r);
        }
        mt_model_free(src);
    }
}

/* Copies of a neuron are divided, and E/k multiplies all the same. */
T_TEST(scales_and_weights_of_copies_multiply)
{
    static struct noise_data data;
    const char *options = "method=llama-moe partition=importance-overlap experts=4 active=2 "
                          "shared=1 arch=native expert-scale=";
    struct mt_model *src = tiny_dense(t, &(struct tiny){.layers = 1, .seed = 3});
    struct mt_walk_result r[2];
    char text[2][160];
    float *v[2];

    T_CHECK(t, src != NULL);
    noise_data(&data, 4, 64, 4);
    for (int i = 0; i < 2; i++) {
        snprintf(text[i], sizeof text[i], "%s%s", options, i == 0 ? "unit" : "E/k");
        T_OK(t, run_pass(&t->ctx, "convert-ffn", text[i], src, &data.set, &r[i]));
    }
    for (int e = 0; e <= 4; e++) {
        int expert = e < 4 ? e : MT_EXPERT_SHARED;
        int64_t n = 0;
        for (int i = 0; i < 2; i++) {
            struct mt_tensor *down = mt_model_find(r[i].plan, mt_role(MT_ROLE_FFN_DOWN, 0, expert));
            T_CHECK(t, down != NULL);
            T_OK(t, mt_tensor_load_f32(&t->ctx, down, &v[i]));
            n = mt_tensor_count(down);
        }
        for (int64_t i = 0; i < n; i++)
            T_NEAR(t, v[1][i], (e < 4 ? 2 : 1) * v[0][i], 0);
        mt_free(v[0]);
        mt_free(v[1]);
    }
    mt_walk_result_free(&r[0]);
    mt_walk_result_free(&r[1]);
    mt_model_free(src);
}

T_TEST(what_cannot_be_is_refused_in_a_sentence)
{
    static struct noise_data data;
    struct mt_model *src = tiny_dense(t, &(struct tiny){.seed = 3});
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "partition=coactivation experts=4", src, NULL, &r),
            MT_E_OPTION, "--partition coactivation looks for neurons that are active together");
    T_FAILS(t,
            run_pass(&t->ctx, "convert-ffn", "method=uoe partition=importance experts=4", src, NULL,
                     &r),
            MT_E_OPTION, "--data");
    T_FAILS(t,
            run_pass(&t->ctx, "convert-ffn", "method=dino partition=coactivation", src, NULL, &r),
            MT_E_OPTION, "slices of a copy always do");
    noise_data(&data, 1, 64, 4);
    data.windows[0].n = 8;
    T_FAILS(t,
            run_pass(&t->ctx, "convert-ffn", "partition=importance experts=12 active=2 shared=0",
                     src, &data.set, &r),
            MT_E_OPTION, "12 groups of 8 tokens");
    mt_model_free(src);
}
