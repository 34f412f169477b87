#include "lib/flow/profile_see.h"

#include "kernels/kernels.h"
#include "kernels/linalg.h"
#include "lib/base/mem.h"
#include "lib/base/pool.h"
#include "lib/flow/profile_impl.h"

#include <math.h>
#include <string.h>

#define SEE_GRAM_ROWS 8 /* rows of the logits' Gram matrix made by one job */

/* Floats that hold all rows of a block at any point but attention's, which comes in pieces. */
static int64_t see_stage_floats(const struct mt_model *m, int64_t block)
{
    int64_t widest = m->hp.hidden, q = (int64_t)m->hp.n_heads * m->hp.head_dim;

    q = m->hp.n_heads * (int64_t)m->hp.mla.v > q ? m->hp.n_heads * (int64_t)m->hp.mla.v : q;
    for (int l = 0; l < m->hp.n_layers; l++) {
        const struct mt_ffn *f = &m->ffn[l];
        int64_t w = f->width > m->hp.hidden ? f->width : m->hp.hidden;
        w *= f->moe ? f->k : 1;
        w = f->shared_width > w ? f->shared_width : w;
        widest = w > widest ? w : widest;
        /* One token through every expert. */
        if (f->moe && f->n_experts * m->hp.hidden > q)
            q = f->n_experts * m->hp.hidden;
    }
    return block * widest > q ? block * widest : q;
}

static int64_t see_k_max(const struct mt_model *m)
{
    int64_t k = 0;

    for (int l = 0; l < m->hp.n_layers; l++)
        k = m->ffn[l].moe && m->ffn[l].k > k ? m->ffn[l].k : k;
    return k;
}

uint64_t profile_see_bytes(const struct mt_profile *p, int layer)
{
    uint64_t values = 0;

    /* A part's values beside its exact sums, while it is handed on. */
    for (int i = 0; i < MT_STAT_COUNT_ALL; i++) {
        const struct profile_shape *shape = profile_shape(p, layer, (enum mt_stat)i);
        uint64_t n = (uint64_t)(shape->rows * shape->cols) * sizeof(double);
        values = n > values ? n : values;
    }
    return sums_bytes(p, layer) + values;
}

uint64_t profile_see_stage_bytes(const struct mt_model *m, int64_t block)
{
    return (uint64_t)(see_stage_floats(m, block) + block * m->hp.hidden) * sizeof(float) +
           (uint64_t)(block * see_k_max(m)) * sizeof(double) +
           (uint64_t)(block * MT_STAT_TOP_K) * sizeof(int32_t);
}

mt_status profile_see_open(struct mt_ctx *ctx, struct profile_see *s, const struct mt_model *m,
                           struct mt_device *dev, const struct mt_profile *p, int layer,
                           struct mt_run_layer *rl, int64_t block)
{
    mt_status st;

    *s = (struct profile_see){.m = m, .dev = dev, .rl = rl, .layer = layer, .block = block};
    s->room = see_stage_floats(m, block);
    s->all_experts = mt_profile_has(p, layer, MT_STAT_EXPERT_F_ALL);
    st = sums_open(ctx, p, layer, &s->sums);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)(block * m->hp.hidden), sizeof *s->x, "FFN inputs", &s->x);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)s->room, sizeof *s->stage, "activations", &s->stage);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)(block * see_k_max(m)), sizeof *s->weight, "expert weights",
                      &s->weight);
    if (st != MT_OK)
        profile_see_close(s);
    return st;
}

void profile_see_close(struct profile_see *s)
{
    sums_close(&s->sums);
    mt_free(s->x);
    mt_free(s->stage);
    mt_free(s->weight);
    *s = (struct profile_see){0};
}

void profile_see_begin(struct profile_see *s, int domain)
{
    s->sums.domain = domain;
}

mt_status profile_see_end(struct mt_ctx *ctx, struct profile_see *s)
{
    return sums_flush(ctx, &s->sums, s->layer);
}

mt_status profile_see_set(struct mt_ctx *ctx, struct profile_see *s, struct mt_profile *p,
                          enum mt_stat stat, int domain)
{
    return sums_set(ctx, &s->sums, p, s->layer, stat, domain);
}

/* ---- inputs and outputs ---- */

static mt_status see_gram(struct mt_ctx *ctx, struct profile_see *s, enum mt_stat stat,
                          const float *x, int64_t m, int64_t width)
{
    double *g = sums_at(&s->sums, stat);

    return g == NULL ? MT_OK : mt_gram_add(ctx, m, width, x, width, g);
}

mt_status profile_see_inputs(struct mt_ctx *ctx, struct profile_see *s, mt_buf x, int64_t m)
{
    int64_t d = s->m->hp.hidden;
    const struct sums_columns to = {.sum = sums_at(&s->sums, MT_STAT_X_SUM),
                                    .sq = sums_at(&s->sums, MT_STAT_X_SQ)};
    double *tokens = sums_at(&s->sums, MT_STAT_TOKENS);

    MT_TRY(s->dev->ops->download(ctx, s->dev, s->x, x, (size_t)(m * d)));
    if (tokens != NULL)
        *tokens += (double)m;
    MT_TRY(sums_add_columns(ctx, &to, s->x, m, d));
    return see_gram(ctx, s, MT_STAT_X_GRAM, s->x, m, d);
}

struct see_gram_job {
    const double *z; /* [m, n] */
    int64_t m, n;
    double *sum, *gram; /* [n], [n, n] */
};

/* In the order of tokens, whatever the number of threads. */
static mt_status see_gram_rows(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct see_gram_job *j = arg;
    int64_t end = (i + 1) * SEE_GRAM_ROWS < j->n ? (i + 1) * SEE_GRAM_ROWS : j->n;

    (void)ctx;
    for (int64_t r = i * SEE_GRAM_ROWS; r < end; r++) {
        for (int64_t t = 0; t < j->m; t++) {
            const double *z = j->z + t * j->n;
            j->sum[r] += z[r];
            for (int64_t c = 0; c < j->n; c++)
                j->gram[r * j->n + c] += z[r] * z[c];
        }
    }
    return MT_OK;
}

/* Which experts were chosen together, and first. */
static void see_chosen(struct profile_see *s, const struct mt_routing *r)
{
    int64_t n = s->m->ffn[s->layer].n_experts;
    double *top1 = sums_at(&s->sums, MT_STAT_ROUTER_TOP1);
    double *coact = sums_at(&s->sums, MT_STAT_ROUTER_COACT);

    for (int64_t t = 0; t < r->m; t++) {
        const int32_t *e = r->expert + t * r->k;
        if (e[0] >= 0)
            top1[e[0]]++;
        for (int i = 0; i < r->k; i++)
            for (int j = 0; j < r->k && e[i] >= 0; j++)
                if (e[j] >= 0)
                    coact[e[i] * n + e[j]]++;
    }
}

static mt_status see_routing(struct mt_ctx *ctx, struct profile_see *s)
{
    const struct mt_routing *r = mt_run_routing(s->rl);
    struct see_gram_job job = {.z = r->logits,
                               .m = r->m,
                               .n = r->n_rows,
                               .sum = sums_at(&s->sums, MT_STAT_ROUTER_Z_SUM),
                               .gram = sums_at(&s->sums, MT_STAT_ROUTER_Z_GRAM)};

    see_chosen(s, r);
    return mt_pool_run(ctx, (job.n + SEE_GRAM_ROWS - 1) / SEE_GRAM_ROWS, see_gram_rows, &job);
}

mt_status profile_see_outputs(struct mt_ctx *ctx, struct profile_see *s, mt_buf y, int64_t m)
{
    int64_t d = s->m->hp.hidden;
    const struct sums_columns to = {.sum = sums_at(&s->sums, MT_STAT_Y_SUM),
                                    .sq = sums_at(&s->sums, MT_STAT_Y_SQ)};

    MT_TRY(s->dev->ops->download(ctx, s->dev, s->stage, y, (size_t)(m * d)));
    MT_TRY(sums_add_columns(ctx, &to, s->stage, m, d));
    return s->m->ffn[s->layer].moe ? see_routing(ctx, s) : MT_OK;
}

/* ---- taps ---- */

/* What gates let through. */
static void see_act(const struct profile_see *s, float *z, int64_t n)
{
    enum mt_act act = s->m->ffn[s->layer].act;

    for (int64_t i = 0; i < n; i++)
        z[i] = (float)mt_act_f64(act, (double)z[i]);
}

/* Rows of the dense kind, in pieces that fit the stage. */
static mt_status see_plain(struct mt_ctx *ctx, struct profile_see *s, const struct mt_tap_rows *r,
                           const struct sums_columns *to)
{
    int64_t step = s->room / r->width;
    double *top = r->point == MT_TAP_HIDDEN ? sums_at(&s->sums, MT_STAT_H_TOP) : NULL;

    for (int64_t t = 0; t < r->m; t += step) {
        int64_t m = r->m - t < step ? r->m - t : step;
        MT_TRY(s->dev->ops->download(ctx, s->dev, s->stage,
                                     mt_dev_at(s->dev, r->rows, (size_t)(t * r->width)),
                                     (size_t)(m * r->width)));
        if (r->point == MT_TAP_GATE)
            see_act(s, s->stage, m * r->width);
        MT_TRY(sums_add_columns(ctx, to, s->stage, m, r->width));
        if (top != NULL)
            MT_TRY(sums_add_top(ctx, top, s->stage, m, r->width, MT_STAT_TOP_K));
        if (r->point == MT_TAP_HIDDEN)
            MT_TRY(see_gram(ctx, s, MT_STAT_H_GRAM, s->stage, m, r->width));
    }
    return MT_OK;
}

/* One expert's rows. */
struct see_expert_job {
    struct profile_see *s;
    const struct mt_tap_rows *r;
};

static void see_expert_hidden(struct profile_see *s, int e, const float *h, int64_t m,
                              int64_t width)
{
    double *abs = sums_at(&s->sums, MT_STAT_EXPERT_H_ABS) + e * width;
    double *sq = sums_at(&s->sums, MT_STAT_EXPERT_H_SQ) + e * width;

    for (int64_t t = 0; t < m; t++) {
        for (int64_t j = 0; j < width; j++) {
            double v = (double)h[t * width + j];
            abs[j] += fabs(v);
            sq[j] += v * v;
        }
    }
}

static void see_expert_inputs(struct profile_see *s, int e, const int32_t *token, int64_t m)
{
    int64_t d = s->m->hp.hidden;
    double *sq = sums_at(&s->sums, MT_STAT_EXPERT_X_SQ) + e * d;

    for (int64_t t = 0; t < m; t++) {
        const float *x = s->x + token[t] * d;
        for (int64_t j = 0; j < d; j++)
            sq[j] += (double)x[j] * (double)x[j];
    }
}

static void see_expert_outputs(struct profile_see *s, int e, const float *f, const double *weight,
                               int64_t m)
{
    int64_t d = s->m->hp.hidden;
    double *sum = sums_at(&s->sums, MT_STAT_EXPERT_F_SUM) + e * d;
    double *max = sums_at(&s->sums, MT_STAT_EXPERT_F_MAX) + e;

    for (int64_t t = 0; t < m; t++, f += d) {
        double square = 0, norm;
        for (int64_t j = 0; j < d; j++) {
            double v = (double)f[j];
            sum[j] += v;
            square += v * v;
            if (!(fabs(v) <= *max)) /* NaN too */
                *max = fabs(v);
        }
        norm = sqrt(square);
        sums_at(&s->sums, MT_STAT_EXPERT_G)[e] += weight[t];
        sums_at(&s->sums, MT_STAT_EXPERT_F_NORM)[e] += norm;
        sums_at(&s->sums, MT_STAT_EXPERT_F_SQ)[e] += square;
        sums_at(&s->sums, MT_STAT_EXPERT_GF_NORM)[e] += weight[t] * norm;
    }
    sums_at(&s->sums, MT_STAT_EXPERT_N)[e] += (double)m;
}

static void see_expert_all(struct profile_see *s, int e, const float *f, int64_t m)
{
    int64_t d = s->m->hp.hidden;
    double *sum = sums_at(&s->sums, MT_STAT_EXPERT_F_ALL) + e * d;

    for (int64_t t = 0; t < m; t++)
        for (int64_t j = 0; j < d; j++)
            sum[j] += (double)f[t * d + j];
}

static mt_status see_expert(struct mt_ctx *ctx, int64_t i, void *arg)
{
    const struct see_expert_job *job = arg;
    const struct mt_tap_rows *r = job->r;
    int e = r->first + (int)i;
    int64_t row = r->offset[e], m = r->offset[e + 1] - row;
    const float *at = job->s->stage + (row - r->offset[r->first]) * r->width;

    (void)ctx;
    if (m == 0)
        return MT_OK;
    if (r->point == MT_TAP_EXPERT_HIDDEN) {
        if (job->s->sums.stats[MT_STAT_EXPERT_H_SQ].rows > 0)
            see_expert_hidden(job->s, e, at, m, r->width);
    } else if (r->point == MT_TAP_EXPERT_OUT) {
        see_expert_inputs(job->s, e, r->token_of_row + row, m);
        see_expert_outputs(job->s, e, at, job->s->weight + row, m);
    } else {
        see_expert_all(job->s, e, at, m);
    }
    return MT_OK;
}

/* Experts write to sums of their own, each in the order of its rows. */
static mt_status see_experts(struct mt_ctx *ctx, struct profile_see *s, const struct mt_tap_rows *r)
{
    const struct mt_routing *routing = mt_run_routing(s->rl);
    struct see_expert_job job = {s, r};

    mt_assert(r->m * r->width <= s->room);
    if (r->point == MT_TAP_EXPERT_OUT) {
        for (int64_t i = 0; i < routing->m * routing->k; i++)
            if (r->row_of_slot[i] >= 0)
                s->weight[r->row_of_slot[i]] = routing->weight[i];
    }
    MT_TRY(s->dev->ops->download(ctx, s->dev, s->stage, r->rows, (size_t)(r->m * r->width)));
    return mt_pool_run(ctx, r->end - r->first, see_expert, &job);
}

mt_status profile_see_rows(struct mt_ctx *ctx, void *see, const struct mt_tap_rows *r)
{
    struct profile_see *s = see;
    struct sums_columns to = {0};

    switch (r->point) {
    case MT_TAP_ATTN_IN:
        to.sq = sums_at(&s->sums, MT_STAT_ATTN_X_SQ);
        break;
    case MT_TAP_ATTN_OUT:
        to.sq = sums_at(&s->sums, MT_STAT_ATTN_O_SQ);
        break;
    case MT_TAP_GATE:
        to.sum = sums_at(&s->sums, MT_STAT_A_SUM);
        if (to.sum == NULL)
            return MT_OK;
        break;
    case MT_TAP_HIDDEN:
        if (!s->m->ffn[s->layer].gated && sums_at(&s->sums, MT_STAT_A_SUM) != NULL)
            MT_TRY(see_plain(
                ctx, s,
                &(struct mt_tap_rows){
                    .point = MT_TAP_ATTN_IN, .rows = r->rows, .m = r->m, .width = r->width},
                &(struct sums_columns){.sum = sums_at(&s->sums, MT_STAT_A_SUM)}));
        to.sum = sums_at(&s->sums, MT_STAT_H_SUM);
        to.abs = sums_at(&s->sums, MT_STAT_H_ABS);
        to.sq = sums_at(&s->sums, MT_STAT_H_SQ);
        to.max = sums_at(&s->sums, MT_STAT_H_MAX);
        break;
    case MT_TAP_SHARED_HIDDEN:
        to.abs = sums_at(&s->sums, MT_STAT_SHARED_H_ABS);
        to.sq = sums_at(&s->sums, MT_STAT_SHARED_H_SQ);
        break;
    case MT_TAP_EXPERT_HIDDEN:
    case MT_TAP_EXPERT_OUT:
    case MT_TAP_EXPERT_ALL:
        return see_experts(ctx, s, r);
    }
    return see_plain(ctx, s, r, &to);
}
