/* format.h: bytes <-> records.
 *
 * A reader lists records and binds them (family.h); it reads no tensor bytes. A writer is given
 * the final records of a model: `plan` fixes files, offsets and sizes before any byte of a tensor
 * exists; `put` writes part of a tensor at its place, from any thread; `end` writes headers that
 * were held back, config and index, re-reads what it wrote and checks it against the plan.
 *
 * Formats are listed in formats/format.def; `flow` gets the table from `cmd`.
 */
#ifndef MT_FLOW_FORMAT_H
#define MT_FLOW_FORMAT_H

#include "lib/base/outdir.h"
#include "lib/ir/family.h"

struct mt_writer;

struct mt_write_opts {
    uint64_t shard_bytes_max; /* 0: one file however large */
    bool stack_experts;       /* safetensors: one tensor for the experts of a layer (family.h) */
    const struct mt_json *config; /* of the result, which `end` is given as well; set by the walk */
};

struct mt_format {
    const char *name; /* "safetensors" */
    const char *summary;
    /* True when `path` (a file or directory) is for this reader; looks at names and magic only. */
    bool (*probe)(const char *path);
    mt_status (*open)(struct mt_ctx *ctx, const char *path, struct mt_model **out);
    /* As open, but a model that does not verify is kept (model.h: flaw). NULL: open serves. */
    mt_status (*open_lenient)(struct mt_ctx *ctx, const char *path, struct mt_model **out);
    /* What was written, read back, before it gets its name: MT_E_FORMAT when an engine that the
     * file is meant for would not load it; what is only worth knowing is logged. NULL: nothing is
     * asked. */
    mt_status (*check)(struct mt_ctx *ctx, const struct mt_model *result);

    /* Writing; NULL when the format is read-only. The writer borrows out and m. Of a format that is
     * one file nothing travels along: no sidecars, manifest or card. */
    bool one_file;
    /* The records of a plan as this format keeps them, as mt_model_stored, before anything is
     * counted. NULL: records by role, and for families that are only copied their own tensors
     * (mt_model_restack, mt_model_stored). `plan` below finds these records as m's while it runs,
     * and only then. */
    mt_status (*prepare)(struct mt_ctx *ctx, struct mt_model *plan, struct mt_tensor ***out,
                         size_t *n);
    /* Bytes of tensors that the output will hold by type, added to `bytes`: of the records that
     * `prepare` gave, after it. NULL: records as they are. */
    void (*tensor_bytes)(const struct mt_model *plan, struct mt_tensor *const *stored, size_t n,
                         uint64_t bytes[MT_DTYPE_COUNT]);
    /* Whether it can hold models of m's family with m's hyper-parameters and FFN shapes, for those
     * who choose a family before there are records; MT_E_UNSUPPORTED says what it cannot. NULL:
     * whatever the family's own code computes. */
    mt_status (*holds)(struct mt_ctx *ctx, const struct mt_model *m);
    mt_status (*plan)(struct mt_ctx *ctx, struct mt_outdir *out, struct mt_model *m,
                      const struct mt_write_opts *opts, struct mt_writer **w);
    mt_status (*put)(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_tensor *t,
                     uint64_t offset, const void *bytes, size_t n);
    /* Flushes the bytes of tensors put so far to disk. */
    mt_status (*sync)(struct mt_ctx *ctx, struct mt_writer *w);
    mt_status (*end)(struct mt_ctx *ctx, struct mt_writer *w, const struct mt_json *config);
    /* Makes `t` (a record of m that was written) a slice of the file being written. */
    mt_status (*reread)(struct mt_ctx *ctx, struct mt_writer *w, struct mt_tensor *t);
    /* Where the bytes of a record stand once all of it was put: in one piece of one file. Lets a
     * resumed run see that what a journal says stands is what was written. bytes 0: nowhere. NULL:
     * it is not checked. */
    void (*place)(const struct mt_writer *w, const struct mt_tensor *t,
                  const struct mt_outfile **file, uint64_t *offset, uint64_t *bytes);
    void (*free)(struct mt_writer *w);
};

/* Opens a model of any format in the NULL-ended table. MODEL is a directory, a file, or Org/Name
 * in the local Hugging Face cache. MT_E_ABSENT / MT_E_FORMAT say what was looked for. The output
 * of an interrupted run is refused, naming --resume. */
MT_NODISCARD mt_status mt_model_open(struct mt_ctx *ctx, const struct mt_format *const *formats,
                                     const char *path, struct mt_model **out);
/* As mt_model_open, but keeps a model that does not verify: m->flaw says why. */
MT_NODISCARD mt_status mt_model_open_lenient(struct mt_ctx *ctx,
                                             const struct mt_format *const *formats,
                                             const char *path, struct mt_model **out);
/* As mt_model_open, but takes a settled OUT.partial (outdir.h): for who is writing it. */
MT_NODISCARD mt_status mt_model_open_work(struct mt_ctx *ctx,
                                          const struct mt_format *const *formats, const char *path,
                                          struct mt_model **out);
#endif
