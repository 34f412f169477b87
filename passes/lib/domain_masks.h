/* domain_masks.h: which neurons matter in which domain of text, as sets.
 *
 * Domain i's mask holds the `keep` neurons of the largest importance in it; equal ones by rising
 * index. Exactly that many, where Read-ME's code, which compares with the last one kept by >, takes
 * one less (arXiv 2410.19123, spec dense_to_moe 4.2). Masks may overlap, and some neurons may be in
 * none.
 *
 * Ownership: *given*, end with mt_domain_masks_free. Threads: none of its own.
 */
#ifndef MT_PASSES_DOMAIN_MASKS_H
#define MT_PASSES_DOMAIN_MASKS_H

#include "lib/base/ctx.h"

#include <stdint.h>

struct mt_domain_masks {
    int n; /* domains */
    int64_t width, keep;
    unsigned char *in; /* [n, width]: 1 in the mask, else 0 */
    int64_t common;    /* neurons of all masks */
    int64_t dropped;   /* of none */
};

/* Neurons that a share of them is: rounded, at least 1. */
int64_t mt_domain_keep(double share, int64_t width);

/* importance[n, width]; n >= 1, 1 <= keep <= width. */
MT_NODISCARD mt_status mt_domain_masks_make(struct mt_ctx *ctx, const double *importance, int n,
                                            int64_t width, int64_t keep,
                                            struct mt_domain_masks **out);
void mt_domain_masks_free(struct mt_domain_masks *m); /* NULL is fine */

/* Masks that hold neuron j: 0 when it is dropped, n when it is common. */
int mt_domain_masks_holders(const struct mt_domain_masks *m, int64_t j);
/* Neurons that masks a and b share; keep when a is b. */
int64_t mt_domain_masks_overlap(const struct mt_domain_masks *m, int a, int b);

/* Lists of given widths in the spirit of the masks, for formats that want all layers alike: idx
 * [shared + n * expert], rising within each list. Shared are the neurons that most masks hold, and
 * of those equally often held the ones with the largest importance as a share of each domain's sum;
 * expert i has the most important ones of domain i among the rest. When `shared` is `common` and
 * the widths add up to `keep`, these are the masks. shared + expert <= width. */
MT_NODISCARD mt_status mt_domain_fill(struct mt_ctx *ctx, const struct mt_domain_masks *m,
                                      const double *importance, int64_t shared, int64_t expert,
                                      int32_t *idx);
#endif
