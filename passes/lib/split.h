/* split.h: the neurons of a dense FFN divided among experts, as index lists.
 *
 * S shared and N routed experts of one width I = ceil(D / (N + S)). When (N + S) I exceeds the
 * width D, the missing neurons are zero ones (index -1), which is exact; they are spread over the
 * routed experts and stand at the end of their lists. Lists are rising. The shared experts are one
 * list, because they are stored as one FFN.
 *
 * A split made with mt_split_create_sizes has sizes of its own: lists may leave neurons out and
 * hold others several times, and what speaks of S, capacities and owners does not apply to it.
 * Lists of copies (mt_split_repeat) are such ones, with I of one copy.
 */
#ifndef MT_PASSES_SPLIT_H
#define MT_PASSES_SPLIT_H

#include "lib/base/ctx.h"

#include <stdint.h>

struct mt_split {
    int64_t width;        /* D */
    int64_t expert_width; /* I */
    int n_experts, n_shared;
    int64_t shared_width; /* S I */
    int32_t *idx;         /* [shared_width + N I]: the shared list, then each expert's */
};

#define MT_SPLIT_SHARED (-1) /* owner of a shared neuron */

/* Expert width for D, N and S. MT_E_OPTION when some routed expert would have no neuron. */
MT_NODISCARD mt_status mt_split_width(struct mt_ctx *ctx, int64_t width, int n_experts,
                                      int n_shared, int64_t *expert_width);

/* Lists are not filled yet. End it with mt_split_free. */
MT_NODISCARD mt_status mt_split_create(struct mt_ctx *ctx, int64_t width, int n_experts,
                                       int n_shared, struct mt_split **out);
/* Lists of any sizes, all -1. n_shared is 1 when there is a shared list. */
MT_NODISCARD mt_status mt_split_create_sizes(struct mt_ctx *ctx, int64_t width, int n_experts,
                                             int64_t expert_width, int64_t shared_width,
                                             struct mt_split **out);
void mt_split_free(struct mt_split *s);

int64_t mt_split_entries(const struct mt_split *s); /* of all lists */
/* The lists of `one`, which has no shared neurons, `copies` times: expert g n + e is expert e of
 * copy g. */
MT_NODISCARD mt_status mt_split_repeat(struct mt_ctx *ctx, const struct mt_split *one, int copies,
                                       struct mt_split **out);

int64_t mt_split_padding(const struct mt_split *s);      /* zero neurons in all */
int64_t mt_split_shared_width(const struct mt_split *s); /* of the shared list */
const int32_t *mt_split_shared(const struct mt_split *s);
const int32_t *mt_split_expert(const struct mt_split *s, int e); /* I indices */
/* Real neurons each routed expert takes; cap[N] sums to D - S I. */
void mt_split_capacities(const struct mt_split *s, int64_t *cap);

/* Fills the lists from owner[D]: MT_SPLIT_SHARED or an expert's number, in the amounts of
 * mt_split_capacities. */
void mt_split_fill(struct mt_split *s, const int32_t *owner);

/* Who owns which neuron, by position (shared first), at random, or by k-means on unit rows.
 * `points` [n, d] are the rows of the neurons not shared, `pool` [n] their indices. */
void mt_split_contiguous(const struct mt_split *s, int32_t *owner);
MT_NODISCARD mt_status mt_split_random(struct mt_ctx *ctx, const struct mt_split *s,
                                       uint64_t stream, int32_t *owner);
/* Marks the S I best of score[D] as shared and the rest as owned by nobody yet; pool[D - S I]
 * lists the rest. */
MT_NODISCARD mt_status mt_split_share_best(struct mt_ctx *ctx, const struct mt_split *s,
                                           const double *score, int32_t *owner, int32_t *pool);
MT_NODISCARD mt_status mt_split_cluster(struct mt_ctx *ctx, const struct mt_split *s,
                                        const int32_t *pool, const float *points, int64_t d,
                                        uint64_t stream, int32_t *owner);

/* What copies of neurons that several experts hold are multiplied by when k experts act: *weight is
 * an array for all entries, *given*, or NULL when there are none, or one expert acts. A neuron that
 * c of N experts hold acts 1 + (c - 1)(k - 1)/(N - 1) times on average when one of its experts
 * does, all choices of the others being equal; its copies are divided by that. Exact when all
 * experts act, and for what all hold. */
MT_NODISCARD mt_status mt_split_copy_weights(struct mt_ctx *ctx, const struct mt_split *s, int k,
                                             float **weight);

/* First 16 hex digits of the SHA-256 of all lists, little-endian. */
void mt_split_checksum(const struct mt_split *s, char hex[17]);
#endif
