/* What router tied reports of the text, against loops; and which draw it takes. */
#include "tests/planted.h"

#include "lib/base/json.h"
#include "lib/base/mem.h"

#include <math.h>
#include <string.h>

#define COPIES 6
#define SLICES 2
#define BLOCK 500

static const struct planted_spec spec = {
    .groups = 4, .per_group = 6, .common = 6, .noise = 0.3, .seed = 8};

static float bf16(float v)
{
    uint32_t bits;

    memcpy(&bits, &v, 4);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff0000;
    memcpy(&v, &bits, 4);
    return v;
}

static mt_status make(struct t *t, struct planted *p, bool observed, struct mt_convert_routing *out)
{
    const struct mt_convert_router *maker =
        mt_convert_routers[mt_convert_name_find(mt_convert_router_names, "tied")];
    void *state = NULL;
    mt_status st = MT_OK;

    memset(out, 0, sizeof(*out));
    MT_TRY(mt_alloc0(&t->ctx, (size_t)p->shape.n_experts, PLANTED_HIDDEN * sizeof(float), "router",
                     &out->w));
    if (observed)
        st = maker->begin(&t->ctx, &p->at, PLANTED_TOKENS, &state);
    for (int64_t at = 0; observed && at < PLANTED_TOKENS && st == MT_OK; at += BLOCK) {
        int64_t left = PLANTED_TOKENS - at;
        const struct mt_observation ob = {.m = left < BLOCK ? left : BLOCK,
                                          .token0 = at,
                                          .n_tokens = PLANTED_TOKENS,
                                          .x = p->x + at * PLANTED_HIDDEN};
        st = maker->observe(&t->ctx, &p->at, state, &ob, NULL);
    }
    if (st == MT_OK)
        st = maker->make(&t->ctx, &p->at, state, out);
    maker->end(state);
    return st;
}

/* The k-th and the next copy of every token: the smallest relative gap, and ties in BF16. */
static void look(const struct planted *p, const float *w, int k, double *margin, double *ties)
{
    *margin = INFINITY;
    *ties = 0;
    for (int i = 0; i < PLANTED_TOKENS; i++) {
        double z[COPIES];
        for (int c = 0; c < COPIES; c++) {
            z[c] = 0;
            for (int j = 0; j < PLANTED_HIDDEN; j++)
                z[c] += (double)w[c * SLICES * PLANTED_HIDDEN + j] *
                        (double)p->x[i * PLANTED_HIDDEN + j];
        }
        for (int a = 0; a < COPIES; a++)
            for (int b = a + 1; b < COPIES; b++)
                if (z[b] > z[a]) {
                    double swap = z[a];
                    z[a] = z[b];
                    z[b] = swap;
                }
        *margin = fmin(*margin, (z[k - 1] - z[k]) / fmax(fabs(z[k - 1]), fabs(z[k])));
        *ties += (bf16((float)z[k - 1]) == bf16((float)z[k])) / (double)PLANTED_TOKENS;
    }
}

T_TEST(margins_are_those_of_loops)
{
    struct mt_convert_routing r;
    struct planted p;
    double margin, ties, told;
    char text[96];

    for (int k = 1; k <= 3; k++) {
        snprintf(text, sizeof text, "method=dino copies=6 granularity=2 active=%d arch=native",
                 2 * k);
        if (!planted_open(t, &spec, text, &p))
            return;
        T_OK(t, make(t, &p, true, &r));
        look(&p, r.w, k, &margin, &ties);
        T_OK(t, mt_json_get_num(&t->ctx, r.facts, "margin_min", -1, &told));
        T_NEAR(t, told, margin, 2e-6);
        T_CHECK(t, told >= 0x1p-16);
        T_OK(t, mt_json_get_num(&t->ctx, r.facts, "bf16_ties", -1, &told));
        /* A rounding of the logit itself may tip one token. */
        T_NEAR(t, told, ties, 2.1 / PLANTED_TOKENS);
        mt_json_free(r.facts);
        mt_free(r.w);
        planted_close(&p);
    }
}

/* Two tokens that the first draws cannot tell apart: a later draw is taken. */
T_TEST(rows_are_drawn_again_where_copies_are_close)
{
    struct mt_convert_routing first, again;
    struct planted p;
    double draw;

    if (!planted_open(t, &spec, "method=dino copies=6 granularity=2 arch=native", &p))
        return;
    T_OK(t, make(t, &p, false, &first));
    T_CHECK(t, first.facts == NULL);
    /* Token 7 is made orthogonal to the difference of the two copies that are best for it. */
    float *x = p.x + 7 * PLANTED_HIDDEN;
    for (int turn = 0; turn < 50; turn++) {
        double z[COPIES], dot = 0, sq = 0;
        int a = 0, b = -1;
        for (int c = 0; c < COPIES; c++) {
            z[c] = 0;
            for (int j = 0; j < PLANTED_HIDDEN; j++)
                z[c] += (double)first.w[c * SLICES * PLANTED_HIDDEN + j] * (double)x[j];
            a = z[c] > z[a] ? c : a;
        }
        for (int c = 0; c < COPIES; c++)
            b = c != a && (b < 0 || z[c] > z[b]) ? c : b;
        for (int j = 0; j < PLANTED_HIDDEN; j++) {
            double d = (double)first.w[a * SLICES * PLANTED_HIDDEN + j] -
                       (double)first.w[b * SLICES * PLANTED_HIDDEN + j];
            dot += d * (double)x[j];
            sq += d * d;
        }
        for (int j = 0; j < PLANTED_HIDDEN; j++)
            x[j] -= (float)(dot / sq *
                            ((double)first.w[a * SLICES * PLANTED_HIDDEN + j] -
                             (double)first.w[b * SLICES * PLANTED_HIDDEN + j]));
    }
    T_OK(t, make(t, &p, true, &again));
    T_OK(t, mt_json_get_num(&t->ctx, again.facts, "draw", -1, &draw));
    T_CHECK(t, draw >= 1);
    T_CHECK(t, t_rel_l2(first.w, again.w, PLANTED_HIDDEN) > 0);
    mt_json_free(again.facts);
    mt_free(first.w);
    mt_free(again.w);
    planted_close(&p);
}
