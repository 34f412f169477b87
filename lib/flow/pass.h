/* pass.h: a transformation, described.
 *
 * A pass is a table row and a few hooks. It selects by role and edits a plan (model.h):
 *
 *   profiles whether statistics of the source must be known before all else
 *   create   reads options and the source model, refuses what cannot work, makes its state
 *   aim      right after create: what else is known of the run. For passes that choose what to
 *            make by what can be written, or fitted
 *   plan     whole model, before anything is written: final family (m->family; the walk renames),
 *            config facts and the shape of every record. Sources inside layers may stay pending;
 *            those outside layers may not
 *   memory   most counted bytes the pass will hold of its own at any time; 0 when small. The walk
 *            adds it up and refuses before output is opened
 *   scratch  adds to `out` what scratch files (scratch.h) will hold at most when so many tokens are
 *            shown; 0: none are
 *   spare    what to ask it for instead that takes less memory, "--width 10%"; NULL: nothing
 *   begin    layer l: decide what needs no activations
 *   observe  layer l: batches of activations, only when `needs` asks for them
 *   layer    layer l: set the source of every record of the layer; nothing pending remains. A
 *            record outside the FFN that is edited here must have been left pending by `plan`
 *   layer_report   layer l, after `layer`: its numbers. They stand in the journal and in the
 *            manifest under layers[l].<pass name>
 *   layer_restore  layer l of a resumed walk, which skips begin, observe and layer: takes back what
 *            layer_report said, so that `report` comes out the same. NULL: `report` must not
 *            depend on single layers
 *   report   numbers of the whole for the manifest and the user
 *   destroy  frees the state; NULL state is fine when create failed
 *
 * Reports are deterministic: no time, path or thread count. Any hook but create may be NULL. Hooks
 * run on one thread and use the pool inside. No global state; no pass edits another pass's records.
 * What a recipe needs later lies in the plan's arena: recipes run until the layer is written, on
 * any thread.
 */
#ifndef MT_FLOW_PASS_H
#define MT_FLOW_PASS_H

#include "lib/base/opt.h"
#include "lib/ir/family.h"

enum mt_pass_needs {
    MT_NEED_INPUTS = 1u << 0,  /* FFN inputs of the layer (post-norm) */
    MT_NEED_HIDDEN = 1u << 1,  /* act(Gx)*(Ux) of the source's dense FFN at those inputs; not given
                                  where the source's layer is MoE */
    MT_NEED_OUTPUT = 1u << 2,  /* the source FFN's output at those inputs */
    MT_NEED_STUDENT = 1u << 3, /* the inputs come from the edited prefix as it is stored (sequential
                                  method); without it, from the source model. The layer's own
                                  attention and norm are the source's: passes have not edited it
                                  yet */
    MT_NEED_DATA = 1u << 4,    /* cannot do without: a walk without a data set is refused before
                                  output is opened, naming the pass and --data. Without this bit the
                                  pass makes do when `observe` is never called. */
    MT_NEED_DRIFT = 1u << 5,   /* with MT_NEED_STUDENT: what the FFN would have to give beyond the
                                  source's output for the hidden states to be the source's own behind
                                  the layer */
};

/* Activations of one block of tokens (at most MT_OBSERVE_TOKENS_MAX), host fp32, row-major, valid
 * during the call. Pointers not asked for are NULL. Blocks come in data set order and are cut by
 * shapes only. */
#define MT_OBSERVE_TOKENS_MAX 2048
struct mt_observation {
    int layer;
    int round;        /* 0 .. rounds-1 */
    int64_t m;        /* tokens in this block */
    int64_t token0;   /* number of the first in the data set */
    int64_t n_tokens; /* in the whole data set */
    const float *x;   /* [m, hidden] FFN inputs */
    const float *h;   /* [m, D] */
    const float *y;   /* [m, hidden] */
    /* [m, hidden], by the measure of y; NULL when the student's hidden states are all there is */
    const float *drift;
};

struct mt_format;

/* A run of passes, beside their options and the source. */
struct mt_pass_run {
    const struct mt_format *format; /* what the result will be; NULL: nothing is written */
    bool data;                      /* activations will be shown to who asks for them */
};

/* Bytes in scratch files. */
struct mt_pass_scratch {
    uint64_t passing; /* of one layer at a time */
    uint64_t kept;    /* as long as the plan */
};

struct mt_pass {
    const char *name, *summary;
    const char *help; /* paragraphs for `moetool passes NAME`; cites the source */
    const struct mt_opt *opts;
    size_t opts_size;

    /* With these options `create` looks up in src->profile what happened in each domain of the
     * text. Who has text and no profile measures one first (profile_run.h). NULL: never. */
    bool (*profiles)(const void *opts, const struct mt_model *src);
    mt_status (*create)(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                        void **state);
    mt_status (*aim)(struct mt_ctx *ctx, void *state, const struct mt_model *src,
                     const struct mt_pass_run *run);
    /* Activations this instance wants, from its options. NULL: none. */
    unsigned (*needs)(const void *state);
    /* How often a layer's batches are shown to `observe`, all of them in order each time
     * (statistics first, then what builds on them, so that no pass has to keep activations; the
     * walk keeps them as far as memory goes).
     * NULL: once. The walk repeats until the pass with most rounds is served. */
    int (*rounds)(const void *state);
    /* Whether `observe` is called for the layer. NULL: for all. Layers that no pass asks about are
     * walked through once. */
    bool (*asks)(const void *state, int layer);
    mt_status (*plan)(struct mt_ctx *ctx, void *state, struct mt_model *m);
    uint64_t (*memory)(const void *state, const struct mt_model *m);
    void (*scratch)(const void *state, const struct mt_model *m, int64_t n_tokens,
                    struct mt_pass_scratch *out);
    const char *(*spare)(const void *state);
    mt_status (*begin)(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer);
    mt_status (*observe)(struct mt_ctx *ctx, void *state, const struct mt_observation *ob);
    mt_status (*layer)(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer);
    mt_status (*layer_report)(struct mt_ctx *ctx, void *state, int layer, struct mt_json *out);
    mt_status (*layer_restore)(struct mt_ctx *ctx, void *state, int layer,
                               const struct mt_json *numbers);
    mt_status (*report)(struct mt_ctx *ctx, void *state, struct mt_json *out);
    void (*destroy)(void *state);
};
#endif
