/* graph_cut.h: a weighted graph cut into parts of given sizes, so that little weight is cut.
 *
 * What LLaMA-MoE and MoEfication give to METIS (co-activation graphs; spec dense_to_moe 4.7), here
 * without that library and with exact sizes. Start: the leading vectors of the normalised graph
 * (subspace iteration), their rows grouped by balanced k-means. Then pairs of vertices of different
 * parts change places while that lowers the cut, always the best partner of one vertex at a time
 * (after Kernighan and Lin 1970), until no exchange helps; small graphs (up to about 8,000
 * vertices) are disturbed and exchanged anew a few times, the best answer counts. Not the optimum,
 * which is NP-hard, but no single exchange improves the answer. It depends on graph, sizes, seed
 * and stream only, not on the thread count.
 *
 * Time: n^2 per round of exchanges, of which there are a few. Memory: mt_graph_cut_bytes.
 */
#ifndef MT_PASSES_GRAPH_CUT_H
#define MT_PASSES_GRAPH_CUT_H

#include "lib/base/ctx.h"

#include <stdint.h>

/* Undirected: every edge stands once in the row of either end; none leads to its own start. */
struct mt_graph {
    int64_t n;
    int64_t *first; /* [n + 1] */
    int32_t *to;    /* [first[n]] */
    double *w;      /* [first[n]] positive */
};

/* The graph of a symmetric matrix: an edge stays when it is positive and among the `degree`
 * strongest of either of its ends (ties to the lower vertex). Values that are not finite fail with
 * MT_E_NUMERIC. End with mt_graph_free, also after a failure. */
MT_NODISCARD mt_status mt_graph_strongest(struct mt_ctx *ctx, int64_t n, const double *matrix,
                                          int degree, struct mt_graph *out);
void mt_graph_free(struct mt_graph *g);
uint64_t mt_graph_bytes(uint64_t n, uint64_t degree);

/* Part of each vertex in to[n]; cap[k] sums to n, 1 <= k <= n. */
MT_NODISCARD mt_status mt_graph_cut(struct mt_ctx *ctx, const struct mt_graph *g, int k,
                                    const int64_t *cap, uint64_t seed, uint64_t stream,
                                    int32_t *to);
uint64_t mt_graph_cut_bytes(uint64_t n, uint64_t k);

/* Share of all weight whose ends lie in one part; 1 of a graph without edges. */
double mt_graph_inside(const struct mt_graph *g, const int32_t *to);
#endif
