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
 * whose mean over a task varies by more than 0.6 of its mean over all. Standard formats have one
 * width for all layers: there that figure is reported, with stretches for tasks, and --shared
 * decides. In the native layout --shared cv does as the paper says, with the domains of the text
 * for tasks; shapes are fixed before anything is run, so the figure is of the source's activations.
 */
#include "lib/base/mem.h"
#include "lib/flow/profile.h"
#include "passes/convert/method.h"
#include "passes/lib/neuron_acts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WEAVER_SAMPLES_MAX 256
#define WEAVER_SAMPLE_TOKENS 256
#define WEAVER_CV 0.6

#define WEAVER_BY_LAYER "cv" /* --shared */

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

/* ---- shared by layer ---- */

static bool weaver_by_layer(const struct mt_convert_opts *o)
{
    return strcmp(o->shared, WEAVER_BY_LAYER) == 0;
}

/* Whether a neuron answers to some of n samples and not to others. */
static bool weaver_varies(const double *a, int64_t n)
{
    double sum = 0, square = 0;

    for (int64_t i = 0; i < n; i++) {
        sum += a[i];
        square += a[i] * a[i];
    }
    double mean = sum / (double)n;
    return sqrt(fmax(square / (double)n - mean * mean, 0)) > WEAVER_CV * (fabs(mean) + 1e-12);
}

static double weaver_share(double varied)
{
    return 0.7 - 0.5 * varied;
}

/* How many neurons of a layer are shared, from the domains of the profile. */
static mt_status weaver_shared_width(struct mt_ctx *ctx, const struct mt_model *src, int layer,
                                     int64_t *shared)
{
    const struct mt_profile *p = src->profile;
    size_t n = (size_t)mt_profile_n_domains(p), w = (size_t)src->ffn[layer].width;
    double *sums, *a, varied = 0;

    MT_TRY(mt_alloc(ctx, n, (w + 1) * sizeof(*sums), "gate profiles", &sums));
    a = sums + n * w;
    mt_status st = MT_OK;
    for (size_t i = 0; i < n && st == MT_OK; i++) {
        const char *domain = mt_profile_domain(p, (int)i);
        double tokens;
        st = mt_profile_get(ctx, p, layer, MT_STAT_TOKENS, domain, &tokens, 1);
        if (st == MT_OK)
            st = mt_profile_get(ctx, p, layer, MT_STAT_A_SUM, domain, sums + i * w, w);
        for (size_t j = 0; st == MT_OK && j < w; j++)
            sums[i * w + j] /= tokens > 0 ? tokens : 1;
    }
    for (size_t j = 0; st == MT_OK && j < w; j++) {
        for (size_t i = 0; i < n; i++)
            a[i] = sums[i * w + j];
        varied += weaver_varies(a, (int64_t)n);
    }
    mt_free(sums);
    *shared = llround(weaver_share(varied / (double)w) * (double)w);
    return st;
}

static mt_status weaver_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                              const struct mt_model *src, struct mt_moe_shape *s)
{
    struct mt_shape_ask ask = mt_convert_ask(o);
    int64_t shared, expert, sum_shared = 0, sum_expert = 0, most = 0;

    if (!weaver_by_layer(o))
        return mt_moe_shape_read(ctx, &ask, src, s);
    MT_TRY(mt_moe_refuse_list(ctx, o->active, "--shared cv"));
    if (strcmp(ask.arch, "native") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--shared cv gives layers widths of their own, which only --arch native "
                       "holds");
    if (src->profile == NULL || mt_profile_n_domains(src->profile) < 2)
        return mt_fail(ctx, MT_E_OPTION,
                       "--shared cv compares domains of text: give at least two with --data "
                       "NAME=FILE, or a --profile of them");
    ask.shared = "1";
    MT_TRY(mt_moe_shape_read(ctx, &ask, src, s));
    s->own_widths = true;
    s->expert_width = 0;
    for (int l = 0; l < s->n_layers; l++) {
        MT_TRY(weaver_shared_width(ctx, src, l, &shared));
        MT_TRY(mt_split_width(ctx, s->width - shared, s->n_experts, 0, &expert));
        sum_shared += shared;
        sum_expert += expert;
        most = shared > most ? shared : most;
        s->expert_width = expert > s->expert_width ? expert : s->expert_width;
    }
    s->shared_width = most;
    if (strchr(ask.active, '%') != NULL) {
        double neurons = strtod(ask.active, NULL) / 100 * (double)s->width * s->n_layers;
        double k = round((neurons - (double)sum_shared) / (double)sum_expert);
        s->k = (int)fmin(fmax(k, 1), s->n_experts);
    }
    return MT_OK;
}

static mt_status weaver_layer_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                    const struct mt_model *src, int layer, struct mt_moe_shape *s)
{
    if (!weaver_by_layer(o))
        return MT_OK;
    MT_TRY(weaver_shared_width(ctx, src, layer, &s->shared_width));
    return mt_split_width(ctx, s->width - s->shared_width, s->n_experts, 0, &s->expert_width);
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
        loud[j] = 0;
        for (int64_t i = 0; i < s->n_samples; i++)
            loud[j] += fabs(a[i]) / (double)s->n_samples;
        varied += weaver_varies(a, s->n_samples);
    }
    return (double)varied / (double)s->width;
}

static mt_status weaver_tell(struct mt_ctx *ctx, double varied, struct mt_convert_division *out)
{
    out->facts = mt_json_new_object();
    if (out->facts == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    mt_json_set_num(out->facts, "specialised_share", varied);
    mt_json_set_num(out->facts, "shared_share_suggested", weaver_share(varied));
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
    MT_TRY(weaver_by_layer(at->o)
               ? mt_split_create_sizes(ctx, p->width, p->n_experts, p->expert_width,
                                       p->shared_width, &out->split)
               : mt_split_create(ctx, p->width, p->n_experts, p->n_shared, &out->split));
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
        "the paper would let each layer share is reported; --shared cv --arch native follows it, "
        "comparing the domains of the text (--data NAME=FILE).",
    .router = "centroid",
    .refit = "none",
    .data = true,
    .needs = MT_NEED_INPUTS,
    .profiles_if = weaver_by_layer,
    .shape = weaver_shape,
    .layer_shape = weaver_layer_shape,
    .rounds = weaver_rounds,
    .memory = weaver_memory,
    .begin = weaver_begin,
    .observe = weaver_observe,
    .decide = weaver_decide,
    .end = weaver_end,
};
