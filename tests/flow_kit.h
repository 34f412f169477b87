/* flow_kit.h: what the tests of lib/flow share: small models on disk, passes, one call for a walk.
 *
 * Passes:
 *   kit_noop    does nothing
 *   kit_scale   multiplies every down_proj by opts.by (recipes); can fail, interrupt or die
 *   kit_watch   keeps x, h and y of every layer and round; reports sums
 *   kit_tilt    sequential: multiplies down_proj of a layer by 1 + by * mean |x| of the student's
 *               inputs, so that the output's bytes depend on every earlier layer
 */
#ifndef MT_TESTS_FLOW_KIT_H
#define MT_TESTS_FLOW_KIT_H

#include "lib/flow/walk.h"
#include "tests/t.h"

#define KIT_LAYERS 3
#define KIT_HIDDEN 16
#define KIT_WIDTH 24

/* As t_path, but the text stays until the next test. */
const char *kit_path(struct t *t, const char *relative);

/* Writes a small Llama directory (BF16) with a sidecar; the path is borrowed (tiny.h). */
const char *kit_make(struct t *t, const char *name);
struct mt_model *kit_open(struct t *t, const char *dir); /* NULL and a failed test on failure */

#define KIT_WINDOWS 5
#define KIT_TOKENS (KIT_WINDOWS * 7 + 10)
/* Windows of 7, 8, 9, ... ids below 32. Static storage. */
const struct mt_dataset *kit_data(void);

struct kit_scale_opts {
    double by;
    int64_t fail_at;   /* 1 + layer whose hook fails; 0: none. Not an option */
    int64_t cancel_at; /* 1 + layer whose hook sets *cancel. Not an option */
    int64_t kill_at;   /* 1 + layer whose hook raises SIGKILL. Not an option */
    volatile sig_atomic_t *cancel;
};
struct kit_seen {
    float *x, *h, *y; /* malloc'ed [tokens, ...] in data set order */
    int64_t tokens;
};
struct kit_watch_opts {
    bool student;
    int64_t rounds;
    struct kit_seen *seen; /* [layers * rounds]; NULL: not kept. Not an option */
};
extern const struct mt_pass kit_noop, kit_scale, kit_watch, kit_tilt;
void kit_seen_free(struct kit_seen *seen, int n);

struct kit_run {
    const char *source, *out; /* out NULL: measuring walk */
    const struct mt_walk_pass *passes;
    int n_passes;
    bool data, keep, dry_run;
    unsigned flags;
    uint64_t shard_bytes;
    int threads;     /* 0: the test's own context, and no memory limit */
    uint64_t memory; /* 0: no limit */
    bool allow_nan;  /* only with threads */
    mt_status (*finish)(struct mt_ctx *ctx, void *arg, const struct mt_model *result,
                        const struct mt_json *manifest, struct mt_outdir *out);
    void *finish_arg;
};
/* A walk from opening the source to freeing everything; text of a failure in t->ctx. */
mt_status kit_walk(struct t *t, const struct kit_run *r);
/* As kit_walk, keeping source and result open for the caller. */
struct kit_walked {
    struct mt_model *source;
    struct mt_walk_result result;
    struct mt_device *dev;
};
mt_status kit_walk_open(struct mt_ctx *ctx, const struct kit_run *r, struct kit_walked *w);
void kit_walk_close(struct kit_walked *w);

/* All tensors of two models are equal in name, dtype, shape and bytes, but for records of kind
 * `except` (MT_ROLE_COUNT: none). */
bool kit_same_tensors(struct t *t, const char *a, const char *b, int except);
#endif
