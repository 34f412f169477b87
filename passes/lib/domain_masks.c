#include "passes/lib/domain_masks.h"

#include "lib/base/mem.h"
#include "passes/lib/neurons.h"

#include <math.h>
#include <string.h>

int64_t mt_domain_keep(double share, int64_t width)
{
    int64_t n = (int64_t)llround(share * (double)width);

    return n < 1 ? 1 : n > width ? width : n;
}

static mt_status masks_fill(struct mt_ctx *ctx, const double *importance, struct mt_domain_masks *m)
{
    int32_t *order;

    MT_TRY(mt_alloc0(ctx, (size_t)m->n, (size_t)m->width, "domain masks", &m->in));
    MT_TRY(mt_alloc(ctx, (size_t)m->width, sizeof(*order), "ranking", &order));
    mt_status st = MT_OK;
    for (int i = 0; i < m->n && st == MT_OK; i++) {
        st = mt_rank_falling(ctx, importance + i * m->width, m->width, order);
        for (int64_t r = 0; r < m->keep && st == MT_OK; r++)
            m->in[i * m->width + order[r]] = 1;
    }
    mt_free(order);
    return st;
}

mt_status mt_domain_masks_make(struct mt_ctx *ctx, const double *importance, int n, int64_t width,
                               int64_t keep, struct mt_domain_masks **out)
{
    struct mt_domain_masks *m;

    mt_assert(n >= 1 && keep >= 1 && keep <= width);
    *out = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*m), "domain masks", &m));
    *m = (struct mt_domain_masks){.n = n, .width = width, .keep = keep};
    mt_status st = masks_fill(ctx, importance, m);
    if (st != MT_OK) {
        mt_domain_masks_free(m);
        return st;
    }
    for (int64_t j = 0; j < width; j++) {
        int holders = mt_domain_masks_holders(m, j);
        m->common += holders == n;
        m->dropped += holders == 0;
    }
    *out = m;
    return MT_OK;
}

void mt_domain_masks_free(struct mt_domain_masks *m)
{
    if (m != NULL)
        mt_free(m->in);
    mt_free(m);
}

int mt_domain_masks_holders(const struct mt_domain_masks *m, int64_t j)
{
    int n = 0;

    for (int i = 0; i < m->n; i++)
        n += m->in[i * m->width + j];
    return n;
}

int64_t mt_domain_masks_overlap(const struct mt_domain_masks *m, int a, int b)
{
    int64_t n = 0;

    for (int64_t j = 0; j < m->width; j++)
        n += m->in[a * m->width + j] & m->in[b * m->width + j];
    return n;
}

/* ---- lists of given widths ---- */

/* By number of masks first: shares of importance add up to n at most. */
static void fill_scores(const struct mt_domain_masks *m, const double *importance, double *score)
{
    for (int64_t j = 0; j < m->width; j++)
        score[j] = (m->n + 1.0) * mt_domain_masks_holders(m, j);
    for (int i = 0; i < m->n; i++) {
        const double *v = importance + i * m->width;
        double sum = 0;
        for (int64_t j = 0; j < m->width; j++)
            sum += v[j];
        for (int64_t j = 0; j < m->width && sum > 0; j++)
            score[j] += v[j] / sum;
    }
}

/* The first n of order[width] that are not taken, as a rising list; marks them in `mine`. */
static void fill_list(const int32_t *order, int64_t width, const unsigned char *taken, int64_t n,
                      unsigned char *mine, int32_t *list)
{
    int64_t have = 0;

    memset(mine, 0, (size_t)width);
    for (int64_t r = 0; r < width && have < n; r++)
        if (taken == NULL || !taken[order[r]]) {
            mine[order[r]] = 1;
            have++;
        }
    mt_assert(have == n);
    for (int64_t j = 0; j < width; j++)
        if (mine[j])
            *list++ = (int32_t)j;
}

mt_status mt_domain_fill(struct mt_ctx *ctx, const struct mt_domain_masks *m,
                         const double *importance, int64_t shared, int64_t expert, int32_t *idx)
{
    unsigned char *taken = NULL;
    int32_t *order = NULL;
    double *score;

    MT_TRY(mt_alloc(ctx, (size_t)m->width, sizeof(*score), "ranking", &score));
    mt_status st = mt_alloc(ctx, (size_t)m->width, sizeof(*order), "ranking", &order);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)m->width, 2, "ranking", &taken);
    if (st == MT_OK) {
        fill_scores(m, importance, score);
        st = mt_rank_falling(ctx, score, m->width, order);
    }
    if (st == MT_OK)
        fill_list(order, m->width, NULL, shared, taken, idx);
    for (int i = 0; i < m->n && st == MT_OK; i++) {
        st = mt_rank_falling(ctx, importance + i * m->width, m->width, order);
        if (st == MT_OK)
            fill_list(order, m->width, taken, expert, taken + m->width, idx + shared + i * expert);
    }
    mt_free(score);
    mt_free(order);
    mt_free(taken);
    return st;
}
