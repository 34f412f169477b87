/* method.h: the parts a conversion is made of, each one file and one line of parts.def.
 *
 *   method   which neurons go where: index lists of shared and routed experts, which may leave
 *            neurons out or hold some more than once
 *   router   which experts act for a token: a row per expert, perhaps with an intercept
 *   refit    what the experts' weights become, given those choices
 *
 * convert_ffn.c runs them layer by layer. A layer's activations are shown several times
 * (mt_pass.rounds): first to the method for as many rounds as it wants, then it decides; then to
 * the router maker, with the experts' contribution norms, then it makes the router; then to the
 * refit, with the router's own choices. Each part counts its rounds from 0. Inputs come from the
 * edited prefix as it is stored (sequential). So nothing is kept between rounds but what a part
 * sums up or samples itself.
 *
 * Without calibration data no `observe` is called: begin, decide (make, solve), end. A part that
 * cannot do without says so with `data`. A part that must treat NaN gently asks mt_ctx_allow_nan.
 *
 * All hooks run on one thread and use the pool inside. Hooks that are NULL are skipped. What
 * `begin` gives as *state is handed to the others and ended by `end`, which also runs after
 * failures and must take NULL. Everything must be the same for any thread count.
 */
#ifndef MT_PASSES_CONVERT_METHOD_H
#define MT_PASSES_CONVERT_METHOD_H

#include "lib/flow/pass.h"
#include "passes/convert/convert_opts.h"
#include "passes/lib/layer_numbers.h"
#include "passes/lib/local_fit.h"
#include "passes/lib/moe_shape.h"
#include "passes/lib/neurons.h"
#include "passes/lib/router_fit.h"
#include "passes/lib/router_form.h"
#include "passes/lib/split.h"

/* The layer at hand, as every part sees it. Borrowed, read-only. */
struct mt_convert_at {
    const struct mt_convert_opts *o;
    enum mt_router_labels labels; /* after auto */
    const struct mt_model *src;
    const struct mt_moe_shape *shape;
    const struct mt_dense_ffn *dense; /* records of the source's FFN; NULL in `memory`, `rounds` */
    int layer;
    bool observed;                 /* activations were shown to this layer */
    const struct mt_split *split;  /* from `decide` on */
    const int32_t *representative; /* from `decide` on; NULL: the method names none */
    const float *weight;           /* from `decide` on; of mt_convert_division */
    const float *scale;            /* likewise */
    const float *router;           /* [E, hidden], from `make` on, as it will be stored; NULL: it is
                                      not linear */
    const float *router_bias;      /* [E], selection only; NULL: none */
};

/* What a method decides. Given to the caller, who frees it. */
struct mt_convert_division {
    struct mt_split *split;  /* lists; sizes as at->shape says */
    float *scale;            /* [E] on each routed expert's output; NULL: 1 */
    int shared_by;           /* enum mt_shared_by */
    int32_t *representative; /* [E] a neuron that speaks for each expert; NULL: none is named */
    float *weight; /* [entries of the lists] on each entry's down column; NULL: 1. For neurons that
                      several experts hold; contribution norms do not know of it */
    struct mt_json *facts; /* what else the report should say of this layer; NULL: nothing */
};

struct mt_convert_method {
    const char *name, *summary;
    const char *help;   /* a paragraph for `moetool passes convert-ffn`; cites the source */
    const char *router; /* maker that --router auto takes when activations were shown */
    const char *refit;  /* refit that --refit auto takes then */
    int labels;         /* enum mt_router_labels that --labels auto is */
    bool data;          /* cannot do without activations */
    unsigned needs;     /* MT_NEED_INPUTS | HIDDEN | OUTPUT: what `observe` reads */

    /* It asks src->profile what neurons did in each domain, before shapes are fixed: the caller
     * measures that first (mt_pass.profiles). */
    bool profiles;
    bool (*profiles_if)(const struct mt_convert_opts *o); /* ... with these options only */

    /* Shapes of the result: N, k, S, widths, target. NULL: mt_moe_shape_read of the options. */
    mt_status (*shape)(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                       const struct mt_model *src, struct mt_moe_shape *shape);
    /* Widths of one layer, where they are not the same everywhere (own_widths): *shape is a copy of
     * the whole's. Only the native layout holds such layers. NULL: all alike. */
    mt_status (*layer_shape)(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                             const struct mt_model *src, int layer, struct mt_moe_shape *shape);
    int (*rounds)(const struct mt_convert_at *at); /* NULL: 0, decides without activations */
    uint64_t (*memory)(const struct mt_convert_at *at);
    mt_status (*begin)(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state);
    mt_status (*observe)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                         const struct mt_observation *ob);
    mt_status (*decide)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                        struct mt_convert_division *out);
    void (*end)(void *state);
};

/* What a router maker makes; arrays are the caller's and zeroed. */
struct mt_convert_routing {
    float *w;                   /* [E, hidden] */
    float *bias;                /* [E] intercepts; stored where the target can hold them */
    bool has_bias;              /* the maker filled `bias` */
    bool keep_scale;            /* logits matter as they are: no flattening */
    struct mt_router_form form; /* of a maker that has `form`: open, and w is NULL */
    const char *made; /* the maker that did it in the end, when it was another; NULL: this one */
    struct mt_json *facts; /* what else the report should say of this layer; NULL: nothing */
};

struct mt_convert_router {
    const char *name, *summary;
    const char *help;
    bool data;
    bool norms; /* `observe` wants the contribution norms */

    /* What kind it makes, when that is not linear; at->dense is NULL. Only the native layout holds
     * it: --arch auto takes that, and every other target gets the linear router nearest to it,
     * fitted to its choices (convert_near.c). NULL: linear. */
    void (*form)(const struct mt_convert_at *at, struct mt_router *is);
    int (*rounds)(const struct mt_convert_at *at);
    uint64_t (*memory)(const struct mt_convert_at *at);
    mt_status (*begin)(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                       void **state);
    /* norms[m, E] = ||V_e h_e||; x and h are there, y is not */
    mt_status (*observe)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                         const struct mt_observation *ob, const float *norms);
    mt_status (*make)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                      struct mt_convert_routing *out);
    void (*end)(void *state);
};

/* What a refit makes. Columns of `down` are those of the lists, shared first (split.h): column
 * S I + e I + i is neuron i of expert e. Given to the caller. */
struct mt_convert_down {
    float *down; /* [hidden, (S + E) I]; NULL: the source's columns stay */
    float *gain; /* [E] on routed experts' outputs; NULL: 1 */
    /* Gate and up rows and their biases, likewise by the lists; `down` is not used here. up NULL:
     * the source's rows stay. Zero neurons stay zero. */
    struct mt_local_weights inner;
    float *bias;                  /* [hidden] added to the output; NULL: none. Only when
                                     at->shape->out_bias says that the target holds it */
    struct mt_refit_numbers told; /* for the report */
};

struct mt_convert_refit {
    const char *name, *summary;
    const char *help;
    bool inner; /* it makes gate and up rows too */
    unsigned needs;

    int (*rounds)(const struct mt_convert_at *at);
    uint64_t (*memory)(const struct mt_convert_at *at);
    const char *(*spare)(const struct mt_convert_at *at); /* mt_pass.spare */
    /* In scratch files, beside what it makes (mt_pass.scratch). NULL: nothing */
    uint64_t (*scratch)(const struct mt_convert_at *at, int64_t n_tokens);
    mt_status (*begin)(struct mt_ctx *ctx, const struct mt_convert_at *at, int64_t n_tokens,
                       void **state);
    /* picked[m, E]: 1 where the router chose the expert, else 0 */
    mt_status (*observe)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                         const struct mt_observation *ob, const unsigned char *picked);
    mt_status (*solve)(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                       struct mt_convert_down *out);
    void (*end)(void *state);
};

/* parts.c: tables from parts.def. Names start with "auto"; entry i of a table goes with name i, so
 * entry 0 is NULL. */
extern const char *const mt_convert_method_names[], *const mt_convert_router_names[],
                                                        *const mt_convert_refit_names[];
extern const struct mt_convert_method *const mt_convert_methods[];
extern const struct mt_convert_router *const mt_convert_routers[];
extern const struct mt_convert_refit *const mt_convert_refits[];
/* Index of a name; -1 when there is none. */
int mt_convert_name_find(const char *const *names, const char *name);

/* The method that the options name, or mean; NULL: static pruning. */
const struct mt_convert_method *mt_convert_method_asked(const struct mt_convert_opts *o);

/* What a conversion is given beside its options. */
struct mt_convert_given {
    bool text; /* or a file of inputs */
    bool profile;
    bool models; /* several */
};

/* MT_E_OPTION for an option that none of the asked parts reads, and for parts that look at text
 * when there is none: told before anything is read. Warns where a profile, or best without text,
 * does less than one might think. The table in convert_scope.c says who reads an option; an option
 * without a row counts as read by all. */
MT_NODISCARD mt_status mt_convert_check_scope(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                              const struct mt_convert_given *given);

/* By which name copy c of several models knows its text: the sibling's, or "base". */
const char *mt_convert_copy_name(const struct mt_model *src, const struct mt_convert_opts *o,
                                 int c);
/* The FFN's records that copy c is made of: dense, or those of a sibling in `own`. */
MT_NODISCARD mt_status mt_convert_copy_ffn(struct mt_ctx *ctx, const struct mt_convert_at *at,
                                           int c, struct mt_dense_ffn *own,
                                           const struct mt_dense_ffn **out);

/* What moe_shape.h is asked, from the options. */
struct mt_shape_ask mt_convert_ask(const struct mt_convert_opts *o);
#endif
