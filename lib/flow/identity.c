#include "lib/flow/identity.h"

#include "lib/base/hash.h"
#include "lib/flow/walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes sampled at both ends of a tensor: a page each, so that a checkpoint of any size is known by
 * a few MiB of reads. */
#define IDENTITY_SAMPLE 4096u

static void identity_add_text(struct mt_sha256 *s, const char *text)
{
    mt_sha256_add(s, text != NULL ? text : "", text != NULL ? strlen(text) + 1 : 1);
}

static void identity_add_head(struct mt_sha256 *s, const struct mt_tensor *t)
{
    char dims[MT_RANK_MAX * 24];
    size_t n = 0;

    dims[0] = '\0';
    for (int i = 0; i < t->rank; i++)
        n += (size_t)snprintf(dims + n, sizeof dims - n, "%lld,", (long long)t->shape[i]);
    identity_add_text(s, t->name);
    identity_add_text(s, mt_dtype_name(t->dtype));
    identity_add_text(s, dims);
}

/* Records cut out of one stacked tensor share its name; their roles tell them apart. */
static int identity_compare(const void *a, const void *b)
{
    const struct mt_tensor *x = *(const struct mt_tensor *const *)a;
    const struct mt_tensor *y = *(const struct mt_tensor *const *)b;
    int c = strcmp(x->name != NULL ? x->name : "", y->name != NULL ? y->name : "");

    if (c != 0)
        return c;
    if (x->role.layer != y->role.layer)
        return x->role.layer < y->role.layer ? -1 : 1;
    if (x->role.expert != y->role.expert)
        return x->role.expert < y->role.expert ? -1 : 1;
    if (x->role.kind != y->role.kind)
        return x->role.kind < y->role.kind ? -1 : 1;
    return (x->role.part > y->role.part) - (x->role.part < y->role.part);
}

/* Both ends of a tensor that does not lie contiguous: the bytes of its first and last rows. */
static mt_status identity_add_rows(struct mt_ctx *ctx, struct mt_sha256 *s,
                                   const struct mt_tensor *t)
{
    int64_t rows = mt_tensor_rows(t), n;
    uint64_t row_bytes;
    void *buf;

    if (!mt_dtype_bytes(t->dtype, (uint64_t)mt_tensor_cols(t), &row_bytes) || row_bytes == 0)
        return MT_OK;
    n = (int64_t)(IDENTITY_SAMPLE / row_bytes);
    n = n < 1 ? 1 : n > rows ? rows : n;
    MT_TRY(mt_alloc(ctx, (size_t)n, row_bytes, "sample of a tensor", &buf));
    size_t take = (size_t)n * row_bytes;
    if (take > IDENTITY_SAMPLE)
        take = IDENTITY_SAMPLE;
    mt_status st = mt_tensor_fetch(ctx, t, 0, n, buf);
    if (st == MT_OK) {
        mt_sha256_add(s, buf, take);
        st = mt_tensor_fetch(ctx, t, rows - n, n, buf);
    }
    if (st == MT_OK)
        mt_sha256_add(s, (const char *)buf + ((size_t)n * row_bytes - take), take);
    mt_free(buf);
    return st;
}

static mt_status identity_add_bytes(struct mt_ctx *ctx, struct mt_sha256 *s,
                                    const struct mt_tensor *t)
{
    uint64_t bytes = mt_tensor_bytes(t);
    const void *base;
    mt_status st = MT_OK;

    if (bytes == 0)
        return MT_OK;
    if (mt_tensor_contiguous(t, &base)) {
        size_t n = bytes < IDENTITY_SAMPLE ? (size_t)bytes : IDENTITY_SAMPLE;
        mt_sha256_add(s, base, n);
        mt_sha256_add(s, (const char *)base + (bytes - n), n);
    } else {
        st = identity_add_rows(ctx, s, t);
    }
    mt_tensor_drop(t);
    return st;
}

mt_status mt_model_identity(struct mt_ctx *ctx, const struct mt_model *m, char hex[65])
{
    const struct mt_tensor **sorted;
    struct mt_sha256 s;
    mt_status st = MT_OK;

    mt_sha256_begin(&s);
    if (m->config != NULL) {
        char *text;
        size_t n;
        MT_TRY(mt_json_print(ctx, m->config, &text, &n));
        mt_sha256_add(&s, text, n);
        mt_free(text);
    }
    MT_TRY(mt_alloc(ctx, m->n_tensors, sizeof(struct mt_tensor *), "list of records", &sorted));
    for (size_t i = 0; i < m->n_tensors; i++)
        sorted[i] = m->tensors[i];
    qsort(sorted, m->n_tensors, sizeof(struct mt_tensor *), identity_compare);
    for (size_t i = 0; i < m->n_tensors && st == MT_OK; i++) {
        identity_add_head(&s, sorted[i]);
        st = mt_check_cancel(ctx);
        if (st == MT_OK)
            st = identity_add_bytes(ctx, &s, sorted[i]);
    }
    mt_free(sorted);
    mt_sha256_hex(&s, hex);
    return mt_wrap(ctx, st, "identity of %s", m->path != NULL ? m->path : "the model");
}

void mt_model_layout(struct mt_tensor *const *records, size_t n, char hex[65])
{
    struct mt_sha256 s;

    mt_sha256_begin(&s);
    for (size_t i = 0; i < n; i++)
        identity_add_head(&s, records[i]);
    mt_sha256_hex(&s, hex);
}
