#include "lib/ir/native.h"

#include "lib/ir/family.h"

#include <inttypes.h>
#include <string.h>

static const char *const native_kinds[] = {"linear", "mlp", "representative", "spectral", NULL};
static const char *const native_fns[] = {"identity",          "tanh", "cos",   "silu",       "gelu",
                                         "gelu_pytorch_tanh", "relu", "relu2", "quick_gelu", NULL};
static const char *const native_scores[] = {"softmax", "sigmoid", "softmax_topk", "logit", NULL};
static const char *const native_cuts[] = {"none", "above", "ratio", "margin", NULL};
static const char *const native_weights[] = {"score", "unit", NULL};
static const char *const native_matrices[] = {"gate", "up", "down", NULL};

/* ---- reading ---- */

static mt_status native_keys(struct mt_ctx *ctx, const struct mt_json *obj, const char *what,
                             const char *const *known)
{
    if (mt_json_kind(obj) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "%s is no object", what);
    for (const struct mt_json *j = mt_json_first(obj); j != NULL; j = mt_json_next(j)) {
        int i = 0;

        while (known[i] != NULL && strcmp(known[i], mt_json_key(j)) != 0)
            i++;
        if (known[i] == NULL)
            return mt_fail(ctx, MT_E_FORMAT, "%s: key \"%s\" is not known to version %d", what,
                           mt_json_key(j), MT_NATIVE_VERSION);
    }
    return MT_OK;
}

/* One word of a list; absent gives the first. */
static mt_status native_word(struct mt_ctx *ctx, const struct mt_json *obj, const char *key,
                             const char *const *words, int *out)
{
    const char *s;

    MT_TRY(mt_json_get_str(ctx, obj, key, words[0], &s));
    for (*out = 0; words[*out] != NULL; (*out)++)
        if (strcmp(words[*out], s) == 0)
            return MT_OK;
    return mt_fail(ctx, MT_E_UNSUPPORTED, "%s \"%s\" is not known here", key, s);
}

static mt_status native_int(struct mt_ctx *ctx, const struct mt_json *obj, const char *key,
                            int dflt, int lo, int hi, int *out)
{
    int64_t v;

    MT_TRY(mt_cfg_int(ctx, obj, key, dflt, lo, hi, &v));
    *out = (int)v;
    return MT_OK;
}

/* A number for all experts, or one for each. */
static mt_status native_read_widths(struct mt_ctx *ctx, struct mt_model *m, const struct mt_json *j,
                                    struct mt_ffn *f)
{
    const struct mt_json *list = mt_json_get(j, "width");
    int64_t *widths;
    int e = 0;

    if (mt_json_kind(list) != MT_JSON_ARRAY)
        return mt_cfg_int(ctx, j, "width", -1, 1, MT_DIM_MAX, &f->width);
    if (!f->moe || mt_json_count(list) != (size_t)f->n_experts)
        return mt_fail(ctx, MT_E_FORMAT, "width has %zu entries for %d experts",
                       mt_json_count(list), f->n_experts);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)f->n_experts, sizeof *widths, &widths));
    for (const struct mt_json *one = mt_json_first(list); one != NULL;
         one = mt_json_next(one), e++) {
        if (!mt_json_integer(one, &widths[e]) || widths[e] < 0 || widths[e] > MT_DIM_MAX)
            return mt_fail(ctx, MT_E_FORMAT, "width[%d] is no number from 0 to %" PRId64, e,
                           MT_DIM_MAX);
        f->width = widths[e] > f->width ? widths[e] : f->width;
    }
    f->widths = widths;
    if (f->width == 0)
        return mt_fail(ctx, MT_E_FORMAT, "width: every expert is 0 neurons wide");
    return MT_OK;
}

static mt_status native_read_map(struct mt_ctx *ctx, struct mt_model *m, const struct mt_json *r,
                                 struct mt_ffn *f)
{
    const struct mt_json *list = mt_json_get(r, "map");
    size_t n = mt_json_count(list), i = 0;
    int32_t *map;
    int64_t e;

    if (mt_json_kind(list) == MT_JSON_ABSENT)
        return MT_OK;
    if (mt_json_kind(list) != MT_JSON_ARRAY || n == 0 || n > MT_EXPERTS_MAX)
        return mt_fail(ctx, MT_E_FORMAT, "map is no list of 1 to %d experts", MT_EXPERTS_MAX);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, n, sizeof *map, &map));
    for (const struct mt_json *one = mt_json_first(list); one != NULL;
         one = mt_json_next(one), i++) {
        if (!mt_json_integer(one, &e) || e < 0 || e >= f->n_experts)
            return mt_fail(ctx, MT_E_FORMAT, "map[%zu] is none of the %d experts", i, f->n_experts);
        map[i] = (int32_t)e;
    }
    f->map = map;
    f->n_rows = (int)n;
    return MT_OK;
}

static mt_status native_read_cut(struct mt_ctx *ctx, const struct mt_json *r, int k,
                                 struct mt_router_rule *rule)
{
    static const char *const keys[] = {"kind", "at", "min", "mean", NULL};
    const struct mt_json *cut = mt_json_get(r, "threshold");
    int kind;

    if (mt_json_kind(cut) == MT_JSON_ABSENT)
        return MT_OK;
    MT_TRY(native_keys(ctx, cut, "threshold", keys));
    MT_TRY(native_word(ctx, cut, "kind", native_cuts, &kind));
    MT_TRY(mt_cfg_num(ctx, cut, "at", 0, -1e30, 1e30, &rule->cut_at));
    MT_TRY(mt_cfg_num(ctx, cut, "mean", 0, 0, k < 1 ? 1 : k, &rule->cut_mean));
    rule->cut = (enum mt_router_cut)kind;
    return native_int(ctx, cut, "min", k < 1 ? k : 1, 0, k, &rule->cut_min);
}

static mt_status native_read_rule(struct mt_ctx *ctx, const struct mt_json *r, struct mt_ffn *f)
{
    struct mt_router_rule *rule = &f->rule;
    int rows = mt_ffn_rows(f), score, weight;

    MT_TRY(native_word(ctx, r, "score", native_scores, &score));
    MT_TRY(native_word(ctx, r, "weight", native_weights, &weight));
    rule->score = (enum mt_router_score)score;
    rule->unit = weight == 1;
    MT_TRY(mt_json_get_bool(ctx, r, "renormalize", false, &rule->renorm));
    MT_TRY(mt_cfg_num(ctx, r, "renorm_eps", 0, 0, 1, &rule->renorm_eps));
    MT_TRY(mt_cfg_num(ctx, r, "renorm_min", 0, 0, 1e30, &rule->renorm_min));
    MT_TRY(mt_cfg_num(ctx, r, "scale", 1, -1e9, 1e9, &rule->scale));
    MT_TRY(mt_json_get_bool(ctx, r, "selection_bias", false, &rule->has_bias));
    MT_TRY(native_int(ctx, r, "groups", 1, 1, rows, &rule->n_group));
    MT_TRY(native_int(ctx, r, "groups_active", rule->n_group, 1, rule->n_group, &rule->topk_group));
    if (rows % rule->n_group != 0 || f->k > rule->topk_group * (rows / rule->n_group))
        return mt_fail(ctx, MT_E_FORMAT, "%d of %d rows in %d of %d groups cannot be chosen", f->k,
                       rows, rule->topk_group, rule->n_group);
    if (rule->unit && rule->renorm)
        return mt_fail(ctx, MT_E_FORMAT, "renormalize contradicts weight \"unit\"");
    if (rule->renorm && rule->score == MT_SCORE_LOGIT && rule->renorm_min <= 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "renormalize of logits, which may sum to 0, needs renorm_min above 0");
    return native_read_cut(ctx, r, f->k, rule);
}

static mt_status native_read_router(struct mt_ctx *ctx, struct mt_model *m, const struct mt_json *j,
                                    struct mt_ffn *f)
{
    static const char *const keys[] = {"kind",       "bias",           "function",  "width",
                                       "gated",      "hidden_bias",    "skip",      "unit_input",
                                       "score",      "weight",         "scale",     "renormalize",
                                       "renorm_eps", "renorm_min",     "groups",    "groups_active",
                                       "map",        "selection_bias", "threshold", NULL};
    const struct mt_json *r = mt_json_get(j, "router");
    struct mt_router *o = &f->router;
    bool wide;
    int kind, fn;

    MT_TRY(native_keys(ctx, r, "router", keys));
    MT_TRY(native_word(ctx, r, "kind", native_kinds, &kind));
    MT_TRY(native_word(ctx, r, "function", native_fns, &fn));
    o->kind = (enum mt_router_kind)kind;
    o->fn = (enum mt_router_fn)fn;
    wide = o->kind == MT_ROUTER_MLP || o->kind == MT_ROUTER_SPECTRAL;
    MT_TRY(mt_cfg_int(ctx, r, "width", wide ? -1 : 0, wide, wide ? MT_NATIVE_ROUTER_WIDTH_MAX : 0,
                      &o->width));
    MT_TRY(mt_json_get_bool(ctx, r, "bias", false, &f->router_bias));
    MT_TRY(mt_json_get_bool(ctx, r, "gated", false, &o->gated));
    MT_TRY(mt_json_get_bool(ctx, r, "hidden_bias", false, &o->hidden_bias));
    MT_TRY(mt_json_get_bool(ctx, r, "skip", false, &o->skip));
    MT_TRY(mt_json_get_bool(ctx, r, "unit_input", false, &o->unit_input));
    if (o->gated && o->kind < MT_ROUTER_REPRESENTATIVE)
        return mt_fail(ctx, MT_E_FORMAT, "a %s router is never gated", native_kinds[kind]);
    if (o->skip && o->kind != MT_ROUTER_MLP)
        return mt_fail(ctx, MT_E_FORMAT, "only mlp routers have a skip matrix");
    if (o->kind == MT_ROUTER_SPECTRAL && (o->hidden_bias || f->router_bias))
        return mt_fail(ctx, MT_E_FORMAT, "spectral routers have no biases");
    if (o->hidden_bias && o->kind != MT_ROUTER_MLP && !o->gated)
        return mt_fail(ctx, MT_E_FORMAT, "hidden_bias belongs to mlp and gated routers");
    MT_TRY(native_read_map(ctx, m, r, f));
    if (f->k > mt_ffn_rows(f))
        return mt_fail(ctx, MT_E_FORMAT, "%d of %d experts per token", f->k, mt_ffn_rows(f));
    return native_read_rule(ctx, r, f);
}

static mt_status native_read_factors(struct mt_ctx *ctx, const struct mt_json *j, struct mt_ffn *f)
{
    static const char *const keys[] = {"base", "sparse", NULL};
    const struct mt_json *all = mt_json_get(j, "factors"), *one;

    if (mt_json_kind(all) == MT_JSON_ABSENT)
        return MT_OK;
    MT_TRY(native_keys(ctx, all, "factors", native_matrices));
    for (int i = 0; i < MT_FFN_MATRICES; i++) {
        struct mt_factors *o = &f->factors[i];

        one = mt_json_get(all, native_matrices[i]);
        if (one == NULL)
            continue;
        MT_TRY(mt_wrap(ctx, native_keys(ctx, one, native_matrices[i], keys), "factors"));
        o->on = true;
        MT_TRY(mt_json_get_bool(ctx, one, "base", false, &o->base));
        MT_TRY(mt_json_get_bool(ctx, one, "sparse", false, &o->sparse));
        if (o->base && f->widths != NULL)
            return mt_fail(ctx, MT_E_FORMAT, "factors over one base need experts of one width");
        if (i == MT_FFN_GATE && !f->gated)
            return mt_fail(ctx, MT_E_FORMAT, "factors of a gate in a block without one");
    }
    return MT_OK;
}

static mt_status native_read_planes(struct mt_ctx *ctx, const struct mt_json *j, struct mt_ffn *f)
{
    static const char *const keys[] = {"bits", "planes", "group", NULL};
    const struct mt_json *p = mt_json_get(j, "planes");

    if (mt_json_kind(p) == MT_JSON_ABSENT)
        return MT_OK;
    MT_TRY(native_keys(ctx, p, "planes", keys));
    MT_TRY(native_int(ctx, p, "bits", -1, 1, 8, &f->planes.bits));
    MT_TRY(native_int(ctx, p, "planes", 0, 0, 64, &f->planes.n));
    MT_TRY(native_int(ctx, p, "group", -1, 1, INT32_MAX, &f->planes.group));
    for (int i = 0; i < MT_FFN_MATRICES; i++)
        if (f->factors[i].on)
            return mt_fail(ctx, MT_E_FORMAT, "planes and factors at once");
    return MT_OK;
}

static mt_status native_read_moe(struct mt_ctx *ctx, struct mt_model *m, const struct mt_json *j,
                                 struct mt_ffn *f)
{
    MT_TRY(native_int(ctx, j, "experts", -1, 1, MT_EXPERTS_MAX, &f->n_experts));
    MT_TRY(native_int(ctx, j, "active", -1, 1, MT_EXPERTS_MAX, &f->k));
    MT_TRY(native_read_widths(ctx, m, j, f));
    MT_TRY(mt_cfg_int(ctx, j, "shared_width", 0, 0, MT_DIM_MAX, &f->shared_width));
    MT_TRY(mt_json_get_bool(ctx, j, "shared_gated", false, &f->shared_gated));
    MT_TRY(mt_json_get_bool(ctx, j, "layer_bias", false, &f->layer_bias));
    if (f->shared_gated && f->shared_width == 0)
        return mt_fail(ctx, MT_E_FORMAT, "shared_gated without a shared expert");
    MT_TRY(mt_wrap(ctx, native_read_router(ctx, m, j, f), "router"));
    MT_TRY(native_read_factors(ctx, j, f));
    return native_read_planes(ctx, j, f);
}

mt_status mt_native_read_ffn(struct mt_ctx *ctx, struct mt_model *m, const struct mt_json *j,
                             struct mt_ffn *out)
{
    static const char *const dense[] = {"ffn",     "width",    "activation", "gated",
                                        "in_bias", "out_bias", "glu_limit",  NULL};
    static const char *const moe[] = {"ffn",          "width",        "activation", "gated",
                                      "in_bias",      "out_bias",     "glu_limit",  "experts",
                                      "active",       "router",       "factors",    "planes",
                                      "shared_width", "shared_gated", "layer_bias", NULL};
    static const char *const kinds[] = {"dense", "moe", NULL};
    struct mt_ffn f = {0};
    int kind;

    if (mt_json_kind(j) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "the layer is no object");
    if (mt_json_get(j, "ffn") == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "ffn is missing: \"dense\" or \"moe\"");
    MT_TRY(native_word(ctx, j, "ffn", kinds, &kind));
    f.moe = kind == 1;
    MT_TRY(native_keys(ctx, j, "the layer", f.moe ? moe : dense));
    MT_TRY(mt_cfg_read_act(ctx, j, "activation", &f.act));
    MT_TRY(mt_json_get_bool(ctx, j, "gated", true, &f.gated));
    MT_TRY(mt_json_get_bool(ctx, j, "in_bias", false, &f.in_bias));
    MT_TRY(mt_json_get_bool(ctx, j, "out_bias", false, &f.out_bias));
    MT_TRY(mt_cfg_num(ctx, j, "glu_limit", 0, 0, 1e30, &f.glu_limit));
    if (f.glu_limit > 0 && !f.gated)
        return mt_fail(ctx, MT_E_FORMAT, "glu_limit in a block without a gate");
    if (f.moe)
        MT_TRY(native_read_moe(ctx, m, j, &f));
    else
        MT_TRY(native_read_widths(ctx, m, j, &f));
    *out = f;
    return MT_OK;
}

/* ---- writing ---- */

static void native_flag(struct mt_json *to, const char *key, bool v)
{
    if (v)
        mt_json_set_bool(to, key, true);
}

static void native_number(struct mt_json *to, const char *key, double v, double dflt)
{
    if (v < dflt || v > dflt)
        mt_json_set_num(to, key, v);
}

static void native_write_rule(const struct mt_router_rule *r, struct mt_json *to)
{
    struct mt_json *cut;

    mt_json_set_str(to, "score", native_scores[r->score]);
    mt_json_set_str(to, "weight", native_weights[r->unit]);
    mt_json_set_bool(to, "renormalize", r->renorm);
    native_number(to, "renorm_eps", r->renorm_eps, 0);
    native_number(to, "renorm_min", r->renorm_min, 0);
    mt_json_set_num(to, "scale", r->scale);
    native_flag(to, "selection_bias", r->has_bias);
    if (r->n_group > 1) {
        mt_json_set_int(to, "groups", r->n_group);
        mt_json_set_int(to, "groups_active", r->topk_group);
    }
    if (r->cut == MT_CUT_NONE)
        return;
    cut = mt_json_set_object(to, "threshold");
    mt_json_set_str(cut, "kind", native_cuts[r->cut]);
    mt_json_set_num(cut, "at", r->cut_at);
    mt_json_set_int(cut, "min", r->cut_min);
    native_number(cut, "mean", r->cut_mean, 0);
}

static void native_write_router(const struct mt_ffn *f, struct mt_json *to)
{
    const struct mt_router *r = &f->router;
    struct mt_json *list;

    mt_json_set_str(to, "kind", native_kinds[r->kind]);
    native_flag(to, "bias", f->router_bias);
    if (r->fn != MT_ROUTER_FN_IDENTITY)
        mt_json_set_str(to, "function", native_fns[r->fn]);
    if (r->width > 0)
        mt_json_set_int(to, "width", r->width);
    native_flag(to, "gated", r->gated);
    native_flag(to, "hidden_bias", r->hidden_bias);
    native_flag(to, "skip", r->skip);
    native_flag(to, "unit_input", r->unit_input);
    native_write_rule(&f->rule, to);
    if (f->map == NULL)
        return;
    list = mt_json_set_array(to, "map");
    for (int i = 0; i < f->n_rows; i++)
        mt_json_add_int(list, f->map[i]);
}

static void native_write_parts(const struct mt_ffn *f, struct mt_json *to)
{
    struct mt_json *all = NULL, *one;

    for (int i = 0; i < MT_FFN_MATRICES; i++) {
        if (!f->factors[i].on)
            continue;
        if (all == NULL)
            all = mt_json_set_object(to, "factors");
        one = mt_json_set_object(all, native_matrices[i]);
        native_flag(one, "base", f->factors[i].base);
        native_flag(one, "sparse", f->factors[i].sparse);
    }
    if (f->planes.bits == 0)
        return;
    one = mt_json_set_object(to, "planes");
    mt_json_set_int(one, "bits", f->planes.bits);
    mt_json_set_int(one, "planes", f->planes.n);
    mt_json_set_int(one, "group", f->planes.group);
}

static void native_write_moe(const struct mt_ffn *f, struct mt_json *to)
{
    struct mt_json *list;

    mt_json_set_int(to, "experts", f->n_experts);
    mt_json_set_int(to, "active", f->k);
    if (f->widths == NULL) {
        mt_json_set_int(to, "width", f->width);
    } else {
        list = mt_json_set_array(to, "width");
        for (int e = 0; e < f->n_experts; e++)
            mt_json_add_int(list, f->widths[e]);
    }
    if (f->shared_width > 0)
        mt_json_set_int(to, "shared_width", f->shared_width);
    native_flag(to, "shared_gated", f->shared_width > 0 && f->shared_gated);
}

void mt_native_write_ffn(const struct mt_ffn *f, struct mt_json *out)
{
    mt_json_set_str(out, "ffn", f->moe ? "moe" : "dense");
    if (f->moe)
        native_write_moe(f, out);
    else
        mt_json_set_int(out, "width", f->width);
    mt_json_set_str(out, "activation", mt_cfg_act_name(f->act));
    mt_json_set_bool(out, "gated", f->gated);
    native_flag(out, "in_bias", f->in_bias);
    native_flag(out, "out_bias", f->out_bias);
    native_number(out, "glu_limit", f->glu_limit, 0);
    if (!f->moe)
        return;
    native_flag(out, "layer_bias", f->layer_bias);
    native_write_router(f, mt_json_set_object(out, "router"));
    native_write_parts(f, out);
}
