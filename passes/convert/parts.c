#include "passes/convert/method.h"

#include <string.h>

#define MT_METHOD(file, name) extern const struct mt_convert_method mt_convert_##file;
#define MT_ROUTER(file, name) extern const struct mt_convert_router mt_convert_##file;
#define MT_REFIT(file, name) extern const struct mt_convert_refit mt_convert_##file;
#include "passes/convert/parts.def"
#undef MT_METHOD
#undef MT_ROUTER
#undef MT_REFIT

#define MT_METHOD(file, name) name,
#define MT_ROUTER(file, name)
#define MT_REFIT(file, name)
const char *const mt_convert_method_names[] = {"auto",
#include "passes/convert/parts.def"
                                               MT_CONVERT_PRUNE, NULL};
#undef MT_METHOD
#define MT_METHOD(file, name) &mt_convert_##file,
const struct mt_convert_method *const mt_convert_methods[] = {NULL,
#include "passes/convert/parts.def"
                                                              NULL, NULL};
#undef MT_METHOD
#undef MT_ROUTER

#define MT_METHOD(file, name)
#define MT_ROUTER(file, name) name,
const char *const mt_convert_router_names[] = {"auto",
#include "passes/convert/parts.def"
                                               NULL};
#undef MT_ROUTER
#define MT_ROUTER(file, name) &mt_convert_##file,
const struct mt_convert_router *const mt_convert_routers[] = {NULL,
#include "passes/convert/parts.def"
                                                              NULL};
#undef MT_ROUTER
#undef MT_REFIT

#define MT_ROUTER(file, name)
#define MT_REFIT(file, name) name,
const char *const mt_convert_refit_names[] = {"auto",
#include "passes/convert/parts.def"
                                              NULL};
#undef MT_REFIT
#define MT_REFIT(file, name) &mt_convert_##file,
const struct mt_convert_refit *const mt_convert_refits[] = {NULL,
#include "passes/convert/parts.def"
                                                            NULL};
#undef MT_METHOD
#undef MT_ROUTER
#undef MT_REFIT

int mt_convert_name_find(const char *const *names, const char *name)
{
    for (int i = 0; names[i] != NULL; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

const struct mt_convert_method *mt_convert_method_asked(const struct mt_convert_opts *o)
{
    const char *unasked = o->partition > 0 ? "partition" : "best";

    return mt_convert_methods[o->method > 0
                                  ? o->method
                                  : mt_convert_name_find(mt_convert_method_names, unasked)];
}

struct mt_shape_ask mt_convert_ask(const struct mt_convert_opts *o)
{
    return (struct mt_shape_ask){.experts = o->experts,
                                 .active = strcmp(o->active, "auto") == 0 ? "50%" : o->active,
                                 .shared = o->shared,
                                 .arch = mt_convert_arch_names[o->arch],
                                 .format = o->format,
                                 .dense = o->dense};
}
