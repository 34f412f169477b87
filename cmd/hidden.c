#include "cmd/hidden.h"

#include "cmd/table.h"
#include "formats/safetensors.h"
#include "lib/run/encode.h"

#include <stdio.h>
#include <string.h>

static mt_status hidden_file(struct mt_ctx *ctx, const char *path, struct mt_model **out)
{
    struct mt_model *m;
    mt_status st;

    *out = NULL;
    MT_TRY(mt_model_create(ctx, &m));
    m->format = "safetensors";
    st = mt_arena_strndup(ctx, &m->arena, path, strlen(path), &m->path);
    if (st == MT_OK)
        st = mt_st_add_file(ctx, m, path);
    if (st != MT_OK) {
        mt_model_free(m);
        return mt_wrap(ctx, st, "--hidden");
    }
    *out = m;
    return MT_OK;
}

mt_status cmd_hidden_open(struct mt_ctx *ctx, const char *file, const char *model,
                          const struct cmd_blocks *o, struct cmd_hidden *out, struct mt_model **m)
{
    const char *slash = file != NULL ? strrchr(file, '/') : NULL;
    struct mt_model *states;
    mt_status st;

    if (file == NULL)
        return cmd_open_blocks(ctx, model, o, 0, false, m);
    MT_TRY(hidden_file(ctx, file, &states));
    st = cmd_open_blocks(ctx, model, o, mt_hidden_size(states), false, m);
    if (st == MT_OK && (*m)->family == NULL)
        st = mt_fail(ctx, MT_E_OPTION,
                     "%s: model_type %s is not known, so its FFNs are not: --ffn PATTERN tells "
                     "where they are",
                     model, (*m)->model_type != NULL ? (*m)->model_type : "(none)");
    if (st != MT_OK) {
        mt_model_free(states);
        return st;
    }
    MT_TRY(mt_wrap(ctx,
                   mt_hidden_open(ctx, states, slash != NULL ? slash + 1 : file, (*m)->hp.n_layers,
                                  (*m)->hp.hidden, &out->h),
                   "--hidden"));
    out->on = true;
    return MT_OK;
}

bool cmd_hidden_measures(const struct cmd_hidden *c)
{
    return c->on || c->texts != NULL;
}

void cmd_hidden_free(struct cmd_hidden *c)
{
    for (int i = 0; i < c->n; i++)
        mt_free(c->error[i]);
    if (c->on)
        mt_hidden_free(&c->h);
    *c = (struct cmd_hidden){0};
}

mt_status cmd_hidden_measure(struct mt_ctx *ctx, struct cmd_hidden *c, const struct mt_model *ref,
                             const struct mt_model *cand, struct mt_device *dev, const char *name)
{
    mt_assert(c->n < CMD_HIDDEN_MODELS);
    MT_TRY(mt_alloc0(ctx, (size_t)c->h.n_layers + 1, sizeof(double), "errors", &c->error[c->n]));
    c->name[c->n] = name;
    if (c->texts != NULL)
        return mt_encode_compare(ctx, ref, cand, dev, c->texts, c->error[c->n++]);
    return mt_hidden_errors(ctx, &c->h, ref, cand, dev, c->error[c->n++]);
}

uint64_t cmd_hidden_bytes(const struct cmd_hidden *c)
{
    /* Texts: batches of what has been run for calibration already. */
    return c->on ? mt_hidden_error_bytes(&c->h) : 0;
}

static int hidden_closest(const struct cmd_hidden *c, int from)
{
    int best = from, last = c->h.n_layers;

    for (int i = from + 1; i < c->n; i++)
        if (c->error[i][last] < c->error[best][last])
            best = i;
    return best;
}

static int64_t hidden_held(const struct cmd_hidden *c)
{
    int64_t sum = 0;

    for (int l = 0; l < c->h.n_layers; l++)
        sum += c->h.layer[l]->shape[0] - c->h.n_fit[l];
    return sum;
}

mt_status cmd_hidden_print(struct mt_ctx *ctx, const struct cmd_hidden *c)
{
    int last = c->h.n_layers, best;
    struct cmd_table t;
    mt_status st;

    if (c->texts != NULL)
        printf("\nrelative error of the last hidden states of %zu tokens\n\n", c->texts->n_tokens);
    else
        printf(
            "\nrelative error of FFN outputs on %lld inputs that were held out; what it means for "
            "the\nwhole model is not known, because that does not run here\n\n",
            (long long)hidden_held(c));
    cmd_table_begin(&t, &"rrrrrrrrr"[CMD_HIDDEN_MODELS - c->n]);
    cmd_table_cell(ctx, &t, "layer");
    for (int i = 0; i < c->n; i++)
        cmd_table_cell(ctx, &t, "%s%s", i > 0 ? "pruned: " : "", c->name[i]);
    for (int l = 0; l <= last; l++) {
        if (l < last)
            cmd_table_cell(ctx, &t, "%d", l);
        else
            cmd_table_cell(ctx, &t, "all");
        for (int i = 0; i < c->n; i++)
            cmd_table_cell(ctx, &t, "%.4g", c->error[i][l]);
    }
    st = cmd_table_print(ctx, &t, stdout);
    cmd_table_free(&t);
    if (c->n < 2 || st != MT_OK)
        return st;
    best = hidden_closest(c, 1);
    if (c->error[0][last] <= c->error[best][last])
        printf("\nthe experts are closer to the original than static pruning (best: %s): %.3g "
               "against %.3g,\nat the same active parameters\n",
               c->name[best], c->error[0][last], c->error[best][last]);
    else
        printf("\nstatic pruning (%s) is closer to the original: %.3g against %.3g of the "
               "experts,\nat the same active parameters\n",
               c->name[best], c->error[best][last], c->error[0][last]);
    return MT_OK;
}

void cmd_hidden_json(struct mt_json *out, const struct cmd_hidden *c)
{
    const char *key = c->texts != NULL ? "state_error" : "ffn_error";
    struct mt_json *list, *o;
    int last = c->h.n_layers;

    if (c->n == 0)
        return;
    mt_json_set_num(out, key, c->error[0][last]);
    if (c->texts != NULL) {
        mt_json_set_int(out, "n_tokens", (int64_t)c->texts->n_tokens);
    } else {
        mt_json_set_int(out, "ffn_inputs", hidden_held(c));
        list = mt_json_set_array(out, "layers");
        for (int l = 0; l < last; l++)
            mt_json_add_num(list, c->error[0][l]);
    }
    if (c->n == 1)
        return;
    list = mt_json_set_array(out, "pruned");
    for (int i = 1; i < c->n; i++) {
        o = mt_json_add_object(list);
        mt_json_set_str(o, "name", c->name[i]);
        mt_json_set_num(o, key, c->error[i][last]);
    }
}
