/* prune_ffn.c
 * prune-ffn: keep the same neurons of every dense FFN for every token.
 *
 * Static structured pruning at equal active width and equal calibration is what a conversion to
 * experts has to beat (spec dense_to_moe section 1), so it lives here as the yardstick. The family
 * stays; gate and up rows are gathered bit for bit, down columns too unless they are refitted.
 */
#include "lib/base/mem.h"
#include "lib/flow/profile.h"
#include "passes/lib/spill.h"
#include "passes/prune/prune.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const prune_select_names[] = {"magnitude", "wanda", "flap",
                                                 "obs",       "score", NULL};
static const char *const prune_refit_names[] = {"auto", "none", "down", "bias", "all", NULL};

static const struct mt_opt prune_opt_table[] = {
    MT_OPT_STR(struct prune_opts, width, "width", 0, "A|P%", "50%",
               "neurons to keep in each layer, or how much of the FFN's width"),
    MT_OPT_ENUM(struct prune_opts, select, "select", 0, "HOW", "wanda", prune_select_names,
                "what ranks neurons"),
    MT_OPT_ENUM(struct prune_opts, refit, "refit", 0, "HOW", "auto", prune_refit_names,
                "fit the kept down columns to the dense output, perhaps with an output bias, or "
                "train all that is kept; auto: all for obs, else none"),
    MT_OPT_INT(struct prune_opts, refit_epochs, "refit-epochs", 0, "N", "4", 0, 1000,
               "how often refit all goes through the calibration text"),
    MT_OPT_NUM(struct prune_opts, drift, "drift", 0, "B", "0.5", 0, 1,
               "how much of what earlier layers went astray a refit should bring back"),
    MT_OPT_END,
};

bool prune_refits(const struct prune *s)
{
    return s->o.refit >= PRUNE_REFIT_DOWN && s->keep < s->width;
}

bool prune_adds_bias(const struct prune *s)
{
    return s->keep < s->width && (s->o.refit == PRUNE_REFIT_BIAS ||
                                  (s->o.select == PRUNE_FLAP && s->o.refit == PRUNE_REFIT_NONE));
}

/* Sums over pairs of neurons. */
static bool prune_wants_pairs(const struct prune *s)
{
    return prune_refits(s) || (s->o.select == PRUNE_OBS && s->keep < s->width);
}

static bool prune_wants_sums(const struct prune *s)
{
    return s->o.select == PRUNE_WANDA || s->o.select == PRUNE_FLAP;
}

/* A profile that has the sums spares a look. */
static bool prune_knows_sums(const struct prune *s)
{
    unsigned flap = s->o.select == PRUNE_FLAP ? MT_NEURON_PLAIN : 0;

    return prune_wants_sums(s) && mt_neuron_sums_has(s->src, MT_NEURON_SQUARE | flap);
}

/* ---- create ---- */

static mt_status prune_read_width(struct mt_ctx *ctx, struct prune *s)
{
    char *end;

    errno = 0;
    double v = strtod(s->o.width, &end);
    bool percent = end != s->o.width && strcmp(end, "%") == 0;
    if (errno != 0 || end == s->o.width || (!percent && *end != 0) || !(v > 0) ||
        (percent ? v > 100 : v != floor(v)))
        return mt_fail(
            ctx, MT_E_OPTION,
            "--width %s (convert: --active): expected a number of neurons (512) or a share "
            "(50%%)",
            s->o.width);
    if (percent)
        v = fmax(1, round(v / 100 * (double)s->width));
    if (v > (double)s->width)
        return mt_fail(ctx, MT_E_OPTION,
                       "--width %s (convert: --active): the FFNs are only %lld neurons wide",
                       s->o.width, (long long)s->width);
    s->keep = (int64_t)v;
    return MT_OK;
}

static mt_status prune_setup(struct mt_ctx *ctx, struct prune *s, const struct mt_model *src)
{
    if (src->family == NULL || src->hp.n_layers == 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "model_type %s is not known, so its FFNs are not",
                       src->model_type != NULL ? src->model_type : "(none)");
    for (int l = 0; l < src->hp.n_layers; l++)
        if (src->ffn[l].moe || src->ffn[l].width != src->ffn[0].width)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "layer %d: prune-ffn wants dense FFNs of one width; experts are pruned "
                           "by other passes",
                           l);
    s->src = src;
    s->n_layers = src->hp.n_layers;
    s->hidden = src->hp.hidden;
    s->width = src->ffn[0].width;
    MT_TRY(prune_read_width(ctx, s));
    if (s->o.refit == PRUNE_REFIT_AUTO)
        s->o.refit = s->o.select == PRUNE_OBS ? PRUNE_REFIT_ALL : PRUNE_REFIT_NONE;
    return mt_alloc0(ctx, (size_t)s->n_layers, sizeof(*s->layers), "layers", &s->layers);
}

static void prune_end_layer(struct prune *s)
{
    mt_free(s->sums.plain);
    mt_free(s->sums.square);
    s->sums = (struct mt_neuron_sums){0};
    prune_fit_free(s->fit);
    mt_free(s->order);
    mt_free(s->down);
    mt_local_weights_free(&s->inner);
    s->fit = NULL;
    s->order = s->kept = NULL;
    s->down = NULL;
}

static void prune_destroy(void *state)
{
    struct prune *s = state;

    if (s == NULL)
        return;
    prune_end_layer(s);
    mt_free(s->layers);
    mt_free(s);
}

static mt_status prune_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                              void **state)
{
    struct prune *s;

    *state = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "prune-ffn", &s));
    s->o = *(const struct prune_opts *)opts;
    mt_status st = prune_setup(ctx, s, src);
    if (st != MT_OK) {
        prune_destroy(s);
        return st;
    }
    *state = s;
    return MT_OK;
}

static unsigned prune_needs(const void *state)
{
    const struct prune *s = state;

    bool sums = prune_wants_sums(s) && !prune_knows_sums(s), refits = prune_refits(s);
    unsigned needs = MT_NEED_HIDDEN | MT_NEED_STUDENT | MT_NEED_DATA;

    if (s->o.refit == PRUNE_REFIT_ALL)
        needs |= MT_NEED_INPUTS;
    /* Behind a norm or a scale drift is no measure of what down_proj gives. */
    if (refits && s->o.drift > 0 && !s->src->hp.post_norms && !s->src->hp.layer_scale)
        needs |= MT_NEED_DRIFT;
    return sums || s->o.select == PRUNE_OBS || refits ? needs : 0;
}

static int prune_rounds(const void *state)
{
    return prune_refits(state) ? 2 : 1;
}

static uint64_t prune_memory(const void *state, const struct mt_model *m)
{
    const struct prune *s = state;

    (void)m;
    return (uint64_t)s->width * 32 + (prune_wants_pairs(s) ? prune_fit_bytes(s) : 0);
}

static void prune_scratch(const void *state, const struct mt_model *m, int64_t n_tokens,
                          struct mt_pass_scratch *out)
{
    const struct prune *s = state;
    bool all = s->o.refit == PRUNE_REFIT_ALL;

    if (!prune_refits(s) || n_tokens == 0)
        return;
    out->kept += mt_spill_bytes(m, all);
    if (all)
        out->passing += mt_local_tokens_file_bytes(s->hidden, 0, n_tokens);
}

static const char *prune_spare(const void *state)
{
    const struct prune *s = state;

    return prune_refits(s) ? prune_fit_spare(s) : NULL;
}

static mt_status prune_plan_hook(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    return prune_plan(ctx, state, m);
}

/* ---- which neurons stay ---- */

static mt_status prune_begin(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct prune *s = state;

    (void)m;
    prune_end_layer(s);
    s->layers[layer].refit = (struct mt_refit_numbers){0};
    MT_TRY(mt_alloc(ctx, (size_t)s->width, 2 * sizeof(*s->order), "neuron ranking", &s->order));
    if (!prune_wants_sums(s))
        return MT_OK;
    s->sums.width = s->width;
    if (s->o.select == PRUNE_FLAP)
        MT_TRY(mt_alloc0(ctx, (size_t)s->width, sizeof(double), "neuron sums", &s->sums.plain));
    MT_TRY(mt_alloc0(ctx, (size_t)s->width, sizeof(double), "neuron sums", &s->sums.square));
    return prune_knows_sums(s) ? mt_neuron_sums_read(ctx, s->src, layer, &s->sums) : MT_OK;
}

/* Scores from elsewhere, moved up so that none is negative. */
static mt_status prune_given_score(struct mt_ctx *ctx, const struct prune *s, int layer,
                                   double *score)
{
    double least = INFINITY;

    if (s->src->profile == NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "--select score takes scores from a file: give it with --profile");
    MT_TRY(mt_profile_get(ctx, s->src->profile, layer, MT_STAT_NEURON_SCORE, NULL, score,
                          (size_t)s->width));
    for (int64_t j = 0; j < s->width; j++)
        least = fmin(least, score[j]);
    for (int64_t j = 0; j < s->width; j++)
        score[j] -= least;
    return MT_OK;
}

static mt_status prune_score(struct mt_ctx *ctx, const struct prune *s, int layer,
                             const struct mt_dense_ffn *f, double *score)
{
    double n = (double)s->sums.tokens;

    if (s->o.select == PRUNE_MAGNITUDE)
        return mt_neuron_weight_score(ctx, f, score);
    if (s->o.select == PRUNE_SCORE)
        return prune_given_score(ctx, s, layer, score);
    if (s->sums.tokens == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--select %s ranks by activations: give calibration text with --data, "
                       "statistics with --profile, or use --select magnitude",
                       prune_select_names[s->o.select]);
    MT_TRY(mt_cols_sumsq(ctx, f->down, score));
    for (int64_t j = 0; j < s->width; j++) {
        double mean = s->sums.plain != NULL ? s->sums.plain[j] / n : 0;
        double square = s->sums.square[j] / n;
        if (s->o.select == PRUNE_WANDA)
            score[j] = sqrt(score[j] * square);
        else
            score[j] *= fmax(0, square - mean * mean);
    }
    return MT_OK;
}

/* kept[]: the best, in rising order. */
static mt_status prune_rank(struct mt_ctx *ctx, struct prune *s, int layer, double *score,
                            int32_t *kept)
{
    struct prune_layer *p = &s->layers[layer];
    double all = 0, sum = 0;
    int64_t n = 0;

    MT_TRY(prune_score(ctx, s, layer, &p->dense, score));
    MT_TRY(mt_rank_falling(ctx, score, s->width, s->order));
    for (int64_t i = 0; i < s->width; i++) {
        all += score[s->order[i]];
        sum += i < s->keep ? score[s->order[i]] : 0;
        if (i < s->keep)
            score[s->order[i]] = -1; /* marked: scores are not negative */
    }
    for (int64_t j = 0; j < s->width; j++)
        if (score[j] < 0)
            kept[n++] = (int32_t)j;
    p->kept = all > 0 ? sum / all : 1;
    return MT_OK;
}

static mt_status prune_choose(struct mt_ctx *ctx, struct prune *s, int layer)
{
    struct prune_layer *p = &s->layers[layer];
    int32_t *kept = s->order + s->width;
    mt_status st = MT_OK;
    double *score;

    p->kept = 1;
    if (s->o.select == PRUNE_OBS && s->keep == s->width) {
        for (int64_t j = 0; j < s->width; j++)
            kept[j] = (int32_t)j;
    } else if (s->o.select == PRUNE_OBS) {
        p->kept = NAN;
        st = prune_fit_choose(ctx, s, &p->dense, kept);
    } else {
        MT_TRY(mt_alloc(ctx, (size_t)s->width, sizeof(*score), "neuron scores", &score));
        st = prune_rank(ctx, s, layer, score, kept);
        mt_free(score);
    }
    if (st == MT_OK)
        s->kept = kept;
    return st;
}

static mt_status prune_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct prune *s = state;
    struct prune_layer *p = &s->layers[ob->layer];

    if (ob->round == 0) {
        if (prune_wants_sums(s) && !prune_knows_sums(s))
            MT_TRY(mt_neuron_sums_add(ctx, &s->sums, ob->m, ob->h));
        return prune_wants_pairs(s) ? prune_fit_add(ctx, s, ob) : MT_OK;
    }
    if (ob->round > 1 || !prune_refits(s))
        return MT_OK;
    if (s->kept == NULL) {
        MT_TRY(prune_choose(ctx, s, ob->layer));
        MT_TRY(prune_fit_solve(ctx, s, &p->dense));
    }
    return prune_fit_check(ctx, s, ob);
}

static mt_status prune_layer_hook(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct prune *s = state;

    if (s->kept == NULL)
        MT_TRY(prune_choose(ctx, s, layer));
    MT_TRY(prune_fit_take(ctx, s, layer));
    MT_TRY(prune_store(ctx, s, m, layer));
    prune_end_layer(s);
    return MT_OK;
}

/* ---- report ---- */

static mt_status prune_layer_report(struct mt_ctx *ctx, void *state, int layer, struct mt_json *out)
{
    const struct prune *s = state;
    const struct prune_layer *p = &s->layers[layer];

    (void)ctx;
    if (!isnan(p->kept))
        mt_json_set_num(out, "score_kept", p->kept);
    if (prune_adds_bias(s))
        mt_json_set_num(out, "compensation", p->compensation);
    mt_refit_numbers_write(&p->refit, out);
    return MT_OK;
}

static mt_status prune_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    const struct prune *s = state;

    (void)ctx;
    mt_json_set_int(out, "width_before", s->width);
    mt_json_set_int(out, "width", s->keep);
    mt_json_set_str(out, "select", prune_select_names[s->o.select]);
    mt_json_set_str(out, "refit", prune_refit_names[s->o.refit]);
    return MT_OK;
}

const struct mt_pass mt_pass_prune_ffn = {
    .name = "prune-ffn",
    .summary = "keep the same, most useful neurons of every dense FFN",
    .help =
        "Static structured pruning: the yardstick for conversions to experts at the same active "
        "width.\n\n"
        "--select magnitude ranks neurons by ||g_j|| ||u_j|| ||v_j|| and needs no data. wanda "
        "ranks by sqrt(mean h_j^2) ||v_j|| (after Wanda, arXiv 2306.11695, for whole neurons). "
        "flap ranks by the variance of h_j times ||v_j||^2 and, without a refit, adds what the "
        "dropped neurons give on average to an output bias (FLAP, arXiv 2312.11983); of the "
        "families that can be written only Llama has such biases (mlp_bias). obs eliminates "
        "backwards after the optimal brain surgeon: the neuron goes that costs least once the "
        "others make good for it. score keeps the largest scores of a JSON file "
        "(--profile).\n\n"
        "With statistics from --profile wanda and flap need no text: they then rank by what the "
        "original model did, not by what the pruned layers before pass on.\n\n"
        "--refit down fits the kept down columns to the dense output in closed form, bias an "
        "output bias with them. A tenth of the tokens is held out: it chooses how far to shrink "
        "towards the original columns, which stay if they do better. all goes on from down and "
        "trains gate, up and down weights of what is kept together to give the dense output, "
        "--refit-epochs times through the text in mixed order; the best state on held-out tokens "
        "stays. obs with refit all is the best static pruning there is here.",
    .opts = prune_opt_table,
    .opts_size = sizeof(struct prune_opts),
    .create = prune_create,
    .needs = prune_needs,
    .rounds = prune_rounds,
    .plan = prune_plan_hook,
    .memory = prune_memory,
    .scratch = prune_scratch,
    .spare = prune_spare,
    .begin = prune_begin,
    .observe = prune_observe,
    .layer = prune_layer_hook,
    .layer_report = prune_layer_report,
    .report = prune_report,
    .destroy = prune_destroy,
};
