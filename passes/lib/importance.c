#include "passes/lib/importance.h"

#include "lib/base/mem.h"
#include "passes/lib/neurons.h"

#include <string.h>

struct importance {
    const double *worth; /* [n, width] */
    struct mt_split *s;
    int n;
    int64_t width;
    int32_t *order;      /* [n, width] neurons by falling worth to an expert */
    int32_t *count;      /* [width] experts that would choose a neuron */
    double *sum;         /* [width] worth to all */
    unsigned char *gone; /* [width] residual, or taken */
};

/* How many experts have a neuron among their best `size` that are not residual yet. */
static void importance_count(struct importance *m, int64_t size)
{
    memset(m->count, 0, (size_t)m->width * sizeof(*m->count));
    for (int e = 0; e < m->n; e++) {
        const int32_t *order = m->order + e * m->width;
        for (int64_t i = 0, have = 0; i < m->width && have < size; i++) {
            if (m->gone[order[i]])
                continue;
            m->count[order[i]]++;
            have++;
        }
    }
}

/* Of the neurons that most experts would choose, those that are worth most to all. When they are
 * out of the way others move up, so choices are counted anew. */
static void importance_residual(struct importance *m)
{
    int64_t want = m->s->shared_width < m->width ? m->s->shared_width : m->width, have = 0;
    int64_t size = m->s->expert_width;

    while (have < want) {
        int32_t most = 0;
        importance_count(m, size);
        for (int64_t j = 0; j < m->width; j++)
            most = m->count[j] > most ? m->count[j] : most;
        mt_assert(most > 0);
        for (bool any = true; any && have < want;) {
            int64_t best = -1;
            for (int64_t j = 0; j < m->width; j++)
                if (!m->gone[j] && m->count[j] == most && (best < 0 || m->sum[j] > m->sum[best]))
                    best = j;
            any = best >= 0;
            if (any) {
                m->gone[best] = 1;
                have++;
            }
        }
    }
}

static void importance_tops(const struct importance *m, int32_t *owner, int e)
{
    const int32_t *order = m->order + e * m->width;
    int64_t have = 0;

    for (int64_t i = 0; i < m->width && have < m->s->expert_width; i++) {
        if (m->gone[order[i]])
            continue;
        owner[order[i]] = e;
        have++;
    }
}

/* The highest worth of all pairs of an expert with room and a neuron without owner. */
static void importance_exclusive(struct importance *m, int64_t *at, int64_t *room, int32_t *owner)
{
    for (;;) {
        int best = -1;
        for (int e = 0; e < m->n; e++) {
            const int32_t *order = m->order + e * m->width;
            while (at[e] < m->width && m->gone[order[at[e]]])
                at[e]++;
            if (room[e] == 0 || at[e] == m->width)
                continue;
            if (best < 0 || m->worth[e * m->width + order[at[e]]] >
                                m->worth[best * m->width + m->order[best * m->width + at[best]]])
                best = e;
        }
        if (best < 0)
            return;
        int32_t j = m->order[best * m->width + at[best]];
        m->gone[j] = 1;
        owner[j] = best;
        room[best]--;
    }
}

/* The rising list of what `owner` gives to e. */
static void importance_list(const struct importance *m, const int32_t *owner, int32_t e,
                            int64_t size, int32_t *list)
{
    int64_t n = 0;

    for (int64_t j = 0; j < m->width && n < size; j++)
        if (owner[j] == e)
            list[n++] = (int32_t)j;
    for (; n < size; n++)
        list[n] = -1;
}

static mt_status importance_lists(struct mt_ctx *ctx, struct importance *m, bool overlap)
{
    struct mt_split *s = m->s;
    int32_t *owner, *list = s->idx;
    int64_t *room;

    MT_TRY(mt_alloc(ctx, (size_t)m->width, sizeof(*owner), "importance", &owner));
    mt_status st = mt_alloc0(ctx, (size_t)m->n, 2 * sizeof(*room), "importance", &room);
    if (st == MT_OK) {
        for (int64_t j = 0; j < m->width; j++)
            owner[j] = m->gone[j] ? MT_SPLIT_SHARED : m->n;
        importance_list(m, owner, MT_SPLIT_SHARED, s->shared_width, list);
        list += s->shared_width;
        if (!overlap) {
            mt_split_capacities(s, room);
            importance_exclusive(m, room + m->n, room, owner);
        }
        for (int e = 0; e < m->n; e++, list += s->expert_width) {
            if (overlap)
                importance_tops(m, owner, e);
            importance_list(m, owner, e, s->expert_width, list);
        }
    }
    mt_free(owner);
    mt_free(room);
    return st;
}

static mt_status importance_run(struct mt_ctx *ctx, struct importance *m, bool overlap)
{
    size_t w = (size_t)m->width;

    MT_TRY(mt_alloc(ctx, w, (size_t)m->n * sizeof(*m->order), "importance", &m->order));
    MT_TRY(mt_alloc(ctx, w, sizeof(*m->count), "importance", &m->count));
    MT_TRY(mt_alloc0(ctx, w, sizeof(*m->sum), "importance", &m->sum));
    MT_TRY(mt_alloc0(ctx, w, 1, "importance", &m->gone));
    for (int e = 0; e < m->n; e++) {
        MT_TRY(mt_rank_falling(ctx, m->worth + e * m->width, m->width, m->order + e * m->width));
        for (int64_t j = 0; j < m->width; j++)
            m->sum[j] += m->worth[e * m->width + j];
    }
    importance_residual(m);
    return importance_lists(ctx, m, overlap);
}

mt_status mt_importance_fill(struct mt_ctx *ctx, const double *worth, bool overlap,
                             struct mt_split *s)
{
    struct importance m = {.worth = worth, .s = s, .n = s->n_experts, .width = s->width};

    mt_status st = importance_run(ctx, &m, overlap);
    mt_free(m.order);
    mt_free(m.count);
    mt_free(m.sum);
    mt_free(m.gone);
    return st;
}
