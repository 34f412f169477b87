/* from_vocab.h: the parts that a tokenizer of a GGUF vocabulary is made of.
 *
 * Ownership: *m is zeroed by the caller and ended by him, also after a failure; *rest is given to
 * him, and NULL or to be freed after a failure. Threads: safe. */
#ifndef MT_TEXT_FROM_VOCAB_H
#define MT_TEXT_FROM_VOCAB_H

#include "lib/base/json.h"
#include "lib/text/model.h"

/* The model, and what a tokenizer.json says beside it. */
MT_NODISCARD mt_status mt_vocab_parts(struct mt_ctx *ctx, const struct mt_vocab_desc *v,
                                      struct mt_text_model *m, struct mt_json **rest);
#endif
