/* stream.h: hidden states of a whole data set between layers.
 *
 * One chunk per batch of windows, fp32. Chunks live in memory while the budget has room (a third
 * of what is left when the stream is created) and otherwise in an unlinked scratch file beside the
 * output, compressed by zstd level 1. Get and put give back exactly what was put.
 * scratch_dir NULL: mt_scratch_dir(); it must outlive the stream. Threads: one caller.
 */
#ifndef MT_RUN_STREAM_H
#define MT_RUN_STREAM_H

#include "lib/run/runner.h"
#include "lib/text/dataset.h"

/* Batches: consecutive windows of a data set, at most `tokens_max` tokens each (one window at
 * least). Shapes only, so the same for any thread count or memory limit. */
struct mt_batch {
    size_t first, n; /* windows */
    int64_t tokens;
    struct mt_seqs seqs; /* lengths of the windows */
    const int32_t *ids;  /* [tokens], joined */
    int64_t token0;      /* number of the first token in the data set */
};
struct mt_batches {
    struct mt_batch *v;
    size_t n;
    int64_t tokens_max; /* of the largest */
    void *storage;
};
MT_NODISCARD mt_status mt_batches_make(struct mt_ctx *ctx, const struct mt_dataset *d,
                                       int64_t tokens_max, struct mt_batches *out);
void mt_batches_free(struct mt_batches *b);

struct mt_stream;
MT_NODISCARD mt_status mt_stream_create(struct mt_ctx *ctx, const struct mt_batches *b,
                                        int64_t hidden, const char *scratch_dir,
                                        struct mt_stream **out);
/* What a stream cannot do without: a compressed chunk, and a few words for each chunk. Twice the
 * chunk, because it first takes a third of what it finds. */
uint64_t mt_stream_least_bytes(const struct mt_batches *b, int64_t hidden);
void mt_stream_free(struct mt_stream *s);
MT_NODISCARD mt_status mt_stream_get(struct mt_ctx *ctx, struct mt_stream *s, size_t batch,
                                     float *x);
MT_NODISCARD mt_status mt_stream_put(struct mt_ctx *ctx, struct mt_stream *s, size_t batch,
                                     const float *x);
#endif
