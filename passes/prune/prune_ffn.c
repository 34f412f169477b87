/* prune_ffn.c
 * prune-ffn: keep the same neurons of every dense FFN for every token.
 *
 * Static structured pruning at equal active width and equal calibration is what a conversion to
 * experts has to beat (spec dense_to_moe section 1), so it lives here as the yardstick. The family
 * stays; neurons are gathered bit for bit.
 */
#include "lib/flow/pass.h"
#include "passes/lib/neurons.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum prune_select { PRUNE_MAGNITUDE, PRUNE_WANDA, PRUNE_FLAP };
static const char *const prune_select_names[] = {"magnitude", "wanda", "flap", NULL};

struct prune_opts {
    const char *width;
    int select;
};

static const struct mt_opt prune_opt_table[] = {
    MT_OPT_STR(struct prune_opts, width, "width", 0, "A|P%", "50%",
               "neurons to keep in each layer, or how much of the FFN's width"),
    MT_OPT_ENUM(struct prune_opts, select, "select", 0, "HOW", "wanda", prune_select_names,
                "what ranks neurons"),
    MT_OPT_END,
};

struct prune_layer {
    struct mt_dense_ffn dense;
    struct mt_tensor *bias_gate, *bias_up, *bias_down; /* the source's; NULL: none */
    double kept;                                       /* share of the scores' sum */
    double compensation;                               /* length of the added bias */
};

struct prune {
    struct prune_opts o;
    int n_layers;
    int64_t width, keep, hidden;
    struct prune_layer *layers; /* [n_layers] */
    struct mt_neuron_sums sums; /* of the layer at hand */
};

static mt_status prune_read_width(struct mt_ctx *ctx, struct prune *s)
{
    char *end;

    errno = 0;
    double v = strtod(s->o.width, &end);
    bool percent = end != s->o.width && strcmp(end, "%") == 0;
    if (errno != 0 || end == s->o.width || (!percent && *end != 0) || !(v > 0) ||
        (percent ? v > 100 : v != floor(v)))
        return mt_fail(ctx, MT_E_OPTION,
                       "--width %s: expected a number of neurons (512) or a share (50%%)",
                       s->o.width);
    if (percent)
        v = fmax(1, round(v / 100 * (double)s->width));
    if (v > (double)s->width)
        return mt_fail(ctx, MT_E_OPTION, "--width %s: the FFNs are only %lld neurons wide",
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
    s->n_layers = src->hp.n_layers;
    s->hidden = src->hp.hidden;
    s->width = src->ffn[0].width;
    MT_TRY(prune_read_width(ctx, s));
    return mt_alloc0(ctx, (size_t)s->n_layers, sizeof(*s->layers), "layers", &s->layers);
}

static void prune_end_layer(struct prune *s)
{
    mt_free(s->sums.plain);
    mt_free(s->sums.square);
    s->sums = (struct mt_neuron_sums){0};
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

    return s->o.select == PRUNE_MAGNITUDE ? 0 : MT_NEED_HIDDEN | MT_NEED_STUDENT | MT_NEED_DATA;
}

/* ---- plan ---- */

static bool prune_compensates(const struct prune *s)
{
    return s->o.select == PRUNE_FLAP && s->keep < s->width;
}

/* A new record in the place of an old one that stays behind as its ancestor. */
static mt_status prune_replace(struct mt_ctx *ctx, struct mt_model *m, struct mt_tensor *old,
                               int64_t rows, int64_t cols)
{
    const int64_t shape[2] = {old->rank == 1 ? cols : rows, cols};
    struct mt_tensor *t;

    mt_model_remove(m, old);
    return mt_model_add(ctx, m, old->role, old->dtype, old->rank, shape, &t);
}

static mt_status prune_add_bias(struct mt_ctx *ctx, struct mt_model *m, enum mt_role_kind kind,
                                int layer, enum mt_dtype dtype, int64_t n)
{
    struct mt_role role = mt_role(kind, layer, MT_EXPERT_NONE);
    struct mt_tensor *t;

    role.part = MT_PART_BIAS;
    return mt_model_add(ctx, m, role, dtype, 1, &n, &t);
}

static mt_status prune_plan_bias(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                                 int layer)
{
    struct prune_layer *p = &s->layers[layer];

    p->bias_gate = mt_model_bias(m, MT_ROLE_FFN_GATE, layer, MT_EXPERT_NONE);
    p->bias_up = mt_model_bias(m, MT_ROLE_FFN_UP, layer, MT_EXPERT_NONE);
    p->bias_down = mt_model_bias(m, MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE);
    if (p->bias_gate != NULL)
        MT_TRY(prune_replace(ctx, m, p->bias_gate, 1, s->keep));
    if (p->bias_up != NULL)
        MT_TRY(prune_replace(ctx, m, p->bias_up, 1, s->keep));
    if (!prune_compensates(s))
        return MT_OK;
    /* Families with an output bias have the other two as well (mlp_bias): zero ones here. */
    if (p->bias_gate == NULL && p->dense.gate != NULL)
        MT_TRY(prune_add_bias(ctx, m, MT_ROLE_FFN_GATE, layer, p->dense.gate->dtype, s->keep));
    if (p->bias_up == NULL)
        MT_TRY(prune_add_bias(ctx, m, MT_ROLE_FFN_UP, layer, p->dense.up->dtype, s->keep));
    if (p->bias_down != NULL)
        mt_model_remove(m, p->bias_down);
    MT_TRY(prune_add_bias(ctx, m, MT_ROLE_FFN_DOWN, layer, MT_F32, s->hidden));
    m->ffn[layer].in_bias = true;
    m->ffn[layer].out_bias = true;
    return MT_OK;
}

static mt_status prune_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    struct prune *s = state;

    for (int l = 0; l < s->n_layers; l++) {
        struct mt_dense_ffn *f = &s->layers[l].dense;
        if (m->ffn[l].moe || m->ffn[l].width != s->width)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "prune-ffn must come before passes that change FFNs: run them in a "
                           "second command");
        MT_TRY(mt_dense_ffn_find(ctx, m, l, f));
        MT_TRY(prune_plan_bias(ctx, s, m, l));
        if (f->gate != NULL)
            MT_TRY(prune_replace(ctx, m, f->gate, s->keep, s->hidden));
        MT_TRY(prune_replace(ctx, m, f->up, s->keep, s->hidden));
        MT_TRY(prune_replace(ctx, m, f->down, s->hidden, s->keep));
        m->ffn[l].width = s->keep;
    }
    return MT_OK;
}

/* ---- activations ---- */

static mt_status prune_begin(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct prune *s = state;

    (void)m;
    (void)layer;
    prune_end_layer(s);
    if (s->o.select == PRUNE_MAGNITUDE)
        return MT_OK;
    s->sums.width = s->width;
    MT_TRY(mt_alloc0(ctx, (size_t)s->width, sizeof(double), "neuron sums", &s->sums.plain));
    return mt_alloc0(ctx, (size_t)s->width, sizeof(double), "neuron sums", &s->sums.square);
}

static mt_status prune_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct prune *s = state;

    if (s->o.select == PRUNE_MAGNITUDE || ob->round > 0)
        return MT_OK;
    return mt_neuron_sums_add(ctx, &s->sums, ob->m, ob->h);
}

static mt_status prune_score(struct mt_ctx *ctx, const struct prune *s,
                             const struct mt_dense_ffn *f, double *score)
{
    double n = (double)s->sums.tokens;

    if (s->o.select == PRUNE_MAGNITUDE)
        return mt_neuron_weight_score(ctx, f, score);
    if (s->sums.tokens == 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--select %s ranks by activations: give calibration text with --data, or "
                       "use --select magnitude",
                       prune_select_names[s->o.select]);
    MT_TRY(mt_cols_sumsq(ctx, f->down, score));
    for (int64_t j = 0; j < s->width; j++) {
        double mean = s->sums.plain[j] / n, square = s->sums.square[j] / n;
        if (s->o.select == PRUNE_WANDA)
            score[j] = sqrt(score[j] * square);
        else
            score[j] *= fmax(0, square - mean * mean);
    }
    return MT_OK;
}

/* ---- layer ---- */

/* bias[hidden] = what the dropped neurons add on average, sum of mean(h_j) v_j. */
static mt_status prune_mean_output(struct mt_ctx *ctx, const struct prune *s,
                                   const struct prune_layer *p, const int32_t *keep, float *bias)
{
    size_t w = (size_t)s->width;
    double *mean;

    MT_TRY(mt_alloc(ctx, w, sizeof(*mean) + sizeof(float), "mean output", &mean));
    float *row = (void *)(mean + w);
    for (int64_t j = 0; j < s->width; j++)
        mean[j] = s->sums.plain[j] / (double)s->sums.tokens;
    for (int64_t i = 0; i < s->keep; i++)
        mean[keep[i]] = 0;
    mt_status st = MT_OK;
    for (int64_t r = 0; r < s->hidden && st == MT_OK; r++) {
        double sum = 0;
        st = mt_tensor_fetch_f32(ctx, p->dense.down, r, 1, row);
        for (int64_t j = 0; j < s->width && st == MT_OK; j++)
            sum += mean[j] * (double)row[j];
        bias[r] = (float)sum;
    }
    mt_free(mean);
    return st;
}

static mt_status prune_set_output_bias(struct mt_ctx *ctx, const struct prune *s,
                                       struct mt_model *m, struct prune_layer *p, int layer,
                                       const int32_t *keep)
{
    float *bias, *old = NULL;
    double sum = 0;

    MT_TRY(mt_alloc(ctx, (size_t)s->hidden, sizeof(*bias), "output bias", &bias));
    mt_status st = prune_mean_output(ctx, s, p, keep, bias);
    for (int64_t i = 0; st == MT_OK && i < s->hidden; i++)
        sum += (double)bias[i] * (double)bias[i];
    p->compensation = sqrt(sum);
    if (st == MT_OK && p->bias_down != NULL) {
        st = mt_tensor_load_f32(ctx, p->bias_down, &old);
        for (int64_t i = 0; st == MT_OK && i < s->hidden; i++)
            bias[i] += old[i];
    }
    if (st == MT_OK)
        st = mt_source_floats(ctx, m, mt_model_bias(m, MT_ROLE_FFN_DOWN, layer, MT_EXPERT_NONE),
                              bias);
    mt_free(old);
    mt_free(bias);
    return st;
}

static mt_status prune_set_input_bias(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                                      enum mt_role_kind kind, int layer,
                                      const struct mt_tensor *old, const int32_t *keep)
{
    struct mt_tensor *t = mt_model_bias(m, kind, layer, MT_EXPERT_NONE);

    if (t == NULL)
        return MT_OK;
    if (old == NULL)
        return mt_recipe_fill(ctx, m, t, 0);
    return mt_recipe_gather_cols(ctx, m, t, old, keep, s->keep, 1);
}

static mt_status prune_set_layer(struct mt_ctx *ctx, const struct prune *s, struct mt_model *m,
                                 int layer, const int32_t *keep)
{
    struct prune_layer *p = &s->layers[layer];
    struct mt_tensor *t;

    if (p->dense.gate != NULL) {
        MT_TRY(mt_model_need(ctx, m, p->dense.gate->role, &t));
        MT_TRY(mt_recipe_gather_rows(ctx, m, t, p->dense.gate, keep, s->keep, 1));
    }
    MT_TRY(mt_model_need(ctx, m, p->dense.up->role, &t));
    MT_TRY(mt_recipe_gather_rows(ctx, m, t, p->dense.up, keep, s->keep, 1));
    MT_TRY(mt_model_need(ctx, m, p->dense.down->role, &t));
    MT_TRY(mt_recipe_gather_cols(ctx, m, t, p->dense.down, keep, s->keep, 1));
    MT_TRY(prune_set_input_bias(ctx, s, m, MT_ROLE_FFN_GATE, layer, p->bias_gate, keep));
    MT_TRY(prune_set_input_bias(ctx, s, m, MT_ROLE_FFN_UP, layer, p->bias_up, keep));
    if (prune_compensates(s))
        MT_TRY(prune_set_output_bias(ctx, s, m, p, layer, keep));
    return MT_OK;
}

/* keep[]: the best, in rising order. */
static mt_status prune_choose(struct mt_ctx *ctx, const struct prune *s, struct prune_layer *p,
                              double *score, int32_t *order, int32_t *keep)
{
    double all = 0, kept = 0;
    int64_t n = 0;

    MT_TRY(prune_score(ctx, s, &p->dense, score));
    MT_TRY(mt_rank_falling(ctx, score, s->width, order));
    for (int64_t i = 0; i < s->width; i++) {
        all += score[order[i]];
        kept += i < s->keep ? score[order[i]] : 0;
        if (i < s->keep)
            score[order[i]] = -1; /* marked: scores are not negative */
    }
    for (int64_t j = 0; j < s->width; j++)
        if (score[j] < 0)
            keep[n++] = (int32_t)j;
    p->kept = all > 0 ? kept / all : 1;
    return MT_OK;
}

static mt_status prune_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct prune *s = state;
    size_t w = (size_t)s->width;
    double *score;

    MT_TRY(mt_alloc(ctx, w, sizeof(*score) + 2 * sizeof(int32_t), "neuron ranking", &score));
    int32_t *order = (void *)(score + w), *keep = order + w;
    mt_status st = prune_choose(ctx, s, &s->layers[layer], score, order, keep);
    if (st == MT_OK)
        st = prune_set_layer(ctx, s, m, layer, keep);
    mt_free(score);
    prune_end_layer(s);
    return st;
}

/* ---- report ---- */

static mt_status prune_layer_report(struct mt_ctx *ctx, void *state, int layer, struct mt_json *out)
{
    const struct prune *s = state;

    (void)ctx;
    mt_json_set_num(out, "score_kept", s->layers[layer].kept);
    if (prune_compensates(s))
        mt_json_set_num(out, "compensation", s->layers[layer].compensation);
    return MT_OK;
}

static mt_status prune_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    const struct prune *s = state;

    (void)ctx;
    mt_json_set_int(out, "width_before", s->width);
    mt_json_set_int(out, "width", s->keep);
    mt_json_set_str(out, "select", prune_select_names[s->o.select]);
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
        "flap ranks by the variance of h_j times ||v_j||^2 and adds what the dropped neurons "
        "give on average to an output bias (FLAP, arXiv 2312.11983); of the families that can "
        "be written only Llama has such biases (mlp_bias).",
    .opts = prune_opt_table,
    .opts_size = sizeof(struct prune_opts),
    .create = prune_create,
    .needs = prune_needs,
    .plan = prune_plan,
    .begin = prune_begin,
    .observe = prune_observe,
    .layer = prune_layer,
    .layer_report = prune_layer_report,
    .report = prune_report,
    .destroy = prune_destroy,
};
