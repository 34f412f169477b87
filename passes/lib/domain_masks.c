#include "passes/lib/domain_masks.h"

#include "lib/base/mem.h"
#include "passes/lib/neurons.h"

#include <math.h>

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
