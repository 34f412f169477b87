#include "lib/ir/role.h"

#include "lib/base/status.h"

#include <stdio.h>

const char *mt_role_label(enum mt_role_kind kind)
{
    static const char *const labels[] = {
#define ROLE_LABEL(name, label) label,
        MT_ROLE_LIST(ROLE_LABEL)
#undef ROLE_LABEL
    };

    mt_assert((unsigned)kind < MT_ROLE_COUNT);
    return labels[kind];
}

const char *mt_part_label(enum mt_part part)
{
    static const char *const labels[] = {
#define ROLE_PART(name, label) label,
        MT_PART_LIST(ROLE_PART)
#undef ROLE_PART
    };

    mt_assert((unsigned)part < MT_PART_COUNT);
    return labels[part];
}

bool mt_role_is_routing(enum mt_role_kind kind)
{
    return kind == MT_ROLE_ROUTER || kind == MT_ROLE_ROUTER_BIAS || kind == MT_ROLE_ROUTER_HIDDEN ||
           kind == MT_ROLE_ROUTER_GATE || kind == MT_ROLE_ROUTER_SKIP ||
           kind == MT_ROLE_SHARED_GATE;
}

const char *mt_role_print(struct mt_role role, char *buf, size_t n)
{
    char layer[32] = "", expert[32] = "";

    if (role.layer >= 0)
        snprintf(layer, sizeof layer, "layers.%d.", role.layer);
    if (role.expert == MT_EXPERT_SHARED)
        snprintf(expert, sizeof expert, "shared_expert.");
    else if (role.expert >= 0)
        snprintf(expert, sizeof expert, "experts.%d.", role.expert);
    snprintf(buf, n, "%s%s%s%s%s", layer, expert, mt_role_label(role.kind),
             role.part == MT_PART_WEIGHT ? "" : ".",
             role.part == MT_PART_WEIGHT ? "" : mt_part_label(role.part));
    return buf;
}
