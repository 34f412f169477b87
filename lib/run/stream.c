#include "lib/run/stream.h"

#include "lib/base/scratch.h"

#include <string.h>
#include <unistd.h>
#include <zstd.h>

#define STREAM_ZSTD_LEVEL 1

/* Arrays behind a list of batches, one allocation each. */
struct batches_storage {
    int32_t *ids, *len;
    struct mt_batch *v;
};

static void batches_fill(const struct mt_dataset *d, int64_t tokens_max, struct mt_batches *out)
{
    struct batches_storage *s = out->storage;
    struct mt_batch *b = NULL;
    int64_t token = 0;

    for (size_t w = 0; w < d->n_windows; w++) {
        int32_t n = d->windows[w].n;
        if (b == NULL || b->tokens + n > tokens_max) {
            b = &s->v[out->n++];
            *b = (struct mt_batch){
                .first = w, .seqs = {0, s->len + w}, .ids = s->ids + token, .token0 = token};
        }
        memcpy(s->ids + token, d->windows[w].ids, (size_t)n * sizeof *s->ids);
        s->len[w] = n;
        b->n++;
        b->seqs.n++;
        b->tokens += n;
        token += n;
        if (b->tokens > out->tokens_max)
            out->tokens_max = b->tokens;
    }
    out->v = s->v;
}

mt_status mt_batches_make(struct mt_ctx *ctx, const struct mt_dataset *d, int64_t tokens_max,
                          struct mt_batches *out)
{
    struct batches_storage *s;
    mt_status st;

    *out = (struct mt_batches){0};
    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "batches", &s));
    out->storage = s;
    st = mt_alloc(ctx, d->n_tokens, sizeof *s->ids, "token ids of all batches", &s->ids);
    if (st == MT_OK)
        st = mt_alloc(ctx, d->n_windows, sizeof *s->len, "batches", &s->len);
    if (st == MT_OK)
        st = mt_alloc(ctx, d->n_windows, sizeof *s->v, "batches", &s->v);
    if (st != MT_OK) {
        mt_batches_free(out);
        return st;
    }
    batches_fill(d, tokens_max, out);
    return MT_OK;
}

void mt_batches_free(struct mt_batches *b)
{
    struct batches_storage *s = b->storage;

    if (s != NULL) {
        mt_free(s->ids);
        mt_free(s->len);
        mt_free(s->v);
        mt_free(s);
    }
    *b = (struct mt_batches){0};
}

/* The first chunks live in memory, the others in the file: each has a place of its own there that
 * holds the worst case, so a chunk may be put again at any time. */
struct mt_stream {
    size_t n, n_memory; /* chunks; the first n_memory of them in memory */
    float **memory;     /* [n_memory] */
    size_t *bytes;      /* [n] of a chunk */
    size_t *packed;     /* [n] compressed size in the file; 0: not put yet */
    off_t *place;       /* [n] offset in the file */
    int fd;             /* -1: no file */
    const char *dir;    /* for messages; the caller's */
    ZSTD_CCtx *cctx;
    ZSTD_DCtx *dctx;
    void *buf; /* compressed chunk */
    size_t buf_bytes;
};

static mt_status stream_open_file(struct mt_ctx *ctx, struct mt_stream *s)
{
    MT_TRY(mt_scratch_open(ctx, s->dir, "hidden states", &s->fd));
    s->cctx = ZSTD_createCCtx();
    s->dctx = ZSTD_createDCtx();
    if (s->cctx == NULL || s->dctx == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for compression");
    return mt_alloc(ctx, s->buf_bytes, 1, "scratch file buffer", &s->buf);
}

/* Chunk sizes, and how many chunks a third of the free budget holds. */
static void stream_lay_out(struct mt_ctx *ctx, struct mt_stream *s, const struct mt_batches *b,
                           int64_t hidden)
{
    uint64_t limit = mt_mem_limit(ctx), used = mt_mem_used(ctx);
    uint64_t room = limit == UINT64_MAX ? UINT64_MAX : used < limit ? (limit - used) / 3 : 0;
    off_t at = 0;

    for (size_t i = 0; i < b->n; i++) {
        s->bytes[i] = (size_t)b->v[i].tokens * (size_t)hidden * sizeof(float);
        if (s->n_memory == i && s->bytes[i] <= room) {
            room -= s->bytes[i];
            s->n_memory++;
            continue;
        }
        size_t bound = ZSTD_compressBound(s->bytes[i]);
        s->place[i] = at;
        at += (off_t)bound;
        s->buf_bytes = bound > s->buf_bytes ? bound : s->buf_bytes;
    }
}

uint64_t mt_stream_least_bytes(const struct mt_batches *b, int64_t hidden)
{
    return 2 * (uint64_t)b->tokens_max * (uint64_t)hidden * sizeof(float) + (1u << 16) +
           64 * (uint64_t)b->n;
}

mt_status mt_stream_create(struct mt_ctx *ctx, const struct mt_batches *b, int64_t hidden,
                           const char *scratch_dir, struct mt_stream **out)
{
    struct mt_stream *s;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof *s, "hidden states", &s));
    s->fd = -1;
    s->n = b->n;
    s->dir = scratch_dir != NULL ? scratch_dir : mt_scratch_dir();
    st = mt_alloc0(ctx, b->n, sizeof *s->bytes, "hidden states", &s->bytes);
    if (st == MT_OK)
        st = mt_alloc0(ctx, b->n, sizeof *s->packed, "hidden states", &s->packed);
    if (st == MT_OK)
        st = mt_alloc0(ctx, b->n, sizeof *s->place, "hidden states", &s->place);
    if (st == MT_OK) {
        stream_lay_out(ctx, s, b, hidden);
        st = mt_alloc0(ctx, s->n_memory, sizeof *s->memory, "hidden states", &s->memory);
    }
    for (size_t i = 0; st == MT_OK && i < s->n_memory; i++)
        st = mt_alloc(ctx, s->bytes[i], 1, "hidden states", &s->memory[i]);
    if (st == MT_OK && s->n_memory < s->n)
        st = stream_open_file(ctx, s);
    if (st != MT_OK) {
        mt_stream_free(s);
        return st;
    }
    *out = s;
    return MT_OK;
}

void mt_stream_free(struct mt_stream *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; s->memory != NULL && i < s->n_memory; i++)
        mt_free(s->memory[i]);
    if (s->fd >= 0)
        close(s->fd);
    ZSTD_freeCCtx(s->cctx);
    ZSTD_freeDCtx(s->dctx);
    mt_free(s->memory);
    mt_free(s->bytes);
    mt_free(s->packed);
    mt_free(s->place);
    mt_free(s->buf);
    mt_free(s);
}

static mt_status stream_read(struct mt_ctx *ctx, struct mt_stream *s, size_t i)
{
    int err = mt_scratch_read(s->fd, s->buf, s->packed[i], (uint64_t)s->place[i]);

    return err == 0 ? MT_OK : mt_fail_errno(ctx, err, "%s: cannot read the scratch file", s->dir);
}

static mt_status stream_write(struct mt_ctx *ctx, struct mt_stream *s, size_t i)
{
    int err = mt_scratch_write(s->fd, s->buf, s->packed[i], (uint64_t)s->place[i]);

    if (err == 0)
        return MT_OK;
    return mt_fail_errno(ctx, err,
                         "%s: cannot write the scratch file for hidden states; allow more with "
                         "--memory or use less data",
                         s->dir);
}

mt_status mt_stream_get(struct mt_ctx *ctx, struct mt_stream *s, size_t batch, float *x)
{
    size_t n;

    mt_assert(batch < s->n);
    if (batch < s->n_memory) {
        memcpy(x, s->memory[batch], s->bytes[batch]);
        return MT_OK;
    }
    mt_assert(s->packed[batch] > 0);
    MT_TRY(stream_read(ctx, s, batch));
    n = ZSTD_decompressDCtx(s->dctx, x, s->bytes[batch], s->buf, s->packed[batch]);
    if (ZSTD_isError(n) || n != s->bytes[batch])
        return mt_fail(ctx, MT_E_IO, "%s: the scratch file does not read back: %s", s->dir,
                       ZSTD_isError(n) ? ZSTD_getErrorName(n) : "wrong length");
    return MT_OK;
}

mt_status mt_stream_put(struct mt_ctx *ctx, struct mt_stream *s, size_t batch, const float *x)
{
    size_t n;

    mt_assert(batch < s->n);
    if (batch < s->n_memory) {
        memcpy(s->memory[batch], x, s->bytes[batch]);
        return MT_OK;
    }
    n = ZSTD_compressCCtx(s->cctx, s->buf, s->buf_bytes, x, s->bytes[batch], STREAM_ZSTD_LEVEL);
    if (ZSTD_isError(n))
        return mt_fail(ctx, MT_E_NOMEM, "hidden states cannot be compressed: %s",
                       ZSTD_getErrorName(n));
    s->packed[batch] = n;
    return stream_write(ctx, s, batch);
}
