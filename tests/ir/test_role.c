#include "lib/ir/role.h"
#include "tests/t.h"

T_TEST(every_kind_has_a_label_of_its_own)
{
    for (int a = 0; a < MT_ROLE_COUNT; a++) {
        T_CHECK(t, mt_role_label((enum mt_role_kind)a)[0] != 0);
        for (int b = 0; b < a; b++)
            T_CHECK(t, strcmp(mt_role_label((enum mt_role_kind)a),
                              mt_role_label((enum mt_role_kind)b)) != 0);
    }
    T_EQ_STR(t, mt_role_label(MT_ROLE_FFN_GATE), "gate_proj");
}

T_TEST(roles_print)
{
    struct mt_role r = mt_role(MT_ROLE_FFN_UP, 3, 7);
    char buf[64];

    T_EQ_STR(t, mt_role_print(r, buf, sizeof buf), "layers.3.experts.7.up_proj");
    r.part = MT_PART_BIAS;
    r.expert = MT_EXPERT_NONE;
    T_EQ_STR(t, mt_role_print(r, buf, sizeof buf), "layers.3.up_proj.bias");
    T_EQ_STR(t, mt_role_print(mt_role(MT_ROLE_LM_HEAD, -1, MT_EXPERT_NONE), buf, sizeof buf),
             "lm_head");
}

T_TEST(every_part_has_a_label_of_its_own)
{
    struct mt_role r = mt_role_part(mt_role(MT_ROLE_FFN_UP, 3, 7), MT_PART_PLANE_SCALE);
    char buf[64];

    for (int a = 0; a < MT_PART_COUNT; a++)
        for (int b = 0; b < a; b++)
            T_CHECK(t, strcmp(mt_part_label((enum mt_part)a), mt_part_label((enum mt_part)b)) != 0);
    T_EQ_STR(t, mt_role_print(r, buf, sizeof buf), "layers.3.experts.7.up_proj.plane_scale");
    T_CHECK(t, mt_role_is_routing(MT_ROLE_ROUTER_SKIP) && !mt_role_is_routing(MT_ROLE_FFN_UP));
}
