/* Which kernels OpenBLAS picks, and how many threads it uses: one, for the pool's workers call it
 * at the same time. */
#include "kernels/linalg.h"

#include <cblas.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#define BLAS_CORE "OPENBLAS_CORETYPE"
#define BLAS_GUARD "MOETOOL_BLAS_PREPARED"

/* The fastest core of this CPU when OpenBLAS, being older than the CPU, chose a slower one; NULL
 * when its choice stands. Measured on one Sapphire Rapids thread (2048^3 products): Prescott, which
 * it chose, 33 GFLOP/s; Haswell 82; SkylakeX 159; Cooperlake 157. */
static const char *blas_better_core(void)
{
#ifdef __x86_64__
    static const char *const wide[] = {"SkylakeX", "Cooperlake", "SapphireRapids"};
    static const char *const middle[] = {"Haswell", "Zen"};
    const char *core = mt_blas_core();

    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++)
        if (strcasecmp(core, wide[i]) == 0)
            return NULL;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        return __builtin_cpu_supports("avx512bf16") ? "Cooperlake" : "SkylakeX";
    for (size_t i = 0; i < sizeof middle / sizeof middle[0]; i++)
        if (strcasecmp(core, middle[i]) == 0)
            return NULL;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell" : NULL;
#else
    return NULL;
#endif
}

void mt_blas_prepare(int argc, char **argv)
{
    const char *core = blas_better_core();

    (void)argc;
    openblas_set_num_threads(1);
    if (core == NULL || getenv(BLAS_CORE) != NULL || getenv(BLAS_GUARD) != NULL)
        return;
    /* One thread from the start also spares the buffers of threads that would never be used. */
    if (setenv(BLAS_CORE, core, 1) != 0 || setenv(BLAS_GUARD, "1", 1) != 0 ||
        setenv("OPENBLAS_NUM_THREADS", "1", 1) != 0)
        return;
    execv("/proc/self/exe", argv);
    unsetenv(BLAS_CORE);
}

const char *mt_blas_core(void)
{
    return openblas_get_corename();
}
