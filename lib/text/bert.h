/* bert.h: what BERT's tokenizers have around their vocabulary. */
#ifndef MT_TEXT_BERT_H
#define MT_TEXT_BERT_H

#include "lib/base/json.h"
#include "lib/text/wordpiece.h"

/* A tokenizer.json without "model": BERT's normalizer and pre-tokenizer, those special tokens that
 * the vocabulary has, [CLS] and [SEP] around the text when it has both. *Given*. */
MT_NODISCARD mt_status mt_bert_rest(struct mt_ctx *ctx, const struct mt_wordpiece *m, bool lower,
                                    struct mt_json **out);
#endif
