#include "tests/planted.h"

#include "lib/base/json.h"

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
