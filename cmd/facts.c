#include "cmd/facts.h"

#include "lib/ir/blocks.h"
#include "lib/ir/family.h"

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

static void facts_router_words(const struct mt_router_rule *r, char *buf, size_t n)
{
    char part[64];
    size_t at = facts_add(buf, n, 0, facts_score[r->score]);

    if (fabs(r->scale - 1) > 0) {
        snprintf(part, sizeof part, ", scale %.6g", r->scale);
        at = facts_add(buf, n, at, part);
    }
    if (r->score != MT_SCORE_SOFTMAX_TOPK)
        at = facts_add(buf, n, at, r->renorm ? ", renormalised" : ", not renormalised");
    if (r->has_bias)
        at = facts_add(buf, n, at, ", selection bias");
    if (r->n_group > 1) {
        snprintf(part, sizeof part, ", best %d of %d groups", r->topk_group, r->n_group);
        facts_add(buf, n, at, part);
    }
}

void cmd_ffn_words(const struct mt_ffn *f, char *buf, size_t n)
{
    char shared[64] = "", router[160];

    if (!f->moe) {
        snprintf(buf, n, "dense, width %lld, %s%s%s", (long long)f->width, mt_act_name(f->act),
                 f->gated ? ", gated" : "", f->in_bias || f->out_bias ? ", biases" : "");
        return;
    }
    if (f->shared_width > 0)
        snprintf(shared, sizeof shared, ", shared %lld%s", (long long)f->shared_width,
                 f->shared_gated ? " (gated)" : "");
    facts_router_words(&f->rule, router, sizeof router);
    snprintf(buf, n, "%d experts x %lld, top-%d%s, %s; router: %s", f->n_experts,
             (long long)f->width, f->k, shared, mt_act_name(f->act), router);
}

static bool facts_same_ffn(const struct mt_ffn *a, const struct mt_ffn *b)
{
    char x[320], y[320];

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

static void facts_ffn_rows(struct mt_ctx *ctx, struct cmd_table *t, const struct mt_model *m)
{
    char words[320];

    for (int l = 0, end; m->ffn != NULL && l < m->hp.n_layers; l = end) {
        end = cmd_ffn_run_end(m, l);
        cmd_ffn_words(&m->ffn[l], words, sizeof words);
        if (end == l + 1)
            cmd_table_cell(ctx, t, "layer %d", l);
        else
            cmd_table_cell(ctx, t, "layers %d-%d", l, end - 1);
        cmd_table_cell(ctx, t, "%s", words);
    }
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
    mt_json_set_int(out, "experts", f->n_experts);
    mt_json_set_int(out, "active", f->k);
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
    list = mt_json_set_array(out, "ffn");
    for (int l = 0, end; m->ffn != NULL && l < hp->n_layers; l = end) {
        end = cmd_ffn_run_end(m, l);
        o = mt_json_add_object(list);
        mt_json_set_int(o, "first_layer", l);
        mt_json_set_int(o, "last_layer", end - 1);
        facts_ffn_json(o, &m->ffn[l]);
    }
}
