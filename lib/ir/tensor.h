/* tensor.h: a tensor whose shape is known and whose bytes may never be.
 *
 * A record has a role, dtype, shape and a source:
 *   slice   part of a mapped file: base offset plus element strides per dimension, so an expert of
 *           a stacked 3-D tensor, a transposed or an interleaved matrix are slices too;
 *   alias   another record (tied weights);
 *   owned   a buffer, row-major (in the model's arena or given by mt_alloc and owned by the model);
 *   recipe  a pure function of other records, evaluated a few rows at a time;
 *   pending shape known, source not yet (planned by a pass; set when the walk reaches the layer).
 *
 * Evaluation is by rows: a tensor of rank r is seen as rows x cols with cols = last dimension
 * (rank 0 and 1: one row). mt_tensor_fetch gives rows in the tensor's own dtype, _f32 as floats.
 * Memory is therefore tiles, never tensors. Threads: evaluation is safe from any thread.
 */
#ifndef MT_IR_TENSOR_H
#define MT_IR_TENSOR_H

#include "lib/base/ctx.h"
#include "lib/base/dtype.h"
#include "lib/base/map.h"
#include "lib/ir/role.h"

#define MT_RANK_MAX 8

struct mt_tensor;

enum mt_source_kind { MT_SRC_PENDING, MT_SRC_SLICE, MT_SRC_ALIAS, MT_SRC_OWNED, MT_SRC_RECIPE };

/* Evaluates rows [row, row + n) of `t` in t's dtype, row-major, into dst. */
typedef mt_status (*mt_recipe_fn)(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                  int64_t n, void *dst);

#define MT_RECIPE_IN_MAX 4
struct mt_source {
    enum mt_source_kind kind;
    union {
        struct {
            const struct mt_map *map;    /* borrowed from the model */
            uint64_t offset;             /* bytes from the map's start to element (0, 0, ...) */
            int64_t stride[MT_RANK_MAX]; /* elements */
        } slice;
        const struct mt_tensor *alias;
        const void *owned; /* row-major, t's dtype */
        struct {
            mt_recipe_fn eval;
            const char *name; /* "gather-rows"; for explain and messages */
            const struct mt_tensor *in[MT_RECIPE_IN_MAX];
            int n_in;
            const struct mt_tensor *const *more; /* inputs beyond those; in the model's arena */
            size_t n_more;
            const void *args; /* in the model's arena */
        } recipe;
    };
};

struct mt_tensor {
    struct mt_role role;
    enum mt_dtype dtype;
    int rank;
    int64_t shape[MT_RANK_MAX];
    struct mt_source src;
    const char *name;    /* name in its file; for a planned tensor, the name it will get */
    const char *planner; /* pass that planned it; NULL for what was read */
};

int64_t mt_tensor_rows(const struct mt_tensor *t);
int64_t mt_tensor_cols(const struct mt_tensor *t);
int64_t mt_tensor_count(const struct mt_tensor *t); /* elements */
uint64_t mt_tensor_bytes(const struct mt_tensor *t);

/* True when the bytes stand contiguous in memory (slice or owned, after aliases); *bytes borrowed.
 */
bool mt_tensor_contiguous(const struct mt_tensor *t, const void **bytes);

MT_NODISCARD mt_status mt_tensor_fetch(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                       int64_t n, void *dst);
/* Whether values of a dtype can be read as floats: plain floats, and the blocks that
 * kernels/blocks.h knows. */
bool mt_dtype_reads_f32(enum mt_dtype t);
/* For such dtypes only (MT_E_UNSUPPORTED names the tensor otherwise). */
MT_NODISCARD mt_status mt_tensor_fetch_f32(struct mt_ctx *ctx, const struct mt_tensor *t,
                                           int64_t row, int64_t n, float *dst);
/* The whole tensor as floats; *given*. */
MT_NODISCARD mt_status mt_tensor_load_f32(struct mt_ctx *ctx, const struct mt_tensor *t,
                                          float **out);

/* Gives the mapped pages behind a tensor (through aliases and recipes) back. */
void mt_tensor_drop(const struct mt_tensor *t);

/* "layers.3.experts.7.up_proj" or the file's name for MT_ROLE_OTHER; into buf. */
const char *mt_tensor_label(const struct mt_tensor *t, char *buf, size_t n);

/* Ready-made recipes (recipe.c). `m`'s arena keeps their arguments; index lists are copied.
 * An index of -1 gives a zero row / column (padding). scale multiplies in fp32 and rounds to the
 * tensor's dtype; scale 1 with equal dtypes copies bits. The tensor's dtype and shape are set
 * beforehand and are checked against the lists: n rows (columns) of t, as many columns (rows) as
 * `from`. A vector is one row, so its elements are gathered as columns. Types other than plain
 * floats are copied bit for bit only (scale 1, same dtype). */
struct mt_model;
MT_NODISCARD mt_status mt_recipe_gather_rows(struct mt_ctx *ctx, struct mt_model *m,
                                             struct mt_tensor *t, const struct mt_tensor *from,
                                             const int32_t *idx, int64_t n, float scale);
MT_NODISCARD mt_status mt_recipe_gather_cols(struct mt_ctx *ctx, struct mt_model *m,
                                             struct mt_tensor *t, const struct mt_tensor *from,
                                             const int32_t *idx, int64_t n, float scale);
/* All elements equal to `value`; dtypes other than plain floats take only 0. */
MT_NODISCARD mt_status mt_recipe_fill(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                      float value);
/* The same values in t's dtype. */
MT_NODISCARD mt_status mt_recipe_cast(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                      const struct mt_tensor *from);
/* Values given as floats (copied, rounded to t's dtype, owned by the model). */
MT_NODISCARD mt_status mt_source_floats(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *t,
                                        const float *values);
#endif
