#include "kernels/kernels.h"
#include "kernels/ref/tables.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

static const struct mt_kernels *dispatch_best;
static pthread_once_t dispatch_once = PTHREAD_ONCE_INIT;

#ifdef __x86_64__
/* Not every compiler knows "f16c" as a feature to ask for. */
static bool dispatch_has_avx2(void)
{
    unsigned a, b, c, d;

    return __builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) != 0 &&
           (c & bit_F16C) != 0;
}

static bool dispatch_has_avx512(void)
{
    return dispatch_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

const struct mt_kernels *mt_kernels_named(const char *isa)
{
    if (strcmp(isa, "ref") == 0)
        return &mtk_table_ref;
#ifdef __x86_64__
    if (strcmp(isa, "avx2") == 0 && dispatch_has_avx2())
        return &mtk_table_avx2;
    if (strcmp(isa, "avx512") == 0 && dispatch_has_avx512())
        return &mtk_table_avx512;
#endif
    return NULL;
}

static void dispatch_choose(void)
{
    static const char *const best_first[] = {"avx512", "avx2", "ref"};
    const char *wish = getenv("MOETOOL_ISA");

    if (wish != NULL)
        dispatch_best = mt_kernels_named(wish);
    for (size_t i = 0; dispatch_best == NULL; i++)
        dispatch_best = mt_kernels_named(best_first[i]);
}

const struct mt_kernels *mt_kernels_get(void)
{
    pthread_once(&dispatch_once, dispatch_choose);
    return dispatch_best;
}
