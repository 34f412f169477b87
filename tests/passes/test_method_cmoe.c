#include "tests/planted.h"

#include "passes/lib/assign.h"
#include "passes/lib/neuron_acts.h"

#include <stdlib.h>

static const struct planted_spec spec = {
    .groups = 6, .per_group = 4, .common = 4, .noise = 0.05, .seed = 3};

#define E 6
#define MARKS 10

/* The method's steps by dense loops: markers[t][j], costs of every pair, distances to centroids. */
struct naive {
    unsigned char *marker; /* [tokens][width] */
    double count[64], cost[64 * E];
    int32_t order[64], to[64];
};

static void naive_mark(struct t *t, const struct planted *p, struct naive *y)
{
    int width = (int)p->dense.width;
    float *h = calloc(PLANTED_TOKENS, (size_t)width * sizeof(*h));

    y->marker = calloc(PLANTED_TOKENS, (size_t)width);
    T_OK(t, mt_neuron_acts(&t->ctx, &p->dense, MT_ACT_SILU, MT_NEURON_PRODUCT, true, PLANTED_TOKENS,
                           p->x, h));
    for (int i = 0; i < PLANTED_TOKENS; i++) {
        for (int j = 0; j < width; j++) {
            int before = 0; /* neurons that come first by |h|, then by number */
            for (int k = 0; k < width; k++) {
                float a = fabsf(h[i * width + k]), b = fabsf(h[i * width + j]);
                before += a > b || (a == b && k < j);
            }
            y->marker[i * width + j] = before < MARKS;
            y->count[j] += before < MARKS;
        }
    }
    free(h);
}

static double naive_distance(const struct planted *p, const struct naive *y, int a, int b)
{
    int width = (int)p->dense.width, sum = 0;

    for (int i = 0; i < PLANTED_TOKENS; i++)
        sum += y->marker[i * width + a] != y->marker[i * width + b];
    return sum;
}

T_TEST(lists_are_those_of_dense_loops)
{
    struct mt_convert_division d;
    struct naive y = {0};
    struct planted p;

    if (!planted_open(t, &spec, "method=cmoe experts=6 active=2 shared=1 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "cmoe", &d));
    naive_mark(t, &p, &y);
    int width = (int)p.dense.width, shared = (int)mt_split_shared_width(d.split),
        n = width - shared;
    int64_t cap[E];
    bool is_shared[64] = {false};
    int pool[64], n_pool = 0;
    T_OK(t, mt_rank_falling(&t->ctx, y.count, width, y.order));
    for (int i = 0; i < shared; i++) {
        is_shared[y.order[i]] = true;
        /* The planted common neurons are marked by every token. */
        T_EQ_INT(t, p.group[y.order[i]], -1);
    }
    for (int i = 0; i < shared; i++)
        T_CHECK(t, is_shared[mt_split_shared(d.split)[i]]);
    for (int j = 0; j < width; j++)
        if (!is_shared[j])
            pool[n_pool++] = j;
    T_EQ_INT(t, n_pool, n);
    for (int i = 0; i < n; i++)
        for (int e = 0; e < E; e++)
            y.cost[i * E + e] = naive_distance(&p, &y, pool[i], y.order[shared + e]);
    mt_split_capacities(d.split, cap);
    T_OK(t, mt_assign_balanced(&t->ctx, n, E, y.cost, cap, y.to));
    for (int e = 0; e < E; e++) {
        const int32_t *list = mt_split_expert(d.split, e);
        int at = 0;
        for (int i = 0; i < n; i++)
            if (y.to[i] == e)
                T_EQ_INT(t, list[at++], pool[i]);
    }
    free(y.marker);
    planted_division_free(&d);
    planted_close(&p);
}

/* By L2, as the paper has it, and by L1, as the code: the same neuron is nearest to the mean. */
T_TEST(representatives_are_nearest_to_the_mean_marker)
{
    struct mt_convert_division d;
    struct naive y = {0};
    struct planted p;

    if (!planted_open(t, &spec, "method=cmoe experts=6 active=2 shared=1 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "cmoe", &d));
    naive_mark(t, &p, &y);
    int width = (int)p.dense.width, n = (int)d.split->expert_width;
    for (int e = 0; e < E; e++) {
        const int32_t *list = mt_split_expert(d.split, e);
        double l1[16] = {0}, l2[16] = {0};
        int who = -1;
        for (int i = 0; i < PLANTED_TOKENS; i++) {
            double mean = 0;
            for (int j = 0; j < n; j++)
                mean += y.marker[i * width + list[j]] / (double)n;
            for (int j = 0; j < n; j++) {
                double off = fabs(y.marker[i * width + list[j]] - mean);
                l1[j] += off;
                l2[j] += off * off;
            }
        }
        for (int j = 0; j < n; j++)
            if (list[j] == d.representative[e])
                who = j;
        T_CHECK(t, who >= 0);
        for (int j = 0; j < n; j++)
            T_CHECK(t, l1[who] <= l1[j] + 1e-6 && l2[who] <= l2[j] + 1e-6);
    }
    free(y.marker);
    planted_division_free(&d);
    planted_close(&p);
}

/* Where the method names none, the maker finds its own. */
T_TEST(representatives_choose_the_expert_of_the_class)
{
    int which = mt_convert_name_find(mt_convert_router_names, "representative");
    const struct mt_convert_router *maker = mt_convert_routers[which];
    struct mt_convert_routing routing = {0};
    struct mt_convert_division d;
    struct mt_router is = {0};
    struct planted p;
    int right = 0;

    if (!planted_open(t, &spec, "partition=cluster experts=6 active=2 shared=1 arch=native", &p))
        return;
    T_CHECK(t, planted_divide(t, &p, "partition", &d));
    T_CHECK(t, planted_found(&p, d.split));
    maker->form(&p.at, &is);
    T_OK(t, mt_router_form_open(&t->ctx, &is, false, E, PLANTED_HIDDEN, &routing.form));
    T_OK(t, maker->make(&t->ctx, &p.at, NULL, &routing));
    float *logits = calloc(PLANTED_TOKENS, E * sizeof(*logits));
    T_OK(t, mt_router_form_run(&t->ctx, &routing.form, PLANTED_TOKENS, p.x, logits));
    for (int i = 0; i < PLANTED_TOKENS; i++) {
        int best = 0;
        for (int e = 1; e < E; e++)
            if (logits[i * E + e] > logits[i * E + best])
                best = e;
        right += p.group[mt_split_expert(d.split, best)[0]] == p.class_of[i];
    }
    free(logits);
    mt_router_form_free(&routing.form);
    T_CHECK(t, right > PLANTED_TOKENS * 99 / 100);
    planted_division_free(&d);
    planted_close(&p);
}

/* Products with rows and inputs of length 1, against loops. */
T_TEST(neurons_are_what_loops_say)
{
    struct planted p;
    float *out;

    for (int kind = 0; kind < 4; kind++) {
        struct planted_spec s = spec;
        bool unit = kind % 2 == 1;
        s.relu = kind / 2 == 1;
        s.noise = 0.7;
        if (!planted_open(t, &s, "experts=4 arch=native", &p))
            return;
        int width = (int)p.dense.width;
        out = calloc((size_t)PLANTED_TOKENS, (size_t)width * sizeof(*out));
        T_OK(t, mt_neuron_acts(&t->ctx, &p.dense, p.m->ffn[0].act, MT_NEURON_PRODUCT, unit,
                               PLANTED_TOKENS, p.x, out));
        for (int i = 0; i < PLANTED_TOKENS; i += 7) {
            for (int j = 0; j < width; j++) {
                const float *rows[2] = {s.relu ? NULL : p.dense.gate->src.owned,
                                        p.dense.up->src.owned};
                double v[2] = {0, 0}, want;
                for (int side = s.relu; side < 2; side++) {
                    double rr = 0, xx = 0;
                    for (int c = 0; c < PLANTED_HIDDEN; c++) {
                        double r = (double)rows[side][j * PLANTED_HIDDEN + c];
                        double x = (double)p.x[i * PLANTED_HIDDEN + c];
                        v[side] += r * x;
                        rr += r * r;
                        xx += x * x;
                    }
                    if (unit)
                        v[side] /= sqrt(rr * xx);
                }
                want = s.relu ? fmax(v[1], 0) : v[0] / (1 + exp(-v[0])) * v[1];
                T_NEAR(t, out[i * width + j], want, 2e-5 * (1 + fabs(want)));
                if (!unit)
                    T_NEAR(t, p.h[i * width + j], want, 1e-5 * (1 + fabs(want)));
            }
        }
        free(out);
        planted_close(&p);
    }
}

T_TEST(no_text_is_refused)
{
    struct mt_convert_division d = {0};
    struct planted p;
    void *state = NULL;

    if (!planted_open(t, &spec, "method=cmoe experts=6 arch=native", &p))
        return;
    const struct mt_convert_method *m =
        mt_convert_methods[mt_convert_name_find(mt_convert_method_names, "cmoe")];
    T_OK(t, m->begin(&t->ctx, &p.at, &state));
    T_FAILS(t, m->decide(&t->ctx, &p.at, state, &d), MT_E_OPTION, "--data");
    m->end(state);
    planted_close(&p);
}
