#include "lib/text/model.h"

#include <string.h>

/* Files of 2020 have no type; what has merges is BPE. */
static mt_status model_type(struct mt_ctx *ctx, const struct mt_json *j, const char **type)
{
    if (mt_json_kind(j) != MT_JSON_OBJECT)
        return mt_fail(ctx, MT_E_FORMAT, "\"model\" is missing or not an object");
    MT_TRY(mt_json_get_str(ctx, j, "type", NULL, type));
    if (*type == NULL && mt_json_get(j, "merges") != NULL)
        *type = "BPE";
    else if (*type == NULL && mt_json_get(j, "max_input_chars_per_word") != NULL)
        *type = "WordPiece";
    if (*type == NULL)
        return mt_fail(ctx, MT_E_FORMAT, "the model has no \"type\"");
    return MT_OK;
}

mt_status mt_text_model_open(struct mt_ctx *ctx, const struct mt_json *j, struct mt_text_model *m)
{
    const char *type = "";

    MT_TRY(model_type(ctx, j, &type));
    if (strcmp(type, "WordPiece") == 0) {
        m->kind = MT_MODEL_WORDPIECE;
        return mt_wordpiece_open(ctx, j, &m->wordpiece);
    }
    m->kind = MT_MODEL_BPE;
    return mt_bpe_open(ctx, j, &m->bpe);
}

void mt_text_model_end(struct mt_text_model *m)
{
    mt_bpe_end(&m->bpe);
    mt_wordpiece_end(&m->wordpiece);
}

void mt_text_work_end(struct mt_text_work *w)
{
    mt_bpe_work_end(&w->bpe);
    mt_text_end(&w->scratch);
}

const struct mt_vocab_table *mt_text_model_vocab(const struct mt_text_model *m)
{
    return m->kind == MT_MODEL_BPE ? &m->bpe.vocab : &m->wordpiece.vocab;
}

mt_status mt_text_model_encode(struct mt_ctx *ctx, const struct mt_text_model *m,
                               struct mt_text_work *w, const char *s, size_t n, bool bytes,
                               struct mt_ids *out)
{
    if (m->kind == MT_MODEL_BPE)
        return mt_bpe_encode(ctx, &m->bpe, &w->bpe, s, n, bytes, out);
    if (bytes) {
        /* A word of the byte-level alphabet, as the reference library would hand it on. */
        MT_TRY(mt_bpe_map_bytes(ctx, &w->bpe.mapped, s, n));
        s = w->bpe.mapped.s;
        n = w->bpe.mapped.n;
    }
    return n == 0 ? MT_OK : mt_wordpiece_encode(ctx, &m->wordpiece, &w->scratch, s, n, out);
}
