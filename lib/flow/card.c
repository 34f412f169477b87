#include "lib/flow/card.h"

#include "lib/base/str.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *card_text(const struct mt_json *j, const char *key, const char *dflt)
{
    const char *s = mt_json_text(mt_json_get(j, key));

    return s != NULL ? s : dflt;
}

static bool card_int(const struct mt_json *j, const char *key, int64_t *v)
{
    return mt_json_integer(mt_json_get(j, key), v);
}

static bool card_num(const struct mt_json *j, const char *key, double *v)
{
    return mt_json_number(mt_json_get(j, key), v);
}

/* 8030261248 -> "8.03 B" */
static const char *card_count(int64_t n, char *buf, size_t size)
{
    static const struct {
        double unit;
        const char *name;
    } units[] = {{1e12, " T"}, {1e9, " B"}, {1e6, " M"}, {1e3, " k"}};

    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if ((double)n >= units[i].unit) {
            snprintf(buf, size, "%.3g%s", (double)n / units[i].unit, units[i].name);
            return buf;
        }
    }
    snprintf(buf, size, "%" PRId64, n);
    return buf;
}

/* YAML reads a plain scalar in many ways; a quoted one in one. */
static void card_yaml(struct mt_str *c, const char *key, const char *value)
{
    mt_str_addf(c, "%s: \"", key);
    for (const char *p = value; *p != '\0'; p++) {
        if (*p == '"' || *p == '\\')
            mt_str_addf(c, "\\%c", *p);
        else if ((unsigned char)*p >= ' ')
            mt_str_addf(c, "%c", *p);
    }
    mt_str_addf(c, "\"\n");
}

/* The native layout, which nobody else loads. */
static bool card_native(const struct mt_json *m)
{
    return strcmp(card_text(mt_json_get(m, "target"), "model_type", ""), "moetool") == 0;
}

static void card_front(struct mt_str *c, const struct mt_json *m, const struct mt_card_opts *o)
{
    const struct mt_json *target = mt_json_get(m, "target");
    int64_t experts;

    mt_str_addf(c, "---\n");
    if (o->base_model != NULL)
        card_yaml(c, "base_model", o->base_model);
    if (o->license != NULL)
        card_yaml(c, "license", o->license);
    if (!card_native(m))
        mt_str_addf(c, "library_name: transformers\npipeline_tag: text-generation\n");
    mt_str_addf(c, "tags:\n- moetool\n");
    if (card_int(mt_json_get(target, "ffn"), "experts", &experts))
        mt_str_addf(c, "- moe\n");
    mt_str_addf(c, "---\n\n# ");
    if (o->title != NULL)
        mt_str_addf(c, "%s\n\n", o->title);
    else
        mt_str_addf(c, "%s made by moetool\n\n",
                    card_text(target, "architecture", card_text(target, "model_type", "Model")));
}

static void card_value(struct mt_str *c, const struct mt_json *v)
{
    double num;
    bool truth;

    if (mt_json_text(v) != NULL)
        mt_str_addf(c, "%s", mt_json_text(v));
    else if (mt_json_number(v, &num))
        mt_str_addf(c, "%.10g", num);
    else if (mt_json_truth(v, &truth))
        mt_str_addf(c, truth ? "yes" : "no");
    else
        mt_str_addf(c, "not given");
}

static void card_made(struct mt_str *c, const struct mt_json *m, const struct mt_card_opts *o)
{
    const struct mt_json *source = mt_json_get(m, "source"), *data = mt_json_get(m, "data");
    int64_t windows, tokens;
    const char *sep = "";

    mt_str_addf(c,
                "## How it was made\n\nmoetool %s made it from %s%s%s (model type %s, identity "
                "`%.16s`).\n\n",
                card_text(m, "moetool", "?"), o->base_model != NULL ? "`" : "a ",
                o->base_model != NULL ? o->base_model : "checkpoint",
                o->base_model != NULL ? "`" : "", card_text(source, "model_type", "unknown"),
                card_text(source, "identity", "?"));
    for (struct mt_json *p = mt_json_first(mt_json_get(m, "passes")); p != NULL;
         p = mt_json_next(p)) {
        mt_str_addf(c, "- `%s`", card_text(p, "name", "?"));
        sep = ": ";
        for (struct mt_json *v = mt_json_first(mt_json_get(p, "options")); v != NULL;
             v = mt_json_next(v)) {
            if (mt_json_kind(v) == MT_JSON_NULL)
                continue;
            mt_str_addf(c, "%s%s ", sep, mt_json_key(v));
            card_value(c, v);
            sep = ", ";
        }
        mt_str_addf(c, "\n");
    }
    if (mt_json_count(mt_json_get(m, "passes")) == 0)
        mt_str_addf(c, "- copied; no tensor was changed\n");
    if (card_int(data, "windows", &windows) && card_int(data, "tokens", &tokens)) {
        mt_str_addf(c, "- calibrated on %" PRId64 " tokens in %" PRId64 " windows (", tokens,
                    windows);
        sep = "";
        for (struct mt_json *d = mt_json_first(mt_json_get(data, "domains")); d != NULL;
             d = mt_json_next(d)) {
            mt_str_addf(c, "%s%s", sep, mt_json_text(d) != NULL ? mt_json_text(d) : "?");
            sep = ", ";
        }
        mt_str_addf(c, "; SHA-256 `%.16s`)\n", card_text(data, "sha256", "?"));
    } else {
        mt_str_addf(c, "- no calibration data were used\n");
    }
    mt_str_addf(c, "\n`moetool.json` holds every setting.\n\n");
}

static void card_row(struct mt_str *c, const char *what, const struct mt_json *a,
                     const struct mt_json *b, const char *key)
{
    char x[32], y[32];
    int64_t v, w;

    if (card_int(a, key, &v) && card_int(b, key, &w))
        mt_str_addf(c, "| %s | %s | %s |\n", what, card_count(v, x, sizeof x),
                    card_count(w, y, sizeof y));
}

static void card_shape(struct mt_str *c, const struct mt_json *m)
{
    const struct mt_json *source = mt_json_get(m, "source"), *target = mt_json_get(m, "target");
    const struct mt_json *ffn = mt_json_get(target, "ffn");
    int64_t experts, active, width, shared, layers, moe, hidden;
    double mean;

    mt_str_addf(c, "## Shape\n\n| | source | this model |\n|---|---|---|\n");
    mt_str_addf(c, "| model type | %s | %s |\n", card_text(source, "model_type", "unknown"),
                card_text(target, "model_type", "unknown"));
    card_row(c, "parameters", source, target, "parameters");
    card_row(c, "acting for a token", source, target, "parameters_active");
    card_row(c, "bytes of tensors", source, target, "bytes");
    mt_str_addf(c, "\n");
    if (!card_int(ffn, "layers", &layers) || !card_int(ffn, "width", &width) ||
        !card_int(ffn, "hidden", &hidden) || !card_int(ffn, "moe_layers", &moe))
        return;
    mt_str_addf(c, "%" PRId64 " layers of width %" PRId64 ". ", layers, hidden);
    if (card_int(ffn, "experts", &experts) && card_int(ffn, "active", &active) &&
        card_int(ffn, "shared_width", &shared)) {
        if (moe == layers)
            mt_str_addf(c, "All");
        else
            mt_str_addf(c, "%" PRId64 " of them", moe);
        mt_str_addf(c, " have %" PRId64 " routed experts of width %" PRId64 ", ", experts, width);
        if (card_num(ffn, "active_mean", &mean))
            mt_str_addf(c, "%.4g of which act for a token on average", mean);
        else
            mt_str_addf(c, "%" PRId64 " of which act for a token", active);
        if (shared > 0)
            mt_str_addf(c, ", and a shared one of width %" PRId64, shared);
        mt_str_addf(c, ".\n\n");
    } else {
        mt_str_addf(c, "Dense feed-forward blocks of width %" PRId64 ".\n\n", width);
    }
}

static void card_domains(struct mt_str *c, const struct mt_json *list)
{
    double kl, ref, cand;

    if (mt_json_count(list) < 2)
        return;
    mt_str_addf(c,
                "| text | KL | perplexity, source | perplexity, this model |\n|---|---|---|---|\n");
    for (struct mt_json *d = mt_json_first(list); d != NULL; d = mt_json_next(d)) {
        if (card_num(d, "kl_mean", &kl) && card_num(d, "nll_ref", &ref) &&
            card_num(d, "nll_cand", &cand))
            mt_str_addf(c, "| %s | %.4g | %.4g | %.4g |\n", card_text(d, "name", "?"), kl, exp(ref),
                        exp(cand));
    }
    mt_str_addf(c, "\n");
}

/* An encoder: there are no logits. */
static bool card_state_error(struct mt_str *c, const struct mt_json *v)
{
    int64_t tokens;
    double error;

    if (!card_num(v, "state_error", &error) || !card_int(v, "n_tokens", &tokens))
        return false;
    mt_str_addf(c,
                "Relative error of the last hidden states, |y' - y| / |y|, over %" PRId64
                " tokens: %.4g.\n\n",
                tokens, error);
    return true;
}

/* Where only blocks could be compared. */
static bool card_ffn_errors(struct mt_str *c, const struct mt_json *v)
{
    const struct mt_json *list = mt_json_get(v, "layers");
    double all, one;
    int64_t inputs;
    int l = 0;

    if (!card_num(v, "ffn_error", &all) || !card_int(v, "ffn_inputs", &inputs))
        return false;
    mt_str_addf(
        c,
        "The source could not be run, so only its FFNs were compared: relative error of their "
        "outputs, |y' - y| / |y|, on %" PRId64 " inputs that were held out. What that means "
        "for the whole model is unknown.\n\n| layer | error |\n|---|---|\n",
        inputs);
    for (const struct mt_json *j = mt_json_first(list); j != NULL; j = mt_json_next(j), l++)
        if (mt_json_number(j, &one))
            mt_str_addf(c, "| %d | %.4g |\n", l, one);
    mt_str_addf(c, "| all | %.4g |\n\n", all);
    return true;
}

static void card_figures(struct mt_str *c, const struct mt_json *v)
{
    double kl, err, p99, ref, cand, top1;
    int64_t tokens;

    mt_str_addf(c, "## Measured against the source\n\n");
    if (card_ffn_errors(c, v) || card_state_error(c, v))
        return;
    if (!card_num(v, "kl_mean", &kl)) {
        mt_str_addf(c, "Nothing was measured when this model was written. `moetool validate SOURCE "
                       "THIS --data TEXT` compares the two.\n\n");
        return;
    }
    mt_str_addf(c, "| | |\n|---|---|\n");
    if (card_int(v, "n_tokens", &tokens))
        mt_str_addf(c, "| predicted tokens | %" PRId64 " |\n", tokens);
    mt_str_addf(c, "| KL(source, this), nats per token | %.4g", kl);
    if (card_num(v, "kl_stderr", &err))
        mt_str_addf(c, " ± %.2g", err);
    mt_str_addf(c, " |\n");
    if (card_num(v, "kl_p99", &p99))
        mt_str_addf(c, "| KL, 99th percentile | %.4g |\n", p99);
    if (card_num(v, "ppl_ref", &ref) && card_num(v, "ppl_cand", &cand))
        mt_str_addf(c, "| perplexity, source | %.5g |\n| perplexity, this model | %.5g |\n", ref,
                    cand);
    if (card_num(v, "top1", &top1))
        mt_str_addf(c, "| same most likely token | %.2f %% |\n", top1 * 100);
    mt_str_addf(c, "\n");
    card_domains(c, mt_json_get(v, "domains"));
}

static void card_load(struct mt_str *c, const struct mt_json *m)
{
    const char *format = card_text(mt_json_get(m, "target"), "format", "safetensors");

    if (strcmp(format, "safetensors") != 0)
        return;
    if (card_native(m)) {
        mt_str_addf(c,
                    "## Loading\n\nThis is moetool's own layout, which transformers, vLLM and "
                    "llama.cpp do not load; `moetool inspect PATH` tells what it holds and whether "
                    "it runs.\n\n");
        return;
    }
    mt_str_addf(c, "## Loading\n\n```python\nfrom transformers import AutoModelForCausalLM, "
                   "AutoTokenizer\n\nmodel = AutoModelForCausalLM.from_pretrained(\"PATH\", "
                   "dtype=\"auto\")\ntokenizer = AutoTokenizer.from_pretrained(\"PATH\")\n```\n\n"
                   "```\nvllm serve PATH\n```\n\n");
}

static void card_limits(struct mt_str *c, const struct mt_json *validation)
{
    mt_str_addf(c, "## Limits\n\nIt carries the source's knowledge, faults and licence terms. ");
    if (validation != NULL)
        mt_str_addf(c, "The figures above hold for the text they were measured on. ");
    mt_str_addf(c, "Try it on your own text before you rely on it.\n");
}

mt_status mt_card_write(struct mt_ctx *ctx, struct mt_outdir *out, const struct mt_json *manifest,
                        const struct mt_json *validation, const struct mt_card_opts *opts)
{
    static const struct mt_card_opts none = {0};
    struct mt_str c;

    mt_str_begin(ctx, &c, "model card");
    if (opts == NULL)
        opts = &none;
    card_front(&c, manifest, opts);
    card_made(&c, manifest, opts);
    card_shape(&c, manifest);
    card_figures(&c, validation);
    card_load(&c, manifest);
    card_limits(&c, validation);
    if (c.st == MT_OK)
        c.st = mt_outdir_text(ctx, out, "README.md", c.p, c.n);
    mt_str_free(&c);
    return c.st;
}
