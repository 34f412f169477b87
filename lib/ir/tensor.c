#include "lib/ir/tensor.h"

#include "kernels/blocks.h"
#include "kernels/kernels.h"
#include "lib/base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Bytes that fetch_f32 converts at a time when the stored bytes must be gathered first. */
#define TENSOR_CHUNK 65536

int64_t mt_tensor_rows(const struct mt_tensor *t)
{
    int64_t n = 1;

    for (int i = 0; i + 1 < t->rank; i++)
        n *= t->shape[i];
    return n;
}

int64_t mt_tensor_cols(const struct mt_tensor *t)
{
    return t->rank == 0 ? 1 : t->shape[t->rank - 1];
}

int64_t mt_tensor_count(const struct mt_tensor *t)
{
    return mt_tensor_rows(t) * mt_tensor_cols(t);
}

uint64_t mt_tensor_bytes(const struct mt_tensor *t)
{
    uint64_t bytes;
    bool ok = mt_dtype_bytes(t->dtype, (uint64_t)mt_tensor_count(t), &bytes);

    mt_assert(ok); /* mt_model_add has checked */
    return bytes;
}

const struct mt_tensor *mt_tensor_origin(const struct mt_tensor *t)
{
    while (t->src.kind == MT_SRC_ALIAS)
        t = t->src.alias;
    return t;
}

/* Bytes of the first n elements of a type, the last byte or block rounded up. */
static bool tensor_bytes_up(enum mt_dtype dtype, uint64_t n, uint64_t *bytes)
{
    uint64_t block = mt_dtype_block(dtype), whole;

    if (mt_dtype_is_block(dtype))
        return mt_size_mul(n / block + (n % block != 0), block, &whole) &&
               mt_dtype_bytes(dtype, whole, bytes);
    if (!mt_size_mul(n, mt_dtype_bits(dtype), bytes))
        return false;
    *bytes = *bytes / 8 + (*bytes % 8 != 0);
    return true;
}

/* Bytes from the first to behind the last element of a slice; false when they leave the map. */
static bool tensor_span(const struct mt_tensor *t, uint64_t *bytes)
{
    uint64_t last = 0, step, map_bytes = t->src.slice.map->bytes;

    *bytes = 0;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] == 0)
            return t->src.slice.offset <= map_bytes;
        if (t->shape[i] == 1)
            continue;
        if (t->src.slice.stride[i] < 0 ||
            !mt_size_mul((uint64_t)t->shape[i] - 1, (uint64_t)t->src.slice.stride[i], &step) ||
            last > UINT64_MAX - step)
            return false;
        last += step;
    }
    if (last == UINT64_MAX || !tensor_bytes_up(t->dtype, last + 1, bytes))
        return false;
    return t->src.slice.offset <= map_bytes && *bytes <= map_bytes - t->src.slice.offset;
}

/* True when the slice's strides are those of a row-major array. */
static bool tensor_packed(const struct mt_tensor *t)
{
    int64_t want = 1;

    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->src.slice.stride[i] != want)
            return false;
        want *= t->shape[i];
    }
    return true;
}

bool mt_tensor_contiguous(const struct mt_tensor *t, const void **bytes)
{
    uint64_t span;

    t = mt_tensor_origin(t);
    if (t->src.kind == MT_SRC_OWNED) {
        *bytes = t->src.owned;
        return true;
    }
    if (t->src.kind != MT_SRC_SLICE || t->src.slice.map->base == NULL || !tensor_packed(t) ||
        !tensor_span(t, &span))
        return false;
    *bytes = t->src.slice.map->base + t->src.slice.offset;
    return true;
}

/* Elements that do not lie side by side. Sizes are spelt out so that memcpy becomes a move. */
static void tensor_gather(char *dst, const char *src, size_t size, int64_t n, size_t step)
{
    switch (size) {
    case 1:
        for (int64_t i = 0; i < n; i++, dst += 1, src += step)
            *dst = *src;
        break;
    case 2:
        for (int64_t i = 0; i < n; i++, dst += 2, src += step)
            memcpy(dst, src, 2);
        break;
    case 4:
        for (int64_t i = 0; i < n; i++, dst += 4, src += step)
            memcpy(dst, src, 4);
        break;
    default:
        for (int64_t i = 0; i < n; i++, dst += size, src += step)
            memcpy(dst, src, size);
        break;
    }
}

static mt_status tensor_slice_rows(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                   int64_t n, char *dst)
{
    const int64_t *stride = t->src.slice.stride;
    size_t size = mt_dtype_bits(t->dtype) / 8;
    int64_t cols = mt_tensor_cols(t), step = t->rank == 0 ? 1 : stride[t->rank - 1];
    const char *base = (const char *)t->src.slice.map->base + t->src.slice.offset;
    uint64_t row_bytes, at;
    char label[128];

    if (cols == 1)
        step = 1;
    if (!mt_dtype_bytes(t->dtype, (uint64_t)cols, &row_bytes) ||
        !(mt_dtype_pickable(t->dtype) || (mt_dtype_is_block(t->dtype) && step == 1)))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: %s elements that do not lie side by side",
                       mt_tensor_label(t, label, sizeof label), mt_dtype_name(t->dtype));
    for (int64_t r = row; r < row + n; r++, dst += row_bytes) {
        int64_t rest = r, first = 0;

        for (int i = t->rank - 2; i >= 0; i--) {
            first += rest % t->shape[i] * stride[i];
            rest /= t->shape[i];
        }
        if (!mt_dtype_bytes(t->dtype, (uint64_t)first, &at))
            return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: rows of %s begin inside a block",
                           mt_tensor_label(t, label, sizeof label), mt_dtype_name(t->dtype));
        if (step == 1)
            memcpy(dst, base + at, row_bytes);
        else
            tensor_gather(dst, base + at, size, cols, (size_t)step * size);
    }
    return MT_OK;
}

static mt_status tensor_bad_slice(struct mt_ctx *ctx, const struct mt_tensor *t)
{
    char label[128];

    return mt_fail(ctx, MT_E_FORMAT, "%s: data lies past the end of %s (%" PRIu64 " byte%s)",
                   mt_tensor_label(t, label, sizeof label), t->src.slice.map->path,
                   t->src.slice.map->bytes, t->src.slice.map->bytes == 1 ? "" : "s");
}

static mt_status tensor_not_rows(struct mt_ctx *ctx, const struct mt_tensor *t)
{
    char label[128];

    return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: rows of %" PRId64 " %s elements end inside a byte",
                   mt_tensor_label(t, label, sizeof label), mt_tensor_cols(t),
                   mt_dtype_name(t->dtype));
}

mt_status mt_tensor_fetch(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                          void *dst)
{
    uint64_t row_bytes, span;
    const void *bytes;
    char label[128];

    mt_assert(row >= 0 && n >= 0 && row <= mt_tensor_rows(t) - n);
    while (t->src.kind == MT_SRC_ALIAS) {
        const struct mt_tensor *to = t->src.alias;
        mt_assert(to->dtype == t->dtype && mt_tensor_cols(to) == mt_tensor_cols(t) &&
                  mt_tensor_rows(to) == mt_tensor_rows(t));
        t = to;
    }
    if (n == 0 || mt_tensor_cols(t) == 0)
        return MT_OK;
    if (t->src.kind == MT_SRC_PENDING)
        return mt_fail(ctx, MT_E_ABSENT, "%s: planned by %s, but its values are not set yet",
                       mt_tensor_label(t, label, sizeof label),
                       t->planner != NULL ? t->planner : "nobody");
    if (t->src.kind == MT_SRC_RECIPE)
        return t->src.recipe.eval(ctx, t, row, n, dst);
    if (mt_tensor_contiguous(t, &bytes)) {
        if (!mt_dtype_bytes(t->dtype, (uint64_t)mt_tensor_cols(t), &row_bytes)) {
            /* Only the whole of it fills whole bytes. */
            if (n != mt_tensor_rows(t))
                return tensor_not_rows(ctx, t);
            memcpy(dst, bytes, mt_tensor_bytes(t));
            return MT_OK;
        }
        memcpy(dst, (const char *)bytes + (uint64_t)row * row_bytes, (uint64_t)n * row_bytes);
        return MT_OK;
    }
    if (t->src.slice.map->base == NULL || !tensor_span(t, &span))
        return tensor_bad_slice(ctx, t);
    return tensor_slice_rows(ctx, t, row, n, dst);
}

bool mt_dtype_reads_f32(enum mt_dtype t)
{
    return mt_dtype_is_plain_float(t) || mtk_block_known(t);
}

/* Rows whose bytes must first be brought together in a buffer of their own. */
static mt_status tensor_convert(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row,
                                int64_t n, float *dst)
{
    int64_t cols = mt_tensor_cols(t);
    uint64_t row_bytes = 0;
    bool block = mt_dtype_is_block(t->dtype), whole;
    whole = mt_dtype_bytes(t->dtype, (uint64_t)cols, &row_bytes);
    mt_assert(whole); /* floats, and rows fill blocks */
    int64_t at_once = row_bytes >= TENSOR_CHUNK ? 1 : (int64_t)(TENSOR_CHUNK / row_bytes);
    mt_status st = MT_OK;
    char *raw;

    at_once = at_once > n ? n : at_once;
    MT_TRY(mt_alloc(ctx, (size_t)at_once, row_bytes, "a tile of weights", &raw));
    for (int64_t i = 0; i < n; i += at_once) {
        int64_t m = n - i < at_once ? n - i : at_once;

        st = mt_tensor_fetch(ctx, t, row + i, m, raw);
        if (st != MT_OK)
            break;
        if (block)
            mtk_block_to_f32(t->dtype, raw, dst + i * cols, (size_t)(m * cols));
        else
            mt_kernels_get()->to_f32(t->dtype, raw, dst + i * cols, (size_t)(m * cols));
    }
    mt_free(raw);
    return st;
}

mt_status mt_tensor_fetch_f32(struct mt_ctx *ctx, const struct mt_tensor *t, int64_t row, int64_t n,
                              float *dst)
{
    int64_t cols = mt_tensor_cols(t);
    const void *bytes;
    char label[128];

    if (!mt_dtype_reads_f32(t->dtype))
        return mt_fail(ctx, MT_E_UNSUPPORTED, "%s: %s values cannot be read as floats",
                       mt_tensor_label(t, label, sizeof label), mt_dtype_name(t->dtype));
    mt_assert(row >= 0 && n >= 0 && row <= mt_tensor_rows(t) - n);
    if (n == 0 || cols == 0)
        return MT_OK;
    if (t->dtype == MT_F32)
        return mt_tensor_fetch(ctx, t, row, n, dst);
    if (mt_dtype_is_block(t->dtype) || !mt_tensor_contiguous(t, &bytes))
        return tensor_convert(ctx, t, row, n, dst);
    bytes = (const char *)bytes + (size_t)(row * cols) * (mt_dtype_bits(t->dtype) / 8);
    mt_kernels_get()->to_f32(t->dtype, bytes, dst, (size_t)(n * cols));
    return MT_OK;
}

mt_status mt_tensor_load_f32(struct mt_ctx *ctx, const struct mt_tensor *t, float **out)
{
    char label[128];
    mt_status st;

    mt_tensor_label(t, label, sizeof label);
    MT_TRY(mt_alloc(ctx, (size_t)mt_tensor_count(t), sizeof(float), label, out));
    st = mt_tensor_fetch_f32(ctx, t, 0, mt_tensor_rows(t), *out);
    if (st != MT_OK) {
        mt_free(*out);
        *out = NULL;
    }
    return st;
}

void mt_tensor_drop(const struct mt_tensor *t)
{
    uint64_t span;

    t = mt_tensor_origin(t);
    if (t->src.kind == MT_SRC_SLICE && tensor_span(t, &span))
        mt_map_drop(t->src.slice.map, t->src.slice.offset, span);
    if (t->src.kind == MT_SRC_RECIPE) {
        for (int i = 0; i < t->src.recipe.n_in; i++)
            mt_tensor_drop(t->src.recipe.in[i]);
        for (size_t i = 0; i < t->src.recipe.n_more; i++)
            mt_tensor_drop(t->src.recipe.more[i]);
    }
}

const char *mt_tensor_label(const struct mt_tensor *t, char *buf, size_t n)
{
    if (t->role.kind == MT_ROLE_OTHER)
        snprintf(buf, n, "%s", t->name != NULL ? t->name : "unnamed tensor");
    else
        mt_role_print(t->role, buf, n);
    return buf;
}
