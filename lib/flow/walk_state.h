/* walk_state.h: the inside of a walk, for walk*.c alone.
 *
 * Unit 0 holds the records outside layers, unit l + 1 those of layer l. A unit is written whole.
 */
#ifndef MT_FLOW_WALK_STATE_H
#define MT_FLOW_WALK_STATE_H

#include "lib/flow/journal.h"
#include "lib/flow/walk.h"
#include "lib/run/stream.h"

struct walk_pass {
    const struct mt_pass *pass;
    const void *opts;
    void *state;
    unsigned needs; /* enum mt_pass_needs; 0 when the walk has no data */
    int rounds;
};

/* Given to the caller as mt_walk_result.states: recipes of a measured plan may look into them. */
struct walk_passes {
    int n;
    struct walk_pass v[];
};

/* What observers saw of a layer's batch in the first round, kept for the rounds after it. */
struct walk_kept {
    float *x, *h, *y, *drift; /* as in mt_observation, of the whole batch */
};
struct walk_kept_shape {
    int64_t x, h, y, drift; /* columns; 0: nobody wants it */
};
/* The first batches of the layer at hand, as many as memory has room for. What is computed again
 * comes out the same, so nothing depends on how many these are. */
struct walk_keep {
    uint64_t room, held; /* bytes still allowed, and taken */
    size_t n, cap;
    struct walk_kept *v; /* [n] */
};

/* One stream's part in observing: what its observers want, and for how many rounds. */
struct walk_side {
    unsigned want; /* MT_NEED_INPUTS | HIDDEN | OUTPUT */
    int rounds;    /* 0: nobody observes this stream */
    struct mt_stream *x;
    struct walk_keep keep;
};

struct walk_streams {
    struct mt_device *dev;
    struct mt_batches batches;
    int64_t hidden, width_max; /* widest hidden layer an observer asked for; 0: none */
    int64_t block;             /* tokens shown to observers at a time */
    int64_t n_tokens;
    struct mt_runner *source, *edited; /* edited NULL when no pass is sequential */
    struct walk_side teacher, student;
    bool drift;          /* an observer compares the student with the teacher */
    bool student_at_ffn; /* the student stream stands between attention and FFN of the layer */
    mt_buf x, norm, y, h;
    float *host_x, *host_norm, *host_y, *host_h;
    float *host_dense, *host_drift; /* a batch of the teacher behind the layer; a block */
};

struct mt_walk {
    const struct mt_walk_opts *o;
    struct mt_model *plan;
    struct mt_tensor **stored; /* [n_stored] what is written: the plan's records as they are kept */
    struct mt_tensor **stored_owned; /* that list, where it is another than the plan's */
    size_t n_stored;
    struct walk_passes *passes;
    struct mt_json *manifest, *config;
    struct mt_journal_key key;
    char identity[65];
    bool forward; /* some pass gets activations */

    int n_layers, n_units;
    struct mt_tensor **records; /* that are written, unit after unit */
    size_t *unit_first;         /* [n_units + 1] */
    uint64_t *unit_bytes;       /* [n_units] */

    uint64_t record_bytes;                          /* of all units: what progress counts */
    uint64_t bytes_out, type_bytes[MT_DTYPE_COUNT]; /* as the format stores them */
    uint64_t work_bytes, memory_bytes, disk_bytes, scratch_bytes;
    struct walk_streams s;

    struct mt_outdir *out;
    char *written; /* given to the caller */
    struct mt_writer *w;
    struct mt_journal *journal;
    struct mt_json **facts; /* [n_units] what passes said of a layer; owned until journaled */
    int first_open;         /* the first layer that does not stand; n_layers: all do */
    bool resumable;         /* an interrupted run can be continued */
    bool keep_partial;      /* OUT.partial is not this run's to remove */
    char title[48];         /* of a progress region */
};

/* The name a pass reports under: its own, numbered when it comes more than once. */
void walk_pass_key(const struct mt_walk *w, int index, char *buf, size_t n);

/* walk_plan.c: plan, units, sizes, key and manifest; refuses what cannot work. */
MT_NODISCARD mt_status walk_plan(struct mt_ctx *ctx, struct mt_walk *w);
void walk_plan_free(struct mt_walk *w);
void walk_passes_free(struct walk_passes *p); /* ends the states */

/* walk_output.c */
/* Output directory, journal, writer. */
MT_NODISCARD mt_status walk_output_open(struct mt_ctx *ctx, struct mt_walk *w);
/* Ends the writer, adds what travels along, shows the result to the caller and commits. */
MT_NODISCARD mt_status walk_output_finish(struct mt_ctx *ctx, struct mt_walk *w);
void walk_output_close(struct mt_ctx *ctx, struct mt_walk *w, mt_status st);
/* Adds reports of passes and layers to the manifest. */
MT_NODISCARD mt_status walk_manifest_end(struct mt_ctx *ctx, struct mt_walk *w);

/* walk_keep.c */
/* A quarter of what is free beside `others`, which will be needed: both sides keep, and the layer's
 * weights are sized by what is free too. */
void walk_keep_open(struct mt_ctx *ctx, struct walk_keep *k, uint64_t others);
/* NULL: not kept. */
const struct walk_kept *walk_keep_find(const struct walk_keep *k, size_t batch);
/* Room for the batch that follows those kept; *out NULL when there is none. */
MT_NODISCARD mt_status walk_keep_add(struct mt_ctx *ctx, struct walk_keep *k, size_t batch,
                                     int64_t tokens, const struct walk_kept_shape *shape,
                                     const struct walk_kept **out);
/* Ends what is kept; the room stays. */
void walk_keep_drop(struct walk_keep *k);

/* walk_stream.c */
/* Batches and runners: enough to know what the forward pass needs. Allocates nothing large. */
MT_NODISCARD mt_status walk_streams_plan(struct mt_ctx *ctx, struct mt_walk *w, uint64_t *bytes,
                                         uint64_t *stream_bytes);
/* Buffers and streams, embeddings in them. */
MT_NODISCARD mt_status walk_streams_begin(struct mt_ctx *ctx, struct mt_walk *w,
                                          const char *scratch_dir);
/* Runs the source's layer over both streams and shows observers what they asked for; leaves the
 * teacher after the layer and the student before its FFN. `quiet`: nobody observes. */
MT_NODISCARD mt_status walk_streams_observe(struct mt_ctx *ctx, struct mt_walk *w, int layer,
                                            bool quiet);
/* Whether some pass observes the layer. */
bool walk_streams_asked(const struct mt_walk *w, int layer);
/* Takes the student through the plan's layer, whose records have their final sources. */
MT_NODISCARD mt_status walk_streams_advance(struct mt_ctx *ctx, struct mt_walk *w, int layer);
/* True when the student needs the plan's layer once it is written. */
bool walk_streams_want_layer(const struct mt_walk *w, int layer);
void walk_streams_free(struct mt_walk *w);
#endif
