/* hidden.h: FFN inputs from a file, for models that cannot be run.
 *
 * A file of tensors holds what goes into each layer's feed-forward block: one matrix per layer,
 * [tokens, hidden], of any plain float dtype. The k-th matrix of the file's names in natural order
 * (numbers as numbers) belongs to layer k; matrices of other widths are passed over. Layers may
 * have different numbers of tokens.
 *
 * The last fifth of each layer's tokens is held out: a conversion sees the rest
 * (mt_walk_opts.hidden) and is measured on what it has not seen, by the relative error of each
 * block's output, |y' - y| / |y|. That is the only measure there is: what an error means for the
 * whole model is unknown where the model does not run.
 *
 * Threads: one caller. A file must be as its writer left it for as long as it is used.
 */
#ifndef MT_FLOW_HIDDEN_H
#define MT_FLOW_HIDDEN_H

#include "kernels/device.h"
#include "lib/ir/model.h"
#include "lib/text/dataset.h"

struct mt_hidden {
    struct mt_model *file; /* owned */
    int n_layers;
    int64_t hidden;
    const struct mt_tensor **layer; /* [n_layers] */
    int64_t *n_fit;                 /* [n_layers] tokens that observers see */
    struct mt_dataset about;        /* numbers, name and SHA-256; no windows' ids */
};

/* Lists the matrices of `file` (records of any names, taken also on failure). MT_E_FORMAT tells how
 * many there are for how many layers. `name` is what reports call it. *out is *given*. */
MT_NODISCARD mt_status mt_hidden_open(struct mt_ctx *ctx, struct mt_model *file, const char *name,
                                      int n_layers, int64_t hidden, struct mt_hidden *out);
void mt_hidden_free(struct mt_hidden *h);

/* The widest FFN input in a file of hidden states, to tell a model's hidden size beforehand: the
 * columns that most matrices have. 0 when there is no matrix. */
int64_t mt_hidden_size(const struct mt_model *file);

/* Rows [row, row + m) of layer l as floats. MT_E_NUMERIC names what is NaN or infinite. */
MT_NODISCARD mt_status mt_hidden_rows(struct mt_ctx *ctx, const struct mt_hidden *h, int l,
                                      int64_t row, int64_t m, float *x);

/* The error of each layer's block of `cand` against `ref` on the held-out tokens, and the square
 * root of the mean of squares over all layers behind them: error [n_layers + 1]. */
MT_NODISCARD mt_status mt_hidden_errors(struct mt_ctx *ctx, const struct mt_hidden *h,
                                        const struct mt_model *ref, const struct mt_model *cand,
                                        struct mt_device *dev, double *error);
/* Counted bytes that takes beside what the runners of both take for a layer. */
uint64_t mt_hidden_error_bytes(const struct mt_hidden *h);
#endif
