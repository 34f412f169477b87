/* Looking into profiles, refusing them, merging them; profile_run has what they measure. */
#include "lib/flow/profile.h"

#include "lib/flow/walk.h"
#include "tests/t.h"
#include "tests/toy.h"

#include <stdlib.h>

static const struct mt_profile_info info = {
    .model = "1111111111111111111111111111111111111111111111111111111111111111",
    .tokenizer = "",
    .seq_len = 64,
    .origin = "moetool",
    .n_layers = 2,
    .hidden = 3,
};

/* X_SUM of three sums and h_max of two at layer 1, in the domains of the sources. */
static struct mt_profile *make(struct t *t, const struct mt_profile_info *i,
                               const struct mt_profile_source *sources, int n, double base)
{
    struct mt_profile *p;

    if (mt_profile_create(&t->ctx, i, sources, n, &p) != MT_OK)
        return NULL;
    mt_profile_declare(p, 1, MT_STAT_X_SUM, 1, 3);
    mt_profile_declare(p, 1, MT_STAT_H_MAX, 1, 2);
    for (int d = 0; d < mt_profile_n_domains(p); d++) {
        double *v = NULL, *max = NULL;
        struct mt_exact *exact = NULL;
        if (mt_alloc(&t->ctx, 3, sizeof *v, "x", &v) != MT_OK ||
            mt_alloc(&t->ctx, 2, sizeof *max, "x", &max) != MT_OK ||
            mt_alloc0(&t->ctx, 3, sizeof *exact, "x", &exact) != MT_OK)
            return NULL;
        for (int k = 0; k < 3; k++) {
            if (!mt_exact_add(&exact[k], base + d + 0.1 * k))
                return NULL;
            v[k] = mt_exact_value(&exact[k]);
        }
        max[0] = base;
        max[1] = 5 - base;
        mt_profile_set(p, 1, MT_STAT_X_SUM, d, v, exact, true);
        mt_profile_set(p, 1, MT_STAT_H_MAX, d, max, NULL, true);
    }
    return p;
}

static struct mt_profile_source source(const char *domain, char digit)
{
    struct mt_profile_source s = {.domain = domain, .windows = 2, .tokens = 100};

    memset(s.sha256, digit, 64);
    memset(s.ids_sha256, digit, 64);
    return s;
}

T_TEST(statistics_are_found_by_layer_and_domain)
{
    const struct mt_profile_source sources[] = {source("web", 'a'), source("code", 'b'),
                                                source("web", 'c')};
    struct mt_profile *p = make(t, &info, sources, 3, 1);
    double v[3], w[2];

    T_CHECK(t, p != NULL);
    T_EQ_INT(t, mt_profile_n_domains(p), 2);
    T_EQ_STR(t, mt_profile_domain(p, 0), "code");
    T_EQ_INT(t, mt_profile_n_sources(p), 3);
    T_EQ_STR(t, mt_profile_source(p, 2)->domain, "web");
    T_CHECK(t, !mt_profile_has(p, 0, MT_STAT_X_SUM) && mt_profile_has(p, 1, MT_STAT_X_SUM));
    T_CHECK(t, !mt_profile_has(p, 2, MT_STAT_X_SUM) && !mt_profile_has(p, -1, MT_STAT_X_SUM));
    T_OK(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_X_SUM, "code", v, 3));
    T_NEAR(t, v[2], 1.2, 1e-15);
    T_OK(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_X_SUM, "web", v, 3));
    T_NEAR(t, v[2], 2.2, 1e-15);
    T_OK(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_X_SUM, NULL, v, 3));
    T_NEAR(t, v[2], 3.4, 1e-15);
    T_OK(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_H_MAX, NULL, w, 2));
    T_NEAR(t, w[0], 1, 0);
    T_NEAR(t, w[1], 4, 0);
    mt_profile_free(p);
}

T_TEST(what_is_not_there_is_named_with_the_remedy)
{
    const struct mt_profile_source one = source("web", 'a');
    struct mt_profile *p = make(t, &info, &one, 1, 1);
    double v[3] = {0};

    T_CHECK(t, p != NULL);
    T_FAILS(t, mt_profile_get(&t->ctx, p, 0, MT_STAT_X_SUM, NULL, v, 3), MT_E_ABSENT,
            "no layers.0.ffn.x_sum");
    T_FAILS(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_H_GRAM, NULL, v, 3), MT_E_ABSENT, "--gram h");
    T_FAILS(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_EXPERT_F_ALL, NULL, v, 3), MT_E_ABSENT,
            "--all-experts");
    T_FAILS(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_X_SUM, "math", v, 3), MT_E_ABSENT,
            "no domain \"math\"");
    T_FAILS(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_X_SUM, NULL, v, 2), MT_E_FORMAT, "1 x 3");
    mt_profile_free(p);
}

T_TEST(values_that_are_no_numbers_do_not_reach_a_pass)
{
    const struct mt_profile_source one = source("web", 'a');
    struct mt_profile *p = make(t, &info, &one, 1, 1);
    double w[2];

    ((double *)mt_profile_part(p, 1, MT_STAT_H_MAX, 0).v)[1] = INFINITY;
    T_FAILS(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_H_MAX, "web", w, 2), MT_E_NUMERIC, "h_max");
    mt_profile_free(p);
}

T_TEST(a_profile_of_another_model_is_refused_with_both_identities)
{
    const struct mt_profile_source one = source("web", 'a');
    struct mt_profile_info i = info;
    struct mt_model *m, *other;
    struct mt_profile *p;
    char want[80];

    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 1}, &m));
    T_OK(t, toy_model(&t->ctx, &(struct toy){.seed = 2}, &other));
    T_OK(t, mt_model_identity(&t->ctx, m, i.model));
    i.hidden = 32;
    T_OK(t, mt_profile_create(&t->ctx, &i, &one, 1, &p));
    T_OK(t, mt_profile_check(&t->ctx, p, m, "stats"));
    snprintf(want, sizeof want, "stats: measured on model %.12s", i.model);
    T_FAILS(t, mt_profile_check(&t->ctx, p, other, "stats"), MT_E_OPTION, want);
    T_OK(t, mt_model_identity(&t->ctx, other, i.model));
    snprintf(want, sizeof want, "is %.12s", i.model);
    T_CHECK(t, strstr(mt_error(&t->ctx), want) != NULL);
    mt_profile_free(p);
    /* Without an identity shapes must do. */
    i.model[0] = '\0';
    T_OK(t, mt_profile_create(&t->ctx, &i, &one, 1, &p));
    T_OK(t, mt_profile_check(&t->ctx, p, other, "stats"));
    mt_profile_declare(p, 1, MT_STAT_H_SQ, 1, 47);
    T_FAILS(t, mt_profile_check(&t->ctx, p, other, "stats"), MT_E_FORMAT,
            "layers.1.ffn.h_sq is 1 x 47, but toy has 1 x 48");
    mt_profile_free(p);
    mt_model_free(m);
    mt_model_free(other);
}

static mt_status merge(struct t *t, const struct mt_profile *a, const struct mt_profile *b,
                       struct mt_profile **out)
{
    const struct mt_profile *in[2] = {a, b};

    return mt_profile_merge_plan(&t->ctx, in, 2, out);
}

T_TEST(what_does_not_belong_together_does_not_merge)
{
    const struct mt_profile_source a = source("web", 'a'), b = source("web", 'b');
    struct mt_profile *p = make(t, &info, &a, 1, 1), *q, *out;
    struct mt_profile_info i = info;

    i.model[3] = '7';
    q = make(t, &i, &b, 1, 2);
    T_FAILS(t, merge(t, p, q, &out), MT_E_OPTION,
            "different models: 111111111111 and 111711111111");
    mt_profile_free(q);
    i = info;
    i.seq_len = 128;
    q = make(t, &i, &b, 1, 2);
    T_FAILS(t, merge(t, p, q, &out), MT_E_OPTION, "windows of 64 and of 128 tokens");
    mt_profile_free(q);
    i = info;
    memset(i.tokenizer, 'e', 64);
    q = make(t, &i, &b, 1, 2);
    T_FAILS(t, merge(t, p, q, &out), MT_E_OPTION, "different tokenizers");
    mt_profile_free(q);
    i = info;
    i.n_layers = 3;
    q = make(t, &i, &b, 1, 2);
    T_FAILS(t, merge(t, p, q, &out), MT_E_OPTION, "2 layers");
    mt_profile_free(q);
    q = make(t, &info, &a, 1, 2);
    T_FAILS(t, merge(t, p, q, &out), MT_E_OPTION, "the same text of domain web");
    mt_profile_free(q);
    mt_profile_free(p);
}

T_TEST(what_only_one_has_is_left_out_and_told)
{
    const struct mt_profile_source a = source("web", 'a'), b = source("web", 'b');
    struct mt_profile *p = make(t, &info, &a, 1, 1), *q = make(t, &info, &b, 1, 2), *out;
    const struct mt_profile *in[2] = {p, q};
    double v[3];

    mt_profile_declare(q, 0, MT_STAT_X_SQ, 1, 3);
    T_OK(t, merge(t, p, q, &out));
    T_CHECK(t, strstr(t->log, "layers.0.ffn.x_sq is left out") != NULL);
    T_CHECK(t, !mt_profile_has(out, 0, MT_STAT_X_SQ));
    T_OK(t, mt_profile_merge_part(&t->ctx, in, 2, out, 1, MT_STAT_X_SUM, 0));
    T_OK(t, mt_profile_merge_part(&t->ctx, in, 2, out, 1, MT_STAT_H_MAX, 0));
    T_OK(t, mt_profile_get(&t->ctx, out, 1, MT_STAT_X_SUM, "web", v, 3));
    T_NEAR(t, v[1], 1.1 + 2.1, 1e-15);
    T_OK(t, mt_profile_get(&t->ctx, out, 1, MT_STAT_H_MAX, "web", v, 2));
    T_NEAR(t, v[0], 2, 0);
    T_NEAR(t, v[1], 4, 0);
    mt_profile_free(out);
    mt_profile_free(p);
    mt_profile_free(q);
}

T_TEST(identities_tell_profiles_apart)
{
    const struct mt_profile_source a = source("web", 'a'), b = source("web", 'b');
    struct mt_profile *p = make(t, &info, &a, 1, 1), *same = make(t, &info, &a, 1, 1),
                      *q = make(t, &info, &b, 1, 1);
    char x[65], y[65];

    mt_profile_identity(p, x);
    mt_profile_identity(same, y);
    T_EQ_STR(t, x, y);
    mt_profile_identity(q, y);
    T_CHECK(t, strcmp(x, y) != 0);
    mt_profile_declare(same, 0, MT_STAT_X_SQ, 1, 3);
    mt_profile_identity(same, y);
    T_CHECK(t, strcmp(x, y) != 0);
    mt_profile_free(p);
    mt_profile_free(same);
    mt_profile_free(q);
}
