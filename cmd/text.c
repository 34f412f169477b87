/* The tokenizer and the chat template beside a model. */
#include "cmd/cmd.h"

#include "lib/base/json.h"
#include "lib/base/map.h"
#include "lib/base/mem.h"

#include <string.h>

#define TEXT_JSON_BYTES_MAX ((size_t)64 << 20)

static const char *text_sidecar(const struct mt_model *m, const char *name)
{
    for (size_t i = 0; i < m->n_sidecars; i++) {
        if (strcmp(m->sidecars[i].name, name) == 0)
            return m->sidecars[i].path;
    }
    return NULL;
}

/* Only a vocab.txt: BERT's, uncased unless tokenizer_config.json says otherwise. */
static mt_status text_open_bert(struct mt_ctx *ctx, const struct mt_model *m, const char *vocab,
                                struct mt_tokenizer **t)
{
    const char *config = text_sidecar(m, "tokenizer_config.json");
    struct mt_json *j;
    bool lower = true;
    mt_status st;

    if (config != NULL) {
        MT_TRY(mt_json_read(ctx, config, TEXT_JSON_BYTES_MAX, &j));
        st = mt_json_get_bool(ctx, j, "do_lower_case", true, &lower);
        mt_json_free(j);
        MT_TRY(mt_wrap(ctx, st, "%s", config));
    }
    return mt_tokenizer_open_bert(ctx, vocab, lower, t);
}

mt_status cmd_open_tokenizer(struct mt_ctx *ctx, const struct mt_model *m, struct mt_tokenizer **t)
{
    const char *path = text_sidecar(m, "tokenizer.json");
    const char *vocab = text_sidecar(m, "vocab.txt");

    if (path == NULL && vocab != NULL)
        return text_open_bert(ctx, m, vocab, t);
    if (path == NULL && strcmp(m->format, "gguf") == 0)
        return mt_tokenizer_open_gguf(ctx, m->path, t);
    if (path == NULL)
        return mt_fail(ctx, MT_E_ABSENT,
                       "%s: no tokenizer.json beside the model; text cannot be turned into tokens",
                       m->path);
    return mt_tokenizer_open(ctx, path, t);
}

/* A token's text: a string, or an object with "content". */
static const char *text_token(const struct mt_json *config, const char *key)
{
    const struct mt_json *j = mt_json_get(config, key);
    const char *s = mt_json_text(j);

    return s != NULL ? s : mt_json_text(mt_json_get(j, "content"));
}

/* "chat_template": a string, or a list of them with names, where "default" counts. */
static const char *text_template(const struct mt_json *config)
{
    const struct mt_json *list = mt_json_get(config, "chat_template");

    if (mt_json_kind(list) == MT_JSON_ARRAY)
        for (const struct mt_json *j = mt_json_first(list); j != NULL; j = mt_json_next(j)) {
            const char *name = mt_json_text(mt_json_get(j, "name"));
            if (name != NULL && strcmp(name, "default") == 0)
                return mt_json_text(mt_json_get(j, "template"));
        }
    return mt_json_text(list);
}

mt_status cmd_open_chat(struct mt_ctx *ctx, const struct mt_model *m, struct cmd_chat *out)
{
    const char *config = text_sidecar(m, "tokenizer_config.json");
    const char *jinja = text_sidecar(m, "chat_template.jinja");
    size_t n;

    *out = (struct cmd_chat){0};
    if (config == NULL && jinja == NULL && strcmp(m->format, "gguf") == 0) {
        MT_TRY(mt_gguf_chat_read(ctx, m->path, &out->gguf));
        out->chat = (struct mt_chat){
            .template_text = out->gguf.template_text, .bos = out->gguf.bos, .eos = out->gguf.eos};
        return MT_OK;
    }
    if (config != NULL)
        MT_TRY(mt_json_read(ctx, config, TEXT_JSON_BYTES_MAX, &out->config));
    out->chat = (struct mt_chat){.template_text = text_template(out->config),
                                 .bos = text_token(out->config, "bos_token"),
                                 .eos = text_token(out->config, "eos_token")};
    if (jinja != NULL) {
        MT_TRY(mt_read_file(ctx, jinja, TEXT_JSON_BYTES_MAX, &out->jinja, &n));
        out->chat.template_text = out->jinja;
    }
    return MT_OK;
}

void cmd_chat_free(struct cmd_chat *c)
{
    mt_json_free(c->config);
    mt_free(c->jinja);
    mt_gguf_chat_free(&c->gguf);
    *c = (struct cmd_chat){0};
}
