#include "cmd/cmd.h"

#include "lib/base/json.h"
#include "lib/base/mem.h"
#include "lib/run/generate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct generate_opts {
    int64_t max_tokens;
    double temperature, top_p;
    bool no_bos;
};

static const struct mt_opt generate_opt_table[] = {
    MT_OPT_INT(struct generate_opts, max_tokens, "max-tokens", 'n', "N", "128", 1, 1 << 20,
               "stop after N new tokens"),
    MT_OPT_NUM(struct generate_opts, temperature, "temperature", 't', "X", "0", 0, 100,
               "0 takes the most likely token each time; larger is bolder"),
    MT_OPT_NUM(struct generate_opts, top_p, "top-p", 'p', "X", "1", 0, 1,
               "draw from the most likely tokens that together have this share"),
    MT_OPT_BOOL(struct generate_opts, no_bos, "no-bos", 0,
                "do not put the model's BOS token before the prompt"),
    MT_OPT_END,
};

struct generate {
    const struct mt_tokenizer *tok;
    struct mt_ids ids;
    size_t printed; /* bytes of the text that stand on stdout */
};

/* Bytes of text[0..n) that end with a whole character. */
static size_t generate_whole(const char *text, size_t n)
{
    size_t back = 0;

    while (back < 3 && back < n && ((unsigned char)text[n - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back >= n)
        return n;
    unsigned char lead = (unsigned char)text[n - 1 - back];
    size_t want = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    return want > back + 1 ? n - 1 - back : n;
}

/* Decoding starts over each time: what a token prints depends on its neighbours. */
static mt_status generate_show(struct mt_ctx *ctx, struct generate *g, bool last)
{
    char *text;
    size_t n;

    MT_TRY(mt_tokenizer_decode(ctx, g->tok, g->ids.v, g->ids.n, true, &text, &n));
    size_t end = last ? n : generate_whole(text, n);
    if (end > g->printed) {
        fwrite(text + g->printed, 1, end - g->printed, stdout);
        fflush(stdout);
        g->printed = end;
    }
    mt_free(text);
    return MT_OK;
}

static mt_status generate_token(struct mt_ctx *ctx, void *arg, int32_t id)
{
    (void)id; /* already appended to ids */
    return generate_show(ctx, arg, false);
}

static mt_status generate_prompt(struct mt_ctx *ctx, const struct generate_opts *o,
                                 const struct mt_model *m, const char *prompt, struct generate *g)
{
    int64_t bos = m->hp.bos_id;

    if (!o->no_bos && bos >= 0 && !mt_tokenizer_adds_bos(g->tok))
        MT_TRY(mt_ids_push(ctx, &g->ids, (int32_t)bos));
    MT_TRY(mt_tokenizer_encode(ctx, g->tok, prompt, strlen(prompt),
                               o->no_bos ? 0 : MT_ENCODE_SPECIAL, &g->ids));
    if (g->ids.n == 0)
        return mt_fail(ctx, MT_E_OPTION, "the prompt is empty%s",
                       o->no_bos ? "; without --no-bos the BOS token would stand first"
                                 : " and the model has no BOS token");
    return MT_OK;
}

static mt_status generate_json(struct mt_ctx *ctx, const struct generate *g,
                               const struct mt_generate_stats *s)
{
    struct mt_json *root, *list;
    mt_status st;
    char *text;
    size_t n;

    MT_TRY(mt_tokenizer_decode(ctx, g->tok, g->ids.v, g->ids.n, true, &text, &n));
    root = mt_json_new_object();
    mt_json_set_str(root, "text", text);
    mt_free(text);
    mt_json_set_int(root, "prompt_tokens", s->prompt_tokens);
    mt_json_set_int(root, "new_tokens", s->new_tokens);
    mt_json_set_num(root, "prompt_seconds", s->prompt_seconds);
    mt_json_set_num(root, "new_seconds", s->new_seconds);
    list = mt_json_set_array(root, "ids");
    for (size_t i = 0; i < g->ids.n; i++)
        mt_json_add_int(list, g->ids.v[i]);
    st = cmd_print_json(ctx, root);
    return st;
}

static mt_status generate_text(struct mt_ctx *ctx, const struct cmd_args *a,
                               const struct mt_model *m, struct mt_device *dev, struct generate *g)
{
    const struct generate_opts *o = a->opts;
    const struct mt_generate_opts opts = {.max_tokens = o->max_tokens,
                                          .temperature = o->temperature,
                                          .top_p = o->top_p,
                                          .seed = mt_ctx_seed(ctx),
                                          .eos_id = m->hp.eos_id,
                                          .allow_nan = a->common->allow_nan};
    struct mt_generate_stats stats = {0};
    bool json = a->common->json;

    MT_TRY(generate_prompt(ctx, o, m, a->pos->v[1], g));
    MT_TRY(mt_generate(ctx, m, dev, &opts, &g->ids, json ? NULL : generate_token, g, &stats));
    MT_TRY(cmd_check_finite(ctx, a, m, stats.not_finite ? NAN : 0));
    if (json)
        return generate_json(ctx, g, &stats);
    MT_TRY(generate_show(ctx, g, true));
    putchar('\n');
    if (stats.new_seconds > 0)
        mt_log(ctx, MT_LOG_DEBUG, "%lld tokens, %.1f tokens/s", (long long)stats.new_tokens,
               (double)stats.new_tokens / stats.new_seconds);
    return MT_OK;
}

static mt_status generate_with_model(struct mt_ctx *ctx, const struct cmd_args *a,
                                     const struct mt_model *m)
{
    struct generate g = {0};
    struct mt_tokenizer *tok;
    struct mt_device *dev;
    mt_status st;

    MT_TRY(cmd_check_predicts(ctx, m));
    MT_TRY(cmd_open_tokenizer(ctx, m, &tok));
    g.tok = tok;
    st = cmd_open_device(ctx, a, &dev);
    if (st == MT_OK) {
        st = generate_text(ctx, a, m, dev, &g);
        mt_device_close(dev);
    }
    mt_ids_free(&g.ids);
    mt_tokenizer_free(tok);
    return st;
}

static mt_status generate_run(struct mt_ctx *ctx, const struct cmd_args *a)
{
    struct mt_model *m;
    mt_status st;

    MT_TRY(cmd_open_model(ctx, a->pos->v[0], &m));
    st = generate_with_model(ctx, a, m);
    mt_model_free(m);
    return st;
}

static const struct cmd_example generate_examples[] = {
    {"generate moe \"Once upon a time\"", "the most likely continuation"},
    {"generate moe \"Dear Sir,\" --temperature 0.8 --top-p 0.9 --seed 7 -n 200",
     "drawn at random, repeatably"},
    {NULL, NULL},
};

const struct cmd_command mt_cmd_generate = {
    .name = "generate",
    .summary = "text from a model, to see with one's own eyes",
    .synopsis = "MODEL PROMPT",
    .help = "Continues a prompt, token by token as they come. The prompt is taken as it is: no "
            "chat template is applied. Stops at the end-of-text token, after --max-tokens, or "
            "where the model's context ends.",
    .examples = generate_examples,
    .opts = generate_opt_table,
    .opts_size = sizeof(struct generate_opts),
    .args_min = 2,
    .args_max = 2,
    .run = generate_run,
};
