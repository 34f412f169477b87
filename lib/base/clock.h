/* clock.h: time that only moves forward, for durations. */
#ifndef MT_BASE_CLOCK_H
#define MT_BASE_CLOCK_H

/* Seconds since some fixed moment. */
double mt_clock_seconds(void);
#endif
