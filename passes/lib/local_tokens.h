/* local_tokens.h: what an FFN sees and should give, token by token, in a scratch file.
 *
 * A text comes subject by subject, and who learns from it in batches wants them mixed; a pass is
 * shown its tokens in order and only so often. So they go to a scratch file (scratch.h), 8 bytes
 * for each input feature and a bit for each expert, and are read back in any order. Held out is
 * what refit.h holds out.
 *
 * Threads: one caller; uses the pool. Memory: mt_local_tokens_bytes, however many tokens there are.
 */
#ifndef MT_PASSES_LOCAL_TOKENS_H
#define MT_PASSES_LOCAL_TOKENS_H

#include "lib/base/ctx.h"

struct mt_local_tokens {
    int64_t hidden, n_tokens;
    int n_experts;
    int64_t n_fit, n_held; /* of n_tokens: to learn from, held out */
    int64_t put;           /* tokens that are in the file */
    double energy;         /* sum of |y|^2 over those to learn from */
    uint64_t order;        /* they are drawn in */
    int fd;
    const char *dir; /* for messages */
    size_t record;   /* bytes of a token */
    unsigned char *block;
};

uint64_t mt_local_tokens_bytes(int64_t hidden, int n_experts);
uint64_t mt_local_tokens_file_bytes(int64_t hidden, int n_experts, int64_t n_tokens);
MT_NODISCARD mt_status mt_local_tokens_open(struct mt_ctx *ctx, int64_t hidden, int n_experts,
                                            int64_t n_tokens, struct mt_local_tokens **out);
void mt_local_tokens_close(struct mt_local_tokens *k); /* NULL is fine */
/* x, y [m, hidden] and picked [m, n_experts] of tokens token0 and so on, each once. MT_E_IO when
 * the file cannot be written. */
MT_NODISCARD mt_status mt_local_tokens_put(struct mt_ctx *ctx, struct mt_local_tokens *k,
                                           int64_t token0, int64_t m, const float *x,
                                           const float *y, const unsigned char *picked);
/* Token i of those to learn from in the order that `order` stands for: a permutation, computed. */
int64_t mt_local_tokens_drawn(const struct mt_local_tokens *k, int64_t i);
/* The same of m tokens from the i-th on, of those held out or in the order of those drawn. */
MT_NODISCARD mt_status mt_local_tokens_get(struct mt_ctx *ctx, const struct mt_local_tokens *k,
                                           bool held, int64_t i, int64_t m, float *x, float *y,
                                           unsigned char *picked);
#endif
