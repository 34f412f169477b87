#include "passes/table.h"

#include <string.h>

#define MT_PASS(name) extern const struct mt_pass mt_pass_##name;
#include "passes/pass.def"
#undef MT_PASS

#define MT_PASS(name) &mt_pass_##name,
const struct mt_pass *const mt_passes[] = {
#include "passes/pass.def"
    NULL};
#undef MT_PASS

const struct mt_pass *mt_pass_find(const char *name)
{
    for (size_t i = 0; mt_passes[i] != NULL; i++)
        if (strcmp(mt_passes[i]->name, name) == 0)
            return mt_passes[i];
    return NULL;
}
