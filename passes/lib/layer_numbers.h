/* layer_numbers.h: what one converted layer's report says.
 *
 * Numbers only, so that a resumed walk can take back what an earlier run wrote into the journal.
 * Threads: none of its own. Nothing to free.
 */
#ifndef MT_PASSES_LAYER_NUMBERS_H
#define MT_PASSES_LAYER_NUMBERS_H

#include "lib/base/json.h"
#include "passes/lib/router_fit.h"

/* What chose the shared neurons: place or chance (none), weights, activations. */
enum mt_shared_by { MT_SHARED_BY_NONE, MT_SHARED_BY_WEIGHTS, MT_SHARED_BY_ACTIVATIONS };

struct mt_layer_numbers {
    char lists[17];               /* checksum of the index lists, hexadecimal */
    int64_t padded, shared;       /* zero neurons; shared neurons */
    int shared_by;                /* enum mt_shared_by */
    int router;                   /* index into the pass's names of routers */
    int64_t flatten;              /* the router was multiplied by 2^-flatten */
    double weight_bound;          /* on |weight * alpha - 1|, whatever the text; NaN: unknown */
    struct mt_router_quality fit; /* tokens 0: nothing was measured */
};

/* Into the layer's object of the manifest. router_names: NULL-ended. */
void mt_layer_numbers_write(const struct mt_layer_numbers *n, const char *const *router_names,
                            struct mt_json *out);
/* The reverse; what is absent becomes zero. MT_E_FORMAT names a key of the wrong kind. */
MT_NODISCARD mt_status mt_layer_numbers_read(struct mt_ctx *ctx, struct mt_layer_numbers *n,
                                             const char *const *router_names,
                                             const struct mt_json *in);
#endif
