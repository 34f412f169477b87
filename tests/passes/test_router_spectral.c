#include "tests/planted.h"

#include <stdlib.h>

#define E 5
#define WIDTH 8

static const struct planted_spec spec = {.groups = E, .per_group = WIDTH, .noise = 0.8, .seed = 12};

struct made {
    struct planted p;
    struct mt_convert_division d;
    struct mt_convert_routing routing;
};

static bool make(struct t *t, int rank, bool relu, struct made *y)
{
    const struct mt_convert_router *maker =
        mt_convert_routers[mt_convert_name_find(mt_convert_router_names, "spectral")];
    struct planted_spec s = spec;
    struct mt_router is = {0};
    char options[128];
    void *state = NULL;

    memset(y, 0, sizeof(*y));
    s.relu = relu;
    snprintf(options, sizeof(options),
             "partition=contiguous experts=5 active=2 shared=0 arch=native router-rank=%d", rank);
    if (!planted_open(t, &s, options, &y->p) || !planted_divide(t, &y->p, "partition", &y->d))
        return false;
    maker->form(&y->p.at, &is);
    mt_status st = mt_router_form_open(&t->ctx, &is, false, E, PLANTED_HIDDEN, &y->routing.form);
    if (st == MT_OK)
        st = maker->begin(&t->ctx, &y->p.at, PLANTED_TOKENS, &state);
    for (int64_t at = 0; st == MT_OK && at < PLANTED_TOKENS; at += 600) {
        struct mt_observation ob = {.m = 600,
                                    .token0 = at,
                                    .n_tokens = PLANTED_TOKENS,
                                    .x = y->p.x + at * PLANTED_HIDDEN,
                                    .h = y->p.h + at * y->p.dense.width};
        st = maker->observe(&t->ctx, &y->p.at, state, &ob, NULL);
    }
    if (st == MT_OK)
        st = maker->make(&t->ctx, &y->p.at, state, &y->routing);
    maker->end(state);
    if (st != MT_OK)
        t_fail(t, __FILE__, __LINE__, "%s", mt_error(&t->ctx));
    return st == MT_OK;
}

static void done(struct made *y)
{
    mt_router_form_free(&y->routing.form);
    planted_division_free(&y->d);
    planted_close(&y->p);
}

static double dot(const float *a, const float *b)
{
    double s = 0;

    for (int i = 0; i < PLANTED_HIDDEN; i++)
        s += (double)a[i] * (double)b[i];
    return s;
}

static double openness(const struct planted *p, const float *row)
{
    double sum = 0;

    for (int i = 0; i < PLANTED_TOKENS; i++) {
        double z = dot(row, p->x + (size_t)i * PLANTED_HIDDEN), s = 1 / (1 + exp(-z));
        if (p->dense.gate == NULL) /* ReLU */
            s = z > 0 ? 1 : 0;
        sum += s * s;
    }
    return sqrt(sum / PLANTED_TOKENS);
}

/* Scores by the definition, with loops. */
static double by_hand(const struct planted *p, const struct mt_split *split, int e, const float *x)
{
    const float *gate = p->dense.gate != NULL ? p->dense.gate->src.owned : NULL;
    const float *up = p->dense.up->src.owned;
    double a = 0, b = 0;

    for (int i = 0; i < WIDTH; i++) {
        int32_t j = mt_split_expert(split, e)[i];
        const float *u = up + (size_t)j * PLANTED_HIDDEN;
        double ux = dot(u, x);
        if (gate == NULL)
            ux *= openness(p, u);
        else
            a += pow(dot(gate + (size_t)j * PLANTED_HIDDEN, x) *
                         openness(p, gate + (size_t)j * PLANTED_HIDDEN),
                     2);
        b += ux * ux;
    }
    return sqrt(b) * (gate != NULL ? sqrt(a) : 1);
}

T_TEST(with_all_rows_scores_are_those_of_the_definition)
{
    static float logits[PLANTED_TOKENS * E];

    for (int relu = 0; relu < 2; relu++) {
        struct made y;
        if (!make(t, 99, relu == 1, &y))
            return;
        T_EQ_INT(t, y.routing.form.is.width, WIDTH);
        T_OK(t, mt_router_form_run(&t->ctx, &y.routing.form, PLANTED_TOKENS, y.p.x, logits));
        for (int i = 0; i < 20; i++)
            for (int e = 0; e < E; e++) {
                double want = by_hand(&y.p, y.d.split, e, y.p.x + (size_t)i * PLANTED_HIDDEN);
                T_NEAR(t, logits[i * E + e], want, 1e-4 * (1 + want));
            }
        done(&y);
    }
}

/* The mean squared score grows with every row. */
T_TEST(rows_are_cut_from_the_end_of_the_spectrum)
{
    static float logits[PLANTED_TOKENS * E];
    double before = -1;

    for (int rank = 1; rank <= WIDTH; rank++) {
        struct made y;
        double sum = 0;
        if (!make(t, rank, true, &y))
            return;
        T_OK(t, mt_router_form_run(&t->ctx, &y.routing.form, PLANTED_TOKENS, y.p.x, logits));
        for (int i = 0; i < PLANTED_TOKENS * E; i++)
            sum += (double)logits[i] * (double)logits[i];
        T_CHECK(t, sum > before);
        before = sum;
        done(&y);
    }
}
