/* trace.h: routing traces: which experts each token of each sequence went to, in every MoE layer.
 *
 * Written by `eval --trace`, read by `simulate`. The text form is JSONL, one line per sequence and
 * layer, in any order:
 *
 *   {"seq": 7, "layer": 3, "experts": [[5, 1], [0, 3], ...]}
 *
 * with one inner list per token, heaviest expert first; a number instead of an inner list is a list
 * of one, and null or -1 stands for no expert. "layer" may be left out (0), "seq" too (the line's
 * number). Lines without "experts" are skipped, but for "n_experts": so does our first line tell
 * it. Every sequence has the same layers and the same number of tokens in each.
 *
 * Memory: 2 bytes per choice. Threads: reading a trace is safe from any thread.
 */
#ifndef MT_RUN_TRACE_H
#define MT_RUN_TRACE_H

#include "lib/base/outdir.h"
#include "lib/ir/tensor.h"
#include "lib/run/stream.h"

#define MT_TRACE_NONE UINT16_MAX

struct mt_trace {
    int n_layers, k, n_experts; /* n_experts: 1 + the largest number, unless the file tells more */
    size_t n_seqs;
    size_t *first;    /* [n_seqs + 1] number of a sequence's first token */
    uint16_t *expert; /* [tokens][n_layers][k]; MT_TRACE_NONE */
    int *layer;       /* [n_layers] numbers of the layers, ascending */
};

/* JSONL. MT_E_FORMAT names file and line. End with mt_trace_free, also after a failure. */
MT_NODISCARD mt_status mt_trace_read(struct mt_ctx *ctx, const char *path, struct mt_trace *out);
/* Top-1 choices as a tensor [batches * layers, sequences, tokens] of whole numbers, -1 for none;
 * consecutive entries of the first dimension are the layers of one batch. Sequences without any
 * choice are left out. */
MT_NODISCARD mt_status mt_trace_from_tensor(struct mt_ctx *ctx, const struct mt_tensor *t,
                                            int n_layers, struct mt_trace *out);
void mt_trace_free(struct mt_trace *t);

/* A trace on its way to a file, which appears whole or not at all (outdir.h). Lines come in the
 * order of mt_trace_add; a sequence is a window of the data set. One caller. */
struct mt_trace_writer;
MT_NODISCARD mt_status mt_trace_create(struct mt_ctx *ctx, const char *path, unsigned out_flags,
                                       const struct mt_model *m, struct mt_trace_writer **out);
MT_NODISCARD mt_status mt_trace_add(struct mt_ctx *ctx, struct mt_trace_writer *w, int layer,
                                    const struct mt_batch *b, const struct mt_routing *r);
MT_NODISCARD mt_status mt_trace_commit(struct mt_ctx *ctx, struct mt_trace_writer *w);
void mt_trace_close(struct mt_trace_writer *w); /* without commit nothing is left; NULL is fine */

/* The experts of token `token` in layer index `l`: [k]. */
static inline const uint16_t *mt_trace_at(const struct mt_trace *t, size_t token, int l)
{
    return t->expert + (token * (size_t)t->n_layers + (size_t)l) * (size_t)t->k;
}
#endif
