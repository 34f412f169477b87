/* gguf_vocab.h: the tokenizer that a GGUF file carries.
 *
 * tokenizer.huggingface.json is read as it is when it is there; else tokenizer.ggml.* (spec:
 * formats, 4.4) as lib/text/tokenizer.h says. Arrays of another length or item than theirs are
 * refused by key. Threads: safe. */
#ifndef MT_FORMATS_GGUF_VOCAB_H
#define MT_FORMATS_GGUF_VOCAB_H

#include "lib/text/tokenizer.h"

/* The first file of a split. MT_E_ABSENT when the file carries no tokenizer. */
MT_NODISCARD mt_status mt_tokenizer_open_gguf(struct mt_ctx *ctx, const char *path,
                                              struct mt_tokenizer **out);

/* For a directory made of the file: tokenizer.json (lib/text/tokenizer.h, mt_vocab_to_json), and
 * the special tokens and the chat template as tokenizer_config.json; *given*, NUL-ended. Statuses
 * as above. */
MT_NODISCARD mt_status mt_gguf_tokenizer_json(struct mt_ctx *ctx, const char *path, char **text,
                                              size_t *n);
MT_NODISCARD mt_status mt_gguf_tokenizer_config(struct mt_ctx *ctx, const char *path, char **text,
                                                size_t *n);

/* tokenizer.chat_template and the texts of BOS and EOS; *given* by mt_alloc, NULL where the file
 * has none. */
struct mt_gguf_chat {
    char *template_text, *bos, *eos;
};
MT_NODISCARD mt_status mt_gguf_chat_read(struct mt_ctx *ctx, const char *path,
                                         struct mt_gguf_chat *out);
void mt_gguf_chat_free(struct mt_gguf_chat *c);
#endif
