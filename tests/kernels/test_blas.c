#include "kernels/linalg.h"
#include "tests/t.h"

#include <cblas.h>
#include <stdlib.h>

/* The harness has called mt_blas_prepare: by now the core fits the machine. */
T_TEST(the_core_fits_the_machine)
{
    const char *set = getenv("OPENBLAS_CORETYPE");

    T_CHECK(t, mt_blas_core() != NULL && mt_blas_core()[0] != 0);
    if (set != NULL)
        T_CHECK(t, strcmp(mt_blas_core(), set) == 0);
#ifdef __x86_64__
    if (set == NULL && __builtin_cpu_supports("avx2"))
        T_CHECK(t, strcmp(mt_blas_core(), "Prescott") != 0);
#endif
}

T_TEST(blas_runs_on_the_calling_thread)
{
    T_CHECK(t, openblas_get_num_threads() == 1);
}
