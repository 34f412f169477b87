/* subset_labels.h: a token's experts as the k that together come nearest to what the routed experts
 * should give, by trying all subsets (best_subset.h): FactorLLM's exhaustive labeller. */
#ifndef MT_PASSES_CONVERT_SUBSET_LABELS_H
#define MT_PASSES_CONVERT_SUBSET_LABELS_H

#include "passes/convert/method.h"

#define MT_SUBSET_TOKENS 32 /* at a time */

struct mt_subset_labels {
    int64_t columns; /* S I + E I */
    float *v;        /* [hidden, D] down_proj */
    float *down;     /* [hidden, columns] in the order of the lists */
    float *h;        /* [MT_SUBSET_TOKENS, columns] */
    float *dense;    /* [MT_SUBSET_TOKENS, D] */
    float *all;      /* [MT_SUBSET_TOKENS, hidden] what routed experts should give */
    float *f;        /* [E, MT_SUBSET_TOKENS, hidden] what each gives */
    double *gram, *dot;
    float c; /* what experts' outputs are multiplied by */
};

/* MT_E_OPTION when there are too many subsets. End with _close, also after a failure. */
MT_NODISCARD mt_status mt_subset_labels_open(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                             struct mt_subset_labels *s);
void mt_subset_labels_close(struct mt_subset_labels *s);
uint64_t mt_subset_labels_bytes(const struct mt_convert_at *at);

/* score[m, E]: 1 for the chosen, else 0, of m <= MT_SUBSET_TOKENS tokens, rows row[i] of
 * h[..., D]. */
MT_NODISCARD mt_status mt_subset_labels_run(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                            struct mt_subset_labels *s, const float *h,
                                            const int64_t *row, int64_t m, float *score);
#endif
