/* The tokenizer beside a model. */
#include "cmd/cmd.h"

#include "formats/gguf_vocab.h"

#include "lib/base/json.h"

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
