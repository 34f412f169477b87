#include "lib/flow/exact.h"

#include <math.h>

__extension__ typedef __int128 exact_wide;
__extension__ typedef unsigned __int128 exact_bits;

#define EXACT_UNIT 18446744073709551616.0 /* 2^64 */
#define EXACT_LIMIT 9223372036854775808.0 /* 2^63: of the value */

static exact_wide exact_load(const struct mt_exact *s)
{
    return (exact_wide)((exact_bits)(uint64_t)s->hi << 64 | s->lo);
}

static void exact_store(struct mt_exact *s, exact_wide v)
{
    s->lo = (uint64_t)v;
    s->hi = (int64_t)(v >> 64);
}

bool mt_exact_add(struct mt_exact *sum, double term)
{
    exact_wide total;

    if (!(fabs(term) < EXACT_LIMIT)) /* NaN too */
        return false;
    /* A power of two: only rint rounds, and only what lies below the grid. */
    if (__builtin_add_overflow(exact_load(sum), (exact_wide)rint(term * EXACT_UNIT), &total))
        return false;
    exact_store(sum, total);
    return true;
}

bool mt_exact_merge(struct mt_exact *sum, const struct mt_exact *other)
{
    exact_wide total;

    if (__builtin_add_overflow(exact_load(sum), exact_load(other), &total))
        return false;
    exact_store(sum, total);
    return true;
}

double mt_exact_value(const struct mt_exact *sum)
{
    return (double)exact_load(sum) / EXACT_UNIT;
}
