/* Reading config.json: what the families have in common. */
#include "lib/ir/family.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

mt_status mt_cfg_int(struct mt_ctx *ctx, const struct mt_json *cfg, const char *key, int64_t dflt,
                     int64_t lo, int64_t hi, int64_t *out)
{
    enum mt_json_kind kind = mt_json_kind(mt_json_get(cfg, key));

    MT_TRY(mt_json_get_int(ctx, cfg, key, dflt, out));
    if (*out >= lo && *out <= hi)
        return MT_OK;
    if (kind == MT_JSON_ABSENT || kind == MT_JSON_NULL)
        return mt_fail(ctx, MT_E_FORMAT, "%s is missing", key);
    return mt_fail(ctx, MT_E_FORMAT, "%s is %" PRId64 ", expected %" PRId64 " to %" PRId64, key,
                   *out, lo, hi);
}

mt_status mt_cfg_num(struct mt_ctx *ctx, const struct mt_json *cfg, const char *key, double dflt,
                     double lo, double hi, double *out)
{
    enum mt_json_kind kind = mt_json_kind(mt_json_get(cfg, key));

    MT_TRY(mt_json_get_num(ctx, cfg, key, dflt, out));
    if (*out >= lo && *out <= hi)
        return MT_OK;
    if (kind == MT_JSON_ABSENT || kind == MT_JSON_NULL)
        return mt_fail(ctx, MT_E_FORMAT, "%s is missing", key);
    return mt_fail(ctx, MT_E_FORMAT, "%s is %g, expected %g to %g", key, *out, lo, hi);
}

static const struct {
    const char *name;
    enum mt_rope_type type;
} util_rope_types[] = {
    {"default", MT_ROPE_DEFAULT}, {"linear", MT_ROPE_LINEAR}, {"dynamic", MT_ROPE_DYNAMIC},
    {"llama3", MT_ROPE_LLAMA3},   {"yarn", MT_ROPE_YARN},     {"longrope", MT_ROPE_LONGROPE},
    {"su", MT_ROPE_LONGROPE},
};

static mt_status util_rope_type(struct mt_ctx *ctx, const struct mt_json *scaling,
                                enum mt_rope_type *out)
{
    const char *name;

    MT_TRY(mt_json_get_str(ctx, scaling, "type", "default", &name));
    MT_TRY(mt_json_get_str(ctx, scaling, "rope_type", name, &name));
    for (size_t i = 0; i < sizeof util_rope_types / sizeof util_rope_types[0]; i++)
        if (strcmp(util_rope_types[i].name, name) == 0) {
            *out = util_rope_types[i].type;
            return MT_OK;
        }
    return mt_fail(ctx, MT_E_UNSUPPORTED, "rope_type \"%s\" is not known here", name);
}

static mt_status util_rope_yarn(struct mt_ctx *ctx, const struct mt_json *s,
                                struct mt_rope_params *r)
{
    bool truncate;

    MT_TRY(mt_cfg_num(ctx, s, "beta_fast", 32, 0, 1e9, &r->beta_fast));
    MT_TRY(mt_cfg_num(ctx, s, "beta_slow", 1, 0, 1e9, &r->beta_slow));
    MT_TRY(mt_cfg_num(ctx, s, "attention_factor", 0, 0, 1e6, &r->attention_factor));
    MT_TRY(mt_cfg_num(ctx, s, "mscale", 0, 0, 1e6, &r->mscale));
    MT_TRY(mt_cfg_num(ctx, s, "mscale_all_dim", 0, 0, 1e6, &r->mscale_all_dim));
    MT_TRY(mt_json_get_bool(ctx, s, "truncate", true, &truncate));
    r->no_truncate = !truncate;
    return MT_OK;
}

/* `s` over `cfg`; both may be NULL. Features that rotate are counted by the caller. */
static mt_status util_rope_scaling(struct mt_ctx *ctx, const struct mt_json *cfg,
                                   const struct mt_json *s, const struct mt_hparams *hp,
                                   struct mt_rope_params *r)
{
    r->factor = 1;
    r->original_max_pos = (double)hp->max_pos;
    MT_TRY(util_rope_type(ctx, s, &r->type));
    if (r->type == MT_ROPE_DEFAULT)
        return MT_OK;
    MT_TRY(mt_cfg_num(ctx, s, "factor", r->type == MT_ROPE_LONGROPE ? -1 : 0,
                      r->type == MT_ROPE_LONGROPE ? -1 : 1e-6, 1e9, &r->factor));
    if (r->type == MT_ROPE_LINEAR || r->type == MT_ROPE_DYNAMIC)
        return MT_OK;
    /* Where it stands beside the dictionary too, loaders prefer that. */
    MT_TRY(mt_cfg_num(ctx, s, "original_max_position_embeddings", r->original_max_pos, 1, 1e12,
                      &r->original_max_pos));
    MT_TRY(mt_cfg_num(ctx, cfg, "original_max_position_embeddings", r->original_max_pos, 1, 1e12,
                      &r->original_max_pos));
    if (r->type == MT_ROPE_LONGROPE) {
        if (r->factor <= 0)
            r->factor = (double)hp->max_pos / r->original_max_pos;
        return mt_cfg_num(ctx, s, "attention_factor", 0, 0, 1e6, &r->attention_factor);
    }
    if (r->type == MT_ROPE_YARN)
        return util_rope_yarn(ctx, s, r);
    MT_TRY(mt_cfg_num(ctx, s, "low_freq_factor", 0, 1e-6, 1e9, &r->low_freq_factor));
    MT_TRY(mt_cfg_num(ctx, s, "high_freq_factor", 0, 1e-6, 1e9, &r->high_freq_factor));
    if (r->high_freq_factor <= r->low_freq_factor)
        return mt_fail(ctx, MT_E_FORMAT, "high_freq_factor %g is not above low_freq_factor %g",
                       r->high_freq_factor, r->low_freq_factor);
    return MT_OK;
}

static mt_status util_rope_one(struct mt_ctx *ctx, const struct mt_json *cfg,
                               const struct mt_json *s, const struct mt_hparams *hp,
                               struct mt_rope_params *r)
{
    double theta = r->theta > 0 ? r->theta : 10000, partial = r->partial > 0 ? r->partial : 1;
    int64_t rotary;

    MT_TRY(mt_cfg_num(ctx, cfg, "rope_theta", theta, 1, 1e15, &theta));
    MT_TRY(mt_cfg_num(ctx, s, "rope_theta", theta, 1, 1e15, &r->theta));
    MT_TRY(mt_cfg_num(ctx, cfg, "partial_rotary_factor", partial, 1e-6, 1, &partial));
    MT_TRY(mt_cfg_num(ctx, s, "partial_rotary_factor", partial, 1e-6, 1, &r->partial));
    rotary = (int64_t)(hp->head_dim * r->partial);
    if (rotary < 2 || rotary % 2 != 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "head_dim %d with partial_rotary_factor %g leaves %" PRId64
                       " rotating dimensions, expected an even number",
                       hp->head_dim, r->partial, rotary);
    return util_rope_scaling(ctx, cfg, s, hp, r);
}

/* Both spellings, where there, are objects or null: what is ignored would change all results. */
static mt_status util_rope_kinds(struct mt_ctx *ctx, const struct mt_json *cfg)
{
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        enum mt_json_kind kind = mt_json_kind(mt_json_get(cfg, keys[i]));
        if (kind != MT_JSON_OBJECT && kind != MT_JSON_NULL && kind != MT_JSON_ABSENT)
            return mt_fail(ctx, MT_E_FORMAT, "%s is neither an object nor null", keys[i]);
    }
    return MT_OK;
}

/* The dictionary that describes positions; NULL when there is none. Where a file has both
 * spellings, loaders take rope_scaling. */
static const struct mt_json *util_rope_dict(const struct mt_json *cfg)
{
    const struct mt_json *s = mt_json_get(cfg, "rope_scaling");

    if (mt_json_kind(s) != MT_JSON_OBJECT)
        s = mt_json_get(cfg, "rope_parameters");
    return mt_json_kind(s) == MT_JSON_OBJECT ? s : NULL;
}

mt_status mt_cfg_read_rope(struct mt_ctx *ctx, const struct mt_json *cfg, struct mt_hparams *hp)
{
    const struct mt_json *s = util_rope_dict(cfg), *full = mt_json_get(s, "full_attention");
    const struct mt_json *local = mt_json_get(s, "sliding_attention");

    MT_TRY(util_rope_kinds(ctx, cfg));
    for (const struct mt_json *c = mt_json_first(s); c != NULL; c = mt_json_next(c))
        if (mt_json_kind(c) == MT_JSON_OBJECT && c != full && c != local)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "rope_parameters for layers of type %s are not known here",
                           mt_json_key(c));
    if (mt_json_kind(full) != MT_JSON_OBJECT || mt_json_kind(local) != MT_JSON_OBJECT) {
        if (mt_json_kind(full) == MT_JSON_OBJECT || mt_json_kind(local) == MT_JSON_OBJECT)
            return mt_fail(ctx, MT_E_UNSUPPORTED,
                           "rope_parameters for layers of type %s alone are not known here",
                           full != NULL ? "full_attention" : "sliding_attention");
        return util_rope_one(ctx, cfg, s, hp, &hp->rope);
    }
    hp->local_rope = true;
    hp->rope_local = hp->rope;
    MT_TRY(util_rope_one(ctx, NULL, local, hp, &hp->rope_local));
    return util_rope_one(ctx, NULL, full, hp, &hp->rope);
}

/* One list of divisors; as many as features that rotate in pairs. */
static mt_status util_rope_factors(struct mt_ctx *ctx, struct mt_model *m, const struct mt_json *s,
                                   const char *key, const double **out)
{
    const struct mt_json *list = mt_json_get(s, key);
    size_t n = (size_t)(m->hp.head_dim * m->hp.rope.partial) / 2, i = 0;
    double *v;

    if (mt_json_count(list) != n)
        return mt_fail(ctx, MT_E_FORMAT, "%s has %zu entries, expected %zu", key,
                       mt_json_count(list), n);
    MT_TRY(mt_arena_alloc(ctx, &m->arena, n, sizeof *v, &v));
    for (const struct mt_json *j = mt_json_first(list); j != NULL; j = mt_json_next(j), i++)
        if (!mt_json_number(j, &v[i]) || !(v[i] > 0))
            return mt_fail(ctx, MT_E_FORMAT, "%s[%zu] is not a positive number", key, i);
    *out = v;
    return MT_OK;
}

mt_status mt_cfg_read_act(struct mt_ctx *ctx, const struct mt_json *cfg, const char *key,
                          enum mt_act *act)
{
    static const struct {
        const char *name;
        enum mt_act act;
    } known[] = {
        {"silu", MT_ACT_SILU},        {"swish", MT_ACT_SILU},
        {"gelu", MT_ACT_GELU},        {"gelu_new", MT_ACT_GELU_TANH},
        {"relu", MT_ACT_RELU},        {"gelu_pytorch_tanh", MT_ACT_GELU_TANH},
        {"relu2", MT_ACT_RELU2},      {"gelu_fast", MT_ACT_GELU_TANH},
        {"gelu_python", MT_ACT_GELU}, {"quick_gelu", MT_ACT_QUICK_GELU},
    };
    const char *name;

    MT_TRY(mt_json_get_str(ctx, cfg, key, "silu", &name));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].name, name) == 0) {
            *act = known[i].act;
            return MT_OK;
        }
    return mt_fail(ctx, MT_E_UNSUPPORTED, "%s \"%s\" is not known here", key, name);
}

/* An id, or the first of a list; -1 where there is none, or none that the vocabulary has. */
static mt_status util_token_id(struct mt_ctx *ctx, const struct mt_json *cfg, const char *key,
                               int64_t vocab, int64_t *out)
{
    const struct mt_json *j = mt_json_get(cfg, key), *one;
    int64_t id;

    *out = -1;
    if (mt_json_kind(j) == MT_JSON_ABSENT || mt_json_kind(j) == MT_JSON_NULL)
        return MT_OK;
    one = mt_json_kind(j) == MT_JSON_ARRAY ? mt_json_first(j) : j;
    for (bool first = true; one != NULL; one = one == j ? NULL : mt_json_next(one), first = false) {
        if (!mt_json_integer(one, &id))
            return mt_fail(ctx, MT_E_FORMAT, "%s is no token id: expected a number or a list", key);
        if (first)
            *out = id;
    }
    if (mt_json_kind(j) == MT_JSON_ARRAY && mt_json_count(j) == 0)
        return MT_OK;
    if (*out >= 0 && *out < vocab)
        return MT_OK;
    mt_log(ctx, MT_LOG_WARN,
           "%s %" PRId64 " lies outside the vocabulary of %" PRId64 " and is taken for none", key,
           *out, vocab);
    *out = -1;
    return MT_OK;
}

/* What a family has set; else the key is required. */
static int64_t util_default(int64_t set)
{
    return set > 0 ? set : -1;
}

static mt_status util_read_heads(struct mt_ctx *ctx, const struct mt_json *cfg,
                                 struct mt_hparams *hp)
{
    int64_t heads, kv, dim, dflt = hp->head_dim;

    MT_TRY(
        mt_cfg_int(ctx, cfg, "num_attention_heads", util_default(hp->n_heads), 1, 65536, &heads));
    kv = hp->n_kv_heads > 0 && hp->n_kv_heads <= heads ? hp->n_kv_heads : heads;
    MT_TRY(mt_cfg_int(ctx, cfg, "num_key_value_heads", kv, 1, heads, &kv));
    if (heads % kv != 0)
        return mt_fail(ctx, MT_E_FORMAT,
                       "num_attention_heads %" PRId64
                       " is not a multiple of num_key_value_heads %" PRId64,
                       heads, kv);
    if (dflt == 0)
        dflt = hp->hidden / heads;
    MT_TRY(mt_cfg_int(ctx, cfg, "head_dim", dflt, 1, 65536, &dim));
    hp->n_heads = (int)heads;
    hp->n_kv_heads = (int)kv;
    hp->head_dim = (int)dim;
    return MT_OK;
}

mt_status mt_cfg_plain(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;

    hp->norm = MT_NORM_RMS;
    hp->norm_offset = 0;
    hp->qk_norm = MT_QK_NORM_NONE;
    hp->qkv_bias = hp->o_bias = false;
    hp->sliding_window = 0;
    hp->window_first_layer = 0;
    hp->windowed = NULL;
    hp->attn_scale = hp->attn_softcap = hp->logit_softcap = hp->clip_qkv = 0;
    hp->embed_scale = hp->logit_scale = hp->residual_scale = 1;
    MT_TRY(util_token_id(ctx, cfg, "bos_token_id", hp->vocab, &hp->bos_id));
    return util_token_id(ctx, cfg, "eos_token_id", hp->vocab, &hp->eos_id);
}

mt_status mt_cfg_read_common(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    int64_t layers;

    layers = util_default(hp->n_layers);
    MT_TRY(mt_cfg_int(ctx, cfg, "num_hidden_layers", layers, 1, MT_LAYERS_MAX, &layers));
    MT_TRY(
        mt_cfg_int(ctx, cfg, "hidden_size", util_default(hp->hidden), 1, MT_DIM_MAX, &hp->hidden));
    MT_TRY(mt_cfg_int(ctx, cfg, "vocab_size", util_default(hp->vocab), 1, INT32_MAX, &hp->vocab));
    MT_TRY(mt_cfg_int(ctx, cfg, "max_position_embeddings", hp->max_pos > 0 ? hp->max_pos : 2048, 1,
                      MT_DIM_MAX, &hp->max_pos));
    MT_TRY(mt_cfg_num(ctx, cfg, "rms_norm_eps", hp->norm_eps > 0 ? hp->norm_eps : 1e-6, 0, 1,
                      &hp->norm_eps));
    MT_TRY(mt_json_get_bool(ctx, cfg, "tie_word_embeddings", false, &hp->tied));
    MT_TRY(util_read_heads(ctx, cfg, hp));
    MT_TRY(mt_cfg_read_rope(ctx, cfg, hp));
    if (hp->rope.type == MT_ROPE_LONGROPE) {
        const struct mt_json *s = util_rope_dict(cfg);
        MT_TRY(util_rope_factors(ctx, m, s, "short_factor", &hp->rope.short_factor));
        MT_TRY(util_rope_factors(ctx, m, s, "long_factor", &hp->rope.long_factor));
    }
    hp->n_layers = (int)layers;
    return mt_cfg_plain(ctx, m);
}

mt_status mt_cfg_layer_types(struct mt_ctx *ctx, struct mt_model *m, bool *windowed, bool *found)
{
    const struct mt_json *types = mt_json_get(m->config, "layer_types");
    int n = 0;

    *found = mt_json_kind(types) == MT_JSON_ARRAY;
    if (!*found)
        return MT_OK;
    for (const struct mt_json *j = mt_json_first(types); j != NULL; j = mt_json_next(j), n++) {
        const char *s = mt_json_text(j);

        bool on = s != NULL && strcmp(s, "sliding_attention") == 0;

        if (s == NULL || (!on && strcmp(s, "full_attention") != 0))
            return mt_fail(ctx, MT_E_UNSUPPORTED, "layer_types[%d] \"%s\" is not known here", n,
                           s != NULL ? s : "");
        if (n < m->hp.n_layers)
            windowed[n] = on;
    }
    if (n != m->hp.n_layers)
        return mt_fail(ctx, MT_E_FORMAT, "layer_types has %d entries for %d layers", n,
                       m->hp.n_layers);
    return MT_OK;
}

void mt_cfg_set_windows(struct mt_hparams *hp, int64_t window, const bool *windowed)
{
    int first = 0, last = hp->n_layers;

    while (first < hp->n_layers && !windowed[first])
        first++;
    while (last > first && windowed[last - 1])
        last--;
    hp->sliding_window = first < hp->n_layers ? window : 0;
    hp->window_first_layer = first < hp->n_layers ? first : 0;
    hp->windowed = last > first ? windowed : NULL;
}

mt_status mt_cfg_read_window(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_hparams *hp = &m->hp;
    int64_t window, first;
    bool use, found, *windowed;

    MT_TRY(mt_json_get_bool(ctx, m->config, "use_sliding_window", false, &use));
    if (!use || mt_json_kind(mt_json_get(m->config, "sliding_window")) == MT_JSON_NULL)
        return MT_OK;
    MT_TRY(mt_cfg_int(ctx, m->config, "sliding_window", 4096, 1, MT_DIM_MAX, &window));
    MT_TRY(mt_cfg_int(ctx, m->config, "max_window_layers", 28, 0, MT_LAYERS_MAX, &first));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)hp->n_layers, sizeof *windowed, &windowed));
    MT_TRY(mt_cfg_layer_types(ctx, m, windowed, &found));
    for (int l = 0; !found && l < hp->n_layers; l++)
        windowed[l] = l >= first;
    mt_cfg_set_windows(hp, window, windowed);
    return MT_OK;
}

mt_status mt_cfg_alloc_ffn(struct mt_ctx *ctx, struct mt_model *m)
{
    struct mt_ffn dense = {.gated = true};

    /* MoE families without dense layers have no use for the dense width. */
    MT_TRY(mt_cfg_int(ctx, m->config, "intermediate_size", m->family->moe ? 0 : -1,
                      m->family->moe ? 0 : 1, MT_DIM_MAX, &dense.width));
    MT_TRY(mt_cfg_read_act(ctx, m->config,
                           mt_json_get(m->config, "hidden_activation") != NULL ? "hidden_activation"
                                                                               : "hidden_act",
                           &dense.act));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *m->ffn, &m->ffn));
    for (int l = 0; l < m->hp.n_layers; l++)
        m->ffn[l] = dense;
    return MT_OK;
}

mt_status mt_cfg_read_sparse(struct mt_ctx *ctx, struct mt_model *m, bool **out)
{
    const struct mt_json *only = mt_json_get(m->config, "mlp_only_layers");
    int64_t step, layer;
    bool *sparse;

    MT_TRY(mt_cfg_int(ctx, m->config, "decoder_sparse_step", 1, 1, MT_LAYERS_MAX, &step));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *sparse, &sparse));
    for (int l = 0; l < m->hp.n_layers; l++)
        sparse[l] = (l + 1) % step == 0;
    for (const struct mt_json *j = mt_json_first(only); j != NULL; j = mt_json_next(j)) {
        if (!mt_json_integer(j, &layer) || layer < 0)
            return mt_fail(ctx, MT_E_FORMAT, "mlp_only_layers holds something else than layers");
        if (layer < m->hp.n_layers)
            sparse[layer] = false;
    }
    *out = sparse;
    return MT_OK;
}

mt_status mt_cfg_read_sigmoid_router(struct mt_ctx *ctx, const struct mt_json *cfg,
                                     const struct mt_ffn *dflt, struct mt_ffn *moe)
{
    int64_t n, k, shared, groups, best;
    const char *count =
        mt_json_get(cfg, "n_routed_experts") != NULL ? "n_routed_experts" : "num_local_experts";

    MT_TRY(mt_cfg_int(ctx, cfg, "moe_intermediate_size", dflt->width, 1, MT_DIM_MAX, &moe->width));
    MT_TRY(mt_cfg_int(ctx, cfg, count, dflt->n_experts, 1, MT_EXPERTS_MAX, &n));
    MT_TRY(mt_cfg_int(ctx, cfg, "num_experts_per_tok", dflt->k, 1, MT_EXPERTS_MAX, &k));
    MT_TRY(
        mt_cfg_int(ctx, cfg, "n_shared_experts", dflt->shared_width, 0, MT_EXPERTS_MAX, &shared));
    MT_TRY(mt_cfg_int(ctx, cfg, "n_group", dflt->rule.n_group, 1, n, &groups));
    MT_TRY(mt_cfg_int(ctx, cfg, "topk_group", dflt->rule.topk_group, 1, groups, &best));
    MT_TRY(mt_json_get_bool(ctx, cfg, "norm_topk_prob", dflt->rule.renorm, &moe->rule.renorm));
    MT_TRY(mt_cfg_num(ctx, cfg, "routed_scaling_factor", dflt->rule.scale, -1e9, 1e9,
                      &moe->rule.scale));
    moe->n_experts = (int)n;
    moe->k = (int)k;
    moe->shared_width = shared * moe->width;
    moe->rule.score = MT_SCORE_SIGMOID;
    moe->rule.renorm_eps = 1e-20;
    moe->rule.has_bias = true;
    moe->rule.n_group = (int)groups;
    moe->rule.topk_group = (int)best;
    return MT_OK;
}

mt_status mt_cfg_first_dense(struct mt_ctx *ctx, struct mt_model *m, int64_t dflt, bool **out)
{
    int64_t first;
    bool *sparse;

    MT_TRY(mt_cfg_int(ctx, m->config, "first_k_dense_replace", dflt, 0, MT_LAYERS_MAX, &first));
    MT_TRY(mt_arena_alloc(ctx, &m->arena, (size_t)m->hp.n_layers, sizeof *sparse, &sparse));
    for (int l = 0; l < m->hp.n_layers; l++)
        sparse[l] = l >= first;
    *out = sparse;
    return MT_OK;
}

mt_status mt_cfg_set_moe(struct mt_ctx *ctx, struct mt_model *m, const struct mt_ffn *moe,
                         const bool *sparse)
{
    const struct mt_router_rule *r = &moe->rule;
    struct mt_ffn f = *moe;

    if (moe->k > moe->n_experts)
        return mt_fail(ctx, MT_E_FORMAT, "num_experts_per_tok is %d, but there are %d experts",
                       moe->k, moe->n_experts);
    if (r->n_group < 1 || moe->n_experts % r->n_group != 0)
        return mt_fail(ctx, MT_E_FORMAT, "%d experts do not divide into n_group = %d groups",
                       moe->n_experts, r->n_group);
    if (r->topk_group < 1 || r->topk_group > r->n_group)
        return mt_fail(ctx, MT_E_FORMAT, "topk_group is %d, expected 1 to n_group = %d",
                       r->topk_group, r->n_group);
    if (moe->k > moe->n_experts / r->n_group * r->topk_group)
        return mt_fail(ctx, MT_E_FORMAT,
                       "num_experts_per_tok is %d, but %d groups of %d hold fewer experts", moe->k,
                       r->topk_group, moe->n_experts / r->n_group);
    f.moe = true;
    f.gated = true;
    for (int l = 0; l < m->hp.n_layers; l++) {
        if (sparse != NULL && !sparse[l]) {
            if (m->ffn[l].width == 0)
                return mt_fail(ctx, MT_E_FORMAT,
                               "intermediate_size is missing, but layer %d is dense", l);
            continue;
        }
        f.act = m->ffn[l].act;
        m->ffn[l] = f;
    }
    return MT_OK;
}

int64_t mt_hp_layer_window(const struct mt_hparams *hp, int layer)
{
    bool on = hp->windowed != NULL ? hp->windowed[layer] : layer >= hp->window_first_layer;

    return on ? hp->sliding_window : 0;
}

bool mt_hp_has_window(const struct mt_hparams *hp)
{
    return hp->sliding_window > 0 && hp->sliding_window < hp->max_pos &&
           hp->window_first_layer < hp->n_layers;
}

const struct mt_ffn *mt_model_first_moe(const struct mt_model *m)
{
    for (int l = 0; l < m->hp.n_layers; l++)
        if (m->ffn[l].moe)
            return &m->ffn[l];
    return NULL;
}
