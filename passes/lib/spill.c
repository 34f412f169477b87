#include "passes/lib/spill.h"

#include "kernels/kernels.h"
#include "lib/base/mem.h"
#include "lib/base/scratch.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SPILL_ALIGN 64 /* bytes */

struct spill_record {
    struct mt_tensor *t;
    uint64_t offset;
};

struct mt_spill {
    const char *dir; /* for messages */
    int fd;
    uint64_t bytes;
    struct spill_record *v;
    size_t n, cap;
};

mt_status mt_spill_begin(struct mt_ctx *ctx, struct mt_spill **out)
{
    struct mt_spill *s;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "scratch file", &s));
    s->dir = mt_scratch_dir();
    mt_status st = mt_scratch_open(ctx, s->dir, "fitted weights", &s->fd);
    if (st != MT_OK) {
        mt_spill_free(s);
        return st;
    }
    *out = s;
    return MT_OK;
}

static mt_status spill_write(struct mt_ctx *ctx, struct mt_spill *s, const void *bytes, size_t n)
{
    int err = mt_scratch_write(s->fd, bytes, n, s->bytes);

    s->bytes += n;
    if (err == 0)
        return MT_OK;
    return mt_fail_errno(ctx, err,
                         "%s: cannot write the scratch file for fitted weights; TMPDIR may name a "
                         "roomier place",
                         s->dir);
}

static mt_status spill_rows(struct mt_ctx *ctx, struct mt_spill *s, const struct mt_tensor *t,
                            const float *values, int64_t ld, float scale, float *row, void *raw)
{
    size_t cols = (size_t)mt_tensor_cols(t);
    size_t bytes = (size_t)mt_tensor_bytes(t) / (size_t)mt_tensor_rows(t);

    for (int64_t r = 0; r < mt_tensor_rows(t); r++) {
        for (size_t c = 0; c < cols; c++)
            row[c] = values[r * ld + (int64_t)c] * scale;
        mt_kernels_get()->from_f32(t->dtype, row, raw, cols);
        MT_TRY(spill_write(ctx, s, raw, bytes));
    }
    return MT_OK;
}

mt_status mt_spill_put(struct mt_ctx *ctx, struct mt_spill *s, struct mt_tensor *t,
                       const float *values, int64_t ld, float scale)
{
    size_t cols = (size_t)mt_tensor_cols(t);
    static const char zeros[SPILL_ALIGN];
    char label[128];
    float *row;

    if (!mt_dtype_is_plain_float(t->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: fitted weights cannot be stored as %s",
                       mt_tensor_label(t, label, sizeof label), mt_dtype_name(t->dtype));
    MT_TRY(spill_write(ctx, s, zeros, (size_t)(-s->bytes % SPILL_ALIGN)));
    MT_TRY(mt_grow(ctx, s->n, &s->cap, sizeof *s->v, "list of records", &s->v));
    s->v[s->n++] = (struct spill_record){t, s->bytes};
    MT_TRY(mt_alloc(ctx, cols, sizeof(float) + sizeof(double), "row", &row));
    mt_status st = spill_rows(ctx, s, t, values, ld, scale, row, row + cols);
    mt_free(row);
    return st;
}

static mt_status spill_map(struct mt_ctx *ctx, struct mt_spill *s, struct mt_model *m)
{
    char where[4096];
    struct mt_map *map;

    if (s->n == 0)
        return MT_OK;
    snprintf(where, sizeof where, "scratch file of fitted weights in %.4000s/", s->dir);
    MT_TRY(mt_map_open_fd(ctx, s->fd, where, &map));
    MT_TRY(mt_model_own_map(ctx, m, map));
    for (size_t i = 0; i < s->n; i++) {
        struct mt_tensor *t = s->v[i].t;
        memset(&t->src, 0, sizeof t->src);
        t->src.kind = MT_SRC_SLICE;
        t->src.slice.map = map;
        t->src.slice.offset = s->v[i].offset;
        int64_t stride = 1;
        for (int d = t->rank - 1; d >= 0; d--) {
            t->src.slice.stride[d] = stride;
            stride *= t->shape[d];
        }
    }
    return MT_OK;
}

mt_status mt_spill_end(struct mt_ctx *ctx, struct mt_spill *s, struct mt_model *m)
{
    mt_status st = spill_map(ctx, s, m);

    mt_spill_free(s);
    return st;
}

void mt_spill_free(struct mt_spill *s)
{
    if (s == NULL)
        return;
    if (s->fd >= 0)
        close(s->fd);
    mt_free(s->v);
    mt_free(s);
}

uint64_t mt_spill_bytes(const struct mt_model *m, bool inner)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < m->n_tensors; i++) {
        const struct mt_tensor *t = m->tensors[i];
        bool down = t->role.kind == MT_ROLE_FFN_DOWN && t->role.part == MT_PART_WEIGHT;
        bool rows = t->role.kind == MT_ROLE_FFN_GATE || t->role.kind == MT_ROLE_FFN_UP;
        if (t->src.kind == MT_SRC_PENDING && (down || (inner && rows)))
            bytes += (mt_tensor_bytes(t) + SPILL_ALIGN - 1) / SPILL_ALIGN * SPILL_ALIGN;
    }
    return bytes;
}
