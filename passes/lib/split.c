#include "passes/lib/split.h"

#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "passes/lib/kmeans.h"
#include "passes/lib/neurons.h"

#include <string.h>

mt_status mt_split_width(struct mt_ctx *ctx, int64_t width, int n_experts, int n_shared,
                         int64_t *expert_width)
{
    int64_t parts = (int64_t)n_experts + n_shared;
    int64_t w = (width + parts - 1) / parts;

    if (n_shared * w + n_experts > width)
        return mt_fail(ctx, MT_E_OPTION,
                       "an FFN of %lld neurons cannot be cut into %d experts%s: take fewer",
                       (long long)width, n_experts, n_shared > 0 ? " beside the shared ones" : "");
    *expert_width = w;
    return MT_OK;
}

mt_status mt_split_create(struct mt_ctx *ctx, int64_t width, int n_experts, int n_shared,
                          struct mt_split **out)
{
    int64_t w = 0;

    *out = NULL;
    MT_TRY(mt_split_width(ctx, width, n_experts, n_shared, &w));
    MT_TRY(mt_split_create_sizes(ctx, width, n_experts, w, n_shared * w, out));
    (*out)->n_shared = n_shared;
    return MT_OK;
}

mt_status mt_split_create_sizes(struct mt_ctx *ctx, int64_t width, int n_experts,
                                int64_t expert_width, int64_t shared_width, struct mt_split **out)
{
    struct mt_split *s;

    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "index lists", &s));
    *s = (struct mt_split){.width = width,
                           .expert_width = expert_width,
                           .n_experts = n_experts,
                           .n_shared = shared_width > 0,
                           .shared_width = shared_width};
    mt_status st =
        mt_alloc(ctx, (size_t)mt_split_entries(s), sizeof(*s->idx), "index lists", &s->idx);
    if (st != MT_OK) {
        mt_free(s);
        return st;
    }
    for (int64_t i = 0; i < mt_split_entries(s); i++)
        s->idx[i] = -1;
    *out = s;
    return MT_OK;
}

void mt_split_free(struct mt_split *s)
{
    if (s == NULL)
        return;
    mt_free(s->idx);
    mt_free(s);
}

int64_t mt_split_entries(const struct mt_split *s)
{
    return s->shared_width + s->n_experts * s->expert_width;
}

mt_status mt_split_repeat(struct mt_ctx *ctx, const struct mt_split *one, int copies,
                          struct mt_split **out)
{
    size_t n = (size_t)one->n_experts * (size_t)one->expert_width;
    struct mt_split *s;

    *out = NULL;
    mt_assert(one->n_shared == 0 && copies >= 1);
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "index lists", &s));
    *s = *one;
    s->n_experts = one->n_experts * copies;
    mt_status st = mt_alloc(ctx, (size_t)copies, n * sizeof(*s->idx), "index lists", &s->idx);
    if (st != MT_OK) {
        mt_free(s);
        return st;
    }
    for (int g = 0; g < copies; g++)
        memcpy(s->idx + (size_t)g * n, one->idx, n * sizeof(*s->idx));
    *out = s;
    return MT_OK;
}

int64_t mt_split_padding(const struct mt_split *s)
{
    int64_t n = 0;

    for (int64_t i = 0; i < mt_split_entries(s); i++)
        n += s->idx[i] < 0;
    return n;
}

int64_t mt_split_shared_width(const struct mt_split *s)
{
    return s->shared_width;
}

const int32_t *mt_split_shared(const struct mt_split *s)
{
    return s->idx;
}

const int32_t *mt_split_expert(const struct mt_split *s, int e)
{
    return s->idx + s->shared_width + e * s->expert_width;
}

void mt_split_capacities(const struct mt_split *s, int64_t *cap)
{
    int64_t pool = s->width - mt_split_shared_width(s);

    for (int e = 0; e < s->n_experts; e++)
        cap[e] = pool / s->n_experts + (e < pool % s->n_experts);
}

void mt_split_fill(struct mt_split *s, const int32_t *owner)
{
    int32_t *list = s->idx;

    for (int e = MT_SPLIT_SHARED; e < s->n_experts; e++) {
        int64_t n = 0, size = e < 0 ? mt_split_shared_width(s) : s->expert_width;
        for (int64_t j = 0; j < s->width; j++) {
            if (owner[j] != e)
                continue;
            mt_assert(n < size);
            list[n++] = (int32_t)j;
        }
        for (; n < size; n++)
            list[n] = -1;
        list += size;
    }
}

/* Deals the neurons out in the given order: the shared first, then expert after expert. */
static void split_deal(const struct mt_split *s, const int32_t *order, int32_t *owner)
{
    int64_t pool = s->width - mt_split_shared_width(s), at = 0;

    for (; at < mt_split_shared_width(s); at++)
        owner[order != NULL ? order[at] : at] = MT_SPLIT_SHARED;
    for (int e = 0; e < s->n_experts; e++)
        for (int64_t i = 0; i < pool / s->n_experts + (e < pool % s->n_experts); i++, at++)
            owner[order != NULL ? order[at] : at] = e;
}

void mt_split_contiguous(const struct mt_split *s, int32_t *owner)
{
    split_deal(s, NULL, owner);
}

mt_status mt_split_random(struct mt_ctx *ctx, const struct mt_split *s, uint64_t stream,
                          int32_t *owner)
{
    struct mt_rng rng;
    int32_t *order;

    MT_TRY(mt_alloc(ctx, (size_t)s->width, sizeof(*order), "random order", &order));
    for (int64_t j = 0; j < s->width; j++)
        order[j] = (int32_t)j;
    mt_rng_seed(&rng, mt_ctx_seed(ctx), stream);
    mt_rng_shuffle_i32(&rng, order, (uint64_t)s->width);
    split_deal(s, order, owner);
    mt_free(order);
    return MT_OK;
}

mt_status mt_split_share_best(struct mt_ctx *ctx, const struct mt_split *s, const double *score,
                              int32_t *owner, int32_t *pool)
{
    int32_t *order;
    int64_t n = 0;

    MT_TRY(mt_alloc(ctx, (size_t)s->width, sizeof(*order), "ranking", &order));
    mt_status st = mt_rank_falling(ctx, score, s->width, order);
    if (st == MT_OK) {
        for (int64_t i = 0; i < s->width; i++)
            owner[order[i]] = i < mt_split_shared_width(s) ? MT_SPLIT_SHARED : 0;
        for (int64_t j = 0; j < s->width; j++)
            if (owner[j] != MT_SPLIT_SHARED)
                pool[n++] = (int32_t)j;
    }
    mt_free(order);
    return st;
}

mt_status mt_split_cluster(struct mt_ctx *ctx, const struct mt_split *s, const int32_t *pool,
                           const float *points, int64_t d, uint64_t stream, int32_t *owner)
{
    int64_t n = s->width - mt_split_shared_width(s), *cap = NULL;
    int32_t *to = NULL;
    mt_status st = mt_alloc(ctx, (size_t)s->n_experts, sizeof(*cap), "expert sizes", &cap);

    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)n, sizeof(*to), "clusters", &to);
    if (st == MT_OK) {
        mt_split_capacities(s, cap);
        st = mt_kmeans_balanced(ctx, n, d, points, s->n_experts, cap, mt_ctx_seed(ctx), stream, to);
    }
    for (int64_t i = 0; st == MT_OK && i < n; i++)
        owner[pool[i]] = to[i];
    mt_free(cap);
    mt_free(to);
    return st;
}

mt_status mt_split_copy_weights(struct mt_ctx *ctx, const struct mt_split *s, int k, float **weight)
{
    int64_t n = mt_split_entries(s);
    int32_t *copies;
    bool any = false;

    *weight = NULL;
    if (k == 1)
        return MT_OK;
    MT_TRY(mt_alloc0(ctx, (size_t)s->width, sizeof(*copies), "neurons", &copies));
    for (int64_t i = s->shared_width; i < n; i++)
        if (s->idx[i] >= 0)
            any |= ++copies[s->idx[i]] > 1;
    mt_status st =
        any ? mt_alloc(ctx, (size_t)n, sizeof(**weight), "weights of neurons", weight) : MT_OK;
    for (int64_t i = 0; i < n && *weight != NULL; i++) {
        int32_t c = i >= s->shared_width && s->idx[i] >= 0 ? copies[s->idx[i]] : 1;
        (*weight)[i] = (float)(1 / (1 + (c - 1.0) * (k - 1) / (s->n_experts - 1)));
    }
    mt_free(copies);
    return st;
}

void mt_split_checksum(const struct mt_split *s, char hex[17])
{
    struct mt_sha256 sha;
    char all[65];

    mt_sha256_begin(&sha);
    for (int64_t i = 0; i < mt_split_entries(s); i++) {
        uint32_t v = (uint32_t)s->idx[i];
        unsigned char le[4] = {(unsigned char)v, (unsigned char)(v >> 8), (unsigned char)(v >> 16),
                               (unsigned char)(v >> 24)};
        mt_sha256_add(&sha, le, sizeof(le));
    }
    mt_sha256_hex(&sha, all);
    memcpy(hex, all, 16);
    hex[16] = 0;
}
