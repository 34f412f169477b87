/* compare_impl.h: the streaming engine behind mt_compare and mt_evaluate.
 *
 * One reference and n_cand >= 0 candidates go through the data set layer by layer; per-token
 * results are gathered in `cmp_sums`, and compare_report.c makes reports of them.
 */
#ifndef MT_RUN_COMPARE_IMPL_H
#define MT_RUN_COMPARE_IMPL_H

#include "lib/run/compare.h"
#include "lib/run/metrics.h"

struct cmp_domain {
    double kl, nll_ref, nll_cand; /* sums over tokens */
    size_t n;
};

/* Sums over one layer. */
struct cmp_layer {
    double ffn_diff, ffn_norm;     /* squares of y_c - y_r and y_r at the reference's states */
    double drift_diff, drift_norm; /* squares of x_c - x_r and x_r */
    uint64_t *slots;               /* [n_experts] routed to each expert; NULL: dense */
    int n_experts;
};

/* One model on its way through the data. */
struct cmp_model {
    struct mt_runner *r;
    struct mt_stream *stream;
    struct mt_run_layer *l; /* the open layer */
    mt_buf x;
    double seconds;
};

/* What is known of the tokens; for a candidate against the reference, or (n_cand 0) of the
 * reference alone, with kl standing for nll. */
struct cmp_sums {
    float *v; /* [n_predicted] kl, or nll, in data set order */
    double v_sum;
    size_t n, top1;
    struct cmp_domain *domains; /* [n_domains] */
    struct cmp_layer *layers;   /* [n_layers]; NULL without candidates */
    int n_layers;
};

struct cmp {
    struct mt_device *dev;
    const struct mt_dataset *data;
    const char *scratch_dir;
    const struct mt_eval_watch *watch; /* NULL: nobody looks */
    int64_t hidden;
    size_t vocab;
    struct mt_batches batches;
    struct cmp_model ref, *cand;
    int n_cand;
    struct cmp_sums *sums; /* [max(1, n_cand)] */

    mt_buf n, y, y_cand;             /* device, [tokens_max, hidden]: normed input, block outputs */
    float *hx, *hy;                  /* host: the reference's state and block output */
    float *ht;                       /* host: a candidate's */
    double *row_diff, *row_norm;     /* [tokens_max] */
    int32_t *target, *domain;        /* [tokens_max]; target -1: the last token of a window */
    struct mt_token_metrics *tokens; /* of one chunk of logits */
    int64_t head_rows;               /* tokens of one chunk of logits */
    float *logits_ref, *logits_cand; /* [head_rows, vocab] */
    uint64_t work_done, work_total, told; /* for progress */
};

size_t cmp_n_predicted(const struct mt_dataset *d);
/* Checks, runners and batches alone: enough to know what the rest needs. */
MT_NODISCARD mt_status cmp_open_models(struct mt_ctx *ctx, struct cmp *c,
                                       const struct mt_model *ref,
                                       const struct mt_model *const *cand, int n_cand,
                                       struct mt_device *dev, const struct mt_dataset *data);
int64_t cmp_head_rows(const struct cmp *c); /* tokens of one chunk of logits */
/* Bytes that are taken after the streams are there: layers, embeddings, routing, reports. */
uint64_t cmp_late_bytes(const struct mt_ctx *ctx, const struct cmp *c, int n_stored);
MT_NODISCARD mt_status cmp_open(struct mt_ctx *ctx, struct cmp *c, const struct mt_model *ref,
                                const struct mt_model *const *cand, int n_cand,
                                struct mt_device *dev, const struct mt_dataset *data,
                                const char *scratch_dir);
MT_NODISCARD mt_status cmp_run(struct mt_ctx *ctx, struct cmp *c);
void cmp_close(struct cmp *c);
#endif
