/* baseline.h: the pass prune-ffn with its options, as yardstick of conversions or as the result. */
#ifndef MT_CMD_BASELINE_H
#define MT_CMD_BASELINE_H

#include "lib/flow/walk.h"

struct cmd_baseline {
    const char *width; /* "512" neurons or "50%"; "auto": the pass's own default */
    const char *select;
    const char *refit;    /* NULL: the pass's own default */
    double drift;         /* negative: likewise */
    int64_t refit_epochs; /* negative: likewise */
};

/* The dense width with as many active parameters as layers of m have on average: their neurons
 * (three rows each when gated, two when plain) and their routers, a row for each expert. */
int64_t cmd_baseline_width(const struct mt_model *m);

/* step->opts is *given*, by mt_free; NULL on failure. */
MT_NODISCARD mt_status cmd_baseline_step(struct mt_ctx *ctx, const struct cmd_baseline *b,
                                         struct mt_walk_pass *step);

/* What `convert` runs: convert-ffn with its options, or for method prune-baseline this pass with
 * what it takes of them. *owned: step->opts is *given*. */
MT_NODISCARD mt_status cmd_convert_step(struct mt_ctx *ctx, const void *pass_opts,
                                        struct mt_walk_pass *step, bool *owned);
#endif
