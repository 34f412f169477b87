/* partition.h: which neuron of a dense FFN goes to which expert. */
#ifndef MT_PASSES_PARTITION_H
#define MT_PASSES_PARTITION_H

#include "passes/lib/neurons.h"
#include "passes/lib/split.h"

enum mt_partition_how {
    MT_PARTITION_CONTIGUOUS, /* as they stand, the first ones shared */
    MT_PARTITION_RANDOM,     /* all by lot */
    /* shared: those that act most; routed: balanced k-means on unit rows of gate (of a plain FFN of
     * up), of up, or of both side by side */
    MT_PARTITION_CLUSTER,
    MT_PARTITION_CLUSTER_UP,
    MT_PARTITION_CLUSTER_BOTH,
    /* Those below look at activations, which is more than this file does (convert/divide.h). */
    MT_PARTITION_COACTIVATION,
    MT_PARTITION_IMPORTANCE,
    MT_PARTITION_IMPORTANCE_OVERLAP,
};

static inline bool mt_partition_clusters(enum mt_partition_how how)
{
    return how >= MT_PARTITION_CLUSTER && how <= MT_PARTITION_CLUSTER_BOTH;
}

/* Makes and fills the index lists of one layer; *given*. `sums` (of |h|, over tokens) tell which
 * neurons act most: mean |h_j| ||v_j||; without tokens it is ||g_j|| ||u_j|| ||v_j||. Random
 * choices depend on the context's seed and `stream`.
 * Memory: the rows as floats, and mt_kmeans_balanced's. */
MT_NODISCARD mt_status mt_partition_ffn(struct mt_ctx *ctx, enum mt_partition_how how,
                                        const struct mt_dense_ffn *f,
                                        const struct mt_neuron_sums *sums, int n_experts,
                                        int n_shared, uint64_t stream, struct mt_split **out);
#endif
