/* generate.h: text from a model, to see with one's own eyes. */
#ifndef MT_RUN_GENERATE_H
#define MT_RUN_GENERATE_H

#include "lib/run/runner.h"
#include "lib/text/tokenizer.h"

struct mt_generate_opts {
    int64_t max_tokens;
    double temperature; /* 0: greedy */
    double top_p;       /* 1: off */
    uint64_t seed;
    int64_t eos_id; /* -1: none */
    bool allow_nan; /* go on when predictions are not finite */
};

struct mt_generate_stats {
    int64_t prompt_tokens, new_tokens;
    double prompt_seconds, new_seconds;
    bool not_finite; /* predictions were; generation stopped there unless allowed to go on */
};

/* Continues `ids` (prompt, at least one id), appending what is generated. `token` (may be NULL) is
 * called after each new id; a failure it returns ends generation. Stops at eos, max_tokens or the
 * model's context length. Layers stay open while the whole model fits the budget. */
MT_NODISCARD mt_status mt_generate(struct mt_ctx *ctx, const struct mt_model *m,
                                   struct mt_device *dev, const struct mt_generate_opts *opts,
                                   struct mt_ids *ids,
                                   mt_status (*token)(struct mt_ctx *ctx, void *arg, int32_t id),
                                   void *arg, struct mt_generate_stats *stats);
#endif
