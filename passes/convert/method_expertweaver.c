/* method_expertweaver.c
 * expertweaver: experts of neurons whose gates answer to the same texts (ExpertWeaver, arXiv
 * 2602.15521).
 *
 * A neuron's profile is the mean of act(g_j . x) over each sample of text; shared are the neurons
 * of the largest mean |profile|, the others are grouped by balanced k-means on profiles, and a
 * router row is the mean gate row of its expert. The paper's samples are 210 texts of 42 tasks;
 * here they are stretches of the calibration text, at most SAMPLES_MAX of them.
 *
 * The paper also lets every layer share 0.7 - 0.5 r of its width, where r is the share of neurons
 * whose profile varies by more than 0.6 of its mean. Standard formats have one width for all
 * layers, so that figure is reported and --shared decides.
 */
#include "lib/base/mem.h"
#include "passes/convert/method.h"
#include "passes/lib/neuron_acts.h"

#include <math.h>

#define WEAVER_SAMPLES_MAX 256
#define WEAVER_SAMPLE_TOKENS 256
#define WEAVER_CV 0.6

struct weaver {
    int64_t width, per_sample, n_samples, tokens;
    float *acts;  /* [MT_OBSERVE_TOKENS_MAX, width] */
    double *sums; /* [width, WEAVER_SAMPLES_MAX] */
};

static int weaver_rounds(const struct mt_convert_at *at)
{
    (void)at;
    return 1;
}

static uint64_t weaver_memory(const struct mt_convert_at *at)
{
    uint64_t w = (uint64_t)at->shape->width, n = (uint64_t)at->shape->n_experts;

    return MT_OBSERVE_TOKENS_MAX * w * 4 + w * WEAVER_SAMPLES_MAX * 12 + w * n * 52 +
           n * WEAVER_SAMPLES_MAX * 4 +
           mt_neuron_acts_bytes(at->shape->hidden, MT_OBSERVE_TOKENS_MAX);
}

static mt_status weaver_begin(struct mt_ctx *ctx, const struct mt_convert_at *at, void **state)
{
    struct weaver *s;

    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "gate profiles", &s));
    *state = s;
    s->width = at->shape->width;
    MT_TRY(mt_alloc0(ctx, (size_t)s->width, WEAVER_SAMPLES_MAX * sizeof(*s->sums), "gate profiles",
                     &s->sums));
    return mt_alloc(ctx, MT_OBSERVE_TOKENS_MAX, (size_t)s->width * sizeof(*s->acts),
                    "gate profiles", &s->acts);
}

static mt_status weaver_observe(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                                const struct mt_observation *ob)
{
    struct weaver *s = state;

    if (s->per_sample == 0) {
        s->per_sample = (ob->n_tokens + WEAVER_SAMPLES_MAX - 1) / WEAVER_SAMPLES_MAX;
        if (s->per_sample < WEAVER_SAMPLE_TOKENS)
            s->per_sample = WEAVER_SAMPLE_TOKENS;
        s->n_samples = (ob->n_tokens + s->per_sample - 1) / s->per_sample;
        s->tokens = ob->n_tokens;
    }
    MT_TRY(mt_neuron_acts(ctx, at->dense, at->src->ffn[at->layer].act, MT_NEURON_GATE, false, ob->m,
                          ob->x, s->acts));
    for (int64_t t = 0; t < ob->m; t++) {
        int64_t sample = (ob->token0 + t) / s->per_sample;
        for (int64_t j = 0; j < s->width; j++)
            s->sums[j * WEAVER_SAMPLES_MAX + sample] += (double)s->acts[t * s->width + j];
    }
    return MT_OK;
}

/* ---- decide ---- */

/* Sums become means. */
static void weaver_finish(struct weaver *s)
{
    for (int64_t i = 0; i < s->n_samples; i++) {
        int64_t left = s->tokens - i * s->per_sample;
        double n = (double)(left < s->per_sample ? left : s->per_sample);
        for (int64_t j = 0; j < s->width; j++)
            s->sums[j * WEAVER_SAMPLES_MAX + i] /= n;
    }
}

/* loud[width]: the mean |profile|. Returns the share of neurons that answer to some texts and not
 * to others. */
static double weaver_vary(const struct weaver *s, double *loud)
{
    int64_t varied = 0;

    for (int64_t j = 0; j < s->width; j++) {
        const double *a = s->sums + j * WEAVER_SAMPLES_MAX;
        double sum = 0, square = 0, n = (double)s->n_samples;
        loud[j] = 0;
        for (int64_t i = 0; i < s->n_samples; i++) {
            sum += a[i];
            square += a[i] * a[i];
            loud[j] += fabs(a[i]) / n;
        }
        double mean = sum / n, deviation = sqrt(fmax(square / n - mean * mean, 0));
        varied += deviation > WEAVER_CV * (fabs(mean) + 1e-12);
    }
    return (double)varied / (double)s->width;
}

static mt_status weaver_tell(struct mt_ctx *ctx, double varied, struct mt_convert_division *out)
{
    out->facts = mt_json_new_object();
    if (out->facts == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    mt_json_set_num(out->facts, "specialised_share", varied);
    mt_json_set_num(out->facts, "shared_share_suggested", 0.7 - 0.5 * varied);
    return MT_OK;
}

static mt_status weaver_group(struct mt_ctx *ctx, const struct mt_convert_at *at,
                              const struct weaver *s, const double *loud, int32_t *owner,
                              int32_t *pool, struct mt_split *split)
{
    float *points;

    MT_TRY(mt_split_share_best(ctx, split, loud, owner, pool));
    int64_t n = s->width - mt_split_shared_width(split);
    MT_TRY(
        mt_alloc(ctx, (size_t)n, (size_t)s->n_samples * sizeof(*points), "gate profiles", &points));
    for (int64_t p = 0; p < n; p++)
        for (int64_t i = 0; i < s->n_samples; i++)
            points[p * s->n_samples + i] =
                (float)s->sums[(int64_t)pool[p] * WEAVER_SAMPLES_MAX + i];
    mt_status st =
        mt_split_cluster(ctx, split, pool, points, s->n_samples, (uint64_t)at->layer, owner);
    mt_free(points);
    if (st == MT_OK)
        mt_split_fill(split, owner);
    return st;
}

static mt_status weaver_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    struct weaver *s = state;
    int32_t *owner, *pool = NULL;
    double *loud = NULL;

    if (s->n_samples == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--method expertweaver compares texts: give some with --data");
    weaver_finish(s);
    if (p->n_shared > 0)
        out->shared_by = MT_SHARED_BY_ACTIVATIONS;
    MT_TRY(mt_split_create(ctx, p->width, p->n_experts, p->n_shared, &out->split));
    MT_TRY(mt_alloc(ctx, (size_t)p->width, sizeof(*owner), "neurons", &owner));
    mt_status st = mt_alloc(ctx, (size_t)p->width, sizeof(*pool), "neurons", &pool);
    if (st == MT_OK)
        st = mt_alloc(ctx, (size_t)p->width, sizeof(*loud), "neurons", &loud);
    if (st == MT_OK)
        st = weaver_tell(ctx, weaver_vary(s, loud), out);
    if (st == MT_OK)
        st = weaver_group(ctx, at, s, loud, owner, pool, out->split);
    mt_free(owner);
    mt_free(pool);
    mt_free(loud);
    return st;
}

static void weaver_end(void *state)
{
    struct weaver *s = state;

    if (s != NULL) {
        mt_free(s->acts);
        mt_free(s->sums);
    }
    mt_free(s);
}

const struct mt_convert_method mt_convert_method_expertweaver = {
    .name = "expertweaver",
    .summary = "neurons whose gates answer to the same texts",
    .help =
        "expertweaver (ExpertWeaver, arXiv 2602.15521) shares the neurons with the loudest gates "
        "and groups the others by balanced k-means on how their gates answer to each stretch of "
        "the text; a router row is the mean gate row of its expert. The share of the width that "
        "the paper would let each layer share is reported.",
    .router = "centroid",
    .refit = "none",
    .data = true,
    .needs = MT_NEED_INPUTS,
    .rounds = weaver_rounds,
    .memory = weaver_memory,
    .begin = weaver_begin,
    .observe = weaver_observe,
    .decide = weaver_decide,
    .end = weaver_end,
};
