#include "formats/stats.h"

#include "tests/t.h"
#include "tests/toy.h"

static mt_status read_text(struct t *t, const struct mt_model *m, const char *text,
                           struct mt_profile **p)
{
    const char *path = t_path(t, "scores.json");

    t_write_file(t, path, text, strlen(text));
    return mt_stats_import(&t->ctx, path, m, p);
}

T_TEST(scores_of_experts_and_neurons_are_read)
{
    struct mt_profile *p;
    struct mt_model *m;
    double v[4];

    T_OK(t, toy_model(&t->ctx,
                      &(struct toy){.experts = 4, .k = 2, .first_dense = 1, .width = 3, .seed = 1},
                      &m));
    T_OK(t, read_text(t, m,
                      " {\"layers\": {\"1\": {\"experts\": [1, -2.5, 3e2, 0]},\n"
                      "\"0\": {\"neurons\": [0.5, 0, 7]}}}",
                      &p));
    T_EQ_STR(t, mt_profile_info(p)->origin, "json");
    T_OK(t, mt_profile_get(&t->ctx, p, 1, MT_STAT_EXPERT_SCORE, NULL, v, 4));
    T_CHECK(t, v[0] == 1 && v[1] == -2.5 && v[2] == 300 && v[3] == 0);
    T_OK(t, mt_profile_get(&t->ctx, p, 0, MT_STAT_NEURON_SCORE, NULL, v, 3));
    T_CHECK(t, v[0] == 0.5 && v[2] == 7);
    T_CHECK(t, !mt_profile_has(p, 0, MT_STAT_EXPERT_SCORE));
    mt_profile_free(p);
    mt_model_free(m);
}

T_TEST(scores_that_do_not_fit_are_refused)
{
    struct mt_profile *p;
    struct mt_model *m;

    T_OK(t, toy_model(&t->ctx, &(struct toy){.experts = 4, .k = 2, .seed = 1}, &m));
    T_FAILS(t, read_text(t, m, "{\"layers\": {\"1\": {\"experts\": [1, 2, 3]}}}", &p), MT_E_FORMAT,
            "layer 1: 3 scores of experts, but the model has 4");
    T_FAILS(t, read_text(t, m, "{\"layers\": {\"1\": {\"neurons\": [1]}}}", &p), MT_E_FORMAT,
            "layer 1: 1 scores of neurons, but the model has 0");
    T_FAILS(t, read_text(t, m, "{\"layers\": {\"2\": {\"experts\": [1, 2, 3, 4]}}}", &p),
            MT_E_FORMAT, "layer \"2\": toy has layers 0 to 1");
    T_FAILS(t, read_text(t, m, "{\"layers\": {\"x\": {}}}", &p), MT_E_FORMAT, "layer \"x\"");
    T_FAILS(t, read_text(t, m, "{\"layers\": {\"0\": {\"experts\": [1, 2, \"3\", 4]}}}", &p),
            MT_E_FORMAT, "score 2 is no number");
    T_FAILS(t, read_text(t, m, "{\"layers\": {\"0\": {\"experts\": [1, 2, NaN, 4]}}}", &p),
            MT_E_FORMAT, "score 2 is no number");
    T_FAILS(t, read_text(t, m, "{\"layers\": {}}", &p), MT_E_FORMAT, "no scores");
    T_FAILS(t, read_text(t, m, "{\"layers\": 3}", &p), MT_E_FORMAT, "no scores");
    T_FAILS(t, read_text(t, m, "{\"layers\"", &p), MT_E_FORMAT, "scores.json");
    T_FAILS(t,
            read_text(t, m,
                      "{\"model_sha256\": \"abcdefabcdefff\", \"layers\": {\"0\": {\"experts\": "
                      "[1, 2, 3, 4]}}}",
                      &p),
            MT_E_OPTION, "scores of model abcdefabcdef, but toy is ");
    mt_model_free(m);
}
