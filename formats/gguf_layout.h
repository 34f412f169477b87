/* gguf_layout.h: where the bytes of a GGUF output go, for gguf_layout.c (which decides) and
 * gguf_write.c (which writes) alone. */
#ifndef MT_FORMATS_GGUF_LAYOUT_H
#define MT_FORMATS_GGUF_LAYOUT_H

#include "formats/gguf_arch.h"

#include <stdatomic.h>

/* A tensor of the file: one record, or the experts of a stack. */
struct gguf_slot {
    char name[MT_GGUF_NAME_MAX + 1];
    enum mt_dtype dtype; /* as stored */
    int rank;
    uint64_t ne[3];
    size_t shard;
    uint64_t begin, bytes; /* from the start of the shard's data */
};

/* A file of the output. */
struct gguf_shard {
    struct mt_outfile *file;
    struct mt_gguf_out head;
    size_t first, n; /* slots */
    uint64_t data_bytes;
    _Atomic bool dirty;
};

struct gguf_place {
    const struct mt_tensor *t;
    size_t slot;         /* SIZE_MAX: left out */
    uint64_t first;      /* elements of the slot before it */
    uint64_t begin;      /* of the record, from the start of the shard's data */
    enum mt_dtype dtype; /* as stored */
    int heads;           /* rows are permuted within so many heads; 0: not */
    uint64_t row_bytes;  /* as stored; only with heads */
};

struct mt_writer {
    struct mt_outdir *out;
    const struct mt_model *m;
    const struct mt_gguf_arch *arch;
    struct gguf_slot *slots;
    size_t n_slots, n_records;  /* slots from n_records on have no record */
    struct gguf_place *places;  /* in the order of the model */
    struct gguf_place **by_ptr; /* by address of the record */
    size_t n;
    struct gguf_shard *shards;
    size_t n_shards;
};

/* For bsearch and qsort over by_ptr. */
int gguf_by_ptr(const void *a, const void *b);
/* Fills everything behind `m`: slots in the order of layers, files of at most `max` bytes (0: one),
 * headers, and the files themselves. */
MT_NODISCARD mt_status gguf_layout(struct mt_ctx *ctx, struct mt_writer *w, uint64_t max);

#endif
