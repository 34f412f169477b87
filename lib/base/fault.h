/* fault.h: failures that tests order, for the files of lib/base that can fail by themselves.
 *
 * A counter of 0 is off; else it counts down to the failing call. Any thread.
 */
#ifndef MT_BASE_FAULT_H
#define MT_BASE_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint64_t mt_fault;

/* True for the one call that is to fail. */
static inline bool mt_fault_now(mt_fault *left)
{
    uint64_t n = atomic_load(left);

    while (n != 0) {
        if (atomic_compare_exchange_weak(left, &n, n - 1))
            return n == 1;
    }
    return false;
}
#endif
