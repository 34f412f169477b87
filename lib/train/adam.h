/* adam.h: Adam (Kingma and Ba, arXiv 1412.6980) on one array of parameters.
 *
 * Steps are single-threaded and in a fixed order. Ownership: the optimizer owns its moments, the
 * caller parameters and gradients.
 */
#ifndef MT_TRAIN_ADAM_H
#define MT_TRAIN_ADAM_H

#include "kernels/kernels.h"
#include "lib/base/ctx.h"

struct mt_adam {
    double rate, beta1, beta2, eps;
    int64_t n, steps;
    float *m1, *m2; /* [n] */
};

/* beta 0.9 and 0.999, eps 1e-8; fields may be changed before the first step. */
MT_NODISCARD mt_status mt_adam_open(struct mt_ctx *ctx, int64_t n, double rate, struct mt_adam *a);
void mt_adam_close(struct mt_adam *a);
/* Begins a step whose parts the caller applies himself, on any thread: kernels.h, adam. */
struct mt_adam_step mt_adam_next(struct mt_adam *a);
/* w[n] by the gradient g[n]. */
void mt_adam_step(struct mt_adam *a, const double *g, float *w);
#endif
