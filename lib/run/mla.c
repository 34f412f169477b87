#include "lib/run/run_impl.h"

#include <limits.h>

/* All projections of a batch stand side by side in one buffer, which is then read in pieces of
 * `piece` features, the greatest common divisor of all parts: heads are put together by gathering
 * pieces. */
struct mla_parts {
    int64_t m, heads, head_dim, nope, rope, v, rank;
    int64_t piece;
    size_t kv_a, kv_b, zero, end; /* where parts begin, in elements; queries begin at 0 */
};

static int64_t mla_gcd(int64_t a, int64_t b)
{
    return b == 0 ? a : mla_gcd(b, a % b);
}

static struct mla_parts mla_parts_of(const struct mt_hparams *hp, int64_t m)
{
    const struct mt_mla *a = &hp->mla;
    struct mla_parts p = {.m = m,
                          .heads = hp->n_heads,
                          .head_dim = hp->head_dim,
                          .nope = a->nope,
                          .rope = a->rope,
                          .v = a->v,
                          .rank = a->kv_rank};

    p.piece = mla_gcd(mla_gcd(a->kv_rank, a->v), mla_gcd(a->nope, a->rope));
    p.kv_a = (size_t)(m * p.heads * (p.nope + p.rope));
    p.kv_b = p.kv_a + (size_t)(m * (p.rank + p.rope));
    p.zero = p.kv_b + (size_t)(m * p.heads * (p.nope + p.v));
    p.end = p.zero + (size_t)p.piece;
    return p;
}

static int64_t mla_max(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void mt_run_mla_slots(const struct mt_hparams *hp, int64_t m, size_t need[RUN_SLOTS])
{
    need[RUN_SLOT_F] = mla_parts_of(hp, m).end;
    need[RUN_SLOT_G] = (size_t)(m * mla_max(hp->mla.q_rank, hp->mla.kv_rank));
}

mt_status mt_run_mla_wants(struct mt_ctx *ctx, struct mt_run_layer *l, struct run_wants *w)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    const struct mt_mla *a = &hp->mla;
    int64_t h = hp->hidden, n = hp->n_heads, in = a->q_rank > 0 ? a->q_rank : h;
    int64_t latent = a->kv_rank + a->rope;

    if (a->q_rank > 0) {
        MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_Q_A, a->q_rank, h, &l->q_a, a->q_rank,
                                 &l->q_a_bias));
        MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_Q_A_NORM, 1, a->q_rank, &l->q_a_norm, 0, NULL));
    }
    MT_TRY(
        mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_Q, n * (a->nope + a->rope), in, &l->q, 0, NULL));
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_KV_A, latent, h, &l->kv_a, latent,
                             &l->kv_a_bias));
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_KV_A_NORM, 1, a->kv_rank, &l->kv_a_norm, 0, NULL));
    MT_TRY(mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_KV_B, n * (a->nope + a->v), a->kv_rank,
                             &l->kv_b, 0, NULL));
    return mt_run_layer_want(ctx, l, w, MT_ROLE_ATTN_O, h, n * a->v, &l->o, h, &l->o_bias);
}

void mt_run_mla_close(struct mt_run_layer *l)
{
    struct run_weight *own[] = {&l->q_a,       &l->q_a_bias,  &l->q_a_norm, &l->kv_a,
                                &l->kv_a_bias, &l->kv_a_norm, &l->kv_b};

    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        mt_run_weight_free(l->r, own[i]);
    mt_free(l->mla_rows);
}

static mt_status mla_room(struct mt_ctx *ctx, struct mt_run_layer *l, size_t n)
{
    if (n <= l->mla_cap)
        return MT_OK;
    mt_free(l->mla_rows);
    l->mla_rows = NULL;
    l->mla_cap = 0;
    MT_TRY(mt_alloc(ctx, n, sizeof *l->mla_rows, "rows of latent attention", &l->mla_rows));
    l->mla_cap = n;
    return MT_OK;
}

/* Appends the pieces of n elements from `at`; `at` of the zeros gives zeros. */
static int32_t *mla_append(const struct mla_parts *p, int32_t *to, size_t at, int64_t n)
{
    for (int64_t i = 0; i < n / p->piece; i++)
        *to++ = (int32_t)(at / (size_t)p->piece) + (at == p->zero ? 0 : (int32_t)i);
    return to;
}

/* One head out of its part with positions, its part without and padding. */
static int32_t *mla_head(const struct mla_parts *p, int32_t *to, size_t rope, int64_t n_rope,
                         size_t rest, int64_t n_rest)
{
    to = mla_append(p, to, rope, n_rope);
    to = mla_append(p, to, rest, n_rest);
    return mla_append(p, to, p->zero, p->head_dim - n_rope - n_rest);
}

enum mla_what { MLA_Q, MLA_K, MLA_V };

static mt_status mla_gather(struct mt_ctx *ctx, struct mt_run_layer *l, const struct mla_parts *p,
                            enum mla_what what, mt_buf from, mt_buf to)
{
    const size_t q = (size_t)(p->nope + p->rope), b = (size_t)(p->nope + p->v);
    int32_t *row = l->mla_rows;

    for (size_t t = 0; t < (size_t)p->m; t++) {
        size_t shared = p->kv_a + t * (size_t)(p->rank + p->rope) + (size_t)p->rank;
        for (size_t h = 0; h < (size_t)p->heads; h++) {
            size_t i = t * (size_t)p->heads + h;
            if (what == MLA_Q)
                row = mla_head(p, row, i * q + (size_t)p->nope, p->rope, i * q, p->nope);
            else if (what == MLA_K)
                row = mla_head(p, row, shared, p->rope, p->kv_b + i * b, p->nope);
            else
                row = mla_head(p, row, p->zero, 0, p->kv_b + i * b + (size_t)p->nope, p->v);
        }
    }
    return l->r->dev->ops->gather_rows(ctx, l->r->dev, to, from, row - l->mla_rows, p->piece,
                                       l->mla_rows);
}

/* The latent vectors of keys and values, without the shared rotary key, normed. */
static mt_status mla_latent(struct mt_ctx *ctx, struct mt_run_layer *l, const struct mla_parts *p,
                            mt_buf all, mt_buf latent)
{
    struct mt_device *dev = l->r->dev;
    int32_t *row = l->mla_rows;

    for (size_t t = 0; t < (size_t)p->m; t++)
        row = mla_append(p, row, p->kv_a + t * (size_t)(p->rank + p->rope), p->rank);
    MT_TRY(dev->ops->gather_rows(ctx, dev, latent, all, row - l->mla_rows, p->piece, l->mla_rows));
    return dev->ops->rmsnorm(ctx, dev, latent, latent, p->m, l->kv_a_norm.h, 0,
                             l->r->m->hp.mla.eps);
}

mt_status mt_run_mla_project(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf x, int64_t m,
                             mt_buf q, mt_buf k, mt_buf v)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    struct mt_device *dev = l->r->dev;
    const struct mla_parts p = mla_parts_of(hp, m);
    size_t need[RUN_SLOTS];
    mt_buf all, latent;

    if (p.end / (size_t)p.piece > INT32_MAX)
        return mt_fail(ctx, MT_E_LIMIT, "%lld tokens are too many for one batch of this model",
                       (long long)m);
    mt_run_mla_slots(hp, m, need);
    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_F, need[RUN_SLOT_F], &all));
    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_G, need[RUN_SLOT_G], &latent));
    MT_TRY(mla_room(ctx, l, (size_t)(m * p.heads * p.head_dim / p.piece + m * p.rank / p.piece)));
    if (hp->mla.q_rank > 0) {
        MT_TRY(mt_run_linear(ctx, l, latent, x, m, &l->q_a, &l->q_a_bias));
        MT_TRY(dev->ops->rmsnorm(ctx, dev, latent, latent, m, l->q_a_norm.h, 0, hp->mla.eps));
        MT_TRY(dev->ops->gemm(ctx, dev, all, latent, m, l->q.h, false));
    } else {
        MT_TRY(dev->ops->gemm(ctx, dev, all, x, m, l->q.h, false));
    }
    MT_TRY(dev->ops->zero(ctx, dev, mt_dev_at(dev, all, p.zero), (size_t)p.piece));
    MT_TRY(mt_run_linear(ctx, l, mt_dev_at(dev, all, p.kv_a), x, m, &l->kv_a, &l->kv_a_bias));
    MT_TRY(mla_latent(ctx, l, &p, all, latent));
    MT_TRY(dev->ops->gemm(ctx, dev, mt_dev_at(dev, all, p.kv_b), latent, m, l->kv_b.h, false));
    MT_TRY(mla_gather(ctx, l, &p, MLA_Q, all, q));
    MT_TRY(mla_gather(ctx, l, &p, MLA_K, all, k));
    return mla_gather(ctx, l, &p, MLA_V, all, v);
}

mt_status mt_run_mla_values(struct mt_ctx *ctx, struct mt_run_layer *l, mt_buf att, int64_t m,
                            mt_buf *out)
{
    const struct mt_hparams *hp = &l->r->m->hp;
    const struct mla_parts p = mla_parts_of(hp, m);
    int32_t *row = l->mla_rows;

    MT_TRY(mt_run_slot(ctx, l->r, RUN_SLOT_F, p.end, out));
    for (size_t i = 0; i < (size_t)(m * p.heads); i++)
        row = mla_append(&p, row, i * (size_t)p.head_dim, p.v);
    return l->r->dev->ops->gather_rows(ctx, l->r->dev, *out, att, row - l->mla_rows, p.piece,
                                       l->mla_rows);
}
