/* encode.h: last hidden states of an encoder (BERT, ViT), from token ids or from given embeddings.
 *
 * Sequences see themselves whole and nothing else. A padding mask is not an argument: leave padded
 * tokens out, which gives the same numbers for the others.
 *
 * Threads: one caller.
 */
#ifndef MT_RUN_ENCODE_H
#define MT_RUN_ENCODE_H

#include "lib/run/runner.h"
#include "lib/text/dataset.h"

struct mt_encode_in {
    struct mt_seqs seqs;
    const int32_t *ids; /* tokens of all sequences, one after the other; NULL: x is given */
    const float *x;     /* [tokens, hidden] what the embedding layer gives */
};

/* last: host, [tokens, hidden]. Sequences run in batches of about mt_runner_batch_tokens tokens,
 * so memory does not grow with their number. MT_E_UNSUPPORTED when the model is no encoder. Leaves
 * the runner set to the kind of input (mt_runner_set_embedded). */
MT_NODISCARD mt_status mt_encode(struct mt_ctx *ctx, struct mt_runner *r,
                                 const struct mt_encode_in *in, float *last);
MT_NODISCARD mt_status mt_encode_f64(struct mt_ctx *ctx, struct mt_runner *r,
                                     const struct mt_encode_in *in, double *last);

/* How far `cand` is from `ref` over all windows of a data set: |y' - y| / |y| of the last hidden
 * states. Each window is one sequence. */
MT_NODISCARD mt_status mt_encode_compare(struct mt_ctx *ctx, const struct mt_model *ref,
                                         const struct mt_model *cand, struct mt_device *dev,
                                         const struct mt_dataset *data, double *error);

/* Counted bytes of a run, beside open layers: buffers of a batch of these sequences. */
uint64_t mt_encode_bytes(const struct mt_runner *r, const struct mt_seqs *seqs);
#endif
