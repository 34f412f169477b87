#include "cmd/facts.h"

#include "lib/ir/blocks.h"
#include "lib/ir/family.h"
#include "lib/ir/native.h"

#include <math.h>
#include <string.h>

static const char *const facts_rope[] = {"default", "linear", "dynamic",
                                         "llama3",  "yarn",   "longrope"};
static const char *const facts_score[] = {"softmax", "sigmoid", "softmax over the chosen",
                                          "logits"};
static const char *const facts_qk_norm[] = {"none", "per head", "whole"};

/* ---- feed-forward ---- */

static size_t facts_add(char *buf, size_t n, size_t at, const char *text)
{
    return at < n ? at + (size_t)snprintf(buf + at, n - at, "%s", text) : at;
}

/* "mlp router of 64 tanh features, ": what a matrix alone has no word for. */
static size_t facts_router_kind(const struct mt_ffn *f, char *buf, size_t n)
{
    static const char *const fn[] = {"linear", "tanh", "cos"};
    const struct mt_router *r = &f->router;
    const char *name = r->fn < MT_ROUTER_FN_SILU
                           ? fn[r->fn]
                           : mt_act_name((enum mt_act)(r->fn - MT_ROUTER_FN_SILU));
    char part[96] = "";
    size_t at = 0;

    if (r->kind == MT_ROUTER_MLP)
        snprintf(part, sizeof part, "%lld %s features%s, ", (long long)r->width, name,
                 r->skip ? " beside a matrix" : "");
    else if (r->kind == MT_ROUTER_REPRESENTATIVE)
        snprintf(part, sizeof part, "one %s%s neuron each, ", r->gated ? "gated " : "", name);
    else if (r->kind == MT_ROUTER_SPECTRAL)
        snprintf(part, sizeof part, "spectral of rank %lld%s, ", (long long)r->width,
                 r->gated ? ", gated" : "");
    at = facts_add(buf, n, at, part);
    return r->unit_input ? facts_add(buf, n, at, "unit inputs, ") : at;
}

static size_t facts_router_end(const struct mt_ffn *f, char *buf, size_t n, size_t at)
{
    static const char *const cuts[] = {"", "at least", "at least the best times",
                                       "at least the best less"};
    const struct mt_router_rule *r = &f->rule;
    char part[96];

    if (f->map != NULL) {
        snprintf(part, sizeof part, ", %d rows", f->n_rows);
        at = facts_add(buf, n, at, part);
    }
    if (r->cut != MT_CUT_NONE) {
        snprintf(part, sizeof part, ", those %s %.4g, no fewer than %d", cuts[r->cut], r->cut_at,
                 r->cut_min);
        at = facts_add(buf, n, at, part);
    }
    if (r->cut != MT_CUT_NONE && r->cut_mean > 0) {
        snprintf(part, sizeof part, ", %.4g on average", r->cut_mean);
        at = facts_add(buf, n, at, part);
    }
    return at;
}

static void facts_router_words(const struct mt_ffn *f, char *buf, size_t n)
{
    const struct mt_router_rule *r = &f->rule;
    char part[64];
    size_t at;

    buf[0] = 0;
    at = facts_router_kind(f, buf, n);
    at = facts_add(buf, n, at, facts_score[r->score]);
    if (r->unit)
        at = facts_add(buf, n, at, ", weight one");
    if (fabs(r->scale - 1) > 0) {
        snprintf(part, sizeof part, ", scale %.6g", r->scale);
        at = facts_add(buf, n, at, part);
    }
    if (r->score != MT_SCORE_SOFTMAX_TOPK && !r->unit)
        at = facts_add(buf, n, at, r->renorm ? ", renormalised" : ", not renormalised");
    if (r->has_bias)
        at = facts_add(buf, n, at, ", selection bias");
    if (r->n_group > 1) {
        snprintf(part, sizeof part, ", best %d of %d groups", r->topk_group, r->n_group);
        at = facts_add(buf, n, at, part);
    }
    facts_router_end(f, buf, n, at);
}

/* ", gate and up as factors over one base", ", 2 bits and 1 plane". */
static void facts_stored_words(const struct mt_ffn *f, char *buf, size_t n)
{
    bool on = false, base = false, sparse = false;

    buf[0] = 0;
    for (int i = 0; i < MT_FFN_MATRICES; i++) {
        on |= f->factors[i].on;
        base |= f->factors[i].base;
        sparse |= f->factors[i].sparse;
    }
    if (on)
        snprintf(buf, n, ", stored as factors%s%s", base ? " over a common base" : "",
                 sparse ? " with sparse rows" : "");
    if (f->planes.bits > 0)
        snprintf(buf, n, ", stored in %d bits and %d plane%s", f->planes.bits, f->planes.n,
                 f->planes.n == 1 ? "" : "s");
}

static void facts_width_words(const struct mt_ffn *f, char *buf, size_t n)
{
    int64_t least = f->width, sum = 0;

    for (int e = 0; e < f->n_experts; e++) {
        int64_t w = mt_ffn_expert_width(f, e);
        least = w < least ? w : least;
        sum += w;
    }
    if (f->widths == NULL)
        snprintf(buf, n, "%d experts x %lld", f->n_experts, (long long)f->width);
    else
        snprintf(buf, n, "%d experts of %lld to %lld, in all %lld", f->n_experts, (long long)least,
                 (long long)f->width, (long long)sum);
}

void cmd_ffn_words(const struct mt_ffn *f, char *buf, size_t n)
{
    char shared[64] = "", router[320], width[96], stored[96];

    if (!f->moe) {
        snprintf(buf, n, "dense, width %lld, %s%s%s", (long long)f->width, mt_act_name(f->act),
                 f->gated ? ", gated" : "", f->in_bias || f->out_bias ? ", biases" : "");
        return;
    }
    if (f->shared_width > 0)
        snprintf(shared, sizeof shared, ", shared %lld%s", (long long)f->shared_width,
                 f->shared_gated ? " (gated)" : "");
    facts_width_words(f, width, sizeof width);
    facts_stored_words(f, stored, sizeof stored);
    facts_router_words(f, router, sizeof router);
    snprintf(buf, n, "%s, top-%d%s, %s%s%s%s; router: %s", width, f->k, shared, mt_act_name(f->act),
             f->gated ? "" : " without gate",
             f->in_bias || f->out_bias || f->layer_bias ? ", biases" : "", stored, router);
}

static bool facts_same_ffn(const struct mt_ffn *a, const struct mt_ffn *b)
{
    char x[CMD_FFN_WORDS], y[CMD_FFN_WORDS];

    cmd_ffn_words(a, x, sizeof x);
    cmd_ffn_words(b, y, sizeof y);
    return strcmp(x, y) == 0;
}

int cmd_ffn_run_end(const struct mt_model *m, int layer)
{
    int end = layer + 1;

    while (end < m->hp.n_layers && facts_same_ffn(&m->ffn[layer], &m->ffn[end]))
        end++;
    return end;
}

/* ---- architecture ---- */

static void facts_attention(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_hparams *hp)
{
    char window[64] = "";

    if (hp->sliding_window > 0)
        snprintf(window, sizeof window, ", window %lld", (long long)hp->sliding_window);
    cmd_table_cell(ctx, t, "attention");
    cmd_table_cell(ctx, t, "%d heads, %d key/value heads, head size %d%s%s%s%s", hp->n_heads,
                   hp->n_kv_heads, hp->head_dim, hp->qkv_bias ? ", q/k/v biases" : "",
                   hp->o_bias ? ", output bias" : "",
                   hp->qk_norm != MT_QK_NORM_NONE ? ", q/k norms" : "",
                   hp->both_ways ? ", both ways" : window);
}

static void facts_rope_row(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_rope_params *r)
{
    char partial[48] = "", factor[48] = "";

    if (r->partial < 1)
        snprintf(partial, sizeof partial, ", on %.4g of each head", r->partial);
    if (r->type != MT_ROPE_DEFAULT)
        snprintf(factor, sizeof factor, ", factor %.6g", r->factor);
    cmd_table_cell(ctx, t, "positions");
    cmd_table_cell(ctx, t, "rope %s, theta %.10g%s%s", facts_rope[r->type], r->theta, factor,
                   partial);
}

static void facts_positions(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_hparams *hp)
{
    if (!hp->given_input && !hp->learned_pos) {
        facts_rope_row(ctx, t, &hp->rope);
        return;
    }
    cmd_table_cell(ctx, t, "positions");
    cmd_table_cell(ctx, t, "%s",
                   hp->learned_pos ? "a learned vector each" : "in the hidden states it is given");
}

/* Whether layers differ in how many experts act. */
static bool facts_active_differs(const struct mt_model *m, double mean)
{
    for (int l = 0; m->ffn != NULL && l < m->hp.n_layers; l++) {
        double k = mt_ffn_mean_active(&m->ffn[l]);
        if (m->ffn[l].moe && (k < mean || k > mean))
            return true;
    }
    return false;
}

static void facts_ffn_rows(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_model *m)
{
    char words[CMD_FFN_WORDS];

    for (int l = 0, end; m->ffn != NULL && l < m->hp.n_layers; l = end) {
        end = cmd_ffn_run_end(m, l);
        cmd_ffn_words(&m->ffn[l], words, sizeof words);
        if (end == l + 1)
            cmd_table_cell(ctx, t, "layer %d", l);
        else
            cmd_table_cell(ctx, t, "layers %d-%d", l, end - 1);
        cmd_table_cell(ctx, t, "%s", words);
    }
    double mean = mt_model_mean_active(m);
    if (!facts_active_differs(m, mean))
        return;
    cmd_table_cell(ctx, t, "on average");
    cmd_table_cell(ctx, t, "%.4g experts act in a layer of experts", mean);
}

void cmd_facts_table(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_model *m)
{
    const struct mt_hparams *hp = &m->hp;

    if (m->family == NULL)
        return;
    cmd_table_cell(ctx, t, "layers");
    cmd_table_cell(ctx, t, "%d, hidden size %lld", hp->n_layers, (long long)hp->hidden);
    if (mt_model_only_blocks(m)) {
        facts_ffn_rows(ctx, t, m);
        return;
    }
    facts_attention(ctx, t, hp);
    facts_positions(ctx, t, hp);
    cmd_table_cell(ctx, t, "norms");
    cmd_table_cell(ctx, t, "%s, eps %.3g%s", hp->norm == MT_NORM_RMS ? "RMS" : "layer",
                   hp->norm_eps, hp->norm_offset > 0 ? ", weight + 1" : "");
    if (!hp->given_input) {
        cmd_table_cell(ctx, t, "vocabulary");
        cmd_table_cell(ctx, t, "%lld, %s", (long long)hp->vocab,
                       hp->both_ways ? "no output"
                       : hp->tied    ? "tied output"
                                     : "own output");
        cmd_table_cell(ctx, t, "context");
        cmd_table_cell(ctx, t, "%lld tokens", (long long)hp->max_pos);
    }
    facts_ffn_rows(ctx, t, m);
}

/* ---- JSON ---- */

static void facts_ffn_json(struct mt_json *out, const struct mt_ffn *f)
{
    struct mt_json *r;

    mt_json_set_bool(out, "moe", f->moe);
    mt_json_set_int(out, "width", f->width);
    mt_json_set_str(out, "activation", mt_act_name(f->act));
    mt_json_set_bool(out, "gated", f->gated);
    mt_json_set_bool(out, "in_bias", f->in_bias);
    mt_json_set_bool(out, "out_bias", f->out_bias);
    mt_json_set_int(out, "active_width", mt_ffn_active_width(f));
    if (!f->moe)
        return;
    if (mt_ffn_special(f) != NULL)
        mt_native_write_ffn(f, mt_json_set_object(out, "native"));
    mt_json_set_int(out, "experts", f->n_experts);
    mt_json_set_int(out, "active", f->k);
    if (f->rule.cut != MT_CUT_NONE && f->rule.cut_mean > 0)
        mt_json_set_num(out, "active_mean", f->rule.cut_mean);
    mt_json_set_int(out, "shared_width", f->shared_width);
    mt_json_set_bool(out, "shared_gated", f->shared_gated);
    r = mt_json_set_object(out, "router");
    mt_json_set_str(r, "score", facts_score[f->rule.score]);
    mt_json_set_bool(r, "renormalised", f->rule.renorm);
    mt_json_set_num(r, "scale", f->rule.scale);
    mt_json_set_bool(r, "selection_bias", f->rule.has_bias);
    mt_json_set_int(r, "groups", f->rule.n_group);
    mt_json_set_int(r, "groups_chosen", f->rule.topk_group);
}

static void facts_attention_json(struct mt_json *out, const struct mt_hparams *hp)
{
    struct mt_json *o;

    mt_json_set_int(out, "heads", hp->n_heads);
    mt_json_set_int(out, "kv_heads", hp->n_kv_heads);
    mt_json_set_int(out, "head_dim", hp->head_dim);
    mt_json_set_int(out, "vocab", hp->vocab);
    mt_json_set_int(out, "context", hp->max_pos);
    mt_json_set_str(out, "norm", hp->norm == MT_NORM_RMS ? "rms" : "layer");
    mt_json_set_num(out, "norm_eps", hp->norm_eps);
    mt_json_set_str(out, "qk_norm", facts_qk_norm[hp->qk_norm]);
    mt_json_set_bool(out, "qkv_bias", hp->qkv_bias);
    mt_json_set_bool(out, "o_bias", hp->o_bias);
    mt_json_set_bool(out, "tied", hp->tied);
    mt_json_set_int(out, "sliding_window", hp->sliding_window);
    mt_json_set_bool(out, "both_ways", hp->both_ways);
    if (hp->given_input || hp->learned_pos)
        return;
    o = mt_json_set_object(out, "rope");
    mt_json_set_str(o, "type", facts_rope[hp->rope.type]);
    mt_json_set_num(o, "theta", hp->rope.theta);
    mt_json_set_num(o, "partial", hp->rope.partial);
    if (hp->rope.type != MT_ROPE_DEFAULT)
        mt_json_set_num(o, "factor", hp->rope.factor);
}

void cmd_facts_json(struct mt_json *out, const struct mt_model *m)
{
    const struct mt_hparams *hp = &m->hp;
    struct mt_json *o, *list;

    if (m->family == NULL)
        return;
    mt_json_set_int(out, "layers", hp->n_layers);
    mt_json_set_int(out, "hidden", hp->hidden);
    if (!mt_model_only_blocks(m))
        facts_attention_json(out, hp);
    if (facts_active_differs(m, mt_model_mean_active(m)))
        mt_json_set_num(out, "active_mean", mt_model_mean_active(m));
    list = mt_json_set_array(out, "ffn");
    for (int l = 0, end; m->ffn != NULL && l < hp->n_layers; l = end) {
        end = cmd_ffn_run_end(m, l);
        o = mt_json_add_object(list);
        mt_json_set_int(o, "first_layer", l);
        mt_json_set_int(o, "last_layer", end - 1);
        facts_ffn_json(o, &m->ffn[l]);
    }
}
