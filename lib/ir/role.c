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

const char *mt_role_print(struct mt_role role, char *buf, size_t n)
{
    char layer[32] = "", expert[32] = "";

    if (role.layer >= 0)
        snprintf(layer, sizeof layer, "layers.%d.", role.layer);
    if (role.expert == MT_EXPERT_SHARED)
        snprintf(expert, sizeof expert, "shared_expert.");
    else if (role.expert >= 0)
        snprintf(expert, sizeof expert, "experts.%d.", role.expert);
    snprintf(buf, n, "%s%s%s%s", layer, expert, mt_role_label(role.kind),
             role.part == MT_PART_BIAS ? ".bias" : "");
    return buf;
}
