/* walk.h: the one loop. Layer by layer: observe, passes, advance, emit, journal.
 *
 * Given a source model, passes with options, and perhaps a data set and an output, the walk makes
 * the plan, lets every pass shape it, checks that the result can be held (memory, disk, family)
 * *before* output is opened, then goes through the layers. Without a pass that needs activations
 * there is no forward pass at all. Without an output the plan is left with all sources set, so it
 * can be run (measuring walk; this is how baselines are made).
 *
 * Both streams: X_source through the source's layers and, when a pass is sequential, X_student
 * through the edited ones as they will be stored. The layer is the unit of resume: the journal in
 * OUT.partial says which units stand; a resumed walk reads those back as slices of the partial
 * output, advances the streams through them and goes on. The bytes written are the same for any
 * thread count, memory limit and number of interruptions. What a killed or failed run leaves is
 * OUT.partial with its journal, or nothing.
 *
 * Memory is estimated from shapes before output is opened, and a limit that is accepted suffices.
 * Progress: one region in bytes, or with activations one in tokens and one in bytes per layer.
 * Threads: one caller; a context's pool inside.
 */
#ifndef MT_FLOW_WALK_H
#define MT_FLOW_WALK_H

#include "kernels/device.h"
#include "lib/flow/format.h"
#include "lib/flow/hidden.h"
#include "lib/flow/pass.h"
#include "lib/text/dataset.h"

struct mt_walk_pass {
    const struct mt_pass *pass;
    const void *opts;
};

struct mt_walk_opts {
    const struct mt_model *source;
    const struct mt_walk_pass *passes;
    int n_passes;
    const struct mt_dataset *data; /* NULL: no activations */
    struct mt_device *dev;         /* NULL when data is NULL */
    /* Instead of running the model: what goes into its FFNs (hidden.h); data is then
     * &hidden->about. Passes see a layer's inputs, none of what earlier layers' edits do to them.
     * NULL otherwise. */
    const struct mt_hidden *hidden;

    const struct mt_format *format;         /* NULL: measuring walk, nothing is written */
    const struct mt_format *const *formats; /* to read the result back */
    const char *out_path;
    unsigned out_flags; /* enum mt_out_flags */
    struct mt_write_opts write;
    bool dry_run;         /* plan and check; `plan` of the result is filled, nothing is written */
    bool keep_on_failure; /* keep OUT.partial for --resume when the walk fails or is interrupted
                             after a layer was finished */

    /* Called when every tensor stands in OUT.partial and the result has been opened again through
     * the reader, before the rename: validation and the model card go here. Text it adds to the
     * output becomes part of it. May be NULL. */
    mt_status (*finish)(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                        const struct mt_json *manifest, struct mt_outdir *out);
    /* Counted bytes that `finish` needs at the least, beside what is in use when it is asked, which
     * is before output is opened: what `finish` could not do is refused then. `plan` has its final
     * shapes, and pending sources. May be NULL. */
    mt_status (*finish_bytes)(struct mt_ctx *ctx, void *arg, const struct mt_model *plan,
                              uint64_t *bytes, uint64_t *scratch);
    void *finish_arg; /* of both */
};

struct mt_walk_result {
    struct mt_model *plan;    /* *given*: borrows the source model. After a measuring walk every
                                 record has its source; after a written one only shapes count */
    struct mt_json *manifest; /* *given*: what moetool.json holds */
    char *written;            /* *given*: OUT, or the first of its parts; NULL when nothing was */
    uint64_t bytes_out;       /* tensor bytes of the output, as its format stores them */
    uint64_t type_bytes[MT_DTYPE_COUNT]; /* the same by type */
    uint64_t memory_bytes;               /* computed peak of counted memory */
    uint64_t disk_bytes;    /* needed on the output's file system, without scratch_bytes */
    uint64_t scratch_bytes; /* most that files in mt_scratch_dir will hold */
    void *states;           /* pass states, which the plan's recipes may use; ended by
                               mt_walk_result_free */
};

MT_NODISCARD mt_status mt_walk_run(struct mt_ctx *ctx, const struct mt_walk_opts *o,
                                   struct mt_walk_result *out);
void mt_walk_result_free(struct mt_walk_result *r);

/* SHA-256 over config, headers' names, dtypes, shapes and sampled pages of tensor data. A few
 * changed bytes may lie between those pages: the journal also holds sizes and dates of the files.
 */
MT_NODISCARD mt_status mt_model_identity(struct mt_ctx *ctx, const struct mt_model *m,
                                         char hex[65]);

#define MT_VERSION "0.1.0"
#define MT_MANIFEST_NAME "moetool.json"
#define MT_JOURNAL_NAME "moetool.journal"
#endif
