#include "passes/lib/local_tokens.h"

#include "kernels/kernels.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/base/scratch.h"
#include "passes/lib/refit.h"

#include <string.h>
#include <unistd.h>

#define TOKENS_BLOCK 64 /* tokens written at a time */
#define TOKENS_ROWS 32  /* tokens read per job */

static size_t tokens_record(int64_t hidden, int n_experts)
{
    return (size_t)hidden * 2 * sizeof(float) + ((size_t)n_experts + 7) / 8;
}

uint64_t mt_local_tokens_bytes(int64_t hidden, int n_experts)
{
    return TOKENS_BLOCK * (uint64_t)tokens_record(hidden, n_experts);
}

uint64_t mt_local_tokens_file_bytes(int64_t hidden, int n_experts, int64_t n_tokens)
{
    return (uint64_t)n_tokens * tokens_record(hidden, n_experts);
}

static mt_status tokens_open(struct mt_ctx *ctx, struct mt_local_tokens *k)
{
    k->record = tokens_record(k->hidden, k->n_experts);
    k->n_held = mt_refit_count_held(k->n_tokens);
    k->n_fit = k->n_tokens - k->n_held;
    MT_TRY(mt_alloc(ctx, TOKENS_BLOCK, k->record, "scratch file buffer", &k->block));
    k->dir = mt_scratch_dir();
    return mt_scratch_open(ctx, k->dir, "activations", &k->fd);
}

mt_status mt_local_tokens_open(struct mt_ctx *ctx, int64_t hidden, int n_experts, int64_t n_tokens,
                               struct mt_local_tokens **out)
{
    struct mt_local_tokens *k;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*k), "tokens of a refit", &k));
    *k = (struct mt_local_tokens){
        .hidden = hidden, .n_experts = n_experts, .n_tokens = n_tokens, .fd = -1};
    mt_status st = tokens_open(ctx, k);
    if (st != MT_OK) {
        mt_local_tokens_close(k);
        return st;
    }
    *out = k;
    return MT_OK;
}

void mt_local_tokens_close(struct mt_local_tokens *k)
{
    if (k == NULL)
        return;
    if (k->fd >= 0)
        close(k->fd);
    mt_free(k->block);
    mt_free(k);
}

/* ---- write ---- */

static mt_status tokens_write(struct mt_ctx *ctx, const struct mt_local_tokens *k, size_t n,
                              uint64_t at)
{
    int err = mt_scratch_write(k->fd, k->block, n, at);

    if (err == 0)
        return MT_OK;
    return mt_fail_errno(ctx, err,
                         "%s: cannot write a scratch file of %.1f GB for --refit all; TMPDIR may "
                         "name a roomier place, --refit down needs none",
                         k->dir, (double)k->record * (double)k->n_tokens / 1e9);
}

mt_status mt_local_tokens_put(struct mt_ctx *ctx, struct mt_local_tokens *k, int64_t token0,
                              int64_t m, const float *x, const float *y,
                              const unsigned char *picked)
{
    size_t row = (size_t)k->hidden * sizeof(float);
    int64_t run;

    mt_assert(token0 + m <= k->n_tokens);
    for (int64_t t = 0; t < m; t += TOKENS_BLOCK) {
        int64_t n = m - t < TOKENS_BLOCK ? m - t : TOKENS_BLOCK;
        for (int64_t i = 0; i < n; i++) {
            unsigned char *to = k->block + (size_t)i * k->record, *bits = to + 2 * row;
            memcpy(to, x + (t + i) * k->hidden, row);
            memcpy(to + row, y + (t + i) * k->hidden, row);
            memset(bits, 0, k->record - 2 * row);
            for (int e = 0; e < k->n_experts; e++)
                bits[e / 8] |=
                    (unsigned char)((picked[(t + i) * k->n_experts + e] != 0) << (e % 8));
            if (!mt_refit_held_out(token0 + t + i, k->n_tokens, &run))
                k->energy += mt_kernels_get()->sumsq(y + (t + i) * k->hidden, (size_t)k->hidden);
        }
        k->put += n;
        MT_TRY(tokens_write(ctx, k, (size_t)n * k->record,
                            (uint64_t)(token0 + t) * (uint64_t)k->record));
    }
    return MT_OK;
}

/* ---- read ---- */

static uint64_t tokens_hash(uint64_t x)
{
    x ^= x >> 33;
    x *= UINT64_C(0xff51afd7ed558ccd);
    x ^= x >> 33;
    x *= UINT64_C(0xc4ceb9fe1a85ec53);
    return x ^ x >> 33;
}

/* A Feistel network permutes the numbers of 2 b bits; those beyond the count are sent through again
 * until they fall within it. So no list of tokens takes memory. */
int64_t mt_local_tokens_drawn(const struct mt_local_tokens *k, int64_t i)
{
    uint64_t v = (uint64_t)i, n = (uint64_t)k->n_fit;
    unsigned b = 1;

    while (n > UINT64_C(1) << 2 * b)
        b++;
    do {
        uint64_t mask = (UINT64_C(1) << b) - 1, l = v >> b, r = v & mask;
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t f = tokens_hash(r + (round << 32) + tokens_hash(k->order)) & mask, was = l;
            l = r;
            r = was ^ f;
        }
        v = l << b | r;
    } while (v >= n);
    return mt_refit_fit_token((int64_t)v, k->n_tokens);
}

struct tokens_read {
    const struct mt_local_tokens *k;
    bool held;
    int64_t i, m;
    float *x, *y;
    unsigned char *picked;
};

static mt_status tokens_read_job(struct mt_ctx *ctx, int64_t job, void *arg)
{
    const struct tokens_read *r = arg;
    const struct mt_local_tokens *k = r->k;
    size_t row = (size_t)k->hidden * sizeof(float), n_bits = k->record - 2 * row;
    unsigned char *buf;

    MT_TRY(mt_alloc(ctx, k->record, 1, "a token", &buf));
    mt_status st = MT_OK;
    for (int64_t t = job * TOKENS_ROWS; t < r->m && t < (job + 1) * TOKENS_ROWS; t++) {
        const unsigned char *bits = buf + 2 * row;
        int64_t token = r->held ? mt_refit_held_token(r->i + t, k->n_tokens)
                                : mt_local_tokens_drawn(k, r->i + t);
        int err = mt_scratch_read(k->fd, buf, k->record, (uint64_t)token * (uint64_t)k->record);
        if (err != 0) {
            st = mt_fail_errno(ctx, err, "%s: cannot read a scratch file", k->dir);
            break;
        }
        memcpy(r->x + t * k->hidden, buf, row);
        memcpy(r->y + t * k->hidden, buf + row, row);
        for (int e = 0; n_bits > 0 && e < k->n_experts; e++)
            r->picked[t * k->n_experts + e] = bits[e / 8] >> (e % 8) & 1;
    }
    mt_free(buf);
    return st;
}

mt_status mt_local_tokens_get(struct mt_ctx *ctx, const struct mt_local_tokens *k, bool held,
                              int64_t i, int64_t m, float *x, float *y, unsigned char *picked)
{
    struct tokens_read r = {k, held, i, m, x, y, picked};

    return mt_pool_run(ctx, (m + TOKENS_ROWS - 1) / TOKENS_ROWS, tokens_read_job, &r);
}
