/* convert_ffn.c
 * convert-ffn: every dense FFN becomes shared and routed experts of one width.
 *
 * Neurons are divided into index lists (split.h) and gathered, so that with all experts active and
 * even weights the result is the dense model. Which lists are good depends on what fires together;
 * which experts act for a token is the router's choice (router_fit.h). All scales go into the
 * routed down_proj (targets.h).
 */
#include "lib/flow/pass.h"
#include "passes/lib/expert_norms.h"
#include "passes/lib/layer_numbers.h"
#include "passes/lib/moe_plan.h"
#include "passes/lib/partition.h"
#include "passes/lib/router_fit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum convert_router { CONVERT_AUTO, CONVERT_ZERO, CONVERT_CENTROID, CONVERT_RIDGE };

/* enum mt_partition_how */
static const char *const convert_partition_names[] = {"contiguous", "random", "cluster", NULL};
static const char *const convert_router_names[] = {"auto", "zero", "centroid", "ridge", NULL};
static const char *const convert_label_names[] = {"membership", "lognorm", NULL};
static const char *const convert_arch_names[] = {
    "auto",      "glm4_moe", "dots1", "granitemoeshared", "granitemoe", "mixtral", "qwen3_moe",
    "qwen2_moe", "olmoe",    NULL};

/* Share of tokens with undecided choices that is worth a warning. */
#define CONVERT_TIES_MAX 0.05

/* --flatten auto: weights of chosen experts differ from 1 by less than this, whatever the text. */
#define CONVERT_WEIGHT_ERROR_MAX 0x1p-7
#define CONVERT_FLATTEN_MAX 24

struct convert_opts {
    int64_t experts;
    const char *active, *shared, *flatten;
    int partition, router, arch, labels;
};

static const struct mt_opt convert_opt_table[] = {
    MT_OPT_INT(struct convert_opts, experts, "experts", 0, "N", "0", 0, MT_SHAPE_EXPERTS_MAX,
               "routed experts per layer; 0: as many, up to 64, as leave experts a multiple of 32 "
               "neurons wide, a power of two if one does"),
    MT_OPT_STR(struct convert_opts, active, "active", 0, "K|P%", "50%",
               "routed experts per token, or how much of the FFN's width may act for a token, "
               "shared experts included"),
    MT_OPT_STR(struct convert_opts, shared, "shared", 0, "S", "auto",
               "shared experts of the same width; auto: 1 where the target has them"),
    MT_OPT_ENUM(struct convert_opts, partition, "partition", 0, "HOW", "cluster",
                convert_partition_names, "how neurons are divided among experts"),
    MT_OPT_ENUM(struct convert_opts, router, "router", 0, "HOW", "auto", convert_router_names,
                "how routers are made; auto: ridge with --data, else centroid; zero when all act"),
    MT_OPT_ENUM(struct convert_opts, labels, "labels", 0, "HOW", "membership", convert_label_names,
                "what the ridge router learns about the contribution norms"),
    MT_OPT_ENUM(struct convert_opts, arch, "arch", 0, "A", "auto", convert_arch_names,
                "target architecture; auto: without shared experts qwen3_moe for a Qwen3 source "
                "and mixtral for sliding windows, else glm4_moe"),
    MT_OPT_STR(struct convert_opts, flatten, "flatten", 0, "M", "auto",
               "multiply routers by 2^-M, so that expert weights become even; auto: the smallest M "
               "of each layer that keeps them within 0.8 % of 1 on any text"),
    MT_OPT_END,
};

struct convert {
    struct convert_opts o;
    struct mt_moe_shape shape;
    int64_t flatten; /* -1: chosen for each layer */
    double norm_offset;
    struct mt_dense_ffn *dense;       /* [n_layers] */
    struct mt_layer_numbers *numbers; /* [n_layers] */

    /* The layer at hand. */
    int layer;
    struct mt_split *split; /* NULL: not decided yet */
    struct mt_neuron_sums sums;
    struct mt_expert_norms *norms;
    struct mt_router_fit *fit;
};

/* ---- create ---- */

static mt_status convert_read_flatten(struct mt_ctx *ctx, struct convert *s)
{
    char *end;

    s->flatten = -1;
    if (strcmp(s->o.flatten, "auto") == 0)
        return MT_OK;
    s->flatten = strtol(s->o.flatten, &end, 10);
    if (end == s->o.flatten || *end != '\0' || s->flatten < 0 || s->flatten > CONVERT_FLATTEN_MAX)
        return mt_fail(ctx, MT_E_OPTION, "--flatten %s: expected auto or a number from 0 to %d",
                       s->o.flatten, CONVERT_FLATTEN_MAX);
    return MT_OK;
}

static struct mt_shape_ask convert_ask(const struct convert *s)
{
    return (struct mt_shape_ask){.experts = s->o.experts,
                                 .active = s->o.active,
                                 .shared = s->o.shared,
                                 .arch = convert_arch_names[s->o.arch]};
}

static mt_status convert_setup(struct mt_ctx *ctx, struct convert *s, const struct mt_model *src)
{
    const struct mt_shape_ask ask = convert_ask(s);
    struct mt_moe_shape *p = &s->shape;

    MT_TRY(convert_read_flatten(ctx, s));
    MT_TRY(mt_moe_shape_read(ctx, &ask, src, p));
    s->norm_offset = src->hp.norm_offset;
    if (s->o.router == CONVERT_ZERO && p->k < p->n_experts)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router zero chooses the same %d of %d experts for every token: use "
                       "ridge or centroid, or --active %d",
                       p->k, p->n_experts, p->n_experts);
    MT_TRY(mt_alloc0(ctx, (size_t)p->n_layers, sizeof(*s->dense), "layers", &s->dense));
    return mt_alloc0(ctx, (size_t)p->n_layers, sizeof(*s->numbers), "layers", &s->numbers);
}

static void convert_end_layer(struct convert *s)
{
    mt_expert_norms_free(s->norms);
    mt_router_fit_free(s->fit);
    mt_split_free(s->split);
    mt_free(s->sums.abs);
    s->norms = NULL;
    s->fit = NULL;
    s->split = NULL;
    s->sums = (struct mt_neuron_sums){0};
}

static void convert_destroy(void *state)
{
    struct convert *s = state;

    if (s == NULL)
        return;
    convert_end_layer(s);
    mt_free(s->dense);
    mt_free(s->numbers);
    mt_free(s);
}

static mt_status convert_create(struct mt_ctx *ctx, const void *opts, const struct mt_model *src,
                                void **state)
{
    struct convert *s;

    *state = NULL;
    MT_TRY(mt_alloc0(ctx, 1, sizeof(*s), "convert-ffn", &s));
    s->o = *(const struct convert_opts *)opts;
    mt_status st = convert_setup(ctx, s, src);
    if (st != MT_OK) {
        convert_destroy(s);
        return st;
    }
    *state = s;
    return MT_OK;
}

/* The shared neurons of a clustering are those that act most: known after a first look at the
 * activations. */
static bool convert_wants_sums(const struct convert *s)
{
    return s->o.partition == MT_PARTITION_CLUSTER && s->shape.n_shared > 0;
}

/* Contribution norms: to fit a router, and to judge one. */
static bool convert_wants_norms(const struct convert *s)
{
    return s->shape.k < s->shape.n_experts || s->o.router == CONVERT_RIDGE;
}

static unsigned convert_needs(const void *state)
{
    const struct convert *s = state;
    unsigned needs = 0;

    if (convert_wants_sums(s))
        needs |= MT_NEED_HIDDEN | MT_NEED_STUDENT;
    if (convert_wants_norms(s))
        needs |= MT_NEED_INPUTS | MT_NEED_HIDDEN | MT_NEED_STUDENT;
    if (s->o.router == CONVERT_RIDGE)
        needs |= MT_NEED_DATA;
    return needs;
}

static int convert_rounds(const void *state)
{
    const struct convert *s = state;

    return convert_wants_sums(s) && convert_wants_norms(s) ? 2 : 1;
}

static uint64_t convert_memory(const void *state, const struct mt_model *m)
{
    const struct convert *s = state;
    uint64_t d = (uint64_t)s->shape.hidden, w = (uint64_t)s->shape.width,
             n = (uint64_t)s->shape.n_experts;
    uint64_t cluster = 0, fit = 0;

    (void)m;
    if (s->o.partition == MT_PARTITION_CLUSTER)
        cluster = w * d * 4 + w * n * 52 + n * d * 4;
    if (convert_wants_norms(s))
        fit = w * d * 4 + d * d * 16 + d * n * 16 + MT_ROUTER_SAMPLE_MAX * (d + 2 * n) * 4 +
              MT_OBSERVE_TOKENS_MAX * n * 8;
    /* Routers and index lists stay with the plan. */
    return (cluster > fit ? cluster : fit) + n * d * 4 +
           (uint64_t)s->shape.n_layers * (n * d * 4 + w * 16);
}

/* ---- plan ---- */

static mt_status convert_plan_layer(struct mt_ctx *ctx, struct convert *s, struct mt_model *m,
                                    int layer)
{
    if (m->ffn[layer].moe || m->ffn[layer].width != s->shape.width)
        return mt_fail(ctx, MT_E_UNSUPPORTED,
                       "convert-ffn must come before passes that change FFNs: run them in a "
                       "second command");
    MT_TRY(mt_dense_ffn_find(ctx, m, layer, &s->dense[layer]));
    return mt_moe_plan_layer(ctx, &s->shape, &s->dense[layer], m, layer);
}

static mt_status convert_plan(struct mt_ctx *ctx, void *state, struct mt_model *m)
{
    struct convert *s = state;
    const struct mt_shape_ask ask = convert_ask(s);
    double alpha = mt_target_alpha(s->shape.target, s->shape.n_experts, s->shape.k);

    m->family = mt_family_find(s->shape.target->family);
    if (m->family == NULL)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "family %s is not known", s->shape.target->family);
    for (int l = 0; l < s->shape.n_layers; l++)
        MT_TRY(mt_wrap(ctx, convert_plan_layer(ctx, s, m, l), "layer %d", l));
    /* Refused as soon as later, so that warnings are about what will be written. */
    if (m->family->can_hold != NULL)
        MT_TRY(m->family->can_hold(ctx, m));
    mt_moe_shape_tell(ctx, &ask, &s->shape);
    enum mt_dtype dtype = s->dense[0].down->dtype;
    if (!mt_scale_is_exact(alpha) && (dtype == MT_BF16 || dtype == MT_F16))
        mt_log(ctx, MT_LOG_WARN,
               "%s gives weights that are not 1, so down_proj is multiplied by %d, which rounds in "
               "%s: inexact; --%s with a power of two, or --arch glm4_moe, is exact",
               s->shape.target->family, (int)alpha, mt_dtype_name(dtype),
               s->shape.target->alpha == MT_ALPHA_EXPERTS ? "experts" : "active");
    return MT_OK;
}

/* ---- activations ---- */

/* Settles which neuron goes where. */
static mt_status convert_decide(struct mt_ctx *ctx, struct convert *s)
{
    return mt_partition_ffn(ctx, (enum mt_partition_how)s->o.partition, &s->dense[s->layer],
                            &s->sums, s->shape.n_experts, s->shape.n_shared, (uint64_t)s->layer,
                            &s->split);
}

static mt_status convert_begin(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct convert *s = state;

    (void)m;
    convert_end_layer(s);
    s->layer = layer;
    if (convert_wants_sums(s))
        return MT_OK;
    return convert_decide(ctx, s);
}

static mt_status convert_observe_norms(struct mt_ctx *ctx, struct convert *s,
                                       const struct mt_observation *ob)
{
    float *norms;

    if (s->split == NULL)
        MT_TRY(convert_decide(ctx, s));
    if (s->fit == NULL)
        MT_TRY(mt_router_fit_create(ctx, s->shape.hidden, s->shape.n_experts, s->shape.k,
                                    (enum mt_router_labels)s->o.labels, ob->n_tokens, &s->fit));
    if (s->norms == NULL)
        MT_TRY(mt_expert_norms_create(ctx, s->dense[s->layer].down, s->split, &s->norms));
    MT_TRY(mt_alloc(ctx, (size_t)ob->m, (size_t)s->shape.n_experts * sizeof(*norms), "expert norms",
                    &norms));
    mt_status st = mt_expert_norms_run(ctx, s->norms, ob->m, ob->h, norms);
    if (st == MT_OK)
        st = mt_router_fit_add(ctx, s->fit, ob->m, ob->token0, ob->x, norms);
    mt_free(norms);
    return st;
}

static mt_status convert_observe(struct mt_ctx *ctx, void *state, const struct mt_observation *ob)
{
    struct convert *s = state;

    if (convert_wants_sums(s) && ob->round == 0) {
        if (s->sums.abs == NULL) {
            s->sums.width = s->shape.width;
            MT_TRY(mt_alloc0(ctx, (size_t)s->shape.width, sizeof(*s->sums.abs), "neuron sums",
                             &s->sums.abs));
        }
        return mt_neuron_sums_add(ctx, &s->sums, ob->m, ob->h);
    }
    /* Another pass of the pipeline may ask for more rounds than this one. */
    if (!convert_wants_norms(s) || ob->round >= convert_rounds(s))
        return MT_OK;
    return convert_observe_norms(ctx, s, ob);
}

/* ---- router ---- */

static bool convert_all_finite(const float *v, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(v[i]))
            return false;
    return true;
}

/* *fitted false: nothing can be learnt from activations that are not finite, and --allow-nan wants
 * a router all the same. */
static mt_status convert_fit_router(struct mt_ctx *ctx, struct convert *s, float *router,
                                    bool *fitted)
{
    *fitted = mt_router_fit_finite(s->fit);
    if (*fitted) {
        MT_TRY(mt_router_fit_solve(ctx, s->fit, router));
        *fitted = convert_all_finite(router, s->shape.n_experts * s->shape.hidden);
    }
    if (*fitted)
        return MT_OK;
    if (!mt_ctx_allow_nan(ctx))
        return mt_fail(ctx, MT_E_NUMERIC,
                       "activations are NaN or infinite, so no router can be fitted; --allow-nan "
                       "goes on with --router centroid there");
    mt_log(ctx, MT_LOG_WARN,
           "layer %d: activations are NaN or infinite, so its router is made of gate rows, as "
           "--router centroid does",
           s->layer);
    mt_router_fit_free(s->fit);
    s->fit = NULL;
    return MT_OK;
}

static mt_status convert_make_router(struct mt_ctx *ctx, struct convert *s, int *kind,
                                     float *router)
{
    size_t count = (size_t)(s->shape.n_experts * s->shape.hidden);
    bool fitted;

    *kind = s->o.router;
    if (*kind == CONVERT_AUTO)
        *kind = s->shape.k == s->shape.n_experts ? CONVERT_ZERO
                : s->fit != NULL                 ? CONVERT_RIDGE
                                                 : CONVERT_CENTROID;
    if (*kind == CONVERT_RIDGE && s->fit == NULL)
        return mt_fail(ctx, MT_E_OPTION,
                       "--router ridge is fitted to activations: give calibration text with "
                       "--data, or use --router centroid");
    memset(router, 0, count * sizeof(*router));
    if (*kind == CONVERT_RIDGE) {
        MT_TRY(convert_fit_router(ctx, s, router, &fitted));
        if (!fitted)
            *kind = CONVERT_CENTROID;
    }
    if (*kind == CONVERT_CENTROID)
        MT_TRY(mt_router_centroids(ctx, s->dense[s->layer].gate, s->split, router));
    return MT_OK;
}

/* The largest |logit| the router can give on any text; NaN where no norm bounds its input. */
static mt_status convert_bound_logits(struct mt_ctx *ctx, const struct convert *s,
                                      const struct mt_model *m, const float *router, double *l)
{
    struct mt_tensor *norm = mt_model_find(m, mt_role(MT_ROLE_FFN_NORM, s->layer, MT_EXPERT_NONE));
    float *gamma;

    *l = NAN;
    if (norm == NULL || mt_tensor_count(norm) != s->shape.hidden)
        return MT_OK;
    MT_TRY(mt_tensor_load_f32(ctx, norm, &gamma));
    for (int64_t i = 0; i < s->shape.hidden; i++)
        gamma[i] += (float)s->norm_offset;
    if (convert_all_finite(gamma, s->shape.hidden))
        *l = mt_router_logit_bound(router, s->shape.n_experts, gamma, s->shape.hidden);
    mt_free(gamma);
    return MT_OK;
}

/* Scales the router, and says what is known about the weights the target's rule will give. */
static mt_status convert_flatten(struct mt_ctx *ctx, struct convert *s, const struct mt_model *m,
                                 float *router, struct mt_layer_numbers *out)
{
    const struct mt_moe_shape *p = &s->shape;
    int shift = s->flatten >= 0 ? (int)s->flatten : 0;
    double l;

    MT_TRY(convert_bound_logits(ctx, s, m, router, &l));
    if (s->flatten < 0 && isnan(l))
        shift = CONVERT_FLATTEN_MAX / 2;
    while (s->flatten < 0 && !isnan(l) && shift < CONVERT_FLATTEN_MAX &&
           mt_target_weight_bound(p->target, p->n_experts, p->k, ldexp(l, -shift)) >
               CONVERT_WEIGHT_ERROR_MAX)
        shift++;
    for (int64_t i = 0; i < p->n_experts * p->hidden; i++)
        router[i] = ldexpf(router[i], -shift);
    out->flatten = shift;
    out->weight_bound = mt_target_weight_bound(p->target, p->n_experts, p->k, ldexp(l, -shift));
    if (s->fit == NULL)
        return MT_OK;
    return mt_router_fit_measure(ctx, s->fit, p->target, router, &out->fit);
}

/* ---- layer ---- */

static mt_status convert_set_router(struct mt_ctx *ctx, struct convert *s, struct mt_model *m,
                                    struct mt_layer_numbers *out)
{
    struct mt_tensor *t;
    float *router;

    MT_TRY(mt_alloc(ctx, (size_t)s->shape.n_experts, (size_t)s->shape.hidden * sizeof(*router),
                    "router", &router));
    mt_status st = convert_make_router(ctx, s, &out->router, router);
    if (st == MT_OK)
        st = convert_flatten(ctx, s, m, router, out);
    if (st == MT_OK)
        st = mt_model_need(ctx, m, mt_role(MT_ROLE_ROUTER, s->layer, MT_EXPERT_NONE), &t);
    if (st == MT_OK)
        st = mt_source_floats(ctx, m, t, router);
    mt_free(router);
    return st;
}

static mt_status convert_layer(struct mt_ctx *ctx, void *state, struct mt_model *m, int layer)
{
    struct convert *s = state;
    struct mt_layer_numbers *out = &s->numbers[layer];
    const struct mt_moe_shape *p = &s->shape;
    const struct mt_dense_ffn *f = &s->dense[layer];

    if (s->split == NULL)
        MT_TRY(convert_decide(ctx, s));
    memset(out, 0, sizeof(*out));
    mt_split_checksum(s->split, out->lists);
    out->padded = mt_split_padding(s->split);
    out->shared = mt_split_shared_width(s->split);
    if (s->o.partition == MT_PARTITION_CLUSTER && out->shared > 0)
        out->shared_by = s->sums.tokens > 0 ? MT_SHARED_BY_ACTIVATIONS : MT_SHARED_BY_WEIGHTS;
    MT_TRY(convert_set_router(ctx, s, m, out));
    MT_TRY(mt_moe_set_constants(ctx, p, m, layer));
    for (int e = 0; e < p->n_experts; e++)
        MT_TRY(mt_moe_set_expert(ctx, p, f, m, layer, e, mt_split_expert(s->split, e),
                                 p->expert_width));
    if (p->n_shared > 0)
        MT_TRY(mt_moe_set_expert(ctx, p, f, m, layer, MT_EXPERT_SHARED, mt_split_shared(s->split),
                                 p->shared_width));
    convert_end_layer(s);
    return MT_OK;
}

/* ---- report ---- */

static mt_status convert_layer_report(struct mt_ctx *ctx, void *state, int layer,
                                      struct mt_json *out)
{
    const struct convert *s = state;

    (void)ctx;
    mt_layer_numbers_write(&s->numbers[layer], convert_router_names, out);
    return MT_OK;
}

static mt_status convert_layer_restore(struct mt_ctx *ctx, void *state, int layer,
                                       const struct mt_json *in)
{
    struct convert *s = state;

    return mt_layer_numbers_read(ctx, &s->numbers[layer], convert_router_names, in);
}

static mt_status convert_report(struct mt_ctx *ctx, void *state, struct mt_json *out)
{
    const struct convert *s = state;
    int64_t active = s->shape.k * s->shape.expert_width + s->shape.n_shared * s->shape.expert_width;
    double bound = 0, error = 0, agreement = 0, captured = 0, ties = 0;
    int64_t flatten = 0;
    int measured = 0;

    for (int l = 0; l < s->shape.n_layers; l++) {
        const struct mt_layer_numbers *n = &s->numbers[l];
        flatten = n->flatten > flatten ? n->flatten : flatten;
        bound = fmax(bound, n->weight_bound);
        error = fmax(error, n->fit.weight_error);
        agreement += n->fit.agreement;
        captured += n->fit.captured;
        ties = fmax(ties, n->fit.ties);
        measured += n->fit.tokens > 0;
    }
    mt_json_set_str(out, "architecture", s->shape.target->family);
    mt_json_set_int(out, "experts", s->shape.n_experts);
    mt_json_set_int(out, "active", s->shape.k);
    mt_json_set_int(out, "shared", s->shape.n_shared);
    mt_json_set_int(out, "expert_width", s->shape.expert_width);
    mt_json_set_int(out, "zero_shared_width", s->shape.n_shared == 0 ? s->shape.shared_width : 0);
    mt_json_set_num(out, "active_share", (double)active / (double)s->shape.width);
    mt_json_set_int(out, "flatten_max", flatten);
    mt_json_set_num(out, "alpha", mt_target_alpha(s->shape.target, s->shape.n_experts, s->shape.k));
    mt_json_set_num(out, "weight_bound_max", bound);
    mt_log(ctx, MT_LOG_INFO,
           "%d of %d experts and %d shared, each %lld neuron%s wide, act for a token (%.1f %% of "
           "%lld)",
           s->shape.k, s->shape.n_experts, s->shape.n_shared, (long long)s->shape.expert_width,
           s->shape.expert_width == 1 ? "" : "s", 100 * (double)active / (double)s->shape.width,
           (long long)s->shape.width);
    if (s->shape.k < s->shape.n_experts)
        mt_log(ctx, MT_LOG_INFO, "expert weights differ from 1 by at most %.2g", bound);
    if (measured == 0)
        return MT_OK;
    mt_json_set_num(out, "weight_error_max", error);
    mt_json_set_num(out, "agreement_mean", agreement / measured);
    mt_json_set_num(out, "captured_mean", captured / measured);
    mt_json_set_num(out, "ties_max", ties);
    mt_log(ctx, MT_LOG_INFO,
           "measured: by at most %.2g; routers pick %.0f %% of the oracle's experts, %.0f %% of "
           "their squared norm",
           error, 100 * agreement / measured, 100 * captured / measured);
    if (ties > CONVERT_TIES_MAX)
        mt_log(ctx, MT_LOG_WARN,
               "for up to %.1f %% of a layer's tokens the last chosen expert and the next are "
               "closer than fp32 scores tell apart, so engines may choose differently: lower "
               "--flatten",
               100 * ties);
    return MT_OK;
}

const struct mt_pass mt_pass_convert_ffn = {
    .name = "convert-ffn",
    .summary = "cut dense FFNs into shared and routed experts",
    .help =
        "Divides the neurons of every dense FFN among experts of one width, gathered bit for bit, "
        "so that with all experts active the model computes what it did. Zero neurons pad widths "
        "that do not divide.\n\n"
        "--partition cluster shares the neurons that act most and groups the others by balanced "
        "k-means on their gate rows with an exact assignment (after MoEfication, arXiv "
        "2110.01786, and LLaMA-MoE). --router ridge fits, in closed form, which experts "
        "contribute most (labels from ||V_e h_e||); centroid takes the mean gate row of an "
        "expert (ExpertWeaver, arXiv 2602.15521).\n\n"
        "Dense experts want weight 1. Formats that normalise weights get the missing factor in "
        "down_proj, and routers are multiplied by 2^-M so that weights become even while the "
        "choice stays; the report tells the remaining error.",
    .opts = convert_opt_table,
    .opts_size = sizeof(struct convert_opts),
    .create = convert_create,
    .needs = convert_needs,
    .rounds = convert_rounds,
    .plan = convert_plan,
    .memory = convert_memory,
    .begin = convert_begin,
    .observe = convert_observe,
    .layer = convert_layer,
    .layer_report = convert_layer_report,
    .layer_restore = convert_layer_restore,
    .report = convert_report,
    .destroy = convert_destroy,
};
