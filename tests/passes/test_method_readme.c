#include "lib/base/json.h"
#include "lib/base/rng.h"
#include "lib/flow/profile.h"
#include "passes/lib/domain_masks.h"
#include "tests/pass_run.h"
#include "tests/planted.h"
#include "tests/toy.h"

#include <stdlib.h>

#define DOMAINS 4
#define LAYERS_MAX 2
#define WIDTH_MAX 64

/* Statistics by domain as a profile has them. */
struct domains {
    struct mt_profile *p;
    double tokens;
    double importance[LAYERS_MAX][DOMAINS][WIDTH_MAX];
};

static bool domains_open(struct t *t, struct mt_model *m, int n, struct domains *d)
{
    static const char *const names[DOMAINS] = {"a", "b", "c", "d"};
    const struct mt_profile_info info = {
        .origin = "moetool", .n_layers = m->hp.n_layers, .hidden = m->hp.hidden};
    struct mt_profile_source sources[DOMAINS];

    memset(sources, 0, sizeof(sources));
    for (int i = 0; i < n; i++)
        sources[i] = (struct mt_profile_source){.domain = names[i], .windows = 1, .tokens = 1};
    d->tokens = 1;
    if (mt_profile_create(&t->ctx, &info, sources, n, &d->p) != MT_OK) {
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
        return false;
    }
    for (int l = 0; l < m->hp.n_layers; l++) {
        mt_profile_declare(d->p, l, MT_STAT_TOKENS, 1, 1);
        mt_profile_declare(d->p, l, MT_STAT_H_ABS, 1, m->ffn[l].width);
        for (int i = 0; i < n; i++) {
            mt_profile_set(d->p, l, MT_STAT_TOKENS, i, &d->tokens, NULL, false);
            mt_profile_set(d->p, l, MT_STAT_H_ABS, i, d->importance[l][i], NULL, false);
        }
    }
    m->profile = d->p;
    return true;
}

static struct mt_model *toy(struct t *t, const struct toy *spec)
{
    struct mt_model *m = NULL;

    if (toy_model(&t->ctx, spec, &m) != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return m;
}

/* Every domain has its own fourth of what is not common: nothing is dropped or doubled. */
static void disjoint(struct domains *d, int width, int common)
{
    int each = (width - common) / DOMAINS;

    for (int l = 0; l < LAYERS_MAX; l++)
        for (int i = 0; i < DOMAINS; i++)
            for (int j = 0; j < width; j++) {
                int place = (j * 5 + l) % width; /* 5 is prime to the widths used here */
                bool mine = place < common || (place - common) / each == i;
                d->importance[l][i][j] = mine ? 2 + j : 1;
            }
}

static void at_random(struct domains *d, int width, uint64_t seed)
{
    struct mt_rng r;

    mt_rng_seed(&r, seed, 0);
    for (int l = 0; l < LAYERS_MAX; l++)
        for (int j = 0; j < width; j++) {
            double base = mt_rng_unit(&r);
            for (int i = 0; i < DOMAINS; i++)
                d->importance[l][i][j] = base + 0.5 * mt_rng_unit(&r);
        }
}

/* Sums of |h| over the tokens of each class become importances. */
T_TEST(planted_domains_become_experts)
{
    static const struct planted_spec spec = {
        .groups = 4, .per_group = 6, .common = 6, .noise = 0.05, .seed = 4};
    struct mt_convert_division v;
    struct domains d = {0};
    struct planted p;
    double mask;

    if (!planted_open(t, &spec, "experts=4 active=1 shared=1 arch=native keep=0.4", &p))
        return;
    for (int k = 0; k < PLANTED_TOKENS; k++)
        for (int j = 0; j < p.dense.width; j++)
            d.importance[0][p.class_of[k]][j] += fabs((double)p.h[k * p.dense.width + j]);
    T_CHECK(t, domains_open(t, p.m, 4, &d));
    const struct mt_convert_method *m =
        mt_convert_methods[mt_convert_name_find(mt_convert_method_names, "readme")];
    p.o.shared = "auto";
    T_OK(t, m->shape(&t->ctx, &p.o, p.m, &p.shape));
    T_EQ_INT(t, p.shape.k, 1);
    T_OK(t, m->layer_shape(&t->ctx, &p.o, p.m, 0, &p.shape));
    T_EQ_INT(t, p.shape.expert_width, 6);
    T_EQ_INT(t, p.shape.shared_width, 6);
    T_CHECK(t, planted_divide(t, &p, "readme", &v));
    T_CHECK(t, planted_found(&p, v.split));
    T_CHECK(t, v.weight == NULL);
    T_OK(t, mt_json_get_num(&t->ctx, v.facts, "mask", -1, &mask));
    T_EQ_INT(t, mask, 12);
    planted_division_free(&v);
    planted_close(&p);
    mt_profile_free(d.p);
}

/* ---- whole models ---- */

static const char *const targets[] = {"native", "glm4_moe", "granitemoeshared", "mixtral"};

static void all_active_is_dense(struct t *t, const struct mt_model *src, const char *options)
{
    struct mt_walk_result r;
    double d;

    T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
    mt_status st = ffn_distance(&t->ctx, r.plan, src, 17, &d);
    mt_walk_result_free(&r);
    T_OK(t, st);
    if (!(d <= ffn_tolerance(src->ffn[0].width)))
        t_fail(t, __FILE__, __LINE__, "%s: off by %g", options, d);
}

T_TEST(all_experts_are_the_dense_model_when_none_is_dropped_or_doubled)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 8});
    struct domains d = {0};
    char options[128];

    T_CHECK(t, src != NULL);
    disjoint(&d, 48, 8);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets) && !t->failed; i++) {
        snprintf(options, sizeof(options), "method=readme keep=0.375 active=4 widths=pad arch=%s",
                 targets[i]);
        all_active_is_dense(t, src, options);
    }
    mt_model_free(src);
    mt_profile_free(d.p);
}

/* Copies of a neuron are divided by their number, and nothing is lost with cover=nearest. */
T_TEST(all_experts_are_the_dense_model_when_they_overlap)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 9});
    struct domains d = {0};
    char options[128];

    T_CHECK(t, src != NULL);
    at_random(&d, 48, 3);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    for (size_t i = 0; i < sizeof(targets) / sizeof(*targets) && !t->failed; i++) {
        snprintf(options, sizeof(options), "method=readme active=4 cover=nearest arch=%s",
                 targets[i]);
        all_active_is_dense(t, src, options);
    }
    mt_model_free(src);
    mt_profile_free(d.p);
}

/* A plain FFN with biases: that of the layer stays and counts once. */
T_TEST(plain_ffns_with_biases_convert_too)
{
    struct mt_model *src =
        toy(t, &(struct toy){.ungated = true, .in_bias = true, .out_bias = true, .seed = 10});
    struct domains d = {0};

    T_CHECK(t, src != NULL);
    at_random(&d, 48, 4);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    all_active_is_dense(t, src, "method=readme active=4 cover=nearest arch=native");
    mt_model_free(src);
    mt_profile_free(d.p);
}

/* ---- one expert ---- */

static const float *values(const struct mt_tensor *t)
{
    return t->src.owned;
}

/* Neurons of an expert or of the shared one: up rows found again in the source, each once. False
 * when some row is none of the source's. */
static bool find_neurons(struct t *t, const struct mt_model *src, const struct mt_model *plan,
                         int layer, int expert, int *seen)
{
    struct mt_tensor *up = mt_model_find(plan, mt_role(MT_ROLE_FFN_UP, layer, expert));
    struct mt_tensor *all = mt_model_find(src, mt_role(MT_ROLE_FFN_UP, layer, MT_EXPERT_NONE));
    size_t d = (size_t)src->hp.hidden;
    float *rows;

    if (up == NULL)
        return true;
    if (mt_tensor_load_f32(&t->ctx, up, &rows) != MT_OK)
        return false;
    bool known = true;
    for (int64_t i = 0; i < mt_tensor_rows(up); i++) {
        int64_t j = 0;
        bool zero = true;
        for (size_t c = 0; c < d; c++)
            zero = zero && rows[(size_t)i * d + c] == 0;
        while (j < src->ffn[layer].width &&
               memcmp(rows + (size_t)i * d, values(all) + (size_t)j * d, d * sizeof(float)) != 0)
            j++;
        if (j < src->ffn[layer].width)
            seen[j]++;
        else
            known = known && zero;
    }
    mt_free(rows);
    return known;
}

static void holds_its_mask(struct t *t, const struct mt_model *src, const struct mt_model *plan,
                           const struct domains *d, int layer, bool covered)
{
    int width = (int)src->ffn[layer].width;
    struct mt_domain_masks *m;
    double v[DOMAINS * WIDTH_MAX];

    for (int i = 0; i < DOMAINS; i++)
        memcpy(v + (ptrdiff_t)i * width, d->importance[layer][i], (size_t)width * sizeof(*v));
    T_OK(t, mt_domain_masks_make(&t->ctx, v, DOMAINS, width, width / 2, &m));
    T_CHECK(t, m->dropped > 0 && m->common > 0);
    for (int e = 0; e < DOMAINS; e++) {
        int seen[WIDTH_MAX] = {0};
        bool known = find_neurons(t, src, plan, layer, e, seen) &&
                     find_neurons(t, src, plan, layer, MT_EXPERT_SHARED, seen);
        for (int j = 0; j < width; j++) {
            int want = m->in[e * width + j] || (covered && mt_domain_masks_holders(m, j) == 0);
            known = known && seen[j] == want;
        }
        if (!known)
            t_fail(t, __FILE__, __LINE__, "layer %d, expert %d holds another mask", layer, e);
    }
    mt_domain_masks_free(m);
}

T_TEST(an_expert_and_what_is_shared_are_its_mask_bit_for_bit)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 11});
    struct domains d = {0};
    struct mt_walk_result r;
    char options[128];

    T_CHECK(t, src != NULL);
    at_random(&d, 48, 5);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    for (size_t i = 0; i < 2 * sizeof(targets) / sizeof(*targets); i++) {
        bool covered = i % 2 != 0;
        snprintf(options, sizeof(options),
                 "method=readme router=centroid widths=pad arch=%s cover=%s", targets[i / 2],
                 covered ? "nearest" : "none");
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
        T_EQ_INT(t, r.plan->ffn[0].k, 1);
        for (int l = 0; l < src->hp.n_layers; l++)
            holds_its_mask(t, src, r.plan, &d, l, covered);
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
    mt_profile_free(d.p);
}

T_TEST(layers_are_as_wide_as_their_masks_only_in_the_native_layout)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 12});
    struct domains d = {0};
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    at_random(&d, 48, 6);
    for (int i = 1; i < DOMAINS; i++) /* layer 1: all domains use the same neurons */
        memcpy(d.importance[1][i], d.importance[1][0], sizeof(d.importance[1][0]));
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=readme arch=native router=centroid", src, NULL,
                     &r));
    const struct mt_ffn *f = r.plan->ffn;
    T_EQ_INT(t, f[0].width + f[0].shared_width, 24);
    T_EQ_INT(t, f[1].width, 1);
    T_EQ_INT(t, f[1].shared_width, 24);
    mt_walk_result_free(&r);
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=readme arch=glm4_moe widths=pad router=centroid", src, NULL, &r));
    T_EQ_INT(t, r.plan->ffn[0].width, r.plan->ffn[1].width);
    T_EQ_INT(t, r.plan->ffn[0].shared_width, r.plan->ffn[1].shared_width);
    mt_walk_result_free(&r);
    mt_model_free(src);
    mt_profile_free(d.p);
}

/* Targets of one width get as many neurons as a mask has, none of them zero. */
T_TEST(lists_fill_the_widths_of_other_targets)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 15});
    struct domains d = {0};
    struct mt_walk_result r;
    char options[128];

    T_CHECK(t, src != NULL);
    at_random(&d, 48, 8);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    for (size_t i = 1; i < sizeof(targets) / sizeof(*targets); i++) {
        snprintf(options, sizeof(options), "method=readme router=centroid arch=%s", targets[i]);
        T_OK(t, run_pass(&t->ctx, "convert-ffn", options, src, NULL, &r));
        for (int l = 0; l < src->hp.n_layers && strcmp(targets[i], "mixtral") != 0; l++) {
            const struct mt_ffn *f = &r.plan->ffn[l];
            T_EQ_INT(t, f->width + f->shared_width, 24);
            for (int e = 0; e < DOMAINS; e++) {
                int seen[WIDTH_MAX] = {0}, n = 0;
                T_CHECK(t, find_neurons(t, src, r.plan, l, e, seen));
                T_CHECK(t, find_neurons(t, src, r.plan, l, MT_EXPERT_SHARED, seen));
                for (int j = 0; j < 48; j++) {
                    T_CHECK(t, seen[j] <= 1);
                    n += seen[j];
                }
                T_EQ_INT(t, n, 24);
            }
        }
        mt_walk_result_free(&r);
    }
    mt_model_free(src);
    mt_profile_free(d.p);
}

T_TEST(reports_tell_overlap_and_what_is_lost)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 13});
    struct mt_walk_result r;
    struct domains d = {0};
    int64_t v;

    T_CHECK(t, src != NULL);
    disjoint(&d, 48, 8);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    T_OK(t, run_pass(&t->ctx, "convert-ffn", "method=readme keep=0.375 arch=native router=centroid",
                     src, NULL, &r));
    const struct mt_json *layer = mt_json_first(mt_json_get(r.manifest, "layers"));
    const struct mt_json *told = mt_json_get(mt_json_get(layer, "convert-ffn"), "method");
    T_OK(t, mt_json_get_int(&t->ctx, told, "common", -1, &v));
    T_EQ_INT(t, v, 8);
    T_OK(t, mt_json_get_int(&t->ctx, told, "in_no_mask", -1, &v));
    T_EQ_INT(t, v, 0);
    const struct mt_json *row = mt_json_first(mt_json_get(told, "overlap"));
    T_CHECK(t, row != NULL && mt_json_first(row) != NULL && mt_json_next(mt_json_first(row)));
    mt_walk_result_free(&r);
    mt_model_free(src);
    mt_profile_free(d.p);
}

/* ---- refusals ---- */

T_TEST(what_cannot_be_is_refused_in_a_sentence)
{
    struct mt_model *src = toy(t, &(struct toy){.seed = 14});
    struct domains one = {0}, d = {0};
    struct mt_walk_result r;

    T_CHECK(t, src != NULL);
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=readme", src, NULL, &r), MT_E_OPTION,
            "--data NAME=FILE");
    T_CHECK(t, domains_open(t, src, 1, &one));
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=readme", src, NULL, &r), MT_E_OPTION,
            "was given one");
    at_random(&d, 48, 7);
    T_CHECK(t, domains_open(t, src, DOMAINS, &d));
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=readme experts=8", src, NULL, &r),
            MT_E_OPTION, "here 4");
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=readme shared=2", src, NULL, &r),
            MT_E_OPTION, "--keep");
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=readme active=5", src, NULL, &r),
            MT_E_OPTION, "only 4");
    d.tokens = 0;
    T_FAILS(t, run_pass(&t->ctx, "convert-ffn", "method=readme", src, NULL, &r), MT_E_OPTION,
            "domain a");
    mt_model_free(src);
    mt_profile_free(one.p);
    mt_profile_free(d.p);
}
