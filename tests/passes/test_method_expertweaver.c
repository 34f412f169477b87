#include "tests/planted.h"

#include "lib/base/json.h"
#include "tests/pass_run.h"
#include "tests/profile_kit.h"
#include "tests/toy.h"

#include <math.h>

/* Texts of one class each, as long as the method's samples. */
static const struct planted_spec spec = {
    .groups = 4, .per_group = 6, .common = 6, .run = 256, .noise = 0.05, .seed = 4};
#define OPTIONS "method=expertweaver experts=4 active=2 shared=1 arch=native"

T_TEST(planted_groups_become_experts)
{
    struct mt_convert_division d;
    struct planted p;
    double varied, share;

    if (!planted_open(t, &spec, OPTIONS, &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "expertweaver", &d));
    T_CHECK(t, planted_found(&p, d.split));
    /* All but the common neurons answer to some texts only. */
    T_OK(t, mt_json_get_num(&t->ctx, d.facts, "specialised_share", -1, &varied));
    T_NEAR(t, varied, 24 / 30.0, 1e-12);
    T_OK(t, mt_json_get_num(&t->ctx, d.facts, "shared_share_suggested", -1, &share));
    T_NEAR(t, share, 0.7 - 0.5 * 24 / 30.0, 1e-12);
    planted_division_free(&d);
    planted_close(&p);
}

/* When every stretch holds all classes profiles tell nothing: the method needs texts that differ.
 */
T_TEST(mixed_texts_tell_nothing)
{
    struct planted_spec mixed = spec;
    struct mt_convert_division d;
    struct planted p;

    mixed.run = 0;
    if (!planted_open(t, &mixed, OPTIONS, &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "expertweaver", &d));
    T_CHECK(t, mt_split_padding(d.split) == 0);
    double varied;
    T_OK(t, mt_json_get_num(&t->ctx, d.facts, "specialised_share", -1, &varied));
    T_CHECK(t, varied < 0.5);
    planted_division_free(&d);
    planted_close(&p);
}

T_TEST(no_text_is_refused)
{
    struct mt_convert_division d = {0};
    struct planted p;
    void *state = NULL;

    if (!planted_open(t, &spec, OPTIONS, &p))
        return;
    const struct mt_convert_method *m =
        mt_convert_methods[mt_convert_name_find(mt_convert_method_names, "expertweaver")];
    T_OK(t, m->begin(&t->ctx, &p.at, &state));
    T_FAILS(t, m->decide(&t->ctx, &p.at, state, &d), MT_E_OPTION, "--data");
    m->end(state);
    planted_close(&p);
}

/* What --shared cv gives layer l, from the profile by loops. */
static int64_t shared_of(struct t *t, const struct mt_profile *p, int l, int64_t w)
{
    double a[2][64] = {{0}}, varied = 0;

    for (int i = 0; i < 2; i++) {
        double n = 0;
        if (mt_profile_get(&t->ctx, p, l, MT_STAT_TOKENS, mt_profile_domain(p, i), &n, 1) !=
                MT_OK ||
            mt_profile_get(&t->ctx, p, l, MT_STAT_A_SUM, mt_profile_domain(p, i), a[i],
                           (size_t)w) != MT_OK)
            t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
        for (int64_t j = 0; j < w; j++)
            a[i][j] /= n;
    }
    for (int64_t j = 0; j < w; j++) /* of two numbers the deviation is half their distance */
        varied += fabs(a[0][j] - a[1][j]) / 2 > 0.6 * fabs(a[0][j] + a[1][j]) / 2;
    return llround((0.7 - 0.5 * varied / (double)w) * (double)w);
}

/* Layers share what their own gates suggest; nothing is lost or doubled. */
T_TEST(shared_by_layer_follows_the_rule)
{
    struct profile_kit_text a, b;
    struct mt_model *m = NULL;
    struct mt_profile *p = NULL;
    static struct noise_data data;
    struct mt_walk_result r;
    double off = 1;

    T_OK(t, toy_model(&t->ctx, &(struct toy){.layers = 4, .width = 50, .seed = 3}, &m));
    profile_kit_text(&a, "one", 0, 1);
    profile_kit_text(&b, "two", 1, 1);
    struct mt_dataset sets[2] = {a.set, b.set};
    T_OK(t, profile_kit_measure(&t->ctx, m, "cpu", sets, 2, true, &p));
    T_EQ_INT(t, mt_profile_n_domains(p), 2);
    m->profile = p;
    noise_data(&data, 4, (int)m->hp.vocab, 4);
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=expertweaver shared=cv arch=native experts=4 active=4", m, &data.set,
                     &r));
    bool differ = false;
    for (int l = 0; l < 4; l++) {
        int64_t want = shared_of(t, p, l, 50);
        T_EQ_INT(t, r.plan->ffn[l].shared_width, want);
        T_EQ_INT(t, r.plan->ffn[l].width, (50 - want + 3) / 4);
        differ = differ || want != r.plan->ffn[0].shared_width;
    }
    T_CHECK(t, differ);
    T_OK(t, logits_distance(&t->ctx, "ref", r.plan, m, &off));
    T_NEAR(t, off, 0, 1e-10);
    mt_walk_result_free(&r);
    /* A share of the width is meant over all layers. */
    T_OK(t, run_pass(&t->ctx, "convert-ffn",
                     "method=expertweaver shared=cv arch=native experts=8 active=75%", m, &data.set,
                     &r));
    double acts = 0;
    for (int l = 0; l < 4; l++)
        acts += (double)(r.plan->ffn[l].shared_width + r.plan->ffn[l].k * r.plan->ffn[l].width);
    T_NEAR(t, acts / 200, 0.75, 0.06);
    mt_walk_result_free(&r);
    T_FAILS(t,
            run_pass(&t->ctx, "convert-ffn", "method=expertweaver shared=cv experts=4", m,
                     &data.set, &r),
            MT_E_OPTION, "--arch native");
    m->profile = NULL;
    T_FAILS(t,
            run_pass(&t->ctx, "convert-ffn", "method=expertweaver shared=cv arch=native experts=4",
                     m, &data.set, &r),
            MT_E_OPTION, "at least two with --data NAME=FILE");
    mt_profile_free(p);
    mt_model_free(m);
}
