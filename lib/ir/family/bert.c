/* BERT: token, position and type vectors, attention both ways, norms on the sums, biases
 * everywhere; names with or without `bert.`, norms also by their old names gamma and beta. */
#include "lib/ir/family.h"

#include <string.h>

#define BERT_NORM(name, kind)                                                                      \
    MT_ROW(name ".weight", kind), MT_ROW_BIAS(name ".bias", kind), MT_ROW(name ".gamma", kind),    \
        MT_ROW_BIAS(name ".beta", kind)
#define BERT_ROWS(prefix)                                                                          \
    MT_ROW(prefix "embeddings.word_embeddings.weight", EMBED),                                     \
        MT_ROW(prefix "embeddings.position_embeddings.weight", POS_EMBED),                         \
        MT_ROW(prefix "embeddings.token_type_embeddings.weight", TYPE_EMBED),                      \
        BERT_NORM(prefix "embeddings.LayerNorm", EMBED_NORM),                                      \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.self.query", ATTN_Q),                    \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.self.key", ATTN_K),                      \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.self.value", ATTN_V),                    \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.attention.output.dense", ATTN_O),                  \
        BERT_NORM(prefix "encoder.layer.%l.attention.output.LayerNorm", FFN_NORM),                 \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.intermediate.dense", FFN_UP),                      \
        MT_ROWS_LINEAR(prefix "encoder.layer.%l.output.dense", FFN_DOWN),                          \
        BERT_NORM(prefix "encoder.layer.%l.output.LayerNorm", FFN_POST_NORM)

static const struct mt_name_row bert_names[] = {
    BERT_ROWS("bert."),
    BERT_ROWS(""),
    MT_ROWS_END,
};

static mt_status bert_read_config(struct mt_ctx *ctx, struct mt_model *m)
{
    const struct mt_json *cfg = m->config;
    struct mt_hparams *hp = &m->hp;
    int64_t types;
    const char *positions;
    bool decoder;

    MT_TRY(mt_cfg_int(ctx, cfg, "vocab_size", 30522, 1, INT32_MAX, &hp->vocab));
    MT_TRY(mt_cfg_int(ctx, cfg, "max_position_embeddings", 512, 1, MT_DIM_MAX, &hp->max_pos));
    MT_TRY(mt_cfg_int(ctx, cfg, "type_vocab_size", 2, 0, 65536, &types));
    MT_TRY(mt_json_get_str(ctx, cfg, "position_embedding_type", "absolute", &positions));
    MT_TRY(mt_json_get_bool(ctx, cfg, "is_decoder", false, &decoder));
    if (strcmp(positions, "absolute") != 0)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "position_embedding_type \"%s\" is not known here",
                       positions);
    if (decoder)
        return mt_fail(ctx, MT_E_UNSUPPORTED, "BERT as a decoder is not known here");
    MT_TRY(mt_cfg_read_encoder(ctx, m, "intermediate_size"));
    hp->learned_pos = true;
    hp->norm_sums = true;
    hp->n_types = (int)types;
    return MT_OK;
}

const struct mt_family mt_family_bert = {
    .name = "bert",
    .architecture = "BertModel",
    .names = bert_names,
    .read_config = bert_read_config,
};
