/* router_sample.h: tokens kept to fit a router by gradient steps, spread evenly over the data.
 *
 * Threads: one caller. Memory: mt_router_sample_bytes.
 */
#ifndef MT_PASSES_ROUTER_SAMPLE_H
#define MT_PASSES_ROUTER_SAMPLE_H

#include "lib/base/ctx.h"

#define MT_ROUTER_SAMPLE_TOKENS 8192

struct mt_router_sample {
    int64_t d, stride, cap, tokens;
    int n;
    float *x;       /* [tokens, d] */
    float *q;       /* [tokens, n] what is learnt */
    int32_t *order; /* [tokens] a shuffling */
};

uint64_t mt_router_sample_bytes(uint64_t d, uint64_t n);
/* n_tokens: of the whole data set. */
MT_NODISCARD mt_status mt_router_sample_open(struct mt_ctx *ctx, int64_t d, int n, int64_t n_tokens,
                                             struct mt_router_sample *s);
void mt_router_sample_close(struct mt_router_sample *s);
/* True when token number `token` belongs to the sample; then add it. */
bool mt_router_sample_wants(const struct mt_router_sample *s, int64_t token);
void mt_router_sample_add(struct mt_router_sample *s, const float *x, const float *q);
/* Multiplies all inputs by one number, so that their mean square is 1 and one learning rate suits
 * every model; returns it. */
float mt_router_sample_scale(struct mt_router_sample *s);
/* Every input to length 1; zeros stay. */
void mt_router_sample_unit(struct mt_router_sample *s);
#endif
