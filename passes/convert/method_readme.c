/* method_readme.c
 * readme: an expert for each domain of text, of the neurons that act most in it (Read-ME, arXiv
 * 2410.19123).
 *
 * A domain's mask holds the share --keep of the neurons with the largest sum of |h_j| over its
 * tokens, in the original model. What all masks share is always on; an expert is the rest of its
 * domain's mask. So experts of one layer are equally wide, but layers differ: the native layout has
 * them as they are. Other targets have one width for all layers: either the mean (--widths fill),
 * and what most masks hold is shared, or the widest, filled up with zero neurons (pad). Targets
 * without shared experts get each mask whole.
 *
 * Masks decide shapes, so they come from statistics that are there before the conversion begins.
 */
#include "lib/base/mem.h"
#include "lib/flow/profile.h"
#include "passes/convert/method.h"
#include "passes/lib/domain_masks.h"
#include "passes/lib/target_choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define README_SHARED_MAX                                                                          \
    16 /* times the width of an expert, where shared ones are counted in it                        \
        */

/* ---- masks ---- */

static mt_status readme_importance(struct mt_ctx *ctx, const struct mt_model *src, int layer,
                                   double *importance)
{
    const struct mt_profile *p = src->profile;
    int64_t width = src->ffn[layer].width;
    double tokens;

    for (int i = 0; i < mt_profile_n_domains(p); i++) {
        const char *domain = mt_profile_domain(p, i);
        MT_TRY(mt_profile_get(ctx, p, layer, MT_STAT_TOKENS, domain, &tokens, 1));
        if (!(tokens > 0))
            return mt_fail(ctx, MT_E_OPTION,
                           "--method readme: no token of domain %s was seen: give more --samples",
                           domain);
        MT_TRY(mt_profile_get(ctx, p, layer, MT_STAT_H_ABS, domain, importance + i * width,
                              (size_t)width));
    }
    return MT_OK;
}

/* *importance [n, width], unless NULL, and masks are *given*. */
static mt_status readme_masks_and(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                  const struct mt_model *src, int layer,
                                  struct mt_domain_masks **out, double **importance)
{
    int n = mt_profile_n_domains(src->profile);
    int64_t width = src->ffn[layer].width;
    double *v;

    MT_TRY(mt_alloc(ctx, (size_t)n, (size_t)width * sizeof(*v), "importance of neurons", &v));
    mt_status st = readme_importance(ctx, src, layer, v);
    if (st == MT_OK)
        st = mt_domain_masks_make(ctx, v, n, width, mt_domain_keep(o->keep, width), out);
    if (st == MT_OK && importance != NULL) {
        *importance = v;
        return MT_OK;
    }
    mt_free(v);
    return mt_wrap(ctx, st, "layer %d", layer);
}

static mt_status readme_masks(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                              const struct mt_model *src, int layer, struct mt_domain_masks **out)
{
    return readme_masks_and(ctx, o, src, layer, out, NULL);
}

/* ---- shapes ---- */

struct readme_widths {
    int64_t expert, shared;
};

static struct readme_widths readme_layer_widths(const struct mt_convert_opts *o,
                                                const struct mt_target *to,
                                                const struct mt_domain_masks *m)
{
    int64_t covered = o->cover == MT_CONVERT_COVER_NEAREST ? m->dropped : 0;
    struct readme_widths w = {m->keep - m->common, m->common + covered};

    if (!to->shared)
        w = (struct readme_widths){m->keep + covered, 0};
    /* Domains may use the same neurons in some layer. */
    if (w.expert == 0)
        w.expert = 1;
    return w;
}

static mt_status readme_check(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                              const struct mt_model *src)
{
    int n = src->profile != NULL ? mt_profile_n_domains(src->profile) : 0;

    if (n < 2)
        return mt_fail(ctx, MT_E_OPTION,
                       "--method readme makes an expert of each domain of text%s: give at least "
                       "two with --data NAME=FILE, or a --profile of them",
                       n == 1 ? " and was given one" : "");
    if (o->experts != 0 && o->experts != n)
        return mt_fail(ctx, MT_E_OPTION,
                       "--experts %lld: method readme makes an expert of each domain of text, here "
                       "%d",
                       (long long)o->experts, n);
    if (strcmp(o->shared, "auto") != 0)
        return mt_fail(ctx, MT_E_OPTION,
                       "--shared %s: method readme shares what all domains use; how much that is "
                       "follows from --keep",
                       o->shared);
    return MT_OK;
}

static bool readme_is_native(const struct mt_moe_shape *s)
{
    return strcmp(mt_target_name(s->target), "native") == 0;
}

static int64_t readme_round_up(int64_t n)
{
    return (n + MT_SHAPE_BLOCK - 1) / MT_SHAPE_BLOCK * MT_SHAPE_BLOCK;
}

/* Whether widths are chosen rather than those of masks. What no mask holds has its place in padded
 * lists only. */
static bool readme_fills(const struct mt_convert_opts *o, const struct mt_moe_shape *s)
{
    return o->widths == MT_CONVERT_WIDTHS_FILL && o->cover == MT_CONVERT_COVER_NONE &&
           s->target->shared && !readme_is_native(s);
}

/* Whether the target takes a shared expert of any width, or only multiples of the others'. */
static mt_status readme_any_shared(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                   const struct mt_model *src, const struct mt_moe_shape *s,
                                   bool *any)
{
    struct mt_moe_shape odd = *s;

    odd.n_shared = 1;
    odd.expert_width = 2 * MT_SHAPE_BLOCK;
    odd.shared_width = 3 * MT_SHAPE_BLOCK;
    mt_status st = mt_target_holds(ctx, &odd, src, o->format);
    *any = st == MT_OK;
    return st == MT_E_UNSUPPORTED ? MT_OK : st;
}

/* The widest layer's, in whole blocks. Where the shared expert must be a multiple of the others, as
 * many times as lets the fewest neurons act. */
static void readme_pad(struct readme_widths w, bool any, struct mt_moe_shape *s)
{
    int64_t best = INT64_MAX, least = readme_round_up(w.expert);

    s->expert_width = least;
    s->shared_width = readme_round_up(w.shared);
    for (int n = 1; !any && n <= README_SHARED_MAX; n++) {
        int64_t width = readme_round_up((w.shared + n - 1) / n);
        width = width < least ? least : width;
        if ((s->k + n) * width >= best)
            continue;
        best = (s->k + n) * width;
        s->expert_width = width;
        s->n_shared = n;
        s->shared_width = n * width;
    }
}

/* As many neurons as a mask has, shared as many of them as masks share on average, in whole blocks.
 * Where the shared expert must be a multiple of the others, the nearest such division. */
static void readme_fill_widths(int64_t keep, double shared, bool any, struct mt_moe_shape *s)
{
    int64_t least = MT_SHAPE_BLOCK < keep / 4 ? MT_SHAPE_BLOCK : 1;
    int64_t blocks = llround(shared / (double)least);

    s->shared_width = (blocks < 1 ? 1 : blocks) * least;
    s->expert_width = (keep - s->shared_width + least - 1) / least * least;
    if (s->expert_width < least)
        s->expert_width = least;
    for (int n = 1, best = 0; !any && n <= README_SHARED_MAX; n++) {
        double off = fabs(n / (n + 1.0) - shared / (double)keep);
        if (best > 0 && off >= fabs(best / (best + 1.0) - shared / (double)keep))
            continue;
        best = n;
        s->n_shared = n;
        s->expert_width = ((keep + n) / (n + 1) + least - 1) / least * least;
        s->shared_width = n * s->expert_width;
    }
    /* Rounding up must not ask for more neurons than there are. */
    while (s->shared_width + s->expert_width > s->width && s->expert_width > 1) {
        s->expert_width--;
        s->shared_width = any ? s->shared_width : s->n_shared * s->expert_width;
    }
}

static mt_status readme_fit_target(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                   const struct mt_model *src, struct readme_widths most,
                                   double shared, struct mt_moe_shape *s)
{
    bool any;

    if (most.shared == 0) {
        s->expert_width = readme_round_up(most.expert);
        s->shared_width = s->target->shared_required ? s->expert_width : 0;
        return MT_OK;
    }
    MT_TRY(readme_any_shared(ctx, o, src, s, &any));
    if (readme_fills(o, s))
        readme_fill_widths(mt_domain_keep(o->keep, s->width), shared, any, s);
    else
        readme_pad(most, any, s);
    return MT_OK;
}

/* Experts that a share of the width has room for, beside what is shared; on average over layers. */
static int readme_active(const char *share, const struct mt_moe_shape *s, struct readme_widths sum)
{
    double neurons = strtod(share, NULL) / 100 * (double)s->width * s->n_layers;
    double k = round((neurons - (double)sum.shared) / (double)sum.expert);

    return (int)fmin(fmax(k, 1), s->n_experts);
}

static mt_status readme_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                              const struct mt_model *src, struct mt_moe_shape *s)
{
    struct mt_shape_ask ask = mt_convert_ask(o);
    const struct mt_target *asked = mt_target_find(ask.arch);
    struct readme_widths most = {0}, sum = {0};
    struct mt_domain_masks *m = NULL;

    MT_TRY(readme_check(ctx, o, src));
    MT_TRY(mt_moe_refuse_list(ctx, o->active, "method readme"));
    if (strcmp(o->active, "auto") == 0)
        ask.active = "1";
    ask.experts = mt_profile_n_domains(src->profile);
    ask.shared = asked != NULL && !asked->shared ? "0" : "1";
    MT_TRY(mt_moe_shape_read(ctx, &ask, src, s));
    for (int l = 0; l < s->n_layers; l++) {
        MT_TRY(readme_masks(ctx, o, src, l, &m));
        mt_assert(m != NULL);
        const struct readme_widths w = readme_layer_widths(o, s->target, m);
        mt_domain_masks_free(m);
        most.expert = w.expert > most.expert ? w.expert : most.expert;
        most.shared = w.shared > most.shared ? w.shared : most.shared;
        sum.expert += w.expert;
        sum.shared += w.shared;
    }
    s->own_widths = true;
    s->n_shared = most.shared > 0;
    s->expert_width = most.expert;
    s->shared_width = most.shared;
    if (strchr(ask.active, '%') != NULL)
        s->k = readme_active(ask.active, s, sum);
    return readme_is_native(s)
               ? MT_OK
               : readme_fit_target(ctx, o, src, most, (double)sum.shared / s->n_layers, s);
}

static mt_status readme_layer_shape(struct mt_ctx *ctx, const struct mt_convert_opts *o,
                                    const struct mt_model *src, int layer, struct mt_moe_shape *s)
{
    struct mt_domain_masks *m = NULL;

    if (!readme_is_native(s))
        return MT_OK;
    MT_TRY(readme_masks(ctx, o, src, layer, &m));
    mt_assert(m != NULL);
    const struct readme_widths w = readme_layer_widths(o, s->target, m);
    mt_domain_masks_free(m);
    s->expert_width = w.expert;
    s->shared_width = w.shared;
    s->n_shared = w.shared > 0;
    return MT_OK;
}

/* ---- deciding ---- */

static bool readme_is_shared(const struct mt_convert_opts *o, const struct mt_domain_masks *m,
                             int64_t j)
{
    int holders = mt_domain_masks_holders(m, j);

    return holders == m->n || (holders == 0 && o->cover == MT_CONVERT_COVER_NEAREST);
}

/* The masks as they are. The shared list takes what is shared, or without one every expert does. */
static void readme_lists(const struct mt_convert_opts *o, const struct mt_domain_masks *m,
                         bool has_shared, struct mt_split *split)
{
    for (int e = -1; e < m->n; e++) {
        int32_t *list = split->idx + (e < 0 ? 0 : split->shared_width + e * split->expert_width);
        int64_t n = 0, size = e < 0 ? split->shared_width : split->expert_width;
        for (int64_t j = 0; j < m->width; j++) {
            bool shared = readme_is_shared(o, m, j);
            bool mine = shared ? (e < 0) == has_shared : e >= 0 && m->in[e * m->width + j];
            if (!mine)
                continue;
            mt_assert(n < size);
            list[n++] = (int32_t)j;
        }
    }
}

/* How much of the masks experts hold together with what is shared. */
static double readme_held(const struct mt_domain_masks *m, const struct mt_split *split)
{
    int64_t held = 0;

    for (int e = 0; e < m->n; e++) {
        const int32_t *list = mt_split_expert(split, e);
        for (int64_t i = 0; i < split->shared_width; i++)
            held += split->idx[i] >= 0 && m->in[e * m->width + split->idx[i]];
        for (int64_t i = 0; i < split->expert_width; i++)
            held += list[i] >= 0 && m->in[e * m->width + list[i]];
    }
    return (double)held / (double)(m->n * m->keep);
}

static mt_status readme_tell(struct mt_ctx *ctx, const struct mt_convert_at *at,
                             const struct mt_domain_masks *m, struct mt_convert_division *out)
{
    struct mt_json *j = out->facts = mt_json_new_object(), *list, *row;

    if (j == NULL)
        return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
    list = mt_json_set_array(j, "domains");
    for (int i = 0; i < m->n; i++)
        mt_json_add_str(list, mt_profile_domain(at->src->profile, i));
    mt_json_set_int(j, "mask", m->keep);
    mt_json_set_int(j, "common", m->common);
    mt_json_set_int(j, "in_no_mask", m->dropped);
    mt_json_set_num(j, "masks_held", readme_held(m, out->split));
    list = mt_json_set_array(j, "overlap");
    for (int a = 0; a < m->n; a++) {
        row = mt_json_new_array();
        if (row == NULL)
            return mt_fail(ctx, MT_E_NOMEM, "out of memory for a report");
        for (int b = 0; b < m->n; b++)
            mt_json_add_int(row, mt_domain_masks_overlap(m, a, b));
        mt_json_add(list, row);
    }
    return MT_OK;
}

static uint64_t readme_memory(const struct mt_convert_at *at)
{
    uint64_t w = (uint64_t)at->shape->width, n = (uint64_t)at->shape->n_experts;

    /* Importances, masks, rankings, lists, their weights. */
    return w * n * 9 + w * 24 + (w + (uint64_t)at->shape->expert_width * n) * 8;
}

static mt_status readme_decide(struct mt_ctx *ctx, const struct mt_convert_at *at, void *state,
                               struct mt_convert_division *out)
{
    const struct mt_moe_shape *p = at->shape;
    struct mt_domain_masks *m = NULL;
    double *importance = NULL;

    (void)state;
    MT_TRY(readme_masks_and(ctx, at->o, at->src, at->layer, &m, &importance));
    mt_assert(m != NULL);
    mt_status st = mt_split_create_sizes(ctx, p->width, p->n_experts, p->expert_width,
                                         p->n_shared > 0 ? p->shared_width : 0, &out->split);
    if (st == MT_OK && readme_fills(at->o, p) && p->n_shared > 0)
        st = mt_domain_fill(ctx, m, importance, p->shared_width, p->expert_width, out->split->idx);
    else if (st == MT_OK)
        readme_lists(at->o, m, p->target->shared, out->split);
    mt_free(importance);
    if (st == MT_OK) {
        if (out->split->shared_width > 0)
            out->shared_by = MT_SHARED_BY_ACTIVATIONS;
        st = mt_split_copy_weights(ctx, out->split, p->k, &out->weight);
    }
    if (st == MT_OK)
        st = readme_tell(ctx, at, m, out);
    mt_domain_masks_free(m);
    return st;
}

const struct mt_convert_method mt_convert_method_readme = {
    .name = "readme",
    .summary = "an expert for each domain of text, of the neurons that act most in it",
    .help =
        "readme (Read-ME, arXiv 2410.19123) makes an expert of each domain of text (--data "
        "NAME=FILE, or the domains of --profile): a domain's mask holds the share --keep of the "
        "neurons with the largest mean |h_j| in it, what all masks share is always on, an expert "
        "is the rest of its mask, and one expert acts (--active). Neurons in no mask are dropped, "
        "or with --cover nearest always on. Masks share more in one layer than in another, which "
        "only "
        "the native layout can hold (--arch native); for other architectures --widths makes all "
        "layers alike. The paper routes once for all layers by a network "
        "over token ids, which has to be trained; here each layer has a linear router.",
    .router = "ridge",
    .refit = "none",
    .profiles = true,
    .shape = readme_shape,
    .layer_shape = readme_layer_shape,
    .memory = readme_memory,
    .decide = readme_decide,
};
