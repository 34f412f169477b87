/* profile_see.h: from rows of activations to a layer's sums; for profile_run.c alone.
 *
 * profile_see_rows is the tap (lib/run/tap.h) that sees attention's inputs, hidden layers and
 * experts; inputs and outputs of the FFN are handed in. Order within a window: attention, then for
 * each block of tokens inputs, taps, outputs.
 */
#ifndef MT_FLOW_PROFILE_SEE_H
#define MT_FLOW_PROFILE_SEE_H

#include "kernels/device.h"
#include "lib/flow/profile_sums.h"
#include "lib/run/tap.h"

struct profile_see {
    const struct mt_model *m;
    struct mt_device *dev;
    struct mt_run_layer *rl;
    int layer;
    bool all_experts;
    struct sums sums;
    int64_t block;
    float *x;       /* [block, hidden] FFN inputs of the block at hand */
    float *stage;   /* rows on their way from the device */
    int64_t room;   /* floats in it */
    double *weight; /* [block * k] of each routed row */
};

uint64_t profile_see_bytes(const struct mt_profile *p, int layer);
uint64_t profile_see_stage_bytes(const struct mt_model *m, int64_t block);
/* *s is empty after a failure. */
MT_NODISCARD mt_status profile_see_open(struct mt_ctx *ctx, struct profile_see *s,
                                        const struct mt_model *m, struct mt_device *dev,
                                        const struct mt_profile *p, int layer,
                                        struct mt_run_layer *rl, int64_t block);
void profile_see_close(struct profile_see *s);

void profile_see_begin(struct profile_see *s, int domain); /* a window */
MT_NODISCARD mt_status profile_see_inputs(struct mt_ctx *ctx, struct profile_see *s, mt_buf x,
                                          int64_t m);
MT_NODISCARD mt_status profile_see_rows(struct mt_ctx *ctx, void *see,
                                        const struct mt_tap_rows *rows);
MT_NODISCARD mt_status profile_see_outputs(struct mt_ctx *ctx, struct profile_see *s, mt_buf y,
                                           int64_t m);
MT_NODISCARD mt_status profile_see_end(struct mt_ctx *ctx, struct profile_see *s);
/* Moves a part's sums into the profile. */
MT_NODISCARD mt_status profile_see_set(struct mt_ctx *ctx, struct profile_see *s,
                                       struct mt_profile *p, enum mt_stat stat, int domain);
#endif
