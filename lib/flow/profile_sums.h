/* profile_sums.h: the sums of one layer while its windows go by; for profile_run.c alone.
 *
 * A window's sums are plain fp64, made row by row; sums_flush adds them to the domain's exact ones.
 * Counts, maxima and Gram matrices go to their domain at once.
 */
#ifndef MT_FLOW_PROFILE_SUMS_H
#define MT_FLOW_PROFILE_SUMS_H

#include "lib/flow/profile.h"

struct sums_stat {
    int64_t rows, cols;
    double *window;          /* SUM: [rows*cols] of the window at hand */
    struct mt_exact **exact; /* SUM: [n_domains] of [rows*cols] */
    double **plain;          /* others: [n_domains] of [rows*cols] */
};

struct sums {
    struct sums_stat stats[MT_STAT_COUNT_ALL]; /* rows 0: not measured */
    int n_domains, domain;                     /* domain: of the window at hand */
    void **pointers;                           /* storage of `exact` and `plain` */
};

/* Counted bytes of a layer's sums. */
uint64_t sums_bytes(const struct mt_profile *p, int layer);
MT_NODISCARD mt_status sums_open(struct mt_ctx *ctx, const struct mt_profile *p, int layer,
                                 struct sums *s);
void sums_close(struct sums *s);
/* The window's sums where they are added, or NULL when not measured. */
double *sums_at(struct sums *s, enum mt_stat stat);

/* Column sums of m rows x[width]; any of the outputs may be NULL. */
struct sums_columns {
    double *sum, *abs, *sq, *max;
};
MT_NODISCARD mt_status sums_add_columns(struct mt_ctx *ctx, const struct sums_columns *to,
                                        const float *x, int64_t m, int64_t width);
/* count[j] += 1 for each row where |x_j| is among the k largest; ties to the lowest index. */
MT_NODISCARD mt_status sums_add_top(struct mt_ctx *ctx, double *count, const float *x, int64_t m,
                                    int64_t width, int k);
/* Ends a window: MT_E_NUMERIC names the layer and statistic when a sum is no number or too large.
 */
MT_NODISCARD mt_status sums_flush(struct mt_ctx *ctx, struct sums *s, int layer);
/* Sets a part of p from the sums. */
MT_NODISCARD mt_status sums_set(struct mt_ctx *ctx, struct sums *s, struct mt_profile *p, int layer,
                                enum mt_stat stat, int domain);
#endif
