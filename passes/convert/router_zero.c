/* router_zero.c
 * zero: every token gets the same experts. For conversions in which all act. */
#include "passes/convert/method.h"

static mt_status zero_make(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                           struct mt_convert_routing *out)
{
    (void)ctx;
    (void)at;
    (void)state;
    (void)out;
    return MT_OK;
}

const struct mt_convert_router mt_convert_router_zero = {
    .name = "zero",
    .summary = "no choice; for all experts acting",
    .make = zero_make,
};
