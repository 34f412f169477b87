/* layer_numbers.h: what one converted layer's report says.
 *
 * Numbers only, so that a resumed walk can take back what an earlier run wrote into the journal.
 * Threads: none of its own. `facts` is freed by who holds the numbers.
 */
#ifndef MT_PASSES_LAYER_NUMBERS_H
#define MT_PASSES_LAYER_NUMBERS_H

#include "lib/base/json.h"
#include "passes/lib/router_probe.h"

/* What chose the shared neurons: place or chance (none), weights, activations. */
enum mt_shared_by { MT_SHARED_BY_NONE, MT_SHARED_BY_WEIGHTS, MT_SHARED_BY_ACTIVATIONS };

/* What a refit did. Errors are sum |y' - y|^2 / sum |y|^2 of the layer's FFN
 * on tokens held out from the fit; NaN: not measured. */
struct mt_refit_numbers {
    int64_t tokens, held_out; /* fitted to, held out; 0: nothing was fitted */
    double before, after;     /* with the source's columns, with those that were taken */
    double lambda;            /* of the taken solution; NaN: none */
    bool reverted;            /* the source's weights did better and stay */
    /* Where gate and up rows were trained too (local_fit.h). */
    bool trained;
    int64_t epoch; /* whose weights were taken; 0: none did better than the refit of down columns */
    double down;   /* error after that */
};

/* As object "refit" of out; nothing when nothing was fitted. */
void mt_refit_numbers_write(const struct mt_refit_numbers *r, struct mt_json *out);

struct mt_layer_numbers {
    char lists[17];               /* checksum of the index lists, hexadecimal */
    int64_t padded, shared;       /* zero neurons; shared neurons */
    int64_t dropped, copies;      /* neurons in no list; entries beyond a neuron's first */
    int shared_by;                /* enum mt_shared_by */
    int router;                   /* index into the pass's names of routers */
    int64_t flatten;              /* the router was multiplied by 2^-flatten */
    double weight_bound;          /* on |weight * alpha - 1|, whatever the text; NaN: unknown */
    struct mt_router_quality fit; /* tokens 0: nothing was measured */
    double near; /* share of choices that a stand-in shares with the router it stands for; 0: the
                    router is itself */
    struct mt_refit_numbers refit;
    struct mt_json *facts; /* of the method's own; owned; NULL: none */
};

/* Into the layer's object of the manifest. router_names: NULL-ended. */
MT_NODISCARD mt_status mt_layer_numbers_write(struct mt_ctx *ctx, const struct mt_layer_numbers *n,
                                              const char *const *router_names, struct mt_json *out);
/* The reverse; what is absent becomes zero. MT_E_FORMAT names a key of the wrong kind. */
MT_NODISCARD mt_status mt_layer_numbers_read(struct mt_ctx *ctx, struct mt_layer_numbers *n,
                                             const char *const *router_names,
                                             const struct mt_json *in);
#endif
