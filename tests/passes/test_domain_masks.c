#include "passes/lib/domain_masks.h"

#include "lib/base/rng.h"
#include "tests/t.h"

#define WIDTH_MAX 40
#define DOMAINS_MAX 5

/* Whether neuron j is among the `keep` first by value, then index: counted, not sorted. */
static bool kept(const double *v, int64_t n, int64_t keep, int64_t j)
{
    int64_t before = 0;

    for (int64_t i = 0; i < n; i++)
        before += v[i] > v[j] || (v[i] == v[j] && i < j);
    return before < keep;
}

static void against_brute_force(struct t *t, struct mt_rng *r, int n, int64_t width, int64_t keep)
{
    double v[DOMAINS_MAX * WIDTH_MAX] = {0};
    struct mt_domain_masks *m;
    int64_t common = 0, dropped = 0;

    /* Few values, so that ties decide. */
    for (int64_t i = 0; i < n * width; i++)
        v[i] = (double)mt_rng_below(r, 7);
    T_OK(t, mt_domain_masks_make(&t->ctx, v, n, width, keep, &m));
    for (int64_t j = 0; j < width; j++) {
        int holders = 0;
        for (int i = 0; i < n; i++) {
            bool in = kept(v + i * width, width, keep, j);
            holders += in;
            if (m->in[i * width + j] != in)
                t_fail(t, __FILE__, __LINE__, "domain %d, neuron %d", i, (int)j);
        }
        common += holders == n;
        dropped += holders == 0;
        if (mt_domain_masks_holders(m, j) != holders)
            t_fail(t, __FILE__, __LINE__, "holders of neuron %d", (int)j);
    }
    if (m->common != common || m->dropped != dropped)
        t_fail(t, __FILE__, __LINE__, "common or dropped");
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            int64_t both = 0;
            for (int64_t j = 0; j < width; j++)
                both += kept(v + a * width, width, keep, j) && kept(v + b * width, width, keep, j);
            if (mt_domain_masks_overlap(m, a, b) != both || (a == b && both != keep))
                t_fail(t, __FILE__, __LINE__, "overlap of %d and %d", a, b);
        }
    mt_domain_masks_free(m);
}

T_TEST(masks_and_their_algebra_are_those_of_brute_force)
{
    struct mt_rng r;

    mt_rng_seed(&r, 5, 0);
    for (int i = 0; i < 100 && !t->failed; i++) {
        int64_t width = 1 + (int64_t)mt_rng_below(&r, WIDTH_MAX);
        against_brute_force(t, &r, 1 + (int)mt_rng_below(&r, DOMAINS_MAX), width,
                            1 + (int64_t)mt_rng_below(&r, (uint64_t)width));
    }
}

/* Lists of any widths: shared are those of most masks, an expert has its domain's best of the rest.
 */
static void lists_are_the_best(struct t *t, const struct mt_domain_masks *m, const double *v,
                               int64_t shared, int64_t expert, const int32_t *idx)
{
    for (int i = -1; i < m->n; i++) {
        const int32_t *list = i < 0 ? idx : idx + shared + i * expert;
        int64_t n = i < 0 ? shared : expert;
        unsigned char mine[WIDTH_MAX] = {0}, taken[WIDTH_MAX] = {0};
        for (int64_t r = 0; r < n; r++) {
            if (r > 0 && list[r] <= list[r - 1])
                t_fail(t, __FILE__, __LINE__, "a list does not rise");
            mine[list[r]] = 1;
        }
        for (int64_t r = 0; i >= 0 && r < shared; r++)
            taken[idx[r]] = 1;
        for (int64_t a = 0; a < m->width; a++)
            for (int64_t b = 0; b < m->width; b++) {
                bool better = i < 0 ? mt_domain_masks_holders(m, b) > mt_domain_masks_holders(m, a)
                                    : v[i * m->width + b] > v[i * m->width + a];
                if (mine[a] && (taken[a] || (!mine[b] && !taken[b] && better)))
                    t_fail(t, __FILE__, __LINE__, "list %d has %d and not %d", i, (int)a, (int)b);
            }
    }
}

T_TEST(lists_of_given_widths_take_the_best)
{
    double v[DOMAINS_MAX * WIDTH_MAX] = {0};
    int32_t idx[(DOMAINS_MAX + 1) * WIDTH_MAX];
    struct mt_domain_masks *m;
    struct mt_rng r;

    mt_rng_seed(&r, 6, 0);
    for (int i = 0; i < 100 && !t->failed; i++) {
        int64_t width = 2 + (int64_t)mt_rng_below(&r, WIDTH_MAX - 1);
        int n = 1 + (int)mt_rng_below(&r, DOMAINS_MAX);
        int64_t shared = (int64_t)mt_rng_below(&r, (uint64_t)width);
        int64_t expert = (int64_t)mt_rng_below(&r, (uint64_t)(width - shared + 1));
        for (int64_t j = 0; j < n * width; j++)
            v[j] = (double)mt_rng_below(&r, 9);
        T_OK(t, mt_domain_masks_make(&t->ctx, v, n, width, mt_domain_keep(0.5, width), &m));
        T_OK(t, mt_domain_fill(&t->ctx, m, v, shared, expert, idx));
        lists_are_the_best(t, m, v, shared, expert, idx);
        /* With the masks' own widths they are the masks. */
        T_OK(t, mt_domain_fill(&t->ctx, m, v, m->common, m->keep - m->common, idx));
        for (int d = 0; d < n; d++)
            for (int64_t j = 0; j < m->keep; j++)
                T_CHECK(t,
                        m->in[d * width +
                              (j < m->common
                                   ? idx[j]
                                   : idx[m->common + d * (m->keep - m->common) + j - m->common])]);
        mt_domain_masks_free(m);
    }
}

/* The authors' code compares by > and takes one less. */
T_TEST(exactly_as_many_are_kept_as_asked_for)
{
    T_EQ_INT(t, mt_domain_keep(0.5, 11008), 5504);
    T_EQ_INT(t, mt_domain_keep(0.5, 7), 4);
    T_EQ_INT(t, mt_domain_keep(1, 7), 7);
    T_EQ_INT(t, mt_domain_keep(1e-9, 7), 1);
}
