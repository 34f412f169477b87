/* prune.h: the inside of prune-ffn, for prune_*.c alone.
 *
 * prune_ffn.c    options, scores, the order of things, the pass's row
 * prune_fit.c    sums over pairs of neurons: optimal brain surgeon, refit of what is kept
 * prune_store.c  shapes of the plan's records, and their sources
 */
#ifndef MT_PASSES_PRUNE_H
#define MT_PASSES_PRUNE_H

#include "lib/flow/pass.h"
#include "passes/lib/layer_numbers.h"
#include "passes/lib/local_fit.h"
#include "passes/lib/neurons.h"

enum prune_select { PRUNE_MAGNITUDE, PRUNE_WANDA, PRUNE_FLAP, PRUNE_OBS, PRUNE_SCORE };
enum prune_refit {
    PRUNE_REFIT_AUTO,
    PRUNE_REFIT_NONE,
    PRUNE_REFIT_DOWN,
    PRUNE_REFIT_BIAS,
    PRUNE_REFIT_ALL
};

struct prune_opts {
    const char *width;
    int select, refit;
    double drift;
    int64_t refit_epochs;
};

struct prune_layer {
    struct mt_dense_ffn dense;
    struct mt_tensor *bias_gate, *bias_up, *bias_down; /* the source's; NULL: none */
    double kept;                                       /* share of the scores' sum; NaN: no sum */
    double compensation;                               /* length of the added bias */
    struct mt_refit_numbers refit;
};

struct prune_fit;

struct prune {
    struct prune_opts o;
    int n_layers;
    int64_t width, keep, hidden;
    const struct mt_model *src;
    struct prune_layer *layers; /* [n_layers] */

    /* The layer at hand. */
    struct mt_neuron_sums sums;
    struct prune_fit *fit;         /* NULL: no sums over pairs */
    int32_t *order;                /* [2 width] scratch, then the kept ones */
    int32_t *kept;                 /* [keep], rising; NULL: not chosen yet */
    float *down;                   /* [hidden, columns] refitted; NULL: the source's stay */
    int64_t columns;               /* of down: keep, and one for the bias */
    struct mt_local_weights inner; /* of the kept ones, trained; up NULL: the source's stay */
};

/* An output bias that the source lacks, or that changes. */
bool prune_adds_bias(const struct prune *s);
bool prune_refits(const struct prune *s);

/* prune_fit.c. Sums of tokens that are not held out; `*fit` is made at the first call. */
uint64_t prune_fit_bytes(const struct prune *s);
const char *prune_fit_spare(const struct prune *s); /* mt_pass.spare */
MT_NODISCARD mt_status prune_fit_add(struct mt_ctx *ctx, struct prune *s,
                                     const struct mt_observation *ob);
/* kept[keep] by optimal brain surgeon. */
MT_NODISCARD mt_status prune_fit_choose(struct mt_ctx *ctx, struct prune *s,
                                        const struct mt_dense_ffn *f, int32_t *kept);
/* Solves for the columns of s->kept; then shows held-out tokens; then takes the best. */
MT_NODISCARD mt_status prune_fit_solve(struct mt_ctx *ctx, struct prune *s,
                                       const struct mt_dense_ffn *f);
MT_NODISCARD mt_status prune_fit_check(struct mt_ctx *ctx, struct prune *s,
                                       const struct mt_observation *ob);
MT_NODISCARD mt_status prune_fit_take(struct mt_ctx *ctx, struct prune *s, int layer);
void prune_fit_free(struct prune_fit *fit);

/* prune_store.c */
MT_NODISCARD mt_status prune_plan(struct mt_ctx *ctx, struct prune *s, struct mt_model *m);
MT_NODISCARD mt_status prune_store(struct mt_ctx *ctx, struct prune *s, struct mt_model *m,
                                   int layer);
#endif
