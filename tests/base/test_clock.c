#include "lib/base/clock.h"

#include "tests/t.h"

T_TEST(time_never_goes_back)
{
    double first = mt_clock_seconds(), last = first;

    for (int i = 0; i < 1000; i++) {
        double now = mt_clock_seconds();
        T_CHECK(t, now >= last);
        last = now;
    }
    T_CHECK(t, last > first && last - first < 60);
}
