/* convert.h: the inside of convert-ffn, for convert_*.c alone.
 *
 * convert_setup.c  options and source: target, shape, parts
 * convert_ffn.c    rounds, the order of a layer's parts, the pass's row
 * convert_route.c  the router of a layer: made, flattened, measured; its choices for tokens
 * convert_store.c  shapes of the plan's records, and their sources
 * convert_near.c   the linear router nearest to one that a target cannot hold
 * convert_told.c   reports
 */
#ifndef MT_PASSES_CONVERT_H
#define MT_PASSES_CONVERT_H

#include "passes/convert/method.h"
#include "passes/lib/expert_norms.h"
#include "passes/lib/moe_plan.h"
#include "passes/lib/router_probe.h"

#define CONVERT_FLATTEN_MAX 24

/* The parts of a layer in their order; what is done so far. */
enum convert_stage { CONVERT_METHOD, CONVERT_ROUTER, CONVERT_REFIT, CONVERT_DONE };

struct convert {
    struct mt_convert_opts o;
    struct mt_moe_shape shape; /* of the widest layer, where they differ */
    int64_t active;            /* neurons that act for a token, over all layers */
    int least, most, *acting;  /* k of the converted layers; [n_layers] of each, 0: dense */
    const struct mt_convert_method *method;
    const struct mt_convert_router *router;
    const struct mt_convert_refit *refit;
    int rounds[CONVERT_DONE];
    int64_t flatten; /* -1: chosen for each layer */
    bool has_form;   /* the maker's routers are not linear: `form` tells their kind */
    bool near;       /* ... but the target's are */
    bool aimed;      /* o.arch is native for the router's sake, and was auto */
    struct mt_router form;
    bool *dense_layers; /* [n_layers]; NULL: none stays dense */
    int n_dense;
    double norm_offset;
    struct mt_dense_ffn *dense;       /* [n_layers] */
    struct mt_layer_numbers *numbers; /* [n_layers] */

    /* The layer at hand. */
    enum convert_stage stage;
    struct mt_moe_shape here; /* its shape */
    bool all_act;             /* of it, where others choose: nothing is routed or fitted */
    struct mt_convert_at at;
    const struct mt_model *plan;
    int64_t n_tokens; /* of the data; 0: nothing was shown */
    void *method_state, *router_state, *refit_state;
    struct mt_convert_division division;
    struct mt_expert_norms *norms;
    struct mt_router_probe *probe;
    struct mt_convert_routing routing;
    struct mt_router_fit *near_fit;
    bool near_made; /* routing.form is, and waits for its linear neighbour */
    struct mt_convert_down down;
};

/* Everything above "the layer at hand", from the options; may be done again when they change. */
MT_NODISCARD mt_status convert_setup(struct mt_ctx *ctx, struct convert *s,
                                     const struct mt_model *src);

/* How often a part wants to see a layer. */
int convert_part_rounds(int (*rounds)(const struct mt_convert_at *),
                        const struct mt_convert_at *at);

/* Makes the router, flattens it and says how it does. */
MT_NODISCARD mt_status convert_make_router(struct mt_ctx *ctx, struct convert *s);
/* Contribution norms of a block, to the probe and, when it wants them, to the router maker. */
MT_NODISCARD mt_status convert_show_router(struct mt_ctx *ctx, struct convert *s,
                                           const struct mt_observation *ob);
/* picked[m, E] of inputs x[m, hidden] by the router as it will be stored. */
MT_NODISCARD mt_status convert_pick(struct mt_ctx *ctx, const struct convert *s, int64_t m,
                                    const float *x, unsigned char *picked);

/* The router a target cannot hold: made as soon as its own rounds are over, its choices on a block
 * added to the fit of its neighbour, and that solved into routing.w. */
MT_NODISCARD mt_status convert_near_show(struct mt_ctx *ctx, struct convert *s,
                                         const struct mt_observation *ob);
MT_NODISCARD mt_status convert_near_solve(struct mt_ctx *ctx, struct convert *s);
/* Opens routing.form and lets the maker fill it. */
MT_NODISCARD mt_status convert_make_form(struct mt_ctx *ctx, struct convert *s,
                                         const struct mt_convert_router *maker);
/* The router that will be stored, linear or not; borrows its arrays. */
struct mt_router_form convert_stored_form(const struct convert *s);

/* --dense-layers has it. */
bool convert_stays_dense(const struct convert *s, int layer);

/* All experts of a layer act, which has its own k. */
bool convert_all_act(const struct mt_moe_shape *here);
/* The shape of one layer. */
MT_NODISCARD mt_status convert_layer_shape(struct mt_ctx *ctx, const struct convert *s, int layer,
                                           struct mt_moe_shape *out);
MT_NODISCARD mt_status convert_plan(struct mt_ctx *ctx, struct convert *s, struct mt_model *m);
/* Sources of all records of the layer. */
MT_NODISCARD mt_status convert_store(struct mt_ctx *ctx, struct convert *s, struct mt_model *m);

/* Warns where copies will not compute what the source does. */
void convert_tell_copies(struct mt_ctx *ctx, const struct convert *s);
MT_NODISCARD mt_status convert_tell(struct mt_ctx *ctx, const struct convert *s,
                                    struct mt_json *out);
#endif
