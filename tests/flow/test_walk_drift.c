/* What sequential passes are shown of how far their hidden states are from the source's. */
#include "tests/flow_kit.h"

#include <stdlib.h>

#define ROUNDS 2

struct seen {
    double drift[KIT_LAYERS][ROUNDS], y[KIT_LAYERS][ROUNDS]; /* sums of squares */
    double first[KIT_LAYERS][ROUNDS];                        /* the first element */
    bool missing;
};
struct watch_opts {
    struct seen *seen;
};

static mt_status watch_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                              void **state)
{
    (void)ctx;
    (void)src;
    *state = ((const struct watch_opts *)opts)->seen;
    return MT_OK;
}

static unsigned watch_needs(const void *state)
{
    (void)state;
    return MT_NEED_OUTPUT | MT_NEED_STUDENT | MT_NEED_DRIFT;
}

static int watch_rounds(const void *state)
{
    (void)state;
    return ROUNDS;
}

static mt_status watch_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct seen *s = state;

    (void)ctx;
    s->missing = s->missing || ob->drift == NULL;
    for (int64_t i = 0; ob->drift != NULL && i < ob->m * KIT_HIDDEN; i++) {
        if (ob->token0 == 0 && i == 0)
            s->first[ob->layer][ob->round] = (double)ob->drift[i];
        s->drift[ob->layer][ob->round] += (double)ob->drift[i] * (double)ob->drift[i];
        s->y[ob->layer][ob->round] += (double)ob->y[i] * (double)ob->y[i];
    }
    return MT_OK;
}

static const struct mt_opt watch_opt_table[] = {MT_OPT_END};
static const struct mt_pass watch = {
    .name = "watch-drift",
    .summary = "adds up what it is shown",
    .opts = watch_opt_table,
    .opts_size = sizeof(struct watch_opts),
    .create = watch_create,
    .needs = watch_needs,
    .rounds = watch_rounds,
    .observe = watch_observe,
};

static mt_status run(struct t *t, bool tilted, struct seen *seen)
{
    static struct kit_scale_opts tilt;
    struct watch_opts w = {seen};
    struct mt_walk_pass passes[2] = {{&watch, &w}, {&kit_tilt, &tilt}};
    const struct kit_run r = {
        .source = kit_make(t, "src"), .passes = passes, .n_passes = tilted ? 2 : 1, .data = true};

    tilt = (struct kit_scale_opts){.by = 0.25, .cancel = &t->cancel};
    memset(seen, 0, sizeof *seen);
    return kit_walk(t, &r);
}

T_TEST(nothing_edited_is_no_drift)
{
    struct seen s;

    T_OK(t, run(t, false, &s));
    T_CHECK(t, !s.missing);
    for (int l = 0; l < KIT_LAYERS; l++)
        for (int r = 0; r < ROUNDS; r++)
            T_CHECK(t, s.y[l][r] > 0 && s.drift[l][r] < 1e-10 * s.y[l][r]);
}

/* The first layer's inputs are nobody's edit; from the second on hidden states differ, also behind
 * the last layer, and every round sees the same. */
T_TEST(edits_before_a_layer_are_its_drift)
{
    struct seen s;

    T_OK(t, run(t, true, &s));
    T_CHECK(t, !s.missing);
    T_CHECK(t, s.drift[0][0] < 1e-10 * s.y[0][0]);
    for (int l = 1; l < KIT_LAYERS; l++) {
        T_CHECK(t, s.drift[l][0] > 1e-4 * s.y[l][0]);
        T_NEAR(t, s.drift[l][1], s.drift[l][0], 0);
        T_NEAR(t, s.first[l][1], s.first[l][0], 0);
    }
}
