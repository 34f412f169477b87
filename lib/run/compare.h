/* compare.h: how far candidates are from a reference, both streamed layer by layer together.
 *
 * KL is D(reference || candidate) per predicted token, in nats, from fp32 logits with fp64 sums.
 * Every window predicts its tokens 2..n. The FFN error of a layer is local: the candidate's block
 * (its norm included) is run on the *reference's* hidden state, error = ||y_c - y_r|| / ||y_r||
 * over all tokens; `drift` is the relative L2 of the two hidden states after the layer, each from
 * its own stream.
 *
 * Tied argmaxes go to the lowest id. Quantiles interpolate linearly between order statistics. The
 * standard error is that of a mean of independent tokens. Loads are those of the candidate's own
 * stream. Seconds are each model's own forward (embedding, layers, head) without local runs,
 * statistics and streams. Reports do not depend on thread count, memory limit or on how many
 * candidates are compared at once.
 *
 * Memory: one hidden-state stream per model, one layer of each, and the buffers of one batch.
 * Streams leave what the rest needs and spill.
 * scratch_dir: see stream.h.
 *
 * The candidate must have the reference's vocabulary, hidden size and layer count (MT_E_FORMAT
 * tells which differs).
 */
#ifndef MT_RUN_COMPARE_H
#define MT_RUN_COMPARE_H

#include "lib/run/stream.h"

struct mt_layer_report {
    double ffn_error, drift;
    int n_experts;       /* 0: dense */
    double *load;        /* [n_experts] share of routed slots; sums to 1 */
    double load_max;     /* max share * n_experts: 1 is perfectly even */
    double load_entropy; /* of shares, relative to ln(n_experts) */
    int dead;            /* experts no token reached */
};

struct mt_compare_report {
    size_t n_tokens; /* predicted */
    double kl_mean, kl_stderr, kl_p99, kl_max, kl_median;
    double nll_ref, nll_cand; /* mean nats per token */
    double ppl_ref, ppl_cand, ppl_ratio;
    double top1; /* share of tokens with the same argmax */
    int n_layers;
    struct mt_layer_report *layers;
    int n_domains;
    struct {
        double kl_mean, nll_ref, nll_cand;
        size_t n_tokens;
    } * domains;
    double seconds_ref, seconds_cand;
    float *kl; /* [n_tokens] per-token values in data set order, for paired statistics */
};

/* out[n_cand]; each ended by mt_compare_free. */
MT_NODISCARD mt_status mt_compare(struct mt_ctx *ctx, const struct mt_model *ref,
                                  const struct mt_model *const *cand, int n_cand,
                                  struct mt_device *dev, const struct mt_dataset *data,
                                  const char *scratch_dir, struct mt_compare_report *out);
/* Counted bytes that mt_compare needs at the least, streams spilled, beside what is in use before;
 * a limit that leaves as much suffices. For plans: candidates may have pending sources, and of the
 * first n_stored it is assumed that they will be read from files. */
MT_NODISCARD mt_status mt_compare_bytes(struct mt_ctx *ctx, const struct mt_model *ref,
                                        const struct mt_model *const *cand, int n_cand,
                                        int n_stored, struct mt_device *dev,
                                        const struct mt_dataset *data, uint64_t *bytes);
void mt_compare_free(struct mt_compare_report *r);

/* Perplexity of one model, the same way: nll per domain and over all. */
struct mt_eval_report {
    size_t n_tokens;
    double nll, ppl, nll_stderr;
    int n_domains;
    struct {
        double nll;
        size_t n_tokens;
    } * domains;
    double seconds;
};
/* Shown the routing of every batch, layer after layer; what `routing` points at is valid during the
 * call. */
struct mt_eval_watch {
    void *arg;
    mt_status (*routing)(struct mt_ctx *ctx, void *arg, int layer, const struct mt_batch *b,
                         const struct mt_routing *routing);
};
/* watch may be NULL. */
MT_NODISCARD mt_status mt_evaluate(struct mt_ctx *ctx, const struct mt_model *m,
                                   struct mt_device *dev, const struct mt_dataset *data,
                                   const char *scratch_dir, const struct mt_eval_watch *watch,
                                   struct mt_eval_report *out);
void mt_eval_free(struct mt_eval_report *r);
#endif
