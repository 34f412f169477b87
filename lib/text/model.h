/* model.h: the "model" of a tokenizer, which turns pieces of text into ids: BPE or WordPiece.
 *
 * Ownership: opening fills a zeroed struct, mt_text_model_end ends it also after a failure.
 * Threads: the model is read-only; a mt_text_work belongs to one thread at a time.
 */
#ifndef MT_TEXT_MODEL_H
#define MT_TEXT_MODEL_H

#include "lib/text/bpe.h"
#include "lib/text/wordpiece.h"

struct mt_text_model {
    enum { MT_MODEL_BPE, MT_MODEL_WORDPIECE } kind;
    struct mt_bpe bpe;
    struct mt_wordpiece wordpiece;
};
struct mt_text_work {
    struct mt_bpe_work bpe;
    struct mt_text scratch;
};

/* Reads the object "model" of a tokenizer.json. */
MT_NODISCARD mt_status mt_text_model_open(struct mt_ctx *ctx, const struct mt_json *j,
                                          struct mt_text_model *out);
void mt_text_model_end(struct mt_text_model *m);
void mt_text_work_end(struct mt_text_work *w);

const struct mt_vocab_table *mt_text_model_vocab(const struct mt_text_model *m);
/* Appends the ids of one piece; `bytes`: it is raw bytes of the byte-level alphabet. */
MT_NODISCARD mt_status mt_text_model_encode(struct mt_ctx *ctx, const struct mt_text_model *m,
                                            struct mt_text_work *w, const char *s, size_t n,
                                            bool bytes, struct mt_ids *out);

/* A tokenizer of a model that is there already (*taken* also on failure) and of what else a
 * tokenizer.json says: `rest` (taken) is one without "model". */
MT_NODISCARD mt_status mt_tokenizer_assemble(struct mt_ctx *ctx, struct mt_text_model *m,
                                             struct mt_json *rest, const char *what,
                                             struct mt_tokenizer **out);
#endif
