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
    double v[DOMAINS_MAX * WIDTH_MAX];
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

/* The authors' code compares by > and takes one less. */
T_TEST(exactly_as_many_are_kept_as_asked_for)
{
    T_EQ_INT(t, mt_domain_keep(0.5, 11008), 5504);
    T_EQ_INT(t, mt_domain_keep(0.5, 7), 4);
    T_EQ_INT(t, mt_domain_keep(1, 7), 7);
    T_EQ_INT(t, mt_domain_keep(1e-9, 7), 1);
}
